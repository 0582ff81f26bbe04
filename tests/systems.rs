//! All systems in one process, as `make run` starts them: ready in seconds, small, every page whole at phone and desktop width.

use crate::oracle::report;
use crate::support::http::Http;
use crate::support::process::Process;
use crate::support::scripts::node;
use crate::support::server::millpond;
use crate::support::{Scratch, alone, eventually};
use std::time::{Duration, Instant};

/// What all four together may take at any time, while their files are written and loaded, too.
const RESIDENT_BYTES_MAX: u64 = 500 << 20;

#[test]
fn all_systems_run_in_one_process_and_every_page_is_whole() {
    let _alone = alone();
    let scratch = Scratch::new("systems");
    let mut command = millpond();
    command.args([
        "demo",
        "--kafka",
        "127.0.0.1:0",
        "--http",
        "127.0.0.1:0",
        "--registry",
        "127.0.0.1:0",
        "--rate",
        "5",
    ]);
    command.arg("--data-dir").arg(scratch.path("data"));
    let started = Instant::now();
    let mut demo = Process::start(command, &scratch.path("demo"));
    let ready = demo.wait_for_line(|line| line.starts_with("millpond ready"), Duration::from_secs(60));
    let ready = ready.unwrap_or_else(|error| panic!("{error}"));
    eprintln!("systems: ready after {:?}", started.elapsed());
    let address = ready.split("http=").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    let http = Http::new(&address);
    eventually("every system has records", Duration::from_secs(120), || {
        let topics = http.get("/v1/topics");
        let records = |name: &str| {
            let list = topics["topics"].as_array().unwrap();
            list.iter().find(|topic| topic["name"] == name).map_or(0, |topic| topic["records"].as_i64().unwrap_or(0))
        };
        let wanted = [("listens", 20_000), ("Factures", 5_000), ("spotify-tracks", 50_000), ("activities", 10_000)];
        match wanted.iter().find(|(name, count)| records(name) < *count) {
            Some((name, count)) => Err(format!("{name} has {} of {count} records", records(name))),
            None => Ok(()),
        }
    });
    let found = report("systems", node("clients/systems.js").arg(http.url("")).arg(scratch.path("shots")));
    assert!(found["pages"].as_u64().unwrap() >= 16 && found["numbers"].as_u64().unwrap() >= 6, "{found}");
    let (resident, peak) = (demo.resident_bytes(), demo.peak_bytes());
    eprintln!("systems: {} MiB resident, {} MiB at most", resident >> 20, peak >> 20);
    assert!(peak <= RESIDENT_BYTES_MAX, "{} MiB resident at most", peak >> 20);
    assert!(demo.terminate(Duration::from_secs(30)).success());
}
