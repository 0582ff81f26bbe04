//! Type-2 history: the present state by key, merged into versions with `valid_from`, `valid_to` and `is_current`.
//!
//! A key that is new begins a version. A key whose other columns changed ends its current version where the new one
//! begins. A row that begins when the current version did corrects it in place; one that began earlier is left out: the
//! history after it is known already. A key that is not in the result stays as it is. So a second run changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use broker::TimestampMs;
use chrono::NaiveTime;
use datafusion::datasource::MemTable;
use datafusion::execution::context::SessionState;
use datafusion::prelude::DataFrame;

use super::columns::moment;
use super::named::read_day;
use crate::config::TransformConfig;
use crate::error::{LakeError, LakeErrorKind, Result};
use crate::query::{CATALOG, SCHEMA};

/// When a version began.
pub const VALID_FROM: &str = "valid_from";
/// When it ended; null while it has not.
pub const VALID_TO: &str = "valid_to";
/// Whether it has not ended.
pub const IS_CURRENT: &str = "is_current";
/// The name under which a run's result is read; no declared table can have it.
const INCOMING: &str = " incoming";
const BEGIN: &str = " begin";

/// The columns of a history over results with these columns.
///
/// # Errors
/// `Config` when the key is missing or a column has a name that the history needs.
pub fn columns(config: &TransformConfig, result: &Schema) -> Result<SchemaRef> {
    if config.key.is_empty() {
        return Err(LakeError::config("scd2 needs the columns that tell rows apart: set key"));
    }
    if let Some(key) = config.key.iter().find(|key| result.index_of(key).is_err()) {
        return Err(LakeError::config(format!("key column {key} is not in the result: select it")));
    }
    if let Some(taken) = [VALID_TO, IS_CURRENT].iter().find(|name| result.index_of(name).is_ok()) {
        return Err(LakeError::config(format!("the history makes the column {taken} itself: leave it out of sql")));
    }
    let given = result.fields().iter().filter(|field| field.name() != VALID_FROM).cloned();
    let own = [
        Field::new(VALID_FROM, moment(), true),
        Field::new(VALID_TO, moment(), true),
        Field::new(IS_CURRENT, DataType::Boolean, true),
    ];
    Ok(Arc::new(Schema::new(given.chain(own.map(Arc::new)).collect::<Vec<_>>())))
}

/// When the versions of a run without a column `valid_from` begin: the day of its parameters, else now.
///
/// # Errors
/// `Refused` for a day that cannot be read.
pub fn begin_of(parameters: &BTreeMap<String, String>, now: TimestampMs) -> Result<TimestampMs> {
    let given = ["day", "from"].iter().find_map(|name| parameters.get_key_value(*name));
    let Some((name, text)) = given else { return Ok(now) };
    let midnight = read_day(name, text)?.and_time(NaiveTime::MIN);
    Ok(midnight.and_utc().timestamp_millis())
}

/// The rows of the history after a run: `result` merged into the table as `state` sees it.
///
/// # Errors
/// `Refused` when a key is null or twice in the result.
pub async fn merge(
    state: SessionState,
    config: &TransformConfig,
    (schema, result): (SchemaRef, Vec<RecordBatch>),
    begin_ms: TimestampMs,
) -> Result<DataFrame> {
    let bug = |e: datafusion::error::DataFusionError| LakeError::bug(format!("the history cannot be merged: {e}"));
    let incoming = MemTable::try_new(schema.clone(), vec![result]).map_err(bug)?;
    let public = state.catalog_list().catalog(CATALOG).and_then(|catalog| catalog.schema(SCHEMA));
    let public = public.ok_or_else(|| LakeError::bug("a session without its schema"))?;
    public.register_table(INCOMING.to_owned(), Arc::new(incoming)).map_err(bug)?;
    let count = |sql: String| {
        let state = state.clone();
        async move {
            let plan = state.create_logical_plan(&sql).await?;
            DataFrame::new(state, plan).count().await
        }
    };
    let keys = list(&config.key, "");
    let empty = config.key.iter().map(|key| format!("{} IS NULL", quoted(key))).collect::<Vec<_>>().join(" OR ");
    let nulls = count(format!("SELECT 1 FROM {} WHERE {empty}", quoted(INCOMING))).await.map_err(bug)?;
    let twice = format!("SELECT 1 FROM {} GROUP BY {keys} HAVING count(*) > 1", quoted(INCOMING));
    let twice = count(twice).await.map_err(bug)?;
    if nulls + twice > 0 {
        let message = format!(
            "{}: {nulls} rows without a key and {twice} keys with more than one row: scd2 takes one row per key {keys}",
            config.name
        );
        return Err(LakeError::new(LakeErrorKind::Refused, message));
    }
    let sql = merge_sql(config, &schema, begin_ms);
    let plan = state.create_logical_plan(&sql).await.map_err(bug)?;
    Ok(DataFrame::new(state, plan))
}

fn merge_sql(config: &TransformConfig, schema: &Schema, begin_ms: TimestampMs) -> String {
    let moment = |text: String| format!("arrow_cast({text}, '{}')", moment());
    let begin = match schema.index_of(VALID_FROM) {
        Ok(_) => moment(quoted(VALID_FROM)),
        Err(_) => moment(format!("to_timestamp_millis({begin_ms})")),
    };
    let names: Vec<String> =
        schema.fields().iter().map(|field| field.name().clone()).filter(|name| name != VALID_FROM).collect();
    let (table, incoming) = (quoted(&config.name), quoted(INCOMING));
    let (from, to, current, start) = (quoted(VALID_FROM), quoted(VALID_TO), quoted(IS_CURRENT), quoted(BEGIN));
    let same = |key: &String| format!("o.{0} = n.{0}", quoted(key));
    let on = config.key.iter().map(same).collect::<Vec<_>>().join(" AND ");
    let tracked = names.iter().filter(|name| !config.key.contains(name));
    // in parentheses: the SQL parser takes what follows FROM as one expression
    let changed: Vec<String> = tracked.map(|name| format!("(o.{0} IS DISTINCT FROM n.{0})", quoted(name))).collect();
    let changed = if changed.is_empty() { "FALSE".to_owned() } else { changed.join(" OR ") };
    let newer = format!("COALESCE(n.{start} > o.{from} AND ({changed}), FALSE)");
    let corrected = |name: &String| {
        let name = quoted(name);
        format!("CASE WHEN n.{start} = o.{from} THEN n.{name} ELSE o.{name} END AS {name}")
    };
    let corrected = names.iter().map(corrected).collect::<Vec<_>>().join(", ");
    let (old, new) = (list(&names, ""), list(&names, "n."));
    let never = moment("NULL".to_owned());
    format!(
        "WITH n AS (SELECT *, {begin} AS {start} FROM {incoming}), o AS (SELECT * FROM {table} WHERE {current}) \
         SELECT {old}, {from}, {to}, {current} FROM {table} WHERE NOT {current} \
         UNION ALL \
         SELECT {corrected}, o.{from}, CASE WHEN {newer} THEN n.{start} END AS {to}, NOT {newer} AS {current} \
         FROM o LEFT JOIN n ON {on} \
         UNION ALL \
         SELECT {new}, n.{start} AS {from}, {never} AS {to}, TRUE AS {current} \
         FROM n LEFT JOIN o ON {on} WHERE o.{current} IS NULL OR {newer}"
    )
}

fn list(names: &[String], prefix: &str) -> String {
    names.iter().map(|name| format!("{prefix}{}", quoted(name))).collect::<Vec<_>>().join(", ")
}

/// A name as SQL takes it, whatever is in it.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
