//! A lake on a real HDFS that takes nobody without Kerberos, and encrypts: by a keytab through kills and through tickets that end,
//! by a ticket that somebody else gets, and what is told without either.

use crate::support::hdfs::Hdfs;
use crate::support::kerberos::PRINCIPAL;
use crate::support::server::{Options, Server, millpond};
use crate::support::{Scratch, beside_others, eventually};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

/// How long Millpond's tickets last.
const TICKETS_LAST: Duration = Duration::from_secs(5);
const HOUR: Duration = Duration::from_secs(3600);
const SYSTEM: &str = r#"
topics = [{ name = "orders", partitions = 1 }]
[[streams]]
name = "orders"
topic = "orders"
event_time = "ts"
columns = [{ name = "id", type = "BIGINT", required = true }, { name = "ts", type = "TIMESTAMP", required = true }]
[[lake.tables]]
topic = "orders"
flush_age = "1h"
raw = true
"#;

#[test]
fn a_lake_lives_on_an_hdfs_that_wants_kerberos() {
    let _beside = beside_others();
    let scratch = Scratch::new("kerberos");
    let mut hdfs = Hdfs::secure(&scratch);
    hdfs.shell(&["-chmod", "777", "/"]);
    goes_on_by_its_keytab(&mut hdfs);
    goes_on_by_a_ticket_that_comes(&hdfs);
    is_told_that_kerberos_is_wanted(&hdfs);
}

/// A server with a lake in this directory, with these settings and variables.
fn start(
    scratch: &Scratch,
    (hdfs, dir): (&Hdfs, &str),
    (settings, env): (String, Vec<(&'static str, String)>),
) -> Server {
    let lake = format!("[lake]\nurl = {:?}\n{settings}\n", hdfs.url(dir));
    let configs = vec![scratch.write("system.toml", SYSTEM), scratch.write("lake.toml", &lake)];
    Server::start_with(scratch, Options { configs, env, ..Options::default() })
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn write(server: &Server, ids: std::ops::Range<i64>) {
    let records: Vec<Value> =
        ids.clone().map(|id| json!({"value": {"id": id, "ts": "2026-11-20T12:00:00Z"}})).collect();
    let answer = server.http.post("/v1/topics/orders/records", &json!({ "records": records }));
    assert_eq!(answer["accepted"], ids.end - ids.start, "{answer}");
}

/// What settling says: nothing when it has settled.
fn refusal(server: &Server) -> Option<String> {
    let (status, said) = server.http.try_post("/v1/lake/orders/flush", &Value::Null).unwrap();
    (status != 200).then_some(said)
}

fn settles(server: &Server, rows: i64) {
    eventually("the lake settles", Duration::from_secs(60), || refusal(server).map_or(Ok(()), Err));
    assert_eq!(table(server)["rows"], rows);
    assert_eq!(server.http.sql("SELECT count(*), sum(id) FROM orders")[0], [json!(rows), json!(rows * (rows - 1) / 2)]);
}

fn table(server: &Server) -> Value {
    server.http.get("/v1/lake")["tables"]
        .as_array()
        .unwrap()
        .iter()
        .find(|table| table["topic"] == "orders")
        .unwrap()
        .clone()
}

/// Its tickets end while nobody needs one, and HDFS takes no connection without a new one.
fn goes_on_by_its_keytab(hdfs: &mut Hdfs) {
    let scratch = Scratch::new("kerberos-keytab");
    let keytab = scratch.path("millpond.keytab");
    fs::copy(hdfs.realm().keytab(), &keytab).unwrap();
    let settings = format!(
        "hdfs_conf_dir = {:?}\nhdfs_principal = {PRINCIPAL:?}\nhdfs_keytab = {:?}",
        shown(&hdfs.conf_dir()),
        shown(&keytab)
    );
    let env = vec![("KRB5_CONFIG", shown(&hdfs.realm().conf(TICKETS_LAST)))];
    let mut server = start(&scratch, (hdfs, "keytab"), (settings, env));
    for step in 0..3 {
        write(&server, step * 20..step * 20 + 20);
        settles(&server, step * 20 + 20);
    }
    let merged = server.http.post("/v1/lake/orders/merge", &Value::Null);
    assert!(merged["merges"].as_u64() > Some(0), "{merged}");
    server.kill9();
    server.start_again();
    write(&server, 60..80);
    settles(&server, 80);

    thread::sleep(TICKETS_LAST);
    // without its keys no new ticket comes
    let hidden = scratch.path("hidden.keytab");
    fs::rename(&keytab, &hidden).unwrap();
    hdfs.kill_name_node();
    hdfs.start_name_node();
    write(&server, 80..100);
    let error = eventually("the lake needs a new ticket", Duration::from_secs(60), || {
        refusal(&server).filter(|said| said.contains("Kerberos: ")).ok_or_else(|| table(&server).to_string())
    });
    assert!(error.contains("lake.hdfs_keytab") && error.contains("tried again"), "{error}");
    fs::rename(&hidden, &keytab).unwrap();
    settles(&server, 100);
    let mut verify = millpond();
    let said = verify.args(["verify", "lake", "orders", "--http", server.http.address()]).output().unwrap();
    assert!(said.status.success(), "{said:?}");
    assert!(server.stop().success());
    let files = hdfs.files("keytab");
    assert!(files.len() >= 2 && files.iter().all(|(_, replication)| *replication == 2), "{files:?}");
}

/// `kinit` by somebody else, after the start.
fn goes_on_by_a_ticket_that_comes(hdfs: &Hdfs) {
    let scratch = Scratch::new("kerberos-ticket");
    let cache = scratch.path("tickets");
    let settings = format!("hdfs_conf_dir = {:?}", shown(&hdfs.conf_dir()));
    let env = vec![("KRB5_CONFIG", shown(&hdfs.realm().conf(HOUR))), ("KRB5CCNAME", format!("FILE:{}", shown(&cache)))];
    let mut server = start(&scratch, (hdfs, "ticket"), (settings, env));
    write(&server, 0..10);
    let error = refusal(&server).expect("there is no ticket");
    assert!(error.contains("Kerberos: ") && error.contains("kinit") && error.contains("tried again"), "{error}");
    assert!(!error.contains("GssMajorCodes"), "{error}");
    fs::copy(hdfs.realm().tickets(), &cache).unwrap();
    settles(&server, 10);
    assert!(server.stop().success());
}

/// One that knows nothing of Kerberos.
fn is_told_that_kerberos_is_wanted(hdfs: &Hdfs) {
    let scratch = Scratch::new("kerberos-none");
    let mut server = start(&scratch, (hdfs, "none"), (String::new(), Vec::new()));
    write(&server, 0..10);
    let error = refusal(&server).expect("it is refused");
    assert!(error.contains("whether it wants Kerberos"), "{error}");
    assert!(server.stop().success());
}
