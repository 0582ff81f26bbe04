//! A scanner for one JSON object that hands out its fields without building a tree.
//!
//! Strict RFC 8259: nothing is guessed or repaired. Numbers are handed out as their text, so that a decimal keeps
//! every digit; strings without escapes borrow from the input. Nested values are checked
//! and handed out as their text. Tests compare
//! what it accepts with serde_json.
//!
//! What each field goes through is inlined by name: without link-time optimisation (`lto = "off"`) these were calls from one of the crate's units
//! into another, and more than a quarter of all that a count of JSON events took.

use std::borrow::Cow;

/// How deep arrays and objects may nest in a record.
const DEPTH_MAX: usize = 128;

/// The value of a field.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum JsonValue<'a> {
    Null,
    Bool(bool),
    /// The number as it stands in the text.
    Number(&'a str),
    String(Cow<'a, str>),
    /// The array as it stands in the text, checked to be valid.
    Array(&'a str),
    /// The object as it stands in the text, checked to be valid.
    Object(&'a str),
}

impl JsonValue<'_> {
    /// The kind of value, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            JsonValue::Null => "null",
            JsonValue::Bool(_) => "a boolean",
            JsonValue::Number(_) => "a number",
            JsonValue::String(_) => "a string",
            JsonValue::Array(_) => "an array",
            JsonValue::Object(_) => "an object",
        }
    }
}

/// Why a text is not one JSON object.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum JsonError {
    /// Valid so far, but the value is not an object.
    NotAnObject,
    /// Broken at this byte.
    Syntax { at: usize, expected: &'static str },
}

/// Reads the text of one record field by field.
pub(crate) struct JsonScanner<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
}

type Scan<T> = Result<T, JsonError>;

impl<'a> JsonScanner<'a> {
    pub(crate) fn new(text: &'a str) -> JsonScanner<'a> {
        JsonScanner { text, bytes: text.as_bytes(), at: 0 }
    }

    /// Enters the object. Call [`next_field`](Self::next_field) until it gives None.
    pub(crate) fn enter_object(&mut self) -> Scan<()> {
        self.skip_space();
        match self.peek() {
            Some(b'{') => {
                self.at += 1;
                Ok(())
            }
            None => Err(self.expected("a JSON object")),
            Some(_) => {
                self.value(0)?;
                self.end()?;
                Err(JsonError::NotAnObject)
            }
        }
    }

    /// The next field of the object; None after its end, when nothing else follows it.
    #[inline(always)]
    pub(crate) fn next_field(&mut self, first: bool) -> Scan<Option<(Cow<'a, str>, JsonValue<'a>)>> {
        self.skip_space();
        match self.peek() {
            Some(b'}') => {
                self.at += 1;
                self.end()?;
                return Ok(None);
            }
            Some(b',') if !first => {
                self.at += 1;
                self.skip_space();
            }
            _ if !first => return Err(self.expected("',' or '}'")),
            _ => {}
        }
        let name = self.field_name()?;
        let value = self.value(1)?;
        Ok(Some((name, value)))
    }

    /// Hands out the items of an array that was checked before; stops at the first that `visit` refuses.
    pub(crate) fn all_items(array: &'a str, mut visit: impl FnMut(JsonValue<'a>) -> bool) -> Scan<bool> {
        let mut scanner = JsonScanner { text: array, bytes: array.as_bytes(), at: 1 };
        scanner.skip_space();
        if scanner.peek() == Some(b']') {
            return Ok(true);
        }
        loop {
            if !visit(scanner.value(1)?) {
                return Ok(false);
            }
            if scanner.more(b']', "',' or ']'")? {
                return Ok(true);
            }
        }
    }

    /// The value that is the whole text: a key, say.
    pub(crate) fn whole(text: &'a str) -> Scan<JsonValue<'a>> {
        let mut scanner = JsonScanner::new(text);
        let value = scanner.value(0)?;
        scanner.end()?;
        Ok(value)
    }

    #[inline(always)]
    fn field_name(&mut self) -> Scan<Cow<'a, str>> {
        if self.peek() != Some(b'"') {
            return Err(self.expected("a field name in double quotes"));
        }
        let name = self.string()?;
        self.skip_space();
        if self.peek() != Some(b':') {
            return Err(self.expected("':'"));
        }
        self.at += 1;
        Ok(name)
    }

    #[inline(always)]
    fn value(&mut self, depth: usize) -> Scan<JsonValue<'a>> {
        self.skip_space();
        match self.peek() {
            Some(b'"') => Ok(JsonValue::String(self.string()?)),
            Some(b'-' | b'0'..=b'9') => Ok(JsonValue::Number(self.number()?)),
            Some(b't') => self.literal("true", JsonValue::Bool(true)),
            Some(b'f') => self.literal("false", JsonValue::Bool(false)),
            Some(b'n') => self.literal("null", JsonValue::Null),
            Some(b'{') => {
                let start = self.at;
                self.skip_object(depth)?;
                Ok(JsonValue::Object(&self.text[start..self.at]))
            }
            Some(b'[') => {
                let start = self.at;
                self.skip_array(depth)?;
                Ok(JsonValue::Array(&self.text[start..self.at]))
            }
            _ => Err(self.expected("a JSON value")),
        }
    }

    fn skip_object(&mut self, depth: usize) -> Scan<()> {
        if depth >= DEPTH_MAX {
            return Err(self.expected("at most 128 nested levels"));
        }
        self.at += 1;
        self.skip_space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.skip_space();
            self.field_name()?;
            self.value(depth + 1)?;
            if self.more(b'}', "',' or '}'")? {
                return Ok(());
            }
        }
    }

    fn skip_array(&mut self, depth: usize) -> Scan<()> {
        if depth >= DEPTH_MAX {
            return Err(self.expected("at most 128 nested levels"));
        }
        self.at += 1;
        self.skip_space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.value(depth + 1)?;
            if self.more(b']', "',' or ']'")? {
                return Ok(());
            }
        }
    }

    /// After an element: true at the closing byte, false after a comma.
    fn more(&mut self, close: u8, expected: &'static str) -> Scan<bool> {
        self.skip_space();
        match self.peek() {
            Some(byte) if byte == close => {
                self.at += 1;
                Ok(true)
            }
            Some(b',') => {
                self.at += 1;
                Ok(false)
            }
            _ => Err(self.expected(expected)),
        }
    }

    fn literal(&mut self, word: &'static str, value: JsonValue<'a>) -> Scan<JsonValue<'a>> {
        if self.bytes[self.at..].starts_with(word.as_bytes()) {
            self.at += word.len();
            Ok(value)
        } else {
            Err(self.expected("a JSON value"))
        }
    }

    fn number(&mut self) -> Scan<&'a str> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits(),
            _ => return Err(self.expected("a digit")),
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.some_digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.some_digits()?;
        }
        Ok(&self.text[start..self.at])
    }

    fn some_digits(&mut self) -> Scan<()> {
        if !matches!(self.peek(), Some(b'0'..=b'9')) {
            return Err(self.expected("a digit"));
        }
        self.digits();
        Ok(())
    }

    fn digits(&mut self) {
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
    }

    #[inline(always)]
    fn string(&mut self) -> Scan<Cow<'a, str>> {
        self.at += 1;
        let start = self.at;
        self.at += plain_bytes(&self.bytes[start..]);
        loop {
            match self.peek() {
                Some(b'"') => {
                    let text = &self.text[start..self.at];
                    self.at += 1;
                    return Ok(Cow::Borrowed(text));
                }
                Some(b'\\') => return self.escaped_string(start),
                Some(0..=0x1f) => return Err(self.expected("an escape instead of a control character")),
                Some(_) => self.at += 1,
                None => return Err(self.expected("'\"'")),
            }
        }
    }

    fn escaped_string(&mut self, start: usize) -> Scan<Cow<'a, str>> {
        let mut text = String::from(&self.text[start..self.at]);
        let mut plain_from = self.at;
        loop {
            match self.peek() {
                Some(b'"') => {
                    text.push_str(&self.text[plain_from..self.at]);
                    self.at += 1;
                    return Ok(Cow::Owned(text));
                }
                Some(b'\\') => {
                    text.push_str(&self.text[plain_from..self.at]);
                    self.at += 1;
                    text.push(self.escape()?);
                    plain_from = self.at;
                }
                Some(0..=0x1f) => return Err(self.expected("an escape instead of a control character")),
                Some(_) => self.at += 1,
                None => return Err(self.expected("'\"'")),
            }
        }
    }

    fn escape(&mut self) -> Scan<char> {
        let byte = self.peek().ok_or_else(|| self.expected("an escape"))?;
        self.at += 1;
        match byte {
            b'"' => Ok('"'),
            b'\\' => Ok('\\'),
            b'/' => Ok('/'),
            b'b' => Ok('\u{8}'),
            b'f' => Ok('\u{c}'),
            b'n' => Ok('\n'),
            b'r' => Ok('\r'),
            b't' => Ok('\t'),
            b'u' => self.unicode_escape(),
            _ => {
                self.at -= 1;
                Err(self.expected("an escape"))
            }
        }
    }

    fn unicode_escape(&mut self) -> Scan<char> {
        let high = self.hex4()?;
        let code = match high {
            0xd800..=0xdbff => {
                if !self.bytes[self.at..].starts_with(b"\\u") {
                    return Err(self.expected("the second half of a surrogate pair"));
                }
                self.at += 2;
                let low = self.hex4()?;
                if !(0xdc00..=0xdfff).contains(&low) {
                    return Err(self.expected("the second half of a surrogate pair"));
                }
                0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00)
            }
            code => code,
        };
        char::from_u32(code).ok_or_else(|| self.expected("the first half of a surrogate pair"))
    }

    fn hex4(&mut self) -> Scan<u32> {
        let mut code = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|byte| char::from(byte).to_digit(16));
            code = code * 16 + digit.ok_or_else(|| self.expected("four hexadecimal digits"))?;
            self.at += 1;
        }
        Ok(code)
    }

    fn end(&mut self) -> Scan<()> {
        self.skip_space();
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.expected("nothing after the object")),
        }
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn expected(&self, expected: &'static str) -> JsonError {
        JsonError::Syntax { at: self.at, expected }
    }
}

/// How many bytes at the front of a string are looked at eight at a time, and neither end it nor need to be looked at singly.
fn plain_bytes(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    // The lowest bit that is set is right, which is the only one that is used: a borrow reaches higher bytes alone.
    let below = |word: u64, least: u64| word.wrapping_sub(ONES * least) & !word & (ONES << 7);
    let (words, _) = bytes.as_chunks::<8>();
    for (at, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let equal = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
        let special = below(word, 0x20) | equal(b'"') | equal(b'\\');
        if special != 0 {
            return at * 8 + (special.trailing_zeros() / 8) as usize;
        }
    }
    words.len() * 8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(text: &str) -> Result<Vec<(String, JsonValue<'_>)>, JsonError> {
        let mut scanner = JsonScanner::new(text);
        scanner.enter_object()?;
        let mut fields = Vec::new();
        while let Some((name, value)) = scanner.next_field(fields.is_empty())? {
            fields.push((name.into_owned(), value));
        }
        Ok(fields)
    }

    #[test]
    fn fields_come_out_as_they_stand() {
        let fields =
            scan(r#" {"a":1, "b" : -0.50e+3,"c":"x\n\u00e9\ud83d\ude00","d":[1,{"e":[]}],"f":{},"g":null,"h":true} "#)
                .unwrap();
        let kinds: Vec<_> = fields.iter().map(|(_, value)| value.kind()).collect();
        assert_eq!(kinds, ["a number", "a number", "a string", "an array", "an object", "null", "a boolean"]);
        assert_eq!(fields[1].1, JsonValue::Number("-0.50e+3"));
        assert_eq!(fields[2].1, JsonValue::String("x\né😀".into()));
        assert_eq!(scan("{}").unwrap(), []);
        assert_eq!(scan("[1]"), Err(JsonError::NotAnObject));
        assert_eq!(scan("12"), Err(JsonError::NotAnObject));
    }

    /// Mutates valid objects at random and compares accept/reject with serde_json.
    #[test]
    fn accepts_what_serde_json_accepts() {
        let seeds = [
            r#"{"a":1,"b":-0.5e3,"c":"x\né\ud83d\ude00\"","d":[1,{"e":[]},null],"f":{},"g":true}"#,
            r#"{"user_id":7,"ts":"2026-11-20T10:00:00Z","n":[[],[0,1e5,-1]],"s":"\\\/\b\f"}"#,
        ];
        let alphabet: Vec<char> = "{}[]\",:\\0123456789.eE+-truefalsn uded83 \t\u{1}é".chars().collect();
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = |bound: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % bound as u64) as usize
        };
        let mut accepted = 0;
        for round in 0..60_000 {
            let mut chars: Vec<char> = seeds[round % 2].chars().collect();
            for _ in 0..1 + next(3) {
                let at = next(chars.len());
                match next(3) {
                    0 => chars[at] = alphabet[next(alphabet.len())],
                    1 => chars.insert(at, alphabet[next(alphabet.len())]),
                    _ => drop(chars.remove(at)),
                }
            }
            let text: String = chars.into_iter().collect();
            // Numbers too large for f64 are an error to serde_json's tree; here they are text.
            let theirs = serde_json::from_str::<serde_json::Value>(&text);
            let out_of_range = matches!(&theirs, Err(error) if error.to_string().contains("out of range"));
            let theirs_is_object = theirs.is_ok_and(|value| value.is_object());
            accepted += usize::from(theirs_is_object);
            assert!(out_of_range || scan(&text).is_ok() == theirs_is_object, "{text:?}: {:?}", scan(&text));
        }
        assert!(accepted > 1_000, "{accepted}");
    }

    /// Against a look at each byte, with every byte at every place among others.
    #[test]
    fn what_ends_a_string_is_found_wherever_it_stands() {
        let is_plain = |byte: &u8| !matches!(byte, b'"' | b'\\' | 0..=0x1f);
        for byte in 0..=u8::MAX {
            for at in 0..19 {
                for other in [b'a', 0x20, 0x21, 0x7f, 0x80, 0xa2, 0xff] {
                    let mut bytes = [other; 19];
                    bytes[at] = byte;
                    bytes[(at + 3) % 19] = b'"';
                    let expected = bytes.iter().take_while(|byte| is_plain(byte)).count().min(16);
                    assert_eq!(plain_bytes(&bytes), expected, "{byte} at {at} among {other}");
                }
            }
        }
    }

    #[test]
    fn depth_is_bounded() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(matches!(scan(&deep), Err(JsonError::Syntax { .. })));
    }
}
