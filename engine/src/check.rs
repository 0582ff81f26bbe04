//! Checks a whole configuration and reports every mistake at once.

use std::sync::Arc;

use crate::config::EngineConfig;
use crate::stream::Stream;
use crate::view::ViewPlan;

/// The suffix of the topic that takes a stream's refused records.
pub(crate) const REJECTED_SUFFIX: &str = ".rejected";
/// The suffix of the topic that takes a view's late rows.
pub(crate) const LATE_SUFFIX: &str = ".late";

/// Every mistake of the configuration, each with what to do; empty when the engine can start with it.
pub fn check(config: &EngineConfig) -> Vec<String> {
    match compile(config) {
        Ok(_) => Vec::new(),
        Err(mistakes) => mistakes,
    }
}

/// A compiled configuration.
pub(crate) struct Compiled {
    pub(crate) streams: Vec<Arc<Stream>>,
    pub(crate) views: Vec<Arc<ViewPlan>>,
}

/// Compiles streams, then views over the streams that are sound.
pub(crate) fn compile(config: &EngineConfig) -> Result<Compiled, Vec<String>> {
    let mut mistakes = Vec::new();
    let mut streams: Vec<Arc<Stream>> = Vec::new();
    for stream in &config.streams {
        match Stream::new(stream) {
            Ok(stream) => streams.push(Arc::new(stream)),
            Err(found) => mistakes.extend(found),
        }
    }
    let broken = |name: &str| {
        config.streams.iter().any(|stream| stream.name == name) && !streams.iter().any(|stream| stream.name() == name)
    };
    let mut views: Vec<Arc<ViewPlan>> = Vec::new();
    for view in &config.views {
        match ViewPlan::new(view, &streams) {
            Ok(view) => views.push(Arc::new(view)),
            Err(_) if crate::parse::parse_view(&view.sql).is_ok_and(|parsed| broken(&parsed.stream)) => {}
            Err(mistake) if view.source.is_empty() => mistakes.push(mistake),
            Err(mistake) => mistakes.push(format!("{}: {mistake}", view.source)),
        }
    }
    check_names(config, &views, &mut mistakes);
    if mistakes.is_empty() { Ok(Compiled { streams, views }) } else { Err(mistakes) }
}

/// Streams, views and the topics the engine writes must not meet under one name.
fn check_names(config: &EngineConfig, views: &[Arc<ViewPlan>], mistakes: &mut Vec<String>) {
    let mut written: Vec<(String, String)> = Vec::new();
    for (index, stream) in config.streams.iter().enumerate() {
        if config.streams[..index].iter().any(|other| other.name == stream.name) {
            mistakes.push(format!("stream {} is declared twice, rename one", stream.name));
        } else {
            written.push((format!("{}{REJECTED_SUFFIX}", stream.name), format!("stream {}", stream.name)));
        }
    }
    for (index, view) in views.iter().enumerate() {
        if views[..index].iter().any(|other| other.name == view.name) {
            mistakes.push(format!("view {} is declared twice, rename one", view.name));
            continue;
        }
        if config.streams.iter().any(|stream| stream.name == *view.name) {
            mistakes.push(format!("view {} has the name of a stream, rename one", view.name));
        }
        written.push((view.name.to_string(), format!("view {}", view.name)));
        written.push((format!("{}{LATE_SUFFIX}", view.name), format!("view {}", view.name)));
    }
    for (index, (topic, writer)) in written.iter().enumerate() {
        if let Some((_, other)) = written[..index].iter().find(|(other, _)| other == topic) {
            mistakes.push(format!("{writer} and {other} would both write topic {topic}, rename one"));
        }
        let reads_own =
            |stream: &&crate::StreamConfig| stream.topic == *topic && *writer == format!("stream {}", stream.name);
        if let Some(stream) = config.streams.iter().find(reads_own) {
            mistakes.push(format!("stream {} would read the topic {topic} that it writes, name another", stream.name));
        }
        for stream in config.streams.iter().filter(|stream| stream.topic == *topic) {
            let feeds_itself =
                views.iter().any(|view| format!("view {}", view.name) == *writer && view.stream.name() == stream.name);
            if feeds_itself {
                mistakes.push(format!(
                    "{writer} would read its own topic {topic} through stream {}, name another",
                    stream.name
                ));
            }
        }
    }
}
