//! Spreadsheets (XLSX): typed cells, a heading that stays in place, a filter on each column. Text is written as text: what
//! looks like a formula is none.

use std::collections::BTreeSet;

use chrono::{DateTime, NaiveDate};
use rust_xlsxwriter::{Color, ExcelDateTime, Format, FormatBorder, Workbook, Worksheet, XlsxError};
use serde_json::Value;

use crate::error::{Answer, Problem};
use crate::rows::{Column, Rows, number};

/// Most cells of one file; they are held in memory while it is written.
const CELLS_MAX: usize = 2_000_000;
/// Longest text that a cell may have, in units of UTF-16.
const TEXT_MAX: usize = 32_767;
/// Longest name of a sheet, in characters.
const NAME_MAX: usize = 31;
/// Largest whole number that a spreadsheet, which counts in doubles, keeps exact.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
/// Rows looked at to find how wide a column is.
const WIDTH_ROWS: usize = 200;

/// One table of a file.
pub struct Sheet {
    /// What it is called.
    pub title: String,
    /// What its columns are called; as many as there are columns.
    pub headings: Vec<String>,
    /// Its rows.
    pub rows: Rows,
}

impl Sheet {
    /// Rows under the names of their columns.
    pub fn of(title: &str, rows: Rows) -> Sheet {
        Sheet {
            title: title.to_owned(),
            headings: rows.columns.iter().map(|column| column.name.clone()).collect(),
            rows,
        }
    }
}

/// The bytes of a file with these sheets.
pub fn workbook(sheets: &[Sheet]) -> Answer<Vec<u8>> {
    let cells: usize = sheets.iter().map(|sheet| sheet.rows.rows.len() * sheet.headings.len()).sum();
    if cells > CELLS_MAX {
        return Err(Problem::bad_request(format!(
            "{cells} cells are too many for a spreadsheet, at most {CELLS_MAX}: narrow the query, or take format=csv"
        )));
    }
    write(sheets).map_err(|e| Problem::internal(format!("the spreadsheet cannot be written: {e}: take format=csv")))
}

fn write(sheets: &[Sheet]) -> Result<Vec<u8>, XlsxError> {
    let mut book = Workbook::new();
    let mut names = BTreeSet::new();
    let styles = Styles::new();
    for sheet in sheets {
        let page = book.add_worksheet();
        page.set_name(name_of(&sheet.title, &mut names))?;
        fill(page, sheet, &styles)?;
    }
    if sheets.is_empty() {
        book.add_worksheet().write_string(0, 0, "No panels")?;
    }
    book.save_to_buffer()
}

/// How cells look.
struct Styles {
    heading: Format,
    whole: Format,
    instant: Format,
    day: Format,
}

impl Styles {
    fn new() -> Styles {
        let heading = Format::new().set_bold().set_background_color(Color::RGB(0xE2_EFEC));
        Styles {
            heading: heading.set_border_bottom(FormatBorder::Thin),
            whole: Format::new().set_num_format("#,##0"),
            instant: Format::new().set_num_format("yyyy-mm-dd hh:mm:ss"),
            day: Format::new().set_num_format("yyyy-mm-dd"),
        }
    }
}

fn fill(page: &mut Worksheet, sheet: &Sheet, styles: &Styles) -> Result<(), XlsxError> {
    for (place, heading) in (0u16..).zip(&sheet.headings) {
        page.write_string_with_format(0, place, cut(heading), &styles.heading)?;
    }
    for (line, row) in (1u32..).zip(&sheet.rows.rows) {
        for ((place, column), value) in (0u16..).zip(&sheet.rows.columns).zip(row) {
            cell(page, (line, place), (column, value), styles)?;
        }
    }
    for (place, heading) in sheet.headings.iter().enumerate() {
        let lengths = sheet.rows.rows.iter().take(WIDTH_ROWS).map(|row| length(&row[place]));
        let widest = lengths.max().unwrap_or(0).max(heading.chars().count() + 3).clamp(8, 48);
        page.set_column_width(u16::try_from(place).unwrap_or(u16::MAX), widest as f64 + 1.0)?;
    }
    page.set_freeze_panes(1, 0)?;
    let last = u16::try_from(sheet.headings.len().saturating_sub(1)).unwrap_or(u16::MAX);
    let lines = u32::try_from(sheet.rows.rows.len()).unwrap_or(u32::MAX);
    if !sheet.headings.is_empty() {
        page.autofilter(0, 0, lines.max(1), last)?;
    }
    Ok(())
}

/// What a cell of a spreadsheet holds.
enum Typed {
    Empty,
    Flag(bool),
    Whole(f64),
    Real(f64),
    Decimal(f64),
    Instant(ExcelDateTime),
    Day(ExcelDateTime),
    Text(String),
}

impl Typed {
    fn of(kind: &str, value: &Value) -> Typed {
        match value {
            Value::Null => Typed::Empty,
            Value::Bool(flag) => Typed::Flag(*flag),
            Value::Number(_) => match number(value).filter(|figure| figure.abs() <= EXACT_MAX) {
                Some(figure) if is_whole(kind) => Typed::Whole(figure),
                Some(figure) => Typed::Real(figure),
                None => Typed::Text(value.to_string()),
            },
            Value::String(text) => {
                let typed = match kind {
                    "TIMESTAMP" => instant(text).map(Typed::Instant),
                    "DATE" => day(text).map(Typed::Day),
                    // A spreadsheet keeps fifteen digits.
                    _ if kind.starts_with("DECIMAL") && text.len() <= 16 => number(value).map(Typed::Decimal),
                    _ => None,
                };
                typed.unwrap_or_else(|| Typed::Text(cut(text)))
            }
            Value::Array(_) | Value::Object(_) => Typed::Text(cut(&value.to_string())),
        }
    }
}

fn cell(
    page: &mut Worksheet,
    (line, place): (u32, u16),
    (column, value): (&Column, &Value),
    styles: &Styles,
) -> Result<(), XlsxError> {
    let written = match Typed::of(&column.sql_type, value) {
        Typed::Empty => return Ok(()),
        Typed::Flag(flag) => page.write_boolean(line, place, flag),
        Typed::Whole(figure) => page.write_number_with_format(line, place, figure, &styles.whole),
        Typed::Real(figure) => page.write_number(line, place, figure),
        Typed::Decimal(figure) => page.write_number_with_format(line, place, figure, &decimal(&column.sql_type)),
        Typed::Instant(at) => page.write_with_format(line, place, &at, &styles.instant),
        Typed::Day(at) => page.write_with_format(line, place, &at, &styles.day),
        // Never as a formula, whatever it begins with.
        Typed::Text(text) => page.write_string(line, place, text),
    };
    written.map(|_| ())
}

fn is_whole(kind: &str) -> bool {
    ["TINYINT", "SMALLINT", "INTEGER", "BIGINT"].iter().any(|whole| kind.starts_with(whole))
}

/// As many digits behind the point as the type has.
fn decimal(kind: &str) -> Format {
    let scale = kind.trim_end_matches(')').rsplit(',').next().and_then(|scale| scale.trim().parse::<usize>().ok());
    let zeros = "0".repeat(scale.unwrap_or(2).min(15));
    Format::new().set_num_format(if zeros.is_empty() { "#,##0".to_owned() } else { format!("#,##0.{zeros}") })
}

/// An instant that a spreadsheet can hold; those before 1970 or after 9999 stay text.
fn instant(text: &str) -> Option<ExcelDateTime> {
    let ms = DateTime::parse_from_rfc3339(text).ok()?.timestamp_millis();
    serial(ms)
}

fn day(text: &str) -> Option<ExcelDateTime> {
    serial(NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_hms_opt(0, 0, 0)?.and_utc().timestamp_millis())
}

/// Days since the end of 1899, as spreadsheets count.
fn serial(ms: i64) -> Option<ExcelDateTime> {
    ExcelDateTime::from_serial_datetime(ms as f64 / 86_400_000.0 + 25_569.0).ok().filter(|_| ms >= 0)
}

/// As much of a text as a cell takes, counted in UTF-16 as spreadsheets do.
fn cut(text: &str) -> String {
    if text.len() <= TEXT_MAX || text.encode_utf16().count() <= TEXT_MAX {
        return text.to_owned();
    }
    let mut units = 0;
    let fits = |c: &char| {
        units += c.len_utf16();
        units < TEXT_MAX
    };
    text.chars().take_while(fits).chain(['…']).collect()
}

fn length(value: &Value) -> usize {
    match value {
        Value::String(text) => text.chars().count(),
        Value::Null => 0,
        other => other.to_string().len(),
    }
}

/// A name that a sheet may have and no other one has: spreadsheets tell them apart without regard to case.
fn name_of(title: &str, taken: &mut BTreeSet<String>) -> String {
    let allowed = |c: char| if "[]:*?/\\".contains(c) || c.is_control() { ' ' } else { c };
    let plain: String = title.chars().map(allowed).collect();
    let plain = plain.trim_matches(|c: char| c == '\'' || c.is_whitespace());
    let plain = if plain.is_empty() { "Sheet" } else { plain };
    let mut name: String = plain.chars().take(NAME_MAX).collect();
    let mut count = 1;
    while !taken.insert(name.to_lowercase()) {
        count += 1;
        let end = format!(" {count}");
        name = plain.chars().take(NAME_MAX - end.len()).chain(end.chars()).collect();
    }
    name.trim_end_matches('\'').to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_of_sheets_are_allowed_and_different() {
        let mut taken = BTreeSet::new();
        let long = "Revenue per freelancer and month of the year";
        assert_eq!(name_of("a/b: [c]?", &mut taken), "a b   c");
        assert_eq!(name_of("Plays", &mut taken), "Plays");
        assert_eq!(name_of("PLAYS", &mut taken), "PLAYS 2");
        assert_eq!(name_of("'' ", &mut taken), "Sheet");
        assert_eq!(name_of(long, &mut taken), "Revenue per freelancer and mont");
        assert_eq!(name_of(long, &mut taken), "Revenue per freelancer and mo 2");
    }

    #[test]
    fn a_file_is_written_whatever_the_cells_hold() {
        let columns = [("n", "BIGINT"), ("d", "DECIMAL(12,2)"), ("t", "TIMESTAMP"), ("day", "DATE"), ("s", "VARCHAR")];
        let columns = columns.map(|(name, kind)| Column { name: name.into(), sql_type: kind.into() }).to_vec();
        let rows = vec![
            vec![json!(1), json!("12.50"), json!("2026-11-20T12:00:00.5Z"), json!("2026-11-20"), json!("=1+1")],
            vec![
                json!(i64::MAX),
                json!("x"),
                json!("0001-01-01T00:00:00Z"),
                json!(null),
                json!("\u{1F3B5}".repeat(20_000)),
            ],
        ];
        let sheet = |title: &str| Sheet::of(title, Rows { columns: columns.clone(), rows: rows.clone() });
        let bytes = workbook(&[sheet("a"), sheet("A")]).unwrap();
        assert!(bytes.starts_with(b"PK") && bytes.len() > 1_000);
        assert!(workbook(&[]).unwrap().starts_with(b"PK"));
        let empty = Sheet::of("none", Rows::default());
        assert!(workbook(&[empty]).is_ok());
    }
}
