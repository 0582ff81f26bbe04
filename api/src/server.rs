//! The listening side of HTTP: bounded connections, and none that lives without progress.

use std::future::{Future, IntoFuture};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep};

/// Connections held at once; further ones wait in the listen queue.
pub const CONNECTIONS_MAX: usize = 1024;
/// A connection on which nothing was written for this long is closed: it is idle, sends its request too slowly, or
/// does not read its answer. Longer than any request may take (see `routes::REQUEST_TIME_MAX`).
pub const SILENCE_MAX: Duration = Duration::from_secs(75);
/// Time that requests under way are given when the server stops.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// One port that is bound but not served yet.
#[derive(Debug)]
pub struct Port {
    listener: TcpListener,
    address: SocketAddr,
}

impl Port {
    /// Binds `HOST:PORT`; `what` names the port in the error.
    pub async fn bind(bind: &str, what: &str) -> Result<Port, String> {
        let refused = |e: io::Error| format!("cannot listen for {what} on {bind}: {e}: {}", advice(e.kind()));
        let listener = TcpListener::bind(bind).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        Ok(Port { listener, address })
    }

    /// The address it is bound to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves `router` until `stopping` turns true, then drains for a bounded time.
    pub fn serve(self, router: Router, mut stopping: watch::Receiver<bool>) -> JoinHandle<()> {
        let listener = Limited { listener: self.listener, permits: Arc::new(Semaphore::new(CONNECTIONS_MAX)) };
        tokio::spawn(async move {
            let mut stop = stopping.clone();
            let server = axum::serve(listener, router).with_graceful_shutdown(async move {
                // An error means that the sender is gone, which is a stop too.
                let _ = stop.wait_for(|stop| *stop).await;
            });
            let mut server = std::pin::pin!(server.into_future());
            tokio::select! {
                _ = &mut server => return,
                _ = stopping.wait_for(|stop| *stop) => {}
            }
            if tokio::time::timeout(DRAIN_MAX, server).await.is_err() {
                tracing::warn!(
                    seconds = DRAIN_MAX.as_secs(),
                    "http requests were still under way at the stop and were cut"
                );
            }
        })
    }
}

fn advice(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::AddrInUse => "another process has the port; stop it or choose another port",
        io::ErrorKind::PermissionDenied => "ports below 1024 need privileges; choose a higher one",
        io::ErrorKind::AddrNotAvailable => "this machine does not have the address; use 127.0.0.1 or 0.0.0.0",
        _ => "write HOST:PORT with a host of this machine",
    }
}

struct Limited {
    listener: TcpListener,
    permits: Arc<Semaphore>,
}

impl Listener for Limited {
    type Io = Watched;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Watched, SocketAddr) {
        loop {
            let permit = self.permits.clone().acquire_owned().await.expect("the semaphore is never closed");
            match self.listener.accept().await {
                Ok((stream, address)) => {
                    // Small answers must not wait for the peer's delayed acknowledgement.
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "cannot set nodelay on an http connection");
                    }
                    return (Watched::new(stream, permit), address);
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept an http connection; trying again in a second");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that fails once it has written nothing for [`SILENCE_MAX`].
struct Watched {
    stream: TcpStream,
    silence: Pin<Box<Sleep>>,
    _permit: OwnedSemaphorePermit,
}

impl Watched {
    fn new(stream: TcpStream, permit: OwnedSemaphorePermit) -> Watched {
        Watched { stream, silence: Box::pin(tokio::time::sleep(SILENCE_MAX)), _permit: permit }
    }

    /// Turns a pending operation into an error once the time is over.
    fn or_silent<T>(&mut self, cx: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_pending() && self.silence.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        poll
    }

    fn wrote(&mut self) {
        self.silence.as_mut().reset(Instant::now() + SILENCE_MAX);
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.or_silent(cx, poll)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if poll.is_ready() {
            self.wrote();
        }
        self.or_silent(cx, poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        if poll.is_ready() {
            self.wrote();
        }
        self.or_silent(cx, poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Ready once `stopping` is true; for live streams, which would otherwise never end.
pub async fn stopped(mut stopping: watch::Receiver<bool>) {
    // An error means that the sender is gone, which is a stop too.
    let _ = stopping.wait_for(|stop| *stop).await;
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn serve() -> (SocketAddr, watch::Sender<bool>, JoinHandle<()>) {
        let port = Port::bind("127.0.0.1:0", "http").await.unwrap();
        let address = port.address();
        let (stop, stopping) = watch::channel(false);
        let router = Router::new().route("/", axum::routing::get(|| async { "ok" }));
        (address, stop, port.serve(router, stopping))
    }

    #[tokio::test]
    async fn random_bytes_close_one_connection_and_no_other() {
        let (address, stop, server) = serve().await;
        for bytes in
            [&b"\x16\x03\x01\x02\x00"[..], &[0u8; 4096], &[0xff; 100], b"GET / HTTP/9.9\r\n\r\n", b"\r\n\r\n\r\n"]
        {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(bytes).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
        }
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        stop.send(true).unwrap();
        server.await.unwrap();
    }

    #[tokio::test]
    async fn more_than_a_hundred_headers_are_refused() {
        let (address, _stop, _server) = serve().await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        let headers: String = (0..200).map(|n| format!("x-{n}: y\r\n")).collect();
        stream.write_all(format!("GET / HTTP/1.1\r\nHost: x\r\n{headers}\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    }

    #[tokio::test]
    async fn a_port_in_use_is_named_with_advice() {
        let first = Port::bind("127.0.0.1:0", "http").await.unwrap();
        let message = Port::bind(&first.address().to_string(), "http").await.unwrap_err();
        assert!(message.contains("another process has the port"), "{message}");
    }
}
