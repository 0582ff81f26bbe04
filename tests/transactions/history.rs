//! What producers did and what readers saw, and the rules that both must obey together.

use std::collections::{BTreeMap, HashMap, HashSet};

/// What became of a transaction, as far as its producer knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The commit was acknowledged.
    Committed,
    /// It was aborted, or its producer was fenced before it asked for a commit.
    Aborted,
    /// A commit was asked for and never answered.
    Unknown,
}

/// One transaction: values written per partition, in order; only acknowledged writes.
#[derive(Clone, Debug)]
pub struct Transaction {
    pub name: String,
    pub writes: Vec<(i32, String)>,
    /// Writes that were sent and never answered: they may be there or not, if it was committed.
    pub unanswered: Vec<(i32, String)>,
    pub outcome: Outcome,
}

/// One reader's view of one partition: (offset, value) in the order read.
pub type Reads = Vec<(i64, String)>;

/// All that goes against the rules. `last` is what a reader sees who comes when all is over.
pub fn mistakes(
    transactions: &[Transaction],
    readers: &[BTreeMap<i32, Reads>],
    last: &BTreeMap<i32, Reads>,
) -> Vec<String> {
    let mut found = Vec::new();
    let mut places: HashMap<&str, (i32, i64)> = HashMap::new();
    for (partition, reads) in last {
        if !reads.is_sorted_by(|before, after| before.0 < after.0) {
            found.push(format!("partition {partition}: offsets do not ascend"));
        }
        for (offset, value) in reads {
            if let Some(first) = places.insert(value, (*partition, *offset)) {
                found.push(format!("doubled: {value} at {first:?} and {:?}", (*partition, *offset)));
            }
        }
    }
    let mut known: HashSet<&str> = HashSet::new();
    for transaction in transactions {
        known.extend(transaction.writes.iter().chain(&transaction.unanswered).map(|(_, value)| value.as_str()));
        of_transaction(transaction, &places, &mut found);
    }
    found.extend(places.keys().filter(|value| !known.contains(*value)).map(|value| format!("nobody wrote {value}")));
    for (number, reader) in readers.iter().enumerate() {
        for (partition, reads) in reader {
            // whatever was read once stays as it was read, at its place and in its order
            let end = reads.last().map_or(-1, |(offset, _)| *offset);
            let all: Vec<_> = last.get(partition).into_iter().flatten().filter(|(offset, _)| *offset <= end).collect();
            if let Some(at) = (0..all.len().max(reads.len())).find(|at| all.get(*at).copied() != reads.get(*at)) {
                let (then, now) = (reads.get(at), all.get(at));
                found.push(format!("reader {number}, partition {partition}: read {then:?} where there is {now:?}"));
            }
        }
    }
    found
}

fn of_transaction(transaction: &Transaction, places: &HashMap<&str, (i32, i64)>, found: &mut Vec<String>) {
    let Transaction { name, writes, unanswered, outcome } = transaction;
    let there = |(_, value): &&(i32, String)| places.contains_key(value.as_str());
    let visible = writes.iter().filter(there).count();
    let stray = unanswered.iter().filter(there).count();
    match outcome {
        Outcome::Committed if visible < writes.len() => {
            found.push(format!("lost: {name} was committed, {visible} of {} records are there", writes.len()));
        }
        Outcome::Aborted if visible + stray > 0 => {
            found.push(format!("{name} was aborted, {} of its records are there", visible + stray));
        }
        Outcome::Unknown if visible != 0 && visible < writes.len() => {
            found.push(format!("torn: {visible} of {} records of {name} are there", writes.len()));
        }
        Outcome::Unknown if visible == 0 && stray > 0 && !writes.is_empty() => {
            found.push(format!("torn: of {name} only what was not answered is there"));
        }
        _ => {}
    }
    let mut last: HashMap<i32, i64> = HashMap::new();
    for (partition, value) in writes {
        let Some((actual, offset)) = places.get(value.as_str()) else { continue };
        if actual != partition {
            found.push(format!("{value} was written to partition {partition} and is in {actual}"));
        }
        if last.insert(*partition, *offset).is_some_and(|before| before > *offset) {
            found.push(format!("re-ordered: {value} of {name}"));
        }
    }
}

#[test]
fn each_kind_of_mistake_is_found() {
    let write = |value: &str| (0, value.to_owned());
    let one = Transaction {
        name: "t".into(),
        writes: vec![write("a"), write("b")],
        unanswered: vec![],
        outcome: Outcome::Committed,
    };
    let reads = |values: &[(i64, &str)]| -> BTreeMap<i32, Reads> {
        [(0, values.iter().map(|(offset, value)| (*offset, (*value).to_owned())).collect())].into()
    };
    let check = |outcome, last: &[(i64, &str)], reader: &[(i64, &str)]| {
        mistakes(&[Transaction { outcome, ..one.clone() }], &[reads(reader)], &reads(last))
    };
    let whole = [(0, "a"), (2, "b")];
    assert!(check(Outcome::Committed, &whole, &whole[..1]).is_empty());
    assert!(check(Outcome::Unknown, &whole, &[]).is_empty() && check(Outcome::Unknown, &[], &[]).is_empty());
    assert!(check(Outcome::Committed, &whole[..1], &[])[0].starts_with("lost"));
    assert!(check(Outcome::Aborted, &whole[..1], &[])[0].contains("was aborted"));
    assert!(check(Outcome::Unknown, &whole[..1], &[])[0].starts_with("torn"));
    assert!(check(Outcome::Committed, &[(0, "b"), (1, "a")], &[])[0].starts_with("re-ordered"));
    assert!(check(Outcome::Committed, &[(0, "a"), (1, "b"), (2, "a")], &[])[0].starts_with("doubled"));
    assert!(check(Outcome::Committed, &[(0, "a"), (1, "b"), (2, "c")], &[])[0].starts_with("nobody wrote"));
    assert!(check(Outcome::Committed, &whole, &[(0, "a"), (1, "x")])[0].starts_with("reader 0"));
    assert!(check(Outcome::Aborted, &[], &[(0, "a")])[0].starts_with("reader 0"), "read and then taken back");
}
