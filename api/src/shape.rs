//! From the rows of a view to those of a panel: rows that fall together are combined, the largest are chosen. What cannot
//! be added up (an average) is refused when the server starts, not drawn wrong.

use std::collections::HashMap;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::Schema;
use engine::{Combine, ViewInfo, combine_of};
use serde_json::{Value, json};

use crate::config::{PanelConfig, PanelKind};
use crate::error::{Answer, Problem};
use crate::figures::{Figure, Figures};
use crate::output::{Cells, columns, sql_type};

/// Column that windows are told apart by.
pub const WINDOW_START: &str = "window_start";

/// How the rows of a view become those of a panel.
pub struct Shape {
    /// The view's name.
    pub view: String,
    /// Its key columns: what the page can filter by.
    pub keys: Vec<String>,
    /// Whether it has windows.
    pub windowed: bool,
    /// From one of its windows to the next, in ms; None for sessions.
    pub window_ms: Option<i64>,
    /// The column along the x axis.
    pub x: Option<String>,
    /// The column of which each value is a series.
    pub series: Option<String>,
    /// The columns of figures, and how they are combined.
    pub y: Vec<(String, Combine)>,
    /// Whether the rows are shown as they are.
    pub raw: bool,
}

impl Shape {
    /// Binds a panel to a view; the error says what to change.
    pub fn bind(config: &PanelConfig, info: &ViewInfo) -> Result<Shape, String> {
        let windowed = info.schema.field_with_name(WINDOW_START).is_ok();
        let window = windowed.then(|| WINDOW_START.to_owned());
        let raw = config.kind == PanelKind::Table && config.x.is_none();
        let x = match config.kind {
            PanelKind::Number | PanelKind::Gauge => None,
            PanelKind::Line => Some(
                config
                    .x
                    .clone()
                    .or(window)
                    .ok_or_else(|| format!("a line over view {}, which has no windows, needs x", info.name))?,
            ),
            PanelKind::Bar | PanelKind::Pie | PanelKind::Heatmap => {
                let x = config.x.clone().or_else(|| info.keys.first().cloned()).or(window);
                Some(x.ok_or_else(|| {
                    format!("view {} has neither keys nor windows: write kind = \"number\"", info.name)
                })?)
            }
            PanelKind::Table => config.x.clone(),
        };
        for name in x.iter().chain(&config.series).chain(&config.y) {
            info.schema.field_with_name(name).map_err(|_| {
                let known: Vec<&str> = info.schema.fields().iter().map(|f| f.name().as_str()).collect();
                format!("view {} has no column {name}: it has [{}]", info.name, known.join(", "))
            })?;
        }
        let ruled = config.thresholds.iter().filter_map(|rule| rule.column.as_ref());
        if let Some(other) = ruled.chain(&config.status).find(|name| !raw && !config.y.contains(name)) {
            return Err(format!("a colour depends on {other}, which is not in y: add it there, or write sql"));
        }
        let grouped = |name: &str| x.as_deref() == Some(name) || config.series.as_deref() == Some(name);
        let over_windows = windowed && !grouped(WINDOW_START);
        let combines = over_windows || info.keys.iter().any(|key| !grouped(key));
        let twice = over_windows && info.windows.is_some_and(engine::Windows::overlap);
        let mut y = Vec::new();
        if !raw {
            for name in value_columns(config, info) {
                let combine = check_value(info, &name, combines)?;
                if twice && combine == Combine::Sum {
                    return Err(format!(
                        "the windows of view {} overlap, so {name} cannot be added up over them: make window_start the x or \
                         the series, or use a view of TUMBLE",
                        info.name
                    ));
                }
                y.push((name, combine));
            }
        }
        Ok(Shape {
            view: info.name.clone(),
            keys: info.keys.clone(),
            windowed,
            window_ms: info.windows.and_then(engine::Windows::step_ms),
            x,
            series: config.series.clone(),
            y,
            raw,
        })
    }
}

/// The declared value columns, or those that are neither windows nor keys.
fn value_columns(config: &PanelConfig, info: &ViewInfo) -> Vec<String> {
    if !config.y.is_empty() {
        return config.y.clone();
    }
    let names = info.schema.fields().iter().map(|field| field.name());
    let values = names.filter(|name| *name != WINDOW_START && *name != "window_end" && !info.keys.contains(name));
    let one = matches!(config.kind, PanelKind::Number | PanelKind::Gauge | PanelKind::Pie | PanelKind::Heatmap);
    let most = if one { 1 } else { usize::MAX };
    values.take(most).cloned().collect()
}

fn check_value(info: &ViewInfo, name: &str, combines: bool) -> Result<Combine, String> {
    let field = info.schema.field_with_name(name).map_err(|e| e.to_string())?;
    if !field.data_type().is_numeric() {
        return Err(format!("y column {name} is {}: choose a column of numbers", sql_type(field.data_type())));
    }
    let combine = combine_of(&info.sql, name);
    if combines && combine == Combine::Never {
        return Err(format!(
            "column {name} of view {} cannot be combined over windows and keys (only count, sum, min and max can): \
             make x and series cover window_start and every key, or write sql",
            info.name
        ));
    }
    Ok(combine)
}

/// Rows that fall together, in the order in which they were first seen.
#[derive(Default)]
struct Groups {
    places: HashMap<String, usize>,
    list: Vec<Group>,
}

struct Group {
    x: String,
    series: String,
    figures: Vec<Figure>,
}

impl Groups {
    fn add(&mut self, (x, series): (String, String), figures: &[Figure], y: &[(String, Combine)]) {
        let key = format!("{x}\u{0}{series}");
        let place = *self.places.entry(key).or_insert_with(|| {
            self.list.push(Group { x, series, figures: vec![Figure::None; figures.len()] });
            self.list.len() - 1
        });
        for ((sum, figure), (_, combine)) in self.list[place].figures.iter_mut().zip(figures).zip(y) {
            *sum = sum.with(*figure, *combine);
        }
    }
}

/// What is drawn of a view.
pub struct Drawing {
    groups: Vec<Group>,
    /// How many bars, slices or series there were before the largest were chosen.
    total: usize,
    /// What the ones that are not drawn add up to; empty where that makes no sense.
    rest: Vec<Figure>,
    /// A number's course over the windows: start of the window, figure.
    course: Vec<(String, Figure)>,
}

impl Drawing {
    /// Combines rows; only the `top` largest are kept.
    pub fn of(shape: &Shape, rows: &[RecordBatch], kind: PanelKind, top: usize) -> Answer<Drawing> {
        let mut groups = Groups::default();
        let mut course = Groups::default();
        let windowed = kind == PanelKind::Number && shape.windowed;
        for batch in rows {
            let x = shape.x.as_deref().map(|name| cells_of(batch, name)).transpose()?;
            let series = shape.series.as_deref().map(|name| cells_of(batch, name)).transpose()?;
            let window = if windowed { Some(cells_of(batch, WINDOW_START)?) } else { None };
            let y: Vec<Figures> =
                shape.y.iter().map(|(name, _)| Figures::of(column(batch, name)?)).collect::<Answer<_>>()?;
            for row in 0..batch.num_rows() {
                let figures: Vec<Figure> = y.iter().map(|figures| figures.at(row)).collect();
                groups.add((text_of(&x, row)?, text_of(&series, row)?), &figures, &shape.y);
                if window.is_some() {
                    course.add((text_of(&window, row)?, String::new()), &figures, &shape.y);
                }
            }
        }
        let mut course: Vec<(String, Figure)> =
            course.list.into_iter().map(|g| (g.x, g.figures.first().copied().unwrap_or(Figure::None))).collect();
        course.sort_by(|a, b| a.0.cmp(&b.0));
        let drawing = if kind == PanelKind::Line || shape.series.is_some() {
            largest_series(groups.list, top)
        } else {
            largest(groups.list, &shape.y, top)
        };
        Ok(Drawing { course, ..drawing })
    }

    /// The members of the panel's JSON that are drawn.
    pub fn body(&self, shape: &Shape, rows: &[RecordBatch], schema: &Schema) -> String {
        let names: Vec<&String> =
            shape.x.iter().chain(&shape.series).chain(shape.y.iter().map(|(name, _)| name)).collect();
        let schema = rows.first().map_or_else(|| schema.clone(), |batch| batch.schema().as_ref().clone());
        let fields: Vec<_> = names.iter().filter_map(|name| schema.field_with_name(name).ok().cloned()).collect();
        let rows: Vec<String> = self
            .groups
            .iter()
            .map(|group| {
                let keys = [(&shape.x, &group.x), (&shape.series, &group.series)];
                let keys = keys.into_iter().filter(|(name, _)| name.is_some()).map(|(_, text)| text.clone());
                let cells: Vec<String> = keys.chain(group.figures.iter().map(|figure| figure.json())).collect();
                format!("[{}]", cells.join(","))
            })
            .collect();
        let rest: Vec<String> = self.rest.iter().map(|figure| figure.json()).collect();
        let course: Vec<String> = self.course.iter().map(|(at, figure)| format!("[{at},{}]", figure.json())).collect();
        let y: Vec<&String> = shape.y.iter().map(|(name, _)| name).collect();
        let additive: Vec<bool> = shape.y.iter().map(|(_, combine)| *combine == Combine::Sum).collect();
        format!(
            "\"x\":{},\"series\":{},\"y\":{},\"additive\":{},\"columns\":{},\"rows\":[{}],\"groups_total\":{},\"rest\":[{}],\"course\":[{}]",
            json!(shape.x),
            json!(shape.series),
            json!(y),
            json!(additive),
            columns(&Schema::new(fields)),
            rows.join(","),
            self.total,
            rest.join(","),
            course.join(",")
        )
    }
}

/// The `top` series by the sum of their first figures; lines keep their order along x.
fn largest_series(groups: Vec<Group>, top: usize) -> Drawing {
    let mut totals: HashMap<&str, f64> = HashMap::new();
    for group in &groups {
        *totals.entry(&group.series).or_default() += group.figures.first().map_or(0.0, |figure| figure.real());
    }
    let mut names: Vec<(&str, f64)> = totals.into_iter().collect();
    names.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(b.0)));
    let total = names.len();
    let rank: HashMap<String, usize> =
        names.iter().take(top).enumerate().map(|(i, (name, _))| ((*name).to_owned(), i)).collect();
    let mut kept: Vec<Group> = groups.into_iter().filter(|group| rank.contains_key(&group.series)).collect();
    // Stable: the points of one series stay in their order.
    kept.sort_by_key(|group| rank[&group.series]);
    Drawing { groups: kept, total, rest: Vec::new(), course: Vec::new() }
}

/// The `top` groups by their first figure, and what the others add up to.
fn largest(mut groups: Vec<Group>, y: &[(String, Combine)], top: usize) -> Drawing {
    let first = |group: &Group| group.figures.first().map_or(0.0, |figure| figure.real());
    groups.sort_by(|a, b| first(b).total_cmp(&first(a)).then_with(|| a.x.cmp(&b.x)));
    let total = groups.len();
    let others = groups.split_off(top.min(total));
    let additive = y.iter().all(|(_, combine)| *combine == Combine::Sum);
    let mut rest = Vec::new();
    if additive && !others.is_empty() {
        rest = vec![Figure::None; y.len()];
        for group in &others {
            rest.iter_mut().zip(&group.figures).for_each(|(sum, figure)| *sum = sum.with(*figure, Combine::Sum));
        }
    }
    Drawing { groups, total, rest, course: Vec::new() }
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> Answer<&'a ArrayRef> {
    batch
        .column_by_name(name)
        .ok_or_else(|| Problem::internal(format!("the view's answer has no column {name}: start the server again")))
}

fn cells_of<'a>(batch: &'a RecordBatch, name: &str) -> Answer<Cells<'a>> {
    Cells::of(column(batch, name)?)
}

fn text_of(cells: &Option<Cells<'_>>, row: usize) -> Answer<String> {
    let Some(cells) = cells else { return Ok(String::new()) };
    let mut out = Vec::new();
    cells.json(row, &mut out)?;
    String::from_utf8(out).map_err(|e| Problem::internal(e.to_string()))
}

/// The rows whose columns have one of the values wanted, as text.
pub fn keep(rows: Vec<RecordBatch>, wanted: &[(String, Vec<String>)]) -> Answer<Vec<RecordBatch>> {
    let mut kept = Vec::new();
    for mut batch in rows {
        for (name, values) in wanted {
            let mask = {
                let cells = Some(cells_of(&batch, name)?);
                let has = |row| Ok(values.contains(&plain(&text_of(&cells, row)?)));
                (0..batch.num_rows()).map(has).collect::<Answer<Vec<bool>>>()?
            };
            let filtered = filter_record_batch(&batch, &BooleanArray::from(mask));
            batch = filtered.map_err(|e| Problem::internal(format!("rows cannot be filtered: {e}")))?;
        }
        kept.push(batch);
    }
    Ok(kept)
}

/// The text of a JSON value, without quotes.
fn plain(json: &str) -> String {
    match serde_json::from_str(json) {
        Ok(Value::String(text)) => text,
        _ => json.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Float64Array, Int64Array, StringArray, TimestampMillisecondArray};

    use super::*;

    const SQL: &str = "CREATE MATERIALIZED VIEW v AS SELECT genre, country, count(*) AS plays, avg(ms) AS mean \
                       FROM listens GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE), genre, country";

    fn rows() -> RecordBatch {
        let minute = |n: i64| Some(1_795_176_000_000 + 60_000 * n);
        let columns: Vec<(&str, ArrayRef)> = vec![
            (
                "window_start",
                Arc::new(TimestampMillisecondArray::from(vec![minute(0), minute(0), minute(1), minute(1), minute(1)])),
            ),
            (
                "window_end",
                Arc::new(TimestampMillisecondArray::from(vec![minute(1), minute(1), minute(2), minute(2), minute(2)])),
            ),
            ("genre", Arc::new(StringArray::from(vec![Some("jazz"), Some("pop"), Some("jazz"), Some("pop"), None]))),
            ("country", Arc::new(StringArray::from(vec!["FR", "FR", "DE", "FR", "FR"]))),
            ("plays", Arc::new(Int64Array::from(vec![1, 10, 2, 20, 4]))),
            ("mean", Arc::new(Float64Array::from(vec![1.5, 2.5, 3.5, 4.5, 5.5]))),
        ];
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, a)| (n, a, true))).unwrap()
    }

    fn info() -> ViewInfo {
        let keys = vec!["genre".to_owned(), "country".to_owned()];
        let (name, stream) = ("v".to_owned(), "listens".to_owned());
        ViewInfo {
            name,
            sql: SQL.to_owned(),
            stream,
            schema: rows().schema(),
            keys,
            windows: Some(engine::Windows::Tumble(engine::Window::Fixed(60_000))),
            emit: engine::Emit::Changes,
        }
    }

    fn config(kind: PanelKind) -> PanelConfig {
        PanelConfig {
            title: "p".to_owned(),
            kind,
            view: Some("v".to_owned()),
            y: vec!["plays".to_owned()],
            ..PanelConfig::default()
        }
    }

    fn drawn(config: &PanelConfig, top: usize) -> Value {
        let shape = Shape::bind(config, &info()).unwrap();
        let drawing = Drawing::of(&shape, &[rows()], config.kind, top).unwrap();
        serde_json::from_str(&format!("{{{}}}", drawing.body(&shape, &[rows()], &rows().schema()))).unwrap()
    }

    #[test]
    fn overlapping_windows_are_not_added_up() {
        let hop = engine::Hop::new(engine::Window::Fixed(60_000), engine::Window::Fixed(120_000)).unwrap();
        let info = ViewInfo { windows: Some(engine::Windows::Hop(hop)), ..info() };
        let mistake = Shape::bind(&config(PanelKind::Number), &info).err().unwrap();
        assert!(mistake.contains("overlap"), "{mistake}");
        let line = Shape::bind(&config(PanelKind::Line), &info).unwrap();
        assert_eq!((line.windowed, line.window_ms), (true, Some(60_000)));
        let info = ViewInfo { windows: Some(engine::Windows::Session(60_000)), ..info };
        let number = Shape::bind(&config(PanelKind::Number), &info).unwrap();
        assert_eq!((number.windowed, number.window_ms), (true, None));
    }

    #[test]
    fn several_values_of_a_key_are_kept_and_no_others() {
        let wanted = |genres: &[&str]| vec![("genre".to_owned(), genres.iter().map(|g| (*g).to_owned()).collect())];
        let count = |genres: &[&str]| keep(vec![rows()], &wanted(genres)).unwrap()[0].num_rows();
        assert_eq!((count(&["jazz", "pop"]), count(&["jazz"]), count(&["folk"])), (4, 2, 0));
    }

    #[test]
    fn a_bar_adds_up_windows_and_other_keys_and_the_rest_is_told() {
        let data = drawn(&config(PanelKind::Bar), 1);
        assert_eq!(data["rows"], json!([["pop", 30]]));
        assert_eq!((&data["groups_total"], &data["rest"]), (&json!(3), &json!([7])));
        assert_eq!(data["columns"], json!([{"name": "genre", "type": "VARCHAR"}, {"name": "plays", "type": "BIGINT"}]));
    }

    #[test]
    fn a_line_has_its_largest_series_in_the_order_of_time() {
        let data = drawn(&PanelConfig { series: Some("genre".to_owned()), ..config(PanelKind::Line) }, 2);
        let (t0, t1) = ("2026-11-20T12:00:00Z", "2026-11-20T12:01:00Z");
        assert_eq!(data["rows"], json!([[t0, "pop", 10], [t1, "pop", 20], [t1, null, 4]]));
        assert_eq!(data["groups_total"], 3);
    }

    #[test]
    fn a_number_is_one_figure_with_its_course() {
        let data = drawn(&config(PanelKind::Number), 12);
        assert_eq!(data["rows"], json!([[37]]));
        assert_eq!(data["course"], json!([["2026-11-20T12:00:00Z", 11], ["2026-11-20T12:01:00Z", 26]]));
    }

    #[test]
    fn an_average_is_drawn_only_where_nothing_is_combined() {
        let mean = |panel: PanelConfig| PanelConfig { y: vec!["mean".to_owned()], ..panel };
        let refused = Shape::bind(&mean(config(PanelKind::Bar)), &info()).err().unwrap();
        assert!(refused.contains("cannot be combined"), "{refused}");
        let whole = ViewInfo { keys: vec!["genre".to_owned()], ..info() };
        let line = PanelConfig { series: Some("genre".to_owned()), ..mean(config(PanelKind::Line)) };
        assert!(Shape::bind(&line, &whole).is_ok());
    }
}
