//! Rows as values with names and SQL types: what SQL panels draw, what colours look at, and what is exported.

use std::collections::HashMap;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use serde_json::{Value, json};

use crate::config::{PanelConfig, PanelKind};
use crate::error::{Answer, Problem};
use crate::output::{Cells, columns};

/// A column.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// SQL's name of its type.
    pub sql_type: String,
}

/// Rows of values, as answers write them.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// The columns.
    pub columns: Vec<Column>,
    /// The rows, each as long as the columns.
    pub rows: Vec<Vec<Value>>,
}

impl Rows {
    /// Rows of Arrow batches.
    pub fn of(schema: &Schema, batches: &[RecordBatch]) -> Answer<Rows> {
        let mut rows = Vec::with_capacity(batches.iter().map(RecordBatch::num_rows).sum());
        for batch in batches {
            let cells = batch.columns().iter().map(Cells::of).collect::<Answer<Vec<_>>>()?;
            for row in 0..batch.num_rows() {
                rows.push(cells.iter().map(|cell| value(cell, row)).collect::<Answer<Vec<Value>>>()?);
            }
        }
        Ok(Rows { columns: columns_of(&columns(schema)), rows })
    }

    /// The rows in the JSON object of a panel.
    pub fn of_panel(json: &Value) -> Rows {
        let rows = json["rows"].as_array().into_iter().flatten();
        let rows = rows.map(|row| row.as_array().cloned().unwrap_or_default()).collect();
        Rows { columns: columns_of(&json["columns"]), rows }
    }

    /// The place of a column.
    pub fn place(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    fn found(&self, name: &str) -> Answer<usize> {
        self.place(name).ok_or_else(|| {
            let known: Vec<&str> = self.columns.iter().map(|column| column.name.as_str()).collect();
            Problem::bad_request(format!(
                "the panel's SQL gives no column {name}: it gives [{}]: write AS {name}, or change the panel",
                known.join(", ")
            ))
        })
    }
}

fn value(cell: &Cells<'_>, row: usize) -> Answer<Value> {
    let mut json = Vec::new();
    cell.json(row, &mut json)?;
    serde_json::from_slice(&json).map_err(|e| Problem::internal(format!("a value cannot be read back: {e}")))
}

fn columns_of(columns: &Value) -> Vec<Column> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let columns = columns.as_array().into_iter().flatten();
    columns.map(|column| Column { name: text(&column["name"]), sql_type: text(&column["type"]) }).collect()
}

/// A value as a number, if it is one; decimals are texts of digits.
pub fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.parse().ok().filter(|number: &f64| number.is_finite()),
        _ => None,
    }
}

/// What is drawn of the rows of SQL.
pub struct Drawn {
    /// The rows that are drawn.
    pub rows: Rows,
    /// How many bars, slices or series there were before the largest were chosen.
    total: usize,
    /// What the slices that are not drawn add up to.
    rest: Vec<Value>,
    /// A number's course.
    course: Vec<(Value, Value)>,
}

impl Drawn {
    /// Chooses what is drawn; `whole` keeps everything.
    pub fn of(rows: Rows, config: &PanelConfig, whole: bool) -> Answer<Drawn> {
        let ruled = config.thresholds.iter().filter_map(|rule| rule.column.as_ref());
        let named = config.x.iter().chain(&config.series).chain(&config.status).chain(&config.compare).chain(ruled);
        let y = config.y.iter().map(|name| rows.found(name)).collect::<Answer<Vec<usize>>>()?;
        named.map(|name| rows.found(name)).collect::<Answer<Vec<usize>>>()?;
        let x = config.x.as_ref().and_then(|name| rows.place(name));
        let series = config.series.as_ref().and_then(|name| rows.place(name));
        let total = rows.rows.len();
        let drawn = Drawn { rows, total, rest: Vec::new(), course: Vec::new() };
        Ok(match (config.kind, config.top, x, y.first()) {
            (PanelKind::Number, _, Some(x), Some(y)) if !whole => drawn.course(x, *y),
            (PanelKind::Table, Some(top), ..) if !whole => drawn.first(top),
            (PanelKind::Line | PanelKind::Bar, Some(top), _, Some(y)) if !whole && series.is_some() => {
                drawn.largest_series(series.unwrap_or_default(), *y, top)
            }
            (PanelKind::Bar | PanelKind::Pie, Some(top), Some(x), Some(y)) if !whole && !drawn.is_time(x) => {
                drawn.largest(*y, top, config.kind == PanelKind::Pie)
            }
            _ => drawn,
        })
    }

    fn is_time(&self, column: usize) -> bool {
        matches!(self.rows.columns[column].sql_type.as_str(), "TIMESTAMP" | "DATE")
    }

    /// The last row is the figure, all of them its course.
    fn course(mut self, x: usize, y: usize) -> Drawn {
        self.course = self.rows.rows.iter().map(|row| (row[x].clone(), row[y].clone())).collect();
        self.rows.rows = self.rows.rows.pop().into_iter().collect();
        self
    }

    fn first(mut self, top: usize) -> Drawn {
        self.rows.rows.truncate(top);
        self
    }

    fn largest(mut self, y: usize, top: usize, with_rest: bool) -> Drawn {
        let size = |row: &Vec<Value>| number(&row[y]).unwrap_or(0.0);
        self.rows.rows.sort_by(|a, b| size(b).total_cmp(&size(a)));
        let others = self.rows.rows.split_off(top.min(self.total));
        if with_rest && !others.is_empty() {
            self.rest = vec![json!(others.iter().map(size).sum::<f64>())];
        }
        self
    }

    fn largest_series(mut self, series: usize, y: usize, top: usize) -> Drawn {
        let mut sums: HashMap<String, f64> = HashMap::new();
        for row in &self.rows.rows {
            *sums.entry(row[series].to_string()).or_default() += number(&row[y]).unwrap_or(0.0);
        }
        let mut names: Vec<(String, f64)> = sums.into_iter().collect();
        names.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        self.total = names.len();
        names.truncate(top);
        self.rows.rows.retain(|row| {
            let text = row[series].to_string();
            names.iter().any(|(name, _)| *name == text)
        });
        self
    }

    /// The members of the panel's JSON that are drawn.
    pub fn body(&self, config: &PanelConfig) -> String {
        let columns: Value =
            self.rows.columns.iter().map(|column| json!({"name": column.name, "type": column.sql_type})).collect();
        let body = json!({
            "x": config.x,
            "series": config.series,
            "y": config.y,
            "additive": [],
            "columns": columns,
            "rows": self.rows.rows,
            "groups_total": self.total,
            "rest": self.rest,
            "course": self.course,
        });
        let body = body.to_string();
        body[1..body.len() - 1].to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(list: Value) -> Rows {
        let columns = [("month", "TIMESTAMP"), ("skill", "VARCHAR"), ("revenue", "DECIMAL(12,2)")];
        let columns = columns.map(|(name, kind)| Column { name: name.into(), sql_type: kind.into() }).to_vec();
        Rows { columns, rows: list.as_array().unwrap().iter().map(|row| row.as_array().unwrap().clone()).collect() }
    }

    fn sample() -> Rows {
        rows(json!([
            ["2026-01-01", "Rust", "10.50"],
            ["2026-01-01", "Python", "30"],
            ["2026-02-01", "Rust", "40"],
            ["2026-02-01", "Go", "1"]
        ]))
    }

    fn config(kind: PanelKind) -> PanelConfig {
        PanelConfig { kind, x: Some("skill".into()), y: vec!["revenue".into()], ..PanelConfig::default() }
    }

    fn body(config: &PanelConfig, whole: bool) -> Value {
        let drawn = Drawn::of(sample(), config, whole).unwrap();
        serde_json::from_str(&format!("{{{}}}", drawn.body(config))).unwrap()
    }

    #[test]
    fn a_number_with_an_axis_is_the_last_row_and_its_course() {
        let data = body(&PanelConfig { x: Some("month".into()), ..config(PanelKind::Number) }, false);
        assert_eq!(data["rows"], json!([["2026-02-01", "Go", "1"]]));
        assert_eq!(data["course"].as_array().unwrap().len(), 4);
    }

    #[test]
    fn the_largest_slices_are_drawn_and_the_rest_is_told() {
        let pie = PanelConfig { top: Some(2), ..config(PanelKind::Pie) };
        let data = body(&pie, false);
        assert_eq!(data["rows"], json!([["2026-02-01", "Rust", "40"], ["2026-01-01", "Python", "30"]]));
        assert_eq!((&data["rest"], &data["groups_total"]), (&json!([11.5]), &json!(4)));
        assert_eq!(body(&pie, true)["rows"].as_array().unwrap().len(), 4);
    }

    #[test]
    fn the_largest_series_are_drawn_in_the_order_of_the_rows() {
        let line = PanelConfig {
            x: Some("month".into()),
            series: Some("skill".into()),
            top: Some(1),
            ..config(PanelKind::Line)
        };
        let data = body(&line, false);
        assert_eq!(data["rows"], json!([["2026-01-01", "Rust", "10.50"], ["2026-02-01", "Rust", "40"]]));
        assert_eq!(data["groups_total"], 3);
    }

    #[test]
    fn a_column_that_is_not_there_is_named() {
        let wrong = PanelConfig { y: vec!["revenu".into()], ..config(PanelKind::Bar) };
        let detail = Drawn::of(sample(), &wrong, false).err().unwrap().to_json()["detail"].to_string();
        assert!(detail.contains("no column revenu") && detail.contains("[month, skill, revenue]"), "{detail}");
    }
}
