//! The project-management system from Avro producers to dashboards and warehouse, with the lake on a real HDFS: every number, in the files
//! and as Chromium shows it, equals an independent computation over the raw topics (`clients/orangescrum.py`); old slices move to the
//! archive; the catalog leads from the sources to each panel.

use crate::oracle::{pages, report};
use crate::support::hdfs::Hdfs;
use crate::support::kafka::run;
use crate::support::scripts::python;
use crate::support::server::{Options, Server, millpond};
use crate::support::{Scratch, beside_others, eventually, source};
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
    simulate_with(server, (part, count), day, "11");
}

fn simulate_with(server: &Server, (part, count): (&str, u64), day: &str, seed: &str) {
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
    command.args(["--seed", seed, "--dirty", "0.03", "--late", "0.02", "--duplicates", "0.02"]);
    let said = run(&mut command);
    eprintln!("{said}");
}

fn rows_of(server: &Server, table: &str) -> u64 {
    server.http.sql(&format!("SELECT count(*) FROM {table}"))[0][0].as_u64().unwrap()
}

#[test]
fn every_number_from_avro_to_the_warehouse() {
    let _beside = beside_others();
    let scratch = Scratch::new("orangescrum");
    let hdfs = Hdfs::start(&scratch);
    let args = vec!["--lake".to_owned(), hdfs.url("lake")];
    let options = Options { configs: vec![system(&scratch)], args, ..Options::default() };
    let mut server = Server::start_with(&scratch, options);
    let (day, start_s) = yesterday();
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

    run_job(&server, "daily_ingestion", &day);
    let first = run_job(&server, "batch_transformation", &day);
    let again = run_job(&server, "batch_transformation", &day);
    assert!(first != again, "two runs have two numbers");
    let before = warehouse(&hdfs);
    run_job(&server, "batch_transformation", &day);
    assert_eq!(warehouse(&hdfs), before, "a day that is run again gives the same files");

    let lake = scratch.path("lake");
    for topic in ["events-raw", "activities", "logs", "metrics"] {
        // no merge of its own accord comes while the directories are copied
        server.http.post(&format!("/v1/lake/{topic}/merge"), &Value::Null);
    }
    hdfs.shell(&["-get", "/lake", &lake.display().to_string()]);
    let check = |arguments: &[&str]| {
        let mut command = python("clients/orangescrum.py");
        command.args([&server.kafka, server.http.address(), &format!("http://{}/registry", server.http.address())]);
        command.args(arguments);
        command
    };
    let (from, to) = (start_s * 1_000, (start_s + DAY_S) * 1_000);
    let range = format!("from={from}&to={to}");
    let wanted = [
        format!("orangescrum-live?{range}"),
        format!("orangescrum-projects?{range}"),
        format!("orangescrum-projects?team=mobile&{range}"),
        "orangescrum-warehouse".to_owned(),
    ];
    let shown = pages(&scratch, &server, &wanted);
    let arguments = ["--day", &day, "--lake", &lake.display().to_string(), "--shown", &shown.display().to_string()];
    let found = report("orangescrum", &mut check(&arguments));
    assert_eq!(found["panels"], 20, "{found}");
    assert!(found["rejected"].as_u64().unwrap() > 300 && found["duplicates"].as_u64().unwrap() > 100, "{found}");
    assert_eq!(found["versions"], 2, "the schema evolved in mid-stream: {found}");
    notebook(&server, &lake);
    the_catalog_leads_from_source_to_panel(&server);
    let alerts = server.http.get("/v1/alerts");
    assert!(alerts["alerts"].as_array().unwrap().iter().all(|alert| alert["error"].is_null()), "{alerts}");
    a_person_who_changes_teams_has_two_versions((&scratch, &server), &day);
    old_slices_move_to_the_archive(&hdfs, &server);
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

/// From a topic over stream, table, job and panel to the dashboard.
fn the_catalog_leads_from_source_to_panel(server: &Server) {
    let catalog = server.http.get("/v1/catalog");
    let lineage = catalog["lineage"].as_array().unwrap();
    for (from, to) in [
        ("topic:events-raw", "stream:raw_events"),
        ("topic:orangescrum-users", "table:team_members"),
        ("stream:raw_events", "topic:activities"),
        ("table:team_members", "topic:activities"),
        ("stream:activities", "view:projects_by_day"),
        ("stream:activities", "table:fact_activities"),
        ("table:fact_activities", "table:agg_daily_metrics"),
        ("job:batch_transformation", "table:agg_daily_metrics"),
        ("job:batch_transformation", "job:maintenance"),
        ("job:daily_ingestion", "files:events-raw"),
        ("view:log_levels_minute", "alert:application_errors"),
        ("table:agg_daily_metrics", "panel:orangescrum-warehouse/Events by day"),
        ("panel:orangescrum-warehouse/Events by day", "dashboard:orangescrum-warehouse"),
    ] {
        assert!(lineage.contains(&serde_json::json!([from, to])), "{from} → {to} is not in {lineage:#?}");
    }
}

/// Slowly changing: the former team stays, with the time until which it held, in the files and on the page.
fn a_person_who_changes_teams_has_two_versions((scratch, server): (&Scratch, &Server), day: &str) {
    let member = |team: &str| serde_json::json!({"key": "1", "value": {"user_id": 1, "name": "Amélie Ba", "team": team, "office": "Lyon", "role": "tester"}});
    server.http.post("/v1/topics/orangescrum-users/records", &serde_json::json!({"records": [member("lighthouse")]}));
    eventually("the change is read", Duration::from_secs(30), || {
        let team = server.http.sql("SELECT team FROM team_members WHERE user_id = 1")[0][0].clone();
        if team == "lighthouse" { Ok(()) } else { Err(team.to_string()) }
    });
    run_job(server, "warehouse_load", day);
    let shown = pages(scratch, server, &["orangescrum-warehouse".to_owned()]);
    let shown: Value = serde_json::from_str(&fs::read_to_string(shown).unwrap()).unwrap();
    let rows = shown["orangescrum-warehouse"][1]["rows"].as_array().unwrap();
    let versions: Vec<&Value> = rows.iter().filter(|row| row[0] == "1").collect();
    assert_eq!(versions.len(), 2, "{rows:?}");
    assert_eq!((&versions[0][5], &versions[1][5]), (&"false".into(), &"true".into()), "{versions:?}");
    assert_eq!((&versions[1][2], &versions[1][4]), (&"lighthouse".into(), &"–".into()), "{versions:?}");
    assert_eq!(versions[0][4], versions[1][3], "one ends where the next begins");
}

/// What is older than `archive_after` lies below `archive/` after the maintenance job, and SQL still finds it.
fn old_slices_move_to_the_archive(hdfs: &Hdfs, server: &Server) {
    let date = |days: u64| {
        let ago = format!("-{days} days");
        run(std::process::Command::new("date").args(["-u", "-d", &ago, "+%F"])).trim().to_owned()
    };
    let (old, young) = (date(40), date(20));
    simulate_with(server, ("events", 1_500), &old, "12");
    simulate_with(server, ("events", 1_500), &young, "13");
    server.http.post("/v1/lake/events-raw/flush", &Value::Null);
    let count = || server.http.sql("SELECT CAST(ts AS DATE) AS day, count(*) FROM raw_events GROUP BY 1 ORDER BY 1");
    let place = |zone: &str, day: &str| {
        let files = hdfs.files(&format!("lake/{zone}/events-raw"));
        files.iter().filter(|(path, _)| path.contains(&format!("/date={day}/"))).count()
    };
    let before = count();
    assert!(before.len() >= 3 && before[0][1].as_u64() > Some(500), "{before:?}");
    assert!(place("raw", &old) > 0 && place("raw", &young) > 0, "both have settled");
    run_job(server, "maintenance", &date(0));
    assert!(
        place("archive", &old) > 0,
        "the old slice is in the archive: {}",
        hdfs.shell(&["-ls", "-R", "/lake/archive"])
    );
    eventually("the old slice has left raw/", Duration::from_secs(30), || match place("raw", &old) {
        0 => Ok(()),
        files => Err(format!("{files} files")),
    });
    assert!(place("raw", &young) > 0, "the young slice stays");
    assert_eq!(count(), before, "no row is lost or doubled");
    // late rows of both days make more small files, which are merged where they lie
    simulate_with(server, ("events", 300), &old, "14");
    simulate_with(server, ("events", 300), &young, "15");
    server.http.post("/v1/lake/events-raw/flush", &Value::Null);
    run_job(server, "maintenance", &date(0));
    let (before, small) = (count(), place("archive", &old) + place("raw", &young));
    let merged = server.http.post("/v1/lake/events-raw/merge", &Value::Null);
    assert!(merged["merges"].as_u64() > Some(0), "{merged}");
    let partitions = server.http.sql("SELECT count(DISTINCT _partition) FROM raw_events")[0][0].as_u64().unwrap();
    for (zone, day) in [("archive", &old), ("raw", &young)] {
        assert!(place(zone, day) as u64 <= partitions, "{zone}: one file per partition of the slice, {small} before");
    }
    assert_eq!(count(), before, "no row is lost or doubled by merging");
}

/// Runs a job for a day and waits for its end; the run's number.
fn run_job(server: &Server, job: &str, day: &str) -> Value {
    let started = server.http.post(&format!("/v1/jobs/{job}/run?day={day}"), &Value::Null);
    let number = started["run"].clone();
    eventually("the job ends", Duration::from_secs(120), || {
        let runs = server.http.get(&format!("/v1/jobs/{job}/runs"));
        let run = runs["runs"].as_array().and_then(|runs| runs.iter().find(|run| run["run"] == number)).cloned();
        match run.as_ref().map(|run| run["state"].as_str().unwrap_or("running").to_owned()) {
            Some(state) if state == "succeeded" => Ok(()),
            Some(state) if state == "failed" => panic!("the job failed: {:#}", run.unwrap()),
            other => Err(format!("{other:?}")),
        }
    });
    number
}
