//! Names of inferred columns: a field's own, or one that is made of its path where that cannot be a column's.

use std::collections::HashSet;

/// Longest name that is taken from a record.
const NAME_BYTES_MAX: usize = 128;
/// Names that belong to views.
const RESERVED: [&str; 2] = ["window_start", "window_end"];

/// A column's name, and the path of its field where the name does not say it.
#[derive(Debug, PartialEq)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) from: Option<String>,
}

/// The name that a field gets when no other has it: the parts of its path, without what no column begins with, and without what
/// SQL cannot write.
pub(super) fn plain_name(path: &[&str]) -> String {
    let writable = |c: char| if c == '"' || c.is_control() { '_' } else { c };
    let name: String = path.join("_").chars().map(writable).collect();
    match name.trim_start_matches('_') {
        "" => "field".to_string(),
        name => name.to_string(),
    }
}

/// A name for each path, or why no column can read it. No two names differ only in case, as readers of the files do not all tell
/// them apart; who has its own name keeps it before others are made.
pub(super) fn named(paths: &[&[&str]]) -> Vec<Result<Named, &'static str>> {
    let mut taken: HashSet<String> = RESERVED.iter().map(|name| name.to_string()).collect();
    let mut names = vec![String::new(); paths.len()];
    for own in [true, false] {
        for (at, path) in paths.iter().enumerate().filter(|(_, path)| has_its_own(path) == own) {
            names[at] = free_name(&plain_name(path), &mut taken);
        }
    }
    names.into_iter().zip(paths).map(|(name, path)| with_path(name, path)).collect()
}

fn has_its_own(path: &[&str]) -> bool {
    matches!(path, [field] if *field == plain_name(path))
}

/// `wanted`, or that with the first number that makes it another name.
fn free_name(wanted: &str, taken: &mut HashSet<String>) -> String {
    let numbered = (2_u32..).map(|number| format!("{wanted}_{number}"));
    let mut names = std::iter::once(wanted.to_string()).chain(numbered);
    names.find(|name| taken.insert(name.to_lowercase())).unwrap_or_default()
}

fn with_path(name: String, path: &[&str]) -> Result<Named, &'static str> {
    if name.len() > NAME_BYTES_MAX {
        return Err("its name is longer than 128 bytes: declare it under another one, with FROM");
    }
    match path {
        [field] if *field == name => Ok(Named { name, from: None }),
        parts if parts.iter().any(|part| part.is_empty() || part.contains('.')) => {
            Err("a name in its path is empty or has a dot, and FROM 'outer.inner' cannot say it")
        }
        parts => Ok(Named { name, from: Some(parts.join(".")) }),
    }
}
