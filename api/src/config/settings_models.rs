//! The settings of `[[models]]`: models that are measured.

use super::schema::{Field, Kind};

/// The keys of one model.
pub const MODEL: [Field; 8] = [
    Field::required("name", Kind::Text, "\"odd_invoices\"", "The model's name."),
    Field::required(
        "kind",
        Kind::OneOf(&["forecast", "anomaly", "matching"]),
        "\"anomaly\"",
        "What it does, and so which figure is measured: MAPE, false positives, precision among the first.",
    ),
    Field::optional("description", Kind::Text, "\"Invoices that do not fit their freelancer\"", "One line for people."),
    Field::required(
        "predict",
        Kind::Text,
        "\"SELECT id, is_anomaly(ln(amount), daily_rate, 0.02) OVER () AS anomaly FROM invoices\"",
        "The SQL that predicts from what may be known. forecast: value, and columns that say when and for what; \
         anomaly: id and anomaly (BOOLEAN) of every row judged; matching: need, item and score.",
    ),
    Field::required(
        "truth",
        Kind::Text,
        "\"SELECT id FROM known_anomalies\"",
        "The SQL that gives what was true. forecast: the same columns; anomaly: the id of every real one; \
         matching: need and item of every right pair.",
    ),
    Field::required(
        "target",
        Kind::Number(0.0, 100.0),
        "5",
        "Percent: the MAPE and the share of false positives must be below it, the precision above it.",
    ),
    Field::with_default("first", Kind::Integer(1, 1_000), "5", "matching: how many of the best items of a need count."),
    Field::optional(
        "recall_min",
        Kind::Number(0.0, 100.0),
        "80",
        "anomaly: percent of the real ones that must be found, so that finding nothing is not a success.",
    ),
];
