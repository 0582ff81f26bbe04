//! An answer that is one list: written part by part, so that what it takes is known and bounded while it grows, however
//! often a request asks for the same.
//!
//! ```text
//! throttle_time_ms i32, if the version has it | count of parts | the parts | no tagged fields, in flexible versions
//! ```

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::Encodable;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::reply_memory::SHARE_BYTES_MIN;
use super::{Context, Reply, ReplyMemory};
use crate::builder::put_unsigned;
use crate::error::{Error, Kind, Result};

/// Most bytes of one answer: as many as a request may have in Kafka (`socket.request.max.bytes`).
const ANSWER_BYTES_MAX: usize = 100 << 20;
/// Longest wait for memory.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// Where the versions of an API differ.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    /// Version of the answer.
    pub(super) version: i16,
    /// Whether it begins with the time to be still.
    pub(super) throttled: bool,
    /// Whether it has compact lengths and tagged fields.
    pub(super) flexible: bool,
}

/// An answer that grows. Holds: the parts as they go onto the wire, and their share of the memory for replies.
pub(super) struct ListReply {
    memory: Arc<ReplyMemory>,
    shape: Shape,
    count: usize,
    parts: BytesMut,
    /// Bytes of a part that is being put together.
    coming: usize,
    share: Option<OwnedSemaphorePermit>,
    refused: bool,
    fault: Option<String>,
}

impl ListReply {
    /// An answer without parts.
    pub(super) fn new(context: &Context, shape: Shape) -> ListReply {
        let memory = context.reply_memory.clone();
        let parts = BytesMut::new();
        ListReply { memory, shape, count: 0, parts, coming: 0, share: None, refused: false, fault: None }
    }

    /// Whether another part may be put together. The parts that are refused need no more than their request does.
    ///
    /// # Errors
    /// `InvalidRequest` when the answer is as large as one may be; `RequestTimedOut` when there was no memory for it.
    pub(super) fn room(&self) -> Result<()> {
        if self.refused {
            return Err(Error::new(Kind::RequestTimedOut, "the memory for replies is used up; try again later"));
        }
        if self.parts.len() + self.coming < self.bytes_max() {
            return Ok(());
        }
        let message = format!("the answer would have more than {} bytes; ask for less at once", self.bytes_max());
        Err(Error::new(Kind::InvalidRequest, message))
    }

    fn bytes_max(&self) -> usize {
        ANSWER_BYTES_MAX.min(self.memory.bytes() / 2)
    }

    /// Counts something that will be in the next part.
    pub(super) async fn reserve(&mut self, piece: &impl Encodable) {
        self.coming += piece.compute_size(self.shape.version).unwrap_or(0);
        self.pay().await;
    }

    /// Adds a part.
    pub(super) async fn push(&mut self, part: &impl Encodable) {
        if let Err(error) = part.encode(&mut self.parts, self.shape.version) {
            self.fault.get_or_insert(error.to_string());
        }
        self.count += 1;
        self.coming = 0;
        self.pay().await;
    }

    /// Sees to it that the share is as large as what there is, but for the first bytes. Lets others work in between.
    async fn pay(&mut self) {
        tokio::task::consume_budget().await;
        let size = self.parts.len() + self.coming;
        let paid = self.share.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        if self.refused || size <= paid + SHARE_BYTES_MIN || paid >= self.bytes_max() {
            return;
        }
        match self.memory.all((size - paid).max(SHARE_BYTES_MIN), Instant::now() + WAIT_MAX).await {
            Some(more) => match &mut self.share {
                Some(share) => share.merge(more),
                None => self.share = Some(more),
            },
            None => self.refused = true,
        }
    }

    /// The whole answer.
    pub(super) fn finish(self) -> Reply {
        let version = self.shape.version;
        if let Some(fault) = self.fault {
            return Reply::Close(format!("cannot encode the answer in version {version}: {fault}"));
        }
        let mut head = BytesMut::with_capacity(16);
        if self.shape.throttled {
            head.put_i32(0);
        }
        if self.shape.flexible {
            put_unsigned(&mut head, self.count as u64 + 1);
        } else {
            head.put_i32(i32::try_from(self.count).expect("as many parts as a request has elements"));
        }
        let tags = if self.shape.flexible { Bytes::from_static(&[0]) } else { Bytes::new() };
        let body = vec![head.freeze(), self.parts.freeze(), tags];
        match self.share {
            Some(share) => Reply::Held(body, share),
            None => Reply::Now(body),
        }
    }
}
