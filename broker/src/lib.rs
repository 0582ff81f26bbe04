//! The broker: Kafka's protocol on one RocksDB.
//!
//! A produce request goes net/connection → handlers/mod → handlers/produce → lane → store, and its answer back. Reading
//! goes the same way to log/partition. Everything that is stored goes through the commit lane (`lane`).

pub mod batch;
mod builder;
pub mod catalog;
pub mod check;
mod claims;
mod clock;
mod cluster;
pub mod codec;
mod cold;
mod completion;
mod config;
mod counters;
mod crash_point;
mod disk;
mod error;
mod features;
mod group;
mod handlers;
mod hold;
pub mod lane;
mod log;
mod loggers;
pub mod net;
mod producer_ids;
mod random;
mod rebuild;
mod records;
mod schema;
mod secret;
pub mod security;
#[cfg(test)]
mod seed;
pub mod settings;
pub mod store;
pub mod topic_config;
mod txn;
mod types;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use settings::BrokerSettings;

pub use batch::{Batch, batches_in};
pub use builder::BatchBuilder;
pub use catalog::{Catalog, NewTopic, Topic};
pub use claims::{Claim, Claims, Usage};
pub use clock::Clock;
pub use cluster::rename_cluster;
pub use cold::ColdLog;
pub use config::{BrokerConfig, Durability, GroupConsumerConfig, ListenerConfig, MigrationPolicy};
pub use counters::Counters;
pub use error::{Act, Error, Kind, Result};
pub use group::{CommittedOffset, GroupDescription, GroupOverview, Groups, MemberDescription};
pub use hold::{Hold, Holds};
pub use lane::{Ack, Append, Appended, Change, Lane, Marker, Origin};
pub use log::{Aborted, ColdRuns, Compacted, Partition, Waiter};
pub use loggers::{Apply, Levels, Loggers, ROOT};
pub use random::Random;
pub use rebuild::{ColdRead, ColdRecord, Rebuild};
pub use records::{HeaderRef, Record, RecordRef, Records};
pub use schema::{
    Compatibility, Deletion, NewSchema, Reference, Registration, RegistryMode, SCHEMA_BYTES_MAX, Schema, SchemaFault,
    SchemaId, SchemaRecord, SchemaState, SchemaType, SchemaVersion, Schemas, Settings,
};
pub use secret::HashedSecret;
pub use security::{ClientAuth, ListenerProtocol, Principal, Secret, Security, SecurityConfig, TlsConfig, UserConfig};
pub use store::{DamagedLog, Entries, Family, Packed, ReadOnly, Scan, Snapshot, Store};
pub use topic_config::TopicConfig;
pub use types::{LeaderEpoch, LogId, Offset, PartitionIndex, ProducerId, TimestampMs, TopicId, TopicName};

/// `meta` key that is there while no broker runs on the store that was stopped in order: one byte, 1.
const CLEAN_KEY: &[u8] = b"clean";

/// The running broker. Holds: the store and all that works on it.
pub struct Broker {
    config: BrokerConfig,
    clock: Clock,
    cluster_id: String,
    store: Arc<Store>,
    lane: Arc<Lane>,
    catalog: Arc<Catalog>,
    groups: Arc<Groups>,
    transactions: Arc<txn::Transactions>,
    features: features::Features,
    producer_ids: producer_ids::ProducerIds,
    schemas: Arc<Schemas>,
    security: Arc<Security>,
    holds: Holds,
    counters: Arc<Counters>,
    settings: Arc<settings::BrokerSettings>,
    loggers: Loggers,
    fetch_sessions: handlers::FetchSessions,
    compaction: tokio::sync::Mutex<log::compaction::Rounds>,
    room: Arc<disk::Room>,
    aging: std::sync::Once,
    listening: parking_lot::Mutex<Option<net::Listening>>,
}

impl Broker {
    /// Opens the store and recovers topics and positions. Must be called within a Tokio runtime. Nothing is deleted or
    /// compacted before [`start_aging`](Self::start_aging).
    ///
    /// # Errors
    /// `Config` when the data directory cannot be used, `Storage` when it is damaged.
    pub async fn open(config: BrokerConfig, clock: Clock) -> Result<Arc<Self>> {
        let opening = config.clone();
        let store = Arc::new(log::blocking(move || Store::open(&opening)).await?);
        let counters = Arc::new(Counters::default());
        let room = Arc::new(disk::Room::new(config.data_dir.clone(), config.disk_reserve_bytes));
        let lane = Arc::new(Lane::start(store.clone(), &config, clock.clone(), counters.clone(), room.clone())?);
        let (recovering, committing, opening) = (store.clone(), lane.clone(), config.clone());
        let recovered = log::blocking(move || {
            let settings = Arc::new(BrokerSettings::recover(&recovering, committing.clone(), &opening)?);
            let catalog = Catalog::recover(recovering, committing, settings.clone(), opening.partitions_max)?;
            Ok((Arc::new(catalog), settings))
        });
        let (catalog, kafka_settings) = recovered.await?;
        let (reading, committing, settings, time) = (store.clone(), lane.clone(), config.clone(), clock.clone());
        let group_settings = kafka_settings.clone();
        let recovered = log::blocking(move || {
            let producer_ids = producer_ids::ProducerIds::recover(&reading, committing.clone())?;
            let schemas = Schemas::recover(&reading, committing.clone())?;
            let features = features::Features::recover(&reading, committing.clone())?;
            let transactions = txn::Transactions::recover(&reading, committing.clone(), &catalog)?;
            let groups = Groups::recover(&reading, (committing, catalog.clone(), group_settings), &settings, time)?;
            Ok((catalog, groups, transactions, producer_ids, schemas, features))
        });
        let (catalog, groups, transactions, producer_ids, schemas, features) = recovered.await?;
        let (reading, committing, settings, time) =
            (store.clone(), lane.clone(), config.security.clone(), clock.clone());
        let security = log::blocking(move || Security::recover(&reading, committing, settings, time)).await?;
        let cluster_id = cluster::cluster_id(&store, &lane).await?;
        let holds = Holds::default();
        let looking = room.clone();
        let broker = Arc::new(Self {
            config,
            clock,
            cluster_id,
            store,
            lane,
            catalog,
            groups: Arc::new(groups),
            transactions: Arc::new(transactions),
            features,
            producer_ids,
            schemas: Arc::new(schemas),
            security: Arc::new(security),
            holds,
            counters,
            settings: kafka_settings,
            loggers: Loggers::default(),
            fetch_sessions: handlers::FetchSessions::default(),
            compaction: tokio::sync::Mutex::default(),
            room,
            aging: std::sync::Once::new(),
            listening: parking_lot::Mutex::default(),
        });
        broker.begin().await?;
        broker.security.set_up_users().await?;
        log::blocking(move || {
            looking.look();
            Ok(())
        })
        .await?;
        tokio::spawn(disk::watch(Arc::downgrade(&broker.room)));
        tokio::spawn(log::buckets::run(Arc::downgrade(&broker)));
        tokio::spawn(log::buckets::empty_trash(Arc::downgrade(&broker)));
        tokio::spawn(group::run_timers(Arc::downgrade(&broker)));
        tokio::spawn(group::run_sweeps(Arc::downgrade(&broker)));
        tokio::spawn(txn::run_timers(Arc::downgrade(&broker)));
        Ok(broker)
    }

    /// After an unclean end every partition gets a new leader epoch, so that clients notice a lost unsynced tail
    /// (KIP-320) instead of reading past it.
    async fn begin(&self) -> Result<()> {
        let clean = self.store.get(Family::Meta, CLEAN_KEY)?.is_some();
        let mut changes = vec![Change::Delete(Family::Meta, CLEAN_KEY.to_vec())];
        if !clean {
            for topic in self.catalog.topics() {
                for partition in topic.partitions().iter() {
                    changes.push(Change::Epoch(partition.clone(), partition.leader_epoch() + 1));
                }
            }
        }
        self.lane.commit(changes, Ack::Durable).await?;
        // whatever `durability` says: what is written outside the store names the cluster, and a lost tail must be seen
        let store = self.store.clone();
        log::blocking(move || store.sync()).await
    }

    /// Starts to serve Kafka on every listener of the configuration and gives their addresses, in its order.
    ///
    /// # Errors
    /// `Config`, with the listener whose address cannot be used.
    pub async fn listen(self: &Arc<Self>) -> Result<Vec<SocketAddr>> {
        let listening = net::serve(self.clone()).await?;
        let addresses = listening.addresses().to_vec();
        *self.listening.lock() = Some(listening);
        Ok(addresses)
    }

    /// Called before anything is stopped: what waits for room on a full disk would hold the stop up, so it is given up, unacknowledged.
    pub fn give_up_waiting(&self) {
        self.lane.give_up_waiting();
    }

    /// Ends in order: listeners close and replies that are owed leave, what was submitted is written, the store is
    /// marked clean.
    ///
    /// # Errors
    /// `Storage` when the last write fails; nothing acknowledged is lost then either.
    pub async fn stop(&self) -> Result<()> {
        let listening = self.listening.lock().take();
        if let Some(listening) = listening {
            listening.stop().await;
        }
        let clean = Change::Put(Family::Meta, CLEAN_KEY.to_vec(), vec![1]);
        let last = self.lane.commit(vec![clean], Ack::Durable).await.map(drop);
        let lane = self.lane.clone();
        log::blocking(move || {
            lane.stop();
            Ok(())
        })
        .await?;
        last
    }

    /// Deletes what retention says is due, now instead of at the next round.
    ///
    /// # Errors
    /// `Storage`.
    pub async fn sweep_retention(self: &Arc<Self>) -> Result<()> {
        log::retention::sweep(self).await
    }

    /// Compacts what is due, now instead of at the next round.
    ///
    /// # Errors
    /// `Storage`.
    pub async fn compact(self: &Arc<Self>) -> Result<()> {
        log::compaction::round(self).await
    }

    /// Starts retention and compaction, which go on until the broker is dropped. Called once everybody who keeps records has
    /// set its holds: what is deleted before that is gone.
    pub fn start_aging(self: &Arc<Self>) {
        let every = Duration::from_millis(self.config.retention_check_ms.max(1));
        self.aging.call_once(|| {
            tokio::spawn(log::retention::run(Arc::downgrade(self), every));
            tokio::spawn(log::compaction::run(Arc::downgrade(self)));
        });
    }

    pub(crate) fn compaction_rounds(&self) -> &tokio::sync::Mutex<log::compaction::Rounds> {
        &self.compaction
    }

    /// The one store.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// The one writer.
    pub fn lane(&self) -> &Lane {
        &self.lane
    }

    /// The topics.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// The consumer groups.
    pub fn groups(&self) -> &Arc<Groups> {
        &self.groups
    }

    pub(crate) fn transactions(&self) -> &Arc<txn::Transactions> {
        &self.transactions
    }

    pub(crate) fn features(&self) -> &features::Features {
        &self.features
    }

    pub(crate) fn producer_ids(&self) -> &producer_ids::ProducerIds {
        &self.producer_ids
    }

    /// The schema registry's memory.
    pub fn schemas(&self) -> &Arc<Schemas> {
        &self.schemas
    }

    /// Who may come in and what they may do.
    pub fn security(&self) -> &Arc<Security> {
        &self.security
    }

    /// Has records that the log let go be read here, as long as it lives.
    pub fn serve_cold(&self, cold: &Arc<dyn ColdLog>) {
        self.catalog.cold().serve(cold);
    }

    /// What retention must keep.
    pub fn holds(&self) -> &Holds {
        &self.holds
    }

    /// All bytes of the disk that holds the data, and those that are left; None where the system does not tell.
    pub fn disk_space(&self) -> Option<(i64, i64)> {
        disk::space(&self.config.data_dir)
    }

    /// Whether records of clients may be appended now, asked before they are. What Millpond writes itself does not ask:
    /// it must go on for space to become free.
    ///
    /// # Errors
    /// `DiskFull` while the disk has less than `disk_reserve_bytes` left, or damage keeps the store from merging compacted topics, and this is of one.
    pub fn check_room(&self, partition: &Partition) -> Result<()> {
        self.room.check()?;
        // asked for every batch: nobody looks at the topic as long as nothing is damaged
        let may_refuse = !self.store.merges(Family::Compacted) && partition.config().compacts();
        if may_refuse { self.store.check_runs(Family::Compacted) } else { Ok(()) }
    }

    pub(crate) fn room(&self) -> &Arc<disk::Room> {
        &self.room
    }

    /// Whether the disk is so full that all writes wait.
    pub fn writes_wait(&self) -> bool {
        self.room.is_blocked()
    }

    /// The time.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The settings it was opened with.
    pub fn config(&self) -> &BrokerConfig {
        &self.config
    }

    /// The settings under Kafka's names, as they are now.
    pub fn settings(&self) -> &BrokerSettings {
        &self.settings
    }

    /// Changes settings of a resource; they are durable and act when this returns.
    ///
    /// # Errors
    /// As [`BrokerSettings::change`].
    pub async fn change_settings(
        &self,
        resource: settings::Resource,
        edit: impl FnOnce(&settings::Values) -> Result<settings::Values>,
    ) -> Result<()> {
        let of_brokers = matches!(resource, settings::Resource::Broker | settings::Resource::AllBrokers);
        self.settings.change(resource, edit).await?;
        if of_brokers { self.catalog.refresh_defaults().await } else { Ok(()) }
    }

    /// What is logged.
    pub fn loggers(&self) -> &Loggers {
        &self.loggers
    }

    pub(crate) fn fetch_sessions(&self) -> &handlers::FetchSessions {
        &self.fetch_sessions
    }

    /// How many changes the store has taken in; it only grows.
    pub(crate) fn commits(&self) -> i64 {
        i64::try_from(self.store.position()).unwrap_or(i64::MAX)
    }

    /// The cluster's id: 22 characters of URL-safe base 64, the same for the life of the data directory.
    pub fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// Figures since the start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }
}

/// CRC-32C of bytes that follow others whose CRC-32C is `before`; 0 where there are none.
pub fn checksum(before: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(before, bytes)
}

/// Kafka's form of a UUID: URL-safe base 64 without padding (RFC 4648, section 5).
pub fn base64_url(bytes: &[u8; 16]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let bits = u128::from_be_bytes(*bytes);
    let digit = |at: u32| {
        let six = if at < 21 { bits >> (122 - 6 * at) } else { bits << 4 } & 0x3f;
        char::from(ALPHABET[usize::try_from(six).expect("six bits fit")])
    };
    (0..22).map(digit).collect()
}
