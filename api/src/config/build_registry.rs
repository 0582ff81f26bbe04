//! From `[[schemas]]` to declarations, with the texts of files read.

use std::path::{Path, PathBuf};

use broker::{Compatibility, Reference, SchemaType};

use super::SchemaDeclaration;
use super::mistake::{Mistakes, Origin};
use super::value::Entry;

/// One declared schema; what is wrong is noted.
pub fn schema(entry: &Entry, mistakes: &mut Mistakes) -> SchemaDeclaration {
    let text = |key: &str| entry.text_or_none(key).unwrap_or_default();
    let schema = match (entry.text_or_none("schema"), entry.text_or_none("file")) {
        (Some(schema), None) => schema,
        (None, Some(file)) => read(entry, ("file", &file), mistakes).unwrap_or_default(),
        _ => {
            mistakes.add(&entry.origin, entry.path.as_str(), "give either schema or file");
            String::new()
        }
    };
    let reference = |reference: &Entry| Reference {
        name: reference.text_or_none("name").unwrap_or_default(),
        subject: reference.text_or_none("subject").unwrap_or_default(),
        // 0 stands for the latest until it is registered.
        version: u32::try_from(reference.integer("version")).unwrap_or(0),
    };
    SchemaDeclaration {
        subject: text("subject"),
        kind: SchemaType::parse(&text("type")).unwrap_or(SchemaType::Avro),
        schema,
        references: entry.tables("references").iter().map(reference).collect(),
        compatibility: entry.text_or_none("compatibility").and_then(|name| Compatibility::parse(&name)),
    }
}

/// The text of the file that a key names; None, and noted, when it cannot be read.
pub(super) fn read(entry: &Entry, (key, file): (&str, &str), mistakes: &mut Mistakes) -> Option<String> {
    let origin = entry.place(key);
    let path = path_beside(&origin, Path::new(file));
    let read = std::fs::read_to_string(&path);
    read.map_err(|error| {
        mistakes.add(&origin, entry.path_of(key), format!("{} cannot be read: {error}", path.display()))
    })
    .ok()
}

/// A path from the directory of the configuration file that names it.
pub(super) fn path_beside(origin: &Origin, path: &Path) -> PathBuf {
    let beside = match origin {
        Origin::Line(name, _) => Path::new(&**name).parent(),
        _ => None,
    };
    beside.unwrap_or(Path::new("")).join(path)
}
