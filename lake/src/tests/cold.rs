//! Whole records: what consumers are served once the log has let go of them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{AsArray, BinaryArray, RecordBatch};
use arrow::compute::concat_batches;
use broker::{
    Ack, Append, Batch, BatchBuilder, Change, ColdLog, ColdRead, HeaderRef, Kind, NewTopic, Offset, Origin, Partition,
    Record,
};
use parquet::arrow::ArrowWriter;
use serde_json::json;

use super::settling::wait_for;
use super::support::*;
use crate::config::{LakeConfig, MergeConfig, TableConfig};
use crate::error::LakeError;
use crate::lake::Lake;
use crate::raw::{RawFile, RawFiles};
use crate::settle::Step;

async fn bench() -> Bench {
    let mut bench = Bench::new(1).await;
    bench.config = TableConfig { raw: true, flush_rows: 40, ..bench.config.clone() };
    bench
}

async fn start(bench: &Bench) -> Arc<Lake> {
    let config = LakeConfig { tables: vec![bench.config.clone()], ..LakeConfig::default() };
    bench.lake_with(vec![bench.table()], config, None).await.unwrap()
}

fn raw(lake: &Lake) -> Arc<RawFiles> {
    lake.raw_for_test()
}

fn partition(bench: &Bench) -> Arc<Partition> {
    bench.broker.catalog().topic(TOPIC).unwrap().partition(0).unwrap()
}

async fn set(bench: &Bench, settings: &[(&str, &str)]) {
    let settings: BTreeMap<_, _> =
        settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    bench.broker.catalog().set_config(TOPIC, settings).await.unwrap();
}

/// Has the log let go of all that settled.
async fn let_go(bench: &Bench) {
    set(bench, &[("remote.storage.enable", "true"), ("local.retention.ms", "0"), ("retention.ms", "-1")]).await;
    bench.broker.sweep_retention().await.unwrap();
}

/// Appends records that touch the corners; some are rows of the table, most are not.
async fn append_some(bench: &Bench, chance: &mut Chance, batches: usize) {
    for _ in 0..batches {
        let mut batch = BatchBuilder::new();
        for _ in 0..=chance.below(12) {
            let bytes = vec![7; chance.below(300) as usize];
            let row = value(chance.below(1_000) as i64, json!("a"), 1);
            let text = [None, Some(&b""[..]), Some(&bytes[..]), Some(row.as_bytes())];
            let (key, value) = (text[chance.below(4) as usize], text[chance.below(4) as usize]);
            let headers: [HeaderRef<'_>; 3] = [(b"twice", Some(b"1")), (b"twice", None), (b"", Some(&bytes[..]))];
            let time = if chance.below(9) == 0 { -1 } else { 1_000_000 + chance.below(100_000) as i64 };
            batch.push(time, key, value, &headers[..chance.below(4) as usize]);
        }
        let append = Append { partition: partition(bench), batch: batch.build().unwrap(), origin: Origin::Internal };
        bench.broker.lane().commit(vec![Change::Append(append)], Ack::Durable).await.unwrap();
    }
}

async fn in_log(partition: &Arc<Partition>) -> Vec<Record> {
    let (mut at, mut records) = (partition.log_start(), Vec::new());
    while at < partition.high_watermark() {
        let batches = partition.read(at, 10_000).await.unwrap();
        at = batches.last().unwrap().next_offset();
        records.extend(batches.iter().flat_map(|batch| batch.records().unwrap()).map(|record| record.unwrap()));
    }
    records
}

/// Reads on from `from` up to `end`, in pieces; checks that batches leave no offset out and stay within their bound.
async fn in_cold(
    raw: &RawFiles,
    partition: &Partition,
    (from, end): (Offset, Offset),
    bytes_max: usize,
) -> Vec<Record> {
    let (mut at, mut records) = (from, Vec::new());
    while at < end {
        let batches = raw.read(partition.id(), ColdRead { from: at, end, epoch: 0, bytes_max }).await.unwrap();
        let bytes: usize = batches.iter().map(|batch| batch.bytes().len()).sum();
        let count: i32 = batches.iter().map(Batch::record_count).sum();
        assert!(count <= 1 || bytes <= bytes_max, "{count} records of {bytes} bytes, {bytes_max} were asked for");
        batches.iter().for_each(|batch| batch.check_crc().unwrap());
        assert!(batches.windows(2).all(|pair| pair[0].next_offset() == pair[1].base_offset()));
        records.extend(batches.iter().flat_map(|batch| batch.records().unwrap()).map(|record| record.unwrap()));
        let next = batches.last().unwrap().next_offset();
        assert!(next > at, "it must go on");
        at = next;
    }
    records
}

#[tokio::test(flavor = "multi_thread")]
async fn records_come_back_as_they_were() {
    for seed in 1..4 {
        let (bench, mut chance) = (bench().await, Chance::new(seed));
        let lake = start(&bench).await;
        let partition = partition(&bench);
        append_some(&bench, &mut chance, 40).await;
        let written = in_log(&partition).await;
        lake.flush(TOPIC).await.unwrap();
        let end = partition.high_watermark();
        assert_eq!(partition.cold_run(), None, "nobody asked for it");
        let_go(&bench).await;
        assert_eq!((partition.log_start(), partition.earliest()), (end, 0), "seed {seed}");
        lake.stop().await.unwrap();
        drop(lake);
        let lake = start(&bench).await;
        assert_eq!(partition.cold_run(), Some((0, end)), "after a restart too");
        let raw = raw(&lake);
        for bytes_max in [1, 200, 5_000, 1 << 20] {
            let from = chance.below(end.cast_unsigned()) as Offset;
            let wanted: Vec<_> = written.iter().filter(|record| record.offset >= from).cloned().collect();
            assert_eq!(in_cold(&raw, &partition, (from, end), bytes_max).await, wanted, "seed {seed} from {from}");
        }
        for _ in 0..20 {
            let (from, target) =
                (chance.below(end.cast_unsigned()) as Offset, 1_000_000 + chance.below(110_000) as i64);
            let wanted = written.iter().find(|record| record.offset >= from && record.timestamp >= target);
            let found = raw.first_at(partition.id(), target, (from, end)).await.unwrap();
            assert_eq!(
                found,
                wanted.map(|record| (record.offset, record.timestamp)),
                "seed {seed}: {target} from {from}"
            );
        }
        assert!(lake.verify(TOPIC).await.unwrap().is_sound());
        lake.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_record_comes_alone_and_the_brokers_time_stays_the_brokers() {
    let bench = bench().await;
    set(&bench, &[("message.timestamp.type", "LogAppendTime")]).await;
    let lake = start(&bench).await;
    let mut batch = BatchBuilder::new();
    for size in [2 << 20, 10, 3 << 20, 10] {
        batch.push(5, None, Some(&vec![3; size]), &[]);
    }
    let append = Append { partition: partition(&bench), batch: batch.build().unwrap(), origin: Origin::Internal };
    bench.broker.lane().commit(vec![Change::Append(append)], Ack::Durable).await.unwrap();
    let written = in_log(&partition(&bench)).await;
    lake.flush(TOPIC).await.unwrap();
    let read =
        raw(&lake).read(partition(&bench).id(), ColdRead { from: 2, end: 4, epoch: 7, bytes_max: 100 }).await.unwrap();
    assert_eq!((read.len(), read[0].record_count(), read[0].base_offset(), read[0].leader_epoch()), (1, 1, 2, 7));
    assert!(read[0].is_log_append_time() && read[0].max_timestamp() == written[0].timestamp);
    assert_eq!(in_cold(&raw(&lake), &partition(&bench), (0, 4), 1 << 20).await, written);
    lake.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_step_leaves_each_record_in_one_file() {
    for step in [Step::Planned, Step::HalfWritten, Step::Written, Step::Renamed, Step::Published] {
        let (mut bench, mut chance) = (bench().await, Chance::new(9));
        // nothing is due before it is asked for
        bench.config.flush_rows = 1_000_000;
        append_some(&bench, &mut chance, 20).await;
        let crashed = Arc::new(AtomicBool::new(false));
        let once = crashed.clone();
        let fault: crate::settle::Fault = Arc::new(move |at| {
            if at == step && !once.swap(true, Ordering::AcqRel) {
                return Err(LakeError::bug("a crash"));
            }
            Ok(())
        });
        let lake = bench.try_lake(Some(fault)).await.unwrap();
        assert!(lake.flush(TOPIC).await.is_err());
        lake.crash().await;
        drop(lake);
        let lake = start(&bench).await;
        lake.flush(TOPIC).await.unwrap();
        let (partition, end) = (partition(&bench), partition(&bench).high_watermark());
        let written = in_log(&partition).await;
        let_go(&bench).await;
        assert_eq!(partition.cold_run(), Some((0, end)), "{step:?}");
        assert_eq!(in_cold(&raw(&lake), &partition, (0, end), 3_000).await, written, "{step:?}");
        let manifest = &lake.settler_for_test().manifest;
        let known = manifest.settled(partition.id()).raw.len();
        assert_eq!(parquet_files(&Path::new(&bench.url).join("_raw")).len(), known, "{step:?}");
        lake.stop().await.unwrap();
    }
}

/// Sweeps until so many files are left: the sealer may look at the manifest just then.
async fn swept_to(raw: &RawFiles, dir: &Path, left: usize) {
    for _ in 0..100 {
        raw.sweep().await.unwrap();
        if parquet_files(dir).len() == left {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("{left} files are wanted, there are {:?}", parquet_files(dir));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_or_too_old_goes_and_what_is_read_stays_until_it_was() {
    let (bench, mut chance) = (bench().await, Chance::new(5));
    let lake = start(&bench).await;
    append_some(&bench, &mut chance, 40).await;
    lake.flush(TOPIC).await.unwrap();
    let_go(&bench).await;
    let (raw, partition) = (raw(&lake), partition(&bench));
    let dir = Path::new(&bench.url).join("_raw");
    let files = lake.settler_for_test().manifest.settled(partition.id()).raw;
    assert!(files.len() > 4 && parquet_files(&dir).len() == files.len());
    let before = files[1].last;
    bench.broker.lane().commit(vec![Change::Earliest(partition.clone(), before)], Ack::Durable).await.unwrap();
    raw.sweep().await.unwrap();
    assert_eq!(partition.earliest(), before);
    assert_eq!(partition.cold_run().unwrap().0, files[1].first);
    assert_eq!(parquet_files(&dir).len(), files.len(), "a reader, this test, has them yet");
    let total = files.len();
    drop(files);
    swept_to(&raw, &dir, total - 1).await;
    assert!(table(&lake, "SELECT count(*) FROM listens").await[0] != "0", "the table's rows are not the topic's");

    // all its records are older than that
    set(&bench, &[("remote.storage.enable", "true"), ("retention.ms", "1000")]).await;
    swept_to(&raw, &dir, 0).await;
    assert_eq!(partition.earliest(), partition.log_start());
    let gone = raw.read(partition.id(), ColdRead { from: before, end: before + 1, epoch: 0, bytes_max: 1 }).await;
    assert_eq!(gone.unwrap_err().kind, Kind::OffsetOutOfRange);
    lake.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn small_files_become_one_and_readers_do_not_notice() {
    let (mut bench, mut chance) = (bench().await, Chance::new(8));
    bench.config.merge = Some(MergeConfig { files_min: 3, ..MergeConfig::default() });
    let lake = start(&bench).await;
    append_some(&bench, &mut chance, 60).await;
    lake.flush(TOPIC).await.unwrap();
    let (raw, partition) = (raw(&lake), partition(&bench));
    let written = in_log(&partition).await;
    let_go(&bench).await;
    lake.merge_raw_for_test().await.unwrap();
    let files = lake.settler_for_test().manifest.settled(partition.id()).raw;
    assert_eq!((files.len(), files[0].first, files[0].last), (1, 0, partition.high_watermark() - 1));
    swept_to(&raw, &Path::new(&bench.url).join("_raw"), 1).await;
    lake.stop().await.unwrap();
    let lake = start(&bench).await;
    let (raw, end) = (lake.raw_for_test(), partition.high_watermark());
    assert_eq!(partition.cold_run(), Some((0, end)));
    assert_eq!(in_cold(&raw, &partition, (0, end), 3_000).await, written);
    let wanted = written.iter().find(|record| record.timestamp >= 1_050_000).map(|one| (one.offset, one.timestamp));
    assert_eq!(raw.first_at(partition.id(), 1_050_000, (0, end)).await.unwrap(), wanted);
    lake.stop().await.unwrap();
}

/// Puts another file in the place of one of those of whole records, with its rows changed, as if the manifest had it.
async fn change(bench: &Bench, lake: &Lake, at: usize, change: impl FnOnce(&RecordBatch) -> RecordBatch) -> RawFile {
    let (manifest, log) = (&lake.settler_for_test().manifest, partition(bench).id());
    let file = manifest.settled(log).raw[at].clone();
    let path = file.path.replace(".parquet", "-changed.parquet");
    let rows = change(&read(&Path::new(&bench.url).join(&file.path)));
    let out = std::fs::File::create(Path::new(&bench.url).join(&path)).unwrap();
    let mut writer = ArrowWriter::try_new(out, rows.schema(), None).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();
    let bytes = std::fs::metadata(Path::new(&bench.url).join(&path)).unwrap().len();
    let changed = RawFile { bytes, path, ..(*file).clone() };
    manifest.merge_raw(log, &[file], changed.clone()).await.unwrap();
    changed
}

fn other_value(rows: &RecordBatch) -> RecordBatch {
    let at = rows.schema().index_of("_value").unwrap();
    let mut columns = rows.columns().to_vec();
    let mut values: Vec<Option<&[u8]>> = columns[at].as_binary::<i32>().iter().collect();
    values[1] = Some(b"another value");
    let values = BinaryArray::from(values);
    columns[at] = Arc::new(values);
    RecordBatch::try_new(rows.schema(), columns).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_compares_whole_records_with_the_log_and_then_with_what_was_published() {
    let (mut bench, mut chance) = (bench().await, Chance::new(11));
    bench.config.merge = Some(MergeConfig { files_min: 3, ..MergeConfig::default() });
    let lake = start(&bench).await;
    append_some(&bench, &mut chance, 40).await;
    let written = in_log(&partition(&bench)).await;
    lake.flush(TOPIC).await.unwrap();
    let report = lake.verify(TOPIC).await.unwrap();
    let all = written.len() as u64;
    assert_eq!((report.differences, report.raw_records, report.raw_checked), (0, all, all), "{report:?}");

    // one that is another, one that is gone, one that is there twice
    let changed = change(&bench, &lake, 0, other_value).await;
    let report = lake.verify(TOPIC).await.unwrap();
    let said = format!("partition 0: offset 1 is another record in {} than in the log", changed.path);
    assert_eq!((report.named, report.differences), (vec![said], 1));
    let gone = change(&bench, &lake, 1, |rows| rows.slice(1, rows.num_rows() - 1)).await;
    let twice =
        change(&bench, &lake, 2, |rows| concat_batches(&rows.schema(), [rows, &rows.slice(0, 1)]).unwrap()).await;
    let report = lake.verify(TOPIC).await.unwrap();
    let (less, more) = (gone.records - 1, twice.records + 1);
    let wanted = [
        format!("offset {} is settled and in no file of whole records", gone.first),
        format!("{} has {less} records, the manifest says {}", gone.path, gone.records),
        format!("{} has {more} records, the manifest says {}", twice.path, twice.records),
        format!("{} has records outside {}..={} or not in order", twice.path, twice.first, twice.last),
    ];
    for wanted in &wanted {
        assert!(report.named.iter().any(|line| line.contains(wanted)), "{wanted}: {report:?}");
    }
    assert_eq!(report.differences, 1 + wanted.len() as u64, "{report:?}");

    // the log is gone: the sum is left. What is not as it was is not merged either
    let_go(&bench).await;
    let report = lake.verify(TOPIC).await.unwrap();
    let said = format!("partition 0: {} has other records than when it was published", changed.path);
    assert!(report.raw_checked == 0 && report.named.contains(&said), "{report:?}");
    let error = lake.merge_raw_for_test().await.unwrap_err();
    assert!(error.message.contains(&changed.path) && error.message.contains("other records"), "{error}");
    std::fs::remove_file(Path::new(&bench.url).join(&changed.path)).unwrap();
    let report = lake.verify(TOPIC).await.unwrap();
    let said = format!("partition 0: {} is not there as it was published", changed.path);
    assert!(report.named.contains(&said), "{report:?}");
    lake.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_compares_the_table_with_whole_records_where_the_log_is_gone() {
    let bench = bench().await;
    let lake = start(&bench).await;
    let rows: Vec<String> = (1..101).map(|n| value(0, json!("a"), n)).collect();
    bench.append(0, &rows).await;
    lake.flush(TOPIC).await.unwrap();
    let_go(&bench).await;
    // the log goes on, and some of it settles
    bench.append(0, &rows[..3]).await;
    lake.flush(TOPIC).await.unwrap();
    bench.append(0, &rows[..3]).await;
    let report = lake.verify(TOPIC).await.unwrap();
    assert!(report.is_sound(), "{report:?}");
    let counts = (report.file_rows, report.checked_rows, report.live_rows, report.raw_records, report.raw_checked);
    assert_eq!(counts, (103, 103, 3, 103, 3));
    lake.stop().await.unwrap();
    let config = LakeConfig { tables: vec![bench.config.clone()], ..LakeConfig::default() };
    let lake = bench.lake_with(vec![with_other_amounts(&bench)], config, None).await.unwrap();
    let report = lake.verify(TOPIC).await.unwrap();
    let differs = |offset| report.named.iter().any(|line| line.contains(&format!("offset {offset} has other values")));
    assert!(report.differences == 2 && differs(1) && differs(101), "{report:?}");
    lake.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lake_that_is_away_says_so_and_a_deleted_topic_leaves_nothing() {
    let (bench, mut chance) = (bench().await, Chance::new(6));
    let lake = start(&bench).await;
    append_some(&bench, &mut chance, 10).await;
    lake.flush(TOPIC).await.unwrap();
    let_go(&bench).await;
    let (raw, partition) = (raw(&lake), partition(&bench));
    let aside = format!("{}-aside", bench.url);
    std::fs::rename(&bench.url, &aside).unwrap();
    let wanted = ColdRead { from: 0, end: partition.log_start(), epoch: 0, bytes_max: 1 };
    assert_eq!(raw.read(partition.id(), wanted).await.unwrap_err().kind, Kind::ColdLogAway);
    assert_eq!(raw.first_at(partition.id(), 0, (0, 1)).await.unwrap_err().kind, Kind::ColdLogAway);
    std::fs::rename(&aside, &bench.url).unwrap();
    assert!(!raw.read(partition.id(), wanted).await.unwrap().is_empty());
    bench.broker.catalog().delete(TOPIC).await.unwrap();
    bench
        .broker
        .catalog()
        .create(NewTopic { name: TOPIC.into(), partitions: 1, config: BTreeMap::new() })
        .await
        .unwrap();
    let dir = Path::new(&bench.url).join("_raw");
    wait_for(|| parquet_files(&dir).is_empty()).await;
    lake.stop().await.unwrap();
}
