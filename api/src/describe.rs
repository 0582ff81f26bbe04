//! `SHOW STREAMS`, `SHOW VIEWS`, `DESCRIBE name`, `EXPLAIN MATERIALIZED VIEW name`: what is declared, as rows.

use std::sync::Arc;

use engine::{
    DerivedStatus, FillStatus, Kind, Stream, StreamFormat, SuccessorStatus, TableStatus, ViewInfo, ViewStatus, Windows,
};

use crate::access::Caller;
use crate::app::App;
use crate::config::value::duration_text;
use crate::declare::texts;
use crate::error::Answer;
use crate::output::{Table, sql_type};
use crate::status::derived_word;
use crate::views::{find, state_word};

/// Rows of item, name and value.
type Lines = Vec<Vec<Option<String>>>;

fn some(text: impl ToString) -> Option<String> {
    Some(text.to_string())
}

/// All streams, or all views, that the caller sees.
pub fn list(app: &App, caller: &Caller, kind: Kind) -> Answer<Table> {
    match kind {
        Kind::View => views(app, caller),
        Kind::Stream | Kind::Table => streams(app, caller),
    }
}

fn streams(app: &App, caller: &Caller) -> Answer<Table> {
    let statuses = app.engine.stream_status();
    let seen = app.engine.streams().into_iter().filter(|stream| caller.sees(stream.name()));
    let row = |stream: Arc<Stream>| {
        let status = statuses.iter().find(|status| status.stream == stream.name());
        let derived = status.and_then(|status| status.derived.as_ref());
        vec![
            some(stream.name()),
            some(stream.topic()),
            some(stream.event_time()),
            derived.map(|derived| derived.sources.join(", ")),
            status.map(|status| status.rejected.to_string()),
            app.engine.declared_in(stream.name()),
        ]
    };
    texts(&["stream", "topic", "event_time", "computed_from", "rejected", "declared"], seen.map(row).collect())
}

fn views(app: &App, caller: &Caller) -> Answer<Table> {
    let statuses = app.engine.status();
    let seen = app.engine.views().into_iter().filter(|view| caller.sees(&view.name));
    let row = |view: ViewInfo| {
        let status = statuses.iter().find(|status| status.view == view.name);
        vec![
            some(&view.name),
            some(&view.stream),
            view.windows.map(window_text),
            some(view.emit.word()),
            status.map(|status| state_word(status).to_owned()),
            status.map(|status| status.lag_records.to_string()),
            app.engine.declared_in(&view.name),
        ]
    };
    texts(&["view", "stream", "window", "emit", "state", "lag_records", "declared"], seen.map(row).collect())
}

/// One stream, table or view; none when the engine has no such name.
pub fn one(app: &App, caller: &Caller, name: &str) -> Answer<Option<Table>> {
    let lines = if let Some(stream) = app.engine.streams().iter().find(|stream| stream.name() == name) {
        stream_lines(app, stream)
    } else if let Some(table) = app.engine.tables().iter().find(|table| table.table == name) {
        table_lines(app, table)
    } else if let Some(view) = app.engine.views().iter().find(|view| view.name == name) {
        view_lines(app, view)
    } else {
        return Ok(None);
    };
    caller.check_seen(name)?;
    texts(&["item", "name", "value"], lines).map(Some)
}

fn property(name: &str, value: impl ToString) -> Vec<Option<String>> {
    vec![some("property"), some(name), some(value)]
}

fn column(name: &str, kind: String) -> Vec<Option<String>> {
    vec![some("column"), some(name), Some(kind)]
}

/// Where and how it was declared.
fn origin(app: &App, kind: Kind, name: &str, sql: Option<&str>, lines: &mut Lines) {
    lines.extend(app.engine.declared_in(name).map(|place| property("declared", place)));
    let by_sql = app.engine.declared_by_sql(kind, name);
    lines.extend(by_sql.as_deref().or(sql).map(|sql| property("definition", sql)));
}

fn stream_lines(app: &App, stream: &Stream) -> Lines {
    let config = stream.config();
    let mut lines: Lines = stream
        .schema()
        .fields()
        .iter()
        .map(|field| {
            let kind = sql_type(field.data_type());
            column(field.name(), if field.is_nullable() { kind } else { format!("{kind} NOT NULL") })
        })
        .collect();
    let format = match config.format {
        StreamFormat::Json => "json",
        StreamFormat::Avro => "avro",
        StreamFormat::JsonSchema => "json_schema",
        StreamFormat::Protobuf => "protobuf",
        StreamFormat::Csv => "csv",
    };
    lines.extend([
        property("kind", if config.sql.is_some() { "derived stream" } else { "stream" }),
        property("topic", stream.topic()),
        property("format", format),
        property("event_time", stream.event_time()),
        property("lateness", duration_text(config.lateness_ms)),
        property("idle_timeout", duration_text(config.idle_timeout_ms)),
        property("max_ahead", duration_text(config.max_ahead_ms)),
    ]);
    if config.format == StreamFormat::Csv {
        lines.push(property("delimiter", config.csv.delimiter));
        lines.push(property("null_text", &config.csv.null_text));
    }
    if let Some(schema) = &config.schema {
        lines.push(property("schema", &schema.text));
        lines.extend(schema.message.iter().map(|message| property("message", message)));
    }
    lines.extend(config.checks.iter().map(|check| vec![some("check"), some(&check.name), some(&check.sql)]));
    let status = app.engine.stream_status().into_iter().find(|status| status.stream == stream.name());
    lines.extend(status.and_then(|status| status.derived).iter().flat_map(derived_lines));
    origin(app, Kind::Stream, stream.name(), config.sql.as_deref(), &mut lines);
    lines
}

/// How a derived stream stands.
fn derived_lines(status: &DerivedStatus) -> Lines {
    let mut lines = vec![property("state", derived_word(status)), property("lag_records", status.lag_records)];
    lines.extend(fill_lines(status.fill_left, status.fill.as_ref()));
    lines
}

fn fill_lines(left: Option<i64>, fill: Option<&FillStatus>) -> Lines {
    let mut lines: Lines = left.map(|left| property("fill_left", left)).into_iter().collect();
    lines.extend(fill.map(|fill| property("fill_rows_per_s", fill.rows_per_s)));
    lines.extend(fill.and_then(|fill| Some(property("fill_waits_for", fill.waits_for.as_ref()?))));
    lines
}

fn table_lines(app: &App, table: &TableStatus) -> Lines {
    let fields = table.schema.fields().iter();
    let mut lines: Lines = fields.map(|field| column(field.name(), sql_type(field.data_type()))).collect();
    lines.extend([property("kind", "table"), property("key", &table.key)]);
    lines.extend(table.topic.iter().map(|topic| property("topic", topic)));
    lines.push(property("rows", table.rows));
    origin(app, Kind::Table, &table.table, None, &mut lines);
    lines
}

fn view_lines(app: &App, view: &ViewInfo) -> Lines {
    let fields = view.schema.fields().iter();
    let mut lines: Lines = fields
        .map(|field| {
            let kind = sql_type(field.data_type());
            column(field.name(), if view.keys.contains(field.name()) { format!("{kind} KEY") } else { kind })
        })
        .collect();
    lines.extend([property("kind", "materialized view"), property("stream", &view.stream)]);
    lines.push(property("topic", &view.name));
    lines.extend(view.windows.map(|window| property("window", window_text(window))));
    lines.push(property("emit", view.emit.word()));
    let status = app.engine.status().into_iter().find(|status| status.view == view.name);
    lines.extend(status.iter().flat_map(status_lines));
    origin(app, Kind::View, &view.name, Some(&view.sql), &mut lines);
    lines
}

fn status_lines(status: &ViewStatus) -> Lines {
    let mut lines = vec![property("state", state_word(status)), property("lag_records", status.lag_records)];
    lines.extend(fill_lines(status.fill_left, status.fill.as_ref()));
    lines.extend(status.successor.iter().flat_map(successor_lines));
    lines
}

/// The version that is filled beside the one that is served.
fn successor_lines(successor: &SuccessorStatus) -> Lines {
    let mut lines = vec![
        property("successor", &successor.sql),
        property("successor_left", successor.left),
        property("successor_rows_per_s", successor.fill.rows_per_s),
    ];
    lines.extend(successor.fill.waits_for.iter().map(|why| property("successor_waits_for", why)));
    lines.extend(successor.error.iter().map(|error| property("successor_error", error)));
    lines
}

/// How a view is computed, step by step, as it runs.
pub fn explain(app: &App, caller: &Caller, name: &str) -> Answer<Table> {
    find(app, name)?;
    caller.check_seen(name)?;
    steps(app.engine.explain(name)?)
}

/// Steps as rows.
pub fn steps(steps: Vec<(&'static str, String)>) -> Answer<Table> {
    let rows = steps.into_iter().map(|(step, what)| vec![some(step), Some(what)]).collect();
    texts(&["step", "what"], rows)
}

fn window_text(windows: Windows) -> String {
    let width = duration_text(windows.nominal_ms());
    match (windows, windows.step_ms()) {
        (Windows::Hop(_), Some(step_ms)) => format!("HOP of {width} every {}", duration_text(step_ms)),
        (Windows::Session(_), _) => format!("SESSION with a gap of {width}"),
        _ => format!("TUMBLE of {width}"),
    }
}
