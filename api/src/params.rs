//! Query parameters: read once, each mistake named with what is right, nothing silently ignored.

use axum::extract::Query;
use axum::http::Uri;
use broker::TimestampMs;

use crate::error::{Answer, Problem};

/// The parameters of one request. What a handler has not taken when it calls [`Params::finish`] is a mistake.
#[derive(Debug, Default)]
pub struct Params {
    left: Vec<(String, String)>,
    known: Vec<&'static str>,
}

impl Params {
    /// Reads the query of `uri`.
    pub fn of(uri: &Uri) -> Answer<Params> {
        let Query(left) = Query::<Vec<(String, String)>>::try_from_uri(uri).map_err(|e| {
            Problem::bad_request(format!(
                "the query string cannot be read: {e}: send name=value pairs, percent-encoded"
            ))
        })?;
        Ok(Params { left, known: Vec::new() })
    }

    /// Takes a parameter out; `None` if it is absent or empty.
    pub fn take(&mut self, name: &'static str) -> Answer<Option<String>> {
        self.known.push(name);
        let mut found = None;
        let mut i = 0;
        while i < self.left.len() {
            if self.left[i].0 != name {
                i += 1;
                continue;
            }
            let (_, value) = self.left.remove(i);
            if found.replace(value).is_some() {
                return Err(Problem::bad_request(format!("{name} is given twice: give it once")));
            }
        }
        Ok(found.filter(|value| !value.is_empty()))
    }

    /// Takes a whole number within `range` out.
    pub fn take_number(&mut self, name: &'static str, range: std::ops::RangeInclusive<i64>) -> Answer<Option<i64>> {
        let Some(text) = self.take(name)? else { return Ok(None) };
        match text.parse::<i64>() {
            Ok(number) if range.contains(&number) => Ok(Some(number)),
            _ => Err(Problem::bad_request(format!(
                "{name}={text}: send a whole number from {} to {}",
                range.start(),
                range.end()
            ))),
        }
    }

    /// Takes an instant out: RFC 3339, a date (midnight UTC), or epoch milliseconds.
    pub fn take_time(&mut self, name: &'static str) -> Answer<Option<TimestampMs>> {
        let Some(text) = self.take(name)? else { return Ok(None) };
        parse_time(&text).map(Some).ok_or_else(|| {
            Problem::bad_request(format!(
                "{name}={text}: send RFC 3339 such as 2026-11-20T12:00:00Z, a date, or milliseconds since 1970"
            ))
        })
    }

    /// Takes a length of time out, in ms: `90s`, `15m`, `1h`, `7d` or milliseconds.
    pub fn take_duration(&mut self, name: &'static str) -> Answer<Option<i64>> {
        let Some(text) = self.take(name)? else { return Ok(None) };
        parse_duration(&text).filter(|ms| *ms >= 0).map(Some).ok_or_else(|| {
            Problem::bad_request(format!("{name}={text}: send a length of time such as 90s, 15m, 1h or 7d"))
        })
    }

    /// Takes everything that is left: the filters on key columns.
    pub fn take_rest(&mut self) -> Vec<(String, String)> {
        std::mem::take(&mut self.left)
    }

    /// Refuses what nobody took.
    pub fn finish(self) -> Answer<()> {
        match self.left.first() {
            None => Ok(()),
            Some((name, _)) => Err(Problem::bad_request(format!(
                "unknown parameter {name}: this route takes {}",
                if self.known.is_empty() { "none".to_owned() } else { self.known.join(", ") }
            ))),
        }
    }
}

/// Reads RFC 3339, `YYYY-MM-DD` (midnight UTC) or epoch milliseconds.
pub fn parse_time(text: &str) -> Option<TimestampMs> {
    if let Ok(ms) = text.parse::<i64>() {
        return Some(ms);
    }
    if let Ok(date) = chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        return Some(date.and_hms_opt(0, 0, 0)?.and_utc().timestamp_millis());
    }
    // A plus sign that was not percent-encoded arrives as a space: 2026-11-20T12:00:00 01:00.
    let text = match text.rsplit_once(' ') {
        Some((time, offset)) if time.contains(['T', 't']) => format!("{time}+{offset}"),
        _ => text.to_owned(),
    };
    chrono::DateTime::parse_from_rfc3339(&text).ok().map(|time| time.timestamp_millis())
}

/// Reads `90s`, `15m`, `1h`, `7d` or milliseconds.
pub fn parse_duration(text: &str) -> Option<i64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    digits.parse::<i64>().ok()?.checked_mul(unit)
}

/// Reads `order=`: columns separated by commas, `-column` or `column:desc` for descending.
pub fn parse_order(text: &str) -> Answer<Vec<(String, bool)>> {
    text.split(',')
        .map(|part| {
            let part = part.trim();
            let (name, descending) = match part.strip_prefix('-') {
                Some(name) => (name, true),
                None => match part.rsplit_once([':', ' ']) {
                    Some((name, word)) if word.eq_ignore_ascii_case("desc") => (name, true),
                    Some((name, word)) if word.eq_ignore_ascii_case("asc") => (name, false),
                    _ => (part, false),
                },
            };
            if name.is_empty() {
                return Err(Problem::bad_request(format!(
                    "order={text}: send columns separated by commas, -column for descending"
                )));
            }
            Ok((name.to_owned(), descending))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(query: &str) -> Params {
        Params::of(&format!("/x?{query}").parse().unwrap()).unwrap()
    }

    #[test]
    fn times_are_read_in_three_forms() {
        let noon = 1_795_176_000_000;
        for text in [
            "2026-11-20T12:00:00Z",
            "2026-11-20T13:00:00+01:00",
            "2026-11-20T13:00:00 01:00",
            "1795176000000",
            "2026-11-20T12:00:00.000Z",
        ] {
            assert_eq!(parse_time(text), Some(noon), "{text}");
        }
        assert_eq!(parse_time("2026-11-20"), Some(noon - 12 * 3_600_000));
        assert_eq!(parse_time("-5"), Some(-5));
        for text in ["", "yesterday", "2026-13-01", "2026-11-20T12:00:00", "99999999999999999999"] {
            assert_eq!(parse_time(text), None, "{text}");
        }
    }

    #[test]
    fn lengths_of_time_have_units() {
        for (text, ms) in [
            ("0", 0),
            ("500", 500),
            ("250ms", 250),
            ("90s", 90_000),
            ("15m", 900_000),
            ("1h", 3_600_000),
            ("7d", 604_800_000),
        ] {
            assert_eq!(params(&format!("range={text}")).take_duration("range").unwrap(), Some(ms), "{text}");
        }
        for text in ["h", "-1h", "1w", "1.5h", "9223372036854775807d"] {
            assert!(params(&format!("range={text}")).take_duration("range").is_err(), "{text}");
        }
    }

    #[test]
    fn an_unknown_parameter_is_named_with_the_ones_that_are_right() {
        let mut p = params("limit=5&form=x");
        assert_eq!(p.take_number("limit", 1..=10).unwrap(), Some(5));
        assert_eq!(p.take("from").unwrap(), None);
        let detail = p.finish().unwrap_err().to_json()["detail"].to_string();
        assert!(detail.contains("form") && detail.contains("limit, from"), "{detail}");
    }

    #[test]
    fn a_number_out_of_range_or_given_twice_is_refused() {
        assert!(params("limit=0").take_number("limit", 1..=10).is_err());
        assert!(params("limit=ten").take_number("limit", 1..=10).is_err());
        assert!(params("limit=1&limit=2").take_number("limit", 1..=10).is_err());
        assert_eq!(params("limit=").take_number("limit", 1..=10).unwrap(), None);
    }

    #[test]
    fn order_takes_a_sign_or_a_word() {
        let order = parse_order("-plays,genre, window_start:desc,x:asc,y desc").unwrap();
        let order: Vec<(&str, bool)> = order.iter().map(|(n, d)| (n.as_str(), *d)).collect();
        assert_eq!(order, [("plays", true), ("genre", false), ("window_start", true), ("x", false), ("y", true)]);
        assert!(parse_order("a,,b").is_err());
        assert!(parse_order("-").is_err());
    }
}
