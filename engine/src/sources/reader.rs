//! Reads a file row by row in bounded memory, and knows at each row where the next one begins.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use super::config::{Encoding, FileFormat};
use super::piece::{self, Step};
use super::{fields, stored::FileRecord};

/// Bytes read at once.
const CHUNK_BYTES: usize = 256 << 10;
/// Most bytes of a refused row that are kept.
pub(crate) const RAW_BYTES_MAX: usize = 64 << 10;

/// A row as it stands in its file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RawRow {
    /// The line it begins at, counted from 1.
    pub(crate) line: u64,
    /// Its bytes, without the line end.
    pub(crate) raw: Vec<u8>,
    /// What it holds, or the rule it breaks and the reason.
    pub(crate) content: Result<Content, (&'static str, String)>,
}

/// What a row holds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Content {
    /// The fields of CSV.
    Fields(Vec<String>),
    /// The text of a JSON object.
    Object(String),
}

/// A file being read. Holds: a window of its bytes. Always true: `offset` and `lines` speak of the first row that
/// `next` has not given, so that reading can go on from there another time.
pub(crate) struct Reader {
    file: File,
    format: FileFormat,
    row_bytes_max: usize,
    /// How far the file is read: what is appended meanwhile belongs to a later run.
    end: u64,
    /// Bytes of the file up to the end of the window.
    read: u64,
    window: Vec<u8>,
    at: usize,
    offset: u64,
    lines: u64,
}

impl Reader {
    /// A reader that goes on where `record` ends.
    pub(crate) fn new(
        mut file: File,
        format: &FileFormat,
        row_bytes_max: usize,
        record: &FileRecord,
    ) -> io::Result<Reader> {
        file.seek(SeekFrom::Start(record.offset))?;
        let mut reader = Reader {
            file,
            format: format.clone(),
            row_bytes_max,
            end: record.bytes,
            read: record.offset,
            window: Vec::new(),
            at: 0,
            offset: record.offset,
            lines: record.lines,
        };
        if record.offset == 0 {
            reader.skip_mark()?;
        }
        Ok(reader)
    }

    /// Where the next row begins, in bytes.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Lines before the next row.
    pub(crate) fn lines(&self) -> u64 {
        self.lines
    }

    /// Whether the bytes before the next row are no line end.
    pub(crate) fn is_line_open(&self) -> bool {
        let before = self.at.checked_sub(1).and_then(|at| self.window.get(at));
        self.offset == self.end && before.is_some_and(|byte| *byte != b'\n')
    }

    /// A byte order mark belongs to no field.
    fn skip_mark(&mut self) -> io::Result<()> {
        while self.window.len() < 3 && self.fill()? {}
        if self.window.starts_with(b"\xef\xbb\xbf") {
            self.consume(3);
        }
        Ok(())
    }

    /// The rest of a line of which the beginning was loaded as a row, before the file grew; None when that was all of it.
    pub(crate) fn rest_of_line(&mut self) -> io::Result<Option<RawRow>> {
        loop {
            match piece::line(&self.window[self.at..], self.read == self.end) {
                Some((bytes, 0)) => {
                    self.consume(bytes);
                    return Ok(None);
                }
                Some((bytes, end)) => {
                    let reason = "the file grew in the middle of a row, whose beginning was loaded before as a row";
                    return Ok(Some(self.refuse(bytes, end, ("continued", reason.to_owned()))));
                }
                None if self.window.len() > self.row_bytes_max => return self.too_long().map(Some),
                None => drop(self.fill()?),
            }
        }
    }

    /// The next row; None at the end.
    pub(crate) fn next(&mut self) -> io::Result<Option<RawRow>> {
        loop {
            let window = &self.window[self.at..];
            let eof = self.read == self.end;
            let step = match &self.format {
                FileFormat::Csv(format) => fields::csv_row(window, eof, format),
                FileFormat::Json => piece::json_object(window, eof),
                FileFormat::Ndjson => piece::json_line(window, eof),
            };
            match step {
                Step::End => return Ok(None),
                Step::Blank(bytes) => self.consume(bytes),
                Step::More if window.len() > self.row_bytes_max => return self.too_long().map(Some),
                Step::More => {
                    self.fill()?;
                }
                Step::Row { bytes, raw, .. } if raw.len() > self.row_bytes_max => {
                    let reason = format!("the row has {} bytes, at most {} are taken", raw.len(), self.row_bytes_max);
                    return Ok(Some(self.refuse(bytes, raw.end, ("too_long", reason))));
                }
                Step::Row { bytes, raw, fields } => return Ok(Some(self.row(bytes, raw.end, fields))),
                Step::Bad { bytes, raw, rule, reason } => {
                    return Ok(Some(self.refuse(bytes, raw.end, (rule, reason))));
                }
            }
        }
    }

    fn row(&mut self, bytes: usize, end: usize, parsed: Vec<Vec<u8>>) -> RawRow {
        let raw = self.window[self.at..self.at + end].to_vec();
        let not_text = |encoding: &str| ("encoding", format!("the row is not text in {encoding}"));
        let content = match &self.format {
            FileFormat::Csv(format) => {
                let encoding = format.encoding;
                let name = if encoding == Encoding::Utf8 { "UTF-8" } else { "Windows-1252" };
                let texts: Option<Vec<String>> =
                    parsed.into_iter().map(|field| fields::text(field, encoding)).collect();
                texts.map(Content::Fields).ok_or_else(|| not_text(name))
            }
            FileFormat::Json | FileFormat::Ndjson => {
                String::from_utf8(raw.clone()).map(Content::Object).map_err(|_| not_text("UTF-8"))
            }
        };
        let line = self.lines + 1;
        self.consume(bytes);
        RawRow { line, raw, content }
    }

    fn refuse(&mut self, bytes: usize, end: usize, because: (&'static str, String)) -> RawRow {
        let raw = self.window[self.at..self.at + end.min(RAW_BYTES_MAX)].to_vec();
        let line = self.lines + 1;
        self.consume(bytes);
        RawRow { line, raw, content: Err(because) }
    }

    /// A row that does not end within the bound. Of CSV and lines its first line is refused, of JSON all that is left.
    fn too_long(&mut self) -> io::Result<RawRow> {
        let limit = self.row_bytes_max;
        if matches!(self.format, FileFormat::Csv(_))
            && let Some((bytes, end)) = piece::line(&self.window[self.at..], false)
        {
            let reason = format!("a quoted field does not end within {limit} bytes");
            return Ok(self.refuse(bytes, end, ("quotes", reason)));
        }
        let whole = matches!(self.format, FileFormat::Json);
        let what = if whole { "object, and with it the rest of the file," } else { "row" };
        let reason = format!("the {what} is longer than {limit} bytes, of which {RAW_BYTES_MAX} are kept here");
        let length = self.window.len() - self.at;
        let row = self.refuse(length, length, ("too_long", reason));
        while self.fill()? {
            let end = if whole { None } else { piece::line(&self.window[self.at..], false) };
            let bytes = end.map_or(self.window.len() - self.at, |(bytes, _)| bytes);
            self.consume(bytes);
            if end.is_some() {
                break;
            }
        }
        Ok(row)
    }

    fn consume(&mut self, bytes: usize) {
        let gone = &self.window[self.at..self.at + bytes];
        self.lines += gone.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.at += bytes;
        self.offset += bytes as u64;
    }

    /// Reads on; false at the end.
    fn fill(&mut self) -> io::Result<bool> {
        if self.read == self.end {
            return Ok(false);
        }
        // One byte stays, which says whether the last line was closed.
        let gone = self.at.saturating_sub(1);
        self.window.drain(..gone);
        self.at -= gone;
        let want = usize::try_from(self.end - self.read).unwrap_or(usize::MAX).min(CHUNK_BYTES);
        let from = self.window.len();
        self.window.resize(from + want, 0);
        let got = self.file.read(&mut self.window[from..]);
        self.window.truncate(from + got.as_ref().map_or(0, |bytes| *bytes));
        match got? {
            0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file has become shorter while it was read")),
            bytes => {
                self.read += bytes as u64;
                Ok(true)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::config::CsvFormat;
    use super::*;

    fn reader(bytes: &[u8], format: FileFormat, row_bytes_max: usize) -> Reader {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        let record = FileRecord { bytes: bytes.len() as u64, ..FileRecord::default() };
        Reader::new(file, &format, row_bytes_max, &record).unwrap()
    }

    fn all(reader: &mut Reader) -> Vec<(u64, String)> {
        let mut found = Vec::new();
        while let Some(row) = reader.next().unwrap() {
            let text = match row.content {
                Ok(Content::Fields(fields)) => fields.join("|"),
                Ok(Content::Object(text)) => text,
                Err((rule, _)) => format!("{rule}: {}", String::from_utf8_lossy(&row.raw)),
            };
            found.push((row.line, text));
        }
        found
    }

    #[test]
    fn lines_are_counted_and_a_byte_order_mark_is_no_text() {
        let csv = || FileFormat::Csv(CsvFormat::default());
        let text = "\u{feff}a,b\r\n\r\n\"1\n2\",é\n\"x\"y,1\nlast,row";
        let mut reader = self::reader(text.as_bytes(), csv(), 1000);
        let found = all(&mut reader);
        let expected = [(1, "a|b"), (3, "1\n2|é"), (5, "quotes: \"x\"y,1"), (6, "last|row")];
        assert_eq!(found, expected.map(|(line, text)| (line, text.to_owned())));
        assert!(reader.is_line_open());
        assert_eq!((reader.offset(), reader.lines()), (text.len() as u64, 5));
        assert_eq!(all(&mut self::reader(b"a\n\xe9,1\n", csv(), 100))[1], (2, "encoding: \u{fffd},1".to_owned()));
    }

    #[test]
    fn reading_goes_on_from_any_row() {
        let text: String = (0..5_000).map(|n| format!("{n},\"some, text\nof {n}\"\n")).collect();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let format = FileFormat::Csv(CsvFormat::default());
        let mut record = FileRecord { bytes: text.len() as u64, ..FileRecord::default() };
        let mut whole = Reader::new(file.reopen().unwrap(), &format, 1000, &record).unwrap();
        let mut rows = Vec::new();
        while let Some(row) = whole.next().unwrap() {
            rows.push((row, whole.offset(), whole.lines()));
        }
        assert_eq!(rows.len(), 5_000);
        for at in [0, 1, 77, 4_000, 4_998] {
            (record.offset, record.lines) = (rows[at].1, rows[at].2);
            let mut rest = Reader::new(file.reopen().unwrap(), &format, 1000, &record).unwrap();
            assert_eq!(rest.next().unwrap().unwrap(), rows[at + 1].0);
        }
    }

    #[test]
    fn rows_without_end_take_bounded_memory() {
        let long = "x".repeat(3 << 20);
        let text = format!("a\n{long}\nb\n\"{long}\nc\n");
        let mut reader = self::reader(text.as_bytes(), FileFormat::Csv(CsvFormat::default()), 1000);
        let found = all(&mut reader);
        let kinds: Vec<_> = found.iter().map(|(line, text)| (*line, &text[..text.len().min(9)])).collect();
        assert_eq!(kinds, [(1, "a"), (2, "too_long:"), (3, "b"), (4, "too_long:"), (5, "c")]);
        assert!(found[1].1.len() < RAW_BYTES_MAX + 20 && reader.window.capacity() < (2 << 20));
        let json = format!("[{{\"a\": 1}}, {{\"b\": \"{long}\"}}, {{\"c\": 1}}]");
        let found = all(&mut self::reader(json.as_bytes(), FileFormat::Json, 1000));
        assert_eq!((found.len(), found[0].1.as_str()), (2, "{\"a\": 1}"));
        let lines = format!("{{\"a\": 1}}\n{long}\n{{\"b\": 1}}");
        assert_eq!(all(&mut self::reader(lines.as_bytes(), FileFormat::Ndjson, 1000)).len(), 3);
    }

    #[test]
    fn a_file_that_shrinks_is_told() {
        let mut reader = self::reader(b"a\nb\n", FileFormat::Ndjson, 100);
        reader.end = 10;
        assert!(reader.next().unwrap().is_some() && reader.next().unwrap().is_some());
        assert_eq!(reader.next().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
