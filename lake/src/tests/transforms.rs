use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;

use super::support::*;
use crate::config::{LakeConfig, SliceColumn, TransformConfig, TransformMode};
use crate::error::{LakeErrorKind, Result};
use crate::lake::Lake;
use crate::settle::{Fault, Step};

const DAY: i64 = 20_777; // 2026-11-20

fn transform(name: &str, mode: TransformMode, slice: &[&str], sql: &str) -> TransformConfig {
    TransformConfig {
        name: name.into(),
        zone: "processed".into(),
        slice: slice.iter().map(|word| SliceColumn::parse(word)).collect(),
        sort: Vec::new(),
        mode,
        key: Vec::new(),
        sql: sql.into(),
    }
}

async fn lake_with(bench: &Bench, transforms: Vec<TransformConfig>, fault: Option<Fault>) -> Result<Arc<Lake>> {
    let config = LakeConfig { transforms, ..LakeConfig::default() };
    bench.lake_with(vec![bench.table()], config, fault).await
}

async fn run(lake: &Lake, name: &str, parameters: &[(&str, &str)]) -> Result<crate::TransformReport> {
    let parameters: BTreeMap<String, String> =
        parameters.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    lake.transform(name, &parameters).await
}

fn files(bench: &Bench, name: &str) -> Vec<String> {
    parquet_files(&std::path::Path::new(&bench.url).join("processed").join(name))
}

fn per_day() -> TransformConfig {
    let sql = "SELECT CAST(ts AS DATE) AS date, genre, sum(amount) AS amount, count(*) AS plays FROM listens \
               WHERE CAST(ts AS DATE) = CAST($day AS DATE) GROUP BY CAST(ts AS DATE), genre";
    TransformConfig { sort: vec!["genre".into()], ..transform("daily", TransformMode::ReplaceSlices, &["date"], sql) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_replaces_its_day_and_a_second_run_changes_nothing() {
    let bench = Bench::new(2).await;
    let weekly = transform(
        "weekly",
        TransformMode::Replace,
        &[],
        "SELECT genre, sum(amount) AS amount FROM daily GROUP BY genre",
    );
    // declared before what it reads
    let lake = lake_with(&bench, vec![weekly, per_day()], None).await.unwrap();
    for day in 0..3 {
        let rows: Vec<_> =
            (0..10).map(|n| value((DAY + day) * DAY_MS + n, json!(if n < 6 { "a/b" } else { "ö" }), n)).collect();
        bench.append((day % 2) as i32, &rows).await;
    }
    let first = run(&lake, "daily", &[("day", "2026-11-20")]).await.unwrap();
    assert_eq!((first.rows, first.files, first.slices), (2, 1, 1));
    assert_eq!(first.offsets[TOPIC], BTreeMap::from([(0, 20), (1, 10)]));
    run(&lake, "daily", &[("day", "2026-11-21")]).await.unwrap();
    let all = "SELECT date, genre, amount, plays FROM daily ORDER BY date, genre";
    let want = ["2026-11-20|a/b|15|6", "2026-11-20|ö|30|4", "2026-11-21|a/b|15|6", "2026-11-21|ö|30|4"];
    assert_eq!(table(&lake, all).await, want);
    let before = files(&bench, "daily");
    assert!(before[0].starts_with("date=2026-11-20/daily-0-"), "{before:?}");
    run(&lake, "daily", &[("day", "2026-11-20")]).await.unwrap();
    assert_eq!(files(&bench, "daily"), before, "the same content has the same name");
    assert_eq!(table(&lake, all).await, want);
    run(&lake, "weekly", &[]).await.unwrap();
    assert_eq!(table(&lake, "SELECT * FROM weekly ORDER BY genre").await, ["a/b|30", "ö|60"]);
    // a late row changes one day, whose file gets another name
    bench.append(0, &[value(DAY * DAY_MS, json!("ö"), 100)]).await;
    lake.flush(TOPIC).await.unwrap();
    run(&lake, "daily", &[("day", "2026-11-20")]).await.unwrap();
    let after = files(&bench, "daily");
    assert!(after.len() == 2 && after[0] != before[0] && after[1] == before[1], "{after:?}");
    assert_eq!(table(&lake, "SELECT amount FROM daily WHERE date = '2026-11-20' AND genre = 'ö'").await, ["130"]);
    let info = &lake.transforms()[1];
    assert_eq!((info.files, info.rows, info.parameters.len()), (2, 4, 1));
    assert!(info.sources.contains(TOPIC) && info.published_ms.is_some());
    lake.stop().await.unwrap();
    let lake = lake_with(&bench, vec![per_day()], None).await.unwrap();
    assert_eq!(table(&lake, "SELECT count(*) FROM daily").await, ["4"], "after a restart");
    lake.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_without_rows_empties_its_slice() {
    let bench = Bench::new(1).await;
    let sql = "SELECT CAST(ts AS DATE) AS date, amount FROM listens WHERE amount > 1 AND CAST(ts AS DATE) = \
               CAST($day AS DATE)";
    let lake = lake_with(&bench, vec![transform("daily", TransformMode::ReplaceSlices, &["date"], sql)], None).await;
    let lake = lake.unwrap();
    bench.append(0, &[value(DAY * DAY_MS, json!("a"), 2), value((DAY + 1) * DAY_MS, json!("a"), 3)]).await;
    run(&lake, "daily", &[("day", "2026-11-20")]).await.unwrap();
    run(&lake, "daily", &[("day", "2026-11-21")]).await.unwrap();
    assert_eq!(table(&lake, "SELECT sum(amount) FROM daily").await, ["5"]);
    lake.stop().await.unwrap();
    let sql = sql.replace("amount > 1", "amount > 2");
    let lake = lake_with(&bench, vec![transform("daily", TransformMode::ReplaceSlices, &["date"], &sql)], None).await;
    let lake = lake.unwrap();
    assert_eq!(run(&lake, "daily", &[("day", "2026-11-20")]).await.unwrap().files, 0);
    assert_eq!(table(&lake, "SELECT sum(amount) FROM daily").await, ["3"]);
    assert_eq!(files(&bench, "daily").len(), 1);
    lake.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn append_adds_once_per_run() {
    let bench = Bench::new(1).await;
    let append = transform("all_days", TransformMode::Append, &["genre"], &per_day().sql);
    let lake = lake_with(&bench, vec![append], None).await.unwrap();
    let odd = [json!("a=b/c"), json!(null), json!(""), json!("日本 50%"), json!("..")];
    for day in 0..2 {
        let rows: Vec<_> = odd.iter().map(|genre| value((DAY + day) * DAY_MS, genre.clone(), 1)).collect();
        bench.append(0, &rows).await;
    }
    for day in ["2026-11-20", "2026-11-21", "2026-11-20"] {
        assert_eq!(run(&lake, "all_days", &[("day", day)]).await.unwrap().rows, 5);
    }
    let by_genre = "SELECT genre, count(*) FROM all_days GROUP BY genre ORDER BY genre NULLS FIRST";
    assert_eq!(table(&lake, by_genre).await, ["null|2", "|2", "..|2", "a=b/c|2", "日本 50%|2"]);
    assert_eq!(table(&lake, "SELECT count(*) FROM all_days WHERE genre = 'a=b/c'").await, ["2"]);
    assert_eq!(files(&bench, "all_days").len(), 10);
    let error = run(&lake, "all_days", &[]).await.unwrap_err();
    assert!(error.kind == LakeErrorKind::Refused && error.message.contains("parameter day"), "{error}");
    lake.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_crash_at_any_step_readers_see_the_old_or_the_new() {
    let steps = [Step::HalfWritten, Step::Written, Step::Renamed, Step::Published];
    for (step, objects) in steps.into_iter().flat_map(|step| [(step, false), (step, true)]) {
        let bench = Bench::new(1).await.on(objects);
        let sql = "SELECT genre, amount FROM listens";
        let whole = || vec![transform("copy", TransformMode::Replace, &["genre"], sql)];
        let rows = |n: i64| [value(0, json!("a"), n), value(0, json!("b"), n), value(0, json!("b"), n + 1)];
        bench.append(0, &rows(1)).await;
        let lake = lake_with(&bench, whole(), Some(crash_at(step, 1))).await.unwrap();
        run(&lake, "copy", &[]).await.unwrap();
        bench.append(0, &rows(10)).await;
        assert!(run(&lake, "copy", &[]).await.is_err(), "{step:?}");
        assert!(lake.transforms()[0].error.is_some());
        lake.crash().await;
        drop(lake);
        let lake = lake_with(&bench, whole(), None).await.unwrap();
        let want = if step == Step::Published { "6|35" } else { "3|4" };
        let sum = "SELECT count(*), sum(amount) FROM copy";
        assert_eq!(table(&lake, sum).await, [want], "{step:?}");
        assert_eq!(files(&bench, "copy").len(), 2, "{step:?}: what the manifest does not know is gone");
        run(&lake, "copy", &[]).await.unwrap();
        assert_eq!(table(&lake, sum).await, ["6|35"], "{step:?}");
        lake.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn history_keeps_versions_and_is_the_same_when_run_again() {
    let bench = Bench::new(1).await;
    let sql = "SELECT amount AS id, max(genre) AS city FROM listens WHERE CAST(ts AS DATE) = CAST($day AS DATE) \
               GROUP BY amount";
    let dim = || TransformConfig { key: vec!["id".into()], ..transform("dim_users", TransformMode::History, &[], sql) };
    let lake = lake_with(&bench, vec![dim()], None).await.unwrap();
    let at = |day: i64, city: &str, id: i64| value((DAY + day) * DAY_MS, json!(city), id);
    bench.append(0, &[at(0, "Lyon", 1), at(0, "Nice", 2)]).await;
    bench.append(0, &[at(1, "Paris", 1), at(1, "Nice", 2), at(1, "Brest", 3)]).await;
    for _ in 0..2 {
        run(&lake, "dim_users", &[("day", "2026-11-20")]).await.unwrap();
    }
    let all = "SELECT id, city, CAST(valid_from AS DATE) AS since, CAST(valid_to AS DATE) AS until, is_current \
               FROM dim_users ORDER BY id, since";
    assert_eq!(table(&lake, all).await, ["1|Lyon|2026-11-20|null|true", "2|Nice|2026-11-20|null|true"]);
    let want = [
        "1|Lyon|2026-11-20|2026-11-21|false",
        "1|Paris|2026-11-21|null|true",
        "2|Nice|2026-11-20|null|true",
        "3|Brest|2026-11-21|null|true",
    ];
    run(&lake, "dim_users", &[("day", "2026-11-21")]).await.unwrap();
    assert_eq!(table(&lake, all).await, want);
    let before = files(&bench, "dim_users");
    for day in ["2026-11-21", "2026-11-20"] {
        run(&lake, "dim_users", &[("day", day)]).await.unwrap();
        assert_eq!(table(&lake, all).await, want, "run again for {day}");
        assert_eq!(files(&bench, "dim_users"), before);
    }
    // a correction of the day on which the version began
    bench.append(0, &[at(1, "Quimper", 3)]).await;
    run(&lake, "dim_users", &[("day", "2026-11-21")]).await.unwrap();
    assert_eq!(table(&lake, "SELECT count(*), max(city) FROM dim_users WHERE id = 3").await, ["1|Quimper"]);
    lake.stop().await.unwrap();
    let twice = TransformConfig { sql: "SELECT amount AS id, genre AS city FROM listens".into(), ..dim() };
    let lake = lake_with(&bench, vec![twice], None).await.unwrap();
    let error = run(&lake, "dim_users", &[]).await.unwrap_err();
    assert!(error.message.contains("more than one row"), "{error}");
    lake.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_on_the_sorted_column_reads_few_row_groups() {
    let bench = Bench::new(1).await;
    let sql = "SELECT 'x' AS kind, value AS user_id, value * 2 AS n FROM generate_series(1, 300000)";
    let fact = TransformConfig { sort: vec!["user_id".into()], ..transform("fact", TransformMode::Replace, &[], sql) };
    let lake = lake_with(&bench, vec![fact], None).await.unwrap();
    assert_eq!(run(&lake, "fact", &[]).await.unwrap().rows, 300_000);
    let plan =
        table(&lake, "EXPLAIN ANALYZE SELECT sum(n) FROM fact WHERE user_id BETWEEN 1000 AND 1100").await.join("\n");
    let pruned = plan.split("row_groups_pruned_statistics=").nth(1).unwrap_or_else(|| panic!("{plan}"));
    assert!(pruned.starts_with("5 total → 1 matched"), "{plan}");
    assert_eq!(table(&lake, "SELECT sum(n) FROM fact WHERE user_id BETWEEN 1000 AND 1100").await, ["212100"]);
    lake.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_of_transforms_are_told_at_once_with_the_way_out() {
    let bench = Bench::new(1).await;
    let wrong = |transforms| async { lake_with(&bench, transforms, None).await.err().unwrap() };
    let replace = |name: &str, sql: &str| transform(name, TransformMode::Replace, &[], sql);
    let early =
        wrong(vec![replace("listens", "SELECT 1 AS a"), replace("b", "DELETE FROM listens"), replace("C", "SELECT")]);
    let early = early.await;
    assert_eq!(early.kind, LakeErrorKind::Config);
    for says in ["has this name", "sql must be one query", "a name is small letters"] {
        assert!(early.message.contains(says), "{says}: {early}");
    }
    let late = wrong(vec![
        replace("a", "SELECT amont FROM listens"),
        replace("b", "SELECT * FROM a"),
        replace("c", "SELECT NULL AS x"),
        transform("d", TransformMode::Replace, &["date"], "SELECT amount FROM listens"),
        transform("e", TransformMode::History, &[], "SELECT amount FROM listens"),
        transform("f", TransformMode::ReplaceSlices, &[], "SELECT amount FROM listens"),
    ]);
    let late = late.await;
    for says in [
        "transform a: no column amont",
        "transform b: no table or view a",
        "CAST it to another",
        "slice column date is not in the result",
        "set key",
        "replace_slices needs slice columns",
    ] {
        assert!(late.message.contains(says), "{says}: {late}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_see_whole_contents_while_runs_replace_them() {
    let bench = Bench::new(1).await;
    let sql = "SELECT genre, amount FROM listens";
    let lake = lake_with(&bench, vec![transform("copy", TransformMode::Replace, &["genre"], sql)], None).await.unwrap();
    for round in 1..30_i64 {
        bench.append(0, &[value(0, json!("a"), 1), value(0, json!("b"), 1), value(0, json!(null), 1)]).await;
        let (ran, seen) = tokio::join!(run(&lake, "copy", &[]), sql_of(&lake));
        ran.unwrap();
        let seen: Vec<i64> = seen.iter().map(|line| line.parse().unwrap()).collect();
        assert!(seen == [3 * round] || seen == [3 * (round - 1)], "{seen:?} in round {round}");
    }
    super::settling::wait_for(|| files(&bench, "copy").len() == 3).await;
    lake.stop().await.unwrap();
}

async fn sql_of(lake: &Lake) -> Vec<String> {
    table(lake, "SELECT count(*) FROM copy").await
}
