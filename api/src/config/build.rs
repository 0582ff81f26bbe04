//! From checked values to the configuration, and the checks that need more than one key: names declared twice, names that nothing declares.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use broker::settings::row_of;
use broker::{BrokerConfig, Durability, ListenerConfig};
use engine::{EngineConfig, StreamConfig, ViewConfig};
use lake::LakeConfig;

use super::build_access::{costs, token};
use super::build_models::model;
use super::build_registry::schema;
use super::build_security::{listener, security};
use super::build_sources::sources;
use super::build_streams::{place_of, stream, table};
use super::build_work;
use super::mistake::{Mistakes, Origin};
use super::read::Document;
use super::value::Entry;
use super::{Config, HttpConfig, build_dashboards, build_lake, build_notes, build_topics};

/// Builds everything; what does not hold together is noted, and the result is then not to be used.
pub fn config(document: &Document, mistakes: &mut Mistakes) -> Config {
    let (lists, lake, http) = (&document[""], &document["lake"], &document["http"]);
    let named = [
        ("topics", lists),
        ("streams", lists),
        ("transforms", lists),
        ("tables", lists),
        ("dashboards", lists),
        ("models", lists),
        ("sources", lists),
        ("sinks", lists),
        ("jobs", lists),
        ("alerts", lists),
        ("tokens", lists),
        ("listeners", &document["broker"]),
        ("users", &document["security"]),
    ];
    for (list, entry) in named {
        unique(entry.tables(list), "name", mistakes);
    }
    unique(lake.tables("tables"), "topic", mistakes);
    let broker = broker((&document["broker"], &document["kafka"], &document["security"]), mistakes);
    let engine = EngineConfig {
        streams: lists.tables("streams").iter().map(|entry| stream(entry, mistakes)).collect(),
        tables: lists.tables("tables").iter().map(|entry| table(entry, mistakes)).collect(),
        views: lists.tables("views").iter().map(view).collect(),
    };
    for message in engine::check(&engine) {
        let origin = place_of(&message, lists);
        let text = message.strip_prefix(&format!("{origin}: ")).unwrap_or(&message);
        mistakes.add(&origin, "", text);
    }
    // Derived ones have their columns from their SQL.
    let streams: Vec<StreamConfig> = engine::streams(&engine).iter().map(|stream| stream.config().clone()).collect();
    let whole = EngineConfig { streams, ..engine.clone() };
    let dashboards =
        lists.tables("dashboards").iter().map(|entry| build_dashboards::dashboard(entry, mistakes)).collect();
    let http = self::http(http, mistakes);
    let notes = build_notes::notes(lists, lake);
    let mut work = build_work::work((lists, &document["postgres"], &document["smtp"]), &whole, mistakes);
    build_work::place_files(&mut work, &broker.data_dir);
    Config {
        sources: sources(lists.tables("sources"), &broker.data_dir, &whole, mistakes),
        lake: LakeConfig {
            costs: costs(&document["costs"]),
            ..build_lake::lake((lake, lists), &broker.data_dir, &whole, mistakes)
        },
        topics: build_topics::topics(lists, &document["broker"], mistakes),
        schemas: lists.tables("schemas").iter().map(|entry| schema(entry, mistakes)).collect(),
        tokens: lists.tables("tokens").iter().map(|entry| token(entry, mistakes)).collect(),
        broker,
        engine,
        http,
        work,
        dashboards,
        models: lists.tables("models").iter().map(|entry| model(entry, mistakes)).collect(),
        notes,
    }
}

/// Two entries of one list with the same name: the second is the mistake.
pub fn unique(entries: &[Entry], key: &str, mistakes: &mut Mistakes) {
    let mut first: BTreeMap<String, &Origin> = BTreeMap::new();
    for entry in entries {
        let Some(name) = entry.text_or_none(key).filter(|name| !name.is_empty()) else { continue };
        match first.get(&name) {
            Some(origin) => mistakes.add(
                &entry.place(key),
                entry.path_of(key),
                format!("{name} is declared twice: first at {origin}"),
            ),
            None => {
                first.insert(name, &entry.origin);
            }
        }
    }
}

fn broker((entry, kafka, secured): (&Entry, &Entry, &Entry), mistakes: &mut Mistakes) -> BrokerConfig {
    let main = listener(("main".into(), text(entry, "kafka")), entry, secured, mistakes);
    let mut listeners: Vec<ListenerConfig> = vec![main];
    for more in entry.tables("listeners") {
        listeners.push(listener((text(more, "name"), text(more, "bind")), more, secured, mistakes));
    }
    let mut binds = BTreeSet::new();
    for listener in &listeners {
        if !listener.bind.ends_with(":0") && !binds.insert(&listener.bind) {
            mistakes.add(
                &entry.place("listeners"),
                "broker.listeners",
                format!("two listeners bind {}: give one another port", listener.bind),
            );
        }
    }
    let mut config = BrokerConfig {
        data_dir: PathBuf::from(text(entry, "data_dir")),
        listeners,
        durability: if text(entry, "durability") == "os" { Durability::Os } else { Durability::Fsync },
        node_id: small(entry, "node_id"),
        clamp_replication: entry.bool("clamp_replication"),
        partitions_max: entry.count("partitions_max"),
        inflight_bytes_max: entry.count("inflight_bytes_max"),
        connections_max: entry.count("connections_max"),
        tail_cache_bytes: entry.count("tail_cache_bytes"),
        write_buffer_bytes: entry.count("write_buffer_bytes"),
        bucket_bytes: entry.count("bucket_bytes") as u64,
        block_cache_bytes: entry.count("block_cache_bytes"),
        compaction_keys_max: entry.count("compaction_keys_max"),
        disk_reserve_bytes: entry.integer_or_none("disk_reserve_bytes").and_then(|bytes| u64::try_from(bytes).ok()),
        security: security(secured, mistakes),
        ..BrokerConfig::default()
    };
    for (name, (_, origin)) in &kafka.values {
        let value = text(kafka, name);
        if value.is_empty() && row_of(name).is_some_and(|row| row.check("").is_err()) {
            continue; // it stands in for one that was a mistake
        }
        if let Err(error) = config.set(name, &value) {
            mistakes.add(origin, kafka.path_of(name), error.message);
        }
    }
    if let Err(error) = config.check_order() {
        let named = kafka.values.iter().find(|(name, _)| error.message.contains(**name));
        let origin = named.map_or(&kafka.origin, |(_, (_, origin))| origin);
        mistakes.add(origin, "kafka", error.message);
    }
    config
}

fn http(entry: &Entry, mistakes: &mut Mistakes) -> HttpConfig {
    if entry.unsigned("wait") > entry.unsigned("wait_max") {
        mistakes.add(&entry.place("wait"), entry.path_of("wait"), "is longer than http.wait_max");
    }
    HttpConfig {
        bind: text(entry, "bind"),
        registry_bind: entry.text_or_none("registry_bind"),
        body_bytes_max: entry.count("body_bytes_max"),
        wait_ms_max: entry.unsigned("wait_max"),
        wait_ms: entry.unsigned("wait"),
        rows_max: entry.count("rows_max"),
        requests_max: entry.count("requests_max"),
        streams_max: entry.count("streams_max"),
    }
}

fn view(entry: &Entry) -> ViewConfig {
    ViewConfig {
        sql: text(entry, "sql"),
        source: entry.place("sql").to_string(),
        retention_ms: entry.integer_or_none("retention"),
    }
}

/// The text of a key; empty when it was missing, which is already noted.
pub fn text(entry: &Entry, key: &str) -> String {
    entry.text_or_none(key).unwrap_or_default()
}

/// A whole number with a default, which is therefore always there.
pub fn integer(entry: &Entry, key: &str) -> i64 {
    entry.integer(key)
}

/// A whole number whose range fits.
pub fn small(entry: &Entry, key: &str) -> i32 {
    i32::try_from(entry.integer(key)).expect("the kind's range fits 32 bits")
}
