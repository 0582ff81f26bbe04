//! One minute of a soak: what the server had, and how long its clients waited.

use std::path::PathBuf;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use super::hiccups::Hiccups;
use crate::load::Reports;
use crate::report::{median, quantiles};
use crate::{Outcome, machine};

/// Between two looks at the server's memory. Far more often than free memory goes back to the system: looks every ten seconds, as there were
/// once, all came as long after that, drifted within an hour from just behind it to just before, and saw 50 MiB grow.
const LOOK: Duration = Duration::from_millis(250);
const LOOKS_PER_MINUTE: u32 = 240;

/// The server that is watched.
pub struct Watched {
    /// Its process.
    pub pid: u32,
    /// Its data directory.
    pub data: PathBuf,
}

/// What one minute gave.
#[derive(Clone, Copy, Debug)]
pub struct Minute {
    /// Records with a delivery report per second.
    pub records: f64,
    /// Resident memory, median of the looks, in MiB.
    pub resident_mib: f64,
    /// The least and the most of them: what is left when free memory has just gone back, and what a pause gathers.
    pub resident_range_mib: [f64; 2],
    /// Open descriptors at its end.
    pub descriptors: f64,
    /// Files in the data directory at its end.
    pub files: f64,
    /// Their blocks, in MiB.
    pub disk_mib: f64,
    /// p50, p99 and p99.9 of due to delivery report, in milliseconds.
    pub produce_ms: [f64; 3],
    /// The same to the consumer.
    pub end_to_end_ms: [f64; 3],
    /// The same of the machine itself.
    pub hiccup_ms: [f64; 3],
}

/// What the clients' threads note, in nanoseconds.
pub struct Noted<'a> {
    /// Delivery reports.
    pub reports: &'a Reports,
    /// From due to the consumer.
    pub arrivals: &'a Mutex<Vec<u64>>,
    /// Of the machine.
    pub hiccups: &'a Hiccups,
}

/// Watches minute by minute until the time is over; takes the delays that reports and consumer have noted.
///
/// # Errors
/// The server is gone, a record was not delivered, or a client `has_ended`.
pub fn watch(
    (started, during): (Instant, Duration),
    watched: &Watched,
    Noted { reports, arrivals, hiccups }: Noted<'_>,
    has_ended: impl Fn() -> bool,
) -> Outcome<Vec<Minute>> {
    let mut minutes = Vec::new();
    let mut residents = Vec::new();
    let (mut looks, mut acknowledged) = (0, 0);
    while LOOK * looks < during {
        looks += 1;
        thread::sleep((started + LOOK * looks).saturating_duration_since(Instant::now()));
        residents.push(machine::memory_bytes(watched.pid, "VmRSS")? as f64 / f64::from(1 << 20));
        if let Some(error) = &reports.seen().failed {
            return Err(format!("a record was not delivered: {error}").into());
        }
        if has_ended() {
            return Err("a client ended before its time".into());
        }
        if looks % LOOKS_PER_MINUTE != 0 {
            continue;
        }
        let (reported, mut produced) = {
            let mut seen = reports.seen();
            (seen.acknowledged, std::mem::take(&mut seen.delays_ns))
        };
        let mut received = std::mem::take(&mut *arrivals.lock().expect("no holder of this lock panics"));
        let stored = machine::stored(&watched.data)?;
        // sorts them
        let resident_mib = median(&mut residents);
        let minute = Minute {
            records: (reported - acknowledged) as f64 / (LOOK * LOOKS_PER_MINUTE).as_secs_f64(),
            resident_range_mib: [residents[0], residents[residents.len() - 1]],
            resident_mib,
            descriptors: machine::descriptors(watched.pid)? as f64,
            files: stored.files as f64,
            disk_mib: stored.bytes as f64 / f64::from(1 << 20),
            produce_ms: quantiles(&mut produced),
            end_to_end_ms: quantiles(&mut received),
            hiccup_ms: quantiles(&mut hiccups.take()),
        };
        residents.clear();
        acknowledged = reported;
        minutes.push(minute);
        eprintln!("soak: minute {}: {minute:?}", minutes.len());
    }
    Ok(minutes)
}
