//! A lake behind the name service of a real HDFS: the server is killed at every step of settling and merging, and the name nodes
//! change places. All the while somebody asks for all rows: each answer has each of them once, and
//! none is behind what was acknowledged or told before.

use crate::support::http::{Http, rows};
use crate::support::kafka::run;
use crate::support::name_proxy::{Hold, NameProxy};
use crate::support::name_service::{NameService, SERVICE};
use crate::support::server::{Server, millpond};
use crate::support::{Scratch, beside_others, eventually, seed};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

const SYSTEM: &str = r#"
topics = [{ name = "orders", partitions = 1 }]
[lake]
url = "hdfs://SERVICE/lake"
hdfs_conf_dir = "CONF"
hdfs_replication = 1
[[streams]]
name = "orders"
topic = "orders"
event_time = "ts"
columns = [{ name = "id", type = "BIGINT", required = true }, { name = "ts", type = "TIMESTAMP", required = true }]
[[lake.tables]]
topic = "orders"
flush_age = "1h"
merge_files = 1000
raw = true
"#;

/// What is asked for all the while.
const ALL: &str = "SELECT count(*), count(DISTINCT _offset), sum(id) FROM orders";

/// A step at which the server is killed: what it does, the call of the name node, how many of these pass before, and whether the
/// name node has done it.
type Step = (&'static str, &'static str, u32, Hold);

/// A flush writes two files, of rows and of whole records.
const STEPS: [Step; 14] = [
    ("flush", "create", 0, Hold::Before),
    ("flush", "create", 0, Hold::After),
    ("flush", "addBlock", 0, Hold::After),
    ("flush", "complete", 0, Hold::Before),
    ("flush", "complete", 0, Hold::After),
    ("flush", "complete", 1, Hold::After),
    ("flush", "rename2", 0, Hold::Before),
    ("flush", "rename2", 0, Hold::After),
    ("flush", "rename2", 1, Hold::After),
    ("merge", "create", 0, Hold::After),
    ("merge", "complete", 0, Hold::After),
    ("merge", "rename2", 0, Hold::Before),
    ("merge", "rename2", 0, Hold::After),
    ("merge", "delete", 0, Hold::Before),
];
/// Kills at no step in particular, after each round of the steps. `MILLPOND_KILLS` asks for so many kills, and for a name node that
/// hangs, as a unit test of the lake has one in short.
const AT_RANDOM: u32 = 6;

/// A server and who writes to it.
struct Lake {
    server: Server,
    acknowledged: Arc<AtomicI64>,
}

impl Lake {
    /// Appends orders; their ids are their offsets.
    fn write(&self, count: i64) {
        let from = self.acknowledged.load(Ordering::SeqCst);
        let order = |id: i64| json!({"value": {"id": id, "ts": "2026-11-20T12:00:00Z"}});
        let records: Vec<Value> = (from..from + count).map(order).collect();
        let answer = self.server.http.post("/v1/topics/orders/records", &json!({"records": records}));
        assert!(!answer.to_string().contains("error"), "{answer}");
        self.acknowledged.store(from + count, Ordering::SeqCst);
    }

    fn post(&self, what: &str) -> Result<Value, String> {
        let (status, text) = self.server.http.try_post(&format!("/v1/lake/orders/{what}"), &Value::Null)?;
        if status == 200 { Ok(serde_json::from_str(&text).unwrap()) } else { Err(format!("{status}: {text}")) }
    }

    /// Asks for it and does not wait; what becomes of it is not known.
    fn begin(&self, what: &'static str) -> JoinHandle<()> {
        let http = self.server.http.clone();
        thread::spawn(move || drop(http.try_post(&format!("/v1/lake/orders/{what}"), &Value::Null)))
    }

    fn kill_and_start(&mut self) {
        self.server.kill9();
        self.server.start_again();
        self.has_each_once();
    }

    fn is_killed_at(&mut self, proxy: &NameProxy, step: &Step, random: &mut StdRng) {
        let (what, method, passing, hold) = *step;
        self.write(random.random_range(1..80));
        if what == "merge" {
            // so that there are two
            self.settles(Duration::from_secs(60));
            self.write(random.random_range(1..80));
            self.settles(Duration::from_secs(60));
        }
        proxy.hold(method, passing, hold);
        let begun = self.begin(what);
        proxy.wait_until_held();
        self.server.kill9();
        proxy.release();
        begun.join().unwrap();
        self.server.start_again();
        self.has_each_once();
    }

    /// In the midst of whatever is done.
    fn is_killed_amid(&mut self, random: &mut StdRng) {
        self.write(random.random_range(1..500));
        let begun = [self.begin("flush"), self.begin("merge")];
        thread::sleep(Duration::from_millis(random.random_range(0..400)));
        self.kill_and_start();
        begun.into_iter().for_each(|begun| begun.join().unwrap());
    }

    fn has_each_once(&self) {
        let written = self.acknowledged.load(Ordering::SeqCst);
        assert_eq!(checked(&self.server.http.post("/v1/sql", &json!({ "sql": ALL }))), written);
    }

    /// Rows in files, once all is settled.
    fn settles(&self, within: Duration) {
        let written = self.acknowledged.load(Ordering::SeqCst);
        eventually("the lake settles", within, || {
            self.post("flush")?;
            let lake = self.server.http.get("/v1/lake");
            let table = lake["tables"].as_array().unwrap().iter().find(|table| table["topic"] == "orders").unwrap();
            let is_whole = table["rows"] == written && table["error"].is_null();
            if is_whole { Ok(()) } else { Err(format!("{written} were written: {table}")) }
        });
    }
}

/// How many rows there are in an answer, of which each is there once and none is left out.
fn checked(answer: &Value) -> i64 {
    let row = rows(answer).remove(0);
    let number = |at: usize| row[at].as_i64().unwrap_or(0);
    assert_eq!((number(0), number(2)), (number(1), number(0) * (number(0) - 1) / 2), "{answer}");
    number(0)
}

/// Who asks all the while.
struct Reader {
    stop: Arc<AtomicBool>,
    refused: Arc<AtomicI64>,
    reads: JoinHandle<u32>,
}

impl Reader {
    fn start(http: Http, acknowledged: Arc<AtomicI64>) -> Reader {
        let (stop, refused) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI64::new(0)));
        let (until, failed) = (stop.clone(), refused.clone());
        let reads = thread::spawn(move || {
            let (mut answers, mut told) = (0, 0);
            while !until.load(Ordering::SeqCst) {
                let least = acknowledged.load(Ordering::SeqCst).max(told);
                match http.try_post("/v1/sql", &json!({ "sql": ALL })) {
                    Ok((200, text)) => {
                        told = checked(&serde_json::from_str(&text).unwrap());
                        assert!(told >= least, "{told} rows after {least}");
                        answers += 1;
                    }
                    refused => {
                        eprintln!("the reader: {refused:?}");
                        failed.fetch_add(1, Ordering::SeqCst);
                        thread::sleep(Duration::from_millis(50));
                    }
                }
            }
            answers
        });
        Reader { stop, refused, reads }
    }

    fn refused(&self) -> i64 {
        self.refused.load(Ordering::SeqCst)
    }
}

#[test]
fn a_lake_goes_on_through_failovers_and_kills_at_every_step() {
    let _beside = beside_others();
    let more = std::env::var("MILLPOND_KILLS").ok().map(|text| text.parse::<u32>().unwrap());
    let kills = more.unwrap_or(STEPS.len() as u32 + AT_RANDOM);
    let scratch = Scratch::for_kills("name-service", kills);
    let mut random = StdRng::seed_from_u64(seed("name-service"));
    let mut nodes = NameService::start(&scratch);
    let conf = nodes.conf_dir(&scratch, [nodes.address(0), nodes.address(1)]);
    let system = SYSTEM.replace("SERVICE", SERVICE).replace("CONF", &conf.display().to_string());
    let server = Server::with_config(&scratch, &system);
    let mut lake = Lake { server, acknowledged: Arc::default() };
    lake.write(50);
    let reader = Reader::start(lake.server.http.clone(), lake.acknowledged.clone());
    lake.settles(Duration::from_secs(60));

    let refused = reader.refused();
    nodes.kill(0);
    lake.write(50);
    nodes.make_active(1);
    lake.settles(Duration::from_secs(60));
    assert_eq!(reader.refused(), refused, "queries outlast a failover");
    nodes.start_again(0);

    let proxy = NameProxy::start(nodes.address(1).to_owned());
    nodes.conf_dir(&scratch, [nodes.address(0), &proxy.address]);
    lake.kill_and_start();
    for kill in 0..kills {
        match STEPS.get((kill % (STEPS.len() as u32 + AT_RANDOM)) as usize) {
            Some(step) => lake.is_killed_at(&proxy, step, &mut random),
            None => lake.is_killed_amid(&mut random),
        }
    }

    // three minutes at most, and mostly one: the time limit of a call, a few times
    if more.is_some() {
        nodes.freeze(1);
        lake.write(50);
        nodes.make_active(0);
        lake.settles(Duration::from_secs(240));
        nodes.kill(1);
    }
    lake.settles(Duration::from_secs(60));
    nodes.assert_alive();
    reader.stop.store(true, Ordering::SeqCst);
    eprintln!("name-service: {} answers", reader.reads.join().unwrap());
    assert!(lake.post("merge").is_ok());
    lake.has_each_once();
    whole_and_clean(&nodes, &mut lake);
}

/// The table's files have each row once, as a person's `verify` says, and nothing hidden is left.
fn whole_and_clean(nodes: &NameService, lake: &mut Lake) {
    let mut verify = millpond();
    let said = run(verify.args(["verify", "lake", "orders", "--json", "--http", lake.server.http.address()]));
    let report: Value = serde_json::from_str(said.trim()).unwrap();
    let written = lake.acknowledged.load(Ordering::SeqCst);
    for (what, count) in [("file_rows", written), ("raw_records", written), ("live_rows", 0), ("differences", 0)] {
        assert_eq!(report[what], count, "{report}");
    }
    assert!(lake.server.stop().success());
    lake.server.start_again();
    assert!(lake.server.stop().success());
    let files = nodes.files("/lake");
    let hidden = files.iter().filter(|file| file.ends_with(".tmp")).count();
    let rows = files.iter().filter(|file| file.starts_with("/lake/orders/") && file.ends_with(".parquet")).count();
    assert_eq!((hidden, rows), (0, 1), "{files:?}");
}
