//! A sink into a table: reads a topic from where the database says it stands, and brings one batch per transaction. While
//! the database is away it tries again for ever, and the log keeps what it has not taken.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use broker::{
    Ack, Append, BatchBuilder, Broker, Change as Commit, Family, Hold, Kind, LogId, NewTopic, Offset, Origin,
    Partition, PartitionIndex, Waiter,
};
use engine::{Engine, Filling};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::database::{Database, LoadError, Move, Refused};
use super::feed::{CHANGES_BYTES_MAX, Change, Feed, json_of};
use super::pace::Pace;
use super::plan::{Plan, Round};
use super::status::TableStatus;
use crate::config::PostgresSinkConfig;

/// Bytes read from one partition for one transaction, at most one batch more.
const READ_BYTES: usize = 4 << 20;
/// How often an idle sink asks whether the database still answers.
const IDLE: Duration = Duration::from_secs(3);
/// Longest time of one transaction.
const LOAD_MAX: Duration = Duration::from_secs(120);
/// Time between two looks at how far a view is that the sink needs.
const FILL_PAUSE: Duration = Duration::from_millis(500);
/// Time between two attempts at rows whose foreign key is not there.
const REFERENCE_PAUSE: Duration = Duration::from_millis(250);
/// `meta`: this, the sink's name, 0 and a log's id u32 BE → i64 BE, the offset below which refused rows are written down.
const REFUSED_PREFIX: &[u8] = b"sink-refused\0";

/// A sink into a table. Holds: where the connection of the moment stands. What survives is in the database: rows and
/// positions; and in the store: which refused rows are written down already.
pub struct TableSink {
    /// Its name.
    pub name: String,
    /// As declared.
    pub config: PostgresSinkConfig,
    feed: Feed,
    plan: Plan,
    broker: Arc<Broker>,
    engine: Arc<Engine>,
    hold: Hold,
    status: Mutex<TableStatus>,
}

/// A partition and where the sink stands in it.
struct Place {
    partition: Arc<Partition>,
    offset: Offset,
}

type Places = BTreeMap<PartitionIndex, Place>;

/// What goes into one transaction.
struct Batch {
    rounds: Vec<Round>,
    moves: Vec<Move>,
    /// Changes that were read.
    records: usize,
    /// Changes that are tried.
    rows: usize,
}

impl TableSink {
    /// Puts the parts together.
    ///
    /// # Errors
    /// What does not fit.
    pub fn new(
        (broker, engine): (Arc<Broker>, Arc<Engine>),
        name: &str,
        config: &PostgresSinkConfig,
        feed: Feed,
    ) -> Result<TableSink, String> {
        let plan = Plan::new(config, &feed).map_err(|error| format!("sink {name}: {error}"))?;
        let hold = broker.holds().register(format!("sink {name}"));
        let status = TableStatus { off: config.url.is_none(), ..TableStatus::default() };
        let (name, config, status) = (name.to_owned(), config.clone(), Mutex::new(status));
        Ok(TableSink { name, config, feed, plan, broker, engine, hold, status })
    }

    /// How it stands.
    pub fn status(&self) -> TableStatus {
        let mut status = self.status.lock().clone();
        status.topic = self.feed.topic().to_owned();
        for partition in self.partitions() {
            let end = partition.high_watermark();
            let at = status.offsets.get(&partition.index()).copied().unwrap_or(partition.log_start());
            status.lag += (end - at).max(0);
        }
        status
    }

    fn partitions(&self) -> Vec<Arc<Partition>> {
        let topic = self.broker.catalog().topic(self.feed.topic());
        topic.map(|topic| topic.partitions().to_vec()).unwrap_or_default()
    }

    /// Works until the server stops.
    pub async fn run(self: Arc<Self>, mut stopping: watch::Receiver<bool>) {
        let Some(url) = self.config.url.clone() else { return };
        // Until the database has said where it stands, everything may still be needed.
        self.partitions().iter().for_each(|partition| self.hold.set(partition.id(), partition.log_start()));
        let mut pace = Pace::new(self.config.batch_rows);
        loop {
            let error = tokio::select! {
                ended = self.session(&url, &mut pace) => ended,
                _ = stopping.wait_for(|stop| *stop) => return,
            };
            {
                let mut status = self.status.lock();
                if status.error.is_none() {
                    tracing::warn!(sink = self.name, error, "a sink cannot go on and tries again");
                }
                status.connected = false;
                status.retries += 1;
                status.error = Some(error);
            }
            tokio::select! {
                () = tokio::time::sleep(pace.pause()) => {}
                _ = stopping.wait_for(|stop| *stop) => return,
            }
        }
    }

    /// One connection's life; gives why it ended.
    async fn session(&self, url: &str, pace: &mut Pace) -> String {
        match self.work(url, pace).await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    async fn work(&self, url: &str, pace: &mut Pace) -> Result<std::convert::Infallible, String> {
        let mut database = Database::connect(url, &self.name, self.feed.topic()).await?;
        database.set_up(&self.plan, self.config.create, self.config.ddl.as_deref()).await?;
        let waiter = Waiter::new();
        let mut places = Places::new();
        loop {
            if self
                .partitions()
                .iter()
                .any(|p| places.get(&p.index()).is_none_or(|place| place.partition.id() != p.id()))
            {
                places = self.adopt(&mut database, &waiter).await?;
                pace.connected();
                let mut status = self.status.lock();
                status.connected = true;
                status.error = None;
            }
            if let Some(filling) = self.waits_for() {
                self.status.lock().waits_for = Some(filling.needed_by("the sink"));
                tokio::time::sleep(FILL_PAUSE).await;
                database.ping().await?;
                continue;
            }
            self.status.lock().waits_for = None;
            let Some(batch) = self.read(&mut places, pace).await? else {
                if tokio::time::timeout(IDLE, waiter.woken()).await.is_err() {
                    database.ping().await?;
                }
                continue;
            };
            self.bring(&mut database, batch, &mut places, pace).await?;
            tokio::time::sleep(Duration::from_millis(self.config.interval_ms)).await;
        }
    }

    /// The declared version of the view, while that is filled and the rows of the one that is served are not the table's.
    fn waits_for(&self) -> Option<Filling> {
        let Feed::View(declared) = &self.feed else { return None };
        let filling = self.engine.filling(&declared.name)?;
        let served = self.engine.views().into_iter().find(|view| view.name == declared.name)?;
        (!self.plan.takes(declared, &served)).then_some(filling)
    }

    /// Asks the database where it stands in each partition, and watches them.
    async fn adopt(&self, database: &mut Database, waiter: &Arc<Waiter>) -> Result<Places, String> {
        let partitions = self.partitions();
        let log = |id: LogId| format!("{}/{id}", self.broker.cluster_id());
        let logs = partitions.iter().map(|p| (p.index(), (log(p.id()), p.log_start(), p.high_watermark()))).collect();
        let positions = database.positions(&logs).await?;
        let mut places = Places::new();
        for partition in partitions {
            partition.watch(waiter);
            let offset = positions.get(&partition.index()).copied().unwrap_or(partition.log_start());
            places.insert(partition.index(), Place { partition, offset });
        }
        self.note_places(&places);
        Ok(places)
    }

    fn note_places(&self, places: &Places) {
        for place in places.values() {
            self.hold.set(place.partition.id(), place.offset);
        }
        self.status.lock().offsets = places.iter().map(|(index, place)| (*index, place.offset)).collect();
    }

    /// The next changes of all partitions, about as many as the pace says; none when there are none.
    async fn read(&self, places: &mut Places, pace: &Pace) -> Result<Option<Batch>, String> {
        let (mut changes, mut moves, mut bytes) = (Vec::new(), Vec::new(), 0);
        let most = pace.rows();
        for (index, place) in places.iter_mut() {
            let end = place.partition.last_stable_offset();
            let enough = changes.len() >= most || bytes >= CHANGES_BYTES_MAX;
            if end <= place.offset || enough || place.partition.is_deleted() {
                continue;
            }
            let from = place.offset.max(place.partition.log_start());
            if from > place.offset {
                let lost = from - place.offset;
                tracing::warn!(
                    sink = self.name,
                    partition = index,
                    lost,
                    "records were deleted before a sink took them"
                );
            }
            let read = match place.partition.read_committed(from, READ_BYTES).await {
                Ok(read) => read,
                Err(error) if error.kind == Kind::OffsetOutOfRange => continue,
                Err(error) => return Err(error.to_string()),
            };
            // Whole batches, as many as make about one transaction.
            let behind = from.saturating_add(i64::try_from(most).unwrap_or(i64::MAX));
            let wanted = read.iter().skip(1).take_while(|batch| batch.base_offset() < behind).count() + 1;
            let (mut taken, count) = self.feed.changes(*index, &read[..wanted.min(read.len())], from)?;
            let mut next = read[..count].last().map_or(place.offset, |last| last.next_offset());
            taken.retain(|change| matches!(self.feed, Feed::Stream(_)) || self.plan.is_whole(change));
            if pace.is_slow() && taken.len() > most {
                // Whole batches were too many: the rest of this one is read again.
                next = taken[most].offset;
                taken.truncate(most);
            }
            bytes += taken.iter().map(Change::size).sum::<usize>();
            changes.extend(taken);
            moves.push(Move { partition: *index, from: place.offset, to: next.max(from) });
        }
        let records = changes.len();
        let rounds = self.plan.rounds(changes, matches!(self.feed, Feed::View(_)));
        let rows = rounds.iter().map(|round| round.gone.len() + round.kept.len()).sum();
        moves.retain(|to| to.to > to.from);
        Ok(Some(Batch { rounds, moves, records, rows }).filter(|batch| !batch.moves.is_empty()))
    }

    /// Brings one batch, waiting a while for foreign keys that are not there yet.
    async fn bring(
        &self,
        database: &mut Database,
        batch: Batch,
        places: &mut Places,
        pace: &mut Pace,
    ) -> Result<(), String> {
        let begun = self.broker.clock().steady_ms();
        let mut at_once = false;
        loop {
            let waited = self.broker.clock().steady_ms() - begun;
            let patient = waited < self.config.reference_wait_ms;
            let attempt = self.attempt(database, &batch, (at_once, patient));
            let outcome = tokio::time::timeout(LOAD_MAX, attempt).await;
            let Ok(outcome) = outcome else {
                pace.too_long(batch.records);
                let seconds = LOAD_MAX.as_secs();
                return Err(format!("a transaction took longer than {seconds} s, the next one is half as large"));
            };
            match outcome {
                Ok(refused) => {
                    let mut status = self.status.lock();
                    status.transactions += 1;
                    status.records += batch.records as u64;
                    status.rows += (batch.rows - refused) as u64;
                    status.refused += refused as u64;
                    status.error = None;
                    status.last_commit_ms = Some(self.broker.clock().now_ms());
                    break;
                }
                Err(LoadError::Reference(reason)) if patient || !at_once => {
                    self.status.lock().error = Some(format!("waits for a foreign key: {reason}"));
                    at_once = true;
                    tokio::time::sleep(REFERENCE_PAUSE).await;
                }
                Err(LoadError::Moved) => return Err("its position was moved by another connection".to_owned()),
                Err(LoadError::Reference(error) | LoadError::Failed(error)) => return Err(error),
            }
        }
        for to in &batch.moves {
            if let Some(place) = places.get_mut(&to.partition) {
                place.offset = to.to;
            }
        }
        pace.done();
        self.note_places(places);
        Ok(())
    }

    async fn attempt(
        &self,
        database: &mut Database,
        batch: &Batch,
        (at_once, patient): (bool, bool),
    ) -> Result<usize, LoadError> {
        let loading = database.load(&self.plan, &batch.rounds, &batch.moves, at_once).await?;
        if let Some(reason) = loading.reference().filter(|_| patient) {
            return Err(LoadError::Reference(reason));
        }
        // Before anything is written down: what a later attempt refuses too would count as written down already.
        loading.check_deferred().await?;
        // Written down first: a crash in between writes nothing down twice, as the store knows how far it came.
        self.write_down(&loading.refused).await.map_err(|error| LoadError::Failed(error.to_string()))?;
        let refused = loading.refused.len();
        loading.commit().await?;
        Ok(refused)
    }

    /// Appends refused rows to `<sink>.rejected`, each once: offsets below what the store remembers were there before.
    async fn write_down(&self, refused: &[Refused]) -> broker::Result<()> {
        if refused.is_empty() {
            return Ok(());
        }
        let name = format!("{}.rejected", self.name);
        let topic = self.broker.catalog().ensure(NewTopic { name, partitions: 1, config: Default::default() }).await?;
        let logs: BTreeMap<PartitionIndex, LogId> = self.partitions().iter().map(|p| (p.index(), p.id())).collect();
        let mut marks: BTreeMap<PartitionIndex, Offset> = BTreeMap::new();
        for (index, log) in &logs {
            let mark = self.broker.store().get(Family::Meta, &self.refused_key(*log))?;
            let mark = mark.and_then(|value| value.as_slice().try_into().ok()).map_or(0, i64::from_be_bytes);
            marks.insert(*index, mark);
        }
        let known = marks.clone();
        let mut new: Vec<&Refused> = refused.iter().collect();
        new.sort_by_key(|row| (row.change.partition, row.change.offset));
        new.retain(|row| known.get(&row.change.partition).is_none_or(|mark| row.change.offset >= *mark));
        let now = self.broker.clock().now_ms();
        let mut builder = BatchBuilder::new();
        for row in &new {
            let key = self.plan.key_json(&row.change.row);
            let value = json_of(row.change.row.iter());
            let (partition, offset) = (row.change.partition.to_string(), row.change.offset.to_string());
            let headers: [(&[u8], Option<&[u8]>); 6] = [
                (b"sink", Some(self.name.as_bytes())),
                (b"partition", Some(partition.as_bytes())),
                (b"offset", Some(offset.as_bytes())),
                (b"rule", Some(row.code.as_bytes())),
                (b"constraint", row.constraint.as_deref().map(str::as_bytes)),
                (b"reason", Some(row.reason.as_bytes())),
            ];
            builder.push(now, Some(key.as_bytes()), Some(value.as_bytes()), &headers);
            marks.insert(row.change.partition, row.change.offset + 1);
        }
        let Some((batch, partition)) = builder.build().zip(topic.partition(0)) else { return Ok(()) };
        let mut changes = vec![Commit::Append(Append { partition, batch, origin: Origin::Internal })];
        for (index, mark) in marks {
            if let Some(log) = logs.get(&index) {
                changes.push(Commit::Put(Family::Meta, self.refused_key(*log), mark.to_be_bytes().to_vec()));
            }
        }
        self.broker.lane().commit(changes, Ack::Durable).await.map(drop)
    }

    fn refused_key(&self, log: LogId) -> Vec<u8> {
        [REFUSED_PREFIX, self.name.as_bytes(), &[0], &log.0.to_be_bytes()].concat()
    }
}
