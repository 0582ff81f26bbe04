//! What can go wrong in the engine, by what the caller should do next.

use std::fmt;

use crate::Offsets;

/// What the caller should do about an [`EngineError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// No view or stream of that name: the request names something that does not exist.
    Unknown,
    /// The request itself is wrong (unknown column, bad value): correct it.
    BadRequest,
    /// The configuration is wrong: correct it and start again.
    Config,
    /// The view did not reach the wanted offsets in time: ask again or with a longer wait. `offsets` says how far it is.
    Timeout,
    /// The answer would be larger than the engine hands out at once: narrow the range or set a limit.
    TooLarge,
    /// Others have the memory that it needs: try again.
    Busy,
    /// What is asked for is under way already, or held back: wait for its end, or let it go on.
    Conflict,
    /// The engine or this view's pipeline has stopped: see `status`.
    Stopped,
    /// The store or the log failed.
    Storage,
    /// A fault of the engine itself.
    Bug,
}

/// An error of the engine: what to do (`kind`), why (`message`), and for a timeout the offsets reached.
#[derive(Debug, Clone)]
pub struct EngineError {
    /// What the caller should do next.
    pub kind: ErrorKind,
    /// Lowercase text that names the thing at fault and the next step.
    pub message: String,
    /// Next offset applied per topic and partition; only for [`ErrorKind::Timeout`].
    pub offsets: Option<Offsets>,
}

/// The engine's result.
pub type Result<T> = std::result::Result<T, EngineError>;

impl EngineError {
    /// An error without offsets.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> EngineError {
        EngineError { kind, message: message.into(), offsets: None }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> EngineError {
        EngineError::new(ErrorKind::BadRequest, message)
    }

    pub(crate) fn bug(message: impl Into<String>) -> EngineError {
        EngineError::new(ErrorKind::Bug, message)
    }
}

impl fmt::Display for EngineError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.message)
    }
}

impl std::error::Error for EngineError {}

impl From<broker::Error> for EngineError {
    fn from(error: broker::Error) -> EngineError {
        EngineError::new(ErrorKind::Storage, error.to_string())
    }
}

impl From<datafusion::error::DataFusionError> for EngineError {
    fn from(error: datafusion::error::DataFusionError) -> EngineError {
        EngineError::bug(format!("evaluating a view failed: {}", error.strip_backtrace()))
    }
}

impl From<arrow::error::ArrowError> for EngineError {
    fn from(error: arrow::error::ArrowError) -> EngineError {
        EngineError::bug(format!("evaluating a view failed: {error}"))
    }
}
