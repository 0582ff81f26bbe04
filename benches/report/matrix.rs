//! The tables of the matrix.

use std::fmt::Write;

use super::median;
use crate::Outcome;
use crate::brokers::Product;
use crate::produce_fetch::{Cell, Figures, Measured};
use crate::settings::Settings;

/// Adds the matrix's sections.
///
/// # Errors
/// None in practice.
pub fn describe(text: &mut String, figures: &[Figures], settings: &Settings) -> Outcome<()> {
    summary(text, figures)?;
    throughput(text, figures)?;
    latency(text, figures, settings)?;
    starts(text, figures)
}

/// Median over the rounds of one figure of one cell, if it was measured.
pub fn figure(figures: &[Figures], product: Product, cell: Cell, of: impl Fn(&Measured) -> f64) -> Option<f64> {
    let at = Cell::all().into_iter().position(|known| known == cell)?;
    let rounds = &figures.iter().find(|figures| figures.product == product)?.cells[at];
    if rounds.is_empty() { None } else { Some(over_rounds(rounds, of)) }
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
    writeln!(text, "## Millpond divided by Kafka, over the matrix\n")?;
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
