//! Real clients: Java through Kafka's own copier and tools, librdkafka; and what views and the lake make of it.

use crate::clients::create_topic;
use crate::support::kafka::{java, tool};
use crate::support::process::Process;
use crate::support::scripts::{json_of, python};
use crate::support::server::Server;
use crate::support::{Scratch, beside_others, eventually, seed};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use std::thread;
use std::time::Duration;

#[test]
fn librdkafka_reads_squares_once_and_fences() {
    let scratch = Scratch::new("transactions-confluent");
    let server = Server::start(&scratch);
    create_topic(&server.kafka, "numbers", 1);
    create_topic(&server.kafka, "squares", 1);
    let report = json_of(python("clients/confluent_transactions.py").args([&server.kafka, "numbers", "squares"]));
    let mut expected: Vec<String> = (0..90_i64).map(|n| (n * n).to_string()).collect();
    expected.push("from the new one".into());
    assert_eq!(report["read_committed"], json!(expected), "{report}");
    assert!(report["aborts"].as_u64().unwrap() > 2, "{report}");
    assert!(report["read_uncommitted"].as_u64().unwrap() as usize > expected.len() + 1, "{report}");
    assert_eq!((&report["committed_offset"], &report["taken"]), (&json!(90), &json!(true)), "{report}");
    assert_eq!(report["fenced"], "_FENCED", "{report}");
}

/// A stream over a topic of numbers, and a view of all of them.
fn stream_of(topic: &str) -> String {
    format!(
        "[[streams]]\nname = \"{topic}\"\ntopic = \"{topic}\"\nevent_time = \"ts\"\n\
         columns = [{{ name = \"n\", type = \"BIGINT\" }}, {{ name = \"ts\", type = \"TIMESTAMP\" }}]\n\
         [[views]]\nsql = \"CREATE MATERIALIZED VIEW totals AS SELECT count(*) AS copies, count(DISTINCT n) AS numbers, \
         sum(n) AS total FROM {topic}\"\n"
    )
}

/// Several times as many as the copier takes until the last kill: six times three hundred, and what it takes in six pauses.
const NUMBERS: u64 = 15_000;
/// Longer than a few of the copier's transactions take.
const PAUSE_MS_MAX: u64 = 100;

/// Kafka's own copier (Java's consumer and transactional producer) takes numbers from one topic to another, aborting at random,
/// while the broker is killed; each number arrives once and in order.
#[test]
fn java_copies_exactly_once_through_kill_9() {
    let _beside = beside_others();
    let scratch = Scratch::new("transactions-java");
    let mut random = StdRng::seed_from_u64(seed("transactions-java"));
    let mut server = Server::with_config(&scratch, &stream_of("copies"));
    create_topic(&server.kafka, "originals", 1);
    let value = |n: u64| json!({"n": n, "ts": "2026-11-20T08:00:00Z"});
    for start in (0..NUMBERS).step_by(500) {
        let records: Vec<Value> = (start..start + 500).map(|n| json!({"value": value(n)})).collect();
        server.http.post("/v1/topics/originals/records", &json!({"records": records}));
    }
    let mut command = java("org.apache.kafka.tools.TransactionalMessageCopier");
    command.args(["--broker-list", &server.kafka, "--input-topic", "originals", "--input-partition", "0"]);
    command.args(["--output-topic", "copies", "--consumer-group", "copier", "--transactional-id", "copier"]);
    command.args(["--transaction-size", "40", "--transaction-timeout", "20000", "--enable-random-aborts"]);
    command.args(["--use-group-metadata", "--group-mode"]);
    let mut copier = Process::start(command, &scratch.path("copier"));
    let committed = |server: &Server| copied(server).unwrap_or(0);
    for kill in 1..=6 {
        eventually("the copier copies", Duration::from_secs(90), || {
            let at = committed(&server);
            if at >= kill * 300 { Ok(()) } else { Err(format!("{at} are copied")) }
        });
        thread::sleep(Duration::from_millis(random.random_range(0..PAUSE_MS_MAX)));
        server.kill9();
        server.start_again();
        assert!(copier.exited().is_none(), "the copier gave up after kill {kill}:\n{}", copier.tail());
    }
    eventually("all are copied", Duration::from_secs(180), || {
        assert!(copier.exited().is_none(), "the copier gave up:\n{}", copier.tail());
        let at = committed(&server);
        if at >= NUMBERS { Ok(()) } else { Err(format!("{at} of {NUMBERS} are copied")) }
    });
    copier.terminate(Duration::from_secs(60));
    // Java's consumer reads what is committed
    let text = tool(
        "org.apache.kafka.tools.consumer.ConsoleConsumer",
        &[
            "--bootstrap-server",
            &server.kafka,
            "--topic",
            "copies",
            "--from-beginning",
            "--isolation-level",
            "read_committed",
            "--max-messages",
            &NUMBERS.to_string(),
            "--timeout-ms",
            "30000",
        ],
    );
    let values = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
    let numbers: Vec<u64> = values.map(|value| value.unwrap()["n"].as_u64().unwrap()).collect();
    let wrong = (0..NUMBERS).find(|n| numbers.get(*n as usize) != Some(n));
    assert!(
        wrong.is_none() && numbers.len() == NUMBERS as usize,
        "{} numbers, {wrong:?} is not there once",
        numbers.len()
    );
    // and so do views and the lake, live and settled
    let total = NUMBERS * (NUMBERS - 1) / 2;
    let rows = server.http.get("/v1/views/totals?wait=10000")["rows"].clone();
    assert_eq!(rows, json!([[NUMBERS, NUMBERS, total.to_string()]]), "the view");
    let expected = json!([[NUMBERS, NUMBERS, total]]);
    let query = json!({"sql": "SELECT count(*), count(DISTINCT n), sum(n) FROM copies"});
    assert_eq!(server.http.post("/v1/sql", &query)["rows"], expected, "live");
    server.http.post("/v1/lake/copies/flush", &Value::Null);
    assert_eq!(server.http.post("/v1/sql", &query)["rows"], expected, "settled");
    assert!(server.stop().success());
}

/// Where the copier's group stands in the originals.
fn copied(server: &Server) -> Option<u64> {
    let (_, text) = server.http.try_get("/v1/groups/copier").ok()?;
    let answer: Value = serde_json::from_str(&text).ok()?;
    answer.to_string().split("\"committed\":").nth(1)?.split([',', '}']).next()?.parse().ok()
}

/// A producer that has written one record and not ended its transaction.
fn hold_open(scratch: &Scratch, server: &Server, topic: &str) -> Process {
    let mut command = python("clients/open_transaction.py");
    command.args([&server.kafka, topic]);
    let mut holder = Process::start(command, &scratch.path("holder"));
    holder.wait_for_line(|line| line == "open", Duration::from_secs(60)).unwrap();
    holder
}

#[test]
fn views_and_sql_see_a_transaction_when_it_is_committed() {
    let scratch = Scratch::new("transactions-views");
    let server = Server::with_config(&scratch, &stream_of("open"));
    let view = || server.http.get("/v1/views/totals?wait=10000");
    let count = || server.http.post("/v1/sql", &json!({"sql": "SELECT count(*) FROM open"}))["rows"].clone();
    let nothing = view()["rows"].clone();
    let mut holder = hold_open(&scratch, &server, "open");
    // who reads now is not kept waiting for what is not decided
    assert_eq!((view()["rows"].clone(), count()), (nothing, json!([[0]])));
    server.http.post("/v1/lake/open/flush", &Value::Null);
    assert_eq!(count(), json!([[0]]), "nothing of it settles");
    holder.tell("commit");
    holder.wait_for_line(|line| line == "committed", Duration::from_secs(60)).unwrap();
    assert_eq!((view()["rows"].clone(), count()), (json!([[1, 1, "1"]]), json!([[1]])));
    server.http.post("/v1/lake/open/flush", &Value::Null);
    assert_eq!(count(), json!([[1]]), "settled");
}

#[test]
fn kafkas_tools_see_and_abort_transactions() {
    let scratch = Scratch::new("transactions-tools");
    let server = Server::start(&scratch);
    create_topic(&server.kafka, "open", 1);
    let mut holder = hold_open(&scratch, &server, "open");
    let class = "org.apache.kafka.tools.TransactionsCommand";
    let ask = |args: &[&str]| tool(class, &[&["--bootstrap-server", &server.kafka], args].concat());
    let listed = ask(&["list"]);
    let line = listed.lines().find(|line| line.starts_with("holder")).unwrap_or_else(|| panic!("{listed}"));
    assert!(line.contains("Ongoing"), "{listed}");
    let described = ask(&["describe", "--transactional-id", "holder"]);
    assert!(described.contains("Ongoing") && described.contains("open-0"), "{described}");
    let producers = ask(&["describe-producers", "--topic", "open", "--partition", "0"]);
    let row: Vec<&str> = producers.lines().last().unwrap().split_whitespace().collect();
    assert_eq!(*row.last().unwrap(), "0", "the transaction began at offset 0: {producers}");
    ask(&["abort", "--topic", "open", "--partition", "0", "--start-offset", "0"]);
    let after = ask(&["describe-producers", "--topic", "open", "--partition", "0"]);
    let row: Vec<&str> = after.lines().last().unwrap().split_whitespace().collect();
    assert_eq!(*row.last().unwrap(), "None", "{after}");
    holder.tell("leave");
    let features = tool("org.apache.kafka.tools.FeatureCommand", &["--bootstrap-server", &server.kafka, "describe"]);
    let line =
        features.lines().find(|line| line.contains("transaction.version")).unwrap_or_else(|| panic!("{features}"));
    assert!(line.contains("FinalizedVersionLevel: 2"), "{features}");
    let downgrade = ["--bootstrap-server", &server.kafka, "downgrade", "--feature", "transaction.version=1"];
    tool("org.apache.kafka.tools.FeatureCommand", &downgrade);
    let features = tool("org.apache.kafka.tools.FeatureCommand", &["--bootstrap-server", &server.kafka, "describe"]);
    let line =
        features.lines().find(|line| line.contains("transaction.version")).unwrap_or_else(|| panic!("{features}"));
    assert!(line.contains("FinalizedVersionLevel: 1"), "{features}");
}
