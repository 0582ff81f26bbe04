//! What queries read is counted, and what a reader may not see is not read to him.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;

use super::support::*;
use crate::error::LakeErrorKind;
use crate::lake::Lake;
use crate::meter::Scanned;
use crate::query::SqlRequest;
use crate::query_log::QueryKind;
use crate::reader::{Reader, RowFilter};

async fn scanned(lake: &Lake, sql: &str, reader: Option<Arc<Reader>>) -> Scanned {
    let request =
        SqlRequest { sql: sql.into(), row_limit: 10_000, reader, kind: QueryKind::Job, ..SqlRequest::default() };
    lake.sql(request).await.unwrap().scanned
}

/// A thousand rows of two days and two genres.
async fn filled(bench: &Bench, lake: &Lake) -> u64 {
    let genre = |n: i64| json!(if n % 2 == 0 { "jazz" } else { "pop" });
    for day in 0..2 {
        let rows: Vec<_> = (0..500).map(|n| value(day * DAY_MS + n, genre(n), n)).collect();
        bench.append(day as i32, &rows).await;
    }
    let topic = bench.broker.catalog().topic(TOPIC).unwrap();
    let bytes = topic.partitions().iter().map(|partition| partition.size_bytes()).sum();
    assert!(lake.stored().iter().any(|stored| stored.kind == "log" && stored.bytes == bytes && stored.rows == 1_000));
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_query_reads_is_counted() {
    let bench = Bench::new(2).await;
    let lake = bench.lake().await;
    let log_bytes = filled(&bench, &lake).await;
    let all = "SELECT * FROM listens";
    assert_eq!(scanned(&lake, all, None).await, Scanned { parquet_bytes: 0, log_bytes });
    assert_eq!(scanned(&lake, "SELECT 1", None).await, Scanned::default());
    lake.flush(TOPIC).await.unwrap();
    let whole = scanned(&lake, all, None).await;
    assert!(whole.log_bytes == 0 && whole.parquet_bytes > 0, "{whole:?}");
    let stored = lake.stored();
    let parquet = stored.iter().find(|stored| stored.kind == "parquet").unwrap();
    assert_eq!((parquet.name.as_str(), parquet.files, parquet.rows), (TOPIC, 4, 1_000));
    assert!(whole.parquet_bytes <= parquet.bytes, "{whole:?} of {parquet:?}");
    let column = scanned(&lake, "SELECT sum(amount) FROM listens", None).await.parquet_bytes;
    assert!(column > 0 && column < whole.parquet_bytes / 2, "one column of many: {column} of {whole:?}");
    let pruned = scanned(&lake, "SELECT * FROM listens WHERE date = '1970-01-01' AND genre = 'pop'", None).await;
    assert!(pruned.parquet_bytes * 3 < whole.parquet_bytes, "one file of four: {pruned:?} of {whole:?}");
    let twice = scanned(&lake, "SELECT * FROM listens UNION ALL SELECT * FROM listens", None).await;
    assert_eq!(twice.parquet_bytes, 2 * whole.parquet_bytes);

    let total = lake.query_log().totals()[&QueryKind::Job];
    assert_eq!((total.queries, total.scanned.log_bytes), (6, log_bytes));
    let log = table(&lake, "SELECT kind, rows, parquet_bytes > 0, error, sql FROM query_log ORDER BY at, sql").await;
    assert!(log.contains(&"job|1|true|null|SELECT sum(amount) FROM listens".to_owned()), "{log:?}");
    let failed = sql(&lake, "SELECT gnre FROM listens", vec![]).await.unwrap_err();
    assert_eq!(lake.query_log().recent()[0].error.as_deref(), Some(failed.message.as_str()));
    let costs =
        table(&lake, "SELECT item, kind, name, bytes FROM cost_estimate WHERE name = 'job' ORDER BY kind").await;
    let scanned = total.scanned;
    assert_eq!(
        costs,
        [format!("scanned|log|job|{}", scanned.log_bytes), format!("scanned|parquet|job|{}", scanned.parquet_bytes)]
    );
    let stored = table(&lake, "SELECT name, files, rows FROM stored_bytes WHERE kind = 'parquet'").await;
    assert_eq!(stored, ["listens|4|1000"]);
    lake.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_sees_its_part_and_what_it_reads_is_counted() {
    let bench = Bench::new(2).await;
    let lake = bench.lake().await;
    filled(&bench, &lake).await;
    let filter =
        RowFilter { condition: Some("genre = 'jazz' AND date >= '1970-01-02'".into()), masked: vec!["amount".into()] };
    let reader = Arc::new(Reader {
        name: "part".into(),
        names: vec!["*".into()],
        filters: BTreeMap::from([(TOPIC.to_owned(), filter)]),
        tainted: BTreeMap::new(),
    });
    let ask = async |sql: &str| {
        let reader = Some(reader.clone());
        lake.sql(SqlRequest { sql: sql.into(), row_limit: 10_000, reader, ..SqlRequest::default() }).await
    };
    for settled in [false, true] {
        if settled {
            lake.flush(TOPIC).await.unwrap();
        }
        let rows = async |sql: &str| lines(&ask(sql).await.unwrap());
        let counts = "SELECT count(*), count(amount), min(genre), max(genre), min(date) FROM listens";
        assert_eq!(rows(counts).await, ["250|0|jazz|jazz|1970-01-02"]);
        assert_eq!(rows("SELECT count(*) FROM listens WHERE amount = 3 OR genre = 'pop'").await, ["0"]);
        assert_eq!(rows("SELECT count(*) FROM listens WHERE date = '1970-01-01'").await, ["0"]);
        assert_eq!(rows("SELECT count(*) FROM listens WHERE _offset < 10").await, ["5"]);
        // an expression that fails on a hidden row does not tell of it
        assert_eq!(rows("SELECT count(1 / (CASE WHEN genre = 'pop' THEN 0 ELSE 1 END)) FROM listens").await, ["250"]);
        assert_eq!(
            rows("SELECT count(*) FROM listens WHERE 1 / (CASE WHEN genre = 'pop' THEN 0 ELSE 1 END) = 1").await,
            ["250"]
        );
        assert_eq!(rows("SELECT genre FROM listens LIMIT 300").await.len(), 250);
        assert_eq!(rows("SELECT 1 FROM listens").await.len(), 250);
        for refused in ["EXPLAIN SELECT * FROM listens", "EXPLAIN ANALYZE SELECT * FROM listens"] {
            assert_eq!(ask(refused).await.unwrap_err().kind, LakeErrorKind::Forbidden, "{refused}");
        }
    }
    let part = scanned(&lake, "SELECT * FROM listens", Some(reader.clone())).await;
    let whole = scanned(&lake, "SELECT * FROM listens", None).await;
    assert!(part.parquet_bytes > 0 && part.parquet_bytes * 3 < whole.parquet_bytes, "files are left out: {part:?}");
    assert_eq!(lake.query_log().recent()[1].reader.as_deref(), Some("part"));
    let none = Reader {
        names: vec!["x*".into()],
        ..Reader { name: "x".into(), names: vec![], filters: BTreeMap::new(), tainted: BTreeMap::new() }
    };
    let request = SqlRequest {
        sql: "SELECT * FROM listens".into(),
        row_limit: 1,
        reader: Some(Arc::new(none)),
        ..SqlRequest::default()
    };
    assert_eq!(lake.sql(request).await.unwrap_err().kind, LakeErrorKind::Forbidden);
    lake.stop().await.unwrap();
}
