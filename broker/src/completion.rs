//! Changes that go on although nobody waits for them any more.

use crate::error::{Error, Kind, Result};

/// Runs a change to its end: once its commit is submitted it must become visible, or a later change would not know of it, also
/// when whoever asked for it has gone.
///
/// # Errors
/// Those of the change; `Bug` when it ended before that.
pub(crate) async fn to_the_end<T: Send + 'static>(
    what: &str,
    change: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let ended = tokio::spawn(change).await;
    ended.unwrap_or_else(|error| Err(Error::new(Kind::Bug, format!("a change of {what} ended early: {error}"))))
}
