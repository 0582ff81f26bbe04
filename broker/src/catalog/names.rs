//! Names of topics: Kafka's rule, and which count as equal.

use crate::error::{Error, Kind, Result};

/// Longest topic name, as in Kafka, where it must fit a directory name.
const TOPIC_NAME_BYTES_MAX: usize = 249;

/// Kafka's rule for topic names.
///
/// # Errors
/// `InvalidTopic`, with the rule.
pub fn check_name(name: &str) -> Result<()> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let fault = if name.is_empty() {
        "is empty"
    } else if name == "." || name == ".." {
        "cannot be '.' or '..'"
    } else if name.len() > TOPIC_NAME_BYTES_MAX {
        "is longer than 249 characters"
    } else if !name.chars().all(legal) {
        "contains a character other than ASCII letters, digits, '.', '_' and '-'"
    } else {
        return Ok(());
    };
    Err(Error::new(Kind::InvalidTopic, format!("topic name '{}' {fault}", name.escape_debug())))
}

/// Kafka's metric names replace '.' by '_', so it refuses names that differ only there.
pub(super) fn flat(name: &str) -> String {
    name.replace('.', "_")
}
