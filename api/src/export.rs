//! Panels and dashboards as files to keep: CSV, NDJSON and spreadsheets. Jobs and sinks write rows through [`bytes`].

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use crate::app::Dashboard;
use crate::config::PanelConfig;
use crate::error::{Answer, Problem};
use crate::output::{ARROW, Format, Table, XLSX, write_csv_text};
use crate::panels::PanelData;
use crate::rows::Rows;
use crate::sheet::{self, Sheet};

/// The content types of answers with rows.
pub const ROW_TYPES: &[&str] = &["application/json", "application/x-ndjson", "text/csv", XLSX, ARROW];
/// The same without Arrow's.
pub const FILE_TYPES: &[&str] = &["application/json", "application/x-ndjson", "text/csv", XLSX];

/// Rows in a format; `name` names the sheet of a spreadsheet.
///
/// # Errors
/// A type that cannot be written, or more cells than a spreadsheet takes.
pub fn bytes(name: &str, schema: &SchemaRef, rows: &[RecordBatch], format: Format) -> Answer<Vec<u8>> {
    let table = Table { before: Vec::new(), schema: schema.clone(), rows: rows.to_vec(), after: Vec::new() };
    table.bytes(name, format)
}

/// A JSON text as an answer that nobody keeps.
pub fn json_answer(json: String) -> Response {
    ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], json).into_response()
}

/// One panel as a file.
pub async fn panel(dashboard: &Dashboard, number: usize, data: &PanelData, format: Format) -> Answer {
    let config = dashboard.panels[number].config.clone();
    let name = format!("{}-{}", dashboard.config.name, slug(&config.title));
    let json = data.json.clone();
    let write = move || {
        let part = Part::of(&config, Ok(&json))?;
        match format {
            Format::Csv => Ok(part.csv()),
            Format::Ndjson => Ok(part.ndjson(false)),
            Format::Xlsx => sheet::workbook(&[part.sheet()]),
            Format::Json => Ok(json.into_bytes()),
            Format::Arrow => Err(no_arrow()),
        }
    };
    file(&name, format, write).await
}

/// All panels as one file: a sheet each, or one after the other under their titles.
pub async fn dashboard(dashboard: &Dashboard, data: &[Answer<PanelData>], format: Format) -> Answer {
    let mut parts = Vec::new();
    for (panel, data) in dashboard.panels.iter().zip(data) {
        parts.push(Part::of(&panel.config, data.as_ref().map(|data| data.json.as_str()))?);
    }
    let write = move || match format {
        Format::Xlsx => sheet::workbook(&parts.iter().map(Part::sheet).collect::<Vec<Sheet>>()),
        Format::Ndjson => Ok(parts.iter().flat_map(|part| part.ndjson(true)).collect()),
        Format::Arrow => Err(no_arrow()),
        Format::Csv | Format::Json => {
            Ok(parts.iter().map(Part::titled_csv).collect::<Vec<Vec<u8>>>().join(&b"\r\n"[..]))
        }
    };
    file(&dashboard.config.name, format, write).await
}

/// A panel's rows are texts and numbers to look at; typed columns come from SQL.
fn no_arrow() -> Problem {
    Problem::not_acceptable("panels are written as json, ndjson, csv and xlsx: ask POST /v1/sql for arrow".to_owned())
}

async fn file(name: &str, format: Format, write: impl FnOnce() -> Answer<Vec<u8>> + Send + 'static) -> Answer {
    let written = tokio::task::spawn_blocking(write).await.map_err(|e| Problem::internal(e.to_string()))?;
    let mut response = written?.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, format.content_type());
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let disposition = format!("attachment; filename=\"{name}.{}\"", format.extension());
    if let Ok(value) = HeaderValue::from_str(&disposition) {
        headers.insert(header::CONTENT_DISPOSITION, value);
    }
    Ok(response)
}

/// Letters and digits of a title, for the name of a file.
fn slug(title: &str) -> String {
    let mut out = String::new();
    for c in title.to_lowercase().chars() {
        if c.is_ascii_alphanumeric() {
            out.push(c);
        } else if !out.ends_with('-') && !out.is_empty() {
            out.push('-');
        }
    }
    out.trim_end_matches('-').chars().take(60).collect()
}

/// A panel's rows, or its problem, on the way to a file.
struct Part {
    title: String,
    labels: Vec<(String, String)>,
    rows: Rows,
    problem: Option<String>,
}

impl Part {
    fn of(config: &PanelConfig, json: Result<&str, &Problem>) -> Answer<Part> {
        let (rows, problem) = match json {
            Ok(json) => {
                let json = serde_json::from_str(json)
                    .map_err(|e| Problem::internal(format!("a panel cannot be read back: {e}")))?;
                (Rows::of_panel(&json), None)
            }
            Err(problem) => (Rows::default(), problem.to_json()["detail"].as_str().map(str::to_owned)),
        };
        Ok(Part { title: config.title.clone(), labels: config.labels.clone(), rows, problem })
    }

    fn sheet(&self) -> Sheet {
        let mut sheet = Sheet::of(&self.title, self.rows.clone());
        for heading in &mut sheet.headings {
            if let Some((_, label)) = self.labels.iter().find(|(name, _)| name == heading) {
                heading.clone_from(label);
            }
        }
        if let Some(problem) = &self.problem {
            sheet.headings.push(format!("no data: {problem}"));
        }
        sheet
    }

    fn csv(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut line = |cells: &mut dyn Iterator<Item = &Value>| {
            for (place, value) in cells.enumerate() {
                if place > 0 {
                    out.push(b',');
                }
                field(&mut out, value);
            }
            out.extend_from_slice(b"\r\n");
        };
        let names: Vec<Value> = self.rows.columns.iter().map(|column| json!(column.name)).collect();
        line(&mut names.iter());
        self.rows.rows.iter().for_each(|row| line(&mut row.iter()));
        out
    }

    fn titled_csv(&self) -> Vec<u8> {
        let mut out = Vec::new();
        write_csv_text(&mut out, &format!("# {}", self.title));
        out.extend_from_slice(b"\r\n");
        match &self.problem {
            Some(problem) => {
                write_csv_text(&mut out, &format!("# no data: {problem}"));
                out.extend_from_slice(b"\r\n");
            }
            None => out.extend(self.csv()),
        }
        out
    }

    fn ndjson(&self, titled: bool) -> Vec<u8> {
        let mut out = Vec::new();
        for row in &self.rows.rows {
            let mut object = Map::new();
            if titled {
                object.insert("panel".to_owned(), json!(self.title));
            }
            for (column, value) in self.rows.columns.iter().zip(row) {
                object.insert(column.name.clone(), value.clone());
            }
            out.extend_from_slice(Value::Object(object).to_string().as_bytes());
            out.push(b'\n');
        }
        out
    }
}

fn field(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => {}
        Value::String(text) => write_csv_text(out, text),
        Value::Bool(_) | Value::Number(_) => out.extend_from_slice(value.to_string().as_bytes()),
        Value::Array(_) | Value::Object(_) => write_csv_text(out, &value.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part() -> Part {
        let config = PanelConfig {
            title: "Top 10, \"best\"".into(),
            labels: vec![("name".into(), "Freelancer".into())],
            ..PanelConfig::default()
        };
        let json = r#"{"columns":[{"name":"name","type":"VARCHAR"},{"name":"sum","type":"DOUBLE"}],"rows":[["=a,b",1.5],[null,2]]}"#;
        Part::of(&config, Ok(json)).unwrap()
    }

    #[test]
    fn a_panel_is_written_in_each_format() {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        assert_eq!(text(part().csv()), "name,sum\r\n\"=a,b\",1.5\r\n,2\r\n");
        assert!(text(part().titled_csv()).starts_with("\"# Top 10, \"\"best\"\"\"\r\nname,sum\r\n"));
        assert_eq!(text(part().ndjson(false)), "{\"name\":\"=a,b\",\"sum\":1.5}\n{\"name\":null,\"sum\":2}\n");
        assert_eq!(part().sheet().headings, ["Freelancer", "sum"]);
        assert_eq!(slug("Top 10, \"best\" – naïve!"), "top-10-best-na-ve");
    }

    #[test]
    fn a_problem_stands_in_the_place_of_the_rows() {
        let part = Part::of(&PanelConfig::default(), Err(&Problem::busy("full: come back"))).unwrap();
        assert_eq!(part.sheet().headings, ["no data: full: come back"]);
        assert!(String::from_utf8(part.titled_csv()).unwrap().contains("# no data: full: come back"));
    }
}
