//! Many producers, some under the same transactional id, of both versions of the protocol, that crash, fence one another and
//! time out, while the broker is killed again and again; readers of committed data beside them. The history is checked.
//!
//! `MILLPOND_SEED` repeats a run, `MILLPOND_TRANSACTIONS_SECONDS` says how long it lasts.

use super::history::{Outcome, Reads, Transaction, mistakes};
use crate::clients::create_topic;
use crate::support::raw::{Client, Identity, PlainRecord, batch, fetch_request};
use crate::support::server::{Options, Server};
use crate::support::{CASE_MAX, Scratch, beside_others, eventually, seed};
use bytes::Bytes;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::RecordBatchDecoder;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

const TOPIC: &str = "checked";
const PARTITIONS: i32 = 3;
/// Each id has two producers, so they fence one another.
const IDS: u64 = 4;
const PRODUCERS: u64 = 8;
const READERS: usize = 2;
/// Before which a producer that is told to wait has given up.
const PATIENCE: Duration = Duration::from_secs(30);

struct Shared {
    address: String,
    stop: AtomicBool,
    transactions: Mutex<Vec<Transaction>>,
    commits: AtomicU64,
}

#[test]
fn histories_of_concurrent_transactions_hold() {
    let _beside = beside_others();
    let seed = seed("transactions-checker");
    let seconds = std::env::var("MILLPOND_TRANSACTIONS_SECONDS").map_or(180, |text| text.parse().unwrap());
    let scratch = Scratch::lasting("transactions-checker", CASE_MAX + Duration::from_secs(seconds));
    let mut server = Server::start_with(&scratch, Options { durability: Some("os"), ..Options::default() });
    create_topic(&server.kafka, TOPIC, PARTITIONS);
    let shared = Arc::new(Shared {
        address: server.kafka.clone(),
        stop: AtomicBool::new(false),
        transactions: Mutex::default(),
        commits: AtomicU64::new(0),
    });
    let producers: Vec<_> = (0..PRODUCERS)
        .map(|number| {
            let shared = shared.clone();
            thread::spawn(move || Producer::new(&shared, number, seed).run())
        })
        .collect();
    let readers: Vec<_> = (0..READERS)
        .map(|_| {
            let shared = shared.clone();
            thread::spawn(move || follow(&shared))
        })
        .collect();
    let mut random = StdRng::seed_from_u64(seed);
    let started = Instant::now();
    let mut kills = 0;
    while started.elapsed() < Duration::from_secs(seconds) {
        thread::sleep(Duration::from_millis(random.random_range(300..4_000)));
        server.kill9();
        server.start_again();
        kills += 1;
    }
    shared.stop.store(true, Ordering::Relaxed);
    producers.into_iter().for_each(|producer| producer.join().unwrap());
    let readers: Vec<BTreeMap<i32, Reads>> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
    // what crashed producers left open is aborted when its time is over, and then everything is stable
    eventually("open transactions time out", Duration::from_secs(60), || {
        let mut client = Client::connect(&server.kafka);
        let open: Vec<i32> = (0..PARTITIONS)
            .filter(|partition| {
                let data = fetch(&mut client, *partition, 0).unwrap();
                data.last_stable_offset != data.high_watermark
            })
            .collect();
        if open.is_empty() { Ok(()) } else { Err(format!("partitions {open:?} are not stable")) }
    });
    let last = read_all(&server.kafka);
    let transactions = shared.transactions.lock().unwrap();
    let count = |outcome| transactions.iter().filter(|one| one.outcome == outcome).count();
    let (committed, aborted, unknown) = (count(Outcome::Committed), count(Outcome::Aborted), count(Outcome::Unknown));
    let read: usize = last.values().map(Vec::len).sum();
    eprintln!(
        "transactions-checker: {committed} committed, {aborted} aborted, {unknown} unknown, {read} records, {kills} kills"
    );
    let found = mistakes(&transactions, &readers, &last);
    assert!(found.is_empty(), "seed {seed}, {} mistakes:\n{}", found.len(), found[..found.len().min(20)].join("\n"));
    assert!(committed > 50 && aborted > 20, "there was nothing to check");
    assert!(readers.iter().all(|reader| reader.values().map(Vec::len).sum::<usize>() > 0), "a reader read nothing");
    assert!(server.stop().success());
}

/// Why a producer cannot go on with its transaction.
enum Trouble {
    /// The connection is gone: nobody knows what the broker did.
    Lost,
    /// It is told so; the transaction cannot be committed any more.
    Refused,
}

type Attempt<T> = Result<T, Trouble>;

/// What a producer may be told once another has taken over, or while one is taking over: concurrent transactions, producer fenced,
/// invalid producer epoch, invalid transaction state.
const REFUSALS: [i16; 4] = [51, 90, 47, 48];

fn refused(code: i16) -> Trouble {
    assert!(REFUSALS.contains(&code), "a producer was refused with error code {code}");
    Trouble::Refused
}

struct Producer<'a> {
    shared: &'a Shared,
    number: u64,
    id: TransactionalId,
    two: bool,
    random: StdRng,
    client: Option<Client>,
    /// Producer id, epoch and the next sequence number per partition.
    identity: Option<(i64, i16, [i32; PARTITIONS as usize])>,
    count: u64,
}

impl<'a> Producer<'a> {
    fn new(shared: &'a Shared, number: u64, seed: u64) -> Self {
        let id = TransactionalId(StrBytes::from_string(format!("checker-{}", number % IDS)));
        let random = StdRng::seed_from_u64(seed ^ (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        // both versions meet under the same id
        let two = !number.is_multiple_of(3);
        Producer { shared, number, id, two, random, client: None, identity: None, count: 0 }
    }

    fn run(mut self) {
        while !self.shared.stop.load(Ordering::Relaxed) {
            if self.identity.is_none() && self.initialise().is_err() {
                self.identity = None;
                self.client = None;
                thread::sleep(Duration::from_millis(50));
                continue;
            }
            self.transaction();
            thread::sleep(Duration::from_millis(self.random.random_range(0..40)));
        }
    }

    fn client(&mut self) -> Attempt<&mut Client> {
        if self.client.is_none() {
            let began = Instant::now();
            while self.client.is_none() {
                self.client = Client::try_connect(&self.shared.address).ok();
                if self.client.is_none() && began.elapsed() > PATIENCE {
                    return Err(Trouble::Lost);
                }
                thread::sleep(Duration::from_millis(5));
            }
        }
        self.client.as_mut().ok_or(Trouble::Lost)
    }

    fn ask<R: kafka_protocol::protocol::Request>(&mut self, request: &R, version: i16) -> Attempt<R::Response> {
        let answer = self.client()?.call(request, version);
        answer.map_err(|_| {
            self.client = None;
            Trouble::Lost
        })
    }

    fn initialise(&mut self) -> Attempt<()> {
        let began = Instant::now();
        loop {
            let request = InitProducerIdRequest::default()
                .with_transactional_id(Some(self.id.clone()))
                .with_transaction_timeout_ms(4_000);
            let answer = self.ask(&request, 4)?;
            match answer.error_code {
                0 => {
                    self.identity = Some((answer.producer_id.0, answer.producer_epoch, [0; PARTITIONS as usize]));
                    return Ok(());
                }
                51 if began.elapsed() < PATIENCE => thread::sleep(Duration::from_millis(10)),
                code => return Err(refused(code)),
            }
        }
    }

    /// One transaction, and its line in the history.
    fn transaction(&mut self) {
        self.count += 1;
        let name = format!("{}-{}", self.number, self.count);
        let mut done = Transaction { name, writes: vec![], unanswered: vec![], outcome: Outcome::Aborted };
        let written = self.write(&mut done);
        // some producers die in the middle: what they wrote is aborted by their successor, or by time
        let dies = self.random.random_bool(0.15);
        let commits = self.random.random_bool(0.75);
        let clean = match written {
            Ok(()) if dies => Err(Trouble::Lost),
            Ok(()) => self.end(commits, &mut done),
            Err(trouble) => Err(trouble),
        };
        if clean.is_err() {
            self.client = None;
            self.identity = None;
        }
        if done.outcome == Outcome::Committed {
            self.shared.commits.fetch_add(1, Ordering::Relaxed);
        }
        self.shared.transactions.lock().unwrap().push(done);
    }

    fn write(&mut self, done: &mut Transaction) -> Attempt<()> {
        let partitions: Vec<i32> = (0..PARTITIONS).filter(|_| self.random.random_bool(0.6)).collect();
        if !self.two {
            self.add(&partitions)?;
        }
        for round in 0..self.random.random_range(1..4) {
            for partition in &partitions {
                let value = format!("{}:{round}:{partition}", done.name);
                match self.produce(*partition, &value) {
                    Ok(()) => done.writes.push((*partition, value)),
                    Err(Trouble::Lost) => {
                        done.unanswered.push((*partition, value));
                        return Err(Trouble::Lost);
                    }
                    Err(refused) => return Err(refused),
                }
            }
            if self.random.random_bool(0.02) {
                thread::sleep(Duration::from_millis(5_500)); // too slow: it is aborted meanwhile
            }
        }
        Ok(())
    }

    fn add(&mut self, partitions: &[i32]) -> Attempt<()> {
        let (producer, epoch, _) = self.identity.expect("initialised");
        let topic = add_partitions_to_txn_request::AddPartitionsToTxnTopic::default()
            .with_name(TopicName(StrBytes::from_static_str(TOPIC)))
            .with_partitions(partitions.to_vec());
        let request = AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(self.id.clone())
            .with_v3_and_below_producer_id(ProducerId(producer))
            .with_v3_and_below_producer_epoch(epoch)
            .with_v3_and_below_topics(vec![topic]);
        let answer = self.ask(&request, 3)?;
        let results = answer.results_by_topic_v3_and_below.iter().flat_map(|topic| &topic.results_by_partition);
        match results.map(|result| result.partition_error_code).find(|code| *code != 0) {
            None => Ok(()),
            Some(code) => Err(refused(code)),
        }
    }

    fn produce(&mut self, partition: i32, value: &str) -> Attempt<()> {
        let (producer_id, epoch, mut sequences) = self.identity.expect("initialised");
        let sequence = sequences[partition as usize];
        let record = PlainRecord { value: Some(value.to_owned()), ..PlainRecord::default() };
        let records = batch(&[record], Identity { producer_id, epoch, sequence, transactional: true });
        let data = produce_request::PartitionProduceData::default().with_index(partition).with_records(Some(records));
        let topic = produce_request::TopicProduceData::default()
            .with_name(TopicName(StrBytes::from_static_str(TOPIC)))
            .with_partition_data(vec![data]);
        let request = ProduceRequest::default()
            .with_transactional_id(Some(self.id.clone()))
            .with_acks(-1)
            .with_timeout_ms(10_000)
            .with_topic_data(vec![topic]);
        // an answer that does not come is asked for again, as clients do
        let version = if self.two { 12 } else { 11 };
        let answer = match self.ask(&request, version) {
            Err(Trouble::Lost) if self.random.random_bool(0.7) => self.ask(&request, version)?,
            answer => answer?,
        };
        match answer.responses[0].partition_responses[0].error_code {
            0 => {
                sequences[partition as usize] = sequence + 1;
                self.identity = Some((producer_id, epoch, sequences));
                Ok(())
            }
            code => Err(refused(code)),
        }
    }

    fn end(&mut self, commits: bool, done: &mut Transaction) -> Attempt<()> {
        let (producer, epoch, sequences) = self.identity.expect("initialised");
        let nothing = done.writes.is_empty();
        let request = EndTxnRequest::default()
            .with_transactional_id(self.id.clone())
            .with_producer_id(ProducerId(producer))
            .with_producer_epoch(epoch)
            .with_committed(commits);
        let version = if self.two { 5 } else { 3 };
        if nothing {
            return Ok(()); // a client does not ask then
        }
        let mut answered = self.ask(&request, version);
        for _ in 0..3 {
            if matches!(answered, Err(Trouble::Lost)) {
                answered = self.ask(&request, version);
            }
        }
        match answered {
            Err(trouble) => {
                done.outcome = if commits { Outcome::Unknown } else { Outcome::Aborted };
                Err(trouble)
            }
            Ok(answer) if answer.error_code == 0 => {
                done.outcome = if commits { Outcome::Committed } else { Outcome::Aborted };
                self.identity = Some(match self.two {
                    true => (answer.producer_id.0, answer.producer_epoch, [0; PARTITIONS as usize]),
                    false => (producer, epoch, sequences),
                });
                Ok(())
            }
            Ok(answer) => {
                // a first try may have gone well before a successor came
                done.outcome = if commits { Outcome::Unknown } else { Outcome::Aborted };
                Err(refused(answer.error_code))
            }
        }
    }
}

/// Reads what is committed until told to stop.
fn follow(shared: &Shared) -> BTreeMap<i32, Reads> {
    let mut reads: BTreeMap<i32, Reads> = (0..PARTITIONS).map(|partition| (partition, vec![])).collect();
    let mut next = [0_i64; PARTITIONS as usize];
    let mut client = None;
    while !shared.stop.load(Ordering::Relaxed) {
        if client.is_none() {
            client = Client::try_connect(&shared.address).ok();
        }
        for partition in 0..PARTITIONS {
            let Some(connected) = &mut client else { break };
            match fetch(connected, partition, next[partition as usize]) {
                Ok(data) => {
                    let (found, at) = committed(&data, next[partition as usize]);
                    next[partition as usize] = at;
                    reads.entry(partition).or_default().extend(found);
                }
                Err(_) => client = None,
            }
        }
        thread::sleep(Duration::from_millis(10));
    }
    reads
}

fn read_all(address: &str) -> BTreeMap<i32, Reads> {
    let mut client = Client::connect(address);
    let mut all = BTreeMap::new();
    for partition in 0..PARTITIONS {
        let (mut next, mut reads) = (0, vec![]);
        loop {
            let data = fetch(&mut client, partition, next).unwrap();
            let (found, at) = committed(&data, next);
            reads.extend(found);
            if at == next {
                assert_eq!(at, data.high_watermark, "partition {partition} is read to its end");
                break;
            }
            next = at;
        }
        all.insert(partition, reads);
    }
    all
}

fn fetch(client: &mut Client, partition: i32, offset: i64) -> Result<fetch_response::PartitionData, String> {
    let mut request = fetch_request((TOPIC, partition), offset, true);
    request.topics[0].partitions[0].partition_max_bytes = 1 << 16;
    let mut answer = client.call(&request, 12)?;
    let data = answer.responses.remove(0).partitions.remove(0);
    if data.error_code != 0 { Err(format!("error {}", data.error_code)) } else { Ok(data) }
}

/// What a reader of committed data takes from an answer, as Kafka's consumer does, and where it goes on.
pub fn committed(data: &fetch_response::PartitionData, from: i64) -> (Reads, i64) {
    let mut aborted: Vec<(i64, i64)> =
        data.aborted_transactions.iter().flatten().map(|one| (one.first_offset, one.producer_id.0)).collect();
    aborted.sort_unstable();
    let mut aborted = aborted.into_iter().peekable();
    let mut open: HashSet<i64> = HashSet::new();
    let mut rest = data.records.clone().unwrap_or_default();
    let (mut reads, mut next) = (Vec::new(), from);
    while rest.len() > 12 {
        let length = i32::from_be_bytes(rest[8..12].try_into().unwrap()) as usize + 12;
        let mut one: Bytes = rest.split_to(length);
        let last_delta = i32::from_be_bytes(one[23..27].try_into().unwrap());
        let base = i64::from_be_bytes(one[0..8].try_into().unwrap());
        for record in RecordBatchDecoder::decode(&mut one).unwrap().records {
            while let Some((_, producer)) = aborted.next_if(|(first, _)| *first <= record.offset) {
                open.insert(producer);
            }
            if record.control {
                if record.key.as_deref().is_some_and(|key| key[3] == 0) {
                    open.remove(&record.producer_id);
                }
                continue;
            }
            let skipped = record.transactional && open.contains(&record.producer_id);
            if !skipped && record.offset >= from {
                let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
                reads.push((record.offset, value));
            }
        }
        next = base + i64::from(last_delta) + 1;
    }
    (reads, next)
}
