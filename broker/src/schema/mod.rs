//! The schema registry's memory: schemas by id, subjects and their versions, compatibility levels and modes.
//!
//! Rules (`rules`) look at the state and give records; a record is written through the commit lane and then applied
//! (`state`), live and in recovery alike (`records` draws the stored bytes). What a schema means is decided elsewhere: here
//! it is text, and two texts are one schema when their canonical forms (`canonical`) are equal.

mod canonical;
mod records;
mod rules;
mod state;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use parking_lot::RwLock;

pub use records::SchemaRecord;
pub use rules::{Deletion, NewSchema, Registration, SchemaFault};
pub use state::{
    Compatibility, Reference, RegistryMode, Schema, SchemaId, SchemaState, SchemaType, SchemaVersion, Settings,
};

use crate::completion::to_the_end;
use crate::error::Result;
use crate::lane::{Ack, Lane};
use crate::store::Store;

/// Most schemas that are kept.
pub const SCHEMAS_MAX: usize = 100_000;
/// Most versions of all subjects together, and most subjects with settings of their own.
pub const VERSIONS_MAX: usize = 300_000;
/// Longest schema text, in bytes.
pub const SCHEMA_BYTES_MAX: usize = 1 << 20;
/// Longest subject, in bytes.
pub const SUBJECT_BYTES_MAX: usize = 1024;

/// The registry. Holds: all schemas in memory, as the store has them. Changes are decided one at a time under
/// `changing`, and are seen once they are durable. Who looks, looks at the state of one moment and holds no lock, for
/// schemas take their time to be parsed and compared. A crash keeps every change that was answered.
pub struct Schemas {
    lane: Arc<Lane>,
    changing: Arc<tokio::sync::Mutex<()>>,
    state: Arc<RwLock<Arc<SchemaState>>>,
}

impl Schemas {
    /// Reads what is stored. Blocks.
    ///
    /// # Errors
    /// `Storage` when it is damaged.
    pub(crate) fn recover(store: &Store, lane: Arc<Lane>) -> Result<Self> {
        let state = Arc::new(read(store)?);
        Ok(Self { lane, changing: Arc::default(), state: Arc::new(RwLock::new(state)) })
    }

    /// Looks at the state as it is now.
    pub fn read<T>(&self, look: impl FnOnce(&SchemaState) -> T) -> T {
        look(&self.now())
    }

    fn now(&self) -> Arc<SchemaState> {
        self.state.read().clone()
    }

    /// The schema of an id, also when every version with it was deleted: records written with it must stay readable.
    pub fn schema(&self, id: SchemaId) -> Option<Arc<Schema>> {
        self.state.read().schema(id).cloned()
    }

    /// The texts that a schema refers to, directly and through others, deepest first, each once, with the name it is
    /// referred to by.
    pub fn referred(&self, references: &[Reference]) -> Vec<(String, Arc<Schema>)> {
        self.state.read().referred(references)
    }

    /// Decides a change and makes it; nothing else changes meanwhile, and it is durable when this returns. No records
    /// is no change.
    ///
    /// # Errors
    /// What `decide` refuses; `Storage` when the change cannot be written.
    pub async fn change<T, E>(
        &self,
        decide: impl FnOnce(&SchemaState) -> std::result::Result<(Vec<SchemaRecord>, T), E>,
    ) -> std::result::Result<T, E>
    where
        T: Send + 'static,
        E: From<crate::Error>,
    {
        let changing = self.changing.clone().lock_owned().await;
        let (records, answer) = decide(&self.now())?;
        if records.is_empty() {
            return Ok(answer);
        }
        let changes = records.iter().map(SchemaRecord::change).collect::<Result<Vec<_>>>()?;
        let (commit, state) = (self.lane.commit(changes, Ack::Durable), self.state.clone());
        to_the_end("schemas", async move {
            commit.await?;
            let mut state = state.write();
            // a copy only where somebody still looks at it as it was
            let next = Arc::make_mut(&mut state);
            records.iter().for_each(|record| next.apply(record));
            drop(changing);
            Ok(())
        })
        .await?;
        Ok(answer)
    }
}

/// What is stored.
///
/// # Errors
/// `Storage` when it is damaged.
pub(crate) fn read(store: &Store) -> Result<SchemaState> {
    let mut state = SchemaState::default();
    for record in records::stored(store) {
        state.apply(&record?);
    }
    Ok(state)
}
