//! JSON that is to be written by a schema, and what is said of a value that does not fit it.

use serde_json::Value;

/// Longest part of a value that is shown.
const SHOWN_CHARS_MAX: usize = 40;

/// A text as JSON; Err says why it is none.
pub(crate) fn parsed(json: &str) -> Result<Value, String> {
    serde_json::from_str(json).map_err(|error| format!("not JSON: {error}"))
}

/// What the schema wants in the place of a value, which stands below these fields.
pub(crate) fn misfit(path: &[String], value: &Value, wanted: &str) -> String {
    let place = if path.is_empty() { "the value".to_owned() } else { format!("field '{}'", path.join(".")) };
    let shown: String = value.to_string().chars().take(SHOWN_CHARS_MAX).collect();
    format!("{place} is {shown}, the schema wants {wanted}")
}
