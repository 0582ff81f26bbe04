//! The files for containers and monitoring: they parse, hang together, and name only what the server really exports. Docker, Prometheus
//! and Grafana themselves are not run.

use crate::support::kafka::run;
use crate::support::scripts::{json_of, python};
use crate::support::server::Server;
use crate::support::{Scratch, beside_others, source};
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

fn root(file: &str) -> PathBuf {
    source("..").join(file)
}

/// The metrics that a text mentions.
fn mentioned(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c: char| !is_part(c));
    words.filter(|word| word.starts_with("millpond_") || word.starts_with("process_")).map(str::to_owned).collect()
}

#[test]
fn dashboards_and_rules_name_metrics_that_are_exported() {
    let _beside = beside_others();
    let scratch = Scratch::new("deploy");
    let server = Server::with_config(&scratch, &fs::read_to_string(root("config/music/system.toml")).unwrap());
    let text = server.http.text("/metrics");
    let exported: BTreeSet<String> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next().map(str::to_owned)).collect();
    assert!(exported.contains("process_resident_memory_bytes"), "{exported:?}");
    for file in ["deploy/grafana/dashboards/millpond.json", "deploy/prometheus/rules.yml"] {
        let wanted = mentioned(&fs::read_to_string(root(file)).unwrap());
        let missing: Vec<_> = wanted.difference(&exported).collect();
        assert!(!wanted.is_empty() && missing.is_empty(), "{file} asks for what no server tells: {missing:?}");
    }
}

#[test]
fn compose_prometheus_and_grafana_files_hang_together() {
    let report = json_of(python("clients/deploy.py").arg(root("")));
    assert_eq!(report["mistakes"], serde_json::json!([]), "{report:#}");
    assert!(report["services"].as_u64().unwrap() >= 7 && report["panels"].as_u64().unwrap() >= 10, "{report}");
    assert_eq!(report["workflows"], 2, "{report}");
}

/// The rollout against a docker that only writes down what it is told: an image whose name is `bad` never becomes healthy.
#[test]
fn a_rollout_goes_back_when_the_new_image_is_not_healthy() {
    let scratch = Scratch::new("rollout");
    let docker = scratch.write(
        "bin/docker",
        "#!/bin/sh\necho \"$MILLPOND_IMAGE $*\" >>calls\ncase \"$MILLPOND_IMAGE $2\" in *bad*up | gone*pull) exit 1 ;; esac\n",
    );
    run(std::process::Command::new("chmod").arg("+x").arg(&docker));
    let path = format!("{}:{}", scratch.path("bin").display(), std::env::var("PATH").unwrap());
    let place = scratch.path("place");
    fs::create_dir_all(&place).unwrap();
    let rollout = |image: &str| {
        let mut command = std::process::Command::new(root("deploy/rollout"));
        let output = command.arg(image).arg("7").env("PATH", &path).current_dir(&place).output().unwrap();
        let calls = fs::read_to_string(place.join("calls")).unwrap();
        fs::remove_file(place.join("calls")).unwrap();
        let started: Vec<String> = calls
            .lines()
            .filter(|call| call.contains(" up "))
            .map(|call| call.split(' ').next().unwrap().to_owned())
            .collect();
        assert!(!calls.contains("down") && !calls.contains("--volumes"), "{calls}");
        (output.status.success(), started, String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let healthy = || fs::read_to_string(place.join(".millpond-image")).unwrap_or_default();
    let (done, started, said) = rollout("bad:0");
    assert!(!done && started == ["bad:0"] && said.contains("nothing to go back to") && healthy().is_empty(), "{said}");
    let (done, started, _) = rollout("good:1");
    assert!(done && started == ["good:1"] && healthy() == "good:1\n");
    let (done, started, said) = rollout("bad:2");
    assert!(!done && started == ["bad:2", "good:1"] && healthy() == "good:1\n", "{started:?} {said}");
    assert!(said.contains("not healthy within 7 s") && said.contains("went back to good:1"), "{said}");
    let (done, started, said) = rollout("gone:3");
    assert!(!done && started.is_empty() && said.contains("nothing was changed"), "{started:?} {said}");
    assert!(rollout("good:4").0 && healthy() == "good:4\n");
}

/// Each option of the container's command is one the program has.
#[test]
fn the_container_command_is_understood() {
    let help = run(crate::support::server::millpond().args(["demo", "--help"]));
    let compose = fs::read_to_string(root("docker-compose.yml")).unwrap();
    for flag in compose.split_whitespace().filter(|word| word.starts_with("--") && word.len() > 2) {
        assert!(help.contains(flag) || flag == "--build", "{flag} is no option of demo:\n{help}");
    }
}

/// The table of the systems names tests that exist.
#[test]
fn the_table_of_the_systems_names_real_tests() {
    let text = fs::read_to_string(root("docs/systems.md")).unwrap();
    let named: BTreeSet<(&str, &str)> = text
        .split('`')
        .filter_map(|word| word.split_once(".rs::"))
        .filter(|(file, case)| !file.contains(' ') && *file != "file" && !case.is_empty())
        .collect();
    assert!(named.len() >= 15, "{named:?}");
    for (file, case) in named {
        let code = fs::read_to_string(source(&format!("{file}.rs"))).unwrap_or_else(|e| panic!("{file}.rs: {e}"));
        assert!(code.contains(&format!("#[test]\nfn {case}()")), "tests/{file}.rs has no case {case}");
    }
}
