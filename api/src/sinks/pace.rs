//! How a sink goes on after what went wrong: when it tries again, and with how many rows.

use std::time::Duration;

/// First and longest time between two attempts.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// The pace of one sink. A restart forgets it.
pub struct Pace {
    pause: Duration,
    rows: usize,
    rows_max: usize,
}

impl Pace {
    /// As declared, until something goes wrong.
    pub fn new(rows_max: usize) -> Pace {
        Pace { pause: PAUSE.0, rows: rows_max.max(1), rows_max: rows_max.max(1) }
    }

    /// About how many rows the next transaction is to have.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Whether transactions are smaller than declared.
    pub fn is_slow(&self) -> bool {
        self.rows < self.rows_max
    }

    /// The time until the next attempt, which grows from one to the next.
    pub fn pause(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(PAUSE.1);
        pause
    }

    /// The database has answered.
    pub fn connected(&mut self) {
        self.pause = PAUSE.0;
    }

    /// A transaction of so many rows took too long: the same one would again.
    pub fn too_long(&mut self, rows: usize) {
        self.rows = (rows.min(self.rows) / 2).max(1);
    }

    /// A transaction is done.
    pub fn done(&mut self) {
        self.rows = self.rows.saturating_mul(2).min(self.rows_max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_that_takes_too_long_is_tried_with_half_its_rows_down_to_one() {
        let mut pace = Pace::new(1_000);
        assert!(!pace.is_slow());
        let mut tried = Vec::new();
        // 300 rows were there to be read.
        while pace.rows() > 1 {
            pace.too_long(pace.rows().min(300));
            tried.push(pace.rows());
        }
        assert_eq!(tried, [150, 75, 37, 18, 9, 4, 2, 1]);
        pace.too_long(1);
        assert!(pace.rows() == 1 && pace.is_slow());
        for _ in 0..10 {
            pace.done();
        }
        assert_eq!((pace.rows(), pace.is_slow()), (1_000, false));
    }

    #[test]
    fn pauses_grow_and_begin_anew() {
        let mut pace = Pace::new(1);
        let pauses: Vec<u128> = (0..7).map(|_| pace.pause().as_millis()).collect();
        assert_eq!(pauses, [200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
        pace.connected();
        assert_eq!(pace.pause().as_millis(), 200);
    }
}
