//! How far a partition is clean, in memory and in the store.
//!
//! ```text
//! 0 1 version, 1   1 8 first offset that no pass has finished with   9 8 end of the running pass, 0 when none runs
//!                 17 8 end of all that a pass may have changed
//! ```
//! A pass that was cut short left batches smaller and the index's running bytes as they were: `pass_end` says so, and the
//! figures below it are put right before anything relies on them.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use crate::error::Result;
use crate::log::keys;
use crate::store::{Family, Store};
use crate::types::{LogId, Offset};

const VERSION: u8 = 1;
const STORED_BYTES: usize = 25;

/// What is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CleanState {
    /// Everything below was compacted against everything below.
    pub(crate) clean_to: Offset,
    /// End of the pass that is under way or was cut short; 0 when there is none.
    pub(crate) pass_end: Offset,
    /// Below it records may be missing.
    pub(crate) touched_to: Offset,
}

impl CleanState {
    /// The stored form.
    pub(crate) fn encode(self) -> [u8; STORED_BYTES] {
        let mut out = [VERSION; STORED_BYTES];
        out[1..9].copy_from_slice(&self.clean_to.to_be_bytes());
        out[9..17].copy_from_slice(&self.pass_end.to_be_bytes());
        out[17..25].copy_from_slice(&self.touched_to.to_be_bytes());
        out
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// `Storage` when it is not one.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let wrong = || keys::damaged("compaction state", bytes);
        let bytes: &[u8; STORED_BYTES] = bytes.try_into().map_err(|_| wrong())?;
        if bytes[0] != VERSION {
            return Err(wrong());
        }
        let part = |at: usize| *bytes[at..].first_chunk::<8>().expect("the fields add up to the stored size");
        let [clean_to, pass_end, touched_to] = [1, 9, 17].map(|at| i64::from_be_bytes(part(at)));
        Ok(Self { clean_to, pass_end, touched_to })
    }
}

/// A partition's state for everybody to read. The commit lane alone changes it, when it publishes a commit of compaction.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    clean_to: AtomicI64,
    pass_end: AtomicI64,
    touched_to: AtomicI64,
    unreclaimed: AtomicU64,
}

impl Progress {
    /// As it was stored.
    pub(crate) fn recover(store: &Store, id: LogId) -> Result<Self> {
        let progress = Self::default();
        if let Some(stored) = store.get(Family::Meta, &keys::compaction_key(id))? {
            progress.publish(CleanState::decode(&stored)?);
        }
        Ok(progress)
    }

    /// The state now.
    pub(crate) fn state(&self) -> CleanState {
        let [clean_to, pass_end, touched_to] =
            [&self.clean_to, &self.pass_end, &self.touched_to].map(|figure| figure.load(Ordering::Acquire));
        CleanState { clean_to, pass_end, touched_to }
    }

    /// Counts bytes that passes removed; true once they are `most`, and then it counts anew.
    pub(crate) fn replaced(&self, bytes: u64, most: u64) -> bool {
        let all = self.unreclaimed.fetch_add(bytes, Ordering::AcqRel) + bytes;
        if all >= most {
            self.unreclaimed.store(0, Ordering::Release);
        }
        all >= most
    }

    pub(crate) fn publish(&self, state: CleanState) {
        self.touched_to.store(state.touched_to, Ordering::Release);
        self.pass_end.store(state.pass_end, Ordering::Release);
        self.clean_to.store(state.clean_to, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_bytes_are_as_drawn() {
        let state = CleanState { clean_to: 258, pass_end: 3, touched_to: 4 };
        let hex: String = state.encode().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, "01000000000000010200000000000000030000000000000004");
        assert_eq!(CleanState::decode(&state.encode()).unwrap(), state);
        assert!(CleanState::decode(&[0; 25]).is_err());
        assert!(CleanState::decode(&[1; 24]).is_err());
    }
}
