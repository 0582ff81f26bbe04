//! What a check finds, and what can be done about it.

use std::collections::HashMap;

use crate::types::{Offset, PartitionIndex, TopicName};

/// Whether something is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// A promise is broken.
    Wrong,
    /// Nobody is harmed by it: something that is left over, or will go by itself.
    Note,
}

/// What can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Nothing needs to be done: nobody reads it.
    Nothing,
    /// A start of the server does it, and nothing is lost.
    NextStart,
    /// `millpond check --repair` does it, and nothing is lost.
    Repair,
    /// What is named is lost but for a backup: DeleteRecords gives it up and what lies before it, and the rest is served.
    GiveUp,
    /// Only a backup has it as it should be.
    Restore,
    /// Nothing, where the power went. Else the disk has damage.
    CheckDisk,
    /// Whoever committed it commits another one.
    CommitAgain,
    /// `kafka-transactions.sh abort` ends it.
    Abort,
}

/// A kind of finding. Each is declared beside the check that finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// Its name, short and for ever the same.
    pub name: &'static str,
    /// Whether it is wrong.
    pub weight: Weight,
    /// What can be done.
    pub remedy: Remedy,
}

impl Kind {
    /// Something wrong.
    pub const fn wrong(name: &'static str, remedy: Remedy) -> Self {
        Self { name, weight: Weight::Wrong, remedy }
    }

    /// Something to know.
    pub const fn note(name: &'static str, remedy: Remedy) -> Self {
        Self { name, weight: Weight::Note, remedy }
    }
}

/// Where something is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The topic.
    pub topic: Option<TopicName>,
    /// Its partition.
    pub partition: Option<PartitionIndex>,
    /// The first and the last offset.
    pub offsets: Option<(Offset, Offset)>,
    /// Anything else that has a name: a group, a view, a file.
    pub subject: Option<String>,
}

impl Place {
    /// A part of a partition.
    pub fn offsets(topic: &TopicName, partition: PartitionIndex, first: Offset, last: Offset) -> Self {
        Self { offsets: Some((first, last)), ..Self::partition(topic, partition) }
    }

    /// A partition.
    pub fn partition(topic: &TopicName, partition: PartitionIndex) -> Self {
        Self { topic: Some(topic.clone()), partition: Some(partition), ..Self::default() }
    }

    /// A topic.
    pub fn topic(topic: &TopicName) -> Self {
        Self { topic: Some(topic.clone()), ..Self::default() }
    }

    /// Something that has a name.
    pub fn named(subject: impl Into<String>) -> Self {
        Self { subject: Some(subject.into()), ..Self::default() }
    }

    /// The same place in something that has a name.
    #[must_use]
    pub fn of(self, subject: impl Into<String>) -> Self {
        Self { subject: Some(subject.into()), ..self }
    }

    /// Takes in what follows at once.
    fn joins(&mut self, next: &Place) -> bool {
        let same = self.topic == next.topic && self.partition == next.partition && self.subject == next.subject;
        match (&mut self.offsets, next.offsets) {
            (Some((_, last)), Some((first, next_last))) if same && first == last.saturating_add(1) => {
                *last = next_last;
                true
            }
            _ => false,
        }
    }
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What kind of thing.
    pub kind: Kind,
    /// Where.
    pub place: Place,
    /// What is wrong, for people.
    pub what: String,
}

impl Finding {
    /// What can be done, for people.
    pub fn remedy(&self) -> String {
        match self.kind.remedy {
            Remedy::Nothing => "nothing needs to be done".to_owned(),
            Remedy::NextStart => "the next start puts it right, nothing is lost".to_owned(),
            Remedy::Repair => "millpond check --repair removes it, nothing is lost".to_owned(),
            Remedy::Restore => "restore a backup".to_owned(),
            Remedy::CheckDisk => "nothing, after a power cut; else check the disk, and restore a backup".to_owned(),
            Remedy::CommitAgain => "commit another offset".to_owned(),
            Remedy::Abort => "end it with kafka-transactions.sh abort".to_owned(),
            Remedy::GiveUp => match (&self.place.topic, self.place.partition, self.place.offsets) {
                (Some(topic), Some(partition), Some((_, last))) => format!(
                    "restore a backup, or give up all of {topic}-{partition} before {} with DeleteRecords",
                    last.saturating_add(1)
                ),
                _ => "restore a backup".to_owned(),
            },
        }
    }
}

/// All that was found. Holds: the first findings of each kind, and how many there were.
#[derive(Debug)]
pub struct Findings {
    per_kind: usize,
    kept: Vec<Finding>,
    counts: Vec<(Kind, u64)>,
    /// Where the last one of each kind is among the kept.
    newest: HashMap<&'static str, usize>,
}

impl Findings {
    /// None so far; of each kind `per_kind` will be kept.
    pub fn new(per_kind: usize) -> Self {
        Self { per_kind, kept: Vec::new(), counts: Vec::new(), newest: HashMap::new() }
    }

    /// Takes one in; one that goes on where the last one of its kind ended is part of that.
    pub fn add(&mut self, kind: Kind, place: Place, what: impl Into<String>) {
        let newest = self.newest.get(kind.name).and_then(|at| self.kept.get_mut(*at));
        if newest.is_some_and(|newest| newest.place.joins(&place)) {
            return;
        }
        let count = match self.counts.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, count)) => {
                *count += 1;
                *count
            }
            None => {
                self.counts.push((kind, 1));
                1
            }
        };
        if count <= self.per_kind as u64 {
            self.newest.insert(kind.name, self.kept.len());
            self.kept.push(Finding { kind, place, what: what.into() });
        } else {
            // the last one kept is not the last one found any more
            self.newest.remove(kind.name);
        }
    }

    /// Those that were kept, in the order in which they were found.
    pub fn kept(&self) -> &[Finding] {
        &self.kept
    }

    /// How many there were of each kind.
    pub fn counts(&self) -> &[(Kind, u64)] {
        &self.counts
    }

    /// How many are wrong.
    pub fn wrong(&self) -> u64 {
        self.counts.iter().filter(|(kind, _)| kind.weight == Weight::Wrong).map(|(_, count)| count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_at_once_is_one_finding_and_the_rest_is_counted() {
        const KIND: Kind = Kind::wrong("k", Remedy::GiveUp);
        let topic: TopicName = "t".into();
        let mut findings = Findings::new(2);
        for (first, last) in [(0, 4), (5, 6), (8, 9), (20, 20), (21, 21), (30, 30)] {
            findings.add(KIND, Place::offsets(&topic, 1, first, last), "w");
        }
        let kept: Vec<_> = findings.kept().iter().map(|finding| finding.place.offsets).collect();
        assert_eq!((kept, findings.counts()), (vec![Some((0, 6)), Some((8, 9))], &[(KIND, 5)][..]));
        assert_eq!(findings.wrong(), 5);
        assert_eq!(findings.kept()[0].remedy(), "restore a backup, or give up all of t-1 before 7 with DeleteRecords");
    }
}
