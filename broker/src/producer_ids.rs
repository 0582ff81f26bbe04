//! Ids of idempotent producers. They are handed out of blocks, and a block is recorded before its first id leaves, so no
//! id is given twice, whatever happens; ids of a block that was not used up are skipped.
//!
//! ```text
//! meta  "next-producer-id"  → i64 BE, the first id of the next block
//! ```

use std::ops::Range;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::lane::{Ack, Change, Lane};
use crate::store::{Family, Store};
use crate::types::ProducerId;

const NEXT_KEY: &[u8] = b"next-producer-id";
/// As many as Kafka's brokers take at a time.
const BLOCK: i64 = 1000;

/// Hands out ids. Holds: the rest of the present block and where the next one begins. A crash skips the rest.
pub(crate) struct ProducerIds {
    lane: Arc<Lane>,
    /// What is left of the block; the next block begins at its end.
    left: tokio::sync::Mutex<Range<ProducerId>>,
}

impl ProducerIds {
    /// Reads where the next block begins. Blocks.
    ///
    /// # Errors
    /// `Storage` when it is damaged.
    pub(crate) fn recover(store: &Store, lane: Arc<Lane>) -> Result<Self> {
        let next = match store.get(Family::Meta, NEXT_KEY)? {
            None => 0,
            Some(stored) => {
                let next = stored.try_into().map(ProducerId::from_be_bytes);
                next.map_err(|_| Error::storage("the stored next producer id is damaged, restore a backup"))?
            }
        };
        Ok(Self { lane, left: tokio::sync::Mutex::new(next..next) })
    }

    /// An id that nobody has.
    ///
    /// # Errors
    /// `Storage` when a new block cannot be recorded.
    pub(crate) async fn next(&self) -> Result<ProducerId> {
        let mut left = self.left.lock().await;
        if left.is_empty() {
            let block = left.end..left.end + BLOCK;
            let change = Change::Put(Family::Meta, NEXT_KEY.to_vec(), block.end.to_be_bytes().to_vec());
            self.lane.commit(vec![change], Ack::Durable).await?;
            *left = block;
        }
        let id = left.start;
        left.start += 1;
        Ok(id)
    }
}
