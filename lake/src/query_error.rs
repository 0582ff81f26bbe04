//! DataFusion's errors → ours: whose turn it is, in words that say what to do.

use arrow::error::ArrowError;
use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;

use crate::error::{LakeError, LakeErrorKind};

/// The error of a query; `tables` are the names that exist.
pub fn explain(error: &DataFusionError, tables: &[String], memory_bytes: usize) -> LakeError {
    let mut error = error;
    loop {
        error = match error {
            DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => inner,
            DataFusionError::Shared(inner) => inner,
            DataFusionError::Collection(inner) if !inner.is_empty() => &inner[0],
            DataFusionError::ArrowError(inner, _) => match &**inner {
                ArrowError::ExternalError(inner) => match inner.downcast_ref() {
                    Some(inner) => inner,
                    None => break,
                },
                _ => break,
            },
            DataFusionError::External(inner) => {
                if let Some(ours) = inner.downcast_ref::<LakeError>() {
                    return ours.clone();
                }
                if let Some(engines) = inner.downcast_ref::<engine::EngineError>() {
                    return engines.clone().into();
                }
                match inner.downcast_ref() {
                    Some(inner) => inner,
                    None => break,
                }
            }
            _ => break,
        };
    }
    let (kind, message) = told(error, memory_bytes);
    LakeError::new(kind, with_names(message, tables))
}

fn told(error: &DataFusionError, memory_bytes: usize) -> (LakeErrorKind, String) {
    use LakeErrorKind::{Bug, Destination, MemoryLimit, Refused};
    match error {
        DataFusionError::ResourcesExhausted(text) => {
            let next = "select fewer rows and columns, or raise lake.sql_memory_bytes_max";
            (MemoryLimit, format!("the query needs more than the {memory_bytes} bytes of all queries: {next} ({text})"))
        }
        DataFusionError::SQL(parse, _) => (
            Refused,
            format!("the statement cannot be read: {}", parse.to_string().trim_start_matches("sql parser error: ")),
        ),
        DataFusionError::Plan(text) | DataFusionError::Execution(text) => (Refused, text.clone()),
        DataFusionError::NotImplemented(text) if text.contains("single SQL statement") => {
            (Refused, "more than one statement: send one at a time".to_owned())
        }
        DataFusionError::NotImplemented(text) => (Refused, format!("this SQL is not supported: {text}")),
        DataFusionError::SchemaError(schema, _) => (Refused, schema_text(schema)),
        DataFusionError::ArrowError(inner, _) => (Refused, format!("a value cannot be computed: {inner}")),
        DataFusionError::ObjectStore(inner) => (Destination, format!("a file of the lake cannot be read: {inner}")),
        DataFusionError::ParquetError(inner) => (Destination, format!("a file of the lake cannot be read: {inner}")),
        DataFusionError::IoError(inner) => (Destination, format!("a file of the lake cannot be read: {inner}")),
        other => (Bug, other.strip_backtrace()),
    }
}

fn schema_text(error: &SchemaError) -> String {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let names: Vec<_> = valid_fields.iter().map(|field| field.flat_name()).collect();
            format!("no column {}: there are {}", field.flat_name(), names.join(", "))
        }
        other => other.to_string(),
    }
}

/// DataFusion names the missing table by its full name, and no others.
fn with_names(message: String, tables: &[String]) -> String {
    let missing = message.strip_prefix("table '").and_then(|rest| rest.strip_suffix("' not found"));
    match missing {
        Some(full) => {
            let name = full.rsplit('.').next().unwrap_or(full);
            let near = tables.iter().find(|table| table.eq_ignore_ascii_case(name) && *table != name);
            let quote = near.map(|table| format!(" (write \"{table}\" in quotes)")).unwrap_or_default();
            format!("no table or view {name}{quote}: there are {}", tables.join(", "))
        }
        None => message,
    }
}
