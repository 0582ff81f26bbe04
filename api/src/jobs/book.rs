//! The book of all jobs and runs: what is due, what may start, what follows. Pure: time is handed in, and what changed is
//! taken out as one commit.
//!
//! ```text
//! meta  "job\0" ++ name               → i64 BE, the last time of its schedule that was dealt with, in ms since 1970
//! meta  "job-run\0" ++ number u64 BE  → JSON of Run
//! ```

use std::collections::{BTreeMap, BTreeSet};

use broker::{Change, Family, Store, TimestampMs};
use chrono::NaiveDate;
use serde_json::Map;

use super::run::{Run, RunState, Trigger};
use super::schedule;
use crate::alerts::outbox::Notice;
use crate::config::JobConfig;

const JOB_PREFIX: &[u8] = b"job\0";
const JOB_PREFIX_END: &[u8] = b"job\x01";
const RUN_PREFIX: &[u8] = b"job-run\0";
const RUN_PREFIX_END: &[u8] = b"job-run\x01";
/// Runs of one job that are over and still remembered.
const REMEMBERED_MAX: usize = 200;
/// Runs of one job that wait.
pub const QUEUED_MAX: usize = 32;
/// A run that was interrupted so often in a row is not begun again.
const INTERRUPTIONS_MAX: u32 = 5;

/// Jobs, their times and their runs. The task of all jobs alone changes it; every change is committed before what
/// follows from it is done, so a crash leaves a book that can be gone on with.
pub struct Book {
    jobs: Vec<JobConfig>,
    scheduled: BTreeMap<String, TimestampMs>,
    runs: BTreeMap<u64, Run>,
    next_number: u64,
    touched: BTreeSet<u64>,
    moved: BTreeSet<String>,
    notices: Vec<(String, Notice)>,
}

impl Book {
    /// The book as the store has it. Runs that were at work when the server ended are interrupted, and begun again.
    ///
    /// # Errors
    /// `Storage`.
    pub fn open(store: &Store, jobs: Vec<JobConfig>, now: TimestampMs) -> broker::Result<Book> {
        let mut scheduled = BTreeMap::new();
        for entry in store.scan(Family::Meta, JOB_PREFIX, JOB_PREFIX_END) {
            let (key, value) = entry?;
            let name = String::from_utf8_lossy(&key[JOB_PREFIX.len()..]).into_owned();
            if let Ok(at) = value[..].try_into().map(i64::from_be_bytes) {
                scheduled.insert(name, at);
            }
        }
        let mut runs = BTreeMap::new();
        for entry in store.scan(Family::Meta, RUN_PREFIX, RUN_PREFIX_END) {
            if let Ok(run) = serde_json::from_slice::<Run>(&entry?.1) {
                runs.insert(run.number, run);
            }
        }
        Ok(Book::new(jobs, (scheduled, runs), now))
    }

    fn new(
        jobs: Vec<JobConfig>,
        (scheduled, runs): (BTreeMap<String, TimestampMs>, BTreeMap<u64, Run>),
        now: TimestampMs,
    ) -> Book {
        let next_number = runs.last_key_value().map_or(1, |(number, _)| number + 1);
        let (touched, moved, notices) = Default::default();
        let mut book = Book { jobs, scheduled, runs, next_number, touched, moved, notices };
        for job in book.jobs.clone() {
            // A job that is new begins with its next time; one that does not catch up does so at every start.
            if !job.catch_up || !book.scheduled.contains_key(&job.name) {
                book.scheduled.insert(job.name.clone(), now);
                book.moved.insert(job.name.clone());
            }
        }
        let cut: Vec<Run> = book.runs.values().filter(|run| run.state == RunState::Running).cloned().collect();
        for run in cut {
            book.interrupt(run, now);
        }
        book
    }

    fn interrupt(&mut self, run: Run, now: TimestampMs) {
        let again = run.interruptions + 1 < INTERRUPTIONS_MAX && self.job(&run.job).is_some();
        self.change(run.number, |run| {
            run.state = if again { RunState::Interrupted } else { RunState::Failed };
            run.ended_ms = Some(now);
            run.error = Some("the server ended in the middle of it".to_owned());
            if again {
                // The run that takes its place has the deadline now.
                run.deadline_ms = None;
            }
            for step in run.steps.iter_mut().filter(|step| step.good.is_none()) {
                step.good = Some(false);
                step.ended_ms = Some(now);
                step.message = "interrupted".to_owned();
            }
        });
        if again {
            let number = self.queue(&run.job, run.day, Trigger::Interruption, run.due_ms);
            self.change(number, |next| {
                next.interruptions = run.interruptions + 1;
                next.first = Some(run.first.unwrap_or(run.number));
                (next.deadline_ms, next.late) = (run.deadline_ms, run.late);
            });
        } else {
            let text = format!(
                "Job {} of {} was interrupted {} times and is given up",
                run.job,
                run.day,
                run.interruptions + 1
            );
            self.tell(&run, "firing", text, now);
        }
    }

    fn job(&self, name: &str) -> Option<&JobConfig> {
        self.jobs.iter().find(|job| job.name == name)
    }

    /// The jobs, in the order of the configuration.
    pub fn jobs(&self) -> &[JobConfig] {
        &self.jobs
    }

    /// The runs of a job, newest first.
    pub fn runs_of<'a>(&'a self, job: &'a str) -> impl Iterator<Item = &'a Run> {
        self.runs.values().rev().filter(move |run| run.job == job)
    }

    /// A run.
    pub fn run(&self, number: u64) -> Option<&Run> {
        self.runs.get(&number)
    }

    /// When the job runs next by its schedule.
    pub fn next_time(&self, job: &JobConfig) -> Option<TimestampMs> {
        job.schedule.as_ref()?.next_after(*self.scheduled.get(&job.name)?)
    }

    /// Changes a run and remembers that it must be stored.
    pub fn change(&mut self, number: u64, change: impl FnOnce(&mut Run)) {
        if let Some(run) = self.runs.get_mut(&number) {
            change(run);
            self.touched.insert(number);
        }
    }

    /// All that changed since the last call, and the notices that belong to it.
    pub fn take_changes(&mut self) -> (Vec<Change>, Vec<(String, Notice)>) {
        let mut changes = Vec::new();
        for number in std::mem::take(&mut self.touched) {
            changes.push(match self.runs.get(&number) {
                Some(run) => {
                    let value = serde_json::to_vec(run).expect("a run is text and numbers");
                    Change::Put(Family::Meta, run_key(number), value)
                }
                None => Change::Delete(Family::Meta, run_key(number)),
            });
        }
        for name in std::mem::take(&mut self.moved) {
            let at = self.scheduled.get(&name).copied().unwrap_or(0);
            changes.push(Change::Put(Family::Meta, [JOB_PREFIX, name.as_bytes()].concat(), at.to_be_bytes().to_vec()));
        }
        (changes, std::mem::take(&mut self.notices))
    }

    /// Queues what has become due, tells what is late, and gives the runs that begin now.
    pub fn tick(&mut self, now: TimestampMs) -> Vec<u64> {
        for job in self.jobs.clone() {
            self.plan(&job, now);
        }
        self.tell_late(now);
        let mut started = Vec::new();
        for job in self.jobs.clone() {
            if self.runs_of(&job.name).any(|run| run.state == RunState::Running) {
                continue;
            }
            let waiting: Vec<&Run> = self.runs_of(&job.name).filter(|run| run.state == RunState::Queued).collect();
            let ready = |run: &&&Run| run.trigger != Trigger::Schedule || self.may_follow(&job, run.day);
            if let Some(number) = waiting.iter().rev().find(ready).map(|run| run.number) {
                self.change(number, |run| {
                    run.state = RunState::Running;
                    run.started_ms = Some(now);
                });
                started.push(number);
            }
        }
        started
    }

    /// One run for the latest time that has passed; earlier ones that were missed are not made up for.
    fn plan(&mut self, job: &JobConfig, now: TimestampMs) {
        let Some(schedule) = &job.schedule else { return };
        let done = self.scheduled.get(&job.name).copied().unwrap_or(now);
        const HOUR: i64 = 3_600_000;
        // From near to far, so that a schedule of every minute is not walked through for a year.
        let starts = [HOUR, 24 * HOUR, 32 * 24 * HOUR, i64::MAX].map(|back| done.max(now.saturating_sub(back)));
        let Some(mut latest) = starts.iter().find_map(|from| schedule.next_after(*from).filter(|at| *at <= now)) else {
            return;
        };
        while let Some(next) = schedule.next_after(latest).filter(|at| *at <= now) {
            latest = next;
        }
        self.scheduled.insert(job.name.clone(), latest);
        self.moved.insert(job.name.clone());
        let day = schedule::day_before(latest, job.zone);
        let queued = self.runs_of(&job.name).filter(|run| run.state == RunState::Queued);
        let (count, same) = queued.fold((0, false), |(count, same), run| (count + 1, same || run.day == day));
        if same {
            return;
        }
        let number = self.queue(&job.name, day, Trigger::Schedule, latest);
        let deadline = job.deadline.and_then(|time| schedule::deadline(latest, time, job.zone));
        self.change(number, |run| run.deadline_ms = deadline);
        if count >= QUEUED_MAX {
            self.finish(number, Err(format!("{QUEUED_MAX} runs of this job wait already")), now);
        }
    }

    fn queue(&mut self, job: &str, day: NaiveDate, trigger: Trigger, due_ms: TimestampMs) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        let run = Run {
            number,
            job: job.to_owned(),
            day,
            trigger,
            due_ms,
            deadline_ms: None,
            state: RunState::Queued,
            started_ms: None,
            ended_ms: None,
            steps: Vec::new(),
            error: None,
            late: false,
            interruptions: 0,
            first: None,
        };
        self.runs.insert(number, run);
        self.touched.insert(number);
        number
    }

    /// Whether every job it waits for succeeded last for this day.
    fn may_follow(&self, job: &JobConfig, day: NaiveDate) -> bool {
        job.after.iter().all(|name| {
            self.runs_of(name).find(|run| run.day == day).is_some_and(|run| run.state == RunState::Succeeded)
        })
    }

    fn tell_late(&mut self, now: TimestampMs) {
        let due = |run: &&Run| {
            !run.late && run.state != RunState::Succeeded && run.deadline_ms.is_some_and(|deadline| deadline <= now)
        };
        let late: Vec<u64> = self.runs.values().filter(due).map(|run| run.number).collect();
        for number in late {
            self.change(number, |run| run.late = true);
            // A later run of the same day may have made it.
            let Some(run) = self.runs.get(&number).cloned() else { continue };
            if !self.runs_of(&run.job).any(|other| other.day == run.day && other.state == RunState::Succeeded) {
                self.tell(&run, "firing", format!("Job {} of {} has missed its deadline", run.job, run.day), now);
            }
        }
    }

    fn tell(&mut self, run: &Run, state: &str, text: String, now: TimestampMs) {
        let mut labels = Map::new();
        labels.insert("job".into(), run.job.clone().into());
        labels.insert("day".into(), run.day.to_string().into());
        let mut values = labels.clone();
        values.insert("run".into(), run.number.into());
        values.insert("error".into(), run.error.clone().into());
        let notice = Notice {
            source: "job".into(),
            name: run.job.clone(),
            state: state.into(),
            severity: "critical".into(),
            text,
            labels,
            values,
            since_ms: run.due_ms,
            at_ms: now,
        };
        self.notices.push((run.job.clone(), notice));
    }

    /// Ends a run, tells what must be told, and queues the jobs that follow it.
    pub fn finish(&mut self, number: u64, outcome: Result<(), String>, now: TimestampMs) {
        self.change(number, |run| {
            run.state = if outcome.is_ok() { RunState::Succeeded } else { RunState::Failed };
            run.ended_ms = Some(now);
            run.error = outcome.as_ref().err().cloned();
        });
        let Some(run) = self.runs.get(&number).cloned() else { return };
        match outcome {
            Ok(()) => {
                let told = |other: &Run| other.number < number && (other.state == RunState::Failed || other.late);
                let before = self.runs_of(&run.job).find(|other| other.number < number && other.state.is_over());
                if run.late || before.is_some_and(told) {
                    self.tell(&run, "resolved", format!("Job {} of {} succeeded", run.job, run.day), now);
                }
                self.follow(&run);
            }
            Err(error) => self.tell(&run, "firing", format!("Job {} of {} failed: {error}", run.job, run.day), now),
        }
        self.forget(&run.job);
    }

    /// Jobs without a time of their own run as soon as all that they wait for has succeeded.
    fn follow(&mut self, run: &Run) {
        let waits = |job: &&JobConfig| job.schedule.is_none() && job.after.contains(&run.job);
        for job in self.jobs.iter().filter(waits).cloned().collect::<Vec<_>>() {
            let is_queued = |other: &Run| other.state == RunState::Queued && other.day == run.day;
            if self.runs_of(&job.name).any(is_queued) || !self.may_follow(&job, run.day) {
                continue;
            }
            self.queue(&job.name, run.day, Trigger::After, run.due_ms);
        }
    }

    fn forget(&mut self, job: &str) {
        let over: Vec<u64> = self.runs_of(job).filter(|run| run.state.is_over()).map(|run| run.number).collect();
        for number in over.into_iter().skip(REMEMBERED_MAX) {
            self.runs.remove(&number);
            self.touched.insert(number);
        }
    }

    /// Queues a run of any day that somebody asks for; it does not wait for other jobs.
    ///
    /// # Errors
    /// That too many runs of the job wait.
    pub fn request(&mut self, job: &str, day: NaiveDate, now: TimestampMs) -> Result<u64, String> {
        let queued = self.runs_of(job).filter(|run| run.state == RunState::Queued).count();
        if queued >= QUEUED_MAX {
            return Err(format!("{queued} runs of {job} wait already: let them end, or cancel them"));
        }
        Ok(self.queue(job, day, Trigger::Request, now))
    }

    /// Calls off what waits and what runs; gives the numbers.
    pub fn cancel(&mut self, job: &str, now: TimestampMs) -> Vec<u64> {
        let open: Vec<u64> = self.runs_of(job).filter(|run| !run.state.is_over()).map(|run| run.number).collect();
        for number in &open {
            self.change(*number, |run| {
                run.state = RunState::Cancelled;
                run.ended_ms = Some(now);
                run.error = Some("somebody called it off".to_owned());
                for step in run.steps.iter_mut().filter(|step| step.good.is_none()) {
                    (step.good, step.ended_ms) = (Some(false), Some(now));
                }
            });
        }
        open
    }
}

fn run_key(number: u64) -> Vec<u8> {
    [RUN_PREFIX, &number.to_be_bytes()].concat()
}

#[cfg(test)]
mod tests;
