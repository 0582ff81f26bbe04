//! Input that a view cannot make sense of: it is told, and stops nothing.

use broker::Batch;

use super::*;

/// 9999-12-31T23:59:59Z.
const FAR_MS: i64 = 253_402_300_799_000;

/// An aggregate that cannot be finished (a division by an empty count) takes its own group out, no other and no other view.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_cannot_be_finished_stops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    create(&broker, "events", 1).await;
    let big = "count(*) FILTER (WHERE amount > 5)";
    let views = [
        format!("ratio AS SELECT genre, 100 * count(*) / {big} AS r FROM s GROUP BY genre"),
        format!("some AS SELECT genre, count(*) AS n FROM s GROUP BY genre HAVING 10 / {big} > 0"),
        format!(
            "minutes AS SELECT genre, CAST(CAST(sum(amount) AS VARCHAR) || substr('x', {big} + 1) AS BIGINT) AS r \
                 FROM s GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE), genre"
        ),
        "n AS SELECT count(*) AS n FROM s".to_string(),
    ];
    let config = config(&views.iter().map(String::as_str).collect::<Vec<_>>());
    let mut engine = Engine::start(broker.clone(), config.clone()).await.unwrap();
    append(&broker, "events", 0, &[event(1, "jazz", 9, 0), event(1, "rock", 2, 0), event(1, "pop", 3, 0)]).await;
    append(&broker, "events", 0, &[event(1, "rock", 2, 0)]).await;
    for _ in 0..2 {
        assert_eq!(read(&engine, "n").await, [["4"]]);
        assert_eq!(read(&engine, "ratio").await, [["jazz", "100"]]);
        assert_eq!(read(&engine, "some").await, [["jazz", "1"]]);
        let minutes = read(&engine, "minutes").await;
        assert_eq!((minutes.len(), minutes[0][2].as_str(), minutes[0][3].as_str()), (1, "jazz", "9"));
        // After a restart the same is read from the store.
        engine.stop().await;
        engine = Engine::start(broker.clone(), config.clone()).await.unwrap();
    }
    let told: Vec<(String, String)> = records(&broker, "s.rejected")
        .await
        .iter()
        .map(|(_, record)| {
            let value = String::from_utf8(record.key.clone().unwrap().to_vec()).unwrap();
            assert!(!header(record, "reason").is_empty() && header(record, "records") == "0");
            (header(record, "rule"), value)
        })
        .collect();
    for (rule, genre) in [("view:ratio", "rock"), ("view:ratio", "pop"), ("view:some", "rock"), ("view:minutes", "pop")]
    {
        let times = told.iter().filter(|(of, key)| of == rule && key.contains(genre)).count();
        assert_eq!(times, 1, "{rule} {genre}: {told:?}");
    }
    append(&broker, "events", 0, &[event(1, "rock", 9, 0)]).await;
    assert_eq!(read(&engine, "ratio").await, [["jazz", "100"], ["rock", "300"]]);
    assert_eq!(read(&engine, "some").await, [["jazz", "1"], ["rock", "3"]]);
    let mut newest: BTreeMap<String, Option<String>> = BTreeMap::new();
    for (_, record) in records(&broker, "ratio").await {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        newest.insert(text(record.key.as_deref().unwrap()), record.value.as_deref().map(text));
    }
    assert_eq!(newest[r#"{"genre":"pop"}"#], None);
    assert_eq!(newest[r#"{"genre":"rock"}"#].as_deref(), Some(r#"{"genre":"rock","r":300}"#));
    engine.stop().await;
    broker.stop().await.unwrap();
}

/// The same batch with one header more in its first record's count than there is.
fn with_broken_headers(value: &str) -> Batch {
    let mut builder = BatchBuilder::new();
    builder.push(BASE_MS, Some(b"k"), Some(value.as_bytes()), &[(b"h", Some(b"v"))]);
    let mut bytes = builder.build().unwrap().bytes().to_vec();
    let count = bytes.len() - 5;
    assert_eq!(&bytes[count..], b"\x02\x02h\x02v");
    bytes[count] = 4;
    Batch::parse(bytes.into()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_record_with_broken_headers_is_handed_on_without_them() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    create(&broker, "events", 1).await;
    let config = config(&["m AS SELECT count(*) AS n FROM s GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE)"]);
    let engine = Engine::start(broker.clone(), config).await.unwrap();
    append(&broker, "events", 0, &[event(1, "jazz", 1, 600_000)]).await;
    assert_eq!(read(&engine, "m").await.len(), 1);
    let partition = broker.catalog().topic("events").unwrap().partition(0).unwrap();
    let batch = with_broken_headers(&event(1, "jazz", 1, 0));
    let append_broken = Change::Append(Append { partition, batch, origin: Origin::Internal });
    broker.lane().commit(vec![append_broken], Ack::Durable).await.unwrap();
    append(&broker, "events", 0, &[event(1, "jazz", 1, 600_001)]).await;
    let rows = read(&engine, "m").await;
    assert_eq!((rows.len(), rows[0][2].as_str()), (1, "2"));
    let late = records(&broker, "m.late").await;
    assert_eq!((late.len(), header(&late[0].1, "offset").as_str()), (1, "1"));
    engine.stop().await;
    broker.stop().await.unwrap();
}

/// A year mistyped moves no watermark, whether the record has no timestamp or takes it from the same text.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_time_far_ahead_closes_no_window() {
    for at_ms in [-1, FAR_MS] {
        let dir = tempfile::tempdir().unwrap();
        let broker = open_broker(dir.path()).await;
        create(&broker, "events", 1).await;
        let config = config(&["m AS SELECT count(*) AS n FROM s GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE)"]);
        let engine = Engine::start(broker.clone(), config).await.unwrap();
        append_at(&broker, "events", (0, at_ms), &[event(1, "jazz", 1, FAR_MS - BASE_MS)]).await;
        assert_eq!(read(&engine, "m").await.len(), 1);
        append(&broker, "events", 0, &[event(1, "jazz", 1, 0)]).await;
        append(&broker, "events", 0, &[event(1, "jazz", 1, 1)]).await;
        let rows = read(&engine, "m").await;
        assert_eq!((rows.len(), rows[0][2].as_str()), (2, "2"), "timestamp {at_ms}: {rows:?}");
        assert_eq!(engine.status()[0].event_watermark, Some(BASE_MS + 1));
        engine.stop().await;
        broker.stop().await.unwrap();
    }
}
