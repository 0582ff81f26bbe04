//! Protobuf schemas: compiled in memory with what they import; and a plain rule for which fit.
//!
//! A reader takes what a writer wrote when every message of the writer is still there and no field number has come to mean
//! another kind of value: numbers that share an encoding may replace each other, `string` and `bytes` may, a message or
//! enum must keep its name; a required field (proto2) may neither come nor go. Fields may be added, removed and renamed.

use std::collections::BTreeMap;

use engine::proto_file;
use protox::prost::Message;
use protox::prost_reflect::prost_types::field_descriptor_proto::{Label, Type};
use protox::prost_reflect::prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorProto};

use super::proto_text;
use crate::base64::{base64, unbase64};

/// A compiled schema.
#[derive(Debug)]
pub struct Protobuf {
    file: FileDescriptorProto,
}

/// The text of a schema: some serializers send a compiled file descriptor in base 64 instead, which is turned into text.
///
/// # Errors
/// What is wrong with it.
pub fn text_of(sent: &str, referred: &[(&str, &str)]) -> Result<String, String> {
    let Some(file) = descriptor(sent) else { return Ok(sent.to_owned()) };
    let text = proto_text::print(&file);
    parse(&text, referred).map(|_| text)
}

fn descriptor(sent: &str) -> Option<FileDescriptorProto> {
    let bytes = unbase64(sent.trim())?;
    // It may have no types of its own, only those that it passes on. No text of a schema is base 64 but the empty one.
    FileDescriptorProto::decode(bytes.as_slice()).ok().filter(|file| file.name.is_some())
}

/// Compiles a schema; `referred` are the names and texts of what it imports.
///
/// # Errors
/// What is wrong with it, with the place.
pub fn parse(text: &str, referred: &[(&str, &str)]) -> Result<Protobuf, String> {
    let compiled = proto_file(text, referred)?;
    let file = FileDescriptorProto { source_code_info: None, ..compiled.file_descriptor_proto().clone() };
    Ok(Protobuf { file })
}

/// The compiled file descriptor in base 64, as clients ask for with `format=serialized`.
pub fn serialized(schema: &Protobuf, name: &str) -> String {
    let mut file = schema.file.clone();
    file.name = Some(name.to_owned());
    base64(&file.encode_to_vec())
}

/// Why `reader` cannot read what `writer` wrote; empty when it can.
pub fn cannot_read(reader: &Protobuf, writer: &Protobuf) -> Vec<String> {
    let mut found = Vec::new();
    let (has, had) = (messages(&reader.file), messages(&writer.file));
    if reader.file.package() != writer.file.package() {
        found.push(fault("PACKAGE_CHANGED", "#/"));
    }
    for (name, old) in &had {
        match has.get(name) {
            Some(new) => fields(name, old, new, &mut found),
            None => found.push(fault("MESSAGE_REMOVED", &format!("#/{name}"))),
        }
    }
    found
}

fn fault(kind: &str, path: &str) -> String {
    format!("{{errorType:\"{kind}\", path:\"{path}\"}}")
}

/// Every message by its name within the file.
fn messages(file: &FileDescriptorProto) -> BTreeMap<String, &DescriptorProto> {
    let mut found = BTreeMap::new();
    let mut left: Vec<(String, &DescriptorProto)> =
        file.message_type.iter().map(|message| (message.name().to_owned(), message)).collect();
    while let Some((name, message)) = left.pop() {
        left.extend(message.nested_type.iter().map(|nested| (format!("{name}.{}", nested.name()), nested)));
        found.insert(name, message);
    }
    found
}

fn fields(name: &str, old: &DescriptorProto, new: &DescriptorProto, found: &mut Vec<String>) {
    let by_number = |message: &'_ DescriptorProto| -> BTreeMap<i32, FieldDescriptorProto> {
        message.field.iter().map(|field| (field.number(), field.clone())).collect()
    };
    let (had, has) = (by_number(old), by_number(new));
    for number in had.keys().chain(has.keys()).collect::<std::collections::BTreeSet<_>>() {
        let place = format!("#/{name}/{number}");
        let needed = |field: &FieldDescriptorProto| field.label() == Label::Required;
        match (had.get(number), has.get(number)) {
            (Some(old), Some(new)) if kind(old) != kind(new) => found.push(fault("FIELD_KIND_CHANGED", &place)),
            (Some(old), None) if needed(old) => found.push(fault("REQUIRED_FIELD_REMOVED", &place)),
            (None, Some(new)) if needed(new) => found.push(fault("REQUIRED_FIELD_ADDED", &place)),
            (Some(old), None) if old.oneof_index.is_some() && !old.proto3_optional() => {
                found.push(fault("ONEOF_FIELD_REMOVED", &place));
            }
            _ => {}
        }
    }
}

/// Equal for kinds of values that replace each other.
fn kind(field: &FieldDescriptorProto) -> String {
    match field.r#type() {
        Type::Int32 | Type::Uint32 | Type::Int64 | Type::Uint64 | Type::Bool => "varint".into(),
        Type::Sint32 | Type::Sint64 => "zigzag".into(),
        Type::Fixed32 | Type::Sfixed32 => "32 bits".into(),
        Type::Fixed64 | Type::Sfixed64 => "64 bits".into(),
        Type::String | Type::Bytes => "bytes".into(),
        Type::Message | Type::Enum | Type::Group => field.type_name().to_owned(),
        Type::Float => "float".into(),
        Type::Double => "double".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proto(fields: &str) -> Protobuf {
        parse(&format!("syntax = \"proto3\"; package p; message M {{ {fields} }}"), &[]).unwrap()
    }

    /// reader, writer, whether the reader can read
    #[test]
    fn who_reads_what() {
        let cases = [
            ("int32 a = 1;", "int32 a = 1;", true),
            ("int64 renamed = 1; string b = 2;", "int32 a = 1;", true),
            ("string a = 1;", "int32 a = 1;", false),
            ("sint32 a = 1;", "int32 a = 1;", false),
            ("bytes a = 1;", "string a = 1;", true),
            ("", "int32 a = 1;", true),
            ("message N {} N n = 1;", "message N {} N n = 1;", true),
            ("", "message N {}", false),
            ("oneof o { int32 a = 1; }", "oneof o { int32 a = 1; string b = 2; }", false),
            ("optional int32 a = 1;", "int32 a = 1;", true),
        ];
        for (reader, writer, fits) in cases {
            let found = cannot_read(&proto(reader), &proto(writer));
            assert_eq!(found.is_empty(), fits, "{reader} reads {writer}: {found:?}");
        }
    }

    #[test]
    fn imports_come_from_memory_and_from_google() {
        let user = "syntax = \"proto3\"; package p; message User { int64 id = 1; }";
        let event = "syntax = \"proto3\"; import \"user.proto\"; import \"google/protobuf/timestamp.proto\";
            message Event { p.User user = 1; google.protobuf.Timestamp at = 2; }";
        assert!(parse(event, &[("user.proto", user)]).is_ok());
        assert!(parse(event, &[]).unwrap_err().contains("user.proto"));
        assert!(parse("message {", &[]).is_err());
        assert!(parse(&"message M {".repeat(50_000), &[]).unwrap_err().contains("nested"));
    }

    /// What a serializer sends compiled comes out as text that compiles to the same.
    #[test]
    fn a_descriptor_becomes_text_and_back() {
        let text = r#"
            syntax = "proto3";
            package p.q;
            import "user.proto";
            import "google/protobuf/timestamp.proto";
            message Event {
              message Place { double lat = 1; reserved 2 to 4, 9; reserved "lon"; }
              enum Kind { option allow_alias = true; UNKNOWN = 0; NONE = 0; PLAY = -1; }
              int64 id = 1;
              optional string note = 2;
              repeated Kind kinds = 3 [packed = false];
              map<string, Place> places = 4;
              oneof who { p.User user = 5; string name = 6 [deprecated = true]; }
              google.protobuf.Timestamp at = 7 [json_name = "when"];
            }
            enum Top { A = 0; }
            service S { rpc Call (Event) returns (stream Event); }"#;
        let user = [("user.proto", "syntax = \"proto3\"; package p; message User { int64 id = 1; }")];
        let first = parse(text, &user).unwrap();
        let sent = serialized(&first, "event.proto");
        let printed = text_of(&sent, &user).unwrap();
        let second = parse(&printed, &user).unwrap();
        assert_eq!(first.file, second.file, "{printed}");
        let old = "syntax = \"proto2\"; message M { required int32 a = 1; optional string b = 2 [default = \"x\\\"y\"]; extensions 100 to max; }";
        let first = parse(old, &[]).unwrap();
        let printed = text_of(&serialized(&first, "old.proto"), &[]).unwrap();
        assert_eq!(first.file, parse(&printed, &[]).unwrap().file, "{printed}");
        assert_eq!(text_of(old, &[]).unwrap(), old);
        let passes_on = "syntax = \"proto3\"; import public \"user.proto\";";
        let first = parse(passes_on, &user).unwrap();
        let printed = text_of(&serialized(&first, "all.proto"), &user).unwrap();
        assert_eq!(first.file, parse(&printed, &user).unwrap().file, "{printed}");
        assert_eq!(text_of("", &[]).unwrap(), "");
    }
}
