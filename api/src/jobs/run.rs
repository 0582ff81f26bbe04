//! One run of a job, as it is stored and shown.

use broker::TimestampMs;
use chrono::NaiveDate;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::output::time_text;

/// Why a run is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trigger {
    /// Its time came.
    Schedule,
    /// The jobs it waits for succeeded.
    After,
    /// Somebody asked for it.
    Request,
    /// The run before it was interrupted by the end of the server.
    Interruption,
}

/// How a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    /// It waits for its turn, or for other jobs.
    Queued,
    /// It is at work.
    Running,
    /// Every step went well.
    Succeeded,
    /// A step failed for good, or the time was over.
    Failed,
    /// The server ended in the middle of it.
    Interrupted,
    /// Somebody called it off.
    Cancelled,
}

impl RunState {
    /// Whether it is over.
    pub fn is_over(self) -> bool {
        !matches!(self, RunState::Queued | RunState::Running)
    }
}

/// One step of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRun {
    /// Its name.
    pub name: String,
    /// When its first attempt began.
    pub started_ms: TimestampMs,
    /// When it ended.
    pub ended_ms: Option<TimestampMs>,
    /// Whether it went well, once it has ended.
    pub good: Option<bool>,
    /// Attempts so far.
    pub attempts: u32,
    /// What it gave, or why the last attempt failed.
    pub message: String,
}

/// One run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Its number, unique over all jobs.
    pub number: u64,
    /// Whose run it is.
    pub job: String,
    /// The day it is about.
    #[serde(with = "day_text")]
    pub day: NaiveDate,
    /// Why it is there.
    pub trigger: Trigger,
    /// The time it was planned for.
    pub due_ms: TimestampMs,
    /// By when it should have succeeded.
    pub deadline_ms: Option<TimestampMs>,
    /// How it stands.
    pub state: RunState,
    /// When it began.
    pub started_ms: Option<TimestampMs>,
    /// When it ended.
    pub ended_ms: Option<TimestampMs>,
    /// Its steps so far.
    pub steps: Vec<StepRun>,
    /// Why it failed.
    pub error: Option<String>,
    /// Whether it was told to be late.
    pub late: bool,
    /// How many runs before it were interrupted in a row.
    pub interruptions: u32,
    /// The first of the runs that it does again.
    #[serde(default)]
    pub first: Option<u64>,
}

/// Days as 2026-11-19.
mod day_text {
    use chrono::NaiveDate;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// Writes a day.
    pub fn serialize<S: Serializer>(day: &NaiveDate, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(day)
    }

    /// Reads a day.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<NaiveDate, D::Error> {
        String::deserialize(from)?.parse().map_err(Error::custom)
    }
}

impl Run {
    /// For HTTP and the page.
    pub fn json(&self) -> Value {
        let seconds = |from: Option<TimestampMs>, to: Option<TimestampMs>| Some((to? - from?) as f64 / 1000.0);
        let steps: Vec<Value> = self
            .steps
            .iter()
            .map(|step| {
                let state = match step.good {
                    None => "running",
                    Some(true) => "succeeded",
                    Some(false) => "failed",
                };
                json!({
                    "name": step.name,
                    "state": state,
                    "attempts": step.attempts,
                    "started": time_text(step.started_ms),
                    "ended": step.ended_ms.map(time_text),
                    "seconds": seconds(Some(step.started_ms), step.ended_ms),
                    "message": step.message,
                })
            })
            .collect();
        json!({
            "run": self.number,
            "job": self.job,
            "day": self.day.to_string(),
            "state": self.state,
            "trigger": self.trigger,
            "due": time_text(self.due_ms),
            "deadline": self.deadline_ms.map(time_text),
            "late": self.late,
            "started": self.started_ms.map(time_text),
            "ended": self.ended_ms.map(time_text),
            "seconds": seconds(self.started_ms, self.ended_ms),
            "error": self.error,
            "steps": steps,
        })
    }
}
