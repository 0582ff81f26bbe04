//! Topics and what belongs to none: ids are given once, and what a deleted topic had is gone.

use std::collections::BTreeSet;
use std::path::Path;

use super::finding::{Kind, Place, Remedy};
use super::{Check, Logs, Span};
use crate::catalog::{self, NEXT_LOG_ID_KEY, TOPIC_PREFIX, TOPIC_PREFIX_END};
use crate::config::BrokerConfig;
use crate::error::{Error, Result};
use crate::log::{aborted, keys, open};
use crate::store::{Family, Store, Writes};
use crate::types::LogId;

const TOPIC_DAMAGED: Kind = Kind::wrong("topic damaged", Remedy::Restore);
const ID_TWICE: Kind = Kind::wrong("id given twice", Remedy::Restore);
const ORPHANS: Kind = Kind::note("data of no topic", Remedy::Repair);

/// Reads the topics. The logs get their bounds when they are walked over.
pub(super) fn check(check: &mut Check<'_>) -> Logs {
    let mut logs = Logs::default();
    check.each(Family::Meta, (TOPIC_PREFIX, TOPIC_PREFIX_END), |check, key, value| {
        let topic = match catalog::decode_topic(key, value) {
            Ok(topic) => topic,
            Err(error) => {
                let name = String::from_utf8_lossy(&key[TOPIC_PREFIX.len()..]).into_owned();
                return check.add(TOPIC_DAMAGED, Place::named(name), error.message);
            }
        };
        check.figures.topics += 1;
        let ids: Vec<LogId> = topic.logs.iter().copied().map(LogId).collect();
        for (partition, id) in (0..).zip(&ids) {
            let span = Span { topic: topic.name.clone(), partition, start: 0, end: 0 };
            if let Some(other) = logs.spans.insert(*id, span) {
                let what = format!("it has {id}, as has {}-{}", other.topic, other.partition);
                check.add(ID_TWICE, Place::partition(&topic.name, partition), what);
            }
        }
        if logs.topics.insert(topic.id, ids).is_some() {
            check.add(ID_TWICE, Place::topic(&topic.name), format!("another topic has its id {}", topic.id));
        }
    });
    check_next_id(check, &logs);
    logs
}

/// Ids of logs are never given again, so the next one lies above all.
fn check_next_id(check: &mut Check<'_>, logs: &Logs) {
    let stored = match check.store.get(Family::Meta, NEXT_LOG_ID_KEY) {
        Ok(stored) => stored,
        Err(error) => return check.add(super::UNREADABLE, Place::named("next log id"), error.message),
    };
    let Ok(next) = catalog::decode_next_log_id(stored.as_deref()) else {
        return check.add(TOPIC_DAMAGED, Place::named("next log id"), "it cannot be read");
    };
    if let Some((id, span)) = logs.spans.range(LogId(next)..).next() {
        let place = Place::partition(&span.topic, span.partition);
        check.add(ID_TWICE, place, format!("it has {id}, which the next new partition would get again"));
    }
}

/// Finds data of logs that no topic has. Where a topic cannot be read there is no saying whose it is.
pub(super) fn check_orphans(check: &mut Check<'_>, logs: &Logs) {
    if !are_known(check) {
        return;
    }
    match orphans(check.store, logs) {
        Ok(found) => {
            for id in found {
                check.add(ORPHANS, Place::named(id.to_string()), "a partition that no topic has left data");
            }
        }
        Err(error) => check.add(super::UNREADABLE, Place::named("data of no topic"), error.message),
    }
}

/// Whether every topic could be read.
fn are_known(check: &Check<'_>) -> bool {
    !check.findings.counts().iter().any(|(kind, _)| [TOPIC_DAMAGED, super::UNREADABLE].contains(kind))
}

/// Runs of ids between those that are known: the first, and the one behind the last.
fn gaps(known: &BTreeSet<LogId>) -> Vec<(LogId, LogId)> {
    let mut gaps = Vec::new();
    let mut next = 0;
    for id in known.iter().map(|id| id.0).chain([u32::MAX]) {
        if id > next {
            gaps.push((LogId(next), LogId(id)));
        }
        next = id.saturating_add(1);
    }
    gaps
}

/// All ranges of keys that logs have; each begins with the first log's id after some bytes.
fn ranges((first, end): (LogId, LogId)) -> Vec<(Family, Vec<u8>, Vec<u8>)> {
    let (from, to) = (keys::log_range(first).0.to_vec(), keys::log_range(end).0.to_vec());
    let mut ranges: Vec<_> = keys::BY_LOG.map(|family| (family, from.clone(), to.clone())).into();
    ranges.push((Family::Txns, aborted::range(first).0, aborted::range(end).0));
    ranges.push((Family::Txns, open::range(first).0, open::range(end).0));
    ranges.push((Family::Meta, keys::epoch_range(first).0, keys::epoch_range(end).0));
    let of = |prefix| (Family::Meta, keys::of_log(prefix, first), keys::of_log(prefix, end));
    ranges.extend(keys::ONE_PER_LOG.map(of));
    ranges
}

/// The logs that no topic has and that left something.
///
/// # Errors
/// `Storage` when the store cannot be read.
fn orphans(store: &Store, logs: &Logs) -> Result<BTreeSet<LogId>> {
    let known: BTreeSet<LogId> = logs.spans.keys().copied().collect();
    let mut found = BTreeSet::new();
    for gap in gaps(&known) {
        for (family, from, to) in ranges(gap) {
            let at = from.len() - 4;
            let mut scan = store.scan(family, &from, &to);
            // one look per log, however much it has
            while let Some(entry) = scan.next_ref() {
                let (key, _) = entry?;
                let Some(id) = key.get(at..).and_then(|rest| rest.first_chunk::<4>()) else { break };
                let id = LogId(u32::from_be_bytes(*id));
                found.insert(id);
                let next = [&key[..at], &keys::log_range(id).1].concat();
                scan.seek(&next);
            }
        }
    }
    Ok(found)
}

/// Removes data of logs that no topic has from the store of the data directory `data_dir`, which no server works on; says of which.
/// Ids of logs are never given again, so nobody can miss it.
///
/// # Errors
/// `Config` when the store cannot be opened, `Storage` when a topic cannot be read: then there is no saying whose the data is.
pub fn remove_orphans(data_dir: &Path) -> Result<BTreeSet<LogId>> {
    let config = BrokerConfig { data_dir: data_dir.to_path_buf(), ..BrokerConfig::default() };
    let store = Store::open(&config)?;
    let mut looking = Check::new(&store, 0, &|_| {});
    let logs = check(&mut looking);
    if looking.findings.wrong() > 0 {
        return Err(Error::storage("a topic cannot be read, so nothing is removed: restore a backup"));
    }
    let found = orphans(&store, &logs)?;
    let mut writes = Writes::new(&store);
    for id in &found {
        for (family, from, to) in ranges((*id, LogId(id.0.saturating_add(1)))) {
            writes.delete_range(family, &from, &to);
        }
    }
    store.write(writes)?;
    store.sync()?;
    Ok(found)
}
