//! Requests off the wire: a length of four bytes, then that many bytes. This file owns every way that can go wrong.
//!
//! A length that is negative, zero, too short for a header or larger than `frame_bytes_max` is refused. Memory grows
//! with the bytes that really arrive: what is not there yet costs the connection its read buffer of 64 KiB at most, and
//! beyond that never more than a MiB or twice of what was sent (once a connection has sent a request of that size, what it takes
//! for the next one is taken at its beginning), and a request must come at a least rate (`pace.rs`, with
//! [`STALL`] for patience). All requests that are whole, or
//! larger than a read buffer, share the budget; who cannot get a share in time is closed, so requests that wait for
//! each other's memory cannot wait for ever.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{timeout, timeout_at};

use super::header::START_BYTES;
use super::pace::Pace;

/// First allocation for a request that does not fit the read buffer; it doubles as bytes arrive. A connection that has
/// sent larger requests whole starts with their size, up to the second figure.
const GROWTH_BYTES_MIN: usize = 256 * 1024;
const GROWTH_BYTES_MAX: usize = 1024 * 1024;
/// Smallest and largest room for one read. A connection that fills its reads gets more.
const READ_BYTES_MIN: usize = 4 * 1024;
const READ_BYTES_MAX: usize = 64 * 1024;
/// The part of a read's room that a read has at least.
const READ_PART: usize = 4;
/// Longest wait for what the least rate asks of a request, and for a share of the budget.
pub(crate) const STALL: Duration = Duration::from_secs(30);

/// One whole request without its length, and its share of the memory for requests: keep the share until the
/// request is answered.
pub(crate) struct Frame {
    /// Header and body.
    pub(crate) bytes: Bytes,
    /// Share of the budget.
    pub(crate) share: OwnedSemaphorePermit,
}

/// Why there is no next request.
#[derive(Debug)]
pub(crate) enum End {
    /// The peer closed between two requests.
    Closed,
    /// What the peer sent or failed to send cannot be a request; the connection must be closed.
    Refused(String),
    /// The socket failed.
    Failed(io::Error),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> End {
        End::Failed(error)
    }
}

/// Cuts a byte stream into requests. Holds what has been read beyond the last one; belongs to one connection.
pub(crate) struct FrameReader<R> {
    input: R,
    buffer: BytesMut,
    read_bytes: usize,
    growth_bytes: usize,
    /// Whether the last request had an allocation of its own: then so little is read of the next one at first that hardly any of
    /// it has to be moved there.
    was_large: bool,
    frame_bytes_min: usize,
    frame_bytes_max: usize,
    stall: Duration,
    budget: Arc<Semaphore>,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// A reader of `input` that refuses requests above `frame_bytes_max` bytes and takes memory from `budget`,
    /// one permit a byte; the budget must be at least as large as the largest request.
    pub(crate) fn new(input: R, frame_bytes_max: usize, budget: Arc<Semaphore>) -> FrameReader<R> {
        let buffer = BytesMut::new();
        let (read_bytes, growth_bytes) = (READ_BYTES_MIN, GROWTH_BYTES_MIN);
        let (was_large, frame_bytes_min, stall) = (false, START_BYTES, STALL);
        FrameReader {
            input,
            buffer,
            read_bytes,
            growth_bytes,
            was_large,
            frame_bytes_min,
            frame_bytes_max,
            stall,
            budget,
        }
    }

    /// From the next request on its size is checked against these bounds.
    pub(crate) fn expect(&mut self, frame_bytes_min: usize, frame_bytes_max: usize) {
        self.frame_bytes_min = frame_bytes_min;
        self.frame_bytes_max = frame_bytes_max;
    }

    /// The same reader with less patience.
    #[cfg(test)]
    pub(crate) fn with_stall(self, stall: Duration) -> FrameReader<R> {
        FrameReader { stall, ..self }
    }

    /// Waits, without limit, until at least one byte of the next request is here.
    pub(crate) async fn wait(&mut self) -> Result<(), End> {
        if self.buffer.is_empty() && self.fill(1).await? == 0 {
            return Err(End::Closed);
        }
        Ok(())
    }

    /// The next request.
    pub(crate) async fn next(&mut self) -> Result<Frame, End> {
        self.wait().await?;
        let mut pace = Pace::begin(self.stall);
        while self.buffer.len() < 4 {
            self.fill_in_time(4, &mut pace).await?;
        }
        let claimed = self.buffer.get_i32();
        let length = self.length(claimed)?;
        if length > READ_BYTES_MAX {
            return self.large(length, pace).await;
        }
        self.was_large = false;
        while self.buffer.len() < length {
            self.fill_in_time(length - self.buffer.len(), &mut pace).await?;
        }
        let share = share(&self.budget, length, self.stall).await?;
        Ok(Frame { bytes: self.buffer.split_to(length).freeze(), share })
    }

    fn length(&self, claimed: i32) -> Result<usize, End> {
        match usize::try_from(claimed) {
            Err(_) => Err(End::Refused(format!("a request claims {claimed} bytes; this is not the Kafka protocol"))),
            Ok(n) if n < self.frame_bytes_min => {
                Err(End::Refused(format!("a request of {n} bytes is too short for its header")))
            }
            Ok(n) if n > self.frame_bytes_max => Err(End::Refused(format!(
                "a request claims {n} bytes, frame_bytes_max is {}; send smaller requests or raise it",
                self.frame_bytes_max
            ))),
            Ok(n) => Ok(n),
        }
    }

    /// A request with an allocation of its own, which grows as its bytes arrive, once there is more of it than the read
    /// buffer holds.
    async fn large(&mut self, length: usize, mut pace: Pace) -> Result<Frame, End> {
        while self.buffer.len() < READ_BYTES_MAX && !self.was_large {
            self.fill_in_time(READ_BYTES_MAX - self.buffer.len(), &mut pace).await?;
        }
        let mut room = length.min(self.growth_bytes);
        let mut held = share(&self.budget, room, self.stall).await?;
        pace = Pace::begin(self.stall); // nobody is to blame for having waited
        let mut bytes = BytesMut::with_capacity(room);
        bytes.put(self.buffer.split_to(self.buffer.len().min(length)));
        while bytes.len() < length {
            if bytes.len() == room {
                let more = room.min(length - room);
                held.merge(share(&self.budget, more, self.stall).await?);
                pace = Pace::begin(self.stall);
                bytes.reserve(more);
                room += more;
            }
            let missing = room - bytes.len();
            let mut space = (&mut bytes).limit(missing);
            let read = timeout_at(pace.until(), self.input.read_buf(&mut space)).await;
            match read.map_err(|_| stalled(self.stall))?? {
                0 => return Err(cut_off()),
                read => pace.moved(read),
            }
        }
        self.growth_bytes = self.growth_bytes.max(length).min(GROWTH_BYTES_MAX);
        self.was_large = true;
        Ok(Frame { bytes: bytes.freeze(), share: held })
    }

    /// Reads once more, with room for at least `least` bytes. 0 is the end of the stream.
    async fn fill(&mut self, least: usize) -> Result<usize, End> {
        let room = least.max(if self.was_large { READ_BYTES_MIN } else { self.read_bytes });
        // what is left of the buffer is enough where it is a good part of a read: many small requests then share one
        if self.buffer.capacity() - self.buffer.len() < least.max(room / READ_PART) {
            self.buffer.reserve(room);
        }
        let read = self.input.read_buf(&mut (&mut self.buffer).limit(room)).await?;
        if read >= self.read_bytes {
            self.read_bytes = (self.read_bytes * 2).min(READ_BYTES_MAX);
        }
        Ok(read)
    }

    async fn fill_in_time(&mut self, least: usize, pace: &mut Pace) -> Result<(), End> {
        match timeout_at(pace.until(), self.fill(least)).await {
            Err(_) => Err(stalled(self.stall)),
            Ok(Ok(0)) => Err(cut_off()),
            Ok(Ok(read)) => {
                pace.moved(read);
                Ok(())
            }
            Ok(Err(end)) => Err(end),
        }
    }
}

/// A share of `bytes` of the memory for requests, waited for no longer than `stall`.
pub(crate) async fn share(budget: &Arc<Semaphore>, bytes: usize, stall: Duration) -> Result<OwnedSemaphorePermit, End> {
    let permits = u32::try_from(bytes).map_err(|_| End::Refused(format!("{bytes} bytes at once are too many")))?;
    match timeout(stall, budget.clone().acquire_many_owned(permits)).await {
        Ok(Ok(share)) => Ok(share),
        Ok(Err(_)) => Err(End::Closed),
        Err(_) => Err(End::Refused("the memory for requests is used up; try again later".to_owned())),
    }
}

fn cut_off() -> End {
    End::Refused("the connection ended in the middle of a request".to_owned())
}

fn stalled(stall: Duration) -> End {
    End::Refused(format!("a request came too slowly: too little of it in {} s", stall.as_secs()))
}
