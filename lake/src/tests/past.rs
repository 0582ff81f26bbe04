//! What was answered is answered again at the offsets of the answer, whatever came, settled and was merged since.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use broker::{Ack, Change};
use engine::ReadRequest;
use serde_json::json;

use super::proof::{BASE_MS, MINUTE_MS, Running, VIEWS, running, values};
use super::support::*;
use crate::Offsets;
use crate::config::MergeConfig;
use crate::error::{LakeErrorKind, Result};
use crate::lake::Lake;
use crate::past::view_query;
use crate::query::{SqlAnswer, SqlRequest};
use crate::reader::{Reader, RowFilter};

const STEPS: u64 = 60;
const QUERIES: [&str; 4] = [
    "SELECT _partition, genre, count(*), sum(amount), max(_offset) FROM listens GROUP BY 1, 2 ORDER BY 1, 2 NULLS FIRST",
    "SELECT count(*) FROM listens WHERE genre = 'jazz' AND date >= '1970-01-02'",
    "SELECT _partition, _offset, amount FROM listens ORDER BY _partition, _offset DESC LIMIT 5",
    "SELECT count(*) FROM listens a JOIN listens b ON a._offset = b._offset AND a._partition <> b._partition",
];

async fn at(lake: &Lake, text: &str, at: &Offsets) -> Result<SqlAnswer> {
    let at = Some(Arc::new(at.clone()));
    lake.sql(SqlRequest { sql: text.into(), row_limit: 100_000, at, ..SqlRequest::default() }).await
}

fn seed() -> u64 {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64);
    eprintln!("SEED={seed}");
    seed
}

fn offsets(of: &[(&str, &[(i32, i64)])]) -> Offsets {
    of.iter().map(|(topic, ends)| ((*topic).into(), ends.iter().copied().collect())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_over_files_and_log_are_given_again() {
    let mut chance = Chance::new(seed());
    let mut bench = Bench::new(2).await;
    bench.config.merge = Some(MergeConfig { files_min: 3, ..MergeConfig::default() });
    let lake = bench.lake().await;
    let (mut answered, mut merges) = (Vec::new(), 0);
    for _ in 0..STEPS {
        let partition = chance.below(2) as i32;
        let mut row = || {
            let genre = ["jazz", "pop", "rock"].get(chance.below(4) as usize).map_or(json!(null), |genre| json!(genre));
            value(chance.below(3) as i64 * DAY_MS, genre, chance.below(100) as i64)
        };
        let rows: Vec<String> = (0..5).map(|_| row()).collect();
        bench.append(partition, &rows).await;
        for query in QUERIES {
            let answer = sql(&lake, query, vec![]).await.unwrap();
            answered.push((query, lines(&answer), answer.offsets));
        }
        match chance.below(8) {
            0 | 1 => assert!(lake.flush(TOPIC).await.unwrap().rows > 0),
            2 => merges += lake.merge(TOPIC).await.unwrap().merges,
            _ => {}
        }
    }
    lake.flush(TOPIC).await.unwrap();
    merges += lake.merge(TOPIC).await.unwrap().merges;
    assert!(merges > 0, "files that hold what came before and after");
    for (query, rows, offsets) in &answered {
        let again = at(&lake, query, offsets).await.unwrap();
        assert_eq!((&lines(&again), &again.offsets, again.notes.len()), (rows, offsets, 0), "{query} at {offsets:?}");
    }
    lake.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_that_do_not_fit_are_refused() {
    let bench = Bench::new(2).await;
    let lake = bench.lake().await;
    let rows: Vec<String> = (0..10).map(|n| value(n, json!("jazz"), n)).collect();
    bench.append(0, &rows).await;
    lake.flush(TOPIC).await.unwrap();
    bench.append(1, &rows).await;
    let count = "SELECT count(*) FROM listens";
    let refused = async |ends: Offsets, kind, part: &str| {
        let error = at(&lake, count, &ends).await.unwrap_err();
        assert!(error.kind == kind && error.message.contains(part), "{error}");
    };
    refused(offsets(&[]), LakeErrorKind::Refused, "do not name the topic listens").await;
    refused(offsets(&[("listen", &[(0, 1)])]), LakeErrorKind::Refused, "the topic listen, which is not there").await;
    refused(offsets(&[(TOPIC, &[(2, 1)])]), LakeErrorKind::Refused, "the topic has 2 partitions").await;
    refused(offsets(&[(TOPIC, &[(0, -1)])]), LakeErrorKind::Refused, "offsets begin at 0").await;
    refused(offsets(&[(TOPIC, &[(1, 11)])]), LakeErrorKind::NotFresh, "records up to offset 10 only").await;
    for (ends, rows) in
        [(&[][..], 0), (&[(0, 0), (1, 0)], 0), (&[(0, 4)], 4), (&[(0, 10), (1, 3)], 13), (&[(0, 7), (1, 10)], 17)]
    {
        let answer = at(&lake, count, &offsets(&[(TOPIC, ends)])).await.unwrap();
        assert_eq!(lines(&answer), [rows.to_string()], "{ends:?}");
    }
    // what a reader may not see is not seen as of earlier either
    let jazz = RowFilter { condition: Some("amount < 3".into()), masked: vec!["genre".into()] };
    let filters = BTreeMap::from([(TOPIC.to_owned(), jazz)]);
    let reader = Reader { name: "r".into(), names: vec!["*".into()], filters, tainted: BTreeMap::new() };
    let request = SqlRequest {
        sql: "SELECT count(*), count(genre) FROM listens".into(),
        row_limit: 9,
        reader: Some(Arc::new(reader)),
        at: Some(Arc::new(offsets(&[(TOPIC, &[(0, 2), (1, 10)])]))),
        ..SqlRequest::default()
    };
    assert_eq!(lines(&lake.sql(request).await.unwrap()), ["5|0"]);
    // what is gone since is told
    let partition = bench.broker.catalog().topic(TOPIC).unwrap().partition(1).unwrap();
    bench.broker.lane().commit(vec![Change::LogStart(partition, 4)], Ack::Durable).await.unwrap();
    let answer = at(&lake, count, &offsets(&[(TOPIC, &[(0, 10), (1, 6)])])).await.unwrap();
    assert_eq!(lines(&answer), ["12"]);
    assert_eq!(
        answer.notes,
        ["listens-1: records below offset 4 are gone from log and lake: what they told is missing"]
    );
    lake.stop().await.unwrap();
}

/// The rows as text, in the order of the text; of fractions what does not depend on the order of additions.
fn texts(batches: &[RecordBatch]) -> Vec<String> {
    let options = FormatOptions::new().with_null("∅");
    let mut texts = Vec::new();
    for batch in batches {
        let value = |column: usize, row: usize| match batch.column(column).data_type() {
            DataType::Float64 => {
                let floats = batch.column(column).as_primitive::<Float64Type>();
                floats.iter().nth(row).flatten().map_or("∅".into(), |value| format!("{value:.8e}"))
            }
            _ => ArrayFormatter::try_new(batch.column(column), &options).unwrap().value(row).to_string(),
        };
        let row = |row| (0..batch.num_columns()).map(|column| value(column, row)).collect::<Vec<_>>().join("|");
        texts.extend((0..batch.num_rows()).map(row));
    }
    texts
}

fn sorted(mut texts: Vec<String>) -> Vec<String> {
    texts.sort_unstable();
    texts
}

async fn read(running: &Running, view: &str, request: ReadRequest) -> (Vec<String>, Offsets) {
    let answer = running.engine.read(view, ReadRequest { wait_ms: 20_000, ..request }).await.unwrap();
    (texts(&answer.rows), answer.offsets)
}

#[tokio::test(flavor = "multi_thread")]
async fn views_are_computed_again_as_they_were() {
    let mut chance = Chance::new(seed());
    // what is sketched is within its bounds, not the same
    let views: Vec<(&str, &str)> = VIEWS.into_iter().filter(|(view, _)| *view != "sketches").collect();
    let running = running(&views, None).await;
    let (mut now_ms, mut answered) = (BASE_MS, Vec::new());
    let narrow = ReadRequest {
        from: Some(BASE_MS + MINUTE_MS),
        to: Some(BASE_MS + 100 * MINUTE_MS),
        keys: vec![("genre".into(), "jazz".into())],
        order: vec![("n".into(), true), ("window_start".into(), false)],
        limit: Some(4),
        ..ReadRequest::default()
    };
    for step in 0..20 {
        now_ms += if step % 8 == 7 { 90 * MINUTE_MS } else { chance.below(9_000) as i64 };
        for partition in 0..2 {
            running.append(partition, &values(&mut chance, now_ms, 40)).await;
        }
        running.engine.wait_fresh(views[0].0, 20_000).await.unwrap();
        if step % 5 == 2 {
            for (view, _) in &views {
                answered.push((*view, ReadRequest::default(), read(&running, view, ReadRequest::default()).await));
            }
            for view in ["minutes", "hops"] {
                answered.push((view, narrow.clone(), read(&running, view, narrow.clone()).await));
            }
        }
        if step == 9 {
            running.lake.flush("events").await.unwrap();
        }
    }
    let shown = running.engine.views();
    for (view, request, (rows, offsets)) in answered {
        let info = shown.iter().find(|info| info.name == view).unwrap();
        let query = view_query(info, &request, Arc::new(offsets.clone())).unwrap();
        let again = running.lake.sql(query).await.unwrap();
        assert_eq!(again.offsets, offsets, "{view}");
        assert_eq!(again.notes, Vec::<String>::new(), "{view}");
        let names = |schema: &arrow::datatypes::Schema| -> Vec<_> {
            schema.fields().iter().map(|field| (field.name().clone(), field.data_type().clone())).collect()
        };
        assert_eq!(names(&again.schema), names(&info.schema), "{view}");
        let again = texts(&again.rows);
        match request.order.is_empty() {
            true => assert_eq!(sorted(again), sorted(rows), "{view} at {offsets:?}"),
            false => assert_eq!(again, rows, "{view} at {offsets:?}: {request:?}"),
        }
    }
    let all = running.engine.read("minutes", ReadRequest { wait_ms: 20_000, ..ReadRequest::default() }).await.unwrap();
    let count = at(&running.lake, "SELECT count(*) FROM minutes", &all.offsets).await.unwrap();
    assert_eq!(lines(&count), [all.row_count().to_string()]);
    let joined = "SELECT sum(n) = (SELECT count(*) FROM s WHERE genre IS NOT NULL) FROM totals WHERE genre IS NOT NULL";
    at(&running.lake, joined, &all.offsets).await.unwrap();
    let error = at(&running.lake, "SELECT count(*) FROM data_quality", &all.offsets).await.unwrap_err();
    assert!(error.message.contains("data_quality is known only as it is now"), "{error}");
    running.stop().await;
}
