//! Jobs and alerts: a failing step, a retry, what follows, a past day again, kill -9 in the middle; an alert that fires once
//! and recovers once, at a real HTTP receiver and a real mail server.

use crate::support::process::Process;
use crate::support::scripts::python;
use crate::support::server::Server;
use crate::support::{Scratch, eventually};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// An HTTP receiver that answers the first few requests with 503, and keeps what it took.
struct Receiver {
    url: String,
    taken: Arc<Mutex<Vec<Value>>>,
}

impl Receiver {
    fn start(mut refusals: u32) -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let taken = Arc::new(Mutex::new(Vec::new()));
        let keep = taken.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut length = 0;
                let mut line = String::new();
                while reader.read_line(&mut line).unwrap_or(0) > 2 {
                    let lower = line.to_ascii_lowercase();
                    if let Some(value) = lower.strip_prefix("content-length:") {
                        length = value.trim().parse().unwrap();
                    }
                    line.clear();
                }
                let mut body = vec![0; length];
                if reader.read_exact(&mut body).is_err() {
                    continue;
                }
                let status = if refusals > 0 { "503 Not Now" } else { "200 OK" };
                if refusals == 0 {
                    keep.lock().unwrap().push(serde_json::from_slice(&body).unwrap());
                }
                refusals = refusals.saturating_sub(1);
                let _ = write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok");
            }
        });
        Receiver { url, taken }
    }

    fn taken(&self) -> Vec<Value> {
        self.taken.lock().unwrap().clone()
    }
}

const STREAM: &str = r#"
[[streams]]
name = "rooms"
topic = "rooms"
event_time = "ts"
columns = [
    { name = "room", type = "VARCHAR", required = true },
    { name = "ts", type = "TIMESTAMP", required = true },
    { name = "heat", type = "BIGINT", required = true },
]
[[views]]
sql = "CREATE MATERIALIZED VIEW hottest AS SELECT room, max(heat) AS heat, count(*) AS looks FROM rooms GROUP BY room"
"#;

fn heat(server: &Server, room: &str, heat: i64) {
    let record =
        json!({"records": [{"key": room, "value": {"room": room, "ts": "2026-11-20T08:00:00Z", "heat": heat}}]});
    server.http.post("/v1/topics/rooms/records", &record);
}

#[test]
fn an_alert_fires_once_and_recovers_once_over_every_channel() {
    let scratch = Scratch::new("alerts");
    let receiver = Receiver::start(2);
    let mut mails = Process::start(python("clients/mail_receiver.py"), &scratch.path("mails"));
    let line = mails.wait_for_line(|line| line.contains("port"), Duration::from_secs(60)).unwrap();
    let port = serde_json::from_str::<Value>(&line).unwrap()["port"].clone();
    // A room is too hot while its last record says so.
    let system = format!(
        r#"{STREAM}
[smtp]
host = "127.0.0.1"
port = {port}
tls = "none"
from = "Millpond <millpond@example.org>"
[[alerts]]
name = "too_hot"
sql = """
SELECT room, heat FROM (SELECT room, heat, row_number() OVER (PARTITION BY room ORDER BY _offset DESC) AS n FROM rooms) WHERE n = 1 AND heat > 30
"""
labels = ["room"]
every = "200ms"
for = "500ms"
clear_for = "500ms"
severity = "critical"
message = "{{heat}} degrees in {{room}}"
topic = "alerts"
webhook = "{}"
email = ["a@example.org", "B <b@example.org>"]
[[alerts]]
name = "broken"
sql = "SELECT nothing FROM nowhere"
every = "200ms"
"#,
        receiver.url
    );
    let mut server = Server::with_config(&scratch, &system);
    heat(&server, "north", 20);
    heat(&server, "south", 35);
    let alert = |server: &Server| server.http.get("/v1/alerts")["alerts"][0].clone();
    eventually("it fires and is told", Duration::from_secs(30), || {
        let told = receiver.taken().len() == 1 && mails.stdout().lines().count() == 2;
        if told { Ok(()) } else { Err(alert(&server).to_string()) }
    });
    let state = alert(&server);
    assert_eq!(state["state"], "firing", "{state}");
    assert_eq!(state["instances"][0]["message"], "35 degrees in south", "{state}");
    assert_eq!(state["instances"].as_array().unwrap().len(), 1, "{state}");
    // Neither a restart nor a kill tells it again.
    server.kill9();
    server.start_again();
    std::thread::sleep(Duration::from_millis(1_500));
    heat(&server, "south", 21);
    eventually("it recovers and is told", Duration::from_secs(30), || {
        let told = receiver.taken().len() >= 2 && mails.stdout().lines().count() >= 3;
        if told { Ok(()) } else { Err(alert(&server).to_string()) }
    });
    std::thread::sleep(Duration::from_millis(1_000));
    let taken = receiver.taken();
    let states: Vec<&str> = taken.iter().map(|notice| notice["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["firing", "resolved"], "{taken:?}");
    assert_eq!(taken[0]["text"], "35 degrees in south");
    assert_eq!(taken[0]["labels"], json!({"room": "south"}));
    assert_eq!(taken[0]["severity"], "critical");
    let mails: Vec<Value> = mails.stdout().lines().skip(1).map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(mails.len(), 2, "{mails:?}");
    assert_eq!(mails[0]["to"], json!(["a@example.org", "b@example.org"]));
    assert_eq!(mails[0]["subject"], "[critical] too_hot firing: 35 degrees in south");
    assert_eq!(mails[1]["subject"], "[critical] too_hot resolved: 35 degrees in south");
    let records = server.http.get("/v1/topics/alerts");
    assert_eq!(records["records"], 2, "{records}");
    let state = alert(&server);
    assert_eq!((&state["state"], state["instances"].as_array().unwrap().len()), (&json!("ok"), 0));
    let attempts: Vec<i64> =
        state["deliveries"].as_array().unwrap().iter().map(|delivery| delivery["attempts"].as_i64().unwrap()).collect();
    assert_eq!((attempts.len(), attempts.iter().max()), (4, Some(&3)), "refused twice, then taken: {state}");
    let broken = server.http.get("/v1/alerts")["alerts"][1].clone();
    assert!(broken["error"].as_str().unwrap().contains("nowhere"), "{broken}");
    let metrics = server.http.text("/metrics");
    assert!(metrics.contains("millpond_alert_instances{alert=\"too_hot\",severity=\"critical\",state=\"firing\"} 0"));
    server.stop();
}

fn runs(server: &Server, job: &str) -> Vec<Value> {
    server.http.get(&format!("/v1/jobs/{job}/runs"))["runs"].as_array().unwrap().clone()
}

fn ended(server: &Server, job: &str, count: usize) -> Vec<Value> {
    eventually("the runs have ended", Duration::from_secs(60), || {
        let runs = runs(server, job);
        let over = runs.iter().filter(|run| run["ended"].is_string()).count();
        if over >= count && over == runs.len() { Ok(runs) } else { Err(format!("{runs:?}")) }
    })
}

#[test]
fn jobs_retry_follow_fail_and_run_again_for_a_past_day() {
    let scratch = Scratch::new("jobs");
    let (flaky, notices) = (Receiver::start(1), Receiver::start(0));
    // Takes connections and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let exports = scratch.path("exports");
    let system = format!(
        r#"{STREAM}
[[sinks]]
name = "hottest"
kind = "file"
view = "hottest"
folder = {exports:?}
[[jobs]]
name = "load"
retries = 1
retry_delay = "100ms"
steps = [
    {{ flush = "rooms" }},
    {{ name = "any", sql = "SELECT count(*) > 0 AS any, CAST($day AS DATE) < DATE '2027-01-01' AS old, $run > 0 AS run FROM rooms", check = true }},
    {{ sql = "SELECT count(*) AS records, $day AS day FROM rooms" }},
    {{ webhook = "{}", message = "{{job}} of {{day}}: {{answer}}" }},
]
webhook = "{}"
[[jobs]]
name = "report"
after = ["load"]
steps = [{{ export = "hottest" }}]
[[jobs]]
name = "slow"
timeout = "30s"
retries = 0
steps = [{{ webhook = "http://{}/" }}]
"#,
        flaky.url,
        notices.url,
        silent.local_addr().unwrap()
    );
    let mut server = Server::with_config(&scratch, &system);
    // Without a record the check fails, at both attempts; nothing follows, and it is told.
    server.http.post("/v1/jobs/load/run?day=2026-11-19", &Value::Null);
    let failed = ended(&server, "load", 1);
    assert_eq!((&failed[0]["state"], &failed[0]["day"]), (&json!("failed"), &json!("2026-11-19")), "{failed:?}");
    let any = &failed[0]["steps"][1];
    assert_eq!((&any["name"], &any["state"], &any["attempts"]), (&json!("any"), &json!("failed"), &json!(2)), "{any}");
    assert!(any["message"].as_str().unwrap().contains("any false"), "{any}");
    assert!(runs(&server, "report").is_empty());
    heat(&server, "north", 20);
    // The same day again: the webhook is refused once and tried again; the report follows; the recovery is told.
    server.http.post("/v1/jobs/load/run?day=2026-11-19", &Value::Null);
    let load = ended(&server, "load", 2);
    assert_eq!(load[0]["state"], "succeeded", "{load:?}");
    let attempts: Vec<&Value> = load[0]["steps"].as_array().unwrap().iter().map(|step| &step["attempts"]).collect();
    assert_eq!(attempts, [1, 1, 1, 2], "{load:?}");
    assert_eq!(flaky.taken()[0]["text"], "load of 2026-11-19: records 1, day 2026-11-19");
    let report = ended(&server, "report", 1);
    assert_eq!(
        (&report[0]["state"], &report[0]["day"], &report[0]["trigger"]),
        (&json!("succeeded"), &json!("2026-11-19"), &json!("after"))
    );
    assert!(exports.join("hottest.csv").exists());
    eventually("failure and recovery were told", Duration::from_secs(30), || {
        let states: Vec<String> =
            notices.taken().iter().map(|notice| notice["state"].as_str().unwrap().to_owned()).collect();
        if states == ["firing", "resolved"] { Ok(()) } else { Err(format!("{states:?}")) }
    });
    // Killed in the middle: interrupted, and begun again by the next start; then called off.
    server.http.post("/v1/jobs/slow/run?day=2026-01-01", &Value::Null);
    let running = |server: &Server| {
        eventually("it runs", Duration::from_secs(30), || {
            let runs = runs(server, "slow");
            if runs[0]["state"] == "running" { Ok(runs) } else { Err(format!("{runs:?}")) }
        })
    };
    running(&server);
    server.kill9();
    server.start_again();
    let again = running(&server);
    assert_eq!((&again[0]["trigger"], &again[0]["day"]), (&json!("interruption"), &json!("2026-01-01")), "{again:?}");
    assert_eq!(again[1]["state"], "interrupted", "{again:?}");
    server.http.post("/v1/jobs/slow/cancel", &Value::Null);
    assert_eq!(ended(&server, "slow", 2)[0]["state"], "cancelled");
    let (status, _) = server.http.try_post("/v1/jobs/absent/run", &Value::Null).unwrap();
    assert_eq!(status, 404);
    let jobs = server.http.get("/v1/jobs");
    assert_eq!(jobs["jobs"][0]["recent"].as_array().unwrap().len(), 2, "history survives: {jobs}");
    server.stop();
}
