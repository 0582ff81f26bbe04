//! Checking the manifest, in a store that no server works on: its rules hold, and the files that it names are there.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use broker::check::{Check, Kind, Logs, Place, Remedy, Span};
use broker::{Family, LogId, Offset};

use crate::config::Access;
use crate::error::Result;
use crate::manifest_bytes::{EPOCH_KEY, FileEntry, Mark, Plan, epoch_of, log_of, ranges};
use crate::objects::{Address, Objects};
use crate::raw::{RawFile, raw_range};
use crate::slice::Level;
use crate::transform::{TABLE_FILES, TableFile, table_of};

const MANIFEST_DAMAGED: Kind = Kind::wrong("lake manifest damaged", Remedy::Restore);
const MARK_WRONG: Kind = Kind::wrong("settled further than the log goes", Remedy::Restore);
const PLAN_WRONG: Kind = Kind::wrong("planned file wrong", Remedy::Restore);
const FILE_WRONG: Kind = Kind::wrong("lake file wrong", Remedy::Restore);
const FILE_TWICE: Kind = Kind::wrong("rows in two lake files", Remedy::Restore);
const FILE_MISSING: Kind = Kind::wrong("lake file missing", Remedy::Restore);
const NO_TOPIC: Kind = Kind::note("lake files of a deleted topic", Remedy::NextStart);
const NOT_LOOKED: Kind = Kind::note("lake files not looked at", Remedy::Nothing);

/// A file that must be there.
struct Named {
    path: String,
    bytes: u64,
    place: Place,
}

/// Checks the manifest; `logs` are the broker's. The files are looked for at `url`, a directory or a URL as in `lake.url`, where there
/// is one; else they are only counted.
///
/// # Errors
/// `Config` or `Destination` when the place cannot be looked at.
pub async fn check_stored(check: &mut Check<'_>, logs: &Logs, url: Option<&str>) -> Result<()> {
    let mut manifest = Stored::read(check);
    let files = manifest.check(check, logs);
    let Some(url) = url else {
        if !files.is_empty() {
            let what = format!("there are {} files elsewhere: say where with --lake", files.len());
            check.add(NOT_LOOKED, Place::default(), what);
        }
        return Ok(());
    };
    if files.is_empty() {
        return Ok(());
    }
    // nothing is written there
    let address = Address { url: url.to_owned(), access: Access::default(), work_dir: PathBuf::new() };
    let objects = Objects::open_any(&address, &tokio::runtime::Handle::current()).await?;
    for file in files {
        match objects.size(&file.path).await? {
            Some(found) if found == file.bytes => {}
            Some(found) => {
                let what = format!("{} has {found} bytes, {} were published", file.path, file.bytes);
                check.add(FILE_WRONG, file.place, what);
            }
            None => check.add(FILE_MISSING, file.place, format!("{} is not there", file.path)),
        }
    }
    Ok(())
}

/// What one partition has in the manifest.
#[derive(Default)]
struct Settled {
    mark: Option<Mark>,
    plan: Option<Plan>,
    files: Vec<FileEntry>,
    raw: Vec<RawFile>,
}

/// The manifest as it is stored.
#[derive(Default)]
struct Stored {
    settled: HashMap<LogId, Settled>,
    written: Vec<Named>,
}

impl Stored {
    fn read(check: &mut Check<'_>) -> Self {
        let mut read = Self::default();
        let [files, marks, plans] = ranges();
        let raw = raw_range();
        if let Ok(Some(epoch)) = check.store.get(Family::Lake, EPOCH_KEY)
            && let Err(error) = epoch_of(&epoch)
        {
            check.add(MANIFEST_DAMAGED, Place::default(), error.message);
        }
        read.each(check, files, |of, key, value| {
            of.files.push(FileEntry::decode(key, value)?);
            Ok(())
        });
        read.each(check, raw, |of, key, value| {
            of.raw.push(RawFile::decode(key, value)?);
            Ok(())
        });
        read.each(check, marks, |of, _, value| {
            of.mark = Some(Mark::decode(value)?);
            Ok(())
        });
        read.each(check, plans, |of, _, value| {
            of.plan = Some(Plan::decode(value)?);
            Ok(())
        });
        let (from, to) = TABLE_FILES;
        check.each(Family::Lake, (&from, &to), |check, key, value| {
            match (table_of(key), TableFile::decode(key, value)) {
                (Ok(table), Ok(file)) => {
                    let place = Place::named(format!("table {table}"));
                    read.written.push(Named { path: file.path, bytes: file.bytes, place });
                }
                (Err(error), _) | (_, Err(error)) => check.add(MANIFEST_DAMAGED, Place::default(), error.message),
            }
        });
        read
    }

    fn each(
        &mut self,
        check: &mut Check<'_>,
        (from, to): ([u8; 1], [u8; 1]),
        take: impl Fn(&mut Settled, &[u8], &[u8]) -> Result<()>,
    ) {
        check.each(Family::Lake, (&from, &to), |check, key, value| {
            let taken = log_of(key).and_then(|log| take(self.settled.entry(log).or_default(), key, value));
            if let Err(error) = taken {
                check.add(MANIFEST_DAMAGED, Place::default(), error.message);
            }
        });
    }

    /// Checks the rules; gives the files that must be there.
    fn check(&mut self, check: &mut Check<'_>, logs: &Logs) -> Vec<Named> {
        let mut named = std::mem::take(&mut self.written);
        let mut all: Vec<(LogId, Settled)> = self.settled.drain().collect();
        all.sort_by_key(|(log, _)| *log);
        for (log, settled) in all {
            let Some(span) = logs.span(log) else {
                check.add(NO_TOPIC, Place::named(log.to_string()), format!("{} files", settled.files.len()));
                continue;
            };
            check_marks(check, span, &settled);
            check_files(check, span, &settled);
            check_raw(check, span, &settled);
            let place = |first, last| Place::offsets(&span.topic, span.partition, first, last);
            let tables = settled.files.into_iter();
            named.extend(tables.map(|file| Named {
                place: place(file.first, file.last),
                bytes: file.bytes,
                path: file.path,
            }));
            let raw = settled.raw.into_iter();
            named.extend(raw.map(|file| Named {
                place: place(file.first, file.last),
                bytes: file.bytes,
                path: file.path,
            }));
        }
        named
    }
}

/// The mark lies within the log, and the planned range begins there.
fn check_marks(check: &mut Check<'_>, span: &Span, settled: &Settled) {
    let place = |first, last| Place::offsets(&span.topic, span.partition, first, last);
    if let Some(mark) = settled.mark.filter(|mark| mark.offset < 0 || mark.offset > span.end) {
        let what = format!("settled up to {}, the log ends at {}", mark.offset, span.end);
        check.add(MARK_WRONG, place(mark.offset, mark.offset), what);
    }
    let Some(plan) = settled.plan else { return };
    let begins = settled.mark.is_none_or(|mark| mark.offset == plan.first);
    if !begins || plan.first < 0 || plan.last < plan.first || plan.last >= span.end {
        let what = format!("it is planned beside the mark {:?}, the log ends at {}", settled.mark, span.end);
        check.add(PLAN_WRONG, place(plan.first, plan.last), what);
    }
}

/// In a slice, ranges do not overlap; all end below the mark, and no file is named twice.
fn check_files(check: &mut Check<'_>, span: &Span, settled: &Settled) {
    let mark = settled.mark.map_or(Offset::MAX, |mark| mark.offset);
    let mut ends: HashMap<&[Level], Offset> = HashMap::new();
    let mut paths = HashSet::new();
    for file in &settled.files {
        let place = Place::offsets(&span.topic, span.partition, file.first, file.last);
        let offsets = u64::try_from(file.last - file.first + 1).unwrap_or(0);
        if file.rows == 0 || file.rows > offsets || file.last >= mark {
            let what = format!("{} has {} rows of {offsets} offsets, settled is up to {mark}", file.path, file.rows);
            check.add(FILE_WRONG, place.clone(), what);
        }
        let end = ends.insert(&file.levels, file.last);
        if end.is_some_and(|end| end >= file.first) || !paths.insert(file.path.as_str()) {
            check.add(FILE_TWICE, place, format!("{} has what another file of its slice has", file.path));
        }
    }
}

/// The same of files with whole records.
fn check_raw(check: &mut Check<'_>, span: &Span, settled: &Settled) {
    let mark = settled.mark.map_or(Offset::MAX, |mark| mark.offset);
    let mut end = -1;
    for file in &settled.raw {
        let place = Place::offsets(&span.topic, span.partition, file.first, file.last);
        if file.first <= end {
            check.add(FILE_TWICE, place.clone(), format!("{} begins before the file before it ends", file.path));
        }
        if file.last < file.first || file.last >= mark {
            check.add(FILE_WRONG, place, format!("{} lies beyond what is settled, up to {mark}", file.path));
        }
        end = file.last;
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use broker::{
        Ack, Append, BatchBuilder, Broker, BrokerConfig, Change, Clock, NewTopic, Origin, PartitionIndex, ReadOnly,
    };

    use super::*;
    use crate::manifest_bytes::{file_key, mark_key, plan_key};
    use crate::raw::raw_key;
    use crate::slice::Value;

    type Case = (fn(LogId) -> Vec<Change>, Kind, Option<(Offset, Offset)>);
    type Told = (&'static str, Option<PartitionIndex>, Option<(Offset, Offset)>);

    fn file(first: Offset, last: Offset, slice: i64) -> FileEntry {
        FileEntry {
            first,
            last,
            ordinal: u32::try_from(slice).unwrap(),
            rows: 1,
            bytes: 4,
            event_ms: None,
            published_ms: 1,
            path: format!("t/n={slice}/{first}-{last}"),
            levels: vec![Level { column: "n".into(), derived: false, value: Value::Int(slice) }],
        }
    }

    fn raw(first: Offset, last: Offset) -> RawFile {
        let path = format!("_raw/t/{first}-{last}");
        RawFile { first, last, records: 1, bytes: 4, max_timestamp: 1, published_ms: 1, path, sum: None }
    }

    fn put(log: LogId, file: &FileEntry) -> Change {
        Change::Put(Family::Lake, file_key(log, file.first, file.ordinal), file.encode().unwrap())
    }

    fn put_raw(log: LogId, file: &RawFile) -> Change {
        Change::Put(Family::Lake, raw_key(log, file.first), file.encode().unwrap())
    }

    fn marked(log: LogId, offset: Offset) -> Change {
        Change::Put(Family::Lake, mark_key(log), Mark { offset, moved_ms: 1 }.encode())
    }

    fn planned(log: LogId, first: Offset, last: Offset) -> Change {
        Change::Put(Family::Lake, plan_key(log), Plan { first, last, epoch: 1 }.encode())
    }

    /// A store whose topic of ten records is settled up to 6 in two slices, what `change` makes of it, and of its directory.
    async fn found(change: impl FnOnce(LogId) -> Vec<Change>, touch: impl FnOnce(&Path)) -> Vec<Told> {
        let dir = tempfile::tempdir().unwrap();
        let config = BrokerConfig { data_dir: dir.path().to_path_buf(), ..BrokerConfig::default() };
        let broker: Arc<Broker> = Broker::open(config, Clock::manual(1_000)).await.unwrap();
        let new = NewTopic { name: "t".into(), partitions: 1, ..NewTopic::default() };
        let partition = broker.catalog().create(new).await.unwrap().partition(0).unwrap();
        let mut batch = BatchBuilder::new();
        (0..10).for_each(|_| batch.push(1, None, Some(b"v"), &[]));
        let batch = batch.build().unwrap();
        let log = partition.id();
        let mut changes = vec![Change::Append(Append { partition, batch, origin: Origin::Internal })];
        let lake = dir.path().join("lake");
        for file in [file(0, 3, 1), file(0, 3, 2), file(4, 5, 1)] {
            std::fs::create_dir_all(lake.join(&file.path).parent().unwrap()).unwrap();
            std::fs::write(lake.join(&file.path), "1234").unwrap();
            changes.push(put(log, &file));
        }
        std::fs::create_dir_all(lake.join("_raw/t")).unwrap();
        std::fs::write(lake.join("_raw/t/0-3"), "1234").unwrap();
        changes.extend([put_raw(log, &raw(0, 3)), marked(log, 6), planned(log, 6, 8)]);
        changes.extend(change(log));
        broker.lane().commit(changes, Ack::Durable).await.unwrap();
        broker.stop().await.unwrap();
        drop(broker);
        touch(&lake);
        let opened = ReadOnly::open(dir.path()).unwrap();
        let mut check = Check::new(&opened.store, 10, &|_| {});
        let logs = check.broker(&opened);
        let url = lake.is_dir().then(|| lake.display().to_string());
        check_stored(&mut check, &logs, url.as_deref()).await.unwrap();
        let told = check.findings.kept().iter();
        told.map(|one| (one.kind.name, one.place.partition, one.place.offsets)).collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn each_broken_rule_of_the_manifest_is_found_and_nothing_else() {
        assert_eq!(found(|_| Vec::new(), |_| {}).await, []);
        let cases: Vec<Case> = vec![
            (|log| vec![marked(log, 11), Change::Delete(Family::Lake, plan_key(log))], MARK_WRONG, Some((11, 11))),
            (|log| vec![planned(log, 5, 8)], PLAN_WRONG, Some((5, 8))),
            (|log| vec![planned(log, 6, 10)], PLAN_WRONG, Some((6, 10))),
            (|log| vec![put(log, &FileEntry { rows: 5, ..file(0, 3, 1) })], FILE_WRONG, Some((0, 3))),
            (|log| vec![put(log, &FileEntry { rows: 0, ..file(0, 3, 1) })], FILE_WRONG, Some((0, 3))),
            (|log| vec![put(log, &FileEntry { last: 6, ..file(4, 5, 1) })], FILE_WRONG, Some((4, 6))),
            (|log| vec![put(log, &FileEntry { last: 4, ..file(0, 3, 1) })], FILE_TWICE, Some((4, 5))),
            (|log| vec![put(log, &FileEntry { path: file(0, 3, 1).path, ..file(0, 3, 2) })], FILE_TWICE, Some((0, 3))),
            (|log| vec![put(log, &FileEntry { bytes: 5, ..file(4, 5, 1) })], FILE_WRONG, Some((4, 5))),
            (|log| vec![put_raw(log, &RawFile { path: raw(0, 3).path, ..raw(3, 5) })], FILE_TWICE, Some((3, 5))),
            (|log| vec![put_raw(log, &RawFile { path: raw(0, 3).path, ..raw(4, 6) })], FILE_WRONG, Some((4, 6))),
        ];
        for (number, (change, kind, offsets)) in cases.into_iter().enumerate() {
            assert_eq!(found(change, |_| {}).await, [(kind.name, Some(0), offsets)], "case {number}");
        }
        let damaged = |log| vec![Change::Put(Family::Lake, mark_key(log), vec![1, 2])];
        assert_eq!(found(damaged, |_| {}).await, [(MANIFEST_DAMAGED.name, None, None)]);
        let gone = |_| vec![put(LogId(77), &file(0, 3, 1))];
        assert_eq!(found(gone, |_| {}).await, [(NO_TOPIC.name, None, None)]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn files_that_are_gone_or_cut_are_named() {
        let remove = |lake: &Path| std::fs::remove_file(lake.join(file(4, 5, 1).path)).unwrap();
        assert_eq!(found(|_| Vec::new(), remove).await, [(FILE_MISSING.name, Some(0), Some((4, 5)))]);
        let cut = |lake: &Path| std::fs::write(lake.join(raw(0, 3).path), "12").unwrap();
        assert_eq!(found(|_| Vec::new(), cut).await, [(FILE_WRONG.name, Some(0), Some((0, 3)))]);
        let elsewhere = |lake: &Path| std::fs::remove_dir_all(lake).unwrap();
        assert_eq!(found(|_| Vec::new(), elsewhere).await, [(NOT_LOOKED.name, None, None)]);
    }
}
