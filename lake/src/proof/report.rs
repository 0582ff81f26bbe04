//! What a comparison of a view with its recomputation found.

use crate::Offsets;

/// Most differences that are named one by one.
const NAMED_MAX: usize = 100;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ViewReport {
    /// The view.
    pub view: String,
    /// The offsets at which it was read and recomputed.
    pub offsets: Offsets,
    /// Windows that were looked at.
    pub windows: u64,
    /// Groups that are served and recomputed.
    pub groups: u64,
    /// Those of them that agree in all columns.
    pub equal: u64,
    /// Those of them that do not.
    pub different: u64,
    /// Groups that are recomputed and not served.
    pub missing: u64,
    /// Groups that are served and not recomputed.
    pub extra: u64,
    /// Groups that are recomputed and not served because the view's retention is over.
    pub expired: u64,
    /// Groups that could not be judged because records they may hold are gone from log and lake.
    pub unjudged: u64,
    /// Rows that the view has on record as late, or as not to be evaluated.
    pub not_counted: u64,
    /// The first differences.
    pub named: Vec<Difference>,
    /// What restricts the comparison.
    pub notes: Vec<String>,
    /// Why there is no comparison: the view cannot be recomputed by a query of its own.
    pub refused: Option<String>,
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Which kind.
    pub kind: DifferenceKind,
    /// The group's window and keys, as column and text; None is null.
    pub group: Vec<(String, Option<String>)>,
    /// The column, where one value differs.
    pub column: Option<String>,
    /// What the view serves there.
    pub served: Option<String>,
    /// What its query gives.
    pub recomputed: Option<String>,
}

/// In which way a group differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DifferenceKind {
    /// It is recomputed and not served.
    Missing,
    /// It is served and not recomputed.
    Extra,
    /// A value of it differs.
    Different,
}

impl DifferenceKind {
    /// In answers.
    pub fn word(self) -> &'static str {
        match self {
            DifferenceKind::Missing => "missing",
            DifferenceKind::Extra => "extra",
            DifferenceKind::Different => "different",
        }
    }
}

impl ViewReport {
    /// Whether there are no differences.
    pub fn is_sound(&self) -> bool {
        self.different == 0 && self.missing == 0 && self.extra == 0
    }

    /// Names a difference, if there is room.
    pub(crate) fn name(&mut self, difference: impl FnOnce() -> Difference) {
        if self.named.len() < NAMED_MAX {
            self.named.push(difference());
        }
    }
}
