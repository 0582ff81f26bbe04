//! Days and months of time zones from 2025 to 2027, from a table of what their clocks do: written down here, so that no library is asked twice.

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// A zone: minutes ahead of UTC at the start of 2025, and from which instants on it is how many.
pub struct Zone {
    pub name: &'static str,
    first: i64,
    changes: &'static [(i64, i64)],
}

/// With changes at night, at midnight, and by half an hour.
pub const ZONES: [Zone; 5] = [
    Zone {
        name: "Europe/Berlin",
        first: 60,
        changes: &[
            (1_743_296_400_000, 120),
            (1_761_440_400_000, 60),
            (1_774_746_000_000, 120),
            (1_792_890_000_000, 60),
            (1_806_195_600_000, 120),
            (1_824_944_400_000, 60),
        ],
    },
    Zone {
        name: "America/New_York",
        first: -300,
        changes: &[
            (1_741_503_600_000, -240),
            (1_762_063_200_000, -300),
            (1_772_953_200_000, -240),
            (1_793_512_800_000, -300),
            (1_805_007_600_000, -240),
            (1_825_567_200_000, -300),
        ],
    },
    Zone {
        name: "Australia/Lord_Howe",
        first: 660,
        changes: &[
            (1_743_865_200_000, 630),
            (1_759_591_800_000, 660),
            (1_775_314_800_000, 630),
            (1_791_041_400_000, 660),
            (1_806_764_400_000, 630),
            (1_822_491_000_000, 660),
        ],
    },
    Zone {
        name: "America/Santiago",
        first: -180,
        changes: &[
            (1_743_908_400_000, -240),
            (1_757_217_600_000, -180),
            (1_775_358_000_000, -240),
            (1_788_667_200_000, -180),
            (1_806_807_600_000, -240),
            (1_820_116_800_000, -180),
        ],
    },
    Zone { name: "Asia/Kathmandu", first: 345, changes: &[] },
];

/// Periods of local days or months, counted from 1970.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    Days,
    Months,
}

impl Zone {
    fn ahead_ms(&self, at_ms: i64) -> i64 {
        let minutes =
            self.changes.iter().rev().find(|(from, _)| *from <= at_ms).map_or(self.first, |(_, minutes)| *minutes);
        minutes * 60_000
    }

    /// The number of the local day or month.
    pub fn number(&self, unit: Unit, at_ms: i64) -> i64 {
        let day = (at_ms + self.ahead_ms(at_ms)).div_euclid(DAY_MS);
        match unit {
            Unit::Days => day,
            Unit::Months => months().rposition(|(_, first)| first <= day).unwrap() as i64,
        }
    }

    /// The first instant of a local day or month: midnight, or the change that takes its place.
    pub fn start_ms(&self, unit: Unit, number: i64) -> i64 {
        let day = match unit {
            Unit::Days => number,
            Unit::Months => months().nth(number as usize).unwrap().1,
        };
        let offsets = std::iter::once(self.first).chain(self.changes.iter().map(|(_, minutes)| *minutes));
        let midnights = offsets.map(|minutes| day * DAY_MS - minutes * 60_000);
        let candidates = midnights.chain(self.changes.iter().map(|(from, _)| *from));
        let begins = |at: &i64| self.number(Unit::Days, *at) >= day && self.number(Unit::Days, *at - 1) < day;
        candidates.filter(begins).min().unwrap()
    }
}

/// Number of a month since January 1970, and the day it begins with.
fn months() -> impl DoubleEndedIterator<Item = (usize, i64)> + ExactSizeIterator {
    let mut first = 0;
    let mut all = Vec::new();
    for year in 1970..2030 {
        for month in 1..=12 {
            all.push((all.len(), first));
            first += match month {
                4 | 6 | 9 | 11 => 30,
                2 if year % 4 == 0 => 29,
                2 => 28,
                _ => 31,
            };
        }
    }
    all.into_iter()
}

#[test]
fn a_day_begins_after_the_hour_that_is_not_there() {
    let santiago = &ZONES[3];
    let day = santiago.number(Unit::Days, 1_788_667_200_000);
    assert_eq!(santiago.start_ms(Unit::Days, day), 1_788_667_200_000, "clocks went from midnight to one");
    assert_eq!(santiago.start_ms(Unit::Days, day + 1) - 1_788_667_200_000, 23 * HOUR_MS);
    assert_eq!(santiago.number(Unit::Months, 1_788_667_200_000), (2026 - 1970) * 12 + 8);
}
