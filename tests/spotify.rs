//! The spotify system from its file to its dashboard: 114,000 rows with dirty ones among them, killed several times in the middle of
//! the load; every record, refused row and number equals what plain Python computes from the file.

use crate::oracle::report;
use crate::support::kafka::run;
use crate::support::scripts::{json_of, python};
use crate::support::server::{Options, Server, millpond};
use crate::support::{Scratch, alone, eventually, seed};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const ROWS: u64 = 114_000;
const KILLS: u32 = 5;
const SOURCE: &str = "spotify-files";

/// The built-in system, loading on demand from a file of the test.
fn system(scratch: &Scratch, file: &Path, changes: &[(&str, &str)]) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/spotify/system.toml");
    let mut text = std::fs::read_to_string(source).unwrap();
    let path = format!("path = \"{}\"", file.display());
    let ours = [("path = \"${SPOTIFY_TRACKS:-{data_dir}/sample/tracks.csv}\"", path.as_str())];
    for (from, to) in ours.iter().chain(changes) {
        let changed = text.replace(from, to);
        assert_ne!(changed, text, "config/spotify/system.toml has {from}");
        text = changed;
    }
    scratch.write("spotify.toml", &text)
}

fn tracks(path: &Path, rows: u64, seed: u64) {
    let mut command = millpond();
    command.args(["simulate", "spotify", "--dirty", "0.02", "--duplicates", "0.01"]);
    command.args(["--count", &rows.to_string(), "--seed", &seed.to_string(), "--out"]).arg(path);
    eprintln!("{}", run(&mut command));
}

fn compare(server: &Server, file: &Path, system: &Path) -> Command {
    let mut command = python("clients/tracks.py");
    command.args([&server.kafka, server.http.address()]).arg(file).arg(system);
    command.args([SOURCE, "spotify-tracks", "spotify"]);
    command
}

fn status(server: &Server) -> Value {
    server.http.get(&format!("/v1/sources/{SOURCE}"))
}

fn load(server: &Server) -> Command {
    let mut command = millpond();
    command.args(["load", SOURCE, "--json", "--http", server.http.address()]);
    command
}

fn loaded(server: &Server) {
    eventually("the load ends", Duration::from_secs(120), || {
        let status = status(server);
        let state = status["runs"][0]["state"].as_str().unwrap_or("none").to_owned();
        if state == "done" && status["progress"].is_null() { Ok(()) } else { Err(format!("{status:.500}")) }
    });
}

#[test]
fn a_load_that_is_killed_again_and_again_has_each_row_once() {
    let _alone = alone();
    let scratch = Scratch::new("spotify");
    let mut random = StdRng::seed_from_u64(seed("spotify"));
    let file = scratch.path("tracks.csv");
    tracks(&file, ROWS, 7);
    let system = system(&scratch, &file, &[("delay = \"${DELAY_BETWEEN_BATCHES:-0s}\"", "delay = \"20ms\"")]);
    let mut server = Server::start_with(&scratch, Options { configs: vec![system.clone()], ..Default::default() });
    let mut before = 0;
    for kill in 1..=KILLS {
        let wanted = before + random.random_range(3_000..14_000);
        eventually("the load goes on", Duration::from_secs(60), || {
            let rows = status(&server)["rows"].as_u64().unwrap();
            if rows >= wanted { Ok(()) } else { Err(format!("{rows} rows of {wanted}")) }
        });
        server.kill9();
        server.start_again();
        let status = status(&server);
        before = status["rows"].as_u64().unwrap();
        let interrupted = status["runs"].as_array().unwrap().iter().filter(|run| run["state"] == "interrupted").count();
        assert_eq!(interrupted, kill as usize, "each kill is in the history: {status:.2000}");
    }
    assert!(before < ROWS, "the kills were to be in the middle: {before}");
    loaded(&server);
    let found = report("spotify", &mut compare(&server, &file, &system));
    assert!(found["rejected"].as_u64().unwrap() > 1_500 && found["skipped"].as_u64().unwrap() > 500, "{found}");
    assert!(found["rules"].as_object().unwrap().len() >= 9, "every kind of refusal comes up: {found}");
    assert!(found["panels"].as_u64().unwrap() >= 10, "{found}");
    let status = status(&server);
    for (key, count) in [("published", "published"), ("rejected", "rejected"), ("skipped", "skipped")] {
        assert_eq!(status[key], found[count], "{key}: {status:.1000}");
    }

    // The same content again: by name, touched, nothing is published.
    let again = json_of(&mut load(&server));
    assert_eq!((&again["state"], &again["rows"], &again["files_known"]), (&json!("done"), &json!(0), &json!(1)));
    let copy = std::fs::read(&file).unwrap();
    std::fs::write(&file, &copy).unwrap();
    let again = json_of(&mut load(&server));
    assert_eq!((&again["rows"], &again["files_known"]), (&json!(0), &json!(1)), "{again}");
    the_comparison_can_fail(&scratch, &server, &file, &system);
    assert!(server.stop().success());
}

/// A check that cannot fail is a defect: it is shown files of which the topic is not the image.
fn the_comparison_can_fail(scratch: &Scratch, server: &Server, file: &Path, system: &Path) {
    let text = std::fs::read(file).unwrap();
    let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    let shorter = scratch.path("shorter.csv");
    std::fs::write(&shorter, lines[..lines.len() - 500].concat()).unwrap();
    let found = json_of(&mut compare(server, &shorter, system));
    assert!(found["mistakes"].to_string().contains("nobody has"), "{found:.2000}");
    assert!(found["mistakes"].to_string().contains("view tracks_by_genre"), "{found:.3000}");
}

#[test]
fn the_command_shows_counts_and_fails_when_the_load_does() {
    let scratch = Scratch::new("load");
    let file = scratch.path("tracks.csv");
    let demand = [("when = \"once\"", "when = \"demand\""), ("retries = 5", "retries = 1")];
    let system = system(&scratch, &file, &demand);
    let mut server = Server::start_with(&scratch, Options { configs: vec![system.clone()], ..Default::default() });
    let failed = load(&server).output().unwrap();
    let said = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert!(!failed.status.success() && said.contains("tracks.csv"), "a missing file: {said}");
    assert_eq!(status(&server)["runs"][0]["retries"], 1);

    tracks(&file, 3_000, 3);
    let mut command = millpond();
    command.args(["load", SOURCE, "--http", server.http.address()]);
    let said = run(&mut command);
    let found = report("load", &mut compare(&server, &file, &system));
    let counts =
        format!("{} published, {} known already, {} refused", found["published"], found["skipped"], found["rejected"]);
    assert!(said.contains(&counts) && said.contains("topic spotify-files.rejected"), "{counts}\n{said}");

    server.http.post(&format!("/v1/sources/{SOURCE}/pause"), &Value::Null);
    assert_eq!(server.http.try_post(&format!("/v1/sources/{SOURCE}/run"), &Value::Null).unwrap().0, 409);
    server.http.post(&format!("/v1/sources/{SOURCE}/resume"), &Value::Null);
    assert_eq!(server.http.try_post("/v1/sources/nothing/run", &Value::Null).unwrap().0, 404);
    assert!(server.stop().success());
}

#[test]
fn a_watched_folder_takes_what_comes() {
    let scratch = Scratch::new("watched");
    let folder = scratch.path("in");
    std::fs::create_dir_all(&folder).unwrap();
    let watch = [("when = \"once\"", "when = \"watch\"\npoll = \"100ms\"")];
    let system = system(&scratch, &folder, &watch);
    let mut server = Server::start_with(&scratch, Options { configs: vec![system.clone()], ..Default::default() });
    let published = |server: &Server| status(server)["published"].as_u64().unwrap();
    assert_eq!(published(&server), 0);
    let file = folder.join("a.csv");
    tracks(&file, 500, 1);
    let wait = |server: &Server, more: u64| {
        eventually("the folder is read", Duration::from_secs(30), || {
            let status = status(server);
            let settled = status["published"].as_u64().unwrap() > more && status["progress"].is_null();
            if settled { Ok(()) } else { Err(format!("{status:.500}")) }
        })
    };
    wait(&server, 0);
    report("watched", &mut compare(&server, &file, &system));
    // Another file while the server is away, then one that grows.
    let before = published(&server);
    assert!(server.stop().success());
    let other = folder.join("b.csv");
    tracks(&other, 300, 2);
    server.start_again();
    wait(&server, before);
    let before = published(&server);
    let more = scratch.path("more.csv");
    tracks(&more, 200, 4);
    let text = std::fs::read(&more).unwrap();
    let body = &text[text.iter().position(|byte| *byte == b'\n').unwrap() + 1..];
    let mut grown = std::fs::OpenOptions::new().append(true).open(&other).unwrap();
    std::io::Write::write_all(&mut grown, body).unwrap();
    wait(&server, before);
    assert!(server.stop().success());
}
