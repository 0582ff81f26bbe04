//! Windows that overlap and sessions: what is read, told, closed, late, forgotten.

use super::*;
use crate::check;

const HOPS: &str = "h AS SELECT genre, count(*) AS n, sum(amount) AS total FROM s \
     GROUP BY HOP(ts, INTERVAL '1' MINUTE, INTERVAL '3' MINUTE), genre";
const VISITS: &str =
    "x AS SELECT uid, count(*) AS n, sum(amount) AS total FROM s GROUP BY SESSION(ts, INTERVAL '1' MINUTE), uid";

pub(super) const MINUTE: i64 = 60_000;

/// Key and value of each record of a view's topic.
pub(super) async fn topic(broker: &Broker, view: &str) -> Vec<(String, Option<String>)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let all = records(broker, view).await;
    all.into_iter().map(|(_, record)| (text(&record.key.unwrap()), record.value.as_deref().map(text))).collect()
}

/// The keys of a view's topic whose newest record has a value.
pub(super) async fn live(broker: &Broker, view: &str) -> Vec<String> {
    let newest: BTreeMap<String, Option<String>> = topic(broker, view).await.into_iter().collect();
    newest.into_iter().filter(|(_, value)| value.is_some()).map(|(key, _)| key).collect()
}

/// Start of the window as minutes and seconds, then the other columns but its end.
pub(super) fn short(rows: Vec<Vec<String>>) -> Vec<String> {
    rows.iter().map(|row| format!("{} {}", &row[0][14..19], row[2..].join(" "))).collect()
}

fn asked(edit: &dyn Fn(&mut ReadRequest)) -> ReadRequest {
    let mut request = ReadRequest { wait_ms: 20_000, ..ReadRequest::default() };
    edit(&mut request);
    request
}

#[test]
fn mistakes_say_what_to_write() {
    let cases = [
        ("v AS SELECT count(*) AS n FROM s GROUP BY HOP(price, INTERVAL '1' DAY, INTERVAL '2' DAY)", "HOP is over"),
        (
            "v AS SELECT max(ts - window_start) AS n FROM s GROUP BY SESSION(ts, INTERVAL '1' DAY)",
            "within an aggregate",
        ),
        (
            "v AS SELECT window_start < ts AS k, count(*) AS n FROM s \
             GROUP BY HOP(ts, INTERVAL '1' DAY, INTERVAL '2' DAY), window_start < ts",
            "in a key",
        ),
    ];
    for (view, expected) in cases {
        let mistakes = check(&config(&[view]));
        assert!(mistakes.iter().any(|mistake| mistake.contains(expected)), "{view}: {mistakes:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_is_in_each_window_that_holds_it() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    create(&broker, "events", 1).await;
    let having = "big AS SELECT count(*) AS n FROM s GROUP BY HOP(ts, INTERVAL '1' MINUTE, INTERVAL '3' MINUTE) \
                  HAVING count(*) > 1 AND window_end > window_start + INTERVAL '2' MINUTE";
    let engine = Engine::start(broker.clone(), config(&[HOPS, having])).await.unwrap();
    let events =
        [event(1, "b", 1, 0), event(1, "a", 2, 59_999), event(1, "a", 4, MINUTE), event(1, "a", 8, 9 * MINUTE)];
    append(&broker, "events", 0, &events).await;
    let rows = read(&engine, "h").await;
    assert_eq!(rows[0], ["2026-11-20T09:58:00Z", "2026-11-20T10:01:00Z", "a", "1", "2"]);
    let all = [
        "58:00 a 1 2",
        "58:00 b 1 1",
        "59:00 a 2 6",
        "59:00 b 1 1",
        "00:00 a 2 6",
        "00:00 b 1 1",
        "01:00 a 1 4",
        "07:00 a 1 8",
        "08:00 a 1 8",
        "09:00 a 1 8",
    ];
    assert_eq!(short(rows), all);
    assert_eq!(short(read(&engine, "big").await), ["58:00 2", "59:00 3", "00:00 3"]);

    let read = async |request: ReadRequest| short(text(&engine.read("h", request).await.unwrap()));
    assert_eq!(read(asked(&|r| r.from = Some(BASE_MS))).await, all[4..]);
    assert_eq!(read(asked(&|r| r.from = Some(BASE_MS - 1))).await, all[4..]);
    assert_eq!(read(asked(&|r| (r.from, r.to) = (Some(BASE_MS - MINUTE), Some(BASE_MS + 1)))).await, all[2..6]);
    assert_eq!(read(asked(&|r| r.to = Some(BASE_MS - MINUTE))).await, all[..2]);
    assert_eq!(read(asked(&|r| (r.from, r.to) = (Some(i64::MAX), Some(i64::MIN)))).await, [""; 0]);
    assert_eq!(read(asked(&|r| r.keys = vec![("genre".into(), "b".into())])).await, [all[1], all[3], all[5]]);
    assert_eq!(read(asked(&|r| r.limit = Some(3))).await, all[..3]);
    let newest = asked(&|r| (r.order, r.limit) = (vec![("window_start".into(), true)], Some(1)));
    assert_eq!(read(newest).await, all[9..]);

    let context = datafusion::prelude::SessionContext::new();
    context.register_table("h", engine.view_table("h").unwrap()).unwrap();
    for function in crate::only_in_views() {
        context.register_udf(function);
    }
    let sql = "SELECT max(n) AS most FROM h WHERE window_start >= '2026-11-20T09:59:00Z' AND window_start < '2026-11-20T10:01:00Z'";
    let rows = context.sql(sql).await.unwrap().collect().await.unwrap();
    assert!(arrow::util::pretty::pretty_format_batches(&rows).unwrap().to_string().contains("| 2 "));
    for (call, instead) in [
        ("hop(window_start, INTERVAL '1 minute', INTERVAL '1 hour')", "GROUP BY HOP(ts"),
        ("session(window_start, INTERVAL '1 minute')", "GROUP BY SESSION(ts"),
    ] {
        let failed = async { context.sql(&format!("SELECT {call} FROM h")).await?.collect().await }.await;
        assert!(failed.unwrap_err().to_string().contains(instead), "{call}");
    }
    engine.stop().await;
    broker.stop().await.unwrap();
}

/// A window is told when it is closed, and does not change after that: a row that comes later counts in those of its windows that are
/// open, and stands in the late topic with the one from which on it counts.
#[tokio::test(flavor = "multi_thread")]
async fn closed_windows_are_told_once_and_do_not_change() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    create(&broker, "events", 1).await;
    let mut engine = Engine::start(broker.clone(), config(&[HOPS])).await.unwrap();
    // Lateness is ten seconds: all that ends by 10:01:00 is closed.
    append(&broker, "events", 0, &[event(1, "a", 1, 0), event(1, "a", 1, 70_000)]).await;
    assert_eq!(read(&engine, "h").await.len(), 4);
    let told = topic(&broker, "h").await;
    let row =
        r#"{"window_start":"2026-11-20T09:58:00Z","window_end":"2026-11-20T10:01:00Z","genre":"a","n":1,"total":1}"#;
    assert_eq!(told, [(r#"{"window_start":"2026-11-20T09:58:00Z","genre":"a"}"#.into(), Some(row.into()))]);
    for restart in [false, true] {
        if restart {
            engine.stop().await;
            engine = Engine::start(broker.clone(), config(&[HOPS])).await.unwrap();
        }
        append(&broker, "events", 0, &[event(1, "a", 5, 1), event(1, "a", 9, -MINUTE), event(1, "a", 7, -3 * MINUTE)])
            .await;
        read(&engine, "h").await;
        assert_eq!(topic(&broker, "h").await, told);
    }
    // 10:00:00 and 10:00:00.001 twice, 10:01:10; what is of 9:59 counts from 9:59 on, what is of 9:57 nowhere.
    let wanted = ["58:00 a 1 1", "59:00 a 6 30", "00:00 a 4 12", "01:00 a 1 1"];
    assert_eq!(short(read(&engine, "h").await), wanted);
    let late: Vec<(String, i64, Option<i64>)> = records(&broker, "h.late")
        .await
        .iter()
        .map(|(_, record)| {
            let minutes = |name: &str| (header(record, name).parse::<i64>().unwrap() - BASE_MS) / MINUTE;
            let counts = record.headers.iter().any(|(name, _)| name.as_ref() == b"counted_from");
            (header(record, "offset"), minutes("window_start"), counts.then(|| minutes("counted_from")))
        })
        .collect();
    let of = |offset: i64| [(offset, -2, Some(-1)), (offset + 1, -3, Some(-1)), (offset + 2, -5, None)];
    let wanted_late: Vec<_> = [of(2), of(5)].concat().into_iter().map(|(o, m, c)| (o.to_string(), m, c)).collect();
    assert_eq!(late, wanted_late);
    let status = &engine.status()[0];
    assert_eq!((status.rows_applied, status.late), (6, 2));

    append(&broker, "events", 0, &[event(1, "b", 1, 10 * MINUTE)]).await;
    assert_eq!(short(read(&engine, "h").await)[..4], wanted);
    assert_eq!(topic(&broker, "h").await.len(), 4, "each closed window once");
    engine.stop().await;
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn overlapping_windows_leave_after_their_retention_and_with_their_definition() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    create(&broker, "events", 1).await;
    let mut config = config(&[HOPS]);
    config.views[0].retention_ms = Some(10 * MINUTE);
    let mut engine = Engine::start(broker.clone(), config.clone()).await.unwrap();
    for minute in 0..30 {
        append(&broker, "events", 0, &["a", "b"].map(|genre| event(1, genre, 1, minute * MINUTE))).await;
        read(&engine, "h").await;
        if minute % 10 == 4 {
            engine.stop().await;
            engine = Engine::start(broker.clone(), config.clone()).await.unwrap();
        }
    }
    let rows = short(read(&engine, "h").await);
    // At 10:27 what ended by 10:17 went: windows from 10:15 on are left, of which those that end by 10:28 are told.
    assert_eq!((rows.len(), rows[0].as_str(), rows[1].as_str()), (30, "15:00 a 3 3", "15:00 b 3 3"));
    let told = live(&broker, "h").await;
    assert_eq!((told.len(), &told[0]), (22, &r#"{"window_start":"2026-11-20T10:15:00Z","genre":"a"}"#.to_string()));
    let kept = broker.store().scan(broker::Family::State, &[0x10], &[0x11]).count();
    assert_eq!(kept, 30, "panes of windows that are gone are gone too");
    engine.stop().await;

    config.views[0] =
        ViewConfig { sql: format!("CREATE MATERIALIZED VIEW {}", HOPS.replace("'3'", "'2'")), ..ViewConfig::default() };
    let engine = Engine::start(broker.clone(), config).await.unwrap();
    settled(&engine).await;
    let rows = short(read(&engine, "h").await);
    assert_eq!((rows.len(), rows[0].as_str(), rows[2].as_str()), (62, "59:00 a 1 1", "00:00 a 2 2"));
    assert_eq!(live(&broker, "h").await.len(), 56, "windows of the former definition are taken out");
    engine.stop().await;
    broker.stop().await.unwrap();
}

/// A topic of the same name is another one: nothing of the former is in the views, nor newest in their topics.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_made_again_leaves_no_windows_of_the_former() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    create(&broker, "events", 1).await;
    let engine = Engine::start(broker.clone(), config(&[HOPS, VISITS])).await.unwrap();
    append(&broker, "events", 0, &[event(1, "a", 1, 0), event(2, "b", 1, 20 * MINUTE)]).await;
    assert_eq!(read(&engine, "h").await.len(), 6);
    assert_eq!(read(&engine, "x").await.len(), 2);
    assert_eq!((live(&broker, "h").await.len(), live(&broker, "x").await.len()), (3, 2));
    broker.catalog().delete("events").await.unwrap();
    create(&broker, "events", 1).await;
    append(&broker, "events", 0, &[event(1, "c", 1, 0), event(1, "c", 1, 1)]).await;
    assert_eq!(short(read(&engine, "h").await), ["58:00 c 2 2", "59:00 c 2 2", "00:00 c 2 2"]);
    assert_eq!(short(read(&engine, "x").await), ["00:00 1 2 2"]);
    assert_eq!((live(&broker, "h").await.len(), live(&broker, "x").await.len()), (0, 1));
    append(&broker, "events", 0, &[event(1, "c", 1, 20 * MINUTE)]).await;
    read(&engine, "h").await;
    assert_eq!(live(&broker, "h").await.len(), 3);
    engine.stop().await;
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn calendar_windows_overlap() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    create(&broker, "events", 1).await;
    let mut config = config(&[
        "days AS SELECT count(*) AS n FROM s GROUP BY HOP(ts, INTERVAL '1' DAY, INTERVAL '2' DAY, 'Europe/Paris')",
        "months AS SELECT count(*) AS n FROM s GROUP BY HOP(ts, INTERVAL '1' MONTH, INTERVAL '3' MONTH)",
    ]);
    config.streams[0].max_ahead_ms = i64::MAX / 4;
    let engine = Engine::start(broker.clone(), config).await.unwrap();
    append(&broker, "events", 0, &[event(1, "a", 1, 0), event(1, "a", 1, 24 * 60 * MINUTE)]).await;
    assert_eq!(
        read(&engine, "days").await,
        [
            ["2026-11-18T23:00:00Z", "2026-11-20T23:00:00Z", "1"],
            ["2026-11-19T23:00:00Z", "2026-11-21T23:00:00Z", "2"],
            ["2026-11-20T23:00:00Z", "2026-11-22T23:00:00Z", "1"],
        ]
    );
    let months = read(&engine, "months").await;
    assert_eq!(months[0], ["2026-09-01T00:00:00Z", "2026-12-01T00:00:00Z", "2"]);
    assert_eq!(months[2], ["2026-11-01T00:00:00Z", "2027-02-01T00:00:00Z", "2"]);
    let from = asked(&|r| r.from = Some(BASE_MS));
    assert_eq!(engine.read("days", from.clone()).await.unwrap().row_count(), 1);
    assert_eq!(engine.read("months", from).await.unwrap().row_count(), 0);
    engine.stop().await;
    broker.stop().await.unwrap();
}

/// Many keys and windows: read and told in several parts, in order, with nothing missing.
#[tokio::test(flavor = "multi_thread")]
async fn many_windows_come_in_parts() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    create(&broker, "events", 1).await;
    let sql = "m AS SELECT uid, count(*) AS n FROM s GROUP BY HOP(ts, INTERVAL '1' SECOND, INTERVAL '40' SECOND), uid";
    let engine = Engine::start(broker.clone(), config(&[sql])).await.unwrap();
    let (keys, seconds) = (130_i64, 3_i64);
    for second in 0..seconds {
        let events: Vec<String> = (0..keys).map(|uid| event(uid, "a", 1, second * 1_000)).collect();
        append(&broker, "events", 0, &events).await;
    }
    let rows = read(&engine, "m").await;
    assert_eq!(rows.len() as i64, keys * (39 + seconds));
    assert!(rows.is_sorted_by_key(|row| (row[0].clone(), row[2].parse::<i64>().unwrap())));
    let counted: i64 = rows.iter().map(|row| row[3].parse::<i64>().unwrap()).sum();
    assert_eq!(counted, keys * seconds * 40);
    append(&broker, "events", 0, &[event(0, "a", 1, 600_000)]).await;
    read(&engine, "m").await;
    assert_eq!(live(&broker, "m").await.len(), rows.len());
    engine.stop().await;
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_grow_and_become_one() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    create(&broker, "events", 1).await;
    let mut engine = Engine::start(broker.clone(), config(&[VISITS])).await.unwrap();
    append(&broker, "events", 0, &[event(1, "a", 1, 0), event(2, "a", 1, 0), event(1, "a", 2, MINUTE + 50_000)]).await;
    let rows = read(&engine, "x").await;
    assert_eq!(rows[0], ["2026-11-20T10:00:00Z", "2026-11-20T10:01:00Z", "1", "1", "1"]);
    assert_eq!(short(rows), ["00:00 1 1 1", "00:00 2 1 1", "01:50 1 1 2"]);
    engine.stop().await;
    engine = Engine::start(broker.clone(), config(&[VISITS])).await.unwrap();
    // Watermark 10:01:50, closed until 10:01:40: user 1's first session ended at 10:01:00.
    let status = &engine.status()[0];
    assert_eq!(status.closed_until, Some(BASE_MS + 100_000));
    let events =
        [event(1, "a", 4, 30_000), event(2, "a", 9, 1), event(1, "a", 8, 61_000), event(1, "a", 16, 2 * MINUTE)];
    append(&broker, "events", 0, &events).await;
    let rows = read(&engine, "x").await;
    assert_eq!(rows[2], ["2026-11-20T10:01:01Z", "2026-11-20T10:03:00Z", "1", "3", "26"]);
    assert_eq!(short(rows), ["00:00 1 1 1", "00:00 2 1 1", "01:01 1 3 26"]);
    let late: Vec<_> = records(&broker, "x.late")
        .await
        .iter()
        .map(|(_, r)| (header(r, "offset"), header(r, "window_start")))
        .collect();
    assert_eq!(late, [("3".to_string(), BASE_MS.to_string()), ("4".to_string(), BASE_MS.to_string())]);
    let gone = (r#"{"window_start":"2026-11-20T10:01:50Z","uid":1}"#.to_string(), None);
    let told = topic(&broker, "x").await;
    assert_eq!((told.len(), &told[3]), (5, &gone), "{told:?}");
    assert_eq!(live(&broker, "x").await.len(), 3);

    // One that bridges two.
    append(&broker, "events", 0, &[event(3, "a", 1, 3 * MINUTE), event(3, "a", 2, 4 * MINUTE + 5_000)]).await;
    assert_eq!(short(read(&engine, "x").await)[3..], ["03:00 3 1 1", "04:05 3 1 2"]);
    append(&broker, "events", 0, &[event(3, "a", 4, 3 * MINUTE + 30_000)]).await;
    assert_eq!(short(read(&engine, "x").await)[3..], ["03:00 3 3 7"]);
    let all = asked(&|r| (r.from, r.to) = (Some(BASE_MS + 1), Some(BASE_MS + 3 * MINUTE)));
    assert_eq!(engine.read("x", all).await.unwrap().row_count(), 1);
    engine.stop().await;
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_leave_after_their_retention_and_with_their_definition() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    create(&broker, "events", 1).await;
    let mut config = config(&[VISITS]);
    config.views[0].retention_ms = Some(10 * MINUTE);
    let engine = Engine::start(broker.clone(), config.clone()).await.unwrap();
    // User 9 never pauses.
    for minute in 0..30 {
        append(&broker, "events", 0, &[event(minute, "a", 1, minute * MINUTE), event(9, "a", 1, minute * MINUTE)])
            .await;
        read(&engine, "x").await;
    }
    let rows = short(read(&engine, "x").await);
    assert!(rows[0] == "00:00 9 31 31" && (12..=14).contains(&rows.len()), "{rows:?}");
    assert_eq!(live(&broker, "x").await.len(), rows.len());
    for kind in [0x10, 0x13] {
        let kept = broker.store().scan(broker::Family::State, &[kind], &[kind + 1]).count();
        assert_eq!(kept, rows.len(), "what is stored under {kind:x}");
    }
    engine.stop().await;
    config.views[0].sql = config.views[0].sql.replace("'1' MINUTE", "'50' SECOND");
    config.views[0].retention_ms = None;
    let engine = Engine::start(broker.clone(), config).await.unwrap();
    settled(&engine).await;
    let rows = read(&engine, "x").await;
    assert_eq!(rows.len(), 59);
    assert_eq!(live(&broker, "x").await.len(), 59);
    assert_eq!(broker.store().scan(broker::Family::State, &[0x13], &[0x14]).count(), 59);
    engine.stop().await;
    broker.stop().await.unwrap();
}

/// A row that cannot be evaluated is in no session, nor is one whose session is full; the others are.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_refused_join_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    create(&broker, "events", 1).await;
    let config = config(&[
        "q AS SELECT sum(100 / amount) AS q, count(*) AS n FROM s WHERE uid < 5 GROUP BY SESSION(ts, INTERVAL '1' MINUTE)",
        "d AS SELECT count(DISTINCT uid) AS users, count(*) AS n FROM s GROUP BY SESSION(ts, INTERVAL '1' MINUTE)",
    ]);
    let engine = Engine::start(broker.clone(), config).await.unwrap();
    let events = [event(1, "a", 1, 0), event(7, "a", 0, 1), event(1, "a", 0, MINUTE), event(1, "a", 5, 2 * MINUTE)];
    append(&broker, "events", 0, &events).await;
    assert_eq!(short(read(&engine, "q").await), ["00:00 100 1", "02:00 20 1"]);
    assert_eq!(short(read(&engine, "d").await), ["00:00 2 4"]);
    let refused = records(&broker, "s.rejected").await;
    assert_eq!((refused.len(), header(&refused[0].1, "offset").as_str()), (1, "2"));
    let max = crate::keyed::DISTINCT_MAX as i64;
    let many: Vec<String> = (10..10 + max).map(|uid| event(uid, "a", 1, 2 * MINUTE)).collect();
    append(&broker, "events", 0, &many[..many.len() - 2]).await;
    read(&engine, "d").await;
    append(&broker, "events", 0, &many).await;
    let rows = short(read(&engine, "d").await);
    assert_eq!(rows, [format!("00:00 {} {}", max, max + 2)]);
    let status = &engine.status()[1];
    assert_eq!((status.rows_applied, status.failed), ((max + 2) as u64, max as u64));
    engine.stop().await;
    broker.stop().await.unwrap();
}

#[test]
fn what_is_stored_of_windows_is_drawn_here() {
    use crate::state::{Mark, decode_session, mark_key, session_key};
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(hex(&session_key(7, b"k", 60_000)), "13000000076b800000000000ea60");
    assert_eq!(decode_session(&session_key(7, b"k", 60_000), &5_i64.to_be_bytes()).unwrap(), (60_000, 5));
    assert_eq!(hex(&mark_key(7)), "0800000007");
    let mark = Mark { told: 3, gone: -1 };
    assert_eq!(hex(&mark.encode()), "0000000000000003ffffffffffffffff");
    assert_eq!(Mark::decode(Some(&mark.encode())).unwrap(), mark);
    assert_eq!(Mark::decode(None).unwrap(), Mark::NONE);
}
