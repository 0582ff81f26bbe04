//! SQL functions that read what people write: `parse_amount('4 500,50 €')`, `parse_date('Oct-2025')`. They are known to
//! views, checks and sources, and to SQL over the lake. What cannot be read is null.

use std::any::Any;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Date32Array, Decimal128Array, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use chrono::NaiveDate;
use datafusion::common::Result as DfResult;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};

use crate::scalar::parse_date_days;

/// Digits of an amount, two of them after the point.
const AMOUNT: DataType = DataType::Decimal128(18, 2);
const AMOUNT_MAX: i128 = 10_i128.pow(18);

/// `parse_amount(text)` → DECIMAL(18,2) and `parse_date(text)` → DATE.
pub fn normalisers() -> Vec<ScalarUDF> {
    let function = |name, kind| {
        ScalarUDF::from(Normaliser {
            name,
            kind,
            signature: Signature::new(TypeSignature::Any(1), Volatility::Immutable),
        })
    };
    vec![function("parse_amount", Kind::Amount), function("parse_date", Kind::Date)]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Amount,
    Date,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Normaliser {
    name: &'static str,
    kind: Kind,
    signature: Signature,
}

impl ScalarUDFImpl for Normaliser {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(match self.kind {
            Kind::Amount => AMOUNT,
            Kind::Date => DataType::Date32,
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let scalar = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if scalar { 1 } else { args.number_rows };
        let values = args.args[0].to_array(rows)?;
        let texts = cast(&values, &DataType::Utf8)?;
        let texts: &StringArray = texts.as_string();
        let found: ArrayRef = match self.kind {
            Kind::Amount => {
                let amounts: Decimal128Array = texts.iter().map(|text| text.and_then(parse_amount)).collect();
                Arc::new(amounts.with_data_type(AMOUNT))
            }
            Kind::Date => Arc::new(texts.iter().map(|text| text.and_then(parse_date)).collect::<Date32Array>()),
        };
        debug_assert_eq!(found.len(), rows);
        if scalar {
            return Ok(ColumnarValue::Scalar(datafusion::scalar::ScalarValue::try_from_array(&found, 0)?));
        }
        Ok(ColumnarValue::Array(found))
    }
}

/// An amount in hundredths: digits with a sign, spaces and apostrophes between thousands, a point or comma before one or
/// two decimals, and a currency's sign or code at either end. A lone point or comma before three digits separates
/// thousands, unless nothing but 0 stands before it.
fn parse_amount(text: &str) -> Option<i128> {
    let space = |c: char| c.is_whitespace() || matches!(c, '\'' | '’' | '\u{a0}' | '\u{202f}');
    let currency = |c: char| space(c) || c.is_alphabetic() || matches!(c, '€' | '$' | '£' | '¥' | '/' | '.');
    let text = text.trim();
    let (negative, text) = match text.strip_prefix(['-', '−']) {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let start = text.find(|c: char| c.is_ascii_digit())?;
    let (before, rest) = text.split_at(start);
    let (negative, before) = match before.trim_end().strip_suffix('-') {
        Some(sign) if !negative => (true, sign),
        _ => (negative, before),
    };
    let end = rest.rfind(|c: char| c.is_ascii_digit())? + 1;
    let (number, after) = rest.split_at(end);
    if !before.chars().all(currency) || !after.chars().all(currency) || before.chars().count() > 5 {
        return None;
    }
    let number: String = number.chars().filter(|c| !space(*c)).collect();
    let hundredths = parse_number(&number)?;
    Some(if negative { -hundredths } else { hundredths })
}

/// Digits with points and commas → hundredths.
fn parse_number(number: &str) -> Option<i128> {
    let marks: Vec<char> = number.chars().filter(|c| !c.is_ascii_digit()).collect();
    if marks.iter().any(|mark| !matches!(mark, '.' | ',')) {
        return None;
    }
    let last = number.rfind(['.', ',']);
    let decimals = last.map_or(0, |at| number.len() - at - 1);
    let mixed = marks.first() != marks.last();
    let fraction = match last {
        None => false,
        Some(_) if marks.len() > 1 && !mixed => false,
        Some(_) if decimals == 3 && !mixed && !number.starts_with('0') => false,
        Some(_) => true,
    };
    let (whole, cents) = match last {
        Some(at) if fraction => (&number[..at], &number[at + 1..]),
        _ => (number, ""),
    };
    let groups: Vec<&str> = whole.split(['.', ',']).collect();
    let grouped = groups.len() == 1 || groups[1..].iter().all(|group| group.len() == 3) && groups[0].len() <= 3;
    if !grouped || whole.is_empty() {
        return None;
    }
    // More decimals than two are taken when they are zeros.
    let (cents, rest) = cents.split_at(cents.len().min(2));
    if rest.bytes().any(|digit| digit != b'0') {
        return None;
    }
    let digits: String = groups.concat();
    let hundredths = format!("{digits}{cents:0<2}").parse::<i128>().ok()?;
    (hundredths < AMOUNT_MAX).then_some(hundredths)
}

/// Months in English and French by the letters that tell them apart; accents are dropped before.
const MONTHS: [(&str, u32); 25] = [
    ("janvier", 1),
    ("january", 1),
    ("fevrier", 2),
    ("february", 2),
    ("fevr", 2),
    ("mars", 3),
    ("march", 3),
    ("avril", 4),
    ("april", 4),
    ("mai", 5),
    ("may", 5),
    ("juin", 6),
    ("june", 6),
    ("juillet", 7),
    ("juil", 7),
    ("july", 7),
    ("aout", 8),
    ("august", 8),
    ("septembre", 9),
    ("september", 9),
    ("octobre", 10),
    ("october", 10),
    ("novembre", 11),
    ("november", 11),
    ("decembre", 12),
];

/// Days since 1970: `2025-10-31` (also with a time after it), `31/10/2025`, `31.10.2025`, `20251031`, `31 Oct 2025`,
/// `Oct 31, 2025`; and the first day of `Oct-2025`, `octobre 2025`, `10/2025`, `2025-10`. The day stands before the month.
fn parse_date(text: &str) -> Option<i32> {
    let text = text.trim();
    if let Some(days) = text.get(..10).and_then(parse_date_days)
        && text[10..].chars().next().is_none_or(|c| matches!(c, 'T' | 't' | ' '))
    {
        return Some(days);
    }
    let separator = |c: char| c.is_whitespace() || matches!(c, '-' | '/' | '.' | ',' | '_');
    let parts: Vec<&str> = text.split(separator).filter(|part| !part.is_empty()).collect();
    let number = |text: &str| text.parse::<u32>().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    let year = |text: &str| number(text).filter(|_| text.len() == 4);
    let small = |text: &str| number(text).filter(|_| text.len() <= 2);
    let (y, m, d) = match parts[..] {
        [all] if all.len() == 8 && number(all).is_some() => (year(&all[..4])?, small(&all[4..6])?, small(&all[6..])?),
        [a, b] if year(a).is_some() => (year(a)?, small(b).or_else(|| month(b))?, 1),
        [a, b] => (year(b)?, small(a).or_else(|| month(a))?, 1),
        [a, b, c] if year(a).is_some() => (year(a)?, small(b).or_else(|| month(b))?, small(c)?),
        [a, b, c] if month(a).is_some() => (year(c)?, month(a)?, small(b)?),
        [a, b, c] => (year(c)?, small(b).or_else(|| month(b))?, small(a)?),
        _ => return None,
    };
    NaiveDate::from_ymd_opt(i32::try_from(y).ok()?, m, d).map(|date| date.to_epoch_days())
}

fn month(word: &str) -> Option<u32> {
    let plain = |c: char| match c {
        'é' | 'è' => 'e',
        'û' => 'u',
        other => other,
    };
    let word: String = word.to_lowercase().chars().map(plain).collect();
    if word.chars().count() < 3 {
        return None;
    }
    if word == "december" || word == "dec" {
        return Some(12);
    }
    // Three letters are enough, but for June and July.
    let fits = |name: &str| name == word || name.starts_with(&word) && word != "jui";
    MONTHS.iter().find(|(name, _)| fits(name)).map(|(_, number)| *number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_as_people_write_them() {
        let cases = [
            ("4500€", Some(450_000)),
            ("4500", Some(450_000)),
            ("450€/jour", Some(45_000)),
            (" 4 500,50 € ", Some(450_050)),
            ("4\u{202f}500,5 EUR", Some(450_050)),
            ("€4,500.50", Some(450_050)),
            ("$ 1'234", Some(123_400)),
            ("1.234.567,89", Some(123_456_789)),
            ("1,234,567", Some(123_456_700)),
            ("4,500", Some(450_000)),
            ("4.50", Some(450)),
            ("0.125", None),
            ("0.120", Some(12)),
            ("-12", Some(-1_200)),
            ("€-12", Some(-1_200)),
            ("- 12,00 €", Some(-1_200)),
            ("", None),
            ("much", None),
            ("12-13", None),
            ("1,2345", None),
            ("1.23,45.6", None),
            ("12,34,5", None),
            ("about ten 10", None),
            ("99999999999999999999", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_amount(text), expected, "{text}");
        }
    }

    #[test]
    fn dates_as_people_write_them() {
        let day = |y, m, d| Some(NaiveDate::from_ymd_opt(y, m, d).unwrap().to_epoch_days());
        let cases = [
            ("2025-10-31", day(2025, 10, 31)),
            ("2025-10-31T10:00:00Z", day(2025, 10, 31)),
            ("2025-10-31 10:00", day(2025, 10, 31)),
            ("31/10/2025", day(2025, 10, 31)),
            ("1/2/2025", day(2025, 2, 1)),
            ("31.10.2025", day(2025, 10, 31)),
            ("20251031", day(2025, 10, 31)),
            ("Oct-2025", day(2025, 10, 1)),
            ("oct. 2025", day(2025, 10, 1)),
            ("Octobre 2025", day(2025, 10, 1)),
            ("2025-10", day(2025, 10, 1)),
            ("10/2025", day(2025, 10, 1)),
            ("31 Oct 2025", day(2025, 10, 31)),
            ("October 31, 2025", day(2025, 10, 31)),
            ("15 août 2025", day(2025, 8, 15)),
            ("févr. 2025", day(2025, 2, 1)),
            ("juin 2025", day(2025, 6, 1)),
            ("juil. 2025", day(2025, 7, 1)),
            ("Jul-2025", day(2025, 7, 1)),
            ("Dec-2025", day(2025, 12, 1)),
            ("Mai 2025", day(2025, 5, 1)),
            ("Jui 2025", None),
            ("31/02/2025", None),
            ("13/13/2025", None),
            ("2025", None),
            ("soon", None),
            ("", None),
            ("2025-10-31x", None),
            ("é", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_date(text), expected, "{text}");
        }
    }
}
