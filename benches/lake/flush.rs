//! Flushing: bytes of the log per second of CPU, and what is left of them in files.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;
use std::time::Instant;

use lake::TableConfig;

use super::log::{Log, settling};
use super::rows::{Encoding, TABLE, Writer};
use crate::report::median;
use crate::settings::Settings;
use crate::{Outcome, machine};

/// Rows that are flushed at most: no more are needed to know the rate.
const ROWS_MAX: usize = 2_000_000;
/// What is flushed: how it is called, how values are written, whether whole records are kept beside the rows.
const TOPICS: [(&str, Encoding, bool); 3] = [
    ("JSON", Encoding::Json, false),
    ("Avro", Encoding::Avro, false),
    ("JSON, whole records kept too (`raw = true`)", Encoding::Json, true),
];

/// One flush of all that the log has.
#[derive(Clone, Copy, Debug)]
struct Flushed {
    log_bytes: u64,
    files: u64,
    file_bytes: u64,
    cpu_seconds: f64,
    seconds: f64,
}

impl Flushed {
    fn per_cpu_second(&self) -> f64 {
        self.log_bytes as f64 / 1e6 / self.cpu_seconds
    }
}

/// What the part gave.
#[derive(Debug)]
pub struct Flushes {
    rows: usize,
    /// Per topic, one entry per round.
    topics: Vec<Vec<Flushed>>,
    /// The JSON values under zstd 3, each on a line.
    zstd_bytes: u64,
    json_bytes: u64,
}

/// Fills and flushes a new log per topic and round.
///
/// # Errors
/// Rows are missing from the files, or what cannot be written.
pub async fn run(settings: &Settings, scratch: &Path) -> Outcome<Flushes> {
    let rows = settings.lake_rows.min(ROWS_MAX);
    let (json_bytes, zstd_bytes) = under_zstd(rows)?;
    let mut flushes = Flushes { rows, topics: TOPICS.map(|_| Vec::new()).to_vec(), zstd_bytes, json_bytes };
    for round in 0..settings.rounds {
        for (at, (what, encoding, raw)) in TOPICS.into_iter().enumerate() {
            let folder = scratch.join(format!("flush-{round}-{at}"));
            let flushed = flush(&folder, encoding, TableConfig { raw, ..settling() }, rows).await?;
            eprintln!("bench: lake round {round} {what}: {flushed:?}");
            flushes.topics[at].push(flushed);
            std::fs::remove_dir_all(&folder)?;
        }
    }
    Ok(flushes)
}

async fn flush(folder: &Path, encoding: Encoding, table: TableConfig, rows: usize) -> Outcome<Flushed> {
    let log = Log::open(folder, encoding).await?;
    log.fill(0..rows, rows).await?;
    machine::settle()?;
    let (started, before) = (Instant::now(), machine::own_cpu_seconds()?);
    // it begins by itself where a partition has enough; the flush is done when all is settled
    let lake = log.lake(table).await?;
    lake.flush(TABLE).await?;
    let (seconds, cpu_seconds) = (started.elapsed().as_secs_f64(), machine::own_cpu_seconds()? - before);
    let status = lake.status().tables.into_iter().find(|table| table.table == TABLE).ok_or("no table")?;
    if status.rows != rows as u64 || status.lag_records != 0 {
        return Err(format!("{} of {rows} rows settled, {} are left", status.rows, status.lag_records).into());
    }
    let flushed =
        Flushed { log_bytes: log.bytes()?, files: status.files, file_bytes: status.bytes, cpu_seconds, seconds };
    lake.stop().await?;
    drop(lake);
    log.close().await?;
    Ok(flushed)
}

/// Bytes of the rows as lines of JSON, and of these under zstd 3.
fn under_zstd(rows: usize) -> Outcome<(u64, u64)> {
    let writer = Writer::new(Encoding::Json)?;
    let mut plain = 0;
    let mut folded = zstd::Encoder::new(Counted(0), 3)?;
    for number in 0..rows {
        let mut line = writer.value(number, rows)?;
        line.push(b'\n');
        plain += line.len() as u64;
        folded.write_all(&line)?;
    }
    Ok((plain, folded.finish()?.0))
}

/// Counts what is written.
struct Counted(u64);

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Flushes {
    /// MB of the log's bytes per CPU second, of the topic at this place.
    pub fn per_cpu_second(&self, at: usize) -> f64 {
        median(&mut self.topics[at].iter().map(Flushed::per_cpu_second).collect::<Vec<_>>())
    }

    /// MB of the files of the JSON topic, and of its values under zstd 3.
    pub fn file_and_zstd_mb(&self) -> [f64; 2] {
        [self.topics[0].first().map_or(0, |flushed| flushed.file_bytes), self.zstd_bytes]
            .map(|bytes| bytes as f64 / 1e6)
    }

    /// Adds its tables.
    ///
    /// # Errors
    /// None in practice.
    pub fn describe(&self, text: &mut String) -> Outcome<()> {
        let Self { rows, json_bytes, .. } = self;
        writeln!(
            text,
            "Flush: {rows} rows of eight columns, no key, in {} partitions and ten slices by date, in the log before the lake starts; \
             default sizes of files, no merges. MB are of the log's bytes, not compressed; CPU is that of the whole process from the lake's \
             start to all settled, with fsync.\n",
            super::log::PARTITIONS
        )?;
        writeln!(
            text,
            "| topic | log MB | MB per CPU second | MB/s by the clock | files | MB of files |\n|---|---|---|---|---|---|"
        )?;
        for ((what, ..), rounds) in TOPICS.iter().zip(&self.topics) {
            let over = |of: fn(&Flushed) -> f64| median(&mut rounds.iter().map(of).collect::<Vec<_>>());
            writeln!(
                text,
                "| {what} | {:.0} | {:.0} | {:.0} | {:.0} | {:.1} |",
                over(|one| one.log_bytes as f64 / 1e6),
                over(Flushed::per_cpu_second),
                over(|one| one.log_bytes as f64 / 1e6 / one.seconds),
                over(|one| one.files as f64),
                over(|one| one.file_bytes as f64 / 1e6),
            )?;
        }
        let cpu = |at: usize| median(&mut self.topics[at].iter().map(|one| one.cpu_seconds).collect::<Vec<_>>());
        let log_mb = self.topics[0].first().map_or(0.0, |flushed| flushed.log_bytes as f64 / 1e6);
        writeln!(
            text,
            "\nWhole records by themselves, by what they add to the CPU of the rows: {:.0} MB per CPU second.",
            log_mb / (cpu(2) - cpu(0))
        )?;
        let [files, zstd] = self.file_and_zstd_mb();
        writeln!(
            text,
            "\nThe same rows as lines of JSON are {:.1} MB, under zstd 3 {:.1} MB: files take {:.0} % of that (with partition, offset and \
             timestamp of each record, which the JSON has not).\n",
            *json_bytes as f64 / 1e6,
            zstd,
            100.0 * files / zstd
        )?;
        Ok(())
    }
}
