//! The project-management system from Avro producers to dashboards and warehouse, with the lake on a real HDFS: every number equals an
//! independent computation over the raw topics (`clients/orangescrum.py`).

use crate::oracle::report;
use crate::support::hdfs::Hdfs;
use crate::support::kafka::run;
use crate::support::scripts::python;
use crate::support::server::{Options, Server, millpond};
use crate::support::{Scratch, alone, eventually, source};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

const DAY_S: u64 = 86_400;

/// Yesterday, as a date and as the second it began (UTC).
fn yesterday() -> (String, u64) {
    let now_s = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let start_s = now_s / DAY_S * DAY_S - DAY_S;
    let date = run(std::process::Command::new("date").args(["-u", "-d", &format!("@{start_s}"), "+%F"]));
    (date.trim().to_owned(), start_s)
}

fn system(scratch: &Scratch) -> PathBuf {
    let text = fs::read_to_string(source("../config/orangescrum/system.toml")).unwrap();
    // nothing runs by the clock while the test counts
    let quiet: Vec<&str> =
        text.lines().filter(|line| !line.starts_with("schedule = ") && !line.starts_with("deadline = ")).collect();
    scratch.write("system.toml", &quiet.join("\n"))
}

fn simulate(server: &Server, part: &str, count: u64, day: &str) {
    let mut command = millpond();
    let (registry, count) = (format!("http://{}/registry", server.http.address()), count.to_string());
    command.args(["simulate", &format!("orangescrum:{part}"), "--as-fast-as-it-goes", "--bootstrap", &server.kafka]);
    command.args([
        "--registry",
        &registry,
        "--count",
        &count,
        "--spread",
        "3h",
        "--start",
        &format!("{day}T08:00:00Z"),
    ]);
    command.args(["--seed", "11", "--dirty", "0.03", "--late", "0.02", "--duplicates", "0.02"]);
    let said = run(&mut command);
    eprintln!("{said}");
}

fn rows_of(server: &Server, table: &str) -> u64 {
    server.http.sql(&format!("SELECT count(*) FROM {table}"))[0][0].as_u64().unwrap()
}

#[test]
fn every_number_from_avro_to_the_warehouse() {
    let _alone = alone();
    let scratch = Scratch::new("orangescrum");
    let hdfs = Hdfs::start(&scratch);
    let args = vec!["--lake".to_owned(), hdfs.url("lake")];
    let options = Options { configs: vec![system(&scratch)], args, ..Options::default() };
    let mut server = Server::start_with(&scratch, options);
    let (day, _) = yesterday();
    simulate(&server, "users", 30_000, &day);
    simulate(&server, "projects", 30_000, &day);
    // joins take the tables as they are when an event is computed: let them be read first
    eventually("the tables are read", Duration::from_secs(30), || {
        match (rows_of(&server, "team_members"), rows_of(&server, "team_projects")) {
            (240, 30) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    simulate(&server, "events", 30_000, &day);
    simulate(&server, "logs", 20_000, &day);
    simulate(&server, "metrics", 20_000, &day);

    let first = run_job(&server, &day);
    let again = run_job(&server, &day);
    assert_eq!(warehouse(&hdfs), warehouse(&hdfs));
    assert!(first != again, "two runs have two numbers");
    let before = warehouse(&hdfs);
    run_job(&server, &day);
    assert_eq!(warehouse(&hdfs), before, "a day that is run again gives the same files");

    let lake = scratch.path("lake");
    hdfs.shell(&["-get", "/lake", &lake.display().to_string()]);
    let check = |arguments: &[&str]| {
        let mut command = python("clients/orangescrum.py");
        command.args([&server.kafka, server.http.address(), &format!("http://{}/registry", server.http.address())]);
        command.args(arguments);
        command
    };
    let found = report("orangescrum", &mut check(&["--day", &day, "--lake", &lake.display().to_string()]));
    assert!(found["rejected"].as_u64().unwrap() > 300 && found["duplicates"].as_u64().unwrap() > 100, "{found}");
    assert_eq!(found["versions"], 2, "the schema evolved in mid-stream: {found}");
    notebook(&server, &lake);
    assert!(hdfs.files("lake/processed").iter().all(|(_, replication)| *replication == 2));
    assert!(server.stop().success());
}

/// The notebook beside the system's configuration, from top to bottom.
fn notebook(server: &Server, lake: &Path) {
    let mut command = python("clients/notebook.py");
    command.arg(source("../config/orangescrum/notebook.ipynb"));
    command.env("MILLPOND_HTTP", server.http.address()).env("MILLPOND_LAKE", lake);
    let found = report("notebook", &mut command);
    assert!(found["tables"].as_u64().unwrap() >= 4, "{found}");
}

/// Files of the warehouse below the lake, with their sizes.
fn warehouse(hdfs: &Hdfs) -> BTreeSet<String> {
    let said = hdfs.shell(&["-du", "-v", "/lake/processed/fact_activities/*", "/lake/processed/agg_daily_metrics/*"]);
    said.lines().map(str::to_owned).collect()
}

/// Runs the nightly job for a day and waits for its end; the run's number.
fn run_job(server: &Server, day: &str) -> Value {
    let started = server.http.post(&format!("/v1/jobs/batch_transformation/run?day={day}"), &Value::Null);
    let number = started["run"].clone();
    eventually("the job ends", Duration::from_secs(120), || {
        let runs = server.http.get("/v1/jobs/batch_transformation/runs");
        let run = runs["runs"].as_array().and_then(|runs| runs.iter().find(|run| run["run"] == number)).cloned();
        match run.as_ref().map(|run| run["state"].as_str().unwrap_or("running").to_owned()) {
            Some(state) if state == "succeeded" => Ok(()),
            Some(state) if state == "failed" => panic!("the job failed: {:#}", run.unwrap()),
            other => Err(format!("{other:?}")),
        }
    });
    number
}
