//! Tokens as people and programs use them: the page in a real browser asks once and works, confluent-kafka's registry client
//! logs in, commands take a token; without one, nothing is said.

use crate::support::Scratch;
use crate::support::kafka::run;
use crate::support::scripts::{json_of, node, python};
use crate::support::server::{Server, millpond};
use serde_json::json;

const ADMIN: &str = "admin-secret-of-the-test";
const ANALYST: &str = "analyst-secret-of-the-test";

fn system(scratch: &Scratch) -> String {
    let secret = scratch.write("admin-token", &format!("{ADMIN}\n"));
    format!(
        r#"
topics = [{{ name = "orders", partitions = 1 }}]
[[streams]]
name = "orders"
topic = "orders"
event_time = "ts"
columns = [
    {{ name = "country", type = "VARCHAR", required = true }},
    {{ name = "email", type = "VARCHAR" }},
    {{ name = "cents", type = "BIGINT", required = true }},
    {{ name = "ts", type = "TIMESTAMP", required = true }},
]
[[views]]
sql = "CREATE MATERIALIZED VIEW by_country AS SELECT country, count(*) AS orders, sum(cents) AS cents FROM orders GROUP BY country"
[[dashboards]]
name = "orders"
title = "Orders"
refresh = "1s"
[[dashboards.panels]]
title = "Orders by country"
kind = "table"
view = "by_country"
[[tokens]]
name = "admin"
token = "${{file:{}}}"
scopes = ["admin"]
[[tokens]]
name = "analyst"
token = "{ANALYST}"
filters = [
    {{ table = "orders", where = "country = 'FR'", masked = ["email"] }},
    {{ table = "by_country", where = "country = 'FR'" }},
]
"#,
        secret.display()
    )
}

fn start(scratch: &Scratch) -> Server {
    let server = Server::with_config(scratch, &system(scratch));
    let order = |country: &str, cents: i64| json!({"value": {"country": country, "email": "somebody@example.org", "cents": cents, "ts": "2026-11-20T12:00:00Z"}});
    let records = json!({"records": [order("FR", 100), order("DE", 7_777), order("FR", 300)]});
    let post = millpond_http(&server, "/v1/topics/orders/records", ADMIN);
    assert!(post.send_json(&records).is_ok());
    server
}

fn millpond_http(server: &Server, path: &str, token: &str) -> ureq::RequestBuilder<ureq::typestate::WithBody> {
    ureq::post(server.http.url(path)).header("authorization", format!("Bearer {token}"))
}

#[test]
fn the_page_asks_once_for_a_token_and_shows_what_it_may() {
    let scratch = Scratch::new("access-page");
    let mut server = start(&scratch);
    let downloads = scratch.path("downloads");
    std::fs::create_dir_all(&downloads).unwrap();
    let mut page = node("clients/access.js");
    page.args([&server.http.url(""), ANALYST]).arg(&downloads).arg(scratch.path("access.png"));
    let report = json_of(&mut page);
    assert_eq!(report["mistakes"], json!([]), "{report:#}");
    for (name, text) in report["seen"].as_object().unwrap() {
        let text = text.as_str().unwrap();
        assert!(text.contains("FR"), "{name} shows what the token may see: {text}");
        for hidden in ["DE", "7777", "7,777", "example.org"] {
            assert!(!text.contains(hidden), "{name} shows {hidden}: {text}");
        }
    }
    assert_eq!(report["seen"].as_object().unwrap().len(), 5, "{report:#}");
    assert!(server.stop().success());
}

#[test]
fn commands_and_registry_clients_log_in() {
    let scratch = Scratch::new("access-commands");
    let mut server = start(&scratch);
    let sql = |token: Option<&str>| {
        let mut command = millpond();
        command.args(["sql", "SELECT sum(cents) AS cents FROM orders", "--output", "ndjson"]);
        command.args(["--http", server.http.address()]);
        token.iter().for_each(|token| {
            command.env("MILLPOND_TOKEN", token);
        });
        command.output().unwrap()
    };
    let refused = sql(None);
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("Authorization: Bearer"), "{refused:?}");
    let said = |token| String::from_utf8(sql(Some(token)).stdout).unwrap();
    assert!(said(ADMIN).contains("8177"), "{}", said(ADMIN));
    assert!(said(ANALYST).contains("400"), "{}", said(ANALYST));
    let mut topics = millpond();
    topics.args(["topics", "list", "--http", server.http.address(), "--token", ANALYST]);
    assert!(run(&mut topics).contains("orders"));

    let registry = server.http.url("/registry");
    let login = |pair: &str| json_of(python("clients/registry.py").args(["login", "-", &registry, pair]));
    assert_eq!(login(&format!("admin:{ADMIN}")), json!({"subjects": ["orders-value"], "registered": 200}));
    assert_eq!(login(&format!("analyst:{ANALYST}")), json!({"subjects": ["orders-value"], "registered": 403}));
    assert_eq!(login("admin:wrong"), json!({"subjects": 401, "registered": 401}));
    assert!(server.stop().success());
}
