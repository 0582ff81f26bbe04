//! Rows as they stand in a file → records: types, computed columns, checks, and what a record is made of. A row that
//! breaks a rule is refused with the rule and the reason; the others are not touched by it.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray};
use arrow::compute::{cast, concat, filter_record_batch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimestampMillisecondType};
use broker::TimestampMs;
use datafusion::physical_plan::PhysicalExpr;

use super::config::{FileFormat, SourceConfig};
use super::plan::{Plan, ReadColumn};
use super::reader::{Content, RawRow};
use super::stored::{Id, id_of};
use crate::columns::{ColumnBuffer, ColumnType, timestamp_type};
use crate::error::Result;
use crate::json::{JsonError, JsonScanner, JsonValue};
use crate::json_lines::{json_lines, lines};
use crate::sql;

/// A row that became a record.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ready {
    /// Its place among the rows given.
    pub(crate) row: usize,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Vec<u8>,
    pub(crate) timestamp: Option<TimestampMs>,
    pub(crate) partition: Option<i64>,
    /// Stands for the values of the `unique` columns.
    pub(crate) unique: Option<Id>,
}

/// A row that broke a rule.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Refused {
    /// Its place among the rows given.
    pub(crate) row: usize,
    pub(crate) rule: String,
    pub(crate) reason: String,
}

/// Where rows come from and when they are published.
pub(crate) struct Origin<'a> {
    /// The file, as shown and as part of record ids.
    pub(crate) file: &'a str,
    /// The broker's clock.
    pub(crate) now_ms: TimestampMs,
}

type Refusal = (&'static str, String);

/// Applies the rules to rows of one file.
pub(crate) fn apply(
    config: &SourceConfig,
    plan: Option<&Plan>,
    rows: &[RawRow],
    origin: &Origin<'_>,
) -> Result<(Vec<Ready>, Vec<Refused>)> {
    let (ready, mut refused) = match plan {
        Some(plan) => {
            let mut work = Work::read(config, plan, rows, origin)?;
            for set in &plan.sets {
                work.set(set)?;
            }
            for check in &plan.checks {
                work.check(check)?;
            }
            (work.records(config, plan, rows, origin)?, work.refused)
        }
        None => as_they_stand(config, rows, origin),
    };
    refused.sort_by_key(|refused| refused.row);
    Ok((ready, refused))
}

/// The rows that still hold, as columns. `rows` has the place of each.
struct Work {
    batch: RecordBatch,
    rows: Vec<usize>,
    refused: Vec<Refused>,
}

impl Work {
    fn read(config: &SourceConfig, plan: &Plan, raw: &[RawRow], origin: &Origin<'_>) -> Result<Work> {
        let mut buffers: Vec<ColumnBuffer> = plan.columns.iter().map(|column| ColumnBuffer::new(column.kind)).collect();
        let (mut rows, mut refused) = (Vec::new(), Vec::new());
        for (row, one) in raw.iter().enumerate() {
            let read = match &one.content {
                Ok(Content::Fields(fields)) => read_fields(config, plan, fields, &mut buffers),
                Ok(Content::Object(text)) => read_object(plan, text, &mut buffers, rows.len()),
                Err(refusal) => Err(refusal.clone()),
            };
            match read {
                Ok(()) => rows.push(row),
                Err((rule, reason)) => {
                    buffers.iter_mut().for_each(|buffer| buffer.truncate(rows.len()));
                    refused.push(Refused { row, rule: rule.to_owned(), reason });
                }
            }
        }
        let mut arrays = buffers.into_iter().map(ColumnBuffer::finish).collect::<std::result::Result<Vec<_>, _>>()?;
        arrays.push(Arc::new(StringArray::from_iter_values(rows.iter().map(|_| origin.file))));
        let line = |row: &usize| i64::try_from(raw[*row].line).unwrap_or(i64::MAX);
        arrays.push(Arc::new(Int64Array::from_iter_values(rows.iter().map(line))));
        Ok(Work { batch: RecordBatch::try_new(plan.schema.clone(), arrays)?, rows, refused })
    }

    fn refuse(&mut self, at: usize, rule: &str, reason: String) {
        self.refused.push(Refused { row: self.rows[at], rule: rule.to_owned(), reason });
    }

    fn keep(&mut self, good: &[bool]) -> Result<()> {
        if good.iter().all(|good| *good) {
            return Ok(());
        }
        self.batch = filter_record_batch(&self.batch, &BooleanArray::from(good.to_vec()))?;
        let mut flags = good.iter();
        self.rows.retain(|_| *flags.next().unwrap_or(&true));
        Ok(())
    }

    /// The expression's values. One that fails for some rows (a cast, a division by zero) refuses just these.
    fn evaluate(&mut self, expression: &Arc<dyn PhysicalExpr>, rule: &str, what: &str) -> Result<ArrayRef> {
        let count = self.batch.num_rows();
        if let Ok(array) = expression.evaluate(&self.batch).and_then(|value| value.into_array(count)) {
            return Ok(array);
        }
        let (mut good, mut parts) = (vec![true; count], Vec::new());
        for (at, good) in good.iter_mut().enumerate() {
            match expression.evaluate(&self.batch.slice(at, 1)).and_then(|value| value.into_array(1)) {
                Ok(part) => parts.push(part),
                Err(error) => {
                    *good = false;
                    self.refuse(at, rule, format!("{what}: {}", sql::message(&error)));
                }
            }
        }
        self.keep(&good)?;
        let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
        if parts.is_empty() {
            let kind = expression.data_type(&self.batch.schema())?;
            return Ok(arrow::array::new_empty_array(&kind));
        }
        Ok(concat(&parts)?)
    }

    fn set(&mut self, set: &super::plan::Set) -> Result<()> {
        let what = format!("the expression of column '{}' failed", set.column);
        let values = self.evaluate(&set.expression, "expression", &what)?;
        let at = set.schema.index_of(&set.column)?;
        let mut columns = self.batch.columns().to_vec();
        if self.batch.schema().index_of(&set.column).is_ok() {
            columns[at] = values.clone();
        } else {
            columns.insert(at, values.clone());
        }
        let kind = set.schema.field(at).data_type();
        if columns[at].data_type() != kind {
            columns[at] = cast(&columns[at], kind)?;
        }
        let before = std::mem::replace(&mut self.batch, RecordBatch::try_new(set.schema.clone(), columns)?);
        if !set.required || values.null_count() == 0 {
            return Ok(());
        }
        let good: Vec<bool> = (0..values.len()).map(|at| values.is_valid(at)).collect();
        for at in (0..good.len()).filter(|at| !good[*at]) {
            let from = shown(&before, &set.column, at);
            self.refuse(at, "required", format!("column '{}' has no value{from}", set.column));
        }
        self.keep(&good)
    }

    fn check(&mut self, check: &super::plan::Check) -> Result<()> {
        let values = self.evaluate(&check.condition, "check_failed", &format!("check {} failed", check.name))?;
        let met = values.as_boolean();
        let good: Vec<bool> = (0..met.len()).map(|at| met.is_valid(at) && met.value(at)).collect();
        for at in (0..good.len()).filter(|at| !good[*at]) {
            let outcome = if met.is_valid(at) { "false" } else { "null" };
            self.refuse(at, &check.name, format!("check {} is {outcome}: {}", check.name, check.sql));
        }
        self.keep(&good)
    }

    /// The rows that are left, as records.
    fn records(
        &mut self,
        config: &SourceConfig,
        plan: &Plan,
        raw: &[RawRow],
        origin: &Origin<'_>,
    ) -> Result<Vec<Ready>> {
        let partitions = match &plan.partition {
            Some(sql) => {
                let partitions = self.evaluate(sql, "partition", "the partition's expression failed")?;
                Some(cast(&partitions, &DataType::Int64)?)
            }
            None => None,
        };
        let text = |at: usize| cast(self.batch.column(at), &DataType::Utf8);
        let keys = plan.key.map(text).transpose()?;
        let unique = plan.unique.iter().map(|at| text(*at)).collect::<std::result::Result<Vec<_>, _>>()?;
        let times = plan.timestamp.map(|at| cast(self.batch.column(at), &timestamp_type())).transpose()?;
        let values = json_lines(&self.output(config, plan, raw, origin)?)?;
        let mut ready = Vec::with_capacity(self.rows.len());
        for (at, (row, value)) in self.rows.iter().zip(lines(&values)).enumerate() {
            let key = keys.as_ref().map(|keys| keys.as_string::<i32>()).filter(|keys| keys.is_valid(at));
            let time = times.as_ref().map(|times| times.as_primitive::<TimestampMillisecondType>());
            let partition = partitions.as_ref().map(|partitions| partitions.as_primitive::<Int64Type>());
            ready.push(Ready {
                row: *row,
                key: key.map(|keys| keys.value(at).as_bytes().to_vec()),
                value: value.to_vec(),
                timestamp: time.filter(|times| times.is_valid(at)).map(|times| times.value(at)),
                // No partition has this number: the row is refused.
                partition: partition.map(|numbers| if numbers.is_valid(at) { numbers.value(at) } else { -1 }),
                unique: (!unique.is_empty()).then(|| unique_id(&unique, at)),
            });
        }
        Ok(ready)
    }

    /// The columns of the records, with the fields that are asked for beside them.
    fn output(&self, config: &SourceConfig, plan: &Plan, raw: &[RawRow], origin: &Origin<'_>) -> Result<RecordBatch> {
        let columns = self.batch.project(&plan.output)?;
        let mut fields: Vec<Arc<Field>> = columns.schema().fields().iter().cloned().collect();
        let mut arrays = columns.columns().to_vec();
        let mut add = |name: &str, values: Vec<String>| {
            fields.push(Arc::new(Field::new(name, DataType::Utf8, false)));
            arrays.push(Arc::new(StringArray::from(values)) as ArrayRef);
        };
        if let Some(name) = &config.time_field {
            add(name, vec![time_text(origin.now_ms); self.rows.len()]);
        }
        if config.record_id {
            let id = |row: &usize| record_id(&config.name, origin.file, raw[*row].line);
            add("record_id", self.rows.iter().map(id).collect());
        }
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(self.rows.len()));
        Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)?)
    }
}

/// What a column held before a rule found no value in it.
fn shown(batch: &RecordBatch, column: &str, at: usize) -> String {
    let text = batch.column_by_name(column).and_then(|values| cast(&values.slice(at, 1), &DataType::Utf8).ok());
    match text {
        Some(text) if text.is_valid(0) => {
            let text: String = text.as_string::<i32>().value(0).chars().take(60).collect();
            format!(", it was '{text}'")
        }
        _ => String::new(),
    }
}

fn read_fields(
    config: &SourceConfig,
    plan: &Plan,
    fields: &[String],
    buffers: &mut [ColumnBuffer],
) -> std::result::Result<(), Refusal> {
    if fields.len() != plan.width {
        return Err(("fields", format!("the row has {} fields, the file has {}", fields.len(), plan.width)));
    }
    let nulls: &[String] = match &config.format {
        FileFormat::Csv(format) => &format.nulls,
        _ => &[],
    };
    for (column, buffer) in plan.columns.iter().zip(buffers) {
        let text = &fields[column.index];
        if nulls.contains(text) {
            if column.required {
                return Err(("required", format!("field '{}' is empty but required", column.from)));
            }
            buffer.push_null();
        } else if !push_text(buffer, column.kind, text) {
            return Err(wrong_type(column, &format!("'{}'", text.chars().take(60).collect::<String>())));
        }
    }
    Ok(())
}

/// A field of CSV, read as its column's type.
fn push_text(buffer: &mut ColumnBuffer, kind: ColumnType, text: &str) -> bool {
    let trimmed = text.trim();
    match kind {
        ColumnType::Boolean => match trimmed.to_ascii_lowercase().as_str() {
            "true" | "t" | "1" | "yes" => buffer.push(&JsonValue::Bool(true)),
            "false" | "f" | "0" | "no" => buffer.push(&JsonValue::Bool(false)),
            _ => false,
        },
        // files write dates, not milliseconds: 20261120 is a mistake, not a moment of 1970
        ColumnType::Timestamp => buffer.push(&JsonValue::String(trimmed.into())),
        _ => buffer.push_text(text),
    }
}

fn read_object(plan: &Plan, text: &str, buffers: &mut [ColumnBuffer], rows: usize) -> std::result::Result<(), Refusal> {
    let mut scanner = JsonScanner::new(text);
    scanner.enter_object().map_err(json_refusal)?;
    let mut first = true;
    while let Some((name, value)) = scanner.next_field(first).map_err(json_refusal)? {
        first = false;
        for (at, column) in plan.columns.iter().enumerate().filter(|(_, column)| column.from == *name) {
            if buffers[at].len() > rows {
                return Err(("duplicate_field", format!("field '{name}' stands twice")));
            }
            let pushed = match (&value, column.kind) {
                (JsonValue::Array(_), ColumnType::Varchar) => {
                    joined(text, &name).is_some_and(|joined| buffers[at].push(&JsonValue::String(joined.into())))
                }
                _ => buffers[at].push(&value),
            };
            if !pushed {
                return Err(wrong_type(column, value.kind()));
            }
            if column.required && value == JsonValue::Null {
                return Err(("required", format!("field '{name}' is null but required")));
            }
        }
    }
    for (column, buffer) in plan.columns.iter().zip(buffers) {
        if buffer.len() == rows {
            if column.required {
                return Err(("required", format!("field '{}' is missing but required", column.from)));
            }
            buffer.push_null();
        }
    }
    Ok(())
}

/// An array of texts and numbers as one text, joined by `;`; None when it holds anything else.
fn joined(object: &str, field: &str) -> Option<String> {
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(object).ok()?;
    let text = |item: &serde_json::Value| match item {
        serde_json::Value::String(text) => Some(text.clone()),
        serde_json::Value::Number(number) => Some(number.to_string()),
        serde_json::Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    };
    let items: Option<Vec<String>> = object.get(field)?.as_array()?.iter().map(text).collect();
    items.map(|items| items.join(";"))
}

fn wrong_type(column: &ReadColumn, found: &str) -> Refusal {
    ("type", format!("field '{}' is {found}, wanted {}", column.from, column.kind.wants()))
}

fn json_refusal(error: JsonError) -> Refusal {
    match error {
        JsonError::NotAnObject => ("not_object", "the row is JSON but not an object".to_owned()),
        JsonError::Syntax { at, expected } => ("json", format!("not valid JSON at byte {at}: expected {expected}")),
    }
}

/// Objects of a source without columns: checked to be JSON, otherwise left alone to the letter.
fn as_they_stand(config: &SourceConfig, rows: &[RawRow], origin: &Origin<'_>) -> (Vec<Ready>, Vec<Refused>) {
    let (mut ready, mut refused) = (Vec::new(), Vec::new());
    for (row, raw) in rows.iter().enumerate() {
        let record = match &raw.content {
            Ok(Content::Object(text)) => whole_object(config, text, raw.line, origin),
            Ok(Content::Fields(_)) => Err(("json", "a row of CSV was read as JSON".to_owned())),
            Err(refusal) => Err(refusal.clone()),
        };
        match record {
            Ok((key, value)) => ready.push(Ready { row, key, value, timestamp: None, partition: None, unique: None }),
            Err((rule, reason)) => refused.push(Refused { row, rule: rule.to_owned(), reason }),
        }
    }
    (ready, refused)
}

/// Key and value of an object, with the fields that are asked for beside its own.
fn whole_object(
    config: &SourceConfig,
    text: &str,
    line: u64,
    origin: &Origin<'_>,
) -> std::result::Result<(Option<Vec<u8>>, Vec<u8>), Refusal> {
    let mut scanner = JsonScanner::new(text);
    scanner.enter_object().map_err(json_refusal)?;
    let (mut names, mut key) = (BTreeSet::new(), None);
    while let Some((name, value)) = scanner.next_field(names.is_empty()).map_err(json_refusal)? {
        if config.key.as_deref() == Some(&*name) {
            key = match value {
                JsonValue::String(text) => Some(text.as_bytes().to_vec()),
                JsonValue::Number(text) => Some(text.as_bytes().to_vec()),
                JsonValue::Bool(flag) => Some(flag.to_string().into_bytes()),
                JsonValue::Null | JsonValue::Array(_) | JsonValue::Object(_) => None,
            };
        }
        if !names.insert(name.to_string()) {
            return Err(("duplicate_field", format!("field '{name}' stands twice")));
        }
    }
    let mut more = Vec::new();
    if let Some(name) = &config.time_field {
        more.push((name.as_str(), time_text(origin.now_ms)));
    }
    if config.record_id {
        more.push(("record_id", record_id(&config.name, origin.file, line)));
    }
    let mut value = text.trim().to_owned();
    for (name, text) in more {
        if !names.insert(name.to_owned()) {
            return Err(("duplicate_field", format!("field '{name}' is there already, name another under time_field")));
        }
        value.pop();
        let comma = if names.len() > 1 { "," } else { "" };
        value.push_str(&format!("{comma}{}:{}}}", serde_json::Value::from(name), serde_json::Value::from(text)));
    }
    Ok((key, value.into_bytes()))
}

/// Stands for the values of the unique columns of a row; null is a value like another.
fn unique_id(columns: &[ArrayRef], at: usize) -> Id {
    let mut hasher = blake3::Hasher::new();
    for column in columns {
        let column = column.as_string::<i32>();
        if column.is_valid(at) {
            let text = column.value(at).as_bytes();
            hasher.update(&(text.len() as u64).to_be_bytes());
            hasher.update(text);
        } else {
            hasher.update(&u64::MAX.to_be_bytes());
        }
    }
    id_of(&hasher)
}

/// The same for the same line of the same file of a source.
fn record_id(source: &str, file: &str, line: u64) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in [source, file] {
        hasher.update(part.as_bytes());
        hasher.update(&[0]);
    }
    hasher.update(&line.to_be_bytes());
    super::stored::hex(&id_of(&hasher))
}

/// RFC 3339 in UTC with milliseconds.
fn time_text(ms: TimestampMs) -> String {
    let time = chrono::DateTime::from_timestamp_millis(ms).unwrap_or_default();
    time.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

#[cfg(test)]
mod tests;
