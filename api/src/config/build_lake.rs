//! From checked values to the lake's configuration.

use broker::Secret;
use engine::EngineConfig;
use lake::{
    Access, CloudConfig, HdfsConfig, LAKE_SCHEMES, LakeConfig, MergeConfig, SliceColumn, SqlLimits, TableConfig,
    TransformConfig, TransformMode,
};

use super::build::{integer, small, text};
use super::mistake::{Mistakes, suggestion};
use super::value::Entry;

/// The lake's configuration, from its section and the lists.
pub fn lake(
    (entry, lists): (&Entry, &Entry),
    data_dir: &std::path::Path,
    engine: &EngineConfig,
    mistakes: &mut Mistakes,
) -> LakeConfig {
    let url = entry.text_or_none("url").unwrap_or_else(|| data_dir.join("lake").display().to_string());
    if let Some((scheme, _)) = url.split_once("://")
        && !LAKE_SCHEMES.contains(&format!("{scheme}://").as_str())
    {
        let message = format!(
            "{scheme}:// is not served by this version: give a path or a URL with one of {}",
            LAKE_SCHEMES.join(", ")
        );
        mistakes.add(&entry.place("url"), entry.path_of("url"), message);
    }
    let limits = SqlLimits {
        time_ms: entry.unsigned("sql_time_max"),
        memory_bytes: entry.count("sql_memory_bytes_max"),
        rows: entry.count("sql_rows_max"),
    };
    LakeConfig {
        url,
        access: access(entry),
        zones: entry.bool("zones"),
        transforms: lists.tables("transforms").iter().map(|entry| transform(entry, mistakes)).collect(),
        transform_time_ms: entry.unsigned("transform_time_max"),
        tables: entry.tables("tables").iter().map(|table| lake_table(table, engine, mistakes)).collect(),
        sql: limits,
        iceberg_keep_ms: entry.bool("iceberg").then(|| integer(entry, "iceberg_keep")),
        ..LakeConfig::default()
    }
}

fn access(entry: &Entry) -> Access {
    Access {
        hdfs: HdfsConfig {
            user: entry.text_or_none("hdfs_user"),
            conf_dir: entry.text_or_none("hdfs_conf_dir"),
            principal: entry.text_or_none("hdfs_principal"),
            keytab: entry.text_or_none("hdfs_keytab"),
            replication: small(entry, "hdfs_replication").unsigned_abs(),
        },
        cloud: CloudConfig {
            endpoint: entry.text_or_none("cloud_endpoint"),
            region: entry.text_or_none("cloud_region"),
            access_key: entry.text_or_none("cloud_access_key"),
            secret_key: entry.text_or_none("cloud_secret_key").map(Secret),
            credentials_file: entry.text_or_none("cloud_credentials_file"),
            path_style: entry.bool("cloud_path_style"),
            allow_http: entry.bool("cloud_allow_http"),
            request_time_ms: entry.unsigned("cloud_request_time_max"),
            retries: entry.count("cloud_retries"),
        },
    }
}

fn lake_table(entry: &Entry, engine: &EngineConfig, mistakes: &mut Mistakes) -> TableConfig {
    let topic = text(entry, "topic");
    let named = entry.text_or_none("stream");
    let settles = |name: &String| named.as_ref().is_none_or(|named| named == name);
    let stream = engine.streams.iter().find(|stream| stream.topic == topic && settles(&stream.name));
    if let (None, Some(named)) = (stream, &named) {
        let message = format!("the stream {named} is not declared over the topic {topic}: name one that is");
        mistakes.add(&entry.place("stream"), entry.path_of("stream"), message);
    } else if stream.is_none() && !topic.is_empty() {
        let near = suggestion(&topic, engine.streams.iter().map(|stream| stream.topic.as_str()));
        let message = format!("no stream is declared over the topic {topic}: declare it under [[streams]]{near}");
        mistakes.add(&entry.place("topic"), entry.path_of("topic"), message);
    }
    let mut slice = Vec::new();
    for word in entry.texts("slice") {
        slice.push(match word.as_str() {
            "date" => SliceColumn::Date,
            "year/month/day" => SliceColumn::YearMonthDay,
            column => {
                let columns =
                    || stream.iter().flat_map(|stream| stream.columns.iter().map(|column| column.name.as_str()));
                if stream.is_some() && !columns().any(|name| name == column) {
                    let message = format!(
                        "{column} is not a column of the stream{}",
                        suggestion(column, columns().chain(["date", "year/month/day"]))
                    );
                    mistakes.add(&entry.place("slice"), entry.path_of("slice"), message);
                }
                SliceColumn::Column(word)
            }
        });
    }
    TableConfig {
        stream: named,
        topic,
        zone: entry.text_or_none("zone"),
        slice,
        flush_rows: entry.count("flush_rows"),
        flush_bytes: entry.unsigned("flush_bytes"),
        flush_age_ms: integer(entry, "flush_age"),
        archive_after_ms: entry.integer_or_none("archive_after"),
        expire_after_ms: entry.integer_or_none("expire_after"),
        merge: merge(entry, mistakes),
        raw: entry.bool("raw"),
    }
}

fn merge(entry: &Entry, mistakes: &mut Mistakes) -> Option<MergeConfig> {
    let config = MergeConfig {
        below_bytes: entry.unsigned("merge_below"),
        to_bytes: entry.unsigned("merge_to"),
        files_min: entry.count("merge_files"),
    };
    if config.to_bytes < config.below_bytes {
        let message = format!(
            "{} bytes are less than merge_below, {}: a merged file must be larger than those it is made of",
            config.to_bytes, config.below_bytes
        );
        mistakes.add(&entry.place("merge_to"), entry.path_of("merge_to"), message);
    }
    entry.bool("merge").then_some(config)
}

fn transform(entry: &Entry, mistakes: &mut Mistakes) -> TransformConfig {
    let mode = TransformMode::parse(&text(entry, "mode")).unwrap_or(TransformMode::Replace);
    let key = entry.texts("key");
    if key.is_empty() && mode == TransformMode::History {
        let message = "missing; scd2 needs the columns that tell rows apart, for example key = [\"user_id\"]";
        mistakes.add(&entry.origin, entry.path_of("key"), message);
    }
    TransformConfig {
        name: text(entry, "name"),
        zone: text(entry, "zone"),
        slice: entry.texts("slice").iter().map(|word| SliceColumn::parse(word)).collect(),
        sort: entry.texts("sort"),
        mode,
        key,
        sql: text(entry, "sql"),
    }
}
