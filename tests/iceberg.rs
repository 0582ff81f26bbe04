//! The lake's Iceberg tables by readers that know nothing of Millpond: pyiceberg and Spark, through the REST catalog and by
//! the files alone (on HDFS and in S3 from `lake_hdfs` and `lake_objects`); while files are merged and the server is killed;
//! and what a token is told.

use crate::support::process::Process;
use crate::support::scripts::{json_of, python, spark};
use crate::support::server::Server;
use crate::support::{Scratch, beside_others, cache, eventually};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;

/// A topic that is an Iceberg table, too.
pub const SYSTEM: &str = r#"
topics = [{ name = "orders", partitions = 2 }]
[lake]
iceberg = true
[[streams]]
name = "orders"
topic = "orders"
event_time = "ts"
columns = [
    { name = "ts", type = "TIMESTAMP", required = true },
    { name = "country", type = "VARCHAR" },
    { name = "cents", type = "BIGINT", required = true },
    { name = "weight", type = "DOUBLE" },
    { name = "price", type = "DECIMAL(12,2)" },
    { name = "gift", type = "BOOLEAN" },
    { name = "due", type = "DATE" },
]
[[lake.tables]]
topic = "orders"
slice = ["date", "country"]
flush_age = "1h"
merge_files = 1000
"#;

/// What both sides compute.
const SUMS: &str = r#"{"cents": "sum", "weight": "sum", "price": "sum", "gift": "sum", "due": "max", "ts": "min"}"#;
const SQL: &str =
    "SELECT count(*), sum(cents), sum(weight), sum(price), count(*) FILTER (WHERE gift), max(due), min(ts) FROM orders";

fn order(at: usize) -> Value {
    let country = [json!("FR"), json!("DE"), json!(null), json!("")][at % 4].clone();
    let day = 20 + at % 2;
    json!({"partition": at % 2, "value": {
        "ts": format!("2026-11-{day}T12:00:{:02}.{:03}Z", at % 60, at % 1_000), "country": country, "cents": at * 10,
        "weight": at as f64 / 4.0, "price": format!("{at}.25"), "gift": at.is_multiple_of(3), "due": "2027-01-02",
    }})
}

pub fn post(server: &Server, orders: std::ops::Range<usize>) {
    let records: Vec<Value> = orders.map(order).collect();
    let answer = server.http.post("/v1/topics/orders/records", &json!({"records": records}));
    assert!(answer.to_string().contains("offset"), "{answer}");
}

/// Posts orders and has them settle.
pub fn settle(server: &Server, orders: std::ops::Range<usize>) {
    post(server, orders);
    server.http.post("/v1/lake/orders/flush", &Value::Null);
}

fn table_dir(server: &Server) -> PathBuf {
    server.lake_dir().canonicalize().unwrap().join("_iceberg/lake/orders")
}

fn iceberg(arguments: &[&str]) -> Value {
    json_of(python("clients/iceberg.py").args(arguments))
}

/// What pyiceberg reads through the catalog, and by the files in the table's directory, with these settings of its own.
pub fn read(server: &Server, dir: &str, properties: &Value) -> Value {
    let uri = server.http.url("/iceberg");
    json_of(python("clients/iceberg.py").env("PROPERTIES", properties.to_string()).args(["read", &uri, "", dir, SUMS]))
}

/// The current snapshot has what SQL reads.
pub fn agrees(server: &Server, report: &Value) {
    let sql = server.http.sql(SQL).remove(0);
    let current = &report["current"];
    assert_eq!((current["rows"].clone(), current["cents"].clone()), (sql[0].clone(), sql[1].clone()), "{report}");
    assert_eq!(current["weight"], sql[2]);
    assert_eq!(current["price"].as_str(), Some(sql[3].to_string().trim_matches('"')));
    assert_eq!((current["gift"].clone(), current["due"].clone()), (sql[4].clone(), json!("2027-01-02")));
    assert_eq!(current["ts"], 1_795_176_000_000_i64, "2026-11-20T12:00:00.000Z, {}", sql[6]);
    assert_eq!(&report["static"], current);
    assert_eq!(report["same"], true);
    let types: Vec<String> =
        report["columns"].as_array().unwrap().iter().map(|column| format!("{} {}", column[1], column[2])).collect();
    for want in [r#""ts" "timestamptz""#, r#""price" "decimal(12, 2)""#, r#""due" "date""#, r#""date" "date""#] {
        assert!(types.iter().any(|found| found == want), "{types:?}");
    }
    assert_eq!(report["partitioning"], json!(["date", "country"]));
    let by_country =
        server.http.sql("SELECT country, sum(cents) FROM orders GROUP BY country ORDER BY country NULLS FIRST");
    assert_eq!(report["countries"].as_array().unwrap().len(), by_country.len(), "{report}");
    let count =
        |condition: &str| server.http.sql(&format!("SELECT count(*) FROM orders WHERE {condition}"))[0][0].clone();
    assert_eq!(report["one"], count("country = 'FR' AND cents > 150"));
    assert_eq!(report["day"], count("date = DATE '2026-11-20'"));
    assert_eq!(report["none"], count("country IS NULL"));
    assert_eq!(report["nobody"], 0, "no file is read for values that none has");
}

/// The snapshots are these, by operation and rows, the oldest first.
pub fn has_snapshots(report: &Value, want: &[&str]) {
    let told = |found: &Value| format!("{} {}", found["operation"].as_str().unwrap(), found["rows"]);
    let mut snapshots: Vec<String> = report["snapshots"].as_array().unwrap().iter().map(told).collect();
    // a look in the midst of a flush makes one more
    let is_in_between = |found: &String| {
        let rows = found.split_whitespace().last().unwrap();
        !want.iter().any(|want| want.ends_with(&format!(" {rows}")))
    };
    snapshots.retain(|found| !is_in_between(found));
    snapshots.dedup();
    assert_eq!(snapshots, want, "{report}");
}

#[test]
fn pyiceberg_and_spark_read_what_sql_reads_and_what_it_read_before() {
    let _beside = beside_others();
    let scratch = Scratch::new("iceberg");
    let mut server = Server::with_config(&scratch, SYSTEM);
    settle(&server, 0..40);
    settle(&server, 40..60);
    let merged = server.http.post("/v1/lake/orders/merge", &Value::Null);
    assert!(merged["merges"].as_u64().unwrap() >= 4, "{merged}");
    settle(&server, 60..70);
    let dir = table_dir(&server);
    let report = read(&server, dir.to_str().unwrap(), &json!({}));
    agrees(&server, &report);
    has_snapshots(&report, &["append 40", "append 60", "replace 60", "append 70"]);
    let of = |rows: u64| report["snapshots"].as_array().unwrap().iter().find(|found| found["rows"] == rows).unwrap();
    assert_eq!((of(40)["cents"].as_i64(), of(60)["cents"].as_i64()), (Some(7_800), Some(17_700)));

    for path in ["/iceberg/v1/namespaces/lake/tables", "/iceberg/v1/transactions/commit"] {
        let (status, text) = server.http.try_post(path, &json!({})).unwrap();
        let error: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (status, error["error"]["type"].as_str()),
            (406, Some("UnsupportedOperationException")),
            "{path}: {text}"
        );
        assert!(error["error"]["message"].as_str().unwrap().contains("read only"), "{text}");
    }
    let warehouse = format!("file://{}", dir.parent().unwrap().parent().unwrap().display());
    spark_reads_it(&server, &warehouse, (of(40)["id"].as_i64().unwrap(), [40, 7_800]), 4);
    assert!(server.stop().success());
}

/// Spark reads what SQL reads, through the catalog and by the files alone; of an older snapshot rows and cents; so many snapshots at
/// least.
pub fn spark_reads_it(server: &Server, warehouse: &str, (older, had): (i64, [i64; 2]), snapshots: usize) {
    let jars = cache().join("iceberg/jars");
    let jar = std::fs::read_dir(&jars).unwrap().next().unwrap().unwrap().path();
    let catalogs = json!({
        "files": {"type": "hadoop", "warehouse": warehouse},
        "rest": {"type": "rest", "uri": server.http.url("/iceberg")},
    });
    let ask = |table: &str| {
        format!(
            "SELECT count(*), sum(cents), sum(weight), CAST(sum(price) AS STRING), count_if(gift), max(due), min(ts) FROM {table}"
        )
    };
    let by_country = "SELECT country, date, sum(cents) FROM rest.lake.orders GROUP BY 1, 2 ORDER BY 1 NULLS FIRST, 2";
    let counts =
        "SELECT s.operation, s.summary['total-records'] FROM rest.lake.orders.snapshots s ORDER BY committed_at";
    let older = format!("SELECT count(*), sum(cents) FROM files.lake.orders VERSION AS OF {older}");
    let mut command = spark("clients/spark_iceberg.py");
    command.args([jar.to_str().unwrap(), &catalogs.to_string(), &ask("files.lake.orders"), &ask("rest.lake.orders")]);
    let answers = json_of(command.args([by_country, counts, &older, "SHOW TABLES IN rest.lake"]));
    assert_eq!(answers[0], answers[1]);
    let sql = server.http.sql(SQL).remove(0);
    assert_eq!(answers[0][0].as_array().unwrap()[..3], sql[..3], "{answers}");
    assert_eq!(answers[0][0][3].as_str(), Some(sql[3].to_string().trim_matches('"')));
    assert_eq!((answers[0][0][4].clone(), answers[0][0][5].clone()), (sql[4].clone(), json!("2027-01-02")));
    let sql = "SELECT country, CAST(date AS VARCHAR), sum(cents) FROM orders GROUP BY 1, 2 ORDER BY 1 NULLS FIRST, 2";
    let sql: Vec<Value> = server.http.sql(sql).into_iter().map(Value::from).collect();
    assert_eq!(answers[2], Value::from(sql));
    assert!(answers[3].as_array().unwrap().len() >= snapshots, "{answers}");
    assert_eq!(answers[4], json!([had]), "{answers}");
    assert_eq!(answers[5][0][1], "orders", "{answers}");
}

#[test]
fn a_reader_of_snapshots_sees_no_step_back_through_merges_and_kills() {
    let _beside = beside_others();
    let scratch = Scratch::new("iceberg-kills");
    let mut server = Server::with_config(&scratch, SYSTEM);
    settle(&server, 0..8);
    let (dir, stop) = (table_dir(&server), scratch.path("stop"));
    let mut command = python("clients/iceberg.py");
    command.args(["watch", dir.to_str().unwrap(), "_offset", stop.to_str().unwrap()]);
    let mut reader = Process::start(command, &scratch.path("reader"));
    let mut sent = 8;
    for kill in 0..4 {
        for _ in 0..2 {
            for _ in 0..3 {
                settle(&server, sent..sent + 4);
                sent += 4;
            }
            // the second one from here begins here
            let reads = reader.stdout().lines().count();
            eventually("the reader reads on", Duration::from_secs(60), || match reader.stdout().lines().count() {
                now if now >= reads + 2 => Ok(()),
                now => Err(format!("{now} reads, {reads} before\n{}", reader.tail())),
            });
        }
        let http = server.http.clone();
        let merges = std::thread::spawn(move || {
            // the server ends in the midst of it
            let _ = http.try_post("/v1/lake/orders/merge", &Value::Null);
        });
        std::thread::sleep(Duration::from_millis(20 + 60 * kill));
        server.kill9();
        merges.join().unwrap();
        server.start_again();
        if let Some(status) = reader.exited() {
            panic!("the reader ended: {status}\n{}", reader.tail());
        }
    }
    eventually("the reader sees all", Duration::from_secs(30), || {
        let tables = server.http.get("/v1/lake")["iceberg"].clone();
        let good = tables[0]["error"].is_null() && tables[0]["snapshots"].as_u64() > Some(1);
        if good { Ok(()) } else { Err(tables.to_string()) }
    });
    server.http.post("/v1/lake/orders/flush", &Value::Null);
    std::thread::sleep(Duration::from_millis(500));
    std::fs::write(&stop, b"").unwrap();
    assert!(reader.wait(Duration::from_secs(60)).success(), "{}", reader.tail());
    let seen: Value = serde_json::from_str(reader.stdout().lines().last().unwrap()).unwrap();
    assert_eq!((seen["rows"].as_u64(), seen["snapshots"].as_u64() > Some(5)), (Some(sent as u64), true), "{seen}");
    assert!(server.stop().success());
}

#[test]
fn the_catalog_is_read_only_and_tells_a_token_what_it_may_see_whole() {
    let scratch = Scratch::new("iceberg-tokens");
    let tokens = r#"
[[tokens]]
name = "everything"
token = "token-that-sees-everything"
scopes = ["read", "write", "admin"]
[[tokens]]
name = "part"
token = "token-that-sees-a-part"
filters = [{ table = "orders", where = "country = 'FR'" }]
[[tokens]]
name = "other"
token = "token-that-sees-another"
data = ["payments"]
"#;
    let mut server = Server::with_config(&scratch, &format!("{SYSTEM}{tokens}"));
    let post = |path: &str, body: &Value| {
        let request = ureq::post(server.http.url(path)).header("authorization", "Bearer token-that-sees-everything");
        assert!(request.send_json(body).is_ok());
    };
    post("/v1/topics/orders/records", &json!({"records": [order(1), order(2)]}));
    post("/v1/lake/orders/flush", &Value::Null);
    let uri = server.http.url("/iceberg");
    let all = iceberg(&["calls", &uri, "token-that-sees-everything"]);
    assert_eq!(
        (all["namespaces"].clone(), all["tables"].clone()),
        (json!([["lake"]]), json!([["lake", "orders"]])),
        "{all}"
    );
    assert_eq!(
        (all["there"].clone(), all["not_there"].clone(), all["load"].clone()),
        (json!(true), json!(false), json!(["lake", "orders"]))
    );
    let said = |call: &str, word: &str| assert!(all[call].as_str().unwrap().contains(word), "{call}: {}", all[call]);
    said("no_table", "NoSuchTable");
    said("no_namespace", "NoSuchNamespace");
    for write in ["drop", "create"] {
        said(write, "does not support endpoint");
    }
    let part = iceberg(&["calls", &uri, "token-that-sees-a-part"]);
    assert_eq!((part["namespaces"].clone(), part["tables"].clone()), (json!([["lake"]]), json!([])));
    assert!(part["load"].as_str().unwrap().contains("sees a part of orders"), "{part}");
    let other = iceberg(&["calls", &uri, "token-that-sees-another"]);
    assert_eq!(other["tables"], json!([]));
    assert!(other["load"].as_str().unwrap().starts_with("Forbidden"), "{other}");
    let nobody = iceberg(&["calls", &uri, ""]);
    assert!(nobody["client"].as_str().unwrap().contains("Unauthorized"), "{nobody}");
    assert!(server.stop().success());
}
