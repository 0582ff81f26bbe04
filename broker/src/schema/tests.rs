use std::sync::Arc;

use super::*;
use crate::{BrokerConfig, Change, Clock, Durability, Error};

fn new(kind: SchemaType, text: &str) -> NewSchema {
    NewSchema { kind, text: text.into(), references: Vec::new() }
}

fn at(subject: &str) -> Registration {
    Registration { subject: subject.into(), ..Registration::default() }
}

/// Applies what a rule gives.
fn done<T>(state: &mut SchemaState, decided: Result<(Vec<SchemaRecord>, T), SchemaFault>) -> Result<T, SchemaFault> {
    let (records, answer) = decided?;
    records.iter().for_each(|record| state.apply(record));
    Ok(answer)
}

fn register(state: &mut SchemaState, subject: &str, text: &str) -> (u32, u32) {
    let decided = state.register(&at(subject), new(SchemaType::Avro, text));
    let version = done(state, decided).unwrap();
    (version.id, version.version)
}

fn delete(
    state: &mut SchemaState,
    subject: &str,
    version: Option<u32>,
    permanent: bool,
) -> Result<Vec<u32>, SchemaFault> {
    let decided = state.delete(subject, Deletion { version, permanent });
    done(state, decided)
}

type Result<T, E> = std::result::Result<T, E>;

#[test]
fn one_schema_has_one_id_wherever_and_however_it_is_written() {
    let mut state = SchemaState::default();
    let record = r#"{"type":"record","name":"A","fields":[{"name":"x","type":"string"}]}"#;
    assert_eq!(register(&mut state, "a", record), (1, 1));
    assert_eq!(register(&mut state, "a", record), (1, 1));
    let same = r#"{ "name": "A", "type": "record", "fields": [ {"type": {"type": "string"}, "name": "x"} ] }"#;
    assert_eq!(register(&mut state, "b", same), (1, 1));
    let documented = r#"{"type":"record","name":"A","doc":"d","fields":[{"name":"x","type":"string"}]}"#;
    assert_eq!(register(&mut state, "a", documented), (2, 2));
    let default =
        |text: &str| format!(r#"{{"type":"record","name":"A","fields":[{{"name":"x","type":"B","default":{text}}}]}}"#);
    assert_ne!(
        register(&mut state, "c", &default(r#"{"type":"s"}"#)).0,
        register(&mut state, "c", &default("\"s\"")).0
    );
    let json = done(&mut SchemaState::default(), state.register(&at("a"), new(SchemaType::Json, record)));
    assert_eq!(json.unwrap().id, state.max_id() + 1, "another language is another schema");
}

#[test]
fn what_is_deleted_goes_in_two_steps_and_its_id_stays() {
    let mut state = SchemaState::default();
    assert_eq!(register(&mut state, "s", "\"int\""), (1, 1));
    assert_eq!(register(&mut state, "s", "\"long\""), (2, 2));
    assert_eq!(delete(&mut state, "t", None, false), Err(SchemaFault::SubjectNotFound("t".into())));
    assert_eq!(delete(&mut state, "s", Some(9), false), Err(SchemaFault::VersionNotFound(9)));
    assert_eq!(delete(&mut state, "s", Some(1), true), Err(SchemaFault::VersionNotDeleted("s".into(), 1)));
    assert_eq!(delete(&mut state, "s", Some(1), false), Ok(vec![1]));
    assert_eq!(delete(&mut state, "s", Some(1), false), Err(SchemaFault::VersionDeleted("s".into(), 1)));
    assert_eq!(state.versions("s", false).len(), 1);
    assert_eq!(register(&mut state, "s", "\"int\""), (1, 3), "the same id again, under the next version");
    assert_eq!(delete(&mut state, "s", None, true), Err(SchemaFault::SubjectNotDeleted("s".into())));
    assert_eq!(delete(&mut state, "s", None, false), Ok(vec![2, 3]));
    assert_eq!(delete(&mut state, "s", None, false), Err(SchemaFault::SubjectDeleted("s".into())));
    assert_eq!(delete(&mut state, "s", None, true), Ok(vec![1, 2, 3]));
    assert_eq!(state.subjects().count(), 0);
    assert!(state.schema(1).is_some(), "records of the topic still carry it");
    assert_eq!(register(&mut state, "s", "\"string\""), (3, 1));
}

#[test]
fn modes_and_references_hold_what_they_say() {
    let mut state = SchemaState::default();
    register(&mut state, "base", "\"int\"");
    let reference = Reference { name: "B".into(), subject: "base".into(), version: 1 };
    let user = NewSchema { references: vec![reference.clone()], ..new(SchemaType::Avro, "\"long\"") };
    let decided = state.register(&at("user"), user);
    done(&mut state, decided).unwrap();
    assert_eq!(state.referencing("base", 1), [2]);
    assert_eq!(state.referred(&[reference])[0].1.id, 1);
    assert_eq!(delete(&mut state, "base", None, false), Err(SchemaFault::ReferenceExists("base".into(), 1)));
    assert_eq!(delete(&mut state, "user", None, false), Ok(vec![1]));
    assert_eq!(delete(&mut state, "user", None, true), Ok(vec![1]));
    assert_eq!(delete(&mut state, "base", None, false), Ok(vec![1]));
    let kept = Err(SchemaFault::ReferenceExists("base".into(), 1));
    assert_eq!(delete(&mut state, "base", None, true), kept, "records written with the user of it need it");
    let import = Registration { id: Some(77), version: Some(5), ..at("x") };
    assert!(matches!(state.admits(&import), Err(SchemaFault::NotPermitted(_))));
    register(&mut state, "other", "\"int\"");
    assert!(matches!(state.set_mode("", Some(RegistryMode::Import), false), Err(SchemaFault::NotPermitted(_))));
    let records = state.set_mode("x", Some(RegistryMode::Import), false).unwrap();
    records.iter().for_each(|record| state.apply(record));
    let decided = state.register(&import, new(SchemaType::Avro, "\"bytes\""));
    assert_eq!(done(&mut state, decided).unwrap(), SchemaVersion { version: 5, id: 77, deleted: false });
    let unnumbered = state.register(&at("x"), new(SchemaType::Avro, "\"double\""));
    assert!(matches!(unnumbered, Err(SchemaFault::NotPermitted(_))), "an import brings its ids");
    assert_eq!(register(&mut state, "x", "\"bytes\""), (77, 5), "what is there is found");
    let taken = Registration { id: Some(77), ..at("x") };
    assert_eq!(state.register(&taken, new(SchemaType::Avro, "\"float\"")).unwrap_err(), SchemaFault::IdTaken(77));
    let records = state.set_mode("", Some(RegistryMode::ReadonlyOverride), false).unwrap();
    records.iter().for_each(|record| state.apply(record));
    assert!(matches!(state.admits(&at("x")), Err(SchemaFault::NotPermitted(_))));
    assert_eq!(
        register(&mut state, "other", "\"int\""),
        (1, 1),
        "what is there is found, also where nothing is let in"
    );
    for bad in ["", "__GLOBAL", "a\nb", &"x".repeat(1025)] {
        assert!(matches!(SchemaState::default().admits(&at(bad)), Err(SchemaFault::InvalidSubject(_))), "{bad:?}");
    }
}

/// The stored bytes, drawn once more: old stores hold them.
#[test]
fn golden_bytes() {
    let schema = Schema { id: 258, kind: SchemaType::Avro, text: "\"int\"".into(), references: Vec::new() };
    let version = SchemaVersion { version: 2, id: 258, deleted: true };
    let settings = Settings { compatibility: Some(Compatibility::FullTransitive), mode: None };
    let cases: [(SchemaRecord, &[u8], &[u8]); 3] = [
        (
            SchemaRecord::Schema(Arc::new(schema)),
            b"schema-text\0\0\x01\x02",
            br#"{"v":1,"type":"AVRO","schema":"\"int\"","references":[]}"#,
        ),
        (SchemaRecord::Version("s".into(), version), b"schema-versions\0\0\0\0\x02", b"\0\0\x01\x02\x01"),
        (
            SchemaRecord::Settings("s".into(), settings),
            b"schema-settingss",
            br#"{"v":1,"compatibility":"FULL_TRANSITIVE"}"#,
        ),
    ];
    for (record, wanted_key, wanted_value) in cases {
        let Change::Put(_, key, value) = record.change().unwrap() else { panic!("{record:?} is not a put") };
        assert_eq!((key.as_slice(), value.as_slice()), (wanted_key, wanted_value), "{record:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_finds_everything_again() {
    let dir = tempfile::tempdir().unwrap();
    let config = || BrokerConfig {
        data_dir: dir.path().to_path_buf(),
        listeners: Vec::new(),
        durability: Durability::Os,
        ..BrokerConfig::default()
    };
    let broker = crate::Broker::open(config(), Clock::manual(0)).await.unwrap();
    let schemas = broker.schemas();
    let fault = |fault: SchemaFault| Error::new(crate::Kind::Bug, format!("{fault:?}"));
    for (subject, text) in [("a", "\"int\""), ("a-b", "\"long\""), ("a", "\"string\"")] {
        let register = |state: &SchemaState| state.register(&at(subject), new(SchemaType::Avro, text)).map_err(fault);
        schemas.change(register).await.unwrap();
    }
    let forget = Deletion { version: Some(1), permanent: false };
    schemas.change(|state| state.delete("a", forget).map_err(fault)).await.unwrap();
    let set =
        |state: &SchemaState| Ok::<_, Error>((state.set_compatibility("", Some(Compatibility::Full)).unwrap(), ()));
    schemas.change(set).await.unwrap();
    broker.stop().await.unwrap();
    drop(broker);
    let broker = crate::Broker::open(config(), Clock::manual(0)).await.unwrap();
    broker.schemas().read(|state| {
        assert_eq!(state.versions("a", false), [SchemaVersion { version: 2, id: 3, deleted: false }]);
        assert_eq!((state.versions("a", true).len(), state.versions("a-b", true).len(), state.max_id()), (2, 1, 3));
        assert_eq!(state.compatibility("a"), Compatibility::Full);
        assert_eq!(state.schema(2).unwrap().text, "\"long\"");
    });
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_looks_for_long_holds_up_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let config = BrokerConfig { data_dir: dir.path().to_path_buf(), ..BrokerConfig::default() };
    let broker = crate::Broker::open(config, Clock::manual(0)).await.unwrap();
    let schemas = broker.schemas().clone();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let (begin, begun) = std::sync::mpsc::channel();
    let looking = std::thread::spawn(move || {
        schemas.read(|state| {
            begin.send(()).unwrap();
            let _ = ended.recv();
            state.max_id()
        })
    });
    begun.recv().unwrap();
    let fault = |fault: SchemaFault| Error::new(crate::Kind::Bug, format!("{fault:?}"));
    let register = |state: &SchemaState| state.register(&at("a"), new(SchemaType::Avro, "\"int\"")).map_err(fault);
    let changed = tokio::time::timeout(std::time::Duration::from_secs(5), broker.schemas().change(register)).await;
    drop(end);
    assert!(changed.is_ok(), "the change waits for the reader");
    assert_eq!(looking.join().unwrap(), 0, "the reader saw the state as it was");
    assert!(broker.schemas().schema(1).is_some());
    broker.stop().await.unwrap();
}
