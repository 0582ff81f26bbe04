//! Whole runs over a real broker: each row once, whatever happens to the file or to the process.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use broker::{Clock, NewTopic, Record};

use super::*;
use crate::CheckConfig;
use crate::tests::{header, open_broker, open_broker_at, records};

fn column(name: &str, sql_type: &str) -> SourceColumn {
    SourceColumn { name: name.into(), sql_type: sql_type.into(), required: true, ..SourceColumn::default() }
}

/// Source `files` over topic `rows`: id, name; ten rows a commit.
fn source(path: &Path) -> SourceConfig {
    SourceConfig {
        name: "files".into(),
        topic: "rows".into(),
        path: path.display().to_string(),
        columns: vec![column("id", "BIGINT"), column("name", "VARCHAR")],
        checks: vec![CheckConfig { name: "id_positive".into(), sql: "id > 0".into(), ..CheckConfig::default() }],
        key: Some("id".into()),
        unique: vec!["id".into()],
        pace: Pace { batch_records: 10, retries: 1, ..Pace::default() },
        ..SourceConfig::default()
    }
}

fn rows(ids: std::ops::Range<i64>) -> String {
    ids.map(|id| format!("{id},\"name, of {id}\"\n")).collect()
}

async fn ids(broker: &Broker) -> Vec<i64> {
    let id = |(_, record): (i32, Record)| {
        let value: serde_json::Value = serde_json::from_slice(&record.value.unwrap()).unwrap();
        assert_eq!(value["name"], format!("name, of {}", value["id"]));
        value["id"].as_i64().unwrap()
    };
    let mut ids: Vec<i64> = records(broker, "rows").await.into_iter().map(id).collect();
    ids.sort_unstable();
    ids
}

async fn start(broker: &Arc<Broker>, config: SourceConfig) -> Arc<Sources> {
    Sources::start(broker.clone(), vec![config]).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_content_is_loaded_once_under_any_name() {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("in");
    fs::create_dir(&input).unwrap();
    fs::write(input.join("a.csv"), format!("id,name\n{}0,\"name, of 0\"\nx,y\n1,again\n", rows(1..26))).unwrap();
    let broker = open_broker(&dir.path().join("data")).await;
    let config = NewTopic { name: "rows".into(), partitions: 3, config: BTreeMap::new() };
    broker.catalog().create(config).await.unwrap();
    let sources = start(&broker, source(&input)).await;
    let report = sources.run("files").await.unwrap();
    assert_eq!((report.rows, report.published, report.skipped, report.rejected), (28, 25, 1, 2));
    assert_eq!(report.rejected_by_rule, BTreeMap::from([("id_positive".into(), 1), ("type".into(), 1)]));
    assert_eq!(ids(&broker).await, (1..26).collect::<Vec<_>>());
    let refused = records(&broker, "files.rejected").await;
    let told: Vec<_> = refused
        .iter()
        .map(|(_, record)| (header(record, "line"), header(record, "rule"), header(record, "file")))
        .collect();
    let told: Vec<_> = told.iter().map(|(line, rule, file)| (line.as_str(), rule.as_str(), file.as_str())).collect();
    assert_eq!(told, [("27", "id_positive", "a.csv"), ("28", "type", "a.csv")]);
    assert_eq!(refused[1].1.value.as_deref(), Some(&b"x,y"[..]));

    // Again, touched, and under another name: nothing more.
    let bytes = fs::read(input.join("a.csv")).unwrap();
    for name in ["a.csv", "b.csv"] {
        fs::write(input.join(name), &bytes).unwrap();
        let report = sources.run("files").await.unwrap();
        assert_eq!((report.state, report.rows), (RunState::Done, 0), "{name}");
    }
    // Grown: only what is new. Other content: rows that are known are skipped.
    let mut grown = fs::OpenOptions::new().append(true).open(input.join("a.csv")).unwrap();
    grown.write_all(rows(26..30).as_bytes()).unwrap();
    fs::write(input.join("c.csv"), format!("name,id\n{}", "\"name, of 30\",30\n\"name, of 7\",7\n")).unwrap();
    let report = sources.run("files").await.unwrap();
    assert_eq!((report.rows, report.published, report.skipped, report.files_known), (6, 5, 1, 1));
    assert_eq!(ids(&broker).await, (1..31).collect::<Vec<_>>());
    let status = sources.status_of("files").unwrap();
    assert_eq!((status.rows, status.published, status.skipped, status.rejected), (34, 30, 2, 2));
    assert_eq!((status.runs.len(), status.state.as_str()), (4, "idle"));
    // The same, by rule, where the rules of streams are counted.
    let mut counted: BTreeMap<(&str, String), u64> = BTreeMap::new();
    for count in crate::quality::read(&broker, |_| None).unwrap() {
        assert_eq!(count.stream, "files");
        *counted.entry((count.action.word(), count.rule)).or_default() += count.records;
    }
    let expected =
        [("accept", "accepted", 30), ("reject", "id_positive", 1), ("reject", "type", 1), ("skip", "duplicate", 2)];
    assert_eq!(counted, expected.map(|(action, rule, records)| ((action, rule.to_owned()), records)).into());
    sources.stop().await;
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_is_stopped_goes_on_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.csv");
    fs::write(&file, format!("id,name\n{}", rows(1..501))).unwrap();
    let mut config = source(&file);
    config.pace.delay_ms = 5;
    for stops in 0.. {
        let broker = open_broker(&dir.path().join("data")).await;
        let sources = start(&broker, config.clone()).await;
        if stops == 0 {
            drop(sources.begin("files").await.unwrap());
            assert_eq!(sources.begin("files").await.err().unwrap().kind, ErrorKind::Conflict);
        }
        tokio::time::sleep(Duration::from_millis(80)).await;
        sources.stop().await;
        let found = ids(&broker).await;
        assert_eq!(found, (1..=found.len() as i64).collect::<Vec<_>>());
        let status = sources.status_of("files").unwrap();
        broker.stop().await.unwrap();
        if found.len() == 500 {
            assert!(stops > 0, "the first run was to be stopped");
            assert_eq!((status.rows, status.published), (500, 500));
            assert_eq!(status.runs.iter().map(|run| run.published).sum::<u64>(), 500);
            break;
        }
        assert_eq!(status.runs[0].state, RunState::Stopped);
        assert!(stops < 100, "no progress: {}", found.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_tried_again_and_told() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.csv");
    let broker = open_broker(&dir.path().join("data")).await;
    let sources = start(&broker, source(&file)).await;
    let report = sources.run("files").await.unwrap();
    assert_eq!((report.state, report.retries), (RunState::Failed, 1));
    assert!(report.error.unwrap().contains("a.csv: "));
    fs::write(&file, "id,nome\n1,x\n").unwrap();
    let report = sources.run("files").await.unwrap();
    assert!(report.error.unwrap().contains("the file has no field 'name', did you mean 'nome'?"));
    assert_eq!(sources.status_of("files").unwrap().state, "failed");
    assert_eq!(sources.run("file").await.unwrap_err().kind, ErrorKind::Unknown);
    fs::write(&file, "id,name\n1,\"name, of 1\"\n").unwrap();
    assert_eq!(sources.run("files").await.unwrap().state, RunState::Done);
    assert_eq!(ids(&broker).await, [1]);
    sources.stop().await;
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_holds_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.csv");
    fs::write(&file, format!("id,name\n{}", rows(1..101))).unwrap();
    let config = SourceConfig { when: When::Once, ..source(&file) };
    let broker = open_broker(&dir.path().join("data")).await;
    let sources = start(&broker, SourceConfig { when: When::Demand, ..config.clone() }).await;
    sources.pause("files", true).await.unwrap();
    assert_eq!(sources.begin("files").await.err().unwrap().kind, ErrorKind::Conflict);
    sources.stop().await;
    let sources = start(&broker, config).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(ids(&broker).await.len(), 0);
    assert_eq!(sources.status_of("files").unwrap().state, "paused");
    sources.pause("files", false).await.unwrap();
    for _ in 0..200 {
        if sources.status_of("files").unwrap().runs.first().is_some_and(|run| run.state == RunState::Done) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(ids(&broker).await.len(), 100);
    sources.stop().await;
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_that_passed_while_the_server_was_away_is_made_up_for() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.csv");
    fs::write(&file, "id,name\n1,\"name, of 1\"\n").unwrap();
    let clock = broker::Clock::manual(1_795_176_000_000); // 2026-11-20T12:00:00Z
    let config = SourceConfig { when: When::Schedule("0 6 * * *".into(), "UTC".into()), ..source(&file) };
    for (days, runs, next_day) in [(0, 0, 21), (1, 1, 22), (0, 1, 22), (3, 2, 25)] {
        clock.advance(days * 86_400_000);
        let broker = crate::tests::open_broker_at(&dir.path().join("data"), clock.clone()).await;
        let sources = start(&broker, config.clone()).await;
        if (days, runs) == (1, 1) {
            // Without a run before there is nothing to go by.
            assert_eq!(sources.status_of("files").unwrap().runs.len(), 0);
            sources.run("files").await.unwrap();
        }
        for _ in 0..300 {
            if sources.status_of("files").unwrap().runs.len() == runs {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        sources.stop().await;
        let status = sources.status_of("files").unwrap();
        assert_eq!(status.runs.len(), runs, "after {days} days");
        let wanted = format!("2026-11-{next_day}T06:00:00");
        let next = chrono::DateTime::from_timestamp_millis(status.next_ms.unwrap()).unwrap();
        assert_eq!(next.format("%Y-%m-%dT%H:%M:%S").to_string(), wanted);
        broker.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watched_folder_is_read_as_files_come_and_grow() {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("in");
    fs::create_dir(&input).unwrap();
    let broker = open_broker_at(&dir.path().join("data"), Clock::system()).await;
    let sources = start(&broker, SourceConfig { when: When::Watch(20), ..source(&input) }).await;
    let wait = async |count: usize| {
        for _ in 0..300 {
            if ids(&broker).await.len() >= count {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(ids(&broker).await.len(), count);
    };
    fs::write(input.join("a.csv"), format!("id,name\n{}", rows(1..31))).unwrap();
    wait(30).await;
    let mut grown = fs::OpenOptions::new().append(true).open(input.join("a.csv")).unwrap();
    grown.write_all(rows(31..33).as_bytes()).unwrap();
    wait(32).await;
    sources.stop().await;
    broker.stop().await.unwrap();
}

/// Whatever the clock of who writes it says, a file is read once nobody writes to it any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_being_written_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("in");
    fs::create_dir(&input).unwrap();
    let broker = open_broker_at(&dir.path().join("data"), Clock::system()).await;
    let sources = start(&broker, SourceConfig { when: When::Watch(20), ..source(&input) }).await;
    let text = format!("id,name\n{}", rows(1..101));
    let mut file = fs::File::create(input.join("a.csv")).unwrap();
    let ahead = file.metadata().unwrap().modified().unwrap() + Duration::from_secs(3_600);
    for piece in text.as_bytes().chunks(text.len() / 10 + 3) {
        file.write_all(piece).unwrap();
        file.set_modified(ahead).unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    for _ in 0..300 {
        if ids(&broker).await.len() >= 100 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(ids(&broker).await, (1..101).collect::<Vec<_>>());
    let status = sources.status_of("files").unwrap();
    assert_eq!((status.runs.len(), status.rejected), (1, 0));
    sources.stop().await;
    broker.stop().await.unwrap();
}
