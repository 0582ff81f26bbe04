//! What the configuration says about where data come from and go: sources, derived streams, tables, transforms, jobs, sinks, alerts.
//! The catalog adds what runs.

use engine::TableRows;
use serde_json::{Value, json};

use crate::config::{Config, SinkKind, SinkSource, StepAction, Timing};

/// Whether the name of a table stands in a statement, as a word.
pub fn mentions(sql: &str, name: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut words = sql.split(|c| !is_word(c));
    words.any(|word| word.eq_ignore_ascii_case(name)) || sql.contains(&format!("\"{name}\""))
}

/// Entries and arrows of the catalog that follow from the configuration alone.
#[derive(Clone, Debug, Default)]
pub struct Declared {
    /// Kind, name, and what else is known.
    pub entries: Vec<(&'static str, String, Value)>,
    /// From `kind:name` to `kind:name`.
    pub arrows: Vec<(String, String)>,
    /// What a statement writes or decides, as `kind:name`, and the statement: it reads what it names.
    pub statements: Vec<(String, String)>,
}

impl Declared {
    /// Reads it out of the configuration.
    pub fn of(config: &Config) -> Declared {
        let mut declared = Declared::default();
        for source in &config.sources {
            declared.entry("source", &source.name, json!({"path": source.path}));
            declared.arrow(format!("source:{}", source.name), format!("topic:{}", source.topic));
        }
        for stream in engine::streams(&config.engine) {
            if let Some(sql) = &stream.config().sql {
                declared.statements.push((format!("topic:{}", stream.name()), sql.clone()));
            }
        }
        for table in &config.engine.tables {
            if let TableRows::Topic(topic) = &table.rows {
                declared.arrow(format!("topic:{topic}"), format!("table:{}", table.name));
            }
        }
        for transform in &config.lake.transforms {
            declared.statements.push((format!("table:{}", transform.name), transform.sql.clone()));
        }
        declared.work(config);
        declared
    }

    fn work(&mut self, config: &Config) {
        for sink in &config.work.sinks {
            let to = format!("sink:{}", sink.name);
            match &sink.kind {
                SinkKind::Postgres(postgres) => {
                    self.entry("sink", &sink.name, json!({"to": format!("PostgreSQL table {}", postgres.table)}));
                    let from = match &postgres.source {
                        SinkSource::Stream(stream) => format!("stream:{stream}"),
                        SinkSource::View(view) => format!("view:{view}"),
                    };
                    self.arrow(from, to);
                }
                SinkKind::File(file) => {
                    let every = matches!(file.timing, Some(Timing::Every(_)));
                    let when = if every { "again and again" } else { "at its times, or on demand" };
                    self.entry("sink", &sink.name, json!({"to": format!("files in {}, {when}", file.folder)}));
                    self.statements.push((to, file.sql.clone()));
                }
            }
        }
        for job in &config.work.jobs {
            let name = format!("job:{}", job.name);
            let steps: Vec<&str> = job.steps.iter().map(|step| step.name.as_str()).collect();
            self.entry("job", &job.name, json!({"steps": steps}));
            for before in &job.after {
                self.arrow(format!("job:{before}"), name.clone());
            }
            for step in &job.steps {
                match &step.action {
                    StepAction::Flush(topic) => self.arrow(name.clone(), format!("files:{topic}")),
                    StepAction::Transform { name: table, .. } => self.arrow(name.clone(), format!("table:{table}")),
                    StepAction::Source(source) => self.arrow(name.clone(), format!("source:{source}")),
                    StepAction::Export(sink) => self.arrow(name.clone(), format!("sink:{sink}")),
                    StepAction::Sql { sql, .. } => self.statements.push((name.clone(), sql.clone())),
                    StepAction::Archive
                    | StepAction::Backup { .. }
                    | StepAction::Webhook { .. }
                    | StepAction::Email { .. } => {}
                }
            }
        }
        for alert in &config.work.alerts {
            self.entry("alert", &alert.name, json!({"sql": alert.sql, "severity": alert.severity}));
            self.statements.push((format!("alert:{}", alert.name), alert.sql.clone()));
        }
    }

    fn entry(&mut self, kind: &'static str, name: &str, more: Value) {
        self.entries.push((kind, name.to_owned(), more));
    }

    fn arrow(&mut self, from: String, to: String) {
        self.arrows.push((from, to));
    }
}
