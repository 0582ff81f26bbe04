//! The rules of a script: what its statements may do, one after the other, to what is declared, and what follows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use broker::{Broker, Change as StoreChange, Family, NewTopic};

use super::script::Statement;
use super::statement::{Action, Declares, read_one};
use super::stored::{Definition, State, definition_key};
use super::{Done, Kind, Mistake};
use crate::check::{Compiled, LATE_SUFFIX, REJECTED_SUFFIX, check_names, name_of};
use crate::config::TableRows;
use crate::derive::DerivedPlan;
use crate::lookup::LookupTable;
use crate::names::closest;
use crate::running::Running;
use crate::state;
use crate::stream::Stream;
use crate::view::ViewPlan;

/// Most declarations of SQL: each view has a thread until the next start.
const DEFINITIONS_MAX: usize = 1_000;

/// What became of a statement that declares something new.
pub(super) const CREATED: &str = "created";

/// What others know: names that are taken elsewhere, and who outside the engine reads something.
pub struct Surroundings<'a> {
    /// What has this name, if anything outside the engine has.
    pub taken: &'a dyn Fn(&str) -> Option<String>,
    /// Who reads a stream, table or view of this name, such as `alert x`.
    pub readers: &'a dyn Fn(&str) -> Vec<String>,
}

/// What is to be done after the commit.
pub(super) enum Step {
    Start(Box<Compiled>),
    Replace(Arc<ViewPlan>),
    /// Streams and all that is computed from them go on by other declarations.
    GoOn(Box<Compiled>),
    Drop(Kind, String),
    Pause(String),
    Resume(String),
}

/// What will be declared. Nothing of it is true before its commit.
pub(super) struct Draft<'a> {
    pub(super) broker: &'a Broker,
    outside: &'a Surroundings<'a>,
    pub(super) after: Running,
    pub(super) rows: Vec<StoreChange>,
    pub(super) steps: Vec<Step>,
    pub(super) done: Vec<Done>,
    pub(super) touched: BTreeSet<String>,
}

/// What is wrong with one statement.
pub(super) type Wrong = Vec<String>;

impl<'a> Draft<'a> {
    pub(super) fn new(broker: &'a Broker, running: &Running, outside: &'a Surroundings<'a>) -> Draft<'a> {
        let after = running.clone();
        let (rows, steps, done, touched) = (Vec::new(), Vec::new(), Vec::new(), BTreeSet::new());
        Draft { broker, outside, after, rows, steps, done, touched }
    }

    /// Takes the statements in turn; Err has everything that is wrong.
    pub(super) fn take_all(&mut self, statements: &[Statement]) -> Result<(), Vec<Mistake>> {
        let mut mistakes = Vec::new();
        for statement in statements {
            if let Err(wrong) = self.take(statement) {
                mistakes.extend(wrong.into_iter().map(|message| statement.mistake(message)));
            }
        }
        let mut wrong = Vec::new();
        check_names(&self.after.config, &self.after.compiled.views, &mut wrong);
        for message in wrong {
            let names = |statement: &&Statement| message.split([' ', ',']).any(|word| word == statement.name());
            let statement = statements.iter().find(names).or(statements.first());
            mistakes.extend(statement.map(|statement| statement.mistake(message.clone())));
        }
        if self.after.by_sql.0.len() > DEFINITIONS_MAX {
            let message =
                format!("more than {DEFINITIONS_MAX} things would be declared by SQL: drop some, or use files");
            mistakes.extend(statements.first().map(|statement| statement.mistake(message)));
        }
        if mistakes.is_empty() { Ok(()) } else { Err(mistakes) }
    }

    fn take(&mut self, statement: &Statement) -> Result<(), Wrong> {
        let name = statement.name();
        if !self.touched.insert(name.to_string()) {
            return Err(vec![format!("'{name}' is in two statements of the script: send them one after the other")]);
        }
        match &statement.action {
            Action::Create { declares, or_replace, if_not_exists, .. } => {
                let kind = declares.kind();
                match self.kind_of(name) {
                    Some(known) if known != kind => Err(vec![format!("'{name}' is a {} already", known.word())]),
                    Some(_) if *if_not_exists => self.note(statement, "exists already"),
                    Some(_) if *or_replace => self.replace(statement),
                    Some(_) => Err(vec![exists(kind, name, &self.place_of(name))]),
                    None => self.create(statement),
                }
            }
            Action::Alter { kind, name, if_exists, altering } => match self.kind_of(name) {
                None if *if_exists => self.note(statement, "does not exist"),
                None => Err(vec![self.unknown(*kind, name)]),
                Some(known) if known != *kind => {
                    Err(vec![format!("'{name}' is a {}: write ALTER {} {name}", known.word(), known.sql())])
                }
                Some(_) => self.alter(statement, *kind, altering),
            },
            Action::Drop { kind, name, if_exists } => match self.kind_of(name) {
                None if *if_exists => self.note(statement, "does not exist"),
                None => Err(vec![self.unknown(*kind, name)]),
                Some(known) if known != *kind => {
                    Err(vec![format!("'{name}' is a {}: write DROP {} {name}", known.word(), known.sql())])
                }
                Some(_) => self.drop_one(statement, *kind, name),
            },
            Action::Pause(name) => self.set_paused(statement, name, true),
            Action::Resume(name) => self.set_paused(statement, name, false),
        }
    }

    fn create(&mut self, statement: &Statement) -> Result<(), Wrong> {
        let Action::Create { name, .. } = &statement.action else { return Ok(()) };
        if let Some(taken) = (self.outside.taken)(name) {
            return Err(vec![format!("'{name}' is the name of {taken}: name it otherwise")]);
        }
        let definition = self.definition(statement);
        let declares = read_again(&definition)?;
        let mut new = Compiled::default();
        let kind = declares.kind();
        match declares {
            Declares::Stream(config) if config.sql.is_none() => {
                let stream = Arc::new(Stream::new(&config)?);
                stream.bind(self.broker.schemas().clone());
                self.check_topics(None, &[config.topic.clone(), format!("{name}{REJECTED_SUFFIX}")])?;
                self.after.config.streams.push(*config);
                new.streams.push(stream);
            }
            Declares::Stream(config) => {
                let known = &self.after.compiled;
                let plans = DerivedPlan::all(&config, &known.streams, &known.tables)?;
                let written = (name.as_str(), state::derived_progress_key(name));
                let joins = plans.iter().any(|plan| plan.join.is_some());
                let late = joins.then(|| format!("{name}{LATE_SUFFIX}"));
                let more: Vec<String> = late.into_iter().chain([format!("{name}{REJECTED_SUFFIX}")]).collect();
                self.check_topics(Some(written), &more)?;
                for plan in plans.iter().take(1) {
                    plan.stream.bind(self.broker.schemas().clone());
                    new.streams.push(plan.stream.clone());
                }
                self.after.config.streams.push(*config);
                new.derived.extend(plans.into_iter().map(Arc::new));
            }
            Declares::Table(config) => {
                new.tables.push(Arc::new(LookupTable::new(&config)?));
                let topic = match &config.rows {
                    TableRows::Topic(topic) => Some(topic.clone()),
                    TableRows::Inline(_) | TableRows::File(_) => None,
                };
                let topics: Vec<String> = topic.into_iter().chain([format!("{name}{REJECTED_SUFFIX}")]).collect();
                self.check_topics(None, &topics)?;
                self.after.config.tables.push(config);
            }
            Declares::View(config) => {
                let plan = ViewPlan::new(&config, &self.after.compiled.streams).map_err(|wrong| vec![wrong])?;
                let written = (name.as_str(), state::definition_key(name));
                self.check_topics(Some(written), &[format!("{name}{LATE_SUFFIX}")])?;
                self.after.config.views.push(config);
                new.views.push(Arc::new(plan));
            }
        }
        let all = &mut self.after.compiled;
        all.streams.extend(new.streams.iter().cloned());
        all.derived.extend(new.derived.iter().cloned());
        all.tables.extend(new.tables.iter().cloned());
        all.views.extend(new.views.iter().cloned());
        self.keep(kind, name, definition);
        self.steps.push(Step::Start(Box::new(new)));
        self.note(statement, CREATED)
    }

    /// Another definition of a view that SQL has declared.
    fn replace(&mut self, statement: &Statement) -> Result<(), Wrong> {
        let name = statement.name();
        let known = self.by_sql(Kind::View, name, "replace")?;
        let definition = Definition { order: known.order, ..self.definition(statement) };
        self.replace_by(statement, definition, &known)
    }

    pub(super) fn replace_by(
        &mut self,
        statement: &Statement,
        definition: Definition,
        known: &Definition,
    ) -> Result<(), Wrong> {
        let name = statement.name();
        let Declares::View(config) = read_again(&definition)? else { return Ok(()) };
        let plan = ViewPlan::new(&config, &self.after.compiled.streams).map_err(|wrong| vec![wrong])?;
        let plan = Arc::new(plan);
        let views = &mut self.after.compiled.views;
        let Some(at) = views.iter().position(|view| *view.name == *name) else { return Ok(()) };
        let is_same = views[at].fingerprint == plan.fingerprint && views[at].retention_ms == plan.retention_ms;
        if is_same && known.state == State::Live {
            return self.note(statement, "has this definition already");
        }
        views[at] = plan.clone();
        self.after.config.views[at] = config;
        self.keep(Kind::View, name, definition);
        self.steps.push(Step::Replace(plan));
        let is_altered = matches!(statement.action, Action::Alter { .. });
        self.note(statement, if is_altered { "altered" } else { "replaced" })
    }

    fn drop_one(&mut self, statement: &Statement, kind: Kind, name: &str) -> Result<(), Wrong> {
        let known = self.by_sql(kind, name, "drop")?;
        let readers = self.readers(kind, name);
        if !readers.is_empty() {
            return Err(vec![format!(
                "'{name}' cannot be dropped: it is read by {}; drop or change these first",
                readers.join(", ")
            )]);
        }
        let leaving = Definition { state: State::Leaving, ..known };
        self.rows.push(StoreChange::Put(Family::State, definition_key(kind, name), leaving.encode()));
        let after = &mut self.after;
        after.by_sql.0.remove(&(kind, name.to_string()));
        match kind {
            Kind::Stream => {
                after.config.streams.retain(|stream| name_of(stream) != name);
                after.compiled.streams.retain(|stream| stream.name() != name);
                after.compiled.derived.retain(|plan| plan.stream.name() != name);
            }
            Kind::Table => {
                after.config.tables.retain(|table| table.name != name);
                after.compiled.tables.retain(|table| table.name() != name);
            }
            Kind::View => {
                let at = after.compiled.views.iter().position(|view| *view.name == *name);
                if let Some(at) = at {
                    after.compiled.views.remove(at);
                    after.config.views.remove(at);
                }
            }
        }
        self.steps.push(Step::Drop(kind, name.to_string()));
        self.note(statement, "dropped")
    }

    fn set_paused(&mut self, statement: &Statement, name: &str, paused: bool) -> Result<(), Wrong> {
        match self.kind_of(name) {
            None => return Err(vec![self.unknown(Kind::View, name)]),
            Some(Kind::View) => {}
            Some(kind) => return Err(vec![format!("'{name}' is a {}: only views are paused", kind.word())]),
        }
        let known = self.by_sql(Kind::View, name, if paused { "pause" } else { "resume" })?;
        match (known.state == State::Paused, paused) {
            (true, true) => return self.note(statement, "is paused already"),
            (false, false) => return self.note(statement, "is not paused"),
            _ => {}
        }
        let state = if paused { State::Paused } else { State::Live };
        self.keep(Kind::View, name, Definition { state, ..known });
        self.steps.push(if paused { Step::Pause(name.to_string()) } else { Step::Resume(name.to_string()) });
        self.note(statement, if paused { "paused" } else { "resumed" })
    }

    pub(super) fn note(&mut self, statement: &Statement, result: &'static str) -> Result<(), Wrong> {
        let kind = statement.kind();
        self.done.push(Done { kind, name: statement.name().to_string(), result });
        Ok(())
    }

    pub(super) fn keep(&mut self, kind: Kind, name: &str, definition: Definition) {
        self.rows.push(StoreChange::Put(Family::State, definition_key(kind, name), definition.encode()));
        self.after.by_sql.0.insert((kind, name.to_string()), definition);
    }

    pub(super) fn definition(&self, statement: &Statement) -> Definition {
        let last = self.after.by_sql.0.values().map(|known| known.order).max().unwrap_or(0);
        Definition {
            state: State::Live,
            order: last + 1,
            declared_ms: self.broker.clock().now_ms(),
            sql: statement.text.clone(),
        }
    }

    fn kind_of(&self, name: &str) -> Option<Kind> {
        let Compiled { streams, tables, views, .. } = &self.after.compiled;
        let stream = streams.iter().any(|stream| stream.name() == name).then_some(Kind::Stream);
        let table = tables.iter().any(|table| table.name() == name).then_some(Kind::Table);
        stream.or(table).or(views.iter().any(|view| *view.name == *name).then_some(Kind::View))
    }

    fn unknown(&self, kind: Kind, name: &str) -> String {
        let Compiled { streams, tables, views, .. } = &self.after.compiled;
        let known: Vec<&str> = match kind {
            Kind::Stream => streams.iter().map(|stream| stream.name()).collect(),
            Kind::Table => tables.iter().map(|table| table.name()).collect(),
            Kind::View => views.iter().map(|view| &*view.name).collect(),
        };
        format!("no {} '{name}'{}", kind.word(), closest(name, known.into_iter()))
    }

    fn place_of(&self, name: &str) -> String {
        self.after.place_of(name).unwrap_or_default()
    }

    /// The definition, if SQL made it: what a file declares is changed there.
    pub(super) fn by_sql(&self, kind: Kind, name: &str, what: &str) -> Result<Definition, Wrong> {
        let known = self.after.by_sql.get(kind, name).cloned();
        known.ok_or_else(|| {
            let place = self.place_of(name);
            vec![format!(
                "'{name}' is declared in {place}, and SQL cannot {what} it: change it there, then start again"
            )]
        })
    }

    /// What would be broken.
    fn readers(&self, kind: Kind, name: &str) -> Vec<String> {
        let Compiled { streams, derived, tables, views } = &self.after.compiled;
        let is_derived = derived.iter().any(|plan| plan.stream.name() == name);
        let mut topics = match kind {
            Kind::View => vec![name.to_string(), format!("{name}{LATE_SUFFIX}")],
            Kind::Stream | Kind::Table => vec![format!("{name}{REJECTED_SUFFIX}")],
        };
        topics.extend(is_derived.then(|| name.to_string()));
        let is_joined = derived.iter().any(|plan| plan.stream.name() == name && plan.join.is_some());
        topics.extend(is_joined.then(|| format!("{name}{LATE_SUFFIX}")));
        let reads = |topic: &str| topics.iter().any(|written| written == topic);
        let mut readers: Vec<String> = Vec::new();
        let over = streams.iter().filter(|stream| stream.name() != name && reads(stream.topic()));
        readers.extend(over.map(|stream| format!("stream {} (its topic)", stream.name())));
        let over = tables.iter().filter(|table| table.topic().is_some_and(|topic| reads(topic)));
        readers.extend(over.map(|table| format!("table {} (its topic)", table.name())));
        let joins = |plan: &&Arc<DerivedPlan>| match kind {
            Kind::Stream => plan.sources().any(|source| source.name() == name),
            Kind::Table => plan.tables.iter().any(|table| table.name() == name),
            Kind::View => false,
        };
        readers.extend(derived.iter().filter(joins).map(|plan| format!("stream {}", plan.stream.name())));
        readers.dedup();
        let of_stream = views.iter().filter(|view| kind == Kind::Stream && view.stream.name() == name);
        readers.extend(of_stream.map(|view| format!("view {}", view.name)));
        // Versions that are served until another one takes over.
        let former = self.after.views.iter().filter(|served| {
            let declared = views.iter().find(|view| view.name == served.plan.name);
            let is_former = declared.is_some_and(|view| view.fingerprint != served.plan.fingerprint);
            kind == Kind::Stream && is_former && served.plan.stream.name() == name
        });
        readers.extend(former.map(|served| format!("view {} until its new version takes over", served.plan.name)));
        readers.extend((self.outside.readers)(name));
        readers
    }

    /// The topics that will be there for a new one: there must be room for them, and one that it writes whole must be its
    /// own, which the key of its state tells.
    fn check_topics(&self, written: Option<(&str, Vec<u8>)>, more: &[String]) -> Result<(), Wrong> {
        let catalog = self.broker.catalog();
        if let Some((topic, key)) = &written
            && catalog.topic(topic).is_some()
            && self.broker.store().get(Family::State, key).map_err(|error| vec![error.message])?.is_none()
        {
            return Err(vec![format!(
                "a topic '{topic}' exists, and what is declared would write into it: name it otherwise, or delete the topic"
            )]);
        }
        let written = written.map(|(topic, _)| topic.to_string());
        for name in written.iter().chain(more).filter(|name| catalog.topic(name).is_none()) {
            let new = NewTopic { name: name.clone(), partitions: 1, config: BTreeMap::new() };
            catalog.check_new(&new).map_err(|error| vec![error.message])?;
        }
        Ok(())
    }
}

impl Statement {
    pub(super) fn name(&self) -> &str {
        match &self.action {
            Action::Create { name, .. } | Action::Alter { name, .. } | Action::Drop { name, .. } => name,
            Action::Pause(name) | Action::Resume(name) => name,
        }
    }

    fn kind(&self) -> Kind {
        match &self.action {
            Action::Create { declares, .. } => declares.kind(),
            Action::Alter { kind, .. } | Action::Drop { kind, .. } => *kind,
            Action::Pause(_) | Action::Resume(_) => Kind::View,
        }
    }
}

/// The declaration with the place that it will have after a start, so that both say the same.
pub(super) fn read_again(definition: &Definition) -> Result<Declares, Wrong> {
    match read_one(&definition.sql, &definition.place()) {
        Ok(Action::Create { declares, .. }) => Ok(declares),
        Ok(_) => Err(vec!["it declares nothing".to_string()]),
        Err(mistakes) => Err(mistakes.into_iter().map(|mistake| mistake.message).collect()),
    }
}

fn exists(kind: Kind, name: &str, place: &str) -> String {
    match kind {
        Kind::View => format!(
            "view '{name}' exists already, declared in {place}: write CREATE OR REPLACE MATERIALIZED VIEW, or IF NOT EXISTS"
        ),
        _ => format!(
            "{} '{name}' exists already, declared in {place}: write IF NOT EXISTS, or name it otherwise",
            kind.word()
        ),
    }
}
