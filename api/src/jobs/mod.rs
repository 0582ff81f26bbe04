//! Jobs: steps that run at a time, after other jobs, or on demand. `schedule` knows times, `book` decides what runs and
//! what follows, this file runs it, `steps` does the work. A run is for a day, `$day`: the day before its time.

mod book;
mod parameters;
mod routes;
pub mod run;
pub mod schedule;
pub mod steps;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use broker::{Ack, Broker, TimestampMs};
use chrono::NaiveDate;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

pub use routes::routes;

use self::book::Book;
use self::run::{RunState, StepRun};
use self::steps::{Context, Steps};
use crate::alerts::outbox::Outbox;
use crate::config::{Channels, JobConfig, StepConfig};
use crate::output::time_text;

/// Time between two looks at the clock.
const TICK: Duration = Duration::from_millis(250);

/// Every job. Holds: the book, and a way to call off each run at work. What survives a crash is the book, as committed.
pub struct Jobs {
    broker: Arc<Broker>,
    outbox: Arc<Outbox>,
    steps: Steps,
    book: tokio::sync::Mutex<Book>,
    running: Mutex<HashMap<u64, Arc<Notify>>>,
    wake: Notify,
    figures: Mutex<HashMap<String, Figures>>,
}

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    /// Runs that succeeded.
    pub succeeded: u64,
    /// Runs that failed.
    pub failed: u64,
}

impl Jobs {
    /// Opens the book and begins.
    ///
    /// # Errors
    /// `Storage`.
    pub async fn start(
        broker: Arc<Broker>,
        steps: Steps,
        configs: &[JobConfig],
        stopping: &watch::Receiver<bool>,
    ) -> broker::Result<(Arc<Jobs>, JoinHandle<()>)> {
        let book = Book::open(broker.store(), configs.to_vec(), broker.clock().now_ms())?;
        let jobs = Arc::new(Jobs {
            broker,
            outbox: steps.outbox.clone(),
            steps,
            book: tokio::sync::Mutex::new(book),
            running: Mutex::default(),
            wake: Notify::new(),
            figures: Mutex::default(),
        });
        jobs.store(&mut *jobs.book.lock().await).await?;
        let task = tokio::spawn(jobs.clone().run(stopping.clone()));
        Ok((jobs, task))
    }

    async fn run(self: Arc<Self>, mut stopping: watch::Receiver<bool>) {
        let mut runs = tokio::task::JoinSet::new();
        loop {
            tokio::select! {
                () = self.wake.notified() => {}
                () = tokio::time::sleep(TICK) => {}
                _ = stopping.wait_for(|stop| *stop) => break,
            }
            let mut book = self.book.lock().await;
            let started = book.tick(self.now());
            if let Err(error) = self.store(&mut book).await {
                tracing::error!(%error, "jobs cannot be stored and do not go on");
                break;
            }
            drop(book);
            for number in started {
                runs.spawn(self.clone().carry_out(number));
            }
            while runs.try_join_next().is_some() {}
        }
        // What is at work ends here as in a crash: it is begun again at the next start.
        runs.shutdown().await;
    }

    fn now(&self) -> TimestampMs {
        self.broker.clock().now_ms()
    }

    /// Commits what changed in the book, with its notices.
    async fn store(&self, book: &mut Book) -> broker::Result<()> {
        let (changes, notices) = book.take_changes();
        if changes.is_empty() {
            return Ok(());
        }
        if notices.is_empty() {
            return self.broker.lane().commit(changes, Ack::Durable).await.map(drop);
        }
        let mut changes = Some(changes);
        for (job, notice) in notices {
            let channels = book.jobs().iter().find(|known| known.name == job).map(|job| job.channels.clone());
            let changes = changes.take().unwrap_or_default();
            self.outbox.post(changes, &[notice], &channels.unwrap_or_else(Channels::default)).await?;
        }
        Ok(())
    }

    async fn carry_out(self: Arc<Self>, number: u64) {
        let Some((job, context, called_off)) = self.begin(number).await else { return };
        let time = Duration::from_millis(job.timeout_ms);
        let outcome = tokio::select! {
            outcome = tokio::time::timeout(time, self.carry_out_steps(&job, context)) => Some(match outcome {
                Ok(outcome) => outcome,
                Err(_) => Err(format!("the run took longer than its timeout of {} s", time.as_secs_f64())),
            }),
            () = called_off.notified() => None,
        };
        self.running.lock().remove(&number);
        let Some(outcome) = outcome else { return };
        if let Err(error) = &outcome {
            tracing::warn!(job = job.name, run = number, error, "a job failed");
        }
        let mut book = self.book.lock().await;
        // It may have been called off in this very moment.
        if book.run(number).is_none_or(|run| run.state != RunState::Running) {
            return;
        }
        let good = outcome.is_ok();
        let now = self.now();
        if let Err(error) = &outcome {
            end_open_step(&mut book, number, error, now);
        }
        book.finish(number, outcome, now);
        if let Err(error) = self.store(&mut book).await {
            tracing::error!(%error, "the end of a job cannot be stored");
        }
        let mut figures = self.figures.lock();
        let figures = figures.entry(job.name).or_default();
        *(if good { &mut figures.succeeded } else { &mut figures.failed }) += 1;
        self.wake.notify_one();
    }

    /// What a run that was started is to do, and how it hears that it is called off; none if that has happened already.
    async fn begin(&self, number: u64) -> Option<(JobConfig, Context, Arc<Notify>)> {
        let book = self.book.lock().await;
        let run = book.run(number).filter(|run| run.state == RunState::Running)?;
        let job = book.jobs().iter().find(|job| job.name == run.job)?.clone();
        let context = Context {
            job: job.name.clone(),
            day: run.day.to_string(),
            today: schedule::day_of(self.now(), job.zone).to_string(),
            run: number,
            answer: String::new(),
        };
        // While the book is held: who calls the run off finds it either there or here.
        let called_off = Arc::new(Notify::new());
        self.running.lock().insert(number, called_off.clone());
        Some((job, context, called_off))
    }

    async fn carry_out_steps(&self, job: &JobConfig, mut context: Context) -> Result<(), String> {
        for (at, step) in job.steps.iter().enumerate() {
            let mut attempts = 0;
            loop {
                attempts += 1;
                self.note(&context, (at, step), |run| run.attempts = attempts).await?;
                let outcome = self.steps.perform(&step.action, &mut context).await;
                let now = self.now();
                let last = outcome.is_ok() || attempts > job.retries;
                let good = outcome.is_ok();
                let (Ok(message) | Err(message)) = outcome.clone();
                self.note(&context, (at, step), |run| {
                    run.message = message;
                    if last {
                        (run.good, run.ended_ms) = (Some(good), Some(now));
                    }
                })
                .await?;
                match outcome {
                    Ok(_) => break,
                    Err(error) if last => return Err(format!("step {}: {error}", step.name)),
                    Err(_) => tokio::time::sleep(Duration::from_millis(job.retry_delay_ms)).await,
                }
            }
        }
        Ok(())
    }

    /// Notes something about a step in the book.
    async fn note(
        &self,
        context: &Context,
        (at, step): (usize, &StepConfig),
        change: impl FnOnce(&mut StepRun),
    ) -> Result<(), String> {
        let now = self.now();
        let mut book = self.book.lock().await;
        book.change(context.run, |run| {
            if run.steps.len() <= at {
                let (name, message) = (step.name.clone(), String::new());
                run.steps.push(StepRun { name, started_ms: now, ended_ms: None, good: None, attempts: 0, message });
            }
            change(&mut run.steps[at]);
        });
        self.store(&mut book).await.map_err(|error| error.to_string())
    }

    /// Runs a job for a day as soon as it is free; gives the run's number. None without such a job.
    ///
    /// # Errors
    /// Why it cannot be queued.
    pub async fn request(&self, job: &str, day: Option<NaiveDate>) -> Option<Result<(u64, NaiveDate), String>> {
        let mut book = self.book.lock().await;
        let zone = book.jobs().iter().find(|known| known.name == job)?.zone;
        let now = self.now();
        let day = day.unwrap_or_else(|| schedule::day_before(now, zone));
        let requested = book.request(job, day, now);
        if let Err(error) = self.store(&mut book).await {
            return Some(Err(error.to_string()));
        }
        self.wake.notify_one();
        Some(requested.map(|number| (number, day)))
    }

    /// Calls off what waits and what runs of a job; gives the runs' numbers. None without such a job.
    pub async fn cancel(&self, job: &str) -> Option<broker::Result<Vec<u64>>> {
        let mut book = self.book.lock().await;
        book.jobs().iter().find(|known| known.name == job)?;
        let numbers = book.cancel(job, self.now());
        if let Err(error) = self.store(&mut book).await {
            return Some(Err(error));
        }
        let running = self.running.lock();
        numbers.iter().filter_map(|number| running.get(number)).for_each(|run| run.notify_one());
        drop(running);
        self.wake.notify_one();
        Some(Ok(numbers))
    }

    /// Every job with its last runs.
    pub async fn list(&self) -> Vec<Value> {
        let book = self.book.lock().await;
        let figures = self.figures.lock();
        let shown = |job: &JobConfig| {
            let figures = figures.get(&job.name).copied().unwrap_or_default();
            let mut runs = book.runs_of(&job.name);
            let last = runs.next();
            let success = book.runs_of(&job.name).find(|run| run.state == RunState::Succeeded);
            let recent: Vec<Value> = book
                .runs_of(&job.name)
                .take(14)
                .map(|run| json!({"run": run.number, "day": run.day.to_string(), "state": run.state, "late": run.late}))
                .collect();
            json!({
                "name": job.name,
                "schedule": job.schedule.as_ref().map(|schedule| schedule.text()),
                "time_zone": job.zone.name(),
                "after": job.after,
                "steps": job.steps.iter().map(|step| &step.name).collect::<Vec<_>>(),
                "deadline": job.deadline.map(|time| time.format("%H:%M").to_string()),
                "next": book.next_time(job).map(time_text),
                "state": last.map(|run| run.state),
                "last": last.map(|run| run.json()),
                "last_success": success.and_then(|run| run.ended_ms).map(time_text),
                "recent": recent,
                "succeeded": figures.succeeded,
                "failed": figures.failed,
                "notices": self.outbox.of("job", &job.name, 5),
            })
        };
        book.jobs().iter().map(shown).collect()
    }

    /// The runs of a job, newest first; none without such a job.
    pub async fn runs(&self, job: &str, day: Option<NaiveDate>, limit: usize) -> Option<Vec<Value>> {
        let book = self.book.lock().await;
        book.jobs().iter().find(|known| known.name == job)?;
        let wanted = book.runs_of(job).filter(|run| day.is_none_or(|day| run.day == day));
        Some(wanted.take(limit).map(|run| run.json()).collect())
    }

    /// Per job: the counts, whether it runs, and when it last succeeded and how long that took.
    pub async fn figures(&self) -> Vec<(String, Figures, bool, Option<(TimestampMs, f64)>)> {
        let book = self.book.lock().await;
        let figures = self.figures.lock();
        let of = |job: &JobConfig| {
            let running = book.runs_of(&job.name).any(|run| run.state == RunState::Running);
            let success = book.runs_of(&job.name).find(|run| run.state == RunState::Succeeded);
            let success =
                success.and_then(|run| Some((run.ended_ms?, (run.ended_ms? - run.started_ms?) as f64 / 1000.0)));
            (job.name.clone(), figures.get(&job.name).copied().unwrap_or_default(), running, success)
        };
        book.jobs().iter().map(of).collect()
    }
}

/// A step that the timeout cut short has ended, too.
fn end_open_step(book: &mut Book, number: u64, error: &str, now: TimestampMs) {
    book.change(number, |run| {
        for step in run.steps.iter_mut().filter(|step| step.good.is_none()) {
            (step.good, step.ended_ms) = (Some(false), Some(now));
            step.message = error.to_owned();
        }
    });
}
