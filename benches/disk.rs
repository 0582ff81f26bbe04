//! The disk without a broker: one plain file, one `fdatasync` after each write.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::report::median;

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

/// Appends to a new file, block by block, a sync after each; one figure per entry of `BLOCKS`.
///
/// # Errors
/// What the file system says.
pub fn measure(folder: &Path) -> Outcome<Vec<Synced>> {
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
