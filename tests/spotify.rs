//! The spotify system from its file to its dashboards: 114,000 rows with dirty ones among them, killed several times in the middle of
//! the load; every record, refused row, number on the page, exported file and alert equals what plain Python computes from the file.

use crate::oracle::{pages, report};
use crate::support::files::offer;
use crate::support::kafka::run;
use crate::support::scripts::{json_of, python};
use crate::support::server::{Options, Server, millpond};
use crate::support::{Scratch, beside_others, eventually, seed};
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

fn compare(server: &Server, file: &Path) -> Command {
    let mut command = python("clients/tracks.py");
    command.args([&server.kafka, server.http.address()]).arg(file).args([SOURCE, "spotify-tracks"]);
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
    let _beside = beside_others();
    let scratch = Scratch::new("spotify");
    let mut random = StdRng::seed_from_u64(seed("spotify"));
    let file = scratch.path("tracks.csv");
    tracks(&file, ROWS, 7);
    let system = system(&scratch, &file, &[("delay = \"${DELAY_BETWEEN_BATCHES:-0s}\"", "delay = \"20ms\"")]);
    let exports = scratch.path("exports");
    let env = vec![
        ("STATS_INTERVAL", "4s".to_owned()),
        ("EXPORT_INTERVAL", "2s".to_owned()),
        ("OUTPUT_DIR", exports.display().to_string()),
    ];
    let mut server = Server::start_with(&scratch, Options { configs: vec![system], env, ..Default::default() });
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
    exports_and_alerts_follow(&server);
    let track = "SELECT track_id FROM tracks GROUP BY track_id HAVING count(*) > 1 ORDER BY track_id LIMIT 1";
    let track = server.http.sql(track)[0][0].as_str().unwrap().to_owned();
    let day_ms = 86_400_000;
    let now_ms = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis();
    let (from, to) = ((now_ms - day_ms).to_string(), (now_ms + day_ms).to_string());
    let wanted = [format!("spotify?from={from}&to={to}"), format!("spotify-discover?track={track}")];
    let shown = pages(&scratch, &server, &wanted);
    let mut everything = compare(&server, &file);
    everything.args(["--track", &track, "--from", &from, "--to", &to, "--alerts"]);
    everything.arg("--shown").arg(&shown).arg("--exports").arg(&exports);
    let found = report("spotify", &mut everything);
    assert!(found["rejected"].as_u64().unwrap() > 1_500 && found["skipped"].as_u64().unwrap() > 500, "{found}");
    assert!(found["rules"].as_object().unwrap().len() >= 9, "every kind of refusal comes up: {found}");
    assert_eq!(found["panels"], 17, "{found}");
    assert!(found["alerts"]["explicit_genre"].as_u64() > Some(0), "a genre is told of: {found}");
    assert!(found["alerts"]["very_long_track"].as_u64() > Some(0), "a track is told of: {found}");
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
    the_comparison_can_fail(&scratch, &server, (&file, &exports), (&track, &from, &to));
    assert!(server.stop().success());
}

/// After the load each sink writes once more, and each alert looks once more.
fn exports_and_alerts_follow(server: &Server) {
    let count = |list: &str, key: &str| -> Vec<u64> {
        let found = server.http.get(&format!("/v1/{list}"));
        found[list].as_array().unwrap().iter().map(|one| one[key].as_u64().unwrap_or(0)).collect()
    };
    let checked = || {
        let found = server.http.get("/v1/alerts");
        let alerts = found["alerts"].as_array().unwrap().iter();
        alerts.map(|one| one["checked"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    let (files, looks) = (count("sinks", "files"), checked());
    assert_eq!((files.len(), looks.len()), (3, 2));
    // Two more: the one in the making may have begun before the load ended.
    eventually("each sink writes", Duration::from_secs(60), || {
        let now = count("sinks", "files");
        if now.iter().zip(&files).all(|(now, before)| *now >= before + 2) { Ok(()) } else { Err(format!("{now:?}")) }
    });
    for _ in 0..2 {
        let looks = checked();
        eventually("each alert looks", Duration::from_secs(60), || {
            let now = checked();
            if now.iter().zip(&looks).all(|(now, before)| now > before) { Ok(()) } else { Err(format!("{now:?}")) }
        });
    }
}

/// A check that cannot fail is a defect: it is shown files of which the topic is not the image, and lies about page and exports.
fn the_comparison_can_fail(
    scratch: &Scratch,
    server: &Server,
    (file, exports): (&Path, &Path),
    (track, from, to): (&str, &str, &str),
) {
    let text = std::fs::read(file).unwrap();
    let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    let shorter = scratch.path("shorter.csv");
    std::fs::write(&shorter, lines[..lines.len() - 500].concat()).unwrap();
    let found = json_of(&mut compare(server, &shorter));
    assert!(found["mistakes"].to_string().contains("nobody has"), "{found:.2000}");
    assert!(found["mistakes"].to_string().contains("view tracks_by_genre"), "{found:.3000}");

    let lies = scratch.path("lies");
    std::fs::create_dir_all(&lies).unwrap();
    for name in ["genres.csv", "artists.csv", "summary.json"] {
        let text = std::fs::read_to_string(exports.join(name)).unwrap();
        std::fs::write(lies.join(name), text.replacen(".5", ".6", 1)).unwrap();
    }
    let shown = std::fs::read_to_string(scratch.path("shown.json")).unwrap();
    let other = scratch.write("lie-shown.json", &shown.replacen(&format!("\"{track}\""), "\"another\"", 1));
    let mut command = compare(server, file);
    command.args(["--track", track, "--from", from, "--to", to]).arg("--shown").arg(other).arg("--exports").arg(lies);
    let found = json_of(&mut command)["mistakes"].to_string();
    assert!(found.contains("panel Chosen track of ") && found.contains("genres.csv: "), "{found:.3000}");
}

#[test]
fn the_command_shows_counts_and_fails_when_the_load_does() {
    let scratch = Scratch::new("load");
    let file = scratch.path("tracks.csv");
    let demand = [("when = \"once\"", "when = \"demand\""), ("retries = 5", "retries = 1")];
    let configs = vec![system(&scratch, &file, &demand)];
    let mut server = Server::start_with(&scratch, Options { configs, ..Default::default() });
    let failed = load(&server).output().unwrap();
    let said = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert!(!failed.status.success() && said.contains("tracks.csv"), "a missing file: {said}");
    assert_eq!(status(&server)["runs"][0]["retries"], 1);

    tracks(&file, 3_000, 3);
    let mut command = millpond();
    command.args(["load", SOURCE, "--http", server.http.address()]);
    let said = run(&mut command);
    let found = report("load", &mut compare(&server, &file));
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
    let configs = vec![system(&scratch, &folder, &watch)];
    let mut server = Server::start_with(&scratch, Options { configs, ..Default::default() });
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
    report("watched", &mut compare(&server, &file));
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

/// The system as it is in the repository, changed by its variables alone; the dataset comes by URL.
#[test]
fn the_environment_changes_the_settings_and_the_dataset_comes_by_url() {
    let scratch = Scratch::new("settings");
    let file = scratch.path("tracks.csv");
    tracks(&file, 4_000, 21);
    let output = scratch.path("output");
    let env = vec![
        ("SPOTIFY_TRACKS", offer(&file)),
        ("BATCH_SIZE", "500".to_owned()),
        ("DELAY_BETWEEN_BATCHES", "250ms".to_owned()),
        ("STATS_INTERVAL", "2s".to_owned()),
        ("EXPORT_INTERVAL", "1s".to_owned()),
        ("OUTPUT_DIR", output.display().to_string()),
        ("CREATE_TOPICS", "spotify-tracks:5:1,spotify-errors:2:1".to_owned()),
        ("RETENTION_HOURS", "24".to_owned()),
    ];
    let configs = vec![crate::support::source("../config/spotify/system.toml")];
    let mut server = Server::start_with(&scratch, Options { configs, env, ..Default::default() });
    loaded(&server);
    let found = report("settings", &mut compare(&server, &file));
    // Eight batches, each with its own time, and a pause after each.
    assert!(found["timestamps"].as_u64() >= Some(8), "{found}");
    let seen = server.http.sql("SELECT min(timestamp), max(timestamp) FROM tracks")[0].clone();
    let ms = |value: &Value| chrono::DateTime::parse_from_rfc3339(value.as_str().unwrap()).unwrap().timestamp_millis();
    assert!(ms(&seen[1]) - ms(&seen[0]) >= 7 * 250, "{seen:?}");
    let topic = server.http.get("/v1/topics/spotify-tracks");
    assert_eq!((&topic["partitions"], &topic["config"]["retention.ms"]), (&json!(5), &json!("86400000")), "{topic}");
    assert_eq!(server.http.get("/v1/topics/spotify-errors")["partitions"], 2);
    assert_eq!(server.http.get("/v1/dashboards/spotify")["refresh_ms"], 2_000);
    let alerts = server.http.get("/v1/alerts");
    assert_eq!(alerts["alerts"][0]["every_seconds"], 2.0, "{alerts:.500}");
    exports_and_alerts_follow(&server);
    report("exports", compare(&server, &file).arg("--exports").arg(&output));
    assert!(server.stop().success());
}

/// A source with cron times reads its URL at each of them, and of a file that grew only what is new.
#[test]
fn a_url_is_read_at_its_times() {
    let scratch = Scratch::new("cron");
    let (file, more) = (scratch.path("tracks.csv"), scratch.path("more.csv"));
    tracks(&file, 1_000, 31);
    tracks(&more, 400, 32);
    let path = PathBuf::from(offer(&file));
    let times = [("when = \"once\"", "schedule = \"* * * * *\"\ntime_zone = \"Europe/Paris\"")];
    let configs = vec![system(&scratch, &path, &times)];
    let mut server = Server::start_with(&scratch, Options { configs, ..Default::default() });
    let first = status(&server);
    assert_eq!((&first["when"], &first["rows"]), (&json!("schedule"), &json!(0)), "{first}");
    let runs = |wanted: u64| {
        eventually("the next minute begins", Duration::from_secs(90), || {
            let status = status(&server);
            let rows = status["rows"].as_u64().unwrap();
            if rows >= wanted && status["progress"].is_null() { Ok(status) } else { Err(format!("{status:.300}")) }
        })
    };
    let status = runs(990);
    assert_eq!(status["runs"][0]["trigger"], "schedule", "{status:.1000}");
    report("first time", &mut compare(&server, &file));
    let text = std::fs::read(&more).unwrap();
    let body = &text[text.iter().position(|byte| *byte == b'\n').unwrap() + 1..];
    let mut grown = std::fs::OpenOptions::new().append(true).open(&file).unwrap();
    std::io::Write::write_all(&mut grown, body).unwrap();
    runs(1_390);
    report("second time", &mut compare(&server, &file));
    assert!(server.stop().success());
}
