use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use broker::NewTopic;
use datafusion::prelude::DataFrame;
use parquet::file::metadata::KeyValue;
use parquet::file::reader::{FileReader, SerializedFileReader};
use serde_json::json;

use super::support::*;
use crate::config::{MergeConfig, TableConfig};
use crate::error::LakeErrorKind;
use crate::lake::Lake;
use crate::layout::Layout;
use crate::settle::{Fault, Step};
use crate::tables::Table;

pub const COUNT: &str = "SELECT count(*), sum(amount), count(DISTINCT _offset * 2 + _partition) FROM listens";

/// A bench whose small files are merged, as of three.
pub async fn merging(partitions: i32) -> Bench {
    let mut bench = Bench::new(partitions).await;
    bench.config.merge = Some(MergeConfig { files_min: 3, ..MergeConfig::default() });
    bench
}

/// Settles `count` files of two rows each in one slice.
async fn settle(bench: &Bench, lake: &Lake, partition: i32, genre: serde_json::Value, count: usize) {
    for _ in 0..count {
        bench.append(partition, &[value(5, genre.clone(), 1), value(3, genre.clone(), 1)]).await;
        lake.flush(TOPIC).await.unwrap();
    }
}

fn files(bench: &Bench) -> Vec<String> {
    parquet_files(&bench.topic_dir())
}

/// Nothing hidden is left, and outside readers and verify find each row once.
pub async fn assert_whole(bench: &Bench, lake: &Lake, rows: usize, context: &str) {
    // a query may end a little after its answer
    super::settling::wait_for(|| parquet_files(&Path::new(&bench.url).join("_retired")).is_empty()).await;
    let listed = rows_in_files(&bench.topic_dir());
    assert!(listed.windows(2).all(|pair| pair[0] != pair[1]), "{context}: a row is listed twice");
    assert_eq!(table(lake, COUNT).await, [format!("{rows}|{rows}|{rows}")], "{context}");
    let report = lake.verify(TOPIC).await.unwrap();
    assert!(report.is_sound(), "{context}: {report:?}");
    assert_eq!(report.file_rows as usize, listed.len(), "{context}");
    assert_eq!(parquet_files(Path::new(&bench.url)).len(), files(bench).len(), "{context}: something hidden is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn small_neighbours_of_a_slice_become_one_file_as_the_writer_makes_it() {
    let bench = merging(2).await;
    let lake = bench.lake().await;
    settle(&bench, &lake, 0, json!("jazz"), 3).await;
    settle(&bench, &lake, 0, json!(null), 2).await;
    settle(&bench, &lake, 0, json!(""), 2).await;
    settle(&bench, &lake, 0, json!("jazz"), 1).await;
    settle(&bench, &lake, 1, json!("jazz"), 2).await;
    assert_eq!((files(&bench).len(), lake.status().tables[0].small_files), (10, 10));
    let report = lake.merge(TOPIC).await.unwrap();
    assert_eq!((report.merges, report.files, report.rows), (4, 10, 20));
    let (jazz, null) = ("date=1970-01-01/genre=jazz", "date=1970-01-01/genre=__HIVE_DEFAULT_PARTITION__");
    let want = [
        format!("{null}/listens-0-10-13-e2.parquet"),
        format!("{null}/listens-0-6-9.parquet"),
        format!("{jazz}/listens-0-0-15.parquet"),
        format!("{jazz}/listens-1-0-3.parquet"),
    ];
    assert_eq!(files(&bench), want);
    assert_whole(&bench, &lake, 20, "merged").await;
    let genres = "SELECT genre, count(*) FROM listens GROUP BY genre ORDER BY genre NULLS LAST";
    assert_eq!(table(&lake, genres).await, ["|4", "jazz|12", "null|4"]);

    let reader = SerializedFileReader::new(std::fs::File::open(bench.topic_dir().join(&want[2])).unwrap()).unwrap();
    let said = reader.metadata().file_metadata().key_value_metadata().unwrap();
    let said: Vec<_> = said.iter().filter(|pair| pair.key.starts_with("millpond.")).cloned().collect();
    let pair = |key: &str, value: &str| KeyValue::new(format!("millpond.{key}"), value.to_owned());
    let (first, last) = (pair("first_offset", "0"), pair("last_offset", "15"));
    let named = [pair("format", "1"), pair("topic", TOPIC), pair("partition", "0"), first, last, pair("rows", "8")];
    assert_eq!(said, named, "its own footer, not its inputs'");
    let group = reader.metadata().row_group(0);
    assert_eq!(reader.metadata().num_row_groups(), 1);
    assert!(group.column(1).statistics().is_some() && group.column(1).compression().to_string().starts_with("ZSTD"));
    let offset = group.columns().iter().position(|column| column.column_path().string() == "_offset").unwrap();
    let sorting = group.sorting_columns().unwrap();
    assert!(sorting.len() == 1 && sorting[0].column_idx as usize == offset && !sorting[0].descending);
    let alone = bench.topic_dir().join(&want[3]);
    assert_eq!(read(&alone).schema().fields(), read(&bench.topic_dir().join(&want[2])).schema().fields());

    assert_eq!(lake.merge(TOPIC).await.unwrap().merges, 0, "once");
    let status = &lake.status().tables[0];
    assert_eq!((status.merged.merges, status.merged.files, status.small_files), (4, 10, 4));
    assert!(status.merged.bytes > 0 && status.merge_error.is_none());
    // times of an event that pruning goes by
    assert_eq!(
        table(&lake, "SELECT count(*) FROM listens WHERE ts < TIMESTAMP '1970-01-01T00:00:00.004Z'").await,
        ["10"]
    );
    lake.stop().await.unwrap();
    let lake = bench.lake().await;
    assert_whole(&bench, &lake, 20, "started again").await;
    settle(&bench, &lake, 0, json!("jazz"), 1).await;
    assert_eq!(lake.merge(TOPIC).await.unwrap().files, 2, "a merged file is merged again");
    assert_whole(&bench, &lake, 22, "merged again").await;
    lake.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_merges_what_is_worth_it_and_a_quiet_slice_whole() {
    let bench = merging(1).await;
    let lake = bench.lake().await;
    let now = || bench.broker.clock().now_ms();
    settle(&bench, &lake, 0, json!("jazz"), 2).await;
    lake.look_for_test(now()).await;
    assert_eq!(files(&bench).len(), 2, "two are not enough");
    lake.look_for_test(now() + 3_000_000).await;
    assert_eq!(files(&bench).len(), 2, "not for an hour");
    settle(&bench, &lake, 0, json!("jazz"), 1).await;
    lake.look_for_test(now()).await;
    assert_eq!(files(&bench).len(), 1);
    settle(&bench, &lake, 0, json!("jazz"), 1).await;
    lake.look_for_test(now()).await;
    assert_eq!(files(&bench).len(), 2);
    lake.look_for_test(now() + 3_700_000).await;
    assert_eq!(files(&bench), ["date=1970-01-01/genre=jazz/listens-0-0-7.parquet"], "nothing came for an hour");
    assert_whole(&bench, &lake, 8, "quiet").await;
    lake.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_may_say_no() {
    let bench = Bench::new(1).await;
    let lake = bench.lake().await;
    settle(&bench, &lake, 0, json!("jazz"), 10).await;
    lake.look_for_test(i64::MAX).await;
    let error = lake.merge(TOPIC).await.unwrap_err();
    assert!(error.kind == LakeErrorKind::Refused && error.message.contains("merge = true"), "{error}");
    assert_eq!(lake.merge("other").await.unwrap_err().kind, LakeErrorKind::NotFound);
    assert_eq!((files(&bench).len(), lake.status().tables[0].small_files), (10, 0));
    lake.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn merges_keep_their_bounds() {
    let mut bench = merging(1).await;
    bench.limits.buffer_bytes_max = 100_000;
    let lake = bench.lake().await;
    let mut sizes = Vec::new();
    for amount in 0..8 {
        // the sixth file is large, and compresses badly
        let rows = if amount == 5 { 40_000 } else { 3_000 };
        let mut chance = Chance::new(amount as u64);
        let values: Vec<_> = (0..rows).map(|_| value(chance.below(1 << 20) as i64, json!("jazz"), amount)).collect();
        bench.append(0, &values).await;
        sizes.push(lake.flush(TOPIC).await.unwrap().bytes);
    }
    lake.stop().await.unwrap();
    let small = *sizes.iter().enumerate().filter(|(at, _)| *at != 5).map(|(_, size)| size).max().unwrap();
    assert!(sizes[5] > 3 * small, "{sizes:?}");
    bench.config.merge = Some(MergeConfig { below_bytes: small + 1, to_bytes: 3 * small, files_min: 2 });
    let lake = bench.lake().await;
    let report = lake.merge(TOPIC).await.unwrap();
    let kept = files(&bench);
    let large = kept.iter().map(|file| std::fs::metadata(bench.topic_dir().join(file)).unwrap().len());
    assert_eq!(large.filter(|bytes| *bytes > 3 * small).count(), 1, "{kept:?}: only the one that was large");
    assert_eq!((report.files, kept.len()), (7, 4), "three, two, the large one, two: {kept:?}");
    let first = std::fs::File::open(bench.topic_dir().join(&kept[0])).unwrap();
    let groups = SerializedFileReader::new(first).unwrap().metadata().num_row_groups();
    assert!(groups > 1, "memory is bounded by row groups: {groups}");
    let rows = rows_in_files(&bench.topic_dir());
    assert_eq!(rows, (0..61_000).map(|offset| (0, offset)).collect::<Vec<_>>());
    assert!(lake.verify(TOPIC).await.unwrap().is_sound());
    lake.stop().await.unwrap();
}

/// The bench's table with one more column.
pub fn wider(bench: &Bench) -> Arc<Table> {
    let plain = bench.table();
    let mut fields: Vec<Field> =
        plain.layout.row_schema().fields().iter().map(|field| field.as_ref().clone()).collect();
    fields.insert(3, Field::new("more", DataType::Int64, true));
    let schema = Arc::new(Schema::new(fields));
    let (decode, wide) = (plain.decode.clone(), schema.clone());
    Arc::new(Table {
        name: TOPIC.into(),
        topic: TOPIC.into(),
        dir: plain.dir.clone(),
        layout: Arc::new(Layout::new(schema, "ts", &bench.config.slice).unwrap()),
        decode: Arc::new(move |partition, batches| {
            let (rows, taken) = decode(partition, batches)?;
            let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
            columns.insert(3, Arc::new(Int64Array::from(vec![7; rows.num_rows()])));
            Ok((RecordBatch::try_new(wide.clone(), columns).unwrap(), taken))
        }),
        settles: Some(bench.config.clone()),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn only_files_with_the_same_columns_are_merged() {
    let bench = merging(1).await;
    let lake = bench.lake().await;
    settle(&bench, &lake, 0, json!("jazz"), 3).await;
    lake.stop().await.unwrap();
    let lake = bench.lake_of(vec![wider(&bench)], None).await.unwrap();
    settle(&bench, &lake, 0, json!("jazz"), 3).await;
    let report = lake.merge(TOPIC).await.unwrap();
    assert_eq!((report.merges, report.files), (2, 6));
    let slice = "date=1970-01-01/genre=jazz";
    let want = [format!("{slice}/listens-0-0-5.parquet"), format!("{slice}/listens-0-6-11.parquet")];
    assert_eq!(files(&bench), want);
    assert_eq!(lake.merge(TOPIC).await.unwrap().merges, 0);
    assert_eq!(table(&lake, "SELECT count(*), count(more), sum(more) FROM listens").await, ["12|6|42"]);
    assert_whole(&bench, &lake, 12, "two sets of columns").await;
    lake.stop().await.unwrap();
    // after a start the two meet again, and part again
    let lake = bench.lake_of(vec![wider(&bench)], None).await.unwrap();
    settle(&bench, &lake, 0, json!("jazz"), 1).await;
    assert_eq!(lake.merge(TOPIC).await.unwrap().files, 2);
    assert_eq!(files(&bench), [want[0].clone(), format!("{slice}/listens-0-6-13.parquet")]);
    assert_whole(&bench, &lake, 14, "started again").await;
    lake.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_runs_reads_on_while_directories_have_each_row_once() {
    let bench = merging(2).await;
    let lake = bench.lake().await;
    settle(&bench, &lake, 0, json!("jazz"), 4).await;
    settle(&bench, &lake, 1, json!(null), 3).await;
    let before = lake.prepare_for_test(COUNT).await;
    assert_eq!(lake.merge(TOPIC).await.unwrap().merges, 2);
    // the old files are out of the way at once, though a query holds them
    let want = ["genre=__HIVE_DEFAULT_PARTITION__/listens-1-0-5", "genre=jazz/listens-0-0-7"];
    assert_eq!(files(&bench), want.map(|name| format!("date=1970-01-01/{name}.parquet")));
    assert_eq!(parquet_files(&Path::new(&bench.url).join("_retired")).len(), 7);
    settle(&bench, &lake, 0, json!("jazz"), 2).await;
    lake.merge(TOPIC).await.unwrap();
    let rows = DataFrame::new(before.state.clone(), before.plan.clone()).collect().await.unwrap();
    let text = arrow::util::pretty::pretty_format_batches(&rows).unwrap().to_string();
    assert_eq!(text.matches("14").count(), 3, "{text}");
    assert_eq!(parquet_files(&Path::new(&bench.url).join("_retired")).len(), 7, "nobody read the others");
    drop(before);
    super::settling::wait_for(|| !Path::new(&bench.url).join("_retired").exists()).await;
    assert_whole(&bench, &lake, 18, "let go").await;
    // what a query held at the end of a process goes at the start
    settle(&bench, &lake, 0, json!("jazz"), 1).await;
    let held = lake.pin_for_test(TOPIC);
    lake.merge(TOPIC).await.unwrap();
    assert_eq!(parquet_files(&Path::new(&bench.url).join("_retired")).len(), 2);
    lake.crash().await;
    let next = bench.lake().await;
    assert_whole(&bench, &next, 20, "started again").await;
    drop(held);
    next.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_see_every_row_once_while_files_are_merged() {
    let bench = Arc::new(merging(2).await);
    let lake = bench.lake().await;
    let done = Arc::new(AtomicBool::new(false));
    let settler = {
        let (bench, lake, done) = (bench.clone(), lake.clone(), done.clone());
        tokio::spawn(async move {
            let mut chance = Chance::new(3);
            // no more than queries on a slow machine can read in their time
            for _ in (0..300).take_while(|_| !done.load(Ordering::SeqCst)) {
                let genre = ["x", "y"][chance.below(2) as usize];
                let rows: Vec<_> = (0..20).map(|n| value(n * DAY_MS / 10, json!(genre), 1)).collect();
                bench.append(chance.below(2) as i32, &rows).await;
                lake.flush(TOPIC).await.unwrap();
            }
        })
    };
    let merges = Arc::new(AtomicU64::new(0));
    let merger = {
        let (lake, done, merges) = (lake.clone(), done.clone(), merges.clone());
        tokio::spawn(async move {
            while !done.load(Ordering::SeqCst) {
                merges.fetch_add(lake.merge(TOPIC).await.unwrap().merges, Ordering::SeqCst);
            }
        })
    };
    // on a busy machine forty queries can be over before the merges begin
    for query in (0..5_000).take_while(|query| *query < 40 || merges.load(Ordering::SeqCst) <= 5) {
        let answer = sql(&lake, COUNT, vec![]).await.unwrap();
        let rows: i64 = answer.offsets[TOPIC].values().sum();
        let want = if rows == 0 { "0|null|0".to_owned() } else { format!("{rows}|{rows}|{rows}") };
        assert_eq!(lines(&answer), [want], "query {query}");
        if query % 10 == 0 {
            let report = lake.verify(TOPIC).await.unwrap();
            assert!(report.is_sound(), "{report:?}");
        }
    }
    done.store(true, Ordering::SeqCst);
    settler.await.unwrap();
    merger.await.unwrap();
    let merges = merges.load(Ordering::SeqCst);
    assert!(merges > 5, "{merges} merges");
    lake.merge(TOPIC).await.unwrap();
    super::settling::wait_for(|| !Path::new(&bench.url).join("_retired").exists()).await;
    let rows = rows_in_files(&bench.topic_dir()).len();
    assert_whole(&bench, &lake, rows, "at the end").await;
    lake.stop().await.unwrap();
}

/// Does something once, when a merge has written its file and is about to publish it.
fn when_written(act: impl Fn() + Send + Sync + 'static) -> (Fault, Arc<AtomicBool>) {
    let armed = Arc::new(AtomicBool::new(false));
    let taken = armed.clone();
    let fault: Fault = Arc::new(move |at| {
        if at == Step::Written && taken.swap(false, Ordering::SeqCst) {
            act();
        }
        Ok(())
    });
    (fault, armed)
}

/// Runs something to its end in the middle of something else.
fn in_between(work: impl Future<Output = ()> + Send + 'static) {
    let runtime = tokio::runtime::Handle::current();
    std::thread::spawn(move || runtime.block_on(work)).join().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_deleted_while_its_files_are_merged_is_gone() {
    let bench = Arc::new(merging(1).await);
    let broker = bench.broker.clone();
    let (fault, armed) = when_written(move || {
        let broker = broker.clone();
        in_between(async move {
            broker.catalog().delete(TOPIC).await.unwrap();
            let new = NewTopic { name: TOPIC.into(), partitions: 1, config: BTreeMap::new() };
            broker.catalog().create(new).await.unwrap();
        });
    });
    let lake = bench.try_lake(Some(fault)).await.unwrap();
    settle(&bench, &lake, 0, json!("jazz"), 4).await;
    armed.store(true, Ordering::SeqCst);
    let merged = lake.merge(TOPIC).await;
    assert!(!armed.load(Ordering::SeqCst), "{merged:?}");
    settle(&bench, &lake, 0, json!("pop"), 2).await;
    lake.merge(TOPIC).await.unwrap();
    assert_eq!(files(&bench), ["date=1970-01-01/genre=pop/listens-0-0-3.parquet"]);
    assert_eq!(table(&lake, COUNT).await, ["4|4|4"]);
    assert!(lake.verify(TOPIC).await.unwrap().is_sound());
    let all = parquet_files(Path::new(&bench.url));
    assert!(all.iter().all(|file| file.starts_with("listens/") || file.starts_with("_deleted/")), "{all:?}");
    let aside = rows_in_files(&Path::new(&bench.url).join("_deleted"));
    assert_eq!(aside, (0..8).map(|offset| (0, offset)).collect::<Vec<_>>(), "its rows are put aside, once each");
    lake.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn slices_are_merged_where_they_lie_and_archived_in_between() {
    const NOW: i64 = 20_800 * DAY_MS;
    let mut bench = merging(1).await;
    bench.config.zone = Some("raw".into());
    bench.config.archive_after_ms = Some(30 * DAY_MS);
    let archiving: Arc<std::sync::OnceLock<Arc<Lake>>> = Arc::default();
    let lakes = archiving.clone();
    let (fault, armed) = when_written(move || {
        let lake = lakes.get().unwrap().clone();
        in_between(async move {
            assert_eq!(lake.archive(NOW).await.unwrap().files, 3);
        });
    });
    let lake = bench.try_lake(Some(fault)).await.unwrap();
    archiving.set(lake.clone()).ok().unwrap();
    let old = NOW - 40 * DAY_MS;
    let settle_old = async || {
        bench.append(0, &[value(old, json!("jazz"), 1)]).await;
        lake.flush(TOPIC).await.unwrap();
    };
    for _ in 0..3 {
        settle_old().await;
    }
    // the inputs move while the merged file is written: it is given up, and they are merged where they went
    armed.store(true, Ordering::SeqCst);
    let report = lake.merge(TOPIC).await.unwrap();
    assert!(!armed.load(Ordering::SeqCst));
    assert_eq!((report.merges, report.files), (1, 3));
    // those that the merge read when they moved are let go by it
    super::settling::wait_for(|| !Path::new(&bench.url).join("_retired").exists()).await;
    let archive = "archive/listens/date=2026-11-03/genre=jazz";
    assert_eq!(parquet_files(Path::new(&bench.url)), [format!("{archive}/listens-0-0-2.parquet")]);
    // late rows are merged among themselves, move, and are merged with the others there
    settle_old().await;
    settle_old().await;
    assert_eq!(lake.merge(TOPIC).await.unwrap().files, 2);
    assert_eq!(lake.archive(NOW).await.unwrap().files, 1);
    assert_eq!(lake.merge(TOPIC).await.unwrap().files, 2);
    assert_eq!(parquet_files(Path::new(&bench.url)), [format!("{archive}/listens-0-0-4.parquet")]);
    assert_eq!(table(&lake, COUNT).await, ["5|5|5"]);
    assert!(lake.verify(TOPIC).await.unwrap().is_sound());
    lake.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_others_and_damaged_ones_are_left_alone() {
    let bench = merging(2).await;
    let lake = bench.lake().await;
    settle(&bench, &lake, 0, json!("jazz"), 3).await;
    settle(&bench, &lake, 1, json!("pop"), 3).await;
    let slice = bench.topic_dir().join("date=1970-01-01/genre=jazz");
    std::fs::write(slice.join("notes.txt"), b"x").unwrap();
    let whole = std::fs::read(slice.join("listens-0-2-3.parquet")).unwrap();
    std::fs::copy(slice.join("listens-0-0-1.parquet"), slice.join("mine.parquet")).unwrap();
    std::fs::write(slice.join("listens-0-2-3.parquet"), vec![0; whole.len()]).unwrap();
    let error = lake.merge(TOPIC).await.unwrap_err();
    assert!(error.message.contains("listens-0-2-3.parquet cannot be merged"), "{error}");
    let status = &lake.status().tables[0];
    assert!(status.merge_error.is_some() && status.error.is_none(), "settling goes on");
    assert_eq!(status.merged.files, 3, "the other partition's files");
    assert!(
        !Path::new(&bench.url).join("_tmp").exists() || parquet_files(&Path::new(&bench.url).join("_tmp")).is_empty()
    );
    std::fs::write(slice.join("listens-0-2-3.parquet"), whole).unwrap();
    assert_eq!(lake.merge(TOPIC).await.unwrap().files, 3);
    assert!(lake.status().tables[0].merge_error.is_none());
    let left = parquet_files(&slice);
    assert_eq!(left, ["listens-0-0-5.parquet", "mine.parquet", "notes.txt"]);
    lake.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_owner_fences_the_first_one_from_merging() {
    let bench = merging(1).await;
    let first = bench.lake().await;
    settle(&bench, &first, 0, json!("jazz"), 3).await;
    let second = bench.lake().await;
    let error = first.merge(TOPIC).await.unwrap_err();
    assert!(error.kind == LakeErrorKind::Bug && error.message.contains("started twice"), "{error}");
    assert_eq!(second.merge(TOPIC).await.unwrap().files, 3);
    assert_eq!(table(&second, COUNT).await, ["6|6|6"]);
    first.stop().await.unwrap();
    second.stop().await.unwrap();
    let last = bench.lake().await;
    assert_whole(&bench, &last, 6, "after both").await;
    last.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_that_cannot_be_are_refused() {
    let mut bench = Bench::new(1).await;
    bench.config.merge = Some(MergeConfig { below_bytes: 2, to_bytes: 1, files_min: 1 });
    let config = crate::LakeConfig { tables: vec![TableConfig { ..bench.config.clone() }], ..Default::default() };
    let error = crate::tables::tables(Vec::new(), &config).err().unwrap();
    assert!(error.message.contains("merge_to must be at least merge_below"), "{error}");
}
