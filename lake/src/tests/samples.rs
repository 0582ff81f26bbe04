//! Sample files: the same description gives the same bytes, and what is wrong is told.

use std::collections::BTreeMap;
use std::path::Path;

use crate::LakeErrorKind;
use crate::samples::{SampleFile, Samples, Written};

fn samples(sql: &str) -> Samples {
    Samples {
        seed: 7,
        today: "2026-11-20".into(),
        given: BTreeMap::from([("people".to_owned(), 1_000)]),
        tables: vec![(
            "people".into(),
            "SELECT unnest(range(1, people + 1)) AS id, draw('x') AS x FROM given UNION ALL SELECT 0, draw_normal(1)"
                .into(),
        )],
        files: vec![SampleFile { path: "a.csv".into(), header: Some("id".into()), sql: sql.into() }],
    }
}

async fn written(samples: &Samples) -> (Vec<Written>, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let files = samples.write(folder.path()).await.unwrap();
    let texts = files.iter().map(|file| std::fs::read_to_string(folder.path().join(&file.path)).unwrap()).collect();
    (files, texts)
}

#[tokio::test]
async fn the_same_seed_gives_the_same_bytes() {
    let mut plan =
        samples("SELECT id || ',' || draw('a', id) || ',' || draw_normal('a', id) AS line FROM people ORDER BY id");
    let (files, texts) = written(&plan).await;
    assert_eq!(files, [Written { path: "a.csv".into(), lines: 1_001 }]);
    assert!(texts[0].starts_with("id\n0,") && texts[0].lines().count() == 1_002);
    assert_eq!(texts, written(&plan).await.1);
    plan.seed = 8;
    assert_ne!(texts, written(&plan).await.1);
}

#[tokio::test]
async fn draws_are_even_and_bell_shaped() {
    let plan = samples(
        "SELECT 500 < count(*) FILTER (WHERE draw('a', id) > 0.4) AND min(draw('a', id)) < 0.02 AND max(draw('a', id)) BETWEEN 0.98 AND 1
                AND abs(avg(draw_normal(id))) < 0.1 AND abs(stddev(draw_normal(id)) - 1) < 0.1 AND count(DISTINCT draw('a', id)) = 1001 AS line
         FROM people",
    );
    assert_eq!(written(&plan).await.1, ["id\ntrue\n"]);
}

#[tokio::test]
async fn rows_name_their_files() {
    let plan = samples("SELECT 'f/' || (id % 2) || '.csv' AS file, id AS line FROM people WHERE id < 5 ORDER BY id");
    let (files, texts) = written(&plan).await;
    assert_eq!(
        files.iter().map(|file| (file.path.as_str(), file.lines)).collect::<Vec<_>>(),
        [("f/0.csv", 3), ("f/1.csv", 2)]
    );
    assert_eq!(texts, ["id\n0\n2\n4\n", "id\n1\n3\n"]);
}

#[tokio::test]
async fn what_is_wrong_is_told() {
    for (sql, reason) in [
        ("SELECT nothing AS line FROM people", "No field named nothing"),
        ("SELECT id FROM people", "must give a column line"),
        ("SELECT '../up' AS file, id AS line FROM people", "not a path below the folder"),
        ("SELECT id || '.csv' AS file, id AS line FROM people", "more than 256 files"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let error = samples(sql).write(folder.path()).await.unwrap_err();
        assert!(error.kind == LakeErrorKind::Refused && error.message.contains(reason), "{sql}: {error}");
        assert!(!Path::new(&folder.path().join("a.csv")).exists(), "{sql}: nothing half-written is seen");
    }
    let mut wrong_day = samples("SELECT 1 AS line");
    wrong_day.today = "20 November".into();
    let error = wrong_day.write(Path::new("/nowhere")).await.unwrap_err();
    assert!(error.message.contains("is not a day"), "{error}");
}
