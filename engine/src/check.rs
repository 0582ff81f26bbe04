//! Checks a whole configuration and reports every mistake at once.

use std::sync::Arc;

use crate::config::{EngineConfig, StreamConfig, TableRows};
use crate::derive::{DerivedPlan, ParsedBranch, parse_stream};
use crate::lookup::LookupTable;
use crate::quality_table::QUALITY_TABLE;
use crate::stream::Stream;
use crate::view::ViewPlan;

/// The suffix of the topic that takes a stream's refused records.
pub(crate) const REJECTED_SUFFIX: &str = ".rejected";
/// The suffix of the topic that takes the late rows of a view, or of a joined stream.
pub(crate) const LATE_SUFFIX: &str = ".late";

/// Every mistake of the configuration, each with what to do; empty when the engine can start with it.
pub fn check(config: &EngineConfig) -> Vec<String> {
    match compile(config) {
        Ok(_) => Vec::new(),
        Err(mistakes) => mistakes,
    }
}

/// The streams that compile, derived ones with the columns that follow from their SQL; mistakes are for [`check`].
pub fn streams(config: &EngineConfig) -> Vec<Arc<Stream>> {
    let mut mistakes = Vec::new();
    let tables = compile_tables(config, &mut mistakes);
    compile_streams(config, &tables, &mut mistakes).0
}

/// A compiled configuration.
#[derive(Clone, Default)]
pub(crate) struct Compiled {
    /// Declared and derived ones; a derived one comes after what it reads.
    pub(crate) streams: Vec<Arc<Stream>>,
    pub(crate) derived: Vec<Arc<DerivedPlan>>,
    pub(crate) tables: Vec<Arc<LookupTable>>,
    pub(crate) views: Vec<Arc<ViewPlan>>,
}

/// Compiles tables and streams, then views over the streams that are sound.
pub(crate) fn compile(config: &EngineConfig) -> Result<Compiled, Vec<String>> {
    let mut mistakes = Vec::new();
    let tables = compile_tables(config, &mut mistakes);
    let (streams, derived) = compile_streams(config, &tables, &mut mistakes);
    let broken = |name: &str| {
        let declared = config.streams.iter().any(|stream| name_of(stream) == name);
        declared && !streams.iter().any(|stream| stream.name() == name)
    };
    let mut views: Vec<Arc<ViewPlan>> = Vec::new();
    for view in &config.views {
        match ViewPlan::new(view, &streams) {
            Ok(view) => views.push(Arc::new(view)),
            Err(_) if crate::parse::parse_view(&view.sql).is_ok_and(|parsed| broken(&parsed.stream)) => {}
            Err(mistake) => mistakes.push(placed(&view.source, mistake)),
        }
    }
    check_names(config, &views, &mut mistakes);
    if mistakes.is_empty() { Ok(Compiled { streams, derived, tables, views }) } else { Err(mistakes) }
}

fn placed(source: &str, mistake: String) -> String {
    if source.is_empty() { mistake } else { format!("{source}: {mistake}") }
}

fn compile_tables(config: &EngineConfig, mistakes: &mut Vec<String>) -> Vec<Arc<LookupTable>> {
    let mut tables = Vec::new();
    for table in &config.tables {
        match LookupTable::new(table) {
            Ok(table) => tables.push(Arc::new(table)),
            Err(found) => mistakes.extend(found.into_iter().map(|mistake| placed(&table.source, mistake))),
        }
    }
    tables
}

type Streams = (Vec<Arc<Stream>>, Vec<Arc<DerivedPlan>>);

/// Declared streams, then derived ones as soon as what they read is there.
fn compile_streams(config: &EngineConfig, tables: &[Arc<LookupTable>], mistakes: &mut Vec<String>) -> Streams {
    let mut streams: Vec<Arc<Stream>> = Vec::new();
    for stream in config.streams.iter().filter(|stream| stream.sql.is_none()) {
        match Stream::new(stream) {
            Ok(stream) => streams.push(Arc::new(stream)),
            Err(found) => mistakes.extend(found),
        }
    }
    let mut derived: Vec<Arc<DerivedPlan>> = Vec::new();
    let mut waiting: Vec<&StreamConfig> = config.streams.iter().filter(|stream| stream.sql.is_some()).collect();
    while !waiting.is_empty() {
        // One that reads another of those that wait has its turn after it; in a circle nobody has, and all are mistaken.
        let has_turn = |stream: &&&StreamConfig| {
            let reads = read_by(stream);
            !waiting.iter().any(|other| reads.contains(&name_of(other)))
        };
        let turn: Vec<&StreamConfig> = match waiting.iter().filter(has_turn).copied().collect::<Vec<_>>() {
            turn if turn.is_empty() => waiting.clone(),
            turn => turn,
        };
        waiting.retain(|stream| !turn.iter().any(|other| std::ptr::eq(*stream, *other)));
        for stream in turn {
            let is_broken = |name: &String| {
                let known = streams.iter().any(|stream| stream.name() == name);
                !known && *name != name_of(stream) && config.streams.iter().any(|other| name_of(other) == *name)
            };
            match DerivedPlan::all(stream, &streams, tables) {
                Ok(plans) => {
                    streams.extend(plans.first().map(|plan| plan.stream.clone()));
                    derived.extend(plans.into_iter().map(Arc::new));
                }
                // Then the mistake is in what it reads, and told there.
                Err(_) if !mistakes.is_empty() && read_by(stream).iter().any(is_broken) => {}
                Err(found) => mistakes.extend(found.into_iter().map(|mistake| placed(&stream.source, mistake))),
            }
        }
    }
    (streams, derived)
}

/// The name of a stream, which a derived one has in its SQL.
pub(crate) fn name_of(stream: &StreamConfig) -> String {
    let derived = stream.sql.as_ref().and_then(|sql| parse_stream(sql).ok());
    derived.map_or_else(|| stream.name.clone(), |parsed| parsed.name)
}

/// The names of the streams and tables that a derived stream reads.
fn read_by(stream: &StreamConfig) -> Vec<String> {
    let branches = branches_of(stream).into_iter();
    branches.flat_map(|branch| std::iter::once(branch.stream).chain(branch.joined)).collect()
}

fn branches_of(stream: &StreamConfig) -> Vec<ParsedBranch> {
    let parsed = stream.sql.as_ref().and_then(|sql| parse_stream(sql).ok());
    parsed.map_or_else(Vec::new, |parsed| parsed.branches)
}

/// Streams, tables, views and the topics the engine writes must not meet under one name.
pub(crate) fn check_names(config: &EngineConfig, views: &[Arc<ViewPlan>], mistakes: &mut Vec<String>) {
    // Topics that are written, and by whom.
    let mut written: Vec<(String, String)> = Vec::new();
    // Names in SQL, and whose they are.
    let mut named: Vec<(String, String)> = vec![(QUALITY_TABLE.to_string(), "the engine's own table".to_string())];
    let names: Vec<String> = config.streams.iter().map(name_of).collect();
    for (stream, name) in config.streams.iter().zip(&names) {
        named.push((name.clone(), format!("stream {name}")));
        written.push((format!("{name}{REJECTED_SUFFIX}"), format!("stream {name}")));
        if stream.sql.is_some() {
            written.push((name.clone(), format!("derived stream {name}")));
            if branches_of(stream).iter().flat_map(|branch| &branch.joined).any(|joined| names.contains(joined)) {
                written.push((format!("{name}{LATE_SUFFIX}"), format!("stream {name}")));
            }
        } else if stream.key.is_some() || stream.deduplicate.is_some() {
            mistakes.push(format!(
                "stream {name}: key and deduplicate belong to a derived stream: add [[streams]] with \
                 sql = \"CREATE STREAM … AS SELECT * FROM {name}\" and give them there"
            ));
        }
    }
    for table in &config.tables {
        named.push((table.name.clone(), format!("table {}", table.name)));
        if let TableRows::Topic(_) = table.rows {
            written.push((format!("{}{REJECTED_SUFFIX}", table.name), format!("table {}", table.name)));
        }
    }
    for view in views {
        named.push((view.name.to_string(), format!("view {}", view.name)));
        written.push((view.name.to_string(), format!("view {}", view.name)));
        written.push((format!("{}{LATE_SUFFIX}", view.name), format!("view {}", view.name)));
    }
    let twice = check_named_once(&named, mistakes);
    written.retain(|(_, writer)| !twice.contains(writer));
    for (index, (topic, writer)) in written.iter().enumerate() {
        if let Some((_, other)) = written[..index].iter().find(|(other, _)| other == topic) {
            mistakes.push(format!("{writer} and {other} would both write topic {topic}, rename one"));
        }
        check_no_circle(config, views, (topic, writer), mistakes);
    }
}

/// Gives those who have the name of another, so that nothing more is said of them.
fn check_named_once(named: &[(String, String)], mistakes: &mut Vec<String>) -> Vec<String> {
    let mut twice = Vec::new();
    for (index, (name, whose)) in named.iter().enumerate() {
        match named[..index].iter().find(|(other, _)| other == name) {
            Some((_, other)) if other == whose => {
                mistakes.push(format!("{whose} is declared twice, rename one"));
                twice.push(whose.clone());
            }
            Some((_, other)) => {
                let (article, kind) = (if other.starts_with("the ") { "" } else { "a " }, other.split(' ').next());
                let of = if article.is_empty() { other.as_str() } else { kind.unwrap_or_default() };
                mistakes.push(format!("{whose} has the name of {article}{of}, rename one"));
            }
            None => {}
        }
    }
    twice
}

/// Nobody reads what it writes.
fn check_no_circle(
    config: &EngineConfig,
    views: &[Arc<ViewPlan>],
    (topic, writer): (&str, &str),
    mistakes: &mut Vec<String>,
) {
    for stream in config.streams.iter().filter(|stream| stream.topic == topic) {
        if writer == format!("stream {}", stream.name) {
            mistakes.push(format!("stream {} would read the topic {topic} that it writes, name another", stream.name));
        }
        if views.iter().any(|view| format!("view {}", view.name) == writer && view.stream.name() == stream.name) {
            mistakes.push(format!(
                "{writer} would read its own topic {topic} through stream {}, name another",
                stream.name
            ));
        }
        let derives = |other: &&StreamConfig| writer == format!("derived stream {}", name_of(other));
        if config.streams.iter().filter(derives).any(|other| read_by(other).contains(&stream.name)) {
            mistakes.push(format!(
                "{writer} would read its own topic {topic} through stream {}, name another",
                stream.name
            ));
        }
    }
}
