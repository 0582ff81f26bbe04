//! `/v1/catalog`: what data there is, who answers for it, how fresh it is, and the way from topics to charts.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use serde_json::{Value, json};

use crate::access::Caller;
use crate::app::{App, Dashboard};
use crate::config::NoteConfig;
use crate::error::Answer;
use crate::lineage::mentions;
use crate::output::{columns, time_text};
use crate::panels::{Source, ask};
use crate::params::Params;
use crate::routes::{Doc, Routes};
use crate::rows::Rows;
use crate::topics;

/// Most columns of tables that are listed.
const COLUMNS_MAX: usize = 20_000;
/// How old the list of tables may be, in ms.
const TABLES_AGE_MS: u64 = 5_000;
/// Every table that SQL knows, with its columns.
const TABLES: &str = "SELECT table_name, column_name, data_type FROM information_schema.columns \
                      WHERE table_schema <> 'information_schema' ORDER BY table_name, ordinal_position";

/// Adds this file's routes.
pub fn routes(routes: Routes) -> Routes {
    routes.get(
        "/v1/catalog",
        Doc::new("From sources to panels: topics, streams, views, tables, jobs, sinks, alerts and dashboards with owners and lineage"),
        catalog,
    )
}

async fn catalog(State(app): State<Arc<App>>, caller: Caller, uri: Uri) -> Answer<Json<Value>> {
    Params::of(&uri)?.finish()?;
    let mut catalog = Catalog { app: &app, caller: &caller, entries: Vec::new(), lineage: Vec::new() };
    catalog.topics();
    catalog.streams();
    catalog.views();
    catalog.lake();
    catalog.tables().await?;
    catalog.declared();
    catalog.dashboards();
    catalog.drop_loose_arrows();
    Ok(Json(json!({"entries": catalog.entries, "lineage": catalog.lineage})))
}

/// The catalog being put together: entries `{kind, name, …}`, and arrows between `kind:name` and `kind:name`.
struct Catalog<'a> {
    app: &'a App,
    caller: &'a Caller,
    entries: Vec<Value>,
    lineage: Vec<Value>,
}

impl Catalog<'_> {
    fn note(&self, list: &str, name: &str) -> NoteConfig {
        self.app.notes.iter().find(|note| note.list == list && note.name == name).cloned().unwrap_or_default()
    }

    /// Adds an entry, if the caller sees what it is about.
    fn add(&mut self, (kind, list): (&str, &str), name: &str, more: Value) {
        let seen = match kind {
            "dashboard" => true,
            "topic" | "files" => self.caller.names(name),
            _ => self.caller.sees(name),
        };
        if !seen {
            return;
        }
        let note = self.note(list, name);
        let mut entry = json!({"kind": kind, "name": name, "owner": note.owner, "description": note.description});
        if let (Some(entry), Value::Object(more)) = (entry.as_object_mut(), more) {
            for (key, value) in more {
                // What a declaration says of itself is not wiped out by what nobody noted.
                if !value.is_null() || !entry.contains_key(&key) {
                    entry.insert(key, value);
                }
            }
        }
        self.entries.push(entry);
    }

    fn arrow(&mut self, from: String, to: String) {
        let arrow = json!([from, to]);
        if !self.lineage.contains(&arrow) {
            self.lineage.push(arrow);
        }
    }

    /// Arrows from and to what is not listed say nothing.
    fn drop_loose_arrows(&mut self) {
        let listed: Vec<Value> = self
            .entries
            .iter()
            .filter_map(|entry| Some(json!(format!("{}:{}", entry["kind"].as_str()?, entry["name"].as_str()?))))
            .collect();
        self.lineage.retain(|arrow| listed.contains(&arrow[0]) && listed.contains(&arrow[1]));
    }

    fn topics(&mut self) {
        for topic in self.app.broker.catalog().topics().iter().filter(|topic| !topic.is_internal()) {
            let summary = topics::summary(self.app, topic);
            let more = json!({
                "records": summary["records"],
                "bytes": summary["bytes"],
                "partitions": summary["partitions"],
                "fresh_as_of": summary["newest"],
            });
            self.add(("topic", "topics"), topic.name(), more);
        }
    }

    fn streams(&mut self) {
        let statuses = self.app.engine.stream_status();
        for stream in self.app.engine.streams() {
            let (name, topic) = (stream.name().to_owned(), stream.topic().to_string());
            let watermark =
                statuses.iter().find(|status| status.stream == name).and_then(|status| status.event_watermark);
            let mut list = columns(&stream.schema());
            for column in list.as_array_mut().into_iter().flatten() {
                let note = self.note("columns", &format!("{name}.{}", column["name"].as_str().unwrap_or_default()));
                column["description"] = json!(note.description);
            }
            let more =
                json!({"columns": list, "event_time": stream.event_time(), "fresh_as_of": watermark.map(time_text)});
            self.add(("stream", "streams"), &name, more);
            self.arrow(format!("topic:{topic}"), format!("stream:{name}"));
            let status = statuses.iter().find(|status| status.stream == name);
            if let Some(derived) = status.and_then(|status| status.derived.as_ref()) {
                derived
                    .sources
                    .iter()
                    .for_each(|source| self.arrow(format!("stream:{source}"), format!("topic:{topic}")));
                derived.tables.iter().for_each(|table| self.arrow(format!("table:{table}"), format!("topic:{topic}")));
            }
        }
        for table in self.app.engine.tables() {
            table.topic.iter().for_each(|topic| self.arrow(format!("topic:{topic}"), format!("table:{}", table.table)));
        }
    }

    fn views(&mut self) {
        let statuses = self.app.engine.status();
        for info in self.app.engine.views() {
            let watermark =
                statuses.iter().find(|status| status.view == info.name).and_then(|status| status.event_watermark);
            let more = json!({
                "columns": columns(&info.schema),
                "keys": info.keys,
                "window_ms": info.windows.map(engine::Windows::nominal_ms),
                "sql": info.sql,
                "fresh_as_of": watermark.map(time_text),
            });
            self.add(("view", "views"), &info.name, more);
            self.arrow(format!("stream:{}", info.stream), format!("view:{}", info.name));
        }
    }

    /// What settles as files.
    fn lake(&mut self) {
        for table in self.app.lake.status().tables {
            let topic = table.topic.to_string();
            let more = json!({
                "files": table.files,
                "rows": table.rows,
                "bytes": table.bytes,
                "fresh_as_of": table.last_flush_ms.map(time_text),
                "table": table.table,
            });
            self.add(("files", "tables"), &topic, more);
            self.arrow(format!("stream:{}", table.table), format!("files:{topic}"));
        }
    }

    /// Tables that SQL knows and that are neither streams nor views.
    async fn tables(&mut self) -> Answer<()> {
        let asked = ask(self.app, (TABLES, Vec::new()), (COLUMNS_MAX, TABLES_AGE_MS), self.caller.reader()).await?;
        let mut tables: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for row in Rows::of(&asked.schema, &asked.rows)?.rows {
            if let [Value::String(table), column, kind] = row.as_slice() {
                tables.entry(table.clone()).or_default().push(json!({"name": column, "type": kind}));
            }
        }
        for (name, columns) in tables {
            if !["stream", "view"].into_iter().any(|kind| self.has(kind, &name)) {
                self.add(("table", "tables"), &name, json!({"columns": columns}));
            }
        }
        Ok(())
    }

    /// What works beside the streams, and what reads and feeds what.
    fn declared(&mut self) {
        let app = self.app;
        for (kind, name, more) in &app.declared.entries {
            self.add((kind, ""), name, more.clone());
        }
        for (from, to) in &app.declared.arrows {
            self.arrow(from.clone(), to.clone());
        }
        for (to, sql) in &app.declared.statements {
            let own = to.split_once(':').map_or("", |(_, name)| name);
            let read =
                self.named_in(sql).into_iter().filter(|id| id.split_once(':').is_none_or(|(_, name)| name != own));
            for from in read.collect::<Vec<String>>() {
                self.arrow(from, to.clone());
            }
        }
    }

    fn has(&self, kind: &str, name: &str) -> bool {
        self.entries.iter().any(|entry| entry["kind"] == kind && entry["name"] == name)
    }

    fn dashboards(&mut self) {
        let app = self.app;
        for dashboard in app.order.iter().filter_map(|name| app.dashboards.get(name)) {
            self.dashboard(dashboard);
        }
    }

    fn dashboard(&mut self, dashboard: &Dashboard) {
        let config = &dashboard.config;
        let more = json!({
            "title": config.title,
            "owner": config.owner,
            "description": config.description,
            "system": config.system,
            "panels": dashboard.panels.iter().map(|panel| panel.config.title.clone()).collect::<Vec<String>>(),
        });
        self.add(("dashboard", "dashboards"), &config.name, more);
        for panel in &dashboard.panels {
            let read = match &panel.source {
                Source::View(shape) => vec![format!("view:{}", shape.view)],
                Source::Sql(question) => self.named_in(question.declared()),
            };
            let name = format!("{}/{}", config.name, panel.config.title);
            let more =
                json!({"title": panel.config.title, "description": panel.config.description, "dashboard": config.name});
            self.add(("panel", ""), &name, more);
            for from in read {
                self.arrow(from, format!("panel:{name}"));
            }
            self.arrow(format!("panel:{name}"), format!("dashboard:{}", config.name));
        }
    }

    /// The tables whose names stand in a statement as words.
    fn named_in(&self, sql: &str) -> Vec<String> {
        let tables =
            self.entries.iter().filter(|entry| ["stream", "view", "table"].iter().any(|kind| entry["kind"] == *kind));
        let named = tables.filter_map(|entry| Some((entry["kind"].as_str()?, entry["name"].as_str()?)));
        named.filter(|(_, name)| mentions(sql, name)).map(|(kind, name)| format!("{kind}:{name}")).collect()
    }
}
