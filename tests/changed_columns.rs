//! A team adds a column to a view in its file and starts again, when what the view counts has left the log and the lake is away for
//! a while: the former version is served with its columns, with panels, alerts and sinks that fit it, through kill -9; those that need the new
//! column wait and say so. Then the new version takes over, and all of them go by it without another start.

use crate::support::http::rows;
use crate::support::postgres::Postgres;
use crate::support::reader::committed;
use crate::support::server::{Options, Server};
use crate::support::{Scratch, beside_others, eventually};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

const ITEMS: u64 = 7;
const SETTLED: u64 = 5_000;
const BATCH: u64 = 500;
const WAIT: Duration = Duration::from_secs(60);

const STREAM: &str = r#"
[[topics]]
name = "raw_sales"
partitions = 1
[[streams]]
name = "sales"
topic = "raw_sales"
event_time = "ts"
columns = [
    { name = "id", type = "BIGINT", required = true },
    { name = "item", type = "VARCHAR", required = true },
    { name = "cents", type = "BIGINT", required = true },
    { name = "ts", type = "TIMESTAMP", required = true },
]
[[lake.tables]]
topic = "raw_sales"
flush_age = "1d"
[[dashboards]]
name = "shop"
title = "Shop"
[[dashboards.panels]]
title = "Sales"
kind = "bar"
view = "by_item"
x = "item"
y = ["n"]
[[alerts]]
name = "sold"
sql = "SELECT item FROM by_item WHERE n > 0"
labels = ["item"]
every = "100ms"
[[sinks]]
name = "counts"
kind = "postgres"
view = "by_item"
create = true
interval = "20ms"
columns = [{ name = "item" }, { name = "n" }]
"#;
const FORMER: &str = r#"
[[views]]
sql = "CREATE MATERIALIZED VIEW by_item AS SELECT item, count(*) AS n FROM sales GROUP BY item"
"#;
const DECLARED: &str = r#"
[[views]]
sql = "CREATE MATERIALIZED VIEW by_item AS SELECT item, max(cents) AS most, count(*) AS n FROM sales GROUP BY item"
[[dashboards.panels]]
title = "Dearest"
kind = "bar"
view = "by_item"
x = "item"
y = ["most"]
[[dashboards.panels]]
title = "Dearest of all"
kind = "number"
sql = "SELECT max(most) AS most FROM by_item"
y = ["most"]
[[alerts]]
name = "dear"
sql = "SELECT item FROM by_item WHERE most > 0"
labels = ["item"]
every = "100ms"
[[sinks]]
name = "dearest"
kind = "postgres"
view = "by_item"
create = true
interval = "20ms"
columns = [{ name = "item" }, { name = "most" }]
"#;
const RECOMPUTED: &str = "SELECT item, max(cents), count(*) FROM sales GROUP BY item ORDER BY item";

#[test]
fn a_view_in_a_file_gets_a_column_while_the_former_version_is_served() {
    let _beside = beside_others();
    let scratch = Scratch::new("changed_columns");
    let postgres = Postgres::start();
    let configs = vec![scratch.write("shop.toml", &format!("{STREAM}{FORMER}"))];
    let args = vec!["--postgres".to_owned(), postgres.url()];
    let mut server = Server::start_with(&scratch, Options { configs, args, ..Options::default() });
    let mut sent = write(&server, 0, SETTLED);
    check_former(&server, &postgres, sent);
    server.http.post("/v1/lake/raw_sales/flush", &Value::Null);
    delete_all(&server);
    assert!(server.stop().success());
    let (lake, away) = (server.lake_dir(), server.data_dir().join("away"));
    std::fs::rename(&lake, &away).unwrap();
    scratch.write("shop.toml", &format!("{STREAM}{DECLARED}"));
    server.start_again();
    for kill in [true, true, false] {
        check_waiting(&server);
        sent = write(&server, sent, BATCH);
        check_former(&server, &postgres, sent);
        if kill {
            server.kill9();
            server.start_again();
        }
    }
    std::fs::rename(&away, &lake).unwrap();
    eventually("the new version takes over", WAIT, || {
        let view = view(&server);
        if view["status"]["successor"].is_null() { Ok(()) } else { Err(view.to_string()) }
    });
    sent = write(&server, sent, BATCH);
    check_declared(&server, &postgres, sent);
    server.kill9();
    server.start_again();
    check_declared(&server, &postgres, sent);
    assert!(server.stop().success());
}

/// The view as the first file has it, and what goes by it.
fn check_former(server: &Server, postgres: &Postgres, sent: u64) {
    let wanted: Vec<Vec<Value>> = (0..ITEMS).map(|item| vec![json!(name(item)), json!(counted(item, sent))]).collect();
    let answer = server.http.get("/v1/views/by_item?wait=30s&order=item");
    assert_eq!((rows(&answer), &answer["stale"]), (wanted.clone(), &json!(false)));
    assert_eq!(server.http.sql("SELECT * FROM by_item ORDER BY item"), wanted);
    let columns = view(server)["columns"].clone();
    assert_eq!(columns.as_array().unwrap().len(), 2, "{columns}");
    let panel = server.http.get("/v1/dashboards/shop/panels/0?wait=30s");
    assert_eq!(by_item(rows(&panel)), by_item(wanted));
    eventually("the alert fires for each item", WAIT, || {
        let alert = named(server, "alerts", "sold");
        let fires = alert["instances"].as_array().unwrap().len() as u64 == ITEMS && alert["state"] == "firing";
        if fires && alert["error"].is_null() { Ok(()) } else { Err(alert.to_string()) }
    });
    let wanted: Vec<String> = (0..ITEMS).map(|item| format!("{}|{}", name(item), counted(item, sent))).collect();
    eventually("the sink has all", WAIT, || {
        let found = postgres.rows(r#"SELECT item, n FROM "counts" ORDER BY item"#);
        if found == wanted { Ok(()) } else { Err(format!("{found:?} {wanted:?}")) }
    });
}

/// What the second file added says how far the filling is.
fn check_waiting(server: &Server) {
    let is_filling = |text: &str| text.contains("view by_item is being filled: ") && text.contains(" offsets left");
    for panel in 1..=2 {
        let (status, problem) = server.http.try_get(&format!("/v1/dashboards/shop/panels/{panel}")).unwrap();
        assert!(status == 503 && is_filling(&problem), "{status} {problem}");
    }
    eventually("alert and sink wait", WAIT, || {
        let found = [named(server, "alerts", "dear"), named(server, "sinks", "dearest")];
        let waits = |found: &Value| is_filling(found["waits_for"].as_str().unwrap_or("")) && found["error"].is_null();
        if found.iter().all(waits) && found[1]["state"] == "waiting" { Ok(()) } else { Err(json!(found).to_string()) }
    });
    let successor = view(server)["status"]["successor"].clone();
    assert!(
        successor["sql"].to_string().contains("most") && successor["left"].as_u64() >= Some(SETTLED),
        "{successor}"
    );
}

/// The view as the second file has it, and all that goes by it.
fn check_declared(server: &Server, postgres: &Postgres, sent: u64) {
    let viewed = || server.http.sql("SELECT item, most, n FROM by_item ORDER BY item");
    assert_eq!(viewed(), server.http.sql(RECOMPUTED));
    let wanted: Vec<Vec<Value>> = (0..ITEMS)
        .map(|item| vec![json!(name(item)), json!(dearest(item, sent)), json!(counted(item, sent))])
        .collect();
    assert_eq!(viewed(), wanted);
    let panel = server.http.get("/v1/dashboards/shop/panels/1?wait=30s");
    assert_eq!(by_item(rows(&panel)), by_item(wanted.iter().map(|row| row[..2].to_vec()).collect()));
    let panel = server.http.get("/v1/dashboards/shop/panels/2?fresh=true");
    assert_eq!(panel["rows"][0][0], json!((0..ITEMS).map(|item| dearest(item, sent)).max()));
    eventually("both alerts fire", WAIT, || {
        let found = [named(server, "alerts", "sold"), named(server, "alerts", "dear")];
        let fires = |found: &Value| found["state"] == "firing" && found["waits_for"].is_null();
        if found.iter().all(fires) { Ok(()) } else { Err(json!(found).to_string()) }
    });
    for (table, column, at) in [("counts", "n", 2), ("dearest", "most", 1)] {
        let wanted: Vec<String> =
            wanted.iter().map(|row| format!("{}|{}", row[0].as_str().unwrap(), row[at])).collect();
        eventually("each sink has all", WAIT, || {
            let found = postgres.rows(&format!(r#"SELECT item, {column} FROM "{table}" ORDER BY item"#));
            if found == wanted { Ok(()) } else { Err(format!("{found:?} {wanted:?}")) }
        });
        assert_eq!(named(server, "sinks", table)["refused"], 0);
    }
    let told: BTreeMap<Vec<u8>, Vec<u8>> = committed(&server.kafka, "by_item").into_iter().collect();
    let told: Vec<Value> = told.values().map(|value| serde_json::from_slice(value).unwrap()).collect();
    let told: Vec<Vec<Value>> =
        told.iter().map(|row| vec![row["item"].clone(), row["most"].clone(), row["n"].clone()]).collect();
    assert_eq!(told, wanted, "what a consumer ends with");
}

fn view(server: &Server) -> Value {
    named(server, "views", "by_item")
}

/// One of a list of the HTTP side, by its name.
fn named(server: &Server, list: &str, name: &str) -> Value {
    let all = server.http.get(&format!("/v1/{list}"));
    let found = all[list].as_array().unwrap().iter().find(|one| one["name"] == name);
    found.unwrap_or_else(|| panic!("no {name}: {all}")).clone()
}

/// Bars come by their length.
fn by_item(rows: Vec<Vec<Value>>) -> BTreeMap<String, Value> {
    rows.into_iter().map(|row| (row[0].to_string(), row[1].clone())).collect()
}

fn name(item: u64) -> String {
    format!("item {item}")
}

fn cents(id: u64) -> u64 {
    id * 31 % 10_007
}

/// Sales of an item among those that were sent.
fn ids(item: u64, sent: u64) -> impl Iterator<Item = u64> {
    (0..sent).filter(move |id| id % ITEMS == item)
}

fn counted(item: u64, sent: u64) -> u64 {
    ids(item, sent).count() as u64
}

fn dearest(item: u64, sent: u64) -> u64 {
    ids(item, sent).map(cents).max().unwrap()
}

/// Writes so many sales; gives how many there are then.
fn write(server: &Server, from: u64, count: u64) -> u64 {
    let sale =
        |id: u64| json!({"id": id, "item": name(id % ITEMS), "cents": cents(id), "ts": 1_795_168_800_000_u64 + id});
    for first in (from..from + count).step_by(BATCH as usize) {
        let records: Vec<Value> = (first..first + BATCH).map(|id| json!({"key": "k", "value": sale(id)})).collect();
        let answer = server.http.post("/v1/topics/raw_sales/records", &json!({ "records": records }));
        assert_eq!(answer["rejected"], 0, "{answer}");
    }
    from + count
}

/// Deletes from the log what has settled.
fn delete_all(server: &Server) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &server.kafka).create().unwrap();
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset("raw_sales", 0, Offset::End).unwrap();
    let deleted = futures::executor::block_on(admin.delete_records(&offsets, &AdminOptions::new())).unwrap();
    assert_eq!(deleted.elements()[0].offset().to_raw(), Some(SETTLED as i64));
}
