//! What a dashboard is filtered by: from the words in a URL to what panels are asked, and the choices that people have.

use std::sync::Arc;

use chrono::NaiveDate;
use lake::Reader;
use serde_json::{Value, json};

use crate::app::{App, Dashboard};
use crate::config::{FilterConfig, FilterKind};
use crate::error::{Answer, Problem};
use crate::panels::{Chosen, Panel, PanelRequest, Source, ask};
use crate::params::{Params, parse_duration};
use crate::period::Period;
use crate::question::{Question, SEPARATOR};
use crate::rows::Rows;
use crate::views;

/// Names in a URL and in SQL that no filter may have.
pub const RESERVED: [&str; 9] = ["from", "to", "now", "range", "wait", "format", "data", "fresh", "status"];
/// Longest value of a filter, in bytes.
const VALUE_BYTES_MAX: usize = 500;
/// Most values of one filter.
const VALUES_MAX: usize = 100;
/// Most choices that SQL gives.
const CHOICES_MAX: usize = 1_000;
/// Choices that are at most so old are not asked for again, in ms.
const CHOICES_AGE_MS: u64 = 30_000;
/// The choices of a period that declares none.
const PERIODS: [&str; 7] = ["1h", "24h", "7d", "30d", "3mo", "12mo", "all"];
/// The choices of a page without a period, when one of its panels looks back.
pub const RANGES: [&str; 6] = ["15m", "1h", "6h", "24h", "7d", "30d"];

/// The filters of a dashboard: the declared ones, or one for each key column of its views.
pub fn filters_of(declared: &[FilterConfig], panels: &[Panel]) -> Vec<FilterConfig> {
    if !declared.is_empty() {
        return declared.to_vec();
    }
    let mut keys: Vec<FilterConfig> = Vec::new();
    for panel in panels {
        let Source::View(shape) = &panel.source else { continue };
        for key in &shape.keys {
            if !keys.iter().any(|known| known.name == *key) && !RESERVED.contains(&key.as_str()) {
                let (name, label) = (key.clone(), key.replace('_', " "));
                keys.push(FilterConfig {
                    column: name.clone(),
                    name,
                    label,
                    kind: FilterKind::Text,
                    ..Default::default()
                });
            }
        }
    }
    keys
}

/// What a request asks of all panels of a dashboard.
pub fn request(app: &App, dashboard: &Dashboard, params: &mut Params) -> Answer<PanelRequest> {
    let range = params.take("range")?.map(|word| period(&word, "range")).transpose()?;
    let (from, to) = (params.take_time("from")?, params.take_time("to")?);
    if range.is_some() && (from.is_some() || to.is_some()) {
        return Err(Problem::bad_request("range and from or to are both there: send one"));
    }
    let refresh_ms = dashboard.config.refresh_ms;
    let age_ms = if params.take("fresh")?.as_deref() == Some("true") { 0 } else { 1_000.min(refresh_ms * 9 / 10) };
    let wait_ms = views::wait(app, params)?;
    let given = params.take_rest();
    if let Some((name, _)) = given.iter().find(|(name, _)| !dashboard.filters.iter().any(|known| known.name == *name)) {
        let known: Vec<&str> = dashboard.filters.iter().map(|filter| filter.name.as_str()).collect();
        let known = known.join(", ");
        return Err(Problem::bad_request(format!(
            "unknown parameter {name}: this takes range, from, to, wait, fresh and the filters [{known}]"
        )));
    }
    let mut request = PanelRequest { period: range, from, to, wait_ms, age_ms, refresh_ms, ..PanelRequest::default() };
    for filter in &dashboard.filters {
        let chosen = chosen(filter, &given)?;
        if filter.kind == FilterKind::Period {
            let asked = given.iter().any(|(name, _)| *name == filter.name);
            let period = chosen.values.first().map(|word| period(word, &filter.name)).transpose()?;
            match period {
                Some(period) if asked => request.period = request.period.or(Some(period)),
                period => request.default_period = period,
            }
        }
        request.chosen.push(chosen);
    }
    Ok(request)
}

fn period(word: &str, name: &str) -> Answer<Period> {
    let length = || parse_duration(word).filter(|ms| *ms >= 0).map(Period::Rolling);
    Period::parse(word).or_else(length).ok_or_else(|| {
        Problem::bad_request(format!(
            "{name}={word}: send a length of time such as 90s, 15m, 1h, 7d, 3mo, 1y, today, month, ytd or all"
        ))
    })
}

fn chosen(filter: &FilterConfig, given: &[(String, String)]) -> Answer<Chosen> {
    let told: Vec<&String> = given.iter().filter(|(name, _)| *name == filter.name).map(|(_, value)| value).collect();
    let name = &filter.name;
    if told.len() > if filter.kind == FilterKind::Multi { VALUES_MAX } else { 1 } {
        return Err(Problem::bad_request(format!("{name} is given {} times: that is too often", told.len())));
    }
    if let Some(long) = told.iter().find(|value| value.len() > VALUE_BYTES_MAX) {
        return Err(Problem::bad_request(format!("{name} has {} bytes: send at most {VALUE_BYTES_MAX}", long.len())));
    }
    let words: Vec<String> = if told.is_empty() {
        filter.default.iter().cloned().collect()
    } else {
        told.into_iter().filter(|value| !value.is_empty()).cloned().collect()
    };
    let is_day = |word: &String| NaiveDate::parse_from_str(word, "%Y-%m-%d").is_ok();
    if let Some(word) = words.iter().find(|word| filter.kind == FilterKind::Date && !is_day(word)) {
        return Err(Problem::bad_request(format!("{name}={word}: send a day such as 2026-11-20")));
    }
    let values = if filter.kind == FilterKind::Multi {
        words.iter().flat_map(|word| word.split(SEPARATOR)).filter(|word| !word.is_empty()).map(str::to_owned).collect()
    } else {
        words
    };
    Ok(Chosen { name: name.clone(), column: filter.column.clone(), values })
}

/// A filter with its choices, as the page needs it. Choices that cannot be asked for are a problem of the filter only.
pub async fn describe(app: &App, filter: &FilterConfig, reader: Option<Arc<Reader>>) -> Value {
    let mut problem = None;
    let options: Vec<String> = match (&filter.sql, filter.kind) {
        (Some(sql), _) => choices(app, sql, reader).await.unwrap_or_else(|e| {
            problem = Some(e.to_json());
            Vec::new()
        }),
        (None, FilterKind::Period) if filter.options.is_empty() => PERIODS.map(str::to_owned).to_vec(),
        (None, _) => filter.options.clone(),
    };
    json!({
        "name": filter.name,
        "label": filter.label,
        "kind": filter.kind.word(),
        "column": filter.column,
        "options": options,
        "default": filter.default,
        "problem": problem,
    })
}

async fn choices(app: &App, sql: &str, reader: Option<Arc<Reader>>) -> Answer<Vec<String>> {
    let question = Question::bind(sql, &[]).map_err(Problem::bad_request)?;
    let now = app.clock().now_ms();
    let params = question.params(&[], (None, None), now - now.rem_euclid(60_000));
    let asked = ask(app, (question.text(), params), (CHOICES_MAX, CHOICES_AGE_MS), reader).await?;
    let rows = Rows::of(&asked.schema, &asked.rows)?;
    let first = rows.rows.into_iter().filter_map(|row| row.into_iter().next());
    let texts = first.filter_map(|value| match value {
        Value::Null => None,
        Value::String(text) => Some(text),
        other => Some(other.to_string()),
    });
    Ok(texts.filter(|text| !text.is_empty() && text.len() <= VALUE_BYTES_MAX).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(kind: FilterKind, default: Option<&str>) -> FilterConfig {
        FilterConfig {
            name: "skill".into(),
            column: "skill".into(),
            kind,
            default: default.map(str::to_owned),
            ..FilterConfig::default()
        }
    }

    fn values(filter: &FilterConfig, given: &[&str]) -> Answer<Vec<String>> {
        let given: Vec<(String, String)> = given.iter().map(|value| ("skill".into(), (*value).to_owned())).collect();
        chosen(filter, &given).map(|chosen| chosen.values)
    }

    #[test]
    fn the_url_wins_over_the_default_and_an_empty_value_means_all() {
        let select = filter(FilterKind::Select, Some("Rust"));
        assert_eq!(values(&select, &[]).unwrap(), ["Rust"]);
        assert_eq!(values(&select, &["a'; DROP TABLE x --"]).unwrap(), ["a'; DROP TABLE x --"]);
        assert!(values(&select, &[""]).unwrap().is_empty());
        assert!(values(&select, &["a", "b"]).is_err());
        assert!(values(&select, &["x".repeat(501).as_str()]).is_err());
    }

    #[test]
    fn several_values_come_repeated_or_joined() {
        let multi = filter(FilterKind::Multi, None);
        assert_eq!(values(&multi, &["Rust", "Go|Python"]).unwrap(), ["Rust", "Go", "Python"]);
        assert!(values(&multi, &[]).unwrap().is_empty());
    }

    #[test]
    fn a_day_is_a_day() {
        let day = filter(FilterKind::Date, None);
        assert_eq!(values(&day, &["2026-11-20"]).unwrap(), ["2026-11-20"]);
        assert!(values(&day, &["20.11.2026"]).is_err());
        assert_eq!(period("90s", "range").unwrap(), Period::Rolling(90_000));
        assert_eq!(period("12mo", "range").unwrap(), Period::Months(12));
        assert!(period("soon", "range").is_err());
    }
}
