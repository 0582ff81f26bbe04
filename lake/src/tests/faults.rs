//! What goes wrong around the lake: stores of before, runs that fail half way, callers that go away.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use broker::{Broker, BrokerConfig, Clock, Durability};
use parking_lot::Mutex;
use serde_json::json;

use super::support::*;
use crate::config::{LakeConfig, TransformConfig, TransformMode};
use crate::error::LakeErrorKind;
use crate::lake::Lake;
use crate::settle::Step;

async fn open(data_dir: PathBuf) -> Arc<Broker> {
    let config = BrokerConfig { data_dir, durability: Durability::Os, ..BrokerConfig::default() };
    Broker::open(config, Clock::system()).await.unwrap()
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_dir(&entry.path(), &to),
            false => drop(std::fs::copy(entry.path(), to).unwrap()),
        }
    }
}

/// Settles rows, one file each, and ends the broker.
async fn settle_and_end(bench: &Bench, rows: &[String]) {
    let lake = bench.lake().await;
    for row in rows {
        bench.append(0, std::slice::from_ref(row)).await;
        lake.flush(TOPIC).await.unwrap();
    }
    lake.stop().await.unwrap();
    drop(lake);
    bench.broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn files_from_after_a_backup_are_put_aside_by_the_restored_store() {
    let mut bench = Bench::new(1).await;
    let (data, backup) = (bench.dir.path().join("data"), bench.dir.path().join("backup"));
    let row = |n: i64| value(n * DAY_MS, json!("a"), n);
    settle_and_end(&bench, &[row(0), row(1)]).await;
    copy_dir(&data, &backup);
    // the first is closed, but still there: its lock would be met
    let later = bench.dir.path().join("later");
    copy_dir(&data, &later);
    bench.broker = open(later).await;
    settle_and_end(&bench, &[row(2), row(3)]).await;
    assert_eq!(rows_in_files(&bench.topic_dir()).len(), 4);
    for round in 1..3 {
        let restored = bench.dir.path().join(format!("restored-{round}"));
        copy_dir(&backup, &restored);
        bench.broker = open(restored).await;
        let lake = bench.lake().await;
        let sum = "SELECT count(*), sum(amount) FROM listens";
        assert_eq!(table(&lake, sum).await, ["2|1"], "what the backup knows");
        assert_eq!(rows_in_files(&bench.topic_dir()), [(0, 0), (0, 1)], "directory readers see the same");
        let aside = Path::new(&bench.url).join("_deleted");
        assert_eq!(rows_in_files(&aside).len(), 2 * round, "{:?}", parquet_files(&aside));
        let told = lake.status().tables[0].put_aside.clone();
        assert_eq!(told.len(), round, "each time, those of before too");
        for told in &told {
            let has = &told.partitions[&0];
            assert_eq!((has.log_end, has.beyond_log(), told.files), (2, vec![(2, 3)], 2), "nothing else has them");
            assert_eq!(rows_in_files(&Path::new(&bench.url).join(&told.dir)).len(), 2);
        }
        // the same offsets again, with other records under the same names
        bench.append(0, &[value(2 * DAY_MS, json!("a"), 100)]).await;
        lake.flush(TOPIC).await.unwrap();
        bench.append(0, &[value(3 * DAY_MS, json!("a"), 100)]).await;
        lake.flush(TOPIC).await.unwrap();
        assert_eq!(table(&lake, sum).await, ["4|201"]);
        let report = lake.verify(TOPIC).await.unwrap();
        assert!(report.is_sound() && report.notes.len() == round, "{report:?}");
        let wanted = "records at offsets 2..=3 of partition 0 are in these files alone";
        assert!(report.notes.iter().all(|note| note.contains(wanted)), "{report:?}");
        lake.stop().await.unwrap();
        drop(lake);
        bench.broker.stop().await.unwrap();
    }
    // who took out what was wanted removes the directories
    std::fs::remove_dir_all(Path::new(&bench.url).join("_deleted")).unwrap();
    let again = bench.dir.path().join("again");
    copy_dir(&bench.dir.path().join("restored-2"), &again);
    bench.broker = open(again).await;
    let lake = bench.lake().await;
    assert_eq!((lake.status().tables[0].put_aside.len(), lake.verify(TOPIC).await.unwrap().notes.len()), (0, 0));
    lake.stop().await.unwrap();
}

/// A lake with the bench's own configuration, which says what becomes of whole records; Iceberg tables, too, where files have one name.
async fn configured(bench: &Bench) -> Arc<Lake> {
    let iceberg_keep_ms = bench.objects.then_some(3_600_000);
    let config = LakeConfig { tables: vec![bench.config.clone()], iceberg_keep_ms, ..LakeConfig::default() };
    bench.lake_with(vec![bench.table()], config, None).await.unwrap()
}

/// What becomes of a lake after a backup, and the restored store over it.
async fn restored(bench: &mut Bench, later: impl AsyncFnOnce(&Bench, &Lake)) -> Arc<Lake> {
    let (data, backup) = (bench.dir.path().join("data"), bench.dir.path().join("backup"));
    bench.broker.stop().await.unwrap();
    copy_dir(&data, &backup);
    let goes_on = bench.dir.path().join("later");
    copy_dir(&data, &goes_on);
    bench.broker = open(goes_on).await;
    let lake = configured(bench).await;
    later(bench, &lake).await;
    lake.stop().await.unwrap();
    drop(lake);
    bench.broker.stop().await.unwrap();
    let restored = bench.dir.path().join("restored");
    copy_dir(&backup, &restored);
    bench.broker = open(restored).await;
    configured(bench).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_merged_and_archived_after_a_backup_is_found_by_the_restored_store() {
    for objects in [false, true] {
        let mut bench = super::merging::merging(1).await.on(objects);
        bench.config.archive_after_ms = Some(DAY_MS);
        bench.config.raw = true;
        let lake = configured(&bench).await;
        let row = |day: i64, n: i64| value(day * DAY_MS, json!("a"), n);
        // a slice that is merged, one that is archived and merged there, a file that is archived
        for (day, n) in [30_000; 6].into_iter().chain([0; 3]).chain([1]).zip(0..) {
            bench.append(0, &[row(day, n)]).await;
            lake.flush(TOPIC).await.unwrap();
        }
        let before = table(&lake, "SELECT _offset, amount, ts FROM listens ORDER BY _offset").await;
        let published = published_ms(&bench, &lake, 9);
        lake.stop().await.unwrap();
        drop(lake);
        let lake = restored(&mut bench, async |_: &Bench, lake: &Lake| {
            assert_eq!(lake.archive(20_000 * DAY_MS).await.unwrap().files, 4);
            assert_eq!(lake.merge(TOPIC).await.unwrap().files, 9);
            lake.merge_raw_for_test().await.unwrap();
        })
        .await;
        assert_eq!(table(&lake, "SELECT _offset, amount, ts FROM listens ORDER BY _offset").await, before);
        let report = lake.verify(TOPIC).await.unwrap();
        assert!(report.is_sound(), "objects {objects}: {report:?}");
        assert_eq!((report.file_rows, report.checked_rows, report.raw_records, report.raw_checked), (10, 10, 10, 10));
        assert_eq!(rows_in_files(&bench.topic_dir()).len(), 6, "each once");
        assert_eq!(rows_in_files(&Path::new(&bench.url).join("archive")).len(), 4, "each once");
        assert!(lake.status().tables[0].put_aside.is_empty() && report.notes.is_empty());
        let settled = lake.settler_for_test().manifest.settled(partition_of(&bench));
        assert_eq!((settled.files.len(), settled.raw.len()), (3, 1));
        assert_eq!(published_ms(&bench, &lake, 9), published, "a file that was only moved is what it was");
        // and it is merged on
        bench.append(0, &[row(30_000, 10)]).await;
        lake.flush(TOPIC).await.unwrap();
        assert_eq!(lake.merge(TOPIC).await.unwrap().files, 2);
        lake.merge_raw_for_test().await.unwrap();
        assert!(lake.verify(TOPIC).await.unwrap().is_sound());
        lake.stop().await.unwrap();
    }
}

fn partition_of(bench: &Bench) -> broker::LogId {
    bench.broker.catalog().topic(TOPIC).unwrap().partition(0).unwrap().id()
}

fn published_ms(bench: &Bench, lake: &Lake, offset: i64) -> i64 {
    let settled = lake.settler_for_test().manifest.settled(partition_of(bench));
    settled.files.iter().find(|file| file.first == offset).unwrap().published_ms
}

/// A merge took rows of before the backup and of after it into one file: the former are written anew, the latter put aside.
#[tokio::test(flavor = "multi_thread")]
async fn of_files_with_rows_of_before_and_after_a_backup_each_part_is_where_it_belongs() {
    for (before, objects) in [(1, false), (2, false), (1, true), (2, true)] {
        let mut bench = super::merging::merging(1).await.on(objects);
        bench.config.raw = true;
        let lake = configured(&bench).await;
        let row = |n: i64| value(0, json!("a"), n);
        for n in 0..before {
            bench.append(0, &[row(n)]).await;
            lake.flush(TOPIC).await.unwrap();
        }
        // in the log of the backup, and not settled
        bench.append(0, &[row(before)]).await;
        lake.stop().await.unwrap();
        drop(lake);
        let lake = restored(&mut bench, async |bench: &Bench, lake: &Lake| {
            for n in 1..3 {
                bench.append(0, &[value(0, json!("a"), before + n)]).await;
                lake.flush(TOPIC).await.unwrap();
            }
            assert_eq!(lake.merge(TOPIC).await.unwrap().files, before.cast_unsigned() + 2);
            lake.merge_raw_for_test().await.unwrap();
        })
        .await;
        let (context, end) = (format!("{before} files, objects {objects}"), before + 2);
        let settled = lake.settler_for_test().manifest.settled(partition_of(&bench));
        assert_eq!((settled.files.len(), settled.raw.len()), (1, 1), "{context}");
        let wanted: Vec<_> = (0..before).map(|offset| (0, offset)).collect();
        assert_eq!(rows_in_files(&bench.topic_dir()), wanted, "{context}");
        let told = lake.status().tables[0].put_aside.clone();
        assert_eq!((told.len(), told[0].files), (1, 2), "{context}: rows and whole records");
        let has = &told[0].partitions[&0];
        assert_eq!((has.log_end, &has.ranges, has.unread.len()), (before + 1, &vec![(0, end)], 0), "{context}");
        assert_eq!(has.beyond_log(), [(before + 1, end)], "{context}");
        let aside = Path::new(&bench.url).join(&told[0].dir).join(TOPIC);
        assert_eq!(rows_in_files(&aside).len() as i64, end + 1, "{context}: all its rows are there");
        let count = "SELECT count(*), count(DISTINCT _offset), sum(amount) FROM listens";
        let rows = format!("{0}|{0}|{1}", before + 1, before * (before + 1) / 2);
        assert_eq!(table(&lake, count).await, std::slice::from_ref(&rows), "{context}");
        lake.flush(TOPIC).await.unwrap();
        let report = lake.verify(TOPIC).await.unwrap();
        assert!(report.is_sound() && report.notes.len() == 1, "{context}: {report:?}");
        assert_eq!(
            (report.file_rows, report.raw_checked),
            (before.cast_unsigned() + 1, before.cast_unsigned() + 1),
            "{context}"
        );
        lake.stop().await.unwrap();
        drop(lake);
        // at the next start nothing more is to be done
        let lake = configured(&bench).await;
        assert_eq!(table(&lake, count).await, [rows], "{context}");
        assert_eq!(lake.status().tables[0].put_aside, told, "{context}");
        lake.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_store_whose_files_are_gone_for_good_settles_on() {
    for objects in [false, true] {
        let mut bench = super::merging::merging(1).await.on(objects);
        let lake = configured(&bench).await;
        bench.append(0, &[value(0, json!("a"), 1)]).await;
        lake.flush(TOPIC).await.unwrap();
        lake.stop().await.unwrap();
        drop(lake);
        let lake = restored(&mut bench, async |bench: &Bench, lake: &Lake| {
            bench.append(0, &[value(0, json!("a"), 1)]).await;
            lake.flush(TOPIC).await.unwrap();
            assert_eq!(lake.merge(TOPIC).await.unwrap().files, 2);
            std::fs::remove_file(bench.topic_dir().join("date=1970-01-01/genre=a/listens-0-0-1.parquet")).unwrap();
        })
        .await;
        bench.append(0, &[value(DAY_MS, json!("b"), 2)]).await;
        assert_eq!(lake.flush(TOPIC).await.unwrap().rows, 1, "objects {objects}");
        let report = lake.verify(TOPIC).await.unwrap();
        assert!(report.named[0].contains("listens-0-0-0.parquet is not there as it was published"), "{report:?}");
        lake.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_records_that_no_known_file_has_are_not_deleted_though_the_table_has_their_rows() {
    let mut bench = Bench::new(1).await;
    bench.config.raw = true;
    let lake = configured(&bench).await;
    for n in 0..2 {
        bench.append(0, &[value(0, json!("a"), n)]).await;
        lake.flush(TOPIC).await.unwrap();
    }
    let raw = lake.settler_for_test().manifest.settled(partition_of(&bench)).raw;
    lake.stop().await.unwrap();
    drop(lake);
    let [first, second] = [0, 1].map(|at: usize| Path::new(&bench.url).join(&raw[at].path));
    std::fs::remove_file(second).unwrap();
    // by its name it has both records, so it is not what the first file was
    std::fs::rename(&first, first.with_file_name(format!("{TOPIC}-0-0-1.parquet"))).unwrap();
    let lake = configured(&bench).await;
    let told = lake.status().tables[0].put_aside.clone();
    assert_eq!((told.len(), told.iter().map(|told| told.files).sum::<u64>()), (1, 1), "{told:?}");
    assert_eq!(parquet_files(&Path::new(&bench.url).join(&told[0].dir).join("_raw")).len(), 1);
    assert_eq!(rows_in_files(&bench.topic_dir()), [(0, 0), (0, 1)]);
    lake.stop().await.unwrap();
}

fn copy(mode: TransformMode, sql: &str) -> TransformConfig {
    TransformConfig {
        name: "copy".into(),
        zone: "processed".into(),
        slice: vec![crate::config::SliceColumn::Column("genre".into())],
        sort: Vec::new(),
        mode,
        key: Vec::new(),
        sql: sql.into(),
    }
}

async fn with(bench: &Bench, transform: TransformConfig) -> Arc<Lake> {
    let config = LakeConfig { transforms: vec![transform], ..LakeConfig::default() };
    bench.lake_with(vec![bench.table()], config, None).await.unwrap()
}

fn given(parameters: &[(&str, &str)]) -> BTreeMap<String, String> {
    parameters.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_that_fail_leave_no_hidden_files() {
    let bench = Bench::new(1).await;
    let lake = with(&bench, copy(TransformMode::Replace, "SELECT genre, amount FROM listens")).await;
    bench.append(0, &[value(0, json!("a"), 1), value(0, json!("b"), 2), value(0, json!("c"), 3)]).await;
    let hidden = Path::new(&bench.url).join("_tmp");
    // a directory stands where the second file of the attempt is to be made
    let run_of = |second: &str| hidden.join(second).join("x");
    std::fs::create_dir_all(run_of("copy.1-0.1.tmp")).unwrap();
    let error = lake.transform("copy", &BTreeMap::new()).await.unwrap_err();
    assert_eq!(error.kind, LakeErrorKind::Destination, "{error}");
    assert_eq!(parquet_files(&hidden), Vec::<String>::new(), "after a run that failed");
    std::fs::create_dir_all(run_of("listens-0-0.1-0.1.tmp")).unwrap();
    let error = lake.flush(TOPIC).await.unwrap_err();
    assert_eq!(error.kind, LakeErrorKind::Destination, "{error}");
    assert_eq!(parquet_files(&hidden), Vec::<String>::new(), "after settling that failed");
    assert_eq!(lake.transform("copy", &BTreeMap::new()).await.unwrap().files, 3);
    assert_eq!(lake.flush(TOPIC).await.unwrap().files, 3);
    lake.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_is_added_once_however_many_runs_of_a_job_add_it() {
    let bench = Bench::new(1).await;
    let by_day = "SELECT genre, amount FROM listens WHERE CAST(ts AS DATE) = CAST($day AS DATE)";
    let lake = with(&bench, copy(TransformMode::Append, by_day)).await;
    bench.append(0, &[value(0, json!("a"), 1), value(0, json!("b"), 2), value(DAY_MS, json!("b"), 3)]).await;
    let count = "SELECT count(*) FROM copy";
    for (run, day, rows) in [("1", "1970-01-01", "2"), ("2", "1970-01-01", "2"), ("3", "1970-01-02", "3")] {
        lake.transform("copy", &given(&[("day", day), ("run", run)])).await.unwrap();
        assert_eq!(table(&lake, count).await, [rows], "run {run}");
    }
    lake.stop().await.unwrap();
    // a query without parameters is told apart by run
    let lake = with(&bench, copy(TransformMode::Append, "SELECT genre, amount FROM listens LIMIT 1")).await;
    for (run, rows) in [("4", "4"), ("4", "4"), ("5", "5")] {
        lake.transform("copy", &given(&[("day", "1970-01-01"), ("run", run)])).await.unwrap();
        assert_eq!(table(&lake, count).await, [rows], "run {run}");
    }
    lake.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_that_only_sql_can_read_changes_nothing() {
    let bench = Bench::new(1).await;
    let since = "SELECT CAST(ts AS DATE) AS date, amount FROM listens WHERE CAST(ts AS DATE) >= CAST($from AS DATE)";
    let by_date =
        TransformConfig { slice: vec![crate::config::SliceColumn::Date], ..copy(TransformMode::ReplaceSlices, since) };
    let lake = with(&bench, by_date).await;
    bench.append(0, &[value(0, json!("a"), 1), value(DAY_MS, json!("b"), 2), value(2 * DAY_MS, json!("b"), 3)]).await;
    lake.transform("copy", &given(&[("from", "1970-01-01")])).await.unwrap();
    let error = lake.transform("copy", &given(&[("from", "19700103")])).await.unwrap_err();
    assert!(error.kind == LakeErrorKind::Refused && error.message.contains("parameter from"), "{error}");
    assert_eq!(table(&lake, "SELECT count(*) FROM copy").await, ["3"]);
    lake.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn settling_whose_caller_went_away_keeps_others_from_beginning() {
    let bench = Bench::new(1).await;
    let (go, wait) = mpsc::channel::<()>();
    let (begun, wait) = (Arc::new(AtomicU64::new(0)), Mutex::new(wait));
    let counted = begun.clone();
    let fault = Arc::new(move |step: Step| {
        if step == Step::Planned && counted.fetch_add(1, Ordering::SeqCst) == 0 {
            // on a thread that may block
            let _ = wait.lock().recv_timeout(Duration::from_secs(20));
        }
        Ok(())
    });
    let lake = bench.try_lake(Some(fault)).await.unwrap();
    bench.append(0, &[value(0, json!("a"), 1)]).await;
    let flush = |lake: &Arc<Lake>| {
        let lake = lake.clone();
        tokio::spawn(async move { lake.flush(TOPIC).await })
    };
    let first = flush(&lake);
    super::settling::wait_for(|| begun.load(Ordering::SeqCst) == 1).await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    let second = flush(&lake);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(begun.load(Ordering::SeqCst), 1, "the range of the first is still being written");
    go.send(()).unwrap();
    second.await.unwrap().unwrap();
    assert_eq!(table(&lake, "SELECT count(*) FROM listens").await, ["1"]);
    assert_eq!(rows_in_files(&bench.topic_dir()).len(), 1);
    lake.stop().await.unwrap();
}
