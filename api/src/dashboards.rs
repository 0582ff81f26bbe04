//! `/v1/dashboards`: what is declared, and the data of each panel.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{Uri, header};
use axum::response::IntoResponse;
use engine::ViewInfo;
use serde_json::{Value, json};

use crate::app::{App, Dashboard};
use crate::config::DashboardConfig;
use crate::error::{Answer, Problem};
use crate::panels::{Panel, PanelRequest, Source, kind_word};
use crate::params::Params;
use crate::routes::{Doc, Routes};
use crate::views;

const QUERY: &[(&str, &str)] = &[
    ("range", "how far back to look: 15m, 1h, 7d; default: the panel's own range"),
    ("from", "start of the range, instead of range"),
    ("to", "end of the range; default: open"),
    ("wait", "how long to wait for freshness: milliseconds or 2s; 0 takes what is there"),
];

/// Adds this file's routes.
pub fn routes(routes: Routes) -> Routes {
    let panel = Doc::new("Data of a panel, ready to be drawn; further parameters filter key columns").query(QUERY);
    routes
        .get("/v1/dashboards", Doc::new("Dashboards"), list)
        .get("/v1/dashboards/{name}", Doc::new("One dashboard: its panels and what it can be filtered by"), one)
        .get("/v1/dashboards/{name}/panels/{panel}", panel, panel_data)
}

/// Binds every dashboard to the views; all mistakes together.
pub fn bind(configs: &[DashboardConfig], views: &[ViewInfo]) -> Result<BTreeMap<String, Dashboard>, Vec<String>> {
    let mut mistakes = Vec::new();
    let mut dashboards = BTreeMap::new();
    for config in configs {
        let mut panels = Vec::new();
        for panel in &config.panels {
            match Panel::bind(panel, views) {
                Ok(panel) => panels.push(panel),
                Err(mistake) => mistakes.push(format!("dashboard {}: {mistake}", config.name)),
            }
        }
        dashboards.insert(config.name.clone(), Dashboard { config: config.clone(), panels });
    }
    if mistakes.is_empty() { Ok(dashboards) } else { Err(mistakes) }
}

async fn list(State(app): State<Arc<App>>, uri: Uri) -> Answer<Json<Value>> {
    Params::of(&uri)?.finish()?;
    let list: Vec<Value> = app
        .dashboards
        .values()
        .map(|dashboard| json!({"name": dashboard.config.name, "title": dashboard.config.title, "panels": dashboard.panels.len()}))
        .collect();
    Ok(Json(json!({"dashboards": list})))
}

/// The dashboard of that name, or the problem.
pub fn find<'a>(app: &'a App, name: &str) -> Answer<&'a Dashboard> {
    app.dashboards.get(name).ok_or_else(|| {
        let known: Vec<&String> = app.dashboards.keys().collect();
        Problem::not_found(format!("no dashboard {name}: GET /v1/dashboards lists them"))
            .with("dashboards", json!(known))
    })
}

async fn one(State(app): State<Arc<App>>, Path(name): Path<String>, uri: Uri) -> Answer<Json<Value>> {
    Params::of(&uri)?.finish()?;
    let dashboard = find(&app, &name)?;
    let panels: Vec<Value> = dashboard.panels.iter().map(describe).collect();
    Ok(Json(json!({
        "name": name,
        "title": dashboard.config.title,
        "refresh_ms": dashboard.config.refresh_ms,
        "filters": filters(dashboard),
        "panels": panels,
    })))
}

fn describe(panel: &Panel) -> Value {
    let (keys, sql) = match &panel.source {
        Source::View(shape) => (shape.keys.clone(), None),
        Source::Sql(sql) => (Vec::new(), Some(sql)),
    };
    json!({
        "title": panel.config.title,
        "kind": kind_word(panel.config.kind),
        "view": panel.view(),
        "sql": sql,
        "keys": keys,
        "x": panel.config.x,
        "y": panel.config.y,
        "series": panel.config.series,
        "range_ms": panel.config.range_ms,
        "top": panel.config.top,
        "unit": panel.config.unit,
    })
}

/// What the page can filter by: the key columns of all views that the dashboard reads.
pub fn filters(dashboard: &Dashboard) -> Vec<String> {
    let mut keys: Vec<String> = Vec::new();
    for panel in &dashboard.panels {
        let Source::View(shape) = &panel.source else { continue };
        for key in &shape.keys {
            if !keys.contains(key) {
                keys.push(key.clone());
            }
        }
    }
    keys
}

/// Reads range and filters; a filter must be a key of one of the dashboard's views.
pub fn request(app: &App, dashboard: &Dashboard, params: &mut Params) -> Answer<PanelRequest> {
    let range_ms = params.take_duration("range")?;
    let (from, to) = (params.take_time("from")?, params.take_time("to")?);
    if range_ms.is_some() && (from.is_some() || to.is_some()) {
        return Err(Problem::bad_request("range and from or to are both there: send one"));
    }
    let wait_ms = views::wait(app, params)?;
    let keys = params.take_rest();
    let known = filters(dashboard);
    if let Some((name, _)) = keys.iter().find(|(name, _)| !known.contains(name)) {
        let known = known.join(", ");
        return Err(Problem::bad_request(format!(
            "unknown parameter {name}: this takes range, from, to, wait and the keys [{known}]"
        )));
    }
    Ok(PanelRequest { range_ms, from, to, keys, wait_ms })
}

async fn panel_data(State(app): State<Arc<App>>, Path((name, panel)): Path<(String, String)>, uri: Uri) -> Answer {
    let dashboard = find(&app, &name)?;
    let mut params = Params::of(&uri)?;
    let request = request(&app, dashboard, &mut params)?;
    let count = dashboard.panels.len();
    let number = panel.parse::<usize>().ok().filter(|number| *number < count).ok_or_else(|| {
        Problem::not_found(format!(
            "no panel {panel}: dashboard {name} has the panels 0 to {}",
            count.saturating_sub(1)
        ))
    })?;
    let data = dashboard.panels[number].data(&app, (&name, number), &request).await?;
    Ok(([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], data.json).into_response())
}
