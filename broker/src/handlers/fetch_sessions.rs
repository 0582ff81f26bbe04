//! Fetch sessions (KIP-227): a client names its partitions once and then only what changes, and is answered only what changed.
//!
//! - A request with epoch 0 begins a session, one with epoch -1 has none; either ends the session that it names. Later epochs go on:
//!   1, 2, … and after the largest number 1 again.
//! - A session that is not there is FETCH_SESSION_ID_NOT_FOUND, an epoch out of turn INVALID_FETCH_SESSION_EPOCH, topic ids where names
//!   were used FETCH_SESSION_TOPIC_ID_ERROR; the client then begins anew.
//! - Within a session a partition is left out of the answer unless it has records, an error, a diverging epoch, or another high
//!   watermark or log start than it was last given. Partitions that gave records go to the end, so that each has its turn.
//! - `max.incremental.fetch.session.cache.slots` bounds the sessions, and a bound of our own the partitions of all of them. Where there is no
//!   room, the session that was used longest ago makes it if it was idle for two minutes; else there is none (session id 0).

use std::collections::HashMap;

use kafka_protocol::indexmap::IndexMap;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{FetchRequest, TopicName};
use parking_lot::Mutex;

use super::text;
use crate::error::Kind;
use crate::types::{Offset, TopicId};

/// The epoch that begins a session.
const BEGIN: i32 = 0;
/// After how long without use a session may make room for another.
const IDLE_MS: i64 = 120_000;
/// Most partitions of all sessions together, of about a hundred bytes each.
const PARTITIONS_MAX: usize = 500_000;
/// First version that names topics by id.
const BY_ID: i16 = 13;

/// A partition as the client names it: topic by name or id, and number.
pub(super) type Key = (TopicName, TopicId, i32);

/// What a partition gave.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outcome {
    /// Its high watermark.
    pub(super) high_watermark: Offset,
    /// Its log start.
    pub(super) log_start: Offset,
    /// Whether it gave records.
    pub(super) records: bool,
    /// Whether it must be told of whatever else holds: an error, a diverging epoch.
    pub(super) urgent: bool,
    /// Whether that is an error, after which everything is told again.
    pub(super) failed: bool,
}

#[derive(Debug)]
struct Kept {
    asked: FetchPartition,
    high_watermark: Offset,
    log_start: Offset,
}

#[derive(Debug)]
struct Session {
    epoch: i32,
    by_id: bool,
    used_at: i64,
    partitions: IndexMap<Key, Kept>,
}

/// The sessions. Holds: each by its id, with what its client asked for and was last told. Requests change them in their order on a
/// connection. Always true: no more sessions and partitions than the bounds. A crash ends them all, and clients begin anew.
#[derive(Debug, Default)]
pub(crate) struct FetchSessions {
    sessions: Mutex<HashMap<i32, Session>>,
}

/// What a request fetches, after its session was looked at.
#[derive(Debug)]
pub(super) struct Begun {
    /// All partitions that are to be read, in their order.
    pub(super) topics: Vec<FetchTopic>,
    /// The session's id; 0 without one.
    pub(super) id: i32,
    /// Whether what did not change is left out of the answer.
    pub(super) incremental: bool,
}

impl FetchSessions {
    /// Looks at the session of a request, at the time `now`, with at most `slots` sessions.
    pub(super) fn begin(&self, version: i16, request: FetchRequest, (now, slots): (i64, usize)) -> Result<Begun, Kind> {
        let mut sessions = self.sessions.lock();
        let (id, epoch, by_id) = (request.session_id, request.session_epoch, version >= BY_ID);
        if epoch <= BEGIN {
            sessions.remove(&id);
            let wanted = epoch == BEGIN && version >= 7;
            let id = if wanted { begin_session(&mut sessions, &request.topics, by_id, (now, slots)) } else { 0 };
            return Ok(Begun { topics: request.topics, id, incremental: false });
        }
        let all: usize = sessions.values().map(|session| session.partitions.len()).sum();
        let session = sessions.get_mut(&id).ok_or(Kind::FetchSessionIdNotFound)?;
        if session.by_id != by_id {
            return Err(Kind::FetchSessionTopicIdError);
        }
        if session.epoch != epoch {
            return Err(Kind::InvalidFetchSessionEpoch);
        }
        let others = all - session.partitions.len();
        session.update(request);
        if session.partitions.is_empty() {
            sessions.remove(&id);
            return Ok(Begun { topics: Vec::new(), id: 0, incremental: false });
        }
        if others.saturating_add(session.partitions.len()) > PARTITIONS_MAX {
            sessions.remove(&id);
            return Err(Kind::FetchSessionIdNotFound);
        }
        session.epoch = if epoch == i32::MAX { 1 } else { epoch + 1 };
        session.used_at = now;
        Ok(Begun { topics: session.topics(), id, incremental: true })
    }

    /// Notes what the partitions of an answer gave, and says of each whether the answer has it.
    pub(super) fn note(&self, begun: &Begun, outcomes: &[(Key, Outcome)]) -> Vec<bool> {
        let mut sessions = self.sessions.lock();
        let Some(session) = sessions.get_mut(&begun.id) else { return vec![true; outcomes.len()] };
        let told = outcomes.iter().map(|(key, outcome)| session.note(key, *outcome) || !begun.incremental);
        told.collect()
    }
}

/// The id of a new session, 0 if there is no room for it.
fn begin_session(
    sessions: &mut HashMap<i32, Session>,
    topics: &[FetchTopic],
    by_id: bool,
    (now, slots): (i64, usize),
) -> i32 {
    let count: usize = topics.iter().map(|topic| topic.partitions.len()).sum();
    let room = |sessions: &HashMap<i32, Session>| {
        let kept: usize = sessions.values().map(|session| session.partitions.len()).sum();
        sessions.len() < slots && kept.saturating_add(count) <= PARTITIONS_MAX
    };
    if !room(sessions) {
        let oldest = sessions.iter().min_by_key(|(_, session)| session.used_at);
        let idle = oldest.filter(|(_, session)| now - session.used_at > IDLE_MS).map(|(id, _)| *id);
        idle.and_then(|id| sessions.remove(&id));
    }
    if !room(sessions) {
        return 0;
    }
    let mut session = Session { epoch: 1, by_id, used_at: now, partitions: IndexMap::new() };
    session.add(topics);
    let id = loop {
        let id = i32::try_from(uuid::Uuid::new_v4().as_u128() & 0x7fff_ffff).expect("31 bits fit");
        if id != 0 && !sessions.contains_key(&id) {
            break id;
        }
    };
    sessions.insert(id, session);
    id
}

impl Session {
    /// Takes in what the client adds, changes and forgets.
    fn update(&mut self, request: FetchRequest) {
        for forgotten in &request.forgotten_topics_data {
            for index in &forgotten.partitions {
                self.partitions.swap_remove(&(forgotten.topic.clone(), forgotten.topic_id, *index));
            }
        }
        self.add(&request.topics);
    }

    fn add(&mut self, topics: &[FetchTopic]) {
        for topic in topics {
            // copies: the request's frame is not kept
            let name = TopicName(text(&topic.topic));
            for asked in &topic.partitions {
                let asked = asked.clone().with_unknown_tagged_fields(Default::default());
                let key = (name.clone(), topic.topic_id, asked.partition);
                match self.partitions.get_mut(&key) {
                    Some(kept) => kept.asked = asked,
                    None => drop(self.partitions.insert(key, Kept { asked, high_watermark: -1, log_start: -1 })),
                }
            }
        }
    }

    /// All partitions in their order, those of one topic that follow one another together.
    fn topics(&self) -> Vec<FetchTopic> {
        let mut topics: Vec<FetchTopic> = Vec::new();
        for ((name, id, _), kept) in &self.partitions {
            match topics.last_mut() {
                Some(last) if last.topic == *name && last.topic_id == *id => last.partitions.push(kept.asked.clone()),
                _ => topics.push(
                    FetchTopic::default()
                        .with_topic(name.clone())
                        .with_topic_id(*id)
                        .with_partitions(vec![kept.asked.clone()]),
                ),
            }
        }
        topics
    }

    /// Whether the client must be told of a partition.
    fn note(&mut self, key: &Key, outcome: Outcome) -> bool {
        let Some(kept) = self.partitions.get_mut(key) else { return true };
        let moved = kept.high_watermark != outcome.high_watermark || kept.log_start != outcome.log_start;
        kept.log_start = outcome.log_start;
        // after an error all is told again
        kept.high_watermark = if outcome.failed { -1 } else { outcome.high_watermark };
        if outcome.records
            && let Some((_, key, kept)) = self.partitions.swap_remove_full(key)
        {
            self.partitions.insert(key, kept);
        }
        moved || outcome.records || outcome.urgent
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::fetch_request::ForgottenTopic;

    use super::*;

    fn request(session: (i32, i32), partitions: &[(i32, i64)]) -> FetchRequest {
        let asked = |(index, offset): &(i32, i64)| {
            FetchPartition::default().with_partition(*index).with_fetch_offset(*offset).with_partition_max_bytes(1)
        };
        let topic = FetchTopic::default().with_topic(TopicName(text("t")));
        let topics = if partitions.is_empty() {
            Vec::new()
        } else {
            vec![topic.with_partitions(partitions.iter().map(asked).collect())]
        };
        FetchRequest::default().with_session_id(session.0).with_session_epoch(session.1).with_topics(topics)
    }

    fn offsets(begun: &Begun) -> Vec<(i32, i64)> {
        let partitions = begun.topics.iter().flat_map(|topic| &topic.partitions);
        partitions.map(|asked| (asked.partition, asked.fetch_offset)).collect()
    }

    fn gave(index: i32, high_watermark: i64, records: bool) -> (Key, Outcome) {
        let key = (TopicName(text("t")), TopicId::nil(), index);
        (key, Outcome { high_watermark, log_start: 0, records, urgent: false, failed: false })
    }

    #[test]
    fn only_what_changes_is_asked_and_told() {
        let sessions = FetchSessions::default();
        let at = (0, 10);
        let full = sessions.begin(12, request((0, 0), &[(0, 0), (1, 0)]), at).unwrap();
        assert!(full.id > 0 && !full.incremental);
        assert_eq!(sessions.note(&full, &[gave(0, 5, false), gave(1, 5, true)]), [true, true]);
        let next = sessions.begin(12, request((full.id, 1), &[(1, 5)]), at).unwrap();
        assert_eq!(offsets(&next), [(0, 0), (1, 5)]);
        assert_eq!(sessions.note(&next, &[gave(0, 5, true), gave(1, 5, false)]), [true, false]);
        let mut moved = request((full.id, 2), &[]);
        moved.forgotten_topics_data =
            vec![ForgottenTopic::default().with_topic(TopicName(text("t"))).with_partitions(vec![0])];
        let last = sessions.begin(12, moved, at).unwrap();
        assert_eq!(offsets(&last), [(1, 5)]);
        assert_eq!(sessions.note(&last, &[gave(1, 6, false)]), [true]);
        let failed = |failed| {
            let (key, outcome) = gave(1, 6, false);
            (key, Outcome { urgent: failed, failed, ..outcome })
        };
        assert_eq!(sessions.note(&last, &[failed(true)]), [true]);
        assert_eq!(sessions.note(&last, &[failed(false)]), [true], "all is told again after an error");
        assert_eq!(sessions.note(&last, &[failed(false)]), [false]);
    }

    #[test]
    fn partitions_with_records_go_to_the_end() {
        let sessions = FetchSessions::default();
        let full = sessions.begin(12, request((0, 0), &[(0, 0), (1, 0), (2, 0)]), (0, 10)).unwrap();
        sessions.note(&full, &[gave(0, 5, true), gave(1, 5, false), gave(2, 5, false)]);
        let next = sessions.begin(12, request((full.id, 1), &[]), (0, 10)).unwrap();
        assert_eq!(offsets(&next).last(), Some(&(0, 0)));
    }

    #[test]
    fn what_is_out_of_turn_is_refused() {
        let sessions = FetchSessions::default();
        let begin = |version, session| sessions.begin(version, request(session, &[(0, 0)]), (0, 10));
        assert_eq!(begin(12, (7, 1)).unwrap_err(), Kind::FetchSessionIdNotFound);
        assert_eq!(begin(12, (0, -1)).unwrap().id, 0);
        let id = begin(12, (0, 0)).unwrap().id;
        assert_eq!(begin(12, (id, 2)).unwrap_err(), Kind::InvalidFetchSessionEpoch);
        assert_eq!(begin(13, (id, 1)).unwrap_err(), Kind::FetchSessionTopicIdError);
        assert_eq!(begin(12, (id, 1)).unwrap().id, id);
        assert_eq!(begin(12, (id, -1)).unwrap().id, 0);
        assert_eq!(begin(12, (id, 2)).unwrap_err(), Kind::FetchSessionIdNotFound);
    }

    #[test]
    fn sessions_are_bounded_and_idle_ones_make_room() {
        let sessions = FetchSessions::default();
        let begin = |now| sessions.begin(12, request((0, 0), &[(0, 0)]), (now, 2)).unwrap().id;
        let (first, second) = (begin(0), begin(1));
        assert_eq!((first > 0, second > 0, begin(IDLE_MS)), (true, true, 0));
        assert!(begin(IDLE_MS + 1) > 0, "the first one was idle");
        let gone = sessions.begin(12, request((first, 1), &[]), (IDLE_MS + 2, 2));
        assert_eq!(gone.unwrap_err(), Kind::FetchSessionIdNotFound);
        assert_eq!(sessions.begin(12, request((0, 0), &[(0, 0)]), (IDLE_MS + 2, 0)).unwrap().id, 0);
    }
}
