//! Windows of each kind, and none, over random events out of order, late and twice, with restarts; then every number is computed
//! again from the log and the recorded late rows, by the definition of the windows and of the aggregates.

use std::collections::BTreeMap;

use serde_json::Value;

use super::oracle::{Random, Row, judge};
use super::*;
use crate::scalar::parse_timestamp_ms;

/// What goes by the order of rows, and what is kept as a list.
const LISTS: &str = "first(amount) AS f, last_value(uid) FILTER (WHERE amount < 250) AS l, first_value(amount) IGNORE NULLS AS g, \
     last(genre ORDER BY ts) AS w, array_agg(amount) FILTER (WHERE uid < 5) AS items, array_agg(DISTINCT uid) AS users, \
     top_k(uid, 2) AS top, median(amount) AS mid, bool_or(amount < 20) AS any_low, regr_count(amount, uid) AS both_there";

const VIEWS: [&str; 9] = [
    "hops AS SELECT genre, count(*) AS n, sum(amount) AS total, min(amount) AS lo, LISTS FROM s WHERE uid <> 3 \
     GROUP BY HOP(ts, INTERVAL '4' SECOND, INTERVAL '10' SECOND), genre",
    "steps AS SELECT genre, count(*) AS n, sum(amount) AS total, LISTS FROM s WHERE uid <> 3 \
     GROUP BY TUMBLE(ts, INTERVAL '5' SECOND), genre HAVING count(*) <> 2 EMIT FINAL",
    "stays AS SELECT uid, count(*) AS n, sum(amount) AS total, LISTS FROM s WHERE uid <> 3 \
     GROUP BY SESSION(ts, INTERVAL '900' MILLISECOND), uid EMIT FINAL",
    "parts AS SELECT u.part, count(*) AS n, sum(amount) AS total FROM s CROSS JOIN UNNEST(string_to_array(s.genre, 'o')) AS u(part) \
     WHERE uid <> 3 AND part <> 'ck' GROUP BY HOP(ts, INTERVAL '2' SECOND, INTERVAL '6' SECOND), u.part",
    "ever AS SELECT genre, count(*) AS n, sum(amount) AS total, LISTS FROM s WHERE uid <> 3 GROUP BY genre",
    "many AS SELECT count(*) AS n, max(amount) AS hi FROM s GROUP BY HOP(ts, INTERVAL '1' SECOND, INTERVAL '37' SECOND)",
    "visits AS SELECT uid, count(*) AS n, sum(amount) AS total, max(ts) AS last FROM s WHERE uid <> 3 \
     GROUP BY SESSION(ts, INTERVAL '900' MILLISECOND), uid",
    // Of a row some items may be late where others are not.
    "spells AS SELECT part, count(*) AS n, sum(amount) AS total FROM s \
     CROSS JOIN UNNEST(string_to_array(s.genre || 'o' || CAST(s.uid AS VARCHAR), 'o')) AS u(part) WHERE uid <> 3 AND part <> 'ck' \
     GROUP BY SESSION(ts, INTERVAL '700' MILLISECOND), part",
    "bursts AS SELECT count(*) AS n FROM s GROUP BY SESSION(ts, INTERVAL '120' MILLISECOND)",
];
const LATENESS_MS: i64 = 3_000;

fn windows_config() -> EngineConfig {
    let views = VIEWS.map(|view| view.replace("LISTS", LISTS));
    let mut config = config(&views.each_ref().map(String::as_str));
    config.streams[0].lateness_ms = LATENESS_MS;
    config
}

/// Mostly good events behind a moving time, a few far behind it or dirty.
fn random_value(random: &mut Random, now_ms: i64) -> String {
    let behind = match random.below(20) {
        0 => random.below(60_000),
        1..5 => random.below(15_000),
        _ => random.below(2_000),
    };
    let genre = ["jazz", "rock", "pop"][random.below(3) as usize];
    let (user, ts) = (random.below(6), now_ms - behind as i64);
    match random.below(30) {
        0 => "{".to_string(),
        1 => format!(r#"{{"uid":{user},"ts":{ts},"amount":-1}}"#),
        2 => format!(r#"{{"uid":{user},"ts":{ts}}}"#),
        _ => format!(r#"{{"uid":{user},"genre":"{genre}","amount":{},"ts":{ts}}}"#, random.below(500)),
    }
}

/// What the log and a view's late topic say of a row.
struct Told {
    row: Row,
    /// Event time, partition and offset: the order of rows.
    at: (i64, i32, i64),
    /// The start of the first window that it missed, and of the one from which on it counts.
    late: Option<(i64, Option<i64>)>,
}

impl Told {
    fn counts_from(&self) -> Option<i64> {
        match self.late {
            None => Some(i64::MIN),
            Some((_, counted_from)) => counted_from,
        }
    }
}

/// The rows of the stream, as the view has judged them. `end` gives the end of the window that a late row missed; it must have been
/// closed by rows that stand before it in its own partition, as the watermark is the least of all partitions.
async fn told(broker: &Broker, view: &str, end: &dyn Fn(&Row, i64) -> i64) -> Vec<Told> {
    let mut late: BTreeMap<(i32, i64), (i64, Option<i64>)> = BTreeMap::new();
    for (_, record) in records(broker, &format!("{view}.late")).await {
        let number = |name: &str| header(&record, name).parse::<i64>().unwrap();
        let counted_from = record.headers.iter().any(|(name, _)| name.as_ref() == b"counted_from");
        let place = (number("partition") as i32, number("offset"));
        let told = (number("window_start"), counted_from.then(|| number("counted_from")));
        assert_eq!(late.insert(place, told), None, "{view}: late twice");
    }
    let mut rows = Vec::new();
    let mut newest: BTreeMap<i32, i64> = BTreeMap::new();
    for (partition, record) in records(broker, "events").await {
        let Some(row) = judge(&record) else { continue };
        let late = late.remove(&(partition, record.offset));
        let before = newest.entry(partition).or_insert(i64::MIN);
        if let Some((window_start, _)) = late {
            let closed = end(&row, window_start);
            assert!(closed <= *before - LATENESS_MS, "{view} {partition}/{}: window not closed yet", record.offset);
        }
        *before = row.ts.max(*before);
        rows.push(Told { at: (row.ts, partition, record.offset), row, late });
    }
    assert!(late.is_empty(), "{view}: late and not in the log: {late:?}");
    rows
}

fn ms(text: &str) -> i64 {
    parse_timestamp_ms(text).unwrap()
}

/// Each group's rows, by window and key.
type Groups<'r> = BTreeMap<(i64, i64, String), Vec<&'r Told>>;

/// By definition: each multiple of the slide is the start of a window.
fn hops<'r, K: IntoIterator<Item = String>>(
    rows: &'r [Told],
    (slide, size): (i64, i64),
    keys: impl Fn(&Row) -> K,
) -> Groups<'r> {
    let mut groups = Groups::new();
    for told in rows {
        let Some(counts_from) = told.counts_from() else { continue };
        for key in keys(&told.row) {
            let mut start = told.row.ts - told.row.ts.rem_euclid(slide);
            while start + size > told.row.ts {
                if start >= counts_from {
                    groups.entry((start, start + size, key.clone())).or_default().push(told);
                }
                start -= slide;
            }
        }
    }
    groups
}

/// By definition: rows in the order of their times, cut where more than the gap lies between two.
fn sessions<'r, K: IntoIterator<Item = String>>(rows: &'r [Told], gap: i64, keys: impl Fn(&Row) -> K) -> Groups<'r> {
    let mut by_key: BTreeMap<String, Vec<&Told>> = BTreeMap::new();
    for told in rows.iter().filter(|told| told.late.is_none()) {
        for key in keys(&told.row) {
            by_key.entry(key).or_default().push(told);
        }
    }
    let mut groups = Groups::new();
    for (key, mut rows) in by_key {
        rows.sort_unstable_by_key(|told| told.at);
        for session in rows.chunk_by(|a, b| b.row.ts - a.row.ts <= gap) {
            let bounds = (session[0].row.ts, session[session.len() - 1].row.ts + gap, key.clone());
            groups.insert(bounds, session.to_vec());
        }
    }
    groups
}

fn amounts(rows: &[&Told]) -> Vec<i64> {
    rows.iter().filter_map(|told| told.row.amount).collect()
}

/// Number of rows and sum of their amounts.
fn sums(rows: &[&Told]) -> Vec<String> {
    let amounts = amounts(rows);
    vec![rows.len().to_string(), number((!amounts.is_empty()).then(|| amounts.iter().sum()))]
}

/// The columns of LISTS, by their definitions.
fn lists(rows: &[&Told]) -> Vec<String> {
    let mut rows = rows.to_vec();
    rows.sort_by_key(|told| told.at);
    let mut low = rows.iter().filter(|told| told.row.amount.is_some_and(|amount| amount < 250));
    let list = |items: Vec<String>| match items.is_empty() {
        true => "∅".to_string(),
        false => format!("[{}]", items.join(", ")),
    };
    let few = rows.iter().filter(|told| told.row.user < 5).map(|told| number(told.row.amount)).collect();
    let mut users: BTreeMap<i64, i64> = BTreeMap::new();
    rows.iter().for_each(|told| *users.entry(told.row.user).or_default() += 1);
    let mut top: Vec<(i64, i64)> = users.iter().map(|(user, count)| (-count, *user)).collect();
    top.sort_unstable();
    let top = top.iter().take(2).map(|(count, user)| format!("{{value: {user}, count: {}}}", -count)).collect();
    let mut sorted = amounts(&rows);
    sorted.sort_unstable();
    let middle = (!sorted.is_empty()).then(|| (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) / 2);
    let lows: Vec<bool> = sorted.iter().map(|amount| *amount < 20).collect();
    vec![
        number(rows[0].row.amount),
        number(low.next_back().map(|told| told.row.user)),
        number(rows.iter().find_map(|told| told.row.amount)),
        rows[rows.len() - 1].row.genre.clone().unwrap_or("∅".into()),
        list(few),
        list(users.keys().map(i64::to_string).collect()),
        list(top),
        number(middle),
        if lows.is_empty() { "∅".into() } else { lows.contains(&true).to_string() },
        sorted.len().to_string(),
    ]
}

fn number(value: Option<i64>) -> String {
    value.map_or("∅".into(), |value| value.to_string())
}

fn same(view: &str, rows: &[Vec<String>], wanted: &Groups<'_>, values: &dyn Fn(&[&Told]) -> Vec<String>) {
    let keyed = |key: &String| match key.as_str() {
        "-" => vec![],
        "" => vec!["∅".to_string()],
        key => vec![key.to_string()],
    };
    let got: Vec<(i64, i64, Vec<String>)> =
        rows.iter().map(|row| (ms(&row[0]), ms(&row[1]), row[2..].to_vec())).collect();
    let wanted: Vec<(i64, i64, Vec<String>)> =
        wanted.iter().map(|((start, end, key), group)| (*start, *end, [keyed(key), values(group)].concat())).collect();
    for (got, wanted) in got.iter().zip(&wanted) {
        assert_eq!(got, wanted, "{view}");
    }
    assert_eq!(got.len(), wanted.len(), "{view}");
}

/// Key → the values that the view's topic had for it, in order; None is a tombstone.
async fn history(broker: &Broker, view: &str) -> BTreeMap<String, Vec<Option<Value>>> {
    let mut history: BTreeMap<String, Vec<Option<Value>>> = BTreeMap::new();
    for (_, record) in records(broker, view).await {
        let key = String::from_utf8(record.key.unwrap().to_vec()).unwrap();
        let value = record.value.map(|value| serde_json::from_slice(&value).unwrap());
        history.entry(key).or_default().push(value);
    }
    history
}

fn starts_and_counts(rows: &[Vec<String>], n: usize) -> Vec<(String, String, i64)> {
    let mut all: Vec<_> = rows.iter().map(|row| (row[0].clone(), row[1].clone(), row[n].parse().unwrap())).collect();
    all.sort_unstable();
    all
}

/// The topic has just the windows that are closed, each told once; or each session's newest value.
async fn check_topic(broker: &Broker, (view, rows, n): (&str, &[Vec<String>], usize), closed_until: Option<i64>) {
    let history = history(broker, view).await;
    let newest = history.values().filter_map(|values| values.last().unwrap().as_ref());
    let text = |value: &Value, name: &str| value[name].as_str().unwrap().to_string();
    let mut shown: Vec<_> = newest
        .map(|value| (text(value, "window_start"), text(value, "window_end"), value["n"].as_i64().unwrap()))
        .collect();
    shown.sort_unstable();
    let mut wanted = starts_and_counts(rows, n);
    if let Some(closed_until) = closed_until {
        assert!(history.values().all(|values| values.len() == 1), "{view}: a closed window has changed");
        wanted.retain(|(_, end, _)| ms(end) <= closed_until);
        assert!(!wanted.is_empty());
    }
    assert_eq!(shown, wanted, "{view}");
}

#[tokio::test(flavor = "multi_thread")]
async fn overlapping_windows_and_sessions_equal_a_recomputation() {
    let mut random = Random::seeded();
    let dir = tempfile::tempdir().unwrap();
    let mut broker = open_broker(dir.path()).await;
    create(&broker, "events", 3).await;
    let mut engine = Engine::start(broker.clone(), windows_config()).await.unwrap();
    let mut now_ms = BASE_MS;
    for round in 0..90 {
        let values: Vec<String> = (0..1 + random.below(25)).map(|_| random_value(&mut random, now_ms)).collect();
        let partition = random.below(3) as i32;
        append(&broker, "events", partition, &values).await;
        if random.below(8) == 0 {
            append(&broker, "events", partition, &values).await;
        }
        now_ms += random.below(2_000) as i64 + if round == 50 { 400_000 } else { 0 };
        match random.below(12) {
            0 => {
                engine.stop().await;
                engine = Engine::start(broker.clone(), windows_config()).await.unwrap();
            }
            1 => (broker, engine) = reopen(dir.path(), (broker, engine), windows_config()).await,
            2..7 => drop(read(&engine, "bursts").await),
            _ => {}
        }
    }
    compare(&broker, &engine).await;
    engine.stop().await;
    broker.stop().await.unwrap();
}

async fn compare(broker: &Broker, engine: &Engine) {
    let user = |row: &Row| (row.user != 3).then(|| row.user.to_string());
    // No genre is null, which comes first.
    let genre = |row: &Row| (row.user != 3).then(|| row.genre.clone().unwrap_or_default());
    let one = |_: &Row| Some("-".to_string());
    let all = |rows: &[&Told]| [sums(rows), lists(rows)].concat();

    let (hopping, many) = (read(engine, "hops").await, read(engine, "many").await);
    let rows = told(broker, "hops", &|_, start| start + 10_000).await;
    let wanted = hops(&rows, (4_000, 10_000), genre);
    same("hops", &hopping, &wanted, &|rows| {
        [sums(rows), vec![number(amounts(rows).iter().min().copied())], lists(rows)].concat()
    });
    let partly = rows.iter().filter(|told| told.late.is_some_and(|(_, counted_from)| counted_from.is_some())).count();
    let late = rows.iter().filter(|told| told.late.is_some()).count() - partly;
    assert!(partly > 0 && late > 0, "{partly} partly and {late} late of {}", rows.len());
    let rows = told(broker, "many", &|_, start| start + 37_000).await;
    same("many", &many, &hops(&rows, (1_000, 37_000), one), &|rows| {
        vec![rows.len().to_string(), number(amounts(rows).iter().max().copied())]
    });

    let parts = read(engine, "parts").await;
    let rows = told(broker, "parts", &|_, start| start + 6_000).await;
    // Each part of a genre is a row: "pop" has two that are equal.
    let of_genre = |row: &Row| -> Vec<String> {
        let genre = row.genre.as_deref().filter(|_| row.user != 3);
        let all = genre.into_iter().flat_map(|genre| genre.split('o'));
        all.filter(|part| *part != "ck").map(str::to_string).collect()
    };
    let wanted = hops(&rows, (2_000, 6_000), of_genre);
    assert!(wanted.keys().any(|(.., part)| part == "p") && wanted.keys().all(|(.., part)| part != "rock"));
    same("parts", &parts, &wanted, &sums);

    let (steps, ever) = (read(engine, "steps").await, read(engine, "ever").await);
    let rows = told(broker, "steps", &|_, start| start + 5_000).await;
    let mut wanted = hops(&rows, (5_000, 5_000), genre);
    let closed_groups = wanted.len();
    wanted.retain(|_, rows| rows.len() != 2);
    assert!(wanted.len() < closed_groups);
    same("steps", &steps, &wanted, &all);
    let mut wanted: BTreeMap<String, Vec<&Told>> = BTreeMap::new();
    for told in &rows {
        if let Some(key) = genre(&told.row) {
            wanted.entry(key).or_default().push(told);
        }
    }
    let ever: Vec<Vec<String>> = ever.iter().map(|row| row[1..].to_vec()).collect();
    assert_eq!(ever, wanted.values().map(|rows| all(rows)).collect::<Vec<_>>());

    let stays = read(engine, "stays").await;
    let rows = told(broker, "stays", &|row, _| row.ts).await;
    let mut by_start = stays.clone();
    by_start.sort_by_key(|row| (ms(&row[0]), ms(&row[1])));
    same("stays", &by_start, &sessions(&rows, 900, user), &all);

    let (visits, bursts) = (read(engine, "visits").await, read(engine, "bursts").await);
    // The session that a late row missed began then, and ended after the row's time if it had others.
    let rows = told(broker, "visits", &|row, _| row.ts).await;
    assert!(rows.iter().any(|told| told.late.is_some()));
    let last = visits.iter().map(|row| (ms(&row[1]) - 900, ms(&row[5])));
    assert!(last.into_iter().all(|(end, last)| end == last), "a session ends the gap after its last row");
    let visits: Vec<Vec<String>> = visits.iter().map(|row| row[..5].to_vec()).collect();
    let wanted = sessions(&rows, 900, user);
    assert!(wanted.values().any(|rows| rows.len() > 3));
    let mut by_start = visits.clone();
    by_start.sort_by_key(|row| (ms(&row[0]), ms(&row[1])));
    same("visits", &by_start, &wanted, &sums);
    let rows = told(broker, "bursts", &|row, _| row.ts).await;
    same("bursts", &bursts, &sessions(&rows, 120, one), &|rows| vec![rows.len().to_string()]);

    let spells = read(engine, "spells").await;
    let rows = told(broker, "spells", &|row, _| row.ts).await;
    let of_spell = |row: &Row| -> Vec<String> {
        of_genre(row).into_iter().chain((row.user != 3 && row.genre.is_some()).then(|| row.user.to_string())).collect()
    };
    let mut by_start = spells.clone();
    by_start.sort_by_key(|row| (ms(&row[0]), ms(&row[1]), row[2].clone()));
    same("spells", &by_start, &sessions(&rows, 700, of_spell), &sums);

    let status = engine.status();
    let closed = |view: &str| status.iter().find(|status| status.view == view).unwrap().closed_until;
    check_topic(broker, ("hops", &hopping, 3), closed("hops")).await;
    check_topic(broker, ("many", &many, 2), closed("many")).await;
    check_topic(broker, ("parts", &parts, 3), closed("parts")).await;
    check_topic(broker, ("steps", &steps, 3), closed("steps")).await;
    check_topic(broker, ("stays", &stays, 3), closed("stays")).await;
    check_topic(broker, ("visits", &visits, 3), None).await;
    check_topic(broker, ("spells", &spells, 3), None).await;
    check_topic(broker, ("bursts", &bursts, 2), None).await;
    let refused = records(broker, "s.rejected").await.len() as u64;
    let written = records(broker, "events").await.len() as u64;
    for status in &status {
        let all = status.rows_applied + status.rows_filtered + status.late + refused;
        assert_eq!(all, written, "{}", status.view);
    }
}
