//! Queries read text as views, and nobody outside sees one. Each query is asked while all rows are live, half of them settled, and all.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::error::ArrowError;
use serde_json::Value;

use super::support::*;
use crate::config::{LakeConfig, TransformConfig, TransformMode};
use crate::query::SqlRequest;
use crate::reader::{Reader, RowFilter};
use crate::text_views::{cast_column, plain_bytes, plain_schema, slice_bytes};

/// Null, empty, as long as a view has room for, one byte more, the same beginning, and long; several of each.
fn texts() -> Vec<Value> {
    let long = "ä".repeat(20_000);
    let each = ["", "a", "twelve bytes", "thirteen byte", "thirteen bytf", "naïve", long.as_str()];
    let texts = std::iter::once(Value::Null).chain(each.into_iter().map(Value::from));
    texts.cycle().take(40).collect()
}

fn rows(of: std::ops::Range<usize>) -> Vec<String> {
    let texts = texts();
    of.map(|n| value(n as i64 * 3_600_000, texts[n].clone(), n as i64)).collect()
}

/// Queries whose answers are in one order, and say nothing of where rows lie.
const QUERIES: &[&str] = &[
    "SELECT left(genre, 20), length(genre), count(*), sum(amount), min(amount) FROM listens GROUP BY genre ORDER BY 5",
    "SELECT amount FROM listens WHERE genre = 'thirteen byte' ORDER BY 1",
    "SELECT amount FROM listens WHERE genre = '' OR genre IS NULL ORDER BY 1",
    "SELECT amount FROM listens WHERE genre > 'thirteen byte' AND genre < 'u' ORDER BY 1",
    "SELECT amount FROM listens WHERE genre LIKE 'thirteen%' AND amount > 10 ORDER BY 1",
    "SELECT amount FROM listens WHERE genre IN ('a', 'twelve bytes', 'none') ORDER BY 1",
    "SELECT amount FROM listens WHERE genre NOT IN (SELECT genre FROM listens WHERE amount > 1 AND amount < 5) ORDER BY 1",
    "SELECT left(max(genre), 9), min(genre), count(DISTINCT genre), length(string_agg(genre, '-')) FROM listens",
    "SELECT DISTINCT substr(genre, 1, 13) AS begins FROM listens ORDER BY begins NULLS FIRST",
    "SELECT a.amount, b.amount FROM listens a JOIN listens b USING (genre) WHERE a.amount < 3 AND b.amount < 20 ORDER BY 1, 2",
    "SELECT left(genre, 3) FROM listens UNION SELECT 'x' || amount FROM listens WHERE amount < 2 ORDER BY 1",
    "SELECT coalesce(genre, 'none') AS told FROM listens WHERE amount < 3 ORDER BY amount",
    "SELECT CASE WHEN amount = 1 THEN 'one' ELSE genre END FROM listens WHERE amount < 5 ORDER BY amount",
    "SELECT amount, lag(genre, 1, 'before') OVER (ORDER BY amount) FROM listens ORDER BY amount LIMIT 5",
    "SELECT array_agg(genre ORDER BY amount) FROM listens WHERE amount < 4",
    "SELECT top_k(left(genre, 13), 2) FROM listens WHERE amount < 35",
    "SELECT named_struct('g', genre, 'n', [genre, NULL]) FROM listens WHERE amount BETWEEN 1 AND 5 ORDER BY amount",
    "WITH RECURSIVE r AS (SELECT genre AS g, 1 AS n FROM listens WHERE amount = 2 UNION ALL SELECT g || '+', n + 1 FROM r WHERE n < 3) \
     SELECT g, n FROM r ORDER BY n",
    "SELECT _key, count(*) FROM listens WHERE _key = 'k' GROUP BY _key",
    "SELECT amount FROM listens WHERE genre ~ 'byt[ef]$' ORDER BY left(genre, 13) DESC, amount LIMIT 4",
    "SELECT match_score(genre, 'thirteen bytf') > 0 FROM listens WHERE amount < 7 ORDER BY amount",
    "SELECT parse_amount(genre), upper(genre), concat_ws('-', genre, amount), to_char(ts, '%H') FROM listens WHERE amount < 4 ORDER BY amount",
    "SELECT g, n FROM (VALUES ('a', 1), ('thirteen byte', 2)) AS v(g, n) JOIN listens ON g = genre WHERE amount < 8 ORDER BY n",
];

async fn ask_all(lake: &crate::Lake) -> Vec<(&'static str, Vec<String>)> {
    let mut answers = Vec::new();
    for query in QUERIES {
        let answer = sql(lake, query, vec![]).await.unwrap_or_else(|error| panic!("{query}: {error}"));
        let plain = plain_schema(&answer.schema);
        assert_eq!(answer.schema, plain, "{query}");
        for rows in &answer.rows {
            let kinds = plain.fields().iter().map(|field| field.data_type());
            assert!(kinds.eq(rows.columns().iter().map(|column| column.data_type())), "{query}");
        }
        answers.push((*query, lines(&answer)));
    }
    answers
}

/// Slices by date alone, so that the text is in the files, in batches of several pages.
async fn bench() -> Bench {
    let mut bench = Bench::new(2).await;
    bench.config.slice.truncate(1);
    bench
}

#[tokio::test(flavor = "multi_thread")]
async fn text_is_the_same_from_the_log_and_from_files() {
    let bench = bench().await;
    let lake = bench.lake().await;
    bench.append(0, &rows(0..20)).await;
    bench.append(1, &rows(20..40)).await;
    let live = ask_all(&lake).await;
    assert!(live.iter().all(|(query, rows)| !rows.is_empty() || panic!("{query} finds nothing")));
    assert_eq!(live[1].1, ["4", "12", "20", "28", "36"]);
    assert_eq!(live[2].1, ["0", "1", "8", "9", "16", "17", "24", "25", "32", "33"]);
    lake.flush(TOPIC).await.unwrap();
    assert_eq!(ask_all(&lake).await, live, "all settled");
    lake.stop().await.unwrap();
    // another lake that settles the first half only
    let bench = self::bench().await;
    let lake = bench.lake().await;
    bench.append(0, &rows(0..20)).await;
    lake.flush(TOPIC).await.unwrap();
    bench.append(1, &rows(20..40)).await;
    assert_eq!(ask_all(&lake).await, live, "half live");
    assert_eq!(ask_all(&lake).await, live, "half of them decoded before");
    lake.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_read_views_and_answers_have_none() {
    // the genre is a directory here
    let bench = Bench::new(1).await;
    let lake = bench.lake().await;
    bench.append(0, &rows(0..20)).await;
    lake.flush(TOPIC).await.unwrap();
    bench.append(0, &rows(20..40)).await;
    let query = "SELECT genre, _key, array_agg(genre) AS all_of FROM listens GROUP BY genre, _key";
    let types = |schema: &Schema| schema.fields().iter().map(|field| field.data_type().clone()).collect::<Vec<_>>();
    let list = |item: DataType| DataType::List(Arc::new(Field::new_list_field(item, true)));
    // what is computed with: views where rows are gone over once, and nothing is kept of whole pages where they are not
    let kind = "SELECT DISTINCT arrow_typeof(l.genre), arrow_typeof(l._key) FROM listens l";
    let viewed = ["Utf8View|BinaryView"];
    assert_eq!(table(&lake, kind).await, viewed);
    assert_eq!(table(&lake, &format!("{kind} WHERE genre > 'a' LIMIT 9")).await, viewed);
    let group =
        "SELECT arrow_typeof(genre), arrow_typeof(_key) FROM listens GROUP BY genre, _key ORDER BY genre LIMIT 1";
    assert_eq!(table(&lake, group).await, viewed);
    for keeps in [
        format!("{kind} JOIN listens r USING (genre)"),
        format!("{kind} WHERE amount IN (SELECT amount FROM listens)"),
        "SELECT DISTINCT arrow_typeof(genre), arrow_typeof(_key) FROM (SELECT *, row_number() OVER (ORDER BY genre) FROM listens)".into(),
    ] {
        assert_eq!(table(&lake, &keeps).await, ["Utf8|Binary"], "{keeps}");
    }
    let answer = sql(&lake, query, vec![]).await.unwrap();
    let plain = vec![DataType::Utf8, DataType::Binary, list(DataType::Utf8)];
    assert_eq!(types(&answer.schema), plain);
    assert!(answer.rows.iter().all(|rows| types(&rows.schema()) == plain));
    for told in [
        "DESCRIBE listens".to_owned(),
        "SHOW COLUMNS FROM listens".into(),
        format!("DESCRIBE {query}"),
        "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = 'listens'".into(),
    ] {
        let told = table(&lake, &told).await.join("\n");
        assert!(told.contains("Utf8") && told.contains("Binary") && !told.contains("View"), "{told}");
    }
    lake.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_sql_writes_have_no_views() {
    let bench = bench().await;
    let words = TransformConfig {
        name: "words".into(),
        zone: "processed".into(),
        slice: Vec::new(),
        sort: vec!["genre".into()],
        mode: TransformMode::Replace,
        key: Vec::new(),
        sql: "SELECT genre, array_agg(genre) AS all_of, max(_key) AS key FROM listens GROUP BY genre".into(),
    };
    let again = TransformConfig {
        name: "again".into(),
        sql: "SELECT w.genre, w.all_of FROM words w JOIN listens l ON w.genre = l.genre WHERE l.amount < 9".into(),
        ..words.clone()
    };
    let config = LakeConfig { transforms: vec![words, again], ..LakeConfig::default() };
    let lake = bench.lake_with(vec![bench.table()], config, None).await.unwrap();
    bench.append(0, &rows(0..30)).await;
    lake.flush(TOPIC).await.unwrap();
    bench.append(0, &rows(30..40)).await;
    for name in ["words", "again"] {
        lake.transform(name, &BTreeMap::new()).await.unwrap();
        let columns = lake.columns(name).unwrap();
        assert_eq!(columns, plain_schema(&columns), "{name}");
        let dir = std::path::Path::new(&bench.url).join("processed").join(name);
        let file = read(&dir.join(&parquet_files(&dir)[0])).schema();
        assert_eq!(file.fields(), plain_schema(&file).fields(), "{name}");
        assert_eq!(file.field(0).data_type(), &DataType::Utf8);
    }
    let told =
        "SELECT left(genre, 13), cardinality(all_of) FROM words WHERE genre > 'n' AND genre < 'w' ORDER BY genre";
    let want = ["naïve|5", "thirteen byte|5", "thirteen bytf|5", "twelve bytes|5"];
    assert_eq!(table(&lake, told).await, want);
    let joined = "SELECT count(*) FROM words JOIN listens ON all_of[1] = listens.genre";
    assert_eq!(table(&lake, joined).await, ["35"]);
    lake.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_filter_on_text_sees_views() {
    let bench = bench().await;
    let lake = bench.lake().await;
    bench.append(0, &rows(0..20)).await;
    lake.flush(TOPIC).await.unwrap();
    bench.append(0, &rows(20..40)).await;
    let filter = RowFilter { condition: Some("genre LIKE 'thirteen%'".into()), masked: vec!["_key".into()] };
    let reader = Reader {
        name: "part".into(),
        names: vec!["*".into()],
        filters: BTreeMap::from([(TOPIC.to_owned(), filter)]),
        tainted: BTreeMap::new(),
    };
    let sql =
        "SELECT genre, _key, count(*) FROM listens WHERE genre <> 'thirteen bytf' GROUP BY genre, _key".to_owned();
    let request = SqlRequest { sql, row_limit: 9, reader: Some(Arc::new(reader)), ..SqlRequest::default() };
    let answer = lake.sql(request).await.unwrap();
    assert_eq!(lines(&answer), ["thirteen byte|null|5"]);
    assert_eq!(answer.schema.field(1).data_type(), &DataType::Binary);
    lake.stop().await.unwrap();
}

#[test]
fn more_text_than_a_column_can_have_is_refused() {
    let long: ArrayRef = Arc::new(StringViewArray::from(vec![Some("x".repeat(1 << 20)), None]));
    let views = long.as_string_view();
    let often = |times: usize| -> ArrayRef {
        let again = vec![views.views()[0]; times];
        Arc::new(StringViewArray::new(again.into(), views.data_buffers().to_vec(), None))
    };
    assert_eq!(slice_bytes(&often(100)), 100 * (16 + (1 << 20)));
    let schema = Arc::new(Schema::new(vec![Field::new("t", DataType::Utf8View, true)]));
    let rows = RecordBatch::try_new(schema, vec![often(100)]).unwrap();
    assert!(plain_bytes(&rows) > 100 << 20, "one text, written out a hundred times");
    let error = cast_column(&often(2_048), &DataType::Utf8).unwrap_err();
    assert!(matches!(&error, ArrowError::ComputeError(message) if message.contains("take less")), "{error}");
    let lists = ListArray::new(
        Arc::new(Field::new_list_field(DataType::Utf8View, true)),
        arrow::buffer::OffsetBuffer::from_lengths([2_048]),
        often(2_048),
        None,
    );
    let lists: ArrayRef = Arc::new(lists);
    let plain = DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)));
    assert!(cast_column(&lists, &plain).is_err());
    assert!(slice_bytes(&lists) > 1 << 31);
    assert_eq!(cast_column(&long, &DataType::Utf8).unwrap().as_string::<i32>().value(0).len(), 1 << 20);
}
