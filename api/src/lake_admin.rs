//! `/v1/lake/ddl` and `/v1/lake/archive`: the lake's tables as Hive and Spark declare them, and the life of old slices.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use lake::Dialect;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::{Answer, Problem};
use crate::params::Params;
use crate::routes::{Doc, Routes};

const DDL_QUERY: &[(&str, &str)] = &[("dialect", "hive or spark"), ("table", "one table; without it, all of them")];

/// Adds this file's routes.
pub fn routes(routes: Routes) -> Routes {
    let ddl = Doc::new("CREATE TABLE statements with which Hive or Spark read the lake").query(DDL_QUERY);
    let archive = Doc::new("Moves old slices to the archive, as archive_after and expire_after of their tables say");
    routes.get("/v1/lake/ddl", ddl, self::ddl).post("/v1/lake/archive", archive, self::archive)
}

async fn ddl(State(app): State<Arc<App>>, uri: Uri) -> Answer<Json<Value>> {
    let mut params = Params::of(&uri)?;
    let (dialect, table) = (params.take("dialect")?, params.take("table")?);
    params.finish()?;
    let dialect = Dialect::parse(dialect.as_deref().unwrap_or("hive"))
        .ok_or_else(|| Problem::bad_request("dialect must be hive or spark, for example ?dialect=spark"))?;
    let tables = app.lake.ddl(dialect, table.as_deref())?;
    let tables: Vec<Value> =
        tables.into_iter().map(|ddl| json!({"table": ddl.table, "statements": ddl.statements})).collect();
    Ok(Json(json!({"tables": tables})))
}

async fn archive(State(app): State<Arc<App>>, uri: Uri) -> Answer<Json<Value>> {
    Params::of(&uri)?.finish()?;
    let report = app.lake.archive(app.clock().now_ms()).await?;
    Ok(Json(json!({
        "slices": report.slices,
        "files": report.files,
        "bytes": report.bytes,
        "expired_files": report.expired_files,
        "expired_rows": report.expired_rows,
    })))
}
