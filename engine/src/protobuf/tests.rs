//! The walk over a message against prost-reflect's own decoding, on mutated messages.

use protox::prost::Message;
use protox::prost_reflect::{DynamicMessage, MessageDescriptor};
use serde_json::json;

use super::encode;
use super::program::Program;
use super::schema::{message_at, proto_file};
use super::value::{given, has_default};
use crate::columns::{ColumnBuffer, ColumnType};
use crate::fields::Fault;

const TEXT: &str = r#"syntax = "proto3";
    message M {
        int32 a = 1; int64 b = 2; uint32 c = 3; uint64 d = 4; sint32 e = 5; sint64 f = 6; bool g = 7; E h = 8;
        fixed32 i = 9; fixed64 j = 10; sfixed32 k = 11; sfixed64 l = 12; float m = 13; double n = 14;
        string o = 15; bytes p = 16; repeated sint32 q = 17; map<int32, string> r = 18; N s = 19;
        oneof t { int32 u = 20; string v = 21; } optional bool w = 22; repeated string x = 2000;
    }
    message N { int64 y = 1; N z = 2; }
    enum E { NONE = 0; SOME = 1; MINUS = -1; }"#;

/// The column of each field: integers where the value is one, text otherwise.
fn columns(message: &MessageDescriptor) -> (Vec<String>, Vec<ColumnType>) {
    let kind = |name: &str| match name {
        "a" | "b" | "c" | "e" | "f" | "i" | "k" | "l" | "u" | "s.y" => ColumnType::Bigint,
        "d" | "j" => ColumnType::Decimal { precision: 20, scale: 0 },
        "g" | "w" => ColumnType::Boolean,
        "m" | "n" => ColumnType::Double,
        "x" => ColumnType::Texts,
        _ => ColumnType::Varchar,
    };
    let names: Vec<String> = message.fields().map(|field| field.name().to_owned()).chain(["s.y".to_owned()]).collect();
    let kinds = names.iter().map(|name| kind(name)).collect();
    (names, kinds)
}

/// What the message's columns must be; None when it cannot be decoded, or a value does not fit.
fn expected(message: &MessageDescriptor, kinds: &[ColumnType], bytes: &[u8]) -> Option<Vec<ColumnBuffer>> {
    let decoded = DynamicMessage::decode(message.clone(), bytes).ok()?;
    let mut columns: Vec<ColumnBuffer> = kinds.iter().map(|kind| ColumnBuffer::new(*kind)).collect();
    for (field, column) in message.fields().zip(&mut columns) {
        if decoded.has_field(&field) || has_default(&field) {
            given(&decoded.get_field(&field), &field.kind()).ok()?.push(column).ok()?;
        } else {
            column.push_null();
        }
    }
    let inner = decoded.get_field_by_name("s").filter(|_| decoded.has_field_by_name("s"));
    let last = columns.last_mut()?;
    match inner.as_ref().and_then(|inner| inner.as_message()?.get_field_by_name("y")?.as_i64()) {
        Some(number) => last.push_int(number),
        None => last.push_null(),
    }
    Some(columns)
}

#[test]
fn mutated_messages_are_read_as_another_decoder_reads_them() {
    let file = proto_file(TEXT, &[]).unwrap();
    let message = message_at(&file, &[]).unwrap();
    let (names, kinds) = columns(&message);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let program = Program::compile(&message, &names).unwrap();
    let full = json!({
        "a": -1, "b": 5, "c": 7, "d": "18446744073709551615", "e": -3, "f": -4, "g": true, "h": "MINUS", "i": 1, "j": 2, "k": -1,
        "l": -2, "m": 0.5, "n": -1.5, "o": "é", "p": "AAE=", "q": [1, -2], "r": {"3": "x"}, "s": {"y": 2, "z": {"y": 3}},
        "v": "text", "w": false, "x": ["a", ""]
    });
    let seeds = [
        encode(&message, &full).unwrap(),
        encode(&message, &json!({"u": 3, "o": "x", "s": {}, "h": 9, "w": true})).unwrap(),
        Vec::new(),
    ];
    assert!(seeds[0].len() > 100, "{:?}", seeds[0]);
    let mut random = 3u64;
    let mut next = |bound: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % bound.max(1)
    };
    let mut agreed = (0, 0);
    for round in 0..8_000 {
        let mut bytes = seeds[round % 2].clone();
        if next(3) == 0 {
            bytes.extend_from_slice(&seeds[next(3)]);
        }
        for _ in 0..next(4) {
            let at = next(bytes.len());
            match next(3) {
                0 => bytes[at] = next(256) as u8,
                1 => bytes.insert(at, next(256) as u8),
                _ => drop(bytes.remove(at)),
            }
        }
        let mut read: Vec<ColumnBuffer> = kinds.iter().map(|kind| ColumnBuffer::new(*kind)).collect();
        match (program.read(&bytes, &mut read, 0), expected(&message, &kinds, &bytes)) {
            (Ok(()), Some(expected)) => {
                for ((mut read, expected), name) in read.into_iter().zip(expected).zip(&names) {
                    if read.len() == 0 {
                        read.push_null();
                    }
                    assert_eq!(
                        &read.finish().unwrap(),
                        &expected.finish().unwrap(),
                        "round {round}, {name}: {bytes:?}"
                    );
                }
                agreed.0 += 1;
            }
            // A float that is no number is refused even where a later one stands for the same field.
            (Err(Fault::Type(..)), _) => {}
            (Err(_), None) => agreed.1 += 1,
            (read, expected) => panic!("round {round}: {read:?}, expected {:?}: {bytes:?}", expected.is_some()),
        }
    }
    assert!(agreed.0 > 1_500 && agreed.1 > 500, "{agreed:?}");
}

#[test]
fn json_that_does_not_fit_says_where() {
    let message = message_at(&proto_file(TEXT, &[]).unwrap(), &[]).unwrap();
    for (value, part) in [
        (json!([1]), "the value is [1], the schema wants an object"),
        (json!({"a": 2_147_483_648_i64}), "field 'a' is 2147483648, the schema wants int32"),
        (json!({"c": -1}), "wants uint32"),
        (json!({"h": "OTHER"}), "one of MINUS, NONE, SOME"),
        (json!({"p": "?"}), "base 64"),
        (json!({"q": 1}), "an array"),
        (json!({"r": {"x": "y"}}), "'r.x' is \"x\", the schema wants a key of int32"),
        (json!({"s": {"z": {"y": "no"}}}), "field 's.z.y'"),
        (json!({"more": 1}), "'more' is not in the schema"),
    ] {
        let error = encode(&message, &value).unwrap_err();
        assert!(error.contains(part), "{value}: {error}");
    }
    let needs = proto_file("syntax = \"proto2\"; message M { required int32 a = 1; }", &[]).unwrap();
    assert!(encode(&message_at(&needs, &[]).unwrap(), &json!({})).unwrap_err().contains("'a' is missing"));
    let empty =
        DynamicMessage::decode(message.clone(), &encode(&message, &json!({"a": 0, "o": null})).unwrap()[..]).unwrap();
    assert_eq!(empty.encode_to_vec(), Vec::<u8>::new());
}
