//! Random events: what is written, and what each row is.

use super::super::oracle::Random;
use super::query::Schema;
use super::values::{Cell, Kind};

/// A good row of the log.
pub struct Row {
    pub partition: i32,
    pub offset: i64,
    pub ts: i64,
    pub cells: Vec<Cell>,
}

/// What has been written.
pub struct Log<'s> {
    schema: &'s Schema,
    ends: Vec<i64>,
    now_ms: i64,
    idle: Option<i32>,
    pub rows: Vec<Row>,
    /// Partition and offset of what the stream must refuse.
    pub refused: Vec<(i32, i64)>,
}

/// Where event time begins: before clocks change, or some month.
const BEGINNINGS_MS: [i64; 8] = [
    1_774_746_000_000,
    1_792_890_000_000,
    1_772_953_200_000,
    1_775_314_800_000,
    1_775_358_000_000,
    1_788_667_200_000,
    1_782_864_000_000,
    1_785_000_000_000,
];

impl<'s> Log<'s> {
    pub fn new(schema: &'s Schema, partitions: i32) -> Self {
        let ends = vec![0; partitions as usize];
        Log { schema, ends, now_ms: 0, idle: None, rows: Vec::new(), refused: Vec::new() }
    }

    pub fn written(&self) -> u64 {
        self.ends.iter().sum::<i64>() as u64
    }

    /// The next batch: which partition gets which values.
    pub fn next(&mut self, random: &mut Random) -> (i32, Vec<String>) {
        let scale_ms = self.schema.scale_ms;
        if self.now_ms == 0 {
            self.now_ms = BEGINNINGS_MS[random.below(8) as usize] - scale_ms * random.below(10) as i64;
        }
        let partitions = self.ends.len() as u64;
        if random.below(4) == 0 {
            self.idle = (random.below(2) == 0).then(|| random.below(partitions) as i32);
        }
        let mut partition = random.below(partitions) as i32;
        if self.idle == Some(partition) {
            partition = (partition + 1) % partitions as i32;
        }
        let mut values = Vec::new();
        for _ in 0..1 + random.below(12) {
            let times = if random.below(10) == 0 { 2 } else { 1 };
            let ts = self.now_ms - behind(random, scale_ms);
            let (value, cells) = self.event(random, ts);
            for _ in 0..times {
                values.push(value.clone());
                self.take(partition, (ts, cells.clone()));
            }
        }
        self.now_ms += random.below(scale_ms as u64 * 2) as i64 + if random.below(9) == 0 { scale_ms * 7 } else { 0 };
        (partition, values)
    }

    /// An event, and its columns unless the stream must refuse it.
    fn event(&self, random: &mut Random, ts: i64) -> (String, Option<Vec<Cell>>) {
        let cells: Vec<Cell> =
            self.schema.kinds.iter().map(|kind| (random.below(7) > 0).then(|| kind.value(random))).collect();
        let mut fields = vec![format!("\"ts\":{ts}")];
        for (at, cell) in cells.iter().enumerate() {
            match cell {
                Some(value) => fields.push(format!("\"c{at}\":{}", value.json())),
                None if random.below(2) == 0 => fields.push(format!("\"c{at}\":null")),
                None => {}
            }
        }
        match random.below(60) {
            0 => ("{\"ts\":".to_string(), None),
            1 => (format!("{{{}}}", fields[1..].join(",")), None),
            2 => ("null".to_string(), None),
            _ => (format!("{{{}}}", fields.join(",")), Some(cells)),
        }
    }

    fn take(&mut self, partition: i32, (ts, cells): (i64, Option<Vec<Cell>>)) {
        let offset = self.ends[partition as usize];
        self.ends[partition as usize] += 1;
        match cells {
            Some(cells) => self.rows.push(Row { partition, offset, ts, cells }),
            None => self.refused.push((partition, offset)),
        }
    }

    pub fn kinds(&self) -> &[Kind] {
        &self.schema.kinds
    }

    pub fn lateness_ms(&self) -> i64 {
        self.schema.lateness_ms
    }
}

fn behind(random: &mut Random, scale_ms: i64) -> i64 {
    match random.below(12) {
        0 => random.below(scale_ms as u64 * 30) as i64,
        1..4 => random.below(scale_ms as u64 * 5) as i64,
        _ => random.below(scale_ms as u64) as i64,
    }
}
