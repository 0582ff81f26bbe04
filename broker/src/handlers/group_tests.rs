//! The answers about groups that have something in them, in every version: the codec refuses a field that a version lacks,
//! so each of them has to be tried.

use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Request, StrBytes};
use tokio::sync::watch;

use super::tests::context;
use super::{Context, Reply, api, encode};
use crate::{Broker, BrokerConfig, Clock, NewTopic};

struct Client {
    context: Context,
    _end: watch::Sender<bool>,
    _dir: tempfile::TempDir,
}

impl Client {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = BrokerConfig {
            data_dir: dir.path().to_owned(),
            group_initial_rebalance_delay_ms: 0,
            ..BrokerConfig::default()
        };
        let broker = Broker::open(config, Clock::manual(1_000)).await.unwrap();
        let new = NewTopic { name: "t".into(), partitions: 2, ..NewTopic::default() };
        broker.catalog().create(new).await.unwrap();
        let (end, ending) = watch::channel(false);
        let context = context(broker, ending);
        Self { context, _end: end, _dir: dir }
    }

    /// The broker ends and another one opens what it left.
    async fn restart(&mut self) {
        let config = self.context.broker.config().clone();
        self.context.broker.stop().await.unwrap();
        // the old one lets go of its store first
        self.context.broker = Client::new().await.context.broker;
        self.context.broker = Broker::open(config, Clock::manual(2_000)).await.unwrap();
    }

    async fn ask<Q: Request>(&self, version: i16, request: &Q) -> Q::Response {
        let body = encode(version, request).unwrap();
        let mut reply = (api(Q::KEY).unwrap().handle)(&self.context, version, body).unwrap();
        while let Reply::Later(answer) = reply {
            reply = answer.await;
        }
        let (Reply::Now(chunks) | Reply::Held(chunks, _)) = reply else {
            panic!("key {} version {version}: no reply", Q::KEY)
        };
        Q::Response::decode(&mut Bytes::from(chunks.concat()), version).unwrap()
    }

    /// A group of one member, with an assignment and an offset, by requests of these versions. Gives the member's id.
    async fn group(&self, name: &str, [join, sync, commit]: [i16; 3]) -> StrBytes {
        let protocol = JoinGroupRequestProtocol::default().with_name(text("range")).with_metadata(Bytes::from("m"));
        let mut asked = JoinGroupRequest::default()
            .with_group_id(GroupId(text(name)))
            .with_session_timeout_ms(10_000)
            .with_protocol_type(text("consumer"))
            .with_protocols(vec![protocol]);
        if join >= 1 {
            asked = asked.with_rebalance_timeout_ms(10_000);
        }
        if join >= 5 {
            asked = asked.with_group_instance_id(Some(text("instance")));
        }
        let mut joined = self.ask(join, &asked).await;
        if joined.error_code == 79 {
            asked = asked.with_member_id(joined.member_id);
            joined = self.ask(join, &asked).await;
        }
        assert_eq!((joined.error_code, joined.generation_id, joined.members.len()), (0, 1, 1), "version {join}");
        assert_eq!(joined.protocol_type.is_some(), join >= 7);
        assert_eq!(joined.members[0].group_instance_id.is_some(), join >= 5);
        let id = joined.member_id;
        let given = SyncGroupRequestAssignment::default().with_member_id(id.clone()).with_assignment(Bytes::from("a"));
        let mut asked = SyncGroupRequest::default()
            .with_group_id(GroupId(text(name)))
            .with_generation_id(1)
            .with_member_id(id.clone())
            .with_assignments(vec![given]);
        if sync >= 5 {
            assert_eq!(self.ask(sync, &asked).await.error_code, 23, "it says no protocol");
            asked = asked.with_protocol_type(Some(text("consumer"))).with_protocol_name(Some(text("range")));
        }
        let synced = self.ask(sync, &asked).await;
        assert_eq!((synced.error_code, &synced.assignment[..]), (0, &b"a"[..]), "version {sync}");
        assert_eq!(synced.protocol_name.is_some(), sync >= 5);
        let partition = OffsetCommitRequestPartition::default()
            .with_partition_index(1)
            .with_committed_offset(7)
            .with_committed_leader_epoch(if commit >= 6 { 3 } else { -1 })
            .with_committed_metadata(Some(text("note")));
        let unknown = OffsetCommitRequestPartition::default().with_partition_index(2);
        let topic = OffsetCommitRequestTopic::default()
            .with_name(TopicName(text("t")))
            .with_partitions(vec![partition, unknown]);
        let asked = OffsetCommitRequest::default()
            .with_group_id(GroupId(text(name)))
            .with_generation_id_or_member_epoch(1)
            .with_member_id(id.clone())
            .with_topics(vec![topic]);
        let committed = self.ask(commit, &asked).await;
        let codes: Vec<i16> = committed.topics[0].partitions.iter().map(|partition| partition.error_code).collect();
        assert_eq!(codes, [0, 3], "version {commit}");
        id
    }
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_with_members_answer_in_every_version() {
    let client = Client::new().await;
    for version in 0..=9 {
        let name = format!("g{version}");
        let id = client.group(&name, [version, version.min(5), version.clamp(2, 9)]).await;
        let group = GroupId(text(&name));
        let beat = HeartbeatRequest::default().with_group_id(group.clone()).with_generation_id(1);
        let beat = client.ask(version.min(4), &beat.with_member_id(id.clone())).await;
        assert_eq!(beat.error_code, 0);
        let leave = LeaveGroupRequest::default().with_group_id(group);
        let leave = if version < 3 {
            leave.with_member_id(id)
        } else {
            leave.with_members(vec![MemberIdentity::default().with_member_id(id)])
        };
        let left = client.ask(version.min(5), &leave).await;
        assert_eq!((left.error_code, left.members.len()), (0, usize::from(version >= 3)));
        assert!(left.members.iter().all(|member| member.error_code == 0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_are_described_in_every_version() {
    let client = Client::new().await;
    client.group("g", [9, 5, 9]).await;
    for version in 0..=6 {
        let asked = DescribeGroupsRequest::default().with_groups(vec![GroupId(text("g")), GroupId(text("absent"))]);
        let described = client.ask(version, &asked).await.groups;
        let (group, absent) = (&described[0], &described[1]);
        assert_eq!((group.group_state.as_str(), group.protocol_data.as_str()), ("Stable", "range"));
        let member = &group.members[0];
        assert_eq!((&member.member_assignment[..], member.client_host.as_str()), (&b"a"[..], "/127.0.0.1"));
        assert_eq!(member.group_instance_id.is_some(), version >= 4);
        assert_eq!(absent.error_code, if version >= 6 { 69 } else { 0 });
        assert_eq!(absent.group_state.as_str(), "Dead");
    }
    for version in 0..=5 {
        let listed = client.ask(version, &ListGroupsRequest::default()).await.groups;
        assert_eq!((listed.len(), listed[0].protocol_type.as_str()), (1, "consumer"));
        assert_eq!(listed[0].group_state.as_str(), if version >= 4 { "Stable" } else { "" });
    }
    for version in 0..=2 {
        let asked = DeleteGroupsRequest::default().with_groups_names(vec![GroupId(text("g")), GroupId(text("absent"))]);
        let codes: Vec<i16> = client.ask(version, &asked).await.results.iter().map(|one| one.error_code).collect();
        assert_eq!(codes, [68, 69]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consumer_groups_answer_in_every_version_and_keep_their_members_over_a_restart() {
    let mut client = Client::new().await;
    let group = GroupId(text("g"));
    let beat = |member: &str, epoch: i32| {
        ConsumerGroupHeartbeatRequest::default()
            .with_group_id(group.clone())
            .with_member_id(text(member))
            .with_member_epoch(epoch)
            .with_rebalance_timeout_ms(if epoch == 0 { 10_000 } else { -1 })
            .with_subscribed_topic_names((epoch == 0).then(|| vec![TopicName(text("t"))]))
            .with_topic_partitions((epoch == 0).then(Vec::new))
    };
    let joined = client.ask(0, &beat("", 0)).await;
    let own = joined.assignment.expect("told when it joins").topic_partitions;
    assert_eq!((joined.error_code, joined.member_epoch, own[0].partitions.clone()), (0, 2, vec![0, 1]));
    let id = joined.member_id.expect("version 0 gives an id");
    let again = client.ask(1, &beat(&id, 2)).await;
    assert_eq!((again.error_code, again.assignment), (0, None));
    assert_eq!(client.ask(1, &beat("", 0)).await.error_code, 42);
    assert_eq!(client.ask(1, &beat(&id, 9)).await.error_code, 110);
    let asked = ConsumerGroupDescribeRequest::default().with_group_ids(vec![group.clone(), GroupId(text("absent"))]);
    let mut before = Vec::new();
    for version in 0..=1 {
        let described = client.ask(version, &asked).await.groups;
        let member = &described[0].members[0];
        let shown = (described[0].group_state.as_str(), member.member_epoch, member.member_type);
        assert_eq!(shown, ("Stable", 2, if version >= 1 { 1 } else { -1 }));
        let topic = &member.assignment.topic_partitions[0];
        assert_eq!((topic.topic_name.as_str(), &topic.partitions[..]), ("t", &[0, 1][..]));
        assert_eq!((described[1].error_code, described[1].members.len()), (69, 0));
        before = described;
    }
    client.restart().await;
    assert_eq!(client.ask(1, &asked).await.groups, before);
    assert_eq!(client.ask(1, &beat(&id, 2)).await.error_code, 0, "it goes on in its epoch");
    assert_eq!(client.ask(1, &beat(&id, -1)).await.error_code, 0);
    let deleted = DeleteGroupsRequest::default().with_groups_names(vec![group.clone()]);
    assert_eq!(client.ask(2, &deleted).await.results[0].error_code, 0);
    client.restart().await;
    let shown = client.ask(5, &ListGroupsRequest::default()).await.groups;
    assert!(shown.is_empty(), "nothing is left in the store: {shown:?}");
}

/// As Kafka's broker, which looks at the topics before it asks the coordinator, and asks it for the others alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_that_are_not_there_say_so_whatever_the_group_says() {
    let client = Client::new().await;
    client.group("g", [9, 5, 9]).await;
    for (partitions, expected) in [(vec![1, 2], vec![25, 3]), (vec![2], vec![3])] {
        let of = |index| OffsetCommitRequestPartition::default().with_partition_index(index).with_committed_offset(1);
        let topic = OffsetCommitRequestTopic::default().with_name(TopicName(text("t")));
        let topics = vec![topic.with_partitions(partitions.into_iter().map(of).collect())];
        let asked = OffsetCommitRequest::default()
            .with_group_id(GroupId(text("g")))
            .with_generation_id_or_member_epoch(1)
            .with_member_id(text("stranger"))
            .with_topics(topics);
        let answer = client.ask(9, &asked).await;
        let codes: Vec<i16> = answer.topics[0].partitions.iter().map(|partition| partition.error_code).collect();
        assert_eq!(codes, expected);
        // nor does a group begin to be
        let alone = asked.with_group_id(GroupId(text("new"))).with_generation_id_or_member_epoch(-1);
        client.ask(9, &alone.with_member_id(text("")).with_topics(vec![])).await;
        assert_eq!(client.ask(5, &ListGroupsRequest::default()).await.groups.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_are_fetched_in_every_version() {
    let client = Client::new().await;
    client.group("g", [9, 5, 9]).await;
    let name = TopicName(text("t"));
    for version in 1..=7 {
        let wanted = OffsetFetchRequestTopic::default().with_name(name.clone()).with_partition_indexes(vec![0, 1]);
        let asked = OffsetFetchRequest::default().with_group_id(GroupId(text("g"))).with_topics(Some(vec![wanted]));
        let fetched = client.ask(version, &asked).await;
        let partitions = &fetched.topics[0].partitions;
        assert_eq!((partitions[0].committed_offset, partitions[1].committed_offset), (-1, 7));
        assert_eq!(partitions[1].committed_leader_epoch, if version >= 5 { 3 } else { -1 });
        assert_eq!(partitions[1].metadata.as_ref().map(|note| note.as_str()), Some("note"));
        if version >= 2 {
            let all = client.ask(version, &asked.with_topics(None)).await;
            assert_eq!((all.error_code, all.topics[0].partitions.len()), (0, 1));
        }
    }
    for version in 8..=9 {
        let wanted = OffsetFetchRequestTopics::default().with_name(name.clone()).with_partition_indexes(vec![1]);
        let known = OffsetFetchRequestGroup::default().with_group_id(GroupId(text("g")));
        let groups = vec![
            known.clone().with_topics(Some(vec![wanted])),
            known.with_topics(None),
            OffsetFetchRequestGroup::default().with_group_id(GroupId(text("absent"))).with_topics(None),
        ];
        let fetched = client.ask(version, &OffsetFetchRequest::default().with_groups(groups)).await.groups;
        for group in &fetched[..2] {
            let partition = &group.topics[0].partitions[0];
            assert_eq!((partition.committed_offset, partition.committed_leader_epoch), (7, 3));
        }
        assert!(fetched[2].topics.is_empty() && fetched[2].error_code == 0);
    }
}
