//! The limit on partitions that a client makes and deletes (`controller_mutation_rate`, KIP-599).
//!
//! - A topic's partitions are counted when it is known that it can be made, grown or deleted; with `validate_only` too, as in
//!   Kafka.
//! - Versions that know the limit have THROTTLING_QUOTA_EXCEEDED for the topics that come too soon, and the time to wait in the
//!   answer. Older ones are served, and made to be still for that time.

use super::Context;
use crate::error::{Error, Kind, Result};
use crate::security::quota::{Limit, Quota};

/// What one request makes and deletes.
pub(super) struct Mutations<'a> {
    context: &'a Context,
    limit: Option<Limit>,
    strict: bool,
    throttle_ms: i64,
}

impl<'a> Mutations<'a> {
    /// A request of `context`'s client; `strict` for versions that know the limit.
    pub(super) fn new(context: &'a Context, strict: bool) -> Self {
        let security = context.broker.security();
        let limit = security.limit(Quota::ControllerMutationRate, &context.principal(), &context.client_id);
        Self { context, limit, strict, throttle_ms: 0 }
    }

    /// Counts the partitions of one topic.
    ///
    /// # Errors
    /// `ThrottlingQuotaExceeded`: nothing is counted.
    pub(super) fn count(&mut self, partitions: usize) -> Result<()> {
        let Some(limit) = self.limit.clone() else { return Ok(()) };
        let counted = self.context.broker.security().mutates(limit, partitions as f64, self.strict);
        let throttle_ms = counted.unwrap_or_else(|refused| refused);
        self.throttle_ms = self.throttle_ms.max(throttle_ms);
        counted.map(drop).map_err(|wait_ms| {
            let message = format!("controller_mutation_rate is used up; ask again in {wait_ms} ms");
            Error::new(Kind::ThrottlingQuotaExceeded, message)
        })
    }

    /// For how many milliseconds the client must be still; from now on it is.
    pub(super) fn throttle_ms(&self) -> i32 {
        self.context.session.be_still(self.throttle_ms);
        i32::try_from(self.throttle_ms).unwrap_or(i32::MAX)
    }
}
