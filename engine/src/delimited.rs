//! Lines of CSV: one record is one line (RFC 4180), whose fields are a stream's columns in their order.
//!
//! A field in double quotes may hold anything, two quotes in it are one; a quote inside of any other field is as it stands.
//! What is null stands without quotes.

use std::borrow::Cow;

use serde_json::Value;

use crate::columns::{ColumnBuffer, Scalar};
use crate::config::StreamConfig;
use crate::fields::{Refusal, refusal, text_of};
use crate::misfit::parsed;
use crate::stream::Stream;

/// Notes what is wrong with the declaration of such a stream.
pub(crate) fn check(config: &StreamConfig, mistakes: &mut Vec<String>) {
    if let Some(column) = config.columns.iter().find(|column| column.from.is_some()) {
        mistakes.push(format!(
            "column '{}': a field of CSV has no name, leave FROM out: the columns stand in the order of the fields",
            column.name
        ));
    }
    let csv = &config.csv;
    if csv.null_text.contains([csv.delimiter, '"', '\n', '\r']) {
        mistakes.push(format!(
            "null_text = '{}' holds the delimiter, a quote or a line break: take another text",
            csv.null_text
        ));
    }
}

/// Reads a record into the columns. After a refusal columns may be longer than `row`: cut them back.
pub(crate) fn read(stream: &Stream, value: &[u8], columns: &mut [ColumnBuffer], row: usize) -> Result<(), Refusal> {
    let (text, csv) = (text_of(value)?, &stream.config().csv);
    let (mut count, mut wrong) = (0, None);
    for field in Fields::new(text, csv.delimiter) {
        let field = field.map_err(|reason| refusal("csv", format!("field {}: {reason}", count + 1)))?;
        if let Some(column) = columns.get_mut(count) {
            if !field.quoted && field.text == csv.null_text {
                column.push_null();
            } else if !column.push_text(&field.text) {
                // A field too few or too many moves those behind it: then their types say nothing.
                wrong = wrong.or_else(|| Some(stream.fields().wrong_type(count, &Scalar::Text(&field.text).shown())));
            }
        }
        count += 1;
    }
    if count != columns.len() {
        let reason = format!(
            "the record has {count} fields, the stream {} columns: is {:?} the delimiter?",
            columns.len(),
            csv.delimiter
        );
        return Err(refusal("csv", reason));
    }
    wrong.map_or(Ok(()), Err)?;
    stream.fields().check_nulls(columns, row)
}

/// A JSON object as a record.
///
/// # Errors
/// What is no column, or no object.
pub(crate) fn encode(config: &StreamConfig, json: &str) -> Result<Vec<u8>, String> {
    let Value::Object(mut map) = parsed(json)? else {
        return Err("the value is not an object: its fields are the columns".into());
    };
    let csv = &config.csv;
    let mut out = String::new();
    for (at, column) in config.columns.iter().enumerate() {
        if at > 0 {
            out.push(csv.delimiter);
        }
        let text = match map.remove(&column.name) {
            None | Some(Value::Null) => {
                out.push_str(&csv.null_text);
                continue;
            }
            Some(Value::String(text)) => text,
            Some(other) => other.to_string(),
        };
        if text == csv.null_text || text.contains([csv.delimiter, '"', '\n', '\r']) {
            out.push_str(&format!("\"{}\"", text.replace('"', "\"\"")));
        } else {
            out.push_str(&text);
        }
    }
    match map.keys().next() {
        Some(name) => Err(format!("field '{name}' is not a column of the stream: take it away")),
        None => Ok(out.into_bytes()),
    }
}

/// One field of a record.
#[derive(Debug, PartialEq)]
struct Field<'a> {
    text: Cow<'a, str>,
    quoted: bool,
}

/// The fields of a line, which ends with the text; a line break at its end is no part of it. After an error there are no
/// more.
struct Fields<'a> {
    /// What follows a delimiter, or the whole line; None at the end.
    rest: Option<&'a str>,
    delimiter: char,
}

impl<'a> Fields<'a> {
    fn new(text: &'a str, delimiter: char) -> Fields<'a> {
        let line = text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line));
        Fields { rest: Some(line), delimiter }
    }

    fn plain(&mut self, rest: &'a str) -> Result<Field<'a>, &'static str> {
        let (text, rest) = match rest.split_once(self.delimiter) {
            Some((text, rest)) => (text, Some(rest)),
            None => (rest, None),
        };
        if text.contains(['\n', '\r']) {
            return Err("a line break without quotes: one record is one line");
        }
        self.rest = rest;
        Ok(Field { text: Cow::Borrowed(text), quoted: false })
    }

    /// `rest` is what follows the opening quote.
    fn quoted(&mut self, rest: &'a str) -> Result<Field<'a>, &'static str> {
        let mut from = 0;
        let end = loop {
            let quote = rest[from..].find('"').ok_or("the closing quote is missing")? + from;
            if !rest[quote + 1..].starts_with('"') {
                break quote;
            }
            from = quote + 2;
        };
        let (inner, after) = (&rest[..end], &rest[end + 1..]);
        self.rest = match after.strip_prefix(self.delimiter) {
            Some(rest) => Some(rest),
            None if after.is_empty() => None,
            None => return Err("after the closing quote stands neither a delimiter nor the end"),
        };
        let text = if from == 0 { Cow::Borrowed(inner) } else { Cow::Owned(inner.replace("\"\"", "\"")) };
        Ok(Field { text, quoted: true })
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, &'static str>;

    fn next(&mut self) -> Option<Result<Field<'a>, &'static str>> {
        let rest = self.rest.take()?;
        Some(match rest.strip_prefix('"') {
            Some(inner) => self.quoted(inner),
            None => self.plain(rest),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str, delimiter: char) -> Result<Vec<(String, bool)>, &'static str> {
        Fields::new(text, delimiter).map(|field| field.map(|field| (field.text.into_owned(), field.quoted))).collect()
    }

    #[test]
    fn fields_come_out_as_they_stand() {
        let plain = |texts: &[&str]| Ok(texts.iter().map(|text| (text.to_string(), false)).collect::<Vec<_>>());
        assert_eq!(split("1,a b,,x\r\n", ','), plain(&["1", "a b", "", "x"]));
        assert_eq!(split("", ','), plain(&[""]));
        assert_eq!(split(",\n", ','), plain(&["", ""]));
        assert_eq!(split("5\" pipe|a,b| c ", '|'), plain(&["5\" pipe", "a,b", " c "]));
        assert_eq!(split("é→ü→", '→'), plain(&["é", "ü", ""]));
        let found = split("\"a,\"\"b\"\"\n\",\"\",\"\"\"\",", ',');
        let wanted = [("a,\"b\"\n", true), ("", true), ("\"", true), ("", false)];
        assert_eq!(found, Ok(wanted.map(|(text, quoted)| (text.to_owned(), quoted)).to_vec()));
        for (text, part) in [
            ("a,\"b", "closing quote is missing"),
            ("\"a\"b,c", "after the closing"),
            ("a\nb", "line break"),
            ("\"", "missing"),
        ] {
            assert!(split(text, ',').is_err_and(|error| error.contains(part)), "{text:?}");
        }
    }

    /// What the csv crate writes is read as it was, whatever the texts.
    #[test]
    fn what_another_writer_wrote_is_read() {
        let alphabet: Vec<char> = "a,;\"\n\r é\t".chars().collect();
        let mut random = 7u64;
        let mut next = |bound: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) as usize % bound
        };
        for round in 0..5_000 {
            let texts: Vec<String> =
                (0..1 + next(5)).map(|_| (0..next(6)).map(|_| alphabet[next(alphabet.len())]).collect()).collect();
            let delimiter = [',', ';', '\t'][round % 3];
            let mut writer = csv::WriterBuilder::new().delimiter(delimiter as u8).from_writer(Vec::new());
            writer.write_record(&texts).unwrap();
            let line = String::from_utf8(writer.into_inner().unwrap()).unwrap();
            let read: Vec<String> = split(&line, delimiter).unwrap().into_iter().map(|(text, _)| text).collect();
            assert_eq!(read, texts, "round {round}: {line:?}");
        }
    }
}
