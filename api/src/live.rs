//! Server-sent events: a view that changed, and the panels of a dashboard as they change. Changes are coalesced: however
//! fast the view turns, a client gets at most one event per view or panel and interval.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::Uri;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures::StreamExt;
use futures::future::select_all;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;

use crate::access::Caller;
use crate::app::App;
use crate::dashboards::find;
use crate::error::Answer;
use crate::filters::request;
use crate::output::{offsets_json, time_text};
use crate::panels::{Panel, PanelData, PanelRequest};
use crate::params::Params;
use crate::routes::{Doc, Routes};
use crate::server::stopped;
use crate::shared::Weight;
use crate::views;

/// Shortest time between two events of one view or panel.
const INTERVAL_MIN: Duration = Duration::from_secs(1);
/// Longest time between two looks at a panel whose range moves with the time.
const LOOK_MAX: Duration = Duration::from_secs(30);
/// A comment is sent after this much silence, so that proxies and both ends see the stream is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Events that wait for a slow reader before the work for it pauses.
const QUEUE: usize = 16;
/// Panels of one viewer that are worked on at the same time.
const AT_ONCE: usize = 4;
/// How old an answer of SQL may be that a new viewer is shown first, in ms.
const SHARED_AGE_MS_MAX: u64 = 30_000;
/// How old the drawing of a view may be that has not changed since, in ms: its range moves with the time.
const VIEW_AGE_MS: u64 = 900;

const RANGE: &[(&str, &str)] = &[
    ("range", "how far back to look: 15m, 1h, 7d, 3mo, ytd, all; default: each panel's own range"),
    ("from", "start of the range, instead of range"),
    ("to", "end of the range; default: open"),
    ("wait", "not used: what is there is sent, and again when it changes"),
    ("fresh", "not used: viewers share answers of SQL for the time of the dashboard's refresh"),
];

type Events = Sse<axum::response::sse::KeepAliveStream<ReceiverStream<Result<Event, Infallible>>>>;

/// Adds this file's routes.
pub fn routes(routes: Routes) -> Routes {
    const STREAM: &[&str] = &["text/event-stream"];
    routes
        .get(
            "/v1/views/{view}/changes",
            Doc::new("An event whenever the view changed, at most one per second").answers(STREAM),
            view_changes,
        )
        .get(
            "/v1/dashboards/{name}/live",
            Doc::new("Each panel's data, now and whenever it changes; further parameters are its filters")
                .query(RANGE)
                .answers(STREAM),
            dashboard_live,
        )
}

fn events(receiver: mpsc::Receiver<Result<Event, Infallible>>) -> Events {
    Sse::new(ReceiverStream::new(receiver)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}

async fn view_changes(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(name): Path<String>,
    uri: Uri,
) -> Answer<Events> {
    Params::of(&uri)?.finish()?;
    views::find(&app, &name)?;
    caller.check_seen(&name)?;
    let permit = app.stream_permit()?;
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(send_view(app, name, sender, permit));
    Ok(events(receiver))
}

async fn send_view(
    app: Arc<App>,
    name: String,
    sender: mpsc::Sender<Result<Event, Infallible>>,
    _permit: OwnedSemaphorePermit,
) {
    let Some(mut changes) = app.engine.changes(&name) else { return };
    loop {
        let revision = *changes.borrow_and_update();
        let status = app.engine.status().into_iter().find(|status| status.view == name);
        let data = json!({
            "view": name,
            "revision": revision,
            "offsets": status.as_ref().map(|s| offsets_json(&s.positions)),
            "event_watermark": status.as_ref().and_then(|s| s.event_watermark).map(time_text),
        });
        if sender.send(Ok(Event::default().event("change").data(data.to_string()))).await.is_err() {
            return;
        }
        let next = Instant::now() + INTERVAL_MIN;
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = sender.closed() => return,
            () = stopped(app.stopping.clone()) => return,
        }
        tokio::time::sleep_until(next).await;
    }
}

async fn dashboard_live(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(name): Path<String>,
    uri: Uri,
) -> Answer<Events> {
    let dashboard = find(&app, &name)?;
    let mut params = Params::of(&uri)?;
    let request = request(&app, dashboard, &mut params)?;
    let age_ms = (dashboard.config.refresh_ms * 9 / 10).min(SHARED_AGE_MS_MAX);
    let request = PanelRequest { wait_ms: 0, age_ms, reader: caller.reader(), ..request };
    let permit = app.stream_permit()?;
    let (sender, receiver) = mpsc::channel(QUEUE);
    let viewer = Viewer::new(&app, name, request, sender);
    tokio::spawn(viewer.run(app, permit));
    Ok(events(receiver))
}

/// One client that looks at a dashboard.
struct Viewer {
    name: String,
    request: PanelRequest,
    sender: mpsc::Sender<Result<Event, Infallible>>,
    /// The views of the dashboard.
    changes: Vec<(String, watch::Receiver<u64>)>,
    /// What each panel showed last.
    drawn: Vec<String>,
}

/// When to look again at panels that no change wakes.
struct Due {
    sql: Instant,
    views: Instant,
}

impl Viewer {
    fn new(app: &App, name: String, request: PanelRequest, sender: mpsc::Sender<Result<Event, Infallible>>) -> Viewer {
        let panels = app.dashboards.get(&name).map_or(&[][..], |dashboard| &dashboard.panels);
        let mut views: Vec<&str> = panels.iter().filter_map(|panel| panel.view()).collect();
        views.sort_unstable();
        views.dedup();
        let changes = views.into_iter().filter_map(|view| Some((view.to_owned(), app.engine.changes(view)?))).collect();
        Viewer { drawn: vec![String::new(); panels.len()], name, request, sender, changes }
    }

    async fn run(mut self, app: Arc<App>, _permit: OwnedSemaphorePermit) {
        let Some(dashboard) = app.dashboards.get(&self.name) else { return };
        let sql_every = Duration::from_millis(dashboard.config.refresh_ms).max(INTERVAL_MIN);
        let views_every = sql_every.min(LOOK_MAX);
        let mut due = Due { sql: Instant::now(), views: Instant::now() };
        loop {
            let started = Instant::now();
            let (look_sql, look_views) = (started >= due.sql, started >= due.views);
            let changed = self.take_changed(&app);
            let wanted = |panel: &Panel| match panel.view() {
                Some(view) => look_views || changed.iter().any(|name| name == view),
                None => look_sql,
            };
            let panels = dashboard.panels.iter().enumerate().filter(|(_, panel)| wanted(panel)).collect();
            if !self.send_panels(&app, panels).await {
                return;
            }
            if look_sql {
                due.sql = started + sql_every;
            }
            if look_views {
                due.views = started + views_every;
            }
            tokio::time::sleep_until(started + INTERVAL_MIN).await;
            tokio::select! {
                () = any_change(&mut self.changes) => {},
                () = tokio::time::sleep_until(due.sql.min(due.views)) => {},
                () = self.sender.closed() => return,
                () = stopped(app.stopping.clone()) => return,
            }
        }
    }

    fn take_changed(&mut self, app: &App) -> Vec<String> {
        let mut changed = Vec::new();
        for (view, receiver) in &mut self.changes {
            match receiver.has_changed() {
                Ok(true) => receiver.mark_unchanged(),
                Ok(false) => continue,
                // It was declared anew.
                Err(_) => match app.engine.changes(view) {
                    Some(again) => *receiver = again,
                    None => continue,
                },
            }
            changed.push(view.clone());
        }
        changed
    }

    /// Sends the panels that look different from the last time, each as soon as it is there, then when this was; false
    /// when nobody listens any more.
    async fn send_panels(&mut self, app: &App, panels: Vec<(usize, &Panel)>) -> bool {
        let (name, request) = (self.name.clone(), self.request.clone());
        let looks: Vec<_> =
            panels.into_iter().map(|(number, panel)| looked_at(app, panel, (&name, number), &request)).collect();
        let mut looks = futures::stream::iter(looks).buffer_unordered(AT_ONCE);
        while let Some((number, data)) = looks.next().await {
            let event = match data {
                Ok(data) if data.drawing == self.drawn[number] => continue,
                Ok(data) => {
                    self.drawn[number].clone_from(&data.drawing);
                    Event::default().event("panel").data(&data.json)
                }
                Err(problem) => {
                    self.drawn[number].clear();
                    Event::default()
                        .event("problem")
                        .data(json!({"panel": number, "problem": problem.to_json()}).to_string())
                }
            };
            if self.sender.send(Ok(event)).await.is_err() {
                return false;
            }
        }
        let looked = Event::default().event("look").data(json!({"at": time_text(app.clock().now_ms())}).to_string());
        self.sender.send(Ok(looked)).await.is_ok()
    }
}

/// A panel's number and its data. Viewers of a view that ask the same at the same revision share the work.
async fn looked_at(
    app: &App,
    panel: &Panel,
    (name, number): (&str, usize),
    request: &PanelRequest,
) -> (usize, Answer<Arc<PanelData>>) {
    let Some(changes) = panel.view().and_then(|view| app.engine.changes(view)) else {
        return (number, panel.data(app, (name, number), request).await.map(Arc::new));
    };
    let revision = *changes.borrow();
    let key = format!("{name}\u{0}{number}\u{0}{revision}\u{0}{request:?}");
    (number, app.drawn.get(key, VIEW_AGE_MS, panel.data(app, (name, number), request)).await)
}

impl Weight for PanelData {
    fn bytes(&self) -> usize {
        self.json.len() + self.drawing.len()
    }
}

/// Ready when one of the views changed; never if there are none or the engine has stopped.
async fn any_change(changes: &mut [(String, watch::Receiver<u64>)]) {
    if changes.is_empty() {
        return std::future::pending().await;
    }
    let waits: Vec<_> = changes.iter_mut().map(|(_, receiver)| Box::pin(receiver.changed())).collect();
    let (result, ..) = select_all(waits).await;
    if result.is_err() {
        std::future::pending::<()>().await;
    }
}
