//! Which slices the parameters of a run name, so that a day without rows empties its slice too.

use std::collections::BTreeMap;

use chrono::{Datelike, NaiveDate};

use crate::error::{LakeError, LakeErrorKind, Result};
use crate::slice::{Level, Value};

/// The slices that a run's parameters name.
#[derive(Clone, Debug, Default)]
pub struct Named {
    /// Levels that must have these texts.
    exact: BTreeMap<String, String>,
    /// Days from the first on and before the second.
    days: (Option<NaiveDate>, Option<NaiveDate>),
}

impl Named {
    /// What `parameters` name of a table whose levels are `columns`: a parameter with a level's name its value, `day` the
    /// day, `from` and `to` the days from the first on and before the second. Days are those of a level `date` or of the
    /// levels `year`, `month` and `day`.
    ///
    /// # Errors
    /// `Refused` for what should be a day and cannot be read: taken for no day, it would name all of them.
    pub fn new(parameters: &BTreeMap<String, String>, columns: &[&str]) -> Result<Self> {
        let has = |name: &str| columns.contains(&name);
        let by_parts = has("year") && has("month") && has("day");
        // `day` beside `year` and `month` is a number
        let is_level = |name: &str, text: &str| has(name) && text.bytes().all(|byte| byte.is_ascii_digit());
        let date = |name: &str| match parameters.get(name).filter(|_| by_parts || has("date")) {
            Some(text) if !(by_parts && text.len() <= 2 && is_level(name, text)) => read_day(name, text).map(Some),
            _ => Ok(None),
        };
        let mut named = Self { exact: BTreeMap::new(), days: (date("from")?, date("to")?) };
        if let Some(day) = date("day")? {
            named.days = (Some(day), day.succ_opt());
        }
        for (name, text) in parameters {
            let is_day = name == "day" && named.days.0.is_some();
            if has(name) && !is_day {
                named.exact.insert(name.clone(), text.clone());
            }
        }
        Ok(named)
    }

    /// Whether a slice is named. Parameters that name no level name no slice.
    pub fn has(&self, levels: &[Level]) -> bool {
        if self.exact.is_empty() && self.days == (None, None) {
            return false;
        }
        let exact =
            |level: &Level| self.exact.get(&level.column).is_none_or(|text| level.value.text().as_ref() == Some(text));
        levels.iter().all(exact) && self.has_day(levels)
    }

    fn has_day(&self, levels: &[Level]) -> bool {
        let (from, to) = self.days;
        if (from, to) == (None, None) {
            return true;
        }
        let Some(day) = day_of(levels) else { return false };
        from.is_none_or(|from| day >= from) && to.is_none_or(|to| day < to)
    }
}

/// The day that a parameter's text begins with.
///
/// # Errors
/// `Refused`.
pub fn read_day(name: &str, text: &str) -> Result<NaiveDate> {
    NaiveDate::parse_from_str(text.get(..10).unwrap_or(text), "%Y-%m-%d").map_err(|_| {
        let message = format!("parameter {name} is {text:?}, which is no day: write it as in 2026-11-20");
        LakeError::new(LakeErrorKind::Refused, message)
    })
}

/// The day that a slice stands for.
pub fn day_of(levels: &[Level]) -> Option<NaiveDate> {
    let value = |name: &str| levels.iter().find(|level| level.column == name).map(|level| &level.value);
    let number = |name: &str| match value(name)? {
        Value::Int(number) => Some(*number),
        Value::Text(text) => text.parse().ok(),
        _ => None,
    };
    match value("date") {
        Some(Value::Date(days)) => NaiveDate::from_num_days_from_ce_opt(days.checked_add(epoch_day())?),
        Some(Value::Text(text)) => NaiveDate::parse_from_str(text, "%Y-%m-%d").ok(),
        _ => {
            let (year, month, day) = (number("year")?, number("month")?, number("day")?);
            NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, u32::try_from(month).ok()?, u32::try_from(day).ok()?)
        }
    }
}

/// 1970-01-01 as chrono counts days.
fn epoch_day() -> i32 {
    NaiveDate::default().num_days_from_ce()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(column: &str, value: Value) -> Level {
        Level { column: column.into(), derived: false, value }
    }

    fn named(parameters: &[(&str, &str)], columns: &[&str]) -> Named {
        let parameters = parameters.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        Named::new(&parameters, columns).unwrap()
    }

    #[test]
    fn parameters_name_the_slices_of_their_day_or_value() {
        let date = |text: &str| vec![level("date", Value::Text(text.into())), level("genre", Value::Text("x".into()))];
        let day = named(&[("day", "2026-11-20")], &["date", "genre"]);
        assert!(day.has(&date("2026-11-20")) && !day.has(&date("2026-11-21")));
        let range = named(&[("from", "2026-11-20"), ("to", "2026-11-22")], &["date"]);
        assert!(range.has(&date("2026-11-20")) && range.has(&date("2026-11-21")) && !range.has(&date("2026-11-22")));
        assert!(day.has(&[level("date", Value::Date(20_777))]), "2026-11-20 is day 20,777");
        let parts =
            |d| vec![level("year", Value::Int(2026)), level("month", Value::Int(11)), level("day", Value::Int(d))];
        let day = named(&[("day", "2026-11-20")], &["year", "month", "day"]);
        assert!(day.has(&parts(20)) && !day.has(&parts(21)));
        let genre = named(&[("genre", "x"), ("other", "y")], &["date", "genre"]);
        assert!(genre.has(&date("2026-11-20")));
        assert!(!named(&[("genre", "y")], &["date", "genre"]).has(&date("2026-11-20")));
        assert!(
            !named(&[("other", "y")], &["date", "genre"]).has(&date("2026-11-20")),
            "nothing named, nothing emptied"
        );
        assert!(!named(&[("day", "2026-11-20")], &["genre"]).has(&[level("genre", Value::Null)]));
        let number = named(&[("year", "2026"), ("month", "11"), ("day", "20")], &["year", "month", "day"]);
        assert!(number.has(&[
            level("year", Value::Int(2026)),
            level("month", Value::Int(11)),
            level("day", Value::Int(20))
        ]));
    }

    #[test]
    fn a_day_that_cannot_be_read_is_refused_and_not_taken_for_none() {
        for name in ["day", "from", "to"] {
            for columns in [&["date"][..], &["year", "month", "day"]] {
                let given = BTreeMap::from([(name.to_owned(), "20261120".to_owned())]);
                let error = Named::new(&given, columns).unwrap_err();
                assert!(error.kind == LakeErrorKind::Refused && error.message.contains(name), "{error}");
                assert!(Named::new(&given, &["genre"]).is_ok(), "of no level");
            }
        }
    }
}
