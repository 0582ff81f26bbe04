//! The settings of the server, one row each. Files, variables and flags are checked against these rows, and the manual is written from them.

use std::sync::LazyLock;

use super::read::KAFKA_SECTION;
use super::schema::{Field, Kind, Section};
use super::settings_access::{COSTS, TOKEN};
use super::settings_dashboards::DASHBOARD;
use super::settings_kafka::KAFKA;
use super::settings_lake::{LAKE, TRANSFORM};
use super::settings_models::MODEL;
use super::settings_registry::SCHEMA;
use super::settings_security::{CLIENT_AUTH, PROTOCOL, SECURITY};
use super::settings_sources::SOURCES;
use super::settings_streams::{STREAM, TABLE};
use super::settings_work::{ALERT, JOB, POSTGRES, SINK, SMTP};

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const KIB: i64 = 1 << 10;
const MIB: i64 = 1 << 20;
const GIB: i64 = 1 << 30;

/// The keys that have a flag of their own; its variable is `MILLPOND_` and the flag's name. Every other scalar key has the variable
/// `MILLPOND_` and its path, as in `MILLPOND_BROKER_NODE_ID`; those of `[kafka]` have `KAFKA_` and their name, as in
/// `KAFKA_NUM_PARTITIONS`.
pub const FLAGS: [(&str, &str); 8] = [
    ("broker.data_dir", "data-dir"),
    ("broker.kafka", "kafka"),
    ("broker.advertise", "advertise"),
    ("broker.durability", "durability"),
    ("http.bind", "http"),
    ("http.registry_bind", "registry"),
    ("lake.url", "lake"),
    ("postgres.url", "postgres"),
];

/// Everything a configuration file may say.
pub static SECTIONS: LazyLock<[Section; 9]> = LazyLock::new(|| {
    [
        Section {
            name: "broker",
            doc: "The Kafka side: where data is kept, which ports are open, and the bounds.",
            fields: &BROKER,
        },
        Section {
            name: "kafka",
            doc: "Settings of the broker under Kafka's own names, with Kafka's defaults. In files the names may stand with or without quotes; DescribeConfigs shows the same ones. Lines with # show the defaults.",
            fields: *KAFKA,
        },
        Section {
            name: "security",
            doc: "Who may come in by the Kafka port, and what they may do there. Quotas and ACLs are set through Kafka (kafka-configs, kafka-acls).",
            fields: &SECURITY,
        },
        Section { name: "http", doc: "The HTTP API, the page, and the schema registry.", fields: &HTTP },
        Section { name: "lake", doc: "Parquet files of what the topics held, and SQL over both.", fields: &LAKE },
        Section {
            name: "costs",
            doc: "Prices, for the estimate of what storing and reading costs: the table cost_estimate of SQL, and the page Lake.",
            fields: &COSTS,
        },
        Section { name: "postgres", doc: "The database of the sinks into PostgreSQL.", fields: &POSTGRES },
        Section { name: "smtp", doc: "The mail server that notices of alerts and jobs leave through.", fields: &SMTP },
        Section { name: "", doc: "Lists: each file may add to them.", fields: &LISTS },
    ]
});

const BROKER: [Field; 18] = [
    Field::with_default(
        "data_dir",
        Kind::Text,
        "millpond-data",
        "The directory that holds everything; made when it is not there. One server at a time opens it.",
    ),
    Field::with_default(
        "kafka",
        Kind::Address,
        "127.0.0.1:9092",
        "Where Kafka clients connect; port 0 takes a free one, and 0.0.0.0 listens on every address.",
    ),
    Field::optional(
        "advertise",
        Kind::Address,
        "\"broker.example.org:9092\"",
        "The address that clients of `kafka` are told to use. Without it: the one that `kafka` listens on. Needed behind NAT, in containers and with 0.0.0.0.",
    ),
    PROTOCOL,
    Field::optional(
        "listeners",
        Kind::Tables(&LISTENER),
        "",
        "More ports for Kafka clients, each with the address that its own clients are told.",
    ),
    Field::with_default(
        "durability",
        Kind::OneOf(&["fsync", "os"]),
        "fsync",
        "When acks=all is answered. fsync: once the disk has the write. os: once the operating system has it; a power cut may then lose the last moments, a crash of the server may not.",
    ),
    Field::with_default("node_id", Kind::Integer(0, i32::MAX as i64), "1", "This broker's number in Kafka's metadata."),
    Field::with_default(
        "clamp_replication",
        Kind::Bool,
        "false",
        "Whether a replication factor above 1, the number of brokers, is taken as 1. Otherwise it is refused, as Kafka does (error 38).",
    ),
    Field::optional(
        "create_topics",
        Kind::Text,
        "\"tracks:3:1,errors:1\"",
        "Topics that are made at start as well, as NAME:PARTITIONS or NAME:PARTITIONS:1; partitions are stronger than under [[topics]].",
    ),
    Field::with_default(
        "partitions_max",
        Kind::Integer(1, 1_000_000),
        "10000",
        "Most partitions of all topics together.",
    ),
    Field::with_default(
        "inflight_bytes_max",
        Kind::Size(MIB, 64 * GIB),
        "512MiB",
        "Memory for requests being served, all connections together; reading waits while it is used up.",
    ),
    Field::with_default(
        "connections_max",
        Kind::Integer(1, 1_000_000),
        "10000",
        "Most Kafka connections at one time; further ones are closed at once.",
    ),
    Field::with_default(
        "tail_cache_bytes",
        Kind::Size(0, 1 << 40),
        "64MiB",
        "Memory for the newest batches of all partitions.",
    ),
    Field::with_default(
        "write_buffer_bytes",
        Kind::Size(8 * MIB, 1 << 40),
        "128MiB",
        "Memory for writes that are not yet in a data file.",
    ),
    Field::with_default(
        "bucket_bytes",
        Kind::Size(MIB, 1 << 40),
        "1GiB",
        "Size of the parts in which the log lies on disk, by time. One goes when no topic needs anything of it, so up to three of them \
         more than what is kept are on the disk; beyond 128 parts batches are written once more.",
    ),
    Field::with_default(
        "block_cache_bytes",
        Kind::Size(0, 1 << 40),
        "32MiB",
        "Memory for blocks read from data files.",
    ),
    Field::with_default(
        "compaction_keys_max",
        Kind::Integer(1, 100_000_000),
        "900000",
        "Keys that compaction holds in memory, 25 to 50 bytes each; a partition with more takes several passes.",
    ),
    Field::optional(
        "disk_reserve_bytes",
        Kind::Size(0, 1 << 40),
        "\"10GiB\"",
        "Free space of the disk below which records of clients are refused, with an error after which they try again. Without it: 1GiB, or a twentieth of the disk where that is less.",
    ),
];

const LISTENER: [Field; 8] = [
    Field::required("name", Kind::Text, "\"inside\"", "A name for messages."),
    Field::required("bind", Kind::Address, "\"0.0.0.0:19092\"", "Where it listens."),
    Field::optional(
        "advertise",
        Kind::Address,
        "\"millpond:19092\"",
        "The address its clients are told; without it, the one it listens on.",
    ),
    PROTOCOL,
    Field::optional(
        "certificate",
        Kind::Text,
        "\"tls/inside.pem\"",
        "Its own certificate instead of security.certificate.",
    ),
    Field::optional("key", Kind::Text, "\"tls/inside.key\"", "The key of its own certificate."),
    Field::optional("client_ca", Kind::Text, "\"tls/clients.pem\"", "Its own authorities of clients' certificates."),
    Field::optional(
        "client_auth",
        Kind::OneOf(CLIENT_AUTH),
        "\"required\"",
        "Whether its clients show a certificate; without it, as security.client_auth says.",
    ),
];

const HTTP: [Field; 8] = [
    Field::with_default(
        "bind",
        Kind::Address,
        "127.0.0.1:8080",
        "Where the HTTP API and the page answer; port 0 takes a free one.",
    ),
    Field::optional(
        "registry_bind",
        Kind::Address,
        "\"127.0.0.1:8081\"",
        "A port of its own for the schema registry. Without it, the registry answers under /registry of `bind` only.",
    ),
    Field::with_default(
        "body_bytes_max",
        Kind::Size(KIB, GIB),
        "16MiB",
        "Largest request body; a larger one is refused (413).",
    ),
    Field::with_default(
        "wait",
        Kind::Duration(0, MINUTE),
        "1s",
        "How long a read of a view waits to be fresh when it does not say.",
    ),
    Field::with_default("wait_max", Kind::Duration(0, HOUR), "30s", "Longest such wait a read may ask for."),
    Field::with_default("rows_max", Kind::Integer(1, 10_000_000), "100000", "Most rows in one answer."),
    Field::with_default(
        "requests_max",
        Kind::Integer(1, 1_000_000),
        "256",
        "Most HTTP requests served at one time; further ones are told to come back (503).",
    ),
    Field::with_default(
        "streams_max",
        Kind::Integer(0, 1_000_000),
        "256",
        "Most live-update streams (pages) open at one time.",
    ),
];

const LISTS: [Field; 13] = [
    Field::optional("topics", Kind::Tables(&TOPIC), "", "Topics that are made at start when they are not there."),
    Field::optional(
        "schemas",
        Kind::Tables(&SCHEMA),
        "",
        "Schemas that are registered at start when they are not there, in this order.",
    ),
    Field::optional(
        "streams",
        Kind::Tables(&STREAM),
        "",
        "Streams: a topic of records read as rows with event time; or, with sql, a stream computed from another one.",
    ),
    Field::optional(
        "tables",
        Kind::Tables(&TABLE),
        "",
        "Tables that derived streams join and SQL reads: the latest row per key, from a compacted topic, a CSV file or written out.",
    ),
    SOURCES,
    Field::optional(
        "views",
        Kind::Tables(&VIEW),
        "",
        "Materialized views: SQL over a stream, kept up to date with every record.",
    ),
    Field::optional(
        "transforms",
        Kind::Tables(&TRANSFORM),
        "",
        "Tables of the lake that SQL writes over streams, views and each other, when a job or POST /v1/transforms/{name}/run runs them.",
    ),
    Field::optional("dashboards", Kind::Tables(&DASHBOARD), "", "Pages of charts over views and SQL."),
    Field::optional("models", Kind::Tables(&MODEL), "", "Models whose figures `millpond evaluate` measures."),
    Field::optional("sinks", Kind::Tables(&SINK), "", "Rows of streams and views that go into PostgreSQL or files."),
    Field::optional("jobs", Kind::Tables(&JOB), "", "Steps that run at a time, after other jobs, or on demand."),
    Field::optional("alerts", Kind::Tables(&ALERT), "", "Queries whose rows are what is wrong, and who is told."),
    Field::optional(
        "tokens",
        Kind::Tables(&TOKEN),
        "",
        "Who may use the HTTP port and the schema registry: with one token or more, each request needs one (Authorization: Bearer, or Basic with the token as the password). Without any, everybody who reaches the port may do everything.",
    ),
];

const TOPIC: [Field; 7] = [
    Field::required("name", Kind::Text, "\"listens\"", "The topic's name."),
    Field::with_default("partitions", Kind::Integer(1, 10_000), "1", "Partitions it has at least."),
    Field::with_default(
        "replication",
        Kind::Integer(1, i16::MAX as i64),
        "1",
        "Copies of each record that are asked for. There is one broker: more than 1 needs broker.clamp_replication, and the page says that there is one.",
    ),
    Field::optional("config", Kind::Map, "{ \"cleanup.policy\" = \"delete\" }", "Topic settings under Kafka's names."),
    Field::optional(
        "retention",
        Kind::Duration(1, 36_500 * DAY),
        "\"72h\"",
        "How long records stay: the setting retention.ms as a duration.",
    ),
    Field::optional("owner", Kind::Text, "\"data team\"", "Who answers for it; shown in the catalog."),
    Field::optional("description", Kind::Text, "\"Events of listening\"", "What it holds; shown in the catalog."),
];

const VIEW: [Field; 4] = [
    Field::required(
        "sql",
        Kind::Text,
        "\"CREATE MATERIALIZED VIEW plays_per_minute AS SELECT count(*) AS plays FROM listens GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE)\"",
        "The view's definition.",
    ),
    Field::optional(
        "retention",
        Kind::Duration(MINUTE, 3650 * DAY),
        "\"90d\"",
        "How long closed windows stay readable; without it, for ever.",
    ),
    Field::optional("owner", Kind::Text, "\"data team\"", "Who answers for it; shown in the catalog."),
    Field::optional("description", Kind::Text, "\"Plays of each minute\"", "What it holds; shown in the catalog."),
];

/// A scalar key as the environment and the command line know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scalar {
    /// The section.
    pub section: &'static str,
    /// The key in it.
    pub key: &'static str,
    /// Its flag without the dashes, if it has one.
    pub flag: Option<&'static str>,
    /// Its environment variable.
    pub variable: String,
}

/// Every scalar key, in the order of the manual.
pub fn scalars() -> impl Iterator<Item = (Scalar, &'static Field)> {
    SECTIONS
        .iter()
        .flat_map(|section| section.fields.iter().map(move |field| (section.name, field)))
        .filter(|(_, field)| field.kind.is_scalar())
        .map(|(section, field)| {
            let flag = FLAGS
                .iter()
                .find(|(path, _)| path.split_once('.') == Some((section, field.name)))
                .map(|(_, flag)| *flag);
            let variable = match flag {
                _ if section == KAFKA_SECTION => format!("kafka_{}", field.name.replace('.', "_")),
                Some(flag) => format!("MILLPOND_{flag}"),
                None => format!("MILLPOND_{section}_{}", field.name),
            };
            let variable = variable.to_uppercase().replace('-', "_");
            (Scalar { section, key: field.name, flag, variable }, field)
        })
}
