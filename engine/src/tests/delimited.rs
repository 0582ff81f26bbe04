//! CSV records.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Date32Type, Decimal128Type, Float64Type, Int64Type};

use super::avro::rules;
use super::{BASE_MS, column};
use crate::{CsvConfig, Decoded, Stream, StreamConfig, StreamFormat};

fn config(csv: CsvConfig) -> StreamConfig {
    StreamConfig {
        name: "s".into(),
        topic: "events".into(),
        format: StreamFormat::Csv,
        csv,
        columns: vec![
            column("id", "BIGINT", true),
            column("name", "VARCHAR", false),
            column("price", "DECIMAL(8,2)", false),
            column("ratio", "DOUBLE", false),
            column("flag", "BOOLEAN", false),
            column("day", "DATE", false),
            column("tags", "VARCHAR[]", false),
            column("ts", "TIMESTAMP", true),
        ],
        event_time: "ts".into(),
        ..StreamConfig::default()
    }
}

fn decode(csv: CsvConfig, values: &[&str]) -> Decoded {
    let stream = Stream::new(&config(csv)).unwrap();
    let mut builder = broker::BatchBuilder::new();
    for value in values {
        builder.push(BASE_MS, None, Some(value.as_bytes()), &[]);
    }
    stream.decode(0, &[builder.build().unwrap()]).unwrap()
}

#[test]
fn every_type_finds_its_column() {
    let values = [
        "1,\"a, \"\"b\"\"\",12.5,0.25,true,2026-11-20,\"[\"\"x\"\",\"\"y\"\"]\",2026-11-20T10:00:00Z\r\n",
        "2,,,,,,,1795168800001\n",
        "3,\"\", 1.00 ,1e3,FALSE,2026-11-20,[],1795168800002",
    ];
    let decoded = decode(CsvConfig::default(), &values);
    assert_eq!(rules(&decoded), [], "{:?}", decoded.rejected);
    let rows = &decoded.rows;
    assert_eq!(rows.column(0).as_primitive::<Int64Type>().values(), &[1, 2, 3]);
    let names = rows.column(1).as_string::<i32>();
    assert_eq!((names.value(0), names.is_null(1), names.is_valid(2), names.value(2)), ("a, \"b\"", true, true, ""));
    let prices = rows.column(2).as_primitive::<Decimal128Type>();
    assert_eq!((prices.value(0), prices.is_null(1), prices.value(2)), (1_250, true, 100));
    let ratios = rows.column(3).as_primitive::<Float64Type>();
    assert_eq!((ratios.value(0), ratios.is_null(1), ratios.value(2)), (0.25, true, 1_000.0));
    let flags = rows.column(4).as_boolean();
    assert_eq!((flags.value(0), flags.is_null(1), flags.value(2)), (true, true, false));
    assert_eq!(rows.column(5).as_primitive::<Date32Type>().value(0), 20_777);
    let tags = rows.column(6).as_list::<i32>();
    assert_eq!((tags.value(0).len(), tags.is_null(1), tags.value(2).len()), (2, true, 0));
    let times = rows.column(7).as_primitive::<arrow::datatypes::TimestampMillisecondType>();
    assert_eq!(times.values(), &[BASE_MS, BASE_MS + 1, BASE_MS + 2]);
}

#[test]
fn delimiter_and_null_are_what_the_declaration_says() {
    let csv = CsvConfig { delimiter: '\t', null_text: "\\N".into() };
    let rest = format!("\t\\N\t\\N\t\\N\t\\N\t\\N\t{BASE_MS}");
    let values = [format!("1\t\\N{rest}"), format!("2\t\"\\N\"{rest}"), format!("3\ta,b{rest}"), format!("4\t{rest}")];
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    let decoded = decode(csv, &values);
    assert_eq!(rules(&decoded), [], "{:?}", decoded.rejected);
    let names = decoded.rows.column(1).as_string::<i32>();
    assert!(names.is_null(0));
    assert_eq!([names.value(1), names.value(2), names.value(3)], ["\\N", "a,b", ""]);
    assert_eq!(decoded.rows.column(2).null_count(), 4);
    for (text, wanted) in
        [("|", Some('|')), ("TAB", Some('\t')), ("\\t", Some('\t')), ("space", Some(' ')), ("→", Some('→'))]
    {
        assert_eq!(CsvConfig::delimiter_of(text), wanted, "{text}");
    }
    for text in ["", "\"", "\n", "||", "tabs"] {
        assert_eq!(CsvConfig::delimiter_of(text), None, "{text:?}");
    }
}

/// One record each: the rule it breaks.
#[test]
fn what_is_no_record_is_refused() {
    let cases = [
        ("1,a,,,,,,1795168800000", ""),
        ("", "csv"),
        ("1,a,,,,,1795168800000", "csv"),
        ("1,a,,,,,,1795168800000,", "csv"),
        ("1;a;;;;;;1795168800000", "csv"),
        ("1,\"a,,,,,,1795168800000", "csv"),
        ("1,\"a\"b,,,,,,1795168800000", "csv"),
        ("1,a,,,,,,1795168800000\n2,b,,,,,,1795168800000\n", "csv"),
        ("x,a,,,,,,1795168800000", "type"),
        ("\"\",a,,,,,,1795168800000", "type"),
        (",a,,,,,,1795168800000", "required"),
        ("1,a,,,,,,", "required"),
        ("1,a,0.001,,,,,1795168800000", "type"),
        ("1,a,,NaN,,,,1795168800000", "type"),
        ("1,a,,,yes,,,1795168800000", "type"),
        ("1,a,,,,,[1],1795168800000", "type"),
        ("1,a,,,,,,1795172400001", "max_ahead"),
        ("2,a,,,,,,1795168800000", ""),
    ];
    let values: Vec<&str> = cases.iter().map(|(value, _)| *value).collect();
    let decoded = decode(CsvConfig::default(), &values);
    let wanted: Vec<(i64, &str)> =
        (0..).zip(cases).filter(|(_, (_, rule))| !rule.is_empty()).map(|(offset, (_, rule))| (offset, rule)).collect();
    assert_eq!(rules(&decoded), wanted, "{:#?}", decoded.rejected);
    assert_eq!(decoded.rows.column(0).as_primitive::<Int64Type>().values(), &[1, 2]);
    let reason = |at: usize| decoded.rejected[at].reason.clone();
    assert_eq!(reason(1), "the record has 7 fields, the stream 8 columns: is ',' the delimiter?");
    assert_eq!(reason(3), "the record has 1 fields, the stream 8 columns: is ',' the delimiter?");
    assert_eq!(reason(7), "field 'id' is 'x', wanted an integer of 64 bits");
    let mut builder = broker::BatchBuilder::new();
    builder.push(BASE_MS, None, Some(&[0xff]), &[]);
    let stream = Stream::new(&config(CsvConfig::default())).unwrap();
    assert_eq!(rules(&stream.decode(0, &[builder.build().unwrap()]).unwrap()), [(0, "utf8")]);
}

#[test]
fn what_comes_as_json_is_written_as_it_is_read() {
    let json = r#"{"ts": 1795168800000, "id": 7, "name": "a,\"b\"", "price": "1.50", "flag": true, "tags": ["x"], "day": null}"#;
    for csv in [CsvConfig::default(), CsvConfig { delimiter: '|', null_text: "NULL".into() }] {
        let stream = Stream::new(&config(csv.clone())).unwrap();
        let line = String::from_utf8(stream.encode(json).unwrap()).unwrap();
        let decoded = decode(csv.clone(), &[&line]);
        assert_eq!(rules(&decoded), [], "{line}: {:?}", decoded.rejected);
        assert_eq!(decoded.rows.column(1).as_string::<i32>().value(0), "a,\"b\"");
        assert_eq!(decoded.rows.column(6).as_list::<i32>().value(0).len(), 1);
        assert!(decoded.rows.column(5).is_null(0));
        // A text that reads like null stays a text.
        let name = csv.null_text.clone();
        let json = serde_json::json!({"id": 1, "ts": BASE_MS, "name": name}).to_string();
        let line = String::from_utf8(stream.encode(&json).unwrap()).unwrap();
        assert_eq!(decode(csv, &[&line]).rows.column(1).as_string::<i32>().value(0), name);
        assert!(stream.encode(r#"{"more": 1}"#).unwrap_err().contains("'more' is not a column"));
        assert!(stream.encode("[]").unwrap_err().contains("not an object"));
    }
}

#[test]
fn what_cannot_be_is_said_at_the_declaration() {
    let mistakes = |config: &StreamConfig| Stream::new(config).err().unwrap().join("\n");
    let mut named = config(CsvConfig::default());
    named.columns[1].from = Some("other".into());
    assert!(mistakes(&named).contains("column 'name': a field of CSV has no name"));
    let null_text = CsvConfig { null_text: "a,b".into(), ..CsvConfig::default() };
    assert!(mistakes(&config(null_text)).contains("null_text = 'a,b' holds the delimiter"));
    let pipes = CsvConfig { delimiter: '|', ..CsvConfig::default() };
    let [one, other] =
        [CsvConfig::default(), pipes].map(|csv| Stream::new(&config(csv)).unwrap().definition(&|_| true));
    assert_ne!(one, other);
}
