//! `/v1/dashboards`: what is declared, how it stands, and the data of each panel, as JSON or as a file to keep.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Uri};
use engine::ViewInfo;
use futures::StreamExt;
use futures::stream;
use lake::Reader;
use serde_json::{Map, Value, json};

use crate::access::Caller;
use crate::app::{App, Dashboard};
use crate::config::{Colour, DashboardConfig, FilterKind, ThresholdConfig};
use crate::error::{Answer, Problem};
use crate::export;
use crate::filters::{self, filters_of};
use crate::output::Format;
use crate::panels::{Panel, PanelData, PanelRequest, Source};
use crate::params::Params;
use crate::routes::{Doc, Routes, serves};

/// Panels of one request that are worked on at the same time.
const AT_ONCE: usize = 4;
/// Longest look at how a dashboard stands; then it is not told.
const STATUS_TIME_MAX: Duration = Duration::from_secs(10);
/// How old the answers may be that tell how a dashboard stands, in ms, at most.
const STATUS_AGE_MS_MAX: u64 = 15_000;

/// Pages that are shown when the route of the same name is served.
const PAGES: [&str; 7] = ["topics", "lag", "lake", "sources", "jobs", "alerts", "quality"];

const LIST: &[(&str, &str)] = &[("status", "false leaves out how they stand, which is worked out from their panels")];
const QUERY: &[(&str, &str)] = &[
    ("range", "how far back to look: 15m, 1h, 7d, 3mo, 1y, today, month, ytd, all; default: the panel's own range"),
    ("from", "start of the range, instead of range"),
    ("to", "end of the range; default: open"),
    ("wait", "how long to wait for freshness: milliseconds or 2s; 0 takes what is there"),
    ("fresh", "true asks SQL again even if somebody got an answer within this second"),
    ("format", "json, ndjson, csv or xlsx, with all rows; else the Accept header decides"),
    ("data", "of a whole dashboard: false leaves out the panels' data"),
];

/// Adds this file's routes.
pub fn routes(routes: Routes) -> Routes {
    let one = Doc::new("One dashboard: its filters, panels and their data; further parameters are its filters");
    let panel = Doc::new("Data of a panel, ready to be drawn; further parameters are the dashboard's filters");
    routes
        .get("/v1/dashboards", Doc::new("Dashboards and how they stand").query(LIST), list)
        .get("/v1/dashboards/{name}", one.query(QUERY).answers(export::FILE_TYPES), self::one)
        .get("/v1/dashboards/{name}/panels/{panel}", panel.query(QUERY).answers(export::FILE_TYPES), panel_data)
}

/// Binds every dashboard to the views; all mistakes together.
pub fn bind(configs: &[DashboardConfig], views: &[ViewInfo]) -> Result<BTreeMap<String, Dashboard>, Vec<String>> {
    let mut mistakes = Vec::new();
    let mut dashboards = BTreeMap::new();
    for config in configs {
        let mut panels = Vec::new();
        for panel in &config.panels {
            match Panel::bind(panel, &config.filters, views) {
                Ok(panel) => panels.push(panel),
                Err(mistake) => mistakes.push(format!("dashboard {}: {mistake}", config.name)),
            }
        }
        let filters = filters_of(&config.filters, &panels);
        dashboards.insert(config.name.clone(), Dashboard { config: config.clone(), filters, panels });
    }
    if mistakes.is_empty() { Ok(dashboards) } else { Err(mistakes) }
}

async fn list(State(app): State<Arc<App>>, caller: Caller, uri: Uri) -> Answer<Json<Value>> {
    let mut params = Params::of(&uri)?;
    let with_status = params.take("status")?.as_deref() != Some("false");
    params.finish()?;
    // In the order declared: systems stay together.
    let dashboards: Vec<&Dashboard> = app.order.iter().filter_map(|name| app.dashboards.get(name)).collect();
    let looks: Vec<_> =
        dashboards.iter().map(|dashboard| status(&app, dashboard, with_status.then(|| caller.reader()))).collect();
    let stands: Vec<Option<Colour>> = stream::iter(looks).buffered(AT_ONCE).collect().await;
    let list: Vec<Value> =
        dashboards.iter().zip(stands).map(|(dashboard, status)| summary(dashboard, status)).collect();
    // So that the page does not offer what is not there.
    let pages: Vec<&str> = PAGES.into_iter().filter(|page| serves(&format!("/v1/{page}"))).collect();
    Ok(Json(json!({"dashboards": list, "pages": pages})))
}

/// The dashboard of that name, or the problem.
pub fn find<'a>(app: &'a App, name: &str) -> Answer<&'a Dashboard> {
    app.dashboards.get(name).ok_or_else(|| {
        let known: Vec<&String> = app.dashboards.keys().collect();
        Problem::not_found(format!("no dashboard {name}: GET /v1/dashboards lists them"))
            .with("dashboards", json!(known))
    })
}

fn summary(dashboard: &Dashboard, status: Option<Colour>) -> Value {
    let config = &dashboard.config;
    json!({
        "name": config.name,
        "title": config.title,
        "description": config.description,
        "owner": config.owner,
        "system": config.system,
        "panels": dashboard.panels.len(),
        "has_status": dashboard.panels.iter().any(Panel::has_rules),
        "status": status.map(Colour::word),
    })
}

/// How a dashboard stands for `reader` without anything chosen: the worst of its panels; none if no panel has rules and
/// rows, or if it is not wanted.
async fn status(app: &App, dashboard: &Dashboard, reader: Option<Option<Arc<Reader>>>) -> Option<Colour> {
    let reader = reader?;
    let mut request = filters::request(app, dashboard, &mut Params::default()).ok()?;
    request.reader = reader;
    request.wait_ms = 0;
    request.age_ms = (dashboard.config.refresh_ms * 9 / 10).min(STATUS_AGE_MS_MAX);
    let request = &request;
    let ruled: Vec<(usize, &Panel)> =
        dashboard.panels.iter().enumerate().filter(|(_, panel)| panel.has_rules()).collect();
    let look = async {
        let mut worst = None;
        for (number, panel) in ruled {
            let data = panel.data(app, (&dashboard.config.name, number), request).await;
            worst = worst.max(data.ok().and_then(|data| data.status));
        }
        worst
    };
    tokio::time::timeout(STATUS_TIME_MAX, look).await.ok().flatten()
}

async fn one(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(name): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Answer {
    let dashboard = find(&app, &name)?;
    let mut params = Params::of(&uri)?;
    let format = Format::choose(params.take("format")?.as_deref(), &headers)?;
    let with_data = params.take("data")?.as_deref() != Some("false");
    let mut request = filters::request(&app, dashboard, &mut params)?;
    request.whole = format != Format::Json;
    request.reader = caller.reader();
    let data = if with_data { all_data(&app, dashboard, &request).await } else { Vec::new() };
    if format != Format::Json {
        return export::dashboard(dashboard, &data, format).await;
    }
    let mut described = description(&app, dashboard, caller.reader()).await;
    if with_data {
        let panels = described["panels"].as_array_mut().into_iter().flatten();
        for (panel, data) in panels.zip(&data) {
            match data {
                Ok(data) => panel["data"] = serde_json::from_str(&data.json).unwrap_or_default(),
                Err(problem) => panel["problem"] = problem.to_json(),
            }
        }
        let worst = data.iter().flatten().filter_map(|data| data.status).max();
        described["status"] = json!(worst.map(Colour::word));
    }
    Ok(export::json_answer(described.to_string()))
}

/// The data of every panel; one that has a problem does not hold up the others.
async fn all_data(app: &App, dashboard: &Dashboard, request: &PanelRequest) -> Vec<Answer<PanelData>> {
    let name = &dashboard.config.name;
    let panels = dashboard.panels.iter().enumerate();
    let looks: Vec<_> = panels.map(|(number, panel)| panel.data(app, (name, number), request)).collect();
    stream::iter(looks).buffered(AT_ONCE).collect().await
}

async fn description(app: &App, dashboard: &Dashboard, reader: Option<Arc<Reader>>) -> Value {
    let mut choices = Vec::new();
    for filter in &dashboard.filters {
        choices.push(filters::describe(app, filter, reader.clone()).await);
    }
    let has_period = dashboard.filters.iter().any(|filter| filter.kind == FilterKind::Period);
    let looks_back = dashboard.panels.iter().any(|panel| panel.has_range() && panel.config.range_ms.is_some());
    let config = &dashboard.config;
    json!({
        "name": config.name,
        "title": config.title,
        "description": config.description,
        "owner": config.owner,
        "system": config.system,
        "refresh_ms": config.refresh_ms,
        "filters": choices,
        "ranges": if looks_back && !has_period { json!(filters::RANGES) } else { json!([]) },
        "panels": dashboard.panels.iter().map(|panel| describe(panel, dashboard)).collect::<Vec<Value>>(),
    })
}

fn describe(panel: &Panel, dashboard: &Dashboard) -> Value {
    let (keys, sql) = match &panel.source {
        Source::View(shape) => (shape.keys.clone(), None),
        Source::Sql(question) => (Vec::new(), Some(question.declared())),
    };
    let heeds = |name: &str, column: &String| match &panel.source {
        Source::View(shape) => shape.keys.contains(column),
        Source::Sql(question) => question.asks_for(name),
    };
    let ignored: Vec<&String> = dashboard
        .filters
        .iter()
        .filter(|filter| filter.kind != FilterKind::Period && !heeds(&filter.name, &filter.column))
        .map(|filter| &filter.name)
        .collect();
    let pairs = |list: &[(String, String)]| list.iter().map(|(k, v)| (k.clone(), json!(v))).collect::<Map<_, _>>();
    let config = &panel.config;
    json!({
        "title": config.title,
        "description": config.description,
        "kind": config.kind.word(),
        "view": panel.view(),
        "sql": sql,
        "keys": keys,
        "ignores": ignored,
        "x": config.x,
        "y": config.y,
        "series": config.series,
        "range_ms": config.range_ms,
        "top": config.top,
        "unit": config.unit,
        "style": config.style.map(|style| style.word()),
        "width": config.width,
        "min": config.min,
        "max": config.max,
        "target": config.target,
        "compare": config.compare,
        "compare_label": config.compare_label,
        "labels": pairs(&config.labels),
        "formats": pairs(&config.formats),
        "links": pairs(&config.links),
        "thresholds": config.thresholds.iter().map(threshold).collect::<Vec<Value>>(),
        "status": config.status,
    })
}

fn threshold(rule: &ThresholdConfig) -> Value {
    json!({
        "column": rule.column,
        "below": rule.below,
        "above": rule.above,
        "equals": rule.equals,
        "colour": rule.colour.word(),
    })
}

async fn panel_data(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path((name, panel)): Path<(String, String)>,
    uri: Uri,
    headers: HeaderMap,
) -> Answer {
    let dashboard = find(&app, &name)?;
    let mut params = Params::of(&uri)?;
    let format = Format::choose(params.take("format")?.as_deref(), &headers)?;
    let mut request = filters::request(&app, dashboard, &mut params)?;
    request.whole = format != Format::Json;
    request.reader = caller.reader();
    let count = dashboard.panels.len();
    let number = panel.parse::<usize>().ok().filter(|number| *number < count).ok_or_else(|| {
        Problem::not_found(format!(
            "no panel {panel}: dashboard {name} has the panels 0 to {}",
            count.saturating_sub(1)
        ))
    })?;
    let data = dashboard.panels[number].data(&app, (&name, number), &request).await?;
    if format == Format::Json {
        return Ok(export::json_answer(data.json));
    }
    export::panel(dashboard, number, &data, format).await
}
