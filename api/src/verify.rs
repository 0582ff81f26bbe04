//! `/v1/views/{view}/verify` and `/v1/lake/{topic}/verify`: what is served and what is stored, compared with what it was made of.
//!
//! A verification may take longer than a request: it goes on by itself, an answer says `running` when it is not over, and
//! GET waits for it again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::Uri;
use broker::TimestampMs;
use lake::{Difference, VerifyReport, ViewReport, ViewScope};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use crate::access::Need;
use crate::app::App;
use crate::error::{Answer, Problem};
use crate::output::{offsets_json, time_text};
use crate::params::Params;
use crate::routes::{Doc, REQUEST_TIME_MAX, Routes};
use crate::status::settles;
use crate::views::{find, wait};

/// Verifications under way at a time.
const AT_ONCE: usize = 2;
/// How long an answer waits for the end of one.
const ANSWER_WAIT: Duration = Duration::from_secs(REQUEST_TIME_MAX.as_secs() / 2);

const VIEW_QUERY: &[(&str, &str)] = &[
    ("from", "windows that start at or after this instant"),
    ("to", "windows that start before it"),
    ("wait", "how long to wait until everything appended before the request is applied: milliseconds or 2s"),
];

/// What is verified.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Of {
    View(String),
    Topic(String),
}

#[derive(Clone)]
enum Outcome {
    Running,
    Done(Value),
    Failed(Problem),
}

/// The verifications. Holds: of each view and topic the one under way, or the last one, until the server ends.
#[derive(Default)]
pub struct Verifications(Mutex<BTreeMap<Of, watch::Receiver<Outcome>>>);

/// Adds this file's routes.
pub fn routes(routes: Routes) -> Routes {
    let view = Doc::new("Compares a view with what a query of its own gives over log and lake, at the same offsets");
    let view_last = Doc::new("The verification of a view that is under way, or the last one");
    let topic = Doc::new("Compares the files of a topic with its log, record by record");
    let topic_last = Doc::new("The verification of a topic that is under way, or the last one");
    routes
        .post("/v1/views/{view}/verify", view.query(VIEW_QUERY).need(Need::ReadAll), verify_view)
        .get("/v1/views/{view}/verify", view_last.need(Need::ReadAll), last_of_view)
        .post("/v1/lake/{topic}/verify", topic.need(Need::ReadAll), verify_topic)
        .get("/v1/lake/{topic}/verify", topic_last.need(Need::ReadAll), last_of_topic)
}

impl Verifications {
    /// Begins one, unless it is under way.
    fn begin(&self, of: &Of, work: impl Future<Output = Answer<Value>> + Send + 'static) -> Answer<()> {
        let mut known = self.0.lock();
        if known.get(of).is_some_and(is_running) {
            return Ok(());
        }
        if known.values().filter(|outcome| is_running(outcome)).count() >= AT_ONCE {
            return Err(Problem::busy(format!(
                "{AT_ONCE} verifications are under way, which is the limit: try again when one is over"
            )));
        }
        let (tell, told) = watch::channel(Outcome::Running);
        known.insert(of.clone(), told);
        tokio::spawn(async move {
            let outcome = match work.await {
                Ok(found) => Outcome::Done(found),
                Err(problem) => Outcome::Failed(problem),
            };
            tell.send_replace(outcome);
        });
        Ok(())
    }

    /// What one came to; `running` when it is not over soon, `none` when there was none since the start.
    async fn answer(&self, of: &Of) -> Answer<Json<Value>> {
        let told = self.0.lock().get(of).cloned();
        let Some(mut told) = told else { return Ok(Json(json!({"state": "none"}))) };
        let over = told.wait_for(|outcome| !matches!(outcome, Outcome::Running));
        match tokio::time::timeout(ANSWER_WAIT, over).await {
            Err(_) => Ok(Json(json!({"state": "running"}))),
            Ok(Err(_)) => Err(Problem::internal("the verification broke off: see the log, and report it")),
            Ok(Ok(outcome)) => match &*outcome {
                Outcome::Done(found) => Ok(Json(found.clone())),
                Outcome::Failed(problem) => Err(problem.clone()),
                Outcome::Running => Ok(Json(json!({"state": "running"}))),
            },
        }
    }

    /// When a view was verified last, and whether it was sound; None when it was not since the start, or could not be.
    pub fn of_view(&self, view: &str) -> Option<Value> {
        let told = self.0.lock().get(&Of::View(view.to_owned())).cloned()?;
        match &*told.borrow() {
            Outcome::Done(found) => Some(json!({"at": found["at"], "sound": found["sound"]})),
            Outcome::Running | Outcome::Failed(_) => None,
        }
    }
}

/// Whether it is under way, and was not broken off.
fn is_running(told: &watch::Receiver<Outcome>) -> bool {
    told.has_changed().is_ok() && matches!(*told.borrow(), Outcome::Running)
}

async fn verify_view(State(app): State<Arc<App>>, Path(view): Path<String>, uri: Uri) -> Answer<Json<Value>> {
    find(&app, &view)?;
    let mut params = Params::of(&uri)?;
    let (from, to) = (params.take_time("from")?, params.take_time("to")?);
    let scope = ViewScope { from, to, wait_ms: wait(&app, &mut params)? };
    params.finish()?;
    let (of, this) = (Of::View(view.clone()), app.clone());
    let work = async move {
        let began_ms = this.clock().now_ms();
        let report = this.lake.verify_view(&this.engine, &view, scope).await?;
        Ok::<_, Problem>(view_json(&report, (began_ms, this.clock().now_ms())))
    };
    app.verifications.begin(&of, work)?;
    app.verifications.answer(&of).await
}

async fn last_of_view(State(app): State<Arc<App>>, Path(view): Path<String>, uri: Uri) -> Answer<Json<Value>> {
    Params::of(&uri)?.finish()?;
    find(&app, &view)?;
    app.verifications.answer(&Of::View(view)).await
}

async fn verify_topic(State(app): State<Arc<App>>, Path(topic): Path<String>, uri: Uri) -> Answer<Json<Value>> {
    Params::of(&uri)?.finish()?;
    settles(&app, &topic)?;
    let (of, this) = (Of::Topic(topic.clone()), app.clone());
    let work = async move {
        let began_ms = this.clock().now_ms();
        let report = this.lake.verify(&topic).await?;
        Ok::<_, Problem>(topic_json(&topic, &report, (began_ms, this.clock().now_ms())))
    };
    app.verifications.begin(&of, work)?;
    app.verifications.answer(&of).await
}

async fn last_of_topic(State(app): State<Arc<App>>, Path(topic): Path<String>, uri: Uri) -> Answer<Json<Value>> {
    Params::of(&uri)?.finish()?;
    settles(&app, &topic)?;
    app.verifications.answer(&Of::Topic(topic)).await
}

fn topic_json(topic: &str, report: &VerifyReport, (began_ms, ended_ms): (TimestampMs, TimestampMs)) -> Value {
    json!({
        "state": "done",
        "topic": topic,
        "at": time_text(began_ms),
        "ms": ended_ms - began_ms,
        "sound": report.is_sound(),
        "file_rows": report.file_rows,
        "live_rows": report.live_rows,
        "checked_rows": report.checked_rows,
        "raw_records": report.raw_records,
        "raw_checked": report.raw_checked,
        "differences": report.differences,
        "named": report.named,
        "notes": report.notes,
    })
}

fn view_json(report: &ViewReport, (began_ms, ended_ms): (TimestampMs, TimestampMs)) -> Value {
    json!({
        "state": "done",
        "view": report.view,
        "at": time_text(began_ms),
        "ms": ended_ms - began_ms,
        "sound": report.refused.is_none() && report.is_sound(),
        "not_recomputed": report.refused,
        "offsets": offsets_json(&report.offsets),
        "windows": report.windows,
        "groups": report.groups,
        "equal": report.equal,
        "different": report.different,
        "missing": report.missing,
        "extra": report.extra,
        "expired": report.expired,
        "unjudged": report.unjudged,
        "not_counted": report.not_counted,
        "named": report.named.iter().map(difference_json).collect::<Vec<_>>(),
        "notes": report.notes,
    })
}

fn difference_json(difference: &Difference) -> Value {
    let group: Map<String, Value> = difference.group.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    json!({
        "kind": difference.kind.word(),
        "group": group,
        "column": difference.column,
        "served": difference.served,
        "recomputed": difference.recomputed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_of_each_is_under_way_and_the_last_is_kept() {
        let verifications = Verifications::default();
        let view = |name: &str| Of::View(name.to_owned());
        assert_eq!(verifications.answer(&view("a")).await.unwrap().0["state"], "none");
        let (go, wait) = tokio::sync::oneshot::channel::<()>();
        let work = async move {
            let _ = wait.await;
            Ok(json!({"at": "now", "sound": true}))
        };
        verifications.begin(&view("a"), work).unwrap();
        assert_eq!(verifications.of_view("a"), None);
        // it is under way: this one does not begin
        verifications.begin(&view("a"), async { Ok(json!({"sound": false})) }).unwrap();
        verifications.begin(&Of::Topic("a".into()), std::future::pending()).unwrap();
        let busy = verifications.begin(&view("b"), std::future::pending()).unwrap_err();
        assert_eq!(busy.status(), 503);
        go.send(()).unwrap();
        assert_eq!(verifications.answer(&view("a")).await.unwrap().0["sound"], true);
        assert_eq!(verifications.of_view("a"), Some(json!({"at": "now", "sound": true})));
        verifications.begin(&view("a"), async { Err(Problem::not_found("gone")) }).unwrap();
        assert_eq!(verifications.answer(&view("a")).await.unwrap_err().status(), 404);
    }
}
