//! `[[models]]`: from checked values to what is measured.

use engine::model::evaluation::EvaluationKind;

use super::mistake::Mistakes;
use super::value::Entry;

/// `[[models]]`: predictions by SQL and the truth they are held against.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// The name.
    pub name: String,
    /// What is measured.
    pub kind: EvaluationKind,
    /// One line for people.
    pub description: Option<String>,
    /// The SQL that predicts.
    pub predict: String,
    /// The SQL that knows.
    pub truth: String,
    /// Percent that the first figure must be below (forecast, anomaly) or above (matching).
    pub target: f64,
    /// Anomalies: percent of the real ones that must be found.
    pub recall_min: Option<f64>,
}

/// One model.
pub(super) fn model(entry: &Entry, mistakes: &mut Mistakes) -> ModelConfig {
    let kind = match entry.text_or_none("kind").unwrap_or_default().as_str() {
        "matching" => EvaluationKind::Matching(entry.count("first")),
        "anomaly" => EvaluationKind::Anomaly,
        _ => EvaluationKind::Forecast,
    };
    let recall_min = entry.number_or_none("recall_min");
    if recall_min.is_some() && kind != EvaluationKind::Anomaly {
        let message = "is for models of kind anomaly only: leave it out";
        mistakes.add(&entry.place("recall_min"), entry.path_of("recall_min"), message);
    }
    ModelConfig {
        name: entry.text_or_none("name").unwrap_or_default(),
        kind,
        description: entry.text_or_none("description"),
        predict: entry.text_or_none("predict").unwrap_or_default(),
        truth: entry.text_or_none("truth").unwrap_or_default(),
        target: entry.number_or_none("target").unwrap_or_default(),
        recall_min,
    }
}
