//! What SQL declares while the server runs: streams, tables and views.
//!
//! A script goes: `script` (statements and their places) → `statement` with `options` and `alter` (text → declarations) → `draft` (the
//! rules, of ALTER in `altered`: what may be, and what follows; pure) → `change` (one commit of rows in the store, then pipelines start and end).
//! A stream without columns gets them before `draft`, from its topic's records (`inferred`), and is declared with them written out.
//! `stored` draws the rows, `departure` deletes what a dropped one leaves. A start reads the rows and joins them to the
//! configuration, as if they stood in it.

mod alter;
mod altered;
mod change;
mod departure;
mod draft;
mod explain;
mod go_on;
mod inferred;
mod options;
mod script;
mod statement;
pub(crate) mod stored;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use broker::{Broker, Family};

use crate::check::name_of;
use crate::config::EngineConfig;
use crate::error::{EngineError, ErrorKind, Result};

pub use change::{Change, Done, Made, Turn};
pub use draft::Surroundings;
pub use inferred::Inferred;
pub(crate) use options::duration_ms;
pub use script::{Command, Script, command};
pub(crate) use stored::{Definition, State};

use departure::clear;
use statement::{Action, Declares, read_one};
use stored::{decode_key, definition_range};

/// What can be declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A topic with columns, or a stream computed from another.
    Stream = 0,
    /// The latest value per key of a topic.
    Table = 1,
    /// A materialized view.
    View = 2,
}

impl Kind {
    /// What it is called in messages.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Stream => "stream",
            Kind::Table => "table",
            Kind::View => "view",
        }
    }

    /// What it is called in statements.
    pub(crate) fn sql(self) -> &'static str {
        match self {
            Kind::Stream => "STREAM",
            Kind::Table => "TABLE",
            Kind::View => "MATERIALIZED VIEW",
        }
    }
}

/// Something wrong in a script, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The line, from 1.
    pub line: u64,
    /// The column, from 1, in characters.
    pub column: u64,
    /// What is wrong and what to do.
    pub message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "line {}, column {}: {}", self.line, self.column, self.message)
    }
}

/// All that SQL has declared and not dropped.
#[derive(Clone, Default)]
pub(crate) struct Definitions(pub(crate) BTreeMap<(Kind, String), Definition>);

impl Definitions {
    /// Those in the store. What was being dropped when the server ended is dropped now.
    pub(crate) async fn load(broker: &Arc<Broker>) -> Result<Definitions> {
        let mut definitions = Definitions::default();
        {
            let snapshot = broker.store().snapshot();
            let (from, to) = definition_range();
            let mut scan = snapshot.scan(Family::State, &from, &to);
            while let Some(entry) = scan.next_ref() {
                let (key, value) = entry?;
                definitions.0.insert(decode_key(key)?, Definition::decode(value)?);
            }
        }
        for ((kind, name), definition) in definitions.0.iter().filter(|(_, known)| known.state == State::Leaving) {
            clear(broker, *kind, name, definition).await?;
        }
        definitions.0.retain(|_, known| known.state != State::Leaving);
        Ok(definitions)
    }

    /// The configuration with all of them behind what the files declare, in the order in which they were declared.
    ///
    /// # Errors
    /// `Config`, with each name that is in both on a line.
    pub(crate) fn join(&self, mut config: EngineConfig) -> Result<EngineConfig> {
        let mut mistakes = Vec::new();
        let files = places(&config);
        let mut all: Vec<_> = self.0.iter().collect();
        all.sort_by_key(|(_, definition)| definition.order);
        for ((kind, name), definition) in all {
            if let Some(place) = files.get(name) {
                mistakes.push(format!(
                    "{} {name} was declared by SQL, and {place} declares the name as well: take it out of the file, start, \
                     then DROP {} {name}",
                    kind.word(),
                    kind.sql()
                ));
                continue;
            }
            match read_one(&definition.sql, &definition.place()) {
                Ok(Action::Create { declares, .. }) => declares.add_to(&mut config),
                Ok(_) => mistakes.push(format!("the definition of {} {name} is damaged", kind.word())),
                Err(found) => mistakes.extend(
                    found.iter().map(|mistake| format!("{} {name}, declared by SQL: {}", kind.word(), mistake.message)),
                ),
            }
        }
        if mistakes.is_empty() { Ok(config) } else { Err(EngineError::new(ErrorKind::Config, mistakes.join("\n"))) }
    }

    /// The views that are paused.
    pub(crate) fn paused(&self) -> BTreeSet<String> {
        let paused = self.0.iter().filter(|(_, definition)| definition.state == State::Paused);
        paused.map(|((_, name), _)| name.clone()).collect()
    }

    pub(crate) fn get(&self, kind: Kind, name: &str) -> Option<&Definition> {
        self.0.get(&(kind, name.to_string()))
    }
}

impl Declares {
    fn add_to(self, config: &mut EngineConfig) {
        match self {
            Declares::Stream(stream) => config.streams.push(*stream),
            Declares::Table(table) => config.tables.push(table),
            Declares::View(view) => config.views.push(view),
        }
    }
}

/// The names that a configuration declares, and where.
fn places(config: &EngineConfig) -> BTreeMap<String, String> {
    let view_name = |sql: &str| crate::parse::parse_view(sql).map(|parsed| parsed.name).unwrap_or_default();
    let streams = config.streams.iter().map(|stream| (name_of(stream), &stream.source));
    let tables = config.tables.iter().map(|table| (table.name.clone(), &table.source));
    let views = config.views.iter().map(|view| (view_name(&view.sql), &view.source));
    streams.chain(tables).chain(views).map(|(name, source)| (name, place(source))).collect()
}

/// Where something was declared, as messages have it.
pub(crate) fn place(source: &str) -> String {
    if source.is_empty() { "the configuration".to_string() } else { source.to_string() }
}

impl crate::Engine {
    /// Where something is declared: `file:line`, or by SQL and when; None for an unknown name.
    pub fn declared_in(&self, name: &str) -> Option<String> {
        self.running().place_of(name)
    }

    /// The statement that declared something by SQL.
    pub fn declared_by_sql(&self, kind: Kind, name: &str) -> Option<String> {
        self.running().by_sql.get(kind, name).map(|definition| definition.sql.clone())
    }
}
