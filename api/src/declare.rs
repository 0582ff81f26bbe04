//! Statements of `POST /v1/sql` that change what is declared: streams, tables and views. The engine decides and applies;
//! here stands who may, what else would be broken, and who else must follow: tokens before a new name can be read, the
//! lake after.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use axum::http::StatusCode;
use engine::{Change, Command, Inferred, Mistake, Script, Surroundings, ViewInfo};
use lake::SYSTEM_TABLES;
use serde_json::{Value, json};

use crate::access::{Caller, Need, problem};
use crate::app::App;
use crate::describe;
use crate::error::{Answer, Problem};
use crate::lineage::mentions;
use crate::output::Table;
use crate::panels::Source;

/// The answer to a statement about declarations; none for a query.
pub async fn answer(app: &Arc<App>, caller: &Caller, (sql, read_only): (&str, bool)) -> Answer<Option<Table>> {
    match engine::command(sql) {
        Ok(None) => Ok(None),
        Ok(Some(Command::Change(_))) if read_only => Err(Problem::new(
            StatusCode::CONFLICT,
            "statement-changes",
            "the statement changes what is declared",
            "it was sent with read_only: send it without, if it is to be applied",
        )),
        Ok(Some(Command::Change(script))) => {
            may_change(caller)?;
            tracing::info!(token = caller.name(), sql, "declarations are being changed");
            change(app, script).await.map(Some)
        }
        Ok(Some(Command::Show(kind))) => describe::list(app, caller, kind).map(Some),
        Ok(Some(Command::Describe(name))) => describe::one(app, caller, &name),
        Ok(Some(Command::ExplainNew(script))) => {
            may_change(caller)?;
            let (script, inferred) = app.engine.infer(script).await.map_err(|mistakes| refused(&mistakes))?;
            let change = decided(app, &script).await?;
            let columns: Vec<_> = inferred.iter().flat_map(Inferred::explain).collect();
            describe::steps(if columns.is_empty() { change.explain() } else { columns }).map(Some)
        }
        Ok(Some(Command::Explain(name))) => describe::explain(app, caller, &name).map(Some),
        Err(mistakes) => {
            may_change(caller)?;
            Err(refused(&mistakes))
        }
    }
}

fn may_change(caller: &Caller) -> Answer<()> {
    caller.may(Need::Admin).map_err(|refusal| problem(&refusal))
}

/// What a script would change, when it may.
async fn decided(app: &App, script: &Script) -> Answer<Change> {
    let turn = app.engine.turn().await;
    let (taken, readers) = (|name: &str| taken(app, name), |name: &str| readers(app, name));
    let outside = Surroundings { taken: &taken, readers: &readers };
    let change = turn.decide(script, &outside).map_err(|mistakes| refused(&mistakes))?;
    check_beside(app, &change)?;
    Ok(change)
}

async fn change(app: &Arc<App>, script: Script) -> Answer<Table> {
    // Before the turn is taken: others may change something while records are read.
    let (script, inferred) = app.engine.infer(script).await.map_err(|mistakes| refused(&mistakes))?;
    let change = decided(app, &script).await?;
    let (app, made) = (app.clone(), change.made());
    let all = async move {
        app.access.follow(&app.engine, &app.lake, &made);
        let done = change.apply().await;
        app.lake.follow_streams(app.engine.streams()).await?;
        app.access.follow(&app.engine, &app.lake, &[]);
        Ok::<_, Problem>(done?)
    };
    // To the end, also when the client goes away.
    let done = tokio::spawn(all).await.map_err(|error| Problem::internal(error.to_string()))??;
    let rows = done.iter().flat_map(|done| {
        let kind = if done.kind == engine::Kind::View { "materialized view" } else { done.kind.word() };
        let of_it = inferred.iter().filter(move |inferred| inferred.is_of(done)).flat_map(Inferred::lines);
        std::iter::once([kind.to_owned(), done.name.clone(), done.result.to_owned()]).chain(of_it)
    });
    texts(&["kind", "name", "result"], rows.map(|row| row.map(Some).to_vec()).collect())
}

/// What the engine cannot know: whether files and readers fit what will be.
fn check_beside(app: &App, change: &Change) -> Answer<()> {
    app.lake.check_streams(change.streams()).map_err(|error| Problem::bad_request(error.message))?;
    // Files name the columns that are declared, also while a former version is served.
    let views = app.engine.declared_views();
    for after in change.replaced() {
        let Some(before) = views.iter().find(|view| view.name == after.name) else { continue };
        let readers = readers(app, &after.name);
        if !readers.is_empty() && !same_columns(before, &after) {
            return Err(Problem::bad_request(format!(
                "the columns of {} are read by {}: keep names, types, keys and window, or change these first",
                after.name,
                readers.join(", ")
            )));
        }
    }
    Ok(())
}

fn same_columns(before: &ViewInfo, after: &ViewInfo) -> bool {
    before.schema.fields() == after.schema.fields() && before.keys == after.keys && before.windows == after.windows
}

/// What has this name, outside the engine.
fn taken(app: &App, name: &str) -> Option<String> {
    if SYSTEM_TABLES.contains(&name) {
        return Some("one of Millpond's own tables".to_owned());
    }
    let written = app.lake.transforms().into_iter().any(|transform| transform.config.name == name);
    written.then(|| format!("the transform {name}"))
}

/// Who reads a stream, table or view, outside the engine.
fn readers(app: &App, name: &str) -> Vec<String> {
    let mut readers = BTreeSet::new();
    for (dashboard, panel) in app.dashboards.values().flat_map(|one| one.panels.iter().map(move |panel| (one, panel))) {
        let reads = match &panel.source {
            Source::View(shape) => shape.view == name,
            Source::Sql(question) => mentions(question.declared(), name),
        };
        if reads {
            readers.insert(format!("panel {:?} of dashboard {}", panel.config.title, dashboard.config.name));
        }
    }
    let ids = ["stream", "table", "view"].map(|kind| format!("{kind}:{name}"));
    let arrows = app.declared.arrows.iter().filter(|(from, _)| ids.contains(from)).map(|(_, to)| to);
    let statements = app.declared.statements.iter().filter(|(_, sql)| mentions(sql, name)).map(|(to, _)| to);
    // What writes topics is a derived stream, which the engine knows.
    let declared = arrows.chain(statements).filter(|to| !to.starts_with("topic:") && !ids.contains(to));
    readers.extend(declared.map(|to| to.replacen(':', " ", 1)));
    readers.extend(app.models.naming(|sql| mentions(sql, name)).map(|model| format!("model {model}")));
    readers.extend(app.access.filters_of(name));
    readers.into_iter().collect()
}

/// All mistakes of a script, in one answer.
fn refused(mistakes: &[Mistake]) -> Problem {
    let lines: Vec<String> = mistakes.iter().map(Mistake::to_string).collect();
    let list: Value = mistakes
        .iter()
        .map(|mistake| json!({"line": mistake.line, "column": mistake.column, "message": mistake.message}))
        .collect();
    Problem::new(StatusCode::BAD_REQUEST, "statement-refused", "the statement is refused", lines.join("\n"))
        .with("mistakes", list)
}

/// Rows of texts.
pub fn texts(names: &[&str], rows: Vec<Vec<Option<String>>>) -> Answer<Table> {
    let fields: Vec<Field> = names.iter().map(|name| Field::new(*name, DataType::Utf8, true)).collect();
    let schema = Arc::new(Schema::new(fields));
    let column =
        |at: usize| -> ArrayRef { Arc::new(rows.iter().map(|row| row[at].as_deref()).collect::<StringArray>()) };
    let columns = (0..names.len()).map(column).collect();
    let rows = RecordBatch::try_new(schema.clone(), columns).map_err(|error| Problem::internal(error.to_string()))?;
    Ok(Table { before: Vec::new(), schema, rows: vec![rows], after: vec![("offsets", json!({}))] })
}
