//! Models as SQL functions: `forecast`, `anomaly_score`, `is_anomaly`, `zscore`, `match_score`, `cosine_similarity`, and
//! the figures that say how good they are (`evaluation`).
//!
//! Each is a plain function of its rows: nothing is trained in advance and nothing is kept, so the same rows give the same
//! answer on every machine. `forecast` (the aggregate) asks `series` (step, gaps, season, fit); `anomaly` (the window
//! functions) asks `forest`; `matching` asks `tokens`.

mod anomaly;
mod arguments;
pub mod evaluation;
mod forecast;
mod forest;
mod matching;
mod series;
#[cfg(test)]
mod tests;
mod tokens;

use std::sync::Arc;

use datafusion::error::Result;
use datafusion::execution::registry::FunctionRegistry;
use datafusion::logical_expr::{AggregateUDF, ScalarUDF, WindowUDF};

pub(crate) use arguments::constant;

/// Makes the models known to a session under their names.
///
/// # Errors
/// When the session takes no functions.
pub fn register(registry: &mut dyn FunctionRegistry) -> Result<()> {
    registry.register_udaf(Arc::new(AggregateUDF::from(forecast::Forecast::new())))?;
    for function in anomaly::functions() {
        registry.register_udwf(Arc::new(WindowUDF::from(function)))?;
    }
    registry.register_udf(Arc::new(ScalarUDF::from(matching::MatchScore::new())))?;
    registry.register_udf(Arc::new(ScalarUDF::from(matching::CosineSimilarity::new())))?;
    Ok(())
}
