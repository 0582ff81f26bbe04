//! `[kafka]`: the broker's settings under Kafka's names. The rows are the broker's own (`broker::settings`), so that the
//! configuration, DescribeConfigs and the manual say the same.

use std::sync::LazyLock;

use broker::settings::{Row, When, rows};

use super::schema::{Field, Kind};
use super::value::literal_of;

/// Every setting that can be given at start.
pub static KAFKA: LazyLock<&'static [Field]> = LazyLock::new(|| {
    let given = rows().filter(|row| row.when != When::Own);
    Box::leak(given.map(field).collect::<Vec<_>>().into_boxed_slice())
});

/// What the manual shows of settings that have no default.
const EXAMPLES: [(&str, &str); 6] = [
    ("broker.rack", "rack-1"),
    ("log.flush.interval.ms", "1000"),
    ("log.retention.minutes", "10080"),
    ("log.retention.ms", "604800000"),
    ("log.roll.jitter.ms", "0"),
    ("log.roll.ms", "604800000"),
];

fn field(row: &'static Row) -> Field {
    let default = match row.default {
        None => "No default".to_owned(),
        Some("") => "Default: empty".to_owned(),
        Some(default) => format!("Default {default}"),
    };
    let change = if row.when == When::ForAll { ", can be changed while the broker runs" } else { "" };
    let doc: &'static str = format!("{} {default}{change}.", row.doc).leak();
    let example = || EXAMPLES.iter().find(|(name, _)| *name == row.name).map(|(_, example)| *example);
    let example = literal_of(row.default.or_else(example).unwrap_or_default()).leak();
    Field::optional(row.name, Kind::Kafka(row), example, doc)
}

/// Why `[kafka]` cannot hold a name that is not in its table.
pub fn why_not(name: &str) -> String {
    let why = broker::BrokerConfig::default().set(name, "").err().map(|error| error.message).unwrap_or_default();
    let near = super::mistake::suggestion(name, rows().map(|row| row.name));
    if broker::settings::is_known(name) { why } else { format!("{why}{near}") }
}
