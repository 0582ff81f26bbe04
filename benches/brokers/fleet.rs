//! One product with both promises.

use std::path::Path;

use super::{Place, Product, Running};
use crate::{Outcome, load};

/// The brokers that phases need with and without `fsync`: Millpond syncs by process, so it runs twice; Kafka syncs by topic.
pub struct Fleet {
    synced: Running,
    unsynced: Option<Running>,
}

impl Fleet {
    /// Starts them on empty folders and warms them up.
    ///
    /// # Errors
    /// One did not start.
    pub fn start(product: Product, scratch: &Path, name: &str) -> Outcome<Self> {
        let fleet = Self::beside(Place::new(product, scratch, name, true).start()?, scratch, name)?;
        fleet.running().try_for_each(|broker| load::warm_up(&broker.bootstrap))?;
        Ok(fleet)
    }

    /// The same, with a broker that syncs and runs already.
    ///
    /// # Errors
    /// The other one did not start.
    pub fn beside(synced: Running, scratch: &Path, name: &str) -> Outcome<Self> {
        let unsynced = match synced.product {
            Product::Millpond => Some(Place::new(synced.product, scratch, &format!("{name}-os"), false).start()?),
            Product::Kafka => None,
        };
        Ok(Self { synced, unsynced })
    }

    /// The one that keeps this promise.
    pub fn broker(&mut self, fsync: bool) -> &mut Running {
        match &mut self.unsynced {
            Some(unsynced) if !fsync => unsynced,
            _ => &mut self.synced,
        }
    }

    /// All of them.
    pub fn running(&self) -> impl Iterator<Item = &Running> {
        std::iter::once(&self.synced).chain(&self.unsynced)
    }
}
