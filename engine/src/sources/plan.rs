//! A source's declaration, compiled: where each column comes from, the expressions, the checks, what a record is made of.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::physical_plan::PhysicalExpr;

use super::config::{FileFormat, SourceColumn, SourceConfig};
use crate::columns::ColumnType;
use crate::names::closest;
use crate::sql;

/// Columns that expressions may use beside the declared ones: the file's name and the line.
pub(crate) const PLACE_COLUMNS: [&str; 2] = ["_file", "_line"];

/// The rules that a source itself refuses rows by; a check cannot take one of these names.
pub const SOURCE_RULES: [&str; 14] = [
    "quotes",
    "encoding",
    "too_long",
    "continued",
    "fields",
    "json",
    "not_object",
    "duplicate_field",
    "type",
    "required",
    "expression",
    "check_failed",
    "partition",
    "too_large",
];

/// One column read from a file.
#[derive(Debug, Clone)]
pub(crate) struct ReadColumn {
    pub(crate) name: String,
    /// The field in the file.
    pub(crate) from: String,
    /// The place of the field in a row of CSV.
    pub(crate) index: usize,
    pub(crate) kind: ColumnType,
    pub(crate) required: bool,
}

/// A computed column.
pub(crate) struct Set {
    pub(crate) column: String,
    pub(crate) expression: Arc<dyn PhysicalExpr>,
    pub(crate) required: bool,
    /// The schema after it.
    pub(crate) schema: SchemaRef,
}

/// A check.
pub(crate) struct Check {
    pub(crate) name: String,
    pub(crate) sql: String,
    pub(crate) condition: Arc<dyn PhysicalExpr>,
}

/// A compiled source for files of one header. Never changes.
pub(crate) struct Plan {
    /// Fields of a row of CSV.
    pub(crate) width: usize,
    pub(crate) columns: Vec<ReadColumn>,
    /// The columns as read, then the place columns.
    pub(crate) schema: SchemaRef,
    pub(crate) sets: Vec<Set>,
    pub(crate) checks: Vec<Check>,
    /// The columns of the record, by index in the last schema.
    pub(crate) output: Vec<usize>,
    pub(crate) key: Option<usize>,
    pub(crate) unique: Vec<usize>,
    pub(crate) timestamp: Option<usize>,
    pub(crate) partition: Option<Arc<dyn PhysicalExpr>>,
}

impl Plan {
    /// Compiles a source for files whose fields have these names (of CSV); Err lists every mistake.
    pub(crate) fn new(config: &SourceConfig, header: &[String]) -> Result<Plan, Vec<String>> {
        let mut mistakes = Vec::new();
        let columns = read_columns(config, header, &mut mistakes);
        let mut fields: Vec<Field> =
            columns.iter().map(|column| Field::new(&column.name, column.kind.data_type(), true)).collect();
        fields.push(Field::new(PLACE_COLUMNS[0], DataType::Utf8, true));
        fields.push(Field::new(PLACE_COLUMNS[1], DataType::Int64, true));
        let schema = Arc::new(Schema::new(fields));
        let sets = compile_sets(config, &schema, &mut mistakes);
        let last = sets.last().map_or_else(|| schema.clone(), |set| set.schema.clone());
        let checks = compile_checks(config, &last, &mut mistakes);
        let mut index = |what: &str, name: &String| {
            let found = last.index_of(name).ok();
            if found.is_none() {
                let hint = closest(name, last.fields().iter().map(|field| field.name().as_str()));
                mistakes.push(format!("{what} '{name}' is not a column{hint}"));
            }
            found
        };
        let key = config.key.as_ref().and_then(|name| index("key", name));
        let unique = config.unique.iter().filter_map(|name| index("unique", name)).collect();
        let timestamp = config.timestamp.as_ref().and_then(|name| index("timestamp", name));
        if let Some(at) = timestamp
            && !matches!(last.field(at).data_type(), DataType::Timestamp(..) | DataType::Date32 | DataType::Date64)
        {
            mistakes.push(format!("timestamp '{}' is no TIMESTAMP or DATE, declare its type", last.field(at).name()));
        }
        let partition = config.partition.as_ref().and_then(|sql| partition(config, sql, &last, &mut mistakes));
        let output = (0..last.fields().len()).filter(|at| !last.field(*at).name().starts_with('_')).collect::<Vec<_>>();
        if output.is_empty() {
            mistakes.push("no column is left for the record: one whose name begins with '_' is not sent".into());
        }
        let width = header.len();
        let plan = Plan { width, columns, schema, sets, checks, output, key, unique, timestamp, partition };
        if mistakes.is_empty() { Ok(plan) } else { Err(mistakes) }
    }
}

fn read_columns(config: &SourceConfig, header: &[String], mistakes: &mut Vec<String>) -> Vec<ReadColumn> {
    let every =
        |name: &String| SourceColumn { name: name.clone(), sql_type: "VARCHAR".into(), ..SourceColumn::default() };
    let declared = if config.columns.is_empty() { header.iter().map(every).collect() } else { config.columns.clone() };
    let csv = matches!(config.format, FileFormat::Csv(_));
    let mut columns: Vec<ReadColumn> = Vec::new();
    for column in &declared {
        let from = if column.from.is_empty() { column.name.clone() } else { column.from.clone() };
        let index = header.iter().position(|name| *name == from);
        if csv && index.is_none() {
            let hint = closest(&from, header.iter().map(String::as_str));
            mistakes.push(format!("the file has no field '{from}'{hint}"));
        }
        if column.name.is_empty() || PLACE_COLUMNS.contains(&column.name.as_str()) {
            mistakes.push(format!("column '{}': the name is empty or reserved, rename it", column.name));
            continue;
        }
        if columns.iter().any(|other| other.name == column.name) {
            mistakes.push(format!("column '{}' is there twice: name each under columns, with from", column.name));
            continue;
        }
        let kind = ColumnType::parse(&column.sql_type).unwrap_or_else(|mistake| {
            mistakes.push(format!("column '{}': {mistake}", column.name));
            ColumnType::Varchar
        });
        let index = index.unwrap_or(0);
        columns.push(ReadColumn { name: column.name.clone(), from, index, kind, required: column.required });
    }
    columns
}

fn compile_sets(config: &SourceConfig, schema: &SchemaRef, mistakes: &mut Vec<String>) -> Vec<Set> {
    let mut schema = schema.clone();
    let mut sets = Vec::new();
    for set in &config.set {
        if set.column.is_empty() || PLACE_COLUMNS.contains(&set.column.as_str()) {
            mistakes.push(format!("set '{}': the name is empty or reserved, rename it", set.column));
        }
        let (expression, kind) = match sql::compile_expression(&set.sql, &config.name, &schema) {
            Ok(compiled) => compiled,
            Err(mistake) => {
                mistakes.push(format!("set '{}': {mistake}", set.column));
                continue;
            }
        };
        let mut fields: Vec<Arc<Field>> = schema.fields().iter().cloned().collect();
        let field = Arc::new(Field::new(&set.column, kind, true));
        match schema.index_of(&set.column) {
            Ok(at) => fields[at] = field,
            // The place columns stay last.
            Err(_) => fields.insert(fields.len() - PLACE_COLUMNS.len(), field),
        }
        schema = Arc::new(Schema::new(fields));
        sets.push(Set { column: set.column.clone(), expression, required: set.required, schema: schema.clone() });
    }
    sets
}

fn compile_checks(config: &SourceConfig, schema: &SchemaRef, mistakes: &mut Vec<String>) -> Vec<Check> {
    let mut checks: Vec<Check> = Vec::new();
    for check in &config.checks {
        if check.name.is_empty() || check.name.len() > 200 || SOURCE_RULES.contains(&check.name.as_str()) {
            mistakes
                .push(format!("check '{}': the name is empty, too long or a built-in rule's, rename it", check.name));
        }
        if checks.iter().any(|other| other.name == check.name) {
            mistakes.push(format!("check '{}' is declared twice, rename one", check.name));
        }
        match sql::compile_condition(&check.sql, &config.name, schema) {
            Ok(condition) => checks.push(Check { name: check.name.clone(), sql: check.sql.clone(), condition }),
            Err(mistake) => mistakes.push(format!("check '{}': {mistake}", check.name)),
        }
    }
    checks
}

fn partition(
    config: &SourceConfig,
    sql: &str,
    schema: &SchemaRef,
    mistakes: &mut Vec<String>,
) -> Option<Arc<dyn PhysicalExpr>> {
    match sql::compile_expression(sql, &config.name, schema) {
        Ok((expression, kind)) if kind.is_integer() => Some(expression),
        Ok((_, kind)) => {
            mistakes.push(format!("partition '{sql}' is of type {kind}, it must be a whole number"));
            None
        }
        Err(mistake) => {
            mistakes.push(format!("partition: {mistake}"));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::SetConfig;
    use super::*;
    use crate::config::CheckConfig;

    #[test]
    fn every_mistake_is_told() {
        let column = |name: &str, kind: &str| SourceColumn {
            name: name.into(),
            sql_type: kind.into(),
            ..SourceColumn::default()
        };
        let set = |column: &str, sql: &str| SetConfig { column: column.into(), sql: sql.into(), required: false };
        let config = SourceConfig {
            name: "s".into(),
            columns: vec![
                column("a", "BIGINT"),
                column("b", "TEXT"),
                column("c", "VARCHAR"),
                column("_line", "BIGINT"),
            ],
            set: vec![set("d", "a + nope"), set("e", "now()")],
            checks: vec![CheckConfig { name: "type".into(), sql: "a".into(), ..CheckConfig::default() }],
            key: Some("x".into()),
            timestamp: Some("a".into()),
            partition: Some("c".into()),
            ..SourceConfig::default()
        };
        let header = ["a", "b", "cc"].map(str::to_owned);
        let mistakes = Plan::new(&config, &header).err().unwrap().join("\n");
        for part in [
            "the file has no field 'c', did you mean ",
            "column 'b': unknown type 'TEXT'",
            "column '_line': the name is empty or reserved",
            "set 'd': no column 'nope'",
            "set 'e': now() gives another value",
            "check 'type': the name is empty, too long or a built-in rule's",
            "check 'type': 'a' is of type Int64",
            "key 'x' is not a column",
            "timestamp 'a' is no TIMESTAMP",
            "partition 'c' is of type Utf8",
        ] {
            assert!(mistakes.contains(part), "{part}\n{mistakes}");
        }
    }

    #[test]
    fn a_set_column_replaces_or_joins_and_helpers_are_not_sent() {
        let set = |column: &str, sql: &str| SetConfig { column: column.into(), sql: sql.into(), required: false };
        let config = SourceConfig {
            name: "s".into(),
            set: vec![set("_cents", "CAST(b AS BIGINT) * 100"), set("b", "_cents + 1"), set("c", "concat(a, _file)")],
            ..SourceConfig::default()
        };
        let plan = Plan::new(&config, &["a", "b"].map(str::to_owned)).unwrap();
        let last = &plan.sets[2].schema;
        let names: Vec<&str> = last.fields().iter().map(|field| field.name().as_str()).collect();
        assert_eq!(names, ["a", "b", "_cents", "c", "_file", "_line"]);
        assert_eq!(plan.output, [0, 1, 3]);
        assert_eq!(last.field(1).data_type(), &DataType::Int64);
    }
}
