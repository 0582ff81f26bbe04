use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use super::support::*;
use crate::error::LakeError;
use crate::settle::{Fault, Step};

const STEPS: [Step; 5] = [Step::Planned, Step::HalfWritten, Step::Written, Step::Renamed, Step::Published];

fn random_rows(chance: &mut Chance, from: i64) -> Vec<String> {
    let genres = [json!("jazz"), json!("a/b%"), json!(null), json!(""), json!("pop")];
    let count = 1 + chance.below(60) as i64;
    (from..from + count)
        .map(|n| {
            if chance.below(20) == 0 {
                return "rejected".to_owned();
            }
            let genre = genres[chance.below(5) as usize].clone();
            value(chance.below(3) as i64 * DAY_MS, genre, n)
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_row_is_there_once_after_crashes_at_any_step() {
    for seed in 0..8 {
        let mut bench = Bench::new(2).await.on(seed % 2 == 1);
        let mut chance = Chance::new(seed);
        bench.config.flush_rows = 1 + chance.below(50) as usize;
        bench.limits.slices_max = 1 + chance.below(12) as usize;
        let mut good = Vec::new();
        let mut next = [0_i64; 2];
        for round in 0..12 {
            let partition = chance.below(2) as usize;
            let rows = random_rows(&mut chance, next[partition]);
            let base = bench.append(partition as i32, &rows).await;
            good.extend(
                (base..).zip(&rows).filter(|(_, row)| *row != "rejected").map(|(offset, _)| (partition as i32, offset)),
            );
            next[partition] = base + rows.len() as i64;
            let step = STEPS[chance.below(5) as usize];
            let lake = bench.try_lake(Some(crash_at(step, chance.below(3)))).await.unwrap();
            let flushed = lake.flush(TOPIC).await;
            let context = format!("seed {seed} round {round} crash at {step:?}: {flushed:?}");
            lake.crash().await;
            drop(lake);
            // whoever lists the directories after the restart sees no row twice
            let lake = bench.lake().await;
            let listed = rows_in_files(&bench.topic_dir());
            assert!(listed.windows(2).all(|pair| pair[0] != pair[1]), "{context}");
            assert_eq!(
                table(&lake, "SELECT count(*), count(DISTINCT _offset * 2 + _partition) FROM listens").await,
                [format!("{0}|{0}", good.len())],
                "{context}"
            );
            let report = lake.verify(TOPIC).await.unwrap();
            assert!(report.is_sound(), "{context}: {report:?}");
            lake.crash().await;
        }
        let lake = bench.lake().await;
        lake.flush(TOPIC).await.unwrap();
        good.sort_unstable();
        assert_eq!(rows_in_files(&bench.topic_dir()), good, "seed {seed}");
        assert_eq!(rows_in_files(Path::new(&bench.url)).len(), good.len(), "nothing hidden is left, seed {seed}");
        lake.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_opened_again_knows_what_was_settled() {
    let mut bench = Bench::new(1).await;
    // each time: its sealer finds the plan, too
    let renamed: Fault = Arc::new(|at| match at {
        Step::Renamed => Err(LakeError::destination("crash")),
        _ => Ok(()),
    });
    let lake = bench.try_lake(Some(renamed)).await.unwrap();
    bench.append(0, &[value(0, json!("a"), 1)]).await;
    assert!(lake.flush(TOPIC).await.is_err());
    assert_eq!(rows_in_files(&bench.topic_dir()).len(), 1, "renamed, not published");
    lake.crash().await;
    drop(lake);
    bench.open_again().await;
    // its sealer finds the plan and would settle the range anew at once
    let idle: Fault = Arc::new(|_| Err(LakeError::destination("not yet")));
    let lake = bench.try_lake(Some(idle)).await.unwrap();
    assert_eq!(rows_in_files(&bench.topic_dir()).len(), 0, "the orphan is gone");
    assert_eq!(table(&lake, "SELECT sum(amount) FROM listens").await, ["1"]);
    lake.crash().await;
    drop(lake);
    let lake = bench.lake().await;
    assert_eq!(table(&lake, "SELECT sum(amount) FROM listens").await, ["1"]);
    lake.flush(TOPIC).await.unwrap();
    assert_eq!(rows_in_files(&bench.topic_dir()), [(0, 0)]);
    assert_eq!(table(&lake, "SELECT sum(amount) FROM listens").await, ["1"]);
    lake.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_see_every_row_once_while_the_lake_settles() {
    let bench = Arc::new(Bench::new(3).await);
    let lake = bench.lake().await;
    let done = Arc::new(AtomicBool::new(false));
    let writer = {
        let (bench, done) = (bench.clone(), done.clone());
        tokio::spawn(async move {
            let mut chance = Chance::new(1);
            // no more than queries on a slow machine can read in their time
            for _ in (0..2_000).take_while(|_| !done.load(Ordering::SeqCst)) {
                let partition = chance.below(3) as i32;
                let rows: Vec<_> =
                    (0..50).map(|n| value(n * DAY_MS / 20, json!(["x", "y"][chance.below(2) as usize]), 1)).collect();
                bench.append(partition, &rows).await;
            }
        })
    };
    let flusher = {
        let (lake, done, bench) = (lake.clone(), done.clone(), bench.clone());
        tokio::spawn(async move {
            let mut flushes = 0;
            while !done.load(Ordering::SeqCst) {
                lake.flush(TOPIC).await.unwrap();
                let config = std::collections::BTreeMap::from([("retention.ms".to_owned(), "0".to_owned())]);
                bench.broker.catalog().set_config(TOPIC, config).await.unwrap();
                bench.broker.sweep_retention().await.unwrap();
                flushes += 1;
            }
            flushes
        })
    };
    let mut queries = 0;
    while queries < 25 {
        let text = "SELECT count(*), sum(amount), count(DISTINCT _offset * 3 + _partition) FROM listens";
        let answer = sql(&lake, text, vec![]).await.unwrap();
        let rows: i64 = answer.offsets[TOPIC].values().sum();
        let want = if rows == 0 { "0|null|0".to_owned() } else { format!("{rows}|{rows}|{rows}") };
        assert_eq!(lines(&answer), [want]);
        // one boundary for all mentions of a table
        let twice = "SELECT (SELECT count(*) FROM listens) - count(*) FROM listens";
        assert_eq!(table(&lake, twice).await, ["0"]);
        queries += 1;
    }
    done.store(true, Ordering::SeqCst);
    writer.await.unwrap();
    let flushes = flusher.await.unwrap();
    assert!(flushes > 3, "{flushes} flushes");
    assert!(lake.verify(TOPIC).await.unwrap().is_sound());
    lake.stop().await.unwrap();
}
