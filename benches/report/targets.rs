//! The targets of the store and of the engine: one table that sets each figure against what it is to reach.

use std::fmt::Write;

use super::{Report, matrix};
use crate::Outcome;
use crate::amplification;
use crate::brokers::Product;
use crate::latency::{Case, Measured as Delays};
use crate::produce_fetch::{Cell, Measured};
use crate::scaling::{self, Step};

/// What a figure divided by another is to be.
#[derive(Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
    /// No target: the figure is there to be seen.
    Stated,
}
use Bound::{AtLeast, AtMost, Stated};

/// One line of the table.
struct Row {
    /// What is measured, of Millpond.
    figure: &'static str,
    /// What it is divided by.
    against: &'static str,
    bound: Bound,
    /// Both, if both were measured.
    pair: fn(&Report) -> Option<[f64; 2]>,
}

const fn row(figure: &'static str, against: &'static str, bound: Bound, pair: fn(&Report) -> Option<[f64; 2]>) -> Row {
    Row { figure, against, bound, pair }
}

const KAFKA: &str = "Kafka";
const SYNCED_KAFKA: &str = "Kafka, flush.messages=1";
const FLINK: &str = "Flink SQL";
const LIMIT: &str = "the limit";
/// Mean write of a synced producer, by order of magnitude: what one sync costs.
const SYNC_BLOCK: usize = 64 << 10;
/// Places in the lake's tables: of topics, and of other engines.
const JSON: usize = 0;
const AVRO: usize = 1;
const DUCKDB: usize = 0;
const SPARK: usize = 1;
const MIB: f64 = (1 << 20) as f64;
/// Written by hand: what limits the figures that miss their targets, with the profiles. It calls each as the table does.
const LIMITS: &str = include_str!("../limits.md");

/// In the order of the promises: not synced, synced, reading, latency, starts and memory, growth, bytes, the engine, the lake.
const ROWS: &[Row] = &[
    row("produce 1 KiB, MiB/s, fsync off", KAFKA, AtLeast(1.0), |r| cells(r, (false, 1024), |one| one.produce.mib)),
    row("produce 100 B, records/s, fsync off", KAFKA, AtLeast(1.2), |r| {
        cells(r, (false, 100), |one| one.produce.records)
    }),
    row("produce 1 KiB, CPU s/GiB, fsync off", KAFKA, AtMost(1.3), |r| {
        cells(r, (false, 1024), |one| one.produce.cpu_per_gib)
    }),
    row("produce 1 KiB, MiB/s, fsync on", SYNCED_KAFKA, AtLeast(1.5), |r| {
        cells(r, (true, 1024), |one| one.produce.mib)
    }),
    row("produce 1 KiB, MiB/s, fsync on", "Kafka, not synced", AtLeast(0.8), |r| {
        Some([synced_mib(r)?, cell(r, Product::Kafka, (false, 1024), |one| one.produce.mib)?])
    }),
    row("produce 1 KiB, MiB/s, fsync on", "plain file, synced per MiB", Stated, |r| {
        Some([synced_mib(r)?, r.disk.as_ref()?.figure(1 << 20, |one| one.mib_per_second)?])
    }),
    row("produce p99 ms, 2,000 records/s, fsync on", SYNCED_KAFKA, AtMost(0.25), |r| {
        delays(r, (2_000, true), |one| one.produce_ms[1])
    }),
    row("200 producers, records/s, fsync on", SYNCED_KAFKA, AtLeast(10.0), |r| group_commit(r, true)),
    row("200 producers, records/s, fsync off", KAFKA, Stated, |r| group_commit(r, false)),
    row("fetch at the tail, MiB/s", KAFKA, AtLeast(1.0), |r| {
        both(|product| r.tail.as_ref()?.figure(product, |one| one.mib))
    }),
    row("fetch at the tail, CPU s/GiB", KAFKA, AtMost(1.0), |r| {
        both(|product| r.tail.as_ref()?.figure(product, |one| one.cpu_per_gib))
    }),
    row("fetch 1 KiB from the store, MiB/s", KAFKA, AtLeast(0.8), |r| cells(r, (true, 1024), |one| one.fetch.mib)),
    row("fetch 1 KiB from the store, CPU s/GiB", KAFKA, AtMost(3.0), |r| {
        cells(r, (true, 1024), |one| one.fetch.cpu_per_gib)
    }),
    row("produce p99 ms, 10 MiB/s, fsync off", KAFKA, AtMost(0.5), |r| {
        delays(r, (10_240, false), |one| one.produce_ms[1])
    }),
    row("end to end p99 ms, 10 MiB/s, fsync off", KAFKA, AtMost(0.5), |r| {
        delays(r, (10_240, false), |one| one.end_to_end_ms[1])
    }),
    row("produce p99 ms, 10 MiB/s, fsync on", "one sync + 2 ms", AtMost(1.0), |r| synced(r, |one| one.produce_ms[1])),
    row("end to end p99 ms, 10 MiB/s, fsync on", "one sync + 2 ms", AtMost(1.0), |r| {
        synced(r, |one| one.end_to_end_ms[1])
    }),
    row("end to end p99 ms, 10 MiB/s, fsync on", SYNCED_KAFKA, Stated, |r| {
        delays(r, (10_240, true), |one| one.end_to_end_ms[1])
    }),
    row("start on an empty folder, s", LIMIT, AtMost(1.0), |r| {
        let ours = r.matrix.as_ref()?.iter().find(|figures| figures.product == Product::Millpond)?;
        Some([super::median(&mut ours.start_seconds.clone()), 0.1])
    }),
    row("start after a stop in order, s", LIMIT, AtMost(1.0), |r| {
        Some([r.stored.as_ref()?.figure(Product::Millpond, |round| round.stopped.seconds)?, 1.0])
    }),
    row("start after `kill -9`, s", LIMIT, AtMost(1.0), |r| {
        Some([r.stored.as_ref()?.figure(Product::Millpond, |round| round.killed.seconds)?, 1.0])
    }),
    row("resident MiB, idle", LIMIT, AtMost(1.0), |r| {
        let ours = r.matrix.as_ref()?.iter().find(|figures| figures.product == Product::Millpond)?;
        Some([super::median(&mut ours.idle_bytes.iter().map(|bytes| *bytes as f64 / MIB).collect::<Vec<_>>()), 50.0])
    }),
    row("resident MiB, full load, 100 partitions", LIMIT, AtMost(1.0), |r| {
        Some([step(r, Product::Millpond, 100, |one| one.resident_bytes as f64 / MIB)?, 250.0])
    }),
    row("produce MiB/s, 2,000 partitions, idle connections", "6 partitions", AtLeast(0.8), |r| {
        growth(r, 2_000, |one| one.produce.mib)
    }),
    row("fetch MiB/s, 2,000 partitions, idle connections", "6 partitions", AtLeast(0.8), |r| {
        growth(r, 2_000, |one| one.fetch.mib)
    }),
    row("resident MiB, 2,000 partitions, idle connections", KAFKA, Stated, |r| {
        both(|product| step(r, product, 2_000, |one| one.resident_bytes as f64 / MIB))
    }),
    row("produce MiB/s, 5,000 partitions", "6 partitions", Stated, |r| growth(r, 5_000, |one| one.produce.mib)),
    row("produce MiB/s, 5,000 partitions", KAFKA, Stated, |r| {
        both(|product| step(r, product, 5_000, |one| one.produce.mib))
    }),
    row("fetch MiB/s, 5,000 partitions", KAFKA, Stated, |r| {
        both(|product| step(r, product, 5_000, |one| one.fetch.mib))
    }),
    row("produce MiB/s, most GiB stored, fsync on", "least GiB stored", Stated, |r| {
        r.stored.as_ref()?.growth(Product::Millpond, |one| one.produce.mib)
    }),
    row("fetch MiB/s, most GiB stored, page cache cold", KAFKA, Stated, |r| {
        both(|product| r.stored.as_ref()?.figure(product, |one| one.cold.mib))
    }),
    row("read from the device per byte, page cache cold", KAFKA, Stated, |r| {
        both(|product| r.stored.as_ref()?.figure(product, |one| one.device_bytes))
    }),
    row("written per byte, 1 KiB, fsync on", SYNCED_KAFKA, Stated, |r| bytes(r, |one| one.written / one.live)),
    row("on disk per byte, 1 KiB, fsync on", SYNCED_KAFKA, Stated, |r| bytes(r, |one| one.kept / one.live)),
    row("count by key, TUMBLE, events per CPU s", FLINK, AtLeast(5.0), |r| r.flink.as_ref()?.per_cpu_second("tumble")),
    row("count by key, HOP, events per CPU s", FLINK, AtLeast(3.0), |r| r.flink.as_ref()?.per_cpu_second("hop")),
    row("count by key, SESSION, events per CPU s", FLINK, AtLeast(3.0), |r| {
        r.flink.as_ref()?.per_cpu_second("session")
    }),
    row("flush JSON, MB of the log per CPU s", LIMIT, AtLeast(1.0), |r| {
        Some([r.lake.as_ref()?.flushes.per_cpu_second(JSON), 100.0])
    }),
    row("flush Avro, MB of the log per CPU s", LIMIT, AtLeast(1.0), |r| {
        Some([r.lake.as_ref()?.flushes.per_cpu_second(AVRO), 130.0])
    }),
    row("MB of files", "the same JSON under zstd 3", AtMost(0.6), |r| {
        Some(r.lake.as_ref()?.flushes.file_and_zstd_mb())
    }),
    row("hybrid `GROUP BY` where DuckDB is best, ms", "DuckDB, files only", AtMost(1.5), |r| worst(r, DUCKDB)),
    row("Spark, files only, ms, where that is least", "hybrid `GROUP BY`", AtLeast(5.0), |r| {
        worst(r, SPARK).map(|[ours, spark]| [spark, ours])
    }),
    row("hybrid `GROUP BY` where live rows cost most, ms", "all settled", AtMost(1.2), |r| {
        let [_, aggregations] = &r.lake.as_ref()?.queried;
        aggregations.worst(|asked| Some([asked.live_ms, asked.settled_ms]))
    }),
    row("dashboard's query, ms, the worst", LIMIT, AtMost(1.0), |r| {
        let [dashboards, _] = &r.lake.as_ref()?.queried;
        dashboards.worst(|asked| Some([asked.live_ms, 100.0]))
    }),
    row("producers while the lake seals, records/s", "not sealing", AtLeast(0.85), |r| {
        Some(r.lake.as_ref()?.sealed.sealing_and_still())
    }),
];

/// Adds the table.
///
/// # Errors
/// None in practice.
pub fn describe(text: &mut String, report: &Report) -> Outcome<()> {
    writeln!(text, "## Targets\n")?;
    writeln!(
        text,
        "Millpond's figure, what it is compared with, one divided by the other, and what that is to be. Produce and fetch: \
         6 partitions, acks all. One sync: the plain file's median for {} KiB.\n",
        SYNC_BLOCK >> 10
    )?;
    writeln!(
        text,
        "| figure | Millpond | compared with | | divided | target | reached |\n|---|---|---|---|---|---|---|"
    )?;
    let mut missed = Vec::new();
    for Row { figure, against, bound, pair } in ROWS {
        let target = match bound {
            AtLeast(least) => format!("≥ {least}"),
            AtMost(most) => format!("≤ {most}"),
            Stated => "—".to_owned(),
        };
        let Some([ours, other]) = pair(report) else {
            writeln!(text, "| {figure} | not measured | {against} | | | {target} | |")?;
            continue;
        };
        let divided = ours / other;
        let reached = match bound {
            AtLeast(least) if divided >= *least => "yes",
            AtMost(most) if divided <= *most => "yes",
            Stated => "—",
            _ => "no",
        };
        missed.extend(Some(*figure).filter(|_| reached == "no"));
        let (ours, other) = (short(ours), short(other));
        writeln!(text, "| {figure} | {ours} | {against} | {other} | {divided:.2} | {target} | {reached} |")?;
    }
    writeln!(text)?;
    limits(text, &missed)
}

/// What limits the figures that were missed, if any were; one that nobody has looked into is named.
fn limits(text: &mut String, missed: &[&str]) -> Outcome<()> {
    if missed.is_empty() {
        return Ok(());
    }
    writeln!(text, "{LIMITS}")?;
    let unknown: Vec<&str> = missed.iter().copied().filter(|figure| !LIMITS.contains(figure)).collect();
    if !unknown.is_empty() {
        writeln!(text, "Missed in this run, and nobody has looked into it: {}.\n", unknown.join("; "))?;
    }
    Ok(())
}

/// With as many digits as say something.
fn short(value: f64) -> String {
    if value < 100.0 { format!("{value:.2}") } else { format!("{value:.0}") }
}

fn both(of: impl Fn(Product) -> Option<f64>) -> Option<[f64; 2]> {
    Some([of(Product::Millpond)?, of(Product::Kafka)?])
}

fn cell(
    report: &Report,
    product: Product,
    (fsync, record_bytes): (bool, usize),
    of: fn(&Measured) -> f64,
) -> Option<f64> {
    let cell = Cell { record_bytes, partitions: 6, acks: "all", fsync };
    matrix::figure(report.matrix.as_ref()?, product, cell, of)
}

fn cells(report: &Report, cell_of: (bool, usize), of: fn(&Measured) -> f64) -> Option<[f64; 2]> {
    both(|product| cell(report, product, cell_of, of))
}

fn synced_mib(report: &Report) -> Option<f64> {
    cell(report, Product::Millpond, (true, 1024), |one| one.produce.mib)
}

fn delays(report: &Report, (rate, fsync): (usize, bool), of: fn(&Delays) -> f64) -> Option<[f64; 2]> {
    both(|product| report.latency.as_ref()?.figure(product, Case { rate, fsync }, of))
}

/// Delays at 10 MiB/s beside one sync of the device and two milliseconds.
fn synced(report: &Report, of: fn(&Delays) -> f64) -> Option<[f64; 2]> {
    let ours = report.latency.as_ref()?.figure(Product::Millpond, Case { rate: 10_240, fsync: true }, of)?;
    Some([ours, report.disk.as_ref()?.figure(SYNC_BLOCK, |one| one.write_ms)? + 2.0])
}

fn group_commit(report: &Report, fsync: bool) -> Option<[f64; 2]> {
    both(|product| report.group_commit.as_ref()?.figure(product, fsync, |one| one.records))
}

fn step(report: &Report, product: Product, partitions: i32, of: fn(&scaling::Measured) -> f64) -> Option<f64> {
    let step = Step { partitions, crowded: partitions == 2_000 };
    report.scaling.as_ref()?.figure(product, step, of)
}

/// Millpond with many partitions beside Millpond with six.
fn growth(report: &Report, partitions: i32, of: fn(&scaling::Measured) -> f64) -> Option<[f64; 2]> {
    Some([step(report, Product::Millpond, partitions, of)?, step(report, Product::Millpond, 6, of)?])
}

/// The aggregation that takes longest beside another engine, and that engine.
fn worst(report: &Report, engine: usize) -> Option<[f64; 2]> {
    let [_, aggregations] = &report.lake.as_ref()?.queried;
    aggregations.worst(|asked| Some([asked.live_ms, asked.others_ms?[engine]]))
}

fn bytes(report: &Report, of: fn(&amplification::Counted) -> f64) -> Option<[f64; 2]> {
    let case = amplification::Case { record_bytes: 1024, fsync: true };
    both(|product| report.amplification.as_ref()?.figure(product, case, of))
}
