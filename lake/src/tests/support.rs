use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{
    ArrayRef, AsArray, BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray,
};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimeUnit};
use broker::{
    Ack, Append, Batch, BatchBuilder, Broker, BrokerConfig, Change, Clock, Durability, NewTopic, Offset, Origin,
};
use datafusion::catalog::TableProvider;
use futures::future::BoxFuture;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};

use crate::Offsets;
use crate::config::{LakeConfig, SliceColumn, SqlLimits, TableConfig};
use crate::error::{LakeError, Result};
use crate::lake::{Lake, Parts};
use crate::layout::Layout;
use crate::query::{SqlAnswer, SqlRequest};
use crate::settle::{Fault, Step};
use crate::tables::Table;
use crate::views::Views;
use crate::writer::WriteLimits;

pub const TOPIC: &str = "listens";
pub const DAY_MS: i64 = 86_400_000;

/// A broker in a directory of its own, and what each lake over it is made of.
pub struct Bench {
    pub dir: tempfile::TempDir,
    pub broker: Arc<Broker>,
    pub config: TableConfig,
    pub limits: WriteLimits,
    pub sql: SqlLimits,
    pub url: String,
    /// Whether the lake takes its directory for an object store.
    pub objects: bool,
}

struct NoViews;

impl Views for NoViews {
    fn names(&self) -> Vec<String> {
        Vec::new()
    }

    fn table(&self, _view: &str) -> Option<Arc<dyn TableProvider>> {
        None
    }

    fn fresh<'a>(&'a self, _view: &'a str, _wait_ms: u64) -> BoxFuture<'a, Result<Offsets>> {
        Box::pin(async { Ok(Offsets::new()) })
    }
}

/// Ends the attempt at the `after`th passing of `step`.
pub fn crash_at(step: Step, after: u64) -> Fault {
    let passed = AtomicU64::new(0);
    Arc::new(move |at| {
        if at == step && passed.fetch_add(1, Ordering::SeqCst) == after {
            return Err(LakeError::destination("crash"));
        }
        Ok(())
    })
}

impl Bench {
    pub async fn new(partitions: i32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config =
            BrokerConfig { data_dir: dir.path().join("data"), durability: Durability::Os, ..BrokerConfig::default() };
        let broker = Broker::open(config, Clock::system()).await.unwrap();
        broker.catalog().create(NewTopic { name: TOPIC.into(), partitions, config: BTreeMap::new() }).await.unwrap();
        let slow = TableConfig { flush_age_ms: 86_400_000, merge: None, ..TableConfig::of(TOPIC) };
        let url = dir.path().join("lake").display().to_string();
        let config = TableConfig { slice: vec![SliceColumn::Date, SliceColumn::Column("genre".into())], ..slow };
        Self { dir, broker, config, limits: WriteLimits::default(), sql: SqlLimits::default(), url, objects: false }
    }

    /// Stops the broker and opens its store again, which waits for whoever looked at the former one just now.
    pub async fn open_again(&mut self) {
        let config = self.broker.config().clone();
        self.broker.stop().await.unwrap();
        drop(std::mem::replace(&mut self.broker, Bench::new(1).await.broker));
        self.broker = Broker::open(config, Clock::system()).await.unwrap();
    }

    /// The same, on what the lake takes for an object store.
    pub fn on(self, objects: bool) -> Self {
        Self { objects, ..self }
    }

    pub fn table(&self) -> Arc<Table> {
        Arc::new(Table {
            name: TOPIC.into(),
            topic: TOPIC.into(),
            dir: self.config.zone.as_ref().map_or_else(|| TOPIC.into(), |zone| format!("{zone}/{TOPIC}")),
            layout: Arc::new(Layout::new(schema(), "ts", &self.config.slice).unwrap()),
            decode: Arc::new(|partition, batches| Ok((decode(partition, batches)?, batches.len()))),
            settles: Some(self.config.clone()),
        })
    }

    pub async fn lake(&self) -> Arc<Lake> {
        self.try_lake(None).await.unwrap()
    }

    pub async fn try_lake(&self, fault: Option<Fault>) -> Result<Arc<Lake>> {
        self.lake_of(vec![self.table()], fault).await
    }

    pub async fn lake_of(&self, tables: Vec<Arc<Table>>, fault: Option<Fault>) -> Result<Arc<Lake>> {
        self.lake_with(tables, LakeConfig::default(), fault).await
    }

    pub async fn lake_with(
        &self,
        tables: Vec<Arc<Table>>,
        config: LakeConfig,
        fault: Option<Fault>,
    ) -> Result<Arc<Lake>> {
        let url = if self.objects { format!("objects://{}", self.url) } else { self.url.clone() };
        let config = LakeConfig { url, sql: self.sql.clone(), ..config };
        let (broker, views, limits) = (self.broker.clone(), Arc::new(NoViews), self.limits);
        let lake = Lake::assemble(Parts { broker, tables, views, config, limits, fault }).await?;
        // the start itself waits for that a few seconds, which on a busy machine is not enough; a destination that is away is told later
        let _ = lake.clean_for_test().await;
        Ok(lake)
    }

    /// Appends one batch; a value that is not JSON is one that the stream rejects.
    pub async fn append(&self, partition: i32, values: &[String]) -> Offset {
        let mut batch = BatchBuilder::new();
        for value in values {
            batch.push(self.broker.clock().now_ms(), Some(b"k"), Some(value.as_bytes()), &[]);
        }
        let batch = batch.build().unwrap();
        let partition = self.broker.catalog().topic(TOPIC).unwrap().partition(partition).unwrap();
        let append = Append { partition, batch, origin: Origin::Internal };
        self.broker.lane().commit(vec![Change::Append(append)], Ack::Durable).await.unwrap()[0].base_offset
    }

    pub fn topic_dir(&self) -> PathBuf {
        Path::new(&self.url).join(TOPIC)
    }
}

/// The bench's table for a lake that reads other values out of the same records: 4 where the amount is 2.
pub fn with_other_amounts(bench: &Bench) -> Arc<Table> {
    let table = bench.table();
    let decode = table.decode.clone();
    Arc::new(Table {
        name: table.name.clone(),
        topic: table.topic.clone(),
        dir: table.dir.clone(),
        layout: table.layout.clone(),
        decode: Arc::new(move |partition, batches| {
            let (rows, taken) = decode(partition, batches)?;
            let at = rows.schema().index_of("amount").unwrap();
            let amounts = rows.column(at).as_primitive::<Int64Type>();
            let changed = amounts.iter().map(|amount| amount.map(|amount| if amount == 2 { 4 } else { amount }));
            let mut columns = rows.columns().to_vec();
            columns[at] = Arc::new(changed.collect::<Int64Array>());
            Ok((RecordBatch::try_new(rows.schema(), columns).unwrap(), taken))
        }),
        settles: table.settles.clone(),
    })
}

pub fn value(ts: i64, genre: Value, amount: i64) -> String {
    json!({"ts": ts, "genre": genre, "amount": amount}).to_string()
}

fn schema() -> Arc<Schema> {
    let ms = || DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new("ts", ms(), true),
        Field::new("genre", DataType::Utf8, true),
        Field::new("amount", DataType::Int64, true),
        Field::new("_key", DataType::Binary, true),
        Field::new("_timestamp", ms(), true),
        Field::new("_partition", DataType::Int32, false),
        Field::new("_offset", DataType::Int64, false),
    ]))
}

fn decode(partition: i32, batches: &[Batch]) -> Result<RecordBatch> {
    let mut rows = Vec::new();
    for batch in batches {
        for record in batch.records()? {
            let record = record?;
            if let Ok(value) = serde_json::from_slice::<Value>(record.value.as_deref().unwrap_or(b"")) {
                rows.push((record.offset, record.timestamp, record.key, value));
            }
        }
    }
    let number = |name: &str| rows.iter().map(|row| row.3[name].as_i64()).collect::<Vec<_>>();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMillisecondArray::from(number("ts")).with_timezone("UTC")),
        Arc::new(rows.iter().map(|row| row.3["genre"].as_str()).collect::<StringArray>()),
        Arc::new(Int64Array::from(number("amount"))),
        Arc::new(rows.iter().map(|row| row.2.as_deref()).collect::<BinaryArray>()),
        Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(|row| row.1)).with_timezone("UTC")),
        Arc::new(Int32Array::from(vec![partition; rows.len()])),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0))),
    ];
    RecordBatch::try_new(schema(), columns).map_err(|e| LakeError::bug(e.to_string()))
}

/// All files below a directory but the owner's mark and notes, hidden ones too, as paths relative to it.
pub fn parquet_files(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_path_buf()];
    while let Some(next) = dirs.pop() {
        for entry in std::fs::read_dir(next).into_iter().flatten().flatten() {
            match entry.file_type().unwrap().is_dir() {
                true => dirs.push(entry.path()),
                false if entry.file_name() == "_millpond.json" || entry.file_name() == "_aside.json" => {}
                false => found.push(entry.path().strip_prefix(dir).unwrap().display().to_string()),
            }
        }
    }
    found.sort();
    found
}

pub fn read(path: &Path) -> RecordBatch {
    let reader = ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(path).unwrap()).unwrap();
    let schema = reader.schema().clone();
    let rows: Vec<_> = reader.build().unwrap().map(|rows| rows.unwrap()).collect();
    arrow::compute::concat_batches(&schema, &rows).unwrap()
}

/// (partition, offset) of every row in every file below a directory, as a reader of directories finds them.
pub fn rows_in_files(dir: &Path) -> Vec<(i32, i64)> {
    let mut rows = Vec::new();
    for file in parquet_files(dir) {
        let batch = read(&dir.join(file));
        let partitions = batch.column_by_name("_partition").unwrap().as_primitive::<arrow::datatypes::Int32Type>();
        let offsets = batch.column_by_name("_offset").unwrap().as_primitive::<Int64Type>();
        rows.extend(partitions.values().iter().copied().zip(offsets.values().iter().copied()));
    }
    rows.sort_unstable();
    rows
}

pub async fn sql(lake: &Lake, sql: &str, params: Vec<Value>) -> Result<SqlAnswer> {
    lake.sql(SqlRequest { sql: sql.into(), params, row_limit: 100_000, ..SqlRequest::default() }).await
}

/// The answer as text, one line per row.
pub async fn table(lake: &Lake, text: &str) -> Vec<String> {
    lines(&sql(lake, text, vec![]).await.unwrap())
}

pub fn lines(answer: &SqlAnswer) -> Vec<String> {
    let mut lines = Vec::new();
    for rows in &answer.rows {
        let options = arrow::util::display::FormatOptions::default().with_null("null");
        let columns: Vec<_> = rows
            .columns()
            .iter()
            .map(|column| arrow::util::display::ArrayFormatter::try_new(column.as_ref(), &options).unwrap())
            .collect();
        for row in 0..rows.num_rows() {
            lines.push(columns.iter().map(|column| column.value(row).to_string()).collect::<Vec<_>>().join("|"));
        }
    }
    lines
}

/// Reproducible chance.
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}
