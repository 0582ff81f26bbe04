//! The disk without a broker: one plain file, one `fdatasync` after each write.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::report::median;
use crate::settings::Settings;
use crate::{Outcome, machine};

/// Most time and bytes of one block size.
const TIME_MAX: Duration = Duration::from_secs(1);
const BYTES_MAX: usize = 512 << 20;
/// What one synced write holds.
pub const BLOCKS: [usize; 3] = [4 << 10, 64 << 10, 1 << 20];

/// What one block size gave.
#[derive(Clone, Copy, Debug)]
pub struct Synced {
    /// MiB written and synced per second.
    pub mib_per_second: f64,
    /// Median of one write and its sync, in milliseconds.
    pub write_ms: f64,
}

/// What the part gave: per round one figure per entry of `BLOCKS`.
#[derive(Debug)]
pub struct Disk {
    rounds: Vec<Vec<Synced>>,
}

/// Runs the part.
///
/// # Errors
/// What the file system says.
pub fn run(settings: &Settings, scratch: &Path) -> Outcome<Disk> {
    let round = |_| {
        machine::settle()?;
        measure(scratch)
    };
    Ok(Disk { rounds: (0..settings.rounds).map(round).collect::<Outcome<_>>()? })
}

impl Disk {
    /// Median over the rounds of one figure of one block size, if it was measured.
    pub fn figure(&self, block: usize, of: impl Fn(&Synced) -> f64) -> Option<f64> {
        let at = BLOCKS.iter().position(|known| *known == block)?;
        Some(median(&mut self.rounds.iter().map(|round| of(&round[at])).collect::<Vec<_>>()))
    }

    /// Adds its section.
    ///
    /// # Errors
    /// None in practice.
    pub fn describe(&self, text: &mut String) -> Outcome<()> {
        writeln!(text, "## The disk\n\nOne plain file, `fdatasync` after each write.\n")?;
        writeln!(text, "| write | MiB/s | write and sync, median ms |\n|---|---|---|")?;
        for block in BLOCKS {
            let figure = |of: fn(&Synced) -> f64| self.figure(block, of).unwrap_or_default();
            let (mib, each) = (figure(|one| one.mib_per_second), figure(|one| one.write_ms));
            writeln!(text, "| {} KiB | {mib:.0} | {each:.2} |", block >> 10)?;
        }
        writeln!(text)?;
        Ok(())
    }
}

/// Appends to a new file, block by block, a sync after each; one figure per entry of `BLOCKS`.
fn measure(folder: &Path) -> Outcome<Vec<Synced>> {
    let mut figures = Vec::new();
    for block in BLOCKS {
        let path = folder.join("plain-file");
        let mut file = File::create(&path)?;
        let bytes = vec![0x5a_u8; block];
        let mut each = Vec::new();
        let started = Instant::now();
        let mut written = 0;
        while started.elapsed() < TIME_MAX && written < BYTES_MAX {
            let before = Instant::now();
            file.write_all(&bytes)?;
            file.sync_data()?;
            each.push(before.elapsed().as_secs_f64() * 1e3);
            written += block;
        }
        let mib_per_second = written as f64 / f64::from(1 << 20) / started.elapsed().as_secs_f64();
        figures.push(Synced { mib_per_second, write_ms: median(&mut each) });
        std::fs::remove_file(&path)?;
    }
    Ok(figures)
}
