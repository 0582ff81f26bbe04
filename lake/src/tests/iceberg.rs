//! Iceberg tables, read from what lies in the directory alone.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arrow::array::AsArray;
use arrow::datatypes::{Int32Type, Int64Type};
use iceberg::spec::{FormatVersion, Manifest, ManifestList, TableMetadata};
use serde_json::json;

use super::merging::{COUNT, merging, wider};
use super::support::*;
use crate::config::{LakeConfig, SliceColumn, TransformConfig, TransformMode};
use crate::error::LakeError;
use crate::lake::Lake;
use crate::settle::{Fault, Step};

const HOUR_MS: i64 = 3_600_000;

/// A snapshot as a reader finds it.
#[derive(Clone, Debug)]
struct Found {
    operation: String,
    /// (partition, offset) of its rows.
    rows: Vec<(i32, i64)>,
    files: Vec<PathBuf>,
}

async fn lake(bench: &Bench, keep_ms: i64, fault: Option<Fault>) -> Arc<Lake> {
    let config = LakeConfig { iceberg_keep_ms: Some(keep_ms), ..LakeConfig::default() };
    bench.lake_with(vec![bench.table()], config, fault).await.unwrap()
}

fn dir_of(bench: &Bench, table: &str) -> PathBuf {
    Path::new(&bench.url).join("_iceberg/lake").join(table)
}

fn metadata_of(bench: &Bench, table: &str) -> TableMetadata {
    let dir = dir_of(bench, table).join("metadata");
    let hint = std::fs::read_to_string(dir.join("version-hint.text")).unwrap();
    serde_json::from_slice(&std::fs::read(dir.join(format!("v{hint}.metadata.json"))).unwrap()).unwrap()
}

fn local(url: &str) -> PathBuf {
    PathBuf::from(url.strip_prefix("file://").unwrap())
}

/// The rows of one snapshot, from its files, which must be as its manifests say.
fn read_snapshot(metadata: &TableMetadata, id: i64) -> Found {
    let snapshot = metadata.snapshot_by_id(id).unwrap();
    let list = std::fs::read(local(snapshot.manifest_list())).unwrap();
    let list = ManifestList::parse_with_version(&list, FormatVersion::V2).unwrap();
    let (mut rows, mut files) = (Vec::new(), Vec::new());
    for of in list.entries() {
        let bytes = std::fs::read(local(&of.manifest_path)).unwrap();
        assert_eq!(bytes.len() as i64, of.manifest_length);
        let manifest = Manifest::parse_avro(&bytes).unwrap();
        for entry in manifest.entries().iter().filter(|entry| entry.is_alive()) {
            let path = local(entry.file_path());
            assert_eq!(std::fs::metadata(&path).unwrap().len(), entry.file_size_in_bytes());
            let batch = read(&path);
            assert_eq!(batch.num_rows() as u64, entry.record_count());
            files.push(path);
            let offsets = batch.column_by_name("_offset").unwrap().as_primitive::<Int64Type>();
            let partitions = batch.column_by_name("_partition").unwrap().as_primitive::<Int32Type>();
            rows.extend(partitions.values().iter().copied().zip(offsets.values().iter().copied()));
        }
    }
    rows.sort_unstable();
    let operation = snapshot.summary().operation.as_str().to_owned();
    assert_eq!(snapshot.summary().additional_properties["total-records"], rows.len().to_string());
    Found { operation, rows, files }
}

/// All snapshots, oldest first.
fn snapshots(bench: &Bench) -> Vec<Found> {
    let metadata = metadata_of(bench, TOPIC);
    let mut all: Vec<_> = metadata.snapshots().collect();
    all.sort_by_key(|snapshot| snapshot.sequence_number());
    let mut found: Vec<Found> = all.iter().map(|snapshot| read_snapshot(&metadata, snapshot.snapshot_id())).collect();
    // a look in the midst of two merges makes one more snapshot
    found.dedup_by(|next, one| {
        let same = next.operation == one.operation && next.rows == one.rows;
        if same {
            std::mem::swap(next, one);
        }
        same
    });
    found
}

fn counts(found: &[Found]) -> Vec<String> {
    found.iter().map(|found| format!("{} {}", found.operation, found.rows.len())).collect()
}

/// Nothing lies in the table's directory that no snapshot reaches.
fn assert_clean(bench: &Bench, context: &str) {
    let metadata = metadata_of(bench, TOPIC);
    let mut reached = BTreeSet::new();
    for snapshot in metadata.snapshots() {
        let list = local(snapshot.manifest_list());
        let bytes = std::fs::read(&list).unwrap();
        reached.insert(list);
        let list = ManifestList::parse_with_version(&bytes, FormatVersion::V2).unwrap();
        reached.extend(list.entries().iter().map(|manifest| local(&manifest.manifest_path)));
        reached.extend(read_snapshot(&metadata, snapshot.snapshot_id()).files);
    }
    let dir = dir_of(bench, TOPIC);
    for file in parquet_files(&dir).into_iter().filter(|file| !file.ends_with(".json") && !file.ends_with("hint.text"))
    {
        assert!(reached.contains(&dir.canonicalize().unwrap().join(&file)), "{context}: nothing reaches {file}");
    }
}

async fn settle(bench: &Bench, lake: &Lake, partition: i32, count: usize) {
    for _ in 0..count {
        bench.append(partition, &[value(5, json!("jazz"), 1), value(DAY_MS, json!(null), 1)]).await;
        lake.flush(TOPIC).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_commit_is_a_snapshot_and_older_ones_are_read_after_merges_and_archiving() {
    let mut bench = merging(2).await;
    bench.config.archive_after_ms = Some(DAY_MS);
    let lake = lake(&bench, HOUR_MS, None).await;
    settle(&bench, &lake, 0, 3).await;
    settle(&bench, &lake, 1, 1).await;
    assert_eq!(counts(&snapshots(&bench)), ["append 2", "append 4", "append 6", "append 8"]);
    let before = metadata_of(&bench, TOPIC);
    assert_eq!(
        before.current_snapshot().unwrap().summary().additional_properties["millpond.offsets"],
        r#"{"0":6,"1":2}"#
    );
    assert_eq!(lake.merge(TOPIC).await.unwrap().merges, 2);
    let all = snapshots(&bench);
    assert_eq!(counts(&all)[4], "replace 8");
    assert_eq!(all[3].rows, all[4].rows);
    assert!(all[4].files.len() < all[3].files.len());
    // directories have each row once, at once
    let listed = rows_in_files(&bench.topic_dir());
    assert_eq!(listed.len(), 8);
    // slices move as they are
    let now = 40 * DAY_MS;
    assert_eq!(lake.archive(now).await.unwrap().files, 4);
    assert_eq!(counts(&snapshots(&bench)).last().unwrap(), "replace 8");
    let archived = snapshots(&bench).last().unwrap().files.iter().any(|file| all[4].files.contains(file));
    assert!(!archived, "each has another second name where it lies now");
    let status = &lake.iceberg().unwrap().status()[0];
    assert_eq!((status.snapshots >= 6, status.error.clone()), (true, None));
    assert_eq!(status.snapshot_id, metadata_of(&bench, TOPIC).current_snapshot_id());
    // nothing new, no commit
    let version = status.metadata_location.clone();
    lake.flush(TOPIC).await.unwrap();
    assert_eq!(lake.iceberg().unwrap().status()[0].metadata_location, version);
    lake.stop().await.unwrap();
    assert_clean(&bench, "stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_slices_and_statistics_are_in_the_metadata() {
    let bench = Bench::new(1).await;
    let lake = lake(&bench, HOUR_MS, None).await;
    bench.append(0, &[value(5, json!("jazz"), 7), value(9, json!("jazz"), -2), value(DAY_MS, json!(""), 1)]).await;
    lake.flush(TOPIC).await.unwrap();
    let metadata = metadata_of(&bench, TOPIC);
    let columns = metadata.current_schema().as_struct().fields().iter();
    let columns: Vec<_> = columns.map(|field| format!("{} {} {}", field.id, field.name, field.field_type)).collect();
    let want = [
        "1 ts timestamptz",
        "2 genre string",
        "3 amount long",
        "4 _key binary",
        "5 _timestamp timestamptz",
        "6 _partition int",
        "7 _offset long",
        "8 date date",
    ];
    assert_eq!(columns, want);
    let spec = metadata.default_partition_spec();
    let fields: Vec<_> = spec.fields().iter().map(|field| (field.source_id, field.name.as_str())).collect();
    assert_eq!(fields, [(8, "date"), (2, "genre")]);
    assert!(metadata.properties()["schema.name-mapping.default"].contains(r#"{"field-id":3,"names":["amount"]}"#));
    let list = std::fs::read(local(metadata.current_snapshot().unwrap().manifest_list())).unwrap();
    let list = ManifestList::parse_with_version(&list, FormatVersion::V2).unwrap();
    let manifest = Manifest::parse_avro(&std::fs::read(local(&list.entries()[0].manifest_path)).unwrap()).unwrap();
    let jazz = manifest.entries().iter().find(|entry| entry.record_count() == 2).unwrap().data_file().clone();
    assert_eq!(format!("{:?}", jazz.partition().fields()[1]), r#"Some(Primitive(String("jazz")))"#);
    let bounds = (jazz.lower_bounds()[&3].to_string(), jazz.upper_bounds()[&3].to_string());
    assert_eq!(bounds, ("-2".to_owned(), "7".to_owned()));
    assert_eq!(jazz.upper_bounds()[&1], iceberg::spec::Datum::timestamptz_micros(9_000));
    let other = manifest.entries().iter().find(|entry| entry.record_count() == 1).unwrap().data_file().clone();
    assert_eq!(format!("{:?}", other.partition().fields()[1]), r#"Some(Primitive(String("")))"#, "empty is not null");
    lake.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn old_snapshots_go_with_all_that_only_they_reached() {
    let bench = merging(1).await;
    let lake = lake(&bench, 0, None).await;
    settle(&bench, &lake, 0, 20).await;
    lake.merge(TOPIC).await.unwrap();
    assert_eq!(counts(&snapshots(&bench)), ["replace 40"]);
    assert_clean(&bench, "merged");
    assert_eq!(parquet_files(&dir_of(&bench, TOPIC).join("data")).len(), 2, "second names of what is merged are gone");
    let versions = parquet_files(&dir_of(&bench, TOPIC).join("metadata"));
    assert!(versions.iter().filter(|file| file.ends_with(".metadata.json")).count() <= 21, "{versions:?}");
    lake.stop().await.unwrap();
    // off: nothing of it is left
    let off = bench.lake().await;
    assert!(!Path::new(&bench.url).join("_iceberg").exists());
    assert_eq!(table(&off, COUNT).await, ["40|40|40"]);
    off.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn many_small_manifests_become_one() {
    let bench = Bench::new(1).await;
    let lake = lake(&bench, HOUR_MS, None).await;
    settle(&bench, &lake, 0, 40).await;
    let metadata = metadata_of(&bench, TOPIC);
    let list = std::fs::read(local(metadata.current_snapshot().unwrap().manifest_list())).unwrap();
    let list = ManifestList::parse_with_version(&list, FormatVersion::V2).unwrap();
    assert!(list.entries().len() <= 17, "{}", list.entries().len());
    let all = snapshots(&bench);
    assert!(all.iter().enumerate().all(|(at, found)| found.rows.len() == 2 * (at + 1)), "{:?}", counts(&all));
    let entries = list.entries().iter().flat_map(|of| {
        let manifest = Manifest::parse_avro(&std::fs::read(local(&of.manifest_path)).unwrap()).unwrap();
        manifest.entries().iter().map(|entry| entry.sequence_number().unwrap_or(of.sequence_number)).collect::<Vec<_>>()
    });
    assert_eq!(entries.collect::<BTreeSet<_>>().len(), 40, "each file keeps the number of the snapshot that added it");
    lake.stop().await.unwrap();
}

/// Ends a commit at the `after`th passing of `step`, once it is armed.
fn crash_at(step: Step, after: u64) -> (Fault, Arc<AtomicBool>) {
    let (armed, passed) = (Arc::new(AtomicBool::new(false)), AtomicU64::new(0));
    let taken = armed.clone();
    let fault: Fault = Arc::new(move |at| {
        let counts = at == step && taken.load(Ordering::SeqCst);
        match counts && passed.fetch_add(1, Ordering::SeqCst) >= after {
            true => Err(LakeError::destination("crash")),
            false => Ok(()),
        }
    });
    (fault, armed)
}

#[tokio::test(flavor = "multi_thread")]
async fn after_crashes_at_any_step_the_table_is_what_the_manifest_has() {
    const STEPS: [Step; 6] = [Step::Listed, Step::Hinted, Step::Renamed, Step::Published, Step::Removed, Step::Written];
    for seed in 0..2 {
        let bench = merging(2).await;
        let mut chance = Chance::new(seed);
        let mut before = 0;
        for round in 0..10 {
            let step = STEPS[chance.below(6) as usize];
            let (fault, armed) = crash_at(step, chance.below(3));
            let lake = lake(&bench, [0, HOUR_MS][chance.below(2) as usize], Some(fault)).await;
            armed.store(true, Ordering::SeqCst);
            for _ in 0..1 + chance.below(4) {
                let genres = [json!("jazz"), json!(null), json!("")];
                let rows: Vec<_> =
                    (0..1 + chance.below(5)).map(|_| value(0, genres[chance.below(3) as usize].clone(), 1)).collect();
                bench.append(chance.below(2) as i32, &rows).await;
                let _ = lake.flush(TOPIC).await;
            }
            let _ = lake.merge(TOPIC).await;
            lake.crash().await;
            drop(lake);
            let context = format!("seed {seed} round {round} crash at {step:?}");
            if dir_of(&bench, TOPIC).join("metadata/version-hint.text").exists() {
                let all = snapshots(&bench);
                assert!(
                    all.windows(2).all(|pair| pair[0].rows.len() <= pair[1].rows.len()),
                    "{context}: {:?}",
                    counts(&all)
                );
                let rows = all.last().map_or(0, |last| last.rows.len());
                assert!(rows >= before, "{context}: {rows} rows after {before}");
            }
            let lake = self::lake(&bench, HOUR_MS, None).await;
            lake.flush(TOPIC).await.unwrap();
            lake.iceberg().unwrap().sync_all().await.unwrap();
            let all = snapshots(&bench);
            let rows = all.last().map_or(Vec::new(), |last| last.rows.clone());
            assert_eq!(rows, rows_in_files(&bench.topic_dir()), "{context}");
            assert_eq!(table(&lake, COUNT).await[0].split('|').next().unwrap(), rows.len().to_string(), "{context}");
            before = rows.len();
            assert_clean(&bench, &context);
            lake.crash().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_that_is_lost_or_damaged_is_made_again() {
    let bench = Bench::new(1).await;
    let first = lake(&bench, HOUR_MS, None).await;
    settle(&bench, &first, 0, 3).await;
    first.stop().await.unwrap();
    let dir = dir_of(&bench, TOPIC).join("metadata");
    let last = std::fs::read_to_string(dir.join("version-hint.text")).unwrap();
    // the newest is torn: the one before it is gone on from
    std::fs::write(dir.join(format!("v{last}.metadata.json")), b"{\"format-ver").unwrap();
    let second = lake(&bench, HOUR_MS, None).await;
    second.iceberg().unwrap().sync_all().await.unwrap();
    assert_eq!(counts(&snapshots(&bench)), ["append 2", "append 4", "append 6"]);
    assert_clean(&bench, "torn");
    second.stop().await.unwrap();
    // a manifest is lost: the newest metadata that is whole has no snapshot yet
    for file in parquet_files(&dir).iter().filter(|file| file.starts_with("files-")) {
        std::fs::remove_file(dir.join(file)).unwrap();
    }
    let third = lake(&bench, HOUR_MS, None).await;
    third.iceberg().unwrap().sync_all().await.unwrap();
    assert_eq!(counts(&snapshots(&bench)), ["append 6"]);
    assert_clean(&bench, "lost");
    std::fs::remove_dir_all(dir_of(&bench, TOPIC)).unwrap();
    // found missing by the next commit that needs it, made anew after that
    settle(&bench, &third, 0, 1).await;
    third.iceberg().unwrap().sync_all().await.unwrap();
    third.stop().await.unwrap();
    let fourth = lake(&bench, HOUR_MS, None).await;
    fourth.iceberg().unwrap().sync_all().await.unwrap();
    assert_eq!(snapshots(&bench).last().unwrap().rows.len(), 8);
    fourth.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_declaration_keeps_ids_and_older_files() {
    let mut bench = Bench::new(1).await;
    let config = || LakeConfig { iceberg_keep_ms: Some(HOUR_MS), ..LakeConfig::default() };
    let first = bench.lake_with(vec![bench.table()], config(), None).await.unwrap();
    settle(&bench, &first, 0, 1).await;
    first.stop().await.unwrap();
    let before = metadata_of(&bench, TOPIC);
    // one more column, and slices by date alone
    bench.config.slice = vec![SliceColumn::Date];
    let second = bench.lake_with(vec![wider(&bench)], config(), None).await.unwrap();
    settle(&bench, &second, 0, 1).await;
    let after = metadata_of(&bench, TOPIC);
    for field in before.current_schema().as_struct().fields() {
        assert_eq!(after.current_schema().field_id_by_name(&field.name), Some(field.id), "{}", field.name);
    }
    assert_eq!(after.current_schema().field_id_by_name("more"), Some(before.last_column_id() + 1));
    assert_eq!((after.partition_specs_iter().len(), after.default_partition_spec().fields().len()), (2, 1));
    assert_eq!(counts(&snapshots(&bench)), ["append 2", "append 4"]);
    assert_eq!(after.schemas_iter().len(), 2);
    second.stop().await.unwrap();
    // no slices at all: the older levels stay columns, as only manifests have their values
    bench.config.slice = Vec::new();
    let third = bench.lake_with(vec![bench.table()], config(), None).await.unwrap();
    settle(&bench, &third, 0, 1).await;
    let last = metadata_of(&bench, TOPIC);
    assert_eq!(last.current_schema().field_id_by_name("date"), before.current_schema().field_id_by_name("date"));
    assert_eq!(last.current_schema().field_id_by_name("more"), None);
    assert!(last.default_partition_spec().is_unpartitioned());
    assert_eq!(snapshots(&bench).last().unwrap().rows.len(), 6);
    third.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_sql_writes_are_iceberg_tables_too() {
    let bench = Bench::new(1).await;
    let transform = TransformConfig {
        name: "plays".into(),
        zone: "processed".into(),
        slice: vec![SliceColumn::Column("genre".into())],
        sort: Vec::new(),
        mode: TransformMode::Replace,
        key: Vec::new(),
        sql: "SELECT genre, sum(amount) AS amount FROM listens GROUP BY genre".into(),
    };
    let config = LakeConfig { transforms: vec![transform], iceberg_keep_ms: Some(HOUR_MS), ..LakeConfig::default() };
    let lake = bench.lake_with(vec![bench.table()], config, None).await.unwrap();
    settle(&bench, &lake, 0, 2).await;
    lake.transform("plays", &BTreeMap::new()).await.unwrap();
    settle(&bench, &lake, 0, 1).await;
    lake.transform("plays", &BTreeMap::new()).await.unwrap();
    let metadata = metadata_of(&bench, "plays");
    let mut all: Vec<_> = metadata.snapshots().collect();
    all.sort_by_key(|snapshot| snapshot.sequence_number());
    let told: Vec<_> = all.iter().map(|snapshot| snapshot.summary().operation.as_str()).collect();
    assert_eq!(told, ["append", "overwrite"], "two rows each time, but others");
    let sum = |id: i64| {
        let list = std::fs::read(local(metadata.snapshot_by_id(id).unwrap().manifest_list())).unwrap();
        let list = ManifestList::parse_with_version(&list, FormatVersion::V2).unwrap();
        let files = list.entries().iter().flat_map(|of| {
            let manifest = Manifest::parse_avro(&std::fs::read(local(&of.manifest_path)).unwrap()).unwrap();
            let alive = manifest.entries().iter().filter(|entry| entry.is_alive());
            alive.map(|entry| local(entry.file_path())).collect::<Vec<_>>()
        });
        let of = |path: PathBuf| read(&path).column_by_name("amount").unwrap().as_primitive::<Int64Type>().value(0);
        files.map(of).sum::<i64>()
    };
    assert_eq!((sum(all[0].snapshot_id()), sum(all[1].snapshot_id())), (4, 6));
    lake.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_snapshots_never_misses_a_file_nor_sees_rows_go() {
    let bench = Arc::new(merging(2).await);
    let lake = lake(&bench, HOUR_MS, None).await;
    let done = Arc::new(AtomicBool::new(false));
    let writer = {
        let (bench, lake, done) = (bench.clone(), lake.clone(), done.clone());
        tokio::spawn(async move {
            let mut chance = Chance::new(5);
            for round in 0..40 {
                let genre = ["x", "y"][chance.below(2) as usize];
                let rows: Vec<_> = (0..10).map(|_| value(0, json!(genre), 1)).collect();
                bench.append(chance.below(2) as i32, &rows).await;
                lake.flush(TOPIC).await.unwrap();
                if round % 3 == 2 {
                    lake.merge(TOPIC).await.unwrap();
                }
            }
            done.store(true, Ordering::SeqCst);
        })
    };
    let reading = bench.clone();
    let reader = tokio::task::spawn_blocking(move || {
        let (mut rows, mut reads) = (0, 0);
        while !done.load(Ordering::SeqCst) {
            if dir_of(&reading, TOPIC).join("metadata/version-hint.text").exists() {
                let metadata = metadata_of(&reading, TOPIC);
                // what was planned is read a while later
                std::thread::park_timeout(std::time::Duration::from_millis(20));
                let Some(current) = metadata.current_snapshot_id() else { continue };
                let found = read_snapshot(&metadata, current);
                let distinct: BTreeSet<_> = found.rows.iter().collect();
                assert!(
                    found.rows.len() >= rows && distinct.len() == found.rows.len(),
                    "{rows} → {}",
                    found.rows.len()
                );
                (rows, reads) = (found.rows.len(), reads + 1);
            }
        }
        reads
    });
    writer.await.unwrap();
    assert!(reader.await.unwrap() > 5);
    assert_eq!(snapshots(&bench).last().unwrap().rows.len(), 400);
    assert_clean(&bench, "at the end");
    lake.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lake_that_was_away_is_caught_up_with() {
    let bench = Bench::new(1).await;
    let lake = lake(&bench, HOUR_MS, None).await;
    settle(&bench, &lake, 0, 1).await;
    let metadata = dir_of(&bench, TOPIC).join("metadata");
    // a directory that cannot be written to: files settle, the snapshot waits
    let away = metadata.with_file_name("away");
    std::fs::rename(&metadata, &away).unwrap();
    std::fs::write(&metadata, b"in the way").unwrap();
    settle(&bench, &lake, 0, 2).await;
    assert_eq!(table(&lake, COUNT).await, ["6|6|6"]);
    let status = lake.iceberg().unwrap().status()[0].clone();
    assert!(status.error.is_some(), "{status:?}");
    std::fs::remove_file(&metadata).unwrap();
    std::fs::rename(&away, &metadata).unwrap();
    lake.iceberg().unwrap().sync_all().await.unwrap();
    assert_eq!(counts(&snapshots(&bench)), ["append 2", "append 6"]);
    assert_eq!(lake.iceberg().unwrap().status()[0].error, None);
    lake.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_second_names_snapshots_go_before_their_files() {
    let mut bench = merging(1).await;
    bench.config.archive_after_ms = Some(DAY_MS);
    // no hard link leads to another file system
    let other = tempfile::tempdir_in("/dev/shm").unwrap();
    std::fs::create_dir_all(&bench.url).unwrap();
    std::os::unix::fs::symlink(other.path(), Path::new(&bench.url).join("_iceberg")).unwrap();
    let lake = lake(&bench, HOUR_MS, None).await;
    settle(&bench, &lake, 0, 3).await;
    let all = snapshots(&bench);
    assert_eq!(counts(&all), ["append 2", "append 4", "append 6"]);
    assert!(all[2].files.iter().all(|file| file.display().to_string().contains("/listens/date=")), "{all:?}");
    lake.merge(TOPIC).await.unwrap();
    assert_eq!(counts(&snapshots(&bench)), ["replace 6"]);
    settle(&bench, &lake, 0, 1).await;
    assert_eq!(lake.archive(40 * DAY_MS).await.unwrap().files, 4);
    assert_eq!(counts(&snapshots(&bench)), ["replace 8"]);
    assert_eq!(table(&lake, COUNT).await, ["8|8|8"]);
    lake.stop().await.unwrap();
}
