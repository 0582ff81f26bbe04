//! The files for containers and monitoring: they parse, hang together, and name only what the server really exports. Docker, Prometheus
//! and Grafana themselves are not run.

use crate::support::kafka::run;
use crate::support::scripts::{json_of, python};
use crate::support::server::Server;
use crate::support::{Scratch, alone, source};
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
    let _alone = alone();
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
