//! Subscriptions by regular expression: RE2's syntax, matched against whole names. Looking them up takes time that grows
//! only with the number of topics and the length of the expression, and both are bounded.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use regex::{Regex, RegexBuilder};

use crate::error::{Error, Kind, Result};

/// Longest expression, in bytes.
pub(crate) const REGEX_BYTES_MAX: usize = 4096;
/// Memory for one compiled expression.
const COMPILED_BYTES_MAX: usize = 1 << 20;
/// Most different expressions of one group.
pub(crate) const REGEXES_MAX: usize = 256;

/// Checks an expression and makes it ready.
///
/// # Errors
/// `InvalidRegularExpression`, with the place.
pub(crate) fn compile(text: &str) -> Result<Regex> {
    let fault = |reason: String| {
        let message = format!("the regular expression '{}' is not valid: {reason}", text.escape_debug());
        Error::new(Kind::InvalidRegularExpression, message)
    };
    if text.len() > REGEX_BYTES_MAX {
        return Err(fault(format!("it is longer than {REGEX_BYTES_MAX} bytes")));
    }
    let translated = translate(text);
    let build = |pattern: &str| RegexBuilder::new(pattern).size_limit(COMPILED_BYTES_MAX).build();
    // alone first, so that it cannot close the parenthesis that is put around it
    build(&translated).map_err(|error| fault(error.to_string()))?;
    build(&format!(r"\A(?:{translated})\z")).map_err(|error| fault(error.to_string()))
}

/// RE2's syntax in the words of the regex crate: `\Q…\E` is plain text, and inside a class `[`, `&&`, `--` and `~~` are
/// plain characters.
fn translate(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    let mut rest = text;
    let mut in_class = false;
    while let Some(c) = rest.chars().next() {
        let escaped = rest.chars().nth(1);
        let (taken, written) = match c {
            '\\' if escaped == Some('Q') => {
                let literal = &rest[2..];
                let end = literal.find(r"\E").unwrap_or(literal.len());
                let after = if end < literal.len() { 2 } else { 0 };
                (2 + end + after, regex::escape(&literal[..end]))
            }
            '\\' => {
                let length = 1 + escaped.map_or(0, char::len_utf8);
                (length, rest[..length].to_owned())
            }
            '[' if !in_class => {
                in_class = true;
                let negated = if rest[1..].starts_with('^') { "^" } else { "" };
                // a bracket that comes first is a member of the class
                let first = if rest[1 + negated.len()..].starts_with(']') { r"\]" } else { "" };
                (1 + negated.len() + usize::from(!first.is_empty()), format!("[{negated}{first}"))
            }
            '[' if rest.starts_with("[:") => {
                let end = rest.find(":]").map_or(1, |end| end + 2);
                (end, rest[..end].to_owned())
            }
            '[' => (1, r"\[".to_owned()),
            ']' => {
                in_class = false;
                (1, "]".to_owned())
            }
            '&' | '~' if in_class => (1, format!(r"\{c}")),
            '-' if in_class && rest.starts_with("--") => (1, r"\-".to_owned()),
            other => (other.len_utf8(), other.to_string()),
        };
        out.push_str(&written);
        rest = &rest[taken..];
    }
    out
}

/// Which of the names each expression stands for. Expressions that are not valid stand for nothing.
pub(crate) fn resolve(texts: &BTreeSet<Arc<str>>, names: &[Arc<str>]) -> BTreeMap<Arc<str>, BTreeSet<Arc<str>>> {
    let resolved = texts.iter().map(|text| {
        let topics = compile(text).map_or_else(
            |_| BTreeSet::new(),
            |regex| names.iter().filter(|name| regex.is_match(name)).cloned().collect(),
        );
        (text.clone(), topics)
    });
    resolved.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_match_whole_names_in_the_syntax_of_re2() {
        let cases: &[(&str, &[&str], &[&str])] = &[
            ("a.c", &["abc", "a.c"], &["abcd", "xabc"]),
            ("foo|bar", &["foo", "bar"], &["foobar", "xbar"]),
            (r"\Qa.c\E-\d+", &["a.c-12"], &["abc-1", "a.c-"]),
            (r"\Qa.(c", &["a.(c"], &["aac"]),
            ("[[:alpha:]]+", &["abc"], &["ab1"]),
            ("[a[]+", &["a", "[a"], &["b"]),
            ("[]a]+", &["]a"], &["b"]),
            ("[^]a]+", &["bc"], &["a", "]"]),
            ("[a&&b]+", &["a&b"], &["c"]),
            ("[a~~b]+", &["a~b"], &["c"]),
            ("(?i)ABC", &["abc"], &["abd"]),
            ("(?P<name>a)b", &["ab"], &["a"]),
            (r"orders-\w{2,3}", &["orders-eu"], &["orders-europe"]),
            (".*", &["", "anything"], &[]),
            (r"\[a\]", &["[a]"], &["a"]),
        ];
        for (text, matching, other) in cases {
            let regex = compile(text).unwrap_or_else(|error| panic!("{error}"));
            assert!(matching.iter().all(|name| regex.is_match(name)), "{text}");
            assert!(!other.iter().any(|name| regex.is_match(name)), "{text}");
        }
    }

    #[test]
    fn what_is_not_valid_or_too_large_is_refused() {
        let long = "a".repeat(REGEX_BYTES_MAX + 1);
        for text in ["[", "(", "a)(b", "*", r"\", "(?=a)", r"(a)\1", "a{100000}", &long] {
            assert_eq!(compile(text).unwrap_err().kind, Kind::InvalidRegularExpression, "{text}");
        }
    }

    #[test]
    fn names_are_found() {
        let names: Vec<Arc<str>> = ["a1", "a2", "b1"].map(Into::into).to_vec();
        let texts = ["a.*".into(), "[".into()].into();
        let resolved = resolve(&texts, &names);
        assert_eq!(resolved["a.*"], ["a1".into(), "a2".into()].into());
        assert_eq!(resolved["["].len(), 0);
    }
}
