//! With much stored: produce and fetch, what is written and read for a byte, and starts after a stop in order and after `kill -9`.

mod report;

use std::path::Path;
use std::time::Duration;

use crate::Outcome;
use crate::brokers::{Place, Product, Running};
use crate::load::{self, Moved, Target};
use crate::machine::{self, Io};
use crate::rounds::{self, Rate, Rounds, rated, take_turns};
use crate::settings::Settings;

const TOPIC: &str = "stored";
const PARTITIONS: i32 = 6;
const RECORD_BYTES: usize = 1024;
/// Written before each end, so that a crash finds something that no file has yet.
const MIB_BEFORE_END: usize = 64;
/// Most time to fill a store.
const FILL_MAX: Duration = Duration::from_secs(3_600);

/// One start.
#[derive(Clone, Copy, Debug)]
pub struct Started {
    /// From the start of the process to its first acknowledged record.
    pub seconds: f64,
    /// Resident memory two seconds later, in bytes.
    pub resident_bytes: u64,
}

/// One round.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Behind what is stored.
    pub produce: Rate,
    /// All of it, by a process that has just started, from files of which the system has nothing in memory.
    pub cold: Rate,
    /// Bytes that the broker had from the device meanwhile, per byte of values.
    pub device_bytes: f64,
    /// Bytes that the broker read meanwhile, wherever they were, per byte of values.
    pub read_bytes: f64,
    /// The same once more.
    pub warm: Rate,
    /// After SIGTERM.
    pub stopped: Started,
    /// After SIGKILL.
    pub killed: Started,
}

/// What filling an empty store came to, per byte of values. Counts, so once each.
#[derive(Clone, Copy, Debug)]
struct Filled {
    /// Bytes written to the device until the broker was idle.
    written: f64,
    /// Bytes of blocks in the data directory then.
    kept: f64,
}

/// What one size gave.
#[derive(Debug)]
struct Size {
    gib: usize,
    /// One entry per broker, in the order of `rounds`.
    filled: Vec<Filled>,
    rounds: Vec<Rounds<Measured>>,
}

/// What the part gave.
#[derive(Debug)]
pub struct Stored {
    sizes: Vec<Size>,
}

/// A store that was filled, and what is in it.
struct Contender {
    place: Place,
    records: usize,
}

/// Runs the part.
///
/// # Errors
/// A broker that fails anything ends the run.
pub fn run(settings: &Settings, scratch: &Path) -> Outcome<Stored> {
    let sizes = settings.stored_gib.iter().map(|gib| size(settings, scratch, *gib));
    Ok(Stored { sizes: sizes.collect::<Outcome<_>>()? })
}

fn size(settings: &Settings, scratch: &Path, gib: usize) -> Outcome<Size> {
    let (mut contenders, mut filled) = (Vec::new(), Vec::new());
    for product in &settings.brokers {
        let mut contender =
            Contender { place: Place::new(*product, scratch, &format!("stored-{gib}"), true), records: 0 };
        let figures = contender.fill(gib)?;
        eprintln!("bench: {gib} GiB {}: {figures:?}", product.name());
        filled.push(figures);
        contenders.push(contender);
    }
    let rounds = take_turns(settings, 0, |turn, _| contenders[turn].round(settings))?;
    contenders.iter().try_for_each(|contender| contender.place.remove())?;
    Ok(Size { gib, filled, rounds })
}

impl Contender {
    fn fill(&mut self, gib: usize) -> Outcome<Filled> {
        let mut broker = self.place.start()?;
        load::create_topics(&broker.bootstrap, &[TOPIC], PARTITIONS, load::flush_each(broker.product, true))?;
        let empty = (broker.settle()?, self.place.on_disk()?);
        let (moved, _) = self.produce(&mut broker, gib << 10, FILL_MAX)?;
        if moved.records * RECORD_BYTES < (gib << 30) {
            return Err(format!("{gib} GiB took more than {FILL_MAX:?}").into());
        }
        let (written, kept) = (broker.settle()?, self.place.on_disk()?);
        broker.stop()?;
        let live = (self.records * RECORD_BYTES) as f64;
        let per_byte = |after: u64, before: u64| after.saturating_sub(before) as f64 / live;
        Ok(Filled { written: per_byte(written, empty.0), kept: per_byte(kept, empty.1) })
    }

    /// Produces, then ends and starts the broker in both ways; between them it reads everything.
    fn round(&mut self, settings: &Settings) -> Outcome<Measured> {
        let within = settings.phase_max();
        let mut broker = self.place.start()?;
        load::warm_up(&broker.bootstrap).map_err(|error| broker.explain(error))?;
        machine::settle()?;
        let (_, produce) = self.produce(&mut broker, settings.mib_large, within)?;
        self.produce(&mut broker, MIB_BEFORE_END, FILL_MAX)?;
        broker.stop()?;
        machine::settle()?;
        let mut broker = self.place.start()?;
        let stopped = started(&broker)?;
        machine::forget(&self.place.data())?;
        machine::settle()?;
        let before = machine::io(broker.pid())?;
        let (moved, cold) = self.fetch(&mut broker, within)?;
        let after = machine::io(broker.pid())?;
        let (_, warm) = self.fetch(&mut broker, within)?;
        self.produce(&mut broker, MIB_BEFORE_END, FILL_MAX)?;
        let live = (moved.records * RECORD_BYTES) as f64;
        broker.kill();
        machine::settle()?;
        let broker = self.place.start()?;
        let killed = started(&broker)?;
        broker.stop()?;
        let per_byte = |of: fn(&Io) -> u64| of(&after).saturating_sub(of(&before)) as f64 / live;
        let (device_bytes, read_bytes) = (per_byte(|io| io.from_device), per_byte(|io| io.read));
        Ok(Measured { produce, cold, device_bytes, read_bytes, warm, stopped, killed })
    }

    fn target(&self, broker: &Running) -> Target {
        Target { record_bytes: RECORD_BYTES, ..Target::new(&broker.bootstrap, TOPIC, PARTITIONS) }
    }

    fn produce(&mut self, broker: &mut Running, mib: usize, within: Duration) -> Outcome<(Moved, Rate)> {
        let target = self.target(broker);
        let records = (mib << 20) / RECORD_BYTES;
        let produced = rated(broker, RECORD_BYTES, || load::produce(&target, records, within));
        let produced = produced.map_err(|error| broker.explain(error))?;
        self.records += produced.0.records + target.partitions_usize();
        Ok(produced)
    }

    fn fetch(&self, broker: &mut Running, within: Duration) -> Outcome<(Moved, Rate)> {
        let target = self.target(broker);
        let fetched = rated(broker, RECORD_BYTES, || load::consume(&target, self.records, within));
        fetched.map_err(|error| broker.explain(error).into())
    }
}

fn started(broker: &Running) -> Outcome<Started> {
    Ok(Started { seconds: broker.start_up.as_secs_f64(), resident_bytes: broker.idle_bytes()? })
}

impl Stored {
    /// Median over the rounds of one figure with the most that was stored, if it was measured.
    pub fn figure(&self, product: Product, of: impl Fn(&Measured) -> f64) -> Option<f64> {
        rounds::figure(&self.sizes.iter().max_by_key(|size| size.gib)?.rounds, product, of)
    }

    /// The same divided by what it was with the least that was stored, if there were two sizes.
    pub fn growth(&self, product: Product, of: impl Fn(&Measured) -> f64) -> Option<[f64; 2]> {
        let (least, most) =
            (self.sizes.iter().min_by_key(|size| size.gib)?, self.sizes.iter().max_by_key(|size| size.gib)?);
        let of = |size: &Size| rounds::figure(&size.rounds, product, &of);
        if least.gib == most.gib { None } else { Some([of(most)?, of(least)?]) }
    }
}
