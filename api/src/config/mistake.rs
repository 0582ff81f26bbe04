//! Mistakes in the configuration: all of them together, each with its place, its key and what to do.

use std::fmt;
use std::sync::Arc;

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A line of a file, counted from 1.
    Line(Arc<str>, usize),
    /// An environment variable.
    Variable(String),
    /// A command-line flag.
    Flag(String),
    /// The table of settings itself.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Line(file, 0) => write!(f, "{file}"),
            Origin::Line(file, line) => write!(f, "{file}:{line}"),
            Origin::Variable(name) => write!(f, "{name} (environment)"),
            Origin::Flag(name) => write!(f, "{name}"),
            Origin::Default => write!(f, "defaults"),
        }
    }
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mistake {
    /// Where it stands.
    pub origin: Origin,
    /// The key path, such as `topics[2].partitions`; empty when the mistake is not about one key.
    pub path: String,
    /// What is wrong and what to do about it.
    pub message: String,
}

/// All mistakes found, in the order of their places.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mistakes(pub Vec<Mistake>);

impl Mistakes {
    /// Notes one more.
    pub fn add(&mut self, origin: &Origin, path: impl Into<String>, message: impl Into<String>) {
        self.0.push(Mistake { origin: origin.clone(), path: path.into(), message: message.into() });
    }

    /// Nothing when there is none, itself in the order of places otherwise.
    pub fn into_result(mut self) -> Result<(), Mistakes> {
        if self.0.is_empty() {
            return Ok(());
        }
        self.0.sort();
        self.0.dedup();
        Err(self)
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        write!(f, "{count} mistake{} in the configuration, nothing was started:", if count == 1 { "" } else { "s" })?;
        for mistake in &self.0 {
            write!(f, "\n  {}: ", mistake.origin)?;
            if !mistake.path.is_empty() {
                write!(f, "{}: ", mistake.path)?;
            }
            write!(f, "{}", mistake.message.replace('\n', "\n    "))?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}

/// `; did you mean "x"?` for the nearest of `known`, or the whole list when nothing is near.
pub fn suggestion<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> String {
    let mut known: Vec<&str> = known.collect();
    known.sort_unstable();
    let near = known.iter().map(|candidate| (distance(word, candidate), *candidate)).min();
    match near {
        Some((distance, candidate)) if distance <= 1 + candidate.len() / 4 => format!("; did you mean {candidate}?"),
        Some(_) if known.len() <= 24 => format!("; known here: {}", known.join(", ")),
        _ => String::new(),
    }
}

/// Edits (insert, delete, replace, swap of neighbours) between two words, letter case aside.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.to_lowercase().chars().take(64).collect();
    let b: Vec<char> = b.to_lowercase().chars().take(64).collect();
    let mut rows = vec![vec![0usize; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let replace = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replace.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_misses_are_suggested() {
        let known = || ["retention", "data_dir", "durability"].into_iter();
        assert_eq!(suggestion("durabilty", known()), "; did you mean durability?");
        assert_eq!(suggestion("dta_dir", known()), "; did you mean data_dir?");
        assert_eq!(suggestion("Retenion", known()), "; did you mean retention?");
        assert_eq!(suggestion("colour", known()), "; known here: data_dir, durability, retention");
    }

    #[test]
    fn a_swap_is_one_edit() {
        assert_eq!(distance("bind", "bnid"), 1);
        assert_eq!(distance("", "abc"), 3);
    }
}
