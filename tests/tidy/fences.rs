//! Fences: which crate and which module may name what.

use crate::Offence;
use crate::source::{Source, read, tracked};
use std::collections::BTreeSet;

/// (crate or module, paths where it may be named).
const FENCES: &[(&str, &[&str])] = &[
    ("rocksdb", &["broker/src/store"]),
    ("axum", &["api/src/"]),
    ("tower_http", &["api/src/"]),
    ("kafka_protocol", &["broker/src/net/", "broker/src/handlers/", "broker/src/group/", "broker/src/txn/"]),
    ("datafusion", &["engine/src/", "lake/src/"]),
    ("object_store", &["lake/src/objects.rs", "lake/src/objects/"]),
    ("hdfs_native", &["lake/src/objects/hdfs"]),
    ("iceberg", &["lake/src/iceberg"]),
    ("rdkafka", &["src/"]),
];

/// Inside `broker`: (who, whom it must not name).
const LAYERS: &[(&str, &[&str])] = &[
    ("broker/src/types.rs", &["batch", "store", "lane", "catalog", "log", "group", "txn", "handlers", "net"]),
    ("broker/src/error.rs", &["batch", "store", "lane", "catalog", "log", "group", "txn", "handlers", "net"]),
    ("broker/src/clock.rs", &["batch", "store", "lane", "catalog", "log", "group", "txn", "handlers", "net"]),
    ("broker/src/batch.rs", &["store", "lane", "catalog", "log", "group", "txn", "handlers", "net"]),
    ("broker/src/store.rs", &["lane", "catalog", "log", "group", "txn", "handlers", "net"]),
    ("broker/src/log/", &["group", "txn", "handlers", "net"]),
    ("broker/src/catalog.rs", &["group", "txn", "handlers", "net"]),
    ("broker/src/lane.rs", &["group", "txn", "handlers", "net"]),
    ("broker/src/schema/", &["catalog", "group", "txn", "handlers", "net"]),
    ("broker/src/security/", &["catalog", "group", "txn", "handlers", "net"]),
    ("broker/src/group/", &["txn", "handlers", "net"]),
    ("broker/src/txn/", &["handlers", "net"]),
    ("broker/src/handlers/", &["store", "net"]),
];

/// Which of our crates a crate may depend on: only those to its left.
const ORDER: [&str; 4] = ["broker", "engine", "lake", "api"];

pub fn check(source: &Source, offences: &mut Vec<Offence>) {
    for (line, code) in source.product_lines() {
        for (name, allowed) in FENCES {
            if names(code, name) && !allowed.iter().any(|place| source.path.starts_with(place)) {
                let text = format!("{name} is named only in {}", allowed.join(", "));
                offences.push(Offence { rule: "fence", path: source.path.clone(), line, text });
            }
        }
        for (who, forbidden) in LAYERS.iter().filter(|(who, _)| source.path.starts_with(who)) {
            for module in forbidden.iter().filter(|module| names_module(code, module)) {
                let text = format!("{who} must not know {module}");
                offences.push(Offence { rule: "layering", path: source.path.clone(), line, text });
            }
        }
    }
}

/// `name::` or `use name` as a crate.
fn names(code: &str, name: &str) -> bool {
    let starts = |at: usize| {
        !code[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':' || c == '.')
    };
    code.match_indices(name).any(|(at, _)| {
        let after = &code[at + name.len()..];
        starts(at)
            && (after.starts_with("::") || code.trim_start().starts_with("use ") && after.starts_with([';', ' ']))
    })
}

/// `crate::module` or `super::module`.
fn names_module(code: &str, module: &str) -> bool {
    let path = format!("crate::{module}");
    code.match_indices(&path)
        .any(|(at, _)| !code[at + path.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '_'))
}

/// Arrows between crates go one way, and heavy crates stay behind their fences in the manifests, too.
pub fn crates(offences: &mut Vec<Offence>) {
    for (i, name) in ORDER.iter().enumerate() {
        let path = format!("{name}/Cargo.toml");
        let manifest: toml::Table = toml::from_str(&read(&path)).unwrap();
        let wanted: Vec<&str> = manifest
            .get("dependencies")
            .and_then(|d| d.as_table())
            .into_iter()
            .flat_map(|d| d.keys().map(String::as_str))
            .collect();
        for dependency in wanted {
            let right = ORDER[i..].contains(&dependency) || dependency == "millpond";
            let fenced = FENCES.iter().any(|(fence, places)| {
                fence.replace('_', "-") == dependency.replace('_', "-")
                    && !places.iter().any(|place| place.starts_with(name))
            });
            if right || fenced {
                offences.push(Offence {
                    rule: "crates",
                    path: path.clone(),
                    line: 1,
                    text: format!("{name} must not depend on {dependency}"),
                });
            }
        }
    }
}

/// Each API that the broker lists is played in a scenario or has its golden bytes.
pub fn advertised_apis_are_tested(offences: &mut Vec<Offence>) {
    let path = "broker/src/handlers/mod.rs";
    let source = Source::parse(path, &read(path));
    let listed: BTreeSet<String> = source
        .product_lines()
        .filter_map(|(_, code)| code.trim().strip_prefix("api!("))
        .map(|rest| rest.chars().take_while(|c| c.is_alphanumeric()).collect::<String>())
        .filter(|name| name.starts_with(char::is_uppercase))
        .collect();
    let files: Vec<String> = tracked().into_iter().filter(|path| path.starts_with("tests/golden/")).collect();
    let scenarios: String = files.iter().filter(|path| path.contains("/scenarios/")).map(|path| read(path)).collect();
    for name in &listed {
        let snake = snake(name);
        let golden = files.iter().any(|path| path.contains("/protocol/") && path.contains(&snake));
        if !golden && !scenarios.contains(&format!("call = \"{snake}\"")) {
            let text = format!(
                "{name} is advertised: play it in tests/golden/scenarios (call = \"{snake}\") or add tests/golden/protocol/{snake}*.hex"
            );
            offences.push(Offence { rule: "untested api", path: path.to_owned(), line: 1, text });
        }
    }
    if listed.len() < 10 {
        offences.push(Offence {
            rule: "untested api",
            path: path.to_owned(),
            line: 1,
            text: format!("found only {listed:?}: this rule has lost the list"),
        });
    }
}

fn snake(name: &str) -> String {
    let mut out = String::new();
    for (i, c) in name.chars().enumerate() {
        if c.is_uppercase() && i > 0 {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}
