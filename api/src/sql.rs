//! `POST /v1/sql`: one statement that reads topics, views and the lake, or a script that changes what is declared.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, Uri};
use engine::Command;
use lake::SqlRequest;
use serde::Deserialize;
use serde_json::Value;

use crate::access::{Caller, Need};
use crate::app::App;
use crate::at::{self, At};
use crate::declare;
use crate::error::{Answer, Problem};
use crate::export;
use crate::output::{Format, Table, offsets_json};
use crate::params::Params;
use crate::queries;
use crate::routes::{self, Doc, Routes};
use crate::views::cut;

const QUERY: &[(&str, &str)] = &[("format", "json, ndjson, csv, xlsx or arrow; else the Accept header decides")];

/// Adds this file's routes.
pub fn routes(routes: Routes) -> Routes {
    let doc = Doc::new("Runs one SQL query; parameters are $1, $2, …; with \"at\": the offsets of an earlier answer, as of then. CREATE, DROP, PAUSE and RESUME of streams, tables and views need the scope admin")
        .need(Need::Read)
        .query(QUERY)
        .body(r#"{"sql": "SELECT genre, count(*) AS plays FROM listens WHERE country = $1 GROUP BY genre", "params": ["FR"]}"#)
        .answers(export::ROW_TYPES);
    routes.post("/v1/sql", doc, run)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SqlBody {
    sql: String,
    #[serde(default)]
    params: Vec<Value>,
    limit: Option<usize>,
    /// Refuses what changes something: the page sends it for a statement that may come from a link.
    #[serde(default)]
    read_only: bool,
    /// The `offsets` of an earlier answer: what is named is read as it was then.
    at: Option<At>,
}

async fn run(
    State(app): State<Arc<App>>,
    caller: Caller,
    uri: Uri,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Answer {
    let mut params = Params::of(&uri)?;
    let format = Format::choose(params.take("format")?.as_deref(), &headers)?;
    params.finish()?;
    let body = routes::body(body, &app)?;
    let request: SqlBody = serde_json::from_slice(&body).map_err(|e| {
        Problem::bad_request(format!(
            "the body is not as it should be: {e}: send {{\"sql\": \"SELECT …\", \"params\": [], \"limit\": 100}}"
        ))
    })?;
    let most = app.sql_rows_max;
    let limit = match request.limit {
        Some(limit) if limit > most => {
            return Err(Problem::bad_request(format!(
                "limit {limit}: at most {most} rows are answered: write LIMIT and OFFSET, or raise http.rows_max and lake.sql.rows"
            )));
        }
        limit => limit.unwrap_or(most),
    };
    if request.at.is_some() && matches!(engine::command(&request.sql), Ok(Some(Command::Change(_)))) {
        let message = "at: the statement changes what is declared, as of now alone: send it without";
        return Err(Problem::bad_request(message));
    }
    if let Some(table) = declare::answer(&app, &caller, (&request.sql, request.read_only)).await? {
        return table.respond(format);
    }
    // One row more than fits tells a cut answer from a whole one.
    let request = SqlRequest {
        sql: request.sql,
        params: request.params,
        row_limit: limit + 1,
        reader: caller.reader(),
        at: request.at.map(at::offsets),
        ..SqlRequest::default()
    };
    let answer = app.lake.sql(request).await?;
    let mut rows = answer.rows;
    let mut after = vec![("offsets", offsets_json(&answer.offsets))];
    // What is left out of the reading tells of rows that a filter hides.
    if caller.reader().is_none_or(|reader| reader.filters.is_empty()) {
        after.push(("scanned", queries::scanned_json(answer.scanned)));
    }
    after.extend(at::notes(&answer.notes));
    if cut(&mut rows, limit) {
        after.push(("truncated", true.into()));
    }
    let table = Table { before: Vec::new(), schema: answer.schema, rows, after };
    tokio::task::spawn_blocking(move || table.respond(format)).await.map_err(|e| Problem::internal(e.to_string()))?
}
