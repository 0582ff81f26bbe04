//! The lake on a real HDFS with replication 2: every record once across kills of the server, while files are merged, of a data
//! node and of the name node; Spark reads what SQL reads; tables that SQL writes, and the DDL that is printed. Beside it consumers of
//! what the log let go, and Iceberg tables by Spark.

use crate::oracle::{everything, listeners, merging, music, oracle, report, settle};
use crate::support::hdfs::Hdfs;
use crate::support::process::Process;
use crate::support::scripts::{json_of, spark};
use crate::support::server::{Options, Server, millpond};
use crate::support::{Scratch, beside_others, eventually, seed};
use crate::{cold, iceberg};
use serde_json::{Value, json};
use std::thread;
use std::time::Duration;

/// A stream with odd values in its slices, and tables over it and over the music system's stream.
const MORE: &str = r#"
[[topics]]
name = "odd"

[[streams]]
name = "odd"
topic = "odd"
event_time = "ts"
columns = [
    { name = "ts", type = "TIMESTAMP", required = true },
    { name = "label", type = "VARCHAR" },
    { name = "n", type = "BIGINT", required = true },
]

[[lake.tables]]
topic = "odd"
zone = "raw"
slice = ["year/month/day", "label"]
flush_age = "1h"

[[transforms]]
name = "plays_by_day"
mode = "replace_slices"
slice = ["date"]
sort = ["artist"]
sql = """
SELECT CAST(ts AS DATE) AS date, artist, genre, count(*) AS plays, count(DISTINCT user_id) AS listeners
FROM listens WHERE event = 'listen' GROUP BY CAST(ts AS DATE), artist, genre
"""

[[transforms]]
name = "odd_copy"
slice = ["label"]
sql = "SELECT label, n, ts FROM odd"
"#;

fn labels() -> Vec<Value> {
    vec![json!("a/b"), json!("c=d"), json!(null), json!(""), json!("日本 é"), json!("50%: \"x\""), json!("..")]
}

#[test]
fn every_record_settles_on_hdfs_once_and_spark_reads_it() {
    let _beside = beside_others();
    let scratch = Scratch::new("lake-hdfs");
    let mut hdfs = Hdfs::start(&scratch);
    let system = music(&scratch);
    let more = scratch.write("more.toml", MORE);
    let args = vec!["--lake".to_owned(), hdfs.url("lake")];
    let mut server =
        Server::start_with(&scratch, Options { configs: vec![system.clone(), more], args, ..Options::default() });
    listeners(&server);
    let mut simulator = simulate(&scratch, &server);
    for kill in 0..5 {
        let merges = merging(&server, "listens");
        thread::sleep(Duration::from_millis(2_500));
        match kill {
            1 => hdfs.kill_data_node(0),
            3 => hdfs.start_data_node(0),
            _ => {}
        }
        server.kill9();
        merges.join().unwrap();
        server.start_again();
        assert!(simulator.exited().is_none(), "the simulator gave up after kill {kill}:\n{}", simulator.tail());
    }
    hdfs.wait_for_data_nodes(2);
    settles_again_after_the_name_node_was_away(&mut hdfs, &server);
    simulator.signal(libc::SIGTERM);
    simulator.wait(Duration::from_secs(120));

    report("oracle", oracle(&server, &system).arg("--sent").arg(scratch.path("sent.jsonl")));
    settle(&server, "listens");
    let rows =
        server.http.sql("SELECT _partition, count(*), count(DISTINCT _offset) FROM listens GROUP BY 1 ORDER BY 1");
    assert!(rows.len() == 6 && rows.iter().all(|row| row[1] == row[2]), "{rows:?}");
    let sent = scratch.path("sent.jsonl");
    let found = report("oracle, settled", everything(&scratch, &server, &system).arg("--sent").arg(sent));
    assert!(found["panels"].as_u64().unwrap() >= 29 && found["panels"] == found["shown"], "{found}");
    let files = hdfs.files("lake/listens");
    assert!(files.len() > 10 && files.iter().all(|(_, replication)| *replication == 2), "{files:?}");
    let slices = server.http.sql("SELECT count(*) FROM (SELECT DISTINCT _partition, date, genre FROM listens)");
    assert_eq!(slices[0][0], files.len(), "one file per partition and slice");
    hdfs.wait_for_two_copies("lake/listens");

    let same = "SELECT _partition, count(*) AS n, count(DISTINCT _offset) AS offsets, sum(user_id) AS users, \
                count(DISTINCT genre) AS genres FROM {} GROUP BY _partition ORDER BY _partition";
    let by_spark = read(&hdfs.url("lake/listens"), &same.replace("{}", "found"), None);
    assert_eq!(by_spark["rows"], Value::from(as_rows(server.http.sql(&same.replace("{}", "listens")))));
    odd_values_are_the_same_everywhere(&hdfs, &server);
    tables_of_sql_are_read_by_their_ddl(&scratch, &hdfs, &server);
    assert!(server.stop().success());
    // an attempt that the name node's end cut off leaves a hidden file, which goes at the next start
    server.start_again();
    assert!(server.stop().success());
    let hidden = hdfs.shell(&["-ls", "-R", "-C", "/lake"]);
    assert!(!hidden.lines().any(|line| line.ends_with(".tmp")), "{hidden}");
}

fn simulate(scratch: &Scratch, server: &Server) -> Process {
    let mut command = millpond();
    command.args([
        "simulate",
        "music:simulator",
        "--bootstrap",
        &server.kafka,
        "--rate",
        "800",
        "--dirty",
        "0.02",
        "--late",
        "0.02",
    ]);
    command.args(["--property", "message.timeout.ms=600000", "--property", "reconnect.backoff.max.ms=200"]);
    command.arg("--record").arg(scratch.path("sent.jsonl"));
    Process::start(command, &scratch.path("simulate"))
}

/// How `listens` settles.
fn listens(server: &Server) -> Value {
    let lake = server.http.get("/v1/lake");
    lake["tables"].as_array().unwrap().iter().find(|table| table["topic"] == "listens").unwrap().clone()
}

fn settles_again_after_the_name_node_was_away(hdfs: &mut Hdfs, server: &Server) {
    eventually("the lake settles", Duration::from_secs(90), || {
        let table = listens(server);
        if table["error"].is_null() && table["files"].as_u64() > Some(0) { Ok(()) } else { Err(table.to_string()) }
    });
    hdfs.kill_name_node();
    // a portion under way waits a minute for the data nodes before it gives up
    let error = eventually("the status says that HDFS is away", Duration::from_secs(150), || {
        listens(server)["error"].as_str().map(str::to_owned).ok_or_else(|| "no error".to_owned())
    });
    assert!(error.contains("hdfs://") && error.contains("tried again"), "{error}");
    // the live part still answers what is in the log
    let before = listens(server)["rows"].as_u64().unwrap();
    hdfs.start_name_node();
    eventually("the lake settles again", Duration::from_secs(300), || {
        let table = listens(server);
        let more = table["rows"].as_u64().unwrap() > before;
        if table["error"].is_null() && more { Ok(()) } else { Err(table.to_string()) }
    });
}

fn odd_values_are_the_same_everywhere(hdfs: &Hdfs, server: &Server) {
    let labels = labels();
    let records: Vec<Value> = (0..70)
        .map(|n| json!({"value": {"ts": "2026-11-20T10:00:00Z", "label": labels[n % labels.len()], "n": n}}))
        .collect();
    server.http.post("/v1/topics/odd/records", &json!({ "records": records }));
    server.http.post("/v1/lake/odd/flush", &Value::Null);
    server.http.post("/v1/transforms/odd_copy/run", &json!({}));
    let sql = "SELECT label, count(*) AS rows, sum(n) AS n FROM {} GROUP BY label ORDER BY n";
    let settled = server.http.sql(&sql.replace("{}", "odd"));
    assert_eq!(settled.len(), labels.len());
    assert_eq!(as_rows(server.http.sql(&sql.replace("{}", "odd_copy"))), as_rows(settled.clone()));
    let found: Vec<Value> = settled.iter().map(|row| row[0].clone()).collect();
    assert_eq!(found, labels);
    // Hive and Spark have no name for the empty text: it is null there
    let hive = "SELECT nullif(label, '') AS name, count(*) AS rows, CAST(sum(n) AS BIGINT) AS total FROM {} GROUP BY \
                nullif(label, '') ORDER BY total";
    let want = as_rows(server.http.sql(&hive.replace("{}", "odd")));
    for dir in ["lake/raw/odd", "lake/processed/odd_copy"] {
        let by_spark = read(&hdfs.url(dir), &hive.replace("{}", "found"), None);
        assert_eq!(by_spark["rows"], Value::from(want.clone()), "{dir}");
    }
    let slice = "/lake/raw/odd/year=2026/month=11/day=20/label=a%2Fb/odd-0-0-69.parquet";
    assert!(hdfs.files("lake/raw/odd").iter().any(|(path, _)| path == slice), "{slice}");
}

fn tables_of_sql_are_read_by_their_ddl(scratch: &Scratch, hdfs: &Hdfs, server: &Server) {
    let ran = server.http.post("/v1/transforms/plays_by_day/run", &json!({}));
    assert!(ran["rows"].as_u64().unwrap() > 0, "{ran}");
    let sum = "SELECT count(*) AS rows, CAST(sum(plays) AS BIGINT) AS plays, CAST(sum(listeners) AS BIGINT) AS listeners \
               FROM plays_by_day";
    let want = as_rows(server.http.sql(sum));
    let plays = server.http.sql("SELECT count(*) FROM listens WHERE event = 'listen'");
    assert_eq!(want[0][1], plays[0][0]);
    let again = server.http.post("/v1/transforms/plays_by_day/run", &json!({}));
    assert_eq!((&again["rows"], &again["bytes"]), (&ran["rows"], &ran["bytes"]));
    let mut print = millpond();
    let ddl = crate::support::kafka::run(print.args(["ddl", "spark", "--http", server.http.address()]));
    assert!(ddl.contains("RECOVER PARTITIONS") && ddl.contains(&hdfs.url("lake/processed/plays_by_day")), "{ddl}");
    let ddl = scratch.write("ddl.sql", &ddl);
    let by_spark = read(&hdfs.url("lake/processed/plays_by_day"), sum, Some(&ddl));
    assert_eq!(by_spark["rows"], Value::from(want));
    assert_eq!(by_spark["slices"].as_array().unwrap().last().unwrap(), "date");
    let count = "SELECT count(*) FROM listens";
    let counted = read(&hdfs.url("lake/listens"), count, Some(&ddl));
    assert_eq!(counted["rows"], Value::from(as_rows(server.http.sql(count))));
}

/// Another lake there, of this configuration.
fn beside(scratch: &Scratch, hdfs: &Hdfs, (dir, system): (&str, &str)) -> Server {
    let configs = vec![scratch.write("system.toml", system)];
    let args = vec!["--lake".to_owned(), hdfs.url(dir)];
    Server::start_with(scratch, Options { configs, args, ..Options::default() })
}

#[test]
fn consumers_and_readers_of_snapshots_read_from_hdfs() {
    let _beside = beside_others();
    let scratch = Scratch::new("readers-hdfs");
    let mut hdfs = Hdfs::start(&scratch);
    consumers_read_where_the_log_let_go(&mut hdfs);
    spark_reads_iceberg_tables(&mut hdfs);
}

fn consumers_read_where_the_log_let_go(hdfs: &mut Hdfs) {
    let scratch = Scratch::new("cold-hdfs");
    let mut server = beside(&scratch, hdfs, ("cold", &cold::merging()));
    let committed = cold::fill(&server, seed("cold-hdfs"));
    cold::let_go(&server);
    cold::reads_back(&server, &committed);
    hdfs.kill_name_node();
    let waiting = cold::waiting(&server);
    hdfs.start_name_node();
    assert!(cold::to_end(&waiting) == committed, "after HDFS came back");
    server.kill9();
    let files = hdfs.files("cold/_raw/orders");
    assert!(!files.is_empty() && files.iter().all(|(_, replication)| *replication == 2), "{files:?}");
    hdfs.kill_data_node(1);
    server.start_again();
    assert!(cold::read_all(&server) == committed, "from one data node");
    // until then the name node names it to writers
    hdfs.wait_for_data_nodes(1);
    hdfs.start_data_node(1);
    hdfs.wait_for_data_nodes(2);
    assert!(server.stop().success());
}

/// Through the catalog and by the files alone: the rows that SQL reads, and those of the snapshot since the last merge.
fn spark_reads_iceberg_tables(hdfs: &mut Hdfs) {
    let scratch = Scratch::new("iceberg-hdfs");
    let mut server = beside(&scratch, hdfs, ("tables", iceberg::SYSTEM));
    iceberg::settle(&server, 0..40);
    iceberg::settle(&server, 40..60);
    let merged = server.http.post("/v1/lake/orders/merge", &Value::Null);
    assert!(merged["merges"].as_u64().unwrap() >= 4, "{merged}");
    iceberg::settle(&server, 60..70);
    let table = server.http.get("/iceberg/v1/namespaces/lake/tables/orders");
    let snapshots = table["metadata"]["snapshots"].as_array().unwrap();
    let of =
        |snapshot: &Value| (snapshot["summary"]["operation"].clone(), snapshot["summary"]["total-records"].clone());
    // without second names of files time travel ends at the merge
    let older = snapshots.iter().find(|snapshot| of(snapshot) == (json!("replace"), json!("60")));
    let older = older.unwrap_or_else(|| panic!("{snapshots:?}"))["snapshot-id"].as_i64().unwrap();
    assert!(!snapshots.iter().any(|snapshot| of(snapshot) == (json!("append"), json!("60"))), "{snapshots:?}");
    iceberg::spark_reads_it(&server, &hdfs.url("tables/_iceberg"), (older, [60, 17_700]), 2);
    a_data_node_that_hangs_is_told_and_left_out(hdfs, &server);
    assert!(server.stop().success());
}

/// Its connections stay open, so only our own time limits end the wait, and they do before a request's time is over.
fn a_data_node_that_hangs_is_told_and_left_out(hdfs: &mut Hdfs, server: &Server) {
    hdfs.pause_data_node(0);
    iceberg::post(server, 70..75);
    let (status, said) = server.http.try_post("/v1/lake/orders/flush", &Value::Null).unwrap();
    assert!(status == 200 || said.contains("no answer within") && said.contains("tried again"), "{status} {said}");
    eventually("one data node takes the files", Duration::from_secs(120), || {
        match server.http.try_post("/v1/lake/orders/flush", &Value::Null).unwrap() {
            (200, _) => Ok(()),
            (status, said) => Err(format!("{status} {said}")),
        }
    });
    hdfs.resume_data_node(0);
    assert_eq!(server.http.sql("SELECT count(*) FROM orders"), [[Value::from(75)]]);
}

fn read(directory: &str, sql: &str, ddl: Option<&std::path::Path>) -> Value {
    let mut command = spark("clients/spark_lake.py");
    command.arg(directory).arg(sql);
    if let Some(ddl) = ddl {
        command.arg(ddl);
    }
    json_of(&mut command)
}

fn as_rows(rows: Vec<Vec<Value>>) -> Vec<Value> {
    rows.into_iter().map(Value::from).collect()
}
