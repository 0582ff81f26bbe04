//! Records → columns, as a table; and what was sampled decodes.

use broker::BatchBuilder;

use super::BASE_MS;
use super::oracle::Random;
use crate::infer::{COLUMNS_MAX, Inference, LEFT_OUT_MAX, PATH_CHARS_MAX, infer, read};
use crate::{ColumnConfig, Stream, StreamConfig};

/// Records as they come, without the event time that each gets.
fn with_time(fields: &str) -> String {
    let comma = if fields.is_empty() { "" } else { "," };
    format!("{{{fields}{comma}\"ts\":{BASE_MS}}}")
}

fn inferred(records: &[String]) -> Result<Inference, String> {
    let (read, unreadable) = read(records.iter().map(|record| Ok(record.as_bytes())));
    assert_eq!(unreadable.count, 0, "{records:?}: {:?}", unreadable.first);
    infer(&read, "ts")
}

fn shown(column: &ColumnConfig) -> String {
    let from = column.from.as_ref().map(|from| format!(" FROM {from}")).unwrap_or_default();
    let required = if column.required { " NOT NULL" } else { "" };
    format!("{} {}{required}{from}", column.name, column.sql_type)
}

/// All of the records are rows of the stream that was inferred from them, but those that have no event time.
fn assert_decodes(inference: &Inference, records: &[String]) {
    let config = StreamConfig {
        name: "s".into(),
        topic: "t".into(),
        event_time: "ts".into(),
        columns: inference.columns.clone(),
        max_ahead_ms: i64::MAX,
        ..StreamConfig::default()
    };
    let stream = Stream::new(&config).unwrap_or_else(|mistakes| panic!("{mistakes:?}: {config:?}"));
    let mut builder = BatchBuilder::new();
    for record in records {
        builder.push(BASE_MS, None, Some(record.as_bytes()), &[]);
    }
    let decoded = stream.decode(0, &[builder.build().unwrap()]).unwrap();
    assert!(decoded.rejected.is_empty(), "{records:?}: {:?}", decoded.rejected);
    assert_eq!(decoded.rows.num_rows(), records.len());
}

/// Fields of records; the columns before `ts`; what is left out, and a part of why.
type Case = (&'static [&'static str], &'static [&'static str], &'static [(&'static str, &'static str)]);

const CASES: &[Case] = &[
    (&[r#""a":1"#, r#""a":-9223372036854775808"#, r#""a":null"#, ""], &["a BIGINT"], &[]),
    (&[r#""a":1"#, r#""a":9223372036854775808"#], &["a DECIMAL(38,0)"], &[]),
    (&[r#""a":1"#, r#""a":1.5"#, r#""a":18446744073709551615"#], &["a DOUBLE"], &[]),
    (&[r#""a":5.0"#, r#""b":1e3"#], &["a DOUBLE", "b DOUBLE"], &[]),
    (&[r#""a":123456789012345678901234567890123456789"#], &["a DOUBLE"], &[]),
    (&[r#""a":1e999"#, r#""a":1"#], &[], &[("a", "beyond those of 64 bits")]),
    (&[r#""a":true"#, r#""a":false"#], &["a BOOLEAN"], &[]),
    (&[r#""a":true"#, r#""a":1"#], &[], &[("a", "several types: 1 booleans, 1 numbers")]),
    (&[r#""a":"x""#, r#""a":"""#], &["a VARCHAR"], &[]),
    (&[r#""a":"7""#, r#""a":7"#], &[], &[("a", "several types: 1 numbers, 1 texts")]),
    (&[r#""a":"2026-11-20""#, r#""a":"2024-02-29""#], &["a DATE"], &[]),
    (&[r#""a":"2026-02-29""#], &["a VARCHAR"], &[]),
    (&[r#""a":"2026-11-20T10:00:00.25Z""#, r#""a":"2026-11-20 10:00:00+02:00""#], &["a TIMESTAMP"], &[]),
    (&[r#""a":"2026-11-20T10:00:00Z""#, r#""a":"2026-11-20""#], &["a TIMESTAMP"], &[]),
    (&[r#""a":"2026-11-20T10:00:00Z""#, r#""a":"soon""#], &["a VARCHAR"], &[]),
    // A time only where it is the event's: else a number stays what it is.
    (&[r#""a":1795168800000"#], &["a BIGINT"], &[]),
    (&[r#""a":"2026-11-20T10:00:00Z""#, r#""a":1795168800000"#], &[], &[("a", "several types")]),
    (&[r#""a":["x",null]"#, r#""a":[]"#, r#""a":["y"]"#], &["a VARCHAR[]"], &[]),
    (&[r#""a":[]"#, r#""a":[null]"#], &[], &[("a", "lists are empty")]),
    (&[r#""a":["x",1]"#], &[], &[("a", "not of texts alone")]),
    (&[r#""a":["x"]"#, r#""a":[[]]"#], &[], &[("a", "not of texts alone")]),
    (&[r#""a":["x"]"#, r#""a":"x""#], &[], &[("a", "several types: 1 texts, 1 lists")]),
    (&[r#""a":null,"b":1"#], &["b BIGINT"], &[("a", "null wherever")]),
    (
        &[
            r#""place":{"country":"FR","at":{"lat":1,"lon":2.5}},"b":1"#,
            r#""place":{"country":null}"#,
            r#""place":null"#,
        ],
        &[
            "place_country VARCHAR FROM place.country",
            "place_at_lat BIGINT FROM place.at.lat",
            "place_at_lon DOUBLE FROM place.at.lon",
            "b BIGINT",
        ],
        &[],
    ),
    (&[r#""a":{"b":1}"#, r#""a":{}"#], &["a_b BIGINT FROM a.b"], &[]),
    (&[r#""a":{}"#], &[], &[("a", "object without fields")]),
    (&[r#""a":{"b":1}"#, r#""a":1"#], &[], &[("a", "several types: 1 numbers, 1 objects")]),
    (&[r#""a":{"b":{"c":{"d":{"e":1}}}}"#], &["a_b_c_d_e BIGINT FROM a.b.c.d.e"], &[]),
    (&[r#""a":{"b":{"c":{"d":{"e":{"f":1}}}}}"#], &[], &[("a.b.c.d.e", "5 levels deep")]),
    // Names.
    (
        &[r#""userId":1,"userid":"x","UserID":true"#],
        &["userId BIGINT", "userid_2 VARCHAR FROM userid", "UserID_3 BOOLEAN FROM UserID"],
        &[],
    ),
    (&[r#""a":{"b":1},"a_b":2"#], &["a_b_2 BIGINT FROM a.b", "a_b BIGINT"], &[]),
    (
        &[r#""_id":1,"id":2,"_offset":3,"__":4"#],
        &["id_2 BIGINT FROM _id", "id BIGINT", "offset BIGINT FROM _offset", "field BIGINT FROM __"],
        &[],
    ),
    (&[r#""window_start":1"#], &["window_start_2 BIGINT FROM window_start"], &[]),
    (
        &[r#""a.b":1,"my field":2,"a":{"c.d":3,"e":4}"#],
        &["a.b BIGINT", "my field BIGINT", "a_e BIGINT FROM a.e"],
        &[("a.c.d", "has a dot")],
    ),
    (&[r#""":1,"a\"b":2"#], &["a_b BIGINT FROM a\"b"], &[("", "is empty")]),
    (&[r#""b":1"#, r#""a":1,"b":2"#], &["b BIGINT", "a BIGINT"], &[]),
];

#[test]
fn records_become_columns() {
    let mut differ = Vec::new();
    for (fields, columns, left_out) in CASES {
        let records: Vec<String> = fields.iter().map(|fields| with_time(fields)).collect();
        let inference = inferred(&records).unwrap_or_else(|wrong| panic!("{records:?}: {wrong}"));
        assert_decodes(&inference, &records);
        let found: Vec<String> =
            inference.columns.iter().map(shown).filter(|column| !column.starts_with("ts ")).collect();
        let told = &inference.left_out;
        let is_told = told.len() == left_out.len()
            && left_out.iter().zip(told).all(|((path, why), told)| *path == told.0 && told.1.contains(why));
        if found != *columns || !is_told || !inference.notes.is_empty() {
            differ.push(format!("{records:?}: {inference:?}"));
        }
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}

/// What the event time is in the records, and the mistake or "".
#[test]
fn the_event_time_is_a_time_or_a_mistake() {
    let cases: &[(&[&str], &str)] = &[
        (&[r#"{"ts":1795168800000}"#, r#"{"ts":"2026-11-20T10:00:00Z"}"#, r#"{"ts":"2026-11-20"}"#], ""),
        (&[r#"{"ts":0}"#], ""),
        (&[r#"{"ts":1795168800}"#, r#"{"ts":1795168801}"#], "'ts' gets no column: its numbers look like seconds"),
        (&[r#"{"ts":1795168800000000}"#], "'ts' gets no column: 1 of its 1 values are neither"),
        (&[r#"{"ts":1795168800000}"#, r#"{"ts":"soon"}"#], "'ts' gets no column: 1 of its 2 values are neither"),
        (&[r#"{"ts":null}"#], "'ts' gets no column"),
        (&[r#"{"ts":{"at":1795168800000}}"#], "'ts' is not a field of the sampled records, there are: ts_at"),
        (&[r#"{"Ts":1795168800000}"#], "did you mean 'Ts'"),
        (&["{}"], "'ts' is not a field of the sampled records"),
    ];
    for (records, expected) in cases {
        let records: Vec<String> = records.iter().map(|record| record.to_string()).collect();
        match inferred(&records) {
            Ok(inference) => {
                assert_eq!(inference.columns.iter().map(shown).collect::<Vec<_>>(), ["ts TIMESTAMP NOT NULL"]);
                assert_eq!(*expected, "", "{records:?}");
                assert_decodes(&inference, &records);
            }
            Err(wrong) => assert!(!expected.is_empty() && wrong.contains(expected), "{records:?}: {wrong}"),
        }
    }
    let some = [with_time(""), r#"{"a":1}"#.to_string(), r#"{"ts":null}"#.to_string()];
    let notes = inferred(&some).unwrap().notes;
    assert!(notes[0].contains("missing or null in 2 of 3 records"), "{notes:?}");
}

#[test]
fn what_is_no_object_is_counted_and_leaves_no_trace() {
    let values = ["{\"ts\":1795168800000}", "[1]", "x", "{\"a\":1,\"b\":{\"c\":1,\"c\":2}}", "{\"a\":1", "null"];
    let (records, unreadable) = read(values.iter().map(|value| Ok(value.as_bytes())));
    assert_eq!((records.count(), unreadable.count), (1, 5));
    assert_eq!(unreadable.first, Some((1, "the value is JSON but not an object".into())));
    assert_eq!(infer(&records, "ts").unwrap().columns.len(), 1);
}

#[test]
fn columns_and_fields_have_bounds() {
    let fields = |count: usize| (0..count).map(|at| format!("\"f{at}\":1")).collect::<Vec<_>>().join(",");
    let records = [format!("{{\"ts\":{BASE_MS},{}}}", fields(COLUMNS_MAX + 60))];
    let inference = inferred(&records).unwrap();
    assert_eq!((inference.columns.len(), inference.left_out.len()), (COLUMNS_MAX, LEFT_OUT_MAX));
    assert!(inference.left_out[0].1.contains("256 columns come before it"), "{:?}", inference.left_out);
    assert_eq!(inference.notes, ["11 more fields are left out"]);
    assert_decodes(&inference, &records);
    let inference = inferred(&[format!("{{\"ts\":{BASE_MS},{}}}", fields(5_000))]).unwrap();
    assert!(inference.notes.iter().any(|note| note.contains("so many fields")), "{:?}", inference.notes);
    let long = "n".repeat(129);
    let inference = inferred(&[with_time(&format!("\"{long}\":1"))]).unwrap();
    assert!(inference.left_out[0].1.contains("longer than 128 bytes"), "{inference:?}");
    assert!(inference.left_out[0].0.chars().count() <= PATH_CHARS_MAX + 1, "{inference:?}");
}

fn value(random: &mut Random, depth: u64) -> String {
    const PLAIN: [&str; 16] = [
        "null",
        "true",
        "1",
        "-7",
        "2.5",
        "1e3",
        "9223372036854775808",
        "1e999",
        "\"\"",
        "\"x\\u00e9\"",
        "\"2026-11-20\"",
        "\"2026-11-20T10:00:00Z\"",
        "[]",
        "[\"a\",null]",
        "[1]",
        "{}",
    ];
    match random.below(20) {
        0..3 if depth < 7 => format!("{{{}}}", fields(random, depth + 1)),
        // Mostly of one kind, so that fields have types.
        3..14 => PLAIN[2 + (random.below(2) as usize)].to_string(),
        _ => PLAIN[random.below(16) as usize].to_string(),
    }
}

fn fields(random: &mut Random, depth: u64) -> String {
    const NAMES: [&str; 12] = ["a", "A", "b", "a_b", "_a", "a.b", "", "é", "b c", "window_end", "a\\\"", "_"];
    let start = random.below(12) as usize;
    let count = random.below(6) as usize;
    let names = (0..count).map(|at| NAMES[(start + at * 5) % 12]);
    names.map(|name| format!("\"{name}\":{}", value(random, depth))).collect::<Vec<_>>().join(",")
}

/// Whatever the records are, each is a row of the stream that is inferred from them.
#[test]
fn what_was_sampled_decodes() {
    let mut random = Random::seeded();
    let (mut columns, mut left_out) = (0, 0);
    for _ in 0..1_500 {
        let records: Vec<String> = (0..1 + random.below(6)).map(|_| with_time(&fields(&mut random, 1))).collect();
        let inference = inferred(&records).unwrap_or_else(|wrong| panic!("{records:?}: {wrong}"));
        assert_decodes(&inference, &records);
        columns += inference.columns.len();
        left_out += inference.left_out.len();
    }
    assert!(columns > 3_000 && left_out > 500, "{columns} columns, {left_out} left out");
}
