//! `WITH (key = 'value', …)`: settings of a declaration, under the names that the configuration has for them.

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Location, Token};

use super::Mistake;
use crate::config::CsvConfig;
use crate::names::closest;

/// Units of a length of time, in milliseconds.
const UNITS: [(&[&str], i64); 6] = [
    (&["ms", "millisecond", "milliseconds"], 1),
    (&["s", "sec", "second", "seconds"], 1_000),
    (&["m", "min", "minute", "minutes"], 60_000),
    (&["h", "hour", "hours"], 3_600_000),
    (&["d", "day", "days"], 86_400_000),
    (&["w", "week", "weeks"], 7 * 86_400_000),
];

/// Settings as they were written. What is taken is gone; what is left is not known.
pub(super) struct Options {
    given: Vec<(String, String, Location)>,
    known: Vec<&'static str>,
    /// Where they would stand, for those that are missing.
    place: Location,
}

impl Options {
    /// Reads them, if there are any.
    pub(super) fn parse(parser: &mut Parser<'_>) -> Result<Options, ParserError> {
        let place = next_or_last(parser);
        let mut options = Options { given: Vec::new(), known: Vec::new(), place };
        if parser.parse_keyword(Keyword::WITH) {
            options.given = Options::parse_list(parser)?;
        }
        Ok(options)
    }

    /// Reads `(key = value, …)`, each with its place.
    pub(super) fn parse_list(parser: &mut Parser<'_>) -> Result<Vec<(String, String, Location)>, ParserError> {
        let mut given = Vec::new();
        parser.expect_token(&Token::LParen)?;
        while !parser.consume_token(&Token::RParen) {
            let place = parser.peek_token().span.start;
            let key = parser.parse_identifier()?.value.to_lowercase();
            parser.expect_token(&Token::Eq)?;
            let value = match parser.next_token() {
                token if matches!(token.token, Token::SingleQuotedString(_)) => match token.token {
                    Token::SingleQuotedString(text) => text,
                    _ => String::new(),
                },
                token if matches!(token.token, Token::Number(..) | Token::Word(_)) => token.token.to_string(),
                token => return parser.expected("a value in quotes", token),
            };
            given.push((key, value, place));
            if !parser.consume_token(&Token::Comma) && parser.peek_token().token != Token::RParen {
                return parser.expected(", or )", parser.peek_token());
            }
        }
        Ok(given)
    }

    /// Takes a setting out.
    pub(super) fn text(&mut self, key: &'static str) -> Option<String> {
        self.at(key).map(|(value, _)| value)
    }

    /// Takes out one that must be there.
    pub(super) fn required(&mut self, key: &'static str, mistakes: &mut Vec<Mistake>) -> String {
        self.text(key).unwrap_or_else(|| {
            mistakes.push(at(self.place, format!("{key} is missing: write WITH ({key} = '…')")));
            String::new()
        })
    }

    /// Takes out a length of time, in milliseconds.
    pub(super) fn duration_ms(&mut self, key: &'static str, mistakes: &mut Vec<Mistake>) -> Option<i64> {
        let (value, place) = self.at(key)?;
        let parsed = duration_ms(&value);
        if parsed.is_none() {
            mistakes.push(at(place, format!("{key} = '{value}' is not a length of time, write it as '10 seconds'")));
        }
        parsed
    }

    /// Takes out one of some words.
    pub(super) fn word<T: Copy>(
        &mut self,
        key: &'static str,
        words: &[(&str, T)],
        mistakes: &mut Vec<Mistake>,
    ) -> Option<T> {
        let (value, place) = self.at(key)?;
        let found = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(&value));
        if found.is_none() {
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            mistakes.push(at(place, format!("{key} = '{value}': there are {}", known.join(", "))));
        }
        found.map(|(_, meaning)| *meaning)
    }

    /// Takes out what stands between fields.
    pub(super) fn character(&mut self, key: &'static str, mistakes: &mut Vec<Mistake>) -> Option<char> {
        let (value, place) = self.at(key)?;
        let found = CsvConfig::delimiter_of(&value);
        if found.is_none() {
            let message =
                format!("{key} = '{value}': write one character, not a quote or a line break; or tab or space");
            mistakes.push(at(place, message));
        }
        found
    }

    /// Takes out what goes with another setting, and says so.
    pub(super) fn misplaced(&mut self, keys: &[&'static str], goes_with: &str, mistakes: &mut Vec<Mistake>) {
        for key in keys {
            if let Some((_, place)) = self.at(key) {
                mistakes.push(at(place, format!("{key} goes with {goes_with}")));
            }
        }
    }

    fn at(&mut self, key: &'static str) -> Option<(String, Location)> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        let found = self.given.iter().position(|(given, ..)| given == key)?;
        let (_, value, place) = self.given.remove(found);
        Some((value, place))
    }

    /// What was given twice, or that nobody took.
    pub(super) fn finish(self, mistakes: &mut Vec<Mistake>) {
        for (key, _, place) in &self.given {
            let message = match self.known.contains(&key.as_str()) {
                true => format!("{key} is given twice"),
                false => format!("there is no setting '{key}'{}", closest(key, self.known.iter().copied())),
            };
            mistakes.push(at(*place, message));
        }
    }
}

/// Where the next token begins, or at the end of the statement the last one.
pub(super) fn next_or_last(parser: &Parser<'_>) -> Location {
    match parser.peek_token() {
        token if token.token == Token::EOF => parser.get_current_token().span.start,
        token => token.span.start,
    }
}

/// A mistake at a place.
pub(super) fn at(place: Location, message: String) -> Mistake {
    Mistake { line: place.line.max(1), column: place.column.max(1), message }
}

/// `10 seconds`, `7d`, `1 hour 30 minutes`, in milliseconds.
pub(crate) fn duration_ms(text: &str) -> Option<i64> {
    let lower = text.trim().to_lowercase();
    let mut rest = lower.as_str();
    let mut total: i64 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: i64 = rest[..digits].parse().ok()?;
        rest = rest[digits..].trim_start();
        let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let (_, unit_ms) = UNITS.iter().find(|(names, _)| names.contains(&&rest[..end]))?;
        total = total.checked_add(number.checked_mul(*unit_ms)?)?;
        rest = rest[end..].trim_start();
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time() {
        let cases = [
            ("10 seconds", Some(10_000)),
            ("7 days", Some(604_800_000)),
            ("1h", Some(3_600_000)),
            ("1 hour 30 minutes", Some(5_400_000)),
            ("0 ms", Some(0)),
            ("10", None),
            ("", None),
            ("-1 s", None),
            ("1 month", None),
            ("9223372036854775807 d", None),
        ];
        for (text, expected) in cases {
            assert_eq!(duration_ms(text), expected, "{text}");
        }
    }
}
