//! From checked values to dashboards, and the checks that need more than one key.

use std::path::Path;

use super::build::{text, unique};
use super::dashboards::{
    Colour, DashboardConfig, FilterConfig, FilterKind, PanelConfig, PanelKind, PanelStyle, ThresholdConfig,
};
use super::mistake::{Mistakes, Origin};
use super::value::Entry;
use crate::filters::RESERVED;
use crate::period::Period;

/// How a column can be written; the page knows these words.
const FORMATS: [&str; 12] = [
    "integer",
    "decimal",
    "percent",
    "share",
    "money",
    "duration_ms",
    "bytes",
    "date",
    "month",
    "year",
    "time",
    "text",
];

/// Builds one page.
pub fn dashboard(entry: &Entry, mistakes: &mut Mistakes) -> DashboardConfig {
    let name = text(entry, "name");
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_') {
        mistakes.add(&entry.place("name"), entry.path_of("name"), "stands in a URL: letters, digits, - and _ only");
    }
    unique(entry.tables("filters"), "name", mistakes);
    let filters: Vec<FilterConfig> =
        entry.tables("filters").iter().map(|filter| self::filter(filter, mistakes)).collect();
    if filters.iter().filter(|filter| filter.kind == FilterKind::Period).count() > 1 {
        mistakes.add(&entry.place("filters"), entry.path_of("filters"), "two filters are periods: keep one");
    }
    DashboardConfig {
        name,
        title: text(entry, "title"),
        description: entry.text_or_none("description"),
        owner: entry.text_or_none("owner"),
        system: entry.text_or_none("system").or_else(|| system_of(&entry.origin)),
        refresh_ms: entry.unsigned("refresh"),
        filters,
        panels: entry.tables("panels").iter().map(|panel| self::panel(panel, mistakes)).collect(),
    }
}

/// The folder of a file that is called system.toml.
fn system_of(origin: &Origin) -> Option<String> {
    let Origin::Line(file, _) = origin else { return None };
    let folder = Path::new(&**file).parent().filter(|_| file.ends_with("system.toml"))?;
    folder.file_name().map(|name| name.to_string_lossy().into_owned())
}

fn filter(entry: &Entry, mistakes: &mut Mistakes) -> FilterConfig {
    let name = text(entry, "name");
    let mut wrong = |key: &str, message: String| mistakes.add(&entry.place(key), entry.path_of(key), message);
    let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if !(name.is_empty() || starts && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')) {
        wrong("name", "is a parameter of SQL: letters, digits and _ only, and a letter first".into());
    }
    if RESERVED.contains(&name.as_str()) {
        wrong("name", format!("{name} has a meaning of its own: the names {} are taken", RESERVED.join(", ")));
    }
    let filter = FilterConfig {
        label: entry.text_or_none("label").unwrap_or_else(|| name.replace('_', " ")),
        kind: FilterKind::of_word(&text(entry, "kind")).unwrap_or_default(),
        options: entry.texts("options"),
        sql: entry.text_or_none("sql"),
        default: entry.text_or_none("default"),
        column: entry.text_or_none("column").unwrap_or_else(|| name.clone()),
        name,
    };
    if filter.kind == FilterKind::Period {
        for word in filter.options.iter().chain(&filter.default).filter(|word| Period::parse(word).is_none()) {
            let key = if filter.default.as_ref() == Some(word) { "default" } else { "options" };
            wrong(key, format!("{word} is no period: write 15m, 24h, 7d, 3mo, 1y, today, month, ytd or all"));
        }
    }
    if filter.sql.is_some() && !filter.options.is_empty() {
        wrong("sql", "give either options or sql".into());
    }
    filter
}

fn panel(entry: &Entry, mistakes: &mut Mistakes) -> PanelConfig {
    let pairs = |key: &str| entry.map(key).into_iter().collect::<Vec<(String, String)>>();
    let panel = PanelConfig {
        title: text(entry, "title"),
        description: entry.text_or_none("description"),
        kind: PanelKind::of_word(&text(entry, "kind")).unwrap_or_default(),
        view: entry.text_or_none("view"),
        sql: entry.text_or_none("sql"),
        x: entry.text_or_none("x"),
        y: entry.texts("y"),
        series: entry.text_or_none("series"),
        range_ms: entry.integer_or_none("range"),
        top: entry.integer_or_none("top").and_then(|top| usize::try_from(top).ok()),
        unit: entry.text_or_none("unit"),
        style: entry.text_or_none("style").and_then(|word| PanelStyle::of_word(&word)),
        width: entry.integer_or_none("width").and_then(|width| usize::try_from(width).ok()),
        min: entry.number_or_none("min"),
        max: entry.number_or_none("max"),
        target: entry.number_or_none("target"),
        compare: entry.text_or_none("compare"),
        compare_label: entry.text_or_none("compare_label"),
        labels: pairs("labels"),
        formats: pairs("formats"),
        links: pairs("links"),
        thresholds: entry.tables("thresholds").iter().map(|rule| threshold(rule, mistakes)).collect(),
        status: entry.text_or_none("status"),
    };
    check(&panel, entry, mistakes);
    panel
}

fn threshold(entry: &Entry, mistakes: &mut Mistakes) -> ThresholdConfig {
    let plain = |json: String| match serde_json::from_str(&json) {
        Ok(serde_json::Value::String(text)) => text,
        _ => json,
    };
    let rule = ThresholdConfig {
        column: entry.text_or_none("column"),
        below: entry.number_or_none("below"),
        above: entry.number_or_none("above"),
        equals: entry.text_or_none("equals").map(plain),
        colour: Colour::of_word(&text(entry, "colour")).unwrap_or(Colour::Green),
    };
    if rule.below.is_none() && rule.above.is_none() && rule.equals.is_none() {
        mistakes.add(&entry.origin, entry.path.as_str(), "matches nothing: give below, above or equals");
    }
    rule
}

fn check(panel: &PanelConfig, entry: &Entry, mistakes: &mut Mistakes) {
    let mut wrong = |key: &str, message: String| mistakes.add(&entry.place(key), entry.path_of(key), message);
    if panel.kind != PanelKind::Table && panel.y.is_empty() {
        wrong("y", "missing; name the columns to draw, for example y = [\"plays\"]".into());
    }
    let needs_x = matches!(panel.kind, PanelKind::Line | PanelKind::Bar | PanelKind::Pie | PanelKind::Heatmap);
    if panel.x.is_none() && needs_x {
        wrong("x", "missing; name the column along the axis, for example x = \"window_start\"".into());
    }
    if panel.series.is_none() && panel.kind == PanelKind::Heatmap {
        wrong("series", "missing; name the column of the heat map's rows, for example series = \"genre\"".into());
    }
    if panel.min.unwrap_or(0.0) >= panel.max.unwrap_or(100.0) {
        wrong("max", "must be above min (0 where it is not given)".into());
    }
    for (column, format) in panel.formats.iter().filter(|(_, format)| !FORMATS.contains(&format.as_str())) {
        wrong("formats", format!("{column} = {format}: choose one of {}", FORMATS.join(", ")));
    }
    for (column, link) in &panel.links {
        let inside = link.starts_with('/') && !link.starts_with("//");
        if !inside && !link.starts_with("https://") && !link.starts_with("http://") {
            wrong("links", format!("{column} = {link}: begin with / for a page of this server, or with https://"));
        }
    }
    if panel.view.is_some() == panel.sql.is_some() {
        mistakes.add(&entry.origin, entry.path.as_str(), "give either view or sql");
    }
}
