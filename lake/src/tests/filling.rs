//! Views that changed in their file, while what they are filled from cannot be read: queries, transforms and filters that fit the former
//! versions go on with them, others wait for the declared ones, whose names and columns are checked from the start.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use broker::{Ack, Broker, Change};
use engine::{Engine, EngineConfig, HistorySlot, ViewConfig};

use super::support::{lines, sql, table};
use super::with_engine::{Running, pipeline, play, produce, running_with};
use crate::config::{LakeConfig, TableConfig, TransformConfig, TransformMode};
use crate::error::LakeErrorKind::{Config, Filling, Refused};
use crate::lake::Lake;
use crate::query::SqlRequest;
use crate::reader::{Reader, RowFilter};

const FORMER: [&str; 2] = [
    "CREATE MATERIALIZED VIEW by_genre AS SELECT genre, count(*) AS plays FROM plays GROUP BY genre",
    "CREATE MATERIALIZED VIEW by_paid AS SELECT paid, count(*) AS plays, max(user_id) AS hidden FROM plays GROUP BY paid",
];
/// One has a column more, the other one less.
const DECLARED: [&str; 2] = [
    "CREATE MATERIALIZED VIEW by_genre AS SELECT genre, max(user_id) AS newest, count(*) AS plays FROM plays GROUP BY genre",
    "CREATE MATERIALIZED VIEW by_paid AS SELECT paid, count(*) AS plays FROM plays GROUP BY paid",
];

fn with_views(views: [&str; 2]) -> EngineConfig {
    let view = |sql: &str| ViewConfig { sql: sql.into(), ..ViewConfig::default() };
    EngineConfig { views: views.map(view).to_vec(), ..pipeline() }
}

fn lake_config(transforms: &[(&str, &str)]) -> LakeConfig {
    let transform = |(name, sql): &(&str, &str)| TransformConfig {
        name: (*name).into(),
        zone: "curated".into(),
        slice: Vec::new(),
        sort: Vec::new(),
        mode: TransformMode::Replace,
        key: Vec::new(),
        sql: (*sql).into(),
    };
    let transforms = transforms.iter().map(transform).collect();
    LakeConfig { tables: vec![TableConfig::of("music.plays")], transforms, ..LakeConfig::default() }
}

/// Both views with a hundred plays, all of which are in files alone.
async fn trimmed() -> Running {
    let running = running_with(with_views(FORMER)).await;
    let Running { broker, engine, .. } = &running;
    let lake = Lake::start(broker.clone(), engine.clone(), lake_config(&[])).await.unwrap();
    produce(broker, &(0..100).map(|user| play("jazz", user)).collect::<Vec<_>>()).await;
    lake.flush("music.plays").await.unwrap();
    assert_eq!(table(&lake, "SELECT * FROM by_genre").await, ["jazz|100"]);
    assert_eq!(table(&lake, "SELECT * FROM by_paid ORDER BY paid").await, ["false|50|99", "true|50|98"]);
    lake.stop().await.unwrap();
    engine.stop().await;
    let partition = broker.catalog().topic("music.plays").unwrap().partition(0).unwrap();
    broker.lane().commit(vec![Change::LogStart(partition, 100)], Ack::Durable).await.unwrap();
    running
}

async fn start(broker: &Arc<Broker>, transforms: &[(&str, &str)]) -> (Arc<Engine>, crate::Result<Arc<Lake>>) {
    let declared = with_views(DECLARED);
    let engine = Engine::start_with(broker.clone(), declared, HistorySlot::awaited()).await.unwrap();
    let lake = Lake::start(broker.clone(), engine.clone(), lake_config(transforms)).await;
    (engine, lake)
}

/// Who reads both views by a filter each.
fn reader(condition: &str, masked: &[&str]) -> Arc<Reader> {
    let masked = masked.iter().map(|name| (*name).to_owned()).collect();
    let filter = RowFilter { condition: Some(condition.into()), masked };
    let plain = RowFilter { condition: Some("plays > 0".into()), masked: Vec::new() };
    let filters = BTreeMap::from([("by_genre".to_owned(), filter), ("by_paid".to_owned(), plain)]);
    Arc::new(Reader { name: "t".into(), names: vec!["*".into()], filters, tainted: BTreeMap::new() })
}

const NEWEST: &str = "SELECT genre, newest FROM by_genre";
const TRANSFORMS: [(&str, &str); 3] =
    [("newest", NEWEST), ("whole", "SELECT * FROM by_genre"), ("counts", "SELECT genre, plays FROM by_genre")];

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_the_declared_columns_waits_and_the_rest_goes_on() {
    let Running { _dir, broker, .. } = trimmed().await;
    let files = broker.config().data_dir.join("lake/music.plays");
    let away = broker.config().data_dir.join("away");
    std::fs::rename(&files, &away).unwrap();
    let (engine, lake) = start(&broker, &TRANSFORMS).await;
    let lake = lake.unwrap();
    for (asked, kind, says) in [
        (NEWEST, Filling, "view by_genre is being filled: 100 offsets left"),
        ("SELECT a.newest, b.plays FROM by_genre a, by_paid b", Filling, "100 offsets left"),
        ("SELECT nothing FROM by_genre", Refused, "nothing"),
        ("SELECT newest, hidden FROM by_genre, by_paid", Refused, "newest"),
    ] {
        let error = sql(&lake, asked, vec![]).await.unwrap_err();
        assert!(error.kind == kind && error.message.contains(says), "{asked}: {error}");
    }
    assert_eq!(table(&lake, "SELECT * FROM by_genre").await, ["jazz|100"]);
    assert_eq!(table(&lake, "SELECT hidden FROM by_paid ORDER BY 1").await, ["98", "99"]);
    for (name, waits) in [("newest", true), ("whole", true), ("counts", false)] {
        match lake.transform(name, &BTreeMap::new()).await {
            Ok(report) => assert!(!waits && report.rows == 1, "{name}"),
            Err(error) => assert!(waits && error.kind == Filling, "{name}: {error}"),
        }
    }
    let read = async |condition: &str, masked: &[&str], asked: &str| {
        let reader = Some(reader(condition, masked));
        lake.sql(SqlRequest { sql: asked.into(), row_limit: 10, reader, ..SqlRequest::default() }).await
    };
    let plays = "SELECT plays FROM by_genre";
    assert_eq!(lines(&read("genre = 'jazz'", &[], plays).await.unwrap()), ["100"]);
    assert_eq!(lines(&read("genre = 'pop'", &[], plays).await.unwrap()), [""; 0]);
    // Written for the declared columns: one does not fit the former version, the other does not know all that it would show.
    for (condition, masked, asked) in [
        ("newest > 5", &[][..], plays),
        ("genre = 'jazz'", &["newest"][..], plays),
        ("true", &[][..], "SELECT plays FROM by_paid"),
    ] {
        let error = read(condition, masked, asked).await.unwrap_err();
        assert!(error.kind == Filling && error.message.contains("the token's filter"), "{condition}: {error}");
    }
    let columns = lake.columns("by_genre").unwrap();
    assert!(columns.field_with_name("newest").is_ok() && lake.columns("by_paid").unwrap().fields().len() == 2);
    std::fs::rename(&away, &files).unwrap();
    for _ in 0..1_000 {
        if engine.filling("by_genre").or(engine.filling("by_paid")).is_none() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(table(&lake, NEWEST).await, ["jazz|99"]);
    assert_eq!(
        lines(&read("newest > 5", &["newest"], "SELECT newest, plays FROM by_genre").await.unwrap()),
        ["null|100"]
    );
    assert_eq!(lines(&read("true", &[], "SELECT * FROM by_paid WHERE paid").await.unwrap()), ["true|50"]);
    for (name, _) in TRANSFORMS {
        assert_eq!(lake.transform(name, &BTreeMap::new()).await.unwrap().rows, 1, "{name}");
    }
    assert_eq!(table(&lake, "SELECT newest FROM whole").await, ["99"]);
    lake.stop().await.unwrap();
    engine.stop().await;
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transform_is_checked_by_the_columns_that_are_declared() {
    let Running { _dir, broker, .. } = trimmed().await;
    let files = broker.config().data_dir.join("lake/music.plays");
    std::fs::rename(&files, broker.config().data_dir.join("away")).unwrap();
    let (engine, lake) = start(&broker, &[("hidden", "SELECT hidden FROM by_paid")]).await;
    let error = lake.err().unwrap();
    assert!(error.kind == Config && error.message.contains("hidden"), "{error}");
    engine.stop().await;
    broker.stop().await.unwrap();
}
