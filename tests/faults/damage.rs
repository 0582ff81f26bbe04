//! A bit on the disk is another: it is found by checksum and told with topic, partition and offsets; all else is served.

use super::calls::{Answer, Caller};
use crate::support::faults::*;
use crate::support::http::Http;
use crate::support::process::Process;
use crate::support::raw::{Identity, PlainRecord, batch};
use crate::support::server::announced;
use crate::support::{Scratch, seed};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

const TOPIC: &str = "marked";
/// CORRUPT_MESSAGE, with which consumers name partition and offset.
const CORRUPT: i16 = 2;
const BATCHES: i64 = 80;
/// Batches of partition 0 are read one by one, those of partition 1 several at a time. Some of them lie in one block, with which they
/// are lost.
const SIZES: [usize; 2] = [9_000, 3_000];
/// Files of level 0 are merged when there are four, and each start makes one of what the one before it wrote.
const STARTS_MAX: usize = 8;
/// Written in each of them, so that a merge that began with it has met the damage.
const APPENDED: i64 = 300;

fn value(partition: i32, at: i64) -> String {
    format!("mark-{partition}-{at:05}-{}", "m".repeat(SIZES[partition as usize]))
}

#[test]
fn a_flipped_bit_is_told_by_offset_and_the_rest_is_served() {
    let seed = seed("damage");
    let mut random = StdRng::seed_from_u64(seed);
    let scratch = Scratch::new("faults-damage");
    let config = scratch.write("faults.toml", "[[topics]]\nname = \"marked\"\npartitions = 2\n");
    let mut faults = Faults::new(&scratch.path("disk"), seed);
    let (mut process, address) = faults.start(&config).expect("no plan is armed");
    let mut caller = Caller::connect(&address.kafka).unwrap();
    for at in 0..BATCHES {
        for partition in 0..2 {
            let record = PlainRecord { value: Some(value(partition, at)), ..PlainRecord::default() };
            let base = caller.produce((TOPIC, partition), batch(&[record], Identity::default()), None).unwrap();
            assert_eq!(base, at);
        }
    }
    // a start moves what the log has into files, and reads nothing into memory
    process.kill9();
    let (mut process, _) = faults.start(&config).expect("no plan is armed");
    assert!(process.terminate(Duration::from_secs(30)).success());
    // in no block that both partitions share, nor in the first
    let damaged = [random.random_range(9..24), random.random_range(25..35)];
    for (partition, at) in (0..).zip(damaged) {
        flip(&faults.data_dir().join("store"), &format!("mark-{partition}-{at:05}"), random.random_range(0..8));
    }
    let (mut process, address) = faults.start(&config).expect("no plan is armed");
    let mut caller = Caller::connect(&address.kafka).unwrap();
    for (partition, at) in (0..).zip(damaged) {
        let (first, next) = read_up_to_damage(&mut caller, partition);
        assert!(first <= at && at < next, "damaged is {at} of partition {partition}, told are {first} to {next}");
        assert!(0 < first && next < BATCHES, "a block is damaged, told are {first} to {next}");
        read_behind_damage(&mut caller, (partition, next), BATCHES);
        let said = process.stderr();
        let wanted = [
            "stored records are damaged".to_owned(),
            format!("partition={partition} from={first} to={} next={next}", next - 1),
        ];
        let line = said.lines().find(|line| wanted.iter().all(|words| line.contains(words.as_str())));
        assert!(line.is_some_and(|line| line.contains("marked")), "{wanted:?}: {}", process.tail());
    }
    // a bit that is wrong on the way from the disk alone, and nothing is in memory: what is served is right, or an error, and the
    // next look has it
    assert!(process.terminate(Duration::from_secs(30)).success());
    let (mut process, address) = faults.start(&config).expect("no plan is armed");
    let mut caller = Caller::connect(&address.kafka).unwrap();
    faults.arm(Plan { action: Action::Flip, classes: READ, kinds: TABLE, count: 1, ..Plan::default() });
    for _ in 0..2 {
        let data = caller.fetch((TOPIC, 0), 0, false).unwrap();
        let (found, _) = crate::transactions::checker::committed(&data, 0);
        found.iter().for_each(|(offset, found)| assert_eq!(*found, value(0, *offset)));
        assert!(data.error_code == 0 && !found.is_empty() || data.error_code == CORRUPT && faults.fired() == 1);
    }
    assert_eq!(faults.fired(), 1, "the fetch read no file");
    assert_eq!(caller.fetch((TOPIC, 0), 0, false).unwrap().error_code, 0);
    // it goes on taking records in
    let record = PlainRecord { value: Some("new".into()), ..PlainRecord::default() };
    assert_eq!(caller.produce((TOPIC, 0), batch(&[record], Identity::default()), None).unwrap(), BATCHES);
    assert_eq!(Http::new(&address.http).try_get("/health/ready").unwrap().0, 200);
    assert!(process.terminate(Duration::from_secs(30)).success());
}

/// A merge that meets damage ends the server, and once more, as what is read wrong once may be read right. From then on all else is served, and
/// writes go on.
#[test]
fn what_merges_cannot_read_is_left_and_the_rest_is_served() {
    let seed = seed("damage-merged");
    let mut random = StdRng::seed_from_u64(seed);
    let scratch = Scratch::new("faults-damage-merged");
    let config = "[[topics]]\nname = \"marked\"\npartitions = 2\nconfig = { \"cleanup.policy\" = \"compact\" }\n";
    let config = scratch.write("faults.toml", config);
    let mut faults = Faults::new(&scratch.path("disk"), seed);
    let (mut process, address) = faults.start(&config).expect("no plan is armed");
    let mut caller = Caller::connect(&address.kafka).unwrap();
    for at in 0..BATCHES {
        assert_eq!(append(&mut caller, 0, at).unwrap(), at);
    }
    append(&mut caller, 1, 0).unwrap();
    process.kill9();
    let (mut process, _) = faults.start(&config).expect("no plan is armed");
    assert!(process.terminate(Duration::from_secs(30)).success());
    let damaged = random.random_range(9..24);
    flip(&faults.data_dir().join("store"), &format!("mark-0-{damaged:05}"), random.random_range(0..8));

    for outcome in ["the next start tries again", "from the next start on it is left as it is"] {
        let mut process = start_until_merged(&mut faults, &config);
        let status = process.wait(Duration::from_secs(20));
        let said = process.stderr();
        assert!(!status.success() && said.contains("a merge met damage in this file"), "{status} {}", process.tail());
        assert!(said.contains(outcome), "{}", process.tail());
        assert!(said.contains("Corruption") && said.contains("then start again"), "{}", process.tail());
    }
    for _ in 0..2 {
        let (mut process, address) = faults.start(&config).expect("no plan is armed");
        assert!(process.stderr().contains("this file is damaged. All else is served"), "{}", process.tail());
        let mut caller = Caller::connect(&address.kafka).unwrap();
        let (first, next) = read_up_to_damage(&mut caller, 0);
        assert!(0 < first && first <= damaged && damaged < next && next < BATCHES, "{damaged}: {first} to {next}");
        let end = append_some(&mut caller).expect("writes go on");
        read_behind_damage(&mut caller, (0, next), end);
        let http = Http::new(&address.http);
        assert_eq!(http.try_get("/health/ready").unwrap().0, 200);
        assert!(http.text("/metrics").contains("\nmillpond_store_damaged_files 1\n"));
        assert!(process.terminate(Duration::from_secs(30)).success());
    }
}

fn append(caller: &mut Caller, partition: i32, at: i64) -> Answer<i64> {
    let record = PlainRecord { key: Some(at.to_string()), value: Some(value(partition, at)), ..PlainRecord::default() };
    caller.produce((TOPIC, partition), batch(&[record], Identity::default()), None)
}

/// Starts and writes until a start has ended by itself.
fn start_until_merged(faults: &mut Faults, config: &Path) -> Process {
    for _ in 0..STARTS_MAX {
        let mut process = faults.spawn(config);
        let Ok(address) = announced(&mut process) else { return process };
        let appended = Caller::connect(&address.kafka).and_then(|mut caller| append_some(&mut caller));
        if appended.is_err() {
            return process;
        }
        process.kill9();
    }
    panic!("no merge met the damage in {STARTS_MAX} starts");
}

/// Appends what belongs there; says where the log ends then. Files that have both partitions overlap, so they are not only moved to the next level.
fn append_some(caller: &mut Caller) -> Answer<i64> {
    let end = caller.fetch((TOPIC, 0), BATCHES, false)?.high_watermark;
    for at in end..end + APPENDED {
        assert_eq!(append(caller, 0, at)?, at);
    }
    append(caller, 1, 0)?;
    Ok(end + APPENDED)
}

/// What the store's own log does not give back is behind the last file, so no offset can be told: only that it is lost.
#[test]
fn what_was_acknowledged_and_cannot_be_read_again_is_told() {
    let seed = seed("damaged-log");
    let scratch = Scratch::new("faults-damaged-log");
    let config = scratch.write("faults.toml", "[[topics]]\nname = \"marked\"\npartitions = 2\n");
    let mut faults = Faults::new(&scratch.path("disk"), seed);
    let (mut process, address) = faults.start(&config).expect("no plan is armed");
    let mut caller = Caller::connect(&address.kafka).unwrap();
    let mut append = |at: i64| {
        let record = PlainRecord { value: Some(value(0, at)), ..PlainRecord::default() };
        assert_eq!(caller.produce((TOPIC, 0), batch(&[record], Identity::default()), None).unwrap(), at);
    };
    (0..10).for_each(&mut append);
    faults.arm(Plan { action: Action::Flip, classes: WRITE, kinds: WAL, ..Plan::default() });
    append(10);
    assert_eq!(faults.fired(), 1);
    faults.disarm();
    (11..15).for_each(&mut append);
    process.kill9();
    let (mut process, address) = faults.start(&config).expect("no plan is armed");
    for words in ["changes that were acknowledged are lost", "restore a backup"] {
        assert!(process.stderr().contains(words), "{words}: {}", process.tail());
    }
    let mut caller = Caller::connect(&address.kafka).unwrap();
    let (_, records) = caller.read((TOPIC, 0), false).unwrap();
    assert!(records.iter().map(|(at, _)| *at).eq(0..10), "what came before the damage is there: {}", records.len());
    assert!(process.terminate(Duration::from_secs(30)).success());
    let (process, _) = faults.start(&config).expect("no plan is armed");
    assert!(!process.stderr().contains("acknowledged are lost"), "{}", process.tail());
}

/// Reads from the beginning until the damage: where it begins, and where it ends, which is found by going on one by one.
fn read_up_to_damage(caller: &mut Caller, partition: i32) -> (i64, i64) {
    let mut at = 0;
    loop {
        let data = caller.fetch((TOPIC, partition), at, false).unwrap();
        if data.error_code == CORRUPT {
            break;
        }
        assert_eq!(data.error_code, 0, "partition {partition} at {at}");
        let (found, next) = crate::transactions::checker::committed(&data, at);
        found.iter().for_each(|(offset, found)| assert_eq!(*found, value(partition, *offset)));
        assert!(next > at && next <= BATCHES, "partition {partition} is read to {next} without a word of the damage");
        at = next;
    }
    let reads = |at: &i64| caller.fetch((TOPIC, partition), *at, false).unwrap().error_code == 0;
    let next = (at..=BATCHES).find(reads).expect("what follows the damage is read");
    (at, next)
}

/// Who goes on behind the damage has the rest.
fn read_behind_damage(caller: &mut Caller, (partition, next): (i32, i64), end: i64) {
    let mut at = next;
    while at < end {
        let data = caller.fetch((TOPIC, partition), at, false).unwrap();
        assert_eq!(data.error_code, 0, "partition {partition} at {at}");
        let (found, next) = crate::transactions::checker::committed(&data, at);
        found.iter().for_each(|(offset, found)| assert_eq!(*found, value(partition, *offset)));
        assert!(next > at);
        at = next;
    }
}

/// Flips a bit of the mark in the one data file that has it.
fn flip(store: &Path, mark: &str, bit: u32) {
    let tables = fs::read_dir(store).unwrap().map(|entry| entry.unwrap().path());
    let mut found = 0;
    for path in tables.filter(|path| path.extension().is_some_and(|end| end == "sst")) {
        let bytes = fs::read(&path).unwrap();
        if let Some(at) = bytes.windows(mark.len()).position(|window| window == mark.as_bytes()) {
            let at = at + mark.len();
            File::options()
                .write(true)
                .open(&path)
                .unwrap()
                .write_all_at(&[bytes[at] ^ (1 << bit)], at as u64)
                .unwrap();
            found += 1;
        }
    }
    assert_eq!(found, 1, "{mark} lies in {found} files of {}", store.display());
}
