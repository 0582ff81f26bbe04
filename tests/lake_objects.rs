//! The lake in an object store, one that speaks like S3, one like Azure's and one like Google's: every record once across kills of the server at each request that matters,
//! refused, cut and lost requests, and a store that is away; pyarrow reads the bucket by itself; large files in parts; what is told
//! when keys, bucket or owner are wrong; backups there; consumers of what the log let go; Iceberg tables by pyiceberg.

use crate::oracle::{merging, settle};
use crate::support::kafka::run;
use crate::support::objects::{Kind, Store};
use crate::support::process::Process;
use crate::support::proxy::{Fault, Which};
use crate::support::server::{Options, Server, millpond, serve};
use crate::support::{Scratch, beside_others, eventually, seed};
use crate::{cold, iceberg};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

const BUCKET: &str = "lake-bucket";
const SYSTEM: &str = r#"
[[topics]]
name = "ticks"
partitions = 2

[[streams]]
name = "ticks"
topic = "ticks"
event_time = "ts"
columns = [
    { name = "id", type = "BIGINT", required = true },
    { name = "ts", type = "TIMESTAMP", required = true },
    { name = "label", type = "VARCHAR" },
]

[[lake.tables]]
topic = "ticks"
zone = "raw"
slice = ["date", "label"]
flush_age = "300ms"
archive_after = "30d"

[[views]]
sql = "CREATE MATERIALIZED VIEW counted AS SELECT count(*) AS n, sum(id) AS ids FROM ticks"

[[transforms]]
name = "by_label"
slice = ["label"]
sql = "SELECT label, count(*) AS n, sum(id) AS ids FROM ticks GROUP BY label"

[[jobs]]
name = "backup"
retries = 0
steps = [{ backup = "STORE://lake-bucket/backups", keep = 1 }]
"#;

const BLOBS: &str = r#"
[[topics]]
name = "blobs"

[[streams]]
name = "blobs"
topic = "blobs"
event_time = "ts"
columns = [{ name = "ts", type = "TIMESTAMP", required = true }, { name = "text", type = "VARCHAR" }]

[[lake.tables]]
topic = "blobs"
flush_age = "1h"
"#;

fn labels() -> [Value; 4] {
    [json!("a/b"), json!("50%: é"), json!(null), json!("plain")]
}

fn start(scratch: &Scratch, store: &Store, system: &str) -> Server {
    start_in(scratch, store, ("some/lake", system))
}

/// A lake in a directory of the bucket.
fn start_in(scratch: &Scratch, store: &Store, (dir, system): (&str, &str)) -> Server {
    let system = system.replace("STORE://lake-bucket/backups", &store.url(BUCKET, "backups"));
    let configs = vec![scratch.write("system.toml", &system), scratch.write("store.toml", &store.config())];
    let args = vec!["--lake".to_owned(), store.url(BUCKET, dir)];
    Server::start_with(scratch, Options { configs, args, ..Options::default() })
}

/// How a topic settles.
fn table(server: &Server, topic: &str) -> Value {
    let lake = server.http.get("/v1/lake");
    lake["tables"].as_array().unwrap().iter().find(|table| table["topic"] == topic).unwrap().clone()
}

fn error_of(server: &Server, topic: &str) -> String {
    eventually("the status says what is wrong", Duration::from_secs(60), || {
        table(server, topic)["error"].as_str().map(str::to_owned).ok_or_else(|| "no error".to_owned())
    })
}

/// More settles than what has by now: only while somebody produces.
fn settles(server: &Server, topic: &str) {
    let now = table(server, topic)["rows"].as_u64().unwrap();
    has_settled(server, topic, now + 1);
}

fn has_settled(server: &Server, topic: &str, rows: u64) {
    eventually("the lake settles", Duration::from_secs(60), || {
        let table = table(server, topic);
        let enough = table["rows"].as_u64().unwrap() >= rows;
        if table["error"].is_null() && enough { Ok(()) } else { Err(table.to_string()) }
    });
}

/// A client that goes on across all that happens to the server, until it is told to stop; gives how many records it sent.
fn produce(server: &Server, stop: &Arc<AtomicBool>) -> JoinHandle<i64> {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &server.kafka)
        .set("enable.idempotence", "true")
        .set("message.timeout.ms", "600000")
        .set("reconnect.backoff.max.ms", "200")
        .create()
        .unwrap();
    let (stop, labels) = (stop.clone(), labels());
    let now_ms = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as i64;
    thread::spawn(move || {
        let mut id = 0;
        while !stop.load(Ordering::Relaxed) {
            for _ in 0..10 {
                // two days of which one is to be archived
                let ts = now_ms - id % 2 * 40 * 86_400_000;
                let value = json!({"id": id, "ts": ts, "label": labels[id as usize / 2 % labels.len()]}).to_string();
                let key = id.to_string();
                producer.send(BaseRecord::to("ticks").key(&key).payload(&value)).unwrap();
                id += 1;
            }
            producer.poll(Duration::from_millis(30));
        }
        producer.flush(Duration::from_secs(120)).unwrap();
        assert_eq!(producer.in_flight_count(), 0);
        id
    })
}

/// Asks for something again and again until the server is killed.
fn asking(server: &Server, path: &'static str) -> JoinHandle<()> {
    let http = server.http.clone();
    thread::spawn(move || while http.try_post(path, &json!({})).is_ok() {})
}

#[test]
fn every_record_is_in_the_bucket_once() {
    each_is_there_once(Kind::S3);
}

#[test]
fn every_record_is_in_a_bucket_of_google_once() {
    each_is_there_once(Kind::Google);
}

/// The requests that tests fail and that stores have their own words for.
struct Words {
    /// Ends files that a merge replaced.
    delete: Which,
    /// Creates only, and replaces only what was found.
    create: Which,
    replace: Which,
}

fn words(kind: Kind) -> Words {
    let delete = match kind {
        Kind::S3 => ("POST", "?delete"),
        Kind::Azure => ("POST", "comp=batch"),
        // one by one
        Kind::Google => ("DELETE", "/raw/ticks/"),
    };
    match kind {
        Kind::S3 | Kind::Azure => Words { delete, create: ("PUT", "if-none-match: *"), replace: ("PUT", "if-match: ") },
        // a generation of what is there does not begin with a zero
        Kind::Google => Words {
            delete,
            create: ("PUT", "x-goog-if-generation-match: 0"),
            replace: ("PUT", "x-goog-if-generation-match: 1"),
        },
    }
}

fn each_is_there_once(kind: Kind) {
    let _beside = beside_others();
    let scratch = Scratch::new(&format!("lake-{kind:?}"));
    let store = Store::start(&scratch, kind);
    let words = words(kind);
    store.make_bucket(BUCKET);
    let mut server = start(&scratch, &store, SYSTEM);
    let stop = Arc::new(AtomicBool::new(false));
    let producing = produce(&server, &stop);
    settles(&server, "ticks");
    is_killed_at_each_request(&store, &mut server, &words);
    let put: Which = ("PUT", "/raw/ticks/");
    // the answer to a file that was new is lost: the next attempt replaces just what it finds
    let lost = [(words.create, Fault::Lost), (words.replace, Fault::Late)];
    store.network.fail(&[[(put, Fault::Refused), (put, Fault::Cut), (put, Fault::Late)].as_slice(), &lost].concat());
    eventually("each fault happened", Duration::from_secs(60), || {
        let left = store.network.left();
        if left == 0 { Ok(()) } else { Err(format!("{left} are left: {}", table(&server, "ticks"))) }
    });
    settles(&server, "ticks");
    if kind == Kind::Google {
        // the client of S3 makes it again by itself
        a_copy_whose_answer_is_lost_is_made_again(&store, &server);
    }
    goes_on_while_the_store_is_away(&store, &mut server);
    stop.store(true, Ordering::Relaxed);
    let sent = producing.join().unwrap();
    holds_once(&store, &server, sent);
    let mut print = millpond();
    let ddl = run(print.args(["ddl", "spark", "--http", server.http.address()]));
    let table = if kind == Kind::S3 { "s3a" } else { "gs" }.to_owned() + "://lake-bucket/some/lake/raw/ticks";
    assert!(ddl.contains(&table), "{ddl}");
    let copy = backs_up(&scratch, &store, &server);
    goes_on(&server, sent);
    assert!(server.stop().success());
    assert!(store.keys(BUCKET).iter().all(|key| !key.contains("/_retired/") && !key.contains("/_tmp/")));
    assert_eq!(store.open_uploads(BUCKET), 0);
    let waiting = server.data_dir().join("lake-uploads");
    assert_eq!(std::fs::read_dir(waiting).map_or(0, |files| files.count()), 0, "files wait that nobody uploads");
    is_restored(&store, &copy, sent);
    consumers_read_on_from_the_bucket(&store);
    pyiceberg_reads_the_bucket(&store);
}

/// At the requests between which a file is there and the manifest does not know it, or the other way round.
fn is_killed_at_each_request(store: &Store, server: &mut Server, words: &Words) {
    for (which, fault) in [
        // before a file is there, and when it is and the manifest does not know it
        (("PUT", "/raw/ticks/"), Fault::HeldBefore),
        (("PUT", "/raw/ticks/"), Fault::HeldAfter),
        // the same of files that a merge replaced
        (words.delete, Fault::HeldBefore),
        (words.delete, Fault::HeldAfter),
        // the tables that SQL writes, and the archive
        (("PUT", "/processed/by_label/"), Fault::HeldAfter),
        (("PUT", "/archive/ticks/"), Fault::HeldAfter),
        // while the owner is asked for
        (("GET", "_millpond.json"), Fault::HeldBefore),
    ] as [(Which, Fault); 7]
    {
        let ask = match which.1 {
            "/processed/by_label/" => Some(asking(server, "/v1/transforms/by_label/run")),
            "/archive/ticks/" => Some(asking(server, "/v1/lake/archive")),
            _ if which == words.delete => Some(merging(server, "ticks")),
            _ => None,
        };
        store.network.fail(&[(which, fault)]);
        store.network.wait_until_held();
        server.kill9();
        store.network.release();
        if let Some(ask) = ask {
            ask.join().unwrap();
        }
        server.start_again();
    }
}

/// More settles after the backup, and is merged with what it has.
fn goes_on(server: &Server, sent: i64) {
    let now_ms = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as i64;
    let tick = |id: i64| json!({"value": {"id": id, "ts": now_ms, "label": labels()[id as usize % 4]}});
    let records: Vec<Value> = (sent..sent + 40).map(tick).collect();
    assert_eq!(server.http.post("/v1/topics/ticks/records", &json!({ "records": records }))["accepted"], 40);
    settle(server, "ticks");
}

/// The store of the backup finds its rows in the files that took the place of those it names, each once, and says what it does not have.
fn is_restored(store: &Store, copy: &Path, sent: i64) {
    let scratch = Scratch::new(&format!("lake-{:?}-restored", store.kind));
    std::fs::create_dir_all(scratch.path("server")).unwrap();
    std::fs::rename(copy, scratch.path("server/data")).unwrap();
    let mut server = start(&scratch, store, SYSTEM);
    let aside = eventually("the start has looked at the bucket", Duration::from_secs(60), || {
        let aside = table(&server, "ticks")["put_aside"].clone();
        if aside.as_array().is_some_and(|all| !all.is_empty()) { Ok(aside) } else { Err(aside.to_string()) }
    });
    let count = "SELECT count(*), count(DISTINCT id), sum(id) FROM ticks";
    assert_eq!(server.http.sql(count)[0], [json!(sent), json!(sent), json!(sent * (sent - 1) / 2)]);
    let listed = ["raw/ticks", "archive/ticks"].map(|dir| store.read(&format!("{BUCKET}/some/lake/{dir}")));
    let rows: Option<i64> = listed.iter().map(|found| found["rows"].as_i64()).sum();
    assert!(rows == Some(sent) && listed.iter().all(|found| found["rows"] == found["places"]), "{listed:?}");
    let beyond: i64 = aside[0]["partitions"]
        .as_object()
        .unwrap_or_else(|| panic!("{aside}"))
        .values()
        .flat_map(|has| has["beyond_log"].as_array().unwrap())
        .map(|range| range[1].as_i64().unwrap() - range[0].as_i64().unwrap() + 1)
        .sum();
    assert_eq!((beyond, aside.as_array().unwrap().len()), (40, 1), "{aside}");
    let verify = millpond().args(["verify", "lake", "ticks", "--http", server.http.address()]).output().unwrap();
    let said = String::from_utf8_lossy(&verify.stdout);
    assert!(verify.status.success() && said.contains("are in these files alone"), "{verify:?}");
    assert!(server.stop().success());
}

/// Through requests that fail, kill -9 and a store that is away.
fn consumers_read_on_from_the_bucket(store: &Store) {
    let scratch = Scratch::new(&format!("cold-{:?}", store.kind));
    let mut server = start_in(&scratch, store, ("cold", &cold::merging()));
    let committed = cold::fill(&server, seed("cold-objects"));
    cold::let_go(&server);
    cold::reads_back(&server, &committed);
    let get: Which = ("GET", "/cold/_raw/orders/");
    store.network.fail(&[(get, Fault::Refused), (get, Fault::Cut), (get, Fault::Lost), (get, Fault::Late)]);
    assert!(cold::read_all(&server) == committed, "through requests that fail");
    assert_eq!(store.network.left(), 0, "all of them came");
    server.kill9();
    store.network.away(true);
    server.start_again();
    let waiting = cold::waiting(&server);
    store.network.away(false);
    assert!(cold::to_end(&waiting) == committed, "after the store came back");
    assert!(server.stop().success());
}

/// Through the catalog and by the files alone, with keys of its own: what SQL reads, and each snapshot since the last merge.
fn pyiceberg_reads_the_bucket(store: &Store) {
    let scratch = Scratch::new(&format!("iceberg-{:?}", store.kind));
    let mut server = start_in(&scratch, store, ("tables", iceberg::SYSTEM));
    let reads = |server: &Server, snapshots: &[&str]| {
        let report = iceberg::read(server, &store.url(BUCKET, "tables/_iceberg/lake/orders"), &store.for_pyiceberg());
        iceberg::agrees(server, &report);
        iceberg::has_snapshots(&report, snapshots);
    };
    iceberg::settle(&server, 0..40);
    iceberg::settle(&server, 40..60);
    reads(&server, &["append 40", "append 60"]);
    let merged = server.http.post("/v1/lake/orders/merge", &Value::Null);
    assert!(merged["merges"].as_u64().unwrap() >= 4, "{merged}");
    iceberg::settle(&server, 60..70);
    // without second names of files time travel ends at the merge
    reads(&server, &["replace 60", "append 70"]);
    server.kill9();
    server.start_again();
    iceberg::settle(&server, 70..80);
    reads(&server, &["replace 60", "append 70", "append 80"]);
    assert!(server.stop().success());
}

fn a_copy_whose_answer_is_lost_is_made_again(store: &Store, server: &Server) {
    store.network.fail(&[(("PUT", "/archive/ticks/"), Fault::Lost)]);
    eventually("the answer to a copy is lost", Duration::from_secs(60), || {
        let told = server.http.try_post("/v1/lake/archive", &Value::Null)?;
        if store.network.left() == 0 { Ok(()) } else { Err(format!("{told:?}")) }
    });
    // at once, before a merge gives the file another name
    server.http.post("/v1/lake/archive", &Value::Null);
}

fn goes_on_while_the_store_is_away(store: &Store, server: &mut Server) {
    store.network.away(true);
    let error = error_of(server, "ticks");
    assert!(error.contains(&store.url(BUCKET, "some/lake")) && error.contains("tried again"), "{error}");
    // a start does not wait for it either
    server.kill9();
    server.start_again();
    let counted = || server.http.sql("SELECT n FROM counted")[0][0].as_i64().unwrap();
    let before = counted();
    eventually("producers and views go on", Duration::from_secs(30), || {
        let now = counted();
        if now > before { Ok(()) } else { Err(format!("{now} counted")) }
    });
    store.network.away(false);
    settles(server, "ticks");
}

fn holds_once(store: &Store, server: &Server, sent: i64) {
    settle(server, "ticks");
    server.http.post("/v1/lake/archive", &Value::Null);
    settle(server, "ticks");
    let ids = sent * (sent - 1) / 2;
    let by_sql = server.http.sql("SELECT count(*), count(DISTINCT id), sum(id) FROM ticks")[0].clone();
    assert_eq!(by_sql, [json!(sent), json!(sent), json!(ids)]);
    let (raw, archived) = (
        store.read(&format!("{BUCKET}/some/lake/raw/ticks")),
        store.read(&format!("{BUCKET}/some/lake/archive/ticks")),
    );
    let number = |found: &Value, name: &str| found[name].as_i64().unwrap_or_else(|| panic!("{name} of {found}"));
    for found in [&raw, &archived] {
        assert_eq!(found["rows"], found["places"], "a row is there twice: {found}");
        let names: Vec<_> =
            found["by"].as_array().unwrap().iter().map(|by| by[0].as_str().unwrap().to_owned()).collect();
        assert_eq!(names, ["50%: é", "None", "a/b", "plain"], "as an outside reader decodes them");
    }
    assert_eq!(number(&raw, "rows") + number(&archived, "rows"), sent);
    assert_eq!(raw["sums"]["id"].as_i64().unwrap() + archived["sums"]["id"].as_i64().unwrap(), ids);
    assert_eq!(number(&archived, "rows"), sent / 2, "every other one is old");

    server.http.post("/v1/transforms/by_label/run", &json!({}));
    let written = store.read(&format!("{BUCKET}/some/lake/processed/by_label"));
    assert_eq!((&written["sums"]["n"], &written["sums"]["ids"]), (&json!(sent), &json!(ids)), "{written}");
}

/// Makes a backup in the bucket, and a data directory of it.
fn backs_up(scratch: &Scratch, store: &Store, server: &Server) -> PathBuf {
    let mut command = millpond();
    let said = run(command.args(["job", "run", "backup", "--http", server.http.address()]));
    assert!(said.contains("succeeded"), "{said}");
    let data = scratch.path("restored");
    let mut restore = millpond();
    restore.args(["restore", &store.url(BUCKET, "backups"), "--data-dir"]).arg(&data).envs(store.variables());
    let said = run(&mut restore);
    assert!(said.contains("restored") && data.join("store/CURRENT").exists(), "{said}");
    data
}

/// 24 MB that hardly get smaller by compression.
fn blobs(server: &Server) {
    let mut random = 1_u64;
    let mut text = || -> String {
        let mut words = String::new();
        while words.len() < 100_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            words.push_str(&format!("{random:016x}"));
        }
        words
    };
    for _ in 0..4 {
        let record = |text| json!({"value": {"ts": "2026-11-20T10:00:00Z", "text": text}});
        let records: Vec<Value> = (0..60).map(|_| record(text())).collect();
        assert_eq!(server.http.post("/v1/topics/blobs/records", &json!({ "records": records }))["accepted"], 60);
    }
}

#[test]
fn large_files_go_up_in_parts_and_what_a_kill_left_of_them_is_ended() {
    go_up_in_parts(Kind::S3);
}

#[test]
fn large_files_go_up_to_google_in_parts_and_what_a_kill_left_of_them_is_ended() {
    go_up_in_parts(Kind::Google);
}

fn go_up_in_parts(kind: Kind) {
    let _beside = beside_others();
    let scratch = Scratch::new(&format!("lake-{kind:?}-parts"));
    let store = Store::start(&scratch, kind);
    store.make_bucket(BUCKET);
    let mut server = start(&scratch, &store, BLOBS);
    blobs(&server);
    let want = server.http.sql("SELECT count(*), sum(length(text)) FROM blobs");
    let flush = asking(&server, "/v1/lake/blobs/flush");
    // the range is fixed by then: each start goes on with it by itself
    for step in
        [(("PUT", "partNumber=2"), Fault::HeldBefore), (("POST", "uploadId="), Fault::HeldAfter)] as [(Which, Fault); 2]
    {
        store.network.fail(&[step]);
        store.network.wait_until_held();
        server.kill9();
        store.network.release();
        assert_eq!(store.open_uploads(BUCKET), u64::from(step.1 == Fault::HeldBefore), "the one before it is ended");
        let whole = store.keys(BUCKET).iter().any(|key| key.ends_with(".parquet"));
        assert_eq!(whole, step.1 == Fault::HeldAfter, "a file is seen when it is whole");
        // a part that is refused is sent again, one whose answer is lost too
        let part: Which = ("PUT", "partNumber=");
        if whole {
            store.network.fail(&[(part, Fault::Refused), (part, Fault::Lost)]);
        }
        server.start_again();
    }
    flush.join().unwrap();
    has_settled(&server, "blobs", 240);
    assert_eq!(store.network.left(), 0);
    assert_eq!(server.http.sql("SELECT count(*), sum(length(text)) FROM blobs"), want);
    let found = store.read(&format!("{BUCKET}/some/lake/blobs"));
    assert_eq!((&found["rows"], &found["places"], &found["files"]), (&json!(240), &json!(240), &json!(1)), "{found}");
    assert_eq!(store.open_uploads(BUCKET), 0);
    assert!(server.stop().success());
}

#[test]
fn wrong_buckets_keys_and_owners_are_told_and_gone_when_they_are_right() {
    are_told_and_gone(Kind::S3, "InvalidAccessKeyId");
}

#[test]
fn wrong_buckets_keys_and_owners_are_told_of_google_too() {
    are_told_and_gone(Kind::Google, "AuthenticationRequired");
}

fn are_told_and_gone(kind: Kind, nobody: &str) {
    let scratch = Scratch::new(&format!("lake-{kind:?}-wrong"));
    let store = Store::start(&scratch, kind);
    let mut server = start(&scratch, &store, SYSTEM);
    let tick = json!({"records": [{"value": {"id": 1, "ts": "2026-11-20T10:00:00Z", "label": "x"}}]});
    let accepted = |server: &Server| assert_eq!(server.http.post("/v1/topics/ticks/records", &tick)["accepted"], 1);
    accepted(&server);
    let error = error_of(&server, "ticks");
    assert!(error.contains("NoSuchBucket") && error.contains("make the bucket"), "{error}");
    store.make_bucket(BUCKET);
    has_settled(&server, "ticks", 1);
    store.know_nobody(true);
    accepted(&server);
    let error = error_of(&server, "ticks");
    assert!(error.contains(nobody) && error.contains("check the keys"), "{error}");
    store.know_nobody(false);
    has_settled(&server, "ticks", 2);
    assert!(server.stop().success());

    let said: String = std::fs::read_dir(scratch.path("server"))
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|end| end == "err" || end == "out"))
        .map(|path| String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned())
        .collect();
    assert!(!said.is_empty() && !said.contains(&store.secret()), "the secret is in what the server says");

    // of two clusters that come at the same moment one has the lake
    let mut both: Vec<Process> = ["one", "other"]
        .map(|name| {
            let mut command = serve(&scratch.path(name), "127.0.0.1:0", "127.0.0.1:0");
            command.args(["--lake", &store.url(BUCKET, "contested"), "--config"]).arg(scratch.path("store.toml"));
            command.args(["--config"]).arg(scratch.path("system.toml"));
            Process::start(command, &scratch.path(&format!("serve-{name}")))
        })
        .into();
    let ready = |process: &mut Process| {
        process.wait_for_line(|line| line.starts_with("millpond ready "), Duration::from_secs(60))
    };
    let outcomes: Vec<_> = both.iter_mut().map(ready).collect();
    let refused: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
    assert_eq!(refused.len(), 1, "{outcomes:?}");
    assert!(refused[0].contains("give each its own lake.url"), "{refused:?}");
}

#[test]
fn a_lake_lives_in_azure_too() {
    let _beside = beside_others();
    let scratch = Scratch::new("lake-azure");
    let store = Store::start(&scratch, Kind::Azure);
    let mut server = start(&scratch, &store, &[SYSTEM, BLOBS].concat());
    let stop = Arc::new(AtomicBool::new(false));
    let producing = produce(&server, &stop);
    let error = error_of(&server, "ticks");
    assert!(error.contains("ContainerNotFound") && error.contains("make the bucket or container"), "{error}");
    store.make_bucket(BUCKET);
    settles(&server, "ticks");
    let put: Which = ("PUT", "/raw/ticks/");
    let words = words(Kind::Azure);
    for (which, fault) in [(put, Fault::HeldAfter), (words.delete, Fault::HeldBefore)] as [(Which, Fault); 2] {
        let merges = merging(&server, "ticks");
        store.network.fail(&[(which, fault)]);
        store.network.wait_until_held();
        server.kill9();
        store.network.release();
        merges.join().unwrap();
        server.start_again();
    }
    let lost = [(words.create, Fault::Lost), (words.replace, Fault::Cut)];
    store.network.fail(&[[(put, Fault::Refused)].as_slice(), &lost].concat());
    eventually("each fault happened", Duration::from_secs(60), || match store.network.left() {
        0 => Ok(()),
        left => Err(format!("{left} are left: {}", table(&server, "ticks"))),
    });
    settles(&server, "ticks");
    stop.store(true, Ordering::Relaxed);
    let sent = producing.join().unwrap();
    holds_once(&store, &server, sent);
    blobs(&server);
    let flushed = server.http.post("/v1/lake/blobs/flush", &Value::Null);
    assert!(flushed["rows"] == 240 && flushed["bytes"].as_u64() > Some(8 << 20), "in parts: {flushed}");
    assert_eq!(store.read(&format!("{BUCKET}/some/lake/blobs"))["places"], 240);
    let mut print = millpond();
    let ddl = run(print.args(["ddl", "spark", "--http", server.http.address()]));
    assert!(ddl.contains("abfss://lake-bucket@lake.dfs.core.windows.net/some/lake/raw/ticks"), "{ddl}");
    assert!(server.stop().success());
}
