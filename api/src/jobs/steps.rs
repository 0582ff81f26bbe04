//! What steps do.

use std::collections::BTreeMap;
use std::sync::Arc;

use broker::Clock;
use engine::sources::{RunState, Sources};
use lake::{BackupReport, Lake, QueryKind, SqlRequest};
use serde_json::{Map, Value, json};

use super::parameters::numbered;
use crate::alerts::channel::{self, Mail};
use crate::alerts::outbox::Outbox;
use crate::alerts::state::filled;
use crate::config::StepAction;
use crate::output::objects;
use crate::sinks::Sinks;

/// Rows of a query that a step notes.
const ROWS_NOTED: usize = 3;
/// Rows of a query that a check looks at.
const ROWS_CHECKED: usize = 1_000;
/// Longest text that a step leaves in the history.
const NOTE_CHARACTERS_MAX: usize = 2_000;

/// What steps work on.
pub struct Steps {
    /// The time.
    pub clock: Clock,
    /// Files that are read.
    pub sources: Arc<Sources>,
    /// SQL and files.
    pub lake: Arc<Lake>,
    /// Exports.
    pub sinks: Arc<Sinks>,
    /// The mail server's settings.
    pub outbox: Arc<Outbox>,
}

/// The run that a step belongs to.
#[derive(Clone, Debug)]
pub struct Context {
    /// The job.
    pub job: String,
    /// The day it is about, as in 2026-11-19.
    pub day: String,
    /// The day it is now where the job has its days.
    pub today: String,
    /// The run's number.
    pub run: u64,
    /// The number of the run that it does again; its own when it is the first.
    pub first: u64,
    /// What the last query gave.
    pub answer: String,
}

impl Context {
    fn fill(&self, template: &str) -> String {
        let mut row = Map::new();
        row.insert("job".into(), self.job.clone().into());
        row.insert("day".into(), self.day.clone().into());
        row.insert("today".into(), self.today.clone().into());
        row.insert("run".into(), self.run.into());
        row.insert("answer".into(), self.answer.clone().into());
        filled(template, &row)
    }
}

impl Steps {
    /// Does it once; what it gives is noted in the history.
    ///
    /// # Errors
    /// Why it failed.
    pub async fn perform(&self, action: &StepAction, context: &mut Context) -> Result<String, String> {
        let note = match action {
            StepAction::Flush(topic) => {
                let report = self.lake.flush(topic).await.map_err(|error| error.to_string())?;
                format!("{} rows in {} files, {} bytes", report.rows, report.files, report.bytes)
            }
            StepAction::Transform { name, parameters } => {
                // Unless the step says otherwise, a transform is about the run's day.
                let mut given = BTreeMap::from([
                    ("day".to_owned(), context.day.clone()),
                    // what an interrupted run added already must not be added again
                    ("run".to_owned(), context.first.to_string()),
                ]);
                given.extend(parameters.iter().map(|(name, text)| (name.clone(), context.fill(text))));
                let report = self.lake.transform(name, &given).await.map_err(|error| error.to_string())?;
                format!("{} rows in {} files of {} slices", report.rows, report.files, report.slices)
            }
            StepAction::Source(name) => {
                let report = self.sources.run(name).await.map_err(|error| error.to_string())?;
                if report.state != RunState::Done {
                    return Err(report.error.unwrap_or_else(|| "the source was stopped".to_owned()));
                }
                let (rows, published, rejected) = (report.rows, report.published, report.rejected);
                format!("{} files, {rows} rows: {published} published, {rejected} refused", report.files)
            }
            StepAction::Archive => {
                let report = self.lake.archive(self.clock.now_ms()).await.map_err(|error| error.to_string())?;
                format!("{} slices archived, {} files expired", report.slices, report.expired_files)
            }
            StepAction::Backup { url, keep } => {
                let report = self.lake.backup(url, *keep).await.map_err(|error| error.to_string())?;
                let BackupReport { name, files, bytes, removed } = report;
                format!("{name}: {files} files, {bytes} bytes; {removed} older ones removed")
            }
            StepAction::Sql { sql, check } => {
                let note = self.sql(sql, *check, context).await?;
                context.answer.clone_from(&note);
                note
            }
            StepAction::Export(sink) => self.sinks.export(sink).await?,
            StepAction::Webhook { url, message } => {
                let body = json!({
                    "text": context.fill(message), "source": "job", "name": context.job, "day": context.day, "run": context.run,
                });
                channel::webhook(url.clone(), body).await?;
                "taken".to_owned()
            }
            StepAction::Email { to, subject, message } => {
                let id = format!("job.{}.{}", context.job, context.run);
                let mail = Mail { to: to.clone(), subject: context.fill(subject), text: context.fill(message), id };
                channel::email(self.outbox.smtp(), &mail).await?;
                format!("sent to {}", to.join(", "))
            }
        };
        Ok(note.chars().take(NOTE_CHARACTERS_MAX).collect())
    }

    async fn sql(&self, sql: &str, check: bool, context: &Context) -> Result<String, String> {
        let (sql, params) = numbered(sql, &[("day", json!(context.day)), ("run", json!(context.run))]);
        let request =
            SqlRequest { sql, params, row_limit: ROWS_CHECKED, kind: QueryKind::Job, ..SqlRequest::default() };
        let answer = self.lake.sql(request).await.map_err(|error| error.to_string())?;
        let rows = objects(&answer.schema, answer.rows).map_err(|problem| problem.detail().to_owned())?;
        let shown: Vec<String> = rows.iter().take(ROWS_NOTED).map(row_text).collect();
        let more = if rows.len() > ROWS_NOTED { format!(" … {} rows", rows.len()) } else { String::new() };
        let note = format!("{}{more}", shown.join("; "));
        if check && rows.is_empty() {
            return Err("the check gave no row: it must give true".to_owned());
        }
        let wrong = rows.iter().find(|row| row.values().any(|value| *value != Value::Bool(true)));
        match wrong.filter(|_| check) {
            Some(row) => Err(format!("the check does not hold: {}", row_text(row))),
            None => Ok(note),
        }
    }
}

fn row_text(row: &Map<String, Value>) -> String {
    let cell = |(name, value): (&String, &Value)| match value {
        Value::String(text) => format!("{name} {text}"),
        other => format!("{name} {other}"),
    };
    row.iter().map(cell).collect::<Vec<_>>().join(", ")
}
