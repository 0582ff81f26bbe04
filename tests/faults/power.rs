//! The power goes at any call: hundreds of crash points here, tens of thousands by `make crash`. `MILLPOND_CRASHES` says how many,
//! `MILLPOND_SEED` repeats a chain of them (as far as threads take their turns alike).

use super::calls::Caller;
use super::model::{CONFIG, Model};
use crate::support::faults::*;
use crate::support::raw::{Identity, PlainRecord, batch};
use crate::support::server::check;
use crate::support::{CASE_MAX, Scratch, beside_others, seed};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Crashes that one data directory sees.
const CHAIN: u64 = 20;
const CRASHES: u64 = 240;
/// To so many crashes comes one of a server that waits for the system only.
const OS_SHARE: u64 = 4;
/// After so many `millpond check` reads what is left; the next start compares it anyway.
const CHECKED_EVERY: u64 = 5;
/// From so many crashes on each named point has had one.
const ALL_POINTS_FROM: u64 = 2_000;
/// Of a hundred plans so many come to their call, at least.
const LEAST_FIRED: u64 = 70;
/// Data directories that are tried at a time.
const BESIDE: usize = 2;
/// What a user does in one life, at most.
const ACTIONS: u32 = 200;
/// Data directories in which it is looked at what a start says.
const TOLD: u64 = 20;

/// With `durability = "os"` a power cut may lose the last moments, of everything at once: what is left is a state that once was.
#[test]
fn without_syncs_the_last_moments_are_lost_together() {
    let _beside = beside_others();
    outlives_the_power("os", crashes().div_ceil(OS_SHARE), seed("power-os"));
}

#[test]
fn what_was_acknowledged_outlives_the_power() {
    let _beside = beside_others();
    outlives_the_power("fsync", crashes(), seed("power"));
}

/// With `durability = "os"` the power may take what was acknowledged, of which a start warns; from the first server with `fsync` on it may not.
#[test]
fn what_the_power_took_is_told_as_what_it_may_take() {
    let _beside = beside_others();
    let seed = seed("power-told");
    let mut told = 0;
    for number in 0..TOLD {
        let scratch = Scratch::new(&format!("power-told-{number}"));
        let mut faults = Faults::new(&scratch.path("disk"), seed + number);
        let mut before = "fsync";
        for durability in ["os", "os", "fsync", "fsync"] {
            let config = format!("[broker]\ndurability = \"{durability}\"\n[[topics]]\nname = \"told\"\n");
            let config = scratch.write("faults.toml", &config);
            let (mut process, address) = faults.start(&config).expect("no plan is armed");
            let said = process.stderr();
            assert!(before == "os" || !said.contains("acknowledged are lost"), "{}", process.tail());
            assert!(!said.contains("restore a backup"), "{}", process.tail());
            told += u64::from(said.contains("a power cut may take the last ones"));
            faults.arm(Plan { classes: WRITE, kinds: WAL, at: 10, ..Plan::default() });
            let mut caller = Caller::connect(&address.kafka).unwrap();
            let record = PlainRecord { value: Some("value".into()), ..PlainRecord::default() };
            while caller.produce(("told", 0), batch(std::slice::from_ref(&record), Identity::default()), None).is_ok() {
            }
            assert!(faults.ended(&mut process), "the server hung up\n{}", process.tail());
            faults.disarm();
            before = durability;
        }
    }
    assert!(told > 0, "no cut took what was acknowledged");
}

fn crashes() -> u64 {
    std::env::var("MILLPOND_CRASHES").map_or(CRASHES, |text| text.parse().unwrap())
}

/// Chains of so many crashes in all.
fn outlives_the_power(durability: &'static str, crashes: u64, seed: u64) {
    let started = Instant::now();
    let [next, crashed, cut, early, holes, acknowledged] = [const { AtomicU64::new(0) }; 6];
    let points = [const { AtomicU64::new(0) }; POINTS.len()];
    thread::scope(|scope| {
        let chains = || {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= crashes.div_ceil(CHAIN) {
                    return;
                }
                let done = Chain::new(seed + number, durability).run();
                crashed.fetch_add(done.crashed, Ordering::Relaxed);
                cut.fetch_add(done.cut, Ordering::Relaxed);
                early.fetch_add(done.early, Ordering::Relaxed);
                holes.fetch_add(done.holes, Ordering::Relaxed);
                acknowledged.fetch_add(done.model.acknowledged, Ordering::Relaxed);
                for (all, here) in points.iter().zip(done.points) {
                    all.fetch_add(here, Ordering::Relaxed);
                }
            }
        };
        let workers: Vec<_> = (0..BESIDE).map(|_| scope.spawn(chains)).collect();
        workers.into_iter().for_each(|worker| worker.join().expect("a chain failed: its seed is above"));
    });
    let (crashed, cut, early) = (crashed.into_inner(), cut.into_inner(), early.into_inner());
    eprintln!(
        "power, {durability}: {crashed} crashes ({cut} power cuts, {early} before the server was ready), {} logs with holes, \
         {} records acknowledged, {:?}",
        holes.into_inner(),
        acknowledged.into_inner(),
        started.elapsed()
    );
    let points: Vec<(&str, u64)> = POINTS.into_iter().zip(points.map(AtomicU64::into_inner)).collect();
    eprintln!("power, {durability}: crashes at named points: {points:?}");
    let missed: Vec<_> = points.iter().filter(|(_, crashes)| *crashes == 0).collect();
    assert!(missed.is_empty() || crashes < ALL_POINTS_FROM, "no crash at {missed:?}");
    assert!(
        crashed >= crashes * LEAST_FIRED / 100 && early > 0,
        "few plans came to their call: {crashed} of {crashes}"
    );
}

/// Lives of one data directory, each ended by the disk's layer, or from outside where its plan did not come to its call.
struct Chain {
    seed: u64,
    durability: &'static str,
    random: StdRng,
    scratch: Scratch,
    faults: Faults,
    model: Model,
    crashed: u64,
    cut: u64,
    early: u64,
    /// Starts that ended the log before a hole.
    holes: u64,
    /// Crashes at each of the named points.
    points: [u64; POINTS.len()],
}

impl Chain {
    fn new(seed: u64, durability: &'static str) -> Chain {
        let scratch = Scratch::lasting(&format!("power-{durability}-{seed}"), CASE_MAX);
        let faults = Faults::new(&scratch.path("disk"), seed);
        let model = Model::new(StdRng::seed_from_u64(seed ^ 1));
        let random = StdRng::seed_from_u64(seed);
        Chain {
            seed,
            durability,
            random,
            scratch,
            faults,
            model,
            crashed: 0,
            cut: 0,
            early: 0,
            holes: 0,
            points: [0; POINTS.len()],
        }
    }

    fn run(mut self) -> Chain {
        let shown =
            Shown(format!("power: MILLPOND_SEED={} MILLPOND_CRASHES={CHAIN} repeats the chain that failed", self.seed));
        let synced = self.durability == "fsync";
        let durability = format!("[broker]\ndurability = \"{}\"", self.durability);
        let config = self.scratch.write("faults.toml", &CONFIG.replace("[broker]", &durability));
        // whether the power went since the last start that came to its end
        let mut may_have_hole = false;
        for life in 1..=CHAIN {
            let (plan, point) = self.plan();
            self.faults.arm(plan);
            let started = self.faults.start(&config);
            let was_ready = started.is_some();
            self.early += u64::from(!was_ready);
            if let Some((mut process, address)) = started {
                assert!(!synced || !process.stderr().contains("acknowledged are lost"), "{}", process.tail());
                // without syncs it is what a power cut may take, and nothing that a backup is for
                assert!(!process.stderr().contains("restore a backup"), "{}", process.tail());
                let has_hole = process.stderr().contains("left a hole in the log");
                assert!(!has_hole || may_have_hole, "nothing is lost with the process\n{}", process.tail());
                may_have_hole = false;
                self.holes += u64::from(has_hole);
                let lived = self.model.live(&address, ACTIONS);
                if lived.is_err() {
                    assert!(self.faults.ended(&mut process), "the server hung up\n{}", process.tail());
                }
                process.kill9();
            }
            let came = u64::from(self.faults.fired() > 0);
            let cut = plan.action == Action::Cut && came > 0;
            self.crashed += came;
            self.cut += u64::from(cut);
            may_have_hole |= cut;
            if let Some(point) = point {
                self.points[point] += came;
            }
            // what a start finds is on the device as soon as it is ready
            if cut && was_ready && !synced {
                self.model.forget();
            }
            if was_ready && life % CHECKED_EVERY == 0 {
                check(&self.faults.data_dir());
            }
        }
        self.faults.disarm();
        for actions in [ACTIONS, 0] {
            let (mut process, address) = self.faults.start(&config).expect("no plan is armed");
            self.model.live(&address, actions).unwrap_or_else(|_| panic!("the server is gone\n{}", process.tail()));
            assert!(process.terminate(Duration::from_secs(30)).success(), "{}", process.tail());
        }
        drop(shown);
        self
    }

    /// Where the next life ends: at a call in its start, under load or about a commit, or at one of the named points.
    fn plan(&mut self) -> (Plan, Option<usize>) {
        let random = &mut self.random;
        let action = if random.random_range(0..5) == 0 { Action::Kill } else { Action::Cut };
        if random.random_range(0..3) == 0 {
            let place = random.random_range(0..POINTS.len());
            let often = match POINTS[place] {
                "opened" => 1,
                "taken" | "written" | "synced" | "published" => 60,
                _ => 2,
            };
            let at = random.random_range(1..=often);
            return (Plan { action, classes: POINT, kinds: point(place), at, ..Plan::default() }, Some(place));
        }
        let (classes, kinds, at) = match random.random_range(0..10) {
            0..=2 => (CHANGES, ANY, random.random_range(1..=90)),
            3..=5 => (CHANGES, ANY, random.random_range(90..=500)),
            6 => (SYNC, WAL, random.random_range(1..=40)),
            7 => (WRITE, WAL, random.random_range(1..=40)),
            8 => (CHANGES, MANIFEST | CURRENT, random.random_range(1..=16)),
            _ => (CHANGES & !SYNC, TABLE | WAL, random.random_range(1..=60)),
        };
        let after = random.random_range(0..2) == 0;
        (Plan { action, classes, kinds, at, after, ..Plan::default() }, None)
    }
}

/// Says how to repeat what failed, when it is dropped by a panic.
struct Shown(String);

impl Drop for Shown {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.0);
        }
    }
}
