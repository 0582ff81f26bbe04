//! Requests that ask for several at once, or by topic id, where those of `calls` ask for one by its name; and bytes as they are.

use super::calls::{ask, fetched, group_id, text, topic_name};
use super::groups::known;
use crate::support::raw::{Client, Identity, PlainRecord, batch};
use bytes::{BufMut, BytesMut};
use kafka_protocol::messages::metadata_response::MetadataResponseTopic;
use kafka_protocol::messages::*;
use serde::Deserialize;
use serde_json::{Value, json};

/// Names of the calls of this file.
const CALLS: [&str; 12] = [
    "bytes",
    "commit_many",
    "delete_records_many",
    "epochs_many",
    "features_many",
    "fetch_many",
    "list_offsets_many",
    "log_dirs",
    "metadata_as",
    "offsets_many",
    "partitions_many",
    "produce_many",
];

#[derive(Deserialize)]
#[serde(tag = "call", rename_all = "snake_case", deny_unknown_fields)]
pub enum ManyCall {
    /// A request of any API and version; its body in hexadecimal, so is the answer.
    Bytes {
        key: i16,
        version: i16,
        /// Whether the header has tagged fields.
        #[serde(default)]
        flexible: bool,
        body: String,
    },
    /// OffsetCommit of several offsets.
    CommitMany {
        version: i16,
        group: String,
        #[serde(default)]
        member_id: String,
        #[serde(default = "minus_one")]
        generation: i32,
        #[serde(default = "minus_one_64")]
        retention_ms: i64,
        offsets: Vec<Committed>,
    },
    DeleteRecordsMany {
        version: i16,
        /// Topic, partition and offset.
        partitions: Vec<(String, i32, i64)>,
    },
    /// OffsetForLeaderEpoch.
    EpochsMany { version: i16, partitions: Vec<Epochs> },
    FeaturesMany {
        version: i16,
        /// Feature, level and kind of upgrade.
        updates: Vec<(String, i16, i8)>,
        #[serde(default)]
        validate_only: bool,
    },
    /// Fetch; from version 13 by topic id.
    FetchMany {
        version: i16,
        #[serde(default = "one")]
        min_bytes: i32,
        #[serde(default = "a_mebibyte")]
        max_bytes: i32,
        #[serde(default)]
        wait_ms: i32,
        #[serde(default)]
        isolation: i8,
        partitions: Vec<Wanted>,
    },
    ListOffsetsMany {
        version: i16,
        #[serde(default)]
        isolation: i8,
        partitions: Vec<Position>,
    },
    /// DescribeLogDirs.
    LogDirs { version: i16, topics: Vec<(String, Vec<i32>)> },
    MetadataAs {
        version: i16,
        #[serde(default)]
        names: Vec<String>,
        /// Each of a topic without a name.
        #[serde(default)]
        ids: Vec<String>,
        #[serde(default)]
        auto_create: bool,
    },
    /// OffsetFetch of several groups.
    OffsetsMany {
        version: i16,
        groups: Vec<GroupOffsets>,
        #[serde(default)]
        stable: bool,
    },
    /// CreatePartitions: topics with their counts.
    PartitionsMany {
        version: i16,
        topics: Vec<(String, i32)>,
        #[serde(default)]
        validate_only: bool,
    },
    /// Produce; from version 13 by topic id.
    ProduceMany {
        version: i16,
        #[serde(default = "all")]
        acks: i16,
        transactional_id: Option<String>,
        batches: Vec<Sent>,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Committed {
    topic: String,
    #[serde(default)]
    partition: i32,
    offset: i64,
    #[serde(default = "minus_one")]
    leader_epoch: i32,
    metadata: Option<String>,
    /// Length of the metadata, in place of what it says.
    fill: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Epochs {
    topic: String,
    #[serde(default)]
    partition: i32,
    #[serde(default = "minus_one")]
    current: i32,
    epoch: i32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    topic: String,
    /// In place of the topic's own.
    id: Option<String>,
    #[serde(default)]
    partition: i32,
    offset: i64,
    #[serde(default = "minus_one")]
    leader_epoch: i32,
    #[serde(default = "minus_one")]
    last_fetched_epoch: i32,
    #[serde(default = "a_mebibyte")]
    max_bytes: i32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    topic: String,
    #[serde(default)]
    partition: i32,
    timestamp: i64,
    #[serde(default = "minus_one")]
    leader_epoch: i32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupOffsets {
    group: String,
    /// None for all.
    topics: Option<Vec<(String, Vec<i32>)>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sent {
    topic: String,
    /// In place of the topic's own.
    id: Option<String>,
    #[serde(default)]
    partition: i32,
    /// None for no records at all, which is not the same as none in a batch.
    records: Option<Vec<PlainRecord>>,
    damage: Option<String>,
    /// How many such batches follow one another.
    #[serde(default = "once")]
    times: usize,
    producer_id: Option<i64>,
    #[serde(default)]
    producer_epoch: i16,
    #[serde(default)]
    sequence: i32,
    #[serde(default)]
    transactional: bool,
}

fn all() -> i16 {
    -1
}
fn one() -> i32 {
    1
}
fn once() -> usize {
    1
}
fn minus_one() -> i32 {
    -1
}
fn minus_one_64() -> i64 {
    -1
}
fn a_mebibyte() -> i32 {
    1 << 20
}

/// Whether a step is one of these.
pub fn is_here(request: &toml::Value) -> bool {
    request["call"].as_str().is_some_and(|call| CALLS.contains(&call))
}

/// Items one after another, those of one topic together.
fn by_topic<T>(items: impl IntoIterator<Item = (String, T)>) -> Vec<(String, Vec<T>)> {
    let mut topics: Vec<(String, Vec<T>)> = Vec::new();
    for (topic, item) in items {
        match topics.last_mut().filter(|last| last.0 == topic) {
            Some(last) => last.1.push(item),
            None => topics.push((topic, vec![item])),
        }
    }
    topics
}

/// What this broker says of a topic, of which the id counts; or the id that is given in its place.
fn identified(client: &mut Client, topic: &str, given: Option<&str>) -> Result<MetadataResponseTopic, String> {
    match given {
        Some(id) => Ok(MetadataResponseTopic::default().with_topic_id(id.parse().expect("a topic id is a uuid"))),
        None => known(client, topic),
    }
}

impl ManyCall {
    pub fn send(self, client: &mut Client) -> Result<Value, String> {
        match self {
            ManyCall::Bytes { .. } => self.bytes(client),
            ManyCall::CommitMany { .. } | ManyCall::OffsetsMany { .. } => self.offsets(client),
            ManyCall::FetchMany { .. } => self.fetch(client),
            ManyCall::ProduceMany { .. } => self.produce(client),
            ManyCall::ListOffsetsMany { .. } | ManyCall::EpochsMany { .. } | ManyCall::DeleteRecordsMany { .. } => {
                self.positions(client)
            }
            _ => self.topics(client),
        }
    }

    fn bytes(self, client: &mut Client) -> Result<Value, String> {
        let ManyCall::Bytes { key, version, flexible, body } = self else { unreachable!("not bytes") };
        let digits: Vec<u8> = body.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        let body = digits.chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
        let body: Vec<u8> = body.map(|pair| u8::from_str_radix(pair, 16).expect("hexadecimal")).collect();
        let mut request = BytesMut::new();
        request.put_i16(key);
        request.put_i16(version);
        request.put_i32(7);
        request.put_i16(-1);
        if flexible {
            request.put_u8(0);
        }
        request.put_slice(&body);
        let mut frame = BytesMut::new();
        frame.put_i32(request.len() as i32);
        frame.put(request);
        client.send_bytes(&frame)?;
        let answer = client.read_frame()?;
        Ok(json!({ "bytes": answer.iter().map(|byte| format!("{byte:02x}")).collect::<String>() }))
    }

    fn produce(self, client: &mut Client) -> Result<Value, String> {
        let ManyCall::ProduceMany { version, acks, transactional_id, batches } = self else {
            unreachable!("not a produce")
        };
        let mut topics: Vec<produce_request::TopicProduceData> = Vec::new();
        for sent in batches {
            let mut topic = produce_request::TopicProduceData::default();
            match version {
                ..13 => topic.name = topic_name(&sent.topic),
                _ => topic.topic_id = identified(client, &sent.topic, sent.id.as_deref())?.topic_id,
            }
            let data =
                produce_request::PartitionProduceData::default().with_index(sent.partition).with_records(sent.bytes());
            match topics.last_mut().filter(|last| (&last.name, last.topic_id) == (&topic.name, topic.topic_id)) {
                Some(last) => last.partition_data.push(data),
                None => topics.push(topic.with_partition_data(vec![data])),
            }
        }
        let id = transactional_id.as_deref().map(|id| TransactionalId(text(id)));
        let request = ProduceRequest::default().with_transactional_id(id).with_acks(acks).with_timeout_ms(10_000);
        ask(client, &request.with_topic_data(topics), version)
    }

    fn fetch(self, client: &mut Client) -> Result<Value, String> {
        let ManyCall::FetchMany { version, min_bytes, max_bytes, wait_ms, isolation, partitions } = self else {
            unreachable!("not a fetch")
        };
        let mut topics: Vec<fetch_request::FetchTopic> = Vec::new();
        for wanted in partitions {
            let mut topic = fetch_request::FetchTopic::default();
            match version {
                ..13 => topic.topic = topic_name(&wanted.topic),
                _ => topic.topic_id = identified(client, &wanted.topic, wanted.id.as_deref())?.topic_id,
            }
            let mut partition = fetch_request::FetchPartition::default()
                .with_partition(wanted.partition)
                .with_fetch_offset(wanted.offset)
                .with_partition_max_bytes(wanted.max_bytes);
            if version >= 9 {
                partition.current_leader_epoch = wanted.leader_epoch;
            }
            if version >= 12 {
                partition.last_fetched_epoch = wanted.last_fetched_epoch;
            }
            match topics.last_mut().filter(|last| (&last.topic, last.topic_id) == (&topic.topic, topic.topic_id)) {
                Some(last) => last.partitions.push(partition),
                None => topics.push(topic.with_partitions(vec![partition])),
            }
        }
        let mut request = FetchRequest::default()
            .with_max_wait_ms(wait_ms)
            .with_min_bytes(min_bytes)
            .with_max_bytes(max_bytes)
            .with_isolation_level(isolation)
            .with_topics(topics);
        if version >= 7 {
            request = request.with_session_id(0).with_session_epoch(-1);
        }
        fetched(client.call(&request, version)?, false)
    }

    fn positions(self, client: &mut Client) -> Result<Value, String> {
        match self {
            ManyCall::ListOffsetsMany { version, isolation, partitions } => {
                let topics = by_topic(partitions.into_iter().map(|wanted| {
                    let mut partition = list_offsets_request::ListOffsetsPartition::default()
                        .with_partition_index(wanted.partition)
                        .with_timestamp(wanted.timestamp);
                    if version >= 4 {
                        partition.current_leader_epoch = wanted.leader_epoch;
                    }
                    (wanted.topic, partition)
                }));
                let topics = topics.into_iter().map(|(topic, partitions)| {
                    list_offsets_request::ListOffsetsTopic::default()
                        .with_name(topic_name(&topic))
                        .with_partitions(partitions)
                });
                let mut request =
                    ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(topics.collect());
                if version >= 2 {
                    request.isolation_level = isolation;
                }
                ask(client, &request, version)
            }
            ManyCall::EpochsMany { version, partitions } => {
                let topics = by_topic(partitions.into_iter().map(|wanted| {
                    let partition = offset_for_leader_epoch_request::OffsetForLeaderPartition::default()
                        .with_partition(wanted.partition)
                        .with_current_leader_epoch(wanted.current)
                        .with_leader_epoch(wanted.epoch);
                    (wanted.topic, partition)
                }));
                let topics = topics.into_iter().map(|(topic, partitions)| {
                    offset_for_leader_epoch_request::OffsetForLeaderTopic::default()
                        .with_topic(topic_name(&topic))
                        .with_partitions(partitions)
                });
                let mut request = OffsetForLeaderEpochRequest::default().with_topics(topics.collect());
                if version >= 3 {
                    request.replica_id = BrokerId(-1);
                }
                ask(client, &request, version)
            }
            ManyCall::DeleteRecordsMany { version, partitions } => {
                let topics = by_topic(partitions.into_iter().map(|(topic, index, offset)| {
                    let partition = delete_records_request::DeleteRecordsPartition::default()
                        .with_partition_index(index)
                        .with_offset(offset);
                    (topic, partition)
                }));
                let topics = topics.into_iter().map(|(topic, partitions)| {
                    delete_records_request::DeleteRecordsTopic::default()
                        .with_name(topic_name(&topic))
                        .with_partitions(partitions)
                });
                let request = DeleteRecordsRequest::default().with_topics(topics.collect());
                ask(client, &request.with_timeout_ms(10_000), version)
            }
            _ => unreachable!("not about positions"),
        }
    }

    fn offsets(self, client: &mut Client) -> Result<Value, String> {
        match self {
            ManyCall::CommitMany { version, group, member_id, generation, retention_ms, offsets } => {
                let topics = by_topic(offsets.into_iter().map(|one| {
                    let metadata = one.fill.map(|length| "m".repeat(length)).or(one.metadata);
                    let mut partition = offset_commit_request::OffsetCommitRequestPartition::default()
                        .with_partition_index(one.partition)
                        .with_committed_offset(one.offset)
                        .with_committed_metadata(metadata.as_deref().map(text));
                    if version >= 6 {
                        partition.committed_leader_epoch = one.leader_epoch;
                    }
                    (one.topic, partition)
                }));
                let topics = topics.into_iter().map(|(topic, partitions)| {
                    offset_commit_request::OffsetCommitRequestTopic::default()
                        .with_name(topic_name(&topic))
                        .with_partitions(partitions)
                });
                let mut request = OffsetCommitRequest::default()
                    .with_group_id(group_id(&group))
                    .with_generation_id_or_member_epoch(generation)
                    .with_member_id(text(&member_id))
                    .with_topics(topics.collect());
                if version <= 4 {
                    request.retention_time_ms = retention_ms;
                }
                ask(client, &request, version)
            }
            ManyCall::OffsetsMany { version, groups, stable } => {
                let groups = groups.into_iter().map(|one| {
                    let topic = |(topic, partitions): (String, Vec<i32>)| {
                        offset_fetch_request::OffsetFetchRequestTopics::default()
                            .with_name(topic_name(&topic))
                            .with_partition_indexes(partitions)
                    };
                    offset_fetch_request::OffsetFetchRequestGroup::default()
                        .with_group_id(group_id(&one.group))
                        .with_topics(one.topics.map(|topics| topics.into_iter().map(topic).collect()))
                });
                let request = OffsetFetchRequest::default().with_groups(groups.collect());
                ask(client, &request.with_require_stable(stable), version)
            }
            _ => unreachable!("not about offsets"),
        }
    }

    fn topics(self, client: &mut Client) -> Result<Value, String> {
        match self {
            ManyCall::MetadataAs { version, names, ids, auto_create } => {
                let named = names
                    .iter()
                    .map(|name| metadata_request::MetadataRequestTopic::default().with_name(Some(topic_name(name))));
                let by_id = ids.iter().map(|id| {
                    metadata_request::MetadataRequestTopic::default()
                        .with_name(None)
                        .with_topic_id(id.parse().expect("a topic id is a uuid"))
                });
                let mut request = MetadataRequest::default().with_topics(Some(named.chain(by_id).collect()));
                if version >= 4 {
                    request.allow_auto_topic_creation = auto_create;
                }
                ask(client, &request, version)
            }
            ManyCall::LogDirs { version, topics } => {
                let topics = topics.into_iter().map(|(topic, partitions)| {
                    describe_log_dirs_request::DescribableLogDirTopic::default()
                        .with_topic(topic_name(&topic))
                        .with_partitions(partitions)
                });
                ask(client, &DescribeLogDirsRequest::default().with_topics(Some(topics.collect())), version)
            }
            ManyCall::PartitionsMany { version, topics, validate_only } => {
                let topics = topics.iter().map(|(topic, count)| {
                    create_partitions_request::CreatePartitionsTopic::default()
                        .with_name(topic_name(topic))
                        .with_count(*count)
                        .with_assignments(None)
                });
                let request = CreatePartitionsRequest::default().with_topics(topics.collect()).with_timeout_ms(10_000);
                ask(client, &request.with_validate_only(validate_only), version)
            }
            ManyCall::FeaturesMany { version, updates, validate_only } => {
                let updates = updates.iter().map(|(feature, level, upgrade_type)| {
                    update_features_request::FeatureUpdateKey::default()
                        .with_feature(text(feature))
                        .with_max_version_level(*level)
                        .with_upgrade_type(*upgrade_type)
                });
                let request = UpdateFeaturesRequest::default().with_timeout_ms(10_000);
                ask(client, &request.with_validate_only(validate_only).with_feature_updates(updates.collect()), version)
            }
            _ => unreachable!("not about topics"),
        }
    }
}

impl Sent {
    /// The batches as they are sent.
    fn bytes(&self) -> Option<bytes::Bytes> {
        let identity = self.producer_id.map_or_else(Identity::default, |producer_id| Identity {
            producer_id,
            epoch: self.producer_epoch,
            sequence: self.sequence,
            transactional: self.transactional,
        });
        let records = self.records.as_ref()?;
        let one = super::calls::damaged(batch(records, identity), self.damage.as_deref());
        Some(one.repeat(self.times).into())
    }
}
