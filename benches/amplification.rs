//! Amplification: bytes that go to the device, and that stay there, per byte produced.

use std::fmt::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::brokers::{IDLE, Place, Product, Running};
use crate::load::{self, Target};
use crate::settings::Settings;

const TOPIC: &str = "amplification";
const PARTITIONS: i32 = 6;
/// Most time of one load.
const LOAD_MAX: Duration = Duration::from_secs(180);

/// One load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// Bytes of a record's value.
    pub record_bytes: usize,
    /// Whether what is acknowledged is on the disk.
    pub fsync: bool,
}

/// In the order of the table.
pub const CASES: [Case; 3] = [
    Case { record_bytes: 100, fsync: true },
    Case { record_bytes: 1024, fsync: true },
    Case { record_bytes: 1024, fsync: false },
];

/// What one load came to.
#[derive(Clone, Copy, Debug)]
pub struct Counted {
    /// Bytes of values.
    pub live: f64,
    /// Bytes written to the device until the broker was idle.
    pub written: f64,
    /// Bytes of blocks in the data directory then, less those of the empty store.
    pub kept: f64,
    /// How long it took to be idle after the last acknowledgement.
    pub settle_seconds: f64,
}

/// What the part gave: per broker one entry per case. Counts, so once each.
#[derive(Debug)]
pub struct Amplification {
    counted: Vec<(Product, Vec<Counted>)>,
    mib: usize,
}

/// Runs the part, each case on an empty folder.
///
/// # Errors
/// A broker that fails anything ends the run.
pub fn run(settings: &Settings, scratch: &Path) -> Outcome<Amplification> {
    let mut counted = Vec::new();
    for product in &settings.brokers {
        let mut cases = Vec::new();
        for (at, case) in CASES.into_iter().enumerate() {
            let place = Place::new(*product, scratch, &format!("amplification-{at}"), case.fsync);
            let mut broker = place.start()?;
            let figures = count(&broker, &place, case, settings).map_err(|error| broker.explain(error))?;
            eprintln!("bench: {} {case:?}: {figures:?}", product.name());
            cases.push(figures);
            broker.kill();
            place.remove()?;
        }
        counted.push((*product, cases));
    }
    Ok(Amplification { counted, mib: settings.amplification_mib })
}

fn count(broker: &Running, place: &Place, case: Case, settings: &Settings) -> Outcome<Counted> {
    load::create_topics(&broker.bootstrap, &[TOPIC], PARTITIONS, load::flush_each(broker.product, case.fsync))?;
    let record_bytes = case.record_bytes;
    let target = Target { record_bytes, ..Target::new(&broker.bootstrap, TOPIC, PARTITIONS) };
    let (written, kept) = (broker.settle()?, place.on_disk()?);
    let moved = load::produce(&target, (settings.amplification_mib << 20) / record_bytes, LOAD_MAX)?;
    let ended = Instant::now();
    let written = broker.settle()?.saturating_sub(written);
    let settle_seconds = ended.elapsed().saturating_sub(IDLE).as_secs_f64();
    let kept = place.on_disk()?.saturating_sub(kept);
    let live = ((moved.records + target.partitions_usize()) * record_bytes) as f64;
    Ok(Counted { live, written: written as f64, kept: kept as f64, settle_seconds })
}

impl Amplification {
    /// One figure of one case, if it was measured.
    pub fn figure(&self, product: Product, case: Case, of: impl Fn(&Counted) -> f64) -> Option<f64> {
        let (_, cases) = self.counted.iter().find(|(known, _)| *known == product)?;
        let at = CASES.iter().position(|known| *known == case)?;
        cases.get(at).map(of)
    }

    /// Adds its section.
    ///
    /// # Errors
    /// None in practice.
    pub fn describe(&self, text: &mut String) -> Outcome<()> {
        let (mib, idle) = (self.mib, IDLE.as_secs());
        writeln!(text, "## Amplification\n")?;
        writeln!(
            text,
            "{mib} MiB of values, acks all, as fast as it goes, then until the broker has written less than a MiB in {idle} s; what \
             is in memory then has been written once, to a log. Written: what the kernel counts for the process in \
             `/proc/PID/io`, less what was deleted before it reached the device. On disk: blocks in the data directory. Both less \
             what the empty store had. Counts, so measured once.\n"
        )?;
        writeln!(
            text,
            "| fsync | record | broker | written per byte | on disk per byte | idle after s |\n|---|---|---|---|---|---|"
        )?;
        for (at, case) in CASES.iter().enumerate() {
            for (product, cases) in &self.counted {
                let (fsync, Counted { live, written, kept, settle_seconds }) =
                    (if case.fsync { "on" } else { "off" }, cases[at]);
                write!(text, "| {fsync} | {} B | {} |", case.record_bytes, product.name())?;
                writeln!(text, " {:.2} | {:.2} | {settle_seconds:.0} |", written / live, kept / live)?;
            }
        }
        writeln!(text)?;
        Ok(())
    }
}
