//! Green, orange or red: what a panel's rules say about its rows.

use serde_json::{Value, json};

use crate::config::{Colour, PanelConfig, PanelKind, ThresholdConfig};
use crate::error::{Answer, Problem};
use crate::rows::{Rows, number};

/// What the rules say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdict {
    /// The worst colour; none without rules or without rows.
    pub status: Option<Colour>,
    /// Row, column and colour of each cell that a rule is about.
    pub marks: Vec<(usize, usize, Colour)>,
}

impl Verdict {
    /// The members of the panel's JSON, as an object.
    pub fn to_json(&self) -> String {
        let marks: Vec<Value> =
            self.marks.iter().map(|(row, column, colour)| json!([row, column, colour.word()])).collect();
        json!({"status": self.status.map(Colour::word), "marks": marks}).to_string()
    }
}

/// Judges the rows in the drawn members of a panel's JSON.
pub fn verdict_of_body(config: &PanelConfig, body: &str) -> Answer<Verdict> {
    if config.thresholds.is_empty() && config.status.is_none() {
        return Ok(Verdict::default());
    }
    let json: Value = serde_json::from_str(&format!("{{{body}}}"))
        .map_err(|e| Problem::internal(format!("a panel cannot be read back: {e}")))?;
    Ok(verdict(config, &Rows::of_panel(&json)))
}

/// Judges the rows of a panel.
pub fn verdict(config: &PanelConfig, rows: &Rows) -> Verdict {
    let mut verdict = Verdict::default();
    if let Some(column) = config.status.as_ref().and_then(|name| rows.place(name)) {
        for (row, values) in rows.rows.iter().enumerate() {
            if let Some(colour) = values[column].as_str().and_then(Colour::of_word) {
                verdict.marks.push((row, column, colour));
            }
        }
    }
    for (name, rules) in by_column(config) {
        let Some(column) = rows.place(name) else { continue };
        for (row, values) in rows.rows.iter().enumerate().filter(|(_, values)| !values[column].is_null()) {
            let matched = rules.iter().find(|rule| matches(rule, &values[column]));
            verdict.marks.push((row, column, matched.map_or(Colour::Green, |rule| rule.colour)));
        }
    }
    let last = if config.kind == PanelKind::Line { last_of_each_series(config, rows) } else { Vec::new() };
    let counts = |row: usize| config.kind != PanelKind::Line || last.contains(&row);
    verdict.status = verdict.marks.iter().filter(|(row, ..)| counts(*row)).map(|(.., colour)| *colour).max();
    verdict
}

/// The rules of each column, in the order declared.
fn by_column(config: &PanelConfig) -> Vec<(&str, Vec<&ThresholdConfig>)> {
    let mut columns: Vec<(&str, Vec<&ThresholdConfig>)> = Vec::new();
    for rule in &config.thresholds {
        let Some(name) = rule.column.as_ref().or(config.y.first()) else { continue };
        match columns.iter_mut().find(|(known, _)| known == name) {
            Some((_, rules)) => rules.push(rule),
            None => columns.push((name, vec![rule])),
        }
    }
    columns
}

fn matches(rule: &ThresholdConfig, value: &Value) -> bool {
    let figure = number(value);
    let below = rule.below.is_none_or(|limit| figure.is_some_and(|figure| figure < limit));
    let above = rule.above.is_none_or(|limit| figure.is_some_and(|figure| figure > limit));
    let equals = rule.equals.as_ref().is_none_or(|wanted| match value {
        Value::String(text) => text == wanted,
        other => {
            let text = other.to_string();
            text == *wanted || figure.is_some() && figure == wanted.parse().ok()
        }
    });
    below && above && equals
}

/// A line stands where its newest points stand, not where it once was.
fn last_of_each_series(config: &PanelConfig, rows: &Rows) -> Vec<usize> {
    let series = config.series.as_ref().and_then(|name| rows.place(name));
    let mut last: Vec<(Option<&Value>, usize)> = Vec::new();
    for (row, values) in rows.rows.iter().enumerate() {
        let name = series.map(|column| &values[column]);
        match last.iter_mut().find(|(known, _)| *known == name) {
            Some(entry) => entry.1 = row,
            None => last.push((name, row)),
        }
    }
    last.into_iter().map(|(_, row)| row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::Column;

    fn rule(below: Option<f64>, above: Option<f64>, colour: Colour) -> ThresholdConfig {
        ThresholdConfig { column: None, below, above, equals: None, colour }
    }

    fn rows(names: &[&str], list: Value) -> Rows {
        let columns = names.iter().map(|name| Column { name: (*name).into(), sql_type: "VARCHAR".into() }).collect();
        Rows { columns, rows: list.as_array().unwrap().iter().map(|row| row.as_array().unwrap().clone()).collect() }
    }

    fn occupancy() -> PanelConfig {
        PanelConfig {
            kind: PanelKind::Gauge,
            y: vec!["rate".into()],
            thresholds: vec![
                rule(Some(60.0), None, Colour::Red),
                rule(None, Some(90.0), Colour::Red),
                rule(Some(70.0), None, Colour::Orange),
                rule(None, Some(85.0), Colour::Orange),
            ],
            ..PanelConfig::default()
        }
    }

    #[test]
    fn the_first_rule_that_matches_decides_and_none_is_green() {
        for (value, colour) in [
            (json!(59.9), Some(Colour::Red)),
            (json!(60), Some(Colour::Orange)),
            (json!("70.0"), Some(Colour::Green)),
            (json!(85), Some(Colour::Green)),
            (json!(90), Some(Colour::Orange)),
            (json!(90.1), Some(Colour::Red)),
            (json!(null), None),
        ] {
            assert_eq!(verdict(&occupancy(), &rows(&["rate"], json!([[value]]))).status, colour, "{value}");
        }
        assert_eq!(verdict(&occupancy(), &rows(&["rate"], json!([]))).status, None);
    }

    #[test]
    fn a_line_is_judged_by_its_newest_points() {
        let line = PanelConfig { kind: PanelKind::Line, series: Some("s".into()), ..occupancy() };
        let points = json!([["a", 10], ["b", 75], ["a", 75]]);
        let told = verdict(&line, &rows(&["s", "rate"], points));
        assert_eq!((told.status, told.marks.len()), (Some(Colour::Green), 3));
    }

    #[test]
    fn a_column_may_say_the_colour_and_texts_may_be_matched() {
        let overdue = ThresholdConfig {
            column: Some("state".into()),
            equals: Some("overdue".into()),
            ..rule(None, None, Colour::Red)
        };
        let table = PanelConfig {
            kind: PanelKind::Table,
            thresholds: vec![overdue],
            status: Some("light".into()),
            ..PanelConfig::default()
        };
        let told = verdict(&table, &rows(&["state", "light"], json!([["overdue", "orange"], ["paid", "?"]])));
        assert_eq!(told.status, Some(Colour::Red));
        assert_eq!(told.marks, [(0, 1, Colour::Orange), (0, 0, Colour::Red), (1, 0, Colour::Green)]);
        assert_eq!(told.to_json(), r#"{"status":"red","marks":[[0,1,"orange"],[0,0,"red"],[1,0,"green"]]}"#);
    }
}
