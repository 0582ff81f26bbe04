//! Topics that compaction goes over: marks move over what is gone, and each record that is left is in exactly one place.

use std::collections::BTreeMap;

use serde_json::json;

use super::support::*;

const RECORDS: i64 = 30;

/// Anything that is not in the newest batch is compacted.
async fn eager(bench: &Bench) {
    let settings = [("cleanup.policy", "compact"), ("segment.ms", "1"), ("min.cleanable.dirty.ratio", "0")];
    let settings = settings.iter().map(|(name, value)| ((*name).to_string(), (*value).to_string())).collect();
    bench.broker.catalog().set_config(TOPIC, settings).await.unwrap();
}

/// Records of one key, each a segment of its own.
async fn append_all(bench: &Bench) {
    for amount in 0..RECORDS {
        bench.append(0, &[value(20_777 * DAY_MS, json!("jazz"), amount)]).await;
        tokio::time::sleep(std::time::Duration::from_millis(3)).await;
    }
}

fn left(bench: &Bench) -> u64 {
    let partition = bench.broker.catalog().topic(TOPIC).unwrap().partition(0).unwrap();
    partition.size_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_not_settled_is_not_compacted_and_what_has_settled_stays_in_its_file() {
    let bench = Bench::new(1).await;
    eager(&bench).await;
    let lake = bench.lake().await;
    append_all(&bench).await;
    let before = left(&bench);
    bench.broker.compact().await.unwrap();
    assert_eq!(left(&bench), before, "the lake holds what it has not read");
    let report = lake.flush(TOPIC).await.unwrap();
    assert_eq!((report.rows, report.marks), (RECORDS as u64, BTreeMap::from([(0, RECORDS)])));
    bench.broker.compact().await.unwrap();
    assert!(left(&bench) < before / 5);
    let found = lake.verify(TOPIC).await.unwrap();
    assert!(found.is_sound() && found.file_rows == RECORDS as u64 && found.checked_rows == 2, "{found:?}");
    append_all(&bench).await;
    assert_eq!(lake.flush(TOPIC).await.unwrap().rows, RECORDS as u64);
    bench.broker.compact().await.unwrap();
    assert!(lake.verify(TOPIC).await.unwrap().is_sound());
    lake.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn marks_move_over_compacted_offsets() {
    let bench = Bench::new(1).await;
    eager(&bench).await;
    append_all(&bench).await;
    bench.broker.compact().await.unwrap();
    let lake = bench.lake().await;
    let report = lake.flush(TOPIC).await.unwrap();
    assert_eq!(
        (report.rows, report.marks),
        (2, BTreeMap::from([(0, RECORDS)])),
        "the newest sealed and the active one"
    );
    let found = lake.verify(TOPIC).await.unwrap();
    assert!(found.is_sound() && found.file_rows == 2 && found.live_rows == 0, "{found:?}");
    append_all(&bench).await;
    assert_eq!(lake.flush(TOPIC).await.unwrap().marks, BTreeMap::from([(0, 2 * RECORDS)]));
    bench.broker.compact().await.unwrap();
    let found = lake.verify(TOPIC).await.unwrap();
    assert!(found.is_sound() && found.file_rows == 2 + RECORDS as u64, "{found:?}");
    lake.stop().await.unwrap();
}
