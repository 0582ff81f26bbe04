//! Tables about the queries and the data themselves: `query_log`, `stored_bytes`, `cost_estimate`.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use datafusion::catalog::TableProvider;
use datafusion::datasource::TableType;
use engine::{Grow, ReadError, ReadWhenPlanned};

use crate::config::Costs;
use crate::query::{Queries, Source};
use crate::query_log::{QueryKind, QueryLog, Total};

/// Their names.
pub const NAMES: [&str; 3] = ["query_log", "stored_bytes", "cost_estimate"];
const GIB: f64 = (1_u64 << 30) as f64;

/// What lies somewhere under one name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// `parquet` or `log`.
    pub kind: &'static str,
    /// The zone of the lake; empty without zones and for the log.
    pub zone: String,
    /// The topic or table.
    pub name: String,
    /// Files of Parquet.
    pub files: u64,
    /// Rows in them; records of the log.
    pub rows: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// One line of the estimate of costs.
#[derive(Clone, Debug, PartialEq)]
pub struct Cost {
    /// `stored` or `scanned`.
    pub item: &'static str,
    /// `parquet` or `log`.
    pub kind: &'static str,
    /// The topic or table that is stored, the kind of the queries that scanned.
    pub name: String,
    /// Its bytes.
    pub bytes: u64,
    /// The price of a GiB.
    pub price: f64,
    /// What it comes to.
    pub cost: f64,
    /// What the price is for: `month` for what is stored, `since start` for what was scanned.
    pub per: &'static str,
}

/// The tables for one session.
pub(crate) fn tables(queries: &Queries) -> [(&'static str, Arc<dyn TableProvider>); 3] {
    let log = queries.log().clone();
    let query_log =
        ReadWhenPlanned::table(NAMES[0], log_schema(), TableType::View, move |_, _, _| Ok(vec![logged(&log)?]));
    let source = queries.source().clone();
    let read = move |_: &[_], _: Option<usize>, _: Grow<'_>| Ok(vec![stored_rows(&stored(&source))?]);
    let stored_bytes = ReadWhenPlanned::table(NAMES[1], stored_schema(), TableType::View, read);
    let (source, log) = (queries.source().clone(), queries.log().clone());
    let read = move |_: &[_], _: Option<usize>, _: Grow<'_>| -> Result<Vec<RecordBatch>, ReadError> {
        let costs = costs(&source.costs, &stored(&source), &log.totals());
        Ok(vec![cost_rows(&costs, &source.costs.currency)?])
    };
    let cost_estimate = ReadWhenPlanned::table(NAMES[2], cost_schema(), TableType::View, read);
    [(NAMES[0], query_log), (NAMES[1], stored_bytes), (NAMES[2], cost_estimate)]
}

/// What is stored now, Parquet first, by zone and name.
pub fn stored(source: &Source) -> Vec<Stored> {
    let mut parquet: BTreeMap<(String, String), Stored> = BTreeMap::new();
    let mut add = |path: &str, name: &str, (rows, bytes): (u64, u64)| {
        let zone = path.split_once('/').map_or("", |(first, _)| if first == name { "" } else { first });
        let line = parquet.entry((zone.to_owned(), name.to_owned())).or_insert_with(|| Stored {
            kind: "parquet",
            zone: zone.to_owned(),
            name: name.to_owned(),
            ..Stored::default()
        });
        line.files += 1;
        line.rows += rows;
        line.bytes += bytes;
    };
    let topics = source.broker.catalog().topics();
    for topic in &topics {
        for partition in topic.partitions().iter() {
            let settled = source.manifest.settled(partition.id());
            for file in settled.files.iter() {
                add(&file.path, topic.name(), (file.rows, file.bytes));
            }
            for file in settled.raw.iter() {
                add(&file.path, topic.name(), (file.records, file.bytes));
            }
        }
    }
    for table in &source.written {
        for file in table.files().iter() {
            add(&file.path, &table.config.name, (file.rows, file.bytes));
        }
    }
    let log = topics.iter().map(|topic| {
        let partitions = topic.partitions();
        let records: i64 = partitions.iter().map(|p| p.high_watermark() - p.log_start()).sum();
        Stored {
            kind: "log",
            name: topic.name().to_string(),
            rows: records.max(0).unsigned_abs(),
            bytes: partitions.iter().map(|p| p.size_bytes()).sum(),
            ..Stored::default()
        }
    });
    parquet.into_values().chain(log).collect()
}

/// What it comes to: what is stored by its price a month, what was scanned since the start by its own.
pub fn costs(costs: &Costs, stored: &[Stored], totals: &BTreeMap<QueryKind, Total>) -> Vec<Cost> {
    let of = |bytes: u64, price: f64| bytes as f64 / GIB * price;
    let mut lines: Vec<Cost> = Vec::new();
    for line in stored {
        let price = if line.kind == "log" { costs.stored_log_gib_month } else { costs.stored_gib_month };
        let name = if line.zone.is_empty() { line.name.clone() } else { format!("{}/{}", line.zone, line.name) };
        let cost = of(line.bytes, price);
        lines.push(Cost { item: "stored", kind: line.kind, name, bytes: line.bytes, price, cost, per: "month" });
    }
    let price = costs.scanned_gib;
    for (kind, total) in totals {
        let parts = [("parquet", total.scanned.parquet_bytes), ("log", total.scanned.log_bytes)];
        for (source, bytes) in parts {
            let (name, cost) = (kind.word().to_owned(), of(bytes, price));
            lines.push(Cost { item: "scanned", kind: source, name, bytes, price, cost, per: "since start" });
        }
    }
    lines
}

fn schema(fields: &[(&str, DataType, bool)]) -> SchemaRef {
    let field = |(name, kind, null): &(&str, DataType, bool)| Field::new(*name, kind.clone(), *null);
    Arc::new(Schema::new(fields.iter().map(field).collect::<Vec<Field>>()))
}

fn log_schema() -> SchemaRef {
    schema(&[
        ("at", DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())), false),
        ("kind", DataType::Utf8, false),
        ("reader", DataType::Utf8, true),
        ("ms", DataType::Int64, false),
        ("rows", DataType::Int64, false),
        ("parquet_bytes", DataType::Int64, false),
        ("log_bytes", DataType::Int64, false),
        ("error", DataType::Utf8, true),
        ("sql", DataType::Utf8, false),
    ])
}

fn stored_schema() -> SchemaRef {
    schema(&[
        ("kind", DataType::Utf8, false),
        ("zone", DataType::Utf8, false),
        ("name", DataType::Utf8, false),
        ("files", DataType::Int64, false),
        ("rows", DataType::Int64, false),
        ("bytes", DataType::Int64, false),
    ])
}

fn cost_schema() -> SchemaRef {
    schema(&[
        ("item", DataType::Utf8, false),
        ("kind", DataType::Utf8, false),
        ("name", DataType::Utf8, false),
        ("bytes", DataType::Int64, false),
        ("price", DataType::Float64, false),
        ("cost", DataType::Float64, false),
        ("currency", DataType::Utf8, false),
        ("per", DataType::Utf8, false),
    ])
}

fn texts<'a>(values: impl Iterator<Item = Option<&'a str>>) -> ArrayRef {
    Arc::new(values.collect::<StringArray>())
}

fn numbers(values: impl Iterator<Item = u64>) -> ArrayRef {
    Arc::new(values.map(|value| i64::try_from(value).ok()).collect::<Int64Array>())
}

fn logged(log: &QueryLog) -> Result<RecordBatch, ArrowError> {
    let records = log.recent();
    let at: TimestampMillisecondArray = records.iter().map(|record| Some(record.at_ms)).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(at.with_timezone("UTC")),
        texts(records.iter().map(|record| Some(record.kind.word()))),
        texts(records.iter().map(|record| record.reader.as_deref())),
        numbers(records.iter().map(|record| record.took_ms.unsigned_abs())),
        numbers(records.iter().map(|record| record.rows)),
        numbers(records.iter().map(|record| record.scanned.parquet_bytes)),
        numbers(records.iter().map(|record| record.scanned.log_bytes)),
        texts(records.iter().map(|record| record.error.as_deref())),
        texts(records.iter().map(|record| Some(record.sql.as_str()))),
    ];
    RecordBatch::try_new(log_schema(), columns)
}

fn stored_rows(lines: &[Stored]) -> Result<RecordBatch, ArrowError> {
    let columns = vec![
        texts(lines.iter().map(|line| Some(line.kind))),
        texts(lines.iter().map(|line| Some(line.zone.as_str()))),
        texts(lines.iter().map(|line| Some(line.name.as_str()))),
        numbers(lines.iter().map(|line| line.files)),
        numbers(lines.iter().map(|line| line.rows)),
        numbers(lines.iter().map(|line| line.bytes)),
    ];
    RecordBatch::try_new(stored_schema(), columns)
}

fn cost_rows(lines: &[Cost], currency: &str) -> Result<RecordBatch, ArrowError> {
    let money = |of: fn(&Cost) -> f64| -> ArrayRef {
        Arc::new(lines.iter().map(|line| Some(of(line))).collect::<Float64Array>())
    };
    let columns = vec![
        texts(lines.iter().map(|line| Some(line.item))),
        texts(lines.iter().map(|line| Some(line.kind))),
        texts(lines.iter().map(|line| Some(line.name.as_str()))),
        numbers(lines.iter().map(|line| line.bytes)),
        money(|line| line.price),
        money(|line| line.cost),
        texts(lines.iter().map(|_| Some(currency))),
        texts(lines.iter().map(|line| Some(line.per))),
    ];
    RecordBatch::try_new(cost_schema(), columns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::Scanned;

    #[test]
    fn costs_are_bytes_times_the_price_of_a_gib() {
        let prices =
            Costs { currency: "EUR".into(), stored_gib_month: 0.02, stored_log_gib_month: 0.1, scanned_gib: 0.005 };
        let line =
            |kind, zone: &str, bytes| Stored { kind, zone: zone.into(), name: "t".into(), bytes, ..Stored::default() };
        let stored = [line("parquet", "raw", 1 << 30), line("log", "", 1 << 29)];
        let scanned = Scanned { parquet_bytes: 4 << 30, log_bytes: 0 };
        let totals = BTreeMap::from([(QueryKind::Job, Total { queries: 1, scanned })]);
        let lines = costs(&prices, &stored, &totals);
        let of: Vec<(&str, &str, &str, f64)> =
            lines.iter().map(|l| (l.item, l.kind, l.name.as_str(), l.cost)).collect();
        assert_eq!(
            of,
            [
                ("stored", "parquet", "raw/t", 0.02),
                ("stored", "log", "t", 0.05),
                ("scanned", "parquet", "job", 0.02),
                ("scanned", "log", "job", 0.0)
            ]
        );
        let rows = cost_rows(&lines, &prices.currency).unwrap();
        assert_eq!(rows.num_rows(), 4);
    }
}
