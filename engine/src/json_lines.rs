//! Rows as JSON, one object a line, as they stand in topics.

use std::fmt::Write;
use std::io::BufRead;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, FieldRef, TimeUnit, TimestampMillisecondType};
use arrow::error::ArrowError;
use arrow::json::writer::{Encoder, EncoderFactory, EncoderOptions, LineDelimited, NullableEncoder, WriterBuilder};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::error::Result;

/// One JSON object per row and line; nulls are written out.
pub(crate) fn json_lines(rows: &RecordBatch) -> Result<Vec<u8>> {
    let builder = WriterBuilder::new().with_explicit_nulls(true).with_encoder_factory(Arc::new(Times));
    let mut writer = builder.build::<_, LineDelimited>(Vec::new());
    writer.write(rows)?;
    writer.finish()?;
    Ok(writer.into_inner())
}

/// The lines of what [`json_lines`] gives.
pub(crate) fn lines(mut text: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let whole = text;
        // Reading from memory does not fail, and looks for the end many bytes at a time.
        let bytes = text.skip_until(b'\n').ok().filter(|bytes| *bytes > 0)?;
        Some(whole[..bytes].strip_suffix(b"\n").unwrap_or(&whole[..bytes]))
    })
}

/// Times are written as Arrow writes them, but one like that of the row before not anew: to spell one takes longer than the
/// rest of a group's row, and tens of thousands of groups of a step are in one window.
#[derive(Debug)]
struct Times;

impl EncoderFactory for Times {
    fn make_default_encoder<'a>(
        &self,
        _field: &'a FieldRef,
        array: &'a dyn Array,
        _options: &'a EncoderOptions,
    ) -> std::result::Result<Option<NullableEncoder<'a>>, ArrowError> {
        let DataType::Timestamp(TimeUnit::Millisecond, _) = array.data_type() else { return Ok(None) };
        let values = array.as_primitive::<TimestampMillisecondType>().values();
        let formatter = ArrayFormatter::try_new(array, &FORMAT)?;
        let encoder = TimeEncoder { values, formatter, last: None, text: String::new() };
        Ok(Some(NullableEncoder::new(Box::new(encoder), array.nulls().cloned())))
    }
}

/// That of Arrow's own encoder.
const FORMAT: FormatOptions<'_> = FormatOptions::new().with_display_error(true);

struct TimeEncoder<'a> {
    values: &'a [i64],
    formatter: ArrayFormatter<'a>,
    last: Option<i64>,
    /// The text of `last`, in quotes.
    text: String,
}

impl Encoder for TimeEncoder<'_> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        if self.last != Some(self.values[row]) {
            self.text.clear();
            // Writing to a string does not fail.
            let _ = write!(self.text, "\"{}\"", self.formatter.value(row));
            self.last = Some(self.values[row]);
        }
        out.extend_from_slice(self.text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, StructArray, TimestampMillisecondArray};
    use arrow::datatypes::{Field, Fields};

    use super::*;

    #[test]
    fn lines_are_those_between_line_feeds() {
        let split = |text: &'static str| lines(text.as_bytes()).collect::<Vec<_>>();
        assert_eq!(split("{}\n{\"a\":1}\n"), [&b"{}"[..], b"{\"a\":1}"]);
        assert_eq!(split("a\n\nb"), [&b"a"[..], b"", b"b"]);
        assert!(split("").is_empty());
    }

    #[test]
    fn times_are_written_as_arrow_writes_them() {
        let times = || {
            let ms = [Some(0), Some(0), None, Some(0), Some(1_700_000_000_123), Some(-1), Some(i64::MAX), Some(-1)];
            TimestampMillisecondArray::from(ms.to_vec())
        };
        let zoned: ArrayRef = Arc::new(times().with_timezone("Europe/Paris"));
        let inner = Fields::from(vec![Field::new("t", zoned.data_type().clone(), true)]);
        let nested: ArrayRef = Arc::new(StructArray::new(inner, vec![zoned.clone()], None));
        let utc: ArrayRef = Arc::new(times().with_timezone("UTC"));
        let rows =
            RecordBatch::try_from_iter([("a", Arc::new(times()) as ArrayRef), ("b", zoned), ("c", nested), ("d", utc)]);
        let rows = rows.unwrap();
        let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(Vec::new());
        writer.write(&rows).unwrap();
        writer.finish().unwrap();
        let expected = String::from_utf8(writer.into_inner()).unwrap();
        assert_eq!(String::from_utf8(json_lines(&rows).unwrap()).unwrap(), expected);
        assert!(expected.contains(r#""d":"2023-11-14T22:13:20.123Z""#), "{expected}");
    }
}
