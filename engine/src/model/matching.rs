//! Scalar functions of likeness: `match_score(profile, need)` and `cosine_similarity(a, b)`.
//!
//! `match_score` is 0 to 1: how well a profile covers a need. Both are a text or a list of texts (skills); what counts as a
//! word or a skill is in `tokens`, and so is the formula: 0.8 of it is the share of the need's skills that the profile has,
//! 0.2 is how much of both is common. `cosine_similarity` is -1 to 1 for two lists of numbers; null when one is null, has a
//! null in it, or is all zeros. Ranking is plain SQL: ORDER BY match_score(…) DESC LIMIT 5.

use std::any::Any;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array};
use arrow::datatypes::{DataType, Field, Float64Type};
use datafusion::common::{exec_err, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

use super::tokens::{SEPARATOR, Vocabulary};

/// `match_score`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct MatchScore {
    signature: Signature,
}

impl MatchScore {
    pub(super) fn new() -> MatchScore {
        MatchScore { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for MatchScore {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn name(&self) -> &str {
        "match_score"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let [profile, need] = types else {
            return plan_err!("match_score takes (profile, need), not {} arguments", types.len());
        };
        [profile, need].into_iter().map(texts).collect()
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let sides = ColumnarValue::values_to_arrays(&args.args)?;
        let mut vocabulary = Vocabulary::default();
        let rows = sides[0].len();
        let scores = (0..rows).map(|row| {
            let profile = text_at(&sides[0], row)?;
            let need = text_at(&sides[1], row)?;
            let profile = vocabulary.terms(&profile);
            Some(profile.cover(&vocabulary.terms(&need)))
        });
        answer(scores.collect(), &args.args)
    }
}

/// The type that a side is read as.
fn texts(given: &DataType) -> Result<DataType> {
    let string =
        |kind: &DataType| matches!(kind, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null);
    match given {
        kind if string(kind) => Ok(DataType::Utf8),
        DataType::List(element) | DataType::LargeList(element) | DataType::FixedSizeList(element, _)
            if string(element.data_type()) =>
        {
            Ok(DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true))))
        }
        other => plan_err!("match_score takes texts or lists of texts, not {other}"),
    }
}

/// A text, or the elements of a list with [`SEPARATOR`] between and after them.
fn text_at(side: &ArrayRef, row: usize) -> Option<std::borrow::Cow<'_, str>> {
    if side.is_null(row) {
        return None;
    }
    if let Some(texts) = side.as_string_opt::<i32>() {
        return Some(texts.value(row).into());
    }
    let elements = side.as_list::<i32>().value(row);
    let mut text = String::new();
    for element in elements.as_string::<i32>().iter().flatten() {
        text.push_str(element);
        text.push(SEPARATOR);
    }
    Some(text.into())
}

/// `cosine_similarity`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct CosineSimilarity {
    signature: Signature,
}

impl CosineSimilarity {
    pub(super) fn new() -> CosineSimilarity {
        CosineSimilarity { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for CosineSimilarity {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn name(&self) -> &str {
        "cosine_similarity"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let list = || DataType::List(Arc::new(Field::new_list_field(DataType::Float64, true)));
        let numbers = |given: &DataType| match given {
            DataType::Null => true,
            DataType::List(element) | DataType::LargeList(element) | DataType::FixedSizeList(element, _) => {
                element.data_type().is_numeric() || element.data_type().is_null()
            }
            _ => false,
        };
        match types {
            [a, b] if numbers(a) && numbers(b) => Ok(vec![list(), list()]),
            _ => plan_err!("cosine_similarity takes two lists of numbers, such as make_array(x, y), not {types:?}"),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let sides = ColumnarValue::values_to_arrays(&args.args)?;
        let (a, b) = (sides[0].as_list::<i32>(), sides[1].as_list::<i32>());
        let mut scores = Vec::with_capacity(a.len());
        for row in 0..a.len() {
            if a.is_null(row) || b.is_null(row) {
                scores.push(None);
                continue;
            }
            let (a, b) = (a.value(row), b.value(row));
            if a.len() != b.len() {
                return exec_err!("cosine_similarity: a list of {} numbers and one of {}", a.len(), b.len());
            }
            scores.push(cosine(a.as_primitive::<Float64Type>(), b.as_primitive::<Float64Type>()));
        }
        answer(scores, &args.args)
    }
}

fn cosine(a: &Float64Array, b: &Float64Array) -> Option<f64> {
    if a.null_count() + b.null_count() > 0 {
        return None;
    }
    let product =
        |a: &Float64Array, b: &Float64Array| -> f64 { a.values().iter().zip(b.values()).map(|(a, b)| a * b).sum() };
    let lengths = (product(a, a) * product(b, b)).sqrt();
    (lengths > 0.0).then(|| (product(a, b) / lengths).clamp(-1.0, 1.0))
}

/// One value when every argument was one, a column otherwise.
fn answer(scores: Vec<Option<f64>>, args: &[ColumnarValue]) -> Result<ColumnarValue> {
    let single = args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
    let scores: ArrayRef = Arc::new(Float64Array::from(scores));
    if single {
        return Ok(ColumnarValue::Scalar(datafusion::scalar::ScalarValue::try_from_array(&scores, 0)?));
    }
    Ok(ColumnarValue::Array(scores))
}
