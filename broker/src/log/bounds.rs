//! What `meta` says of where a log begins, and its leader epochs: see `keys` for the bytes.

use crate::error::Result;
use crate::log::keys;
use crate::store::{Family, Store};
use crate::types::{LeaderEpoch, LogId, Offset};

/// What is stored of a log beside its batches.
pub(crate) struct Bounds {
    /// Where it begins.
    pub(crate) start: Offset,
    /// Below it nothing is served, wherever it lies.
    pub(crate) floor: Offset,
    /// Its leader epochs and where they began, in the order of the epochs.
    pub(crate) epochs: Vec<(LeaderEpoch, Offset)>,
}

impl Bounds {
    /// Reads them. Blocks.
    ///
    /// # Errors
    /// `Storage` when the store cannot be read, or they are damaged.
    pub(crate) fn read(store: &Store, log: LogId) -> Result<Self> {
        let offset = |key: Vec<u8>| store.get(Family::Meta, &key)?.map_or(Ok(0), |value| keys::offset_of(&value));
        let (start, floor) = (offset(keys::log_start_key(log))?, offset(keys::floor_key(log))?);
        let (from, to) = keys::epoch_range(log);
        let mut epochs = Vec::new();
        for entry in store.scan(Family::Meta, &from, &to) {
            let (key, value) = entry?;
            epochs.push((keys::epoch_of(&key)?, keys::offset_of(&value)?));
        }
        Ok(Self { start, floor, epochs })
    }
}
