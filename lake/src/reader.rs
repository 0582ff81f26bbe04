//! Who reads, and what of each table they see. Decided by name when a query is planned, so no text of a query evades it:
//! what is closed has no name in the query's catalog, and what is seen in part is a table that gives only that part.

use std::collections::BTreeMap;
use std::fmt;

/// A filter of rows and columns of one table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RowFilter {
    /// The rows that are seen, as a condition of SQL over the table's columns; none: all.
    pub condition: Option<String>,
    /// Columns that are seen as null.
    pub masked: Vec<String>,
}

/// What a reader sees of a table.
#[derive(Clone, Debug, PartialEq)]
pub enum Sight<'a> {
    /// All of it.
    Whole,
    /// Part of it.
    Part(&'a RowFilter),
    /// Nothing, and what to do about it.
    Closed(String),
}

/// A reader who does not see everything. Never changes after it is made.
pub struct Reader {
    /// The name of the token that it reads by.
    pub name: String,
    /// Patterns of names that it may read; `*` stands for any letters.
    pub names: Vec<String>,
    /// Its filters by table.
    pub filters: BTreeMap<String, RowFilter>,
    /// Names that are computed from a table that it sees in part, and that table's name: closed without a filter of their
    /// own, because their rows are made of rows that it may not see.
    pub tainted: BTreeMap<String, String>,
}

impl Reader {
    /// What it sees of a table, a view or a topic.
    pub fn sight(&self, table: &str) -> Sight<'_> {
        let name = &self.name;
        if !self.may_name(table) {
            return Sight::Closed(format!("the token {name} may not read {table}: add it to the token's data"));
        }
        match (self.filters.get(table), self.tainted.get(table)) {
            (Some(filter), _) => Sight::Part(filter),
            (None, Some(part)) => Sight::Closed(format!(
                "{table} holds what comes from {part}, of which the token {name} sees a part: give the token a filter for {table} too"
            )),
            (None, None) => Sight::Whole,
        }
    }

    /// Whether a name is one of those that it may read.
    pub fn may_name(&self, table: &str) -> bool {
        self.names.iter().any(|pattern| matches(pattern, table))
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reader({})", self.name)
    }
}

/// A token's name is its own, and what it may read does not change while the server runs.
impl PartialEq for Reader {
    fn eq(&self, other: &Reader) -> bool {
        self.name == other.name
    }
}

/// Whether a name fits a pattern in which `*` stands for any letters, also none.
pub fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_have_stars() {
        for (pattern, name) in
            [("*", ""), ("*", "a"), ("a", "a"), ("a*", "abc"), ("*c", "abc"), ("a*b*c", "a1b2c"), ("a*a", "aa")]
        {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("a", "ab"), ("", "a"), ("a*a", "a"), ("a*b*c", "acb"), ("*c", "cd"), ("a*", "ba")] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn what_comes_from_a_filtered_table_needs_a_filter_of_its_own() {
        let filter = RowFilter { condition: Some("a = 1".into()), masked: Vec::new() };
        let reader = Reader {
            name: "t".into(),
            names: vec!["plays*".into()],
            filters: BTreeMap::from([("plays".into(), filter.clone()), ("plays_day".into(), filter.clone())]),
            tainted: BTreeMap::from([("plays_day".into(), "plays".into()), ("plays_hour".into(), "plays".into())]),
        };
        assert_eq!(reader.sight("plays"), Sight::Part(&filter));
        assert_eq!(reader.sight("plays_day"), Sight::Part(&filter));
        assert!(matches!(reader.sight("plays_hour"), Sight::Closed(why) if why.contains("comes from plays")));
        assert_eq!(reader.sight("plays_other"), Sight::Whole);
        assert!(matches!(reader.sight("users"), Sight::Closed(why) if why.contains("may not read users")));
    }
}
