use std::time::Duration;

use super::*;
use crate::{ErrorKind, Window, Windows, check};

/// Every mistake at once, each naming what to do.
#[test]
fn mistakes_are_reported_together() {
    let mut config = config(&[
        "v AS SELECT gerne, count(*) AS n FROM s GROUP BY gerne",
        "w AS SELECT count(*) AS n FROM strem",
        "x AS SELECT count(*) AS n FROM s GROUP BY TUMBLE(price, INTERVAL '1' DAY)",
        "y AS SELECT string_agg(genre, ',') AS n FROM s",
        "z AS SELECT sum(DISTINCT uid) AS n FROM s",
        "t AS SELECT count(*) AS n FROM s WHERE ts < now()",
        "u AS SELECT genre, uid, count(*) AS n FROM s GROUP BY genre",
        "dup AS SELECT count(*) AS n FROM s",
        "dup AS SELECT count(*) AS n FROM s",
        "o AS SELECT count(*) OVER () AS n FROM s",
        "p AS SELECT genre FROM s WHERE nope(genre) = 1",
    ]);
    config.streams.push(StreamConfig {
        name: "bad".into(),
        columns: vec![column("a", "TEXT", false), column("_b", "BIGINT", false), column("at", "VARCHAR", false)],
        event_time: "at".into(),
        checks: vec![
            CheckConfig { name: "c".into(), sql: "a + 1".into(), ..CheckConfig::default() },
            CheckConfig { name: "d".into(), sql: "zz".into(), ..CheckConfig::default() },
        ],
        ..stream()
    });
    let mistakes = check(&config);
    let expected = [
        "unknown type 'TEXT'",
        "'_b': the name is reserved",
        "declare it TIMESTAMP",
        "check 'c'",
        "check 'd'",
        "did you mean 'genre'?",
        "there are: s",
        "use that column",
        "string_agg",
        "count(DISTINCT …) is",
        "now()",
        "GROUP BY",
        "dup is declared twice",
        "OVER",
        "nope",
    ];
    for expected in expected {
        assert!(mistakes.iter().any(|mistake| mistake.contains(expected)), "{expected}: {mistakes:#?}");
    }
    assert_eq!(check(&super::config(&[])), Vec::<String>::new());
}

/// Found by random views: such a view was taken, and stood still with its first row.
#[test]
fn a_key_stands_in_group_by_once() {
    for keys in ["upper(genre), upper(genre)", "genre, genre", "uid > 3, (uid > 3) = true"] {
        let select: Vec<String> = keys.split(", ").enumerate().map(|(at, key)| format!("{key} AS k{at}")).collect();
        let mistakes =
            check(&config(&[&format!("v AS SELECT {}, count(*) AS n FROM s GROUP BY {keys}", select.join(", "))]));
        assert!(mistakes.iter().any(|mistake| mistake.contains("stands twice in GROUP BY")), "{keys}: {mistakes:?}");
    }
}

/// WHERE is simplified to `uid = 3`: the column that the text names beside it is still known.
#[test]
fn a_condition_may_name_what_it_does_not_need() {
    let sql = "v AS SELECT count(*) AS n FROM s WHERE uid = 3 OR (uid = 3 AND amount >= 7)";
    assert_eq!(check(&config(&[sql])), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn aggregates_windows_and_reads() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    create(&broker, "events", 2).await;
    let engine = Engine::start(broker.clone(), config(&[
        "m AS SELECT genre, count(*) AS n, sum(amount) AS total, min(amount) AS lo, max(amount) AS hi, avg(amount) AS mean, \
         count(amount) FILTER (WHERE amount > 1) AS big FROM s WHERE uid < 100 GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE), genre",
        "many AS SELECT upper(genre) AS g, count(*) * 2 AS twice, sum(price) AS p FROM s GROUP BY upper(genre) HAVING count(*) > 1",
        "one AS SELECT count(*) AS n, stddev(price) AS dev, approx_distinct(uid) AS users, bool_and(amount > 0) AS positive, \
         approx_percentile_cont(0.5) WITHIN GROUP (ORDER BY amount) AS median, corr(price, amount) AS c FROM s",
        "keys AS SELECT genre FROM s GROUP BY genre",
    ])).await.unwrap();
    let big = i64::MAX - 1;
    append(&broker, "events", 0, &[event(1, "jazz", 1, 0), event(2, "jazz", 2, 1), event(3, "rock", big, 59_999)])
        .await;
    append(&broker, "events", 1, &[event(4, "rock", big, 0), event(5, "jazz", 3, 60_000), event(100, "jazz", 9, 0)])
        .await;
    append(&broker, "events", 1, &[format!(r#"{{"uid":6,"ts":{BASE_MS}}}"#)]).await;
    let m = read(&engine, "m").await;
    assert_eq!(
        m,
        [
            ["2026-11-20T10:00:00Z", "2026-11-20T10:01:00Z", "∅", "1", "∅", "∅", "∅", "∅", "0"],
            ["2026-11-20T10:00:00Z", "2026-11-20T10:01:00Z", "jazz", "2", "3", "1", "2", "1.5", "1"],
            [
                "2026-11-20T10:00:00Z",
                "2026-11-20T10:01:00Z",
                "rock",
                "2",
                "18446744073709551612",
                "9223372036854775806",
                "9223372036854775806",
                "9.223372036854776e18",
                "2"
            ],
            ["2026-11-20T10:01:00Z", "2026-11-20T10:02:00Z", "jazz", "1", "3", "3", "3", "3.0", "1"],
        ]
    );
    assert_eq!(read(&engine, "many").await, [["JAZZ", "8", "2.0"], ["ROCK", "4", "1.0"]]);
    assert_eq!(read(&engine, "one").await[0][..1], ["7"]);
    assert_eq!(read(&engine, "one").await[0][2..4], ["7", "true"]);
    assert_eq!(read(&engine, "keys").await, [["∅"], ["jazz"], ["rock"]]);

    let request = |edit: &dyn Fn(&mut ReadRequest)| {
        let mut request = ReadRequest::default();
        edit(&mut request);
        request
    };
    let window = engine.read("m", request(&|r| r.from = Some(BASE_MS + 1))).await.unwrap();
    assert_eq!(window.row_count(), 1);
    assert_eq!(window.offsets["events"], BTreeMap::from([(0, 3), (1, 4)]));
    assert_eq!(engine.read("m", request(&|r| r.to = Some(BASE_MS + 1))).await.unwrap().row_count(), 3);
    assert_eq!(engine.read("m", request(&|r| (r.from, r.to) = (Some(5), Some(4)))).await.unwrap().row_count(), 0);
    let jazz = request(&|r| r.keys = vec![("genre".into(), "jazz".into()), ("n".into(), "2".into())]);
    assert_eq!(engine.read("m", jazz).await.unwrap().row_count(), 1);
    let ordered = request(&|r| (r.order, r.limit) = (vec![("n".into(), true), ("genre".into(), true)], Some(2)));
    let ordered = text(&engine.read("m", ordered).await.unwrap());
    assert_eq!((ordered[0][2].as_str(), ordered[1][2].as_str()), ("rock", "jazz"));
    assert_eq!(engine.read("m", request(&|r| r.limit = Some(3))).await.unwrap().row_count(), 3);
    for (request, expected) in [
        (request(&|r| r.keys = vec![("gener".into(), "x".into())]), "did you mean 'genre'?"),
        (request(&|r| r.keys = vec![("n".into(), "x".into())]), "not a value"),
        (request(&|r| r.order = vec![("zzzzzz".into(), true)]), "no column"),
    ] {
        let error = engine.read("m", request).await.unwrap_err();
        assert!(error.kind == ErrorKind::BadRequest && error.message.contains(expected), "{error}");
    }
    assert_eq!(engine.read("mm", ReadRequest::default()).await.unwrap_err().kind, ErrorKind::Unknown);
    assert_eq!(engine.read("one", request(&|r| r.from = Some(0))).await.unwrap_err().kind, ErrorKind::BadRequest);

    let info = engine.views();
    assert_eq!(
        (info[0].keys.as_slice(), info[0].windows),
        (&["genre".to_string()][..], Some(Windows::Tumble(Window::Fixed(60_000))))
    );
    let context = datafusion::prelude::SessionContext::new();
    context.register_table("m", engine.view_table("m").unwrap()).unwrap();
    let sql = "SELECT count(*) AS c, sum(n) AS n FROM m WHERE window_start >= TIMESTAMP '2026-11-20T10:01:00Z'";
    let rows = context.sql(sql).await.unwrap().collect().await.unwrap();
    assert_eq!(
        arrow::util::pretty::pretty_format_batches(&rows).unwrap().to_string().lines().nth(3).unwrap(),
        "| 1 | 1 |"
    );
    engine.stop().await;
    broker.stop().await.unwrap();
}

/// Months and the days of a time zone, and the same windows in a query over rows.
#[tokio::test(flavor = "multi_thread")]
async fn calendar_windows() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    let months = "TUMBLE(ts, INTERVAL '1' MONTH)";
    let days = "TUMBLE(ts, INTERVAL '1' DAY, 'Europe/Paris')";
    let views = [
        format!("months AS SELECT window_end > window_start AS forward, count(*) AS n FROM s GROUP BY {months}"),
        format!("days AS SELECT genre, count(*) AS n FROM s GROUP BY {days}, genre"),
    ];
    let start = || async {
        let views: Vec<&str> = views.iter().map(String::as_str).collect();
        Engine::start(broker.clone(), config(&views)).await.unwrap()
    };
    let engine = start().await;
    // 21 November 22:59:59.999Z and 23:00Z (midnight in Paris), then 30 November and 1 December
    let late_evening = 37 * 3_600_000;
    let evening = [event(1, "a", 1, late_evening - 1), event(1, "a", 1, late_evening)];
    append_at(&broker, "events", (0, BASE_MS + late_evening), &evening).await;
    engine.stop().await;
    let engine = start().await;
    let december = (10 * 24 + 14) * 3_600_000;
    let turn = [event(1, "a", 1, december - 1), event(1, "a", 1, december)];
    append_at(&broker, "events", (0, BASE_MS + december), &turn).await;
    let months = read(&engine, "months").await;
    assert_eq!(
        months,
        [
            ["2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z", "true", "3"],
            ["2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z", "true", "1"],
        ]
    );
    let days = read(&engine, "days").await;
    assert_eq!(
        days,
        [
            ["2026-11-20T23:00:00Z", "2026-11-21T23:00:00Z", "a", "1"],
            ["2026-11-21T23:00:00Z", "2026-11-22T23:00:00Z", "a", "1"],
            ["2026-11-30T23:00:00Z", "2026-12-01T23:00:00Z", "a", "2"],
        ]
    );
    let from = ReadRequest { from: Some(BASE_MS), ..ReadRequest::default() };
    assert_eq!(engine.read("months", from.clone()).await.unwrap().row_count(), 1, "November began before");
    assert_eq!(engine.read("days", from).await.unwrap().row_count(), 3);

    let context = datafusion::prelude::SessionContext::new();
    context.register_udf(crate::tumble());
    context.register_table("days", engine.view_table("days").unwrap()).unwrap();
    let sql = "SELECT tumble(window_start, INTERVAL '1 month', 'Europe/Paris') AS month, sum(n) AS n FROM days GROUP BY 1 ORDER BY 1";
    let rows = context.sql(sql).await.unwrap().collect().await.unwrap();
    let table = arrow::util::pretty::pretty_format_batches(&rows).unwrap().to_string();
    assert!(
        table.contains("| 2026-10-31T23:00:00Z | 2 |") && table.contains("| 2026-11-30T23:00:00Z | 2 |"),
        "{table}"
    );
    for wrong in [
        "tumble(window_start, INTERVAL '1 hour', 'Europe/Paris')",
        "tumble(window_start, 5)",
        "tumble(n, INTERVAL '1 hour')",
    ] {
        let failed = async { context.sql(&format!("SELECT {wrong} FROM days")).await?.collect().await }.await;
        assert!(failed.unwrap_err().to_string().contains("TUMBLE"), "{wrong}");
    }
    engine.stop().await;
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn emitted_rows_late_rows_and_refused_rows_are_in_their_topics() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    let engine = Engine::start(broker.clone(), config(&[
        "v AS SELECT genre, count(*) AS n FROM s GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE), genre HAVING count(*) < 3",
        "f AS SELECT 10 / amount AS k, count(*) AS n FROM s GROUP BY 10 / amount",
    ])).await.unwrap();
    let mut changes = engine.changes("v").unwrap();
    append(&broker, "events", 0, &[event(1, "a", 1, 0), event(1, "a", 5, 1)]).await;
    assert_eq!(read(&engine, "v").await.len(), 1);
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    append(&broker, "events", 0, &[event(1, "a", 0, 2), "{".into(), event(1, "b", 2, 70_000)]).await;
    assert_eq!(read(&engine, "v").await.len(), 1, "the group of a no longer meets HAVING");
    append(&broker, "events", 0, &[event(1, "late", 1, 59_999), event(1, "b", 1, 60_000)]).await;
    assert_eq!(read(&engine, "v").await, [["2026-11-20T10:01:00Z", "2026-11-20T10:02:00Z", "b", "2"]]);
    let k = read(&engine, "f").await;
    assert_eq!(k, [["2", "1"], ["5", "1"], ["10", "3"]]);

    let shown: Vec<_> = records(&broker, "v")
        .await
        .into_iter()
        .map(|(_, record)| {
            let value = record.value.map(|value| String::from_utf8(value.to_vec()).unwrap());
            (String::from_utf8(record.key.unwrap().to_vec()).unwrap(), value)
        })
        .collect();
    assert_eq!(shown[0].0, r#"{"window_start":"2026-11-20T10:00:00Z","genre":"a"}"#);
    let row = r#"{"window_start":"2026-11-20T10:00:00Z","window_end":"2026-11-20T10:01:00Z","genre":"a","n":2}"#;
    assert_eq!(shown[0].1.as_deref(), Some(row));
    assert_eq!(shown[1], (shown[0].0.clone(), None), "a tombstone takes the row away");
    let late = records(&broker, "v.late").await;
    assert_eq!(late.len(), 1);
    assert_eq!(
        (header(&late[0].1, "partition"), header(&late[0].1, "offset"), header(&late[0].1, "view")),
        ("0".into(), "5".into(), "v".into())
    );
    assert_eq!(header(&late[0].1, "window_start"), BASE_MS.to_string());
    assert_eq!(late[0].1.value.as_deref(), Some(event(1, "late", 1, 59_999).as_bytes()));
    let mut rejected: Vec<_> = records(&broker, "s.rejected").await;
    rejected.sort_by_key(|(_, record)| header(record, "offset"));
    let rules: Vec<_> = rejected.iter().map(|(_, record)| (header(record, "offset"), header(record, "rule"))).collect();
    assert_eq!(rules, [("2".into(), "view:f".into()), ("3".into(), "json".into())] as [(String, String); 2]);
    let status = engine.status();
    assert_eq!((status[0].rows_applied, status[0].late, status[0].failed, status[0].lag_records), (5, 1, 0, 0));
    assert_eq!((status[1].rows_applied, status[1].late, status[1].failed), (5, 0, 1));
    assert_eq!(engine.stream_status()[0].rejected_by_rule, BTreeMap::from([("json".to_string(), 1)]));
    engine.stop().await;
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_stream_closes_its_windows() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    create(&broker, "events", 2).await;
    let mut config = config(&["v AS SELECT count(*) AS n FROM s GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE)"]);
    config.streams[0].idle_timeout_ms = 1_000;
    let engine = Engine::start(broker.clone(), config).await.unwrap();
    append(&broker, "events", 0, &[event(1, "a", 1, 0), event(1, "a", 1, 130_000)]).await;
    read(&engine, "v").await;
    assert_eq!(engine.status()[0].closed_until, None, "partition 1 holds the watermark");
    broker.clock().advance(1_000);
    for _ in 0..200 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        if engine.status()[0].closed_until == Some(BASE_MS + 120_000) {
            break;
        }
    }
    assert_eq!(engine.status()[0].closed_until, Some(BASE_MS + 120_000));
    append(&broker, "events", 1, &[event(1, "a", 1, 60_000)]).await;
    assert_eq!(read(&engine, "v").await.len(), 2);
    assert_eq!(engine.status()[0].late, 1);
    engine.stop().await;
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn state_survives_and_a_changed_view_is_computed_again() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    let first = "v AS SELECT genre, count(*) AS n FROM s GROUP BY genre";
    let engine = Engine::start(broker.clone(), config(&[first])).await.unwrap();
    append(&broker, "events", 0, &[event(1, "a", 1, 0), event(1, "b", 1, 0), "bad".into()]).await;
    assert_eq!(read(&engine, "v").await, [["a", "1"], ["b", "1"]]);
    engine.stop().await;
    let stale = engine.read("v", ReadRequest { wait_ms: 1_000, ..ReadRequest::default() }).await.unwrap();
    assert!(stale.stale && stale.row_count() == 2);
    drop(engine);
    broker.stop().await.unwrap();
    drop(broker);

    let broker = open_broker(dir.path()).await;
    let second = "w AS SELECT count(*) AS n FROM s";
    let engine = Engine::start(broker.clone(), config(&[first, second])).await.unwrap();
    append(&broker, "events", 0, &[event(1, "a", 1, 0)]).await;
    assert_eq!(read(&engine, "v").await, [["a", "2"], ["b", "1"]], "goes on where it stood");
    assert_eq!(read(&engine, "w").await, [["3"]], "a new view begins at the log's start");
    assert_eq!(records(&broker, "s.rejected").await.len(), 1, "a second reading refuses nothing twice");
    engine.stop().await;

    let changed = "v AS SELECT genre, count(*) * 10 AS n FROM s GROUP BY genre";
    let engine = Engine::start(broker.clone(), config(&[changed, second])).await.unwrap();
    settled(&engine).await;
    assert_eq!(read(&engine, "v").await, [["a", "20"], ["b", "10"]]);
    assert_eq!(read(&engine, "w").await, [["3"]]);
    engine.stop().await;
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_has_a_limit_and_says_how_far_it_got() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    let engine = Engine::start(broker.clone(), config(&["v AS SELECT count(*) AS n FROM s"])).await.unwrap();
    append(&broker, "events", 0, &[event(1, "a", 1, 0)]).await;
    assert_eq!(engine.wait_fresh("v", 10_000).await.unwrap()["events"][&0], 1);
    broker.catalog().delete("v").await.unwrap();
    append(&broker, "events", 0, &[event(1, "a", 1, 0)]).await;
    let error = engine.wait_fresh("v", 10_000).await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::Stopped), "{error}");
    assert!(engine.status()[0].error.as_ref().unwrap().contains("deleted"));
    let answer = engine.read("v", ReadRequest { wait_ms: 100, ..ReadRequest::default() }).await.unwrap();
    assert!(answer.stale && answer.offsets["events"][&0] == 1);
    engine.stop().await;
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_forgets_closed_windows() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    let mut config = config(&["v AS SELECT count(*) AS n FROM s GROUP BY TUMBLE(ts, INTERVAL '1' SECOND)"]);
    config.views[0].retention_ms = Some(60_000);
    let engine = Engine::start(broker.clone(), config).await.unwrap();
    for second in 0..200 {
        append(&broker, "events", 0, &[event(1, "a", 1, second * 1_000)]).await;
    }
    read(&engine, "v").await;
    append(&broker, "events", 0, &[event(1, "a", 1, 200_000)]).await;
    let rows = read(&engine, "v").await;
    assert!((60..=64).contains(&rows.len()), "{}", rows.len());
    engine.stop().await;
    broker.stop().await.unwrap();
}

/// Each aggregate the engine takes, merged over many steps and restarts, against DataFusion over all rows at once.
#[tokio::test(flavor = "multi_thread")]
async fn every_aggregate_merges_as_datafusion_defines_it() {
    let aggregates = [
        "count(amount)",
        "sum(amount)",
        "sum(price)",
        "min(genre)",
        "max(ts)",
        "avg(amount)",
        "avg(price)",
        "stddev(amount)",
        "stddev_pop(amount)",
        "var(amount)",
        "var_pop(amount)",
        "corr(uid, amount)",
        "covar_samp(uid, amount)",
        "covar_pop(uid, amount)",
        "approx_distinct(amount)",
        "approx_median(amount)",
        "approx_percentile_cont(0.9) WITHIN GROUP (ORDER BY amount)",
        "bool_and(amount > 5)",
        "bool_or(amount > 100)",
        "bit_and(amount)",
        "bit_or(amount)",
        "bit_xor(amount)",
        "regr_slope(amount, uid)",
        "regr_intercept(amount, uid)",
        "regr_count(amount, uid)",
        "regr_r2(amount, uid)",
        "regr_avgx(amount, uid)",
        "regr_avgy(amount, uid)",
        "regr_sxx(amount, uid)",
        "regr_syy(amount, uid)",
        "regr_sxy(amount, uid)",
        "median(amount)",
        "median(price)",
        "percentile_cont(0.9) WITHIN GROUP (ORDER BY amount)",
        "count(*) FILTER (WHERE amount % 2 = 0)",
        "min(DISTINCT amount)",
        "sum(CAST(uid AS DECIMAL(10,2)))",
        "count(DISTINCT amount)",
        "count(DISTINCT genre)",
    ];
    let items: Vec<String> = aggregates.iter().enumerate().map(|(at, sql)| format!("{sql} AS a{at}")).collect();
    let select = format!("SELECT uid % 3 AS k, {} FROM s GROUP BY uid % 3", items.join(", "));
    let config = config(&[&format!("v AS {select}")]);
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    let mut engine = Engine::start(broker.clone(), config.clone()).await.unwrap();
    for round in 0..12_i64 {
        let value = |at: i64| {
            event((at * 7 + round) % 11, ["a", "b", "c"][(at % 3) as usize], (at * at + round * 13) % 150, at)
        };
        append(&broker, "events", 0, &(0..30).map(value).collect::<Vec<_>>()).await;
        read(&engine, "v").await;
        if round % 4 == 3 {
            engine.stop().await;
            engine = Engine::start(broker.clone(), config.clone()).await.unwrap();
        }
    }
    let got = engine.read("v", ReadRequest { wait_ms: 10_000, ..ReadRequest::default() }).await.unwrap();
    let batches = broker.catalog().topic("events").unwrap().partition(0).unwrap().read(0, 1 << 30).await.unwrap();
    let rows = engine.streams()[0].decode(0, &batches).unwrap().rows;
    let context = crate::sql::session();
    context.register_batch("s", rows).unwrap();
    let wanted = context.sql(&format!("{select} ORDER BY k")).await.unwrap().collect().await.unwrap();
    let wanted = Answer { rows: wanted, ..got.clone() };
    assert_eq!(got.row_count(), 3);
    for (got, wanted) in text(&got).iter().zip(text(&wanted)) {
        for (column, (got, wanted)) in got.iter().zip(&wanted).enumerate() {
            let is_near = match (got.parse::<f64>(), wanted.parse::<f64>()) {
                (Ok(got), Ok(wanted)) => {
                    (got - wanted).abs() <= 1e-9 * wanted.abs().max(1.0)
                        || (16..=17).contains(&column) && (got - wanted).abs() < 5.0
                }
                _ => got == wanted,
            };
            assert!(is_near, "{}: {got} is not {wanted}", aggregates[column - 1]);
        }
    }
    engine.stop().await;
    broker.stop().await.unwrap();
}

/// A group that is full takes no new distinct values; the rows are refused, and nothing else suffers.
#[tokio::test(flavor = "multi_thread")]
async fn distinct_values_have_a_limit_per_group() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    create(&broker, "events", 1).await;
    let config = config(&[
        "d AS SELECT genre, count(DISTINCT uid) AS users, count(*) AS n FROM s WHERE uid >= 0 GROUP BY genre",
    ]);
    let engine = Engine::start(broker.clone(), config).await.unwrap();
    let max = crate::keyed::DISTINCT_MAX as i64;
    let many = |from: i64, to: i64| (from..to).map(|uid| event(uid, "a", 1, 0)).collect::<Vec<_>>();
    append(&broker, "events", 0, &[many(0, max), vec![event(-1, "a", 1, 0), event(1, "b", 1, 0)]].concat()).await;
    let (all, some) = (max.to_string(), (max + 5).to_string());
    assert_eq!(read(&engine, "d").await, [["a", &all, &all], ["b", "1", "1"]]);
    append(&broker, "events", 0, &[many(max, max + 7), vec![event(-1, "a", 1, 0), event(2, "b", 1, 0)]].concat()).await;
    assert_eq!(read(&engine, "d").await, [["a", &all, &all], ["b", "2", "2"]]);
    append(&broker, "events", 0, &many(0, 5)).await;
    assert_eq!(read(&engine, "d").await, [["a", all.as_str(), &some], ["b", "2", "2"]]);
    let refused = records(&broker, "s.rejected").await;
    assert_eq!(refused.len(), 7);
    assert!(refused.iter().all(|(_, record)| header(record, "rule") == "view:d"));
    assert_eq!(engine.status()[0].failed, 7);
    engine.stop().await;
    broker.stop().await.unwrap();
}
