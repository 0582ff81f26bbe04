//! How fast one core decodes JSON and counts it by minute and key, and how fast it decodes each format. Run by hand:
//! `cargo test -p engine --release -- --ignored speed --nocapture`.

use super::avro::{register, stream as stream_of};
use super::*;
use crate::StreamFormat;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement, not a test"]
async fn speed() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    create(&broker, "events", 1).await;
    let total = 2_000_000_i64;
    for chunk in 0..total / 2_000 {
        let values: Vec<String> = (0..2_000)
            .map(|row| {
                let number = chunk * 2_000 + row;
                let genre = ["jazz", "rock", "pop", "folk", "metal", "techno", "blues", "soul"][(number % 8) as usize];
                event(number % 10_000, genre, number % 300, number / 10)
            })
            .collect();
        append(&broker, "events", 0, &values).await;
    }
    let began = std::time::Instant::now();
    let engine = Engine::start(
        broker.clone(),
        config(&["v AS SELECT genre, count(*) AS n FROM s GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE), genre"]),
    )
    .await
    .unwrap();
    engine.wait_fresh("v", 120_000).await.unwrap();
    let elapsed = began.elapsed();
    let busy = engine.busy_time();
    let per_second = total as f64 / busy.as_secs_f64();
    println!("{total} events: {elapsed:?} elapsed, {busy:?} busy, {per_second:.0} events per second and core");
    engine.stop().await;
    broker.stop().await.unwrap();
}

/// The same five columns in every format.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement, not a test"]
async fn speed_of_formats() {
    const AVRO: &str = r#"{"type":"record","name":"E","fields":[{"name":"uid","type":"long"},{"name":"genre","type":"string"},
        {"name":"amount","type":"long"},{"name":"price","type":"double"},
        {"name":"ts","type":{"type":"long","logicalType":"timestamp-millis"}}]}"#;
    const PROTO: &str = r#"syntax = "proto3"; import "google/protobuf/timestamp.proto";
        message E { int64 uid = 1; string genre = 2; int64 amount = 3; double price = 4; google.protobuf.Timestamp ts = 5; }"#;
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    let formats = [
        (StreamFormat::Json, None),
        (StreamFormat::Csv, None),
        (StreamFormat::Avro, Some((broker::SchemaType::Avro, AVRO))),
        (StreamFormat::Protobuf, Some((broker::SchemaType::Protobuf, PROTO))),
    ];
    for (format, schema) in formats {
        if let Some((kind, text)) = schema {
            register(&broker, "events-value", kind, text).await;
        }
        let columns = [("uid", "BIGINT"), ("genre", "VARCHAR"), ("amount", "BIGINT"), ("price", "DOUBLE")];
        let stream = stream_of(&broker, format, &columns);
        let batch = |chunk: i64| {
            let mut builder = BatchBuilder::new();
            for number in chunk * 2_000..(chunk + 1) * 2_000 {
                let value = stream.encode(&event(number, "jazz", number % 300, number / 10)).unwrap();
                builder.push(BASE_MS, Some(b"k"), Some(&value), &[]);
            }
            builder.build().unwrap()
        };
        let batches: Vec<_> = (0..100).map(batch).collect();
        let began = std::time::Instant::now();
        let rows: usize = batches.chunks(5).map(|some| stream.decode(0, some).unwrap().rows.num_rows()).sum();
        let per_second = rows as f64 / began.elapsed().as_secs_f64();
        println!("{format:?}: {per_second:.0} records per second and core");
        assert_eq!(rows, 200_000);
    }
    broker.stop().await.unwrap();
}

/// The same of two streams that are joined: each order has one payment, a second of event time after it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement, not a test"]
async fn speed_of_a_join() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    let total = 500_000_i64;
    for topic in ["orders", "payments"] {
        create(&broker, topic, 1).await;
        for chunk in 0..total / 2_000 {
            let row =
                |number: i64| joins::row(number, number, 1, number / 10 + if topic == "orders" { 0 } else { 1_000 });
            append(&broker, topic, 0, &(chunk * 2_000..(chunk + 1) * 2_000).map(row).collect::<Vec<_>>()).await;
        }
    }
    let pairs = "pairs AS SELECT o.id, p.amount, o.ts FROM orders o LEFT JOIN payments p WITHIN 5 SECONDS ON o.k = p.k";
    let began = std::time::Instant::now();
    let engine = Engine::start(broker.clone(), joins::joins(vec![joins::joined(pairs)], &[])).await.unwrap();
    engine.wait_fresh("pairs", 300_000).await.unwrap();
    let (elapsed, busy) = (began.elapsed(), engine.busy_time());
    println!("{total} pairs: {elapsed:?} elapsed, {busy:?} busy in three readings of both streams and of the pairs");
    engine.stop().await;
    broker.stop().await.unwrap();
}
