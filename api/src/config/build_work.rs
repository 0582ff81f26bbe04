//! From checked values to sinks, jobs and alerts.

use std::collections::BTreeSet;
use std::path::Path;

use engine::EngineConfig;

use super::Channels;
use super::mistake::{Mistakes, suggestion};
use super::value::Entry;
use super::work::*;
use crate::jobs::schedule::{self, Schedule};

/// Builds all of it from the lists and from `[postgres]` and `[smtp]`.
pub fn work(
    (lists, postgres, smtp): (&Entry, &Entry, &Entry),
    engine: &EngineConfig,
    mistakes: &mut Mistakes,
) -> WorkConfig {
    let sinks: Vec<SinkConfig> =
        lists.tables("sinks").iter().map(|entry| sink(entry, postgres.text_or_none("url"), engine, mistakes)).collect();
    let jobs: Vec<JobConfig> = lists.tables("jobs").iter().map(|entry| job(entry, mistakes)).collect();
    let alerts: Vec<AlertConfig> = lists.tables("alerts").iter().map(|entry| alert(entry, mistakes)).collect();
    for (entry, job) in lists.tables("jobs").iter().zip(&jobs) {
        check_names(entry, job, (&jobs, &sinks), mistakes);
    }
    let smtp = self::smtp(smtp);
    if smtp.is_none() {
        let mails = |entry: &&Entry| {
            !entry.texts("email").is_empty() || entry.tables("steps").iter().any(|step| !step.texts("email").is_empty())
        };
        for entry in lists.tables("jobs").iter().chain(lists.tables("alerts")).filter(mails) {
            let message = "no mail server is named: give smtp.host, or take email away";
            mistakes.add(&entry.place("email"), entry.path_of("email"), message);
        }
    }
    WorkConfig { sinks, jobs, alerts, smtp }
}

/// `{data_dir}` in the folders of file sinks stands for the server's directory.
pub fn place_files(work: &mut WorkConfig, data_dir: &Path) {
    for sink in &mut work.sinks {
        if let SinkKind::File(file) = &mut sink.kind {
            file.folder = file.folder.replace("{data_dir}", &data_dir.display().to_string());
        }
    }
}

fn smtp(entry: &Entry) -> Option<SmtpConfig> {
    Some(SmtpConfig {
        host: entry.text_or_none("host")?,
        port: u16::try_from(entry.integer("port")).expect("the kind's range is that of ports"),
        login: entry.text_or_none("user").map(|user| (user, entry.text_or_none("password").unwrap_or_default())),
        tls: match entry.text("tls").as_str() {
            "none" => SmtpTls::None,
            "tls" => SmtpTls::Tls,
            _ => SmtpTls::StartTls,
        },
        from: entry.text("from"),
    })
}

fn text(entry: &Entry, key: &str) -> String {
    entry.text_or_none(key).unwrap_or_default()
}

/// Names become keys in the store, parts of URLs and of topics.
fn name(entry: &Entry, mistakes: &mut Mistakes) -> String {
    let name = text(entry, "name");
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !name.chars().all(good) || name.len() > 200 {
        mistakes.add(
            &entry.place("name"),
            entry.path_of("name"),
            "must be at most 200 letters, digits, '.', '-' and '_'",
        );
    }
    name
}

fn sink(entry: &Entry, default_url: Option<String>, engine: &EngineConfig, mistakes: &mut Mistakes) -> SinkConfig {
    let name = name(entry, mistakes);
    let given = |key| entry.text_or_none(key).is_some();
    let sources = ["stream", "view", "sql"].into_iter().filter(|key| given(key)).count();
    if sources != 1 {
        mistakes.add(&entry.origin, entry.path.as_str(), "give one of stream, view and sql");
    }
    if let Some(stream) = entry.text_or_none("stream")
        && !engine.streams.iter().any(|declared| declared.name == stream)
    {
        let near = suggestion(&stream, engine.streams.iter().map(|declared| declared.name.as_str()));
        mistakes.add(&entry.place("stream"), entry.path_of("stream"), format!("no stream {stream} is declared{near}"));
    }
    let kind = match text(entry, "kind").as_str() {
        "file" => SinkKind::File(file(entry, mistakes)),
        _ => SinkKind::Postgres(postgres(entry, &name, default_url, mistakes)),
    };
    SinkConfig { name, kind }
}

fn postgres(entry: &Entry, name: &str, default_url: Option<String>, mistakes: &mut Mistakes) -> PostgresSinkConfig {
    let source = match (entry.text_or_none("stream"), entry.text_or_none("view")) {
        (_, Some(view)) => SinkSource::View(view),
        (stream, None) => SinkSource::Stream(stream.unwrap_or_default()),
    };
    let url = entry.text_or_none("url").or(default_url);
    if let Some(Err(error)) = url.as_deref().map(crate::sinks::check_url) {
        mistakes.add(&entry.place("url"), entry.path_of("url"), error);
    }
    if entry.text_or_none("sql").is_some() {
        mistakes.add(&entry.place("sql"), entry.path_of("sql"), "a sink of kind postgres takes a stream or a view");
    }
    let key = entry.texts("key");
    if key.is_empty() && matches!(source, SinkSource::Stream(_)) {
        let message = "missing; name the columns that say which row a record replaces, for example key = [\"id\"]";
        mistakes.add(&entry.origin, entry.path_of("key"), message);
    }
    let column = |column: &Entry| {
        let name = text(column, "name");
        SinkColumnConfig {
            from: column.text_or_none("from").unwrap_or_else(|| name.clone()),
            name,
            sql_type: column.text_or_none("type"),
        }
    };
    let columns: Vec<SinkColumnConfig> = entry.tables("columns").iter().map(column).collect();
    for part in key.iter().filter(|part| !columns.is_empty() && !columns.iter().any(|column| column.name == **part)) {
        let near = suggestion(part, columns.iter().map(|column| column.name.as_str()));
        mistakes.add(&entry.place("key"), entry.path_of("key"), format!("{part} is not one of the columns{near}"));
    }
    PostgresSinkConfig {
        url,
        source,
        table: entry.text_or_none("table").unwrap_or_else(|| name.to_owned()),
        key,
        columns,
        create: entry.bool("create"),
        ddl: entry.text_or_none("ddl"),
        batch_rows: entry.count("batch_rows"),
        interval_ms: entry.unsigned("interval"),
        reference_wait_ms: entry.integer("reference_wait"),
    }
}

fn file(entry: &Entry, mistakes: &mut Mistakes) -> FileSinkConfig {
    let quoted = |name: String| format!("SELECT * FROM \"{}\"", name.replace('"', "\"\""));
    let table = entry.text_or_none("view").or_else(|| entry.text_or_none("stream"));
    if entry.text_or_none("folder").is_none() {
        mistakes.add(
            &entry.origin,
            entry.path_of("folder"),
            "missing; name the directory, for example folder = \"exports\"",
        );
    }
    let every = entry.integer_or_none("every").map(Timing::Every);
    let cron = schedule(entry, mistakes).map(Timing::Cron);
    if every.is_some() && cron.is_some() {
        mistakes.add(&entry.place("every"), entry.path_of("every"), "give either every or schedule");
    }
    FileSinkConfig {
        sql: entry.text_or_none("sql").or_else(|| table.map(quoted)).unwrap_or_default(),
        folder: text(entry, "folder"),
        format: if text(entry, "format") == "json" { FileFormat::Json } else { FileFormat::Csv },
        timing: every.or(cron),
        keep: entry.count("keep"),
        latest: entry.bool("latest"),
    }
}

fn zone(entry: &Entry, mistakes: &mut Mistakes) -> chrono_tz::Tz {
    schedule::zone(&text(entry, "time_zone")).unwrap_or_else(|error| {
        mistakes.add(&entry.place("time_zone"), entry.path_of("time_zone"), error);
        chrono_tz::Tz::UTC
    })
}

fn schedule(entry: &Entry, mistakes: &mut Mistakes) -> Option<Schedule> {
    let zone = zone(entry, mistakes);
    let parsed = Schedule::parse(&entry.text_or_none("schedule")?, zone);
    parsed.map_err(|error| mistakes.add(&entry.place("schedule"), entry.path_of("schedule"), error)).ok()
}

fn channels(entry: &Entry, mistakes: &mut Mistakes) -> Channels {
    let channels = Channels {
        topic: entry.text_or_none("topic"),
        webhook: entry.text_or_none("webhook"),
        email: entry.texts("email"),
    };
    check_receivers(entry, channels.webhook.as_deref(), &channels.email, mistakes);
    channels
}

fn check_receivers(entry: &Entry, webhook: Option<&str>, email: &[String], mistakes: &mut Mistakes) {
    if webhook.is_some_and(|url| !url.starts_with("http://") && !url.starts_with("https://")) {
        mistakes.add(&entry.place("webhook"), entry.path_of("webhook"), "must begin with http:// or https://");
    }
    for address in email {
        if address.parse::<lettre::message::Mailbox>().is_err() {
            mistakes.add(&entry.place("email"), entry.path_of("email"), format!("{address:?} is not a mail address"));
        }
    }
}

fn job(entry: &Entry, mistakes: &mut Mistakes) -> JobConfig {
    let deadline = entry.text_or_none("deadline").and_then(|text| {
        let time = chrono::NaiveTime::parse_from_str(&text, "%H:%M").ok();
        if time.is_none() {
            mistakes.add(
                &entry.place("deadline"),
                entry.path_of("deadline"),
                format!("{text:?} is not a time: write for example \"03:00\""),
            );
        }
        time
    });
    let schedule = schedule(entry, mistakes);
    if deadline.is_some() && schedule.is_none() {
        mistakes.add(&entry.place("deadline"), entry.path_of("deadline"), "only a job with a schedule has a deadline");
    }
    if entry.tables("steps").is_empty() {
        mistakes.add(&entry.place("steps"), entry.path_of("steps"), "a job has at least one step");
    }
    JobConfig {
        name: name(entry, mistakes),
        schedule,
        zone: schedule::zone(&text(entry, "time_zone")).unwrap_or(chrono_tz::Tz::UTC),
        after: entry.texts("after"),
        steps: entry.tables("steps").iter().map(|step| self::step(step, mistakes)).collect(),
        retries: u32::try_from(entry.integer("retries")).expect("the kind's range is small"),
        retry_delay_ms: entry.unsigned("retry_delay"),
        timeout_ms: entry.unsigned("timeout"),
        deadline,
        catch_up: entry.bool("catch_up"),
        channels: channels(entry, mistakes),
    }
}

fn step(entry: &Entry, mistakes: &mut Mistakes) -> StepConfig {
    let message = entry.text_or_none("message").unwrap_or_else(|| "job {job}, {day}: {answer}".to_owned());
    let subject = entry.text_or_none("subject").unwrap_or_else(|| "job {job}, {day}".to_owned());
    let email = entry.texts("email");
    check_receivers(entry, entry.text_or_none("webhook").as_deref(), &email, mistakes);
    let mut actions = Vec::new();
    actions.extend(entry.text_or_none("flush").map(|topic| (format!("flush {topic}"), StepAction::Flush(topic))));
    let parameters = || {
        let filled = |text: String| if text == "today" { "{today}".to_owned() } else { text };
        entry.map("parameters").into_iter().map(|(name, text)| (name, filled(text))).collect()
    };
    let transform = entry.text_or_none("transform");
    actions.extend(transform.map(|name| (name.clone(), StepAction::Transform { name, parameters: parameters() })));
    actions.extend(entry.text_or_none("source").map(|name| (format!("source {name}"), StepAction::Source(name))));
    if entry.bool("archive") {
        actions.push(("archive".to_owned(), StepAction::Archive));
    }
    let backup = entry.text_or_none("backup").map(|url| StepAction::Backup { url, keep: entry.count("keep") });
    actions.extend(backup.map(|action| ("backup".to_owned(), action)));
    let check = entry.bool("check");
    let sql = entry.text_or_none("sql").map(|sql| StepAction::Sql { sql, check });
    actions.extend(sql.map(|action| (if check { "check" } else { "sql" }.to_owned(), action)));
    actions.extend(entry.text_or_none("export").map(|sink| (format!("export {sink}"), StepAction::Export(sink))));
    let webhook = entry.text_or_none("webhook").map(|url| StepAction::Webhook { url, message: message.clone() });
    actions.extend(webhook.map(|action| ("webhook".to_owned(), action)));
    if !email.is_empty() {
        actions.push(("email".to_owned(), StepAction::Email { to: email, subject, message }));
    }
    if actions.len() != 1 {
        mistakes.add(
            &entry.origin,
            entry.path.as_str(),
            "a step does one thing: give one of transform, source, flush, sql, export, archive, backup, webhook, email",
        );
    }
    let (what, action) = actions.pop().unwrap_or_else(|| (String::new(), StepAction::Flush(String::new())));
    StepConfig { name: entry.text_or_none("name").unwrap_or(what), action }
}

/// Jobs and sinks that a job names must be there, and none may wait for itself.
fn check_names(entry: &Entry, job: &JobConfig, (jobs, sinks): (&[JobConfig], &[SinkConfig]), mistakes: &mut Mistakes) {
    for other in &job.after {
        if !jobs.iter().any(|known| known.name == *other) {
            let near = suggestion(other, jobs.iter().map(|known| known.name.as_str()));
            mistakes.add(&entry.place("after"), entry.path_of("after"), format!("no job {other} is declared{near}"));
        }
    }
    let mut before: BTreeSet<&str> = job.after.iter().map(String::as_str).collect();
    for _ in jobs {
        let further = jobs.iter().filter(|known| before.contains(known.name.as_str()));
        let further: Vec<&str> = further.flat_map(|known| known.after.iter().map(String::as_str)).collect();
        before.extend(further);
    }
    if before.contains(job.name.as_str()) {
        mistakes.add(&entry.place("after"), entry.path_of("after"), "the job would wait for itself: break the circle");
    }
    for step in &job.steps {
        let StepAction::Export(sink) = &step.action else { continue };
        let files = || sinks.iter().filter(|known| matches!(known.kind, SinkKind::File(_)));
        if !files().any(|known| known.name == *sink) {
            let near = suggestion(sink, files().map(|known| known.name.as_str()));
            mistakes.add(
                &entry.place("steps"),
                entry.path_of("steps"),
                format!("no sink {sink} of kind file is declared{near}"),
            );
        }
    }
}

fn alert(entry: &Entry, mistakes: &mut Mistakes) -> AlertConfig {
    AlertConfig {
        name: name(entry, mistakes),
        sql: text(entry, "sql"),
        labels: entry.texts("labels"),
        every_ms: entry.unsigned("every"),
        for_ms: entry.integer("for"),
        clear_for_ms: entry.integer("clear_for"),
        severity: text(entry, "severity"),
        message: entry.text_or_none("message"),
        channels: channels(entry, mistakes),
    }
}
