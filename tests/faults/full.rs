//! The disk is full, really: writes wait and are made once there is room, producers are told to try again, readers go on.

use super::calls::{Caller, STORAGE};
use super::model::{CONFIG, Model};
use crate::support::faults::*;
use crate::support::http::Http;
use crate::support::raw::{Identity, PlainRecord, batch};
use crate::support::{Scratch, beside_others, eventually, seed};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::json;
use std::cell::Cell;
use std::thread;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn a_full_disk_holds_writers_up_and_nothing_else() {
    let _beside = beside_others();
    let seed = seed("full");
    let scratch = Scratch::new("faults-full");
    let mut faults = Faults::new(&scratch.path("disk"), seed);
    let elsewhere = "[[topics]]\nname = \"elsewhere\"\nconfig = { \"retention.ms\" = \"-1\" }\n";
    let config = scratch.write("faults.toml", &format!("{CONFIG}{elsewhere}"));
    let mut model = Model::new(StdRng::seed_from_u64(seed));
    let (mut process, address) = faults.start(&config).expect("no plan is armed");
    model.live(&address, 40).unwrap();
    // what was written before lies in files, and nothing of it in memory
    process.kill9();
    let (mut process, address) = faults.start(&config).expect("no plan is armed");
    model.live(&address, 0).unwrap();
    let http = Http::new(&address.http);
    let produced = Cell::new(0);
    let produce = || {
        let record = PlainRecord { value: Some("more".into()), ..PlainRecord::default() };
        let mut caller = Caller::connect(&address.kafka).unwrap();
        let (code, _) = caller.try_produce(("elsewhere", 0), batch(&[record], Identity::default()), None).unwrap();
        produced.set(produced.get() + usize::from(code == 0));
        code
    };
    assert_eq!(produce(), 0);
    for round in 0..2 {
        faults.report_full(true);
        eventually("producers are told that the disk is full", PATIENCE, || match produce() {
            STORAGE => Ok(()),
            code => Err(format!("code {code}")),
        });
        faults.refuse_space();
        // what the broker itself writes is not refused, and now finds no space
        let waiting = thread::spawn({
            let address = address.clone();
            move || Caller::connect(&address.kafka).unwrap().commit_offset(("elsewhere", "waits"), round)
        });
        eventually("the server says that writes wait", PATIENCE, || match http.try_get("/health/ready")? {
            (503, text) if text.contains("the disk is full and writes wait") => Ok(()),
            other => Err(format!("{other:?}")),
        });
        assert!(faults.fired() > 0, "nothing was refused by the disk");
        assert_eq!(produce(), STORAGE);
        let (_, records) = Caller::connect(&address.kafka).unwrap().read(("elsewhere", 0), false).unwrap();
        assert_eq!(records.len(), produced.get(), "readers go on");
        let (_, stored) = Caller::connect(&address.kafka).unwrap().read(("ledger", 0), false).unwrap();
        assert!(!stored.is_empty(), "and read what lies in files");
        let reads = [
            http.try_get("/v1/views/tally?wait=5s"),
            http.try_post("/v1/sql", &json!({"sql": "SELECT count(*) FROM ledger"})),
        ];
        for answer in reads {
            let (status, text) = answer.unwrap();
            assert_eq!(status, 200, "{text}");
        }
        let collected =
            http.try_post("/v1/topics/elsewhere/records", &json!({"records": [{"value": "more"}]})).unwrap();
        assert!(collected.0 == 503 && collected.1.contains("full"), "{collected:?}");
        thread::sleep(Duration::from_millis(1_200));
        assert!(!waiting.is_finished(), "a commit was answered that cannot have been written");
        let freed = Instant::now();
        faults.report_full(false);
        faults.disarm();
        waiting.join().unwrap().expect("what waited is written");
        eventually("producers write again", PATIENCE, || match produce() {
            0 => Ok(()),
            code => Err(format!("code {code}")),
        });
        eprintln!("full: writes went on {:?} after there was room", freed.elapsed());
        let group = Caller::connect(&address.kafka).unwrap().offset_of(("elsewhere", "waits")).unwrap();
        assert_eq!(group, round, "the commit that waited");
    }
    model.live(&address, 40).expect("all is as before");
    // of what waited nothing may be torn or doubled, also when the power goes right after
    faults.arm(Plan::default());
    let _ = model.live(&address, 1);
    assert!(faults.ended(&mut process), "the power did not go");
    faults.disarm();
    let (mut process, address) = faults.start(&config).expect("no plan is armed");
    model.live(&address, 10).expect("nothing fails");
    assert_eq!(Caller::connect(&address.kafka).unwrap().offset_of(("elsewhere", "waits")).unwrap(), 1);

    // a stop does not wait for a disk that may stay full, and acknowledges nothing of what waits
    faults.report_full(true);
    faults.refuse_space();
    let waiting = thread::spawn(move || {
        Caller::connect(&address.kafka).and_then(|mut caller| caller.commit_offset(("elsewhere", "waits"), 9)).is_err()
    });
    eventually(
        "the commit meets the disk",
        PATIENCE,
        || if faults.fired() > 0 { Ok(()) } else { Err("not yet".into()) },
    );
    let status = process.terminate(PATIENCE);
    eprintln!("full: stopped with {status}");
    assert!(waiting.join().unwrap(), "what waits is not acknowledged");
}
