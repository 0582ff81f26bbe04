//! What an alert has seen: which rows are wrong since when, and what is to be told. Pure: time and rows are handed in.

use std::collections::BTreeMap;

use broker::TimestampMs;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Most instances of one alert; further rows are not looked at.
pub const INSTANCES_MAX: usize = 1_000;

/// When something is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The columns that tell one instance from another.
    pub labels: Vec<String>,
    /// How long a row must be there, in milliseconds.
    pub for_ms: i64,
    /// How long it must be gone, in milliseconds.
    pub clear_for_ms: i64,
}

/// Whether something was told already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Wrong, but not for long enough.
    Pending,
    /// Told.
    Firing,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// Whether it was told.
    pub phase: Phase,
    /// When it was first seen.
    pub since_ms: TimestampMs,
    /// When it was told.
    pub fired_ms: Option<TimestampMs>,
    /// Since when it is gone, while that is not told yet.
    pub gone_ms: Option<TimestampMs>,
    /// What tells it from others.
    pub labels: Map<String, Value>,
    /// The row as it was seen last.
    pub values: Map<String, Value>,
}

/// What must be told: an instance began to fire, or is right again.
#[derive(Clone, Debug, PartialEq)]
pub struct Turn {
    /// True when it fires, false when it is right again.
    pub firing: bool,
    /// As it is, or as it was seen last.
    pub instance: Instance,
}

/// All instances of one alert. The alert's own task alone changes it; it is stored with each turn, so a restart goes on
/// from it and tells nothing twice.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AlertState {
    /// By the text of their labels.
    pub instances: BTreeMap<String, Instance>,
}

impl AlertState {
    /// Takes in the rows of one look. Gives what must be told, and whether anything changed that must be stored.
    pub fn observe(&mut self, rules: &Rules, rows: Vec<Map<String, Value>>, now: TimestampMs) -> (Vec<Turn>, bool) {
        let before = self.shape();
        let mut turns = Vec::new();
        let mut seen: Vec<String> = Vec::new();
        for row in rows {
            let labels: Map<String, Value> =
                rules.labels.iter().map(|name| (name.clone(), row.get(name).cloned().unwrap_or(Value::Null))).collect();
            let id = Value::Object(labels.clone()).to_string();
            if seen.contains(&id) || !self.instances.contains_key(&id) && self.instances.len() >= INSTANCES_MAX {
                continue;
            }
            let instance = self.instances.entry(id.clone()).or_insert_with(|| Instance {
                phase: Phase::Pending,
                since_ms: now,
                fired_ms: None,
                gone_ms: None,
                labels,
                values: Map::new(),
            });
            instance.values = row;
            instance.gone_ms = None;
            if instance.phase == Phase::Pending && now - instance.since_ms >= rules.for_ms {
                instance.phase = Phase::Firing;
                instance.fired_ms = Some(now);
                turns.push(Turn { firing: true, instance: instance.clone() });
            }
            seen.push(id);
        }
        self.instances.retain(|id, instance| {
            if seen.contains(id) {
                return true;
            }
            let gone = *instance.gone_ms.get_or_insert(now);
            let stays = instance.phase == Phase::Firing && now - gone < rules.clear_for_ms;
            if !stays && instance.phase == Phase::Firing {
                turns.push(Turn { firing: false, instance: instance.clone() });
            }
            stays
        });
        (turns, self.shape() != before)
    }

    /// What decides about later turns; values of rows do not.
    fn shape(&self) -> Vec<(String, Phase, Option<TimestampMs>)> {
        self.instances.iter().map(|(id, instance)| (id.clone(), instance.phase, instance.gone_ms)).collect()
    }

    /// `firing`, `pending` or `ok`.
    pub fn word(&self) -> &'static str {
        let is = |phase| self.instances.values().any(|instance| instance.phase == phase);
        if is(Phase::Firing) {
            "firing"
        } else if is(Phase::Pending) {
            "pending"
        } else {
            "ok"
        }
    }

    /// Since when it is not ok.
    pub fn since_ms(&self) -> Option<TimestampMs> {
        let firing = self.instances.values().filter(|instance| instance.phase == Phase::Firing);
        let oldest = firing.map(|instance| instance.since_ms).min();
        oldest.or_else(|| self.instances.values().map(|instance| instance.since_ms).min())
    }
}

/// `{column}` replaced by the row's value; what the row does not have stays as it is written.
pub fn filled(template: &str, row: &Map<String, Value>) -> String {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(open) = rest.find('{') {
        out.push_str(&rest[..open]);
        rest = &rest[open..];
        let name = rest[1..].split('}').next().filter(|name| name.len() + 1 < rest.len());
        match name.and_then(|name| Some((name, row.get(name)?))) {
            Some((name, value)) => {
                match value {
                    Value::String(text) => out.push_str(text),
                    other => out.push_str(&other.to_string()),
                }
                rest = &rest[name.len() + 2..];
            }
            None => {
                out.push('{');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rules(for_ms: i64, clear_for_ms: i64) -> Rules {
        Rules { labels: vec!["room".into()], for_ms, clear_for_ms }
    }

    fn row(room: &str, heat: i64) -> Map<String, Value> {
        json!({"room": room, "heat": heat}).as_object().unwrap().clone()
    }

    /// What is told at each look, as `+room` and `-room`.
    fn told(rules: &Rules, looks: &[(i64, &[&str])]) -> Vec<String> {
        let mut state = AlertState::default();
        let mut out = Vec::new();
        for (now, rooms) in looks {
            let rows = rooms.iter().map(|room| row(room, *now)).collect();
            for turn in state.observe(rules, rows, *now).0 {
                out.push(format!(
                    "{now}{}{}",
                    if turn.firing { '+' } else { '-' },
                    turn.instance.labels["room"].as_str().unwrap()
                ));
            }
            // A restart in between changes nothing.
            state = serde_json::from_str(&serde_json::to_string(&state).unwrap()).unwrap();
        }
        out
    }

    #[test]
    fn it_fires_once_and_recovers_once() {
        let looks: [(i64, &[&str]); 5] = [(0, &["a"]), (10, &["a"]), (20, &["a"]), (30, &[]), (40, &[])];
        assert_eq!(told(&rules(0, 0), &looks), ["0+a", "30-a"]);
        assert_eq!(told(&rules(15, 0), &looks), ["20+a", "30-a"]);
        assert_eq!(told(&rules(0, 10), &looks), ["0+a", "40-a"]);
        assert_eq!(told(&rules(1000, 0), &looks), [] as [&str; 0], "a short fault is not told, and neither is its end");
    }

    #[test]
    fn flapping_within_clear_for_is_one_alert() {
        let looks: [(i64, &[&str]); 6] = [(0, &["a"]), (10, &[]), (20, &["a"]), (30, &[]), (40, &["a"]), (50, &[])];
        assert_eq!(told(&rules(0, 15), &looks), ["0+a"]);
        assert_eq!(told(&rules(0, 0), &looks), ["0+a", "10-a", "20+a", "30-a", "40+a", "50-a"]);
    }

    #[test]
    fn pending_begins_anew_after_a_gap() {
        let looks: [(i64, &[&str]); 5] = [(0, &["a"]), (10, &[]), (20, &["a"]), (30, &["a"]), (40, &["a"])];
        assert_eq!(told(&rules(20, 0), &looks), ["40+a"]);
    }

    #[test]
    fn instances_are_apart_and_doubled_rows_are_one() {
        let looks: [(i64, &[&str]); 3] = [(0, &["a", "b", "a"]), (10, &["b"]), (20, &[])];
        assert_eq!(told(&rules(0, 0), &looks), ["0+a", "0+b", "10-a", "20-b"]);
    }

    #[test]
    fn only_turns_and_their_clocks_are_worth_storing() {
        let mut state = AlertState::default();
        assert!(state.observe(&rules(5, 5), vec![row("a", 1)], 0).1);
        assert!(!state.observe(&rules(5, 5), vec![row("a", 2)], 1).1);
        assert_eq!((state.word(), state.since_ms()), ("pending", Some(0)));
        assert!(state.observe(&rules(5, 5), vec![row("a", 3)], 5).1);
        assert_eq!(state.word(), "firing");
        assert!(state.observe(&rules(5, 5), vec![], 6).1, "it is gone: that moment counts");
        assert!(!state.observe(&rules(5, 5), vec![], 7).1);
        assert_eq!(state.observe(&rules(5, 5), vec![], 11).0[0].instance.values["heat"], 3);
        assert_eq!(state.word(), "ok");
    }

    #[test]
    fn too_many_instances_are_cut() {
        let mut state = AlertState::default();
        let rows = (0..2_000).map(|room| row(&room.to_string(), 0)).collect();
        assert_eq!(state.observe(&rules(0, 0), rows, 0).0.len(), INSTANCES_MAX);
    }

    #[test]
    fn messages_are_filled() {
        let row = row("a", 31);
        assert_eq!(filled("{heat} degrees in {room}, {unknown} {", &row), "31 degrees in a, {unknown} {");
        assert_eq!(filled("plain", &row), "plain");
    }
}
