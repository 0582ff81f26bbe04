//! Rows with every kind of mistake, and what becomes of the good ones beside them.

use super::super::config::{CsvFormat, SetConfig, SourceColumn};
use super::*;
use crate::config::CheckConfig;

fn column(name: &str, sql_type: &str, required: bool) -> SourceColumn {
    SourceColumn { name: name.into(), sql_type: sql_type.into(), required, ..SourceColumn::default() }
}

fn rows(lines: &[&str]) -> Vec<RawRow> {
    let row = |(at, line): (usize, &&str)| RawRow {
        line: at as u64 + 2,
        raw: line.as_bytes().to_vec(),
        content: Ok(Content::Fields(line.split(',').map(str::to_owned).collect())),
    };
    lines.iter().enumerate().map(row).collect()
}

fn objects(texts: &[&str]) -> Vec<RawRow> {
    let row = |text: &&str| RawRow {
        line: 1,
        raw: text.as_bytes().to_vec(),
        content: Ok(Content::Object((*text).to_owned())),
    };
    texts.iter().map(row).collect()
}

const ORIGIN: Origin<'_> = Origin { file: "a.csv", now_ms: 1_795_168_800_000 };

fn values(ready: &[Ready]) -> Vec<String> {
    ready.iter().map(|ready| String::from_utf8(ready.value.clone()).unwrap()).collect()
}

fn refusals(refused: &[Refused]) -> Vec<(usize, &str)> {
    refused.iter().map(|refused| (refused.row, refused.rule.as_str())).collect()
}

fn invoices() -> SourceConfig {
    let set = |column: &str, sql: &str, required| SetConfig { column: column.into(), sql: sql.into(), required };
    SourceConfig {
        name: "invoices".into(),
        columns: vec![
            column("id", "BIGINT", true),
            SourceColumn { from: "montant".into(), ..column("amount", "VARCHAR", true) },
            column("date", "VARCHAR", false),
            column("paid", "BOOLEAN", false),
        ],
        set: vec![
            set("amount", "parse_amount(amount)", true),
            set("date", "parse_date(date)", true),
            set("share", "100 / (id - 7)", false),
        ],
        checks: vec![CheckConfig {
            name: "amount_positive".into(),
            sql: "coalesce(amount, 0) > 0".into(),
            ..CheckConfig::default()
        }],
        key: Some("id".into()),
        partition: Some("CASE WHEN id <= 500 THEN 0 ELSE 1 END".into()),
        timestamp: Some("date".into()),
        unique: vec!["id".into()],
        record_id: true,
        time_field: Some("timestamp".into()),
        ..SourceConfig::default()
    }
}

#[test]
fn every_refused_row_has_its_rule_and_the_others_are_whole() {
    let config = invoices();
    let header = ["id", "montant", "date", "paid"].map(str::to_owned);
    let plan = Plan::new(&config, &header).unwrap();
    let raw = rows(&[
        "1,4500€,Oct-2025,true",
        "x,1,2025-01-01,",
        ",1,2025-01-01,",
        "2,-5,2025-01-01,",
        "3,much,2025-01-01,no",
        "7,5,2025-01-01,",
        "4,5,someday,",
        "5,5,2025-01-01",
        "6,5,2025-01-01,maybe",
        "501,12.50,31/12/2025,",
    ]);
    let (ready, refused) = apply(&config, Some(&plan), &raw, &ORIGIN).unwrap();
    assert_eq!(
        refusals(&refused),
        [
            (1, "type"),
            (2, "required"),
            (3, "amount_positive"),
            (4, "required"),
            (5, "expression"),
            (6, "required"),
            (7, "fields"),
            (8, "type")
        ]
    );
    assert_eq!(refused[3].reason, "column 'amount' has no value, it was 'much'");
    assert_eq!(refused[0].reason, "field 'id' is 'x', wanted an integer of 64 bits");
    let first: serde_json::Value = serde_json::from_slice(&ready[0].value).unwrap();
    assert!(values(&ready)[0].contains("\"amount\":4500.00,"), "{}", values(&ready)[0]);
    assert_eq!((&first["date"], &first["paid"]), (&"2025-10-01".into(), &true.into()));
    assert_eq!(first["timestamp"], "2026-11-20T10:00:00.000Z");
    assert_eq!(first["record_id"].as_str().unwrap().len(), 32);
    assert_eq!(
        first.as_object().unwrap().keys().collect::<Vec<_>>(),
        ["id", "amount", "date", "paid", "share", "timestamp", "record_id"]
    );
    assert_eq!(ready.iter().map(|ready| ready.row).collect::<Vec<_>>(), [0, 9]);
    assert_eq!(ready.iter().map(|ready| ready.partition).collect::<Vec<_>>(), [Some(0), Some(1)]);
    assert_eq!(ready[1].key.as_deref(), Some(&b"501"[..]));
    assert_eq!(ready[0].timestamp, Some(1_759_276_800_000));
    assert_ne!(ready[0].unique, ready[1].unique);
    let (again, _) = apply(&config, Some(&plan), &raw[9..], &ORIGIN).unwrap();
    assert_eq!(again[0].unique, ready[1].unique);
}

#[test]
fn fields_as_they_stand_are_texts_and_empty_ones_null() {
    let config = SourceConfig { name: "s".into(), ..SourceConfig::default() };
    let plan = Plan::new(&config, &["a", "b"].map(str::to_owned)).unwrap();
    let (ready, refused) = apply(&config, Some(&plan), &rows(&["1,é", ",\"x"]), &ORIGIN).unwrap();
    assert!(refused.is_empty());
    assert_eq!(values(&ready), ["{\"a\":\"1\",\"b\":\"é\"}", "{\"a\":null,\"b\":\"\\\"x\"}"]);
    let format = CsvFormat { nulls: vec!["NA".into()], ..CsvFormat::default() };
    let config = SourceConfig { format: FileFormat::Csv(format), ..config };
    let (ready, _) = apply(&config, Some(&plan), &rows(&["NA,"]), &ORIGIN).unwrap();
    assert_eq!(values(&ready), ["{\"a\":null,\"b\":\"\"}"]);
}

#[test]
fn objects_are_typed_or_left_alone() {
    let config = SourceConfig {
        name: "s".into(),
        format: FileFormat::Json,
        columns: vec![column("nom", "VARCHAR", true), column("compétences", "VARCHAR", false)],
        ..SourceConfig::default()
    };
    let plan = Plan::new(&config, &[]).unwrap();
    let texts = [
        r#"{"nom": "Dupont", "compétences": ["Python", "SQL"], "more": {"x": 1}}"#,
        r#"{"nom": "A", "compétences": [{}]}"#,
        r#"{"nom": null}"#,
        r#"{"nom": "A", "nom": "B"}"#,
        r#"{"nom": 1}"#,
        r#"[1]"#,
        r#"{"nom": }"#,
    ];
    let (ready, refused) = apply(&config, Some(&plan), &objects(&texts), &ORIGIN).unwrap();
    assert_eq!(values(&ready), [r#"{"nom":"Dupont","compétences":"Python;SQL"}"#]);
    let rules: Vec<_> = refused.iter().map(|refused| refused.rule.as_str()).collect();
    assert_eq!(rules, ["type", "required", "duplicate_field", "type", "not_object", "json"]);

    let plain = SourceConfig { columns: vec![], key: Some("nom".into()), ..config };
    let (ready, refused) = apply(&plain, None, &objects(&texts[..3]), &ORIGIN).unwrap();
    assert!(refused.is_empty());
    assert_eq!(values(&ready), texts[..3]);
    assert_eq!(ready[0].key.as_deref(), Some(&b"Dupont"[..]));
    let stamped = SourceConfig { time_field: Some("at".into()), ..plain };
    let (ready, refused) = apply(&stamped, None, &objects(&["{}", r#"{"at": 1}"#, r#"{"n": 1.50}"#]), &ORIGIN).unwrap();
    assert_eq!(
        values(&ready),
        [r#"{"at":"2026-11-20T10:00:00.000Z"}"#, r#"{"n": 1.50,"at":"2026-11-20T10:00:00.000Z"}"#]
    );
    assert_eq!(refusals(&refused), [(1, "duplicate_field")]);
}
