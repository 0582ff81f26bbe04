//! How a view is computed, step by step: as it runs now, or as it would.

use std::sync::Arc;

use datafusion::sql::sqlparser::ast::SetExpr;

use crate::Engine;
use crate::check::{LATE_SUFFIX, REJECTED_SUFFIX};
use crate::error::Result;
use crate::parse::{WINDOW_START, parse_view};
use crate::parse_emit::Emit;
use crate::running::Running;
use crate::shared::RunningView;
use crate::unnest::ITEM;
use crate::view::ViewPlan;

impl Engine {
    /// The steps of a view, each with what it does.
    ///
    /// # Errors
    /// `Unknown`.
    pub fn explain(&self, view: &str) -> Result<Vec<(&'static str, String)>> {
        let running = self.running();
        let view = running.view(view)?;
        Ok(steps(&view.plan, &shared_with(&running, view)))
    }
}

/// The steps of a view whose stream is read in this way.
pub(super) fn steps(plan: &ViewPlan, reading: &str) -> Vec<(&'static str, String)> {
    let stream = &plan.stream;
    let input = plan.aggregation.input_schema();
    let names = input.fields().iter().map(|field| field.name().as_str());
    let used: Vec<&str> = names.filter(|name| ![WINDOW_START, ITEM].contains(name)).collect();
    let mut steps = vec![
        ("read", format!("topic {} as stream {}, {reading}", stream.topic(), stream.name())),
        ("decode", format!("all columns of {}; of them the view uses: {}", stream.name(), used.join(", "))),
    ];
    steps.extend(plan.unnest.as_ref().map(|unnest| ("unnest", format!("a row for each item of {}", unnest.text))));
    let (condition, having) = conditions(&plan.sql);
    steps.extend(condition.map(|condition| ("filter", condition)));
    if let Some(windows) = plan.windows {
        let (name, width, lateness_ms) = (windows.name(), windows.nominal_ms(), stream.config().lateness_ms);
        let what = format!("{name} of {width} ms over {}, closed {lateness_ms} ms behind its end", stream.event_time());
        steps.push(("window", what));
    }
    let state = plan.aggregation.state_schema();
    let kept = state.fields().iter().map(|field| field.name().as_str()).collect::<Vec<&str>>().join(", ");
    steps.push(("aggregate", format!("by window and keys ({}); kept per group: {kept}", plan.keys.join(", "))));
    let told = match plan.emit {
        Emit::Changes => "changed groups",
        Emit::Final => "each group once, when its window is closed,",
    };
    steps.push((
        "write",
        format!(
            "{told} to topic {0}, late rows to {0}{LATE_SUFFIX}, rows that fail to {1}{REJECTED_SUFFIX}, in one \
             commit with the state and the offsets",
            plan.name,
            stream.name()
        ),
    ));
    steps.extend(plan.retention_ms.map(|ms| ("forget", format!("windows that closed {ms} ms ago"))));
    steps.extend(having.map(|having| ("when read: filter", having)));
    let columns: Vec<&str> = plan.schema.fields().iter().map(|field| field.name().as_str()).collect();
    steps.push(("when read: columns", columns.join(", ")));
    steps
}

/// The texts of WHERE and HAVING.
fn conditions(sql: &str) -> (Option<String>, Option<String>) {
    let Ok(parsed) = parse_view(sql) else { return (None, None) };
    let SetExpr::Select(select) = parsed.query.body.as_ref() else { return (None, None) };
    let text = |expr: &Option<datafusion::sql::sqlparser::ast::Expr>| expr.as_ref().map(ToString::to_string);
    (text(&select.selection), text(&select.having))
}

/// The views that are computed from the same reading and decoding.
fn shared_with(running: &Running, view: &RunningView) -> String {
    let shared = &view.follower.pipeline;
    let same = running.views.iter().filter(|other| Arc::ptr_eq(&other.follower.pipeline, shared));
    let others: Vec<&str> = same.map(|other| &*other.plan.name).filter(|name| *name != &*view.plan.name).collect();
    match others.is_empty() {
        true => "in a reading of its own".to_string(),
        false => format!("in one reading with {}", others.join(", ")),
    }
}
