//! Which rows of one group make up which sessions, as a pure rule.
//!
//! A session is from its first row to the gap after its last one. A row that comes up to the gap before a session's first row, or
//! up to the gap after its last, belongs to it, and joins two sessions when it belongs to both. What is closed takes no
//! row: one that belongs to a closed session is late. So is one that would make, with the others of its step, a
//! session that ends before what is closed. All other rows are never within the gap of a closed session's, so the sessions are those of
//! all rows that were not late, whatever came in which step.

use crate::window::is_late;

/// `[start_ms, end_ms)`, where the end is the gap after the last row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Session {
    pub(crate) start_ms: i64,
    pub(crate) end_ms: i64,
}

impl Session {
    fn of_row(time_ms: i64, gap_ms: i64) -> Session {
        Session { start_ms: time_ms, end_ms: time_ms.saturating_add(gap_ms) }
    }

    /// Whether the two are one.
    fn meets(self, other: Session) -> bool {
        self.start_ms <= other.end_ms && other.start_ms <= self.end_ms
    }

    fn with(self, other: Session) -> Session {
        Session { start_ms: self.start_ms.min(other.start_ms), end_ms: self.end_ms.max(other.end_ms) }
    }
}

/// A session that rows of a step belong to.
#[derive(Debug, PartialEq)]
pub(crate) struct Joined {
    pub(crate) session: Session,
    /// The stored sessions that it is made of.
    pub(crate) absorbed: Vec<Session>,
    pub(crate) rows: Vec<usize>,
}

/// What becomes of a group's rows.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Joining {
    pub(crate) joined: Vec<Joined>,
    /// Rows that are late, and the start of the session that they missed.
    pub(crate) late: Vec<(usize, i64)>,
}

/// The spans in which rows follow each other within the gap: sessions outside of them are not looked for. Times ascend.
pub(crate) fn spans(rows: &[(i64, usize)], gap_ms: i64) -> Vec<Session> {
    let mut spans: Vec<Session> = Vec::new();
    for (time_ms, _) in rows {
        let own = Session::of_row(*time_ms, gap_ms);
        match spans.last_mut() {
            Some(span) if span.meets(own) => *span = span.with(own),
            _ => spans.push(own),
        }
    }
    spans
}

/// Joins rows (time and number, times ascending) with the sessions of their group that meet them, by their starts.
pub(crate) fn join(rows: &[(i64, usize)], stored: &[Session], gap_ms: i64, closed_until: Option<i64>) -> Joining {
    let mut joining = Joining::default();
    let (closed, open): (Vec<Session>, Vec<Session>) =
        stored.iter().partition(|session| is_late(session.end_ms, closed_until));
    let mut parts: Vec<Joined> = Vec::with_capacity(rows.len() + open.len());
    parts.extend(open.into_iter().map(|session| Joined { session, absorbed: vec![session], rows: Vec::new() }));
    for (time_ms, row) in rows {
        let own = Session::of_row(*time_ms, gap_ms);
        let after = closed.partition_point(|session| session.end_ms < own.start_ms);
        match closed.get(after).filter(|session| session.meets(own)) {
            Some(missed) => joining.late.push((*row, missed.start_ms)),
            None => parts.push(Joined { session: own, absorbed: Vec::new(), rows: vec![*row] }),
        }
    }
    parts.sort_by_key(|part| part.session.start_ms);
    let mut joined: Vec<Joined> = Vec::new();
    for part in parts {
        match joined.last_mut() {
            Some(last) if last.session.meets(part.session) => {
                last.session = last.session.with(part.session);
                last.absorbed.extend(part.absorbed);
                last.rows.extend(part.rows);
            }
            _ => joined.push(part),
        }
    }
    for part in joined {
        if is_late(part.session.end_ms, closed_until) {
            joining.late.extend(part.rows.iter().map(|row| (*row, part.session.start_ms)));
        } else if !part.rows.is_empty() {
            joining.joined.push(part);
        }
    }
    joining
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(start_ms: i64, end_ms: i64) -> Session {
        Session { start_ms, end_ms }
    }

    fn joined(of: Session, absorbed: &[Session], rows: &[usize]) -> Joined {
        Joined { session: of, absorbed: absorbed.to_vec(), rows: rows.to_vec() }
    }

    #[test]
    fn rows_join_within_the_gap_and_bridge_sessions() {
        let cases = [
            (vec![(0, 0)], vec![], vec![joined(session(0, 10), &[], &[0])]),
            (
                vec![(0, 0), (10, 1), (21, 2)],
                vec![],
                vec![joined(session(0, 20), &[], &[0, 1]), joined(session(21, 31), &[], &[2])],
            ),
            // a stored session is from its first row to the gap after its last
            (vec![(30, 0)], vec![session(0, 30)], vec![joined(session(0, 40), &[session(0, 30)], &[0])]),
            (vec![(31, 0)], vec![session(0, 30)], vec![joined(session(31, 41), &[], &[0])]),
            (vec![(5, 0)], vec![session(15, 30)], vec![joined(session(5, 30), &[session(15, 30)], &[0])]),
            (vec![(4, 0)], vec![session(15, 30)], vec![joined(session(4, 14), &[], &[0])]),
            (vec![(7, 0)], vec![session(0, 30)], vec![joined(session(0, 30), &[session(0, 30)], &[0])]),
            (
                vec![(18, 0)],
                vec![session(0, 10), session(12, 20), session(25, 60)],
                vec![joined(session(12, 60), &[session(12, 20), session(25, 60)], &[0])],
            ),
        ];
        for (rows, stored, expected) in cases {
            let joining = join(&rows, &stored, 10, None);
            assert_eq!(joining, Joining { joined: expected, late: vec![] }, "{rows:?} {stored:?}");
        }
    }

    #[test]
    fn what_is_closed_takes_no_row() {
        let stored = [session(0, 30), session(42, 70)];
        let closed = Some(40);
        let late = |row: i64| join(&[(row, 0)], &stored, 10, closed).late;
        assert_eq!(late(25), [(0, 0)], "in a closed session");
        assert_eq!(late(30), [(0, 0)], "at the end of a closed one, whose session would end at 40");
        assert_eq!(late(31), [], "the gap before an open one");
        assert_eq!(join(&[(31, 0)], &stored, 10, Some(41)).late, [(0, 31)], "it ends before what is closed");
        assert_eq!(join(&[(31, 0), (38, 1)], &stored, 10, Some(41)).late, [], "but not with its neighbour");
        assert_eq!(join(&[(-20, 0)], &stored, 10, closed).late, [(0, -20)]);
        let one = join(&[(29, 0), (33, 1)], &stored, 10, closed);
        assert_eq!(one.late, [(0, 0)], "what is near a closed one bridges nothing");
        assert_eq!(one.joined, [joined(session(33, 70), &[session(42, 70)], &[1])]);
    }

    #[test]
    fn spans_are_what_is_looked_at() {
        assert_eq!(spans(&[(0, 0), (9, 1), (30, 2)], 10), [session(0, 19), session(30, 40)]);
    }
}
