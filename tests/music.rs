//! The music system with a schema: the same events in JSON Schema and in Avro, through the registry, give the same rows; and what its
//! declaration watches.

use crate::oracle::{listeners, music, oracle, report};
use crate::support::kafka::run;
use crate::support::server::{Options, Server, millpond};
use crate::support::{Scratch, eventually};
use serde_json::Value;
use std::time::Duration;

const EVENTS: &str = "12000";

#[test]
fn events_have_a_registered_schema_in_json_schema_and_in_avro() {
    let start = (chrono::DateTime::<chrono::Utc>::from(std::time::SystemTime::now()) - chrono::TimeDelta::hours(2))
        .to_rfc3339();
    let json_schema = rows_in("json_schema", "JSON", &start);
    let avro = rows_in("avro", "AVRO", &start);
    assert_eq!(json_schema, avro, "the same seed gives the same rows in both");
}

/// Runs the system in a format; what its accepted rows are, whole and by kind.
fn rows_in(format: &str, kind: &str, start: &str) -> Vec<Vec<Value>> {
    let scratch = Scratch::new(&format!("music-{format}"));
    let system = music(&scratch);
    let env = vec![("MUSIC_FORMAT", format.to_owned())];
    let mut server = Server::start_with(&scratch, Options { configs: vec![system.clone()], env, ..Default::default() });
    listeners(&server);
    let (record, registry) = (scratch.path("sent.jsonl"), format!("http://{}/registry", server.http.address()));
    let mut simulate = millpond();
    simulate.args(["simulate", "music:simulator", "--as-fast-as-it-goes", "--count", EVENTS, "--spread", "1h"]);
    simulate.args(["--dirty", "0.05", "--late", "0", "--duplicates", "0.02", "--start", start]);
    simulate.args(["--bootstrap", &server.kafka, "--registry", &registry]).arg("--record").arg(&record);
    // Once by the variable that the stream heeds, too, and once by the flag.
    if format == "avro" {
        simulate.env("MUSIC_FORMAT", format)
    } else {
        simulate.args(["--encoding", format])
    };
    run(&mut simulate);

    let latest = server.http.get("/registry/subjects/listens-value/versions/latest");
    assert_eq!(latest["schemaType"].as_str().unwrap_or("AVRO"), kind, "{latest}");
    assert!(latest["schema"].as_str().unwrap().contains("duration_ms"), "{latest}");
    let mut check = oracle(&server, &system);
    check.args(["--enriched", "enriched", "--registry", &registry]).arg("--sent").arg(&record);
    let found = report(format, check.env("MUSIC_FORMAT", format));
    assert!(found["rejected"].as_u64() > Some(400) && found["valid"].as_u64() > Some(10_000), "{found}");
    let sums = "SELECT event, count(*), count(DISTINCT user_id), sum(duration_ms), min(ts), max(ts), count(genre) FROM listens \
                GROUP BY event ORDER BY event";
    let rows = server.http.sql(sums);
    assert!(server.stop().success());
    rows
}

/// More than five in a hundred refused: the alert says of which day and how many.
#[test]
fn refused_events_are_told() {
    let scratch = Scratch::new("music-refused");
    let configs = vec![music(&scratch)];
    let mut server = Server::start_with(&scratch, Options { configs, ..Default::default() });
    let mut simulate = millpond();
    simulate.args(["simulate", "music:simulator", "--as-fast-as-it-goes", "--count", "2000", "--dirty", "0.2"]);
    run(simulate.args(["--bootstrap", &server.kafka]));
    // now() is known to every statement, over tables that cannot be cut by it as well.
    let recent = "SELECT count(*) FROM data_quality WHERE day >= CAST(now() - INTERVAL '1 day' AS DATE)";
    eventually("something is counted", Duration::from_secs(30), || match server.http.sql(recent)[0][0].as_u64() {
        Some(0) | None => Err("nothing".to_owned()),
        Some(_) => Ok(()),
    });
    eventually("the alert fires", Duration::from_secs(60), || {
        let alerts = server.http.get("/v1/alerts");
        let alert = alerts["alerts"].as_array().unwrap().iter().find(|one| one["name"] == "listens_refused").unwrap();
        let message = alert["instances"][0]["message"].as_str().unwrap_or_default();
        let percent = message.split(' ').next().and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
        if (15.0..25.0).contains(&percent) && message.contains("listens.rejected") {
            Ok(())
        } else {
            Err(alert.to_string())
        }
    });
    assert!(server.stop().success());
}

#[test]
fn an_encoding_that_is_not_described_is_refused() {
    let fails = |arguments: &[&str]| {
        let output = millpond().arg("simulate").args(arguments).args(["--bootstrap", "127.0.0.1:1"]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let said = fails(&["orangescrum:logs", "--encoding", "avro"]);
    assert!(said.contains("orangescrum:logs describes no schema for --encoding avro"), "{said}");
    let said = fails(&["music:simulator", "--encoding", "avrro"]);
    assert!(said.contains("json_schema, avro"), "{said}");
}
