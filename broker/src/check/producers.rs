//! What is known of idempotent producers, against the batches that they wrote.

use std::collections::HashMap;

use super::Check;
use super::finding::{Kind, Place, Remedy};
use super::line::{Breach, Stated};
use crate::batch::Batch;
use crate::log::keys;
use crate::log::producers::{Kept, ProducerState, following};
use crate::store::Family;
use crate::types::{LogId, Offset, ProducerId};

const PRODUCER_DAMAGED: Kind = Kind::wrong("producer damaged", Remedy::Restore);
const PRODUCER_WRONG: Kind = Kind::wrong("producer differs from log", Remedy::Restore);
/// Producers of one log that are compared; more are only read.
const COMPARED_MAX: usize = 200_000;

/// The producers of one log. Holds: what is stored of them, and what the walk met.
pub(super) struct Producers(HashMap<ProducerId, Known>);

struct Known {
    state: ProducerState,
    /// How many of the kept batches were met, a bit for each.
    met: u8,
    /// Epoch and offset of the last batch met, and whether it is a marker.
    last: Option<(i16, Offset, bool)>,
}

impl Producers {
    /// Reads what is stored of a log's producers.
    pub(super) fn read(check: &mut Check<'_>, id: LogId, place: &Place) -> Self {
        let mut known = HashMap::new();
        let (from, to) = keys::log_range(id);
        check.each(Family::Producers, (&from, &to), |check, key, value| {
            match (keys::base_offset_of(key), ProducerState::decode(value)) {
                (Ok(producer), Ok(state)) if known.len() < COMPARED_MAX => {
                    known.insert(producer, Known { state, met: 0, last: None });
                }
                (Ok(_), Ok(_)) => {}
                (Err(error), _) | (_, Err(error)) => check.add(PRODUCER_DAMAGED, place.clone(), error.message),
            }
        });
        Self(known)
    }

    /// Compares a batch with what is known of its producer.
    pub(super) fn meet(&mut self, batch: &Batch) -> Vec<Breach> {
        let Some(known) = self.0.get_mut(&batch.producer_id()) else { return Vec::new() };
        let (base, epoch) = (batch.base_offset(), batch.producer_epoch());
        known.last = Some((epoch, base, batch.is_control()));
        let Some(at) = known.state.kept.iter().position(|kept| kept.base_offset == base) else { return Vec::new() };
        known.met |= 1 << at;
        let kept = known.state.kept[at];
        let written = ProducerState::after(None, batch, base, kept.appended_at);
        if written.epoch == known.state.epoch && written.kept == [kept] && !batch.is_control() {
            return Vec::new();
        }
        let what = format!(
            "producer {} of epoch {} is known to have written sequences {} to {} here, the batch has epoch {epoch} and sequence {}",
            batch.producer_id(),
            known.state.epoch,
            kept.first,
            kept.last,
            batch.base_sequence()
        );
        vec![(PRODUCER_WRONG, (base, batch.last_offset()), what)]
    }

    /// What is wrong once all batches were met.
    pub(super) fn finish(&self, (log, end): (&Stated, Offset), unread: impl Fn(Offset, Offset) -> bool) -> Vec<Breach> {
        let mut breaches = Vec::new();
        for (producer, known) in &self.0 {
            let newest = known.state.kept.last().map_or(-1, |kept| kept.base_offset);
            for (at, kept) in known.state.kept.iter().enumerate() {
                let is_due = kept.base_offset >= log.start
                    // compaction takes out all of a producer's batches but the last
                    && (kept.base_offset >= log.clean.touched_to || kept.base_offset == newest)
                    && known.met & (1 << at) == 0
                    && !unread(kept.base_offset, kept.base_offset + 1);
                if is_due || kept.base_offset >= end {
                    let what = format!("producer {producer} is known to have written a batch here that is not there");
                    breaches.push((PRODUCER_WRONG, (kept.base_offset, kept.base_offset), what));
                }
            }
            breaches.extend(out_of_order(*producer, &known.state.kept));
            let behind = known.last.filter(|(epoch, base, is_marker)| {
                *epoch > known.state.epoch
                    || *epoch == known.state.epoch && !is_marker && !known.state.kept.is_empty() && *base > newest
            });
            if let Some((epoch, base, _)) = behind {
                let what = format!(
                    "producer {producer} wrote this with epoch {epoch}, what is known of it is older: epoch {}, sequence {}",
                    known.state.epoch,
                    known.state.last_sequence()
                );
                breaches.push((PRODUCER_WRONG, (base, base), what));
            }
        }
        breaches
    }
}

/// A gap in the sequence numbers that are kept.
fn out_of_order(producer: ProducerId, kept: &[Kept]) -> Option<Breach> {
    let follows =
        |pair: &&[Kept]| pair[1].first == following(pair[0].last) && pair[1].base_offset > pair[0].base_offset;
    let gap = kept.windows(2).find(|pair| !follows(pair))?;
    let what = format!("producer {producer} is known to have written sequence {} after {}", gap[1].first, gap[0].last);
    Some((PRODUCER_WRONG, (gap[1].base_offset, gap[1].base_offset), what))
}
