//! `EMIT FINAL`: each group is told once, when its window is closed, over restarts, retention and other definitions.

use super::windows::{MINUTE, live, short, topic};
use super::*;

const STEPS: &str = "t AS SELECT genre, count(*) AS n, 60 / (count(*) - 3) AS q FROM s \
     GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE), genre HAVING count(*) > 1 EMIT FINAL";
const STAYS: &str = "x AS SELECT uid, count(*) AS n FROM s GROUP BY SESSION(ts, INTERVAL '1' MINUTE), uid EMIT FINAL";

fn key(minute: i64, name: &str, value: &str) -> String {
    format!(r#"{{"window_start":"2026-11-20T10:{minute:02}:00Z","{name}":{value}}}"#)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_is_told_when_it_is_closed_and_never_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut broker = open_broker(dir.path()).await;
    create(&broker, "events", 1).await;
    let mut engine = Engine::start(broker.clone(), config(&[STEPS])).await.unwrap();
    let events = ["a", "a", "b", "c", "c", "c"].map(|genre| event(1, genre, 1, 0));
    append(&broker, "events", 0, &events).await;
    // Lateness is ten seconds: at 10:01:09 the first minute is open.
    append(&broker, "events", 0, &[event(1, "d", 1, MINUTE + 9_999), event(1, "d", 1, MINUTE)]).await;
    assert_eq!(short(read(&engine, "t").await), ["00:00 a 2 -60", "01:00 d 2 -60"], "reads show open windows");
    assert_eq!(topic(&broker, "t").await, [], "the topic does not");
    append(&broker, "events", 0, &[event(1, "a", 1, 1), event(1, "a", 1, 2), event(1, "f", 1, MINUTE + 10_000)]).await;
    read(&engine, "t").await;
    let row = r#"{"window_start":"2026-11-20T10:00:00Z","window_end":"2026-11-20T10:01:00Z","genre":"a","n":4,"q":60}"#;
    let told = [(key(0, "genre", r#""a""#), Some(row.to_string()))];
    assert_eq!(topic(&broker, "t").await, told, "not b, which HAVING leaves out, nor c, which cannot be computed");
    let refused: Vec<_> = records(&broker, "s.rejected").await;
    assert_eq!((refused.len(), header(&refused[0].1, "rule")), (1, "view:t".to_string()));
    assert_eq!(refused[0].1.key.as_deref(), Some(key(0, "genre", r#""c""#).as_bytes()));
    for round in 0..2 {
        (broker, engine) = reopen(dir.path(), (broker, engine), config(&[STEPS])).await;
        append(&broker, "events", 0, &[event(1, "a", 1, round), event(1, "a", 1, MINUTE + 11_000 + round)]).await;
        read(&engine, "t").await;
        assert_eq!(topic(&broker, "t").await, told, "a late row and a restart tell nothing");
        assert_eq!(engine.status()[0].late, round as u64 + 1);
    }
    append(&broker, "events", 0, &[event(1, "e", 1, 10 * MINUTE)]).await;
    read(&engine, "t").await;
    assert_eq!(topic(&broker, "t").await.len(), 3, "a and d of the second minute");
    assert_eq!(records(&broker, "s.rejected").await.len(), 1);
    engine.stop().await;
    broker.stop().await.unwrap();
}

/// Many groups close at once: they are told in several commits, all of them, once.
#[tokio::test(flavor = "multi_thread")]
async fn many_groups_are_told_in_parts() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    create(&broker, "events", 1).await;
    let steps = "t AS SELECT uid, count(*) AS n FROM s GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE), uid EMIT FINAL";
    let engine = Engine::start(broker.clone(), config(&[steps, STAYS])).await.unwrap();
    let groups = crate::member::TAKEN_OUT_MAX as i64 + 50;
    append(&broker, "events", 0, &(0..groups).map(|uid| event(uid, "a", 1, uid % 1_000)).collect::<Vec<_>>()).await;
    read(&engine, "t").await;
    append(&broker, "events", 0, &[event(-1, "a", 1, 30 * MINUTE)]).await;
    for view in ["t", "x"] {
        read(&engine, view).await;
        let told = topic(&broker, view).await;
        assert_eq!(told.len(), groups as usize, "{view}");
        assert_eq!(live(&broker, view).await.len(), groups as usize, "{view}");
    }
    engine.stop().await;
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_told_when_they_end_and_what_they_took_in_never_was() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    create(&broker, "events", 1).await;
    let mut engine = Engine::start(broker.clone(), config(&[STAYS])).await.unwrap();
    // Two sessions of user 1 become one; user 2's begins first and ends last.
    append(&broker, "events", 0, &[event(2, "a", 1, -MINUTE / 2), event(1, "a", 1, 0), event(2, "a", 1, 10_000)]).await;
    append(&broker, "events", 0, &[event(2, "a", 1, 60_000), event(1, "a", 1, 65_000)]).await;
    assert_eq!(read(&engine, "x").await.len(), 3);
    append(&broker, "events", 0, &[event(1, "a", 1, 30_000), event(2, "a", 1, 69_000)]).await;
    assert_eq!(short(read(&engine, "x").await), ["59:30 2 4", "00:00 1 3"]);
    assert_eq!(topic(&broker, "x").await, [], "neither sessions that are open, nor tombstones of what is one now");
    engine.stop().await;
    engine = Engine::start(broker.clone(), config(&[STAYS])).await.unwrap();
    // That of user 1 ends at 10:02:05, that of user 2 at 10:02:09; the lateness is ten seconds.
    append(&broker, "events", 0, &[event(3, "a", 1, 136_000)]).await;
    read(&engine, "x").await;
    assert_eq!(live(&broker, "x").await, [key(0, "uid", "1")]);
    engine.stop().await;
    engine = Engine::start(broker.clone(), config(&[STAYS])).await.unwrap();
    append(&broker, "events", 0, &[event(3, "a", 1, 140_000)]).await;
    read(&engine, "x").await;
    let told = topic(&broker, "x").await;
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[1].1.as_ref().unwrap().contains(r#""uid":2,"n":4"#), "{told:?}");
    let listed = broker.store().scan(broker::Family::State, &[0x14], &[0x15]).count();
    assert_eq!(listed, 1, "the open session of user 3");
    engine.stop().await;
    broker.stop().await.unwrap();
}

/// With a retention shorter than the lateness, a window is told before it goes.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_leaves_after_its_retention_and_with_its_definition() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    create(&broker, "events", 1).await;
    let steps = "t AS SELECT genre, count(*) AS n FROM s GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE), genre EMIT FINAL";
    let mut config = config(&[steps, STAYS]);
    config.views.iter_mut().for_each(|view| view.retention_ms = Some(5_000));
    let mut engine = Engine::start(broker.clone(), config.clone()).await.unwrap();
    for minute in 0..30 {
        append(&broker, "events", 0, &[event(minute, "a", 1, 2 * minute * MINUTE)]).await;
        read(&engine, "t").await;
        if minute % 10 == 4 {
            engine.stop().await;
            engine = Engine::start(broker.clone(), config.clone()).await.unwrap();
        }
    }
    read(&engine, "x").await;
    for view in ["t", "x"] {
        let told = topic(&broker, view).await;
        let (values, gone): (Vec<_>, Vec<_>) = told.iter().partition(|(_, value)| value.is_some());
        assert_eq!((values.len(), gone.len()), (29, 29), "{view}: each was told, then taken out");
        assert_eq!(live(&broker, view).await, [""; 0]);
        assert_eq!(read(&engine, view).await.len(), 1, "{view}");
    }
    assert_eq!(
        broker.store().scan(broker::Family::State, &[0x10], &[0x15]).count(),
        4,
        "a group, and a listed session"
    );
    engine.stop().await;

    // The same text but for EMIT is another definition.
    for view in &mut config.views {
        view.retention_ms = None;
        view.sql = view.sql.replace("FINAL", "CHANGES");
    }
    let engine = Engine::start(broker.clone(), config.clone()).await.unwrap();
    settled(&engine).await;
    for view in ["t", "x"] {
        assert_eq!(read(&engine, view).await.len(), 30, "{view}");
        assert_eq!(live(&broker, view).await.len(), 30, "{view}");
    }
    assert_eq!(broker.store().scan(broker::Family::State, &[0x14], &[0x15]).count(), 0);
    engine.stop().await;
    config.views.iter_mut().for_each(|view| view.sql = view.sql.replace("CHANGES", "FINAL"));
    let engine = Engine::start(broker.clone(), config).await.unwrap();
    settled(&engine).await;
    for view in ["t", "x"] {
        assert_eq!(read(&engine, view).await.len(), 30, "{view}");
        assert_eq!(live(&broker, view).await.len(), 29, "{view}: all but the open one");
    }
    engine.stop().await;
    broker.stop().await.unwrap();
}
