//! The whole server, asked with and without tokens: no route answers what a token does not reach, and no statement shows a
//! row that a filter hides.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use broker::{Ack, Append, BatchBuilder, Change, HashedSecret, Origin};
use lake::RowFilter;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Running;
use crate::base64::base64;
use crate::config::{Config, PanelConfig, PanelKind, Scopes, TokenConfig};
use crate::tests::{Reply, config, send};

const ADMIN: &str = "admin-secret-1234567";
const READ: &str = "read-secret-12345678";
const WRITE: &str = "write-secret-1234567";
/// Sees jazz only, and no lengths.
const JAZZ: &str = "jazz-secret-12345678";
/// Sees a part of the stream, and has no filter for the view over it.
const HALF: &str = "half-secret-12345678";
/// Names the view alone.
const NARROW: &str = "narrow-secret-123456";

/// Lengths that no time and no offset has among its digits.
const JAZZ_MS: i64 = 47_110_815;
const OTHER_MS: i64 = 81_547_110;

fn token(name: &str, secret: &str, scope: &str) -> TokenConfig {
    let admin = scope == "admin";
    TokenConfig {
        name: name.into(),
        secret: HashedSecret::of(secret),
        scopes: Scopes { read: admin || scope == "read", write: admin || scope == "write", admin },
        data: vec!["*".into()],
        filters: BTreeMap::new(),
    }
}

fn guarded(dir: &Path) -> Config {
    let mut config = config(dir);
    config.http.streams_max = 8;
    let filter = |condition: &str, masked: &[&str]| RowFilter {
        condition: Some(condition.into()),
        masked: masked.iter().map(|name| (*name).to_owned()).collect(),
    };
    let listens = ("listens".to_owned(), filter("genre = 'jazz'", &["ms"]));
    let plays = ("plays".to_owned(), filter("genre = 'jazz'", &["mean"]));
    config.tokens = vec![
        token("ops", ADMIN, "admin"),
        token("all", READ, "read"),
        TokenConfig { data: vec!["lis*".into()], ..token("writer", WRITE, "write") },
        TokenConfig { filters: BTreeMap::from([listens.clone(), plays]), ..token("jazz", JAZZ, "read") },
        TokenConfig { filters: BTreeMap::from([listens]), ..token("half", HALF, "read") },
        TokenConfig { data: vec!["plays".into()], ..token("narrow", NARROW, "read") },
    ];
    let sql = "SELECT genre, count(*) AS plays FROM listens GROUP BY genre ORDER BY genre";
    config.dashboards[0].panels.push(PanelConfig {
        title: "By SQL".into(),
        kind: PanelKind::Bar,
        sql: Some(sql.into()),
        ..PanelConfig::default()
    });
    config
}

async fn with(address: SocketAddr, line: &str, token: Option<&str>, body: &str) -> Reply {
    let authorization = token.map_or_else(String::new, |token| format!("\r\nAuthorization: Bearer {token}"));
    send(address, &format!("{line} HTTP/1.1\r\nContent-Type: application/json{authorization}"), body).await
}

async fn get(running: &Running, path: &str, token: &str) -> Reply {
    with(running.http(), &format!("GET {path}"), Some(token), "").await
}

async fn sql(running: &Running, sql: &str, token: &str) -> Reply {
    with(running.http(), "POST /v1/sql", Some(token), &json!({"sql": sql}).to_string()).await
}

async fn fill(running: &Running) {
    let event = |genre: &str, ms: i64| json!({"value": {"genre": genre, "ms": ms, "ts": "2026-11-20T12:00:30Z"}});
    let records = json!({"records": [event("jazz", JAZZ_MS), event("pop", OTHER_MS), event("jazz", JAZZ_MS), event("folk", OTHER_MS)]});
    let reply = with(running.http(), "POST /v1/topics/listens/records", Some(WRITE), &records.to_string()).await;
    assert_eq!((reply.status, &reply.json()["accepted"]), (200, &json!(4)), "{}", reply.body);
}

async fn start(dir: &Path) -> Running {
    crate::start(guarded(dir)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_wants_a_token_that_may() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path()).await;
    let http = running.http();
    let document = with(http, "GET /openapi.json", None, "").await.json();
    let mut seen = BTreeMap::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let concrete = path.replace("{topic}", "listens").replace("{view}", "plays").replace("{name}", "music");
        let concrete = ["model", "source", "job", "sink", "panel", "group", "file"]
            .iter()
            .fold(concrete, |path, name| path.replace(&format!("{{{name}}}"), "x"));
        for (method, operation) in methods.as_object().unwrap() {
            let line = format!("{} {concrete}", method.to_uppercase());
            let scope = operation["security"][1]["token"][0].as_str();
            *seen.entry(scope.unwrap_or("none")).or_insert(0) += 1;
            let without = with(http, &line, None, "{}").await;
            if scope.is_none() {
                assert_ne!(without.status, 401, "{line}");
                continue;
            }
            assert_eq!(without.status, 401, "{line}: {}", without.body);
            assert!(without.head.contains("www-authenticate: Bearer realm"), "{}", without.head);
            // Iceberg's catalog has a shape of its own for problems
            let is_catalog = path.starts_with("/iceberg/");
            match is_catalog {
                true => assert_eq!(without.json()["error"]["type"], "NotAuthorizedException"),
                false => assert_eq!(without.json()["type"], "urn:millpond:problem:unauthorized"),
            }
            let wrong = with(http, &line, Some("a-token-of-another-server"), "{}").await;
            assert!(wrong.status == 401 && wrong.head.contains("invalid_token"), "{line}: {}", wrong.head);
            let lesser = if scope == Some("read") { WRITE } else { READ };
            let refused = with(http, &line, Some(lesser), "{}").await;
            assert!(refused.status == 403 && refused.head.contains("insufficient_scope"), "{line}: {}", refused.body);
            let said = refused.json();
            let said = if is_catalog { &said["error"]["message"] } else { &said["detail"] };
            assert!(said.as_str().unwrap().contains("[[tokens]]"), "{}", refused.body);
            if method == "get" && !path.ends_with("/live") && !path.ends_with("/changes") {
                let admitted = with(http, &line, Some(ADMIN), "").await;
                assert!(admitted.status == 200 || admitted.status == 404, "{line}: {}", admitted.body);
            }
        }
    }
    assert!(seen["none"] > 10 && seen["read"] > 25 && seen["admin"] > 5 && seen["write"] == 1, "{seen:?}");
    assert_eq!(with(http, "GET /no/such/route", None, "").await.status, 404);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_registry_refuses_as_its_clients_know_it() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path()).await;
    for (address, prefix) in [(running.registry().unwrap(), ""), (running.http(), "/registry")] {
        let call = |line: &str, authorization: Option<String>| {
            let authorization = authorization.map_or_else(String::new, |value| format!("\r\nAuthorization: {value}"));
            let (method, path) = line.split_once(' ').unwrap();
            let head = format!("{method} {prefix}{path} HTTP/1.1{authorization}");
            async move { send(address, &head, r#"{"schema": "\"int\""}"#).await }
        };
        let basic = |pair: &str| Some(format!("Basic {}", base64(pair.as_bytes())));
        let refused = call("GET /subjects", None).await;
        assert_eq!((refused.status, &refused.json()["error_code"]), (401, &json!(401)));
        assert!(refused.head.contains("www-authenticate: Basic"), "{}", refused.head);
        assert_eq!(call("GET /subjects", basic(&format!("all:{READ}"))).await.status, 200);
        assert_eq!(call("GET /subjects", basic(&format!("other:{READ}"))).await.status, 401);
        assert_eq!(call("GET /subjects", Some(format!("Bearer {READ}"))).await.status, 200);
        let refused = call("POST /subjects/listens-value/versions", Some(format!("Bearer {READ}"))).await;
        assert_eq!((refused.status, &refused.json()["error_code"]), (403, &json!(40301)), "{}", refused.body);
        let writer = || Some(format!("Bearer {WRITE}"));
        assert_eq!(call("POST /subjects/listens-value/versions", writer()).await.status, 200);
        assert_eq!(call("POST /subjects/orders-value/versions", writer()).await.status, 403, "not in its data");
        assert_eq!(call("DELETE /subjects/listens-value", writer()).await.status, 403);
        assert_eq!(call("GET /config", Some(format!("Bearer {ADMIN}"))).await.status, 200);
    }
    running.stop().await;
}

/// What no answer to the token of jazz may hold: the other genres, and the lengths.
fn shows_nothing_else(what: &str, reply: &Reply) {
    for hidden in ["pop", "folk", "47110815", "81547110"] {
        assert!(!reply.body.contains(hidden), "{what} shows {hidden}: {}", reply.body);
    }
}

/// Clients that send a body after its head keep the connection: its next request is answered.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_leaves_the_connection_for_the_next_request() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path()).await;
    for path in ["/v1/sql", "/registry/subjects/x/versions"] {
        let mut stream = TcpStream::connect(running.http()).await.unwrap();
        let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        stream.write_all(b"{\"sql\":1}").await.unwrap();
        let next = "GET /openapi.json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(next.as_bytes()).await.unwrap();
        let mut answers = Vec::new();
        stream.read_to_end(&mut answers).await.unwrap();
        let answers = String::from_utf8_lossy(&answers);
        assert!(answers.starts_with("HTTP/1.1 401") && answers.contains("HTTP/1.1 200 OK"), "{path}: {answers:.300}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_statement_shows_what_a_filter_hides() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path()).await;
    fill(&running).await;
    // in the log, then in Parquet
    for settled in [false, true] {
        if settled {
            let flushed = with(running.http(), "POST /v1/lake/listens/flush", Some(ADMIN), "{}").await;
            assert_eq!(flushed.status, 200, "{}", flushed.body);
        }
        let all = sql(&running, "SELECT count(*), sum(ms) FROM listens", READ).await;
        assert_eq!(all.json()["rows"], json!([[4, 2 * (JAZZ_MS + OTHER_MS)]]), "{}", all.body);
        for statement in [
            "SELECT * FROM listens",
            "SELECT genre, ms FROM listens",
            "SELECT l.* FROM listens AS l",
            "SELECT * FROM millpond.public.listens",
            "SELECT * FROM \"listens\" WHERE true OR genre = 'pop'",
            "SELECT genre FROM listens WHERE genre <> 'jazz'",
            "SELECT DISTINCT genre FROM listens",
            "SELECT a.genre, b.genre FROM listens a CROSS JOIN listens b",
            "SELECT b.genre FROM listens a RIGHT JOIN listens b ON a.genre <> b.genre",
            "SELECT a.g FROM (VALUES ('pop')) AS a (g) LEFT JOIN listens b ON a.g = b.genre WHERE b.genre IS NOT NULL",
            "SELECT (SELECT max(genre) FROM listens)",
            "SELECT 1 WHERE EXISTS (SELECT 1 FROM listens WHERE genre = 'pop')",
            "WITH listens AS (SELECT * FROM listens) SELECT * FROM listens",
            "WITH x AS (SELECT genre FROM listens) SELECT * FROM x UNION ALL SELECT genre FROM plays",
            "SELECT * FROM listens UNION SELECT * FROM listens",
            "SELECT max(ms), min(ms), avg(ms) FROM listens",
            "SELECT genre FROM listens WHERE ms > 4000 OR ms < 4000",
            "SELECT genre, row_number() OVER (ORDER BY ms) FROM listens",
            "SELECT 1 / (CASE WHEN genre = 'jazz' THEN 1 ELSE 0 END) FROM listens",
            "SELECT genre FROM listens WHERE 1 / (CASE WHEN genre = 'jazz' THEN 1 ELSE 0 END) = 1",
            "SELECT genre FROM listens WHERE try_cast(genre AS BIGINT) IS NULL",
            "SELECT * FROM plays",
            "SELECT p.genre, p.mean FROM plays p JOIN listens l ON p.genre = l.genre",
            "SELECT genre FROM plays ORDER BY mean",
            "SELECT approx_distinct(genre), array_agg(genre) FROM listens",
        ] {
            let reply = sql(&running, statement, JAZZ).await;
            assert_eq!(reply.status, 200, "{statement}: {}", reply.body);
            shows_nothing_else(statement, &reply);
        }
        let counted = sql(&running, "SELECT count(*), count(ms), count(DISTINCT genre) FROM listens", JAZZ).await;
        assert_eq!(counted.json()["rows"], json!([[2, 0, 1]]));
        assert!(counted.json()["scanned"].is_null() && all.json()["scanned"]["bytes"].as_u64() > Some(0));
        let limited = sql(&running, "SELECT genre FROM listens LIMIT 3", JAZZ).await;
        assert_eq!(limited.json()["rows"], json!([["jazz"], ["jazz"]]));
        for closed in [
            "EXPLAIN ANALYZE SELECT * FROM listens WHERE genre = 'pop'",
            "EXPLAIN SELECT * FROM listens",
            "SELECT * FROM query_log",
            "SELECT * FROM data_quality",
            "SELECT * FROM stored_bytes",
        ] {
            let reply = sql(&running, closed, JAZZ).await;
            assert_eq!(reply.status, 403, "{closed}: {}", reply.body);
        }
        let half = sql(&running, "SELECT * FROM plays", HALF).await;
        assert!(half.status == 403 && half.body.contains("comes from listens"), "{}", half.body);
        assert_eq!(sql(&running, "SELECT count(*) FROM listens", HALF).await.json()["rows"], json!([[2]]));
        let narrow = sql(&running, "SELECT * FROM listens", NARROW).await;
        assert!(narrow.status == 403 && narrow.body.contains("may not read listens"), "{}", narrow.body);
        assert_eq!(sql(&running, "SELECT count(*) FROM plays", NARROW).await.json()["rows"], json!([[3]]));
        let tables = sql(&running, "SELECT table_name FROM information_schema.tables", NARROW).await;
        assert!(tables.body.contains("plays") && !tables.body.contains("listens"), "{}", tables.body);
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_route_shows_what_a_filter_hides() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path()).await;
    fill(&running).await;
    let all = get(&running, "/v1/dashboards/music?wait=5s", READ).await;
    assert!(all.body.contains("pop") && all.body.contains("folk"), "{}", all.body);
    for path in [
        "/v1/views/plays",
        "/v1/views/plays?genre=pop",
        "/v1/views/plays?format=csv&order=-plays",
        "/v1/views/plays?format=ndjson",
        "/v1/dashboards/music",
        "/v1/dashboards/music?fresh=true&genre=pop",
        "/v1/dashboards/music?format=csv",
        "/v1/dashboards/music?format=ndjson",
        "/v1/dashboards/music/panels/0",
        "/v1/dashboards/music/panels/1",
        "/v1/dashboards/music/panels/1?genre=folk",
        "/v1/dashboards/music/panels/2",
        "/v1/dashboards/music/panels/2?format=csv",
        "/v1/dashboards",
        "/v1/catalog",
        "/v1/views",
        "/v1/streams",
    ] {
        let reply = get(&running, path, JAZZ).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.body);
        shows_nothing_else(path, &reply);
        let count = if path.ends_with("panels/2") { json!([["jazz", 2]]) } else { Value::Null };
        assert!(count.is_null() || reply.json()["rows"] == count, "{}", reply.body);
    }
    for format in ["csv", "ndjson"] {
        let body = json!({"sql": "SELECT * FROM listens"}).to_string();
        let reply = with(running.http(), &format!("POST /v1/sql?format={format}"), Some(JAZZ), &body).await;
        assert!(reply.status == 200 && reply.body.contains("jazz"), "{}", reply.body);
        shows_nothing_else(format, &reply);
    }
    assert_eq!(get(&running, "/v1/dashboards/music/panels/0", JAZZ).await.json()["rows"], json!([[2]]));
    assert_eq!(get(&running, "/v1/dashboards/music/panels/0", READ).await.json()["rows"], json!([[4]]));
    for path in [
        "/v1/topics/listens/records",
        "/v1/topics/plays/records",
        "/v1/topics/listens.rejected/records",
        "/v1/quality",
        "/v1/queries",
        "/v1/costs",
        "/v1/alerts",
        "/v1/jobs",
        "/metrics",
        "/v1/views/plays?mean=81547110",
        "/v1/views/plays?order=mean",
    ] {
        let reply = get(&running, path, JAZZ).await;
        let masked = path.contains("mean");
        assert_eq!(reply.status, if masked { 400 } else { 403 }, "{path}: {}", reply.body);
        shows_nothing_else(path, &Reply { body: reply.body.replace("mean=81547110", ""), ..reply });
    }
    assert_eq!(get(&running, "/v1/views/plays", HALF).await.status, 403);
    assert_eq!(get(&running, "/v1/views/plays/changes", HALF).await.status, 403);
    let panel = get(&running, "/v1/dashboards/music/panels/1", HALF).await;
    assert_eq!(panel.status, 403, "{}", panel.body);
    assert_eq!(get(&running, "/metrics", NARROW).await.status, 403);
    assert_eq!(get(&running, "/metrics", READ).await.status, 200);
    shows_nothing_else("a live dashboard", &live(&running, JAZZ).await);
    assert!(live(&running, READ).await.body.contains("folk"));
    running.stop().await;
}

/// What comes of a live dashboard in its first moments.
async fn live(running: &Running, token: &str) -> Reply {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(running.http()).await.unwrap();
    let head = format!("GET /v1/dashboards/music/live HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut body = String::new();
    let mut buffer = vec![0; 1 << 16];
    while !body.contains("event: look") {
        let read = tokio::time::timeout(std::time::Duration::from_secs(10), stream.read(&mut buffer)).await;
        body.push_str(&String::from_utf8_lossy(&buffer[..read.unwrap().unwrap()]));
    }
    assert_eq!(body.matches("event: panel").count(), 3, "{body}");
    Reply { status: 200, head: String::new(), body }
}

/// What a stream refuses and what is late for a view are rows of the stream, under other names.
#[tokio::test(flavor = "multi_thread")]
async fn no_stream_over_refused_or_late_rows_shows_what_a_filter_hides() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = guarded(dir.path());
    for (name, topic) in [("refused", "listens.rejected"), ("late", "plays.late")] {
        let mut stream = config.engine.streams[0].clone();
        (stream.name, stream.topic, stream.checks) = (name.into(), topic.into(), Vec::new());
        config.engine.streams.push(stream);
    }
    let running = crate::start(config).await.unwrap();
    // as a client of Kafka, whom nobody corrects
    let mut batch = BatchBuilder::new();
    let refused = json!({"genre": "pop", "ms": -OTHER_MS, "ts": "2026-11-20T12:00:30Z"}).to_string();
    batch.push(running.broker().clock().now_ms(), None, Some(refused.as_bytes()), &[]);
    let partition = running.broker().catalog().topic("listens").unwrap().partition(0).unwrap();
    let append = Append { partition, batch: batch.build().unwrap(), origin: Origin::Internal };
    running.broker().lane().commit(vec![Change::Append(append)], Ack::Durable).await.unwrap();
    let begin = std::time::Instant::now();
    loop {
        let reply = sql(&running, "SELECT count(*) FROM refused", READ).await;
        if reply.json()["rows"] == json!([[1]]) {
            break;
        }
        assert!(begin.elapsed().as_secs() < 20, "the refused row is there to be read: {}", reply.body);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    for (name, topic) in [("refused", "listens.rejected"), ("late", "plays.late")] {
        for reply in [
            sql(&running, &format!("SELECT * FROM {name}"), JAZZ).await,
            get(&running, &format!("/v1/topics/{topic}/records"), JAZZ).await,
        ] {
            assert_eq!(reply.status, 403, "{name}: {}", reply.body);
            shows_nothing_else(name, &reply);
        }
    }
    running.stop().await;
}

/// A column went out of a view's declaration, and out of the filter with it: while the former version is served, which has it, that
/// filter shows nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_filter_shows_nothing_of_a_version_with_columns_that_it_does_not_know() {
    let dir = tempfile::tempdir().unwrap();
    let settling = || {
        let mut config = guarded(dir.path());
        config.lake.tables = vec![lake::TableConfig::of("listens")];
        config
    };
    let running = crate::start(settling()).await.unwrap();
    fill(&running).await;
    let before = get(&running, "/v1/views/plays?wait=20s", READ).await.json();
    let flushed = with(running.http(), "POST /v1/lake/listens/flush", Some(ADMIN), "").await;
    assert_eq!(flushed.status, 200, "{}", flushed.body);
    for partition in running.broker().catalog().topic("listens").unwrap().partitions().iter() {
        let deleted = Change::LogStart(partition.clone(), partition.high_watermark());
        running.broker().lane().commit(vec![deleted], Ack::Durable).await.unwrap();
    }
    running.stop().await;
    // What the view is filled from cannot be read.
    let (files, away) = (dir.path().join("lake/listens"), dir.path().join("away"));
    std::fs::rename(&files, &away).unwrap();
    let mut config = settling();
    let view = &mut config.engine.views[0];
    view.sql = view.sql.replace(", avg(ms) AS mean", "");
    let jazz = RowFilter { condition: Some("genre = 'jazz'".into()), masked: Vec::new() };
    config.tokens[3].filters.insert("plays".into(), jazz);
    let running = crate::start(config).await.unwrap();
    assert_eq!(get(&running, "/v1/views/plays", READ).await.json()["rows"], before["rows"]);
    let before_at: String = before["offsets"].to_string().bytes().map(|byte| format!("%{byte:02x}")).collect();
    for reply in [
        get(&running, "/v1/views/plays", JAZZ).await,
        get(&running, "/v1/dashboards/music/panels/0", JAZZ).await,
        sql(&running, "SELECT plays FROM plays", JAZZ).await,
        get(&running, &format!("/v1/views/plays?at={before_at}"), JAZZ).await,
    ] {
        assert!(reply.status == 503 && reply.body.contains("the token's filter"), "{}", reply.body);
    }
    std::fs::rename(&away, &files).unwrap();
    let begin = std::time::Instant::now();
    while running.engine().filling("plays").is_some() {
        assert!(begin.elapsed().as_secs() < 60, "the view is filled");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let reply = get(&running, "/v1/views/plays", JAZZ).await;
    assert!(reply.status == 200 && reply.body.contains("jazz"), "{}", reply.body);
    shows_nothing_else("plays", &reply);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_does_not_fit_stops_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = guarded(dir.path());
    let wrong = RowFilter { condition: Some("land = 'FR'".into()), masked: vec![] };
    config.tokens[3].filters.insert("plays".into(), wrong);
    config.tokens[3].filters.insert("absent".into(), RowFilter::default());
    let message = crate::start(config).await.err().unwrap().to_string();
    assert!(message.contains("token jazz: filter of absent: there is no such table"), "{message}");
    assert!(message.contains("token jazz: filter of plays: no column 'land'"), "{message}");
}
