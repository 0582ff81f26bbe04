use super::json_schema::{cannot_read, parse};

fn open(properties: &str, required: &str) -> String {
    format!(r#"{{"type":"object","properties":{{{properties}}},"required":[{required}]}}"#)
}

fn closed(properties: &str, required: &str) -> String {
    open(properties, required).replacen('{', r#"{"additionalProperties":false,"#, 1)
}

fn partly(properties: &str, additional: &str) -> String {
    open(properties, "").replacen('{', &format!(r#"{{"additionalProperties":{additional},"#), 1)
}

/// reader, writer, whether the reader takes all that the writer takes
#[test]
fn who_reads_what() {
    let (a, ab) = (r#""a":{"type":"string"}"#, r#""a":{"type":"string"},"b":{"type":"integer"}"#);
    let any_b = r#""a":{"type":"string"},"b":{}"#;
    let default_b = r#""a":{"type":"string"},"b":{"type":"integer","default":0}"#;
    let cases: Vec<(String, String, bool)> = vec![
        (open(ab, ""), open(a, ""), false),
        (open(any_b, ""), open(a, ""), true),
        (open(a, ""), open(ab, ""), true),
        (closed(ab, ""), closed(a, ""), true),
        (closed(ab, r#""b""#), closed(a, ""), false),
        (closed(default_b, r#""b""#), closed(a, ""), true),
        (closed(a, ""), closed(ab, ""), false),
        (closed(a, ""), closed(r#""a":{"type":"string"},"b":false"#, ""), true),
        (open(a, ""), closed(a, ""), true),
        (closed(a, ""), open(a, ""), false),
        (partly(ab, r#"{"type":"integer"}"#), partly(a, r#"{"type":"integer"}"#), true),
        (partly(ab, r#"{"type":"string"}"#), partly(a, r#"{"type":"string"}"#), false),
        (partly(a, r#"{"type":"integer"}"#), partly(ab, r#"{"type":"integer"}"#), true),
        (partly(a, r#"{"type":"string"}"#), partly(ab, r#"{"type":"string"}"#), false),
        (partly(a, r#"{"type":"string"}"#), open(a, ""), false),
        (partly(a, "true"), open(a, ""), true),
        (open(a, r#""a""#), open(a, ""), false),
        (open(a, ""), open(a, r#""a""#), true),
        (open(r#""a":{"type":"string","default":""}"#, r#""a""#), open(a, ""), true),
        (r#"{"type":"number"}"#.into(), r#"{"type":"integer"}"#.into(), true),
        (r#"{"type":"integer"}"#.into(), r#"{"type":"number"}"#.into(), false),
        (r#"{"type":["string","null"]}"#.into(), r#"{"type":"string"}"#.into(), true),
        (r#"{"type":"string"}"#.into(), r#"{"type":["string","null"]}"#.into(), false),
        ("true".into(), r#"{"type":"string"}"#.into(), true),
        ("{}".into(), r#"{"type":"string"}"#.into(), true),
        (r#"{"type":"string"}"#.into(), "{}".into(), false),
        ("false".into(), r#"{"type":"string"}"#.into(), false),
        (r#"{"type":"string","maxLength":5}"#.into(), r#"{"type":"string","maxLength":4}"#.into(), true),
        (r#"{"type":"string","maxLength":4}"#.into(), r#"{"type":"string","maxLength":5}"#.into(), false),
        (r#"{"type":"string","maxLength":4}"#.into(), r#"{"type":"string"}"#.into(), false),
        (r#"{"type":"integer","minimum":1}"#.into(), r#"{"type":"integer","minimum":2}"#.into(), true),
        (r#"{"type":"integer","minimum":2}"#.into(), r#"{"type":"integer","minimum":1}"#.into(), false),
        (r#"{"type":"integer","multipleOf":2}"#.into(), r#"{"type":"integer","multipleOf":4}"#.into(), true),
        (r#"{"type":"integer","multipleOf":4}"#.into(), r#"{"type":"integer","multipleOf":2}"#.into(), false),
        (r#"{"type":"string"}"#.into(), r#"{"type":"string","pattern":"a"}"#.into(), true),
        (r#"{"type":"string","pattern":"b"}"#.into(), r#"{"type":"string","pattern":"a"}"#.into(), false),
        (r#"{"enum":["a","b"]}"#.into(), r#"{"enum":["a"]}"#.into(), true),
        (r#"{"enum":["a"]}"#.into(), r#"{"enum":["a","b"]}"#.into(), false),
        (r#"{"enum":["a","b"]}"#.into(), r#"{"const":"a"}"#.into(), true),
        (
            r#"{"type":"array","items":{"type":"number"}}"#.into(),
            r#"{"type":"array","items":{"type":"integer"}}"#.into(),
            true,
        ),
        (r#"{"type":"array","items":{"type":"integer"}}"#.into(), r#"{"type":"array"}"#.into(), false),
        (r#"{"type":"array","uniqueItems":true}"#.into(), r#"{"type":"array"}"#.into(), false),
        (r#"{"oneOf":[{"type":"string"},{"type":"null"}]}"#.into(), r#"{"type":"string"}"#.into(), true),
        (r#"{"type":"string"}"#.into(), r#"{"oneOf":[{"type":"string"},{"type":"null"}]}"#.into(), false),
        (
            r#"{"oneOf":[{"type":"string"},{"type":"null"},{"type":"integer"}]}"#.into(),
            r#"{"oneOf":[{"type":"null"},{"type":"string"}]}"#.into(),
            true,
        ),
        (r#"{"anyOf":[{"type":"string"}]}"#.into(), r#"{"anyOf":[{"type":"string"},{"type":"null"}]}"#.into(), false),
        (r#"{"allOf":[{"type":"string"}]}"#.into(), r#"{"allOf":[{"type":"string"},{"maxLength":3}]}"#.into(), true),
        (r#"{"allOf":[{"type":"string"},{"maxLength":3}]}"#.into(), r#"{"allOf":[{"type":"string"}]}"#.into(), false),
        (r#"{"not":{"type":"string"}}"#.into(), "{}".into(), false),
        (
            r##"{"$defs":{"x":{"type":"number"}},"type":"object","properties":{"a":{"$ref":"#/$defs/x"}}}"##.into(),
            r##"{"$defs":{"y":{"type":"integer"}},"type":"object","properties":{"a":{"$ref":"#/$defs/y"}}}"##.into(),
            true,
        ),
        (
            r##"{"type":"object","properties":{"next":{"$ref":"#"},"v":{"type":"integer"}}}"##.into(),
            r##"{"type":"object","properties":{"next":{"$ref":"#"},"v":{"type":"number"}}}"##.into(),
            false,
        ),
        (r#"{"dependencies":{"a":["b"]}}"#.into(), r#"{"dependencies":{"a":["b","c"]}}"#.into(), true),
        (r#"{"dependencies":{"a":["b"]}}"#.into(), r#"{"type":"object"}"#.into(), false),
    ];
    for (reader, writer, fits) in cases {
        let found = cannot_read(&parse(&reader, &[]).unwrap(), &parse(&writer, &[]).unwrap());
        assert_eq!(found.is_empty(), fits, "{reader} reads {writer}: {found:?}");
    }
}

#[test]
fn what_is_no_schema_is_told() {
    for text in ["", "{", "7", "[]", r#"{"type":"strin"}"#, r#"{"properties":[]}"#] {
        assert!(parse(text, &[]).is_err(), "{text}");
    }
    for text in [
        r#"{"$schema":"https://example.org/own","type":"string"}"#,
        r#"{"$schema":"http://json-schema.org/draft-04/schema#"}"#,
    ] {
        assert!(parse(text, &[]).is_ok(), "{text}");
    }
    let user = r#"{"type":"object","properties":{"u":{"$ref":"user.json"}}}"#;
    let parsed = |inner: &str| parse(user, &[("user.json", inner)]).unwrap();
    let found = cannot_read(&parsed(r#"{"type":"integer"}"#), &parsed(r#"{"type":"number"}"#));
    assert_eq!(found, [r##"{errorType:"TYPE_CHANGED", path:"#/properties/u"}"##]);
}
