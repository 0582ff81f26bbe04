//! `millpond verify` over the music system with late, dirty and doubled events: every view and every file agrees, after a kill -9 too,
//! and a state that was changed behind the server's back is named.

use crate::bad_input::change_store;
use crate::oracle::music;
use crate::support::kafka::run;
use crate::support::server::{Options, Server, millpond};
use crate::support::{Scratch, beside_others, eventually};
use broker::{Change, Family};
use serde_json::Value;
use std::process::Output;
use std::time::Duration;

const TAMPERED: &str = "plays_by_genre_minute";

#[test]
fn all_agrees_until_a_state_is_changed() {
    let _place = beside_others();
    let scratch = Scratch::new("verify");
    let configs = vec![music(&scratch)];
    let mut server = Server::start_with(&scratch, Options { configs, ..Default::default() });
    simulate(&server, "11");
    settled(&server);
    simulate(&server, "12");
    agrees(&server);
    simulate(&server, "13");
    server.kill9();
    server.start_again();
    agrees(&server);

    assert!(server.stop().success());
    change_store(&server, |broker| {
        let definition =
            broker.store().get(Family::State, &[&[0x01_u8][..], TAMPERED.as_bytes()].concat()).unwrap().unwrap();
        let prefix = [&[0x10_u8][..], &definition[1..5]].concat();
        let mut end = prefix.clone();
        *end.last_mut().unwrap() += 1;
        let states = broker.store().scan(Family::State, &prefix, &end).map(|entry| entry.unwrap());
        let states: Vec<(Vec<u8>, Vec<u8>)> = states.map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
        let other = states.iter().find(|(_, value)| *value != states[0].1).unwrap();
        Change::Put(Family::State, states[0].0.clone(), other.1.clone())
    });
    server.start_again();
    let found = verify(&server, &["view", TAMPERED]);
    assert_eq!(found.status.code(), Some(1), "{found:?}");
    let (said, why) = (String::from_utf8_lossy(&found.stdout), String::from_utf8_lossy(&found.stderr));
    assert!(why.contains(&format!("1 of 1 do not agree: {TAMPERED}")), "{why}");
    assert!(said.contains(&format!("{TAMPERED}: window_start=")) && said.contains(", recomputed "), "{said}");
    assert!(said.contains("compared at the offsets {\"listens\""), "{said}");
    let reports = json_lines(&verify(&server, &["view", TAMPERED, "activity_minute", "--json"]));
    assert_eq!((&reports[0]["sound"], &reports[1]["sound"]), (&Value::Bool(false), &Value::Bool(true)));
    let named = reports[0]["named"].as_array().unwrap();
    assert!(named.iter().all(|one| one["kind"] == "different" && one["group"] == named[0]["group"]), "{named:?}");
    assert_eq!(reports[0]["different"], 1);
    let views = server.http.get("/v1/views");
    let view = views["views"].as_array().unwrap().iter().find(|view| view["name"] == TAMPERED).unwrap();
    assert_eq!(view["verified"]["sound"], false);
    assert_eq!(verify(&server, &["view", "no_such_view"]).status.code(), Some(1));
    assert_eq!(verify(&server, &["view"]).status.code(), Some(2));
    assert!(server.stop().success());
}

fn simulate(server: &Server, seed: &str) {
    let mut simulate = millpond();
    simulate.args(["simulate", "music:simulator", "--as-fast-as-it-goes", "--count", "4000", "--spread", "90m"]);
    simulate.args(["--dirty", "0.05", "--late", "0.05", "--duplicates", "0.02", "--seed", seed]);
    run(simulate.args(["--bootstrap", &server.kafka]));
}

/// What was sent is in Parquet, and in all views.
fn settled(server: &Server) {
    for view in ["activity_minute", "genres_by_slot_minute"] {
        eventually(&format!("{view} is fresh"), Duration::from_secs(120), || {
            match server.http.try_get(&format!("/v1/views/{view}?limit=1&wait=20s"))? {
                (200, _) => Ok(()),
                (_, text) => Err(text),
            }
        });
    }
    server.http.post("/v1/lake/listens/flush", &Value::Null);
}

pub fn verify(server: &Server, arguments: &[&str]) -> Output {
    millpond().arg("verify").args(arguments).args(["--http", server.http.address()]).output().unwrap()
}

fn json_lines(output: &Output) -> Vec<Value> {
    String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// All views and all files agree, by table and by JSON.
fn agrees(server: &Server) {
    settled(server);
    let views = verify(server, &["view", "--all", "--json"]);
    assert!(views.status.success(), "{views:?}");
    let reports = json_lines(&views);
    assert_eq!(reports.len(), server.http.get("/v1/views")["views"].as_array().unwrap().len());
    for report in &reports {
        assert!(report["not_recomputed"].is_null() && report["groups"].as_u64() > Some(0), "{report}");
        assert_eq!((&report["equal"], &report["unjudged"]), (&report["groups"], &Value::from(0)), "{report}");
    }
    let late = reports.iter().find(|report| report["view"] == "activity_minute").unwrap();
    assert!(late["not_counted"].as_u64() > Some(50), "{late}");
    let lake = verify(server, &["lake"]);
    assert!(lake.status.success(), "{lake:?}");
    assert!(String::from_utf8_lossy(&lake.stdout).contains("listens"), "{lake:?}");
    let lake = json_lines(&verify(server, &["lake", "listens", "--json"]));
    assert!(lake[0]["file_rows"].as_u64() > Some(3_000) && lake[0]["differences"] == 0, "{lake:?}");
}
