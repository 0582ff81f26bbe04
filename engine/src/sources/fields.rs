//! CSV as RFC 4180 has it: fields in quotes may hold delimiters, doubled quotes and line ends. A row whose quotes do not
//! close is refused by its first line alone, so that one stray quote never swallows the rows below it.

use super::config::{CsvFormat, Encoding};
use super::piece::{Step, line};

#[derive(Clone, Copy, PartialEq)]
enum State {
    Start,
    Plain,
    Quoted,
    /// After a quote within a quoted field: its end, or the first half of a doubled one.
    Closed,
}

/// The row at the beginning of the window.
pub(crate) fn csv_row(window: &[u8], eof: bool, format: &CsvFormat) -> Step {
    match line(window, eof) {
        _ if window.is_empty() && eof => return Step::End,
        Some((bytes, 0)) => return Step::Blank(bytes),
        _ => {}
    }
    let mut row = Row { fields: Vec::new(), field: Vec::new(), state: State::Start, quoted: false };
    let mut at = 0;
    while at < window.len() {
        let byte = window[at];
        let outside = row.state != State::Quoted;
        if outside && byte == b'\n' {
            return row.end(at + 1, at, format);
        }
        if outside && byte == b'\r' {
            match window.get(at + 1) {
                Some(b'\n') => return row.end(at + 2, at, format),
                None if !eof => return Step::More,
                None => return row.end(at + 1, at, format),
                Some(_) => {}
            }
        }
        if outside && byte == format.delimiter {
            row.close_field(format);
        } else if !row.take(byte, format) {
            return bad_line(window, eof, "a quoted field is followed by more text");
        }
        at += 1;
    }
    match row.state {
        _ if !eof => Step::More,
        State::Quoted => bad_line(window, eof, "a quoted field has no end"),
        _ => row.end(at, at, format),
    }
}

struct Row {
    fields: Vec<Vec<u8>>,
    field: Vec<u8>,
    state: State,
    quoted: bool,
}

impl Row {
    /// Takes a byte that is no delimiter and no line end; false when it cannot stand here.
    fn take(&mut self, byte: u8, format: &CsvFormat) -> bool {
        let space = format.trim && matches!(byte, b' ' | b'\t');
        match (self.state, byte) {
            (State::Start, _) if space => {}
            (State::Start, b'"') => {
                self.state = State::Quoted;
                self.quoted = true;
            }
            (State::Quoted, b'"') => self.state = State::Closed,
            (State::Closed, b'"') => {
                self.field.push(b'"');
                self.state = State::Quoted;
            }
            (State::Closed, _) if space => {}
            (State::Closed, _) => return false,
            (State::Quoted, _) => self.field.push(byte),
            (State::Start | State::Plain, _) => {
                self.field.push(byte);
                self.state = State::Plain;
            }
        }
        true
    }

    fn close_field(&mut self, format: &CsvFormat) {
        if format.trim && !self.quoted {
            while matches!(self.field.last(), Some(b' ' | b'\t')) {
                self.field.pop();
            }
        }
        self.fields.push(std::mem::take(&mut self.field));
        self.state = State::Start;
        self.quoted = false;
    }

    fn end(mut self, bytes: usize, raw: usize, format: &CsvFormat) -> Step {
        self.close_field(format);
        Step::Row { bytes, raw: 0..raw, fields: self.fields }
    }
}

/// Refuses the first line of the window.
pub(crate) fn bad_line(window: &[u8], eof: bool, reason: &str) -> Step {
    match line(window, eof) {
        None => Step::More,
        Some((bytes, end)) => Step::Bad { bytes, raw: 0..end, rule: "quotes", reason: reason.to_owned() },
    }
}

/// A field's letters; None when they are not written in this way.
pub(crate) fn text(field: Vec<u8>, encoding: Encoding) -> Option<String> {
    match encoding {
        Encoding::Utf8 => String::from_utf8(field).ok(),
        Encoding::Windows1252 => field.into_iter().map(letter).collect(),
    }
}

/// A byte of Windows-1252; five bytes mean nothing in it.
fn letter(byte: u8) -> Option<char> {
    const HIGH: [char; 32] = [
        '€', '\0', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\0', 'Ž', '\0', '\0', '‘', '’', '“', '”',
        '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\0', 'ž', 'Ÿ',
    ];
    match byte {
        0x80..=0x9f => Some(HIGH[usize::from(byte - 0x80)]).filter(|letter| *letter != '\0'),
        _ => Some(char::from(byte)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str, format: &CsvFormat) -> Vec<Vec<String>> {
        let (mut at, mut found) = (0, Vec::new());
        loop {
            let window = &text.as_bytes()[at..];
            match csv_row(window, true, format) {
                Step::End => return found,
                Step::Blank(bytes) => at += bytes,
                Step::Row { bytes, fields, .. } => {
                    found.push(fields.into_iter().map(|field| String::from_utf8(field).unwrap()).collect());
                    at += bytes;
                }
                Step::Bad { bytes, raw, rule, .. } => {
                    found.push(vec![format!("{rule}: {}", &text[at + raw.start..at + raw.end])]);
                    at += bytes;
                }
                Step::More => panic!("more of a whole file is asked for"),
            }
        }
    }

    #[test]
    fn quotes_commas_line_ends_and_empty_fields() {
        let plain = CsvFormat::default();
        assert_eq!(rows("a,b\r\n\r\n\"x, y\",\"1\n2\"\n,\n", &plain), [["a", "b"], ["x, y", "1\n2"], ["", ""]]);
        assert_eq!(rows("\"a \"\"b\"\"\",\"\"\nc d\"e,é", &plain), [["a \"b\"", ""], ["c d\"e", "é"]]);
        assert_eq!(rows("a\rb,c\r", &plain), [["a\rb", "c"]]);
        assert_eq!(rows("one\n", &plain), [["one"]]);
    }

    #[test]
    fn spaces_go_where_asked() {
        let trim = CsvFormat { trim: true, ..CsvFormat::default() };
        assert_eq!(
            rows("Dupont, 4500€ , Oct-2025\n x , \" y \" ,\t\n", &trim),
            [["Dupont", "4500€", "Oct-2025"], ["x", " y ", ""]]
        );
        assert_eq!(rows("a, b\n", &CsvFormat::default()), [["a", " b"]]);
    }

    #[test]
    fn a_stray_quote_costs_one_line() {
        let plain = CsvFormat::default();
        assert_eq!(rows("\"a,b\nc,d\ne,f\n", &plain), [vec!["quotes: \"a,b"], vec!["c", "d"], vec!["e", "f"]]);
        assert_eq!(rows("\"a\"b,c\nd,e\n", &plain), [vec!["quotes: \"a\"b,c"], vec!["d", "e"]]);
    }

    #[test]
    fn a_row_is_not_told_before_it_is_whole() {
        let text = "\"x, \"\"y\"\"\nz\",é\r\nnext";
        let whole = text.find("next").unwrap();
        for cut in 0..whole {
            assert_eq!(csv_row(&text.as_bytes()[..cut], false, &CsvFormat::default()), Step::More, "{cut}");
        }
        let Step::Row { bytes, raw, .. } = csv_row(&text.as_bytes()[..whole], false, &CsvFormat::default()) else {
            panic!("a whole row is a row")
        };
        assert_eq!((bytes, raw), (whole, 0..whole - 2));
    }

    #[test]
    fn letters_of_other_encodings() {
        assert_eq!(text(vec![b'4', 0x80, 0xe9], Encoding::Windows1252).unwrap(), "4€é");
        assert_eq!(text(vec![0x81], Encoding::Windows1252), None);
        assert_eq!(text(vec![0xe9], Encoding::Utf8), None);
    }
}
