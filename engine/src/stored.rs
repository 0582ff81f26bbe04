//! Checking what the engine stores, in a store that no server works on: it can be read, it belongs to something that is defined, and
//! nothing has read further than its topic goes.

use std::collections::BTreeMap;

use broker::Family;
use broker::check::{Check, Kind, Logs, Place, Remedy};

use crate::definitions::stored::{self, DEFINED};
use crate::derive::stored::{JOIN_PROGRESS, LONELY, WAITING, check_joined};
use crate::error::{EngineError, Result};
use crate::state::{self, Definition, Progress, StoredTelling};
use crate::state::{
    DEFINITION, DERIVED_PROGRESS, MARK, NEXT_VIEW_ID, QUALITY, SESSION, STATE, STREAM_PROGRESS, SUCCESSOR,
    TABLE_PROGRESS, TELLING, UNTOLD, VIEW_PROGRESS,
};

const STATE_DAMAGED: Kind = Kind::wrong("engine state damaged", Remedy::Restore);
const AHEAD: Kind = Kind::wrong("read further than the topic goes", Remedy::Restore);
const OTHER_VIEW: Kind = Kind::wrong("state of another definition", Remedy::Restore);
const SESSION_LOST: Kind = Kind::wrong("session without state", Remedy::Restore);
const ID_TWICE: Kind = Kind::wrong("view id given twice", Remedy::Restore);
const NO_VIEW: Kind = Kind::note("state of no view", Remedy::Nothing);
/// Fingerprint of a view whose topic is being emptied for another definition.
const LEAVING: u64 = 0;

/// Views by id: name and definition.
type Views = BTreeMap<u32, (String, Definition)>;

/// Checks what the engine stores; `logs` are the broker's.
pub fn check_stored(check: &mut Check<'_>, logs: &Logs) {
    // the keys of definitions come before those of what is defined, but for those of versions that are filled, or were served
    let mut views = Views::new();
    check.each(Family::State, (&[SUCCESSOR], &[TELLING + 1]), |check, key, value| match key {
        [TELLING, name @ ..] => {
            let former = StoredTelling::decode(value).map(|telling| telling.former);
            former.into_iter().for_each(|former| define(check, (name, &former.encode()), &mut views));
        }
        _ => define(check, (&key[1..], value), &mut views),
    });
    check.each(Family::State, (&[], &[0xff]), |check, key, value| {
        if let Err(error) = look_at(check, (key, value), logs, &mut views) {
            check.add(STATE_DAMAGED, Place::named(subject(key, &views)), error.message);
        }
    });
}

fn look_at(check: &mut Check<'_>, (key, value): (&[u8], &[u8]), logs: &Logs, views: &mut Views) -> Result<()> {
    match key {
        [DEFINITION, name @ ..] => define(check, (name, value), views),
        [NEXT_VIEW_ID] => {
            let next = state::decode_next_view_id(value)?;
            if let Some((id, (name, _))) = views.range(next..).next() {
                check.add(
                    ID_TWICE,
                    Place::named(format!("view {name}")),
                    format!("it has {id}, the next id is {next}"),
                );
            }
        }
        [VIEW_PROGRESS | STREAM_PROGRESS | DERIVED_PROGRESS, rest @ ..] => {
            let progress = Progress::decode(value)?;
            if key[0] != VIEW_PROGRESS || is_of_a_view(check, rest, views) {
                compare_positions(check, &subject(key, views), &progress, logs);
            }
        }
        [TABLE_PROGRESS | JOIN_PROGRESS, ..] => {
            let (_, progress) = value.split_at_checked(8).ok_or_else(damaged)?;
            compare_positions(check, &subject(key, views), &Progress::decode(progress)?, logs);
        }
        [WAITING | LONELY, ..] => check_joined(key, value)?,
        [QUALITY, ..] => {
            state::split_quality_key(key)?;
            state::decode_count(value)?;
        }
        [DEFINED, ..] => {
            stored::decode_key(key)?;
            stored::Definition::decode(value)?;
        }
        [STATE, rest @ ..] if is_of_a_view(check, rest, views) => compare_state(check, (key, value), views)?,
        [UNTOLD, rest @ ..] if is_of_a_view(check, rest, views) => compare_untold(check, (key, value), views)?,
        [SESSION, rest @ ..] => {
            state::decode_session(key, value)?;
            is_of_a_view(check, rest, views);
        }
        [MARK, rest @ ..] => drop(is_of_a_view(check, rest, views)),
        // rows of tables and streams, and what sources remember, are read when they are asked for
        _ => {}
    }
    Ok(())
}

/// Notes a view; one that another format wrote is computed anew.
fn define(check: &mut Check<'_>, (name, value): (&[u8], &[u8]), views: &mut Views) {
    let Some(definition) = Definition::decode(value) else { return };
    let (name, view_id) = (String::from_utf8_lossy(name).into_owned(), definition.view_id);
    if let Some((other, _)) = views.insert(view_id, (name.clone(), definition)) {
        let what = format!("view {other} has its id {view_id}");
        check.add(ID_TWICE, Place::named(format!("view {name}")), what);
    }
}

/// Whether what follows begins with the id of a view that is defined.
fn is_of_a_view(check: &mut Check<'_>, rest: &[u8], views: &Views) -> bool {
    let id = rest.first_chunk().map(|id| u32::from_be_bytes(*id));
    let known = id.is_some_and(|id| views.contains_key(&id));
    if !known {
        check.add(NO_VIEW, Place::named(format!("view id {}", id.unwrap_or(0))), "no view has this id");
    }
    known
}

/// A group's state is what its view's definition wrote.
fn compare_state(check: &mut Check<'_>, (key, value): (&[u8], &[u8]), views: &Views) -> Result<()> {
    state::split_state_key(key)?;
    let id = key[1..].first_chunk().map(|id| u32::from_be_bytes(*id));
    let Some((_, definition)) = id.and_then(|id| views.get(&id)) else { return Ok(()) };
    if definition.fingerprint != LEAVING && state::decode_state(definition.fingerprint, value).is_err() {
        let what = "a group's state was not written by the definition that the view has";
        check.add(OTHER_VIEW, Place::named(subject(key, views)), what);
    }
    Ok(())
}

/// A session that is still to be told has its state.
fn compare_untold(check: &mut Check<'_>, (key, value): (&[u8], &[u8]), views: &Views) -> Result<()> {
    if check.store.get(Family::State, &state::untold_state(key, value)?)?.is_none() {
        let what = "a session that is still to be told is listed, and its state is not there";
        check.add(SESSION_LOST, Place::named(subject(key, views)), what);
    }
    Ok(())
}

fn compare_positions(check: &mut Check<'_>, subject: &str, progress: &Progress, logs: &Logs) {
    for (index, position) in &progress.positions {
        // of a topic that was deleted the next start knows
        let Some(span) = logs.span(position.log) else { continue };
        if position.next_offset < 0 || position.next_offset > span.end || *index != span.partition {
            let at = position.next_offset;
            let place = Place::offsets(&span.topic, span.partition, at, at).of(subject);
            check.add(AHEAD, place, format!("it goes on at {at} in partition {index}, the log ends at {}", span.end));
        }
    }
}

/// What a key is about, for people.
fn subject(key: &[u8], views: &Views) -> String {
    let (Some(kind), name) = (key.first(), key.get(1..).unwrap_or(&[])) else { return "a key without bytes".into() };
    let name = || String::from_utf8_lossy(name.split(|byte| *byte == 0).next().unwrap_or(&[])).into_owned();
    match *kind {
        DEFINITION => format!("view {}", name()),
        STREAM_PROGRESS | DERIVED_PROGRESS | JOIN_PROGRESS | WAITING | LONELY => format!("stream {}", name()),
        TABLE_PROGRESS => format!("table {}", name()),
        VIEW_PROGRESS | STATE | MARK | SESSION | UNTOLD => {
            let id = key[1..].first_chunk().map(|id| u32::from_be_bytes(*id)).unwrap_or(0);
            views.get(&id).map_or_else(|| format!("view id {id}"), |(name, _)| format!("view {name}"))
        }
        QUALITY => "a counter of data quality".into(),
        _ => "the engine's state".into(),
    }
}

fn damaged() -> EngineError {
    EngineError::new(crate::ErrorKind::Storage, "stored progress is cut off")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use broker::{
        Ack, Append, BatchBuilder, Broker, BrokerConfig, Change, Clock, LogId, NewTopic, Offset, Origin, ReadOnly,
    };

    use super::*;
    use crate::state::Position;

    /// A store with a view of one topic with two records, and what `change` makes of it.
    async fn found(change: impl FnOnce(LogId) -> Vec<Change>) -> Vec<(&'static str, String, Option<(Offset, Offset)>)> {
        let dir = tempfile::tempdir().unwrap();
        let config = BrokerConfig { data_dir: dir.path().to_path_buf(), ..BrokerConfig::default() };
        let broker: Arc<Broker> = Broker::open(config, Clock::manual(1_000)).await.unwrap();
        let new = NewTopic { name: "t".into(), partitions: 1, ..NewTopic::default() };
        let partition = broker.catalog().create(new).await.unwrap().partition(0).unwrap();
        let mut batch = BatchBuilder::new();
        (0..2).for_each(|_| batch.push(1, None, Some(b"v"), &[]));
        let batch = batch.build().unwrap();
        let append = Append { partition: partition.clone(), batch, origin: Origin::Internal };
        let mut changes = vec![
            Change::Append(append),
            put(state::definition_key("v"), definition(1).encode()),
            put(state::next_view_id_key(), vec![0, 0, 0, 2]),
            put(state::view_progress_key(1), progress(partition.id(), 2)),
            put(state::stream_progress_key("s"), progress(partition.id(), 1)),
            put(state::table_progress_key("d"), [&[0; 8][..], &progress(partition.id(), 0)].concat()),
            put([&state::state_bound(1, 5)[..], b"key"].concat(), state::state_header(7).to_vec()),
        ];
        changes.extend(change(partition.id()));
        broker.lane().commit(changes, Ack::Durable).await.unwrap();
        broker.stop().await.unwrap();
        drop((broker, partition));
        let opened = ReadOnly::open(dir.path()).unwrap();
        let mut check = Check::new(&opened.store, 10, &|_| {});
        let logs = check.broker(&opened);
        check_stored(&mut check, &logs);
        let told = check.findings.kept().iter();
        told.map(|one| (one.kind.name, one.place.subject.clone().unwrap_or_default(), one.place.offsets)).collect()
    }

    fn definition(view_id: u32) -> Definition {
        Definition { view_id, fingerprint: 7, retention_ms: None, sql: String::new() }
    }

    fn put(key: Vec<u8>, value: Vec<u8>) -> Change {
        Change::Put(Family::State, key, value)
    }

    fn progress(log: LogId, next_offset: Offset) -> Vec<u8> {
        let position = Position { log, next_offset, max_event_ms: None };
        Progress { positions: [(0, position)].into(), ..Progress::default() }.encode()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn each_broken_rule_is_found_and_nothing_else() {
        assert_eq!(found(|_| Vec::new()).await, []);
        let gone = |_| vec![put(state::view_progress_key(1), progress(LogId(77), 9))];
        assert_eq!(found(gone).await, [], "the topic was deleted");
        let telling = StoredTelling { stage: 0, cursor: Vec::new(), former: definition(3) };
        let versions = |log| {
            let state = |id| put([&state::state_bound(id, 5)[..], b"key"].concat(), state::state_header(7).to_vec());
            vec![
                put(state::next_view_id_key(), vec![0, 0, 0, 4]),
                put(state::successor_key("v"), definition(2).encode()),
                put(state::view_progress_key(2), progress(log, 1)),
                state(2),
                put(state::telling_key("v"), telling.encode()),
                state(3),
            ]
        };
        assert_eq!(found(versions).await, [], "other versions of the view");
        let ahead = |log| vec![put(state::view_progress_key(1), progress(log, 3))];
        assert_eq!(found(ahead).await, [(AHEAD.name, "view v".to_owned(), Some((3, 3)))]);
        let ahead = |log| vec![put(state::branch_progress_key("s", 1), progress(log, 3))];
        assert_eq!(found(ahead).await, [(AHEAD.name, "stream s".to_owned(), Some((3, 3)))]);
        let ahead = |log| vec![put(vec![JOIN_PROGRESS, b's', 0, 1], [&[0; 8][..], &progress(log, 3)].concat())];
        assert_eq!(found(ahead).await, [(AHEAD.name, "stream s".to_owned(), Some((3, 3)))]);
        let session = state::untold_bound(1, 9);
        for (key, value, kind, subject) in [
            (state::view_progress_key(1), vec![9], STATE_DAMAGED, "view v"),
            (state::table_progress_key("d"), vec![9], STATE_DAMAGED, "table d"),
            (state::stream_progress_key("s"), vec![], STATE_DAMAGED, "stream s"),
            (vec![JOIN_PROGRESS, b'j', 0, 0], vec![0; 9], STATE_DAMAGED, "stream j"),
            (vec![WAITING, b'j', 0, 0, 0], vec![1], STATE_DAMAGED, "stream j"),
            ([&[LONELY, b'j', 0, 0, 0][..], &[0; 20]].concat(), vec![2], STATE_DAMAGED, "stream j"),
            (vec![DEFINED, 2, b'x'], vec![1], STATE_DAMAGED, "the engine's state"),
            (vec![QUALITY, 1], vec![1], STATE_DAMAGED, "a counter of data quality"),
            (state::state_bound(1, 6), state::state_header(8).to_vec(), OTHER_VIEW, "view v"),
            (state::state_bound(2, 6), vec![], NO_VIEW, "view id 2"),
            (session, 4_i64.to_be_bytes().to_vec(), SESSION_LOST, "view v"),
            (state::next_view_id_key(), vec![0, 0, 0, 1], ID_TWICE, "view v"),
            (state::definition_key("w"), definition(1).encode(), ID_TWICE, "view w"),
        ] {
            let told = found(|_| vec![put(key, value)]).await;
            assert_eq!(told, [(kind.name, subject.to_owned(), None)], "{subject}");
        }
    }
}
