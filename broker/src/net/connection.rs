//! One connection: requests are read and handled in their order, and replies leave in the same order.
//!
//! Reading and answering run side by side: the reader hands each request to its handler, which fixes the order of its
//! effects, and puts the reply, ready or still to come, into a bounded queue; the writer awaits the replies one by one
//! and sends them. A peer that does not read its replies fills the queue, and then its requests are not read. Replies hold
//! their share of the memory for replies until they have left; when others wait for it, a peer that does not read loses
//! its connection soon.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::FutureExt;
use kafka_protocol::messages::ApiKey;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::frame::{self, End, Frame, FrameReader};
use super::pace::Pace;
use super::{header, shapes};
use crate::handlers::{self, Context, Reply, ReplyMemory};

/// Requests of one connection that may be handled before the first of them is answered.
const REPLIES_MAX: usize = 64;
/// Bytes of ready replies that are gathered into one write.
const GATHER_BYTES: usize = 256 * 1024;
/// Chunks in one vectored write.
const SLICES_MAX: usize = 128;
/// How long a peer may leave its reply unread (`pace.rs`): a consumer may be at work on what it got before.
const UNREAD: Duration = Duration::from_secs(600);
/// And how long when others wait for memory.
const UNREAD_WHEN_SHORT: Duration = Duration::from_secs(5);
/// Replies below this size are not charged to the memory for replies.
const UNCHARGED_BYTES_MAX: usize = 4 * 1024;
/// Stands for no end: how long a connection without requests may stay where `connections.max.idle.ms` sets no bound.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 86_400);
/// How long replies that are still owed may take after the peer's last request.
const DRAIN: Duration = Duration::from_secs(5);
/// How long work that nobody waits for any more may go on.
const DETACHED: Duration = Duration::from_secs(60);
/// Largest request of a client that has not said who it is.
const UNKNOWN_BYTES_MAX: usize = 64 * 1024;
/// What decoding a list element may take beyond its bytes, charged to the memory for requests.
const ELEMENT_BYTES: usize = 256;

/// What a connection shares with the others.
pub(super) struct Shared {
    /// Memory for requests, one permit a byte.
    pub(super) budget: Arc<Semaphore>,
    /// Largest request.
    pub(super) frame_bytes_max: usize,
    /// After how long without a request a connection is closed (`connections.max.idle.ms`); none: never.
    pub(super) idle: Option<Duration>,
    /// Turns true when the broker stops: no more requests are read then.
    pub(super) stopping: watch::Receiver<bool>,
}

/// A reply on its way: what stands in front of its body, and the request's memory until it is answered.
struct Queued {
    head: Head,
    reply: Reply,
    _share: Option<OwnedSemaphorePermit>,
}

/// Why a connection ended before its peer wanted it.
enum Closed {
    /// The peer asked for what cannot be answered.
    Refused(String),
    /// The peer went away or does not read.
    Lost(String),
}

/// What stands between length and body of a reply.
#[derive(Clone, Copy)]
enum Head {
    /// The correlation id, then in header version 1 an empty set of tagged fields.
    Response { correlation_id: i32, tagged: bool },
    /// Nothing: a token of a login.
    Token,
}

/// Serves a connection until it ends, misbehaves or the broker stops. By `known_by` the client must have logged in.
pub(super) async fn run<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    (input, output): (R, W),
    peer: SocketAddr,
    mut context: Context,
    (shared, known_by): (Arc<Shared>, Instant),
) {
    let (queue, replies) = mpsc::channel(REPLIES_MAX);
    let (end, ending) = watch::channel(false);
    context.ending = ending;
    let (broker, memory) = (context.broker.clone(), context.reply_memory.clone());
    let outstanding = Arc::new(AtomicUsize::new(0));
    let reader = Reader {
        frames: FrameReader::new(input, shared.frame_bytes_max, shared.budget.clone()),
        context,
        queue,
        outstanding: outstanding.clone(),
        idle: shared.idle.unwrap_or(FOR_EVER),
        peer,
        known_by,
        frame_bytes_max: shared.frame_bytes_max,
    };
    let (waiting, chunks) = (memory.waiting(), VecDeque::new());
    let writer = Writer { output, replies, outstanding, memory, waiting, current: None, chunks, bytes: 0 };
    let writing = writer.run();
    tokio::pin!(writing);
    let closed = tokio::select! {
        result = &mut writing => result,
        () = reader.run(shared) => {
            end.send_replace(true);
            timeout(DRAIN, writing).await.unwrap_or(Ok(()))
        }
    };
    match closed {
        Ok(()) => {}
        Err(Closed::Lost(reason)) => tracing::debug!(%peer, reason, "kafka connection lost"),
        Err(Closed::Refused(reason)) => {
            broker.counters().bad_requests.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(%peer, reason, "kafka connection closed");
        }
    }
}

struct Reader<R> {
    frames: FrameReader<R>,
    context: Context,
    queue: mpsc::Sender<Queued>,
    outstanding: Arc<AtomicUsize>,
    idle: Duration,
    peer: SocketAddr,
    /// Until when the client must have logged in.
    known_by: Instant,
    frame_bytes_max: usize,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    /// Reads and handles requests until there are no more. Dropping the queue lets the writer finish.
    async fn run(mut self, shared: Arc<Shared>) {
        let mut stopping = shared.stopping.clone();
        loop {
            let frame = tokio::select! {
                biased;
                _ = stopping.wait_for(|stop| *stop) => return,
                frame = self.next() => frame,
            };
            match frame {
                Ok(Some(frame)) => {
                    if !self.handle(frame, &shared.budget).await {
                        return;
                    }
                }
                Ok(None) | Err(End::Closed) => return,
                Err(End::Refused(reason)) => return self.close(reason).await,
                Err(End::Failed(error)) => {
                    tracing::debug!(peer = %self.peer, %error, "kafka connection failed");
                    return;
                }
            }
        }
    }

    /// The next request; none after a long silence in which nothing was owed to the peer. While a quota has the client
    /// be still, nothing is read.
    async fn next(&mut self) -> Result<Option<Frame>, End> {
        let session = self.context.session.clone();
        self.frames.expect(
            if session.awaits_raw_token() { 1 } else { header::START_BYTES },
            if session.is_known() { self.frame_bytes_max } else { self.frame_bytes_max.min(UNKNOWN_BYTES_MAX) },
        );
        if !session.is_known() {
            let late = |_| End::Refused("no login in time".to_owned());
            return timeout_at(self.known_by, self.frames.next()).await.map_err(late)?.map(Some);
        }
        loop {
            match timeout(self.idle, self.frames.wait()).await {
                Ok(here) => break here?,
                Err(_) if self.outstanding.load(Ordering::Relaxed) == 0 => return Ok(None),
                Err(_) => {}
            }
        }
        if let Some(until) = session.still_until() {
            sleep_until(until).await;
        }
        self.frames.next().await.map(Some)
    }

    /// Handles one request and queues its reply. False if no more requests are to be read.
    async fn handle(&mut self, frame: Frame, budget: &Arc<Semaphore>) -> bool {
        self.context.broker.counters().requests.fetch_add(1, Ordering::Relaxed);
        let Frame { bytes, mut share } = frame;
        if self.context.session.awaits_raw_token() {
            let reply = handlers::sasl::raw_token(&self.context, &bytes);
            return self.queue(Head::Token, reply, Some(share)).await;
        }
        match self.answer(bytes, &mut share, budget).await {
            Ok((head, reply)) => {
                let last = self.context.session.has_ended();
                self.queue(head, reply, Some(share)).await && !last
            }
            Err(reason) => {
                self.close(reason).await;
                false
            }
        }
    }

    /// Checks a request and lets its handler answer it. An error is a reason to close the connection.
    async fn answer(
        &mut self,
        frame: Bytes,
        share: &mut OwnedSemaphorePermit,
        budget: &Arc<Semaphore>,
    ) -> Result<(Head, Reply), String> {
        let start = header::start(&frame)?;
        let version = start.api_version;
        let api = handlers::api(start.api_key).ok_or_else(|| format!("api key {} is not served", start.api_key))?;
        if version < api.min || version > api.max {
            let head = Head::Response { correlation_id: start.correlation_id, tagged: false };
            return match handlers::unsupported_version(api) {
                Some(reply) => Ok((head, reply)),
                None => Err(format!("{:?} version {version} is not served, only {} to {}", api.key, api.min, api.max)),
            };
        }
        self.context.session.admit(handlers::sasl::asked(api.key), self.context.broker.clock().now_ms())?;
        let (client_id, body_at) = header::rest(&frame, api.key.request_header_version(version))?;
        self.set_client_id(client_id);
        let (body, frame_bytes) = (frame.slice(body_at..), frame.len());
        drop(frame);
        if api.key == ApiKey::Produce {
            // batches may lie in the lane when the connection has ended: their share goes with them
            self.context.share = share.split(frame_bytes).map(Arc::new);
        }
        let elements = shapes::check(start.api_key, version, &body)
            .map_err(|reason| format!("{:?} version {version}: {reason}", api.key))?;
        if elements > ELEMENT_BYTES {
            let more = frame::share(budget, elements * ELEMENT_BYTES, frame::STALL).await;
            share.merge(more.map_err(|_| "the memory for requests is used up; try again later".to_owned())?);
        }
        let reply = handlers::throttle::answer(api, &self.context, version, (body, frame_bytes));
        self.context.share = None;
        let reply = reply.map_err(|reason| format!("{:?} version {version}: {reason}", api.key))?;
        let tagged = api.key.response_header_version(version) >= 1;
        Ok((Head::Response { correlation_id: start.correlation_id, tagged }, reply))
    }

    fn set_client_id(&mut self, client_id: &[u8]) {
        if self.context.client_id.as_bytes() != client_id {
            self.context.client_id = String::from_utf8_lossy(client_id).into();
        }
    }

    /// False if the reply was the last.
    async fn queue(&mut self, head: Head, reply: Reply, share: Option<OwnedSemaphorePermit>) -> bool {
        let reply = charged(reply, &self.context.reply_memory).await;
        let last = matches!(reply, Reply::Close(_));
        self.outstanding.fetch_add(1, Ordering::Relaxed);
        self.queue.send(Queued { head, reply, _share: share }).await.is_ok() && !last
    }

    /// Lets the replies before it leave, then closes.
    async fn close(&mut self, reason: String) {
        let head = Head::Response { correlation_id: 0, tagged: false };
        self.queue(head, Reply::Close(reason), None).await;
    }
}

/// Bytes of a reply that has yet to get its share of the memory for replies; 0 if it needs none.
fn uncharged_bytes(reply: &Reply) -> usize {
    let Reply::Now(body) = reply else { return 0 };
    let bytes = body.iter().map(Bytes::len).sum();
    if bytes < UNCHARGED_BYTES_MAX { 0 } else { bytes }
}

/// The reply with its share of the memory for replies.
async fn charged(reply: Reply, memory: &ReplyMemory) -> Reply {
    match (uncharged_bytes(&reply), reply) {
        (bytes @ 1.., Reply::Now(body)) => match memory.all(bytes, Instant::now() + frame::STALL).await {
            Some(share) => Reply::Held(body, share),
            None => Reply::Close("the memory for replies is used up; try again later".to_owned()),
        },
        (_, reply) => reply,
    }
}

/// Bytes that keep their share of memory as long as they are there.
struct Held {
    bytes: Bytes,
    _share: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

struct Writer<W> {
    output: W,
    memory: Arc<ReplyMemory>,
    /// How many wait for memory.
    waiting: watch::Receiver<usize>,
    replies: mpsc::Receiver<Queued>,
    outstanding: Arc<AtomicUsize>,
    /// The reply whose turn it is.
    current: Option<Queued>,
    /// Ready to be written, and how many bytes these are.
    chunks: VecDeque<Bytes>,
    bytes: usize,
}

impl<W> Drop for Writer<W> {
    /// What handlers began is brought to its end also when nobody is left to be told: a topic is created wholly or not
    /// at all.
    fn drop(&mut self) {
        let Ok(runtime) = Handle::try_current() else { return };
        let left = self.current.take().into_iter().chain(std::iter::from_fn(|| self.replies.try_recv().ok()));
        for queued in left {
            let Queued { reply: Reply::Later(answer), _share: share, .. } = queued else { continue };
            runtime.spawn(async move {
                let _ = timeout(DETACHED, answer).await;
                drop(share);
            });
        }
    }
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    /// Sends replies until the reader is done and the last has left. The error says why the connection is closed.
    async fn run(mut self) -> Result<(), Closed> {
        while self.next().await? {
            if let Some(Queued { reply: Reply::Later(answer), .. }) = &mut self.current {
                let mut ready = match answer.now_or_never() {
                    Some(ready) => ready,
                    None => self.wait().await?,
                };
                if uncharged_bytes(&ready) > 0 {
                    self.flush().await?;
                    ready = charged(ready, &self.memory).await;
                }
                if let Some(current) = &mut self.current {
                    current.reply = ready;
                }
                continue;
            }
            if let Some(ready) = self.current.take() {
                self.gather(ready)?;
            }
            if self.bytes >= GATHER_BYTES {
                self.flush().await?;
            }
        }
        let _ = self.output.shutdown().await;
        Ok(())
    }

    /// Makes the next reply the current one, if there is none. What is gathered is written before waiting for it.
    /// False when there will be no more.
    async fn next(&mut self) -> Result<bool, Closed> {
        if self.current.is_none() {
            self.current = self.replies.try_recv().ok();
        }
        if self.current.is_none() {
            self.flush().await?;
            self.current = self.replies.recv().await;
        }
        Ok(self.current.is_some())
    }

    /// Waits for the current reply.
    async fn wait(&mut self) -> Result<Reply, Closed> {
        self.flush().await?;
        match &mut self.current {
            Some(Queued { reply: Reply::Later(answer), .. }) => Ok(answer.await),
            _ => Err(Closed::Refused("there is no reply to wait for".to_owned())),
        }
    }

    /// Takes a reply that is ready.
    fn gather(&mut self, queued: Queued) -> Result<(), Closed> {
        self.outstanding.fetch_sub(1, Ordering::Relaxed);
        let body = match queued.reply {
            Reply::Silent => return Ok(()),
            Reply::Close(reason) => return Err(Closed::Refused(reason)),
            Reply::Later(_) => return Err(Closed::Refused("a reply was sent before it was ready".to_owned())),
            Reply::Now(body) => body,
            Reply::Held(mut body, share) => {
                body.retain(|chunk| !chunk.is_empty()); // the last one that leaves keeps the share
                if let Some(bytes) = body.pop() {
                    body.push(Bytes::from_owner(Held { bytes, _share: share }));
                }
                body
            }
        };
        let body_bytes: usize = body.iter().map(Bytes::len).sum();
        self.push(queued.head.encode(body_bytes).map_err(Closed::Refused)?);
        body.into_iter().for_each(|chunk| self.push(chunk));
        Ok(())
    }

    fn push(&mut self, chunk: Bytes) {
        if !chunk.is_empty() {
            self.bytes += chunk.len();
            self.chunks.push_back(chunk);
        }
    }

    /// Writes all chunks, many at a time, without copying them.
    async fn flush(&mut self) -> Result<(), Closed> {
        let mut pace = Pace::begin(UNREAD_WHEN_SHORT);
        while !self.chunks.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let mut used = 0;
            for (slice, chunk) in slices.iter_mut().zip(&self.chunks) {
                *slice = IoSlice::new(chunk);
                used += 1;
            }
            let writing = self.output.write_vectored(&slices[..used]);
            let written = match read_in_time(&pace, &mut self.waiting, writing).await? {
                0 => return Err(Closed::Lost("the peer takes no more bytes".to_owned())),
                written => written,
            };
            pace.moved(written);
            self.bytes -= written;
            self.advance(written);
        }
        // with TLS some of it may still be on its way to the socket
        read_in_time(&pace, &mut self.waiting, self.output.flush()).await
    }

    fn advance(&mut self, mut written: usize) {
        while let Some(first) = self.chunks.front_mut() {
            if written < first.len() {
                first.advance(written);
                return;
            }
            written -= first.len();
            self.chunks.pop_front();
        }
    }
}

/// What comes of `writing`, unless the peer reads too slowly: above all when others wait for memory.
async fn read_in_time<T>(
    pace: &Pace,
    waiting: &mut watch::Receiver<usize>,
    writing: impl Future<Output = io::Result<T>>,
) -> Result<T, Closed> {
    tokio::pin!(writing);
    loop {
        let short = *waiting.borrow_and_update() > 0;
        let until = if short { pace.until() } else { pace.until_after(UNREAD) };
        tokio::select! {
            biased;
            written = &mut writing => {
                return written.map_err(|error| Closed::Lost(format!("the reply could not be sent: {error}")));
            }
            _ = waiting.wait_for(|count| (*count > 0) != short) => {}
            () = sleep_until(until) => {
                let why = if short { "others wait for its memory" } else { "it had long enough" };
                return Err(Closed::Lost(format!("the peer does not read its reply; {why}")));
            }
        }
    }
}

impl Head {
    /// Length prefix and header of a reply with `body_bytes` behind it.
    fn encode(self, body_bytes: usize) -> Result<Bytes, String> {
        let header_bytes = match self {
            Head::Token => 0,
            Head::Response { tagged, .. } => 4 + usize::from(tagged),
        };
        let length = i32::try_from(header_bytes + body_bytes)
            .map_err(|_| format!("a reply of {body_bytes} bytes is too large for the protocol"))?;
        let mut head = BytesMut::with_capacity(4 + header_bytes);
        head.put_i32(length);
        if let Head::Response { correlation_id, tagged } = self {
            head.put_i32(correlation_id);
            if tagged {
                head.put_u8(0);
            }
        }
        Ok(head.freeze())
    }
}
