//! The tables: to the terminal, and with `BENCH_WRITE=1` to `benches/RESULTS.md`.

use std::fmt::Write;
use std::path::Path;

use crate::brokers::Product;
use crate::disk::BLOCKS;
use crate::engine::Engine;
use crate::lake::Lake;
use crate::produce_fetch::{Brokers, Cell, Figures, Measured};
use crate::settings::Settings;
use crate::{Outcome, machine};

/// Where the part of the results begins that `benches/freelance.py` writes; it is kept.
const BY_HAND: &str = "\n# Freelance: ten million invoices\n";

/// Median; 0 of nothing.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        even if even % 2 == 0 => f64::midpoint(values[even / 2 - 1], values[even / 2]),
        odd => values[odd / 2],
    }
}

/// p50, p99 and p99.9 (nearest rank), in milliseconds, of nanoseconds.
pub fn quantiles(delays_ns: &mut [u64]) -> [f64; 3] {
    delays_ns.sort_unstable();
    [0.5, 0.99, 0.999].map(|share| {
        let rank = (share * delays_ns.len() as f64).ceil() as usize;
        delays_ns.get(rank.saturating_sub(1)).map_or(0.0, |ns| *ns as f64 / 1e6)
    })
}

/// Prints the run and writes it where that is asked for.
///
/// # Errors
/// The file cannot be written, or only a part was measured.
pub fn publish(
    settings: &Settings,
    brokers: &Brokers,
    (engine, lake): (Option<&Engine>, Option<&Lake>),
) -> Outcome<()> {
    let mut text = String::from("# Results\n\n");
    conditions(&mut text, settings, brokers)?;
    summary(&mut text, &brokers.figures)?;
    throughput(&mut text, &brokers.figures)?;
    latency(&mut text, &brokers.figures, settings)?;
    starts(&mut text, &brokers.figures)?;
    disk(&mut text, brokers)?;
    if let Some(engine) = engine {
        engine.describe(&mut text)?;
    }
    if let Some(lake) = lake {
        lake.describe(&mut text)?;
    }
    println!("{text}");
    if !settings.write {
        return Ok(());
    }
    if !settings.is_whole() {
        return Err("BENCH_ONLY is set: RESULTS.md holds whole runs only".into());
    }
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/RESULTS.md");
    let before = std::fs::read_to_string(&place).unwrap_or_default();
    let by_hand = before.find(BY_HAND).map_or("", |at| &before[at..]);
    std::fs::write(place, text + by_hand)?;
    Ok(())
}

fn conditions(text: &mut String, settings: &Settings, brokers: &Brokers) -> Outcome<()> {
    let Settings { rounds, warmup_rounds, mib_small, mib_large, .. } = settings;
    let now =
        chrono::DateTime::from_timestamp_millis(broker::Clock::system().now_ms()).ok_or("the clock is far off")?;
    let root = env!("CARGO_MANIFEST_DIR");
    let commit = machine::first_line("git", &["-C", root, "describe", "--always", "--dirty", "--exclude=*"]);
    writeln!(text, "Written by `BENCH_WRITE=1 make bench` (`benches/`); medians of {rounds} rounds.\n")?;
    writeln!(text, "| condition | |\n|---|---|")?;
    writeln!(text, "| date | {} UTC |", now.format("%Y-%m-%d %H:%M"))?;
    writeln!(text, "| commit | {commit} |")?;
    writeln!(text, "| machine | {} |", machine::hardware())?;
    writeln!(text, "| kernel | {} |", machine::first_line("uname", &["-sr"]))?;
    writeln!(text, "| Apache Kafka | 4.3.1, one KRaft node, {} |", machine::first_line("java", &["-version"]))?;
    writeln!(
        text,
        "| load | librdkafka {}, client, brokers and disk on this machine, over loopback |",
        client_version()
    )?;
    writeln!(
        text,
        "| cell | {mib_small} MiB of 100 B records or {mib_large} MiB of 1 KiB records, no key, no compression, \
         to partitions in turn; linger 5 ms; then read back from the beginning; the brokers take turns |"
    )?;
    writeln!(text, "| warm-up | {warmup_rounds} whole rounds of each broker |")?;
    writeln!(
        text,
        "| fsync on | Millpond `--durability fsync`, Kafka `flush.messages=1`: both answer acks=1 and acks=all after the sync |"
    )?;
    writeln!(text, "| fsync off | Millpond `--durability os`, Kafka's default |")?;
    writeln!(text, "| other processes | {:.1} % of all cores meanwhile |\n", brokers.others_share * 100.0)?;
    writeln!(
        text,
        "MiB and GiB are of record values. CPU is user and kernel time of the broker's process within the phase; what the \
         kernel writes back later is nobody's.\n"
    )?;
    Ok(())
}

fn client_version() -> String {
    rdkafka::util::get_rdkafka_version().1
}

/// Millpond in relation to Kafka, over the cells.
fn summary(text: &mut String, figures: &[Figures]) -> Outcome<()> {
    let find = |product| figures.iter().find(|figures| figures.product == product);
    let (Some(millpond), Some(kafka)) = (find(Product::Millpond), find(Product::Kafka)) else { return Ok(()) };
    type Figure = fn(&Measured) -> f64;
    let columns: [(&str, Figure); 7] = [
        ("produce MiB/s", |one| one.produce.mib),
        ("produce CPU s/GiB", |one| one.produce.cpu_per_gib),
        ("fetch MiB/s", |one| one.fetch.mib),
        ("fetch CPU s/GiB", |one| one.fetch.cpu_per_gib),
        ("produce p50", |one| one.delay_ms[0]),
        ("produce p99", |one| one.delay_ms[1]),
        ("round trip p50", |one| one.trip_ms[0]),
    ];
    writeln!(text, "## Millpond divided by Kafka\n")?;
    writeln!(text, "Over the {} cells: the least, the geometric mean, the most.\n", Cell::all().len())?;
    writeln!(text, "| | least | mean | most |\n|---|---|---|---|")?;
    for (name, column) in columns {
        let mut ratios = Vec::new();
        for (ours, theirs) in millpond.cells.iter().zip(&kafka.cells) {
            let ratio = over_rounds(ours, column) / over_rounds(theirs, column);
            ratios.extend(Some(ratio).filter(|ratio| ratio.is_finite() && *ratio > 0.0));
        }
        ratios.sort_by(f64::total_cmp);
        let mean = (ratios.iter().map(|ratio| ratio.ln()).sum::<f64>() / ratios.len() as f64).exp();
        let (least, most) = (ratios.first().unwrap_or(&0.0), ratios.last().unwrap_or(&0.0));
        writeln!(text, "| {name} | {least:.2} | {mean:.2} | {most:.2} |")?;
    }
    writeln!(text)?;
    Ok(())
}

fn over_rounds(rounds: &[Measured], column: impl Fn(&Measured) -> f64) -> f64 {
    median(&mut rounds.iter().map(column).collect::<Vec<_>>())
}

/// Calls `row` for each cell and broker with the columns that both tables begin with.
fn rows(figures: &[Figures], mut row: impl FnMut(String, &[Measured]) -> Outcome<()>) -> Outcome<()> {
    for (at, cell) in Cell::all().into_iter().enumerate() {
        for broker in figures {
            let size = if cell.record_bytes < 1024 { "100 B" } else { "1 KiB" };
            let fsync = if cell.fsync { "on" } else { "off" };
            let name = broker.product.name();
            row(format!("| {fsync} | {size} | {} | {} | {name} |", cell.partitions, cell.acks), &broker.cells[at])?;
        }
    }
    Ok(())
}

fn throughput(text: &mut String, figures: &[Figures]) -> Outcome<()> {
    writeln!(text, "## Throughput and CPU\n")?;
    writeln!(
        text,
        "| fsync | record | partitions | acks | broker | produce records/s | MiB/s (least–most) | CPU s/GiB | \
         fetch records/s | MiB/s (least–most) | CPU s/GiB |\n|---|---|---|---|---|---|---|---|---|---|---|"
    )?;
    rows(figures, |start, rounds| {
        write!(text, "{start}")?;
        for phase in [|one: &Measured| one.produce, |one: &Measured| one.fetch] {
            let (records, mib) =
                (over_rounds(rounds, |one| phase(one).records), over_rounds(rounds, |one| phase(one).mib));
            let least = rounds.iter().map(|one| phase(one).mib).fold(f64::INFINITY, f64::min);
            let most = rounds.iter().map(|one| phase(one).mib).fold(0.0, f64::max);
            let cpu = over_rounds(rounds, |one| phase(one).cpu_per_gib);
            write!(text, " {records:.0} | {mib:.0} ({least:.0}–{most:.0}) | {cpu:.2} |")?;
        }
        Ok(writeln!(text)?)
    })?;
    writeln!(text)?;
    Ok(())
}

fn latency(text: &mut String, figures: &[Figures], settings: &Settings) -> Outcome<()> {
    let Settings { latency_rate, latency_ms, trips, .. } = settings;
    writeln!(text, "## Latency, ms\n")?;
    writeln!(
        text,
        "Produce: {latency_rate} records/s for {latency_ms} ms, linger 0, from the moment a record is due to its delivery \
         report. Round trip: one record, sent to received by a waiting consumer, {trips} times one after another. \
         With so few, p99.9 is close to the worst.\n"
    )?;
    writeln!(
        text,
        "| fsync | record | partitions | acks | broker | produce p50 | p99 | p99.9 | round trip p50 | p99 | p99.9 |\n\
         |---|---|---|---|---|---|---|---|---|---|---|"
    )?;
    rows(figures, |start, rounds| {
        write!(text, "{start}")?;
        for delays in [|one: &Measured| one.delay_ms, |one: &Measured| one.trip_ms] {
            for at in 0..3 {
                write!(text, " {:.2} |", over_rounds(rounds, |one| delays(one)[at]))?;
            }
        }
        Ok(writeln!(text)?)
    })?;
    writeln!(text)?;
    Ok(())
}

fn starts(text: &mut String, figures: &[Figures]) -> Outcome<()> {
    writeln!(text, "## Start-up and memory\n")?;
    writeln!(
        text,
        "Start-up: start of the process, on an empty (for Kafka: formatted) directory, to the first acknowledged record. Idle: \
         two seconds later. Under load: median after the cells of the run, and the most a process ever had.\n"
    )?;
    writeln!(text, "| broker | start-up s | idle MiB | under load MiB | most MiB |\n|---|---|---|---|---|")?;
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    for broker in figures {
        let start = median(&mut broker.start_seconds.clone());
        let idle = median(&mut broker.idle_bytes.iter().map(|bytes| mib(*bytes)).collect::<Vec<_>>());
        let loaded = median(&mut broker.cells.iter().flatten().map(|one| mib(one.resident_bytes)).collect::<Vec<_>>());
        let (name, most) = (broker.product.name(), mib(broker.peak_bytes));
        writeln!(text, "| {name} | {start:.2} | {idle:.0} | {loaded:.0} | {most:.0} |")?;
    }
    writeln!(text)?;
    Ok(())
}

fn disk(text: &mut String, brokers: &Brokers) -> Outcome<()> {
    if brokers.disk.is_empty() {
        return Ok(());
    }
    writeln!(text, "## The disk\n\nOne plain file, `fdatasync` after each write.\n")?;
    writeln!(text, "| write | MiB/s | write and sync, median ms |\n|---|---|---|")?;
    for (at, block) in BLOCKS.iter().enumerate() {
        let mib = median(&mut brokers.disk.iter().map(|round| round[at].mib_per_second).collect::<Vec<_>>());
        let each = median(&mut brokers.disk.iter().map(|round| round[at].write_ms).collect::<Vec<_>>());
        writeln!(text, "| {} KiB | {mib:.0} | {each:.2} |", block >> 10)?;
    }
    writeln!(text)?;
    Ok(())
}
