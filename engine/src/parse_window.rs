//! `TUMBLE(…)`, `HOP(…)` and `SESSION(…)` in the text of a view, and the intervals in them.

use arrow::compute::kernels::cast_utils::parse_interval_month_day_nano;
use arrow::datatypes::IntervalMonthDayNano;
use chrono_tz::Tz;
use datafusion::sql::sqlparser::ast::{Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Interval, Value};

use crate::names::{normalized, single_name};
use crate::window::Window;
use crate::windows::{Hop, Windows};

/// Ten years and some: wide enough for any report, narrow enough that a window's end is always a printable time.
const WIDTH_MS_MAX: i64 = 3_660 * 86_400_000;
/// The same in months.
const MONTHS_MAX: u32 = 120;

/// A view's windows, and the column they are over.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Windowed {
    pub(crate) column: String,
    pub(crate) windows: Windows,
}

/// A call of a window function.
pub(crate) struct WindowCall<'a> {
    kind: Kind,
    arguments: &'a [FunctionArg],
}

#[derive(Clone, Copy)]
enum Kind {
    Tumble,
    Hop,
    Session,
}

impl Kind {
    fn form(self) -> &'static str {
        match self {
            Kind::Tumble => {
                "write TUMBLE(ts, INTERVAL '1' MINUTE), or TUMBLE(ts, INTERVAL '1' MONTH, 'Europe/Paris'), with the stream's event-time column"
            }
            Kind::Hop => {
                "write HOP(ts, INTERVAL '1' MINUTE, INTERVAL '1' HOUR), first the slide, then the size, or HOP(ts, INTERVAL '1' DAY, INTERVAL '7' DAY, 'Europe/Paris'), with the stream's event-time column"
            }
            Kind::Session => "write SESSION(ts, INTERVAL '30' MINUTE), with the stream's event-time column",
        }
    }

    /// The least and the most arguments.
    fn arguments(self) -> (usize, usize) {
        match self {
            Kind::Tumble => (2, 3),
            Kind::Hop => (3, 4),
            Kind::Session => (2, 2),
        }
    }
}

/// The call, if the expression is one of a window function.
pub(crate) fn window_call(expr: &Expr) -> Option<WindowCall<'_>> {
    let Expr::Function(call) = expr else { return None };
    let name = single_name(&call.name)?;
    let kind = match name.as_str() {
        "tumble" => Kind::Tumble,
        "hop" => Kind::Hop,
        "session" => Kind::Session,
        _ => return None,
    };
    match &call.args {
        FunctionArguments::List(list) => Some(WindowCall { kind, arguments: &list.args }),
        _ => None,
    }
}

impl WindowCall<'_> {
    /// What it declares; Err says what to write.
    pub(crate) fn parse(&self) -> Result<Windowed, String> {
        let form = self.kind.form();
        let (least, most) = self.kind.arguments();
        if !(least..=most).contains(&self.arguments.len()) {
            return Err(form.into());
        }
        let column = match self.plain(0) {
            Some(Expr::Identifier(ident)) => normalized(ident),
            Some(Expr::CompoundIdentifier(parts)) => parts.last().map(normalized).ok_or(form)?,
            _ => return Err(form.into()),
        };
        let zone = match self.plain(most - 1) {
            _ if least == most || self.arguments.len() < most => None,
            Some(Expr::Value(value)) => Some(value.value.clone().into_string().ok_or(form)?),
            _ => return Err(form.into()),
        };
        let window = |at: usize| match self.plain(at) {
            Some(Expr::Interval(interval)) => window_of(&interval_text(interval)?, zone.as_deref()),
            _ => Err(form.into()),
        };
        let windows = match self.kind {
            Kind::Tumble => Windows::Tumble(window(1)?),
            Kind::Hop => Windows::Hop(Hop::new(window(1)?, window(2)?)?),
            Kind::Session => match window(1)? {
                Window::Fixed(gap_ms) => Windows::Session(gap_ms),
                Window::Days(..) | Window::Months(..) => {
                    return Err("the gap of SESSION has a fixed length, write days, hours or minutes".into());
                }
            },
        };
        Ok(Windowed { column, windows })
    }

    fn plain(&self, at: usize) -> Option<&Expr> {
        match self.arguments.get(at) {
            Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))) => Some(expr),
            _ => None,
        }
    }
}

/// The text of an interval with its unit.
fn interval_text(interval: &Interval) -> Result<String, String> {
    let value = match interval.value.as_ref() {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => text.clone(),
            Value::Number(text, _) => text.to_string(),
            other => return Err(format!("'{other}' is not an interval, write INTERVAL '1' MINUTE")),
        },
        other => return Err(format!("'{other}' is not an interval, write INTERVAL '1' MINUTE")),
    };
    let unit = interval.leading_field.as_ref().map(|field| format!(" {field}")).unwrap_or_default();
    Ok(format!("{value}{unit}").to_lowercase())
}

/// The window of an interval: a fixed width, or whole days or months of a time zone (UTC for months without one).
fn window_of(text: &str, zone: Option<&str>) -> Result<Window, String> {
    let parsed = parse_interval_month_day_nano(text).map_err(|error| format!("interval '{text}': {error}"))?;
    let named = zone.map(|name| {
        name.parse::<Tz>().map_err(|_| format!("'{name}' is not a time zone, use a name like Europe/Paris"))
    });
    let window = window_of_interval(parsed, named.transpose()?);
    window.map_err(|mistake| format!("interval '{text}' cannot be a window: {mistake}"))
}

/// As SQL's `TUMBLE(ts, interval, zone)` means it; Err says what to use instead.
pub(crate) fn window_of_interval(interval: IntervalMonthDayNano, zone: Option<Tz>) -> Result<Window, String> {
    let nanoseconds = i128::from(interval.days) * 86_400_000_000_000 + i128::from(interval.nanoseconds);
    if interval.months != 0 {
        let months = u32::try_from(interval.months).ok().filter(|months| *months <= MONTHS_MAX && nanoseconds == 0);
        let months = months.ok_or("use months and years without days, up to ten years")?;
        return Ok(Window::Months(months, zone.unwrap_or(Tz::UTC)));
    }
    let width_ms = i64::try_from(nanoseconds / 1_000_000).unwrap_or(i64::MAX);
    if nanoseconds % 1_000_000 != 0 || width_ms <= 0 || width_ms > WIDTH_MS_MAX {
        return Err("use a whole number of milliseconds up to 3660 days, or of months".into());
    }
    match zone {
        None => Ok(Window::Fixed(width_ms)),
        Some(zone) if width_ms % 86_400_000 == 0 => {
            Ok(Window::Days(u32::try_from(width_ms / 86_400_000).unwrap_or(1), zone))
        }
        Some(_) => Err("in a time zone, use whole days or months".into()),
    }
}
