//! Tests of the engine over a real broker in a temporary directory.

mod alter;
mod avro;
mod chain;
mod claims;
mod compacted;
mod decode;
mod definitions;
mod delimited;
mod derived;
mod derived_oracle;
mod emit_final;
mod faults;
mod fill;
mod fill_streams;
mod infer;
mod inferred;
mod joins;
mod joins_oracle;
mod lists;
mod next_step;
mod oracle;
mod own_schema;
mod protobuf;
mod random;
mod replaced;
mod speed;
mod succession;
mod union;
mod unnest;
mod views;
mod windows;
mod windows_oracle;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::util::display::{ArrayFormatter, FormatOptions};
use broker::{Ack, Append, BatchBuilder, Broker, BrokerConfig, Change, Clock, Durability, NewTopic, Origin, Record};

use crate::{Answer, CheckConfig, ColumnConfig, Engine, EngineConfig, ReadRequest, StreamConfig, ViewConfig};

/// 2026-11-20T10:00:00Z.
pub(crate) const BASE_MS: i64 = 1_795_168_800_000;

pub(crate) async fn open_broker(data_dir: &std::path::Path) -> Arc<Broker> {
    open_broker_at(data_dir, Clock::manual(BASE_MS)).await
}

/// Stops engine and broker and starts both again over the same directory.
pub(crate) async fn reopen(
    data_dir: &std::path::Path,
    (broker, engine): (Arc<Broker>, Arc<Engine>),
    config: EngineConfig,
) -> (Arc<Broker>, Arc<Engine>) {
    engine.stop().await;
    drop(engine);
    broker.stop().await.unwrap();
    drop(broker);
    let broker = open_broker(data_dir).await;
    let engine = Engine::start(broker.clone(), config).await.unwrap();
    (broker, engine)
}

pub(crate) async fn open_broker_at(data_dir: &std::path::Path, clock: Clock) -> Arc<Broker> {
    let config = BrokerConfig {
        data_dir: data_dir.to_path_buf(),
        listeners: Vec::new(),
        durability: Durability::Os,
        ..BrokerConfig::default()
    };
    // Whoever looked at the former one just now lets go of it a moment after it was stopped.
    let began = std::time::Instant::now();
    loop {
        match Broker::open(config.clone(), clock.clone()).await {
            Err(error) if error.message.contains("lock hold by current process") && began.elapsed().as_secs() < 10 => {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            opened => return opened.unwrap(),
        }
    }
}

pub(crate) fn column(name: &str, sql_type: &str, required: bool) -> ColumnConfig {
    ColumnConfig { name: name.into(), sql_type: sql_type.into(), required, ..ColumnConfig::default() }
}

/// Stream `s` over topic `events`: user, genre, amount (not negative), price, ts.
pub(crate) fn stream() -> StreamConfig {
    StreamConfig {
        name: "s".into(),
        topic: "events".into(),
        columns: vec![
            column("uid", "BIGINT", true),
            column("genre", "VARCHAR", false),
            column("amount", "BIGINT", false),
            column("price", "DOUBLE", false),
            column("ts", "TIMESTAMP", true),
        ],
        event_time: "ts".into(),
        lateness_ms: 10_000,
        idle_timeout_ms: 0,
        max_ahead_ms: 3_600_000,
        checks: vec![CheckConfig {
            name: "amount_not_negative".into(),
            sql: "amount IS NULL OR amount >= 0".into(),
            ..CheckConfig::default()
        }],
        ..StreamConfig::default()
    }
}

pub(crate) fn config(views: &[&str]) -> EngineConfig {
    let view = |sql: &&str| ViewConfig { sql: format!("CREATE MATERIALIZED VIEW {sql}"), ..ViewConfig::default() };
    EngineConfig { streams: vec![stream()], views: views.iter().map(view).collect(), ..EngineConfig::default() }
}

pub(crate) async fn create(broker: &Broker, topic: &str, partitions: i32) {
    broker.catalog().create(NewTopic { name: topic.into(), partitions, config: BTreeMap::new() }).await.unwrap();
}

/// Appends values to a partition as one batch; the records' timestamp is `BASE_MS`.
pub(crate) async fn append(broker: &Broker, topic: &str, partition: i32, values: &[String]) {
    append_at(broker, topic, (partition, BASE_MS), values).await;
}

/// The same to a partition at a timestamp.
pub(crate) async fn append_at(broker: &Broker, topic: &str, (partition, at_ms): (i32, i64), values: &[String]) {
    let mut builder = BatchBuilder::new();
    for value in values {
        builder.push(at_ms, Some(b"k"), Some(value.as_bytes()), &[]);
    }
    let partition = broker.catalog().topic(topic).unwrap().partition(partition).unwrap();
    let batch = builder.build().unwrap();
    let append = Append { partition, batch, origin: Origin::Internal };
    broker.lane().commit(vec![Change::Append(append)], Ack::Durable).await.unwrap();
}

/// All records of a topic: partition and record.
pub(crate) async fn records(broker: &Broker, topic: &str) -> Vec<(i32, Record)> {
    let mut all = Vec::new();
    for partition in broker.catalog().topic(topic).unwrap().partitions().iter() {
        let mut offset = partition.log_start();
        while offset < partition.high_watermark() {
            for batch in partition.read(offset, 1 << 20).await.unwrap() {
                offset = batch.next_offset();
                all.extend(batch.records().unwrap().map(|record| (partition.index(), record.unwrap())));
            }
        }
    }
    all
}

pub(crate) fn header(record: &Record, name: &str) -> String {
    let found = record.headers.iter().rev().find(|(key, _)| key.as_ref() == name.as_bytes());
    String::from_utf8(found.unwrap_or_else(|| panic!("no header {name}")).1.clone().unwrap().to_vec()).unwrap()
}

/// Rows as text, null as "∅".
pub(crate) fn text(answer: &Answer) -> Vec<Vec<String>> {
    let options = FormatOptions::new().with_null("∅");
    let mut rows = Vec::new();
    for batch in &answer.rows {
        let columns: Vec<_> =
            batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
        rows.extend(
            (0..batch.num_rows()).map(|row| columns.iter().map(|column| column.value(row).to_string()).collect()),
        );
    }
    rows
}

pub(crate) async fn read(engine: &Engine, view: &str) -> Vec<Vec<String>> {
    text(&engine.read(view, ReadRequest { wait_ms: 20_000, ..ReadRequest::default() }).await.unwrap())
}

/// An event at `BASE_MS + at_ms`.
pub(crate) fn event(user: i64, genre: &str, amount: i64, at_ms: i64) -> String {
    format!(r#"{{"uid":{user},"genre":"{genre}","amount":{amount},"price":0.5,"ts":{}}}"#, BASE_MS + at_ms)
}

/// Waits until no view is filled beside another version of it, and nothing is left of former ones.
pub(crate) async fn settled(engine: &Engine) {
    let nothing_is_left = || {
        let running = engine.running();
        let store = engine.broker.store();
        running.successors.is_empty() && store.scan(broker::Family::State, &[0x0b], &[0x0d]).count() == 0
    };
    for _ in 0..2_000 {
        if nothing_is_left() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("no end: {:?}", engine.status());
}
