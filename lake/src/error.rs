//! One error type. Its [`LakeErrorKind`] says whose turn it is; the message says what to do.

use std::fmt;

use crate::Offsets;

/// What happened, by what the caller should do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LakeErrorKind {
    /// The configuration is wrong: the start is refused.
    Config,
    /// The request is wrong and will never work as it is: bad SQL, an unknown column, a statement that writes.
    Refused,
    /// Who asks may not see what the request names.
    Forbidden,
    /// There is no such topic or table.
    NotFound,
    /// The query ran longer than it may.
    TimeLimit,
    /// The query needs more memory than there is for SQL, or its answer does.
    MemoryLimit,
    /// A view has not caught up within the wait; the offsets it reached are in the error.
    NotFresh,
    /// What is asked for needs a version of a view that is still being filled: it will work later.
    Filling,
    /// The destination of the files does not answer or refuses; it is tried again.
    Destination,
    /// The log or the store failed, or is being stopped.
    Broker,
    /// A fault of Millpond's own: an invariant does not hold.
    Bug,
}

/// What went wrong, and in words what to do next.
#[derive(Clone, Debug)]
pub struct LakeError {
    /// Decides the caller's next act.
    pub kind: LakeErrorKind,
    /// For people: lower case, no full stop, with the values that matter.
    pub message: String,
    /// Where a view stood when the wait for it ended.
    pub offsets: Option<Offsets>,
}

/// Result with [`LakeError`].
pub type Result<T, E = LakeError> = std::result::Result<T, E>;

impl LakeError {
    /// An error of `kind`, explained.
    pub fn new(kind: LakeErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), offsets: None }
    }

    pub(crate) fn config(message: impl Into<String>) -> Self {
        Self::new(LakeErrorKind::Config, message)
    }

    pub(crate) fn bug(message: impl Into<String>) -> Self {
        Self::new(LakeErrorKind::Bug, message)
    }

    pub(crate) fn destination(message: impl Into<String>) -> Self {
        Self::new(LakeErrorKind::Destination, message)
    }
}

impl fmt::Display for LakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for LakeError {}

impl From<broker::Error> for LakeError {
    fn from(error: broker::Error) -> Self {
        let kind = match error.kind {
            broker::Kind::UnknownTopicOrPartition => LakeErrorKind::NotFound,
            _ => LakeErrorKind::Broker,
        };
        Self::new(kind, error.message)
    }
}

impl From<engine::EngineError> for LakeError {
    fn from(error: engine::EngineError) -> Self {
        use engine::ErrorKind;
        let kind = match error.kind {
            ErrorKind::Timeout => LakeErrorKind::NotFresh,
            ErrorKind::Unknown => LakeErrorKind::NotFound,
            ErrorKind::BadRequest | ErrorKind::Conflict => LakeErrorKind::Refused,
            ErrorKind::TooLarge | ErrorKind::Busy => LakeErrorKind::MemoryLimit,
            ErrorKind::Bug => LakeErrorKind::Bug,
            ErrorKind::Config | ErrorKind::Stopped | ErrorKind::Storage => LakeErrorKind::Broker,
        };
        Self { kind, message: error.message, offsets: error.offsets }
    }
}
