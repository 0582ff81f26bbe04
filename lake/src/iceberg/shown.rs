//! The tables as they are asked for.

use std::sync::Arc;

use serde_json::Value;

use super::{Iceberg, Slot};
use crate::error::{LakeError, LakeErrorKind, Result};

/// A table as a catalog hands it out.
#[derive(Clone, Debug)]
pub struct IcebergTable {
    /// The URL of the metadata.
    pub metadata_location: String,
    /// The metadata, as Iceberg's table spec has it.
    pub metadata: Value,
}

/// How a table fares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IcebergStatus {
    /// Its name.
    pub table: String,
    /// The URL of its metadata; none before it is written.
    pub metadata_location: Option<String>,
    /// The current snapshot; none before there is one.
    pub snapshot_id: Option<i64>,
    /// When it was written, in ms since 1970.
    pub snapshot_ms: Option<i64>,
    /// Snapshots that can be read.
    pub snapshots: usize,
    /// What went wrong last, until it goes well again.
    pub error: Option<String>,
}

impl Iceberg {
    /// How each table fares.
    pub fn status(&self) -> Vec<IcebergStatus> {
        let status = |slot: &Arc<Slot>| {
            let state = slot.state.lock();
            let metadata = state.shown.as_ref().map(|(_, metadata)| metadata);
            let current = metadata.and_then(|metadata| metadata.current_snapshot());
            IcebergStatus {
                table: slot.of.name().to_owned(),
                metadata_location: state.shown.as_ref().map(|(url, _)| url.clone()),
                snapshot_id: current.map(|snapshot| snapshot.snapshot_id()),
                snapshot_ms: current.map(|snapshot| snapshot.timestamp_ms()),
                snapshots: state.snapshots,
                error: state.error.clone(),
            }
        };
        self.slots().iter().map(status).collect()
    }

    /// A table.
    ///
    /// # Errors
    /// `NotFound` for a name that no table has, `Destination` while it is not written.
    pub fn table(&self, name: &str) -> Result<IcebergTable> {
        let slots = self.slots();
        let Some(slot) = slots.iter().find(|slot| slot.of.name() == name) else {
            let known: Vec<&str> = slots.iter().map(|slot| slot.of.name()).collect();
            let message = format!("no table {name} in the lake; there are: {}", known.join(", "));
            return Err(LakeError::new(LakeErrorKind::NotFound, message));
        };
        let state = slot.state.lock();
        let Some((metadata_location, metadata)) = state.shown.clone() else {
            let why = state.error.clone().unwrap_or_else(|| "the server has just started".to_owned());
            return Err(LakeError::destination(format!("the table {name} is not written yet, try again: {why}")));
        };
        drop(state);
        let metadata =
            serde_json::to_value(&*metadata).map_err(|e| LakeError::bug(format!("Iceberg metadata: {e}")))?;
        Ok(IcebergTable { metadata_location, metadata })
    }
}
