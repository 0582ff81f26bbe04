//! Random schemas and views, and their SQL.

use super::super::oracle::Random;
use super::super::{column, stream};
use super::calendar::{Unit, ZONES, Zone};
use super::values::{Kind, Value};
use crate::{StreamConfig, ViewConfig};

pub struct Schema {
    pub kinds: Vec<Kind>,
    /// Of event time: its windows are some of these wide.
    pub scale_ms: i64,
    pub lateness_ms: i64,
    pub idle_timeout_ms: i64,
}

impl Schema {
    pub fn random(random: &mut Random) -> Schema {
        let kinds = (0..2 + random.below(5)).map(|_| Kind::random(random)).collect();
        let scale_ms = [1_000, 60_000, 3_600_000, 43_200_000][random.below(4) as usize];
        let lateness_ms = [0, scale_ms / 2, scale_ms * 3][random.below(3) as usize];
        Schema { kinds, scale_ms, lateness_ms, idle_timeout_ms: [0, 1_500][random.below(2) as usize] }
    }

    pub fn stream(&self, name: &str, topic: &str) -> StreamConfig {
        let mut columns = vec![column("ts", "TIMESTAMP", true)];
        columns.extend(self.kinds.iter().enumerate().map(|(at, kind)| column(&format!("c{at}"), kind.sql(), false)));
        StreamConfig {
            name: name.into(),
            topic: topic.into(),
            columns,
            lateness_ms: self.lateness_ms,
            idle_timeout_ms: self.idle_timeout_ms,
            checks: Vec::new(),
            ..stream()
        }
    }

    fn column(&self, random: &mut Random, fits: impl Fn(Kind) -> bool) -> Option<usize> {
        let fitting: Vec<usize> = (0..self.kinds.len()).filter(|at| fits(self.kinds[*at])).collect();
        (!fitting.is_empty()).then(|| fitting[random.below(fitting.len() as u64) as usize])
    }
}

pub enum Condition {
    Compared(usize, &'static str, Value),
    IsNull(usize),
    Not(Box<Condition>),
    And(Box<Condition>, Box<Condition>),
    Or(Box<Condition>, Box<Condition>),
}

impl Condition {
    fn random(random: &mut Random, schema: &Schema) -> Condition {
        let inner = |random: &mut Random| Box::new(Condition::random(random, schema));
        match random.below(9) {
            0 => Condition::Not(inner(random)),
            1 => Condition::And(inner(random), inner(random)),
            2 => Condition::Or(inner(random), inner(random)),
            3 => Condition::IsNull(random.below(schema.kinds.len() as u64) as usize),
            _ => {
                let at = random.below(schema.kinds.len() as u64) as usize;
                let comparisons = if schema.kinds[at] == Kind::Flag { 2 } else { 6 };
                let comparison = ["=", "<>", "<", "<=", ">", ">="][random.below(comparisons) as usize];
                Condition::Compared(at, comparison, schema.kinds[at].value(random))
            }
        }
    }

    fn sql(&self) -> String {
        match self {
            Condition::Compared(at, comparison, value) => format!("c{at} {comparison} {}", value.literal()),
            Condition::IsNull(at) => format!("c{at} IS NULL"),
            Condition::Not(inner) => format!("NOT ({})", inner.sql()),
            Condition::And(left, right) => format!("({} AND {})", left.sql(), right.sql()),
            Condition::Or(left, right) => format!("({} OR {})", left.sql(), right.sql()),
        }
    }
}

pub enum Key {
    Column(usize),
    /// 'yes' where it holds, else 'no'.
    Holds(Condition),
}

pub enum What {
    Rows,
    There(usize),
    Different(usize),
    Sum(usize),
    Mean(usize),
    Least(usize),
    Most(usize),
    Any(usize),
    Every(usize),
    First(usize),
    Last(usize),
    All(usize),
}

pub struct Aggregate {
    pub what: What,
    pub filter: Option<Condition>,
}

impl Aggregate {
    fn random(random: &mut Random, schema: &Schema) -> Aggregate {
        let any = random.below(schema.kinds.len() as u64) as usize;
        let number = schema.column(random, Kind::is_number);
        let flag = schema.column(random, |kind| kind == Kind::Flag);
        // a mean of whole numbers that are large depends on their order
        let mean = schema.column(random, |kind| kind == Kind::Quarters);
        let ordered = schema.column(random, |kind| kind != Kind::Flag);
        let what = match random.below(12) {
            0 => Some(What::There(any)),
            1 => Some(What::Different(any)),
            2 | 3 => number.map(What::Sum),
            4 => mean.map(What::Mean),
            5 => ordered.map(What::Least),
            6 => ordered.map(What::Most),
            7 => flag.map(What::Any),
            8 => flag.map(What::Every),
            9 => Some(What::First(any)),
            10 => Some(What::Last(any)),
            _ => schema.column(random, |kind| kind == Kind::Whole).map(What::All),
        };
        let filter = (random.below(3) == 0).then(|| Condition::random(random, schema));
        Aggregate { what: what.unwrap_or(What::Rows), filter }
    }

    fn sql(&self) -> String {
        let call = match &self.what {
            What::Rows => "count(*)".to_string(),
            What::There(at) => format!("count(c{at})"),
            What::Different(at) => format!("count(DISTINCT c{at})"),
            What::Sum(at) => format!("sum(c{at})"),
            What::Mean(at) => format!("avg(c{at})"),
            What::Least(at) => format!("min(c{at})"),
            What::Most(at) => format!("max(c{at})"),
            What::Any(at) => format!("bool_or(c{at})"),
            What::Every(at) => format!("bool_and(c{at})"),
            What::First(at) => format!("first(c{at})"),
            What::Last(at) => format!("last(c{at})"),
            What::All(at) => format!("array_agg(c{at})"),
        };
        match &self.filter {
            Some(filter) => format!("{call} FILTER (WHERE {})", filter.sql()),
            None => call,
        }
    }
}

/// Windows of fixed length have slide and size in milliseconds, those of a zone in its days or months.
pub enum Window {
    None,
    Fixed { slide: i64, size: i64 },
    Zoned { zone: &'static Zone, unit: Unit, slide: i64, size: i64 },
    Session { gap: i64 },
}

impl Window {
    fn random(random: &mut Random, scale_ms: i64) -> Window {
        let many = |random: &mut Random, most: u64| 1 + random.below(most) as i64;
        match random.below(9) {
            0 => Window::None,
            1 | 2 => Window::Session { gap: scale_ms * many(random, 8) / 4 },
            3 | 4 => {
                let size = scale_ms * many(random, 12);
                Window::Fixed { slide: size, size }
            }
            5 | 6 => {
                let slide = scale_ms * many(random, 4);
                Window::Fixed { slide, size: slide + scale_ms * random.below(9) as i64 }
            }
            _ => {
                static ZONES_THERE: [Zone; 5] = ZONES;
                let zone = &ZONES_THERE[random.below(5) as usize];
                let unit = [Unit::Days, Unit::Days, Unit::Months][random.below(3) as usize];
                let slide = [1, 1, if unit == Unit::Days { 2 } else { 3 }][random.below(3) as usize];
                Window::Zoned { zone, unit, slide, size: slide * many(random, 3) }
            }
        }
    }

    fn sql(&self) -> Option<String> {
        let interval = |ms: i64| match ms {
            ms if ms % 3_600_000 == 0 => format!("INTERVAL '{}' HOUR", ms / 3_600_000),
            ms if ms % 60_000 == 0 => format!("INTERVAL '{}' MINUTE", ms / 60_000),
            ms if ms % 1_000 == 0 => format!("INTERVAL '{}' SECOND", ms / 1_000),
            ms => format!("INTERVAL '{ms}' MILLISECOND"),
        };
        match self {
            Window::None => None,
            Window::Fixed { slide, size } if slide == size => Some(format!("TUMBLE(ts, {})", interval(*size))),
            Window::Fixed { slide, size } => Some(format!("HOP(ts, {}, {})", interval(*slide), interval(*size))),
            Window::Session { gap } => Some(format!("SESSION(ts, {})", interval(*gap))),
            Window::Zoned { zone, unit, slide, size } => {
                let unit = if *unit == Unit::Days { "DAY" } else { "MONTH" };
                let (slide, size) = (format!("INTERVAL '{slide}' {unit}"), format!("INTERVAL '{size}' {unit}"));
                Some(match slide == size {
                    true => format!("TUMBLE(ts, {size}, '{}')", zone.name),
                    false => format!("HOP(ts, {slide}, {size}, '{}')", zone.name),
                })
            }
        }
    }

    fn overlaps(&self) -> bool {
        matches!(self, Window::Fixed { slide, size } | Window::Zoned { slide, size, .. } if slide != size)
    }
}

pub struct Query {
    pub name: String,
    pub window: Window,
    pub keys: Vec<Key>,
    /// After the count of rows, which all have.
    pub aggregates: Vec<Aggregate>,
    pub filter: Option<Condition>,
    /// Groups of fewer rows are left out.
    pub least_rows: Option<i64>,
    pub is_final: bool,
}

impl Query {
    pub fn random(random: &mut Random, schema: &Schema, name: &str) -> Query {
        let window = Window::random(random, schema.scale_ms);
        let least = u64::from(matches!(window, Window::None));
        // only the first may be a condition: two that are written differently can be the same key
        let keys = (0..least + random.below(3 - least)).map(|at| match random.below(4) {
            0 if at == 0 => Key::Holds(Condition::random(random, schema)),
            _ => Key::Column(random.below(schema.kinds.len() as u64) as usize),
        });
        let mut keys: Vec<Key> = keys.collect();
        if let [Key::Column(a), Key::Column(b)] = keys[..]
            && a == b
        {
            keys.pop();
        }
        let is_final = window.overlaps() || !matches!(window, Window::None) && random.below(3) == 0;
        Query {
            name: name.into(),
            window,
            keys,
            aggregates: (0..random.below(5)).map(|_| Aggregate::random(random, schema)).collect(),
            filter: (random.below(2) == 0).then(|| Condition::random(random, schema)),
            least_rows: (random.below(4) == 0).then(|| 2 + random.below(3) as i64),
            is_final,
        }
    }

    pub fn declaration(&self, stream: &str) -> ViewConfig {
        let keys: Vec<String> = self.keys.iter().map(key_sql).collect();
        let mut selected: Vec<String> = keys.iter().enumerate().map(|(at, key)| format!("{key} AS k{at}")).collect();
        selected.push("count(*) AS n".into());
        selected.extend(self.aggregates.iter().enumerate().map(|(at, call)| format!("{} AS a{at}", call.sql())));
        let filter = self.filter.as_ref().map_or(String::new(), |filter| format!(" WHERE {}", filter.sql()));
        let groups: Vec<String> = self.window.sql().into_iter().chain(keys).collect();
        let having = self.least_rows.map_or(String::new(), |least| format!(" HAVING count(*) >= {least}"));
        let emit = if self.is_final { " EMIT FINAL" } else { "" };
        let sql = format!(
            "CREATE MATERIALIZED VIEW {} AS SELECT {} FROM {stream}{filter} GROUP BY {}{having}{emit}",
            self.name,
            selected.join(", "),
            groups.join(", ")
        );
        ViewConfig { sql, ..ViewConfig::default() }
    }
}

fn key_sql(key: &Key) -> String {
    match key {
        Key::Column(at) => format!("c{at}"),
        Key::Holds(condition) => format!("CASE WHEN {} THEN 'yes' ELSE 'no' END", condition.sql()),
    }
}
