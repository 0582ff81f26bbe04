//! The data of one panel: of a view, whose rows that fall together are combined (`shape`), or of SQL, whose rows are drawn
//! as they come (`question`). Both are shared among viewers who ask the same within a moment.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use broker::TimestampMs;
use engine::{ReadRequest, ViewInfo};
use lake::{Offsets, QueryKind, Reader, SqlRequest};
use serde_json::{Value, json};

use crate::access::read_view;
use crate::app::App;
use crate::colours::{self, Verdict};
use crate::config::{Colour, FilterConfig, PanelConfig, PanelKind};
use crate::error::{Answer, Problem};
use crate::output::{Table, offsets_json, time_text};
use crate::period::Period;
use crate::question::Question;
use crate::rows::{Drawn, Rows};
use crate::shape::{Drawing, Shape, WINDOW_START, keep};
use crate::views::{self, cut};

/// Rows of a table over a view that does not say how many.
const TABLE_ROWS: usize = 50;
/// Rows of SQL that are drawn when the panel does not say how many; an export has them all.
const SQL_ROWS: usize = 2_000;
/// Bars, slices or lines of a panel that does not say how many.
const TOP: usize = 12;
/// Longest step of the time that SQL panels see, in ms: within it all viewers ask the same.
const STEP_MS_MAX: u64 = 60_000;

/// A panel bound to what it reads.
pub struct Panel {
    /// As declared.
    pub config: PanelConfig,
    /// What it reads.
    pub source: Source,
}

/// What a panel reads.
pub enum Source {
    /// A view, combined by the panel's columns.
    View(Shape),
    /// SQL; its rows are drawn as they come.
    Sql(Question),
}

/// What a page asks of a panel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PanelRequest {
    /// How far back to look, as chosen.
    pub period: Option<Period>,
    /// How far back a panel looks that has no range of its own, when nothing is chosen.
    pub default_period: Option<Period>,
    /// Start of the range, instead.
    pub from: Option<TimestampMs>,
    /// End of the range; open when absent.
    pub to: Option<TimestampMs>,
    /// The filters of the dashboard with what was chosen.
    pub chosen: Vec<Chosen>,
    /// How long to wait for freshness of a view, in ms.
    pub wait_ms: u64,
    /// How old an answer of SQL may be that somebody else got, in ms.
    pub age_ms: u64,
    /// Time between two looks, in ms: the steps of `$now`.
    pub refresh_ms: u64,
    /// Whether all rows are wanted and not only as many as are drawn.
    pub whole: bool,
    /// Who looks; none: one who sees everything.
    pub reader: Option<Arc<Reader>>,
}

/// Start and end of a range; none: open.
type Range = (Option<TimestampMs>, Option<TimestampMs>);

/// A filter and what was chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Chosen {
    /// The filter's name.
    pub name: String,
    /// The key column of views it filters.
    pub column: String,
    /// The values; none: all.
    pub values: Vec<String>,
}

/// What a panel shows now.
#[derive(Clone, Debug)]
pub struct PanelData {
    /// The JSON object that the page draws.
    pub json: String,
    /// Equal when the drawing would be equal.
    pub drawing: String,
    /// How things stand, if the panel has rules and rows.
    pub status: Option<Colour>,
}

/// The rows of SQL, shared among those who ask the same.
#[derive(Debug)]
pub struct Asked {
    /// The columns.
    pub schema: SchemaRef,
    /// The rows.
    pub rows: Vec<RecordBatch>,
    /// Whether there were more.
    pub truncated: bool,
    offsets: Offsets,
    as_of: TimestampMs,
}

/// The parts of an answer: what is drawn, and what is told beside it.
struct Parts {
    body: String,
    verdict: Verdict,
    after: Value,
}

impl Panel {
    /// Binds a declared panel; the error says what to change.
    pub fn bind(config: &PanelConfig, filters: &[FilterConfig], views: &[ViewInfo]) -> Result<Panel, String> {
        let told = |e: String| format!("panel \"{}\": {e}", config.title);
        let source = match (&config.view, &config.sql) {
            (Some(view), None) => {
                let info = views.iter().find(|info| info.name == *view).ok_or_else(|| {
                    let known: Vec<&str> = views.iter().map(|info| info.name.as_str()).collect();
                    told(format!("no view {view}: the views are [{}]", known.join(", ")))
                })?;
                Source::View(Shape::bind(config, info).map_err(told)?)
            }
            (None, Some(sql)) => Source::Sql(Question::bind(sql, filters).map_err(told)?),
            _ => return Err(told("write either view or sql".to_owned())),
        };
        Ok(Panel { config: config.clone(), source })
    }

    /// The view it reads, if it reads one.
    pub fn view(&self) -> Option<&str> {
        match &self.source {
            Source::View(shape) => Some(&shape.view),
            Source::Sql(_) => None,
        }
    }

    /// Whether it has a say in how its dashboard stands.
    pub fn has_rules(&self) -> bool {
        !self.config.thresholds.is_empty() || self.config.status.is_some()
    }

    /// What the panel shows. `place` is its dashboard's name and its number there.
    pub async fn data(&self, app: &App, place: (&str, usize), request: &PanelRequest) -> Answer<PanelData> {
        let now = app.clock().now_ms();
        let now = match &self.source {
            Source::View(_) => now,
            Source::Sql(_) => now - now.rem_euclid(request.refresh_ms.clamp(1_000, STEP_MS_MAX).cast_signed()),
        };
        let range = request.range(self.config.range_ms, now);
        let parts = match &self.source {
            Source::View(shape) => self.view_data(app, shape, (range, request)).await?,
            Source::Sql(question) => self.sql_data(app, question, (range, now), request).await?,
        };
        let ranged = self.has_range();
        let head = json!({
            "dashboard": place.0,
            "panel": place.1,
            "title": self.config.title,
            "kind": self.config.kind.word(),
            "unit": self.config.unit,
            "from": range.0.filter(|_| ranged).map(time_text),
            "to": range.1.filter(|_| ranged).map(time_text),
        });
        let head = head.to_string();
        let Parts { body, verdict, after } = parts;
        let verdict_json = verdict.to_json();
        let drawing = format!("{body},{}", verdict_json.trim_start_matches('{').trim_end_matches('}'));
        let json = format!("{},{drawing},{}", head.trim_end_matches('}'), after.to_string().trim_start_matches('{'));
        Ok(PanelData { json, drawing, status: verdict.status })
    }

    /// Whether a range of time changes what it shows: a view without windows and SQL without `$from` are all of history.
    pub fn has_range(&self) -> bool {
        match &self.source {
            Source::View(shape) => shape.windowed,
            Source::Sql(question) => question.asks_for("from") || question.asks_for("to"),
        }
    }

    fn top(&self) -> usize {
        self.config.top.unwrap_or(if self.config.kind == PanelKind::Table { TABLE_ROWS } else { TOP })
    }

    /// The view as it is served: with the columns that it is declared with, or, while that version is filled, with those of the
    /// former one, where the panel fits them.
    async fn view_data(&self, app: &App, shape: &Shape, asked: (Range, &PanelRequest)) -> Answer<Parts> {
        if let Some(filling) = app.engine.filling(&shape.view) {
            let served = views::find(app, &shape.view)?;
            let drawn = match Shape::bind(&self.config, &served) {
                Ok(former) if asked.1.filters_alike(shape, &former) => self.draw_view(app, &former, asked).await,
                _ => Err(Problem::filling(&filling, "the panel")),
            };
            // Between two looks the new version may have taken over.
            if drawn.is_ok() || app.engine.filling(&shape.view).is_some() {
                return drawn;
            }
        }
        self.draw_view(app, shape, asked).await
    }

    async fn draw_view(
        &self,
        app: &App,
        shape: &Shape,
        ((from, to), request): (Range, &PanelRequest),
    ) -> Answer<Parts> {
        // Without windows there is no range: the view is its whole history.
        let (from, to) = if shape.windowed { (from, to) } else { (None, None) };
        let (keys, several) = request.keys_of(shape);
        let order = match (&shape.x, shape.raw && shape.windowed) {
            (_, true) => vec![(WINDOW_START.to_owned(), true)],
            (Some(x), false) => vec![(x.clone(), false)],
            (None, false) => Vec::new(),
        };
        let drawn = if shape.raw && !request.whole { self.top() } else { app.http.rows_max };
        let read_at_most = if several.is_empty() { drawn } else { app.http.rows_max };
        let read = ReadRequest {
            from,
            to,
            keys,
            order,
            limit: Some(read_at_most.saturating_add(1)),
            wait_ms: request.wait_ms,
        };
        let answer = read_view(&app.engine, &shape.view, read, request.reader.as_deref()).await?;
        let after = json!({
            "window_ms": shape.window_ms,
            "offsets": offsets_json(&answer.offsets),
            "event_watermark": answer.event_watermark.map(time_text),
            "stale": answer.stale,
            "as_of": time_text(app.clock().now_ms()),
        });
        let mut rows = answer.rows;
        let mut truncated = !shape.raw && cut(&mut rows, read_at_most);
        rows = keep(rows, &several)?;
        let body = if shape.raw {
            truncated |= cut(&mut rows, drawn) && request.whole;
            raw_body(Table { before: Vec::new(), schema: answer.schema, rows, after: Vec::new() })?
        } else {
            let top = if request.whole { usize::MAX } else { self.top() };
            let drawing = Drawing::of(shape, &rows, self.config.kind, top)?;
            drawing.body(shape, &rows, &answer.schema)
        };
        let verdict = colours::verdict_of_body(&self.config, &body)?;
        Ok(Parts { body: format!("{body},\"truncated\":{truncated}"), verdict, after })
    }

    async fn sql_data(
        &self,
        app: &App,
        question: &Question,
        (range, now): (Range, TimestampMs),
        request: &PanelRequest,
    ) -> Answer<Parts> {
        let params = question.params(&request.chosen, range, now);
        let rows_max = if request.whole { app.sql_rows_max } else { app.sql_rows_max.min(SQL_ROWS) };
        let reader = request.reader.clone();
        let asked = ask(app, (question.text(), params), (rows_max, request.age_ms), reader).await?;
        let drawn = Drawn::of(Rows::of(&asked.schema, &asked.rows)?, &self.config, request.whole)?;
        let verdict = colours::verdict(&self.config, &drawn.rows);
        let body = format!("{},\"truncated\":{}", drawn.body(&self.config), asked.truncated);
        let after = json!({
            "window_ms": null,
            "offsets": offsets_json(&asked.offsets),
            "event_watermark": null,
            "stale": false,
            "as_of": time_text(asked.as_of),
        });
        Ok(Parts { body, verdict, after })
    }
}

impl PanelRequest {
    /// The range of a panel: what was chosen, its own, the page's default.
    fn range(&self, own_ms: Option<i64>, now: TimestampMs) -> Range {
        if self.from.is_some() || self.to.is_some() {
            return (self.from, self.to);
        }
        let period = self.period.or(own_ms.map(Period::Rolling)).or(self.default_period);
        (period.and_then(|period| period.start(now)), None)
    }

    /// Whether what was chosen filters by keys that the former version has as well.
    fn filters_alike(&self, declared: &Shape, former: &Shape) -> bool {
        let is_key = |chosen: &&Chosen| !chosen.values.is_empty() && declared.keys.contains(&chosen.column);
        self.chosen.iter().filter(is_key).all(|chosen| former.keys.contains(&chosen.column))
    }

    /// The filters on keys of a view: those with one value, and those with several.
    #[allow(clippy::type_complexity, reason = "two lists of names and values")]
    fn keys_of(&self, shape: &Shape) -> (Vec<(String, String)>, Vec<(String, Vec<String>)>) {
        let mut one = Vec::new();
        let mut several = Vec::new();
        for chosen in self.chosen.iter().filter(|chosen| shape.keys.contains(&chosen.column)) {
            match chosen.values.as_slice() {
                [] => {}
                [value] => one.push((chosen.column.clone(), value.clone())),
                values => several.push((chosen.column.clone(), values.to_vec())),
            }
        }
        (one, several)
    }
}

/// Asks SQL, or takes what somebody else got for the same question not long ago.
pub async fn ask(
    app: &App,
    (sql, params): (&str, Vec<Value>),
    (rows_max, age_ms): (usize, u64),
    reader: Option<Arc<Reader>>,
) -> Answer<Arc<Asked>> {
    // Who sees only a part gets no answer that somebody else got.
    let name = reader.as_ref().map_or("", |reader| reader.name.as_str());
    let key = format!("{rows_max}\u{0}{name}\u{0}{sql}\u{0}{}", Value::Array(params.clone()));
    let run = async {
        let as_of = app.clock().now_ms();
        let request = SqlRequest {
            sql: sql.to_owned(),
            params,
            row_limit: rows_max.saturating_add(1),
            reader,
            kind: QueryKind::Dashboard,
            ..SqlRequest::default()
        };
        let answer = app.lake.sql(request).await?;
        let mut rows = answer.rows;
        let truncated = cut(&mut rows, rows_max);
        Ok(Asked { schema: answer.schema, rows, truncated, offsets: answer.offsets, as_of })
    };
    app.asked.get(key, age_ms, run).await
}

impl crate::shared::Weight for Asked {
    fn bytes(&self) -> usize {
        self.rows.iter().map(RecordBatch::get_array_memory_size).sum()
    }
}

fn raw_body(table: Table) -> Answer<String> {
    let json = String::from_utf8(table.json()?).map_err(|e| Problem::internal(e.to_string()))?;
    Ok(json.trim_start_matches('{').trim_end_matches('}').to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc as Shared;

    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    fn info() -> ViewInfo {
        let fields = [("genre", DataType::Utf8), ("plays", DataType::Int64), ("country", DataType::Utf8)];
        let fields: Vec<Field> = fields.into_iter().map(|(name, kind)| Field::new(name, kind, true)).collect();
        ViewInfo {
            name: "v".to_owned(),
            sql: "CREATE MATERIALIZED VIEW v AS SELECT genre, count(*) AS plays, max(country) AS country FROM s GROUP BY genre"
                .to_owned(),
            stream: "s".to_owned(),
            schema: Shared::new(Schema::new(fields)),
            keys: vec!["genre".to_owned()],
            windows: None,
            emit: engine::Emit::Changes,
        }
    }

    #[test]
    fn a_panel_that_does_not_fit_says_what_there_is() {
        let bar = PanelConfig {
            kind: PanelKind::Bar,
            view: Some("v".to_owned()),
            y: vec!["plays".to_owned()],
            ..PanelConfig::default()
        };
        assert!(Panel::bind(&bar, &[], &[info()]).is_ok());
        let message = |panel: PanelConfig| Panel::bind(&panel, &[], &[info()]).err().unwrap();
        assert!(message(PanelConfig { view: Some("w".into()), ..bar.clone() }).contains("the views are [v]"));
        assert!(message(PanelConfig { x: Some("artist".into()), ..bar.clone() }).contains("it has [genre"));
        assert!(message(PanelConfig { y: vec!["country".into()], ..bar.clone() }).contains("VARCHAR"));
        assert!(message(PanelConfig { status: Some("country".into()), ..bar.clone() }).contains("not in y"));
        let sql = PanelConfig { view: None, sql: Some("SELECT $genre".into()), ..bar };
        assert!(message(sql).contains("$genre"));
    }

    #[test]
    fn a_filter_by_a_key_that_the_former_version_lacks_waits_for_the_declared_one() {
        let table = PanelConfig { kind: PanelKind::Table, view: Some("v".to_owned()), ..PanelConfig::default() };
        let shape = |keys: &[&str]| {
            let keys = keys.iter().map(|key| (*key).to_owned()).collect();
            Shape::bind(&table, &ViewInfo { keys, ..info() }).unwrap()
        };
        let declared = shape(&["genre", "country"]);
        for (column, values, former, alike) in [
            ("genre", &["jazz"][..], &["genre"][..], true),
            ("country", &["FR"], &["genre"], false),
            ("country", &["FR"], &["genre", "country"], true),
            ("country", &[], &["genre"], true),
            ("plays", &["5"], &["genre"], true),
        ] {
            let values = values.iter().map(|value| (*value).to_owned()).collect();
            let chosen = vec![Chosen { name: column.to_owned(), column: column.to_owned(), values }];
            let request = PanelRequest { chosen, ..PanelRequest::default() };
            assert_eq!(request.filters_alike(&declared, &shape(former)), alike, "{column} {former:?}");
        }
    }

    #[test]
    fn what_is_chosen_wins_over_the_panel_and_that_over_the_page() {
        let (hour, now) = (3_600_000, 1_795_176_000_000);
        let page = PanelRequest { default_period: Some(Period::Rolling(3 * hour)), ..PanelRequest::default() };
        assert_eq!(page.range(None, now), (Some(now - 3 * hour), None));
        assert_eq!(page.range(Some(hour), now), (Some(now - hour), None));
        let chosen = PanelRequest { period: Some(Period::All), ..page.clone() };
        assert_eq!(chosen.range(Some(hour), now), (None, None));
        let exact = PanelRequest { from: Some(5), to: Some(6), ..chosen };
        assert_eq!(exact.range(Some(hour), now), (Some(5), Some(6)));
    }
}
