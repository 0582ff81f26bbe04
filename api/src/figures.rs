//! Figures of a view's columns, added up without losing a digit.

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, Float64Array, Int64Array, UInt64Array};
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type, UInt64Type};
use engine::Combine;
use serde_json::json;

use crate::error::{Answer, Problem};

/// A figure of a cell. Whole numbers and decimals stay exact.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Figure {
    /// Nothing: null, or not a finite number.
    None,
    /// A whole number.
    Whole(i128),
    /// Digits and how many of them stand behind the point.
    Decimal(i128, i8),
    /// A double.
    Real(f64),
}

impl Figure {
    /// This figure and another one as one.
    pub fn with(self, other: Figure, combine: Combine) -> Figure {
        use Figure::{Decimal, None, Real, Whole};
        match (self, other, combine) {
            (None, figure, _) | (figure, None, _) => figure,
            (Whole(a), Whole(b), Combine::Sum) => a.checked_add(b).map_or(Real(a as f64 + b as f64), Whole),
            (Decimal(a, s), Decimal(b, t), Combine::Sum) if s == t => {
                a.checked_add(b).map_or(None, |sum| Decimal(sum, s))
            }
            (a, b, Combine::Sum) => Real(a.real() + b.real()),
            (a, b, Combine::Min) => {
                if b.real() < a.real() {
                    b
                } else {
                    a
                }
            }
            (a, b, Combine::Max) => {
                if b.real() > a.real() {
                    b
                } else {
                    a
                }
            }
            (_, b, Combine::Never) => b,
        }
    }

    /// The nearest double; 0 for none, which ranks last.
    pub fn real(self) -> f64 {
        match self {
            Figure::None => 0.0,
            Figure::Whole(n) => n as f64,
            Figure::Decimal(n, scale) => n as f64 / 10f64.powi(scale.into()),
            Figure::Real(n) => n,
        }
    }

    /// As an answer carries it.
    pub fn json(self) -> String {
        match self {
            Figure::None => "null".to_owned(),
            Figure::Whole(n) => n.to_string(),
            Figure::Decimal(..) => json!(self.real()).to_string(),
            Figure::Real(n) => json!(n).to_string(),
        }
    }
}

/// A column of figures.
pub enum Figures {
    /// Whole numbers of up to 64 bits.
    Whole(Int64Array),
    /// Whole numbers without a sign.
    Unsigned(UInt64Array),
    /// Decimals of up to 38 digits.
    Decimal(Decimal128Array),
    /// Everything else that is a number.
    Real(Float64Array),
}

impl Figures {
    /// Reads a column of numbers of any type.
    pub fn of(array: &ArrayRef) -> Answer<Figures> {
        let cast = |to: DataType| {
            arrow::compute::cast(array, &to)
                .map_err(|e| Problem::internal(format!("a value cannot be read: {e}: choose another y column")))
        };
        Ok(match array.data_type() {
            DataType::UInt64 => Figures::Unsigned(array.as_primitive::<UInt64Type>().clone()),
            DataType::Decimal128(..) => Figures::Decimal(array.as_primitive::<Decimal128Type>().clone()),
            data_type if data_type.is_integer() => {
                Figures::Whole(cast(DataType::Int64)?.as_primitive::<Int64Type>().clone())
            }
            _ => Figures::Real(cast(DataType::Float64)?.as_primitive::<Float64Type>().clone()),
        })
    }

    /// The figure of one row.
    pub fn at(&self, row: usize) -> Figure {
        match self {
            Figures::Whole(a) if a.is_valid(row) => Figure::Whole(a.value(row).into()),
            Figures::Unsigned(a) if a.is_valid(row) => Figure::Whole(a.value(row).into()),
            Figures::Decimal(a) if a.is_valid(row) => Figure::Decimal(a.value(row), a.scale()),
            Figures::Real(a) if a.is_valid(row) && a.value(row).is_finite() => Figure::Real(a.value(row)),
            _ => Figure::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_stay_exact() {
        let big = Figure::Whole(i128::from(i64::MAX));
        assert_eq!(big.with(Figure::Whole(1), Combine::Sum).json(), "9223372036854775808");
        assert_eq!(Figure::None.with(Figure::Whole(2), Combine::Min), Figure::Whole(2));
        assert_eq!(Figure::Whole(3).with(Figure::Whole(2), Combine::Min), Figure::Whole(2));
        assert_eq!(Figure::Decimal(150, 2).with(Figure::Decimal(25, 2), Combine::Sum).json(), "1.75");
    }
}
