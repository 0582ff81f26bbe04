//! Every number that is served equals an independent computation over what the simulator says it sent (DuckDB and Python, see
//! `clients/oracle.py`), and outside readers find the same rows in the lake's directories.

use crate::support::scripts::{json_of, python};
use crate::support::server::{Server, millpond};
use crate::support::{Scratch, alone};
use serde_json::Value;
use std::fs;
use std::path::Path;

/// Events of the test; the issue asks for at least 200,000.
const EVENTS: u64 = 240_000;

/// The music system, settling often.
pub fn music(scratch: &Scratch) -> std::path::PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/music/system.toml");
    let text = fs::read_to_string(source).unwrap();
    let quick = text.replace("flush_age = \"30s\"", "flush_age = \"1s\"");
    assert_ne!(text, quick, "config/music/system.toml says how often it settles");
    scratch.write("system.toml", &quick)
}

/// What a checking script found; fails with its list of mistakes.
pub fn report(what: &str, command: &mut std::process::Command) -> Value {
    let report = json_of(command);
    let mistakes = report["mistakes"].as_array().unwrap();
    let text: Vec<&str> = mistakes.iter().map(|mistake| mistake.as_str().unwrap()).collect();
    eprintln!("{what}: {report:.2000}");
    assert!(mistakes.is_empty(), "{what}: {} mistakes:\n{}", mistakes.len(), text.join("\n"));
    report
}

pub fn oracle(server: &Server, system: &Path) -> std::process::Command {
    let mut command = python("clients/oracle.py");
    command.args([&server.kafka, server.http.address()]).arg(system).arg("listens");
    command
}

pub fn lake(server: &Server, system: &Path) -> std::process::Command {
    let mut command = python("clients/lake.py");
    command.arg(&server.kafka).arg(system).arg("listens").arg(server.lake_dir());
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
    let record = scratch.path("sent.jsonl");
    let mut simulate = millpond();
    simulate.args([
        "simulate",
        "music",
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

    let found = report("oracle", oracle(&server, &system).arg("--sent").arg(&record).args(["--dashboard", "music"]));
    assert!(found["sent"].as_u64().unwrap() >= 200_000, "{found}");
    let late: u64 = found["late"].as_object().unwrap().values().map(|late| late.as_u64().unwrap()).sum();
    assert!(
        late > 0 && found["rejected"].as_u64().unwrap() > 1000,
        "late and dirty rows are part of this test: {found}"
    );
    assert!(found["panels"].as_u64().unwrap() >= 5, "{found}");

    server.http.post("/v1/lake/listens/flush", &Value::Null);
    let settled = report("lake", lake(&server, &system).arg("--whole"));
    assert_eq!(settled["settled"], found["valid"], "{settled}");
    the_checks_can_fail(&scratch, &server, &system, &record);
    history_and_now_are_one_table(&server, &system, settled["settled"].as_u64().unwrap());
}

/// A check that cannot fail is a defect: each is shown a lie and must see it.
fn the_checks_can_fail(scratch: &Scratch, server: &Server, system: &Path, record: &Path) {
    let sees = |what: &str, command: &mut std::process::Command, mistake: &str| {
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

    let copy = scratch.path("lie-lake");
    crate::support::kafka::run(std::process::Command::new("cp").arg("-r").arg(server.lake_dir()).arg(&copy));
    let files = parquet_files(&copy);
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

fn parquet_files(folder: &Path) -> Vec<std::path::PathBuf> {
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
        "music",
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
    server.http.post("/v1/lake/listens/flush", &Value::Null);
    assert_eq!(count(), [settled + 5000, settled + 5000], "settled rows are counted once");
    report("lake", lake(server, system).arg("--whole"));
}
