//! Every number that is served, and every panel as Chromium shows it, equals an independent computation over what the simulator says it
//! sent (DuckDB and Python, see `clients/oracle.py`), and outside readers find the same rows in the lake's directories.

use crate::support::scripts::{json_of, node, python};
use crate::support::server::{Server, millpond};
use crate::support::{Scratch, alone, eventually};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

/// Events of the test; the issue asks for at least 200,000.
const EVENTS: u64 = 240_000;

/// The music system, settling often.
pub fn music(scratch: &Scratch) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/music/system.toml");
    let text = fs::read_to_string(source).unwrap();
    let quick = text.replace("flush_age = \"30s\"", "flush_age = \"1s\"");
    assert_ne!(text, quick, "config/music/system.toml says how often it settles");
    scratch.write("system.toml", &quick)
}

/// What a checking script found; fails with its list of mistakes.
pub fn report(what: &str, command: &mut Command) -> Value {
    let report = json_of(command);
    let mistakes = report["mistakes"].as_array().unwrap();
    let text: Vec<&str> = mistakes.iter().map(|mistake| mistake.as_str().unwrap()).collect();
    eprintln!("{what}: {report:.2000}");
    assert!(mistakes.is_empty(), "{what}: {} mistakes:\n{}", mistakes.len(), text.join("\n"));
    report
}

pub fn oracle(server: &Server, system: &Path) -> Command {
    let mut command = python("clients/oracle.py");
    command.args([&server.kafka, server.http.address()]).arg(system).arg("listens");
    command
}

pub fn lake(server: &Server, system: &Path) -> Command {
    let mut command = python("clients/lake.py");
    command.arg(&server.kafka).arg(system).arg("listens").arg(server.lake_dir());
    command
}

/// Settles all of a topic and merges its files, so that its directories stay as they are while they are read; what was merged.
pub fn settle(server: &Server, topic: &str) -> Value {
    server.http.post(&format!("/v1/lake/{topic}/flush"), &Value::Null);
    server.http.post(&format!("/v1/lake/{topic}/merge"), &Value::Null)
}

/// Merges a topic's files again and again until the server is killed.
pub fn merging(server: &Server, topic: &str) -> thread::JoinHandle<()> {
    let (http, path) = (server.http.clone(), format!("/v1/lake/{topic}/merge"));
    thread::spawn(move || {
        while http.try_post(&path, &Value::Null).is_ok() {
            thread::sleep(Duration::from_millis(20));
        }
    })
}

/// Reads dashboards in Chromium, panel by panel; the file with what they show.
pub fn pages(scratch: &Scratch, server: &Server, pages: &[String]) -> PathBuf {
    let (out, shots) = (scratch.path("shown.json"), scratch.path("shots"));
    let mut command = node("clients/panels.js");
    command.arg(server.http.url("")).arg(&out).arg(&shots).args(pages);
    let found = report("pages", &mut command);
    assert!(found["panels"].as_u64().unwrap() as usize >= pages.len(), "{found}");
    out
}

/// The people of the music system, in its table before the first event is joined to them.
pub fn listeners(server: &Server) {
    let mut simulate = millpond();
    simulate.args(["simulate", "music:listeners", "--as-fast-as-it-goes", "--count", "120000", "--spread", "1h"]);
    simulate.args(["--dirty", "0.02", "--seed", "5", "--bootstrap", &server.kafka]);
    crate::support::kafka::run(&mut simulate);
    // The topic has one partition: when its last record is in the table, all are.
    let last = json!({"key": "1000000", "value": {"user_id": 1_000_000, "segment": "premium"}});
    server.http.post("/v1/topics/listeners/records", &json!({ "records": [last] }));
    eventually("the listeners are read", Duration::from_secs(30), || {
        match server.http.sql("SELECT segment FROM listeners WHERE user_id = 1000000").len() {
            1 => Ok(()),
            found => Err(format!("{found} rows")),
        }
    });
}

/// Everything about the music system: what is stored, its views, and both of its dashboards as the API gives and Chromium shows them.
pub fn everything(scratch: &Scratch, server: &Server, system: &Path) -> Command {
    const DAY_MS: u128 = 86_400_000;
    let now_ms = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis();
    // Long enough for the month before: a window is in the range if it starts there.
    let (from, to) = ((now_ms - 70 * DAY_MS).to_string(), (now_ms + DAY_MS).to_string());
    for view in ["engagement_month", "audience_month"] {
        // all at once is more than a view need take in while somebody waits
        eventually(&format!("{view} has taken in everything"), Duration::from_secs(300), || {
            match server.http.try_get(&format!("/v1/views/{view}?limit=1&wait=30s"))? {
                (200, _) => Ok(()),
                (_, text) => Err(text),
            }
        });
    }
    let dashboards = ["music", "music-history"];
    let wanted: Vec<String> = dashboards.iter().map(|name| format!("{name}?from={from}&to={to}")).collect();
    let shown = pages(scratch, server, &wanted);
    let mut command = oracle(server, system);
    command.args(["--enriched", "enriched", "--from", &from, "--to", &to]).arg("--shown").arg(shown);
    for name in dashboards {
        command.args(["--dashboard", name]);
    }
    command
}

#[test]
fn every_number_equals_an_independent_computation() {
    let _alone = alone();
    let scratch = Scratch::new("oracle");
    let system = music(&scratch);
    let server = Server::start_with(
        &scratch,
        crate::support::server::Options { configs: vec![system.clone()], ..Default::default() },
    );
    listeners(&server);
    let record = scratch.path("sent.jsonl");
    let mut simulate = millpond();
    simulate.args([
        "simulate",
        "music:simulator",
        "--as-fast-as-it-goes",
        "--bootstrap",
        &server.kafka,
        "--count",
        &EVENTS.to_string(),
    ]);
    simulate
        .args([
            "--spread",
            "5h",
            "--seed",
            "7",
            "--dirty",
            "0.02",
            "--late",
            "0.01",
            "--duplicates",
            "0.01",
            "--record",
        ])
        .arg(&record);
    let said = crate::support::kafka::run(&mut simulate);
    eprintln!("{said}");

    let found = report("oracle", everything(&scratch, &server, &system).arg("--sent").arg(&record));
    assert!(found["sent"].as_u64().unwrap() >= 200_000, "{found}");
    let late: u64 = found["late"].as_object().unwrap().values().map(|late| late.as_u64().unwrap()).sum();
    assert!(
        late > 0 && found["rejected"].as_u64().unwrap() > 1000,
        "late and dirty rows are part of this test: {found}"
    );
    assert!(found["panels"].as_u64().unwrap() >= 29 && found["panels"] == found["shown"], "{found}");
    let kinds = |column: &str| found["enriched"][column].as_u64().unwrap();
    assert!(kinds("region") >= 6 && kinds("segment") == 5 && kinds("time_slot") == 4, "{found}");

    settle(&server, "listens");
    let settled = report("lake", lake(&server, &system).arg("--whole"));
    assert_eq!(settled["settled"], found["valid"], "{settled}");
    the_checks_can_fail(&scratch, &server, &system, &record);
    history_and_now_are_one_table(&server, &system, settled["settled"].as_u64().unwrap());
}

/// A check that cannot fail is a defect: each is shown a lie and must see it.
fn the_checks_can_fail(scratch: &Scratch, server: &Server, system: &Path, record: &Path) {
    let sees = |what: &str, command: &mut Command, mistake: &str| {
        let report = json_of(command);
        assert!(report["mistakes"].to_string().contains(mistake), "{what} went unseen: {report:.2000}");
    };
    let text = fs::read_to_string(system).unwrap();
    let other_sum = scratch.write("lie-sum.toml", &text.replacen("sum(duration_ms)", "sum(duration_ms + 1)", 1));
    sees("a sum off by one a row", &mut oracle(server, &other_sum), "activity_minute: ");
    let other_rule = scratch.write("lie-rule.toml", &text.replace("user_id > 0", "user_id > 1"));
    sees("a row refused or not", &mut oracle(server, &other_rule), "should be rejected and is not");
    let lines = fs::read_to_string(record).unwrap();
    let shorter = scratch.write("lie-sent.jsonl", lines.split_once('\n').unwrap().1);
    sees("a record nobody sent", oracle(server, system).arg("--sent").arg(&shorter), "never sent");
    let other_slot =
        scratch.write("lie-slot.toml", &text.replace("\"JP\", \"Asia\", \"540\"", "\"JP\", \"Asia\", \"0\""));
    sees("another time slot", oracle(server, &other_slot).args(["--enriched", "enriched"]), "enriched: ");
    let shown = fs::read_to_string(scratch.path("shown.json")).unwrap();
    let figure = shown.split("\"figure\":\"").nth(1).unwrap().split('"').next().unwrap();
    let other_figure = scratch.write("lie-shown.json", &shown.replacen(figure, "1", 1));
    let mut command = oracle(server, system);
    command.args(["--enriched", "enriched", "--dashboard", "music", "--shown"]).arg(other_figure);
    sees("a page that shows something else", &mut command, "the page shows '1'");

    let copy = scratch.path("lie-lake");
    crate::support::kafka::run(Command::new("cp").arg("-r").arg(server.lake_dir()).arg(&copy));
    // the lake has other tables, too, and which comes first is chance
    let files = parquet_files(&copy.join("listens"));
    let at_copy = |whole: bool| {
        let mut command = python("clients/lake.py");
        command.arg(&server.kafka).arg(system).arg("listens").arg(&copy).args(whole.then_some("--whole"));
        command
    };
    fs::copy(&files[0], files[0].with_file_name("doubled.parquet")).unwrap();
    sees("a doubled file", &mut at_copy(false), "in Parquet 2 times");
    fs::remove_file(files[0].with_file_name("doubled.parquet")).unwrap();
    fs::remove_file(&files[0]).unwrap();
    sees("a lost file", &mut at_copy(true), "in the log and not in Parquet");
}

fn parquet_files(folder: &Path) -> Vec<PathBuf> {
    let entries: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    let inside = entries.iter().filter(|path| path.is_dir()).flat_map(|path| parquet_files(path));
    let here = entries.iter().filter(|path| path.extension().is_some_and(|end| end == "parquet")).cloned();
    here.chain(inside).collect()
}

/// SQL sees Parquet and the live log as one table: more rows arrive, are counted at once, settle, and are counted once.
fn history_and_now_are_one_table(server: &Server, system: &Path, settled: u64) {
    let count = || {
        server
            .http
            .sql("SELECT count(*) AS n, count(DISTINCT _partition * 1000000000 + _offset) AS places FROM listens")[0]
            .clone()
    };
    assert_eq!(count(), [settled, settled], "all settled");
    let mut more = millpond();
    more.args([
        "simulate",
        "music:simulator",
        "--as-fast-as-it-goes",
        "--bootstrap",
        &server.kafka,
        "--count",
        "5000",
        "--dirty",
        "0",
        "--seed",
        "8",
    ]);
    crate::support::kafka::run(&mut more);
    assert_eq!(count(), [settled + 5000, settled + 5000], "live rows are counted at once");
    settle(server, "listens");
    assert_eq!(count(), [settled + 5000, settled + 5000], "settled rows are counted once");
    report("lake", lake(server, system).arg("--whole"));
}
