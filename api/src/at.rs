//! Reading as of earlier offsets: an answer carries which it stands for, and is given again when it is asked for with these.

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::{ReadRequest, ViewInfo};
use lake::{Offsets, SqlAnswer, SqlRequest};
use serde_json::{Value, json};

use crate::access::Caller;
use crate::app::App;
use crate::error::{Answer, Problem};

/// `offsets` as answers carry them: by topic and partition, the next one.
pub type At = BTreeMap<String, BTreeMap<i32, i64>>;

/// What the parameter `at` says.
///
/// # Errors
/// It is not what an answer carries.
pub fn parse(text: &str) -> Answer<At> {
    serde_json::from_str(text).map_err(|error| {
        Problem::bad_request(format!(
            "at={text}: {error}: send the offsets of an answer as they are, such as {{\"listens\":{{\"0\":41}}}}"
        ))
    })
}

/// The offsets as the lake takes them.
pub fn offsets(at: At) -> Arc<Offsets> {
    Arc::new(at.into_iter().map(|(topic, ends)| (topic.into(), ends)).collect())
}

/// The rows of a view as they were.
///
/// # Errors
/// Those of SQL.
pub async fn read(app: &App, caller: &Caller, (view, request): (&ViewInfo, &ReadRequest), at: At) -> Answer<SqlAnswer> {
    let query = lake::past_view_query(view, request, offsets(at))?;
    Ok(app.lake.sql(SqlRequest { reader: caller.reader(), ..query }).await?)
}

/// What an answer says of what is gone since.
pub fn notes(notes: &[String]) -> Option<(&'static str, Value)> {
    (!notes.is_empty()).then(|| ("notes", json!(notes)))
}
