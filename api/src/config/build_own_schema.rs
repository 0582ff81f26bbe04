//! The schema of a stream whose records name none: from its text, or from a file with what that imports.

use std::path::{Path, PathBuf};

use engine::{OwnSchema, proto_imports};

use super::build::text;
use super::build_registry::{path_beside, read};
use super::mistake::Mistakes;
use super::value::Entry;

/// Most files that one imports, itself or through others.
const IMPORTS_MAX: usize = 200;

/// The schema of a stream, if it has one; what is wrong is noted.
pub(super) fn own_schema(entry: &Entry, mistakes: &mut Mistakes) -> Option<OwnSchema> {
    let wrong = |key: &str, message: &str, mistakes: &mut Mistakes| {
        mistakes.add(&entry.place(key), entry.path_of(key), message);
    };
    let format = text(entry, "format");
    if !["avro", "protobuf"].contains(&format.as_str()) {
        for key in ["schema", "schema_file", "message"] {
            if entry.values.contains_key(key) {
                wrong(key, "goes with format = \"avro\" or \"protobuf\": leave it out", mistakes);
            }
        }
        return None;
    }
    let message = entry.text_or_none("message");
    if message.is_some() && format == "avro" {
        wrong("message", "goes with format = \"protobuf\": leave it out", mistakes);
    }
    let (text, imports) = match (entry.text_or_none("schema"), entry.text_or_none("schema_file")) {
        (Some(text), None) => (text, Vec::new()),
        (None, Some(file)) => {
            let text = read(entry, ("schema_file", &file), mistakes)?;
            let imports = if format == "protobuf" { imports(entry, (&file, &text), mistakes)? } else { Vec::new() };
            (text, imports)
        }
        (Some(_), Some(_)) => {
            wrong("schema_file", "give either schema or schema_file", mistakes);
            return None;
        }
        (None, None) => {
            if message.is_some() {
                wrong("message", "goes with schema or schema_file", mistakes);
            }
            return None;
        }
    };
    Some(OwnSchema { text, imports, message })
}

/// Names and texts of what a `.proto` file imports. A name is looked for in the file's directory, then in those above it,
/// as far as `schema_file` names them.
fn imports(entry: &Entry, (file, text): (&str, &str), mistakes: &mut Mistakes) -> Option<Vec<(String, String)>> {
    let origin = entry.place("schema_file");
    let above = Path::new(file).ancestors().skip(1);
    let directories: Vec<PathBuf> = above.map(|directory| path_beside(&origin, directory)).collect();
    let mut found: Vec<(String, String)> = Vec::new();
    let mut names = proto_imports(text);
    while let Some(name) = names.pop() {
        if found.iter().any(|(known, _)| *known == name) {
            continue;
        }
        // What lies nowhere is known to the compiler, or it says that it is missing.
        let path = directories.iter().map(|directory| directory.join(&name)).find(|path| path.is_file());
        let Some(path) = path else { continue };
        let read = match std::fs::read_to_string(&path) {
            _ if found.len() == IMPORTS_MAX => Err(format!("it imports more than {IMPORTS_MAX} files")),
            read => read.map_err(|error| format!("{} cannot be read: {error}", path.display())),
        };
        match read {
            Ok(text) => {
                names.extend(proto_imports(&text));
                found.push((name, text));
            }
            Err(message) => {
                mistakes.add(&origin, entry.path_of("schema_file"), message);
                return None;
            }
        }
    }
    Some(found)
}
