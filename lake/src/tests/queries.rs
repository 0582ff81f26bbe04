use serde_json::json;

use super::support::*;
use crate::error::LakeErrorKind;
use crate::query::SqlRequest;
use crate::tables::Table;

async fn filled() -> (Bench, std::sync::Arc<crate::Lake>) {
    let bench = Bench::new(2).await;
    let lake = bench.lake().await;
    for day in 0..4 {
        let rows: Vec<_> = (0..10)
            .map(|n| {
                let genre = [json!("jazz"), json!("pop"), json!(null), json!("")][n as usize % 4].clone();
                value(day * DAY_MS + n * 3_600_000, genre, n)
            })
            .collect();
        bench.append(day as i32 % 2, &rows).await;
        if day < 2 {
            lake.flush(TOPIC).await.unwrap();
        }
    }
    (bench, lake)
}

#[tokio::test(flavor = "multi_thread")]
async fn settled_and_live_rows_are_one_table() {
    let (_bench, lake) = filled().await;
    let by_genre = "SELECT genre, count(*), sum(amount) FROM listens GROUP BY genre ORDER BY genre NULLS FIRST";
    assert_eq!(table(&lake, by_genre).await, ["null|8|32", "|8|40", "jazz|12|48", "pop|12|60"]);
    let by_date = "SELECT date, count(*) FROM listens GROUP BY date ORDER BY date";
    assert_eq!(table(&lake, by_date).await, ["1970-01-01|10", "1970-01-02|10", "1970-01-03|10", "1970-01-04|10"]);
    let by_month =
        "SELECT tumble(ts, INTERVAL '1' MONTH) AS month, count(*) FROM listens GROUP BY TUMBLE(ts, INTERVAL '1' MONTH)";
    assert_eq!(table(&lake, by_month).await, ["1970-01-01T00:00:00Z|40"]);
    assert_eq!(table(&lake, "SELECT count(*) FROM listens WHERE genre = ''").await, ["8"]);
    assert_eq!(table(&lake, "SELECT count(*) FROM listens WHERE genre IS NULL").await, ["8"]);
    assert_eq!(
        table(&lake, "SELECT count(*) FROM listens WHERE date = '1970-01-02' AND genre IN ('pop', 'jazz')").await,
        ["6"]
    );
    assert_eq!(table(&lake, "SELECT count(*) FROM listens WHERE ts >= TIMESTAMP '1970-01-03T05:00:00Z'").await, ["15"]);
    assert_eq!(
        table(&lake, "SELECT _partition, max(_offset) FROM listens GROUP BY _partition ORDER BY 1").await,
        ["0|19", "1|19"]
    );
    assert_eq!(table(&lake, "SELECT amount FROM listens ORDER BY ts LIMIT 2").await, ["0", "1"]);
    let limited = table(&lake, "SELECT genre, date, _key FROM listens LIMIT 7").await;
    assert_eq!(limited.len(), 7);
    lake.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn now_is_the_clock_of_the_server() {
    let (bench, lake) = filled().await;
    let now = chrono::DateTime::from_timestamp_millis(bench.broker.clock().now_ms()).unwrap();
    let today = now.format("%Y-%m-%d").to_string();
    assert_eq!(table(&lake, "SELECT CAST(now() AS DATE), current_date").await, [format!("{today}|{today}")]);
    assert_eq!(table(&lake, "SELECT count(*) FROM listens WHERE ts < now() - INTERVAL '1 hour'").await, ["40"]);
    assert_eq!(table(&lake, "SELECT count(*) FROM listens WHERE CAST(ts AS DATE) > current_date").await, ["0"]);
    lake.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_cannot_match_are_not_opened() {
    let (_bench, lake) = filled().await;
    let files = async |filter: &str| {
        let plan = table(&lake, &format!("EXPLAIN SELECT amount FROM listens WHERE {filter}")).await.join("\n");
        plan.matches(".parquet").count()
    };
    assert_eq!(files("true").await, 8, "two days, four genres");
    assert_eq!(files("date = '1970-01-02'").await, 4);
    assert_eq!(files("genre = 'jazz'").await, 2);
    assert_eq!(files("genre IS NULL").await, 2);
    assert_eq!(files("genre = ''").await, 2);
    assert_eq!(files("genre = 'jazz' AND date >= '1970-01-02'").await, 1);
    assert_eq!(files("ts < TIMESTAMP '1970-01-01T03:30:00Z'").await, 4, "every genre begins within four hours");
    assert_eq!(files("ts < TIMESTAMP '1970-01-01T01:30:00Z'").await, 2);
    assert_eq!(files("_partition = 1").await, 4);
    assert_eq!(files("_offset >= 10").await, 0);
    assert_eq!(files("amount = 3").await, 8, "only the files know");
    lake.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_have_their_types() {
    let (_bench, lake) = filled().await;
    let ask = async |text: &str, params| lines(&sql(&lake, text, params).await.unwrap());
    assert_eq!(
        ask("SELECT count(*) FROM listens WHERE genre = $1 AND amount < $2", vec![json!("jazz"), json!(5)]).await,
        ["8"]
    );
    assert_eq!(ask("SELECT count(*) FROM listens WHERE ts >= $1", vec![json!("1970-01-04T00:00:00Z")]).await, ["10"]);
    assert_eq!(ask("SELECT count(*) FROM listens WHERE date = $1", vec![json!("1970-01-04")]).await, ["10"]);
    assert_eq!(ask("SELECT count(*) FROM listens LIMIT $1", vec![json!(1)]).await, ["40"]);
    let error = sql(&lake, "SELECT count(*) FROM listens WHERE genre = $2", vec![json!("x")]).await.unwrap_err();
    assert!(error.kind == LakeErrorKind::Refused && error.message.contains("$2"), "{error}");
    let error = sql(&lake, "SELECT $1", vec![json!([1])]).await.unwrap_err();
    assert!(error.message.contains("parameter $1 is an array"), "{error}");
    lake.stop().await.unwrap();
}

/// Where the condition of a FILTER is unknown, a row does not count.
#[tokio::test(flavor = "multi_thread")]
async fn filters_take_what_is_true() {
    let (_bench, lake) = filled().await;
    let from = "FROM (VALUES (1, NULL, 7), (1, 2, 8), (1, 1, 9), (2, NULL, 5)) AS t(g, v, w)";
    let calls = "count(*) FILTER (WHERE v <> 1), count(w) FILTER (WHERE NOT (v = 1)), sum(w) FILTER (WHERE v <> 1), \
         first_value(w ORDER BY w) FILTER (WHERE v <> 1)";
    assert_eq!(
        table(&lake, &format!("SELECT g, {calls} {from} GROUP BY g ORDER BY g")).await,
        ["1|1|1|8|8", "2|0|0|null|null"]
    );
    assert_eq!(table(&lake, &format!("SELECT {calls} {from}")).await, ["1|1|8|8"]);
    let named = "SELECT \"count(*) FILTER (WHERE t.v > Int64(1))\" AS n FROM (SELECT count(*) FILTER (WHERE v > 1)";
    assert_eq!(table(&lake, &format!("{named} {from} GROUP BY g) ORDER BY n")).await, ["0", "1"], "names stay");
    lake.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_writes_or_names_files_is_refused() {
    let (bench, lake) = filled().await;
    let file = bench.topic_dir().join("date=1970-01-01/genre=jazz/listens-0-0-9.parquet");
    assert!(file.exists());
    for text in [
        "CREATE TABLE t AS SELECT 1".to_owned(),
        "CREATE VIEW v AS SELECT 1".into(),
        "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '/etc'".into(),
        "INSERT INTO listens VALUES (1)".into(),
        "DELETE FROM listens".into(),
        "UPDATE listens SET amount = 1".into(),
        "DROP TABLE listens".into(),
        "COPY listens TO '/tmp/x.parquet'".into(),
        "COPY (SELECT 1) TO '/tmp/x.csv'".into(),
        "SET datafusion.execution.batch_size = 1".into(),
        "RESET datafusion.execution.batch_size".into(),
        "EXPLAIN DELETE FROM listens".into(),
        "EXPLAIN ANALYZE INSERT INTO listens SELECT * FROM listens".into(),
        "PREPARE p AS SELECT 1".into(),
        "BEGIN".into(),
        "CREATE FUNCTION f() RETURNS INT RETURN 1".into(),
        "TRUNCATE TABLE listens".into(),
    ] {
        let error = sql(&lake, &text, vec![]).await.unwrap_err();
        assert_eq!(error.kind, LakeErrorKind::Refused, "{text}: {error}");
        assert!(error.message.contains("SQL here only reads"), "{text}: {error}");
    }
    for text in [
        format!("SELECT * FROM '{}'", file.display()),
        format!("SELECT * FROM \"{}\"", file.display()),
        format!("SELECT * FROM read_parquet('{}')", file.display()),
        "SELECT * INTO t FROM listens".into(),
        "SELECT 1; SELECT 2".into(),
        "".into(),
        "SELEC 1".into(),
        "SELECT 1 / 0".into(),
    ] {
        let error = sql(&lake, &text, vec![]).await.unwrap_err();
        assert_eq!(error.kind, LakeErrorKind::Refused, "{text}: {error}");
    }
    assert_eq!(table(&lake, "SELECT count(*) FROM listens").await, ["40"]);
    lake.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_names_are_told_with_what_there_is() {
    let (_bench, lake) = filled().await;
    let error = sql(&lake, "SELECT gnre FROM listens", vec![]).await.unwrap_err();
    assert!(error.message.contains("gnre") && error.message.contains("genre"), "{error}");
    let error = sql(&lake, "SELECT * FROM listen", vec![]).await.unwrap_err();
    assert_eq!(error.message, "no table or view listen: there are listens");
    let tables = table(&lake, "SHOW TABLES").await;
    assert!(tables.iter().any(|row| row.starts_with("millpond|public|listens|")), "{tables:?}");
    let columns = table(&lake, "DESCRIBE listens").await;
    assert_eq!(columns[1], "genre|Utf8|YES");
    assert!(columns.last().unwrap().starts_with("date|Date32"), "{columns:?}");
    let columns = table(&lake, "SELECT column_name FROM information_schema.columns WHERE table_name = 'listens'").await;
    assert_eq!(columns.len(), 8);
    lake.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_end_queries_with_the_way_out() {
    let (mut bench, lake) = filled().await;
    let answer = lake
        .sql(SqlRequest { sql: "SELECT * FROM listens".into(), row_limit: 5, ..SqlRequest::default() })
        .await
        .unwrap();
    assert_eq!(answer.rows.iter().map(|rows| rows.num_rows()).sum::<usize>(), 5);
    lake.stop().await.unwrap();
    bench.sql.rows = 7;
    bench.sql.time_ms = 300;
    bench.sql.memory_bytes = 1 << 20;
    let lake = bench.lake().await;
    assert_eq!(table(&lake, "SELECT * FROM listens").await.len(), 8, "one more than the limit tells that it was cut");
    let start = std::time::Instant::now();
    let cross = "SELECT count(*) FROM generate_series(1, 1000000) a, generate_series(1, 1000000) b WHERE a.value * b.value % 7 = 3";
    let error = sql(&lake, cross, vec![]).await.unwrap_err();
    assert!(matches!(error.kind, LakeErrorKind::TimeLimit | LakeErrorKind::MemoryLimit), "{error}");
    assert!(start.elapsed().as_secs() < 5);
    let large = "SELECT array_agg(value) FROM generate_series(1, 3000000)";
    let error = sql(&lake, large, vec![]).await.unwrap_err();
    assert!(matches!(error.kind, LakeErrorKind::TimeLimit | LakeErrorKind::MemoryLimit), "{error}");
    let wide = "SELECT repeat('x', 2000000)";
    assert_eq!(sql(&lake, wide, vec![]).await.unwrap_err().kind, LakeErrorKind::MemoryLimit);
    assert_eq!(table(&lake, "SELECT count(*) FROM listens").await, ["40"], "the memory was given back");
    lake.stop().await.unwrap();
}

/// Each needs more than there is, or would not end: in one call, where neither the pool nor the clock is asked.
#[tokio::test(flavor = "multi_thread")]
async fn functions_that_grow_are_refused_before_they_run() {
    let (mut bench, lake) = filled().await;
    lake.stop().await.unwrap();
    bench.sql.memory_bytes = 16 << 20;
    let lake = bench.lake().await;
    let big = "repeat('x', 1000000)";
    let rows = "FROM generate_series(1, 100000)";
    for text in [
        "SELECT array_repeat(1, 9000000000000)".to_owned(),
        "SELECT list_repeat([1, 2], 9000000000000)".into(),
        "SELECT range(0, 100000000000)".into(),
        "SELECT generate_series(100000000000, 0, -1)".into(),
        "SELECT range(DATE '1970-01-01', DATE '2020-01-01', INTERVAL '1 month -31 days')".into(),
        "SELECT range(TIMESTAMP '1970-01-01', TIMESTAMP '2020-01-01', INTERVAL '1 nanosecond')".into(),
        "SELECT array_resize([1], 9000000000000, 5)".into(),
        "SELECT repeat('ab', 1000000000)".into(),
        format!("SELECT repeat('ab', 1000000 + value) {rows}"),
        "SELECT lpad('a', 2000000000), rpad('a', 2000000000, 'é')".into(),
        format!("SELECT replace({big}, '', {big})"),
        format!("SELECT regexp_replace({big}, '', {big}, 'g')"),
        format!("SELECT array_to_string(range(0, 1000000), {big})"),
        format!("SELECT concat_ws({big}, {})", ["'a'"; 100].join(", ")),
        format!("SELECT concat({})", [big; 100].join(", ")),
        format!("SELECT {}", [big; 20].join(" || ")),
        format!("SELECT [{}] FROM listens", ["concat('a', genre)"; 300].join(", ")),
        format!("SELECT [{}]", [big; 100].join(", ")),
        format!("SELECT array_replace_all(array_repeat('a', 100000), 'a', {big})"),
        format!("SELECT {big} {rows}"),
        format!("SELECT string_agg(value::varchar, {big}) {rows}"),
        "SELECT levenshtein(repeat('a', 1000000), repeat('b', 1000000))".into(),
        "SELECT levenshtein(repeat('a', 50000), repeat('b', 50000))".into(),
        "SELECT array_has_all(range(0, 50000), range(0, 50000))".into(),
        "SELECT range(0, 50000) @> range(0, 50000)".into(),
        format!("SELECT array_agg(value) OVER (ORDER BY value) {rows}"),
    ] {
        let begin = std::time::Instant::now();
        let error = sql(&lake, &text, vec![]).await.unwrap_err();
        let kinds = [LakeErrorKind::MemoryLimit, LakeErrorKind::TimeLimit, LakeErrorKind::Refused];
        let said: String = text.chars().take(80).collect();
        assert!(kinds.contains(&error.kind), "{said}: {error}");
        assert!(begin.elapsed().as_secs() < 20, "{said}: {:?}", begin.elapsed());
    }
    assert_eq!(table(&lake, "SELECT count(*) FROM listens").await, ["40"]);
    lake.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn bounded_functions_answer_as_before() {
    let (_bench, lake) = filled().await;
    for (text, answer) in [
        ("repeat('ab', 3)", "ababab"),
        ("repeat(genre, 2)", "jazzjazz"),
        ("lpad('7', 3, '0') || rpad(genre, 6, '.')", "007jazz.."),
        ("array_repeat(1, 3)", "[1, 1, 1]"),
        ("list_resize([1], 3, 0)", "[1, 0, 0]"),
        ("range(3)", "[0, 1, 2]"),
        ("generate_series(5, 1, -2)", "[5, 3, 1]"),
        ("range(DATE '2026-01-01', DATE '2026-04-01', INTERVAL '1 month')", "[2026-01-01, 2026-02-01, 2026-03-01]"),
        ("replace(genre, 'z', 'ss')", "jassss"),
        ("regexp_replace(genre, '(z)', '<\\1>', 'g')", "ja<z><z>"),
        ("concat_ws('-', genre, NULL, amount)", "jazz-0"),
        ("NULL || genre", "null"),
        ("[genre, 'x'] || ['y']", "[jazz, x, y]"),
        ("[1, 2, 3] @> [2]", "true"),
        ("levenshtein(genre, 'jaws')", "2"),
        ("to_char(ts, '%d.%m.%Y')", "01.01.1970"),
        ("array_to_string([1, NULL, 2], '-', '?')", "1-?-2"),
        ("MAP {'a': 1}", "{a: 1}"),
    ] {
        let rows = table(&lake, &format!("SELECT {text} FROM listens ORDER BY ts LIMIT 1")).await;
        assert_eq!(rows, [answer], "{text}");
    }
    let named = sql(&lake, "SELECT genre || 'x' FROM listens", vec![]).await.unwrap();
    assert!(named.schema.field(0).name().starts_with("listens.genre || "), "{}", named.schema.field(0).name());
    let many = table(&lake, "SELECT count(*), max(length(repeat('ab', value))) FROM generate_series(1, 10000)").await;
    assert_eq!(many, ["10000|20000"], "done in pieces");
    let large = "SELECT length(concat(repeat('x', 100000), value)) AS n FROM generate_series(1, 2000)";
    assert_eq!(table(&lake, &format!("SELECT count(*), min(n), max(n) FROM ({large})")).await, ["2000|100001|100004"]);
    lake.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_does_not_settle_is_read_from_the_log() {
    let bench = Bench::new(2).await;
    let table_of = |settled: &Table| Table {
        name: settled.name.clone(),
        topic: settled.topic.clone(),
        dir: settled.dir.clone(),
        layout: settled.layout.clone(),
        decode: settled.decode.clone(),
        settles: None,
    };
    let lake = bench.lake_of(vec![std::sync::Arc::new(table_of(&bench.table()))], None).await.unwrap();
    bench.append(0, &[value(0, json!("a"), 1), value(0, json!("b"), 2)]).await;
    assert_eq!(table(&lake, "SELECT sum(amount) FROM listens").await, ["3"]);
    assert_eq!(lake.flush(TOPIC).await.unwrap_err().kind, LakeErrorKind::NotFound);
    assert!(lake.status().tables.is_empty());
    lake.stop().await.unwrap();
}
