//! Rows as text columns.

use serde_json::Value;

/// Widest cell shown in full.
const CELL_MAX: usize = 80;

/// Draws rows below their headings; numbers to the right.
pub fn draw(headings: &[String], rows: &[Vec<Value>]) -> String {
    let cells: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(cell).collect()).collect();
    let width = |column: usize| {
        let widest = cells.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
        widest.unwrap_or(0).max(headings[column].chars().count())
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let right: Vec<bool> = (0..headings.len())
        .map(|column| rows.iter().all(|row| matches!(row.get(column), Some(Value::Number(_) | Value::Null) | None)))
        .collect();
    let mut out = String::new();
    line(&mut out, headings, &widths, &right);
    let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
    line(&mut out, &rule, &widths, &right);
    for row in &cells {
        line(&mut out, row, &widths, &right);
    }
    out
}

fn line(out: &mut String, cells: &[String], widths: &[usize], right: &[bool]) {
    let mut text = String::new();
    for (index, (cell, width)) in cells.iter().zip(widths).enumerate() {
        let pad = " ".repeat(width - cell.chars().count());
        let (before, after) = if right[index] { (pad.as_str(), "") } else { ("", pad.as_str()) };
        text.push_str(&format!("{before}{cell}{after}  "));
    }
    out.push_str(text.trim_end());
    out.push('\n');
}

fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => "null".to_owned(),
        Value::String(text) => text.replace(char::is_control, " "),
        other => other.to_string(),
    };
    if text.chars().count() <= CELL_MAX {
        return text;
    }
    text.chars().take(CELL_MAX - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_stand_to_the_right() {
        let headings = ["genre".to_owned(), "plays".to_owned()];
        let rows = [vec![json!("r&b"), json!(7)], vec![json!(null), json!(1200)]];
        assert_eq!(draw(&headings, &rows), "genre  plays\n-----  -----\nr&b        7\nnull    1200\n");
        assert_eq!(draw(&headings, &[]), "genre  plays\n-----  -----\n");
    }
}
