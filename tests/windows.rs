//! Windows that overlap and sessions, from a client that writes to HTTP, SQL and the views' topics, under kill -9: every number is
//! that of the definition over what was sent.

use crate::support::clicks::{Click, STREAM, ms, sessions, write, write_and_kill};
use crate::support::http::rows;
use crate::support::reader::committed;
use crate::support::server::Server;
use crate::support::{Scratch, beside_others, seed};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::UNIX_EPOCH;

const ROUNDS: i64 = 4;
const EVENTS: i64 = 1_500;
const GAP_MS: i64 = 2_000;
const SLIDE_MS: i64 = 10_000;
const SIZE_MS: i64 = 60_000;
/// Half a day ago: no event is ahead of the broker's clock.
static BASE_MS: LazyLock<i64> = LazyLock::new(|| UNIX_EPOCH.elapsed().unwrap().as_millis() as i64 - 12 * 3_600_000);
const VIEWS: &str = r#"
[[views]]
sql = "CREATE MATERIALIZED VIEW last_minute AS SELECT user_id % 3 AS team, count(*) AS clicks, sum(price) AS total FROM clicks GROUP BY HOP(ts, INTERVAL '10' SECOND, INTERVAL '1' MINUTE), user_id % 3"
[[views]]
sql = "CREATE MATERIALIZED VIEW visits AS SELECT user_id, count(*) AS clicks, sum(price) AS total FROM clicks GROUP BY SESSION(ts, INTERVAL '2' SECOND), user_id"
"#;

/// Start, end and key of a window → clicks and total.
type Wanted = BTreeMap<(i64, i64, i64), (i64, i64)>;

#[test]
fn hops_and_sessions_survive_kill_9() {
    let _beside = beside_others();
    let scratch = Scratch::new("windows");
    let mut random = StdRng::seed_from_u64(seed("windows"));
    let mut server = Server::with_config(&scratch, &format!("{STREAM}{VIEWS}"));
    let mut sent: Vec<Click> = Vec::new();
    for _ in 0..ROUNDS {
        let clicks: Vec<Click> = (0..EVENTS)
            .map(|_| {
                let at = sent.len() as i64 + EVENTS / 2;
                let ts = *BASE_MS + at * 100 - random.random_range(0..8_000);
                Click::random(&mut random, ts)
            })
            .collect();
        write_and_kill(&mut server, &clicks, &mut random);
        sent.extend(clicks);
    }
    compare(&server, &sent);
    // All windows close; what comes after that for them is late and changes nothing.
    let newest = *BASE_MS + 10 * 3_600_000;
    let last = Click { user: 1, price: 1, ts: newest };
    write(&server.kafka, &[last; 24]);
    sent.extend([last; 24]);
    compare(&server, &sent);
    write(&server.kafka, &[Click { user: 1, price: 1, ts: *BASE_MS + 60_000 }]);
    compare(&server, &sent);
    server.kill9();
    server.start_again();
    compare(&server, &sent);
    told(&server, "last_minute", "team", &hops(&sent), &|end| end <= newest - 20_000);
    told(&server, "visits", "user_id", &visits(&sent), &|_| true);
    for view in ["last_minute", "visits"] {
        assert_eq!(committed(&server.kafka, &format!("{view}.late")).len(), 1, "{view}");
    }
    refused(&server);
    assert!(server.stop().success());
}

fn hops(clicks: &[Click]) -> Wanted {
    let mut wanted = Wanted::new();
    for click in clicks {
        let mut start = click.ts.div_euclid(SLIDE_MS) * SLIDE_MS;
        while start > click.ts - SIZE_MS {
            let group = wanted.entry((start, start + SIZE_MS, click.user % 3)).or_default();
            (group.0, group.1) = (group.0 + 1, group.1 + click.price);
            start -= SLIDE_MS;
        }
    }
    wanted
}

fn visits(clicks: &[Click]) -> Wanted {
    let session = |clicks: &Vec<Click>| {
        let (first, last) = (clicks[0], clicks[clicks.len() - 1]);
        let total = clicks.iter().map(|click| click.price).sum();
        ((first.ts, last.ts + GAP_MS, first.user), (clicks.len() as i64, total))
    };
    sessions(clicks, GAP_MS).iter().map(session).collect()
}

/// The sum of a BIGINT is an exact decimal, which JSON carries as text.
fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or_else(|| value.as_str().unwrap().parse().unwrap())
}

fn window(row: &[Value]) -> ((i64, i64, i64), (i64, i64)) {
    ((ms(&row[0]), ms(&row[1]), number(&row[2])), (number(&row[3]), number(&row[4])))
}

fn compare(server: &Server, sent: &[Click]) {
    for (view, wanted) in [("last_minute", hops(sent)), ("visits", visits(sent))] {
        let answer = server.http.get(&format!("/v1/views/{view}?wait=30s"));
        let got: Vec<_> = rows(&answer).iter().map(|row| window(row)).collect();
        assert!(answer["stale"] == false && got.iter().map(|(key, _)| key.0).is_sorted(), "{view}");
        let got: Wanted = got.into_iter().collect();
        for (key, value) in &wanted {
            assert_eq!(got.get(key), Some(value), "{view}: {key:?}");
        }
        assert_eq!(got.len(), wanted.len(), "{view}");
        let from = *BASE_MS + 77_000;
        let some = wanted.iter().filter(|((start, ..), _)| (from..from + 100_000).contains(start));
        let some: Wanted = some.map(|(key, value)| (*key, *value)).collect();
        let path = format!("/v1/views/{view}?wait=30s&from={from}&to={}", from + 100_000);
        let got: Wanted = rows(&server.http.get(&path)).iter().map(|row| window(row)).collect();
        assert_eq!(got, some, "{path}");
        let sql = format!("SELECT count(*), sum(clicks) FROM {view}");
        let clicks: i64 = wanted.values().map(|(clicks, _)| clicks).sum();
        assert_eq!(server.http.sql(&sql), [[json!(wanted.len()), json!(clicks)]], "{sql}");
    }
}

/// What is newest in a view's topic is what the view shows, of the windows whose end is one of those.
fn told(server: &Server, view: &str, key: &str, wanted: &Wanted, shows: &dyn Fn(i64) -> bool) {
    let newest: BTreeMap<Vec<u8>, Vec<u8>> = committed(&server.kafka, view).into_iter().collect();
    let shown = newest.values().filter(|value| !value.is_empty()).map(|value| {
        let row: Value = serde_json::from_slice(value).unwrap();
        window(&["window_start", "window_end", key, "clicks", "total"].map(|name| row[name].clone()))
    });
    let shown: Wanted = shown.collect();
    let wanted: Wanted = wanted.iter().filter(|((_, end, _), _)| shows(*end)).map(|(k, v)| (*k, *v)).collect();
    assert_eq!(shown, wanted, "{view}");
}

/// In history queries they are no functions, and the answer says what to write.
fn refused(server: &Server) {
    let calls =
        [("HOP(ts, INTERVAL '1' MINUTE, INTERVAL '1' HOUR)", "TUMBLE"), ("SESSION(ts, INTERVAL '1' MINUTE)", "lag")];
    for (call, instead) in calls {
        let sql = format!("SELECT {call} AS w, count(*) AS n FROM clicks GROUP BY {call}");
        let (status, text) = server.http.try_post("/v1/sql", &json!({ "sql": sql })).unwrap();
        assert!(status == 400 && text.contains("for views only") && text.contains(instead), "{status}: {text}");
    }
}
