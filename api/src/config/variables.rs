//! `${NAME}`, `${NAME:-default}` and `${file:/path}` in the texts of configuration files. `$${` is `${` as it stands.
//!
//! A value that is only such a reference may also stand where a number, a duration or true and false is wanted:
//! `batch_records = "${BATCH_SIZE:-1000}"`.

use std::collections::BTreeMap;

/// Most bytes of a file that a text may refer to.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// The environment, by name.
pub type Variables = BTreeMap<String, String>;

/// Puts values in the places of references; None when there are none, Err says which has no value.
pub fn expand(text: &str, variables: &Variables) -> Option<Result<String, String>> {
    text.contains("${").then(|| expanded(text, variables))
}

fn expanded(text: &str, variables: &Variables) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            out.push_str(&rest[..at - 1]);
            out.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        out.push_str(&rest[..at]);
        let Some(end) = closing(&rest[at..]) else {
            return Err("a ${ has no }; write $${ for these letters themselves".into());
        };
        out.push_str(&value(&rest[at + 2..at + end], variables)?);
        rest = &rest[at + end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

/// Where the brace that the text opens is closed; a default may hold braces of its own.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, letter) in text.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 1 => return Some(at),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

fn value(reference: &str, variables: &Variables) -> Result<String, String> {
    if let Some(path) = reference.strip_prefix("file:") {
        return file(path);
    }
    let (name, default) = match reference.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (reference, None),
    };
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Err(format!("${{{reference}}} is not ${{NAME}}, ${{NAME:-default}} or ${{file:/path}}"));
    }
    match (variables.get(name).filter(|text| !text.is_empty()), default) {
        (Some(text), _) => Ok(text.clone()),
        (None, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(format!("the variable {name} is not set; set it, or write ${{{name}:-default}}")),
    }
}

/// A file's text without the line end at its end: a secret as a secret manager leaves it.
fn file(path: &str) -> Result<String, String> {
    let size = std::fs::metadata(path).map_err(|error| format!("{path} cannot be read: {error}"))?.len();
    if size > FILE_BYTES_MAX {
        return Err(format!("{path} has {size} bytes, at most {FILE_BYTES_MAX} are taken"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| format!("{path} cannot be read: {error}"))?;
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_have_values_defaults_and_files() {
        let variables = Variables::from([("A".to_owned(), "1".to_owned()), ("EMPTY".to_owned(), String::new())]);
        let get = |text: &str| expand(text, &variables);
        assert_eq!(get("plain $x"), None);
        assert_eq!(get("${A}-${B:-2}-${EMPTY:-3}-${B:-}").unwrap().unwrap(), "1-2-3-");
        assert_eq!(get("${B:-{data_dir}/x}/y").unwrap().unwrap(), "{data_dir}/x/y");
        assert_eq!(get("$${A} ${A}").unwrap().unwrap(), "${A} 1");
        assert!(get("${B}").unwrap().unwrap_err().contains("the variable B is not set"));
        assert!(get("${A").unwrap().is_err() && get("${a b}").unwrap().is_err() && get("${}").unwrap().is_err());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, "s3cret\n").unwrap();
        assert_eq!(get(&format!("${{file:{}}}", path.display())).unwrap().unwrap(), "s3cret");
        assert!(get("${file:/nowhere/at/all}").unwrap().unwrap_err().contains("cannot be read"));
    }
}
