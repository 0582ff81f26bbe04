//! What runs now, as one snapshot: readers take it and are not disturbed by what is declared or dropped meanwhile.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::check::{Compiled, LATE_SUFFIX, REJECTED_SUFFIX};
use crate::config::EngineConfig;
use crate::definitions::{Definitions, place};
use crate::error::{EngineError, ErrorKind, Result};
use crate::follow::Follower;
use crate::names::closest;
use crate::quality_table::QUALITY_TABLE;
use crate::shared::{RunningDerived, RunningTable, RunningView};
use crate::start::Prepared;
use crate::stream::Stream;

/// Streams, tables and views with their runtime handles. Never changes: another takes its place.
#[derive(Clone, Default)]
pub(crate) struct Running {
    /// All declarations, those of SQL behind those of the configuration.
    pub(crate) config: EngineConfig,
    /// What SQL has declared.
    pub(crate) by_sql: Definitions,
    pub(crate) compiled: Compiled,
    /// Each stream, and its reading end.
    pub(crate) streams: Vec<(Arc<Stream>, Follower)>,
    pub(crate) derived: Vec<RunningDerived>,
    pub(crate) tables: Vec<RunningTable>,
    pub(crate) views: Vec<Arc<RunningView>>,
    /// Those that are filled beside a version of theirs that is served.
    pub(crate) successors: Vec<Arc<RunningView>>,
}

impl Running {
    /// Adds what was prepared, which has all tables.
    pub(crate) fn add(&mut self, prepared: &mut Prepared) {
        self.streams.append(&mut prepared.streams);
        self.derived.append(&mut prepared.derived);
        self.tables = std::mem::take(&mut prepared.tables);
        put(&mut self.views, std::mem::take(&mut prepared.views));
        put(&mut self.successors, std::mem::take(&mut prepared.successors));
    }

    /// Has a successor take the place of the version that was served.
    pub(crate) fn take_over(&mut self, successor: &Arc<RunningView>) {
        let name = &successor.plan.name;
        self.successors.retain(|view| view.plan.name != *name);
        self.views.iter_mut().filter(|view| view.plan.name == *name).for_each(|view| *view = successor.clone());
    }

    /// The version of a view that is filled beside the one that is served.
    pub(crate) fn successor(&self, name: &str) -> Option<&Arc<RunningView>> {
        self.successors.iter().find(|view| *view.plan.name == *name)
    }

    /// Whether a stream or a table reads what a view writes.
    pub(crate) fn is_read(&self, view: &str) -> bool {
        let streams = self.compiled.streams.iter().map(|stream| stream.topic());
        let mut read = streams.chain(self.compiled.tables.iter().filter_map(|table| table.topic()));
        read.any(|topic| topic.strip_suffix(LATE_SUFFIX).unwrap_or(topic) == view)
    }

    pub(crate) fn view(&self, name: &str) -> Result<&Arc<RunningView>> {
        self.views.iter().find(|view| *view.plan.name == *name).ok_or_else(|| {
            let hint = closest(name, self.views.iter().map(|view| &*view.plan.name));
            EngineError::new(ErrorKind::Unknown, format!("no view '{name}'{hint}"))
        })
    }

    /// Where something is declared; None for an unknown name.
    pub(crate) fn place_of(&self, name: &str) -> Option<String> {
        let Compiled { streams, tables, views, .. } = &self.compiled;
        let stream = streams.iter().find(|stream| stream.name() == name).map(|stream| &stream.config().source);
        let table = tables.iter().find(|table| table.name() == name).map(|table| &table.config().source);
        // Views are compiled in the order of their declarations.
        let at = views.iter().position(|view| *view.name == *name);
        let view = at.and_then(|at| self.config.views.get(at)).map(|view| &view.source);
        stream.or(table).or(view).map(|source| place(source))
    }

    /// The SELECTs of a derived stream, in their order.
    pub(crate) fn derived(&self, name: &str) -> Vec<&RunningDerived> {
        let mut found: Vec<_> = self.derived.iter().filter(|running| running.plan.stream.name() == name).collect();
        found.sort_by_key(|running| running.plan.branch);
        found
    }

    /// What must have caught up, one after the other, before a topic is fresh; empty for one that others write.
    fn chain_of_topic(&self, topic: &str) -> Vec<Follower> {
        let mut chain = Vec::new();
        self.add_writers(topic, &mut BTreeSet::new(), &mut chain);
        chain
    }

    /// Adds who writes a topic, behind who writes what they read. Each topic is looked at once: views may read each
    /// other in a circle.
    fn add_writers(&self, topic: &str, seen: &mut BTreeSet<String>, chain: &mut Vec<Follower>) {
        if !seen.insert(topic.to_string()) {
            return;
        }
        for writer in self.writers(topic) {
            self.add_writers(&writer.topic, seen, chain);
            chain.push(writer);
        }
    }

    /// Who writes a topic.
    pub(crate) fn writers(&self, topic: &str) -> Vec<Follower> {
        let refused = topic.strip_suffix(REJECTED_SUFFIX);
        let refuses = |stream: &Stream| refused == Some(stream.name());
        let mut writers = Vec::new();
        let derived = self.derived.iter().filter(|running| {
            let stream = &running.plan.stream;
            let is_late = running.joined.is_some() && topic.strip_suffix(LATE_SUFFIX) == Some(stream.name());
            **stream.topic() == *topic || refuses(stream) || is_late
        });
        writers.extend(derived.flat_map(|running| running.followers()).cloned());
        let streams = self.streams.iter().filter(|(stream, _)| refuses(stream));
        writers.extend(streams.map(|(_, reading)| reading.clone()));
        let views = self.views.iter().filter(|view| {
            let name = &*view.plan.name;
            name == topic || topic.strip_suffix(LATE_SUFFIX) == Some(name) || refuses(&view.plan.stream)
        });
        writers.extend(views.map(|view| view.follower.clone()));
        let tables = self.tables.iter().filter(|running| refused == Some(running.table.name()));
        writers.extend(tables.filter_map(|running| running.follower.clone()));
        writers
    }

    /// A follower behind all that must have caught up before it.
    fn chain_to(&self, follower: &Follower) -> Vec<Follower> {
        let mut chain = self.chain_of_topic(&follower.topic);
        chain.push(follower.clone());
        chain
    }

    pub(crate) fn chain_of_view(&self, view: &RunningView) -> Vec<Follower> {
        self.chain_to(&view.follower)
    }

    /// What must have caught up before a stream, a table or the counters are fresh; None for other names.
    pub(crate) fn chain_of(&self, name: &str) -> Option<Vec<Follower>> {
        if name == QUALITY_TABLE {
            let tables = self.tables.iter().filter_map(|running| running.follower.as_ref());
            let streams = self.streams.iter().map(|(_, reading)| reading);
            return Some(tables.chain(streams).flat_map(|follower| self.chain_to(follower)).collect());
        }
        if let Some(running) = self.tables.iter().find(|running| running.table.name() == name) {
            return Some(running.follower.iter().flat_map(|follower| self.chain_to(follower)).collect());
        }
        let stream = self.streams.iter().find(|(stream, _)| stream.name() == name);
        stream.map(|(stream, _)| self.chain_of_topic(stream.topic()))
    }
}

/// Adds views; one of a known name takes the place of that.
fn put(views: &mut Vec<Arc<RunningView>>, new: Vec<RunningView>) {
    for view in new.into_iter().map(Arc::new) {
        match views.iter_mut().find(|known| known.plan.name == view.plan.name) {
            Some(known) => *known = view,
            None => views.push(view),
        }
    }
}
