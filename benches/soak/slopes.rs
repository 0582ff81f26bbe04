//! The soak's report: what grew, and by how much in an hour; to the terminal, and with `BENCH_WRITE=1` to `benches/SOAK.md`.

use std::fmt::Write;
use std::path::Path;

use super::{LATEST_EVERY, LATEST_KEYS, LIVE_BYTES, PARTITIONS, Soak};
use crate::Outcome;
use crate::report::{median, place_and_time};
use crate::soak::minute::Minute;

/// The first of so many parts of the minutes is warm-up.
const WARM_UP_PART: usize = 6;
/// Minutes in the table; of a longer soak every n-th is shown.
const LINES_MAX: usize = 120;
const RESIDENT_MIB_PER_HOUR_MAX: f64 = 1.0;
const DRIFT_MAX: f64 = 0.1;
/// What grows by no more than this part of it in an hour, or by no more than its error, does not grow.
const GROWTH_MAX: f64 = 0.01;
/// What retention may keep a producer waiting at p99.9.
const STALL_MS_MAX: f64 = 100.0;

/// A figure over time.
struct Course {
    /// By least squares, in an hour, and its standard error; nothing of fewer than three minutes.
    per_hour: Option<(f64, f64)>,
    /// Median of the first and of the last third.
    thirds: [f64; 2],
}

impl Course {
    fn of(minutes: &[Minute], figure: impl Fn(&Minute) -> f64) -> Self {
        let values = over(minutes, figure);
        let third = values.len().div_ceil(3);
        let (first, last) = (&values[..third], &values[values.len() - third..]);
        Self {
            per_hour: slope(&values).map(|(per_minute, error)| (per_minute * 60.0, error * 60.0)),
            thirds: [median(&mut first.to_vec()), median(&mut last.to_vec())],
        }
    }

    /// How much more the last third is than the first, as a share.
    fn drift(&self) -> f64 {
        self.thirds[1] / self.thirds[0] - 1.0
    }

    /// Whether it grows, beyond twice the error of its slope.
    fn grows(&self) -> bool {
        self.per_hour.is_none_or(|(slope, error)| slope - 2.0 * error > GROWTH_MAX * self.thirds[0])
    }
}

/// By which values grow from one to the next, by least squares, and the standard error of that.
fn slope(values: &[f64]) -> Option<(f64, f64)> {
    if values.len() < 3 {
        return None;
    }
    let count = values.len() as f64;
    let (mean_at, mean) = ((count - 1.0) / 2.0, values.iter().sum::<f64>() / count);
    let away = |at: usize| at as f64 - mean_at;
    let square: f64 = (0..values.len()).map(|at| away(at) * away(at)).sum();
    let slope = values.iter().enumerate().map(|(at, value)| away(at) * (value - mean)).sum::<f64>() / square;
    let left: f64 = values.iter().enumerate().map(|(at, value)| (value - mean - slope * away(at)).powi(2)).sum();
    Some((slope, (left / (count - 2.0) / square).sqrt()))
}

/// Prints the soak, and writes it where that is asked for.
///
/// # Errors
/// The file cannot be written.
pub fn publish(soak: &Soak, write: bool) -> Outcome<()> {
    let mut text = String::from("# Soak\n\nWritten by `BENCH_WRITE=1 make soak` (`benches/soak`).\n\n");
    let (rate, most, minutes) = (soak.offered.rate, soak.most, soak.minutes.len());
    place_and_time(&mut text)?;
    writeln!(
        text,
        "| offered | {rate} records/s of 1 KiB over {PARTITIONS} partitions, acks all, linger 5 ms, fsync on, with a consumer, for \
         {minutes} minutes: half of the {most:.0} that it took as fast as it went |"
    )?;
    writeln!(text, "| retention | 256 MiB a partition in segments of 32 MiB, looked after every 10 s |")?;
    writeln!(
        text,
        "| compaction | of another topic of as many partitions, to which one of {LATEST_EVERY} of these records goes, with {LATEST_KEYS} keys |\n"
    )?;
    verdicts(&mut text, &soak.minutes)?;
    beside_kafka(&mut text, soak)?;
    by_minute(&mut text, &soak.minutes)?;
    println!("{text}");
    if write {
        std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/SOAK.md"), text)?;
    }
    Ok(())
}

/// How many of the first minutes are warm-up.
fn warm_up(minutes: &[Minute]) -> usize {
    (minutes.len() / WARM_UP_PART).max(1).min(minutes.len().saturating_sub(1))
}

fn verdicts(text: &mut String, minutes: &[Minute]) -> Outcome<()> {
    let warm_up = warm_up(minutes);
    let minutes = &minutes[warm_up..];
    if minutes.is_empty() {
        return Err("a soak of no whole minute says nothing: give BENCH_SOAK_MINUTES more".into());
    }
    let resident = Course::of(minutes, |one| one.resident_mib);
    let disk = Course::of(minutes, |one| one.disk_mib * f64::from(1 << 20) / LIVE_BYTES as f64);
    let stall = Course::of(minutes, |one| one.produce_ms[2]);
    let stall_ok = median(&mut over(minutes, |one| one.produce_ms[2])) <= STALL_MS_MAX;
    let resident_ok = resident.per_hour.is_some_and(|(slope, _)| slope <= RESIDENT_MIB_PER_HOUR_MAX);
    let rows = [
        ("resident MiB", resident, format!("≤ {RESIDENT_MIB_PER_HOUR_MAX} per hour"), resident_ok),
        no_growth("resident MiB, least", Course::of(minutes, |one| one.resident_range_mib[0])),
        no_growth("descriptors", Course::of(minutes, |one| one.descriptors)),
        no_growth("files", Course::of(minutes, |one| one.files)),
        no_growth("disk per live byte", disk),
        drifting("produce p99 ms", Course::of(minutes, |one| one.produce_ms[1])),
        ("produce p99.9 ms", stall, format!("≤ {STALL_MS_MAX} in the median minute"), stall_ok),
        drifting("end to end p99 ms", Course::of(minutes, |one| one.end_to_end_ms[1])),
    ];
    writeln!(text, "## After {warm_up} minutes of warm-up\n")?;
    writeln!(
        text,
        "Slope by least squares over the minutes, ± its standard error; thirds by their medians. No growth: by no more than {:.0} % an hour, or than twice that \
         error. Live are {:.0} MiB of values.\n",
        GROWTH_MAX * 100.0,
        LIVE_BYTES as f64 / f64::from(1 << 20)
    )?;
    writeln!(
        text,
        "| figure | per hour | first third | last third | drift | target | reached |\n|---|---|---|---|---|---|---|"
    )?;
    for (figure, course, target, reached) in rows {
        let per_hour =
            course.per_hour.map_or_else(|| "—".to_owned(), |(slope, error)| format!("{slope:+.2} ± {error:.2}"));
        let ([first, last], drift) = (course.thirds, course.drift() * 100.0);
        let reached = if reached { "yes" } else { "no" };
        writeln!(text, "| {figure} | {per_hour} | {first:.2} | {last:.2} | {drift:+.1} % | {target} | {reached} |")?;
    }
    writeln!(text)?;
    Ok(())
}

/// A figure of a minute, by its name.
type Figure = (&'static str, fn(&Minute) -> f64);

/// The same load on Kafka: it says what this machine allows.
fn beside_kafka(text: &mut String, Soak { minutes, kafka, .. }: &Soak) -> Outcome<()> {
    if kafka.is_empty() {
        return Ok(());
    }
    let (minutes, kafka) = (&minutes[warm_up(minutes)..], &kafka[warm_up(kafka)..]);
    writeln!(text, "## Apache Kafka under the same load, not synced\n")?;
    writeln!(
        text,
        "{} minutes after Millpond's, behind as large a part of warm-up. Medians of the minutes, and the most of one.\n\n\
         | figure | Millpond | most | Apache Kafka | most |\n|---|---|---|---|---|",
        kafka.len()
    )?;
    let figures: [Figure; 7] = [
        ("records/s", |one| one.records),
        ("resident MiB", |one| one.resident_mib),
        ("produce p50 ms", |one| one.produce_ms[0]),
        ("produce p99 ms", |one| one.produce_ms[1]),
        ("produce p99.9 ms", |one| one.produce_ms[2]),
        ("end to end p99 ms", |one| one.end_to_end_ms[1]),
        ("end to end p99.9 ms", |one| one.end_to_end_ms[2]),
    ];
    for (name, figure) in figures {
        let of = |minutes| (median(&mut over(minutes, figure)), most(&over(minutes, figure)));
        let ((ours, our_most), (theirs, their_most)) = (of(minutes), of(kafka));
        writeln!(text, "| {name} | {ours:.2} | {our_most:.2} | {theirs:.2} | {their_most:.2} |")?;
    }
    writeln!(text)?;
    Ok(())
}

/// Figure, course, target, and whether it is reached.
type Verdict = (&'static str, Course, String, bool);

/// What must not grow.
fn no_growth(figure: &'static str, course: Course) -> Verdict {
    let reached = !course.grows();
    (figure, course, "no growth".to_owned(), reached)
}

/// What may become a little more.
fn drifting(figure: &'static str, course: Course) -> Verdict {
    let reached = course.drift() <= DRIFT_MAX;
    (figure, course, format!("drift ≤ {:.0} %", DRIFT_MAX * 100.0), reached)
}

fn over(minutes: &[Minute], figure: impl Fn(&Minute) -> f64) -> Vec<f64> {
    minutes.iter().map(figure).collect()
}

fn most(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}

fn by_minute(text: &mut String, minutes: &[Minute]) -> Outcome<()> {
    writeln!(text, "## By the minute\n")?;
    writeln!(
        text,
        "Machine: how much longer than a millisecond a thread slept that does nothing else, as it waited for a core. Of the minutes' p99.9 \
         of produce, the median is {:.0} ms and the most {:.0}; {} of {} are within {STALL_MS_MAX:.0} ms. The machine's own: {:.0} and {:.0} ms.\n",
        median(&mut over(minutes, |one| one.produce_ms[2])),
        most(&over(minutes, |one| one.produce_ms[2])),
        minutes.iter().filter(|one| one.produce_ms[2] <= STALL_MS_MAX).count(),
        minutes.len(),
        median(&mut over(minutes, |one| one.hiccup_ms[2])),
        most(&over(minutes, |one| one.hiccup_ms[2])),
    )?;
    writeln!(
        text,
        "| minute | records/s | resident MiB | least | most | descriptors | files | disk MiB | produce p50 ms | p99 | p99.9 | \
         end to end p50 | p99 | p99.9 | machine p99 | p99.9 |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|"
    )?;
    for (at, one) in minutes.iter().enumerate().step_by(minutes.len().div_ceil(LINES_MAX).max(1)) {
        let Minute { records, descriptors, files, disk_mib, produce_ms, end_to_end_ms, hiccup_ms, .. } = one;
        let (resident, [least, most]) = (one.resident_mib, one.resident_range_mib);
        write!(text, "| {} | {records:.0} | {resident:.1} | {least:.1} | {most:.1} |", at + 1)?;
        write!(text, " {descriptors} | {files} | {disk_mib:.0} |")?;
        for quantile in produce_ms.iter().chain(end_to_end_ms).chain(&hiccup_ms[1..]) {
            write!(text, " {quantile:.2} |")?;
        }
        writeln!(text)?;
    }
    Ok(())
}
