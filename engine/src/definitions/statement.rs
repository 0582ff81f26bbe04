//! One statement: what it declares, or takes away.

use datafusion::sql::sqlparser::ast::Ident;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan};

use super::alter::Altering;
use super::options::{Options, at, next_or_last};
use super::script::{byte_at, tokens};
use super::{Kind, Mistake};
use crate::config::{
    CheckAction, CheckConfig, ColumnConfig, CsvConfig, DeduplicateConfig, OwnSchema, StreamConfig, StreamFormat,
    TableConfig, TableRows, ViewConfig,
};
use crate::names::{is_topic_name, normalized, single_name};

const FORM: &str = "write CREATE STREAM, CREATE TABLE, CREATE MATERIALIZED VIEW, ALTER, DROP, PAUSE or RESUME; a script has nothing else";
/// Stands behind a column that came to its stream by ALTER.
pub(super) const ADDED: &str = "ADDED";

/// What a statement does.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Action {
    Create { name: String, declares: Declares, or_replace: bool, if_not_exists: bool },
    Alter { kind: Kind, name: String, if_exists: bool, altering: Altering },
    Drop { kind: Kind, name: String, if_exists: bool },
    Pause(String),
    Resume(String),
}

/// What is declared.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Declares {
    Stream(Box<StreamConfig>),
    Table(TableConfig),
    View(ViewConfig),
}

impl Declares {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Declares::Stream(_) => Kind::Stream,
            Declares::Table(_) => Kind::Table,
            Declares::View(_) => Kind::View,
        }
    }

    /// The stream whose columns are to be inferred.
    pub(super) fn without_columns(&self) -> Option<&StreamConfig> {
        match self {
            Declares::Stream(config) if config.sql.is_none() && config.columns.is_empty() => Some(config),
            _ => None,
        }
    }
}

/// Reads the text of one statement; `source` is where it was declared.
pub(super) fn read_one(text: &str, source: &str) -> Result<Action, Vec<Mistake>> {
    let tokens = tokens(text).map_err(|mistake| vec![mistake])?;
    read_action(&tokens, text, source)
}

/// Reads a statement of these tokens, which ends where `text` does.
pub(super) fn read_action(tokens: &[TokenWithSpan], text: &str, source: &str) -> Result<Action, Vec<Mistake>> {
    let mut reading = Reading {
        parser: Parser::new(&GenericDialect {}).with_tokens_with_locations(tokens.to_vec()),
        text,
        source,
        mistakes: Vec::new(),
    };
    match reading.action() {
        Ok(action) if reading.mistakes.is_empty() => Ok(action),
        Ok(_) => Err(reading.mistakes),
        Err(error) => {
            let end = tokens.last().map_or(Location { line: 1, column: 1 }, |token| token.span.start);
            reading.mistakes.push(placed(&error, end));
            Err(reading.mistakes)
        }
    }
}

/// An error of the parser, which says behind its message where it stands, unless that is the end.
fn placed(error: &ParserError, end: Location) -> Mistake {
    let (ParserError::ParserError(message) | ParserError::TokenizerError(message)) = error else {
        return at(end, "it is nested too deeply".to_string());
    };
    let parts = message.rsplit_once(" at Line: ").and_then(|(message, place)| {
        let (line, column) = place.split_once(", Column: ")?;
        Some((message, Location { line: line.trim().parse().ok()?, column: column.trim().parse().ok()? }))
    });
    let (message, place) = parts.unwrap_or((message, end));
    at(place, message.to_string())
}

/// A statement on its way.
pub(super) struct Reading<'t> {
    pub(super) parser: Parser<'t>,
    /// All up to the end of the statement.
    text: &'t str,
    source: &'t str,
    pub(super) mistakes: Vec<Mistake>,
}

/// Columns and checks between the brackets.
#[derive(Default)]
pub(super) struct Columns {
    pub(super) columns: Vec<ColumnConfig>,
    pub(super) checks: Vec<CheckConfig>,
    /// `PRIMARY KEY`, and where.
    pub(super) keys: Vec<(String, Location)>,
}

impl Reading<'_> {
    fn action(&mut self) -> Result<Action, ParserError> {
        let first = self.parser.next_token();
        let action = match &first.token {
            Token::Word(word) => match word.value.to_ascii_uppercase().as_str() {
                "CREATE" => return self.create(),
                "ALTER" => self.alter()?,
                "DROP" => self.drop_one()?,
                "PAUSE" => Action::Pause(self.view_name()?),
                "RESUME" => Action::Resume(self.view_name()?),
                _ => return self.parser.expected(FORM, first),
            },
            _ => return self.parser.expected(FORM, first),
        };
        self.end()?;
        Ok(action)
    }

    fn end(&mut self) -> Result<(), ParserError> {
        match self.parser.peek_token() {
            token if token.token == Token::EOF => Ok(()),
            token => self.parser.expected("the end of the statement", token),
        }
    }

    fn kind(&mut self) -> Result<Kind, ParserError> {
        if self.parser.parse_keyword(Keyword::STREAM) {
            return Ok(Kind::Stream);
        }
        if self.parser.parse_keyword(Keyword::TABLE) {
            return Ok(Kind::Table);
        }
        if self.parser.parse_keywords(&[Keyword::MATERIALIZED, Keyword::VIEW]) {
            return Ok(Kind::View);
        }
        let token = self.parser.peek_token();
        self.parser.expected("STREAM, TABLE or MATERIALIZED VIEW", token)
    }

    fn view_name(&mut self) -> Result<String, ParserError> {
        self.parser.expect_keyword(Keyword::MATERIALIZED)?;
        self.parser.expect_keyword(Keyword::VIEW)?;
        self.name(Kind::View)
    }

    fn name(&mut self, kind: Kind) -> Result<String, ParserError> {
        let place = self.parser.peek_token().span.start;
        let name = self.parser.parse_object_name(false)?;
        let Some(single) = single_name(&name) else {
            let message = format!("a {}'s name has one part, without dots outside quotes", kind.word());
            self.mistakes.push(at(place, message));
            return Ok(name.to_string());
        };
        if !is_topic_name(&single) {
            let message = format!(
                "{} name '{single}' must be 1 to 200 letters, digits, '.', '_' or '-', as it names a topic too",
                kind.word()
            );
            self.mistakes.push(at(place, message));
        }
        Ok(single)
    }

    fn drop_one(&mut self) -> Result<Action, ParserError> {
        let kind = self.kind()?;
        let if_exists = self.parser.parse_keywords(&[Keyword::IF, Keyword::EXISTS]);
        Ok(Action::Drop { kind, name: self.name(kind)?, if_exists })
    }

    fn alter(&mut self) -> Result<Action, ParserError> {
        let kind = self.kind()?;
        let if_exists = self.parser.parse_keywords(&[Keyword::IF, Keyword::EXISTS]);
        let name = self.name(kind)?;
        Ok(Action::Alter { kind, name, if_exists, altering: self.altering(kind)? })
    }

    fn create(&mut self) -> Result<Action, ParserError> {
        let place = self.parser.peek_token().span.start;
        let or_replace = self.parser.parse_keywords(&[Keyword::OR, Keyword::REPLACE]);
        let kind = self.kind()?;
        if or_replace && kind != Kind::View {
            let message = format!("OR REPLACE is for views: DROP the {0}, then CREATE the {0} again", kind.word());
            self.mistakes.push(at(place, message));
        }
        let if_not_exists = self.parser.parse_keywords(&[Keyword::IF, Keyword::NOT, Keyword::EXISTS]);
        if or_replace && if_not_exists {
            self.mistakes.push(at(place, "OR REPLACE and IF NOT EXISTS exclude each other".to_string()));
        }
        let name = self.name(kind)?;
        let has_columns = kind != Kind::View && self.parser.consume_token(&Token::LParen);
        let columns = if has_columns { self.columns()? } else { Columns::default() };
        let mut options = Options::parse(&mut self.parser)?;
        let declares = match (kind, has_columns) {
            (Kind::View, _) => self.view(&name, &mut options)?,
            (Kind::Stream, false) if self.parser.peek_token().token != Token::EOF => {
                self.derived(&name, &mut options)?
            }
            (Kind::Stream, _) => Declares::Stream(Box::new(self.stream(&name, columns, &mut options))),
            (Kind::Table, _) => Declares::Table(self.table(&name, columns, &mut options)),
        };
        options.finish(&mut self.mistakes);
        self.end()?;
        Ok(Action::Create { name, declares, or_replace, if_not_exists })
    }

    /// The text of the query after AS, which must be all that is left, and be a query.
    pub(super) fn query(&mut self) -> Result<String, ParserError> {
        self.parser.expect_keyword(Keyword::AS)?;
        let first = self.parser.peek_token();
        self.parser.parse_query()?;
        // What a view has behind its query is the view's to read.
        while self.parser.next_token().token != Token::EOF {}
        Ok(self.text[byte_at(self.text, first.span.start)..].trim_end().to_string())
    }

    fn view(&mut self, name: &str, options: &mut Options) -> Result<Declares, ParserError> {
        let retention_ms = options.duration_ms("retention", &mut self.mistakes);
        let sql = format!("CREATE MATERIALIZED VIEW {} AS {}", quoted(name), self.query()?);
        Ok(Declares::View(ViewConfig { sql, source: self.source.to_string(), retention_ms }))
    }

    fn derived(&mut self, name: &str, options: &mut Options) -> Result<Declares, ParserError> {
        let mut config = StreamConfig {
            key: options.text("key"),
            event_time: options.text("event_time").unwrap_or_default(),
            ..self.times(options)
        };
        let by = options.text("deduplicate_by");
        let within_ms = options.duration_ms("deduplicate_within", &mut self.mistakes);
        config.deduplicate = by.map(|by| DeduplicateConfig {
            by: by.split(',').map(|column| column.trim().to_string()).collect(),
            within_ms: within_ms.unwrap_or(0),
        });
        config.sql = Some(format!("CREATE STREAM {} AS {}", quoted(name), self.query()?));
        Ok(Declares::Stream(Box::new(config)))
    }

    fn stream(&mut self, name: &str, columns: Columns, options: &mut Options) -> StreamConfig {
        const FORMATS: [(&str, StreamFormat); 5] = [
            ("json", StreamFormat::Json),
            ("avro", StreamFormat::Avro),
            ("json_schema", StreamFormat::JsonSchema),
            ("protobuf", StreamFormat::Protobuf),
            ("csv", StreamFormat::Csv),
        ];
        if let Some((key, place)) = columns.keys.first() {
            let message =
                format!("'{key}' PRIMARY KEY: a stream has none, write CREATE TABLE for the latest row per key");
            self.mistakes.push(at(*place, message));
        }
        let format = options.word("format", &FORMATS, &mut self.mistakes).unwrap_or_default();
        StreamConfig {
            name: name.to_string(),
            topic: options.text("topic").unwrap_or_else(|| name.to_string()),
            csv: self.csv(format, options),
            schema: self.own_schema(format, options),
            format,
            event_time: options.required("event_time", &mut self.mistakes),
            columns: columns.columns,
            checks: columns.checks,
            ..self.times(options)
        }
    }

    fn csv(&mut self, format: StreamFormat, options: &mut Options) -> CsvConfig {
        let csv = CsvConfig::default();
        if format != StreamFormat::Csv {
            options.misplaced(&["delimiter", "null_text"], "format = 'csv'", &mut self.mistakes);
            return csv;
        }
        CsvConfig {
            delimiter: options.character("delimiter", &mut self.mistakes).unwrap_or(csv.delimiter),
            null_text: options.text("null_text").unwrap_or(csv.null_text),
        }
    }

    fn own_schema(&mut self, format: StreamFormat, options: &mut Options) -> Option<OwnSchema> {
        if !matches!(format, StreamFormat::Avro | StreamFormat::Protobuf) {
            options.misplaced(&["schema"], "format = 'avro' or 'protobuf'", &mut self.mistakes);
        }
        let text = options.text("schema");
        if format != StreamFormat::Protobuf || text.is_none() {
            options.misplaced(&["message"], "format = 'protobuf' and a schema", &mut self.mistakes);
        }
        let message = options.text("message");
        text.map(|text| OwnSchema { text, imports: Vec::new(), message })
    }

    /// A stream's lengths of time, and where it was declared.
    fn times(&mut self, options: &mut Options) -> StreamConfig {
        let config = StreamConfig::default();
        let mut time = |key, default: i64| options.duration_ms(key, &mut self.mistakes).unwrap_or(default);
        StreamConfig {
            lateness_ms: time("lateness", config.lateness_ms),
            idle_timeout_ms: time("idle_timeout", config.idle_timeout_ms),
            max_ahead_ms: time("max_ahead", config.max_ahead_ms),
            source: self.source.to_string(),
            by_sql: true,
            ..config
        }
    }

    fn table(&mut self, name: &str, columns: Columns, options: &mut Options) -> TableConfig {
        let key = match columns.keys.as_slice() {
            [] => options.required("key", &mut self.mistakes),
            [(key, _)] => options.text("key").unwrap_or_else(|| key.clone()),
            [_, (second, place), ..] => {
                let message = format!("'{second}' is a second PRIMARY KEY: a table has one key column");
                self.mistakes.push(at(*place, message));
                String::new()
            }
        };
        if let Some(check) = columns.checks.first() {
            let place = next_or_last(&self.parser);
            self.mistakes.push(at(place, format!("CHECK '{}': tables have no checks, streams do", check.name)));
        }
        TableConfig {
            name: name.to_string(),
            key,
            columns: columns.columns,
            rows: TableRows::Topic(options.text("topic").unwrap_or_else(|| name.to_string())),
            source: self.source.to_string(),
        }
    }

    /// `name TYPE [NOT NULL] [PRIMARY KEY] [FROM 'path'], …, CONSTRAINT name CHECK (condition) [WARN])`.
    pub(super) fn columns(&mut self) -> Result<Columns, ParserError> {
        let mut found = Columns::default();
        loop {
            match self.parser.parse_keyword(Keyword::CONSTRAINT) {
                true => found.checks.push(self.check()?),
                false => self.column(&mut found)?,
            }
            if self.parser.consume_token(&Token::RParen) {
                return Ok(found);
            }
            if !self.parser.consume_token(&Token::Comma) {
                let token = self.parser.peek_token();
                return self.parser.expected("NOT NULL, PRIMARY KEY, FROM 'field', a comma or )", token);
            }
        }
    }

    pub(super) fn column(&mut self, found: &mut Columns) -> Result<(), ParserError> {
        let place = self.parser.peek_token().span.start;
        let name = normalized(&self.parser.parse_identifier()?);
        let mut column = ColumnConfig {
            sql_type: self.parser.parse_data_type()?.to_string(),
            name: name.clone(),
            ..ColumnConfig::default()
        };
        loop {
            if self.parser.parse_keywords(&[Keyword::NOT, Keyword::NULL]) {
                column.required = true;
            } else if self.parser.parse_keywords(&[Keyword::PRIMARY, Keyword::KEY]) {
                found.keys.push((name.clone(), place));
            } else if self.parser.parse_keyword(Keyword::FROM) {
                column.from = Some(self.parser.parse_literal_string()?);
            } else if self.takes_word(ADDED) {
                column.added = true;
            } else {
                found.columns.push(column);
                return Ok(());
            }
        }
    }

    fn check(&mut self) -> Result<CheckConfig, ParserError> {
        let name = normalized(&self.parser.parse_identifier()?);
        self.parser.expect_keyword(Keyword::CHECK)?;
        self.parser.expect_token(&Token::LParen)?;
        let sql = self.parser.parse_expr()?.to_string();
        self.parser.expect_token(&Token::RParen)?;
        let warns = self.takes_word("WARN");
        Ok(CheckConfig { name, sql, action: if warns { CheckAction::Warn } else { CheckAction::Reject } })
    }
}

impl Reading<'_> {
    /// Whether a word that is none of SQL's comes next; then it is read.
    fn takes_word(&mut self, word: &str) -> bool {
        let is_it =
            matches!(&self.parser.peek_token().token, Token::Word(found) if found.value.eq_ignore_ascii_case(word));
        if is_it {
            self.parser.next_token();
        }
        is_it
    }
}

/// A name as SQL reads it back exactly.
pub(super) fn quoted(name: &str) -> String {
    Ident::with_quote('"', name).to_string()
}
