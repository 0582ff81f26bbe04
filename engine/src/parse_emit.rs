//! `EMIT CHANGES` and `EMIT FINAL` at the end of a view's or stream's text, which the grammar of SQL does not have.

use datafusion::sql::sqlparser::ast::Statement;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

use crate::windows::Windows;

/// When a view's topic is told of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Emit {
    /// At each change of it.
    Changes,
    /// Once, when its window is closed.
    Final,
}

impl Emit {
    /// The word in SQL.
    pub fn word(self) -> &'static str {
        match self {
            Emit::Changes => "CHANGES",
            Emit::Final => "FINAL",
        }
    }

    /// What holds for these windows when nothing is said.
    pub(crate) fn by_default(windows: Option<Windows>) -> Emit {
        match windows {
            Some(Windows::Hop(_)) => Emit::Final,
            _ => Emit::Changes,
        }
    }

    /// What holds for these windows when it is asked for; Err says what to write instead.
    pub(crate) fn asked(self, windows: Option<Windows>) -> Result<Emit, String> {
        match (self, windows) {
            (Emit::Final, None) => {
                Err("EMIT FINAL tells each window once, when it is closed, and a view without a window has \
                 none: write EMIT CHANGES, or group by TUMBLE(ts, INTERVAL '1' HOUR), HOP(…) or SESSION(…)"
                    .into())
            }
            (Emit::Changes, Some(Windows::Hop(_))) => {
                Err("EMIT CHANGES is not there for HOP, where one row changes size / slide windows: write EMIT FINAL, \
                 which HOP has by itself; reads show open windows too"
                    .into())
            }
            (asked, _) => Ok(asked),
        }
    }
}

/// The statements of a text, whose last two words may be EMIT CHANGES or EMIT FINAL.
pub(crate) fn parse_with_emit(sql: &str) -> Result<(Vec<Statement>, Option<Emit>), ParserError> {
    let (tokens, emit) = tokens_and_emit(sql)?;
    let statements = Parser::new(&GenericDialect {}).with_tokens_with_locations(tokens).parse_statements()?;
    Ok((statements, emit))
}

/// The tokens of a text before these two words, and what they say.
pub(crate) fn tokens_and_emit(sql: &str) -> Result<(Vec<TokenWithSpan>, Option<Emit>), ParserError> {
    let mut tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize_with_location()?;
    let emit = take_emit(&mut tokens);
    Ok((tokens, emit))
}

/// Takes the two words off the end, before `FROM s EMIT …` is read as another name for the stream.
fn take_emit(tokens: &mut Vec<TokenWithSpan>) -> Option<Emit> {
    tokens.retain(|token| !matches!(token.token, Token::Whitespace(_) | Token::EOF));
    while tokens.last().is_some_and(|token| token.token == Token::SemiColon) {
        tokens.pop();
    }
    let word = |at: usize| match &tokens[at].token {
        Token::Word(word) if word.quote_style.is_none() => Some(word.value.to_ascii_uppercase()),
        _ => None,
    };
    let at = tokens.len().checked_sub(2)?;
    let emit = match (word(at)?.as_str(), word(at + 1)?.as_str()) {
        ("EMIT", "CHANGES") => Emit::Changes,
        ("EMIT", "FINAL") => Emit::Final,
        _ => return None,
    };
    tokens.truncate(at);
    Some(emit)
}
