use super::*;

fn load_texts(files: &[(&str, &str)]) -> Result<Loaded, Mistakes> {
    load(&Inputs { sources: files.iter().map(|(name, text)| Source::text(name, text)).collect(), ..Inputs::default() })
}

fn mistakes(text: &str) -> Vec<String> {
    let mistakes = load_texts(&[("a.toml", text)]).err().unwrap_or_default();
    mistakes.0.iter().map(|mistake| format!("{}: {}: {}", mistake.origin, mistake.path, mistake.message)).collect()
}

const STREAM: &str = r#"
[[streams]]
name = "listens"
topic = "listens"
event_time = "ts"
columns = [{ name = "ts", type = "TIMESTAMP", required = true }, { name = "genre", type = "VARCHAR" }]
"#;

#[test]
fn without_anything_the_defaults_hold() {
    let config = load(&Inputs::default()).unwrap().config;
    let broker = broker::BrokerConfig::default();
    let mut ours = config.broker.clone();
    assert_eq!(ours.listeners.len(), 1);
    ours.listeners = broker.listeners.clone();
    assert_eq!(format!("{ours:?}"), format!("{broker:?}"), "the table of settings and the broker's own defaults agree");
    assert_eq!(config.http.bind, "127.0.0.1:8080");
    assert_eq!(config.lake.url, "millpond-data/lake");
}

#[test]
fn the_manual_is_up_to_date() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/millpond.toml");
    let written = manual();
    if std::env::var_os("MILLPOND_TEST_BLESS").is_some() {
        std::fs::write(&path, &written).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(stored == written, "{} is out of date: run this test with MILLPOND_TEST_BLESS=1", path.display());
}

#[test]
fn the_manual_reads_as_the_defaults() {
    let plain = load(&Inputs::default()).unwrap().config;
    let from_manual = load_texts(&[("millpond.toml", &manual())]).unwrap().config;
    assert_eq!(format!("{plain:?}"), format!("{from_manual:?}"));
}

#[test]
fn the_examples_of_the_manual_are_valid() {
    let text = manual()
        .lines()
        .map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line).to_owned() + "\n")
        .collect::<String>();
    // a panel and a sink show view and sql, a schema shows schema and file, of which one is to be given
    let one_of = ["sql = \"SELECT", "file = \"schemas/", "view = \"plays_by_genre\""];
    let text = text
        .lines()
        .filter(|line| !one_of.iter().any(|start| line.starts_with(start)))
        .map(|line| line.to_owned() + "\n")
        .collect::<String>();
    if let Err(error) = load_texts(&[("millpond.toml", &text)]) {
        panic!("{error}\n{text}");
    }
}

#[test]
fn every_default_is_within_its_range() {
    fn walk(fields: &[schema::Field]) {
        for field in fields {
            if let schema::Absent::Default(text) = field.absent {
                value::parse_text(&field.kind, text).unwrap();
            }
            if let schema::Kind::Tables(fields) = field.kind {
                walk(fields);
            }
        }
    }
    settings::SECTIONS.iter().for_each(|section| walk(section.fields));
    let mut variables: Vec<String> = settings::scalars().map(|(scalar, _)| scalar.variable).collect();
    variables.sort();
    let count = variables.len();
    variables.dedup();
    assert_eq!(variables.len(), count, "two keys have one variable");
    for (path, _) in settings::FLAGS {
        assert!(settings::scalars().any(|(scalar, _)| format!("{}.{}", scalar.section, scalar.key) == path), "{path}");
    }
}

#[test]
fn all_mistakes_come_together_with_their_places() {
    let text = r#"
[broker]
durabilty = "os"
node_id = -1
partitions_max = "x"
[http]
bind = "localhost"
[[topics]]
name = "a"
partitions = "six"
[[topics]]
name = "a"
[[dashboards]]
name = "a b"
[[dashboards.panels]]
title = "t"
kind = "lines"
[colours]
"#;
    assert_eq!(
        mistakes(text),
        [
            "a.toml:3: broker.durabilty: unknown key; did you mean durability?",
            "a.toml:4: broker.node_id: \"-1\" is not a whole number from 0 to 2147483647",
            "a.toml:5: broker.partitions_max: must be a whole number from 1 to 1000000, not a text",
            "a.toml:7: http.bind: \"localhost\" is not HOST:PORT (no port); write for example 127.0.0.1:9092",
            "a.toml:10: topics[0].partitions: must be a whole number from 1 to 10000, not a text",
            "a.toml:12: topics[1].name: a is declared twice: first at a.toml:8",
            "a.toml:13: dashboards[0].title: missing; it must be a text, for example title = \"Music\"",
            "a.toml:14: dashboards[0].name: stands in a URL: letters, digits, - and _ only",
            "a.toml:15: dashboards[0].panels[0]: give either view or sql",
            "a.toml:15: dashboards[0].panels[0].x: missing; name the column along the axis, for example x = \"window_start\"",
            "a.toml:15: dashboards[0].panels[0].y: missing; name the columns to draw, for example y = [\"plays\"]",
            "a.toml:17: dashboards[0].panels[0].kind: \"lines\" is not known here; did you mean line?",
            "a.toml:18: colours: unknown key; known here: alerts, broker, costs, dashboards, http, jobs, kafka, lake, models, postgres, schemas, security, sinks, smtp, sources, streams, tables, tokens, topics, transforms, views",
        ]
    );
}

#[test]
fn text_that_is_not_toml_is_named_by_its_line() {
    let found = mistakes("[broker]\nnode_id = \n");
    assert!(found[0].starts_with("a.toml:2: : not TOML: "), "{found:?}");
    assert!(!mistakes("\u{0}\u{1}[[[").is_empty());
}

#[test]
fn later_files_add_to_lists_and_replace_values() {
    let config = load_texts(&[
        ("a.toml", "[broker]\nnode_id = 2\n[kafka]\nnum.partitions = 3\n[[topics]]\nname = \"a\"\n"),
        ("b.toml", "[broker]\nnode_id = 7\n[[topics]]\nname = \"b\"\nconfig = { \"retention.ms\" = 60000 }\n"),
    ])
    .unwrap()
    .config;
    assert_eq!((config.broker.node_id, config.broker.num_partitions), (7, 3));
    assert_eq!(config.topics.iter().map(|topic| topic.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(config.topics[1].config["retention.ms"], "60000");
}

#[test]
fn flags_beat_variables_beat_files_beat_defaults() {
    let mut inputs = Inputs { defaults: vec![("broker.data_dir", "/default".into())], ..Inputs::default() };
    let dir = |inputs: &Inputs| load(inputs).unwrap().config.broker.data_dir.display().to_string();
    assert_eq!(dir(&inputs), "/default");
    inputs.sources.push(Source::text("a.toml", "[broker]\ndata_dir = \"/file\"\n"));
    assert_eq!(dir(&inputs), "/file");
    inputs.environment.push(("MILLPOND_DATA_DIR".into(), "/variable".into()));
    assert_eq!(dir(&inputs), "/variable");
    inputs.flags.push(("data-dir".into(), "/flag".into()));
    assert_eq!(dir(&inputs), "/flag");
    inputs.environment.push(("KAFKA_NUM_PARTITIONS".into(), "many".into()));
    let message = load(&inputs).unwrap_err().to_string();
    assert!(
        message.contains("KAFKA_NUM_PARTITIONS (environment): kafka.num.partitions: invalid value 'many'"),
        "{message}"
    );
}

#[test]
fn an_unknown_variable_is_a_warning() {
    let environment = vec![
        ("MILLPOND_DURABILTY".into(), "os".into()),
        ("MILLPOND_LOG".into(), "info".into()),
        ("HOME".into(), "/".into()),
    ];
    let warnings = load(&Inputs { environment, ..Inputs::default() }).unwrap().warnings;
    assert_eq!(warnings, ["MILLPOND_DURABILTY is not a setting and was ignored; did you mean MILLPOND_DURABILITY?"]);
}

#[test]
fn names_must_lead_somewhere() {
    let found = mistakes(&format!(
        "{STREAM}\n[[lake.tables]]\ntopic = \"listen\"\n[[lake.tables]]\ntopic = \"listens\"\nslice = [\"date\", \"gener\"]\nmerge_below = \"1MiB\"\nmerge_to = \"64KiB\"\nmerge_files = 1\n"
    ));
    assert_eq!(
        found,
        [
            "a.toml:9: lake.tables[0].topic: no stream is declared over the topic listen: declare it under [[streams]]; did you mean listens?",
            "a.toml:12: lake.tables[1].slice: gener is not a column of the stream; did you mean genre?",
            "a.toml:14: lake.tables[1].merge_to: 65536 bytes are less than merge_below, 1048576: a merged file must be larger than those it is made of",
            "a.toml:15: lake.tables[1].merge_files: \"1\" is not a whole number from 2 to 1000",
        ]
    );
}

#[test]
fn a_view_with_a_wrong_column_is_named_by_file_and_line() {
    let view = "\n[[views]]\nsql = \"CREATE MATERIALIZED VIEW v AS SELECT genr, count(*) AS n FROM listens GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE), genr\"\n";
    let found = mistakes(&format!("{STREAM}{view}"));
    assert!(found.len() == 1 && found[0].starts_with("a.toml:9: ") && found[0].contains("genr"), "{found:?}");
}

#[test]
fn a_file_that_is_not_there_is_reported_with_the_other_mistakes() {
    let mut inputs = Inputs { sources: vec![Source::text("a.toml", "[broker]\nnode_id = -1\n")], ..Inputs::default() };
    inputs.add_file(std::path::Path::new("/no/such/millpond.toml"));
    let found = load(&inputs).unwrap_err().to_string();
    assert!(found.contains("/no/such/millpond.toml: ") && found.contains("cannot be read"), "{found}");
    assert!(found.contains("a.toml:2") && found.contains("node_id"), "{found}");
}

#[test]
fn every_system_in_the_folder_is_valid() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../config");
    let mut systems = 0;
    for folder in std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()) {
        let mut inputs = Inputs::default();
        inputs.add_file(&folder.join("system.toml"));
        if let Err(error) = load(&inputs) {
            panic!("{}: {error}", folder.display());
        }
        systems += 1;
    }
    assert!(systems > 0);
}

#[test]
fn the_container_has_two_kafka_ports() {
    let mut inputs = Inputs::default();
    inputs.add_file(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/docker.toml"));
    let listeners = load(&inputs).unwrap().config.broker.listeners;
    let told: Vec<_> = listeners.iter().map(|listener| listener.advertise.as_deref().unwrap()).collect();
    assert_eq!(told, ["localhost:9092", "millpond:19092"]);
}

#[test]
fn schemas_come_from_the_text_or_from_a_file_beside_the_configuration() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("e.avsc"), "\"long\"").unwrap();
    let name = dir.path().join("system.toml").display().to_string();
    let text = r#"
[[schemas]]
subject = "a-value"
file = "e.avsc"
compatibility = "FULL"
[[schemas]]
subject = "b-value"
type = "JSON"
schema = "true"
references = [{ name = "a.json", subject = "a-value" }]
[[streams]]
name = "a"
topic = "a"
format = "avro"
event_time = "ts"
columns = [{ name = "ts", type = "TIMESTAMP", required = true }]
"#;
    let config = load_texts(&[(&name, text)]).unwrap().config;
    let (a, b) = (&config.schemas[0], &config.schemas[1]);
    assert_eq!((a.schema.as_str(), a.compatibility), ("\"long\"", Some(broker::Compatibility::Full)));
    assert_eq!((b.kind, b.references[0].version, b.compatibility), (broker::SchemaType::Json, 0, None));
    assert_eq!(config.engine.streams[0].format, engine::StreamFormat::Avro);
    let found = mistakes(
        "[[schemas]]\nsubject = \"a\"\n[[schemas]]\nsubject = \"b\"\nfile = \"absent.avsc\"\n[[schemas]]\nsubject = \"c\"\nschema = \"1\"\ntype = \"XML\"\n",
    );
    assert_eq!(found.len(), 3, "{found:#?}");
    assert!(found[0].contains("give either schema or file") && found[1].contains("absent.avsc"), "{found:#?}");
}

/// A stream with these settings of its format: the first of them stands in line 6.
fn stream(more: &str) -> String {
    format!(
        "[[streams]]\nname = \"a\"\ntopic = \"a\"\nevent_time = \"ts\"\n\
         columns = [{{ name = \"ts\", type = \"TIMESTAMP\", required = true }}]\n{more}\n"
    )
}

#[test]
fn streams_of_csv_say_how_their_fields_are_written() {
    let read = |more: &str| load_texts(&[("a.toml", &stream(more))]).unwrap().config.engine.streams[0].clone();
    let csv = read("format = \"csv\"\ndelimiter = \"|\"\nnull_text = '\\N'");
    assert_eq!(csv.format, engine::StreamFormat::Csv);
    assert_eq!(csv.csv, engine::CsvConfig { delimiter: '|', null_text: "\\N".into() });
    assert_eq!(read("format = \"csv\"").csv, engine::CsvConfig::default());
    assert_eq!(read("format = \"protobuf\"").format, engine::StreamFormat::Protobuf);
    let found = mistakes(&stream("delimiter = \"|\""));
    assert_eq!(found, ["a.toml:6: streams[0].delimiter: goes with format = \"csv\": leave it out"]);
    let found = mistakes(&stream("format = \"csv\"\ndelimiter = \"||\""));
    assert!(found[0].starts_with("a.toml:7: streams[0].delimiter: write one character"), "{found:?}");
}

#[test]
fn streams_have_a_schema_from_its_text_or_from_files() {
    let dir = tempfile::tempdir().unwrap();
    let proto = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, format!("syntax = \"proto3\"; {text}")).unwrap();
    };
    proto(
        "protos/shop/order.proto",
        "package shop; import \"item.proto\"; import \"google/protobuf/timestamp.proto\";
         message Order { Item item = 1; google.protobuf.Timestamp ts = 2; }",
    );
    proto("protos/shop/item.proto", "package shop; import \"common/money.proto\"; message Item { Money price = 1; }");
    proto("protos/common/money.proto", "message Money { int64 cents = 1; }");
    proto("item.proto", "message Wrong {}");
    let name = dir.path().join("system.toml").display().to_string();
    let read = |more: &str| load_texts(&[(&name, &stream(more))]).unwrap().config.engine.streams[0].schema.clone();
    let found =
        read("format = \"protobuf\"\nschema_file = \"protos/shop/order.proto\"\nmessage = \"shop.Order\"").unwrap();
    assert!(found.text.contains("message Order"), "{}", found.text);
    assert_eq!(found.message.as_deref(), Some("shop.Order"));
    let imports: Vec<(&str, bool)> =
        found.imports.iter().map(|(name, text)| (name.as_str(), text.contains("Wrong"))).collect();
    assert_eq!(imports, [("item.proto", false), ("common/money.proto", false)]);
    let avro = r#"{"type":"record","name":"A","fields":[{"name":"ts","type":"long"}]}"#;
    let found = read(&format!("format = \"avro\"\nschema = '{avro}'")).unwrap();
    assert_eq!(found, engine::OwnSchema { text: avro.into(), ..engine::OwnSchema::default() });
    assert_eq!(read("format = \"avro\""), None);
    for (more, wanted) in [
        (
            format!("schema = '{avro}'"),
            "a.toml:6: streams[0].schema: goes with format = \"avro\" or \"protobuf\": leave it out",
        ),
        (
            "format = \"avro\"\nschema = 'x'\nschema_file = 'y'".into(),
            "a.toml:8: streams[0].schema_file: give either schema or",
        ),
        (
            "format = \"protobuf\"\nmessage = 'M'".into(),
            "a.toml:7: streams[0].message: goes with schema or schema_file",
        ),
        (
            "format = \"avro\"\nschema_file = 'absent.avsc'".into(),
            "a.toml:7: streams[0].schema_file: absent.avsc cannot be read",
        ),
        (
            "format = \"avro\"\nschema = 'x'".into(),
            "a.toml:1: : stream a: the schema cannot be used: the schema is not JSON",
        ),
        (
            format!("format = \"avro\"\nmessage = 'M'\nschema = '{avro}'"),
            "a.toml:7: streams[0].message: goes with format = \"protobuf\"",
        ),
    ] {
        let found = mistakes(&stream(&more));
        assert!(found.len() == 1 && found[0].starts_with(wanted), "wanted {wanted}: {found:#?}");
    }
    // Of several streams the one that is meant.
    let found = mistakes(&format!("{STREAM}{}", stream("format = \"avro\"\nschema = 'x'")));
    assert!(found.len() == 1 && found[0].starts_with("a.toml:7: : stream a: the schema cannot"), "{found:#?}");
}

#[test]
fn texts_refer_to_variables_and_files() {
    let text = "[broker]\nnode_id = \"${NODE:-7}\"\nadvertise = \"${HOST_NAME}:9092\"\n[[topics]]\nname = \"${NAME:-a}\"\n\
                config = { \"retention.ms\" = \"${RETENTION_MS:-1000}\" }\n";
    let environment = |pairs: &[(&str, &str)]| Inputs {
        sources: vec![Source::text("a.toml", text)],
        environment: pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect(),
        ..Inputs::default()
    };
    let config = load(&environment(&[("HOST_NAME", "example.org"), ("RETENTION_MS", "5")])).unwrap().config;
    assert_eq!(config.broker.node_id, 7);
    assert_eq!(config.broker.listeners[0].advertise.as_deref(), Some("example.org:9092"));
    assert_eq!((config.topics[0].name.as_str(), config.topics[0].config["retention.ms"].as_str()), ("a", "5"));
    let found = load(&environment(&[("NODE", "x")])).unwrap_err().to_string();
    assert!(found.contains("a.toml:2: broker.node_id: \"x\" is not a whole number"), "{found}");
    assert!(found.contains("a.toml:3: the variable HOST_NAME is not set"), "{found}");
}

#[test]
fn the_mistakes_of_a_source_stand_at_their_places() {
    let text = "[[sources]]\nname = \"s\"\ntopic = \"t\"\npath = \"{data_dir}/in\"\nwhen = \"watch\"\n\
                schedule = \"30 6 * * *\"\ndelimiter = \"ab\"\ncolumns = [{ name = \"a\" }]\nkey = \"b\"\n\
                [[sources]]\nname = \"u\"\ntopic = \"t\"\npath = \"x\"\nschedule = \"soon\"\ntime_zone = \"Mars\"\n";
    let found = mistakes(text).join("\n");
    for part in [
        "a.toml:6: sources[0].schedule: is given, but when = \"watch\"",
        "a.toml:7: sources[0].delimiter: \"ab\" is not one letter",
        "a.toml:1: sources[0]: source s: key 'b' is not a column",
        "a.toml:10: sources[1]: source u: schedule 'soon': ",
        "source u: time_zone 'Mars' is not known",
    ] {
        assert!(found.contains(part), "{part}\n{found}");
    }
    let good = "[[sources]]\nname = \"s\"\ntopic = \"t\"\npath = \"{data_dir}/in\"\n[broker]\ndata_dir = \"/d\"\n";
    let config = load_texts(&[("a.toml", good)]).unwrap().config;
    assert_eq!(config.sources[0].path, "/d/in");
}

#[test]
fn kafkas_names_are_taken_from_files_and_variables() {
    let first =
        "[kafka]\n\"num.partitions\" = 3\nlog.retention.hours = 1\nlog.cleanup.policy = [\"compact\", \"delete\"]\n";
    let second = "[kafka]\nnum.partitions = 4\nauto.create.topics.enable = false\n";
    let sources = vec![Source::text("a.toml", first), Source::text("b.toml", second)];
    let environment = vec![
        ("KAFKA_LOG_RETENTION_HOURS".to_owned(), "2".to_owned()),
        ("KAFKA_HEAP_OPTS".to_owned(), "-Xmx1g".to_owned()),
        ("KAFKA_PROCESS_ROLES".to_owned(), "broker".to_owned()),
    ];
    let loaded = load(&Inputs { sources, environment, ..Inputs::default() }).unwrap();
    let broker = &loaded.config.broker;
    assert_eq!((broker.num_partitions, broker.auto_create_topics), (4, false));
    assert_eq!(broker.kafka["log.retention.hours"], "2");
    assert_eq!(broker.kafka["log.cleanup.policy"], "compact,delete");
    assert_eq!(broker.kafka.len(), 4);
    let warnings = &loaded.warnings;
    assert!(warnings.len() == 1 && warnings[0].starts_with("KAFKA_PROCESS_ROLES is not"), "{warnings:?}");
}

#[test]
fn what_kafka_names_but_cannot_be_given_says_why() {
    let text = "[kafka]\nnum.partitons = 1\nlog.dirs = \"/x\"\nretention.ms = 1\nreplica.fetch.max.bytes = 1\nnum.partitions = 0\n\
                group.min.session.timeout.ms = 2000000\n";
    let wanted = [
        "a.toml:2: kafka.num.partitons: there is no broker setting num.partitons; did you mean num.partitions?",
        "a.toml:3: kafka.log.dirs: log.dirs follows from elsewhere; The data directory; it is broker.data_dir of the configuration.",
        "a.toml:4: kafka.retention.ms: retention.ms is a setting of topics; set it for a topic, or its default under the broker's name",
        "a.toml:5: kafka.replica.fetch.max.bytes: replica.fetch.max.bytes is for parts of Kafka that are not here; leave it out",
        "a.toml:6: kafka.num.partitions: invalid value '0' for broker setting num.partitions: it must be a whole number from 1 to 10000",
        "a.toml:7: kafka: group.min.session.timeout.ms (2000000) must not be larger than group.max.session.timeout.ms (1800000)",
    ];
    assert_eq!(mistakes(text), wanted);
}

#[test]
fn topics_come_from_tables_and_from_a_list() {
    let text = "[broker]\ncreate_topics = \"${TOPICS:-a:3:1, b:2}\"\ndata_dir = \"/d\"\n[[topics]]\nname = \"a\"\n\
                retention = \"${HOURS:-72}h\"\n[[sinks]]\nname = \"s\"\nkind = \"file\"\nsql = \"SELECT 1\"\nfolder = \"{data_dir}/out\"\n";
    let config = load_texts(&[("a.toml", text)]).unwrap().config;
    let topics: Vec<(&str, i32)> = config.topics.iter().map(|topic| (topic.name.as_str(), topic.partitions)).collect();
    assert_eq!(topics, [("a", 3), ("b", 2)]);
    assert_eq!(config.topics[0].config["retention.ms"], "259200000");
    let crate::config::SinkKind::File(file) = &config.work.sinks[0].kind else { panic!("a file sink") };
    assert_eq!(file.folder, "/d/out");
    let wrong = "[broker]\ncreate_topics = \"a:0:1,b:1:2\"\n[[topics]]\nname = \"c\"\nretention = \"1h\"\nconfig = { \"retention.ms\" = \"5\" }\n";
    let found = mistakes(wrong).join("\n");
    for part in [
        "a.toml:2: broker.create_topics: \"a:0:1\" does not say how many partitions",
        "\"b:1:2\" asks for copies on brokers that are not there; write NAME:PARTITIONS",
        "a.toml:5: topics[0].retention: is given in config as well",
    ] {
        assert!(found.contains(part), "{part}\n{found}");
    }
}

#[test]
fn tokens_are_checked_and_their_text_is_kept_nowhere() {
    let text = r#"
[[tokens]]
name = "short"
token = "too-short"
[[tokens]]
name = "nothing"
token = "0123456789abcdef"
scopes = ["raed"]
filters = [{ table = "a" }, { table = "b", where = "x" }, { table = "b", where = "y" }]
[[tokens]]
name = "all"
token = "0123456789abcdef"
scopes = ["admin"]
filters = [{ table = "a", where = "x" }]
"#;
    let told = mistakes(text).join("\n");
    for part in [
        "tokens[0].token: has fewer than 16 letters",
        "tokens[1].scopes: raed is no scope; did you mean read?",
        "tokens[1].filters[0]: filters nothing",
        "tokens[1].filters[2].table: b has two filters",
        "tokens[2].filters: a token of scope admin",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let good = "[[tokens]]\nname = \"a\"\ntoken = \"0123456789abcdef\"\n[costs]\nscanned_gib = 0.5\n";
    let config = load_texts(&[("a.toml", good)]).unwrap().config;
    assert!(config.tokens[0].secret.is("0123456789abcdef") && config.tokens[0].scopes.read);
    assert_eq!(config.lake.costs.scanned_gib, 0.5);
    assert!(!format!("{config:?}").contains("0123456789abcdef"));
}

#[test]
fn a_source_on_a_server_needs_a_login() {
    let source = |more: &str| {
        mistakes(&format!("[[sources]]\nname = \"s\"\ntopic = \"t\"\npath = \"sftp://u@h/in\"\n{more}\n")).join("\n")
    };
    assert_eq!(source("password = \"x\""), "");
    assert!(source("").contains("needs password or private_key"));
    assert!(source("private_key = \"x\"").contains("private_key cannot be read"));
    assert!(source("password = \"x\"\nhost_key = \"x\"").contains("host_key is neither"));
    let local = mistakes("[[sources]]\nname = \"s\"\ntopic = \"t\"\npath = \"/in\"\npassword = \"x\"\n").join("");
    assert!(local.contains("for paths that begin with sftp://"), "{local}");
}

#[test]
fn object_stores_are_spoken_to_as_the_lake_says() {
    let text = "[lake]\nurl = \"s3://bucket/lake\"\ncloud_endpoint = \"http://minio:9000\"\ncloud_access_key = \"lake\"\n\
                cloud_secret_key = \"hidden\"\ncloud_path_style = false\ncloud_allow_http = true\n\
                cloud_request_time_max = \"10s\"\ncloud_retries = 0\n";
    let lake = load_texts(&[("a.toml", text)]).unwrap().config.lake;
    let cloud = &lake.access.cloud;
    assert_eq!((cloud.endpoint.as_deref(), cloud.access_key.as_deref()), (Some("http://minio:9000"), Some("lake")));
    assert_eq!((cloud.path_style, cloud.allow_http, cloud.request_time_ms, cloud.retries), (false, true, 10_000, 0));
    assert!(cloud.secret_key.as_ref().is_some_and(|key| key.0 == "hidden"));
    assert!(!format!("{lake:?}").contains("hidden"), "a secret is shown");
    let found = mistakes("[lake]\nurl = \"ftp://host/lake\"\n");
    assert!(found.len() == 1 && found[0].contains("ftp://") && found[0].contains("abfss://"), "{found:?}");
}
