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

/// Draws these members of objects, a row an object; a list of words is one cell.
pub fn draw_members<'a>(names: &[&str], objects: impl IntoIterator<Item = &'a Value>) -> String {
    let member = |value: &Value| match value {
        Value::Array(items) => {
            let items: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
            Value::from(items.join(", "))
        }
        other => other.clone(),
    };
    let row = |object: &Value| names.iter().map(|name| member(&object[*name])).collect();
    let rows: Vec<Vec<Value>> = objects.into_iter().map(row).collect();
    draw(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>(), &rows)
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
        Value::Number(number) if number.is_f64() => rounded(number.as_f64().unwrap_or_default()),
        other => other.to_string(),
    };
    if text.chars().count() <= CELL_MAX {
        return text;
    }
    text.chars().take(CELL_MAX - 1).chain(['…']).collect()
}

/// Enough digits to read: six significant ones, and no fraction that is all zeros.
fn rounded(number: f64) -> String {
    let magnitude = number.abs();
    if magnitude != 0.0 && !(1e-4..1e15).contains(&magnitude) {
        return format!("{number:.5e}");
    }
    let decimals = [1e5, 1e4, 1e3, 1e2, 1e1].iter().filter(|limit| magnitude < **limit).count();
    let text = format!("{number:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
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

    #[test]
    fn floats_are_rounded_to_be_read() {
        let cases = [
            (0.1 + 0.2, "0.3"),
            (299.000_000_01, "299"),
            (1_234.567_89, "1234.57"),
            (1_234_567.8, "1234568"),
            (-0.000_123_456_7, "-0.00012"),
            (0.0, "0"),
            (2.5e-9, "2.50000e-9"),
            (1e20, "1.00000e20"),
        ];
        for (number, text) in cases {
            assert_eq!(rounded(number), text, "{number}");
        }
    }
}
