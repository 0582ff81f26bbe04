//! What a start mends of a store that a power cut left, while no other process has it.

use std::path::Path;

use super::read_only::{self, Families, Lock};
use crate::error::Result;

/// Cuts off what lies behind a hole of the log, if a power cut left one.
pub(super) fn cut_hole(data_dir: &Path) -> Result<()> {
    let dir = data_dir.join("store");
    // another process's: opening it says so
    let Ok(_alone) = read_only::lock(&dir, data_dir, Lock::Alone) else { return Ok(()) };
    let Some(torn) = read_only::find_hole(data_dir)? else { return Ok(()) };
    tracing::warn!(
        ?torn,
        "a power cut left a hole in the log: what lies behind it, which no sync had reached, is cut off"
    );
    torn.cut()
}

/// Cuts off what a power cut left behind the end of the log, if that is why RocksDB refused the store.
pub(super) fn cut_torn(data_dir: &Path, families: Families<'_>) -> Result<bool> {
    let dir = data_dir.join("store");
    let Ok(_alone) = read_only::lock(&dir, data_dir, Lock::Alone) else { return Ok(false) };
    let Some((_, torn)) = read_only::open_without_torn(&dir, families, data_dir) else { return Ok(false) };
    tracing::warn!(?torn, "the power went as a file of the log was done with: what that was before is cut off");
    torn.cut()?;
    Ok(true)
}
