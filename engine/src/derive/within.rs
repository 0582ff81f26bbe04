//! `JOIN stream WITHIN 1 HOUR ON …`, which the grammar of SQL does not have: ksqlDB's words for streams that are joined where
//! their event times are near.

use std::collections::BTreeMap;

use datafusion::sql::sqlparser::parser::ParserError;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::definitions::duration_ms;

const FORM: &str = "write JOIN stream WITHIN 1 HOUR ON …, or for another time before than after: \
                    ON … AND right.time BETWEEN left.time - INTERVAL '10' MINUTE AND left.time + INTERVAL '1' HOUR";

/// Lengths in milliseconds by the number of the SELECT that they stand in.
pub(super) type Within = BTreeMap<usize, i64>;

/// Takes `WITHIN <number> <unit>` or `WITHIN INTERVAL '…' <unit>` out, one for each SELECT.
pub(super) fn take_within(tokens: &mut Vec<TokenWithSpan>) -> Result<Within, ParserError> {
    let mut found = Within::new();
    let (mut at, mut selects) = (0, 0_usize);
    while at < tokens.len() {
        let Some((text, count)) = length(&tokens[at..]) else {
            selects += usize::from(word(tokens.get(at)).as_deref() == Some("SELECT"));
            at += 1;
            continue;
        };
        let ms =
            text.as_deref().and_then(duration_ms).ok_or_else(|| wrong(format!("WITHIN takes one length: {FORM}")))?;
        if found.insert(selects.saturating_sub(1), ms).is_some() {
            return Err(wrong("one WITHIN, as two streams are joined: join a third in a stream over this one".into()));
        }
        tokens.drain(at..at + count);
        if word(tokens.get(at)).as_deref() == Some("GRACE") {
            let message =
                "GRACE PERIOD is the setting lateness of the joined stream: write WITH (lateness = '10 minutes')";
            return Err(wrong(message.into()));
        }
    }
    Ok(found)
}

/// The length of time behind a WITHIN that begins here, and how many tokens both are; no text where it cannot be one.
fn length(tokens: &[TokenWithSpan]) -> Option<(Option<String>, usize)> {
    if word(tokens.first()).as_deref() != Some("WITHIN") {
        return None;
    }
    let unit = |at: usize| word(tokens.get(at));
    match &tokens.get(1)?.token {
        Token::Number(number, _) => Some((unit(2).map(|unit| format!("{number} {unit}")), 3)),
        Token::Word(_) if word(tokens.get(1)).as_deref() == Some("INTERVAL") => match &tokens.get(2)?.token {
            Token::SingleQuotedString(text) => match unit(3).filter(|unit| unit != "ON" && unit != "USING") {
                Some(unit) => Some((Some(format!("{text} {unit}")), 4)),
                None => Some((Some(text.clone()), 3)),
            },
            _ => Some((None, 2)),
        },
        Token::LParen => Some((None, 1)),
        _ => None,
    }
}

/// A word outside quotes, in capitals.
fn word(token: Option<&TokenWithSpan>) -> Option<String> {
    match &token?.token {
        Token::Word(word) if word.quote_style.is_none() => Some(word.value.to_ascii_uppercase()),
        _ => None,
    }
}

fn wrong(message: String) -> ParserError {
    ParserError::ParserError(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse_emit::tokens_and_emit;

    #[test]
    fn lengths_are_taken_out() {
        let cases = [
            ("FROM a JOIN b WITHIN 1 HOUR ON x", Some((0, 3_600_000)), "FROM a JOIN b ON x"),
            ("FROM a JOIN b AS c within 90 seconds USING (x)", Some((0, 90_000)), "FROM a JOIN b AS c USING ( x )"),
            ("FROM a JOIN b WITHIN INTERVAL '2' MINUTE ON x", Some((0, 120_000)), "FROM a JOIN b ON x"),
            ("FROM a JOIN b WITHIN INTERVAL '2 hours' ON x", Some((0, 7_200_000)), "FROM a JOIN b ON x"),
            (
                "SELECT x FROM a UNION ALL SELECT x FROM b JOIN c WITHIN 1 DAY ON y",
                Some((1, 86_400_000)),
                "SELECT x FROM a UNION ALL SELECT x FROM b JOIN c ON y",
            ),
            ("SELECT within FROM a", None, "SELECT within FROM a"),
            ("SELECT \"WITHIN\" FROM a", None, "SELECT \"WITHIN\" FROM a"),
            ("SELECT p(x) WITHIN GROUP (ORDER BY y) FROM a", None, "SELECT p ( x ) WITHIN GROUP ( ORDER BY y ) FROM a"),
        ];
        for (text, expected, rest) in cases {
            let (mut tokens, _) = tokens_and_emit(text).unwrap();
            assert_eq!(take_within(&mut tokens).unwrap(), expected.into_iter().collect(), "{text}");
            let left: Vec<String> = tokens.iter().map(|token| token.token.to_string()).collect();
            assert_eq!(left.join(" "), rest);
        }
    }

    #[test]
    fn other_lengths_say_what_to_write() {
        let cases = [
            ("FROM a JOIN b WITHIN (1 HOUR, 2 HOURS) ON x", "BETWEEN"),
            ("FROM a JOIN b WITHIN 1 MONTH ON x", "WITHIN takes one length"),
            ("FROM a JOIN b WITHIN 1.5 HOURS ON x", "WITHIN takes one length"),
            ("FROM a JOIN b WITHIN 1 HOUR GRACE PERIOD 5 MINUTES ON x", "lateness"),
            ("FROM a JOIN b WITHIN 1 HOUR ON x JOIN c WITHIN 1 HOUR ON y", "one WITHIN"),
        ];
        for (text, expected) in cases {
            let (mut tokens, _) = tokens_and_emit(text).unwrap();
            let mistake = take_within(&mut tokens).unwrap_err().to_string();
            assert!(mistake.contains(expected), "{text}: {mistake}");
        }
    }
}
