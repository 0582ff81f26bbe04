//! Settings of groups (KIP-848) and of subscriptions to client metrics (KIP-714), with their rules.

use regex::Regex;

use super::Values;
use crate::error::{Error, Kind, Result};
use crate::topic_config::{Allowed, SettingType, items};

/// One setting of a group or of a subscription.
#[derive(Debug)]
pub struct ResourceRow {
    /// Kafka's name.
    pub name: &'static str,
    /// Kafka's type.
    pub kind: SettingType,
    /// Its value where nobody sets it.
    pub default: &'static str,
    /// The values it takes.
    pub allowed: Allowed,
    /// The broker setting that holds the default.
    pub broker_name: Option<&'static str>,
    /// The broker settings that bound it.
    bounds: Option<(&'static str, &'static str)>,
    /// What it does here.
    pub doc: &'static str,
}

use SettingType::{Int, List};

const INT_MAX: i64 = i32::MAX as i64;

#[rustfmt::skip]
static GROUP: &[ResourceRow] = &[
    ResourceRow { name: "consumer.assignment.interval.ms", kind: Int, default: "0", allowed: Allowed::Whole(0, INT_MAX),
        broker_name: Some("group.consumer.assignment.interval.ms"),
        bounds: Some(("group.consumer.min.assignment.interval.ms", "group.consumer.max.assignment.interval.ms")),
        doc: "Least time between two assignments of the group, in milliseconds." },
    ResourceRow { name: "consumer.heartbeat.interval.ms", kind: Int, default: "5000", allowed: Allowed::Whole(1, INT_MAX),
        broker_name: Some("group.consumer.heartbeat.interval.ms"),
        bounds: Some(("group.consumer.min.heartbeat.interval.ms", "group.consumer.max.heartbeat.interval.ms")),
        doc: "How often members of the consumer group send a heartbeat, in milliseconds." },
    ResourceRow { name: "consumer.session.timeout.ms", kind: Int, default: "45000", allowed: Allowed::Whole(1, INT_MAX),
        broker_name: Some("group.consumer.session.timeout.ms"),
        bounds: Some(("group.consumer.min.session.timeout.ms", "group.consumer.max.session.timeout.ms")),
        doc: "After how many milliseconds without a heartbeat a member of the consumer group is gone." },
];

#[rustfmt::skip]
static CLIENT_METRICS: &[ResourceRow] = &[
    ResourceRow { name: "interval.ms", kind: Int, default: "300000", allowed: Allowed::Whole(100, 3_600_000),
        broker_name: None, bounds: None,
        doc: "Accepted and kept. Has no effect: clients are not asked for metrics." },
    ResourceRow { name: "match", kind: List, default: "", allowed: Allowed::AnyList, broker_name: None, bounds: None,
        doc: "Accepted and kept. Has no effect: clients are not asked for metrics." },
    ResourceRow { name: "metrics", kind: List, default: "", allowed: Allowed::AnyList, broker_name: None, bounds: None,
        doc: "Accepted and kept. Has no effect: clients are not asked for metrics." },
];

/// What a client can be matched by.
const SELECTORS: [&str; 6] = [
    "client_id",
    "client_instance_id",
    "client_software_name",
    "client_software_version",
    "client_source_address",
    "client_source_port",
];

/// The rows of groups, or of client metrics.
pub fn resource_rows(of_groups: bool) -> &'static [ResourceRow] {
    if of_groups { GROUP } else { CLIENT_METRICS }
}

pub(super) fn group_row(name: &str) -> Option<&'static ResourceRow> {
    GROUP.iter().find(|row| row.name == name)
}

pub(super) fn check_group(
    after: &Values,
    of_broker: impl Fn(&'static str) -> Option<i64>,
    number: impl Fn(&str) -> i64,
) -> Result<()> {
    let refused = |message| Err(Error::new(Kind::InvalidConfig, message));
    for (name, value) in after {
        let Some(row) = group_row(name) else {
            let known: Vec<_> = GROUP.iter().map(|row| row.name).collect();
            return refused(format!("unknown group setting {}; there are {}", name.escape_debug(), known.join(", ")));
        };
        row.allowed.check(("group", row.name), value)?;
        let Some((least, most)) = row.bounds else { continue };
        let (given, least_value, most_value) = (number(name), of_broker(least), of_broker(most));
        if least_value.is_some_and(|bound| given < bound) || most_value.is_some_and(|bound| given > bound) {
            return refused(format!("{name} must lie between the broker's {least} and {most}"));
        }
    }
    if number("consumer.heartbeat.interval.ms") >= number("consumer.session.timeout.ms") {
        return refused("consumer.session.timeout.ms must be larger than consumer.heartbeat.interval.ms".to_owned());
    }
    Ok(())
}

pub(super) fn check_client_metrics(after: &Values) -> Result<()> {
    for (name, value) in after {
        let Some(row) = CLIENT_METRICS.iter().find(|row| row.name == name) else {
            let message = format!(
                "unknown setting of client metrics {}; there are interval.ms, match, metrics",
                name.escape_debug()
            );
            return Err(Error::new(Kind::InvalidRequest, message));
        };
        let checked = row.allowed.check(("client metrics", row.name), value);
        checked.map_err(|error| Error::new(Kind::InvalidRequest, error.message))?;
        if row.name == "match"
            && let Some(bad) = items(value).find(|item| !is_selector(item))
        {
            let message = format!("{} is no selector such as client_id=app.*", bad.escape_debug());
            return Err(Error::new(Kind::InvalidConfig, message));
        }
    }
    Ok(())
}

fn is_selector(item: &str) -> bool {
    item.split_once('=').is_some_and(|(by, pattern)| {
        SELECTORS.contains(&by.trim()) && !pattern.is_empty() && Regex::new(pattern.trim()).is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_name_a_field_and_a_pattern() {
        for (item, expected) in [("client_id=a.*", true), ("x=1", false), ("client_id=[", false), ("client_id", false)]
        {
            assert_eq!(is_selector(item), expected, "{item}");
        }
        let refused = |name: &str, value: &str| {
            check_client_metrics(&Values::from([(name.into(), value.into())])).unwrap_err().kind
        };
        assert_eq!(refused("interval.ms", "50"), Kind::InvalidRequest);
        assert_eq!(refused("match", "x=1"), Kind::InvalidConfig);
        assert_eq!(refused("nope", "1"), Kind::InvalidRequest);
    }
}
