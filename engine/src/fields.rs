//! Which fields of a record's JSON object become which columns: by name, or by a dotted path into nested objects.

use crate::columns::{ColumnBuffer, ColumnType};
use crate::config::ColumnConfig;
use crate::json::{JsonError, JsonScanner, JsonValue};

/// The declared columns of a stream or table, ordered by where their values stand. Never changes after it is made.
pub(crate) struct FieldMap {
    columns: Vec<FieldColumn>,
    top: Level,
}

/// A column and the field it comes from.
struct FieldColumn {
    path: String,
    kind: ColumnType,
    required: bool,
}

/// The fields of one object that are looked at.
#[derive(Default)]
struct Level {
    fields: Vec<(String, Target)>,
}

enum Target {
    Column(usize),
    Object(Level),
}

/// Why a record is refused: a built-in rule and what is wrong, in words.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) rule: &'static str,
    pub(crate) reason: String,
}

/// Why a record that comes with a schema is no row.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The bytes do not fit the schema.
    Broken(String),
    /// The value of a column is of another type: the column's index and what the value is.
    Type(usize, String),
}

impl From<String> for Fault {
    fn from(broken: String) -> Fault {
        Fault::Broken(broken)
    }
}

impl FieldMap {
    /// Orders columns by their fields; notes two columns that would read the same one.
    pub(crate) fn new(configs: &[ColumnConfig], kinds: &[ColumnType], mistakes: &mut Vec<String>) -> FieldMap {
        let mut map = FieldMap { columns: Vec::new(), top: Level::default() };
        for (index, (config, kind)) in configs.iter().zip(kinds).enumerate() {
            let path = config.from.clone().unwrap_or_else(|| config.name.clone());
            let parts: Vec<&str> = match &config.from {
                Some(from) => from.split('.').collect(),
                None => vec![&config.name],
            };
            if config.from.is_some() && parts.iter().any(|part| part.is_empty()) {
                mistakes
                    .push(format!("column '{}': from = '{path}' has an empty part, write outer.inner", config.name));
            }
            if !map.top.insert(&parts, index) {
                mistakes.push(format!(
                    "column '{}': the field '{path}' is already read as another column, or as an object, remove one",
                    config.name
                ));
            }
            map.columns.push(FieldColumn { path, kind: *kind, required: config.required });
        }
        map
    }

    /// Makes a column required whatever its declaration says.
    pub(crate) fn require(&mut self, index: usize) {
        if let Some(column) = self.columns.get_mut(index) {
            column.required = true;
        }
    }

    /// Empty buffers for all columns.
    pub(crate) fn buffers(&self) -> Vec<ColumnBuffer> {
        self.columns.iter().map(|column| ColumnBuffer::new(column.kind)).collect()
    }

    /// Reads the fields of a record's value into their columns; those without a field are left alone. After a refusal
    /// columns may be longer than `row`: cut them back.
    pub(crate) fn read(&self, value: &[u8], columns: &mut [ColumnBuffer], row: usize) -> Result<(), Refusal> {
        self.read_object(&self.top, text_of(value)?, columns, row)
    }

    fn read_object(&self, level: &Level, text: &str, columns: &mut [ColumnBuffer], row: usize) -> Result<(), Refusal> {
        let mut scanner = JsonScanner::new(text);
        scanner.enter_object().map_err(json_refusal)?;
        let mut guess = 0;
        let mut first = true;
        while let Some((name, value)) = scanner.next_field(first).map_err(json_refusal)? {
            first = false;
            let is_guess = level.fields.get(guess).is_some_and(|(field, _)| *field == *name);
            let found = if is_guess { Some(guess) } else { level.fields.iter().position(|(field, _)| *field == *name) };
            let Some(at) = found else { continue };
            guess = at + 1;
            match (&level.fields[at].1, &value) {
                (Target::Column(index), _) => self.push(*index, &value, &mut columns[*index], row)?,
                (Target::Object(inner), JsonValue::Object(text)) => self.read_object(inner, text, columns, row)?,
                (Target::Object(_), JsonValue::Null) => {}
                (Target::Object(_), other) => {
                    return Err(refusal("type", format!("field '{name}' is {}, wanted an object", other.kind())));
                }
            }
        }
        Ok(())
    }

    fn push(&self, index: usize, value: &JsonValue<'_>, column: &mut ColumnBuffer, row: usize) -> Result<(), Refusal> {
        let FieldColumn { path, kind, required } = &self.columns[index];
        if column.len() > row {
            return Err(refusal("duplicate_field", format!("field '{path}' stands twice")));
        }
        if !column.push(value) {
            return Err(wrong_type(path, value, *kind));
        }
        if *required && *value == JsonValue::Null {
            return Err(refusal("required", format!("field '{path}' is null but required")));
        }
        Ok(())
    }

    /// Refuses a null where a column that was read is required.
    pub(crate) fn check_nulls(&self, columns: &[ColumnBuffer], row: usize) -> Result<(), Refusal> {
        let is_null = |column: &ColumnBuffer| column.len() > row && !column.is_last_valid();
        let mut required = self.columns.iter().zip(columns).filter(|(declared, _)| declared.required);
        match required.find(|(_, column)| is_null(column)) {
            Some((declared, _)) => Err(refusal("required", format!("field '{}' is null but required", declared.path))),
            None => Ok(()),
        }
    }

    /// The refusal of a value that is not of a column's type.
    pub(crate) fn wrong_type(&self, index: usize, shown: &str) -> Refusal {
        let FieldColumn { path, kind, .. } = &self.columns[index];
        refusal("type", format!("field '{path}' is {shown}, wanted {}", kind.wants()))
    }

    /// Columns whose field was not there are null.
    pub(crate) fn complete(&self, columns: &mut [ColumnBuffer], row: usize) -> Result<(), Refusal> {
        for (declared, column) in self.columns.iter().zip(columns) {
            if column.len() == row {
                if declared.required {
                    return Err(refusal("required", format!("field '{}' is missing but required", declared.path)));
                }
                column.push_null();
            }
        }
        Ok(())
    }
}

impl Level {
    fn insert(&mut self, parts: &[&str], index: usize) -> bool {
        let Some((first, rest)) = parts.split_first() else { return false };
        let at = self.fields.iter().position(|(field, _)| field == first);
        match (at.map(|at| &mut self.fields[at].1), rest.is_empty()) {
            (None, true) => self.fields.push((first.to_string(), Target::Column(index))),
            (None, false) => {
                let mut inner = Level::default();
                inner.insert(rest, index);
                self.fields.push((first.to_string(), Target::Object(inner)));
            }
            (Some(Target::Object(inner)), false) => return inner.insert(rest, index),
            _ => return false,
        }
        true
    }
}

/// A value as text.
pub(crate) fn text_of(value: &[u8]) -> Result<&str, Refusal> {
    std::str::from_utf8(value).map_err(|error| refusal("utf8", format!("the value is not UTF-8: {error}")))
}

pub(crate) fn refusal(rule: &'static str, reason: impl Into<String>) -> Refusal {
    Refusal { rule, reason: reason.into() }
}

pub(crate) fn json_refusal(error: JsonError) -> Refusal {
    match error {
        JsonError::NotAnObject => refusal("not_object", "the value is JSON but not an object"),
        JsonError::Syntax { at, expected } => {
            refusal("json", format!("not valid JSON at byte {at}: expected {expected}"))
        }
    }
}

fn wrong_type(name: &str, value: &JsonValue<'_>, kind: ColumnType) -> Refusal {
    let shown = match value {
        JsonValue::Number(text) => short(text),
        JsonValue::String(text) => format!("'{}'", short(text)),
        other => other.kind().to_string(),
    };
    refusal("type", format!("field '{name}' is {shown}, wanted {}", kind.wants()))
}

/// The first characters of a value, for a message of bounded length.
pub(crate) fn short(text: &str) -> String {
    const SHOWN_MAX: usize = 40;
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_string(),
    }
}
