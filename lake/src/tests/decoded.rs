//! Live rows are decoded once for many queries, and what is kept of them is never more than what there is.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use broker::{Ack, Change};
use serde_json::json;

use super::support::*;
use crate::lake::Lake;
use crate::tables::Table;

const COUNT: &str = "SELECT count(*), sum(amount) FROM listens";
/// Rows of a batch, which is larger than what a scan reads at once.
const ROWS: i64 = 4_000;

/// The bench's table, and how many batches were decoded for it.
fn counted(bench: &Bench) -> (Arc<Table>, Arc<AtomicUsize>) {
    let (table, decoded) = (bench.table(), Arc::new(AtomicUsize::new(0)));
    let (decode, counter) = (table.decode.clone(), decoded.clone());
    let table = Table {
        name: table.name.clone(),
        topic: table.topic.clone(),
        dir: table.dir.clone(),
        layout: table.layout.clone(),
        decode: Arc::new(move |partition, batches| {
            counter.fetch_add(batches.len(), Ordering::SeqCst);
            decode(partition, batches)
        }),
        settles: table.settles.clone(),
    };
    (Arc::new(table), decoded)
}

/// A batch of more than a MiB, with an amount of 1 in each row.
async fn append(bench: &Bench) {
    append_texts(bench, |_| "x".repeat(300)).await;
}

async fn append_texts(bench: &Bench, mut text: impl FnMut(i64) -> String) {
    let rows: Vec<_> = (0..ROWS).map(|n| value(n, json!(text(n)), 1)).collect();
    bench.append(0, &rows).await;
}

async fn asked(lake: &Lake, decoded: &AtomicUsize) -> (Vec<String>, usize) {
    let before = decoded.load(Ordering::SeqCst);
    let rows = table(lake, COUNT).await;
    (rows, decoded.load(Ordering::SeqCst) - before)
}

fn all(batches: i64) -> Vec<String> {
    vec![format!("{0}|{0}", batches * ROWS)]
}

#[tokio::test(flavor = "multi_thread")]
async fn live_rows_are_decoded_once() {
    let bench = Bench::new(1).await;
    let (table, decoded) = counted(&bench);
    let lake = bench.lake_of(vec![table], None).await.unwrap();
    for _ in 0..3 {
        append(&bench).await;
    }
    assert_eq!(asked(&lake, &decoded).await, (all(3), 3));
    assert_eq!(asked(&lake, &decoded).await, (all(3), 0));
    append(&bench).await;
    assert_eq!(asked(&lake, &decoded).await, (all(4), 1));
    bench.append(0, &[value(0, json!("a"), 5)]).await;
    let more = vec![format!("{}|{}", 4 * ROWS + 1, 4 * ROWS + 5)];
    for _ in 0..2 {
        assert_eq!(asked(&lake, &decoded).await, (more.clone(), 1), "a small end is decoded each time");
    }
    let scanned = sql(&lake, COUNT, vec![]).await.unwrap().scanned;
    let log_bytes: u64 = bench.broker.catalog().topic(TOPIC).unwrap().partitions().iter().map(|p| p.size_bytes()).sum();
    assert_eq!(scanned.log_bytes, log_bytes, "what was decoded before counts as read");
    // what settles is not read from the log any more, and what comes then is decoded
    lake.flush(TOPIC).await.unwrap();
    assert_eq!(asked(&lake, &decoded).await, (more, 0));
    append(&bench).await;
    append(&bench).await;
    let all = vec![format!("{}|{}", 6 * ROWS + 1, 6 * ROWS + 5)];
    assert_eq!(asked(&lake, &decoded).await, (all.clone(), 2));
    assert_eq!(asked(&lake, &decoded).await, (all, 0));
    // what somebody had deleted is not answered out of memory
    let partition = bench.broker.catalog().topic(TOPIC).unwrap().partition(0).unwrap();
    let start = Change::LogStart(partition, 4 * ROWS + 1 + 1_000);
    bench.broker.lane().commit(vec![start], Ack::Durable).await.unwrap();
    assert_eq!(asked(&lake, &decoded).await, (vec![format!("{}|{}", 6 * ROWS - 999, 6 * ROWS - 995)], 1));
    lake.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_room_is_decoded_each_time() {
    let mut bench = Bench::new(1).await;
    // a quarter of it is for decoded rows: of a portion, whose text takes a byte for two digits, there is room for some
    bench.sql.memory_bytes = 8 << 20;
    let (table, decoded) = counted(&bench);
    let lake = bench.lake_of(vec![table], None).await.unwrap();
    let mut chance = Chance::new(7);
    for _ in 0..5 {
        append_texts(&bench, |_| (0..20).map(|_| format!("{:015x}", chance.below(1 << 60))).collect()).await;
    }
    assert_eq!(asked(&lake, &decoded).await, (all(5), 5));
    let (rows, again) = asked(&lake, &decoded).await;
    assert_eq!(rows, all(5));
    assert!((2..5).contains(&again), "{again} of 5 batches were decoded again");
    lake.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_settled_may_be_compacted_and_is_not_kept() {
    let bench = Bench::new(1).await;
    let (table, decoded) = counted(&bench);
    let table = Arc::into_inner(table).unwrap();
    let lake = bench.lake_of(vec![Arc::new(Table { settles: None, ..table })], None).await.unwrap();
    for _ in 0..3 {
        append(&bench).await;
    }
    assert_eq!(asked(&lake, &decoded).await, (all(3), 3));
    assert_eq!(asked(&lake, &decoded).await, (all(3), 3));
    lake.stop().await.unwrap();
}
