//! Server-sent events: a view that changed, and the panels of a dashboard as they change. Changes are coalesced: however
//! fast the view turns, a client gets at most one event per view or panel and interval.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::Uri;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures::future::select_all;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;

use crate::app::App;
use crate::dashboards::{find, request};
use crate::error::Answer;
use crate::output::{offsets_json, time_text};
use crate::panels::PanelRequest;
use crate::params::Params;
use crate::routes::{Doc, Routes};
use crate::server::stopped;
use crate::views;

/// Shortest time between two events of one view or panel.
const INTERVAL_MIN: Duration = Duration::from_secs(1);
/// Longest time between two looks at a panel whose range moves with the time.
const LOOK_MAX: Duration = Duration::from_secs(30);
/// A comment is sent after this much silence, so that proxies and both ends see the stream is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Events that wait for a slow reader before the work for it pauses.
const QUEUE: usize = 16;

const RANGE: &[(&str, &str)] = &[
    ("range", "how far back to look: 15m, 1h, 7d; default: each panel's own range"),
    ("from", "start of the range, instead of range"),
    ("to", "end of the range; default: open"),
    ("wait", "not used: what is there is sent, and again when it changes"),
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
            Doc::new("Each panel's data, now and whenever it changes; further parameters filter key columns")
                .query(RANGE)
                .answers(STREAM),
            dashboard_live,
        )
}

fn events(receiver: mpsc::Receiver<Result<Event, Infallible>>) -> Events {
    Sse::new(ReceiverStream::new(receiver)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}

async fn view_changes(State(app): State<Arc<App>>, Path(name): Path<String>, uri: Uri) -> Answer<Events> {
    Params::of(&uri)?.finish()?;
    views::find(&app, &name)?;
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

async fn dashboard_live(State(app): State<Arc<App>>, Path(name): Path<String>, uri: Uri) -> Answer<Events> {
    let dashboard = find(&app, &name)?;
    let mut params = Params::of(&uri)?;
    let request = PanelRequest { wait_ms: 0, ..request(&app, dashboard, &mut params)? };
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
        let refresh = Duration::from_millis(dashboard.config.refresh_ms).clamp(INTERVAL_MIN, LOOK_MAX);
        let mut look_at_all = true;
        let mut due = Instant::now() + refresh;
        loop {
            let started = Instant::now();
            let changed: Vec<String> = self.take_changed();
            for (number, panel) in dashboard.panels.iter().enumerate() {
                let wanted = look_at_all || panel.view().is_some_and(|view| changed.iter().any(|name| name == view));
                if wanted && !self.send_panel(&app, number, panel).await {
                    return;
                }
            }
            if look_at_all {
                due = Instant::now() + refresh;
            }
            tokio::time::sleep_until(started + INTERVAL_MIN).await;
            look_at_all = tokio::select! {
                () = any_change(&mut self.changes) => false,
                () = tokio::time::sleep_until(due) => true,
                () = self.sender.closed() => return,
                () = stopped(app.stopping.clone()) => return,
            };
        }
    }

    fn take_changed(&mut self) -> Vec<String> {
        let mut changed = Vec::new();
        for (view, receiver) in &mut self.changes {
            if receiver.has_changed().unwrap_or(false) {
                receiver.mark_unchanged();
                changed.push(view.clone());
            }
        }
        changed
    }

    /// Sends a panel if it looks different from the last time; false when nobody listens any more.
    async fn send_panel(&mut self, app: &App, number: usize, panel: &crate::panels::Panel) -> bool {
        let event = match panel.data(app, (&self.name, number), &self.request).await {
            Ok(data) if data.drawing == self.drawn[number] => return !self.sender.is_closed(),
            Ok(data) => {
                self.drawn[number] = data.drawing;
                Event::default().event("panel").data(data.json)
            }
            Err(problem) => {
                self.drawn[number].clear();
                Event::default()
                    .event("problem")
                    .data(json!({"panel": number, "problem": problem.to_json()}).to_string())
            }
        };
        self.sender.send(Ok(event)).await.is_ok()
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
