//! `EMIT FINAL`, and aggregates that give lists, from Kafka clients to HTTP, SQL and the views' topics, under kill -9: each window is
//! told once, when it is closed, and is what the definition gives over what was sent.

use crate::support::clicks::{Click, STREAM, ms, sessions, write, write_and_kill};
use crate::support::http::rows;
use crate::support::reader::committed;
use crate::support::server::Server;
use crate::support::{Scratch, beside_others, eventually, seed};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::{Duration, UNIX_EPOCH};

const ROUNDS: i64 = 3;
const EVENTS: i64 = 900;
/// Half a day ago, and the start of a window: no event is ahead of the broker's clock.
static BASE_MS: LazyLock<i64> =
    LazyLock::new(|| (UNIX_EPOCH.elapsed().unwrap().as_millis() as i64 - 12 * 3_600_000) / 10_000 * 10_000);
const VIEWS: &str = r#"
[[views]]
sql = """CREATE MATERIALIZED VIEW steps AS SELECT user_id % 3 AS team, count(*) AS clicks, first(price) AS opening,
         last(price) AS closing, array_agg(price) AS prices, top_k(user_id, 2) AS busiest
         FROM clicks GROUP BY TUMBLE(ts, INTERVAL '10' SECOND), user_id % 3 EMIT FINAL"""
[[views]]
sql = """CREATE MATERIALIZED VIEW visits AS SELECT user_id AS team, count(*) AS clicks, first(price) AS opening,
         last(price) AS closing, array_agg(price) AS prices, top_k(user_id, 2) AS busiest
         FROM clicks GROUP BY SESSION(ts, INTERVAL '2' SECOND), user_id EMIT FINAL"""
"#;
const VALUES: [&str; 5] = ["clicks", "opening", "closing", "prices", "busiest"];

/// Start, end and key of a window → its values.
type Wanted = BTreeMap<(i64, i64, i64), Vec<Value>>;

#[test]
fn closed_windows_are_told_once_over_kill_9() {
    let _beside = beside_others();
    let scratch = Scratch::new("finals");
    let mut random = StdRng::seed_from_u64(seed("finals"));
    let mut server = Server::with_config(&scratch, &format!("{STREAM}{VIEWS}"));
    let mut sent: Vec<Click> = Vec::new();
    for _ in 0..ROUNDS {
        let clicks: Vec<Click> = (0..EVENTS)
            .map(|i| {
                let at = sent.len() as i64 + i;
                // Up to eight seconds out of order, and no two at one time.
                let ts = *BASE_MS + (at - random.random_range(0..80)) * 100 + at % 100;
                Click::random(&mut random, ts)
            })
            .collect();
        write_and_kill(&mut server, &clicks, &mut random);
        sent.extend(clicks);
        compare(&server, &sent);
        told(&server, &sent);
    }
    let newest = *BASE_MS + 10 * 3_600_000;
    let last = Click { user: 1, price: 1, ts: newest };
    // To each partition, as the event watermark is the least of all.
    write(&server.kafka, &[last; 24]);
    sent.extend([last; 24]);
    compare(&server, &sent);
    server.kill9();
    server.start_again();
    compare(&server, &sent);
    let open = told(&server, &sent);
    assert_eq!(open, 2, "all windows are told but the newest of each view");
    asked(&server);
    assert!(server.stop().success());
}

fn values(clicks: &[Click]) -> Vec<Value> {
    let mut clicks = clicks.to_vec();
    clicks.sort_by_key(|click| click.ts);
    let mut users: BTreeMap<i64, i64> = BTreeMap::new();
    clicks.iter().for_each(|click| *users.entry(click.user).or_default() += 1);
    let mut busiest: Vec<(i64, i64)> = users.into_iter().collect();
    busiest.sort_by_key(|(user, clicks)| (-clicks, *user));
    let busiest: Value = busiest.iter().take(2).map(|(user, n)| json!({ "value": user, "count": n })).collect();
    let prices: Vec<i64> = clicks.iter().map(|click| click.price).collect();
    vec![json!(prices.len()), json!(prices[0]), json!(prices[prices.len() - 1]), json!(prices), busiest]
}

fn steps(clicks: &[Click]) -> Wanted {
    let mut groups: BTreeMap<(i64, i64, i64), Vec<Click>> = BTreeMap::new();
    for click in clicks {
        let start = click.ts.div_euclid(10_000) * 10_000;
        groups.entry((start, start + 10_000, click.user % 3)).or_default().push(*click);
    }
    groups.iter().map(|(key, clicks)| (*key, values(clicks))).collect()
}

fn visits(clicks: &[Click]) -> Wanted {
    let session =
        |clicks: &Vec<Click>| ((clicks[0].ts, clicks[clicks.len() - 1].ts + 2_000, clicks[0].user), values(clicks));
    sessions(clicks, 2_000).iter().map(session).collect()
}

fn views(clicks: &[Click]) -> [(&'static str, Wanted); 2] {
    [("steps", steps(clicks)), ("visits", visits(clicks))]
}

fn same(what: &str, got: &Wanted, wanted: &Wanted) {
    for (key, value) in wanted {
        assert_eq!(got.get(key), Some(value), "{what}: {key:?}");
    }
    assert_eq!(got.len(), wanted.len(), "{what}");
}

/// What is read over HTTP, open windows among it: numbers are numbers and lists are arrays.
fn compare(server: &Server, sent: &[Click]) {
    for (view, wanted) in views(sent) {
        let answer = server.http.get(&format!("/v1/views/{view}?wait=30s"));
        let window = |row: &Vec<Value>| (ms(&row[0]), ms(&row[1]), row[2].as_i64().unwrap());
        let got = rows(&answer).iter().map(|row| (window(row), row[3..].to_vec())).collect();
        same(view, &got, &wanted);
    }
}

/// The topics have each window that is closed once, as it is in the end, and no other. Gives how many are open.
fn told(server: &Server, sent: &[Click]) -> usize {
    let mut open = 0;
    for (view, mut wanted) in views(sent) {
        let all = wanted.len();
        let status = server.http.get("/v1/views")["views"].clone();
        let of_view = status.as_array().unwrap().iter().find(|listed| listed["name"] == view).unwrap().clone();
        assert_eq!(of_view["emit"], "final");
        let closed_until = of_view["status"]["closed_until"].clone();
        wanted.retain(|(_, end, _), _| !closed_until.is_null() && *end <= ms(&closed_until));
        // What was closed and not told when the server died is told by the next start, soon.
        let got = eventually("closed windows in the topic", Duration::from_secs(20), || {
            let records = committed(&server.kafka, view);
            let missing = wanted.len().saturating_sub(records.len());
            if missing == 0 { Ok(records) } else { Err(format!("{view}: {missing} are missing")) }
        });
        same(view, &once(view, &got), &wanted);
        open += all - wanted.len();
    }
    open
}

/// The rows of a topic that has each window once.
fn once(view: &str, records: &[(Vec<u8>, Vec<u8>)]) -> Wanted {
    let mut rows = Wanted::new();
    for (_, value) in records {
        let row: Value = serde_json::from_slice(value).unwrap();
        let window = (ms(&row["window_start"]), ms(&row["window_end"]), row["team"].as_i64().unwrap());
        let before = rows.insert(window, VALUES.map(|name| row[name].clone()).to_vec());
        assert_eq!(before, None, "{view}: {window:?} was told twice");
    }
    rows
}

/// What SQL says of such views.
fn asked(server: &Server) {
    let sql = "SELECT count(*) FROM steps WHERE cardinality(prices) = clicks AND prices[1] = opening \
               AND busiest[1]['count'] <= clicks";
    assert_eq!(server.http.sql(sql), server.http.sql("SELECT count(*) FROM steps"));
    let described = server.http.sql("DESCRIBE steps");
    for line in [
        json!(["property", "emit", "FINAL"]),
        json!(["column", "prices", "ARRAY<BIGINT>"]),
        json!(["column", "busiest", "ARRAY<STRUCT<value BIGINT, count BIGINT>>"]),
    ] {
        assert!(described.iter().any(|known| json!(known) == line), "{line}: {described:?}");
    }
    let explained = server.http.sql("EXPLAIN MATERIALIZED VIEW steps");
    assert!(json!(explained).to_string().contains("each group once, when its window is closed"), "{explained:?}");
    let declare = |sql: &str| server.http.try_post("/v1/sql", &json!({ "sql": sql })).unwrap();
    let (status, text) = declare("CREATE MATERIALIZED VIEW ever AS SELECT count(*) AS n FROM clicks EMIT FINAL");
    assert!(status == 400 && text.contains("EMIT CHANGES"), "{status}: {text}");
    let (status, text) = declare(
        "CREATE MATERIALIZED VIEW hours AS SELECT count(*) AS n, last(price) AS p FROM clicks \
         GROUP BY TUMBLE(ts, INTERVAL '1' HOUR) EMIT FINAL",
    );
    assert!(status == 200 && text.contains("created"), "{status}: {text}");
    let hours = server.http.get("/v1/views/hours?wait=30s");
    assert_eq!(rows(&hours).last().unwrap()[2..], [json!(24), json!(1)]);
    let told = committed(&server.kafka, "hours");
    assert_eq!(told.len(), rows(&hours).len() - 1, "all hours but the last");
    let (status, text) =
        declare("SELECT price, top_k(user_id, 3) AS users FROM clicks WHERE ts > now() GROUP BY price");
    assert_eq!(status, 200, "history knows the function too: {text}");
}
