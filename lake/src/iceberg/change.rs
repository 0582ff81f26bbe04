//! What one snapshot changes: pure rules.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use iceberg::spec::{Operation, Summary};

use super::reach::Kept;

/// Manifests of fewer data files are small.
const SMALL_FILES: usize = 1_000;
/// So many small manifests become one.
const SMALL_MANIFESTS_MAX: usize = 16;
/// Data files of one manifest.
pub const MANIFEST_FILES_MAX: usize = 5_000;

/// What becomes of the manifests of the snapshot before.
#[derive(Debug, Default)]
pub struct Manifests {
    /// They stay as they are.
    pub kept: Vec<Arc<Kept>>,
    /// What they say is said anew: some of their files are removed, or they are many and small.
    pub rewritten: Vec<Arc<Kept>>,
}

/// Decides it. Manifests that only tell what an older snapshot removed are left out.
pub fn manifests(current: &[Arc<Kept>], removed: &HashSet<Arc<str>>) -> Manifests {
    let mut found = Manifests::default();
    for manifest in current.iter().filter(|manifest| !manifest.live.is_empty()) {
        match manifest.live.iter().any(|url| removed.contains(url)) {
            true => found.rewritten.push(manifest.clone()),
            false => found.kept.push(manifest.clone()),
        }
    }
    let is_small = |manifest: &Arc<Kept>| manifest.live.len() < SMALL_FILES;
    if found.kept.iter().filter(|manifest| is_small(manifest)).count() >= SMALL_MANIFESTS_MAX {
        let (small, large) = std::mem::take(&mut found.kept).into_iter().partition::<Vec<_>, _>(is_small);
        found.kept = large;
        found.rewritten.extend(small);
    }
    found
}

/// Files, the rows in them and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Files.
    pub files: u64,
    /// Rows.
    pub rows: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Amount {
    /// Counts one more file.
    pub fn add(&mut self, rows: u64, bytes: u64) {
        *self = Self { files: self.files + 1, rows: self.rows + rows, bytes: self.bytes + bytes };
    }
}

/// What a snapshot did, in words of Iceberg. Rows of a log never change: where as many go as come, they were merged or moved.
pub fn summary((added, removed): (Amount, Amount), total: Amount, slices: usize, is_log: bool) -> Summary {
    let operation = match (added.files, removed.files) {
        (_, 0) => Operation::Append,
        (0, _) => Operation::Delete,
        _ if is_log && added.rows == removed.rows => Operation::Replace,
        _ => Operation::Overwrite,
    };
    let numbers = [
        ("added-data-files", added.files),
        ("added-records", added.rows),
        ("added-files-size", added.bytes),
        ("deleted-data-files", removed.files),
        ("deleted-records", removed.rows),
        ("removed-files-size", removed.bytes),
        ("changed-partition-count", slices as u64),
        ("total-data-files", total.files),
        ("total-records", total.rows),
        ("total-files-size", total.bytes),
        ("total-delete-files", 0),
        ("total-position-deletes", 0),
        ("total-equality-deletes", 0),
    ];
    let optional =
        |name: &str, number: u64| number == 0 && ["added", "deleted", "removed"].iter().any(|of| name.starts_with(of));
    let told = numbers.into_iter().filter(|(name, number)| !optional(name, *number));
    let additional_properties: HashMap<String, String> =
        told.map(|(name, number)| (name.to_owned(), number.to_string())).collect();
    Summary { operation, additional_properties }
}

/// A snapshot, as the rule of expiry sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The snapshot.
    pub id: i64,
    /// When it was written, in ms since 1970.
    pub at_ms: i64,
    /// Whether it names a file that is about to leave its place.
    pub is_losing: bool,
}

/// Which snapshots go, of all in their order: one can be read until it was replaced `keep_ms` ago, whenever it was written.
/// The last one stays.
pub fn expired(moments: &[Moment], now_ms: i64, keep_ms: i64, count_max: usize) -> Vec<i64> {
    let too_many = moments.len().saturating_sub(count_max);
    let goes = |at: usize, pair: &[Moment]| {
        at < too_many || pair[0].is_losing || pair[1].at_ms <= now_ms.saturating_sub(keep_ms)
    };
    moments.windows(2).enumerate().filter(|(at, pair)| goes(*at, pair)).map(|(_, pair)| pair[0].id).collect()
}

#[cfg(test)]
mod tests {
    use super::super::reach::tests::kept;
    use super::*;

    fn names(manifests: &[Arc<Kept>]) -> Vec<&str> {
        manifests.iter().map(|manifest| manifest.file.manifest_path.as_str()).collect()
    }

    #[test]
    fn manifests_are_said_anew_where_files_go_and_when_they_are_many() {
        let current = [kept("a", &["1", "2"]), kept("b", &["3"]), kept("told", &[])];
        let nothing = manifests(&current, &HashSet::new());
        assert_eq!((names(&nothing.kept), names(&nothing.rewritten)), (vec!["a", "b"], vec![]));
        let some = manifests(&current, &HashSet::from([Arc::from("3"), Arc::from("9")]));
        assert_eq!((names(&some.kept), names(&some.rewritten)), (vec!["a"], vec!["b"]));
        let large = kept("large", &vec!["x"; SMALL_FILES]);
        let mut many: Vec<_> = (0..SMALL_MANIFESTS_MAX).map(|at| kept(&at.to_string(), &["y"])).collect();
        many.push(large);
        let all = manifests(&many, &HashSet::new());
        assert_eq!((names(&all.kept), all.rewritten.len()), (vec!["large"], SMALL_MANIFESTS_MAX));
    }

    #[test]
    fn operations_are_named_by_what_they_did() {
        let amount = |files, rows| Amount { files, rows, bytes: rows };
        let of = |added, removed| summary((added, removed), amount(9, 90), 2, true);
        let none = Amount::default();
        assert_eq!(of(amount(1, 5), none).operation, Operation::Append);
        assert_eq!(of(amount(1, 5), amount(3, 5)).operation, Operation::Replace);
        assert_eq!(of(amount(1, 6), amount(3, 5)).operation, Operation::Overwrite);
        let same = summary((amount(1, 5), amount(3, 5)), amount(9, 90), 2, false);
        assert_eq!(same.operation, Operation::Overwrite, "a run of SQL can give other rows");
        let deleted = of(none, amount(3, 5));
        assert_eq!(deleted.operation, Operation::Delete);
        let told = &deleted.additional_properties;
        assert_eq!((told.get("deleted-records").map(String::as_str), told.get("added-records")), (Some("5"), None));
        assert_eq!((told["total-records"].as_str(), told["changed-partition-count"].as_str()), ("90", "2"));
    }

    #[test]
    fn a_snapshot_can_be_read_for_as_long_as_said_after_it_was_replaced() {
        let moment = |id, at_ms| Moment { id, at_ms, is_losing: false };
        let old = [moment(1, 0), moment(2, 100), moment(3, 5_000)];
        assert_eq!(expired(&old, 5_000, 1_000, 100), [1], "the second one was current until now");
        assert_eq!(expired(&old, 5_999, 1_000, 100), [1]);
        assert_eq!(expired(&old, 6_000, 1_000, 100), [1, 2], "never the last one");
        assert_eq!(expired(&old, 0, 1_000, 1), [1, 2], "too many");
        let losing = [moment(1, 0), Moment { is_losing: true, ..moment(2, 1) }, moment(3, 2)];
        assert_eq!(expired(&losing, 3, 1_000, 100), [2]);
        assert_eq!(expired(&old[2..], i64::MAX, 0, 0), Vec::<i64>::new());
    }
}
