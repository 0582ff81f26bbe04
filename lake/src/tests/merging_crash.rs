use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::json;

use super::merging::{COUNT, assert_whole, merging};
use super::support::*;
use crate::error::LakeError;
use crate::settle::{Fault, Step};

const STEPS: [Step; 5] = [Step::HalfWritten, Step::Written, Step::Renamed, Step::Published, Step::Removed];

/// Ends the merge at the `after`th passing of `step`, once it is armed.
fn crash_at(step: Step, after: u64) -> (Fault, Arc<AtomicBool>) {
    let (armed, passed) = (Arc::new(AtomicBool::new(false)), AtomicU64::new(0));
    let taken = armed.clone();
    let fault: Fault = Arc::new(move |at| {
        let counts = at == step && taken.load(Ordering::SeqCst);
        if counts && passed.fetch_add(1, Ordering::SeqCst) == after {
            return Err(LakeError::destination("crash"));
        }
        Ok(())
    });
    (fault, armed)
}

/// Rows of a few slices: dates, text, null and the empty text.
fn random_rows(chance: &mut Chance) -> Vec<String> {
    let genres = [json!("jazz"), json!(null), json!("")];
    let count = 1 + chance.below(20);
    (0..count)
        .map(|_| match chance.below(20) {
            0 => "rejected".to_owned(),
            _ => value(chance.below(2) as i64 * DAY_MS, genres[chance.below(3) as usize].clone(), 1),
        })
        .collect()
}

/// How often each row is listed.
fn listed(bench: &Bench) -> BTreeMap<(i32, i64), usize> {
    let mut counts = BTreeMap::new();
    for row in rows_in_files(&bench.topic_dir()) {
        *counts.entry(row).or_default() += 1;
    }
    counts
}

#[tokio::test(flavor = "multi_thread")]
async fn every_row_is_there_once_after_crashes_at_any_step_of_a_merge() {
    let mut crashed = BTreeSet::new();
    for seed in 0..6 {
        let bench = merging(2).await.on(seed % 2 == 1);
        let mut chance = Chance::new(seed);
        let mut good = BTreeSet::new();
        for round in 0..12 {
            let step = STEPS[chance.below(5) as usize];
            let (fault, armed) = crash_at(step, chance.below(3));
            let lake = bench.try_lake(Some(fault)).await.unwrap();
            for _ in 0..1 + chance.below(4) {
                let (partition, rows) = (chance.below(2) as i32, random_rows(&mut chance));
                let base = bench.append(partition, &rows).await;
                let kept = (base..).zip(&rows).filter(|(_, row)| *row != "rejected");
                good.extend(kept.map(|(offset, _)| (partition, offset)));
                lake.flush(TOPIC).await.unwrap();
            }
            armed.store(true, Ordering::SeqCst);
            let merged = lake.merge(TOPIC).await;
            if merged.is_err() {
                crashed.insert(format!("{step:?}"));
            }
            let context = format!("seed {seed} round {round} crash at {step:?}: {merged:?}");
            let rows = good.len();
            assert_eq!(table(&lake, COUNT).await, [format!("{rows}|{rows}|{rows}")], "{context}");
            lake.crash().await;
            drop(lake);
            // whoever lists the directories in between misses nothing, and meets a row twice only in the last steps
            let found = listed(&bench);
            assert!(found.keys().eq(&good), "{context}: rows are missing");
            let unseen = [Step::HalfWritten, Step::Written].contains(&step);
            assert!(!unseen || found.values().all(|count| *count == 1), "{context}: {found:?}");
            let lake = bench.lake().await;
            assert_whole(&bench, &lake, good.len(), &context).await;
            lake.crash().await;
        }
        let lake = bench.lake().await;
        lake.merge(TOPIC).await.unwrap();
        assert_whole(&bench, &lake, good.len(), &format!("seed {seed}, merged")).await;
        let files = parquet_files(&bench.topic_dir());
        assert!(files.len() <= 2 * 2 * 3, "one per partition and slice: {files:?}");
        lake.stop().await.unwrap();
    }
    assert_eq!(crashed.len(), STEPS.len(), "each step ended a merge: {crashed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_opened_again_knows_what_was_merged() {
    let steps = [(Step::Renamed, 4), (Step::Published, 4), (Step::Removed, 3)];
    for ((step, before), objects) in steps.into_iter().flat_map(|step| [(step, false), (step, true)]) {
        let mut bench = merging(1).await.on(objects);
        let (fault, armed) = crash_at(step, 0);
        let lake = bench.try_lake(Some(fault)).await.unwrap();
        for _ in 0..3 {
            bench.append(0, &[value(0, json!("a"), 1)]).await;
            lake.flush(TOPIC).await.unwrap();
        }
        armed.store(true, Ordering::SeqCst);
        assert!(lake.merge(TOPIC).await.is_err());
        assert_eq!(parquet_files(&bench.topic_dir()).len(), before, "{step:?}");
        lake.crash().await;
        drop(lake);
        bench.open_again().await;
        let lake = bench.lake().await;
        let after = if step == Step::Renamed { 3 } else { 1 };
        assert_eq!(parquet_files(&bench.topic_dir()).len(), after, "{step:?}");
        assert_whole(&bench, &lake, 3, &format!("{step:?}")).await;
        lake.merge(TOPIC).await.unwrap();
        assert_eq!(parquet_files(&bench.topic_dir()), ["date=1970-01-01/genre=a/listens-0-0-2.parquet"]);
        lake.stop().await.unwrap();
    }
}
