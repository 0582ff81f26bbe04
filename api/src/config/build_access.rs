//! From `[[tokens]]` and `[costs]` to who may do what, and to prices.

use std::collections::BTreeMap;

use broker::HashedSecret;
use lake::{Costs, RowFilter};

use super::build::text;
use super::mistake::{Mistakes, suggestion};
use super::value::Entry;

/// Fewest letters of a token: shorter ones can be tried out.
const TOKEN_LETTERS_MIN: usize = 16;
const SCOPES: [&str; 3] = ["read", "write", "admin"];

/// `[[tokens]]`: who may do what over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scopes {
    /// Queries, views, dashboards, lists.
    pub read: bool,
    /// Records and schemas.
    pub write: bool,
    /// Both, and orders.
    pub admin: bool,
}

/// One token, without its text.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenConfig {
    /// Its name in messages.
    pub name: String,
    /// What it is compared with.
    pub secret: HashedSecret,
    /// What it may do.
    pub scopes: Scopes,
    /// Patterns of the names that it may read and write.
    pub data: Vec<String>,
    /// The tables that it sees in part.
    pub filters: BTreeMap<String, RowFilter>,
}

/// One token.
pub fn token(entry: &Entry, mistakes: &mut Mistakes) -> TokenConfig {
    let secret = text(entry, "token");
    if secret.chars().count() < TOKEN_LETTERS_MIN && !secret.is_empty() {
        let message = format!("has fewer than {TOKEN_LETTERS_MIN} letters: make one with `openssl rand -hex 24`");
        mistakes.add(&entry.place("token"), entry.path_of("token"), message);
    }
    let scopes = entry.texts("scopes");
    for scope in scopes.iter().filter(|scope| !SCOPES.contains(&scope.as_str())) {
        let message = format!("{scope} is no scope{}", suggestion(scope, SCOPES.into_iter()));
        mistakes.add(&entry.place("scopes"), entry.path_of("scopes"), message);
    }
    if scopes.is_empty() {
        mistakes.add(
            &entry.place("scopes"),
            entry.path_of("scopes"),
            "a token without scopes may do nothing: name one",
        );
    }
    let has = |scope: &str| scopes.iter().any(|given| given == scope);
    let admin = has("admin");
    TokenConfig {
        name: text(entry, "name"),
        secret: HashedSecret::of(&secret),
        scopes: Scopes { read: admin || has("read"), write: admin || has("write"), admin },
        data: entry.texts("data"),
        filters: filters(entry, admin, mistakes),
    }
}

fn filters(entry: &Entry, admin: bool, mistakes: &mut Mistakes) -> BTreeMap<String, RowFilter> {
    let mut filters = BTreeMap::new();
    if admin && !entry.tables("filters").is_empty() {
        let message = "a token of scope admin sees everything that the jobs it runs see: give it no filters";
        mistakes.add(&entry.place("filters"), entry.path_of("filters"), message);
    }
    for filter in entry.tables("filters") {
        let (condition, masked) = (filter.text_or_none("where"), filter.texts("masked"));
        if condition.is_none() && masked.is_empty() {
            mistakes.add(&filter.origin, filter.path.as_str(), "filters nothing: give where or masked");
        }
        let table = text(filter, "table");
        if filters.insert(table.clone(), RowFilter { condition, masked }).is_some() {
            let message = format!("{table} has two filters: join their conditions with AND");
            mistakes.add(&filter.place("table"), filter.path_of("table"), message);
        }
    }
    filters
}

/// The prices.
pub fn costs(entry: &Entry) -> Costs {
    let price = |key| entry.number_or_none(key).unwrap_or_default();
    Costs {
        currency: text(entry, "currency"),
        stored_gib_month: price("stored_gib_month"),
        stored_log_gib_month: price("stored_log_gib_month"),
        scanned_gib: price("scanned_gib"),
    }
}
