//! A backup that is taken under load: the restored copy starts, and its log, groups, views and files agree with one another.

use crate::faults::calls::{Caller, Records};
use crate::support::http::Http;
use crate::support::kafka::run;
use crate::support::raw::{Identity, PlainRecord, batch};
use crate::support::server::{Options, Server, check, millpond};
use crate::support::{Scratch, beside_others, eventually};
use crate::verify::verify;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{ClientConfig, Offset};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What "in seconds" is, on a machine that does other things as well.
pub const SECONDS_MAX: Duration = Duration::from_secs(20);
const PAIRS: &str = "pairs";
/// Transactional id and group of those who write there.
const PAIR: &str = "pair";

pub fn system(backups: &Path) -> String {
    format!(
        r#"
topics = [{{ name = "ticks", partitions = 4 }}, {{ name = "pairs", partitions = 2 }}]
[[streams]]
name = "ticks"
topic = "ticks"
event_time = "ts"
columns = [{{ name = "id", type = "BIGINT", required = true }}, {{ name = "ts", type = "TIMESTAMP", required = true }}]
[[streams]]
sql = "CREATE STREAM doubled AS SELECT id, ts, 2 * id AS twice FROM ticks"
[[lake.tables]]
topic = "ticks"
flush_age = "1s"
flush_rows = 500
[[views]]
sql = "CREATE MATERIALIZED VIEW counted AS SELECT count(*) AS n, sum(id) AS ids FROM ticks"
[[jobs]]
name = "backup"
retries = 0
steps = [{{ backup = {backups:?}, keep = 2 }}]
"#
    )
}

fn backup(server: &Server) -> String {
    let mut command = millpond();
    command.args(["job", "run", "backup", "--http", server.http.address()]);
    let said = run(&mut command);
    assert!(said.contains("backup: run") && said.contains("succeeded"), "{said}");
    said.split_whitespace().find(|word| word.ends_with("Z:")).unwrap().trim_end_matches(':').to_owned()
}

pub fn tick(id: i64) -> Value {
    json!({"key": id.to_string(), "value": {"id": id, "ts": "2026-11-20T12:00:00Z"}})
}

/// Writes from threads until they are told to stop: records over HTTP, and transactions.
pub struct Writers {
    stop: Arc<AtomicBool>,
    ticks: JoinHandle<i64>,
    pairs: JoinHandle<i64>,
}

impl Writers {
    pub fn start(server: &Server) -> Writers {
        let stop = Arc::new(AtomicBool::new(false));
        let (http, kafka) = (server.http.clone(), server.kafka.clone());
        let stopped = stop.clone();
        let ticks = std::thread::spawn(move || write_ticks(&http, &stopped));
        let stopped = stop.clone();
        let pairs = std::thread::spawn(move || write_pairs(&kafka, &stopped));
        Writers { stop, ticks, pairs }
    }

    /// How many ticks were acknowledged, and how many pairs.
    pub fn stop(self) -> (i64, i64) {
        self.stop.store(true, Ordering::Relaxed);
        (self.ticks.join().unwrap(), self.pairs.join().unwrap())
    }
}

fn write_ticks(http: &Http, stop: &AtomicBool) -> i64 {
    let mut next = 0;
    while !stop.load(Ordering::Relaxed) {
        let records: Vec<Value> = (next..next + 50).map(tick).collect();
        let answer = http.post("/v1/topics/ticks/records", &json!({"records": records}));
        assert_eq!(answer["accepted"], 50);
        next += 50;
    }
    next
}

/// A number to both partitions, and as the group's offset, in a transaction; each third is aborted.
fn write_pairs(kafka: &str, stop: &AtomicBool) -> i64 {
    let mut caller = Caller::connect(kafka).unwrap();
    let pair = caller.identity(Some(PAIR)).unwrap();
    let (mut committed, mut sequence) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        caller.begin(PAIR, pair, (PAIRS, PAIR)).unwrap();
        for partition in 0..2 {
            let identity = Identity { producer_id: pair.0, epoch: pair.1, sequence, transactional: true };
            let record = PlainRecord { value: Some((committed + 1).to_string()), ..PlainRecord::default() };
            caller.produce((PAIRS, partition), batch(&[record], identity), Some(PAIR)).unwrap();
        }
        caller.offset_in(PAIR, pair, (PAIRS, PAIR), committed + 1).unwrap();
        sequence += 1;
        let commits = sequence % 3 > 0;
        caller.end(PAIR, pair, commits).unwrap();
        committed += i64::from(commits);
    }
    committed
}

/// The log, the stream that is derived of it, the view, the table, transactions and their group are of one moment; gives how many ticks and pairs that has.
pub fn agreed(server: &Server) -> (i64, i64) {
    let end = server.http.get("/v1/topics/ticks")["records"].as_i64().unwrap();
    let exact = |value: &Value| value.to_string().trim_matches('"').parse::<i64>().unwrap();
    let table = &server.http.sql("SELECT count(*), count(DISTINCT id), max(id) + 1, sum(id) FROM ticks")[0];
    assert_eq!(table[..3], [json!(end), json!(end), json!(end)], "each record once, in files or in the log");
    let view = &server.http.sql("SELECT n, ids FROM counted")[0];
    assert_eq!([&view[0], &view[1]].map(exact), [&table[0], &table[3]].map(exact));
    let derived = &server.http.sql("SELECT count(*), count(DISTINCT id), sum(twice) FROM doubled")[0];
    assert_eq!([&derived[0], &derived[1], &derived[2]].map(exact), [end, end, 2 * exact(&table[3])]);
    let mut caller = Caller::connect(&server.kafka).unwrap();
    // what is open is aborted, so that all is stable
    caller.identity(Some(PAIR)).unwrap();
    let numbers = |records: Records| records.into_iter().map(|(_, number)| number.parse().unwrap()).collect();
    let both = [0, 1].map(|partition| -> Vec<i64> { numbers(caller.read((PAIRS, partition), true).unwrap().1) });
    assert_eq!(both[0], both[1], "a transaction is in both partitions or in none");
    assert!(both[0].iter().copied().eq(1..=both[0].len() as i64), "{both:?}");
    let pairs = both[0].len() as i64;
    assert_eq!(
        caller.offset_of((PAIRS, PAIR)).unwrap(),
        if pairs == 0 { -1 } else { pairs },
        "offsets go with their transaction"
    );
    (end, pairs)
}

pub fn verified(server: &Server, arguments: &[&str]) {
    let output = verify(server, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
}

/// Reads some records as a group and commits; gives the offsets committed.
pub fn commit(kafka: &str) -> i64 {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", kafka)
        .set("group.id", "readers")
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    consumer.subscribe(&["ticks"]).unwrap();
    let mut read = 0;
    eventually("records are read", Duration::from_secs(60), || {
        // the writer goes on: there is always more to read
        while read < 200
            && let Some(message) = consumer.poll(Duration::from_millis(200))
        {
            message.unwrap();
            read += 1;
        }
        if read >= 200 { Ok(()) } else { Err(format!("{read} read")) }
    });
    consumer.commit_consumer_state(CommitMode::Sync).unwrap();
    let committed = consumer.committed(Duration::from_secs(10)).unwrap();
    let offsets = committed.elements().into_iter().map(|element| element.offset());
    offsets.filter_map(|offset| if let Offset::Offset(offset) = offset { Some(offset) } else { None }).sum()
}

pub fn committed(server: &Server) -> i64 {
    let group = server.http.get("/v1/groups/readers");
    let offsets = group["offsets"].as_array().unwrap_or_else(|| panic!("{group}"));
    offsets.iter().filter_map(|partition| partition["committed"].as_i64()).sum()
}

#[test]
fn a_restored_backup_agrees_with_itself() {
    let _beside = beside_others();
    let scratch = Scratch::new("backup");
    let backups = scratch.path("backups");
    let config = scratch.write("backup.toml", &system(&backups));
    let mut server = Server::start_with(&scratch, Options { configs: vec![config.clone()], ..Default::default() });
    let writing = Writers::start(&server);
    let in_lake = |server: &Server| server.http.get("/v1/lake")["tables"][0]["rows"].as_i64().unwrap();
    eventually("files are settled", Duration::from_secs(60), || {
        let rows = in_lake(&server);
        if rows > 1_000 { Ok(()) } else { Err(format!("{rows} rows settled")) }
    });
    let sum = commit(&server.kafka);
    let settled = in_lake(&server);
    let names = [(); 3].map(|()| {
        let started = Instant::now();
        let name = backup(&server);
        assert!(started.elapsed() < SECONDS_MAX, "{:?}", started.elapsed());
        name
    });
    let acknowledged = writing.stop();
    assert!(server.stop().success());

    let mut list = millpond();
    list.args(["restore", backups.to_str().unwrap(), "--list"]);
    assert_eq!(run(&mut list), format!("{}\n{}\n", names[2], names[1]), "two are kept, the newest first");
    let data = scratch.path("restored/server/data");
    let mut restore = millpond();
    restore.args(["restore", backups.to_str().unwrap(), "--data-dir"]).arg(&data);
    let started = Instant::now();
    let said = run(&mut restore);
    assert!(started.elapsed() < SECONDS_MAX, "{:?}", started.elapsed());
    assert!(said.contains(&names[2]), "{said}");
    let again = restore.output().unwrap();
    assert!(!again.status.success(), "a directory that is in use is left alone");

    let copy = Scratch::new("backup-restored");
    std::fs::create_dir_all(copy.path("server")).unwrap();
    std::fs::rename(&data, copy.path("server/data")).unwrap();
    check(&copy.path("server/data"));
    let mut restored = Server::start_with(&copy, Options { configs: vec![config], ..Default::default() });
    let (end, pairs) = agreed(&restored);
    assert!(end > settled && end <= acknowledged.0, "{end} of {acknowledged:?}, {settled} settled before");
    assert!(pairs > 0 && pairs <= acknowledged.1, "{pairs} of {acknowledged:?}");
    assert!(in_lake(&restored) > 1_000, "the files came along");
    let files = restored.http.sql("SELECT sum(files), sum(rows) FROM stored_bytes WHERE kind = 'parquet'");
    assert!(files[0][0].as_i64().unwrap() > 0, "{files:?}");
    assert_eq!(committed(&restored), sum, "the group's offsets");
    // the copy works on
    let more = json!({"records": [tick(end)]});
    assert_eq!(restored.http.post("/v1/topics/ticks/records", &more)["accepted"], 1);
    restored.http.post("/v1/lake/ticks/flush", &Value::Null);
    assert_eq!(agreed(&restored), (end + 1, pairs));
    verified(&restored, &["view", "--all"]);
    verified(&restored, &["lake"]);
    assert!(restored.stop().success());
}

#[test]
fn the_job_commands_wait_and_end_with_the_outcome() {
    let scratch = Scratch::new("job-command");
    let toml = r#"
[[jobs]]
name = "good"
steps = [{ sql = "SELECT $day AS day" }]
[[jobs]]
name = "bad"
retries = 1
retry_delay = "10ms"
steps = [{ sql = "SELECT 1 AS one" }, { sql = "SELECT false AS holds", check = true }]
"#;
    let mut server = Server::with_config(&scratch, toml);
    let job = |args: &[&str]| {
        let mut command = millpond();
        command.arg("job").args(args).args(["--http", server.http.address()]);
        let output = command.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, out, _) = job(&["run", "good", "--day", "2026-11-19"]);
    assert_eq!(code, Some(0));
    assert!(out.starts_with("good: run 1 for 2026-11-19 succeeded") && out.contains("sql: succeeded"), "{out}");
    let (code, out, err) = job(&["run", "bad"]);
    assert_eq!(code, Some(1));
    assert!(
        out.contains("check: failed") && out.contains("2 attempts") && err.contains("does not hold"),
        "{out} {err}"
    );
    let (code, out, _) = job(&["run", "good", "--json", "--day", "2026-11-18"]);
    assert_eq!(code, Some(0));
    let run: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&run["state"], &run["day"]), (&json!("succeeded"), &json!("2026-11-18")));
    assert_eq!(job(&["run", "absent"]).0, Some(1));
    assert_eq!(job(&["run", "good", "--day", "soon"]).0, Some(1));
    let (_, list, _) = job(&["list"]);
    assert!(list.contains("good") && list.contains("bad") && list.contains("failed"), "{list}");
    let (_, history, _) = job(&["history", "good", "--day", "2026-11-19"]);
    assert_eq!(history.lines().count(), 3, "{history}");
    assert!(server.stop().success());
}
