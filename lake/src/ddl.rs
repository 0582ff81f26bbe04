//! `CREATE TABLE` for readers that keep a catalog of their own: Hive and Spark.

use std::fmt::Write;

use arrow::datatypes::DataType;

use crate::config::ARCHIVE_ZONE;
use crate::layout::Layout;
use crate::tables::Table;
use crate::transform::WrittenTable;

/// Whose SQL it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Apache Hive: external tables, and Spark with Hive's catalog.
    Hive,
    /// Apache Spark: tables of its own reader of Parquet.
    Spark,
}

impl Dialect {
    /// Reads `hive` or `spark`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "hive" => Some(Self::Hive),
            "spark" => Some(Self::Spark),
            _ => None,
        }
    }
}

/// A table's statements. Slices are only looked for where there are files: Spark fails where the directory is not there yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableDdl {
    /// The table's name in SQL.
    pub table: String,
    /// Statements, each to be run on its own.
    pub statements: Vec<String>,
}

/// The statements for a topic's table, and for what of it is archived. `has_files` tells of directories below the root.
pub fn of_topic(table: &Table, root: &str, dialect: Dialect, has_files: impl Fn(&str) -> bool) -> Vec<TableDdl> {
    let place = |dir: &str| Place { url: format!("{root}/{dir}"), has_files: has_files(dir) };
    let mut found = vec![of(&table.name, &table.layout, &place(&table.dir), dialect)];
    if table.settles.as_ref().is_some_and(|settles| settles.archive_after_ms.is_some()) {
        let name = format!("{}_{ARCHIVE_ZONE}", table.name);
        found.push(of(&name, &table.layout, &place(&format!("{ARCHIVE_ZONE}/{}", table.topic)), dialect));
    }
    found
}

/// The statements for a table that SQL writes; none while its query cannot be planned.
pub fn of_written(table: &WrittenTable, root: &str, dialect: Dialect) -> Option<TableDdl> {
    let planned = table.planned.get()?;
    let place = Place { url: format!("{root}/{}", table.dir()), has_files: !table.files().is_empty() };
    Some(of(&table.config.name, &planned.layout, &place, dialect))
}

/// Where a table lies.
struct Place {
    url: String,
    has_files: bool,
}

fn of(name: &str, layout: &Layout, place: &Place, dialect: Dialect) -> TableDdl {
    let column = |name: &str, kind: &DataType| format!("  {} {}", quoted(name), sql_type(kind));
    let in_file = layout.file_schema().fields().iter().map(|field| column(field.name(), field.data_type()));
    let levels: Vec<String> = layout.level_fields().map(|field| column(field.name(), field.data_type())).collect();
    let level_names: Vec<String> = layout.level_fields().map(|field| quoted(field.name())).collect();
    let table = quoted(name);
    // one quote in a path ends the text in neither dialect
    let location = place.url.replace('\\', "\\\\").replace('\'', "\\'");
    let mut create = String::new();
    let kind = if dialect == Dialect::Hive { "EXTERNAL TABLE" } else { "TABLE" };
    let columns: Vec<String> = match dialect {
        Dialect::Hive => in_file.collect(),
        Dialect::Spark => in_file.chain(levels.iter().cloned()).collect(),
    };
    // writing to a String cannot fail
    let _ = writeln!(create, "CREATE {kind} IF NOT EXISTS {table} (\n{}\n)", columns.join(",\n"));
    let _ = match (dialect, levels.is_empty()) {
        (Dialect::Hive, true) => writeln!(create, "STORED AS PARQUET"),
        (Dialect::Hive, false) => {
            writeln!(create, "PARTITIONED BY (\n{}\n)\nSTORED AS PARQUET", levels.join(",\n"))
        }
        (Dialect::Spark, true) => writeln!(create, "USING PARQUET"),
        (Dialect::Spark, false) => writeln!(create, "USING PARQUET\nPARTITIONED BY ({})", level_names.join(", ")),
    };
    let _ = write!(create, "LOCATION '{location}'");
    let mut statements = vec![create];
    if place.has_files && !levels.is_empty() {
        statements.push(match dialect {
            Dialect::Hive => format!("MSCK REPAIR TABLE {table}"),
            Dialect::Spark => format!("ALTER TABLE {table} RECOVER PARTITIONS"),
        });
    }
    TableDdl { table: name.to_owned(), statements }
}

fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// The type that both dialects call this.
fn sql_type(kind: &DataType) -> String {
    match kind {
        DataType::Boolean => "BOOLEAN".into(),
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::UInt8 | DataType::UInt16 => "INT".into(),
        DataType::Int64 | DataType::UInt32 => "BIGINT".into(),
        DataType::UInt64 => "DECIMAL(20,0)".into(),
        DataType::Float32 => "FLOAT".into(),
        DataType::Float64 => "DOUBLE".into(),
        DataType::Date32 => "DATE".into(),
        DataType::Timestamp(_, _) => "TIMESTAMP".into(),
        DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) => {
            format!("DECIMAL({precision},{scale})")
        }
        DataType::Binary | DataType::FixedSizeBinary(_) => "BINARY".into(),
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            format!("ARRAY<{}>", sql_type(item.data_type()))
        }
        DataType::Struct(fields) => {
            let field = |field: &arrow::datatypes::FieldRef| {
                format!("{}: {}", quoted(field.name()), sql_type(field.data_type()))
            };
            format!("STRUCT<{}>", fields.iter().map(field).collect::<Vec<_>>().join(", "))
        }
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(pair) if pair.len() == 2 => {
                format!("MAP<{}, {}>", sql_type(pair[0].data_type()), sql_type(pair[1].data_type()))
            }
            _ => "STRING".into(),
        },
        _ => "STRING".into(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{Field, Schema};

    use super::*;
    use crate::config::SliceColumn;

    #[test]
    fn statements_are_those_of_their_dialect() {
        let rows = Schema::new(vec![
            Field::new("id", DataType::Int64, true),
            Field::new("na`me", DataType::Utf8, true),
            Field::new("date", DataType::Date32, true),
        ]);
        let layout = Layout::of_columns(Arc::new(rows), &[SliceColumn::Date]).unwrap();
        let place = |url: &str, has_files| Place { url: url.to_owned(), has_files };
        let hive = of("t", &layout, &place("hdfs://nn/lake/processed/t", true), Dialect::Hive);
        assert_eq!(
            hive.statements,
            [
                "CREATE EXTERNAL TABLE IF NOT EXISTS `t` (\n  `id` BIGINT,\n  `na``me` STRING\n)\nPARTITIONED BY (\n  \
                 `date` DATE\n)\nSTORED AS PARQUET\nLOCATION 'hdfs://nn/lake/processed/t'",
                "MSCK REPAIR TABLE `t`",
            ]
        );
        let spark = of("t", &layout, &place("file:///a'b", true), Dialect::Spark);
        assert_eq!(
            spark.statements,
            [
                "CREATE TABLE IF NOT EXISTS `t` (\n  `id` BIGINT,\n  `na``me` STRING,\n  `date` DATE\n)\nUSING \
                 PARQUET\nPARTITIONED BY (`date`)\nLOCATION 'file:///a\\'b'",
                "ALTER TABLE `t` RECOVER PARTITIONS",
            ]
        );
        let empty = of("t", &layout, &place("file:///a'b", false), Dialect::Spark);
        assert_eq!(empty.statements, spark.statements[..1], "there is no directory yet");
    }
}
