//! The settings of who may read what over HTTP, and of what reading costs.

use super::schema::{Field, Kind};

/// `[[tokens]]`.
pub const TOKEN: [Field; 5] = [
    Field::required("name", Kind::Text, "\"finance\"", "Its name in messages and in the log of queries."),
    Field::required(
        "token",
        Kind::Text,
        "\"6f1ed002ab5595859014ebf0951522d9\"",
        "The token itself, at least 16 letters; better ${FINANCE_TOKEN} or ${file:/run/secrets/finance} than its text. Kept as its SHA-256 only.",
    ),
    Field::with_default(
        "scopes",
        Kind::Texts,
        "read",
        "What it may do: read (queries, views, dashboards, lists), write (records, schemas), admin (both, and every order such as running a job).",
    ),
    Field::with_default(
        "data",
        Kind::Texts,
        "*",
        "The topics, streams, views and tables that it may read and write, by name; * stands for any letters.",
    ),
    Field::optional(
        "filters",
        Kind::Tables(&FILTER),
        "[{ table = \"invoices\", where = \"country = 'FR'\", masked = [\"email\"] }]",
        "Parts of tables: of each it reads only the rows that meet the condition, by whatever way. What is computed from such a table is closed to it until it has a filter too.",
    ),
];

const FILTER: [Field; 3] = [
    Field::required("table", Kind::Text, "\"invoices\"", "A stream, view or table, as SQL names it."),
    Field::optional(
        "where",
        Kind::Text,
        "\"country = 'FR'\"",
        "The rows that are read, as a condition of SQL over its columns; without it, all.",
    ),
    Field::optional("masked", Kind::Texts, "[\"email\"]", "Columns that are read as null."),
];

/// `[costs]`.
pub const COSTS: [Field; 4] = [
    Field::with_default("currency", Kind::Text, "EUR", "The currency of the prices, as it is shown."),
    Field::with_default(
        "stored_gib_month",
        Kind::Number(0.0, f64::MAX),
        "0.02",
        "Price of a GiB of Parquet that is stored, for a month.",
    ),
    Field::with_default(
        "stored_log_gib_month",
        Kind::Number(0.0, f64::MAX),
        "0.08",
        "Price of a GiB of the log that is stored, for a month.",
    ),
    Field::with_default("scanned_gib", Kind::Number(0.0, f64::MAX), "0.005", "Price of a GiB that queries read."),
];
