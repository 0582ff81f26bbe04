//! What a configuration file may say: each key once, with its type, range, default and doc. The same rows check files, variables and
//! flags and write the manual (`config/millpond.toml`).

/// The type and range of a key's value.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A string that is not empty.
    Text,
    /// `true` or `false`.
    Bool,
    /// A whole number from the first to the second, both allowed.
    Integer(i64, i64),
    /// A number from the first to the second, both allowed.
    Number(f64, f64),
    /// A time span such as `"10s"`, kept in milliseconds, from the first to the second.
    Duration(i64, i64),
    /// A size such as `"64MiB"`, kept in bytes, from the first to the second.
    Size(i64, i64),
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// `HOST:PORT`.
    Address,
    /// A list of strings.
    Texts,
    /// A list of numbers.
    Numbers,
    /// A list of lists of strings.
    Grid,
    /// What a setting of the broker under Kafka's name takes, kept as text.
    Kafka(&'static broker::settings::Row),
    /// A table of names and scalar values, kept as text.
    Map,
    /// Any single value, kept as JSON text.
    Any,
    /// One table with these keys.
    Table(&'static [Field]),
    /// A list of tables, each with these keys.
    Tables(&'static [Field]),
}

/// What holds when a key is not there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Absent {
    /// It is a mistake.
    Required,
    /// The key has no value.
    Unset,
    /// The key has this value, written as a variable or flag would write it.
    Default(&'static str),
}

/// One key of a table.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// The key.
    pub name: &'static str,
    /// Its type and range.
    pub kind: Kind,
    /// What holds without it.
    pub absent: Absent,
    /// A TOML value for the manual, where the default does not show one.
    pub example: &'static str,
    /// What it means, in sentences without a closing unit: the kind tells the unit.
    pub doc: &'static str,
}

impl Field {
    /// A key that must be given.
    pub const fn required(name: &'static str, kind: Kind, example: &'static str, doc: &'static str) -> Field {
        Field { name, kind, absent: Absent::Required, example, doc }
    }

    /// A key that may be left out and then has no value.
    pub const fn optional(name: &'static str, kind: Kind, example: &'static str, doc: &'static str) -> Field {
        Field { name, kind, absent: Absent::Unset, example, doc }
    }

    /// A key that has `default` when it is left out.
    pub const fn with_default(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Field {
        Field { name, kind, absent: Absent::Default(default), example: "", doc }
    }
}

/// The keys of the top level and of its plain tables; lists of tables are fields of kind [`Kind::Tables`].
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// The table's name; empty for the top level.
    pub name: &'static str,
    /// What the table is about, for the manual.
    pub doc: &'static str,
    /// Its keys.
    pub fields: &'static [Field],
}

impl Kind {
    /// The type and range in words, for the manual and for mistakes.
    pub fn words(&self) -> String {
        match self {
            Kind::Text => "a text".into(),
            Kind::Bool => "true or false".into(),
            Kind::Integer(min, i64::MAX) => format!("a whole number from {min}"),
            Kind::Integer(min, max) => format!("a whole number from {min} to {max}"),
            Kind::Number(min, max) if *max == f64::MAX && *min == f64::MIN => "a number".into(),
            Kind::Number(min, max) if *max == f64::MAX => format!("a number from {min}"),
            Kind::Number(min, max) => format!("a number from {min} to {max}"),
            Kind::Duration(min, max) => {
                format!(
                    "a duration such as \"10s\", from {} to {}",
                    super::value::duration_text(*min),
                    super::value::duration_text(*max)
                )
            }
            Kind::Size(min, max) => {
                format!(
                    "a size such as \"64MiB\", from {} to {}",
                    super::value::size_text(*min),
                    super::value::size_text(*max)
                )
            }
            Kind::OneOf(words) => format!("one of {}", words.join(", ")),
            Kind::Address => "HOST:PORT".into(),
            Kind::Texts => "a list of texts".into(),
            Kind::Numbers => "a list of numbers".into(),
            Kind::Grid => "a list of lists of texts".into(),
            Kind::Kafka(row) => row.allowed.words(),
            Kind::Map => "a table of names and values".into(),
            Kind::Any => "any value".into(),
            Kind::Table(_) => "a table".into(),
            Kind::Tables(_) => "a list of tables".into(),
        }
    }

    /// Whether one variable or flag can carry the whole value.
    pub fn is_scalar(&self) -> bool {
        !matches!(
            self,
            Kind::Texts | Kind::Numbers | Kind::Grid | Kind::Map | Kind::Any | Kind::Table(_) | Kind::Tables(_)
        )
    }
}
