//! Settled rows as the engine reads them, while files are merged, archived and deleted.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use broker::{Ack, Change, Offset};
use engine::{Found, History, Wanted};
use serde_json::{Value, json};

use super::support::*;
use crate::config::MergeConfig;
use crate::lake::Lake;

const NOW: i64 = 20_800 * DAY_MS;

fn wanted(bench: &Bench, stream: &str, range: (Offset, Offset), bytes_max: usize) -> Wanted {
    let column = |name: &str, kind: DataType| Field::new(name, kind, true);
    let schema = Schema::new(vec![
        column("genre", DataType::Utf8),
        column("amount", DataType::Utf8),
        column("absent", DataType::Int64),
        column("_offset", DataType::Int64),
    ]);
    let partition = bench.broker.catalog().topic(TOPIC).unwrap().partition(0).unwrap();
    Wanted { stream: stream.into(), partition, range, schema: Arc::new(schema), bytes_max }
}

async fn read(bench: &Bench, lake: &Lake, range: (Offset, Offset), bytes_max: usize) -> Found {
    lake.settled_rows().read(wanted(bench, TOPIC, range, bytes_max)).await.unwrap()
}

/// Offset, genre and amount of rows; what the files do not have must be null.
fn shown(rows: &RecordBatch) -> Vec<(Offset, Option<String>, String)> {
    let (genres, amounts) = (rows.column(0).as_string::<i32>(), rows.column(1).as_string::<i32>());
    let offsets = rows.column(3).as_primitive::<Int64Type>();
    assert_eq!(rows.column(2).null_count(), rows.num_rows());
    let genre = |row| genres.is_valid(row).then(|| genres.value(row).to_owned());
    (0..rows.num_rows()).map(|row| (offsets.value(row), genre(row), amounts.value(row).to_owned())).collect()
}

/// The files change between any two reads, and each row comes once, in its order, from whatever file has it then.
#[tokio::test(flavor = "multi_thread")]
async fn each_row_comes_once_while_files_are_merged_and_archived() {
    for seed in 1..=6 {
        let mut chance = Chance::new(seed);
        let mut bench = Bench::new(1).await;
        bench.config.zone = Some("raw".into());
        bench.config.archive_after_ms = Some(30 * DAY_MS);
        bench.config.merge = Some(MergeConfig { files_min: 2, ..MergeConfig::default() });
        let lake = bench.lake().await;
        let mut expected = Vec::new();
        for _ in 0..chance.below(12) + 4 {
            let mut values = Vec::new();
            for _ in 0..chance.below(60) + 1 {
                let (at, genre) = (NOW - chance.below(3) as i64 * 20 * DAY_MS, chance.below(4) as usize);
                let genre = [json!("jazz"), json!("a/b"), json!(""), Value::Null][genre].clone();
                values.push((chance.below(10) > 0).then_some((at, genre)));
            }
            let written = values.iter().enumerate().map(|(n, row)| match row {
                Some((at, genre)) => value(*at, genre.clone(), n as i64),
                None => "oops".to_owned(),
            });
            let base = bench.append(0, &written.collect::<Vec<_>>()).await;
            let rows = values.into_iter().enumerate().filter_map(|(n, row)| Some((n, row?.1)));
            expected.extend(rows.map(|(n, genre)| (base + n as i64, genre.as_str().map(str::to_owned), n.to_string())));
            lake.flush(TOPIC).await.unwrap();
        }
        let end = lake.status().tables[0].marks[&0];
        let (mut at, mut found, mut reads) = (0, Vec::new(), 0);
        while at < end {
            // A batch of rows counts 2 KiB, so this is from one offset to all of them.
            let bytes_max = [1, 3_000, 10_000, 40_000][chance.below(4) as usize];
            match chance.below(12) {
                0 => {
                    lake.merge(TOPIC).await.unwrap();
                }
                1 => {
                    lake.archive(NOW).await.unwrap();
                }
                _ => {}
            }
            let Found::Rows { rows, next } = read(&bench, &lake, (at, end), bytes_max).await else {
                panic!("seed {seed}: a gap at {at}");
            };
            assert!(next > at && next <= end, "seed {seed}: {at}, {next}");
            let rows = shown(&rows);
            assert!(rows.iter().all(|(offset, ..)| (at..next).contains(offset)), "seed {seed}: {at}, {next}, {rows:?}");
            found.extend(rows);
            (at, reads) = (next, reads + 1);
        }
        assert_eq!(found, expected, "seed {seed}, {reads} reads");
        lake.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_kept_is_told_apart() {
    let mut bench = Bench::new(1).await;
    bench.config.zone = Some("raw".into());
    (bench.config.archive_after_ms, bench.config.expire_after_ms) = (Some(30 * DAY_MS), Some(35 * DAY_MS));
    let lake = bench.lake().await;
    assert!(matches!(read(&bench, &lake, (0, 4), 1 << 20).await, Found::Nothing));
    let unknown = lake.settled_rows().read(wanted(&bench, "plays", (0, 4), 1 << 20)).await.unwrap();
    assert!(matches!(unknown, Found::NotYet), "a stream that was declared a moment ago");
    for days in [1, 40, 40, 2] {
        bench.append(0, &[value(NOW - days * DAY_MS, json!("jazz"), days), "oops".into()]).await;
        lake.flush(TOPIC).await.unwrap();
    }
    lake.archive(NOW).await.unwrap();
    let partition = bench.broker.catalog().topic(TOPIC).unwrap().partition(0).unwrap();
    bench.broker.lane().commit(vec![Change::LogStart(partition, 8)], Ack::Durable).await.unwrap();
    assert_eq!(lake.archive(NOW).await.unwrap().expired_files, 2);
    let rows = read(&bench, &lake, (0, 8), 1 << 20).await;
    assert!(matches!(rows, Found::Rows { next: 2, .. }), "up to what is gone");
    assert!(matches!(read(&bench, &lake, (2, 8), 1 << 20).await, Found::Gap { next: 6 }));
    let Found::Rows { rows, next } = read(&bench, &lake, (6, 8), 1 << 20).await else { panic!("a gap") };
    assert_eq!((shown(&rows), next), (vec![(6, Some("jazz".into()), "2".into())], 8));
    assert!(matches!(read(&bench, &lake, (8, 20), 1 << 20).await, Found::Gap { next: 20 }), "not settled, nowhere");
    lake.stop().await.unwrap();
}
