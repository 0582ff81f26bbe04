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
    history_and_now_are_one_table(&server, &system, settled["settled"].as_u64().unwrap());
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
