//! `ALTER`: another setting, another query or more columns for what SQL has declared. It becomes the text of the `CREATE` that says all
//! of it, so what is kept, shown and read at a start is one statement, as if it had been declared so.

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::ParserError;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan};

use super::Kind;
use super::options::{Options, at};
use super::script::{byte_at, tokens};
use super::statement::{ADDED, Columns, Reading, quoted};
use crate::config::ColumnConfig;
use crate::names::closest;

const FORM: &str = "ADD COLUMN, SET (…) or AS SELECT …";
/// Settings that decide nothing about rows that were read before.
const OF_STREAMS: &[&str] = &["lateness", "idle_timeout"];
const OF_VIEWS: &[&str] = &["retention"];

/// What becomes other.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Altering {
    /// Columns behind the others, each as a declaration has it.
    Columns(Vec<String>),
    /// Settings and their values.
    Settings(Vec<(String, String)>),
    /// The query, with EMIT.
    Query(String),
}

impl Reading<'_> {
    /// What stands behind `ALTER kind name`.
    pub(super) fn altering(&mut self, kind: Kind) -> Result<Altering, ParserError> {
        let first = self.parser.next_token();
        let word = match &first.token {
            Token::Word(word) => word.value.to_ascii_uppercase(),
            _ => return self.parser.expected(FORM, first),
        };
        let place = first.span.start;
        match (word.as_str(), kind) {
            ("SET", _) => self.settings(kind, place),
            ("AS", Kind::View) => {
                self.parser.prev_token();
                Ok(Altering::Query(self.query()?))
            }
            ("ADD", Kind::Stream) => self.added(),
            _ => {
                self.mistakes.push(at(place, refused(&word, kind)));
                while self.parser.next_token().token != Token::EOF {}
                Ok(Altering::Settings(Vec::new()))
            }
        }
    }

    /// `ADD [COLUMN] c TYPE [FROM 'field'], ADD [COLUMN] …` or `ADD (c TYPE, …)`, behind the first ADD.
    fn added(&mut self) -> Result<Altering, ParserError> {
        let mut found = Columns::default();
        if self.parser.consume_token(&Token::LParen) {
            found = self.columns()?;
        } else {
            loop {
                let _ = self.parser.parse_keyword(Keyword::COLUMN);
                self.column(&mut found)?;
                if !self.parser.consume_token(&Token::Comma) {
                    break;
                }
                self.parser.expect_keyword(Keyword::ADD)?;
            }
        }
        let place = self.parser.get_current_token().span.start;
        for column in found.columns.iter().filter(|column| column.required) {
            let message = format!("'{}' NOT NULL: records of before have none, so it may be null", column.name);
            self.mistakes.push(at(place, message));
        }
        if let Some(check) = found.checks.first() {
            self.mistakes.push(at(place, format!("CHECK '{}': columns alone are added, not checks", check.name)));
        }
        if let Some((key, place)) = found.keys.first() {
            self.mistakes.push(at(*place, format!("'{key}' PRIMARY KEY: a stream has none")));
        }
        let text = |column: &ColumnConfig| {
            format!("{} {}{} {ADDED}", quoted(&column.name), column.sql_type, from_field(column))
        };
        Ok(Altering::Columns(found.columns.iter().map(text).collect()))
    }

    /// `SET (key = value, …)`, behind SET.
    fn settings(&mut self, kind: Kind, place: Location) -> Result<Altering, ParserError> {
        let known = match kind {
            Kind::Stream => OF_STREAMS,
            Kind::View => OF_VIEWS,
            Kind::Table => &[],
        };
        let options = Options::parse_list(&mut self.parser)?;
        let mut settings: Vec<(String, String)> = Vec::new();
        for (key, value, place) in options {
            if known.is_empty() {
                self.mistakes
                    .push(at(place, "ALTER takes no setting of a table: DROP it, then CREATE it again".into()));
            } else if !known.contains(&key.as_str()) {
                let hint = closest(&key, known.iter().copied());
                let message =
                    format!("'{key}' is no setting that ALTER takes{hint} (for others DROP it, then CREATE it again)");
                self.mistakes.push(at(place, message));
            } else if settings.iter().any(|(other, _)| *other == key) {
                self.mistakes.push(at(place, format!("{key} is given twice")));
            } else {
                settings.push((key, value));
            }
        }
        if settings.is_empty() && self.mistakes.is_empty() {
            self.mistakes.push(at(place, "SET has no settings: write SET (key = 'value')".into()));
        }
        Ok(Altering::Settings(settings))
    }
}

/// Why something cannot be altered so, and what to do.
fn refused(word: &str, kind: Kind) -> String {
    let (name, sql) = (kind.word(), kind.sql());
    match (word, kind) {
        ("RENAME", _) => format!(
            "a {name} cannot be renamed, as its name is that of topics and files: CREATE another one under the new name, then DROP {sql} this one"
        ),
        ("DROP" | "ALTER" | "MODIFY", _) => {
            format!("columns can be added to a stream, not changed or taken away: DROP {sql}, then CREATE it again")
        }
        ("ADD", Kind::View) => {
            "the columns of a view are those of its query: write ALTER MATERIALIZED VIEW … AS SELECT …".into()
        }
        ("ADD", _) => "a table is read again for another column: DROP TABLE, then CREATE it again".into(),
        ("AS", _) => format!("the query of a {name} cannot be altered: DROP {sql}, then CREATE it again"),
        _ => format!("'{word}' is not known here: write {FORM}"),
    }
}

/// The declaration as it is after a change; Err says why it cannot be.
pub(super) fn altered(sql: &str, altering: &Altering) -> Result<String, String> {
    let tokens = tokens(sql).map_err(|mistake| mistake.message)?;
    let parts = Parts::of(&tokens);
    let byte = |token: usize| tokens.get(token).map_or(sql.len(), |token| byte_at(sql, token.span.start));
    match altering {
        Altering::Columns(columns) => {
            let Some(end) = parts.columns_end else {
                return Err("a derived stream has the columns of its SELECT: DROP STREAM, then CREATE it again".into());
            };
            Ok(inserted(sql, byte(end), &format!(", {}", columns.join(", "))))
        }
        Altering::Query(query) => {
            let from = parts.query.ok_or("it has no query")?;
            Ok(format!("{}{query}", &sql[..byte(from)]))
        }
        Altering::Settings(settings) => {
            let mut sql = sql.to_string();
            for (key, value) in settings {
                sql = set(&sql, key, &literal(value))?;
            }
            Ok(sql)
        }
    }
}

/// The declaration of a stream that has none with columns: before its settings.
pub(super) fn with_columns(sql: &str, columns: &str) -> Result<String, String> {
    let tokens = tokens(sql).map_err(|mistake| mistake.message)?;
    let settings = Parts::of(&tokens).settings.and_then(|(open, _)| open.checked_sub(1));
    let at = settings.and_then(|with| tokens.get(with)).map_or(sql.len(), |with| byte_at(sql, with.span.start));
    Ok(inserted(sql, at, &format!("({columns}) ")))
}

/// The declaration with a setting: in the place of its former value, or behind the others.
fn set(sql: &str, key: &str, value: &str) -> Result<String, String> {
    let tokens = tokens(sql).map_err(|mistake| mistake.message)?;
    let parts = Parts::of(&tokens);
    let byte = |token: usize| tokens.get(token).map_or(sql.len(), |token| byte_at(sql, token.span.start));
    let Some((open, close)) = parts.settings else {
        let at = byte(parts.query.map_or(tokens.len(), |query| query - 1));
        let space = if sql[..at].ends_with(char::is_whitespace) { "" } else { " " };
        return Ok(inserted(sql, at, &format!("{space}WITH ({key} = {value}) ")).trim_end().to_string());
    };
    let is_it = |at: &usize| matches!(&tokens[*at].token, Token::Word(word) if word.value.eq_ignore_ascii_case(key));
    match (open + 1..close).filter(|at| tokens[at + 1].token == Token::Eq).find(is_it) {
        Some(known) => {
            let end = byte_at(sql, tokens[known + 2].span.end);
            Ok(format!("{}{value}{}", &sql[..byte(known + 2)], &sql[end..]))
        }
        None => {
            let comma = if close == open + 1 || tokens[close - 1].token == Token::Comma { "" } else { ", " };
            Ok(inserted(sql, byte(close), &format!("{comma}{key} = {value}")))
        }
    }
}

/// Where the parts of a `CREATE` are, by its tokens.
#[derive(Default)]
struct Parts {
    /// The bracket behind its columns.
    columns_end: Option<usize>,
    /// The brackets around its settings.
    settings: Option<(usize, usize)>,
    /// The first token of its query.
    query: Option<usize>,
}

impl Parts {
    fn of(tokens: &[TokenWithSpan]) -> Parts {
        let mut parts = Parts::default();
        let (mut depth, mut opened) = (0_usize, 0);
        for (at, token) in tokens.iter().enumerate() {
            match &token.token {
                Token::LParen => {
                    opened = if depth == 0 { at } else { opened };
                    depth += 1;
                }
                Token::RParen => {
                    depth = depth.saturating_sub(1);
                    let is_of_settings = opened.checked_sub(1).is_some_and(|before| is(&tokens[before], "WITH"));
                    match depth {
                        0 if is_of_settings => parts.settings = Some((opened, at)),
                        0 => parts.columns_end = Some(at),
                        _ => {}
                    }
                }
                _ if depth == 0 && is(token, "AS") => {
                    parts.query = Some(at + 1);
                    return parts;
                }
                _ => {}
            }
        }
        parts
    }
}

/// Whether a token is this word, without quotes.
fn is(token: &TokenWithSpan, word: &str) -> bool {
    matches!(&token.token, Token::Word(found) if found.quote_style.is_none() && found.value.eq_ignore_ascii_case(word))
}

fn inserted(sql: &str, at: usize, text: &str) -> String {
    format!("{}{text}{}", &sql[..at], &sql[at..])
}

/// The field that a column is of, where its name does not say it.
pub(super) fn from_field(column: &ColumnConfig) -> String {
    column.from.as_ref().map(|from| format!(" FROM {}", literal(from))).unwrap_or_default()
}

/// A text as SQL reads it back exactly.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set_in(sql: &str, key: &str, value: &str) -> String {
        altered(sql, &Altering::Settings(vec![(key.into(), value.into())])).unwrap()
    }

    #[test]
    fn settings_take_the_place_of_former_ones() {
        let cases = [
            (
                "CREATE STREAM s (ts TIMESTAMP)\nWITH (event_time = 'ts')",
                "CREATE STREAM s (ts TIMESTAMP)\nWITH (event_time = 'ts', lateness = '1 s')",
            ),
            (
                "CREATE STREAM s (\"lateness\" INT, ts TIMESTAMP) WITH (Lateness = '5 minutes', event_time = 'ts')",
                "CREATE STREAM s (\"lateness\" INT, ts TIMESTAMP) WITH (Lateness = '1 s', event_time = 'ts')",
            ),
            (
                "CREATE STREAM d AS SELECT a AS b FROM s",
                "CREATE STREAM d WITH (lateness = '1 s') AS SELECT a AS b FROM s",
            ),
            (
                "CREATE STREAM \"as\" WITH () AS SELECT (1) AS b FROM s",
                "CREATE STREAM \"as\" WITH (lateness = '1 s') AS SELECT (1) AS b FROM s",
            ),
            ("CREATE TABLE t (é INT)", "CREATE TABLE t (é INT) WITH (lateness = '1 s')"),
        ];
        for (sql, expected) in cases {
            assert_eq!(set_in(sql, "lateness", "1 s"), expected);
        }
        assert_eq!(set_in("CREATE TABLE t (a INT)", "x", "it's"), "CREATE TABLE t (a INT) WITH (x = 'it''s')");
    }

    #[test]
    fn columns_come_behind_the_others_and_queries_in_the_place_of_the_former() {
        let columns = Altering::Columns(vec!["\"c\" VARCHAR ADDED".into(), "\"d\" BIGINT ADDED".into()]);
        let sql = "CREATE STREAM IF NOT EXISTS s (a DECIMAL(10,2), CONSTRAINT x CHECK (a > (1)) -- )\n) WITH (event_time = 'a')";
        let expected = "CREATE STREAM IF NOT EXISTS s (a DECIMAL(10,2), CONSTRAINT x CHECK (a > (1)) -- )\n\
                        , \"c\" VARCHAR ADDED, \"d\" BIGINT ADDED) WITH (event_time = 'a')";
        assert_eq!(altered(sql, &columns).unwrap(), expected);
        assert!(altered("CREATE STREAM s AS SELECT (a) FROM b", &columns).unwrap_err().contains("derived"));
        let query = Altering::Query("SELECT 1 EMIT FINAL".into());
        let sql = "CREATE OR REPLACE MATERIALIZED VIEW v WITH (retention = '1 d') AS\nSELECT count(*) AS n FROM s";
        let expected = "CREATE OR REPLACE MATERIALIZED VIEW v WITH (retention = '1 d') AS\nSELECT 1 EMIT FINAL";
        assert_eq!(altered(sql, &query).unwrap(), expected);
    }

    #[test]
    fn columns_come_before_the_settings() {
        let cases = [
            ("CREATE STREAM s WITH (event_time = 'ts')", "CREATE STREAM s (ts TIMESTAMP) WITH (event_time = 'ts')"),
            (
                "create stream if not exists \"with\" -- é (\n  with (event_time = 'ts', topic = 'a)')",
                "create stream if not exists \"with\" -- é (\n  (ts TIMESTAMP) with (event_time = 'ts', topic = 'a)')",
            ),
        ];
        for (sql, expected) in cases {
            assert_eq!(with_columns(sql, "ts TIMESTAMP").unwrap(), expected);
        }
    }
}
