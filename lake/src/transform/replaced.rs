//! Which files a run takes the place of: told by its parameters.

use std::collections::{BTreeMap, HashSet};

use broker::TimestampMs;

use super::bytes::TableFile;
use super::history;
use super::named::Named;
use super::table::WrittenTable;
use super::writer::NewFile;
use crate::config::TransformMode;
use crate::error::{LakeError, LakeErrorKind, Result};
use crate::slice::Level;

/// What tells runs apart that add to a table: the parameters that the query takes. A query that takes none is told
/// apart by `run`, which a job always gives: it must not make two runs of one day two.
///
/// # Errors
/// `Refused` when nothing tells runs apart, or too much.
pub fn run_key_of(table: &WrittenTable, parameters: &BTreeMap<String, String>) -> Result<String> {
    if table.config.mode != TransformMode::Append {
        return Ok(String::new());
    }
    let taken = run_parameters(table, parameters);
    let key = serde_json::to_string(&taken).map_err(|e| LakeError::bug(format!("a run's key: {e}")))?;
    if taken.is_empty() || key.len() > usize::from(u16::MAX) {
        let message = format!(
            "{} adds to its table, so runs must be told apart: give a parameter run, of a few words",
            table.config.name
        );
        return Err(LakeError::new(LakeErrorKind::Refused, message));
    }
    Ok(key)
}

fn run_parameters(table: &WrittenTable, parameters: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut own = taken(table, parameters);
    if table.template.parameters().is_empty() {
        own.extend(parameters.get_key_value("run").map(|(name, text)| (name.clone(), text.clone())));
    }
    own
}

/// Whether a file was added by a run of this key. Keys of old files may hold `run` beside the query's own parameters.
fn is_of_run(table: &WrittenTable, file: &TableFile, run: &str) -> bool {
    let own = || {
        let stored: BTreeMap<String, String> = serde_json::from_str(&file.run).ok()?;
        serde_json::to_string(&run_parameters(table, &stored)).ok()
    };
    file.run == run || own().as_deref() == Some(run)
}

/// Refuses what names days in no way that can be read, before anything runs: SQL may read it, and the rows of all
/// other days would be taken for those of this run.
///
/// # Errors
/// `Refused`.
pub fn check_days(table: &WrittenTable, parameters: &BTreeMap<String, String>, now: TimestampMs) -> Result<()> {
    match table.config.mode {
        TransformMode::ReplaceSlices => named(table, parameters).map(|_| ()),
        TransformMode::History => history::begin_of(&taken(table, parameters), now).map(|_| ()),
        TransformMode::Replace | TransformMode::Append => Ok(()),
    }
}

/// The slices that a run's parameters name.
fn named(table: &WrittenTable, parameters: &BTreeMap<String, String>) -> Result<Named> {
    let columns = table.planned.get().map(|planned| planned.layout.clone());
    let columns: Vec<&str> = columns.as_ref().map(|layout| layout.level_names()).unwrap_or_default();
    Named::new(&taken(table, parameters), &columns)
}

/// Which files a run takes the place of.
///
/// # Errors
/// `Refused` for a day that cannot be read.
pub fn replaced<'a>(
    table: &'a WrittenTable,
    (parameters, run): (&BTreeMap<String, String>, &'a str),
    new: &[NewFile],
) -> Result<impl Fn(&TableFile) -> bool + 'a> {
    let mode = table.config.mode;
    let named = match mode {
        TransformMode::ReplaceSlices => named(table, parameters)?,
        _ => Named::default(),
    };
    let touched: HashSet<Vec<Level>> = new.iter().map(|file| file.levels.clone()).collect();
    Ok(move |file: &TableFile| match mode {
        TransformMode::Replace | TransformMode::History => true,
        TransformMode::ReplaceSlices => touched.contains(&file.levels) || named.has(&file.levels),
        TransformMode::Append => is_of_run(table, file, run),
    })
}

/// The parameters that the query takes; a job may give more.
pub fn taken(table: &WrittenTable, parameters: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let taken = |name: &String| table.template.parameters().contains(name);
    parameters.iter().filter(|(name, _)| taken(name)).map(|(name, text)| (name.clone(), text.clone())).collect()
}
