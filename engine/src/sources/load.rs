//! One run: file after file, batch after batch. Records, refused rows, seen keys, the position in the file, totals and the
//! run itself go in one commit, so that a crash at any instruction loses and doubles nothing.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use broker::{Ack, Change, Family, Topic};

use super::config::{FileFormat, SourceConfig};
use super::discover::{self, Due, Found};
use super::plan::Plan;
use super::publish::Packer;
use super::reader::{Content, RawRow, Reader};
use super::rules::{self, Origin, Ready, Refused};
use super::sftp::{Address, Fault, Remote};
use super::shared::{Signal, SourceShared, WATCH};
use super::status::{RunReport, RunState};
use super::stored::{self, FileRecord, Id, PathRecord, SourceRecord};
use crate::error::{EngineError, ErrorKind, Result};
use crate::quality::{ACCEPTED, Counters, DUPLICATE, QualityAction, Tally, Writer, day_of};

/// Most bytes of rows of one commit.
const COMMIT_BYTES: usize = 4 << 20;
/// First pause before a failed read is tried again; each further one is twice as long.
const BACKOFF: Duration = Duration::from_millis(100);
/// Longest such pause.
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// Why a run does not go on.
enum Halt {
    /// The server stops.
    Stopped,
    /// A file cannot be read now; it may be another time.
    Io(io::Error),
    /// Trying again is of no use.
    Failed(EngineError),
}

/// Where the store keeps that a row's key was published; none where rows need not be unique.
type SeenKey = Option<Vec<u8>>;

impl From<EngineError> for Halt {
    fn from(error: EngineError) -> Halt {
        Halt::Failed(error)
    }
}

impl From<broker::Error> for Halt {
    fn from(error: broker::Error) -> Halt {
        Halt::Failed(error.into())
    }
}

impl From<Fault> for Halt {
    fn from(fault: Fault) -> Halt {
        match fault {
            Fault::Io(error) => Halt::Io(error),
            Fault::Refused(message) => Halt::Failed(EngineError::new(ErrorKind::BadRequest, message)),
        }
    }
}

impl From<io::Error> for Halt {
    fn from(error: io::Error) -> Halt {
        Halt::Io(error)
    }
}

type Outcome<T = ()> = std::result::Result<T, Halt>;

/// A run under way. Blocks its thread; commits go through the runtime.
pub(crate) struct Run<'a> {
    pub(crate) shared: &'a SourceShared,
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) topic: Arc<Topic>,
    pub(crate) rejected: Arc<Topic>,
    pub(crate) report: RunReport,
    pub(crate) totals: SourceRecord,
    pub(crate) quality: Counters,
    /// The connection to the server of the files, while there is one.
    pub(crate) remote: Option<Remote>,
}

/// The file being loaded.
struct Loading {
    found: Found,
    content: Id,
    record: FileRecord,
    path: PathRecord,
    plan: Option<Plan>,
}

impl Run<'_> {
    /// Loads what is there and not loaded yet; gives how the run ended. The report is stored.
    pub(crate) fn run(mut self) -> RunReport {
        let outcome = self.files();
        self.report.state = match outcome {
            Ok(()) if self.report.error.is_none() => RunState::Done,
            Ok(()) => RunState::Failed,
            Err(Halt::Stopped) => RunState::Stopped,
            Err(Halt::Io(error)) => self.fail(&self.shared.config.path.clone(), &error.to_string()),
            Err(Halt::Failed(error)) => self.fail(&self.shared.config.path.clone(), &error.message),
        };
        let forgotten = stored::forget_runs(&self.config().name, self.report.run);
        if let Err(error) = self.commit(forgotten.into_iter().collect()) {
            tracing::warn!(source = self.config().name, error = error.message, "the end of a run could not be stored");
        }
        self.report
    }

    fn config(&self) -> &SourceConfig {
        &self.shared.config
    }

    fn fail(&mut self, what: &str, error: &str) -> RunState {
        tracing::warn!(source = self.config().name, what, error, "a source could not be read");
        self.report.error.get_or_insert_with(|| format!("{what}: {error}"));
        RunState::Failed
    }

    fn give_up(&mut self, found: &Found, error: &str) {
        self.fail(&found.name, error);
        self.shared.give_up(found);
    }

    fn files(&mut self) -> Outcome {
        let files = self.trying(|run| run.find())?;
        let store = self.shared.broker.store().clone();
        let mut due = Vec::new();
        for found in files {
            if discover::is_known(&store, &self.config().name, &found)? {
                self.report.files_known += 1;
            } else if self.report.trigger != WATCH || self.shared.is_settled(&found) {
                due.push(found);
            }
        }
        self.shared.plan_progress(&due);
        for found in due {
            self.shared.begin_file(&found);
            match self.trying(|run| run.file(&found)) {
                Ok(()) => {}
                Err(Halt::Stopped) => return Err(Halt::Stopped),
                // The store does not work any more, no other file will do better.
                Err(Halt::Failed(error)) if error.kind == ErrorKind::Storage => return Err(Halt::Failed(error)),
                Err(Halt::Failed(error)) => self.give_up(&found, &error.message),
                Err(Halt::Io(error)) => self.give_up(&found, &error.to_string()),
            }
            self.shared.end_file(&found);
        }
        if self.remote.take().is_some() {
            // fetched again where it is still needed
            let _ = std::fs::remove_dir_all(self.shared.fetched_dir());
        }
        Ok(())
    }

    fn find(&mut self) -> Outcome<Vec<Found>> {
        let path = self.config().path.clone();
        if super::remote::is_remote(&path) {
            let folder = self.shared.broker.config().data_dir.join("sources");
            return Ok(vec![super::remote::fetch(&path, &folder, &self.config().name)?]);
        }
        match Address::parse(&path) {
            Some(_) => {
                let folder = self.shared.fetched_dir();
                self.on_server(async |remote| remote.find(&folder).await)
            }
            None => Ok(discover::find(&path)?),
        }
    }

    /// Does something on the server of the files, over a new connection when there is none that works.
    fn on_server<T>(&mut self, act: impl AsyncFnOnce(&Remote) -> std::result::Result<T, Fault>) -> Outcome<T> {
        let runtime = self.runtime.clone();
        let remote = match self.remote.take() {
            Some(remote) => remote,
            None => runtime.block_on(self.shared.connect())?,
        };
        let done = runtime.block_on(act(&remote))?;
        self.remote = Some(remote);
        Ok(done)
    }

    /// Tries again what fails with the file system or the network, as often as the source says in a row without progress.
    fn trying<T>(&mut self, mut act: impl FnMut(&mut Self) -> Outcome<T>) -> Outcome<T> {
        let (mut tries, mut rows) = (0, self.report.rows);
        loop {
            match act(self) {
                Err(Halt::Io(error)) => {
                    tries = if self.report.rows > rows { 1 } else { tries + 1 };
                    rows = self.report.rows;
                    if tries > self.config().pace.retries {
                        return Err(Halt::Io(error));
                    }
                    self.report.retries += 1;
                    let pause = BACKOFF.saturating_mul(1 << (tries - 1).min(16)).min(BACKOFF_MAX);
                    tracing::info!(source = self.config().name, %error, tries, ?pause, "a read failed and is tried again");
                    self.pause(pause)?;
                }
                other => return other,
            }
        }
    }

    /// Waits; then for as long as the source is paused.
    fn pause(&self, time: Duration) -> Outcome {
        match self.runtime.block_on(self.shared.wait(time)) {
            Signal::Go => Ok(()),
            Signal::Stop => Err(Halt::Stopped),
        }
    }

    fn file(&mut self, found: &Found) -> Outcome {
        if found.remote.is_some() {
            self.on_server(async |remote| remote.fetch(found).await)?;
        }
        let store = self.shared.broker.store().clone();
        let name = self.config().name.clone();
        let key = stored::path_key(&name, &discover::path_of(found));
        let (file, content, record, path) = match discover::examine(&store, &name, &self.config().format, found)?? {
            Due::Load { file, content, record, path } => (file, content, record, path),
            Due::Known { changed } => {
                self.report.files_known += 1;
                let changes = changed.map(|path| stored::put(key, &path)).transpose()?;
                return Ok(self.commit(changes.into_iter().collect())?);
            }
        };
        let plan = self.plan(&file, &record)?;
        let mut loading = Loading { found: found.clone(), content, record, path, plan };
        let mut reader =
            Reader::new(file, &self.config().format, self.config().pace.record_bytes_max, &loading.record)?;
        let mut rows = self.before_rows(&mut reader, &loading)?;
        loop {
            let ended = self.fill(&mut reader, &mut rows)?;
            loading.record.offset = reader.offset();
            loading.record.lines = reader.lines();
            loading.record.open_line = reader.is_line_open();
            loading.record.done = ended;
            self.step(&loading, std::mem::take(&mut rows))?;
            self.shared.read_to(&loading.found, reader.offset());
            if ended {
                if found.remote.is_some() {
                    // loaded: its content is known now, whatever becomes of the copy
                    let _ = std::fs::remove_file(&found.path);
                }
                return Ok(());
            }
            self.pause(Duration::from_millis(self.config().pace.delay_ms))?;
        }
    }

    /// The compiled rules for a file; of CSV they depend on its header.
    fn plan(&self, file: &File, record: &FileRecord) -> Outcome<Option<Plan>> {
        let config = self.config();
        let header = match &config.format {
            FileFormat::Csv(format) if format.header.is_empty() => {
                let beginning = FileRecord { bytes: record.bytes, ..FileRecord::default() };
                let mut reader =
                    Reader::new(file.try_clone()?, &config.format, config.pace.record_bytes_max, &beginning)?;
                match reader.next()? {
                    Some(RawRow { content: Ok(Content::Fields(names)), .. }) => {
                        names.into_iter().map(|name| name.trim().to_owned()).collect()
                    }
                    Some(RawRow { content: Err((_, reason)), .. }) => {
                        let message = format!("the header line cannot be read: {reason}");
                        return Err(Halt::Failed(EngineError::new(ErrorKind::BadRequest, message)));
                    }
                    // An empty file has no rows, so no rules are needed.
                    _ => return Ok(None),
                }
            }
            FileFormat::Csv(format) => format.header.clone(),
            _ if config.columns.is_empty() => return Ok(None),
            _ => Vec::new(),
        };
        let wrong = |mistakes: Vec<String>| EngineError::new(ErrorKind::BadRequest, mistakes.join("; "));
        Ok(Some(Plan::new(config, &named(&header)).map_err(wrong)?))
    }

    /// Passes the header, or what is left of a line that was loaded while the file still grew.
    fn before_rows(&self, reader: &mut Reader, loading: &Loading) -> Outcome<Vec<RawRow>> {
        let header = matches!(&self.config().format, FileFormat::Csv(format) if format.header.is_empty());
        if loading.record.offset == 0 && header {
            reader.next()?;
        } else if loading.record.open_line && loading.record.offset > 0 {
            return Ok(reader.rest_of_line()?.into_iter().collect());
        }
        Ok(Vec::new())
    }

    /// Reads rows up to a batch; whether the file has ended.
    fn fill(&self, reader: &mut Reader, rows: &mut Vec<RawRow>) -> io::Result<bool> {
        let mut bytes = 0;
        while rows.len() < self.config().pace.batch_records && bytes < COMMIT_BYTES {
            match reader.next()? {
                Some(row) => {
                    bytes += row.raw.len();
                    rows.push(row);
                }
                None => return Ok(true),
            }
        }
        Ok(false)
    }

    /// Publishes a batch of rows, and remembers where the next one begins.
    fn step(&mut self, loading: &Loading, rows: Vec<RawRow>) -> Outcome {
        let now_ms = self.shared.broker.clock().now_ms();
        let origin = Origin { file: &loading.found.name, now_ms };
        let (ready, mut refused) = rules::apply(self.config(), loading.plan.as_ref(), &rows, &origin)?;
        let (ready, seen, skipped) = self.unseen(ready)?;
        let mut records = Packer::new(&self.topic, self.report.rows / self.config().pace.batch_records.max(1) as u64);
        let mut published = 0;
        let mut changes = Vec::new();
        for (ready, hash) in ready.iter().zip(seen) {
            match records.push(ready, now_ms) {
                Ok(()) => {
                    published += 1;
                    changes.extend(hash.map(|key| Change::Put(Family::State, key, Vec::new())));
                }
                Err((rule, reason)) => refused.push(Refused { row: ready.row, rule: rule.to_owned(), reason }),
            }
        }
        let mut rejects = Packer::new(&self.rejected, 0);
        for refused in &refused {
            let row = &rows[refused.row];
            rejects.push_refused((&self.config().name, &loading.found.name), row, refused, now_ms);
        }
        changes.extend(records.finish());
        changes.extend(rejects.finish());
        let name = self.config().name.clone();
        let record = FileRecord { updated_ms: now_ms, ..loading.record.clone() };
        changes.push(stored::put(stored::file_key(&name, &loading.content), &record)?);
        changes.push(stored::put(stored::path_key(&name, &discover::path_of(&loading.found)), &loading.path)?);
        let tally = tally(day_of(Some(now_ms), now_ms), (published, skipped), &refused);
        changes.extend(self.quality.changes(tally, self.shared.broker.store())?);
        let (report, totals) = (self.report.clone(), self.totals.clone());
        self.count(rows.len() as u64, published, skipped, &refused);
        self.report.files += u64::from(record.done);
        if let Err(error) = self.commit(changes) {
            (self.report, self.totals) = (report, totals);
            // what the counters remember was not stored
            self.quality = counters(&self.config().name);
            return Err(error.into());
        }
        self.shared.tell(&self.report, &self.totals);
        Ok(())
    }

    fn count(&mut self, rows: u64, published: u64, skipped: u64, refused: &[Refused]) {
        self.report.rows += rows;
        self.report.published += published;
        self.report.skipped += skipped;
        self.report.rejected += refused.len() as u64;
        self.totals.rows += rows;
        self.totals.published += published;
        self.totals.skipped += skipped;
        for refused in refused {
            for counts in [&mut self.report.rejected_by_rule, &mut self.totals.rejected] {
                *counts.entry(refused.rule.clone()).or_default() += 1;
            }
        }
    }

    /// The records whose keys were not published before, with the store's key of each, and how many were.
    fn unseen(&self, ready: Vec<Ready>) -> Result<(Vec<Ready>, Vec<SeenKey>, u64)> {
        if self.config().unique.is_empty() {
            let keys = vec![None; ready.len()];
            return Ok((ready, keys, 0));
        }
        let key = |ready: &Ready| stored::seen_key(&self.config().name, &ready.unique.unwrap_or_default());
        let keys: Vec<Vec<u8>> = ready.iter().map(key).collect();
        let known = self.shared.broker.store().get_many(Family::State, &keys)?;
        let mut here = HashSet::new();
        let (mut fresh, mut fresh_keys, mut skipped) = (Vec::new(), Vec::new(), 0);
        for ((ready, key), known) in ready.into_iter().zip(keys).zip(known) {
            if known.is_none() && here.insert(key.clone()) {
                fresh.push(ready);
                fresh_keys.push(Some(key));
            } else {
                skipped += 1;
            }
        }
        Ok((fresh, fresh_keys, skipped))
    }

    /// Commits changes together with the run and the totals.
    fn commit(&mut self, mut changes: Vec<Change>) -> Result<()> {
        let name = &self.shared.config.name;
        self.report.ended_ms = self.shared.broker.clock().now_ms();
        changes.push(stored::put(stored::run_key(name, self.report.run), &self.report)?);
        changes.push(stored::put(stored::source_key(name), &self.totals)?);
        self.runtime.block_on(self.shared.broker.lane().commit(changes, Ack::Durable))?;
        Ok(())
    }
}

/// The counters of data quality of a source.
pub(crate) fn counters(source: &str) -> Counters {
    Counters::new(Writer::Source, source)
}

/// What the rules did with the rows of a batch, for the day it was read.
fn tally(day: i32, (published, skipped): (u64, u64), refused: &[Refused]) -> Tally {
    let mut tally = Tally::default();
    tally.add(day, QualityAction::Accept, &ACCEPTED.into(), published);
    tally.add(day, QualityAction::Skip, &DUPLICATE.into(), skipped);
    refused.iter().for_each(|row| tally.add(day, QualityAction::Reject, &row.rule.as_str().into(), 1));
    tally
}

/// A field without a name, such as that of a row number, is called by its place.
fn named(header: &[String]) -> Vec<String> {
    let name = |(at, name): (usize, &String)| if name.is_empty() { format!("field{}", at + 1) } else { name.clone() };
    header.iter().enumerate().map(name).collect()
}
