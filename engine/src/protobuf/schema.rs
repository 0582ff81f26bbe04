//! The text of a `.proto` file with what it imports → descriptors of its messages.

use std::collections::HashMap;

use protox::Compiler;
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};
use protox::prost_reflect::{FileDescriptor, MessageDescriptor};

use super::cursor::Cursor;
use crate::varint::zigzag;

/// Deepest nesting of a text: the compiler recurses. Also of a message within others.
const DEPTH_MAX: usize = 64;

/// The file name that a schema is compiled under.
const MAIN: &str = "millpond-schema.proto";

/// Files that serializers expect a registry to have, besides those of google/protobuf.
const BUILT_IN: [(&str, &str); 4] = [
    (
        "confluent/type/decimal.proto",
        "syntax = \"proto3\"; package confluent.type;
         message Decimal { bytes value = 1; uint32 precision = 2; int32 scale = 3; }",
    ),
    (
        "confluent/meta.proto",
        "syntax = \"proto3\"; package confluent; import \"google/protobuf/descriptor.proto\";
         message Meta { string doc = 1; map<string, string> params = 2; repeated string tags = 3; repeated Rule rules = 4; }
         message Rule { string name = 1; string doc = 2; string expr = 3; string sql = 4; }
         extend google.protobuf.FileOptions { Meta file_meta = 1088; }
         extend google.protobuf.MessageOptions { Meta message_meta = 1088; }
         extend google.protobuf.FieldOptions { Meta field_meta = 1088; }
         extend google.protobuf.EnumOptions { Meta enum_meta = 1088; }
         extend google.protobuf.EnumValueOptions { Meta enum_value_meta = 1088; }",
    ),
    (
        "google/type/date.proto",
        "syntax = \"proto3\"; package google.type; message Date { int32 year = 1; int32 month = 2; int32 day = 3; }",
    ),
    (
        "google/type/timeofday.proto",
        "syntax = \"proto3\"; package google.type;
         message TimeOfDay { int32 hours = 1; int32 minutes = 2; int32 seconds = 3; int32 nanos = 4; }",
    ),
];

/// Files by the name that they are imported under.
struct Memory(HashMap<String, File>);

impl FileResolver for Memory {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        if let Some(file) = self.0.get(name) {
            return Ok(file.clone());
        }
        let built_in = BUILT_IN.iter().find(|(known, _)| *known == name);
        built_in.map_or_else(|| Err(protox::Error::file_not_found(name)), |(_, text)| File::from_source(name, text))
    }
}

/// Compiles a schema; `referred` are the names and texts of what it imports.
///
/// # Errors
/// What is wrong with it, with the place.
pub fn proto_file(text: &str, referred: &[(&str, &str)]) -> Result<FileDescriptor, String> {
    let mut files = HashMap::new();
    for (name, text) in referred.iter().copied().chain([(MAIN, text)]) {
        check_depth(text)?;
        let file = File::from_source(name, text).map_err(|error| error.to_string())?;
        files.insert(name.to_owned(), file);
    }
    let mut resolver = ChainFileResolver::new();
    resolver.add(Memory(files));
    resolver.add(GoogleFileResolver::new());
    let mut compiler = Compiler::with_file_resolver(resolver);
    compiler.open_file(MAIN).map_err(|error| error.to_string())?;
    compiler.descriptor_pool().get_file_by_name(MAIN).ok_or_else(|| "the schema was not compiled".into())
}

/// The names of what a text imports. Of one that is no schema none: compiling it says why.
pub fn proto_imports(text: &str) -> Vec<String> {
    let file = check_depth(text).ok().and_then(|()| File::from_source(MAIN, text).ok());
    file.map(|file| file.file_descriptor_proto().dependency.clone()).unwrap_or_default()
}

/// Counts every kind of bracket, also in strings and comments: too strict for nothing that people write.
fn check_depth(text: &str) -> Result<(), String> {
    let mut depth: usize = 0;
    for byte in text.bytes() {
        match byte {
            b'{' | b'[' | b'(' | b'<' => depth += 1,
            b'}' | b']' | b')' | b'>' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEPTH_MAX {
            return Err(format!("the text is nested deeper than {DEPTH_MAX} brackets"));
        }
    }
    Ok(())
}

/// Which message of its file a value is: its place among the file's, then among those within that one, and so on. The
/// first of the file is the empty path.
pub(crate) type Path = Vec<u32>;

/// The path that stands before a message, and the message. It is written as zigzag varints, first how many there are; of
/// the path to the file's first message only a zero.
pub(crate) fn split_path(payload: &[u8]) -> Result<(Path, &[u8]), String> {
    let mut cursor = Cursor::new(payload);
    let count = zigzag(cursor.varint()?);
    let length = usize::try_from(count).ok().filter(|length| *length <= DEPTH_MAX).ok_or_else(|| {
        format!("the path to its message has the length {count}: if the producer is confluent-kafka for Python, set 'use.deprecated.format' to False")
    })?;
    let mut path = Vec::with_capacity(length);
    for _ in 0..length {
        let place = zigzag(cursor.varint()?);
        path.push(u32::try_from(place).map_err(|_| format!("the path to its message has the place {place}"))?);
    }
    if path == [0] {
        path.clear();
    }
    Ok((path, cursor.rest()))
}

/// The message at a path. Entries of maps are not counted, as they are not written in the text.
pub(crate) fn message_at(file: &FileDescriptor, path: &[u32]) -> Option<MessageDescriptor> {
    let place = |place: &u32| usize::try_from(*place).ok();
    let mut path = path.iter();
    let mut message = file.messages().nth(path.next().map_or(Some(0), place)?)?;
    for within in path {
        let found = message.child_messages().filter(|child| !child.is_map_entry()).nth(place(within)?)?;
        message = found;
    }
    Some(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_as_serializers_write_them() {
        let cases: [(&[u8], &[u32], &[u8]); 5] = [
            (&[0, 8, 1], &[], &[8, 1]),
            (&[2, 0, 8, 1], &[], &[8, 1]),
            (&[2, 2], &[1], &[]),
            (&[4, 2, 0, 8], &[1, 0], &[8]),
            (&[2, 0x80, 0x01, 9], &[64], &[9]),
        ];
        for (payload, path, rest) in cases {
            assert_eq!(split_path(payload), Ok((path.to_vec(), rest)));
        }
        let broken: [(&[u8], &str); 5] = [
            (&[], "end within"),
            (&[1, 0], "use.deprecated.format"),
            (&[0x84, 0x01], "has the length 66"),
            (&[4, 2], "end within"),
            (&[2, 3], "has the place -2"),
        ];
        for (payload, part) in broken {
            let error = split_path(payload).expect_err("it is no path");
            assert!(error.contains(part), "{payload:?}: {error}");
        }
    }

    #[test]
    fn messages_are_found_by_their_place_in_the_text() {
        let text = "syntax = \"proto3\"; package p;
            message A { map<string, int32> m = 1; message B { message C {} } enum E { X = 0; } message D {} }
            message F {}";
        let file = proto_file(text, &[]).unwrap();
        let name = |path: &[u32]| message_at(&file, path).map(|message| message.full_name().to_owned());
        let cases: [(&[u32], Option<&str>); 8] = [
            (&[], Some("p.A")),
            (&[0, 0], Some("p.A.B")),
            (&[0, 1], Some("p.A.D")),
            (&[0, 0, 0], Some("p.A.B.C")),
            (&[1], Some("p.F")),
            (&[2], None),
            (&[0, 2], None),
            (&[1, 0], None),
        ];
        for (path, wanted) in cases {
            assert_eq!(name(path).as_deref(), wanted, "{path:?}");
        }
        assert!(message_at(&proto_file("syntax = \"proto3\"; enum E { X = 0; }", &[]).unwrap(), &[]).is_none());
    }

    #[test]
    fn what_serializers_expect_to_be_there_is_there() {
        for (name, text) in BUILT_IN {
            assert!(proto_file(text, &[]).is_ok(), "{name}");
            let user = format!("syntax = \"proto3\"; import \"{name}\"; message M {{}}");
            assert!(proto_file(&user, &[]).is_ok(), "{name}");
            // One that was registered under the name is taken in its place.
            assert!(proto_file(&user, &[(name, "syntax = \"proto3\"; message Own {}")]).is_ok(), "{name}");
        }
        let meta = "syntax = \"proto3\"; import \"confluent/meta.proto\";
            message M { string mail = 1 [(confluent.field_meta).tags = \"PII\"]; }";
        assert!(proto_file(meta, &[]).is_ok());
    }
}
