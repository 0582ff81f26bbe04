//! Topics: created, deleted, grown and configured one at a time, read by everybody from a snapshot.

mod names;
mod stored;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use crate::batch::Batch;
use crate::claims::{Claim, Claims};
use crate::cold::Cold;
use crate::completion::to_the_end;
use crate::error::{Error, Kind, Result};
use crate::lane::{Ack, Change, Lane};
use crate::log::{Deleted, Partition, blocking};
use crate::settings::BrokerSettings;
use crate::store::{Family, Store};
use crate::topic_config::{TopicConfig, TopicDefaults};
use crate::types::{LogId, Offset, PartitionIndex, TopicId, TopicName};

pub use names::check_name;
use names::flat;
pub(crate) use stored::{NEXT_LOG_ID_KEY, TOPIC_PREFIX, TOPIC_PREFIX_END, decode_next_log_id, decode_topic};
use stored::{StoredTopic, next_log_id_change, topic_key};

/// One topic. Holds: identity, settings, partitions. The catalog alone changes it, by commits. A crash keeps it.
pub struct Topic {
    name: TopicName,
    id: TopicId,
    config: RwLock<Arc<TopicConfig>>,
    partitions: RwLock<Arc<[Arc<Partition>]>>,
}

/// What a new topic shall be.
#[derive(Clone, Debug, Default)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// Number of partitions, at least 1.
    pub partitions: i32,
    /// Settings that differ from the defaults.
    pub config: BTreeMap<String, String>,
}

impl Topic {
    /// Its name.
    pub fn name(&self) -> &TopicName {
        &self.name
    }

    /// Its identity.
    pub fn id(&self) -> TopicId {
        self.id
    }

    /// Its settings.
    pub fn config(&self) -> Arc<TopicConfig> {
        self.config.read().clone()
    }

    /// Its partitions by number.
    pub fn partitions(&self) -> Arc<[Arc<Partition>]> {
        self.partitions.read().clone()
    }

    /// One partition.
    pub fn partition(&self, index: PartitionIndex) -> Option<Arc<Partition>> {
        self.partitions.read().get(usize::try_from(index).ok()?).cloned()
    }

    /// Whether it belongs to Kafka's own bookkeeping.
    pub fn is_internal(&self) -> bool {
        matches!(&*self.name, "__consumer_offsets" | "__transaction_state")
    }

    fn record(&self, config: &BTreeMap<String, String>, logs: Vec<u32>) -> Result<Change> {
        stored::topic_change((&self.name, self.id), config, logs)
    }

    fn logs(&self) -> Vec<u32> {
        self.partitions.read().iter().map(|partition| partition.id().0).collect()
    }
}

/// All topics. Holds: them by name, by flat name and by id. Changes are made one at a time under `changing` and become visible when
/// they are durable. A crash keeps them.
pub struct Catalog {
    store: Arc<Store>,
    lane: Arc<Lane>,
    settings: Arc<BrokerSettings>,
    partitions_max: usize,
    cold: Cold,
    claims: Claims,
    changing: Arc<tokio::sync::Mutex<u32>>,
    giving_back: Arc<tokio::sync::Mutex<()>>,
    topics: Arc<RwLock<Snapshot>>,
    changes: Arc<AtomicU64>,
}

#[derive(Default)]
struct Snapshot {
    by_name: BTreeMap<TopicName, Arc<Topic>>,
    by_id: BTreeMap<TopicId, Arc<Topic>>,
    /// Names by what Kafka's metrics make of them ([`flat`]); no two topics have the same.
    by_flat: BTreeMap<String, TopicName>,
}

impl Snapshot {
    fn insert(&mut self, topic: &Arc<Topic>) {
        self.by_name.insert(topic.name.clone(), topic.clone());
        self.by_id.insert(topic.id, topic.clone());
        self.by_flat.insert(flat(&topic.name), topic.name.clone());
    }

    fn remove(&mut self, topic: &Topic) {
        self.by_name.remove(&topic.name);
        self.by_id.remove(&topic.id);
        self.by_flat.remove(&flat(&topic.name));
    }
}

impl Catalog {
    pub(crate) fn recover(
        store: Arc<Store>,
        lane: Arc<Lane>,
        settings: Arc<BrokerSettings>,
        partitions_max: usize,
    ) -> Result<Self> {
        let defaults = settings.topic_defaults();
        let mut topics = Snapshot::default();
        for entry in store.scan(Family::Meta, TOPIC_PREFIX, TOPIC_PREFIX_END) {
            let (key, value) = entry?;
            topics.insert(&Arc::new(recover_topic(&store, (&key, &value), &defaults)?));
        }
        let next_log_id = decode_next_log_id(store.get(Family::Meta, NEXT_LOG_ID_KEY)?.as_deref())?;
        let changing = Arc::new(tokio::sync::Mutex::new(next_log_id));
        Ok(Self {
            store,
            lane,
            settings,
            partitions_max,
            cold: Cold::default(),
            claims: Claims::default(),
            changing,
            giving_back: Arc::default(),
            topics: Arc::new(RwLock::new(topics)),
            changes: Arc::default(),
        })
    }

    /// Who needs which topics.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// Claims these topics, and no others any more. No client deletes one of them from now on.
    pub async fn claim(&self, claims: Vec<Claim>) {
        let _changing = self.changing.lock().await;
        self.claims.set(claims);
    }

    /// Goes up whenever a topic is made, deleted or given partitions.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// The topic of this name.
    pub fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        self.topics.read().by_name.get(name).cloned()
    }

    /// The topic of this id.
    pub fn topic_by_id(&self, id: TopicId) -> Option<Arc<Topic>> {
        self.topics.read().by_id.get(&id).cloned()
    }

    /// All topics by name.
    pub fn topics(&self) -> Vec<Arc<Topic>> {
        self.topics.read().by_name.values().cloned().collect()
    }

    /// Whether the topic could be created.
    ///
    /// # Errors
    /// As [`Catalog::create`], but nothing is changed.
    pub fn check_new(&self, new: &NewTopic) -> Result<TopicConfig> {
        check_name(&new.name)?;
        let topics = self.topics.read();
        if topics.by_name.contains_key(new.name.as_str()) {
            return Err(Error::new(Kind::TopicAlreadyExists, format!("topic '{}' already exists", new.name)));
        }
        if let Some(other) = topics.by_flat.get(&flat(&new.name)) {
            let message =
                format!("topic '{}' collides with existing topic '{other}': '.' and '_' count as equal", new.name);
            return Err(Error::new(Kind::InvalidTopic, message));
        }
        drop(topics);
        self.check_partitions(0, new.partitions)?;
        let config = self.parse(&new.config)?;
        self.check_tier(&new.name, (false, &config))?;
        Ok(config)
    }

    /// Settings of a topic as they would act now.
    ///
    /// # Errors
    /// `InvalidConfig`.
    pub fn check_config(&self, topic: &Topic, overrides: &BTreeMap<String, String>) -> Result<TopicConfig> {
        let config = self.parse(overrides)?;
        self.check_tier(&topic.name, (topic.config().is_tiered(), &config))?;
        Ok(config)
    }

    /// A second tier is there only where the lake keeps whole records, and goes only with them, as in Kafka (KIP-950).
    fn check_tier(&self, name: &str, (was_tiered, config): (bool, &TopicConfig)) -> Result<()> {
        let message = match (was_tiered, config.is_tiered()) {
            (false, true) if !self.cold.keeps(name) => format!(
                "remote.storage.enable needs the whole records of topic {name} in the lake: set raw = true for it under [[lake.tables]]"
            ),
            (true, false) if !config.deletes_untiered() => {
                "remote.storage.enable becomes false only together with remote.log.delete.on.disable=true, which deletes what \
                 the log let go"
                    .to_owned()
            }
            _ => return Ok(()),
        };
        Err(Error::new(Kind::InvalidConfig, message))
    }

    /// The way to what the log let go.
    pub(crate) fn cold(&self) -> &Cold {
        &self.cold
    }

    /// Reads as [`Partition::read_committed`] does, and in the cold log what a tiered topic's log let go.
    ///
    /// # Errors
    /// `OffsetOutOfRange` below [`Partition::earliest`] or above the high watermark, `ColdLogAway`, `Storage`.
    pub async fn read_committed(
        &self,
        partition: &Arc<Partition>,
        from: Offset,
        bytes_max: usize,
    ) -> Result<Vec<Batch>> {
        if partition.lies_cold(from) {
            let read = self.cold.read(partition, (from, partition.last_stable_offset()), bytes_max).await?;
            // what is cold was committed
            if let (batches, true) = read {
                return Ok(batches);
            }
        }
        partition.read_committed(from, bytes_max).await
    }

    fn parse(&self, overrides: &BTreeMap<String, String>) -> Result<TopicConfig> {
        TopicConfig::parse_over(overrides, &self.settings.topic_defaults())
    }

    /// Has all topics take the defaults that the broker's settings give now.
    ///
    /// # Errors
    /// `InvalidConfig` where a setting of a topic broke a rule all along.
    pub(crate) async fn refresh_defaults(&self) -> Result<()> {
        let _changing = self.changing.lock().await;
        let defaults = self.settings.topic_defaults();
        for topic in self.topics() {
            let config = Arc::new(TopicConfig::read_over(topic.config().overrides(), &defaults)?);
            topic.partitions().iter().for_each(|partition| partition.set_config(config.clone()));
            *topic.config.write() = config;
        }
        Ok(())
    }

    fn check_partitions(&self, present: i32, total: i32) -> Result<()> {
        if total < 1 {
            let message = format!("number of partitions must be at least 1, not {total}");
            return Err(Error::new(Kind::InvalidPartitions, message));
        }
        if total <= present {
            let message = format!("topic already has {present} partitions, the new count {total} must be larger");
            return Err(Error::new(Kind::InvalidPartitions, message));
        }
        let all: usize = self.topics.read().by_name.values().map(|topic| topic.partitions.read().len()).sum();
        if all.saturating_add((total - present).unsigned_abs() as usize) > self.partitions_max {
            let message =
                format!("the broker may hold {} partitions (partitions_max), delete topics first", self.partitions_max);
            return Err(Error::new(Kind::PolicyViolation, message));
        }
        Ok(())
    }

    /// Creates a topic; it is durable when this returns.
    ///
    /// # Errors
    /// `TopicAlreadyExists`, `InvalidTopic`, `InvalidPartitions`, `InvalidConfig`, `PolicyViolation`.
    pub async fn create(&self, new: NewTopic) -> Result<Arc<Topic>> {
        let mut next_log_id = self.changing.clone().lock_owned().await;
        let config = Arc::new(self.check_new(&new)?);
        let name: TopicName = new.name.as_str().into();
        let topic = Arc::new(Topic {
            name: name.clone(),
            id: uuid::Uuid::new_v4(),
            config: RwLock::new(config.clone()),
            partitions: RwLock::new(self.new_partitions(&name, &config, 0..new.partitions, *next_log_id)?),
        });
        let after = *next_log_id + new.partitions.unsigned_abs();
        let changes = vec![topic.record(&new.config, topic.logs())?, next_log_id_change(after)];
        let (commit, topics) = (self.lane.commit(changes, Ack::Durable), self.topics.clone());
        let seen = self.changes.clone();
        to_the_end("topics", async move {
            commit.await?;
            *next_log_id = after;
            topics.write().insert(&topic);
            seen.fetch_add(1, Ordering::Release);
            Ok(topic)
        })
        .await
    }

    /// The topic of this name, created if there is none.
    ///
    /// # Errors
    /// As [`Catalog::create`].
    pub async fn ensure(&self, new: NewTopic) -> Result<Arc<Topic>> {
        if let Some(topic) = self.topic(&new.name) {
            return Ok(topic);
        }
        let name = new.name.clone();
        match self.create(new).await {
            Err(error) if error.kind == Kind::TopicAlreadyExists => self.topic(&name).ok_or(error),
            created => created,
        }
    }

    /// Deletes a topic and all its records for its owner.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`.
    pub async fn delete(&self, name: &str) -> Result<()> {
        let _changing = self.changing.lock().await;
        self.remove(name).await
    }

    /// Deletes a topic for a client.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`; `TopicDeletionDisabled` where somebody claims it.
    pub async fn delete_unclaimed(&self, name: &str) -> Result<()> {
        let _changing = self.changing.lock().await;
        self.claims.check_delete(name)?;
        self.remove(name).await
    }

    async fn remove(&self, name: &str) -> Result<()> {
        let topic = self.known(name)?;
        let partitions = topic.partitions();
        let (store, of) = (self.store.clone(), partitions.to_vec());
        let deleted = blocking(move || Ok(Deleted::of(&store, &of))).await?;
        let committed = {
            // who lists the topics and commits something then finds either this one or all of it deleted
            let mut topics = self.topics.write();
            topics.remove(&topic);
            self.changes.fetch_add(1, Ordering::Release);
            partitions.iter().for_each(|partition| partition.mark_deleted());
            let mut changes = vec![Change::Delete(Family::Meta, topic_key(name))];
            changes.extend(partitions.iter().cloned().map(Change::Drop));
            self.lane.commit(changes, Ack::Durable)
        };
        committed.await?;
        deleted.give_back(&self.store, &self.giving_back);
        Ok(())
    }

    /// Adds partitions until there are `total`.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`, `InvalidPartitions`, `PolicyViolation`.
    pub async fn grow(&self, name: &str, total: i32) -> Result<()> {
        let mut next_log_id = self.changing.clone().lock_owned().await;
        let topic = self.known(name)?;
        self.claims.check_grow(name)?;
        let present = topic.partitions();
        let count = i32::try_from(present.len()).unwrap_or(i32::MAX);
        self.check_partitions(count, total)?;
        let added = self.new_partitions(&topic.name, &topic.config(), count..total, *next_log_id)?;
        let all: Arc<[Arc<Partition>]> = present.iter().chain(added.iter()).cloned().collect();
        let after = *next_log_id + (total - count).unsigned_abs();
        let logs = all.iter().map(|partition| partition.id().0).collect();
        let changes = vec![topic.record(topic.config().overrides(), logs)?, next_log_id_change(after)];
        let (commit, seen) = (self.lane.commit(changes, Ack::Durable), self.changes.clone());
        to_the_end("topics", async move {
            commit.await?;
            *next_log_id = after;
            *topic.partitions.write() = all;
            seen.fetch_add(1, Ordering::Release);
            Ok(())
        })
        .await
    }

    /// Whether a topic could grow to `total` partitions.
    ///
    /// # Errors
    /// As [`Catalog::grow`].
    pub fn check_grow(&self, name: &str, total: i32) -> Result<()> {
        let present = self.known(name)?.partitions().len();
        self.claims.check_grow(name)?;
        self.check_partitions(i32::try_from(present).unwrap_or(i32::MAX), total)
    }

    /// Replaces all settings that differ from the defaults.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`, `InvalidConfig`.
    pub async fn set_config(&self, name: &str, overrides: BTreeMap<String, String>) -> Result<()> {
        self.change_config(name, |_| Ok(overrides)).await
    }

    /// Changes the settings that differ from the defaults; nobody else changes them meanwhile.
    ///
    /// # Errors
    /// Those of `change`, `UnknownTopicOrPartition`, `InvalidConfig`.
    pub async fn change_config(
        &self,
        name: &str,
        change: impl FnOnce(&BTreeMap<String, String>) -> Result<BTreeMap<String, String>>,
    ) -> Result<()> {
        let changing = self.changing.clone().lock_owned().await;
        let topic = self.known(name)?;
        let overrides = change(topic.config().overrides())?;
        let config = Arc::new(self.check_config(&topic, &overrides)?);
        let commit = self.lane.commit(vec![topic.record(&overrides, topic.logs())?], Ack::Durable);
        to_the_end("topics", async move {
            commit.await?;
            topic.partitions().iter().for_each(|partition| partition.set_config(config.clone()));
            *topic.config.write() = config;
            drop(changing);
            Ok(())
        })
        .await
    }

    fn known(&self, name: &str) -> Result<Arc<Topic>> {
        let missing = || Error::new(Kind::UnknownTopicOrPartition, format!("topic '{name}' does not exist"));
        self.topic(name).ok_or_else(missing)
    }

    fn new_partitions(
        &self,
        name: &TopicName,
        config: &Arc<TopicConfig>,
        indexes: std::ops::Range<PartitionIndex>,
        first_log_id: u32,
    ) -> Result<Arc<[Arc<Partition>]>> {
        let recover = |(index, id)| Partition::recover(&self.store, LogId(id), (name.clone(), index), config.clone());
        indexes.zip(first_log_id..).map(recover).collect()
    }
}

fn recover_topic(store: &Arc<Store>, (key, value): (&[u8], &[u8]), defaults: &TopicDefaults) -> Result<Topic> {
    let StoredTopic { name, id, logs, config } = decode_topic(key, value)?;
    let config = Arc::new(TopicConfig::read_over(&config, defaults)?);
    let recover = |(index, log)| Partition::recover(store, LogId(log), (name.clone(), index), config.clone());
    let partitions: Result<Arc<[_]>> = (0..).zip(logs).map(recover).collect();
    Ok(Topic { name: name.clone(), id, partitions: RwLock::new(partitions?), config: RwLock::new(config) })
}
