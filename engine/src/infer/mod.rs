//! Columns of a stream from the records that its topic has: `sample` reads some of them, `seen` tells what the values of each
//! field were, `naming` gives names, and here they become declared columns. All but the reading is pure.

mod naming;
mod sample;
mod seen;

use crate::columns::ColumnType;
use crate::config::ColumnConfig;
use crate::fields::Refusal;
use crate::names::closest;

pub(crate) use sample::{Sample, check_format};

use naming::{Named, named, plain_name};
use seen::{Fields, Records, Seen};

/// Most columns that are inferred; fields that come later are left out.
pub(crate) const COLUMNS_MAX: usize = 256;
/// Most fields that are told one by one as left out.
pub(crate) const LEFT_OUT_MAX: usize = 50;
/// The first characters of a field's path that messages have.
pub(crate) const PATH_CHARS_MAX: usize = 100;

/// What records give a stream.
#[derive(Debug, Default)]
pub(crate) struct Inference {
    /// In the order in which their fields came first.
    pub(crate) columns: Vec<ColumnConfig>,
    /// Fields without a column, and why.
    pub(crate) left_out: Vec<(String, String)>,
    /// What else is to be known of the records.
    pub(crate) notes: Vec<String>,
}

/// Values that are no records, by their place among the others.
#[derive(Debug, Default)]
pub(crate) struct Unreadable {
    pub(crate) count: usize,
    /// The first one, and what is wrong with it.
    pub(crate) first: Option<(usize, String)>,
}

/// A field that is no object, and all that was seen of it.
struct Leaf<'s> {
    path: Vec<&'s str>,
    seen: &'s Seen,
}

/// Reads values, each as far as it is one JSON object.
pub(crate) fn read<'v>(values: impl Iterator<Item = Result<&'v [u8], Refusal>>) -> (Records, Unreadable) {
    let (mut records, mut unreadable) = (Records::default(), Unreadable::default());
    for (at, value) in values.enumerate() {
        if let Err(refusal) = value.and_then(|value| records.add(value)) {
            unreadable.count += 1;
            unreadable.first.get_or_insert((at, refusal.reason));
        }
    }
    (records, unreadable)
}

/// The columns that take every value of these records. Only the event time's is required.
///
/// # Errors
/// The event time has no column that the engine could go by.
pub(crate) fn infer(records: &Records, event_time: &str) -> Result<Inference, String> {
    let mut found = Vec::new();
    leaves(records.fields(), &mut Vec::new(), &mut found);
    let event_time_leaf = place_of(event_time, &found);
    let mut inference = Inference::default();
    let mut typed: Vec<(&Leaf<'_>, ColumnType)> = Vec::new();
    for (at, leaf) in found.iter().enumerate() {
        let is_event_time = event_time_leaf == Some(at);
        let kind = if is_event_time { leaf.seen.event_time() } else { leaf.seen.column_type() };
        match kind {
            Ok(_) if typed.len() >= COLUMNS_MAX && !is_event_time => {
                inference.leave_out(leaf, format!("{COLUMNS_MAX} columns come before it, which is the most"));
            }
            Ok(kind) => typed.push((leaf, kind)),
            Err(why) => inference.leave_out(leaf, why),
        }
    }
    let paths: Vec<&[&str]> = typed.iter().map(|(leaf, _)| leaf.path.as_slice()).collect();
    for ((leaf, kind), name) in typed.iter().zip(named(&paths)) {
        match name {
            Err(why) => inference.leave_out(leaf, why.to_string()),
            Ok(Named { name, from }) => {
                let (required, sql_type) = (name == event_time, kind.sql_type());
                inference.columns.push(ColumnConfig { name, sql_type, required, from, added: false });
            }
        }
    }
    let leaf = event_time_leaf.map(|at| &found[at]);
    inference.check_event_time(event_time, leaf)?;
    inference.note_missing(event_time, leaf, records.count());
    inference.end(records);
    Ok(inference)
}

impl Inference {
    fn leave_out(&mut self, leaf: &Leaf<'_>, why: String) {
        self.left_out.push((leaf.path.join("."), why));
    }

    /// `leaf` is the field that the event time's column would be of.
    fn check_event_time(&self, event_time: &str, leaf: Option<&Leaf<'_>>) -> Result<(), String> {
        let column = self.columns.iter().find(|column| column.name == event_time);
        if let Some(column) = column {
            if column.sql_type == ColumnType::Timestamp.sql_type() {
                return Ok(());
            }
            return Err(format!(
                "event_time '{event_time}' is {} by the sample, not TIMESTAMP: write the columns out",
                column.sql_type
            ));
        }
        let path = leaf.map(|leaf| leaf.path.join("."));
        if let Some((_, why)) = self.left_out.iter().find(|(left_out, _)| Some(left_out) == path.as_ref()) {
            return Err(format!("event_time '{event_time}' gets no column: {why}"));
        }
        // One that is of several types may well be meant: as event time its numbers and texts are both times.
        let left_out = self.left_out.iter().map(|(path, _)| path.as_str());
        let hint = closest(event_time, self.columns.iter().map(|column| column.name.as_str()).chain(left_out));
        Err(format!("event_time '{event_time}' is not a field of the sampled records{hint}"))
    }

    fn note_missing(&mut self, event_time: &str, leaf: Option<&Leaf<'_>>, count: usize) {
        let missing = leaf.map_or(0, |leaf| count.saturating_sub(leaf.seen.values()));
        if missing > 0 {
            self.notes.push(format!(
                "event_time '{event_time}' is missing or null in {missing} of {count} records: such records are rejected"
            ));
        }
    }

    /// Keeps what is told of the fields in bounds.
    fn end(&mut self, records: &Records) {
        let untold = self.left_out.len().saturating_sub(LEFT_OUT_MAX);
        self.left_out.truncate(LEFT_OUT_MAX);
        if untold > 0 {
            self.notes.push(format!("{untold} more fields are left out"));
        }
        if records.has_more_fields() {
            self.notes.push("the records have so many fields that those that came last were not looked at".into());
        }
        for (path, _) in &mut self.left_out {
            if let Some((end, _)) = path.char_indices().nth(PATH_CHARS_MAX) {
                path.replace_range(end.., "…");
            }
        }
    }
}

/// The field whose column will have this name.
fn place_of(column: &str, found: &[Leaf<'_>]) -> Option<usize> {
    let its_own = found.iter().position(|leaf| leaf.path == [column]);
    its_own.or_else(|| found.iter().position(|leaf| plain_name(&leaf.path) == column))
}

/// All fields that are no objects, those of objects among them.
fn leaves<'s>(fields: &'s Fields, path: &mut Vec<&'s str>, found: &mut Vec<Leaf<'s>>) {
    for (name, seen) in fields.iter() {
        path.push(name);
        match seen.as_object() {
            Some(inner) => leaves(inner, path, found),
            None => found.push(Leaf { path: path.clone(), seen }),
        }
        path.pop();
    }
}
