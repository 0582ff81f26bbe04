use arrow::array::{Array, AsArray};
use arrow::datatypes::{Decimal128Type, Int64Type, TimestampMillisecondType};
use broker::{Batch, BatchBuilder};

use super::{BASE_MS, column, event, stream};
use crate::decode::Decoder;
use crate::lookup::{LookupTable, RecordDecoder};
use crate::source::Decode;
use crate::{CheckConfig, ColumnConfig, Decoded, Stream, StreamConfig};

fn decode(config: &StreamConfig, values: &[Option<&[u8]>]) -> Decoded {
    let stream = Stream::new(config).unwrap_or_else(|mistakes| panic!("{mistakes:?}"));
    stream.decode(3, &[batch(values)]).unwrap()
}

fn batch(values: &[Option<&[u8]>]) -> Batch {
    let mut builder = BatchBuilder::new();
    for value in values {
        builder.push(BASE_MS, Some(b"key"), *value, &[(b"h", Some(b"1"))]);
    }
    builder.build().unwrap()
}

/// One record each: the rule it breaks, or "" for a row.
#[test]
fn each_rule_refuses_its_record_and_no_other() {
    let cases: &[(&[u8], &str)] = &[
        (br#"{"uid":1,"ts":1795168800000}"#, ""),
        (br#"{"uid":1,"ts":"2026-11-20T10:00:00Z","genre":null,"other":{"x":[1,{}]},"other":2}"#, ""),
        (br#" {"ts":"2026-11-20 10:00:00.5+00:00" , "uid":-9223372036854775808} "#, ""),
        (br#"{"uid":1}"#, "required"),
        (br#"{"uid":1,"ts":null}"#, "required"),
        (br#"{"ts":1795168800000}"#, "required"),
        (br#"{"uid":1.0,"ts":1795168800000}"#, "type"),
        (br#"{"uid":1e3,"ts":1795168800000}"#, "type"),
        (br#"{"uid":"1","ts":1795168800000}"#, "type"),
        (br#"{"uid":9223372036854775808,"ts":1795168800000}"#, "type"),
        (br#"{"uid":1,"genre":7,"ts":1795168800000}"#, "type"),
        (br#"{"uid":1,"genre":{},"ts":1795168800000}"#, "type"),
        (br#"{"uid":1,"price":1e999,"ts":1795168800000}"#, "type"),
        (br#"{"uid":1,"ts":"yesterday"}"#, "type"),
        (br#"{"uid":1,"ts":99999999999999999}"#, "type"),
        (br#"{"uid":1,"ts":1795168800000,"uid":1}"#, "duplicate_field"),
        (br#"{"uid":1,"ts":1795168800000"#, "json"),
        (br#"{"uid":1,"ts":1795168800000}x"#, "json"),
        (br#"{'user':1}"#, "json"),
        (b"", "json"),
        (br#"[{"uid":1}]"#, "not_object"),
        (b"null", "not_object"),
        (b"{\"uid\":1,\"genre\":\"\xff\",\"ts\":1795168800000}", "utf8"),
        (br#"{"uid":1,"ts":1795172400000}"#, ""),
        (br#"{"uid":1,"ts":1795172400001}"#, "max_ahead"),
        (br#"{"uid":1,"ts":1795168800000,"amount":-1}"#, "amount_not_negative"),
    ];
    let values: Vec<Option<&[u8]>> = cases.iter().map(|(value, _)| Some(*value)).collect();
    let all = decode(&stream(), &values);
    let mut refused = all.rejected.iter();
    let mut rows = 0;
    for (offset, (value, rule)) in cases.iter().enumerate() {
        if rule.is_empty() {
            rows += 1;
            continue;
        }
        let rejected = refused.next().unwrap();
        assert_eq!((rejected.offset, &*rejected.rule), (offset as i64, *rule), "{}", rejected.reason);
        assert_eq!(rejected.value.as_deref(), Some(*value));
        assert_eq!((rejected.partition, rejected.records, rejected.timestamp), (3, 1, BASE_MS));
        assert_eq!((rejected.key.as_deref(), rejected.headers.len()), (Some(&b"key"[..]), 1));
        assert!(!rejected.reason.is_empty());
    }
    assert_eq!((refused.next(), all.rows.num_rows()), (None, rows));
    let offsets = all.rows.column_by_name("_offset").unwrap().as_primitive::<Int64Type>();
    assert_eq!(offsets.values(), &[0, 1, 2, 23]);
    assert_eq!(decode(&stream(), &[None]).rejected[0].rule.as_ref(), "null_value");
}

#[test]
fn the_same_records_give_the_same_rows_in_any_portions() {
    let stream = Stream::new(&stream()).unwrap_or_else(|mistakes| panic!("{mistakes:?}"));
    let one: &[u8] = br#"{"uid":1,"ts":1795168800000,"genre":"a\u00e9"}"#;
    let bad: &[u8] = b"x";
    let whole = stream.decode(0, &[batch(&[Some(one), Some(bad)]), batch(&[Some(bad), Some(one)])]).unwrap();
    let first = stream.decode(0, &[batch(&[Some(one), Some(bad)])]).unwrap();
    let second = stream.decode(0, &[batch(&[Some(bad), Some(one)])]).unwrap();
    let joined = arrow::compute::concat_batches(&stream.schema(), [&first.rows, &second.rows]).unwrap();
    assert_eq!(whole.rows, joined);
    assert_eq!(whole.rejected.len(), 2);
    assert_eq!(stream.decode(0, &[]).unwrap().rows.num_rows(), 0);
}

#[test]
fn every_type_comes_out_exact() {
    let config = StreamConfig {
        columns: vec![
            column("a", "bigint", false),
            column("b", "DOUBLE", false),
            column("c", "BOOLEAN", false),
            column("d", "DATE", false),
            column("e", "DECIMAL(12, 2)", false),
            column("ts", "timestamp", false),
        ],
        checks: Vec::new(),
        ..stream()
    };
    let decoded = decode(
        &config,
        &[
            Some(br#"{"a":9007199254740993,"b":0.1,"c":true,"d":"2024-02-29","e":12345678.90,"ts":"2026-11-20T10:00:00.123Z"}"#),
            Some(br#"{"e":"-0.01","ts":0,"b":7}"#),
        ],
    );
    assert_eq!(decoded.rejected, []);
    let rows = decoded.rows;
    assert_eq!(rows.column(0).as_primitive::<Int64Type>().value(0), 9_007_199_254_740_993);
    assert_eq!(rows.column(4).as_primitive::<Decimal128Type>().values(), &[1_234_567_890, -1]);
    assert_eq!(rows.column(5).as_primitive::<TimestampMillisecondType>().values(), &[BASE_MS + 123, 0]);
    assert!(rows.column(0).is_null(1) && rows.column(2).is_null(1) && rows.column(3).is_null(1));
}

/// A check that cannot be evaluated on one row refuses that row only.
#[test]
fn a_check_that_fails_on_a_row_refuses_that_row() {
    let check = CheckConfig { name: "ratio".into(), sql: "100 / amount > 1".into(), ..CheckConfig::default() };
    let config = StreamConfig { checks: vec![check], ..stream() };
    let value = |amount: &str| format!(r#"{{"uid":1,"ts":{BASE_MS},"amount":{amount}}}"#).into_bytes();
    let values = [value("10"), value("0"), value("200"), value("null"), value("20")];
    let decoded = decode(&config, &values.iter().map(|value| Some(value.as_slice())).collect::<Vec<_>>());
    let refused: Vec<_> = decoded.rejected.iter().map(|rejected| (rejected.offset, &*rejected.rule)).collect();
    assert_eq!(refused, [(1, "check_failed"), (2, "ratio"), (3, "ratio")]);
    assert_eq!(decoded.rows.num_rows(), 2);
}

#[test]
fn a_batch_that_cannot_be_read_is_refused_as_one() {
    let good = batch(&[Some(br#"{"uid":1,"ts":0}"#), Some(br#"{"uid":2,"ts":0}"#)]);
    let mut bytes = good.bytes().to_vec();
    let last = bytes.len() - 1;
    bytes.truncate(last - 3);
    let length = u32::try_from(bytes.len() - 12).unwrap();
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    let broken = Batch::parse(bytes.into()).unwrap();
    let stream = Stream::new(&stream()).unwrap_or_else(|mistakes| panic!("{mistakes:?}"));
    let decoded = stream.decode(0, &[broken]).unwrap();
    assert_eq!(decoded.rows.num_rows(), 1);
    assert_eq!(
        (decoded.rejected[0].offset, decoded.rejected[0].records, &*decoded.rejected[0].rule),
        (1, 1, "unreadable")
    );
}

#[test]
fn nested_fields_and_lists_become_columns() {
    let path = |name: &str, sql_type: &str, from: &str| ColumnConfig {
        from: Some(from.into()),
        ..column(name, sql_type, false)
    };
    let config = StreamConfig {
        columns: vec![
            path("start", "DATE", "mission.start"),
            path("skills", "VARCHAR[]", "compétences"),
            path("client", "VARCHAR", "mission.client.nom"),
            column("ts", "TIMESTAMP", true),
            ColumnConfig { required: true, ..path("rate", "BIGINT", "mission.rate") },
        ],
        checks: vec![CheckConfig {
            name: "skilled".into(),
            sql: "array_length(skills) > 0".into(),
            ..Default::default()
        }],
        ..stream()
    };
    let cases: &[(&str, &str)] = &[
        (
            r#"{"ts":0,"compétences":["Python","é\n",null],"mission":{"rate":1,"start":"2024-02-29","client":{"nom":"x"}}}"#,
            "",
        ),
        (r#"{"ts":0,"compétences":["a"],"mission":{"client":null,"other":[1],"rate":2}}"#, ""),
        (r#"{"ts":0,"compétences":["a"],"mission":{"client":{}}}"#, "required"),
        (r#"{"ts":0,"compétences":["a"]}"#, "required"),
        (r#"{"ts":0,"compétences":["a",1],"mission":{"rate":1}}"#, "type"),
        (r#"{"ts":0,"compétences":"a","mission":{"rate":1}}"#, "type"),
        (r#"{"ts":0,"compétences":["a"],"mission":"none"}"#, "type"),
        (r#"{"ts":0,"compétences":["a"],"mission":{"rate":1,"rate":1}}"#, "duplicate_field"),
        (r#"{"ts":0,"compétences":[],"mission":{"rate":1}}"#, "skilled"),
        (r#"{"ts":0,"compétences":["z"],"mission":{"rate":3}}"#, ""),
    ];
    let decoded = decode(&config, &cases.iter().map(|(value, _)| Some(value.as_bytes())).collect::<Vec<_>>());
    let refused: Vec<(i64, &str)> = decoded.rejected.iter().map(|r| (r.offset, &*r.rule)).collect();
    let expected: Vec<(i64, &str)> =
        (0..).zip(cases).filter(|(_, (_, rule))| !rule.is_empty()).map(|(at, (_, rule))| (at, *rule)).collect();
    assert_eq!(refused, expected);
    let text = |column: usize| {
        let options = arrow::util::display::FormatOptions::new().with_null("∅");
        let array = decoded.rows.column(column);
        let formatter = arrow::util::display::ArrayFormatter::try_new(array, &options).unwrap();
        (0..array.len()).map(|row| formatter.value(row).to_string()).collect::<Vec<_>>()
    };
    assert_eq!(text(0), ["2024-02-29", "∅", "∅"]);
    assert_eq!(text(1), ["[Python, é\n, ∅]", "[a]", "[z]"]);
    assert_eq!(text(2), ["x", "∅", "∅"]);
    assert_eq!(text(4), ["1", "2", "3"]);
}

#[test]
fn two_columns_of_one_field_are_a_mistake() {
    let config = StreamConfig {
        columns: vec![
            column("ts", "TIMESTAMP", true),
            ColumnConfig { from: Some("ts".into()), ..column("at", "TIMESTAMP", false) },
            ColumnConfig { from: Some("ts.x".into()), ..column("x", "BIGINT", false) },
            ColumnConfig { from: Some("a..b".into()), ..column("y", "BIGINT", false) },
        ],
        checks: Vec::new(),
        ..stream()
    };
    let mistakes = Stream::new(&config).err().unwrap();
    assert_eq!(mistakes.len(), 3, "{mistakes:?}");
}

/// What a step holds is bounded by all that it has read: refused records, keys and headers too.
#[test]
fn all_that_is_read_counts_towards_the_bounds_of_a_step() {
    let long = vec![0; 10_000];
    let good = event(1, "jazz", 1, 0);
    let records: [(&[u8], Option<&[u8]>); 3] = [(&long, Some(good.as_bytes())), (b"", Some(&long)), (&long, None)];
    let mut builder = BatchBuilder::new();
    for (key, value) in records {
        builder.push(BASE_MS, Some(key), value, &[(b"h", Some(&long))]);
    }
    let batch = builder.build().unwrap();
    let stream = Stream::new(&stream()).unwrap_or_else(|mistakes| panic!("{mistakes:?}"));
    let mut decoder = Decoder::new(&stream);
    decoder.push(0, &batch).unwrap();
    assert!(decoder.bytes() > 60_000, "{}", decoder.bytes());
    assert_eq!(decoder.records(), 3);
    let table = LookupTable::new(&super::derived::users()).unwrap_or_else(|mistakes| panic!("{mistakes:?}"));
    let mut decoder = RecordDecoder::new(&table);
    decoder.push_from(0, &batch, 0).unwrap();
    assert!(decoder.bytes() > 60_000, "{}", decoder.bytes());
    assert_eq!(decoder.records(), 3);
}
