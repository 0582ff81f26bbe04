//! The keys of `[[dashboards]]`: pages, what they are filtered by, and their panels.

use super::schema::{Field, Kind};

const DAY: i64 = 86_400_000;

/// A page of panels.
pub const DASHBOARD: [Field; 8] = [
    Field::required(
        "name",
        Kind::Text,
        "\"music\"",
        "The name in its URL, /d/<name>: letters, digits, - and _. One name for one page, over all files.",
    ),
    Field::required("title", Kind::Text, "\"Music\"", "The title people read."),
    Field::optional("description", Kind::Text, "\"What is listened to, and where\"", "A line below the title."),
    Field::optional("owner", Kind::Text, "\"data team\"", "Who answers for it; shown in the catalog."),
    Field::optional(
        "system",
        Kind::Text,
        "\"music\"",
        "The group it stands in on the start page. Without it: the folder of a file that is called system.toml.",
    ),
    Field::with_default(
        "refresh",
        Kind::Duration(500, DAY),
        "10s",
        "Time between two looks at panels that no change wakes (SQL); all viewers share one answer.",
    ),
    Field::optional(
        "filters",
        Kind::Tables(&FILTER),
        "",
        "What people can choose on the page. The values stand in its URL and are parameters of SQL: $<name>, and $from, $to of a period, and $now. An unset one is the empty text.",
    ),
    Field::optional("panels", Kind::Tables(&PANEL), "", "The charts, in the order shown."),
];

/// What a page is filtered by.
pub const FILTER: [Field; 7] = [
    Field::required(
        "name",
        Kind::Text,
        "\"genre\"",
        "Its name in the URL and, after $, in SQL: letters, digits and _.",
    ),
    Field::optional("label", Kind::Text, "\"Genre\"", "What people read; without it, the name."),
    Field::with_default(
        "kind",
        Kind::OneOf(&["select", "multi", "text", "date", "period"]),
        "select",
        "select: one of the choices. multi: several, in SQL joined by |. text: any. date: a day. period: a length of time, which sets $from and $to.",
    ),
    Field::optional(
        "options",
        Kind::Texts,
        "[\"jazz\", \"pop\"]",
        "The choices. Of a period: 15m, 24h, 7d; 3mo (this month and the two before), 1y, today, month, ytd, all.",
    ),
    Field::optional(
        "sql",
        Kind::Text,
        "\"SELECT DISTINCT genre FROM listens ORDER BY genre\"",
        "SQL whose first column is the choices.",
    ),
    Field::optional("default", Kind::Text, "\"jazz\"", "What holds when the URL does not say."),
    Field::optional(
        "column",
        Kind::Text,
        "\"genre\"",
        "The key column of views that it filters; without it, the one of its name.",
    ),
];

/// One panel of a page.
pub const PANEL: [Field; 23] = [
    Field::required("title", Kind::Text, "\"Plays per minute\"", "The title people read."),
    Field::required(
        "kind",
        Kind::OneOf(&["line", "bar", "pie", "gauge", "number", "table", "heatmap"]),
        "\"line\"",
        "How it is drawn.",
    ),
    Field::optional("description", Kind::Text, "\"Listens that have begun\"", "A help text."),
    Field::optional("view", Kind::Text, "\"plays_per_minute\"", "The view it reads, live; either this or sql."),
    Field::optional(
        "sql",
        Kind::Text,
        "\"SELECT genre, count(*) AS plays FROM listens WHERE ts >= $from AND ts < $to GROUP BY genre\"",
        "The SQL it asks at each refresh; either this or view. Parameters: $from, $to, $now and each filter by its name.",
    ),
    Field::optional(
        "x",
        Kind::Text,
        "\"window_start\"",
        "The column along the x axis, or the label of a bar or slice; a line needs it. A number with SQL and x shows the last row, and the others as its course.",
    ),
    Field::optional("y", Kind::Texts, "[\"plays\"]", "The columns drawn as values; every kind but table needs one."),
    Field::optional(
        "series",
        Kind::Text,
        "\"genre\"",
        "The column whose values become one line or colour each; of a heat map, its rows.",
    ),
    Field::optional(
        "range",
        Kind::Duration(1_000, 3650 * DAY),
        "\"1h\"",
        "How far back from now it reads; without it, the default of the page's period, or everything.",
    ),
    Field::optional("top", Kind::Integer(1, 1_000), "10", "Only the largest so many lines, bars, slices or rows."),
    Field::optional("unit", Kind::Text, "\"plays\"", "Unit shown after a value."),
    Field::optional(
        "style",
        Kind::OneOf(&["area", "stacked", "horizontal", "vertical"]),
        "\"area\"",
        "A line: area or stacked. Bars: horizontal (what they are over categories), vertical (over time) or stacked.",
    ),
    Field::optional(
        "width",
        Kind::Integer(1, 12),
        "6",
        "Columns of twelve that it takes on a wide screen; without it, by its kind.",
    ),
    Field::optional("min", Kind::Number(f64::MIN, f64::MAX), "0", "Where a gauge begins; without it, 0."),
    Field::optional("max", Kind::Number(f64::MIN, f64::MAX), "100", "Where a gauge ends; without it, 100."),
    Field::optional("target", Kind::Number(f64::MIN, f64::MAX), "78", "A mark on a gauge, or a line across a chart."),
    Field::optional(
        "compare",
        Kind::Text,
        "\"plays_before\"",
        "Of a number: the column with the figure it is compared with.",
    ),
    Field::optional("compare_label", Kind::Text, "\"vs yesterday\"", "What that figure is."),
    Field::optional("labels", Kind::Map, "{ plays = \"Plays\" }", "Headings of columns."),
    Field::optional(
        "formats",
        Kind::Map,
        "{ played_ms = \"duration_ms\" }",
        "How columns are written: integer, decimal, percent (12.3), share (0.123), money, duration_ms, bytes, date, month, year, time or text.",
    ),
    Field::optional(
        "links",
        Kind::Map,
        "{ genre = \"/d/music?genre={genre}\" }",
        "Cells of a table that are links; {column} is that row's value.",
    ),
    Field::optional(
        "thresholds",
        Kind::Tables(&THRESHOLD),
        "[{ below = 10, colour = \"red\" }, { below = 50, colour = \"orange\" }]",
        "What is green, orange or red: the first that matches decides, and where none does it is green.",
    ),
    Field::optional(
        "status",
        Kind::Text,
        "\"state\"",
        "A column whose text is green, orange or red and decides instead.",
    ),
];

/// One rule of colour.
pub const THRESHOLD: [Field; 5] = [
    Field::optional("column", Kind::Text, "\"plays\"", "The column looked at; without it, the first of y."),
    Field::optional("below", Kind::Number(f64::MIN, f64::MAX), "10", "Matches lesser numbers."),
    Field::optional("above", Kind::Number(f64::MIN, f64::MAX), "1000000", "Matches larger numbers."),
    Field::optional("equals", Kind::Any, "\"overdue\"", "Matches this text or number."),
    Field::required("colour", Kind::OneOf(&["green", "orange", "red"]), "\"red\"", "The colour then."),
];
