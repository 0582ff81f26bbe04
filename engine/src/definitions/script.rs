//! The text of a script: its statements, where each stands, and which texts are for the engine at all.

use std::ops::Range;

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};

use super::statement::{Action, Declares, read_action};
use super::{Kind, Mistake};
use crate::names::normalized_word;

/// Longest script that is read.
const SCRIPT_BYTES_MAX: usize = 1 << 20;
/// Most statements of one script.
const STATEMENTS_MAX: usize = 1_000;

/// What a text asks of the engine.
#[derive(Debug)]
pub enum Command {
    /// Statements that change what is declared.
    Change(Script),
    /// `SHOW STREAMS`, `SHOW VIEWS`.
    Show(Kind),
    /// `DESCRIBE name`.
    Describe(String),
    /// `EXPLAIN MATERIALIZED VIEW name`.
    Explain(String),
    /// `EXPLAIN CREATE MATERIALIZED VIEW …`, or `EXPLAIN CREATE STREAM …` without columns: a script of one statement that is not
    /// to be applied.
    ExplainNew(Script),
}

/// Statements that are applied together or not at all.
#[derive(Debug)]
pub struct Script {
    pub(super) statements: Vec<Statement>,
}

/// One statement and where it stands.
#[derive(Debug)]
pub(super) struct Statement {
    /// From its first word to its end, without the semicolon.
    pub(super) text: String,
    /// Without white space and comments.
    pub(super) tokens: Vec<TokenWithSpan>,
    pub(super) action: Action,
}

/// Reads a text. None when it is not for the engine: a query, or what nobody takes.
///
/// # Errors
/// Everything that is wrong with its statements.
pub fn command(text: &str) -> Result<Option<Command>, Vec<Mistake>> {
    if text.len() > SCRIPT_BYTES_MAX {
        return Ok(None);
    }
    let tokens = match tokens(text) {
        Ok(tokens) => tokens,
        // Whoever takes it says what is wrong.
        Err(mistake) if starts_change(&leading_words(text)) => return Err(vec![mistake]),
        Err(_) => return Ok(None),
    };
    let statements = split(tokens, text);
    let heads: Vec<Vec<String>> = statements.iter().map(|(tokens, _)| words(tokens)).collect();
    if let ([head], [(tokens, _)]) = (heads.as_slice(), statements.as_slice())
        && let Some(asked) = asked(head, tokens)
    {
        return Ok(Some(asked));
    }
    if let ([head], [(tokens, range)]) = (heads.as_slice(), statements.as_slice())
        && let (true, [_, declaration @ ..]) = (explains_change(head), tokens.as_slice())
    {
        return explained(declaration, &text[..range.end]).map(Some);
    }
    if !heads.iter().any(|head| starts_change(head)) {
        return Ok(None);
    }
    if statements.len() > STATEMENTS_MAX {
        let message = format!("{} statements: at most {STATEMENTS_MAX} are taken at once", statements.len());
        return Err(vec![Mistake { line: 1, column: 1, message }]);
    }
    let mut script = Script { statements: Vec::new() };
    let mut mistakes = Vec::new();
    for (tokens, range) in statements {
        match read_action(&tokens, &text[..range.end], "") {
            Ok(action) => {
                let text = text[range].trim_end().to_string();
                script.statements.push(Statement { text, tokens, action });
            }
            Err(found) => mistakes.extend(found),
        }
    }
    if mistakes.is_empty() { Ok(Some(Command::Change(script))) } else { Err(mistakes) }
}

impl Statement {
    /// Where it begins, or where the first name stands that a message has in quotes.
    pub(super) fn mistake(&self, message: impl Into<String>) -> Mistake {
        let message = message.into();
        let quoted = message.split('\'').skip(1).step_by(2);
        let named = quoted.filter(|name| !name.is_empty()).find_map(|name| {
            let is_name = |token: &&TokenWithSpan| match &token.token {
                Token::Word(word) => normalized_word(word) == name,
                Token::SingleQuotedString(text) => text == name,
                _ => false,
            };
            self.tokens.iter().find(is_name)
        });
        let start = named.or(self.tokens.first()).map_or(Location { line: 1, column: 1 }, |token| token.span.start);
        Mistake { line: start.line, column: start.column, message }
    }
}

/// The tokens of a text without white space and comments.
pub(super) fn tokens(text: &str) -> Result<Vec<TokenWithSpan>, Mistake> {
    let tokens = Tokenizer::new(&GenericDialect {}, text).tokenize_with_location();
    let mut tokens = tokens.map_err(|error| Mistake {
        line: error.location.line,
        column: error.location.column,
        message: error.message,
    })?;
    tokens.retain(|token| !matches!(token.token, Token::Whitespace(_) | Token::EOF));
    Ok(tokens)
}

/// The byte of a place: its column counts characters.
pub(super) fn byte_at(text: &str, place: Location) -> usize {
    let before = usize::try_from(place.line.saturating_sub(1)).unwrap_or(usize::MAX);
    let line: usize = text.split_inclusive('\n').take(before).map(str::len).sum();
    let within = usize::try_from(place.column.saturating_sub(1)).unwrap_or(usize::MAX);
    line + text[line..].chars().take(within).map(char::len_utf8).sum::<usize>()
}

/// The statements, each with its part of the text.
fn split(tokens: Vec<TokenWithSpan>, text: &str) -> Vec<(Vec<TokenWithSpan>, Range<usize>)> {
    let mut statements = Vec::new();
    let mut current: Vec<TokenWithSpan> = Vec::new();
    for token in tokens {
        if token.token != Token::SemiColon {
            current.push(token);
            continue;
        }
        if let Some(first) = current.first() {
            let range = byte_at(text, first.span.start)..byte_at(text, token.span.start);
            statements.push((std::mem::take(&mut current), range));
        }
    }
    if let Some(first) = current.first() {
        let range = byte_at(text, first.span.start)..text.len();
        statements.push((current, range));
    }
    statements
}

/// The first words, in capitals.
fn words(tokens: &[TokenWithSpan]) -> Vec<String> {
    let word = |token: &TokenWithSpan| match &token.token {
        Token::Word(word) if word.quote_style.is_none() => Some(word.value.to_ascii_uppercase()),
        _ => None,
    };
    tokens.iter().take(5).map_while(word).collect()
}

/// The same of a text that cannot be taken apart.
fn leading_words(text: &str) -> Vec<String> {
    text.split_whitespace().take(5).map(str::to_ascii_uppercase).collect()
}

fn starts_change(head: &[String]) -> bool {
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    matches!(
        head.as_slice(),
        ["CREATE" | "ALTER" | "DROP", "STREAM" | "TABLE" | "MATERIALIZED" | "VIEW", ..]
            | ["CREATE", "OR", "REPLACE", ..]
            | ["PAUSE" | "RESUME", "MATERIALIZED" | "VIEW", ..]
    )
}

fn explains_change(head: &[String]) -> bool {
    matches!(head, [first, change @ ..] if first == "EXPLAIN" && starts_change(change))
}

/// The declaration behind `EXPLAIN`, which ends where `text` does.
fn explained(tokens: &[TokenWithSpan], text: &str) -> Result<Command, Vec<Mistake>> {
    let action = read_action(tokens, text, "")?;
    let tells = |declares: &Declares| declares.kind() == Kind::View || declares.without_columns().is_some();
    let is_explained = matches!(&action, Action::Create { declares, .. } if tells(declares));
    let from = tokens.first().map_or(text.len(), |first| byte_at(text, first.span.start));
    let statement = Statement { text: text[from..].trim_end().to_string(), tokens: tokens.to_vec(), action };
    if is_explained {
        return Ok(Command::ExplainNew(Script { statements: vec![statement] }));
    }
    Err(vec![statement.mistake(
        "EXPLAIN takes CREATE MATERIALIZED VIEW, CREATE STREAM without columns, or MATERIALIZED VIEW and the name of one",
    )])
}

/// A statement that only asks.
fn asked(head: &[String], tokens: &[TokenWithSpan]) -> Option<Command> {
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    let last = match &tokens.last()?.token {
        Token::Word(word) => normalized_word(word),
        _ => return None,
    };
    match (head.as_slice(), tokens.len()) {
        (["SHOW", "STREAMS"], 2) => Some(Command::Show(Kind::Stream)),
        (["SHOW", "VIEWS"], 2) | (["SHOW", "MATERIALIZED", "VIEWS"], 3) => Some(Command::Show(Kind::View)),
        (["DESCRIBE" | "DESC", ..], 2) => Some(Command::Describe(last)),
        (["DESCRIBE" | "DESC", "STREAM" | "TABLE" | "VIEW", ..], 3) => Some(Command::Describe(last)),
        (["EXPLAIN", "VIEW", ..], 3) | (["EXPLAIN", "MATERIALIZED", "VIEW", ..], 4) => Some(Command::Explain(last)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(text: &str) -> Script {
        match command(text) {
            Ok(Some(Command::Change(script))) => script,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn statements_are_cut_at_semicolons_outside_of_texts() {
        let script = change(
            "-- é; a comment\nDROP STREAM a ;\n;\n CREATE MATERIALIZED VIEW \"v.1\" AS\n  SELECT count(*) AS n FROM s WHERE x = 'é;' -- end\n;",
        );
        let texts: Vec<&str> = script.statements.iter().map(|statement| statement.text.as_str()).collect();
        assert_eq!(
            texts,
            [
                "DROP STREAM a",
                "CREATE MATERIALIZED VIEW \"v.1\" AS\n  SELECT count(*) AS n FROM s WHERE x = 'é;' -- end"
            ]
        );
        let mistake = script.statements[1].mistake("no column 'n' here");
        assert_eq!((mistake.line, mistake.column), (5, 22));
        let mistake = script.statements[1].mistake("no such thing");
        assert_eq!((mistake.line, mistake.column), (4, 2));
    }

    #[test]
    fn what_is_not_for_the_engine_is_left_alone() {
        for text in [
            "SELECT 1; SELECT 2",
            "SHOW TABLES",
            "",
            "CREATE EXTERNAL TABLE t",
            "DESCRIBE a.b",
            "SELECT 'x",
            "INSERT INTO t VALUES (1)",
        ] {
            assert!(matches!(command(text), Ok(None)), "{text}");
        }
        assert!(matches!(command("show streams;"), Ok(Some(Command::Show(Kind::Stream)))));
        assert!(matches!(command("DESC \"Plays\""), Ok(Some(Command::Describe(name))) if name == "Plays"));
        assert!(matches!(command("describe Plays"), Ok(Some(Command::Describe(name))) if name == "plays"));
        assert!(matches!(command("EXPLAIN MATERIALIZED VIEW v"), Ok(Some(Command::Explain(name))) if name == "v"));
        assert!(command("DROP STREAM 'x").is_err());
        let explained = command("explain  CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n FROM s ; ");
        let Ok(Some(Command::ExplainNew(script))) = explained else { panic!("{explained:?}") };
        assert_eq!(script.statements[0].text, "CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n FROM s");
        let explained = command("EXPLAIN CREATE STREAM s WITH (event_time = 'ts')");
        assert!(matches!(explained, Ok(Some(Command::ExplainNew(_)))), "{explained:?}");
        assert!(command("EXPLAIN CREATE STREAM s (ts TIMESTAMP) WITH (event_time = 'ts')").is_err());
        let wrong = command("EXPLAIN DROP STREAM s").unwrap_err();
        assert!(wrong[0].message.contains("takes CREATE MATERIALIZED VIEW") && wrong[0].column == 9, "{wrong:?}");
    }
}
