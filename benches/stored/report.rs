//! The part's section of the results.

use std::fmt::Write;

use super::{MIB_BEFORE_END, Measured, PARTITIONS, Size, Started, Stored};
use crate::Outcome;

/// How a process ended, and the start after that.
type End = (&'static str, fn(&Measured) -> Started);

impl Stored {
    /// Adds its section.
    ///
    /// # Errors
    /// None in practice.
    pub fn describe(&self, text: &mut String) -> Outcome<()> {
        writeln!(text, "## With much stored\n")?;
        writeln!(
            text,
            "1 KiB records over {PARTITIONS} partitions, acks all, fsync on. A store is filled, and grows by what each round produces. \
             Cold: everything is read by a process that has just started, when the system has forgotten the store's files; warm: once \
             more. Read per byte of values meanwhile: from the device, and by all calls of the broker. Written per byte and on disk per \
             byte: of the filling, as under amplification.\n"
        )?;
        writeln!(
            text,
            "| GiB | broker | produce MiB/s | CPU s/GiB | fetch cold MiB/s | CPU s/GiB | from the device per byte | read per byte | fetch \
             warm MiB/s | CPU s/GiB | written per byte | on disk per byte |\n|---|---|---|---|---|---|---|---|---|---|---|---|"
        )?;
        self.sizes.iter().try_for_each(|size| size.rates(text))?;
        writeln!(
            text,
            "\nStarts, {MIB_BEFORE_END} MiB after the last one: start of the process to the first acknowledged record; the page cache is \
             warm. Resident: two seconds later.\n"
        )?;
        writeln!(text, "| GiB | after | broker | start s | resident MiB |\n|---|---|---|---|---|")?;
        self.sizes.iter().try_for_each(|size| size.starts(text))?;
        writeln!(text)?;
        Ok(())
    }
}

impl Size {
    fn rates(&self, text: &mut String) -> Outcome<()> {
        for (broker, filled) in self.rounds.iter().zip(&self.filled) {
            let of = |figure: fn(&Measured) -> f64| broker.median(figure);
            write!(text, "| {} | {} ", self.gib, broker.product.name())?;
            write!(text, "| {:.0} | {:.2} ", of(|one| one.produce.mib), of(|one| one.produce.cpu_per_gib))?;
            write!(text, "| {:.0} | {:.2} ", of(|one| one.cold.mib), of(|one| one.cold.cpu_per_gib))?;
            write!(text, "| {:.2} | {:.2} ", of(|one| one.device_bytes), of(|one| one.read_bytes))?;
            write!(text, "| {:.0} | {:.2} ", of(|one| one.warm.mib), of(|one| one.warm.cpu_per_gib))?;
            writeln!(text, "| {:.2} | {:.2} |", filled.written, filled.kept)?;
        }
        Ok(())
    }

    fn starts(&self, text: &mut String) -> Outcome<()> {
        let ends: [End; 2] = [("a stop in order", |round| round.stopped), ("`kill -9`", |round| round.killed)];
        for (end, of) in ends {
            for broker in &self.rounds {
                let seconds = broker.median(|round| of(round).seconds);
                let mib = broker.median(|round| of(round).resident_bytes as f64) / f64::from(1 << 20);
                writeln!(text, "| {} | {end} | {} | {seconds:.2} | {mib:.0} |", self.gib, broker.product.name())?;
            }
        }
        Ok(())
    }
}
