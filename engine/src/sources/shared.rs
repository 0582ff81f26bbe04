//! One source, seen from its run, from its keeper and from outside.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use broker::{Broker, Family};
use chrono::TimeZone;
use croner::Cron;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::config::{FileFormat, SourceConfig, When};
use super::discover::{self, Found};
use super::sftp::{Address, Fault, Remote};
use super::status::{Progress, RunReport, RunState, SourceStatus};
use super::stored::{self, SourceRecord};
use crate::error::Result;

/// The trigger of a run that a changed folder began.
pub(crate) const WATCH: &str = "watch";
/// A file that has not stayed as it is for this time may not be whole yet; a watching source leaves it for the next look.
const SETTLED_MS: i64 = 1_000;

/// What a run is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// To go on.
    Go,
    /// To end at this point.
    Stop,
}

/// What all of a source's tasks obey.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Control {
    pub(crate) stopping: bool,
    pub(crate) paused: bool,
}

/// A source. Holds: its declaration, what it is told, and what is shown of the run under way. Only the run that holds
/// `busy` writes the store. All that must survive is there; the rest is read from it at the next start.
pub(crate) struct SourceShared {
    pub(crate) config: SourceConfig,
    pub(crate) broker: Arc<Broker>,
    pub(crate) control: watch::Sender<Control>,
    /// Held by the run under way.
    pub(crate) busy: Arc<tokio::sync::Mutex<()>>,
    pub(crate) schedule: Option<(Cron, chrono_tz::Tz)>,
    live: Mutex<Live>,
}

/// What is shown.
#[derive(Default)]
struct Live {
    report: Option<RunReport>,
    totals: SourceRecord,
    progress: Option<Progress>,
    /// Bytes of the files that this run has behind it.
    bytes_before: u64,
    /// Where reading began in the file under way.
    began_at_ms: i64,
    next_ms: Option<i64>,
    last_run: u64,
    /// Files that could not be read, and how they were then.
    given_up: HashMap<String, (u64, i64)>,
    /// Files that a watching source has to read, how they were at the last look, and since which one they have been so.
    looked: HashMap<String, ((u64, i64), i64)>,
    watch_error: Option<String>,
}

impl SourceShared {
    pub(crate) fn new(broker: Arc<Broker>, config: SourceConfig) -> Result<SourceShared> {
        let store = broker.store();
        let totals: SourceRecord = stored::get(store, &stored::source_key(&config.name))?
            .unwrap_or(SourceRecord { v: stored::VERSION, ..SourceRecord::default() });
        let last = stored::runs(store, &config.name)?.pop();
        let last_run = last.as_ref().map_or(0, |run| run.run);
        let paused = store.get(Family::State, &stored::paused_key(&config.name))?.is_some();
        let control = watch::Sender::new(Control { stopping: false, paused });
        let schedule = match &config.when {
            When::Schedule(cron, zone) => cron.parse().ok().zip(zone.parse().ok()),
            _ => None,
        };
        let live = Mutex::new(Live { totals, last_run, ..Live::default() });
        let shared = SourceShared { config, broker, control, busy: Arc::default(), schedule, live };
        // A time that passed since the last run, while the server was away, is made up for: it is due now.
        let since_ms = last.map_or(shared.broker.clock().now_ms(), |run| run.started_ms);
        shared.live.lock().next_ms = shared.next_after(since_ms);
        Ok(shared)
    }

    /// Waits for a time, and then for as long as the source is paused; a stop ends both.
    pub(crate) async fn wait(&self, time: Duration) -> Signal {
        let mut control = self.control.subscribe();
        if !time.is_zero() {
            // The time passing is what is wanted.
            let _ = tokio::time::timeout(time, control.wait_for(|control| control.stopping)).await;
        }
        match control.wait_for(|control| control.stopping || !control.paused).await {
            Ok(control) if !control.stopping => Signal::Go,
            _ => Signal::Stop,
        }
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.control.borrow().paused
    }

    /// The number and totals of a run that begins now.
    pub(crate) fn begin(&self) -> (u64, SourceRecord) {
        let mut live = self.live.lock();
        live.last_run += 1;
        live.given_up.clear();
        live.progress = Some(Progress::default());
        live.bytes_before = 0;
        live.began_at_ms = self.broker.clock().steady_ms();
        (live.last_run, live.totals.clone())
    }

    /// Shows a run's beginning, or its state after a commit.
    pub(crate) fn tell(&self, report: &RunReport, totals: &SourceRecord) {
        let mut live = self.live.lock();
        live.report = Some(report.clone());
        live.totals = totals.clone();
    }

    /// The run is over.
    pub(crate) fn end(&self, report: &RunReport) {
        let mut live = self.live.lock();
        live.report = Some(report.clone());
        live.progress = None;
    }

    /// The files of the run.
    pub(crate) fn plan_progress(&self, files: &[Found]) {
        let mut live = self.live.lock();
        let bytes = files.iter().map(|found| found.bytes).sum();
        live.progress = Some(Progress { files: files.len() as u64, bytes, ..Progress::default() });
    }

    pub(crate) fn begin_file(&self, found: &Found) {
        if let Some(progress) = &mut self.live.lock().progress {
            progress.file = Some(found.name.clone());
        }
    }

    /// The run has read the file under way up to here.
    pub(crate) fn read_to(&self, found: &Found, offset: u64) {
        let mut live = self.live.lock();
        let before = live.bytes_before;
        if let Some(progress) = &mut live.progress {
            progress.bytes_done = before + offset.min(found.bytes);
        }
    }

    pub(crate) fn end_file(&self, found: &Found) {
        let mut live = self.live.lock();
        live.bytes_before += found.bytes;
        let done = live.bytes_before;
        if let Some(progress) = &mut live.progress {
            progress.bytes_done = done;
        }
    }

    /// A file that could not be read is looked at again when it has changed, or when a run is asked for.
    pub(crate) fn give_up(&self, found: &Found) {
        self.live.lock().given_up.insert(discover::path_of(found), (found.bytes, found.modified_ns));
    }

    /// Whether nobody has written to the file for a while, by what the looks at it have seen: the clock of whoever wrote it
    /// may be another one.
    pub(crate) fn is_settled(&self, found: &Found) -> bool {
        let stamp = (found.bytes, found.modified_ns);
        let since = self.live.lock().looked.get(&discover::path_of(found)).filter(|(then, _)| *then == stamp).copied();
        since.is_some_and(|(_, since_ms)| self.broker.clock().steady_ms().saturating_sub(since_ms) >= SETTLED_MS)
    }

    /// Time until the next look of a source that looks so often: soon, where a file waits for a second one.
    pub(crate) fn until_look(&self, every_ms: u64) -> Duration {
        let waits = !self.live.lock().looked.is_empty();
        Duration::from_millis(if waits { every_ms.min(SETTLED_MS.unsigned_abs()) } else { every_ms })
    }

    /// Where files of another machine are fetched.
    pub(crate) fn fetched_dir(&self) -> PathBuf {
        self.broker.config().data_dir.join("sources").join(&self.config.name)
    }

    /// A connection to the server of the files.
    pub(crate) async fn connect(&self) -> std::result::Result<Remote, Fault> {
        match Address::parse(&self.config.path) {
            Some(Ok(address)) => Remote::connect(&address, &self.config.login).await,
            Some(Err(message)) => Err(Fault::Refused(message)),
            None => Err(Fault::Refused(format!("{} is not on a server", self.config.path))),
        }
    }

    fn find(&self) -> std::result::Result<Vec<Found>, Fault> {
        if Address::parse(&self.config.path).is_none() {
            return Ok(discover::find(&self.config.path)?);
        }
        let look = async { self.connect().await?.find(&self.fetched_dir()).await };
        tokio::runtime::Handle::current().block_on(look)
    }

    /// Whether there is a file that a watching source has to read. Blocks.
    pub(crate) fn is_due(&self) -> Result<bool> {
        let files = match self.find() {
            Ok(files) => files,
            Err(error) => {
                let message = format!("{}: {error}", self.config.path);
                let mut live = self.live.lock();
                if live.watch_error.as_ref() != Some(&message) {
                    self.tell_trouble(&error, &message);
                }
                live.watch_error = Some(message);
                return Ok(false);
            }
        };
        self.live.lock().watch_error = None;
        let now_ms = self.broker.clock().steady_ms();
        let mut looked = HashMap::new();
        for found in &files {
            let (path, stamp) = (discover::path_of(found), (found.bytes, found.modified_ns));
            let given_up = self.live.lock().given_up.get(&path) == Some(&stamp);
            if !given_up && !discover::is_known(self.broker.store(), &self.config.name, found)? {
                let before = self.live.lock().looked.get(&path).filter(|(then, _)| *then == stamp).copied();
                looked.insert(path, before.unwrap_or((stamp, now_ms)));
            }
        }
        self.live.lock().looked = looked;
        Ok(files.iter().any(|found| self.is_settled(found)))
    }

    /// What is not there yet may come, as it is watched for; all else wants somebody's hand.
    fn tell_trouble(&self, error: &Fault, message: &str) {
        let name = &self.config.name;
        match error {
            Fault::Io(error) if error.kind() == std::io::ErrorKind::NotFound => {
                tracing::info!(
                    source = name,
                    path = self.config.path,
                    "a watched folder is not there yet, it is read once it is"
                );
            }
            _ => tracing::warn!(source = name, error = message, "a watched folder cannot be read"),
        }
    }

    /// Finds the schedule's next time; whether the former one has come.
    pub(crate) fn plan_next(&self) -> bool {
        let now_ms = self.broker.clock().now_ms();
        let mut live = self.live.lock();
        let come = live.next_ms.is_some_and(|next_ms| next_ms <= now_ms);
        if come || live.next_ms.is_none() {
            live.next_ms = self.next_after(now_ms);
        }
        come
    }

    /// The schedule's first time after a moment.
    fn next_after(&self, ms: i64) -> Option<i64> {
        let (cron, zone) = self.schedule.as_ref()?;
        let moment = zone.timestamp_millis_opt(ms).single()?;
        cron.find_next_occurrence(&moment, false).ok().map(|next| next.timestamp_millis())
    }

    /// Time until the schedule's next time.
    pub(crate) fn until_next(&self) -> Duration {
        let next_ms = self.live.lock().next_ms.unwrap_or(i64::MAX);
        let left = next_ms.saturating_sub(self.broker.clock().now_ms());
        Duration::from_millis(u64::try_from(left).unwrap_or(0))
    }

    /// How it stands.
    pub(crate) fn status(&self) -> Result<SourceStatus> {
        let mut runs = stored::runs(self.broker.store(), &self.config.name)?;
        runs.reverse();
        let live = self.live.lock();
        let progress = live.progress.clone().map(|progress| self.timed(progress, &live));
        let failed = runs.first().is_some_and(|run| run.state == RunState::Failed) || live.watch_error.is_some();
        let state = match (&progress, self.is_paused()) {
            (_, true) => "paused",
            (Some(_), false) => "running",
            (None, false) if failed => "failed",
            (None, false) => "idle",
        };
        // A run that has not committed anything yet is known here only.
        if let Some(report) = &live.report {
            match runs.first_mut().filter(|first| first.run == report.run) {
                Some(first) => first.clone_from(report),
                None => runs.insert(0, report.clone()),
            }
        }
        Ok(SourceStatus {
            name: self.config.name.clone(),
            topic: self.config.topic.clone(),
            path: self.config.path.clone(),
            format: format_word(&self.config.format).to_owned(),
            when: when_word(&self.config.when).to_owned(),
            state: state.to_owned(),
            error: live.watch_error.clone().or_else(|| runs.first().and_then(|run| run.error.clone())),
            next_ms: live.next_ms,
            rows: live.totals.rows,
            published: live.totals.published,
            skipped: live.totals.skipped,
            rejected: live.totals.rejected.values().sum(),
            rejected_by_rule: live.totals.rejected.clone(),
            progress,
            runs,
        })
    }

    fn timed(&self, mut progress: Progress, live: &Live) -> Progress {
        let seconds = (self.broker.clock().steady_ms() - live.began_at_ms).max(1) as f64 / 1_000.0;
        let rows = live.report.as_ref().map_or(0, |report| report.rows);
        progress.rows_per_s = rows as f64 / seconds;
        let left = progress.bytes.saturating_sub(progress.bytes_done);
        if progress.bytes_done > 0 {
            progress.remaining_s = Some(left as f64 * seconds / progress.bytes_done as f64);
        }
        progress
    }
}

fn format_word(format: &FileFormat) -> &'static str {
    match format {
        FileFormat::Csv(_) => "csv",
        FileFormat::Json => "json",
        FileFormat::Ndjson => "ndjson",
    }
}

fn when_word(when: &When) -> &'static str {
    match when {
        When::Once => "once",
        When::Watch(_) => "watch",
        When::Schedule(..) => "schedule",
        When::Demand => "demand",
    }
}
