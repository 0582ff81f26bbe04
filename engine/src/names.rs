//! Names: what may be one, and which one was probably meant.

use datafusion::sql::sqlparser::ast::{Ident, ObjectName};
use datafusion::sql::sqlparser::tokenizer::Word;

/// Longest name of a view or stream: topics derived from it (`<name>.rejected`) must stay within Kafka's 249 characters.
const NAME_BYTES_MAX: usize = 200;

/// Whether a name can be a topic's, with room for the suffixes the engine adds.
pub(crate) fn is_topic_name(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && name != "." && name != ".." && name.bytes().all(legal)
}

/// `, did you mean 'x'?` for the nearest of the known names, or a list of them when none is near.
pub(crate) fn closest<'a>(wanted: &str, known: impl Iterator<Item = &'a str>) -> String {
    let mut known: Vec<&str> = known.collect();
    known.sort_by_key(|name| distance(wanted, name));
    match known.first() {
        None => String::new(),
        Some(best) if distance(wanted, best) <= 1 + wanted.chars().count() / 3 => format!(", did you mean '{best}'?"),
        Some(_) => {
            known.truncate(20);
            known.sort_unstable();
            format!(", there are: {}", known.join(", "))
        }
    }
}

/// A name without a qualifier, as SQL means it.
pub(crate) fn single_name(name: &ObjectName) -> Option<String> {
    match name.0.as_slice() {
        [part] => part.as_ident().map(normalized),
        _ => None,
    }
}

/// SQL folds names without quotes to lower case.
pub(crate) fn normalized(ident: &Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    }
}

/// The name that a word of a statement is.
pub(crate) fn normalized_word(word: &Word) -> String {
    if word.quote_style.is_some() { word.value.clone() } else { word.value.to_lowercase() }
}

/// Levenshtein distance, case ignored.
fn distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.to_lowercase().chars().collect();
    let right: Vec<char> = right.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, from) in left.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in right.iter().enumerate() {
            let change = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_offered() {
        let known = ["user_id", "genre", "duration_ms"];
        assert_eq!(closest("gerne", known.into_iter()), ", did you mean 'genre'?");
        assert_eq!(closest("userid", known.into_iter()), ", did you mean 'user_id'?");
        assert_eq!(closest("zzz", known.into_iter()), ", there are: duration_ms, genre, user_id");
        assert_eq!(closest("x", [].into_iter()), "");
    }

    #[test]
    fn topic_names() {
        assert!(is_topic_name("plays_by-genre.v1"));
        for bad in ["", ".", "..", "a b", "a/b", "é", &"x".repeat(201)] {
            assert!(!is_topic_name(bad), "{bad}");
        }
    }
}
