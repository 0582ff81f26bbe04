//! Features and their levels (KIP-584): what this broker can do, and what it was told to do. Clients take part in transactions
//! of version 2 and in newer protocols only when the level is finalized.
//!
//! ```text
//! meta  "feature" ++ name   → i16 BE, the level that was finalized; absent: the default
//! meta  "feature"           → i64 BE, how often levels were changed; absent: never. Clients ignore what has an older count
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::{Error, Kind, Result};
use crate::lane::{Ack, Change, Lane};
use crate::store::{Family, Store};

const PREFIX: &[u8] = b"feature";
const PREFIX_END: &[u8] = b"featurf";

/// One feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Feature {
    /// Kafka's name.
    pub(crate) name: &'static str,
    /// Lowest level that can be finalized; 0 is off.
    pub(crate) min: i16,
    /// Highest level that can be finalized.
    pub(crate) max: i16,
    /// Level unless another was finalized.
    default: i16,
}

const TRANSACTION: &str = "transaction.version";

/// What there is. Level 25 of `metadata.version` is "4.0-IV3"; kafka-ui's table ends at 26.
pub(crate) const FEATURES: [Feature; 3] = [
    Feature { name: "metadata.version", min: 7, max: 25, default: 25 },
    Feature { name: "group.version", min: 0, max: 1, default: 1 },
    Feature { name: TRANSACTION, min: 0, max: 2, default: 2 },
];

/// The finalized levels. Holds: those that differ from the defaults, and how often any was changed. Changes become visible
/// when they are durable. A crash keeps the levels.
pub(crate) struct Features {
    lane: Arc<Lane>,
    levels: Arc<Mutex<Levels>>,
}

#[derive(Debug, Default)]
struct Levels {
    set: BTreeMap<&'static str, i16>,
    changes: i64,
}

impl Features {
    /// Reads what is stored. Blocks.
    ///
    /// # Errors
    /// `Storage` when it is damaged.
    pub(crate) fn recover(store: &Store, lane: Arc<Lane>) -> Result<Self> {
        let mut levels = Levels::default();
        for entry in store.scan(Family::Meta, PREFIX, PREFIX_END) {
            let (key, value) = entry?;
            if let (PREFIX, Ok(changes)) = (&*key, value.as_ref().try_into()) {
                levels.changes = i64::from_be_bytes(changes);
                continue;
            }
            let known = FEATURES.iter().find(|feature| key[PREFIX.len()..] == *feature.name.as_bytes());
            let level = value.as_ref().try_into().map(i16::from_be_bytes);
            let (Some(feature), Ok(level)) = (known, level) else {
                return Err(Error::storage(
                    "a stored feature level is damaged or of a newer millpond, restore a backup",
                ));
            };
            levels.set.insert(feature.name, level);
        }
        Ok(Self { lane, levels: Arc::new(Mutex::new(levels)) })
    }

    /// What is finalized, features that are off left out, and the epoch that says how often it changed.
    pub(crate) fn finalized(&self) -> (i64, Vec<(&'static str, i16)>) {
        let levels = self.levels.lock();
        let all = FEATURES.iter().map(|feature| (feature.name, levels.of(feature)));
        (1 + levels.changes, all.filter(|(_, level)| *level > 0).collect())
    }

    /// Finds a feature and checks that it may get this level; `may_lower` allows a lower one than it has.
    ///
    /// # Errors
    /// `InvalidUpdateVersion`, with the reason.
    pub(crate) fn check(&self, name: &str, level: i16, may_lower: bool) -> Result<&'static Feature> {
        let refused = |message: String| Error::new(Kind::InvalidUpdateVersion, message);
        let feature = FEATURES.iter().find(|feature| feature.name == name);
        let feature = feature.ok_or_else(|| refused(format!("this broker does not have the feature {name}")))?;
        let (min, max) = (feature.min, feature.max);
        if !(min..=max).contains(&level) {
            return Err(refused(format!("level {level} of {name} is outside {min} to {max}")));
        }
        let current = self.levels.lock().of(feature);
        if level < current && !may_lower {
            return Err(refused(format!("{name} has level {current}; lowering it must be asked for as a downgrade")));
        }
        Ok(feature)
    }

    /// Finalizes levels; visible when the future is done.
    ///
    /// # Errors
    /// `Storage`.
    pub(crate) fn set(&self, new: Vec<(&'static Feature, i16)>) -> impl Future<Output = Result<()>> + Send + 'static {
        let put = |(feature, level): &(&'static Feature, i16)| {
            Change::Put(Family::Meta, [PREFIX, feature.name.as_bytes()].concat(), level.to_be_bytes().to_vec())
        };
        let levels = self.levels.clone();
        let mut held = levels.lock();
        held.changes += 1;
        let count = Change::Put(Family::Meta, PREFIX.to_vec(), held.changes.to_be_bytes().to_vec());
        let stored = self.lane.commit(new.iter().map(put).chain([count]).collect(), Ack::Durable);
        drop(held);
        async move {
            stored.await?;
            let mut levels = levels.lock();
            levels.set.extend(new.iter().map(|(feature, level)| (feature.name, *level)));
            Ok(())
        }
    }
}

impl Levels {
    fn of(&self, feature: &Feature) -> i16 {
        self.set.get(feature.name).copied().unwrap_or(feature.default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Broker, BrokerConfig, Clock};

    #[tokio::test(flavor = "multi_thread")]
    async fn levels_stay_over_a_restart_and_their_count_only_grows() {
        let dir = tempfile::tempdir().unwrap();
        let config = BrokerConfig { data_dir: dir.path().to_path_buf(), ..BrokerConfig::default() };
        {
            let broker = Broker::open(config.clone(), Clock::manual(0)).await.unwrap();
            let features = broker.features();
            assert_eq!(
                features.finalized(),
                (1, vec![("metadata.version", 25), ("group.version", 1), (TRANSACTION, 2)])
            );
            for (name, level, may_lower) in [("nothing", 1, true), (TRANSACTION, 3, true), (TRANSACTION, 1, false)] {
                assert_eq!(features.check(name, level, may_lower).unwrap_err().kind, Kind::InvalidUpdateVersion);
            }
            let off = features.check(TRANSACTION, 0, true).unwrap();
            features.set(vec![(off, 0)]).await.unwrap();
            broker.stop().await.unwrap();
        }
        let broker = Broker::open(config, Clock::manual(0)).await.unwrap();
        assert_eq!(broker.features().finalized(), (2, vec![("metadata.version", 25), ("group.version", 1)]));
    }
}
