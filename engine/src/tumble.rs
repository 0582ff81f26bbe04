//! `TUMBLE(ts, INTERVAL '1' MONTH [, 'Europe/Paris'])` in history queries: the start of the window that holds the time, so
//! that the same text groups by the same windows in a view and over the lake.

use std::any::Any;
use std::sync::Arc;

use arrow::array::{Array, AsArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, IntervalUnit, TimeUnit, TimestampMillisecondType};
use chrono_tz::Tz;
use datafusion::common::{Result as DfResult, ScalarValue, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use crate::columns::timestamp_type;
use crate::parse_window::window_of_interval;
use crate::window::{Finder, Window};

/// The function, to be registered in a session that queries history.
pub fn tumble() -> ScalarUDF {
    ScalarUDF::from(TumbleFunction { signature: Signature::user_defined(Volatility::Immutable) })
}

/// HOP and SESSION, which no function of one row can be: they are known by name so that who writes them is told what to write.
pub fn only_in_views() -> [ScalarUDF; 2] {
    let function = |name, instead| {
        ScalarUDF::from(OnlyInViews { name, instead, signature: Signature::user_defined(Volatility::Immutable) })
    };
    [
        function(
            "hop",
            "a row is in several windows. Declare a view with GROUP BY HOP(ts, INTERVAL '1' MINUTE, INTERVAL '1' HOUR) and read \
             that, or group by TUMBLE(ts, INTERVAL '1' MINUTE) and add up with sum(…) OVER (ORDER BY … ROWS 59 PRECEDING)",
        ),
        function(
            "session",
            "a row's session depends on its neighbours. Declare a view with GROUP BY SESSION(ts, INTERVAL '30' MINUTE) and read \
             that, or find where sessions begin with ts - lag(ts) OVER (PARTITION BY … ORDER BY ts) > INTERVAL '30' MINUTE",
        ),
    ]
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct OnlyInViews {
    name: &'static str,
    instead: &'static str,
    signature: Signature,
}

impl OnlyInViews {
    fn refuse<T>(&self) -> DfResult<T> {
        plan_err!("{} is for views only, as {}", self.name.to_uppercase(), self.instead)
    }
}

impl ScalarUDFImpl for OnlyInViews {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, _: &[DataType]) -> DfResult<Vec<DataType>> {
        self.refuse()
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        self.refuse()
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        self.refuse()
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct TumbleFunction {
    signature: Signature,
}

const FORM: &str = "write TUMBLE(ts, INTERVAL '1' HOUR) or TUMBLE(ts, INTERVAL '1' MONTH, 'Europe/Paris')";

impl ScalarUDFImpl for TumbleFunction {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn name(&self) -> &str {
        "tumble"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        let is_time = |kind: &DataType| {
            matches!(kind, DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 | DataType::Null)
                || kind.is_string()
        };
        let mut coerced = match types {
            [time, DataType::Interval(_), rest @ ..] if is_time(time) && rest.len() <= 1 => {
                vec![timestamp_type(), DataType::Interval(IntervalUnit::MonthDayNano)]
            }
            _ => return plan_err!("TUMBLE takes a time, an interval and perhaps a time zone, got {types:?}: {FORM}"),
        };
        coerced.extend(types.get(2).map(|_| DataType::Utf8));
        Ok(coerced)
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(timestamp_type())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let window = window_of_arguments(&args.args[1..])?;
        match &args.args[0] {
            ColumnarValue::Scalar(ScalarValue::TimestampMillisecond(time, _)) => {
                let start = time.map(|time| window.start_of(time));
                Ok(ColumnarValue::Scalar(ScalarValue::TimestampMillisecond(start, Some("UTC".into()))))
            }
            ColumnarValue::Array(times)
                if matches!(times.data_type(), DataType::Timestamp(TimeUnit::Millisecond, _)) =>
            {
                let mut finder = Finder::new(window);
                let times = times.as_primitive::<TimestampMillisecondType>();
                let starts: TimestampMillisecondArray =
                    times.iter().map(|time| time.map(|time| finder.bounds(time).0)).collect();
                Ok(ColumnarValue::Array(Arc::new(starts.with_timezone("UTC"))))
            }
            other => plan_err!("TUMBLE got a time of type {}: {FORM}", other.data_type()),
        }
    }
}

fn window_of_arguments(arguments: &[ColumnarValue]) -> DfResult<Window> {
    let Some(ColumnarValue::Scalar(ScalarValue::IntervalMonthDayNano(Some(interval)))) = arguments.first() else {
        return plan_err!("TUMBLE needs one interval for all rows: {FORM}");
    };
    let zone = match arguments.get(1) {
        None => None,
        Some(ColumnarValue::Scalar(ScalarValue::Utf8(Some(name)))) => match name.parse::<Tz>() {
            Ok(zone) => Some(zone),
            Err(_) => return plan_err!("'{name}' is not a time zone, use a name like Europe/Paris"),
        },
        Some(_) => return plan_err!("TUMBLE needs one time zone for all rows: {FORM}"),
    };
    match window_of_interval(*interval, zone) {
        Ok(window) => Ok(window),
        Err(mistake) => plan_err!("TUMBLE: this interval cannot be a window: {mistake}"),
    }
}
