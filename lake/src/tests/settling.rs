use std::collections::BTreeMap;
use std::sync::Arc;

use broker::{Ack, Change, Kind, NewTopic};
use parquet::file::reader::{FileReader, SerializedFileReader};
use serde_json::json;

use super::support::*;
use crate::background::{NICER_BY, NICEST};
use crate::config::{SliceColumn, TableConfig};
use crate::error::LakeErrorKind;

#[tokio::test(flavor = "multi_thread")]
async fn a_range_becomes_one_file_per_slice() {
    let bench = Bench::new(2).await;
    let lake = bench.lake().await;
    let day = 20_777 * DAY_MS; // 2026-11-20
    bench
        .append(
            1,
            &[
                value(day, json!("jazz"), 1),
                value(day + 1, json!("R&B/Soul"), 2),
                "not json".into(),
                value(day + DAY_MS, json!("jazz"), 3),
                value(day, json!(null), 4),
                value(day, json!(""), 5),
            ],
        )
        .await;
    let report = lake.flush(TOPIC).await.unwrap();
    assert_eq!((report.files, report.rows), (5, 5));
    assert_eq!(report.marks, BTreeMap::from([(0, 0), (1, 6)]), "the mark moves over the rejected record");
    let files = parquet_files(&bench.topic_dir());
    assert_eq!(
        files,
        [
            "date=2026-11-20/genre=R&B%2FSoul/listens-1-0-5.parquet",
            "date=2026-11-20/genre=__HIVE_DEFAULT_PARTITION__/listens-1-0-5-e2.parquet",
            "date=2026-11-20/genre=__HIVE_DEFAULT_PARTITION__/listens-1-0-5.parquet",
            "date=2026-11-20/genre=jazz/listens-1-0-5.parquet",
            "date=2026-11-21/genre=jazz/listens-1-0-5.parquet",
        ]
    );
    let file = std::fs::File::open(bench.topic_dir().join(&files[3])).unwrap();
    let reader = SerializedFileReader::new(file).unwrap();
    let said = reader.metadata().file_metadata().key_value_metadata().unwrap();
    let said: BTreeMap<_, _> =
        said.iter().map(|pair| (pair.key.as_str(), pair.value.as_deref().unwrap_or(""))).collect();
    let want = [
        ("format", "1"),
        ("topic", TOPIC),
        ("partition", "1"),
        ("first_offset", "0"),
        ("last_offset", "5"),
        ("rows", "1"),
    ];
    for (key, value) in want {
        assert_eq!(said[format!("millpond.{key}").as_str()], value, "{key}");
    }
    let columns: Vec<_> =
        read(&bench.topic_dir().join(&files[3])).schema().fields().iter().map(|f| f.name().clone()).collect();
    assert_eq!(columns, ["ts", "amount", "_key", "_timestamp", "_partition", "_offset"]);
    let group = reader.metadata().row_group(0);
    assert!(group.column(1).statistics().is_some());
    assert!(group.column(1).compression().to_string().starts_with("ZSTD"));
    assert_eq!(lake.flush(TOPIC).await.unwrap().files, 0, "nothing is left");
    assert!(lake.verify(TOPIC).await.unwrap().is_sound());
    let status = &lake.status().tables[0];
    assert_eq!((status.files, status.rows, status.lag_records, status.lag_ms), (5, 5, 0, 0));
    assert!(status.error.is_none() && status.last_flush_ms.is_some());
    lake.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_settles_by_rows_and_by_age_on_its_own() {
    let mut bench = Bench::new(1).await;
    bench.config = TableConfig { flush_rows: 10, ..bench.config.clone() };
    let lake = bench.lake().await;
    let values: Vec<_> = (0..25).map(|n| value(n, json!("a"), n)).collect();
    bench.append(0, &values).await;
    wait_for(|| lake.status().tables[0].marks[&0] == 20).await;
    assert!(lake.status().tables[0].lag_records == 5);
    lake.stop().await.unwrap();
    bench.config.flush_age_ms = 1;
    let lake = bench.lake().await;
    wait_for(|| lake.status().tables[0].marks[&0] == 25).await;
    assert!(lake.verify(TOPIC).await.unwrap().is_sound());
    lake.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_is_always_due_leaves_the_others_their_turns() {
    let mut bench = Bench::new(2).await;
    bench.config.flush_age_ms = 0;
    let bench = Arc::new(bench);
    let row = || [value(0, json!("a"), 1)];
    bench.append(0, &row()).await;
    bench.append(1, &row()).await;
    let (writing, runtime) = (bench.clone(), tokio::runtime::Handle::current());
    // whenever a range is published, partition 0 has more
    let fault: crate::settle::Fault = Arc::new(move |at| {
        if at == crate::settle::Step::Published {
            let (bench, runtime) = (writing.clone(), runtime.clone());
            let append = move || runtime.block_on(async { bench.append(0, &row()).await });
            std::thread::spawn(append).join().expect("the append is taken");
        }
        Ok(())
    });
    let lake = bench.try_lake(Some(fault)).await.unwrap();
    wait_for(|| lake.status().tables[0].marks[&1] == 1).await;
    lake.crash().await;
}

/// How nice this thread is: the 19th field of what the kernel says of it.
#[cfg(target_os = "linux")]
fn nice() -> i32 {
    let said = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
    let (_, fields) = said.rsplit_once(')').unwrap();
    fields.split_whitespace().nth(16).unwrap().parse().unwrap()
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn settling_gives_way_to_others_unless_somebody_waits_for_it() {
    let mut bench = Bench::new(1).await;
    bench.config.flush_rows = 2;
    let seen: Arc<parking_lot::Mutex<Vec<i32>>> = Arc::default();
    let seeing = seen.clone();
    let look: crate::settle::Fault = Arc::new(move |at| {
        if at == crate::settle::Step::Written {
            seeing.lock().push(nice());
        }
        Ok(())
    });
    let lake = bench.try_lake(Some(look)).await.unwrap();
    bench.append(0, &[value(0, json!("a"), 1), value(1, json!("a"), 1)]).await;
    wait_for(|| lake.status().tables[0].marks[&0] == 2).await;
    bench.append(0, &[value(2, json!("a"), 1)]).await;
    lake.flush(TOPIC).await.unwrap();
    assert_eq!(*seen.lock(), [(nice() + NICER_BY).min(NICEST), nice()]);
    // a thread has the priority of the one that begins it: none that serves others is begun by settling
    let all = Arc::new(std::sync::Barrier::new(16));
    let others = (0..16).map(|_| {
        let all = all.clone();
        tokio::task::spawn_blocking(move || (all.wait(), nice()).1)
    });
    for other in others.collect::<Vec<_>>() {
        assert_eq!(other.await.unwrap(), nice());
    }
    lake.stop().await.unwrap();
}

pub async fn wait_for(done: impl Fn() -> bool) {
    for _ in 0..500 {
        if done() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("waited ten seconds in vain");
}

#[tokio::test(flavor = "multi_thread")]
async fn bounds_of_memory_files_and_slices_end_ranges_early() {
    for (buffer_bytes_max, files_open_max, slices_max) in
        [(1, 2, 4_096), (200_000, 3, 4_096), (1 << 20, 32, 3), (1, 32, 4_096)]
    {
        let mut bench = Bench::new(1).await;
        bench.limits = crate::writer::WriteLimits { buffer_bytes_max, files_open_max, slices_max };
        let lake = bench.lake().await;
        let mut chance = Chance::new(7);
        for batch in 0..3 {
            let values: Vec<_> = (0..9_000).map(|n| value(n, json!(format!("g{}", chance.below(8))), batch)).collect();
            bench.append(0, &values).await;
        }
        // the sealer, which goes on where a range was fixed, may have settled some
        assert!(lake.flush(TOPIC).await.unwrap().rows <= 27_000);
        let rows = rows_in_files(&bench.topic_dir());
        assert_eq!(rows, (0..27_000).map(|offset| (0, offset)).collect::<Vec<_>>());
        assert!(lake.verify(TOPIC).await.unwrap().is_sound());
        lake.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_destination_is_away_the_log_keeps_the_records() {
    let bench = Bench::new(1).await;
    let lake = bench.lake().await;
    bench.append(0, &[value(0, json!("a"), 1)]).await;
    lake.flush(TOPIC).await.unwrap();
    bench.append(0, &[value(0, json!("a"), 2)]).await;
    let aside = bench.dir.path().join("aside");
    std::fs::rename(&bench.url, &aside).unwrap();
    let error = lake.flush(TOPIC).await.unwrap_err();
    assert_eq!(error.kind, LakeErrorKind::Destination, "{error}");
    assert!(lake.status().tables[0].error.is_some());
    let log = bench.broker.catalog().topic(TOPIC).unwrap().partition(0).unwrap().id();
    assert_eq!(bench.broker.holds().floor(log), Some(1));
    // a start without the destination is possible too
    lake.stop().await.unwrap();
    let lake = bench.lake().await;
    assert_eq!(lake.flush(TOPIC).await.unwrap_err().kind, LakeErrorKind::Destination);
    let error = sql(&lake, "SELECT count(*) FROM listens", vec![]).await.unwrap_err();
    assert!(error.message.contains("away"), "{error}");
    std::fs::rename(&aside, &bench.url).unwrap();
    assert_eq!(lake.flush(TOPIC).await.unwrap().rows, 1);
    assert!(lake.status().tables[0].error.is_none());
    assert_eq!(bench.broker.holds().floor(log), Some(2));
    assert_eq!(table(&lake, "SELECT sum(amount) FROM listens").await, ["3"]);
    lake.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_destinations_are_refused_with_the_way_out() {
    let mut bench = Bench::new(1).await;
    for (url, says) in [
        ("hdfs://namenode:8020", "give the name node and a directory"),
        ("ftp://host/lake", "ftp:// is not served by this version"),
        ("s3:///lake", "give a bucket and a directory in it"),
        ("file://host/dir", "names a host"),
        ("/proc/version/lake", "check that it is a directory of yours"),
    ] {
        bench.url = url.into();
        let error = bench.try_lake(None).await.err().unwrap();
        assert_eq!(error.kind, LakeErrorKind::Config);
        assert!(error.message.contains(says), "{error}");
    }
    let other = Bench::new(1).await;
    other.lake().await.stop().await.unwrap();
    bench.url = format!("file://{}", other.url);
    let error = bench.try_lake(None).await.err().unwrap();
    assert!(error.message.contains("give each its own lake.url"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn records_deleted_before_they_settle_are_skipped() {
    let bench = Bench::new(1).await;
    let lake = bench.lake().await;
    let values: Vec<_> = (0..10).map(|n| value(n, json!("a"), n)).collect();
    bench.append(0, &values[..5]).await;
    lake.flush(TOPIC).await.unwrap();
    bench.append(0, &values).await;
    let partition = bench.broker.catalog().topic(TOPIC).unwrap().partition(0).unwrap();
    bench.broker.lane().commit(vec![Change::LogStart(partition, 8)], Ack::Durable).await.unwrap();
    assert_eq!(table(&lake, "SELECT count(*) FROM listens").await, ["12"]);
    lake.flush(TOPIC).await.unwrap();
    let offsets: Vec<_> = rows_in_files(&bench.topic_dir()).into_iter().map(|row| row.1).collect();
    assert_eq!(offsets, (0..5).chain(8..15).collect::<Vec<_>>());
    assert!(lake.verify(TOPIC).await.unwrap().is_sound());
    lake.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_made_again_does_not_meet_its_predecessors_files() {
    let bench = Bench::new(1).await;
    let lake = bench.lake().await;
    bench.append(0, &[value(0, json!("a"), 1)]).await;
    lake.flush(TOPIC).await.unwrap();
    bench.broker.catalog().delete(TOPIC).await.unwrap();
    assert_eq!(table(&lake, "SELECT count(*) FROM listens").await, ["0"]);
    let new = NewTopic { name: TOPIC.into(), partitions: 1, config: BTreeMap::new() };
    bench.broker.catalog().create(new).await.unwrap();
    bench.append(0, &[value(0, json!("a"), 7)]).await;
    lake.flush(TOPIC).await.unwrap();
    assert_eq!(table(&lake, "SELECT sum(amount) FROM listens").await, ["7"]);
    assert_eq!(parquet_files(&bench.topic_dir()), ["date=1970-01-01/genre=a/listens-0-0-0.parquet"]);
    let aside = parquet_files(&std::path::Path::new(&bench.url).join("_deleted"));
    assert!(
        aside.len() == 1 && aside[0].starts_with("listens-") && aside[0].ends_with("listens-0-0-0.parquet"),
        "{aside:?}"
    );
    lake.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_owner_fences_the_first() {
    let bench = Bench::new(1).await;
    let first = bench.lake().await;
    bench.append(0, &[value(0, json!("a"), 1)]).await;
    let second = bench.lake().await;
    let error = first.flush(TOPIC).await.unwrap_err();
    assert!(error.kind == LakeErrorKind::Bug && error.message.contains("started twice"), "{error}");
    assert_eq!(second.flush(TOPIC).await.unwrap().rows, 1);
    first.stop().await.unwrap();
    second.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_slice_layout_reads_old_files_as_they_are() {
    let mut bench = Bench::new(1).await;
    let day = 20_777 * DAY_MS;
    let lake = bench.lake().await;
    bench.append(0, &[value(day, json!("jazz"), 1)]).await;
    lake.flush(TOPIC).await.unwrap();
    lake.stop().await.unwrap();
    bench.config.slice = vec![SliceColumn::YearMonthDay];
    let lake = bench.lake().await;
    bench.append(0, &[value(day + DAY_MS, json!("pop"), 2)]).await;
    lake.flush(TOPIC).await.unwrap();
    bench.append(0, &[value(day + 2 * DAY_MS, json!("rock"), 3)]).await;
    let rows =
        table(&lake, "SELECT year, month, day, genre, amount FROM listens WHERE month = 11 ORDER BY amount").await;
    assert_eq!(rows, ["2026|11|20|jazz|1", "2026|11|21|pop|2", "2026|11|22|rock|3"]);
    assert_eq!(table(&lake, "SELECT genre FROM listens WHERE day = 20").await, ["jazz"]);
    assert!(lake.verify(TOPIC).await.unwrap().is_sound());
    lake.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_names_what_is_wrong() {
    let bench = Bench::new(1).await;
    let lake = bench.lake().await;
    bench.append(0, &[value(0, json!("a"), 1), value(0, json!("b"), 2)]).await;
    lake.flush(TOPIC).await.unwrap();
    std::fs::remove_file(bench.topic_dir().join("date=1970-01-01/genre=b/listens-0-0-1.parquet")).unwrap();
    let report = lake.verify(TOPIC).await.unwrap();
    assert!(!report.is_sound());
    assert!(report.named.iter().any(|line| line.contains("not there as it was published")), "{report:?}");
    assert!(report.named.iter().any(|line| line.contains("offset 1 is settled and in no file")), "{report:?}");
    lake.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_tells_rows_that_are_there_twice_or_elsewhere() {
    let bench = Bench::new(1).await;
    let lake = bench.lake().await;
    for _ in 0..2 {
        bench.append(0, &[value(0, json!("a"), 1), value(0, json!("b"), 1)]).await;
        lake.flush(TOPIC).await.unwrap();
    }
    assert!(lake.verify(TOPIC).await.unwrap().is_sound());
    let at = |genre: &str, name: &str| bench.topic_dir().join(format!("date=1970-01-01/genre={genre}/{name}.parquet"));
    std::fs::copy(at("a", "listens-0-0-1"), at("b", "listens-0-0-1")).unwrap();
    std::fs::copy(at("a", "listens-0-0-1"), at("b", "listens-0-2-3")).unwrap();
    let report = lake.verify(TOPIC).await.unwrap();
    for wrong in
        ["offset 0 is in the files twice", "offset 1 is settled and in no file", "offset 3 is settled and in no file"]
    {
        assert!(report.named.iter().any(|line| line.contains(wrong)), "{wrong}: {report:?}");
    }
    assert!(
        report.named.iter().any(|line| line.contains("genre=b/listens-0-2-3.parquet has rows outside 2..=3")),
        "{report:?}"
    );
    assert_eq!((report.differences, report.file_rows, report.checked_rows), (4, 4, 4), "{report:?}");
    lake.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_compares_values() {
    let bench = Bench::new(1).await;
    let lake = bench.lake().await;
    bench.append(0, &[value(0, json!("a"), 1), value(0, json!("b"), 2), value(0, json!("a"), 3)]).await;
    lake.flush(TOPIC).await.unwrap();
    assert!(lake.verify(TOPIC).await.unwrap().is_sound());
    lake.stop().await.unwrap();
    let lake = bench.lake_of(vec![with_other_amounts(&bench)], None).await.unwrap();
    let report = lake.verify(TOPIC).await.unwrap();
    assert_eq!((report.differences, report.checked_rows, report.file_rows), (1, 3, 3), "{report:?}");
    assert!(report.named[0].contains("offset 1 has other values in listens/date=1970-01-01/genre=b/"), "{report:?}");
    lake.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_others_are_left_alone() {
    let bench = Bench::new(1).await;
    bench.lake().await.stop().await.unwrap();
    let slice = bench.topic_dir().join("date=1970-01-01");
    std::fs::create_dir_all(&slice).unwrap();
    for name in [
        "listens-0-0-0.parquet",
        "listens-0-0-0-e2.parquet",
        "notes.txt",
        "listens-backup.parquet",
        "other-0-0-0.parquet",
    ] {
        std::fs::write(slice.join(name), b"x").unwrap();
    }
    let tmp = std::path::Path::new(&bench.url).join("_tmp");
    std::fs::create_dir_all(&tmp).unwrap();
    std::fs::write(tmp.join("listens-0-0.1-0.0.tmp#1"), b"x").unwrap();
    bench.lake().await.stop().await.unwrap();
    let left: Vec<_> = parquet_files(&slice);
    assert_eq!(left, ["listens-backup.parquet", "notes.txt", "other-0-0-0.parquet"]);
    assert!(!tmp.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_waits_for_marks_and_running_queries() {
    let bench = Bench::new(1).await;
    let config = BTreeMap::from([("retention.ms".to_owned(), "0".to_owned())]);
    bench.broker.catalog().set_config(TOPIC, config).await.unwrap();
    let lake = bench.lake().await;
    let values: Vec<_> = (0..10).map(|n| value(n, json!("a"), n)).collect();
    bench.append(0, &values).await;
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    bench.broker.sweep_retention().await.unwrap();
    let partition = bench.broker.catalog().topic(TOPIC).unwrap().partition(0).unwrap();
    assert_eq!(partition.log_start(), 0, "nothing has settled");
    let pin = lake.pin_for_test(TOPIC);
    lake.flush(TOPIC).await.unwrap();
    bench.broker.sweep_retention().await.unwrap();
    assert_eq!(partition.log_start(), 0, "a query still reads");
    drop(pin);
    bench.broker.sweep_retention().await.unwrap();
    assert_eq!(partition.log_start(), 10);
    assert_eq!(table(&lake, "SELECT count(*), sum(amount) FROM listens").await, ["10|45"]);
    assert_eq!(partition.read(0, 1).await.unwrap_err().kind, Kind::OffsetOutOfRange);
    lake.stop().await.unwrap();
}

/// A backup's checkpoint of the store and its list of files are of one moment.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_published_while_the_manifest_stands_still() {
    let bench = Bench::new(1).await;
    let lake = bench.lake().await;
    bench.append(0, &[value(1, json!("a"), 1)]).await;
    let manifest = lake.manifest_for_test();
    let still = manifest.stand_still().await;
    let flushing = tokio::spawn({
        let lake = lake.clone();
        async move { lake.flush(TOPIC).await.map(drop) }
    });
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert!(!flushing.is_finished() && manifest.commits() == 0);
    assert_eq!(table(&lake, "SELECT count(*) FROM listens").await, ["1"], "queries go on");
    drop(still);
    flushing.await.unwrap().unwrap();
    assert!(manifest.commits() > 0);
    lake.stop().await.unwrap();
}
