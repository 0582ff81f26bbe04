//! Views against their recomputation: what is right is found right, and a state that was changed by hand is found out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::util::display::{ArrayFormatter, FormatOptions};
use broker::{Ack, Append, BatchBuilder, Broker, BrokerConfig, Change, Clock, Durability, Family, NewTopic, Origin};
use engine::{ColumnConfig, Engine, EngineConfig, ReadRequest, StreamConfig, ViewConfig};

use super::support::Chance;
use crate::config::LakeConfig;
use crate::lake::Lake;
use crate::proof::{DifferenceKind, ViewReport, ViewScope};

/// 2026-03-28T22:00:00Z: three hours before clocks go forward in Paris, in the night of the 29th.
pub(super) const BASE_MS: i64 = 1_774_735_200_000;
pub(super) const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const LATENESS_MS: i64 = 3_000;

pub(super) const VIEWS: [(&str, &str); 18] = [
    (
        "minutes",
        "SELECT genre, count(*) AS n, sum(amount) AS total, avg(amount) AS mean, min(amount) AS lo, max(amount) AS hi, \
         stddev(price) AS spread, count(DISTINCT uid) AS people FROM s WHERE uid <> 3 GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE), genre",
    ),
    ("days", "SELECT count(*) AS n, sum(price) AS paid FROM s GROUP BY TUMBLE(ts, INTERVAL '1' DAY, 'Europe/Paris')"),
    ("months", "SELECT genre, count(*) AS n FROM s GROUP BY TUMBLE(ts, INTERVAL '5' MONTH), genre"),
    ("paris", "SELECT count(*) AS n FROM s GROUP BY TUMBLE(ts, INTERVAL '1' MONTH, 'Europe/Paris')"),
    (
        "hops",
        "SELECT genre, count(*) AS n, sum(amount) AS total, min(amount) AS lo FROM s WHERE uid <> 3 \
         GROUP BY HOP(ts, INTERVAL '4' SECOND, INTERVAL '10' SECOND), genre",
    ),
    ("weeks", "SELECT count(*) AS n FROM s GROUP BY HOP(ts, INTERVAL '1' DAY, INTERVAL '3' DAY, 'Europe/Paris')"),
    (
        "visits",
        "SELECT uid, count(*) AS n, sum(amount) AS total, max(ts) AS last FROM s WHERE genre <> 'pop' \
         GROUP BY SESSION(ts, INTERVAL '900' MILLISECOND), uid",
    ),
    ("bursts", "SELECT count(*) AS n FROM s GROUP BY SESSION(ts, INTERVAL '120' MILLISECOND)"),
    (
        "totals",
        "SELECT l.genre, count(*) AS n, sum(l.amount) AS total FROM s AS l GROUP BY l.genre HAVING count(*) > 3",
    ),
    ("one", "SELECT count(*) AS n, max(ts) AS newest FROM s"),
    (
        "unnamed",
        "SELECT count(*) FILTER (WHERE amount > 100) AS n FROM s GROUP BY TUMBLE(ts, INTERVAL '30' SECOND), genre",
    ),
    (
        "sketches",
        "SELECT genre, approx_distinct(uid) AS people, approx_percentile_cont(price, 0.9) AS dear, approx_median(amount) AS \
         middle FROM s GROUP BY TUMBLE(ts, INTERVAL '10' MINUTE), genre",
    ),
    (
        "ordered",
        "SELECT genre, first(amount) AS opening, last(amount ORDER BY ts) FILTER (WHERE uid <> 3) AS closing, \
         array_agg(DISTINCT uid) AS people FROM s GROUP BY HOP(ts, INTERVAL '4' SECOND, INTERVAL '10' SECOND), genre",
    ),
    (
        "ends",
        "SELECT upper(genre) AS loud, count(*) AS n FROM s GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE), upper(genre) \
         HAVING window_end > window_start AND count(*) < 1000",
    ),
    (
        "syllables",
        "SELECT u.part, count(*) AS n, sum(amount) AS total FROM s CROSS JOIN UNNEST(string_to_array(s.genre, 'o')) AS u(part) \
         WHERE u.part <> 'ck' GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE), u.part",
    ),
    (
        "overlaps",
        "SELECT count(*) AS n, count(DISTINCT l.uid) AS people FROM s AS l CROSS JOIN UNNEST(string_to_array(l.genre, 'o')) AS \
         part WHERE uid <> 3 GROUP BY HOP(ts, INTERVAL '4' SECOND, INTERVAL '10' SECOND), part",
    ),
    (
        "parts",
        "SELECT upper(part) AS loud, max(amount) AS hi FROM s CROSS JOIN UNNEST(string_to_array(genre, 'o')) AS u(part) \
         GROUP BY upper(part)",
    ),
    (
        "spells",
        "SELECT part, count(*) AS n, sum(amount) AS total FROM s \
         CROSS JOIN UNNEST(string_to_array(s.genre || 'o' || CAST(s.uid AS VARCHAR), 'o')) AS u(part) WHERE part <> 'ck' \
         GROUP BY SESSION(ts, INTERVAL '700' MILLISECOND), part",
    ),
];

pub(super) struct Running {
    _dir: tempfile::TempDir,
    broker: Arc<Broker>,
    pub(super) engine: Arc<Engine>,
    pub(super) lake: Arc<Lake>,
}

fn config(views: &[(&str, &str)], retention_ms: Option<i64>) -> EngineConfig {
    let column = |name: &str, sql_type: &str| ColumnConfig {
        name: name.into(),
        sql_type: sql_type.into(),
        required: name == "uid",
        ..ColumnConfig::default()
    };
    let stream = StreamConfig {
        name: "s".into(),
        topic: "events".into(),
        columns: vec![
            column("uid", "BIGINT"),
            column("genre", "VARCHAR"),
            column("amount", "BIGINT"),
            column("price", "DOUBLE"),
            column("ts", "TIMESTAMP"),
        ],
        event_time: "ts".into(),
        lateness_ms: LATENESS_MS,
        idle_timeout_ms: 0,
        max_ahead_ms: 30 * 24 * HOUR_MS,
        ..StreamConfig::default()
    };
    let view = |(name, sql): &(&str, &str)| ViewConfig {
        sql: format!("CREATE MATERIALIZED VIEW {name} AS {sql}"),
        source: "test:1".into(),
        retention_ms: retention_ms.filter(|_| sql.contains("TUMBLE") || sql.contains("HOP") || sql.contains("SESSION")),
    };
    EngineConfig { streams: vec![stream], views: views.iter().map(view).collect(), ..EngineConfig::default() }
}

pub(super) async fn running(views: &[(&str, &str)], retention_ms: Option<i64>) -> Running {
    let dir = tempfile::tempdir().unwrap();
    let broker =
        BrokerConfig { data_dir: dir.path().join("data"), durability: Durability::Os, ..BrokerConfig::default() };
    let broker = Broker::open(broker, Clock::manual(BASE_MS + HOUR_MS)).await.unwrap();
    broker.catalog().ensure(NewTopic { name: "events".into(), partitions: 2, config: BTreeMap::new() }).await.unwrap();
    let engine = Engine::start(broker.clone(), config(views, retention_ms)).await.unwrap();
    let lake = Lake::start(broker.clone(), engine.clone(), LakeConfig::default()).await.unwrap();
    Running { _dir: dir, broker, engine, lake }
}

impl Running {
    pub(super) async fn append(&self, partition: i32, values: &[String]) {
        let mut batch = BatchBuilder::new();
        let now = self.broker.clock().now_ms();
        values.iter().for_each(|value| batch.push(now, Some(b"k"), Some(value.as_bytes()), &[]));
        let partition = self.broker.catalog().topic("events").unwrap().partition(partition).unwrap();
        let append = Append { partition, batch: batch.build().unwrap(), origin: Origin::Internal };
        self.commit(vec![Change::Append(append)]).await;
    }

    async fn commit(&self, changes: Vec<Change>) {
        self.broker.lane().commit(changes, Ack::Durable).await.unwrap();
    }

    async fn verify(&self, view: &str) -> ViewReport {
        self.verify_from(view, (None, None)).await
    }

    async fn verify_from(&self, view: &str, (from, to): (Option<i64>, Option<i64>)) -> ViewReport {
        self.lake.verify_view(&self.engine, view, ViewScope { from, to, wait_ms: 20_000 }).await.unwrap()
    }

    /// Rows of a view as text: the first columns, which name a row, and all of it.
    async fn rows(&self, view: &str, named: usize) -> BTreeMap<Vec<String>, Vec<String>> {
        let answer = self.engine.read(view, ReadRequest { wait_ms: 20_000, ..ReadRequest::default() }).await.unwrap();
        let options = FormatOptions::new().with_null("∅");
        let mut rows = BTreeMap::new();
        for batch in &answer.rows {
            let columns: Vec<_> =
                batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
            for row in 0..batch.num_rows() {
                let row: Vec<String> = columns.iter().map(|column| column.value(row).to_string()).collect();
                rows.insert(row[..named].to_vec(), row);
            }
        }
        rows
    }

    /// The keys and values of a view's state.
    fn states(&self, view: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
        let definition =
            self.broker.store().get(Family::State, &[&[0x01_u8][..], view.as_bytes()].concat()).unwrap().unwrap();
        let prefix = [&[0x10_u8][..], &definition[1..5]].concat();
        let mut end = prefix.clone();
        *end.last_mut().unwrap() += 1;
        let states = self.broker.store().scan(Family::State, &prefix, &end);
        states.map(|entry| entry.unwrap()).map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
    }

    pub(super) async fn stop(self) {
        self.lake.stop().await.unwrap();
        self.engine.stop().await;
        self.broker.stop().await.unwrap();
    }
}

/// Mostly good events behind a moving time, a few far behind it, dirty or twice.
pub(super) fn values(chance: &mut Chance, now_ms: i64, count: u64) -> Vec<String> {
    let mut values = Vec::new();
    for _ in 0..count {
        let behind = match chance.below(20) {
            0 => chance.below(3 * 60_000),
            1..5 => chance.below(12_000),
            _ => chance.below(2_000),
        };
        let genre = ["\"jazz\"", "\"rock\"", "\"pop\"", "null"][chance.below(4) as usize];
        let (uid, ts, amount) = (chance.below(6), now_ms - behind as i64, chance.below(500));
        values.push(match chance.below(30) {
            0 => "{".to_string(),
            1 => format!(r#"{{"ts":{ts},"amount":1}}"#),
            _ => format!(
                r#"{{"uid":{uid},"genre":{genre},"amount":{amount},"price":{},"ts":{ts}}}"#,
                chance.below(1_000_000) as f64 / 997.0
            ),
        });
        if chance.below(40) == 0 {
            values.push(values[values.len() - 1].clone());
        }
    }
    values
}

/// Some hours of events, in steps that the views take in one by one; the first half is settled.
async fn fed(views: &[(&str, &str)], retention_ms: Option<i64>) -> Running {
    let running = running(views, retention_ms).await;
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64);
    eprintln!("SEED={seed}");
    let mut chance = Chance::new(seed);
    let mut now_ms = BASE_MS;
    for step in 0..24 {
        now_ms += if step % 8 == 7 { 90 * MINUTE_MS } else { chance.below(9_000) as i64 };
        for partition in 0..2 {
            running.append(partition, &values(&mut chance, now_ms, 40)).await;
        }
        running.engine.wait_fresh(views[0].0, 20_000).await.unwrap();
        if step == 12 {
            running.lake.flush("events").await.unwrap();
        }
    }
    running
}

fn assert_sound(report: &ViewReport) {
    assert_eq!(report.refused, None, "{}", report.view);
    assert!(report.is_sound() && report.groups > 0 && report.equal == report.groups, "{report:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn views_of_all_windows_equal_their_recomputation() {
    let running = fed(&VIEWS, None).await;
    for (view, _) in VIEWS {
        let report = running.verify(view).await;
        assert_sound(&report);
        assert_eq!(report.notes, Vec::<String>::new(), "{view}");
        assert_eq!((report.expired, report.unjudged), (0, 0), "{view}");
        let short = ["minutes", "hops", "visits", "bursts", "unnamed", "ends", "syllables", "overlaps"];
        assert!(report.not_counted > 0 || !short.contains(&view), "{view}: none was late");
        assert_eq!(report.offsets["events"].len(), 2, "{view}");
    }
    for view in ["minutes", "hops", "visits"] {
        let (from, to) = (BASE_MS + 60 * MINUTE_MS, BASE_MS + 150 * MINUTE_MS);
        let part = running.verify_from(view, (Some(from), Some(to))).await;
        assert_sound(&part);
        assert!(part.groups < running.verify(view).await.groups, "{view}");
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_state_is_found_by_its_window_and_key() {
    let views = &[VIEWS[0], VIEWS[4], VIEWS[6], VIEWS[8], VIEWS[14]];
    let running = fed(views, None).await;
    // what is stored of one group takes the place of another's
    for (view, named) in [("minutes", 3), ("hops", 3), ("totals", 1), ("syllables", 3)] {
        let before = running.rows(view, named).await;
        let states = running.states(view);
        let (key, value) = &states[0];
        let other = states.iter().rev().find(|(_, other)| other != value).unwrap();
        running.commit(vec![Change::Put(Family::State, key.clone(), other.1.clone())]).await;
        let after = running.rows(view, named).await;
        let changed: BTreeSet<&Vec<String>> =
            before.iter().filter(|(row, all)| after[*row] != **all).map(|(row, _)| row).collect();
        assert!(!changed.is_empty(), "{view}: the values were the same");
        let report = running.verify(view).await;
        assert_eq!((report.different, report.missing, report.extra), (changed.len() as u64, 0, 0), "{view}");
        for difference in &report.named {
            assert_eq!(difference.kind, DifferenceKind::Different);
            let group: Vec<String> =
                difference.group.iter().map(|(_, value)| value.clone().unwrap_or_else(|| "∅".into())).collect();
            // a window is told by its start
            let of_group = changed.iter().filter(|row| row[0] == group[0] && row[named - 1] == group[group.len() - 1]);
            assert_eq!(of_group.count(), 1, "{view}: {difference:?}");
            assert_ne!(difference.served, difference.recomputed);
        }
        running.commit(vec![Change::Put(Family::State, key.clone(), value.clone())]).await;
        assert_sound(&running.verify(view).await);
    }
    for view in ["minutes", "visits", "totals"] {
        let (key, value) = running.states(view)[0].clone();
        running.commit(vec![Change::Delete(Family::State, key.clone())]).await;
        let report = running.verify(view).await;
        assert_eq!((report.different, report.missing, report.extra), (0, 1, 0), "{view}: {report:?}");
        assert_eq!(report.named[0].kind, DifferenceKind::Missing);
        running.commit(vec![Change::Put(Family::State, key, value)]).await;
        assert_sound(&running.verify(view).await);
    }
    let states = running.states("minutes");
    let (mut key, value) = states[states.len() - 1].clone();
    // the same group ten minutes later, which had no events
    let end = i64::from_be_bytes(key[5..13].try_into().unwrap());
    key[5..13].copy_from_slice(&(end + 10 * MINUTE_MS).to_be_bytes());
    running.commit(vec![Change::Put(Family::State, key, value)]).await;
    let report = running.verify("minutes").await;
    assert_eq!((report.different, report.missing, report.extra), (0, 0, 1), "{report:?}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_gone_is_not_held_against_a_view() {
    let views = &[VIEWS[0], VIEWS[4], VIEWS[6], VIEWS[8]];
    let running = fed(views, Some(30 * MINUTE_MS)).await;
    for view in ["minutes", "hops", "visits"] {
        let report = running.verify(view).await;
        assert_sound(&report);
        assert!(report.expired > 0, "{view}: {report:?}");
    }
    running.lake.flush("events").await.unwrap();
    for (view, _) in views {
        assert_sound(&running.verify(view).await);
    }
    running.stop().await;

    let running = self::running(views, None).await;
    let mut chance = Chance::new(7);
    running.append(0, &values(&mut chance, BASE_MS, 200)).await;
    running.append(1, &values(&mut chance, BASE_MS, 200)).await;
    let partition = running.broker.catalog().topic("events").unwrap().partition(0).unwrap();
    let middle = partition.high_watermark();
    for partition in 0..2 {
        running.append(partition, &values(&mut chance, BASE_MS + HOUR_MS, 200)).await;
    }
    running.engine.wait_fresh("minutes", 20_000).await.unwrap();
    // somebody deletes what was not settled
    running.commit(vec![Change::LogStart(partition, middle)]).await;
    for view in ["minutes", "hops", "visits"] {
        let report = running.verify(view).await;
        assert_sound(&report);
        assert!(report.unjudged > 0 && report.notes[0].contains("are gone from log and lake"), "{view}: {report:?}");
    }
    let report = running.verify("totals").await;
    assert!(report.is_sound() && report.groups == 0 && report.unjudged > 0, "{report:?}");
    running.stop().await;
}

/// A late row's record says of which state it is: what a former definition found late may count in the present one.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_a_former_definition_missed_are_not_left_out() {
    let Running { _dir, broker, engine, lake } = fed(&VIEWS[..1], None).await;
    lake.stop().await.unwrap();
    engine.stop().await;
    // with another WHERE the view is computed again from the log's start, in other steps
    let changed = [("minutes", "SELECT genre, count(*) AS n FROM s GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE), genre")];
    let engine = Engine::start(broker.clone(), config(&changed, None)).await.unwrap();
    let lake = Lake::start(broker.clone(), engine.clone(), LakeConfig::default()).await.unwrap();
    let running = Running { _dir, broker, engine, lake };
    assert_sound(&running.verify("minutes").await);
    let is_filled = async {
        while running.engine.filling("minutes").is_some() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), is_filled).await.unwrap();
    let report = running.verify("minutes").await;
    assert_sound(&report);
    let late = running.broker.catalog().topic("minutes.late").unwrap().partition(0).unwrap();
    assert!((report.not_counted as i64) < late.high_watermark(), "{report:?}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_cannot_be_evaluated_are_left_out() {
    let quotients = [("quotients", "SELECT uid, sum(100 / amount) AS q FROM s GROUP BY uid")];
    let running = running(&quotients, None).await;
    let row = |uid: i64, amount: i64| format!(r#"{{"uid":{uid},"amount":{amount},"ts":{BASE_MS}}}"#);
    running.append(0, &[row(1, 5), row(2, 0), row(2, 4)]).await;
    let report = running.verify("quotients").await;
    assert_sound(&report);
    assert_eq!((report.groups, report.not_counted), (2, 1));
    let absent = running.lake.verify_view(&running.engine, "absent", ViewScope::default()).await.unwrap_err();
    assert!(absent.message.contains("no view 'absent'"), "{absent}");
    running.stop().await;
}

/// In Santiago the 2024-09-08 began at 01:00, in Havana the 2024-11-03 had two midnights.
#[tokio::test(flavor = "multi_thread")]
async fn days_of_zones_whose_clocks_skip_midnight_are_recomputed() {
    let views = [
        ("santiago", "SELECT count(*) AS n FROM s GROUP BY TUMBLE(ts, INTERVAL '1' DAY, 'America/Santiago')"),
        ("havana", "SELECT count(*) AS n FROM s GROUP BY TUMBLE(ts, INTERVAL '1' DAY, 'America/Havana')"),
        (
            "three",
            "SELECT count(*) AS n FROM s GROUP BY HOP(ts, INTERVAL '1' DAY, INTERVAL '3' DAY, 'America/Santiago')",
        ),
    ];
    let running = running(&views, None).await;
    let (september, november) = (1_725_580_800_000, 1_730_419_200_000);
    for start in [september, november] {
        let hours = (0..120).map(|hour| format!(r#"{{"uid":1,"ts":{}}}"#, start + hour * HOUR_MS));
        running.append(0, &hours.collect::<Vec<_>>()).await;
    }
    for (view, _) in views {
        let report = running.verify(view).await;
        assert_sound(&report);
        assert!(report.windows >= 12, "{report:?}");
    }
    running.stop().await;
}
