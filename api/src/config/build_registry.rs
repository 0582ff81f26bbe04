//! From `[[schemas]]` to declarations, with the texts of files read.

use std::path::Path;

use broker::{Compatibility, Reference, SchemaType};

use super::SchemaDeclaration;
use super::mistake::{Mistakes, Origin};
use super::value::Entry;

/// One declared schema; what is wrong is noted.
pub fn schema(entry: &Entry, mistakes: &mut Mistakes) -> SchemaDeclaration {
    let text = |key: &str| entry.text_or_none(key).unwrap_or_default();
    let schema = match (entry.text_or_none("schema"), entry.text_or_none("file")) {
        (Some(schema), None) => schema,
        (None, Some(file)) => read(entry, &file, mistakes),
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

fn read(entry: &Entry, file: &str, mistakes: &mut Mistakes) -> String {
    let origin = entry.place("file");
    let beside = match &origin {
        Origin::Line(name, _) => Path::new(&**name).parent().map(Path::to_path_buf),
        _ => None,
    };
    let path = beside.unwrap_or_default().join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| {
        let message = format!("{} cannot be read: {error}", path.display());
        mistakes.add(&origin, entry.path_of("file"), message);
        String::new()
    })
}
