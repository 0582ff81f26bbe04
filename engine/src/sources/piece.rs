//! The next piece of a file: what the readers of the formats agree on.

use std::ops::Range;

/// What stands at the beginning of a window of a file's bytes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    /// The window ends before the piece does: look again with more bytes.
    More,
    /// Nothing is left.
    End,
    /// So many bytes that hold no row.
    Blank(usize),
    /// A row.
    Row {
        /// Bytes of the window it takes, its line end included.
        bytes: usize,
        /// Where it stands in the window, without its line end.
        raw: Range<usize>,
        /// The fields of a CSV row; none for JSON.
        fields: Vec<Vec<u8>>,
    },
    /// Something that is not a row.
    Bad {
        /// Bytes of the window it takes.
        bytes: usize,
        /// Where it stands in the window.
        raw: Range<usize>,
        /// The rule it breaks.
        rule: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

/// The first line of a window: bytes with the line end, and without. None when the line goes on after the window.
pub(crate) fn line(window: &[u8], eof: bool) -> Option<(usize, usize)> {
    match window.iter().position(|byte| *byte == b'\n') {
        Some(at) if at > 0 && window[at - 1] == b'\r' => Some((at + 1, at - 1)),
        Some(at) => Some((at + 1, at)),
        None if eof => Some((window.len(), window.len())),
        None => None,
    }
}

/// A JSON object per line.
pub(crate) fn json_line(window: &[u8], eof: bool) -> Step {
    if window.is_empty() && eof {
        return Step::End;
    }
    match line(window, eof) {
        None => Step::More,
        Some((bytes, end)) if window[..end].iter().all(u8::is_ascii_whitespace) => Step::Blank(bytes),
        Some((bytes, end)) => Step::Row { bytes, raw: 0..end, fields: Vec::new() },
    }
}

/// The next object of a file that holds one object, several, or an array of them. What stands between objects must be
/// white space, commas and the brackets of the array; anything else is refused up to the next of these.
pub(crate) fn json_object(window: &[u8], eof: bool) -> Step {
    let between = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b',' | b'[' | b']');
    let blank = window.iter().take_while(|byte| between(byte)).count();
    if blank > 0 {
        return Step::Blank(blank);
    }
    match window.first() {
        None if eof => Step::End,
        None => Step::More,
        Some(b'{') => match object_end(window) {
            Some(end) => Step::Row { bytes: end, raw: 0..end, fields: Vec::new() },
            None if eof => bad(window.len(), "json", "the object has no end"),
            None => Step::More,
        },
        Some(b'"') => match string_end(window) {
            Some(end) => bad(end, "not_object", "a text stands where an object should"),
            None if eof => bad(window.len(), "json", "a text has no end"),
            None => Step::More,
        },
        Some(_) => {
            let end = window.iter().position(|byte| between(byte) || matches!(byte, b'{' | b'"'));
            match end {
                Some(end) => bad(end, "not_object", "this is not an object"),
                None if eof => bad(window.len(), "not_object", "this is not an object"),
                None => Step::More,
            }
        }
    }
}

fn bad(bytes: usize, rule: &'static str, reason: &str) -> Step {
    Step::Bad { bytes, raw: 0..bytes, rule, reason: reason.to_owned() }
}

/// Where the object at the beginning ends; brackets within strings do not count.
fn object_end(window: &[u8]) -> Option<usize> {
    let (mut depth, mut at) = (0_usize, 0);
    while at < window.len() {
        match window[at] {
            b'"' => {
                at += string_end(&window[at..])?;
                continue;
            }
            b'{' => depth += 1,
            b'}' => {
                depth -= 1;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
        at += 1;
    }
    None
}

/// Where the string at the beginning ends, after its closing quote.
fn string_end(window: &[u8]) -> Option<usize> {
    let mut at = 1;
    while at < window.len() {
        match window[at] {
            b'\\' => at += 2,
            b'"' => return Some(at + 1),
            _ => at += 1,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects(text: &str) -> Vec<String> {
        let (mut at, mut found) = (0, Vec::new());
        loop {
            match json_object(&text.as_bytes()[at..], true) {
                Step::End => return found,
                Step::Blank(bytes) => at += bytes,
                Step::Row { bytes, raw, .. } => {
                    found.push(text[at + raw.start..at + raw.end].to_owned());
                    at += bytes;
                }
                Step::Bad { bytes, rule, .. } => {
                    found.push(format!("{rule}: {}", &text[at..at + bytes]));
                    at += bytes;
                }
                Step::More => panic!("more of a whole file is asked for"),
            }
        }
    }

    #[test]
    fn objects_of_an_array_and_one_alone() {
        assert_eq!(objects(r#" {"a": 1} "#), [r#"{"a": 1}"#]);
        assert_eq!(
            objects("[\n{\"a\": \"}\\\"{\"},\r\n {\"b\": [{\"c\": {}}]} ]\n"),
            ["{\"a\": \"}\\\"{\"}", "{\"b\": [{\"c\": {}}]}"]
        );
        assert_eq!(
            objects(r#"[1, "a{", null, {"b": 2}]"#),
            ["not_object: 1", "not_object: \"a{\"", "not_object: null", "{\"b\": 2}"]
        );
        assert_eq!(objects(r#"[{"a": 1}, {"b": "#), ["{\"a\": 1}", "json: {\"b\": "]);
        assert!(objects("[]").is_empty() && objects("").is_empty());
    }

    #[test]
    fn a_piece_is_not_told_before_it_is_whole() {
        let text = br#"{"a": "x\"y", "b": {"c": 1}}"#;
        for cut in 0..text.len() {
            assert_eq!(json_object(&text[..cut], false), Step::More, "{cut}");
        }
        let line = b"{\"a\": 1}\r\n";
        for cut in 0..line.len() {
            assert_eq!(json_line(&line[..cut], false), Step::More, "{cut}");
        }
        assert_eq!(json_line(line, false), Step::Row { bytes: 10, raw: 0..8, fields: vec![] });
        assert_eq!(json_line(b" \r\nx", false), Step::Blank(3));
        assert_eq!(json_line(b"{}", true), Step::Row { bytes: 2, raw: 0..2, fields: vec![] });
    }
}
