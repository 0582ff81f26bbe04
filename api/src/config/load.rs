//! Puts files, environment and flags together. The order of strength: flag, variable, file (the later one first), default.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::mistake::{Mistakes, Origin, suggestion};
use super::read::{Document, Source, complete, read_document};
use super::settings::{SECTIONS, Scalar, scalars};
use super::value::{Entry, Value, parse_text};
use super::{Config, build};

/// What a configuration is put together from.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// Files, in the order in which they were named.
    pub sources: Vec<Source>,
    /// Files that could not be read, and why; a mistake each.
    pub unreadable: Vec<(PathBuf, String)>,
    /// Environment variables; those that do not begin with `MILLPOND_` only stand for references in files.
    pub environment: Vec<(String, String)>,
    /// Flags without their dashes, and their values.
    pub flags: Vec<(String, String)>,
    /// Values that are weaker than any file, in place of the table's defaults: key path and text.
    pub defaults: Vec<(&'static str, String)>,
}

impl Inputs {
    /// Adds a file from disk; one that cannot be read is a mistake, reported with the others.
    pub fn add_file(&mut self, path: &Path) {
        match std::fs::read_to_string(path) {
            Ok(text) => self.sources.push(Source { name: path.display().to_string().into(), text }),
            Err(error) => self.unreadable.push((path.to_owned(), error.to_string())),
        }
    }
}

/// A configuration that holds together, and what is odd about it without being wrong.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// One line each, to be shown to the person who started the server.
    pub warnings: Vec<String>,
}

/// Reads and checks everything.
pub fn load(inputs: &Inputs) -> Result<Loaded, Mistakes> {
    let mut mistakes = Mistakes::default();
    for (path, error) in &inputs.unreadable {
        let origin = Origin::Line(path.display().to_string().into(), 0);
        mistakes.add(&origin, "", format!("cannot be read: {error}; name a file that is there, or leave out --config"));
    }
    let mut merged = Document::new();
    let variables = inputs.environment.iter().cloned().collect();
    for source in &inputs.sources {
        for (section, entry) in read_document(source, &*SECTIONS, &variables, &mut mistakes) {
            merge(&mut merged, section, entry);
        }
    }
    let warnings = overlay(inputs, &mut merged, &mut mistakes);
    for section in SECTIONS.iter() {
        complete(entry_of(&mut merged, section.name), section.fields, &mut mistakes);
    }
    let built = build::config(&merged, &mut mistakes);
    mistakes.into_result()?;
    Ok(Loaded { config: built, warnings })
}

fn entry_of<'a>(merged: &'a mut Document, section: &'static str) -> &'a mut Entry {
    merged.entry(section).or_insert_with(|| Entry::new(Origin::Default, section.into()))
}

/// Lists grow, everything else is replaced.
fn merge(merged: &mut Document, section: &'static str, entry: Entry) {
    let target = entry_of(merged, section);
    for (key, (value, origin)) in entry.values {
        match (target.values.get_mut(key), value) {
            (Some((Value::Tables(before), _)), Value::Tables(mut more)) => before.append(&mut more),
            (_, value) => {
                target.values.insert(key, (value, origin));
            }
        }
    }
}

/// Lays defaults below, and variables and flags above, what the files said. Returns what is odd about the environment.
fn overlay(inputs: &Inputs, merged: &mut Document, mistakes: &mut Mistakes) -> Vec<String> {
    let environment: BTreeMap<&str, &str> = inputs
        .environment
        .iter()
        .filter(|(name, _)| name.starts_with("MILLPOND_") || name.starts_with("KAFKA_"))
        .map(|(name, text)| (name.as_str(), text.as_str()))
        .collect();
    for (scalar, field) in scalars() {
        let path = format!("{}.{}", scalar.section, scalar.key);
        let variable =
            environment.get(scalar.variable.as_str()).map(|text| (Origin::Variable(scalar.variable.clone()), *text));
        let flag = inputs.flags.iter().rev().find(|(name, _)| Some(name.as_str()) == scalar.flag);
        let flag = flag.map(|(name, text)| (Origin::Flag(format!("--{name}")), text.as_str()));
        let entry = entry_of(merged, scalar.section);
        if !entry.values.contains_key(scalar.key)
            && let Some((_, text)) = inputs.defaults.iter().find(|(name, _)| *name == path)
        {
            entry.values.insert(
                scalar.key,
                (parse_text(&field.kind, text).expect("the program's own defaults are valid"), Origin::Default),
            );
        }
        for (origin, text) in variable.into_iter().chain(flag) {
            match parse_text(&field.kind, text) {
                Ok(value) => {
                    entry.values.insert(scalar.key, (value, origin));
                }
                Err(message) => mistakes.add(&origin, path.as_str(), message),
            }
        }
    }
    let known: Vec<Scalar> = scalars().map(|(scalar, _)| scalar).collect();
    let is_script = |name: &str| name.starts_with("KAFKA_") && SCRIPT_VARIABLES.iter().any(|end| name.ends_with(end));
    let is_known = |name: &str| {
        OTHER_VARIABLES.contains(&name) || is_script(name) || known.iter().any(|scalar| scalar.variable == name)
    };
    let unknown = environment.keys().filter(|name| !is_known(name) && !name.starts_with("MILLPOND_TEST_"));
    unknown.map(|name| format!("{name} is not a setting and was ignored{}", near(name, &known))).collect()
}

/// Variables that are read elsewhere: the list of files, what is logged, and the token of commands.
const OTHER_VARIABLES: [&str; 3] = ["MILLPOND_CONFIG", "MILLPOND_LOG", "MILLPOND_TOKEN"];

/// How variables end that Kafka's own scripts and images read.
const SCRIPT_VARIABLES: [&str; 4] = ["_OPTS", "_HOME", "_VERSION", "_URL"];

fn near(name: &str, known: &[Scalar]) -> String {
    suggestion(name, known.iter().map(|scalar| scalar.variable.as_str()))
}
