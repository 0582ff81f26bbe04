//! Streams and views declared over HTTP while a client writes, with kill -9 in the middle of statements and of filling: what was answered
//! holds, and each view equals a computation over what the client sent.

use crate::support::http::rows;
use crate::support::server::{Server, millpond};
use crate::support::writer::patient;
use crate::support::{Scratch, beside_others, eventually, seed};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

const KILLS: u32 = 6;
const STATEMENTS: u32 = 5;
const USERS: u64 = 50;
/// Views by the kind of their definition; a name may have any of them.
const QUERIES: [&str; 3] = [
    "SELECT user_id, count(*) AS n, sum(ms) AS ms FROM plays GROUP BY user_id",
    "SELECT user_id, max(ms) AS n, min(ms) AS ms FROM plays WHERE ms % 3 <> 0 GROUP BY user_id",
    "SELECT user_id, count(*) AS n, sum(ms) AS ms FROM plays GROUP BY TUMBLE(ts, INTERVAL '1' SECOND), user_id",
];
const STREAM: &str = "CREATE STREAM plays (id BIGINT NOT NULL, user_id BIGINT NOT NULL, ms BIGINT, ts TIMESTAMP)
    WITH (topic = 'raw_plays', event_time = 'ts', lateness = '1 day')";
const BEGAN_MS: u64 = 1_795_168_800_000;

/// What the client sent: ids below this; all else follows from the id.
type Sent = u64;

fn user(id: u64) -> u64 {
    id * 7 % USERS
}

fn ms(id: u64) -> u64 {
    id * 31 % 1_009
}

fn ts(id: u64) -> u64 {
    BEGAN_MS + id % 10_000
}

#[test]
fn views_come_and_go_under_kill_9() {
    let _beside = beside_others();
    let scratch = Scratch::new("declare");
    let seed = seed("declare");
    let mut random = StdRng::seed_from_u64(seed);
    let mut server = Server::start(&scratch);
    declare(&server, STREAM);
    let stop = Arc::new(AtomicBool::new(false));
    let writer = thread::spawn({
        let (address, stop) = (server.kafka.clone(), stop.clone());
        move || write_until(&address, &stop)
    });
    // What each view must be, as far as answers told; one whose answer was lost may be either.
    let mut known: BTreeMap<String, Option<usize>> = BTreeMap::new();
    let mut added: Vec<String> = Vec::new();
    for _ in 0..KILLS {
        alter(&server, &mut random, &mut added);
        for _ in 0..STATEMENTS {
            let (name, kind, text) = statement(&mut random);
            declare(&server, &text);
            known.insert(name, kind);
            thread::sleep(Duration::from_millis(random.random_range(0..60)));
        }
        let (name, kind, text) = statement(&mut random);
        let http = server.http.clone();
        let lost = thread::spawn(move || http.try_post("/v1/sql", &json!({ "sql": text })));
        thread::sleep(Duration::from_millis(random.random_range(0..40)));
        server.kill9();
        let answered = matches!(lost.join().unwrap(), Ok((200, _)));
        server.start_again();
        let there = shown(&server);
        for (name, kind) in known.iter().filter(|(known, _)| **known != name) {
            assert_eq!(there.contains_key(name), kind.is_some(), "{name} after a restart: {there:?}");
        }
        let found = there.get(&name).map(|_| kind_of(&server, &name));
        assert!(!answered || found == kind, "{name}: answered as {kind:?}, found {found:?}");
        known.insert(name, found);
    }
    stop.store(true, Ordering::Relaxed);
    let sent = writer.join().unwrap();
    eprintln!("declare: {sent} events, {known:?}");
    assert!(sent > 1_000, "{sent} events are no load");
    check(&server, &known, sent);
    assert!(!added.is_empty());
    let columns = server.http.get("/v1/streams")["streams"][0]["columns"].to_string();
    assert!(added.iter().all(|column| columns.contains(&format!("\"{column}\""))), "{added:?}: {columns}");
    // What was never sent is null, in files and log.
    let counted = server.http.sql(&format!("SELECT count({}), count(DISTINCT id) FROM plays", added[0]));
    assert_eq!(counted, [[json!(0), json!(sent)]]);
    drop_all(&server, &known);
    declare(&server, &format!("CREATE MATERIALIZED VIEW v0 AS {}", QUERIES[0]));
    check(&server, &BTreeMap::from([("v0".to_owned(), Some(0))]), sent);
    server.kill9();
    server.start_again();
    check(&server, &BTreeMap::from([("v0".to_owned(), Some(0))]), sent);
    let mut command = millpond();
    command.args([
        "sql",
        "--output",
        "ndjson",
        "--http",
        &server.http.url(""),
        "DROP MATERIALIZED VIEW v0; DROP STREAM plays",
    ]);
    let dropped = crate::support::kafka::run(&mut command);
    assert_eq!(dropped.matches("dropped").count(), 2, "{dropped}");
    assert_eq!(server.http.get("/v1/streams")["streams"], json!([]));
    assert!(server.stop().success());
}

/// A statement about one of four views: its name, what it is if the statement is done, and the text.
fn statement(random: &mut StdRng) -> (String, Option<usize>, String) {
    let name = format!("v{}", random.random_range(0..4));
    if random.random_bool(0.3) {
        let text = format!("DROP MATERIALIZED VIEW IF EXISTS {name}");
        return (name, None, text);
    }
    let kind = random.random_range(0..QUERIES.len());
    let text = format!("CREATE OR REPLACE MATERIALIZED VIEW {name} AS {}", QUERIES[kind]);
    (name, Some(kind), text)
}

/// The stream has another column or lateness, unless a view over it has two versions just now: then the answer says so.
fn alter(server: &Server, random: &mut StdRng, added: &mut Vec<String>) {
    let column = format!("extra_{}", added.len());
    let (is_column, days) = (random.random_bool(0.7) || added.is_empty(), random.random_range(1..9));
    let text = match is_column {
        true => format!("ALTER STREAM plays ADD COLUMN {column} BIGINT"),
        false => format!("ALTER STREAM plays SET (lateness = '{days} days')"),
    };
    eventually("the stream is altered", Duration::from_secs(60), || {
        match server.http.try_post("/v1/sql", &json!({ "sql": text })).unwrap() {
            (200, _) => Ok(()),
            (400, body) if body.contains("wait until that takes over") => Err(body),
            (status, body) => panic!("{text}: {status} {body}"),
        }
    });
    added.extend(is_column.then_some(column));
}

fn declare(server: &Server, text: &str) -> Value {
    server.http.post("/v1/sql", &json!({ "sql": text }))
}

/// The views that there are, and their definitions: of one that is filled beside another version, its own.
fn shown(server: &Server) -> BTreeMap<String, String> {
    let views = server.http.get("/v1/views");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let declared = |view: &Value| text(view.pointer("/status/successor/sql").unwrap_or(&view["sql"]));
    views["views"].as_array().unwrap().iter().map(|view| (text(&view["name"]), declared(view))).collect()
}

/// No view is filled beside another version of it.
fn is_settled(server: &Server) -> Result<(), String> {
    let views = server.http.get("/v1/views")["views"].to_string();
    if views.contains(r#""successor":{"#) { Err(views) } else { Ok(()) }
}

fn kind_of(server: &Server, name: &str) -> usize {
    let sql = &shown(server)[name];
    QUERIES.iter().position(|query| sql.ends_with(query)).unwrap_or_else(|| panic!("{name} is {sql}"))
}

/// Writes events until told to stop; then until all are acknowledged.
fn write_until(address: &str, stop: &AtomicBool) -> Sent {
    let producer: BaseProducer = patient(address).create().unwrap();
    let mut next = 0;
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..50 {
            let event = json!({"id": next, "user_id": user(next), "ms": ms(next), "ts": ts(next)}).to_string();
            let key = user(next).to_string();
            match producer.send(BaseRecord::to("raw_plays").key(&key).payload(&event)) {
                Ok(()) => next += 1,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => break,
                Err((error, _)) => panic!("{error}"),
            }
        }
        producer.poll(Duration::from_millis(10));
    }
    producer.flush(Duration::from_secs(120)).unwrap();
    next
}

/// Window (0 without one) and user → n, ms.
type Rows = BTreeMap<(u64, u64), (u64, u64)>;

fn expected(kind: usize, sent: Sent) -> Rows {
    let mut all = Rows::new();
    for id in 0..sent {
        let window = if kind == 2 { ts(id) / 1_000 } else { 0 };
        let key = (window, user(id));
        match kind {
            1 if ms(id).is_multiple_of(3) => {}
            1 => {
                let group = all.entry(key).or_insert((0, u64::MAX));
                *group = (group.0.max(ms(id)), group.1.min(ms(id)));
            }
            _ => {
                let group = all.entry(key).or_insert((0, 0));
                *group = (group.0 + 1, group.1 + ms(id));
            }
        }
    }
    all
}

fn check(server: &Server, known: &BTreeMap<String, Option<usize>>, sent: Sent) {
    eventually("new versions take over", Duration::from_secs(60), || is_settled(server));
    let there = shown(server);
    assert_eq!(there.len(), known.values().flatten().count(), "{there:?} {known:?}");
    for (name, kind) in known {
        let Some(kind) = *kind else { continue };
        assert_eq!(kind_of(server, name), kind, "{name}");
        let answer = server.http.get(&format!("/v1/views/{name}?wait=30s"));
        let number = |value: &Value| -> u64 { value.to_string().trim_matches('"').parse().unwrap() };
        let rows = rows(&answer);
        let found = rows.iter().map(|row| {
            let at = row.len() - 3;
            let window = row.first().and_then(Value::as_str).map_or(0, seconds);
            ((window, number(&row[at])), (number(&row[at + 1]), number(&row[at + 2])))
        });
        assert_eq!(found.collect::<Rows>(), expected(kind, sent), "{name}: {}", there[name]);
        let status = server.http.get("/v1/views");
        let view = status["views"].as_array().unwrap().iter().find(|view| view["name"] == **name).unwrap().clone();
        assert_eq!((&view["status"]["state"], &view["status"]["fill_left"]), (&json!("live"), &Value::Null), "{view}");
    }
}

fn seconds(time: &str) -> u64 {
    chrono::DateTime::parse_from_rfc3339(time).unwrap().timestamp().unsigned_abs()
}

fn drop_all(server: &Server, known: &BTreeMap<String, Option<usize>>) {
    let drops: Vec<String> = known.keys().map(|name| format!("DROP MATERIALIZED VIEW IF EXISTS {name};")).collect();
    declare(server, &drops.join("\n"));
    assert_eq!(shown(server).len(), 0);
    let topics = server.http.get("/v1/topics").to_string();
    assert!(!topics.contains("\"v0\"") && topics.contains("\"raw_plays\""), "{topics}");
}
