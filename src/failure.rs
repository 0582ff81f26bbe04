//! How a command ends when it does not end well.

use std::fmt;

/// Why a command ended, for the person who started it.
#[derive(Debug)]
pub enum Failure {
    /// The command line or the configuration is wrong: trying again is of no use. Exit code 2.
    Usage(String),
    /// It could not be done. Exit code 1.
    Failed(String),
}

impl Failure {
    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Failure::Usage(_) => 2,
            Failure::Failed(_) => 1,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Usage(message) | Failure::Failed(message) => f.write_str(message),
        }
    }
}

impl From<api::config::Mistakes> for Failure {
    fn from(mistakes: api::config::Mistakes) -> Failure {
        Failure::Usage(mistakes.to_string())
    }
}
