//! SQL of the configuration with named parameters (`$skill`, `$from`). A name becomes a place (`$1`), and what a person
//! chose goes beside the statement as a value: no text of a request is ever part of a statement.

use broker::TimestampMs;
use serde_json::{Value, json};

use crate::config::FilterConfig;
use crate::output::time_text;
use crate::panels::Chosen;

/// `$from` of all of history.
const BEGINNING: &str = "1970-01-01T00:00:00Z";
/// `$to` of a range that is open.
const END: &str = "2200-01-01T00:00:00Z";
/// What there is besides the filters.
const ALWAYS: [&str; 3] = ["from", "to", "now"];
/// What stands between the values of a filter that has several.
pub const SEPARATOR: &str = "|";

/// A statement whose parameters have places.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    declared: String,
    text: String,
    /// The names, in the order of their places.
    names: Vec<String>,
}

impl Question {
    /// Reads a statement; a name that is no filter is a mistake.
    pub fn bind(sql: &str, filters: &[FilterConfig]) -> Result<Question, String> {
        let mut question =
            Question { declared: sql.to_owned(), text: String::with_capacity(sql.len()), names: Vec::new() };
        let mut rest = sql;
        while let Some(c) = rest.chars().next() {
            let length = token(rest);
            let (part, after) = rest.split_at(length);
            match part.strip_prefix('$').filter(|_| c == '$' && !part.starts_with("$$")) {
                Some(name) => question.place(name, filters)?,
                None => question.text.push_str(part),
            }
            rest = after;
        }
        Ok(question)
    }

    fn place(&mut self, name: &str, filters: &[FilterConfig]) -> Result<(), String> {
        let known = || ALWAYS.into_iter().chain(filters.iter().map(|filter| filter.name.as_str()));
        if !known().any(|known| known == name) {
            let known: Vec<String> = known().map(|name| format!("${name}")).collect();
            return Err(format!(
                "SQL asks for ${name}, which is no parameter: there are {}; declare it under [[dashboards.filters]]",
                known.join(", ")
            ));
        }
        let at = self.names.iter().position(|known| known == name).unwrap_or_else(|| {
            self.names.push(name.to_owned());
            self.names.len() - 1
        });
        self.text.push_str(&format!("${}", at + 1));
        Ok(())
    }

    /// The statement with places instead of names.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The statement as declared.
    pub fn declared(&self) -> &str {
        &self.declared
    }

    /// Whether it has a parameter of that name.
    pub fn asks_for(&self, name: &str) -> bool {
        self.names.iter().any(|known| known == name)
    }

    /// The values of its places.
    pub fn params(
        &self,
        chosen: &[Chosen],
        (from, to): (Option<TimestampMs>, Option<TimestampMs>),
        now: TimestampMs,
    ) -> Vec<Value> {
        let value = |name: &String| match name.as_str() {
            "from" => json!(from.map_or_else(|| BEGINNING.to_owned(), time_text)),
            "to" => json!(to.map_or_else(|| END.to_owned(), time_text)),
            "now" => json!(time_text(now)),
            name => {
                let values =
                    chosen.iter().find(|chosen| chosen.name == name).map(|chosen| chosen.values.join(SEPARATOR));
                json!(values.unwrap_or_default())
            }
        };
        self.names.iter().map(value).collect()
    }
}

/// Bytes of what stands at the beginning: a quoted text, a quoted name, a comment, a `$name`, or one letter.
fn token(sql: &str) -> usize {
    let until = |open: usize, close: &str| sql[open..].find(close).map_or(sql.len(), |at| open + at + close.len());
    let word = |from: usize| {
        let name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        sql[from..].find(|c| !name(c)).map_or(sql.len(), |at| from + at)
    };
    match sql.as_bytes() {
        [b'-', b'-', ..] => until(2, "\n"),
        [b'/', b'*', ..] => until(2, "*/"),
        // A doubled quote ends one token and begins the next, which comes to the same.
        [b'\'', ..] => until(1, "'"),
        [b'"', ..] => until(1, "\""),
        [b'$', b'$', ..] => until(2, "$$"),
        [b'$', ..] => word(1),
        _ => sql.chars().next().map_or(0, char::len_utf8),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters() -> Vec<FilterConfig> {
        vec![FilterConfig { name: "skill".into(), column: "skill".into(), ..FilterConfig::default() }]
    }

    #[test]
    fn names_become_places_outside_of_texts_and_comments() {
        let sql = "SELECT '$skill ''$from''', \"$to\" -- $nothing\n/* $no */ FROM t WHERE ($skill = '' OR s = $skill) AND d >= $from";
        let question = Question::bind(sql, &filters()).unwrap();
        assert_eq!(
            question.text(),
            "SELECT '$skill ''$from''', \"$to\" -- $nothing\n/* $no */ FROM t WHERE ($1 = '' OR s = $1) AND d >= $2"
        );
        assert!(question.asks_for("from") && !question.asks_for("to"));
        let chosen = |values: &[&str]| {
            vec![Chosen {
                name: "skill".into(),
                column: "skill".into(),
                values: values.iter().map(|value| (*value).to_owned()).collect(),
            }]
        };
        let params = |values: &[&str]| question.params(&chosen(values), (Some(1_795_176_000_000), None), 0);
        assert_eq!(params(&["a'; DROP", "b"]), [json!("a'; DROP|b"), json!("2026-11-20T12:00:00Z")]);
        assert_eq!(params(&[])[0], "");
        assert_eq!(question.params(&[], (None, None), 0), [json!(""), json!(BEGINNING)]);
    }

    #[test]
    fn an_unknown_name_is_told_with_the_known_ones() {
        let message = Question::bind("SELECT $skil", &filters()).unwrap_err();
        assert!(message.contains("$skil,") && message.contains("$from, $to, $now, $skill"), "{message}");
        assert!(Question::bind("SELECT $1", &filters()).is_err());
        assert!(Question::bind("SELECT 'é' || '$", &filters()).is_ok());
    }
}
