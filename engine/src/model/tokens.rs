//! What a text or a list of skills is about, as small sets of numbers that are quick to compare.
//!
//! Letters are compared without case and accents: "Développeur" is "developpeur". A list has its elements as items; so has a
//! text that is a JSON array or has `,` `;` `|` or line ends in it. The items of any other text are its words, apart from
//! words that say nothing ("de", "the"). `+`, `#` and a point inside a word belong to it: C++, C#, Node.js.

use std::collections::HashMap;
use std::sync::Arc;

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// Longest text that is looked at, in bytes.
const TEXT_BYTES_MAX: usize = 1 << 16;
/// Most texts remembered at one time.
const KNOWN_MAX: usize = 20_000;
/// Between the elements of a list that is made one text.
pub(super) const SEPARATOR: char = '\u{1f}';

/// French and English words without meaning of their own, without accents.
const EMPTY_WORDS: [&str; 48] = [
    "a", "an", "and", "as", "at", "au", "aux", "avec", "by", "ce", "ces", "cette", "d", "dans", "de", "des", "du",
    "en", "et", "for", "from", "in", "is", "l", "la", "le", "les", "nous", "of", "on", "or", "ou", "our", "par",
    "pour", "que", "qui", "sur", "the", "to", "un", "une", "vous", "we", "will", "with", "you", "your",
];

/// The items of one side and all their words, as sorted numbers.
#[derive(Debug, PartialEq)]
pub(super) struct Terms {
    items: Vec<Item>,
    words: Vec<u32>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Item {
    name: u32,
    words: Vec<u32>,
}

/// Numbers for words, and the terms of texts already seen.
#[derive(Default)]
pub(super) struct Vocabulary {
    numbers: HashMap<String, u32>,
    known: HashMap<String, Arc<Terms>>,
}

impl Vocabulary {
    /// The terms of a text, or of a list joined by [`SEPARATOR`].
    pub(super) fn terms(&mut self, text: &str) -> Arc<Terms> {
        if let Some(known) = self.known.get(text) {
            return known.clone();
        }
        if self.known.len() >= KNOWN_MAX {
            self.known.clear();
        }
        let terms = Arc::new(self.read(text));
        self.known.insert(text.to_owned(), terms.clone());
        terms
    }

    fn read(&mut self, text: &str) -> Terms {
        let mut end = text.len().min(TEXT_BYTES_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let mut items: Vec<Item> = items(&text[..end]).iter().filter_map(|words| self.item(words)).collect();
        items.sort();
        items.dedup();
        let mut words: Vec<u32> = items.iter().flat_map(|item| item.words.iter().copied()).collect();
        words.sort_unstable();
        words.dedup();
        Terms { items, words }
    }

    fn item(&mut self, words: &[String]) -> Option<Item> {
        let name = (!words.is_empty()).then(|| self.number(words.join(" ")))?;
        Some(Item { name, words: words.iter().map(|word| self.number(word.clone())).collect() })
    }

    fn number(&mut self, word: String) -> u32 {
        let next = u32::try_from(self.numbers.len()).unwrap_or(u32::MAX);
        *self.numbers.entry(word).or_insert(next)
    }
}

impl Terms {
    /// Whether the item is among these, by name or by all of its words.
    fn has(&self, item: &Item) -> bool {
        self.items.binary_search_by_key(&item.name, |own| own.name).is_ok()
            || item.words.iter().all(|word| self.words.binary_search(word).is_ok())
    }

    /// How well this side covers what the other needs, 0 to 1: [`COVERED`] for the share of the need's items that are here,
    /// the rest for how much of both sides is common (Jaccard), so that of two that have everything the nearer one wins.
    pub(super) fn cover(&self, need: &Terms) -> f64 {
        if self.items.is_empty() || need.items.is_empty() {
            return 0.0;
        }
        let common = need.items.iter().filter(|item| self.has(item)).count() as f64;
        let (own, needed) = (self.items.len() as f64, need.items.len() as f64);
        let jaccard = common / (own + needed - common).max(common);
        COVERED * common / needed + (1.0 - COVERED) * jaccard
    }
}

/// Weight of the share of the need that is covered.
const COVERED: f64 = 0.8;

/// The words of each item.
fn items(text: &str) -> Vec<Vec<String>> {
    let trimmed = text.trim();
    if let Some(serde_json::Value::Array(elements)) =
        trimmed.starts_with('[').then(|| serde_json::from_str(trimmed).ok()).flatten()
    {
        return elements.iter().filter_map(|element| element.as_str()).map(words).collect();
    }
    let separators = [SEPARATOR, ',', ';', '|', '\n'];
    if text.contains(separators) {
        return text.split(separators).map(words).collect();
    }
    let meaning = words(text).into_iter().filter(|word| EMPTY_WORDS.binary_search(&word.as_str()).is_err());
    meaning.map(|word| vec![word]).collect()
}

/// Lower-case words without accents.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    for letter in text.nfkd().filter(|letter| !is_combining_mark(*letter)) {
        if letter.is_alphanumeric() || matches!(letter, '+' | '#' | '.') {
            push_plain(letter, &mut word);
        } else {
            end_word(&mut word, &mut words);
        }
    }
    end_word(&mut word, &mut words);
    words
}

/// Lower case, and the ligatures that do not come apart by themselves.
fn push_plain(letter: char, word: &mut String) {
    match letter {
        'œ' | 'Œ' => word.push_str("oe"),
        'æ' | 'Æ' => word.push_str("ae"),
        'ß' => word.push_str("ss"),
        'ø' | 'Ø' => word.push('o'),
        'ł' | 'Ł' => word.push('l'),
        other => word.extend(other.to_lowercase()),
    }
}

fn end_word(word: &mut String, words: &mut Vec<String>) {
    let kept = word.trim_matches('.');
    if kept.chars().any(char::is_alphanumeric) {
        words.push(kept.to_owned());
    }
    word.clear();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cover(profile: &str, need: &str) -> f64 {
        let mut vocabulary = Vocabulary::default();
        let (profile, need) = (vocabulary.terms(profile), vocabulary.terms(need));
        profile.cover(&need)
    }

    #[test]
    fn words_without_meaning_are_in_order() {
        let mut sorted = EMPTY_WORDS;
        sorted.sort_unstable();
        assert_eq!(sorted, EMPTY_WORDS);
    }

    #[test]
    fn texts_come_apart() {
        let words = |text| items(text).into_iter().map(|item| item.join(" ")).collect::<Vec<_>>();
        assert_eq!(words("Développeur de la Donnée"), ["developpeur", "donnee"]);
        assert_eq!(
            words("Python, C++; Node.js | Gestion de projet"),
            ["python", "c++", "node.js", "gestion de projet"]
        );
        assert_eq!(words("[\"React Native\", \"C#\"]"), ["react native", "c#"]);
        assert_eq!(words("cœur d'équipe."), ["coeur", "equipe"]);
        assert_eq!(words(""), [""; 0]);
        assert_eq!(words("... --"), [""; 0]);
    }

    #[test]
    fn scores_are_what_the_formula_says() {
        assert_eq!(cover("Python, SQL", "python, sql"), 1.0);
        assert_eq!(cover("Python, SQL, Java, Docker", "Python, SQL"), 0.8 + 0.2 * 0.5);
        assert_eq!(cover("Python, Java", "Python, SQL"), 0.8 * 0.5 + 0.2 / 3.0);
        assert_eq!(cover("Java, Go", "Python, SQL"), 0.0);
        assert_eq!(cover("", "Python"), 0.0);
        assert_eq!(cover("Python", ""), 0.0);
    }

    #[test]
    fn an_item_is_found_by_its_words_in_prose() {
        assert!(cover("Five years of machine learning and Python", "Machine Learning, Python") > 0.8);
        assert!(cover("Java, Spring", "Javascript") == 0.0);
    }
}
