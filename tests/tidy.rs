//! The rules of the house, checked on the text of the tree: sizes, fences, names, words. Prints every offender at once.
//!
//! To exempt something there is `EXEMPT`, which may only shrink: an entry that is not needed any more, or not at its full number,
//! is an offence itself.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests stop at the first surprise")]

#[path = "tidy/fences.rs"]
mod fences;
#[path = "tidy/shape.rs"]
mod shape;
#[path = "tidy/source.rs"]
mod source;
#[path = "tidy/words.rs"]
mod words;

use source::{Source, product, tracked};
use std::collections::BTreeMap;
use std::process::Command;

/// (rule, file, how many): what is still allowed. Take lines away, add none.
const EXEMPT: &[(&str, &str, usize)] = &[];

/// One breach: the rule's name, the file, and a line for people.
pub struct Offence {
    pub rule: &'static str,
    pub path: String,
    pub line: usize,
    pub text: String,
}

#[test]
fn the_tree_keeps_the_rules() {
    let sources = product();
    assert!(sources.len() > 20, "the product's sources were not found");
    let mut offences = Vec::new();
    for source in &sources {
        shape::check(source, &mut offences);
        words::check(source, &mut offences);
        fences::check(source, &mut offences);
    }
    fences::crates(&mut offences);
    words::tree(&tracked(), &mut offences);
    fences::advertised_apis_are_tested(&mut offences);
    report(offences);
}

/// Offences less the exempted ones, plus exemptions that are too large.
fn report(offences: Vec<Offence>) {
    let mut lines = Vec::new();
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for offence in &offences {
        *counts.entry((offence.rule, &offence.path)).or_default() += 1;
    }
    let allowed =
        |rule: &str, path: &str| EXEMPT.iter().find(|(r, p, _)| *r == rule && *p == path).map_or(0, |(_, _, n)| *n);
    for offence in &offences {
        if counts[&(offence.rule, offence.path.as_str())] > allowed(offence.rule, &offence.path) {
            lines.push(format!("{}:{}: [{}] {}", offence.path, offence.line, offence.rule, offence.text));
        }
    }
    for (rule, path, count) in EXEMPT {
        let found = counts.get(&(*rule, *path)).copied().unwrap_or(0);
        if found < *count {
            lines.push(format!("tests/tidy.rs: the exemption ({rule}, {path}, {count}) is larger than needed: make it {found}, or take it away at 0"));
        }
    }
    assert!(lines.is_empty(), "{} offences:\n{}", lines.len(), lines.join("\n"));
}

#[test]
fn one_arrow_one_parquet_one_object_store_one_datafusion() {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args([
        "tree",
        "--workspace",
        "--duplicates",
        "--locked",
        "--offline",
        "--edges",
        "normal,build,dev",
        "--depth",
        "0",
        "--prefix",
        "none",
    ]);
    let output = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let family = |name: &str| {
        ["arrow", "parquet", "object_store", "datafusion"]
            .iter()
            .any(|f| name == *f || name.starts_with(&format!("{f}-")))
    };
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if let (Some(name), Some(version)) = (words.next(), words.next())
            && family(name)
        {
            versions.entry(name).or_default().push(version);
        }
    }
    versions.retain(|_, found| {
        found.sort();
        found.dedup();
        found.len() > 1
    });
    assert!(versions.is_empty(), "more than one version: {versions:?}");
}

/// The checks themselves can fail: a file that breaks every rule is caught breaking every rule.
#[test]
fn the_rules_catch_what_they_forbid() {
    let long = "    let _ = 1;\n".repeat(80);
    let deep = format!("{}let deep = 1;\n", " ".repeat(28));
    let text = format!(
        "use bytes::Bytes;\nuse std::fmt;\nuse axum::Router;\nuse crate::net::x;\nmod utils;\npub fn bare(a: u8, b: u8, c: u8, d: u8, e: u8, f: u8) {{\n{long}{deep}\
         x.unwrap();\npanic!();\ny.expect(reason);\nmatches!(a, b);\n// TODO later\n// let old = new();\nlet n = f64::from_be_bytes(b);\n\
         tracing::warn!(\"Something happened.\");\nlet t = SystemTime::now();\n}}\n#[cfg(test)]\nmod tests {{\n    fn t() {{ x.unwrap(); }}\n}}\n"
    );
    let source = Source::parse("broker/src/log/example.rs", &text);
    let mut offences = Vec::new();
    shape::check(&source, &mut offences);
    words::check(&source, &mut offences);
    fences::check(&source, &mut offences);
    let rules: std::collections::BTreeSet<&str> = offences.iter().map(|offence| offence.rule).collect();
    let wanted = [
        "clock",
        "commented-out code",
        "expect",
        "fence",
        "float or usize in bytes",
        "function length",
        "header",
        "import order",
        "indent",
        "layering",
        "log text",
        "matches",
        "module name",
        "parameters",
        "todo",
        "undocumented",
        "unwrap",
    ];
    assert_eq!(rules.into_iter().collect::<Vec<_>>(), wanted);
    assert_eq!(offences.iter().filter(|offence| offence.rule == "unwrap").count(), 2, "tests may unwrap");
}
