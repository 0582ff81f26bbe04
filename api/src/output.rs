//! Rows as JSON, NDJSON, CSV and XLSX.
//!
//! How values are written, in every format and on every route:
//! - whole numbers: JSON numbers with all their digits. A reader that keeps numbers as doubles (JavaScript) must take
//!   those beyond 2^53 from the source text; `?format=csv` carries them as text.
//! - `DOUBLE` and `REAL`: the shortest digits that read back as the same value; `"NaN"`, `"Infinity"`, `"-Infinity"` as text.
//! - `DECIMAL`: text, so that no digit is lost.
//! - `TIMESTAMP`: RFC 3339 in UTC (`2026-11-20T12:00:00Z`); `DATE`: `2026-11-20`.
//! - `VARBINARY`: base64 text. Lists are arrays, structs are objects.
//!
//! CSV is RFC 4180: a null is an empty field, an empty text is `""`.

use std::io::Write;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::*;
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::IntoResponse;
use chrono::SecondsFormat;
use serde_json::{Map, Value, json};

use crate::base64::base64;
use crate::error::{Answer, Problem};
use crate::export;
use crate::rows::Rows;
use crate::sheet::{self, Sheet};

/// A format that rows can be written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object with `columns` and `rows`.
    Json,
    /// One JSON object per row and line.
    Ndjson,
    /// RFC 4180 with a line of column names.
    Csv,
    /// A spreadsheet.
    Xlsx,
    /// Arrow's IPC stream.
    Arrow,
}

/// The content type of a spreadsheet.
pub const XLSX: &str = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet";

/// The content type of Arrow's IPC stream, as IANA has it.
pub const ARROW: &str = "application/vnd.apache.arrow.stream";

impl Format {
    /// `format=` if given, else the first type in `Accept` that is served, else JSON.
    pub fn choose(parameter: Option<&str>, headers: &HeaderMap) -> Answer<Format> {
        if let Some(word) = parameter {
            return Format::of_word(word).ok_or_else(|| {
                Problem::not_acceptable(format!("format={word}: send json, ndjson, csv, xlsx or arrow"))
            });
        }
        let Some(accept) = headers.get(header::ACCEPT) else { return Ok(Format::Json) };
        let accept = accept.to_str().unwrap_or("*/*");
        for part in accept.split(',') {
            match part.split(';').next().unwrap_or("").trim().to_ascii_lowercase().as_str() {
                "" | "*/*" | "application/*" | "application/json" => return Ok(Format::Json),
                "application/x-ndjson" | "application/jsonl" | "application/ndjson" => return Ok(Format::Ndjson),
                "text/csv" | "text/*" => return Ok(Format::Csv),
                XLSX => return Ok(Format::Xlsx),
                ARROW => return Ok(Format::Arrow),
                _ => {}
            }
        }
        Err(Problem::not_acceptable(format!(
            "accept: {accept}: application/json, application/x-ndjson, text/csv, {ARROW} and {XLSX} are served"
        )))
    }

    /// The format of a word of a URL or of the configuration.
    pub fn of_word(word: &str) -> Option<Format> {
        let all = [Format::Json, Format::Ndjson, Format::Csv, Format::Xlsx, Format::Arrow];
        all.into_iter().find(|format| format.extension() == word)
    }

    /// The word in a URL, and what a file's name ends with.
    pub fn extension(self) -> &'static str {
        match self {
            Format::Json => "json",
            Format::Ndjson => "ndjson",
            Format::Csv => "csv",
            Format::Xlsx => "xlsx",
            Format::Arrow => "arrow",
        }
    }

    /// The content type of an answer.
    pub fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Format::Json => "application/json",
            Format::Ndjson => "application/x-ndjson",
            Format::Csv => "text/csv; charset=utf-8; header=present",
            Format::Xlsx => XLSX,
            Format::Arrow => ARROW,
        })
    }
}

/// Rows on their way out: `before` and `after` are the members around `columns` and `rows` in JSON; in the other
/// formats the members of `after` become `millpond-…` headers.
#[derive(Debug)]
pub struct Table {
    /// Members written first.
    pub before: Vec<(&'static str, Value)>,
    /// Names and types of the columns.
    pub schema: SchemaRef,
    /// The rows.
    pub rows: Vec<RecordBatch>,
    /// Members written last: offsets, watermark, …
    pub after: Vec<(&'static str, Value)>,
}

impl Table {
    /// The whole answer.
    pub fn respond(&self, format: Format) -> Answer {
        let body = match format {
            Format::Json => self.json()?,
            _ => export::bytes("Result", &self.schema, &self.rows, format)?,
        };
        let mut response = body.into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, format.content_type());
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if format != Format::Json {
            for (name, value) in &self.after {
                let name = format!("millpond-{}", name.replace('_', "-"));
                let Ok(name) = header::HeaderName::try_from(name) else { continue };
                if let Ok(value) = HeaderValue::from_str(&value.to_string()) {
                    headers.insert(name, value);
                }
            }
        }
        Ok(response)
    }

    /// The rows in a format; `title` names the sheet of a spreadsheet.
    pub fn bytes(&self, title: &str, format: Format) -> Answer<Vec<u8>> {
        match format {
            Format::Json => self.json(),
            Format::Ndjson => self.ndjson(),
            Format::Csv => self.csv(),
            Format::Xlsx => sheet::workbook(&[Sheet::of(title, Rows::of(&self.schema, &self.rows)?)]),
            Format::Arrow => self.arrow().map_err(|e| Problem::internal(format!("the rows cannot be written: {e}"))),
        }
    }

    fn arrow(&self) -> Result<Vec<u8>, ArrowError> {
        let mut writer = StreamWriter::try_new(Vec::new(), &self.schema)?;
        for rows in &self.rows {
            writer.write(rows)?;
        }
        writer.into_inner()
    }

    /// The answer as one JSON object.
    pub fn json(&self) -> Answer<Vec<u8>> {
        let mut out = vec![b'{'];
        for (name, value) in &self.before {
            write_json(&mut out, name);
            out.push(b':');
            write_json(&mut out, value);
            out.push(b',');
        }
        out.extend_from_slice(b"\"columns\":");
        write_json(&mut out, &columns(&self.schema));
        out.extend_from_slice(b",\"rows\":[");
        let mut first = true;
        for batch in &self.rows {
            let cells = cells(batch)?;
            for row in 0..batch.num_rows() {
                if !std::mem::take(&mut first) {
                    out.push(b',');
                }
                write_list(&mut out, cells.iter(), |out, cell| cell.json(row, out))?;
            }
        }
        out.push(b']');
        for (name, value) in &self.after {
            out.push(b',');
            write_json(&mut out, name);
            out.push(b':');
            write_json(&mut out, value);
        }
        out.push(b'}');
        Ok(out)
    }

    fn ndjson(&self) -> Answer<Vec<u8>> {
        let mut out = Vec::new();
        for batch in &self.rows {
            let cells = cells(batch)?;
            for row in 0..batch.num_rows() {
                for (i, cell) in cells.iter().enumerate() {
                    out.push(if i == 0 { b'{' } else { b',' });
                    write_json(&mut out, batch.schema_ref().field(i).name());
                    out.push(b':');
                    cell.json(row, &mut out)?;
                }
                if cells.is_empty() {
                    out.push(b'{');
                }
                out.extend_from_slice(b"}\n");
            }
        }
        Ok(out)
    }

    pub(crate) fn csv(&self) -> Answer<Vec<u8>> {
        let mut out = Vec::new();
        for (i, field) in self.schema.fields().iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            write_csv_text(&mut out, field.name());
        }
        out.extend_from_slice(b"\r\n");
        for batch in &self.rows {
            let cells = cells(batch)?;
            for row in 0..batch.num_rows() {
                for (i, cell) in cells.iter().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    cell.csv(row, &mut out)?;
                }
                out.extend_from_slice(b"\r\n");
            }
        }
        Ok(out)
    }
}

/// Rows as JSON objects, one per line.
pub fn lines(schema: &SchemaRef, rows: Vec<RecordBatch>) -> Answer<Vec<u8>> {
    Table { before: Vec::new(), schema: schema.clone(), rows, after: Vec::new() }.ndjson()
}

/// Rows as JSON objects, for what works on them one by one. A double may come out as its neighbour: serde_json reads
/// numbers quickly, not exactly.
pub fn objects(schema: &SchemaRef, rows: Vec<RecordBatch>) -> Answer<Vec<Map<String, Value>>> {
    let lines = lines(schema, rows)?;
    let read = serde_json::Deserializer::from_slice(&lines).into_iter().collect::<Result<_, _>>();
    read.map_err(|error| Problem::internal(format!("a row cannot be read back: {error}")))
}

/// `columns` of an answer: `[{"name","type"}]` with SQL's names of the types.
pub fn columns(schema: &Schema) -> Value {
    schema.fields().iter().map(|field| json!({"name": field.name(), "type": sql_type(field.data_type())})).collect()
}

/// SQL's name of an Arrow type.
pub fn sql_type(data_type: &DataType) -> String {
    match data_type {
        DataType::Null => "NULL".into(),
        DataType::Boolean => "BOOLEAN".into(),
        DataType::Int8 => "TINYINT".into(),
        DataType::Int16 => "SMALLINT".into(),
        DataType::Int32 => "INTEGER".into(),
        DataType::Int64 => "BIGINT".into(),
        DataType::UInt8 => "TINYINT UNSIGNED".into(),
        DataType::UInt16 => "SMALLINT UNSIGNED".into(),
        DataType::UInt32 => "INTEGER UNSIGNED".into(),
        DataType::UInt64 => "BIGINT UNSIGNED".into(),
        DataType::Float16 | DataType::Float32 => "REAL".into(),
        DataType::Float64 => "DOUBLE".into(),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "VARCHAR".into(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            "VARBINARY".into()
        }
        DataType::Date32 | DataType::Date64 => "DATE".into(),
        DataType::Time32(_) | DataType::Time64(_) => "TIME".into(),
        DataType::Timestamp(_, _) => "TIMESTAMP".into(),
        DataType::Decimal32(p, s)
        | DataType::Decimal64(p, s)
        | DataType::Decimal128(p, s)
        | DataType::Decimal256(p, s) => {
            format!("DECIMAL({p},{s})")
        }
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::FixedSizeList(item, _) => {
            format!("ARRAY<{}>", sql_type(item.data_type()))
        }
        DataType::Struct(fields) => {
            let inner: Vec<String> =
                fields.iter().map(|f| format!("{} {}", f.name(), sql_type(f.data_type()))).collect();
            format!("STRUCT<{}>", inner.join(", "))
        }
        DataType::Dictionary(_, value) => sql_type(value),
        other => other.to_string().to_ascii_uppercase(),
    }
}

/// Instants as every answer writes them; epoch milliseconds beyond the calendar are written as such.
pub fn time_text(ms: i64) -> String {
    match chrono::DateTime::from_timestamp_millis(ms) {
        Some(time) => time.to_rfc3339_opts(SecondsFormat::AutoSi, true),
        None => ms.to_string(),
    }
}

/// One column, ready to be written cell by cell.
pub(crate) struct Cells<'a> {
    array: ArrayRef,
    kind: Kind<'a>,
}

/// How the cells of a column are written.
enum Kind<'a> {
    Int(arrow::array::Int64Array),
    Unsigned(arrow::array::UInt64Array),
    Float(arrow::array::Float64Array),
    Float32(arrow::array::Float32Array),
    Bool,
    Text(arrow::array::StringArray),
    Time(arrow::array::TimestampMicrosecondArray),
    Bytes(arrow::array::BinaryArray),
    List,
    Struct(Vec<(String, Cells<'a>)>),
    Other(ArrayFormatter<'a>),
}

fn cells(batch: &RecordBatch) -> Answer<Vec<Cells<'_>>> {
    batch.columns().iter().map(Cells::of).collect()
}

impl<'a> Cells<'a> {
    pub(crate) fn of(array: &'a ArrayRef) -> Answer<Cells<'a>> {
        let cast = |to: &DataType| arrow::compute::cast(array, to).map_err(unwritable);
        let kind = match array.data_type() {
            DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => {
                Kind::Int(cast(&DataType::Int64)?.as_primitive::<Int64Type>().clone())
            }
            DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => {
                Kind::Unsigned(cast(&DataType::UInt64)?.as_primitive::<UInt64Type>().clone())
            }
            DataType::Float64 => Kind::Float(array.as_primitive::<Float64Type>().clone()),
            DataType::Float16 | DataType::Float32 => {
                Kind::Float32(cast(&DataType::Float32)?.as_primitive::<Float32Type>().clone())
            }
            DataType::Boolean => Kind::Bool,
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
                Kind::Text(cast(&DataType::Utf8)?.as_string::<i32>().clone())
            }
            DataType::Timestamp(_, zone) => {
                let micros = DataType::Timestamp(TimeUnit::Microsecond, zone.clone());
                Kind::Time(cast(&micros)?.as_primitive::<TimestampMicrosecondType>().clone())
            }
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
                Kind::Bytes(cast(&DataType::Binary)?.as_binary::<i32>().clone())
            }
            DataType::List(_) => Kind::List,
            DataType::Struct(fields) => {
                let columns = array.as_struct().columns();
                let inner: Answer<Vec<_>> =
                    fields.iter().zip(columns).map(|(f, c)| Ok((f.name().clone(), Cells::of(c)?))).collect();
                Kind::Struct(inner?)
            }
            _ => Kind::Other(ArrayFormatter::try_new(array.as_ref(), &FORMAT).map_err(unwritable)?),
        };
        Ok(Cells { array: array.clone(), kind })
    }

    pub(crate) fn json(&self, row: usize, out: &mut Vec<u8>) -> Answer<()> {
        if self.array.is_null(row) {
            out.extend_from_slice(b"null");
            return Ok(());
        }
        match &self.kind {
            Kind::Int(a) => write_json(out, &a.value(row)),
            Kind::Unsigned(a) => write_json(out, &a.value(row)),
            Kind::Float(a) if a.value(row).is_finite() => write_json(out, &a.value(row)),
            Kind::Float(a) => write_json(out, not_finite(a.value(row))),
            Kind::Float32(a) if a.value(row).is_finite() => write_json(out, &a.value(row)),
            Kind::Float32(a) => write_json(out, not_finite(a.value(row).into())),
            Kind::Bool => write_json(out, &self.array.as_boolean().value(row)),
            Kind::Text(a) => write_json(out, a.value(row)),
            Kind::Time(a) => write_json(out, &micros_text(a.value(row))),
            Kind::Bytes(a) => write_json(out, &base64(a.value(row))),
            Kind::List => {
                let items = self.array.as_list::<i32>().value(row);
                let cells = Cells::of(&items)?;
                write_list(out, 0..items.len(), |out, i| cells.json(i, out))?;
            }
            Kind::Struct(inner) => {
                out.push(b'{');
                for (i, (name, cells)) in inner.iter().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    write_json(out, name);
                    out.push(b':');
                    cells.json(row, out)?;
                }
                out.push(b'}');
            }
            Kind::Other(formatter) => write_json(out, &formatter.value(row).try_to_string().map_err(unwritable)?),
        }
        Ok(())
    }

    fn csv(&self, row: usize, out: &mut Vec<u8>) -> Answer<()> {
        if self.array.is_null(row) {
            return Ok(());
        }
        match &self.kind {
            Kind::Text(a) => write_csv_text(out, a.value(row)),
            Kind::Time(a) => write_csv_text(out, &micros_text(a.value(row))),
            Kind::Bytes(a) => write_csv_text(out, &base64(a.value(row))),
            Kind::Float(a) if !a.value(row).is_finite() => write_csv_text(out, not_finite(a.value(row))),
            Kind::Float32(a) if !a.value(row).is_finite() => write_csv_text(out, not_finite(a.value(row).into())),
            Kind::Other(formatter) => write_csv_text(out, &formatter.value(row).try_to_string().map_err(unwritable)?),
            Kind::List | Kind::Struct(_) => {
                let mut json = Vec::new();
                self.json(row, &mut json)?;
                write_csv_text(out, &String::from_utf8_lossy(&json));
            }
            Kind::Int(_) | Kind::Unsigned(_) | Kind::Float(_) | Kind::Float32(_) | Kind::Bool => self.json(row, out)?,
        }
        Ok(())
    }
}

const FORMAT: FormatOptions<'static> = FormatOptions::new().with_display_error(false);

fn unwritable(error: arrow::error::ArrowError) -> Problem {
    Problem::internal(format!("a value cannot be written: {error}: cast the column to a plain type in the query"))
}

fn not_finite(value: f64) -> &'static str {
    if value.is_nan() {
        "NaN"
    } else if value > 0.0 {
        "Infinity"
    } else {
        "-Infinity"
    }
}

fn micros_text(micros: i64) -> String {
    match chrono::DateTime::from_timestamp_micros(micros) {
        Some(time) => time.to_rfc3339_opts(SecondsFormat::AutoSi, true),
        None => format!("{micros} us since 1970"),
    }
}

fn write_json<T: serde::Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(out, value).expect("plain values are always JSON, and a Vec takes every byte");
}

fn write_list<T>(
    out: &mut Vec<u8>,
    items: impl Iterator<Item = T>,
    mut write: impl FnMut(&mut Vec<u8>, T) -> Answer<()>,
) -> Answer<()> {
    out.push(b'[');
    for (i, item) in items.enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write(out, item)?;
    }
    out.push(b']');
    Ok(())
}

/// A field of CSV, quoted where RFC 4180 wants it.
pub(crate) fn write_csv_text(out: &mut Vec<u8>, text: &str) {
    let plain =
        !text.is_empty() && !text.starts_with(' ') && !text.ends_with(' ') && !text.contains([',', '"', '\r', '\n']);
    if plain {
        out.extend_from_slice(text.as_bytes());
    } else {
        write!(out, "\"{}\"", text.replace('"', "\"\"")).expect("a Vec takes every byte");
    }
}

/// Offsets as every answer writes them: `{"<topic>":{"0":41}}`.
pub fn offsets_json<'a, P>(offsets: impl IntoIterator<Item = (&'a std::sync::Arc<str>, P)>) -> Value
where
    P: IntoIterator<Item = (&'a i32, &'a i64)>,
{
    let mut topics = Map::new();
    for (topic, partitions) in offsets {
        let partitions: Map<String, Value> = partitions.into_iter().map(|(p, o)| (p.to_string(), json!(o))).collect();
        topics.insert(topic.to_string(), Value::Object(partitions));
    }
    Value::Object(topics)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::*;

    use super::*;

    fn table(columns: Vec<(&str, ArrayRef)>) -> Table {
        let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, a)| (n, a, true))).unwrap();
        Table {
            before: vec![("view", json!("v"))],
            schema: batch.schema(),
            rows: vec![batch],
            after: vec![("stale", json!(false))],
        }
    }

    fn sample() -> Table {
        let mut list = ListBuilder::new(Int32Builder::new());
        list.append_value([Some(1), None]);
        list.append_null();
        table(vec![
            ("big", Arc::new(Int64Array::from(vec![Some(i64::MAX), None]))),
            ("ratio", Arc::new(Float64Array::from(vec![Some(0.1), Some(f64::NAN)]))),
            (
                "price",
                Arc::new(Decimal128Array::from(vec![Some(12_345_000), None]).with_precision_and_scale(20, 3).unwrap()),
            ),
            ("at", Arc::new(TimestampMillisecondArray::from(vec![Some(1_795_176_000_000), Some(1_795_176_000_001)]))),
            ("day", Arc::new(Date32Array::from(vec![Some(20_777), None]))),
            ("text", Arc::new(StringArray::from(vec![Some("a \"b\", c\nd"), Some("")]))),
            ("raw", Arc::new(BinaryArray::from(vec![Some(b"\xff\x00".as_slice()), None]))),
            ("list", Arc::new(list.finish())),
            ("yes", Arc::new(BooleanArray::from(vec![Some(true), None]))),
        ])
    }

    #[test]
    fn json_keeps_every_digit() {
        let json = String::from_utf8(sample().json().unwrap()).unwrap();
        assert_eq!(
            json,
            concat!(
                r#"{"view":"v","columns":[{"name":"big","type":"BIGINT"},{"name":"ratio","type":"DOUBLE"},"#,
                r#"{"name":"price","type":"DECIMAL(20,3)"},{"name":"at","type":"TIMESTAMP"},{"name":"day","type":"DATE"},"#,
                r#"{"name":"text","type":"VARCHAR"},{"name":"raw","type":"VARBINARY"},{"name":"list","type":"ARRAY<INTEGER>"},"#,
                r#"{"name":"yes","type":"BOOLEAN"}],"#,
                r#""rows":[[9223372036854775807,0.1,"12345.000","2026-11-20T12:00:00Z","2026-11-20","a \"b\", c\nd","/wA=",[1,null],true],"#,
                r#"[null,"NaN",null,"2026-11-20T12:00:00.001Z",null,"",null,null,null]],"stale":false}"#
            )
        );
    }

    #[test]
    fn csv_quotes_as_rfc_4180_says_and_tells_null_from_empty() {
        let csv = String::from_utf8(sample().csv().unwrap()).unwrap();
        assert_eq!(
            csv,
            "big,ratio,price,at,day,text,raw,list,yes\r\n\
             9223372036854775807,0.1,12345.000,2026-11-20T12:00:00Z,2026-11-20,\"a \"\"b\"\", c\nd\",/wA=,\"[1,null]\",true\r\n\
             ,NaN,,2026-11-20T12:00:00.001Z,,\"\",,,\r\n"
        );
    }

    #[test]
    fn ndjson_has_one_object_per_row() {
        let lines = String::from_utf8(sample().ndjson().unwrap()).unwrap();
        assert_eq!(lines.lines().count(), 2);
        assert!(lines.starts_with(r#"{"big":9223372036854775807,"ratio":0.1,"price":"12345.000""#), "{lines}");
    }

    #[test]
    fn the_parameter_wins_over_the_header() {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static("text/html, text/csv;q=0.9, */*;q=0.1"));
        assert_eq!(Format::choose(None, &headers).unwrap(), Format::Csv);
        assert_eq!(Format::choose(Some("ndjson"), &headers).unwrap(), Format::Ndjson);
        assert_eq!(Format::choose(Some("xlsx"), &headers).unwrap(), Format::Xlsx);
        assert_eq!(Format::choose(Some("xml"), &headers).unwrap_err().status(), 406);
        headers.insert(header::ACCEPT, HeaderValue::from_static("image/png"));
        assert_eq!(Format::choose(None, &headers).unwrap_err().status(), 406);
        assert_eq!(Format::choose(None, &HeaderMap::new()).unwrap(), Format::Json);
    }

    #[test]
    fn arrow_carries_the_rows_as_they_are() {
        let table = table(vec![
            ("n", Arc::new(Int64Array::from(vec![Some(1), None]))),
            ("t", Arc::new(StringArray::from(vec!["é", ""]))),
        ]);
        let bytes = table.bytes("Result", Format::Arrow).unwrap();
        let read: Vec<RecordBatch> =
            arrow::ipc::reader::StreamReader::try_new(bytes.as_slice(), None).unwrap().map(Result::unwrap).collect();
        assert_eq!(read, table.rows);
    }
}
