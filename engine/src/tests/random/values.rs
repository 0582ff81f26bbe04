//! Typed values as SQL has them: how they are written in an event and in a query, compared, and shown in an answer.

use super::super::oracle::Random;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Whole,
    Cents,
    Quarters,
    Text,
    Flag,
}

/// A value that is not null. Doubles are quarters, so that their sums do not depend on the order.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Value {
    Whole(i64),
    Cents(i64),
    Quarters(i64),
    Text(String),
    Flag(bool),
}

/// None is null.
pub type Cell = Option<Value>;

impl Kind {
    pub fn random(random: &mut Random) -> Kind {
        [Kind::Whole, Kind::Cents, Kind::Quarters, Kind::Text, Kind::Flag][random.below(5) as usize]
    }

    pub fn sql(self) -> &'static str {
        match self {
            Kind::Whole => "BIGINT",
            Kind::Cents => "DECIMAL(12,2)",
            Kind::Quarters => "DOUBLE",
            Kind::Text => "VARCHAR",
            Kind::Flag => "BOOLEAN",
        }
    }

    pub fn is_number(self) -> bool {
        !matches!(self, Kind::Text | Kind::Flag)
    }

    /// A value out of few, so that groups and comparisons meet.
    pub fn value(self, random: &mut Random) -> Value {
        let number = random.below(9) as i64 - 3;
        match self {
            Kind::Whole if random.below(12) == 0 => Value::Whole(number * 1_000_000_000_000_000),
            Kind::Whole => Value::Whole(number),
            Kind::Cents => Value::Cents(number * 35),
            Kind::Quarters => Value::Quarters(number * 3),
            Kind::Text => Value::Text(
                ["", "a", "b", "it's", "Ω \\ \"x\"", "a long one, so that it is no inline value"]
                    [random.below(6) as usize]
                    .into(),
            ),
            Kind::Flag => Value::Flag(number > 0),
        }
    }
}

impl Value {
    pub fn json(&self) -> String {
        match self {
            Value::Text(text) => serde_json::to_string(text).unwrap(),
            other => other.shown(),
        }
    }

    pub fn literal(&self) -> String {
        match self {
            Value::Text(text) => format!("'{}'", text.replace('\'', "''")),
            Value::Cents(_) => format!("CAST('{}' AS DECIMAL(12,2))", self.shown()),
            other => other.shown(),
        }
    }

    /// As an answer shows it.
    pub fn shown(&self) -> String {
        match self {
            Value::Whole(number) => number.to_string(),
            Value::Cents(cents) => {
                format!("{}{}.{:02}", if *cents < 0 { "-" } else { "" }, cents.abs() / 100, cents.abs() % 100)
            }
            Value::Quarters(quarters) => format!("{:?}", *quarters as f64 / 4.0),
            Value::Text(text) => text.clone(),
            Value::Flag(flag) => flag.to_string(),
        }
    }
}

pub fn shown(cell: &Cell) -> String {
    cell.as_ref().map_or("∅".to_string(), Value::shown)
}
