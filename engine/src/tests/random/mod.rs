//! Random schemas, views and events: each view is computed again row by row, by the definitions of SQL and of the windows.
//!
//! A case is one view. Cases come in groups over one stream: random columns; events out of order, late, twice, with nulls and dirt,
//! over partitions of which one may be idle; the engine, and at times the broker, is started again between. Nothing of the engine is used
//! to compute what must come out, but its record of which rows were late (`<view>.late`), each of which is looked at.
//! MILLPOND_CASES says how many cases, SEED repeats from a group on.

mod calendar;
mod events;
mod judging;
mod query;
mod values;

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use broker::Clock;

use super::oracle::Random;
use super::*;
use events::Log;
use query::{Query, Schema};

/// Views over one stream.
const GROUP: u64 = 20;
/// Groups that share a broker's directory: each leaves its topics there.
const GROUPS_PER_BROKER: u64 = 10;
/// Cases of a run that does not say how many.
const CASES: u64 = 5_000;
const ROUNDS: u64 = 14;
const BESIDE: usize = 2;

#[test]
fn random_views_equal_a_recomputation() {
    let cases = std::env::var("MILLPOND_CASES").map_or(CASES, |text| text.parse().unwrap());
    let seed = Random::seeded().seed();
    let (next, groups) = (AtomicU64::new(0), cases.div_ceil(GROUP));
    let judged = Judged::default();
    let work = || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        loop {
            let first = next.fetch_add(GROUPS_PER_BROKER, Ordering::Relaxed);
            if first >= groups {
                return;
            }
            runtime.block_on(share_a_broker(seed, first..groups.min(first + GROUPS_PER_BROKER), &judged));
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..BESIDE).map(|_| scope.spawn(work)).collect();
        workers.into_iter().for_each(|worker| worker.join().expect("a group failed: its seed is above"));
    });
    judged.are_worth_it(groups * GROUP);
}

/// What was met, so that a run in which nothing happens is seen.
#[derive(Default)]
struct Judged {
    rows: AtomicU64,
    late: AtomicU64,
    groups: AtomicU64,
    refused: AtomicU64,
    told: AtomicU64,
}

impl Judged {
    fn are_worth_it(&self, cases: u64) {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let [rows, late, groups, refused, told] =
            [&self.rows, &self.late, &self.groups, &self.refused, &self.told].map(of);
        println!(
            "{cases} views over {rows} rows: {groups} groups, {late} late, {refused} refused, {told} told when closed"
        );
        let enough = rows > 50 * cases && groups > 3 * cases && late > cases / 2 && refused > 0 && told > cases / 4;
        assert!(enough, "the random views saw too little");
    }
}

async fn share_a_broker(seed: u64, groups: std::ops::Range<u64>, judged: &Judged) {
    let (dir, clock) = (tempfile::tempdir().unwrap(), Clock::manual(BASE_MS));
    let mut broker = open_broker_at(dir.path(), clock.clone()).await;
    for number in groups {
        let seed = seed.wrapping_add(number);
        let shown = Shown(seed);
        broker = run((dir.path(), &clock), broker, (number, &mut Random::of(seed)), judged).await;
        std::mem::forget(shown);
    }
    broker.stop().await.unwrap();
}

/// Says how to repeat a group when it fails.
struct Shown(u64);

impl Drop for Shown {
    fn drop(&mut self) {
        eprintln!("SEED={} MILLPOND_CASES=1 repeats the group that failed", self.0);
    }
}

/// One group: writes and reads in turn, then judges each view. Gives back the broker, which may be another one by then.
async fn run(
    (dir, clock): (&std::path::Path, &Clock),
    mut broker: Arc<Broker>,
    (number, random): (u64, &mut Random),
    judged: &Judged,
) -> Arc<Broker> {
    let schema = Schema::random(random);
    let queries: Vec<Query> = (0..GROUP).map(|at| Query::random(random, &schema, &format!("v{number}_{at}"))).collect();
    let (stream, topic, partitions) = (format!("s{number}"), format!("t{number}"), 1 + random.below(3) as i32);
    create(&broker, &topic, partitions).await;
    let config = EngineConfig {
        streams: vec![schema.stream(&stream, &topic)],
        views: queries.iter().map(|query| query.declaration(&stream)).collect(),
        ..EngineConfig::default()
    };
    let mut engine = start(&broker, &config).await;
    let mut log = Log::new(&schema, partitions);
    for _ in 0..ROUNDS {
        let (partition, values) = log.next(random);
        append(&broker, &topic, partition, &values).await;
        clock.advance(random.below(700) as i64);
        match random.below(60) {
            0 => {
                engine.stop().await;
                drop(engine);
                broker.stop().await.unwrap();
                drop(broker);
                broker = open_broker_at(dir, clock.clone()).await;
                engine = start(&broker, &config).await;
            }
            1..5 => {
                engine.stop().await;
                engine = start(&broker, &config).await;
            }
            5..20 => drop(read(&engine, &queries[random.below(GROUP) as usize].name).await),
            _ => {}
        }
    }
    for query in &queries {
        judging::judge(query, &log, (&broker, &engine), judged).await;
    }
    engine.stop().await;
    broker
}

async fn start(broker: &Arc<Broker>, config: &EngineConfig) -> Arc<Engine> {
    Engine::start(broker.clone(), config.clone()).await.unwrap_or_else(|error| {
        let views: Vec<&str> = config.views.iter().map(|view| view.sql.as_str()).collect();
        panic!("{error:?}\n{}", views.join("\n"))
    })
}
