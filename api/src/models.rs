//! `/v1/models`: the declared models, their targets, and how well they did when they were last measured.
//!
//! A measurement runs the two statements of the model through the same SQL as everybody's and compares the answers. The
//! figures are kept in memory: they can be had again at any time, and old ones say nothing about new data.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::Uri;
use engine::model::evaluation::{Answered, EvaluationKind, Figures, evaluate};
use lake::{QueryKind, SqlRequest};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::access::Need;
use crate::app::App;
use crate::config::ModelConfig;
use crate::error::{Answer, Problem};
use crate::output::time_text;
use crate::params::Params;
use crate::routes::{Doc, Routes};

/// The declared models and the latest figures of each. Only measurements change it; nothing survives a restart.
#[derive(Default)]
pub struct Models {
    declared: Vec<ModelConfig>,
    latest: Mutex<BTreeMap<String, Value>>,
}

impl Models {
    /// The models of the configuration, none of them measured.
    pub fn new(declared: Vec<ModelConfig>) -> Models {
        Models { declared, latest: Mutex::default() }
    }

    /// The models of which a statement meets a condition.
    pub fn naming(&self, meets: impl Fn(&str) -> bool) -> impl Iterator<Item = &str> {
        let naming = self.declared.iter().filter(move |model| meets(&model.predict) || meets(&model.truth));
        naming.map(|model| model.name.as_str())
    }

    fn find(&self, name: &str) -> Answer<&ModelConfig> {
        self.declared.iter().find(|model| model.name == name).ok_or_else(|| {
            let names: Vec<&str> = self.declared.iter().map(|model| model.name.as_str()).collect();
            Problem::not_found(match names.is_empty() {
                true => format!("no model {name}: none is declared under [[models]]"),
                false => format!("no model {name}: there are {}", names.join(", ")),
            })
        })
    }

    fn json(&self, model: &ModelConfig) -> Value {
        json!({
            "name": model.name,
            "kind": kind_word(model.kind),
            "description": model.description,
            "target": {"figure": figure_name(model.kind), "must_be": must_be(model.kind), "percent": model.target},
            "recall_min_percent": model.recall_min,
            "latest": self.latest.lock().get(&model.name),
        })
    }
}

/// Adds this file's routes.
pub fn routes(routes: Routes) -> Routes {
    routes
        .get("/v1/models", Doc::new("Declared models, their targets and the latest figures").need(Need::ReadAll), list)
        .get("/v1/models/{model}", Doc::new("One model, its target and the latest figures").need(Need::ReadAll), one)
        .post("/v1/models/{model}/evaluate", Doc::new("Measures a model now; the answer has its figures"), measure)
}

async fn list(State(app): State<Arc<App>>, uri: Uri) -> Answer<Json<Value>> {
    Params::of(&uri)?.finish()?;
    let models: Vec<Value> = app.models.declared.iter().map(|model| app.models.json(model)).collect();
    Ok(Json(json!({ "models": models })))
}

async fn one(State(app): State<Arc<App>>, Path(name): Path<String>, uri: Uri) -> Answer<Json<Value>> {
    Params::of(&uri)?.finish()?;
    let model = app.models.find(&name)?;
    Ok(Json(app.models.json(model)))
}

async fn measure(State(app): State<Arc<App>>, Path(name): Path<String>, uri: Uri) -> Answer<Json<Value>> {
    Params::of(&uri)?.finish()?;
    let model = app.models.find(&name)?.clone();
    let started_ms = app.clock().now_ms();
    let predicted = ask(&app, &model.predict, "predict").await?;
    let truth = ask(&app, &model.truth, "truth").await?;
    let kind = model.kind;
    let figures = tokio::task::spawn_blocking(move || evaluate(kind, &predicted, &truth))
        .await
        .map_err(|error| Problem::internal(error.to_string()))?
        .map_err(|why| Problem::bad_request(format!("the model {name} cannot be measured: {why}")))?;
    let now_ms = app.clock().now_ms();
    let latest = json!({
        "at": time_text(now_ms),
        "took_ms": now_ms - started_ms,
        "ok": reached(&model, &figures),
        "compared": figures.compared,
        "figures": figures.figures.iter().map(|f| json!({"name": f.name, "percent": f.percent})).collect::<Vec<_>>(),
    });
    app.models.latest.lock().insert(model.name.clone(), latest);
    Ok(Json(app.models.json(&model)))
}

/// One of the two statements; an answer that was cut would give wrong figures.
async fn ask(app: &App, sql: &str, part: &str) -> Answer<Answered> {
    let most = app.sql_rows_max;
    let request =
        SqlRequest { sql: sql.to_owned(), row_limit: most + 1, kind: QueryKind::Model, ..SqlRequest::default() };
    let answer = app.lake.sql(request).await?;
    if answer.rows.iter().map(|rows| rows.num_rows()).sum::<usize>() > most {
        let detail = format!(
            "the {part} SQL gives more than {most} rows: narrow it, or raise lake.sql_rows_max and http.rows_max"
        );
        return Err(Problem::bad_request(detail));
    }
    Ok(Answered { schema: answer.schema, rows: answer.rows })
}

fn reached(model: &ModelConfig, figures: &Figures) -> bool {
    let percent = |at: usize| figures.figures.get(at).map_or(f64::NAN, |figure| figure.percent);
    let first = match model.kind {
        EvaluationKind::Matching(_) => percent(0) > model.target,
        EvaluationKind::Forecast | EvaluationKind::Anomaly => percent(0) < model.target,
    };
    first && model.recall_min.is_none_or(|least| percent(1) >= least)
}

fn kind_word(kind: EvaluationKind) -> &'static str {
    match kind {
        EvaluationKind::Forecast => "forecast",
        EvaluationKind::Matching(_) => "matching",
        EvaluationKind::Anomaly => "anomaly",
    }
}

fn figure_name(kind: EvaluationKind) -> String {
    match kind {
        EvaluationKind::Forecast => "MAPE".into(),
        EvaluationKind::Matching(first) => format!("precision@{first}"),
        EvaluationKind::Anomaly => "false positives".into(),
    }
}

fn must_be(kind: EvaluationKind) -> &'static str {
    if matches!(kind, EvaluationKind::Matching(_)) { "above" } else { "below" }
}

#[cfg(test)]
mod tests {
    use engine::model::evaluation::Figure;

    use super::*;

    fn model(kind: EvaluationKind, target: f64, recall_min: Option<f64>) -> ModelConfig {
        let text = || "SELECT 1".to_owned();
        ModelConfig { name: "m".into(), kind, description: None, predict: text(), truth: text(), target, recall_min }
    }

    fn figures(percents: &[f64]) -> Figures {
        let figures = percents.iter().map(|percent| Figure { name: "f".into(), percent: *percent }).collect();
        Figures { figures, compared: 1 }
    }

    #[test]
    fn targets_are_below_or_above() {
        assert!(reached(&model(EvaluationKind::Forecast, 15.0, None), &figures(&[14.9])));
        assert!(!reached(&model(EvaluationKind::Forecast, 15.0, None), &figures(&[15.0])));
        assert!(!reached(&model(EvaluationKind::Forecast, 15.0, None), &figures(&[])));
        assert!(reached(&model(EvaluationKind::Matching(5), 70.0, None), &figures(&[70.1])));
        assert!(!reached(&model(EvaluationKind::Matching(5), 70.0, None), &figures(&[14.9])));
        assert!(!reached(&model(EvaluationKind::Anomaly, 5.0, Some(80.0)), &figures(&[0.0, 0.0])));
        assert!(reached(&model(EvaluationKind::Anomaly, 5.0, Some(80.0)), &figures(&[1.0, 80.0])));
    }
}
