//! A server is forked under load: the fork has one moment of log, groups, views and files, and from then on both go on without each other.

use crate::backup::{SECONDS_MAX, Writers, agreed, commit, committed, system, tick, verified};
use crate::support::server::{Options, Server, check, millpond};
use crate::support::{Scratch, beside_others, eventually};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

fn fork(server: &Server, data_dir: &Path) -> std::process::Output {
    millpond().arg("fork").arg(data_dir).args(["--http", server.http.address()]).output().unwrap()
}

fn count(server: &Server, sql: &str) -> i64 {
    server.http.sql(sql)[0][0].as_i64().unwrap()
}

#[test]
fn a_fork_has_one_moment_and_a_life_of_its_own() {
    let _beside = beside_others();
    let (scratch, other) = (Scratch::new("fork"), Scratch::new("fork-other"));
    let config = scratch.write("fork.toml", &system(&scratch.path("backups")));
    let options = Options { configs: vec![config], ..Default::default() };
    let mut server = Server::start_with(&scratch, options.clone());
    let writing = Writers::start(&server);
    let in_lake = |server: &Server| server.http.get("/v1/lake")["tables"][0]["rows"].as_i64().unwrap();
    eventually("files are settled", Duration::from_secs(60), || match in_lake(&server) {
        rows if rows > 1_000 => Ok(()),
        rows => Err(format!("{rows} rows settled")),
    });
    let sum = commit(&server.kafka);
    let (settled, before) = (in_lake(&server), count(&server, "SELECT count(*) FROM ticks"));

    let data_dir = other.path("server/data");
    let started = Instant::now();
    let forked = fork(&server, &data_dir);
    let took = started.elapsed();
    let said = String::from_utf8_lossy(&forked.stdout).into_owned();
    assert!(forked.status.success(), "{said}{}", String::from_utf8_lossy(&forked.stderr));
    assert!(took < SECONDS_MAX, "{took:?}");
    let numbers: Vec<u64> = said.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    assert!(numbers[2] > 0 && numbers[2] <= numbers[1], "nothing is shared: {said}");
    assert!(said.ends_with(&format!("lake.url with {}\n", data_dir.join("lake").display())), "{said}");
    assert!(!data_dir.join("forking").exists());
    check(&data_dir);

    // the first one goes on, beside it
    let mut second = Server::start_with(&other, options);
    assert_ne!(second.http.get("/v1/status")["cluster_id"], server.http.get("/v1/status")["cluster_id"]);
    let (end, pairs) = agreed(&second);
    assert!(end >= before && in_lake(&second) >= settled && pairs > 0, "{end} of {before} are there, {pairs} pairs");
    assert_eq!(committed(&second), sum, "the group's offsets");
    eventually("the first one goes on", Duration::from_secs(60), || {
        let now = count(&server, "SELECT count(*) FROM ticks");
        if now > end + 200 { Ok(()) } else { Err(format!("{now} after {end}")) }
    });
    assert_eq!(count(&second, "SELECT count(*) FROM ticks"), end, "and is not seen here");
    let own: Vec<Value> = (0..10).map(|at| tick(1_000_000 + at)).collect();
    assert_eq!(second.http.post("/v1/topics/ticks/records", &json!({ "records": own }))["accepted"], 10);
    second.http.post("/v1/lake/ticks/flush", &Value::Null);
    verified(&second, &["view", "--all"]);
    verified(&second, &["lake"]);
    let acknowledged = writing.stop();
    assert_eq!(agreed(&server), acknowledged, "nor is the fork seen there");
    server.http.post("/v1/lake/ticks/flush", &Value::Null);
    verified(&server, &["view", "--all"]);
    verified(&server, &["lake"]);

    // what one removes, the other has still
    assert!(server.stop().success());
    std::fs::remove_dir_all(server.data_dir()).unwrap();
    second.kill9();
    second.start_again();
    assert_eq!(count(&second, "SELECT count(*) FROM ticks"), end + 10);
    assert_eq!(count(&second, "SELECT count(DISTINCT id) FROM ticks"), end + 10);
    assert!(second.stop().success());
}

#[test]
fn a_fork_is_refused_where_it_would_take_something_or_share_the_lake() {
    let scratch = Scratch::new("fork-refused");
    let mut server = Server::with_config(&scratch, "topics = [{ name = \"ticks\" }]");
    let refused = |data_dir: &Path, why: &str| {
        let output = fork(&server, data_dir);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(why), "{said}");
    };
    let taken = scratch.path("taken");
    std::fs::create_dir_all(taken.join("store")).unwrap();
    std::fs::write(taken.join("store/CURRENT"), "mine").unwrap();
    refused(&taken, "is not empty");
    assert_eq!(std::fs::read_to_string(taken.join("store/CURRENT")).unwrap(), "mine");
    refused(&server.data_dir().join("fork"), "own data directory");
    // memory is a file system of its own
    let memory = Path::new("/dev/shm/millpond-fork");
    refused(memory, "another file system");
    assert!(!memory.exists());
    let file = scratch.write("file", "no directory");
    refused(&file, "cannot be written");
    for (body, why) in [(json!({"data_dir": "fork"}), "from the root"), (json!({"to": "/x"}), "data_dir")] {
        let (status, answer) = server.http.try_post("/v1/fork", &body).unwrap();
        assert!(status == 400 && answer.to_string().contains(why), "{status} {answer}");
    }
    assert!(server.stop().success());

    let elsewhere = Scratch::new("fork-elsewhere");
    let lake = elsewhere.path("lake");
    let mut server = Server::with_config(&elsewhere, &format!("[lake]\nurl = {:?}", lake.display().to_string()));
    let output = fork(&server, &elsewhere.path("fork"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("lake.url"), "{said}");
    assert!(!elsewhere.path("fork/store").exists());
    assert!(server.stop().success());
}
