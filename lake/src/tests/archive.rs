use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use broker::{Ack, Change};
use serde_json::json;

use super::support::*;
use crate::ddl::Dialect;
use crate::error::LakeError;
use crate::lake::Lake;
use crate::settle::{Fault, Step};

const NOW: i64 = 20_800 * DAY_MS;

/// A lake in zones with slices of 40, 30 and 1 day before [`NOW`].
async fn zoned() -> Bench {
    let mut bench = Bench::new(2).await;
    bench.config.zone = Some("raw".into());
    bench.config.archive_after_ms = Some(30 * DAY_MS);
    bench
}

async fn fill(bench: &Bench, lake: &Lake) {
    for (days, partition) in [(40, 0), (40, 1), (31, 0), (1, 1)] {
        let at = NOW - days * DAY_MS;
        bench.append(partition, &[value(at, json!("jazz"), days), value(at + 1, json!("a/b"), days)]).await;
    }
    lake.flush(TOPIC).await.unwrap();
}

fn zones(bench: &Bench) -> (usize, usize) {
    let files = parquet_files(std::path::Path::new(&bench.url));
    let of = |zone: &str| files.iter().filter(|file| file.starts_with(zone)).count();
    assert_eq!(of("raw/listens/") + of("archive/listens/"), files.len(), "{files:?}");
    (of("raw/listens/"), of("archive/listens/"))
}

const SUM: &str = "SELECT count(*), sum(amount), count(DISTINCT _offset * 2 + _partition) FROM listens";

#[tokio::test(flavor = "multi_thread")]
async fn old_slices_move_to_the_archive_and_are_read_from_there() {
    let bench = zoned().await;
    let lake = bench.lake().await;
    let slices_sought = |name: &str| lake.ddl(Dialect::Spark, Some(name)).unwrap()[0].statements.len() == 2;
    assert!(!slices_sought("listens"), "nothing has settled");
    fill(&bench, &lake).await;
    assert_eq!(zones(&bench), (8, 0));
    assert!(slices_sought("listens") && !slices_sought("listens_archive"), "nothing is archived");
    let report = lake.archive(NOW).await.unwrap();
    assert_eq!((report.slices, report.files, report.expired_files), (4, 6, 0));
    assert_eq!(zones(&bench), (2, 6));
    assert_eq!(table(&lake, SUM).await, ["8|224|8"]);
    assert!(lake.verify(TOPIC).await.unwrap().is_sound());
    assert_eq!(lake.archive(NOW).await.unwrap().files, 0, "once");
    // a late row of an old day lies in raw until the next time
    bench.append(0, &[value(NOW - 40 * DAY_MS, json!("jazz"), 1)]).await;
    lake.flush(TOPIC).await.unwrap();
    assert_eq!(zones(&bench), (3, 6));
    assert_eq!(lake.archive(NOW).await.unwrap().files, 1);
    let ddl = lake.ddl(Dialect::Hive, Some("listens_archive")).unwrap();
    assert!(ddl[0].statements[0].contains("archive/listens'"), "{ddl:?}");
    lake.stop().await.unwrap();
    let lake = bench.lake().await;
    assert_eq!(table(&lake, SUM).await, ["9|225|9"], "after a restart");
    assert_eq!(zones(&bench), (2, 7));
    lake.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn archived_slices_expire_once_the_log_has_let_go() {
    let mut bench = zoned().await;
    bench.config.expire_after_ms = Some(35 * DAY_MS);
    let lake = bench.lake().await;
    fill(&bench, &lake).await;
    assert_eq!(lake.archive(NOW).await.unwrap().expired_files, 0, "the log still has them");
    for partition in 0..2 {
        let partition = bench.broker.catalog().topic(TOPIC).unwrap().partition(partition).unwrap();
        let end = partition.high_watermark();
        bench.broker.lane().commit(vec![Change::LogStart(partition, end)], Ack::Durable).await.unwrap();
    }
    let report = lake.archive(NOW).await.unwrap();
    assert_eq!((report.expired_files, report.expired_rows), (4, 4));
    assert_eq!(table(&lake, SUM).await, ["4|64|4"]);
    assert_eq!(zones(&bench), (2, 2));
    lake.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_while_archiving_loses_and_doubles_nothing() {
    let steps = [Step::Written, Step::Renamed, Step::Published];
    for (step, objects) in steps.into_iter().flat_map(|step| [(step, false), (step, true)]) {
        let bench = zoned().await.on(objects);
        let armed = Arc::new(AtomicBool::new(false));
        let fault: Fault = {
            let armed = armed.clone();
            Arc::new(move |at| match at == step && armed.load(Ordering::SeqCst) {
                true => Err(LakeError::destination("crash")),
                false => Ok(()),
            })
        };
        let lake = bench.try_lake(Some(fault)).await.unwrap();
        fill(&bench, &lake).await;
        armed.store(true, Ordering::SeqCst);
        assert!(lake.archive(NOW).await.is_err(), "{step:?}");
        assert_eq!(table(&lake, SUM).await, ["8|224|8"], "{step:?}");
        lake.crash().await;
        drop(lake);
        let lake = bench.lake().await;
        assert_eq!(table(&lake, SUM).await, ["8|224|8"], "{step:?}, restarted");
        let (raw, archived) = zones(&bench);
        assert_eq!(raw + archived, 8, "{step:?}: nothing is there twice");
        lake.archive(NOW).await.unwrap();
        assert_eq!(zones(&bench), (2, 6), "{step:?}");
        assert!(lake.verify(TOPIC).await.unwrap().is_sound());
        lake.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_topic_in_a_zone_is_put_aside_whole() {
    for objects in [false, true] {
        is_put_aside_whole(zoned().await.on(objects)).await;
    }
}

async fn is_put_aside_whole(bench: Bench) {
    let lake = bench.lake().await;
    fill(&bench, &lake).await;
    lake.archive(NOW).await.unwrap();
    bench.broker.catalog().delete(TOPIC).await.unwrap();
    let new = broker::NewTopic { name: TOPIC.into(), partitions: 2, config: Default::default() };
    bench.broker.catalog().create(new).await.unwrap();
    fill(&bench, &lake).await;
    assert_eq!(table(&lake, SUM).await, ["8|224|8"]);
    let aside = parquet_files(&std::path::Path::new(&bench.url).join("_deleted"));
    assert!(aside.len() == 8 && aside.iter().all(|file| file.starts_with("listens-")), "{aside:?}");
    lake.stop().await.unwrap();
}
