//! Single calls fail: after a failed write or sync nothing is acknowledged, the server says why and ends, and a restart goes on. A
//! write that is taken in part is finished.

use super::model::{CONFIG, Model};
use crate::support::faults::*;
use crate::support::{Scratch, beside_others, seed};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::path::PathBuf;
use std::time::Duration;

/// Enough for any plan here to come to its call.
const ACTIONS: u32 = 400;

fn begin(name: &str) -> (Scratch, Faults, PathBuf, Model, StdRng) {
    let seed = seed(name);
    let scratch = Scratch::new(&format!("faults-{name}"));
    let faults = Faults::new(&scratch.path("disk"), seed);
    let config = scratch.write("faults.toml", CONFIG);
    (scratch, faults, config, Model::new(StdRng::seed_from_u64(seed ^ 1)), StdRng::seed_from_u64(seed))
}

#[test]
fn after_a_failed_write_or_sync_nothing_is_acknowledged_and_a_restart_goes_on() {
    let _beside = beside_others();
    let (_scratch, mut faults, config, mut model, mut random) = begin("failures");
    for (classes, error) in [(WRITE, libc::EIO), (SYNC, libc::EIO), (WRITE, libc::ENOSPC), (SYNC, libc::ENOSPC)] {
        let (mut process, address) = faults.start(&config).expect("no plan is armed");
        model.live(&address, 10).expect("nothing fails yet");
        let at = random.random_range(1..20);
        faults.arm(Plan { action: Action::Fail, classes, kinds: WAL, at, error, ..Plan::default() });
        let lived = model.live(&address, ACTIONS);
        assert!(lived.is_err() && faults.fired() == 1, "{classes} at {at}, error {error}: {} calls", faults.hits());
        let status = process.wait(Duration::from_secs(30));
        assert_eq!(status.code(), Some(1), "{}", process.tail());
        let said = process.stderr();
        for words in ["nothing is acknowledged any more", "look at the disk, then start again"] {
            assert!(said.contains(words), "{words}: {}", process.tail());
        }
        faults.disarm();
    }
    let (mut process, address) = faults.start(&config).expect("no plan is armed");
    model.live(&address, 20).expect("nothing fails");
    // a write that is not taken whole is no failure: the rest follows
    faults.arm(Plan { action: Action::Shorten, classes: WRITE, kinds: WAL, count: u64::MAX, ..Plan::default() });
    model.live(&address, 60).expect("a short write is continued");
    assert!(faults.fired() > 20, "{} short writes", faults.fired());
    process.kill9();
    faults.disarm();
    let (mut process, address) = faults.start(&config).expect("no plan is armed");
    model.live(&address, 0).expect("nothing fails");
    assert!(process.terminate(Duration::from_secs(30)).success(), "{}", process.tail());
}

/// What writes memory out and what notes it works behind the commits: it is tried again, or nothing more is acknowledged.
#[test]
fn what_fails_behind_the_commits_loses_nothing() {
    let _beside = beside_others();
    let (_scratch, mut faults, config, mut model, mut random) = begin("failures-behind");
    let mut ended = 0;
    for round in 0..12 {
        let (classes, kinds) = ([CREATE, WRITE, SYNC][round % 3], [TABLE, MANIFEST][round / 3 % 2]);
        let (mut process, address) = faults.start(&config).expect("no plan is armed");
        model.live(&address, 5).expect("nothing fails yet");
        let at = random.random_range(1..=3);
        faults.arm(Plan { action: Action::Fail, classes, kinds, at, ..Plan::default() });
        if model.live(&address, ACTIONS).is_err() {
            ended += 1;
            let status = process.wait(Duration::from_secs(30));
            assert!(faults.fired() > 0 && status.code() == Some(1), "{status}: {}", process.tail());
            assert!(process.stderr().contains("look at the disk, then start again"), "{}", process.tail());
        }
        process.kill9();
        faults.disarm();
    }
    eprintln!("failures-behind: {ended} servers ended");
    assert!(ended > 0, "no failure was met");
    let (mut process, address) = faults.start(&config).expect("no plan is armed");
    model.live(&address, 20).expect("nothing fails");
    assert!(process.terminate(Duration::from_secs(30)).success(), "{}", process.tail());
}

#[test]
fn a_start_that_fails_says_why_and_the_next_one_has_everything() {
    let _beside = beside_others();
    let (_scratch, mut faults, config, mut model, mut random) = begin("failed-starts");
    let (mut process, address) = faults.start(&config).expect("no plan is armed");
    model.live(&address, 40).expect("nothing fails yet");
    process.kill9();
    let mut failed = 0;
    for round in 0..14 {
        let classes = [WRITE, SYNC, RENAME][round % 3];
        let kinds = [TABLE, MANIFEST, ANY & !WAL][random.random_range(0..3)];
        let at = random.random_range(1..=4);
        faults.arm(Plan { action: Action::Fail, classes, kinds, at, ..Plan::default() });
        let mut process = faults.spawn(&config);
        match crate::support::server::announced(&mut process) {
            Ok(address) => {
                faults.disarm();
                // what failed was tried again by the store, or it is not needed
                if model.live(&address, 5).is_err() {
                    let status = process.wait(Duration::from_secs(30));
                    assert!(faults.fired() > 0 && status.code() == Some(1), "{status}: {}", process.tail());
                }
            }
            Err(error) => {
                failed += 1;
                let status = process.wait(Duration::from_secs(30));
                assert!(faults.fired() > 0 && matches!(status.code(), Some(1 | 2)), "{status}: {error}");
                assert!(process.stderr().contains("Input/output error"), "{error}");
            }
        }
        process.kill9();
        faults.disarm();
    }
    eprintln!("failed-starts: {failed} starts failed");
    assert!(failed > 0, "no start met its fault");
    // an old note that cannot be replaced would say more than there is
    let (note, aside) = (faults.data_dir().join("acknowledged"), faults.data_dir().join("aside"));
    std::fs::rename(&note, &aside).unwrap();
    std::fs::create_dir(&note).unwrap();
    let mut process = faults.spawn(&config);
    let error = crate::support::server::announced(&mut process).expect_err("the note is a directory");
    assert_eq!(process.wait(Duration::from_secs(30)).code(), Some(1), "{error}");
    assert!(process.stderr().contains("yours to read and to write"), "{error}");
    std::fs::remove_dir(&note).unwrap();
    std::fs::rename(&aside, &note).unwrap();
    let (mut process, address) = faults.start(&config).expect("no plan is armed");
    model.live(&address, 20).expect("nothing fails");
    assert!(process.terminate(Duration::from_secs(30)).success(), "{}", process.tail());
}
