//! The rules of `ALTER`: what may become other while everything that reads it goes on from where it stands.

use std::sync::Arc;

use super::Kind;
use super::alter::{Altering, altered};
use super::draft::{Draft, Step, Wrong, read_again};
use super::script::Statement;
use super::statement::Declares;
use super::stored::{Definition, State};
use crate::check::{Compiled, name_of};
use crate::config::StreamConfig;
use crate::derive::DerivedPlan;
use crate::running::Running;
use crate::stream::Stream;
use crate::view::ViewPlan;

impl Draft<'_> {
    pub(super) fn alter(&mut self, statement: &Statement, kind: Kind, altering: &Altering) -> Result<(), Wrong> {
        let name = statement.name();
        let known = self.by_sql(kind, name, "alter")?;
        let sql = altered(&known.sql, altering).map_err(|wrong| vec![format!("'{name}': {wrong}")])?;
        let definition =
            Definition { state: State::Live, declared_ms: self.broker.clock().now_ms(), sql, ..known.clone() };
        match kind {
            Kind::View => self.replace_by(statement, definition, &known),
            Kind::Stream => self.alter_stream(statement, definition, altering),
            Kind::Table => Err(vec![format!("'{name}' is a table: DROP TABLE, then CREATE it again")]),
        }
    }

    /// A stream with more columns or other settings, and all that is computed from it.
    fn alter_stream(
        &mut self,
        statement: &Statement,
        definition: Definition,
        altering: &Altering,
    ) -> Result<(), Wrong> {
        let name = statement.name();
        let Declares::Stream(config) = read_again(&definition)? else { return Ok(()) };
        let reached = reached(&self.after.compiled, name);
        self.check_reached(&reached)?;
        if matches!(altering, Altering::Columns(_)) {
            check_unjoined(&self.after.compiled, &reached)?;
        } else if config.deduplicate.is_some() {
            let wrong = "which rows it has seen is kept by its lateness: DROP STREAM, then CREATE it again";
            return Err(vec![format!("'{name}' has deduplicate_by, and {wrong}")]);
        }
        let streams = &mut self.after.config.streams;
        let Some(at) = streams.iter().position(|stream| name_of(stream) == name) else { return Ok(()) };
        streams[at] = *config;
        let new = compile_again(&self.after, &reached)?;
        for (before, after) in reached.iter().filter_map(|name| both(&self.after.compiled, &new, name)) {
            if before.name() != name && before.schema() != after.schema() {
                return Err(vec![format!(
                    "stream '{}' takes all columns of what it reads, and would have others: DROP it first, and name its columns",
                    before.name()
                )]);
            }
        }
        new.streams.iter().for_each(|stream| stream.bind(self.broker.schemas().clone()));
        put(&mut self.after.compiled, &new);
        self.keep(Kind::Stream, name, definition);
        self.steps.push(Step::GoOn(Box::new(new)));
        self.note(statement, "altered")
    }

    /// What stands still, or has two versions, does not go on by another declaration.
    fn check_reached(&self, reached: &[String]) -> Result<(), Wrong> {
        let mut wrong = Wrong::new();
        let over = |view: &&Arc<ViewPlan>| reached.iter().any(|name| name == view.stream.name());
        for name in self.after.compiled.views.iter().filter(over).map(|view| &*view.name) {
            let is_paused = self.after.by_sql.get(Kind::View, name).is_some_and(|known| known.state == State::Paused);
            if self.touched.contains(name) {
                wrong.push(format!("view '{name}' over it is in the script too: send them one after the other"));
            } else if is_paused {
                wrong.push(format!("view '{name}' over it is paused: RESUME it first"));
            } else if self.after.successor(name).is_some() {
                wrong.push(format!(
                    "view '{name}' over it has a new version that is filled: wait until that takes over"
                ));
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }
}

/// The stream and those that are computed from it, each behind what it reads.
fn reached(compiled: &Compiled, name: &str) -> Vec<String> {
    let mut reached = vec![name.to_string()];
    // Whatever their order is, one that reads another is found once that is there.
    loop {
        let reads = |plan: &&Arc<DerivedPlan>| {
            let own = plan.stream.name();
            let is_known = |name: &str| reached.iter().any(|known| known == name);
            !is_known(own) && plan.sources().any(|source| is_known(source.name()))
        };
        match compiled.derived.iter().find(reads) {
            Some(plan) => {
                let own = plan.stream.name().to_string();
                reached.push(own);
            }
            None => break,
        }
    }
    let place = |name: &String| compiled.streams.iter().position(|stream| stream.name() == name);
    reached.sort_by_key(place);
    reached
}

/// Rows that wait in a join have all columns of their streams.
fn check_unjoined(compiled: &Compiled, reached: &[String]) -> Result<(), Wrong> {
    let joined = |plan: &&Arc<DerivedPlan>| {
        plan.join.is_some() && plan.sources().any(|source| reached.iter().any(|name| name == source.name()))
    };
    match compiled.derived.iter().find(joined) {
        Some(plan) => Err(vec![format!(
            "stream '{}' joins it to another stream, and rows that wait there have no such column: DROP it first",
            plan.stream.name()
        )]),
        None => Ok(()),
    }
}

/// All of these streams anew, and the views over them.
fn compile_again(after: &Running, reached: &[String]) -> Result<Compiled, Wrong> {
    let mut streams = after.compiled.streams.clone();
    let mut new = Compiled::default();
    for name in reached {
        let config: Option<&StreamConfig> = after.config.streams.iter().find(|stream| name_of(stream) == *name);
        let Some(config) = config else { continue };
        let stream = match &config.sql {
            None => Arc::new(Stream::new(config)?),
            Some(_) => {
                let plans = DerivedPlan::all(config, &streams, &after.compiled.tables)?;
                let Some(stream) = plans.first().map(|plan| plan.stream.clone()) else { continue };
                new.derived.extend(plans.into_iter().map(Arc::new));
                stream
            }
        };
        streams.iter_mut().filter(|known| known.name() == name).for_each(|known| *known = stream.clone());
        new.streams.push(stream);
    }
    for (view, config) in after.compiled.views.iter().zip(&after.config.views) {
        if reached.iter().any(|name| name == view.stream.name()) {
            new.views.push(Arc::new(ViewPlan::new(config, &streams).map_err(|wrong| vec![wrong])?));
        }
    }
    Ok(new)
}

fn both<'c>(before: &'c Compiled, after: &'c Compiled, name: &str) -> Option<(&'c Arc<Stream>, &'c Arc<Stream>)> {
    let find = |compiled: &'c Compiled| compiled.streams.iter().find(|stream| stream.name() == name);
    Some((find(before)?, find(after)?))
}

/// Puts what was compiled anew in the places of what it was.
fn put(all: &mut Compiled, new: &Compiled) {
    for stream in &new.streams {
        all.streams.iter_mut().filter(|known| known.name() == stream.name()).for_each(|known| *known = stream.clone());
    }
    for plan in &new.derived {
        let is_it =
            |known: &&mut Arc<DerivedPlan>| (known.stream.name(), known.branch) == (plan.stream.name(), plan.branch);
        all.derived.iter_mut().filter(is_it).for_each(|known| *known = plan.clone());
    }
    for view in &new.views {
        all.views.iter_mut().filter(|known| known.name == view.name).for_each(|known| *known = view.clone());
    }
}
