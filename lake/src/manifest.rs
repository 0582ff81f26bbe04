//! The manifest: which files are published and how far each partition is settled. It is stored in the broker's store, so
//! that files and mark move in one commit, and kept in memory for queries. Before each commit the invariants are checked.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use broker::{Ack, Broker, Change, Family, LogId, Offset};
use parking_lot::Mutex;

use crate::error::{LakeError, Result};
use crate::manifest_bytes::{
    EPOCH_KEY, FileEntry, Mark, Plan, epoch_of, file_key, files_of, log_of, mark_key, plan_key, ranges,
};
use crate::raw::{RawFile, raw_files_of, raw_key, raw_range};

/// What one partition has in the lake, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Settled {
    /// How far it is settled; none before the first time.
    pub mark: Option<Mark>,
    /// The range that is being written.
    pub plan: Option<Plan>,
    /// Its files by (first offset, ordinal).
    pub files: Arc<Vec<Arc<FileEntry>>>,
    /// Its files of whole records by first offset.
    pub raw: Arc<Vec<Arc<RawFile>>>,
}

impl Settled {
    /// Where all its files lie below the lake's root.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        let raw = self.raw.iter().map(|file| file.path.as_str());
        self.files.iter().map(|file| file.path.as_str()).chain(raw)
    }
}

/// The manifest. Holds: the settled state of every partition. Changes are commits of the epoch's owner alone, one at a
/// time; memory follows the store. Always true: in a slice, a partition's ranges do not overlap; they end below its mark, and
/// the mark only moves forward. A crash keeps it.
pub struct Manifest {
    broker: Arc<Broker>,
    epoch: u64,
    committing: tokio::sync::Mutex<()>,
    settled: Mutex<HashMap<LogId, Settled>>,
    commits: AtomicU64,
}

impl Manifest {
    /// Reads the manifest and fences off whoever wrote to it before.
    ///
    /// # Errors
    /// `Broker` when it is damaged or cannot be read.
    pub async fn open(broker: Arc<Broker>) -> Result<Self> {
        let reading = broker.clone();
        let loaded = tokio::task::spawn_blocking(move || load(&reading)).await;
        let (before, settled) =
            loaded.map_err(|e| LakeError::bug(format!("reading the manifest ended early: {e}")))??;
        let epoch = before + 1;
        let fence = Change::Put(Family::Lake, EPOCH_KEY.to_vec(), epoch.to_be_bytes().to_vec());
        broker.lane().commit(vec![fence], Ack::Durable).await?;
        let (committing, commits) = (tokio::sync::Mutex::default(), AtomicU64::new(0));
        Ok(Self { broker, epoch, committing, settled: Mutex::new(settled), commits })
    }

    /// The fencing epoch of this owner.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// A number that changes with what is published.
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::Acquire)
    }

    /// Finds out that no other owner took over.
    ///
    /// # Errors
    /// `Bug` when one did, `Broker` when the store fails.
    pub fn check_owner(&self) -> Result<()> {
        self.epoch_is_ours()
    }

    /// What one partition has now.
    pub fn settled(&self, log: LogId) -> Settled {
        self.settled.lock().get(&log).cloned().unwrap_or_default()
    }

    /// What several partitions have at one moment, in their order.
    pub fn snapshot(&self, logs: &[LogId]) -> Vec<Settled> {
        let settled = self.settled.lock();
        logs.iter().map(|log| settled.get(log).cloned().unwrap_or_default()).collect()
    }

    /// All partitions that have anything in the manifest.
    pub fn logs(&self) -> Vec<LogId> {
        let mut logs: Vec<_> = self.settled.lock().keys().copied().collect();
        logs.sort();
        logs
    }

    /// Fixes the range that is written next, or makes the fixed one shorter.
    ///
    /// # Errors
    /// `Bug` when an invariant does not hold, `Broker` when the store fails.
    pub async fn plan(&self, log: LogId, first: Offset, last: Offset) -> Result<Plan> {
        let _one = self.committing.lock().await;
        let before = self.settled(log);
        let plan = Plan { first, last, epoch: self.epoch };
        self.epoch_is_ours()?;
        plan_begins_at_mark(before.mark, &plan)?;
        plan_only_shrinks(before.plan, &plan)?;
        let change = Change::Put(Family::Lake, plan_key(log), plan.encode());
        self.broker.lane().commit(vec![change], Ack::Durable).await?;
        self.settled.lock().entry(log).or_default().plan = Some(plan);
        Ok(plan)
    }

    /// Publishes the files of the planned range and moves the mark behind it, in one commit.
    ///
    /// # Errors
    /// `Bug` when an invariant does not hold, `Broker` when the store fails; nothing has changed then.
    pub async fn publish(&self, log: LogId, plan: Plan, files: Vec<FileEntry>, raw: Option<RawFile>) -> Result<()> {
        let _one = self.committing.lock().await;
        let before = self.settled(log);
        let mark = Mark { offset: plan.last + 1, moved_ms: self.broker.clock().now_ms() };
        self.epoch_is_ours()?;
        plan_is_the_fixed_one(before.plan, plan)?;
        mark_moves_forward(before.mark, mark)?;
        files_lie_in_plan(&plan, &files)?;
        ranges_do_not_overlap(&before.files, &plan)?;
        raw_is_the_plan(&plan, raw.as_ref())?;
        let mut changes = Vec::with_capacity(files.len() + 3);
        if let Some(raw) = &raw {
            changes.push(Change::Put(Family::Lake, raw_key(log, raw.first), raw.encode()?));
        }
        for file in &files {
            changes.push(Change::Put(Family::Lake, file_key(log, file.first, file.ordinal), file.encode()?));
        }
        changes.push(Change::Put(Family::Lake, mark_key(log), mark.encode()));
        changes.push(Change::Delete(Family::Lake, plan_key(log)));
        self.broker.lane().commit(changes, Ack::Durable).await?;
        let mut settled = self.settled.lock();
        let after = settled.entry(log).or_default();
        Arc::make_mut(&mut after.files).extend(files.into_iter().map(Arc::new));
        if let Some(raw) = raw {
            Arc::make_mut(&mut after.raw).push(Arc::new(raw));
        }
        after.mark = Some(mark);
        after.plan = None;
        self.count();
        Ok(())
    }

    /// Moves a mark, and forgets the plan, where the log no longer has the records: somebody deleted them.
    ///
    /// # Errors
    /// `Bug` when an invariant does not hold, `Broker` when the store fails.
    pub async fn skip(&self, log: LogId, to: Offset) -> Result<()> {
        let _one = self.committing.lock().await;
        let mark = Mark { offset: to, moved_ms: self.broker.clock().now_ms() };
        self.epoch_is_ours()?;
        mark_moves_forward(self.settled(log).mark, mark)?;
        let changes =
            vec![Change::Put(Family::Lake, mark_key(log), mark.encode()), Change::Delete(Family::Lake, plan_key(log))];
        self.broker.lane().commit(changes, Ack::Durable).await?;
        let mut settled = self.settled.lock();
        let after = settled.entry(log).or_default();
        after.mark = Some(mark);
        after.plan = None;
        Ok(())
    }

    /// Commits changes of a table that SQL writes, whose run is the only one that makes them, and then has `take_in` make them known.
    ///
    /// # Errors
    /// `Bug` when another owner took over, `Broker` when the store fails; nothing has changed then.
    pub async fn commit_written(&self, changes: Vec<Change>, take_in: impl FnOnce() + Send) -> Result<()> {
        let _one = self.committing.lock().await;
        self.epoch_is_ours()?;
        self.broker.lane().commit(changes, Ack::Durable).await?;
        take_in();
        self.count();
        Ok(())
    }

    /// Holds all commits of the lake up as long as the answer lives: what is known and what is in the store is the same then.
    pub async fn stand_still(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.committing.lock().await
    }

    /// Gives published files other places, or forgets them, in one commit. What they hold stays as it is.
    ///
    /// # Errors
    /// `Bug` when one is not published, `Broker` when the store fails; nothing has changed then.
    pub async fn rearrange(&self, files: Vec<(LogId, Arc<FileEntry>, Option<FileEntry>)>) -> Result<()> {
        let _one = self.committing.lock().await;
        self.epoch_is_ours()?;
        let mut changes = Vec::with_capacity(files.len());
        for (log, before, after) in &files {
            file_is_published(&self.settled(*log).files, before)?;
            let key = file_key(*log, before.first, before.ordinal);
            changes.push(match after {
                Some(after) => Change::Put(Family::Lake, key, after.encode()?),
                None => Change::Delete(Family::Lake, key),
            });
        }
        self.broker.lane().commit(changes, Ack::Durable).await?;
        let mut settled = self.settled.lock();
        for (log, before, after) in files {
            let known = Arc::make_mut(&mut settled.entry(log).or_default().files);
            if let Some(at) = known.iter().position(|file| Arc::ptr_eq(file, &before)) {
                match after {
                    Some(after) => known[at] = Arc::new(after),
                    None => drop(known.remove(at)),
                }
            }
        }
        self.count();
        Ok(())
    }

    /// Puts one file in the place of neighbours whose rows it holds, in one commit.
    ///
    /// # Errors
    /// `Bug` when an invariant does not hold, `Broker` when the store fails; nothing has changed then.
    pub async fn merge(&self, log: LogId, inputs: &[Arc<FileEntry>], merged: FileEntry) -> Result<()> {
        let _one = self.committing.lock().await;
        let Settled { mark, files, .. } = self.settled(log);
        self.epoch_is_ours()?;
        inputs.iter().try_for_each(|input| file_is_published(&files, input))?;
        merged_holds_its_inputs(inputs, &merged)?;
        nothing_lies_between(&files, inputs)?;
        merged_is_settled(mark, &merged)?;
        drop(files);
        let mut changes =
            vec![Change::Put(Family::Lake, file_key(log, merged.first, merged.ordinal), merged.encode()?)];
        // the first one's key is the merged file's
        for input in inputs.iter().skip(1) {
            changes.push(Change::Delete(Family::Lake, file_key(log, input.first, input.ordinal)));
        }
        self.broker.lane().commit(changes, Ack::Durable).await?;
        let gone: HashSet<(Offset, u32)> = inputs.iter().skip(1).map(|input| (input.first, input.ordinal)).collect();
        let mut settled = self.settled.lock();
        let known = Arc::make_mut(&mut settled.entry(log).or_default().files);
        if let Some(at) = place_of(known, (merged.first, merged.ordinal)) {
            known[at] = Arc::new(merged);
        }
        known.retain(|file| !gone.contains(&(file.first, file.ordinal)));
        self.count();
        Ok(())
    }

    /// Forgets files of whole records, the first of their partition.
    ///
    /// # Errors
    /// `Bug` when another owner took over, `Broker` when the store fails; nothing has changed then.
    pub async fn forget_raw(&self, log: LogId, gone: &[Arc<RawFile>]) -> Result<()> {
        let _one = self.committing.lock().await;
        self.epoch_is_ours()?;
        let changes = gone.iter().map(|file| Change::Delete(Family::Lake, raw_key(log, file.first))).collect();
        self.broker.lane().commit(changes, Ack::Durable).await?;
        if let Some(settled) = self.settled.lock().get_mut(&log) {
            Arc::make_mut(&mut settled.raw).retain(|file| !gone.iter().any(|gone| Arc::ptr_eq(gone, file)));
        }
        Ok(())
    }

    /// Puts one file of whole records in the place of those that it holds, in one commit.
    ///
    /// # Errors
    /// `Bug` when an invariant does not hold, `Broker` when the store fails; nothing has changed then.
    pub async fn merge_raw(&self, log: LogId, inputs: &[Arc<RawFile>], merged: RawFile) -> Result<()> {
        let _one = self.committing.lock().await;
        self.epoch_is_ours()?;
        merged_raw_holds_its_inputs(&self.settled(log).raw, inputs, &merged)?;
        let mut changes = vec![Change::Put(Family::Lake, raw_key(log, merged.first), merged.encode()?)];
        // the first one's key is the merged file's
        let others = inputs.iter().skip(1);
        changes.extend(others.map(|input| Change::Delete(Family::Lake, raw_key(log, input.first))));
        self.broker.lane().commit(changes, Ack::Durable).await?;
        if let Some(settled) = self.settled.lock().get_mut(&log) {
            let known = Arc::make_mut(&mut settled.raw);
            known.retain(|file| !inputs.iter().any(|input| Arc::ptr_eq(input, file)));
            let at = known.partition_point(|file| file.first < merged.first);
            known.insert(at, Arc::new(merged));
        }
        Ok(())
    }

    /// Whether a file is published as it is here.
    pub fn is_published(&self, log: LogId, file: &Arc<FileEntry>) -> bool {
        self.settled.lock().get(&log).is_some_and(|settled| file_is_published(&settled.files, file).is_ok())
    }

    /// Forgets all of a partition, whose topic was deleted.
    ///
    /// # Errors
    /// `Bug` when another owner took over, `Broker` when the store fails.
    pub async fn forget(&self, log: LogId) -> Result<()> {
        let _one = self.committing.lock().await;
        self.epoch_is_ours()?;
        let ((from, to), (raw_from, raw_to)) = (files_of(log), raw_files_of(log));
        let changes = vec![
            Change::DeleteRange(Family::Lake, from, to),
            Change::DeleteRange(Family::Lake, raw_from, raw_to),
            Change::Delete(Family::Lake, mark_key(log)),
            Change::Delete(Family::Lake, plan_key(log)),
        ];
        self.broker.lane().commit(changes, Ack::Durable).await?;
        self.settled.lock().remove(&log);
        self.count();
        Ok(())
    }

    fn count(&self) {
        self.commits.fetch_add(1, Ordering::Release);
    }

    fn epoch_is_ours(&self) -> Result<()> {
        let stored = self.broker.store().get(Family::Lake, EPOCH_KEY)?;
        let stored = stored.as_deref().map(epoch_of).transpose()?;
        if stored == Some(self.epoch) {
            return Ok(());
        }
        let message = format!(
            "this lake has epoch {}, the manifest belongs to epoch {stored:?}: it was started twice",
            self.epoch
        );
        Err(LakeError::bug(message))
    }
}

fn load(broker: &Broker) -> Result<(u64, HashMap<LogId, Settled>)> {
    let store = broker.store();
    let epoch = store.get(Family::Lake, EPOCH_KEY)?.as_deref().map(epoch_of).transpose()?.unwrap_or(0);
    let mut settled: HashMap<LogId, Settled> = HashMap::new();
    let mut files: BTreeMap<LogId, Vec<Arc<FileEntry>>> = BTreeMap::new();
    let [file_range, mark_range, plan_range] = ranges();
    for entry in store.scan(Family::Lake, &file_range.0, &file_range.1) {
        let (key, value) = entry?;
        files.entry(log_of(&key)?).or_default().push(Arc::new(FileEntry::decode(&key, &value)?));
    }
    for (log, files) in files {
        settled.entry(log).or_default().files = Arc::new(files);
    }
    let (from, to) = raw_range();
    for entry in store.scan(Family::Lake, &from, &to) {
        let (key, value) = entry?;
        let raw = &mut settled.entry(log_of(&key)?).or_default().raw;
        Arc::make_mut(raw).push(Arc::new(RawFile::decode(&key, &value)?));
    }
    for entry in store.scan(Family::Lake, &mark_range.0, &mark_range.1) {
        let (key, value) = entry?;
        settled.entry(log_of(&key)?).or_default().mark = Some(Mark::decode(&value)?);
    }
    for entry in store.scan(Family::Lake, &plan_range.0, &plan_range.1) {
        let (key, value) = entry?;
        settled.entry(log_of(&key)?).or_default().plan = Some(Plan::decode(&value)?);
    }
    Ok((epoch, settled))
}

/// Ranges are contiguous: a range begins where the one before it ended.
fn plan_begins_at_mark(mark: Option<Mark>, plan: &Plan) -> Result<()> {
    let fits = plan.first >= 0 && plan.last >= plan.first && mark.is_none_or(|mark| mark.offset == plan.first);
    broken_unless(fits, || format!("plan {plan:?} does not begin at the mark {mark:?}"))
}

/// A range, once fixed, changes only by ending earlier; files under its old name were not published yet then.
fn plan_only_shrinks(before: Option<Plan>, plan: &Plan) -> Result<()> {
    let fits = before.is_none_or(|before| before.first == plan.first && before.last >= plan.last);
    broken_unless(fits, || format!("plan {plan:?} is not within {before:?}"))
}

/// Only what was planned is published, and by the one who planned it.
fn plan_is_the_fixed_one(fixed: Option<Plan>, plan: Plan) -> Result<()> {
    broken_unless(fixed == Some(plan), || format!("plan {plan:?} is not the fixed one, {fixed:?}"))
}

/// What is settled stays settled.
fn mark_moves_forward(before: Option<Mark>, after: Mark) -> Result<()> {
    let fits = before.is_none_or(|before| before.offset < after.offset);
    broken_unless(fits, || format!("mark {after:?} is not above {before:?}"))
}

/// Each file belongs to the planned range, holds rows, and is named once; together they hold no more rows than offsets.
fn files_lie_in_plan(plan: &Plan, files: &[FileEntry]) -> Result<()> {
    let paths: BTreeSet<_> = files.iter().map(|file| &file.path).collect();
    let ordinals: BTreeSet<_> = files.iter().map(|file| file.ordinal).collect();
    let inside = |file: &FileEntry| file.first == plan.first && file.last == plan.last && file.rows > 0;
    let rows: u64 = files.iter().map(|file| file.rows).sum();
    let offsets = u64::try_from(plan.last - plan.first + 1).unwrap_or(0);
    let distinct = paths.len() == files.len() && ordinals.len() == files.len();
    let fits = distinct && files.iter().all(inside) && rows <= offsets;
    broken_unless(fits, || format!("files of {rows} rows do not fit the plan {plan:?}: {files:?}"))
}

/// A merged file of whole records has those of its inputs, which are published and follow one another. One alone may be written
/// again under its name.
fn merged_raw_holds_its_inputs(known: &[Arc<RawFile>], inputs: &[Arc<RawFile>], merged: &RawFile) -> Result<()> {
    let is_known = |input: &Arc<RawFile>| known.iter().any(|file| Arc::ptr_eq(file, input));
    let ends = inputs.first().zip(inputs.last()).map(|(first, last)| (first.first, last.last));
    let sum = RawFile::sum_of(inputs);
    let fits = inputs.iter().all(is_known)
        && (sum.is_none() || merged.sum == sum)
        && inputs.windows(2).all(|pair| pair[0].last + 1 == pair[1].first)
        && ends == Some((merged.first, merged.last))
        && merged.records == inputs.iter().map(|input| input.records).sum::<u64>()
        && (inputs.len() == 1 || inputs.iter().all(|input| input.path != merged.path));
    broken_unless(fits, || format!("{merged:?} does not hold what {inputs:?} do"))
}

/// The whole records of a range are in one file.
fn raw_is_the_plan(plan: &Plan, raw: Option<&RawFile>) -> Result<()> {
    let fits = raw.is_none_or(|raw| (raw.first, raw.last) == (plan.first, plan.last));
    broken_unless(fits, || format!("{raw:?} does not have the range of {plan:?}"))
}

/// Only what is published is moved, merged or forgotten.
fn file_is_published(files: &[Arc<FileEntry>], file: &Arc<FileEntry>) -> Result<()> {
    let known = place_of(files, (file.first, file.ordinal)).map(|at| &files[at]);
    broken_unless(known.is_some_and(|known| Arc::ptr_eq(known, file)), || format!("{file:?} is not published"))
}

/// Where a file is among those of its partition, which are in the order of their keys.
fn place_of(files: &[Arc<FileEntry>], key: (Offset, u32)) -> Option<usize> {
    files.binary_search_by_key(&key, |file| (file.first, file.ordinal)).ok()
}

/// A merged file has the rows of its inputs, which are of one slice and one directory and follow one another, and a name
/// of its own.
fn merged_holds_its_inputs(inputs: &[Arc<FileEntry>], merged: &FileEntry) -> Result<()> {
    let dir = |path: &str| path.rsplit_once('/').map(|(dir, _)| dir.to_owned());
    let (Some(first), Some(last)) = (inputs.first(), inputs.last()) else {
        return broken_unless(false, || format!("{merged:?} holds nothing"));
    };
    let alike = |input: &Arc<FileEntry>| input.levels == merged.levels && dir(&input.path) == dir(&merged.path);
    let follows = |pair: &[Arc<FileEntry>]| pair[0].last < pair[1].first;
    let fits = inputs.len() > 1
        && inputs.iter().all(alike)
        && inputs.windows(2).all(follows)
        && (merged.first, merged.ordinal, merged.last) == (first.first, first.ordinal, last.last)
        && merged.rows == inputs.iter().map(|input| input.rows).sum::<u64>()
        && merged.event_ms == FileEntry::times_of(inputs)
        && inputs.iter().all(|input| input.path != merged.path);
    broken_unless(fits, || format!("{merged:?} does not hold what {inputs:?} do"))
}

/// The inputs of a merge are neighbours: no other file of their slice lies in their range.
fn nothing_lies_between(files: &[Arc<FileEntry>], inputs: &[Arc<FileEntry>]) -> Result<()> {
    let (Some(first), Some(last)) = (inputs.first(), inputs.last()) else { return Ok(()) };
    let inside =
        |file: &&Arc<FileEntry>| file.first <= last.last && file.last >= first.first && file.levels == first.levels;
    let count = files.iter().filter(inside).count();
    broken_unless(count == inputs.len(), || format!("{count} files lie where {} are merged: {inputs:?}", inputs.len()))
}

/// What is merged is settled: the writer of new ranges works above it.
fn merged_is_settled(mark: Option<Mark>, merged: &FileEntry) -> Result<()> {
    broken_unless(mark.is_some_and(|mark| merged.last < mark.offset), || format!("{merged:?} is not below {mark:?}"))
}

/// No offset is in two ranges.
fn ranges_do_not_overlap(files: &[Arc<FileEntry>], plan: &Plan) -> Result<()> {
    let last = files.iter().map(|file| file.last).max();
    broken_unless(last.is_none_or(|last| last < plan.first), || {
        format!("plan {plan:?} overlaps files that end at {last:?}")
    })
}

fn broken_unless(holds: bool, what: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(LakeError::bug(format!("the lake's manifest would break: {}", what()))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(first: Offset, last: Offset) -> Plan {
        Plan { first, last, epoch: 1 }
    }

    fn file(first: Offset, last: Offset, ordinal: u32, rows: u64) -> FileEntry {
        FileEntry {
            first,
            last,
            ordinal,
            rows,
            bytes: 1,
            event_ms: None,
            published_ms: 0,
            path: format!("t/{first}-{last}-{ordinal}"),
            levels: Vec::new(),
        }
    }

    #[test]
    fn each_invariant_refuses_what_breaks_it() {
        let mark = |offset| Some(Mark { offset, moved_ms: 0 });
        assert!(plan_begins_at_mark(mark(5), &plan(5, 9)).is_ok());
        assert!(plan_begins_at_mark(None, &plan(3, 3)).is_ok());
        assert!(plan_begins_at_mark(mark(5), &plan(6, 9)).is_err(), "a gap");
        assert!(plan_begins_at_mark(mark(5), &plan(4, 9)).is_err(), "an overlap");
        assert!(plan_begins_at_mark(mark(5), &plan(5, 4)).is_err(), "nothing");

        assert!(plan_only_shrinks(None, &plan(5, 9)).is_ok());
        assert!(plan_only_shrinks(Some(plan(5, 9)), &plan(5, 7)).is_ok());
        assert!(plan_only_shrinks(Some(plan(5, 9)), &plan(5, 10)).is_err());

        assert!(plan_is_the_fixed_one(Some(plan(5, 9)), plan(5, 9)).is_ok());
        assert!(plan_is_the_fixed_one(Some(plan(5, 9)), Plan { epoch: 2, ..plan(5, 9) }).is_err());
        assert!(plan_is_the_fixed_one(None, plan(5, 9)).is_err());

        assert!(mark_moves_forward(mark(5), Mark { offset: 6, moved_ms: 0 }).is_ok());
        assert!(mark_moves_forward(mark(5), Mark { offset: 5, moved_ms: 0 }).is_err());

        assert!(files_lie_in_plan(&plan(5, 9), &[]).is_ok(), "a range without rows");
        assert!(files_lie_in_plan(&plan(5, 9), &[file(5, 9, 0, 2), file(5, 9, 1, 3)]).is_ok());
        assert!(files_lie_in_plan(&plan(5, 9), &[file(5, 9, 0, 6)]).is_err(), "more rows than offsets");
        assert!(files_lie_in_plan(&plan(5, 9), &[file(5, 8, 0, 1)]).is_err(), "another range");
        assert!(files_lie_in_plan(&plan(5, 9), &[file(5, 9, 0, 0)]).is_err(), "an empty file");
        assert!(files_lie_in_plan(&plan(5, 9), &[file(5, 9, 0, 1), file(5, 9, 0, 1)]).is_err(), "twice");

        assert!(ranges_do_not_overlap(&[Arc::new(file(0, 4, 0, 1))], &plan(5, 9)).is_ok());
        assert!(ranges_do_not_overlap(&[Arc::new(file(0, 5, 0, 1))], &plan(5, 9)).is_err());
    }

    #[test]
    fn each_invariant_of_a_merge_refuses_what_breaks_it() {
        let level = |value| crate::slice::Level { column: "n".into(), derived: false, value };
        let other = |file: FileEntry| FileEntry { levels: vec![level(crate::slice::Value::Int(1))], ..file };
        let timed = |file: FileEntry, at| FileEntry { event_ms: Some((at, at + 1)), ..file };
        let inputs = [Arc::new(timed(file(0, 4, 2, 3), 7)), Arc::new(timed(file(5, 6, 0, 2), 3))];
        let good = FileEntry { event_ms: Some((3, 8)), ..file(0, 6, 2, 5) };
        assert!(merged_holds_its_inputs(&inputs, &good).is_ok());
        for (wrong, why) in [
            (FileEntry { rows: 4, ..good.clone() }, "a row is lost"),
            (FileEntry { first: 1, ..good.clone() }, "another range"),
            (FileEntry { last: 7, ..good.clone() }, "another end"),
            (FileEntry { ordinal: 0, ..good.clone() }, "another key"),
            (FileEntry { event_ms: Some((7, 8)), ..good.clone() }, "other times"),
            (FileEntry { path: "u/0-6-2".into(), ..good.clone() }, "another directory"),
            (FileEntry { path: inputs[1].path.clone(), ..good.clone() }, "the name of an input"),
            (other(good.clone()), "another slice"),
        ] {
            assert!(merged_holds_its_inputs(&inputs, &wrong).is_err(), "{why}");
        }
        assert!(merged_holds_its_inputs(&inputs[..1], &inputs[0]).is_err(), "one file");
        assert!(merged_holds_its_inputs(&[], &good).is_err(), "no file");
        let turned = [inputs[1].clone(), inputs[0].clone()];
        assert!(merged_holds_its_inputs(&turned, &good).is_err(), "not in their order");

        let of = |files: &[&Arc<FileEntry>]| files.iter().map(|file| (*file).clone()).collect::<Vec<_>>();
        let [first, last] = &inputs;
        let apart = Arc::new(other(file(2, 3, 1, 1)));
        assert!(nothing_lies_between(&of(&[first, &apart, last]), &inputs).is_ok(), "another slice");
        let after = Arc::new(file(7, 8, 0, 1));
        assert!(nothing_lies_between(&of(&[first, last, &after]), &inputs).is_ok());
        assert!(nothing_lies_between(&of(&[first, last, &after]), &[first.clone(), after.clone()]).is_err());

        assert!(merged_is_settled(Some(Mark { offset: 7, moved_ms: 0 }), &good).is_ok());
        assert!(merged_is_settled(Some(Mark { offset: 6, moved_ms: 0 }), &good).is_err());
        assert!(merged_is_settled(None, &good).is_err());

        let files = of(&[first, last]);
        assert!(file_is_published(&files, first).is_ok());
        assert!(file_is_published(&files, &Arc::new(file(0, 4, 2, 3))).is_err(), "another of the same key");
    }
}
