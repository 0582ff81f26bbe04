//! The whole server while streams, tables and views are declared and dropped over HTTP.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use broker::HashedSecret;
use lake::RowFilter;
use serde_json::{Value, json};

use crate::Running;
use crate::config::{Config, Scopes, TokenConfig};
use crate::tests::{Reply, config, send};

const ADMIN: &str = "admin-secret-1234567";
const READ: &str = "read-secret-12345678";
/// Sees jazz only.
const JAZZ: &str = "jazz-secret-12345678";

fn guarded(dir: &Path) -> Config {
    let token = |name: &str, secret: &str, admin: bool| TokenConfig {
        name: name.into(),
        secret: HashedSecret::of(secret),
        scopes: Scopes { read: true, write: admin, admin },
        data: vec!["*".into()],
        filters: BTreeMap::new(),
    };
    let jazz = RowFilter { condition: Some("genre = 'jazz'".into()), masked: Vec::new() };
    let filters = ["listens", "plays"].map(|table| (table.to_owned(), jazz.clone()));
    Config {
        tokens: vec![
            token("ops", ADMIN, true),
            token("all", READ, false),
            TokenConfig { filters: filters.into(), ..token("jazz", JAZZ, false) },
        ],
        ..config(dir)
    }
}

async fn ask(running: &Running, line: &str, token: &str, body: &Value) -> Reply {
    let head = format!("{line} HTTP/1.1\r\nContent-Type: application/json\r\nAuthorization: Bearer {token}");
    send(running.http(), &head, &if body.is_null() { String::new() } else { body.to_string() }).await
}

async fn sql(running: &Running, sql: &str, token: &str) -> Reply {
    ask(running, "POST /v1/sql", token, &json!({ "sql": sql })).await
}

async fn rows(running: &Running, text: &str) -> Value {
    let reply = sql(running, text, ADMIN).await;
    assert_eq!(reply.status, 200, "{text}: {}", reply.body);
    reply.json()["rows"].clone()
}

async fn get(running: &Running, path: &str, token: &str) -> Reply {
    ask(running, &format!("GET {path}"), token, &Value::Null).await
}

async fn collect(running: &Running, topic: &str, values: &[Value]) {
    let records: Vec<Value> = values.iter().map(|value| json!({"key": "a", "value": value})).collect();
    let reply = ask(running, &format!("POST /v1/topics/{topic}/records"), ADMIN, &json!({ "records": records })).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
}

fn listen(genre: &str, ms: i64) -> Value {
    json!({"genre": genre, "ms": ms, "ts": "2026-11-20T12:00:30Z"})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_declared_over_http_is_everywhere_and_closed_to_who_sees_a_part() {
    let dir = tempfile::tempdir().unwrap();
    let running = crate::start(guarded(dir.path())).await.unwrap();
    collect(&running, "listens", &[listen("jazz", 10), listen("pop", 20)]).await;
    let create = "CREATE MATERIALIZED VIEW lengths AS SELECT genre, sum(ms) AS ms FROM listens GROUP BY genre";
    for token in [READ, JAZZ] {
        let reply = sql(&running, create, token).await;
        assert_eq!(reply.status, 403, "{}", reply.body);
        assert_eq!(sql(&running, "DROP STREAM 'x", token).await.status, 403);
    }
    let asked = json!({"sql": create, "read_only": true});
    let reply = ask(&running, "POST /v1/sql", ADMIN, &asked).await;
    assert_eq!((reply.status, &reply.json()["type"]), (409, &json!("urn:millpond:problem:statement-changes")));
    let explain = format!("EXPLAIN {create}");
    assert_eq!(sql(&running, &explain, READ).await.status, 403);
    let asked = json!({"sql": explain, "read_only": true});
    let reply = ask(&running, "POST /v1/sql", ADMIN, &asked).await;
    assert!(reply.status == 200 && reply.body.contains("topic listens as stream listens"), "{}", reply.body);
    let made = rows(&running, create).await;
    assert_eq!(made, json!([["materialized view", "lengths", "created"]]));
    assert_eq!(rows(&running, "SELECT * FROM lengths ORDER BY genre").await, json!([["jazz", "10"], ["pop", "20"]]));
    let view = get(&running, "/v1/views/lengths?genre=pop", READ).await;
    assert_eq!(view.json()["rows"], json!([["pop", "20"]]), "{}", view.body);
    for reply in [sql(&running, "SELECT * FROM lengths", JAZZ).await, get(&running, "/v1/views/lengths", JAZZ).await] {
        assert_eq!(reply.status, 403, "{}", reply.body);
    }
    assert_eq!(get(&running, "/v1/topics/lengths/records", JAZZ).await.status, 403);
    assert_eq!(sql(&running, "DESCRIBE lengths", JAZZ).await.status, 403);
    let shown = rows(&running, "SHOW VIEWS").await;
    assert_eq!(
        shown[0].as_array().unwrap()[..5],
        [json!("plays"), json!("listens"), json!("TUMBLE of 1m"), json!("CHANGES"), json!("live")]
    );
    assert_eq!(shown[1][0], "lengths");
    assert!(!sql(&running, "SHOW VIEWS", JAZZ).await.body.contains("lengths"));
    let described = rows(&running, "DESCRIBE lengths").await.to_string();
    for part in [r#"["column","genre","VARCHAR KEY"]"#, r#"["property","stream","listens"]"#, "SQL at ", create] {
        assert!(described.contains(part), "{part}: {described}");
    }
    let steps = rows(&running, "EXPLAIN MATERIALIZED VIEW lengths").await.to_string();
    assert!(steps.contains("topic listens as stream listens") && steps.contains("genre, ms"), "{steps}");
    let listed = get(&running, "/v1/views", READ).await.json()["views"][1].clone();
    assert_eq!(listed["status"]["state"], "live", "{listed}");
    assert!(listed["declared"].as_str().unwrap().starts_with("SQL at "));
    assert!(get(&running, "/metrics", READ).await.body.contains("view=\"lengths\""));
    assert!(get(&running, "/v1/catalog", READ).await.body.contains(r#"["stream:listens","view:lengths"]"#));
    // In files, or read by what is in files.
    let refused = sql(&running, "DROP MATERIALIZED VIEW plays;\nDROP STREAM listens", ADMIN).await;
    assert_eq!(refused.status, 400);
    let mistakes = refused.json()["mistakes"].clone();
    assert_eq!((&mistakes[0]["line"], &mistakes[0]["column"]), (&json!(1), &json!(24)), "{mistakes}");
    assert!(mistakes[0]["message"].as_str().unwrap().contains("declared in tests.rs"), "{mistakes}");
    assert_eq!(mistakes[1]["line"], 2);
    assert_eq!(rows(&running, "DROP MATERIALIZED VIEW lengths").await[0][2], "dropped");
    assert_eq!(get(&running, "/v1/views/lengths", READ).await.status, 404);
    assert_eq!(sql(&running, "SELECT * FROM lengths", READ).await.status, 400);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_declared_over_http_settles_and_is_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let running = crate::start(guarded(dir.path())).await.unwrap();
    let script = "CREATE STREAM clicks (page VARCHAR NOT NULL, ts TIMESTAMP) WITH (event_time = 'ts');
        CREATE TABLE pages (page VARCHAR PRIMARY KEY, title VARCHAR);
        CREATE MATERIALIZED VIEW by_page AS SELECT page, count(*) AS n FROM clicks GROUP BY page";
    assert_eq!(rows(&running, script).await[2], json!(["materialized view", "by_page", "created"]));
    let click = |page: &str| json!({"page": page, "ts": "2026-11-20T12:00:30Z"});
    collect(&running, "clicks", &[click("a"), click("b"), click("a")]).await;
    collect(&running, "pages", &[json!({"page": "a", "title": "First"})]).await;
    assert_eq!(rows(&running, "SELECT count(*) FROM clicks").await, json!([[3]]));
    assert_eq!(rows(&running, "SELECT title FROM pages").await, json!([["First"]]));
    assert_eq!(rows(&running, "SELECT * FROM by_page ORDER BY page").await, json!([["a", 2], ["b", 1]]));
    let flushed = ask(&running, "POST /v1/lake/clicks/flush", ADMIN, &Value::Null).await;
    assert_eq!(flushed.json()["rows"], 3, "{}", flushed.body);
    assert_eq!(rows(&running, "SELECT count(*) FROM clicks").await, json!([[3]]));
    running.stop().await;

    let running = crate::start(guarded(dir.path())).await.unwrap();
    collect(&running, "clicks", &[click("b")]).await;
    assert_eq!(rows(&running, "SELECT * FROM by_page ORDER BY page").await, json!([["a", 2], ["b", 2]]));
    let log = running.broker().catalog().topic("clicks").unwrap().partition(0).unwrap().id();
    assert!(running.broker().holds().floor(log).is_some());
    let drop = "DROP MATERIALIZED VIEW by_page; DROP STREAM clicks; DROP TABLE pages";
    assert_eq!(rows(&running, drop).await[1], json!(["stream", "clicks", "dropped"]));
    assert_eq!(sql(&running, "SELECT count(*) FROM clicks", ADMIN).await.status, 400);
    let since = Instant::now();
    while running.broker().holds().floor(log).is_some() {
        assert!(since.elapsed() < Duration::from_secs(10), "a dropped stream holds the log");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // The files and the log are its user's: both are there again.
    rows(&running, script).await;
    assert_eq!(rows(&running, "SELECT count(*) FROM clicks").await, json!([[4]]));
    assert_eq!(rows(&running, "SELECT * FROM by_page ORDER BY page").await, json!([["a", 2], ["b", 2]]));
    running.stop().await;
}
