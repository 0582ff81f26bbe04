//! A sink into files: a query's rows as CSV or JSON, at a time or on demand. A file is written under a hidden name and
//! renamed, so nobody sees half of one; the oldest are deleted.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use broker::{Broker, TimestampMs};
use lake::{Lake, QueryKind, SqlRequest};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::status::FileStatus;
use crate::config::{FileFormat, FileSinkConfig, Timing};
use crate::output::{Table, lines};

/// Longest sleep until the clock is looked at again.
const NAP: Duration = Duration::from_millis(500);

/// A sink into files. Holds: what the last export did. Files survive; the next time is counted anew after a start.
pub struct FileSink {
    /// Its name, with which its files begin.
    pub name: String,
    /// As declared.
    pub config: FileSinkConfig,
    broker: Arc<Broker>,
    lake: Arc<Lake>,
    rows_max: usize,
    writing: tokio::sync::Mutex<()>,
    status: Mutex<FileStatus>,
}

impl FileSink {
    /// Puts the parts together; `rows_max` is the most rows that one query answers.
    pub fn new(
        (broker, lake): (Arc<Broker>, Arc<Lake>),
        name: &str,
        config: &FileSinkConfig,
        rows_max: usize,
    ) -> FileSink {
        FileSink {
            name: name.to_owned(),
            config: config.clone(),
            broker,
            lake,
            rows_max,
            writing: tokio::sync::Mutex::default(),
            status: Mutex::default(),
        }
    }

    /// How it stands.
    pub fn status(&self) -> FileStatus {
        self.status.lock().clone()
    }

    /// Works until the server stops.
    pub async fn run(self: Arc<Self>, mut stopping: watch::Receiver<bool>) {
        let Some(timing) = self.config.timing.clone() else { return };
        let mut done = self.broker.clock().now_ms();
        loop {
            let Some(next) = next_time(&timing, done) else { return };
            self.status.lock().next_ms = Some(next);
            while self.broker.clock().now_ms() < next {
                tokio::select! {
                    () = tokio::time::sleep(NAP) => {}
                    _ = stopping.wait_for(|stop| *stop) => return,
                }
            }
            done = self.broker.clock().now_ms();
            tokio::select! {
                outcome = self.export() => {
                    if let Err(error) = outcome {
                        tracing::warn!(sink = self.name, error, "a file could not be written");
                    }
                }
                _ = stopping.wait_for(|stop| *stop) => return,
            }
        }
    }

    /// Writes one file now; what it says is for people.
    ///
    /// # Errors
    /// Why there is no new file.
    pub async fn export(&self) -> Result<String, String> {
        let _one_at_a_time = self.writing.lock().await;
        let now = self.broker.clock().now_ms();
        let outcome = self.write(now).await;
        let mut status = self.status.lock();
        match outcome {
            Ok((path, rows)) => {
                status.files += 1;
                status.rows = rows as u64;
                status.last_file = Some(path.display().to_string());
                status.last_ms = Some(now);
                status.error = None;
                Ok(format!("{rows} rows in {}", path.display()))
            }
            Err(error) => {
                status.failures += 1;
                status.error = Some(error.clone());
                Err(error)
            }
        }
    }

    async fn write(&self, now: TimestampMs) -> Result<(PathBuf, usize), String> {
        let limit = self.rows_max;
        let request = SqlRequest {
            sql: self.config.sql.clone(),
            row_limit: limit + 1,
            kind: QueryKind::Sink,
            ..SqlRequest::default()
        };
        let answer = self.lake.sql(request).await.map_err(|error| error.to_string())?;
        let rows: usize = answer.rows.iter().map(|rows| rows.num_rows()).sum();
        if rows > limit {
            return Err(format!("the query gives more than {limit} rows: ask for less, or raise lake.sql_rows_max"));
        }
        let table = Table { before: Vec::new(), schema: answer.schema, rows: answer.rows, after: Vec::new() };
        let format = self.config.format;
        let (folder, name, keep) = (PathBuf::from(&self.config.folder), self.name.clone(), self.config.keep);
        let latest = self.config.latest;
        let write = move || {
            let bytes = text(table, format)?;
            let ending = ending(format);
            let path = folder.join(format!("{name}-{}.{ending}", file_time(now)));
            let failed = |error: std::io::Error| format!("{}: {error}: check the folder and its disk", path.display());
            std::fs::create_dir_all(&folder).map_err(failed)?;
            put(&path, &bytes).map_err(failed)?;
            if latest {
                put(&folder.join(format!("{name}.{ending}")), &bytes).map_err(failed)?;
            }
            delete_old(&folder, (&name, ending), keep).map_err(failed)?;
            Ok(path)
        };
        let written = tokio::task::spawn_blocking(write).await.map_err(|error| error.to_string())?;
        written.map(|path| (path, rows))
    }
}

fn next_time(timing: &Timing, after: TimestampMs) -> Option<TimestampMs> {
    match timing {
        Timing::Every(ms) => Some(after + ms),
        Timing::Cron(schedule) => schedule.next_after(after),
    }
}

fn ending(format: FileFormat) -> &'static str {
    match format {
        FileFormat::Csv => "csv",
        FileFormat::Json => "json",
    }
}

fn text(table: Table, format: FileFormat) -> Result<Vec<u8>, String> {
    let text = match format {
        FileFormat::Csv => table.csv(),
        FileFormat::Json => lines(&table.schema, table.rows).map(|lines| {
            let rows = lines.strip_suffix(b"\n").unwrap_or(&lines);
            let rows: Vec<&[u8]> = rows.split(|byte| *byte == b'\n').collect();
            [b"[\n", &rows.join(&b",\n"[..])[..], b"\n]\n"].concat()
        }),
    };
    text.map_err(|problem| problem.detail().to_owned())
}

/// A time that sorts and may stand in a file's name.
fn file_time(ms: TimestampMs) -> String {
    let time = chrono::DateTime::from_timestamp_millis(ms).unwrap_or_default();
    time.format("%Y%m%dT%H%M%S%3fZ").to_string()
}

/// Under a hidden name, to the disk, then renamed.
fn put(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let hidden = path.with_file_name(format!(".{name}.part"));
    std::fs::write(&hidden, bytes)?;
    std::fs::File::open(&hidden)?.sync_all()?;
    std::fs::rename(&hidden, path)
}

/// Deletes all but the newest of this sink's files.
fn delete_old(folder: &Path, (name, ending): (&str, &str), keep: usize) -> std::io::Result<()> {
    let mut own = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let file = entry?.file_name().to_string_lossy().into_owned();
        let time = file.strip_prefix(&format!("{name}-")).and_then(|rest| rest.strip_suffix(&format!(".{ending}")));
        if time.is_some_and(|time| time.len() == 19 && time.ends_with('Z')) {
            own.push(file);
        }
    }
    own.sort();
    for file in &own[..own.len().saturating_sub(keep)] {
        std::fs::remove_file(folder.join(file))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_appear_whole_and_the_oldest_go() {
        let dir = tempfile::tempdir().unwrap();
        for ms in [0, 1, 1_000, 1_795_132_800_123] {
            put(&dir.path().join(format!("a-{}.csv", file_time(ms))), b"x").unwrap();
        }
        put(&dir.path().join("a-b-20261120T000000000Z.csv"), b"another sink's").unwrap();
        put(&dir.path().join("a.csv"), b"x").unwrap();
        delete_old(dir.path(), ("a", "csv"), 2).unwrap();
        let mut names: Vec<String> =
            std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(
            names,
            ["a-19700101T000001000Z.csv", "a-20261120T000000123Z.csv", "a-b-20261120T000000000Z.csv", "a.csv"]
        );
    }

    #[test]
    fn the_next_time_is_after_the_last() {
        assert_eq!(next_time(&Timing::Every(500), 1_000), Some(1_500));
    }
}
