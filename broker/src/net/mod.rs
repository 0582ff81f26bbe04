//! The Kafka port: listeners, connections, requests off the wire and replies onto it.
//!
//! ```text
//! mod.rs         accept on every listener, stop
//! admission.rs   how many connections are let in
//! door.rs        TLS, and what a new connection may ask
//! connection.rs  read → handle in order → reply in order
//! frame.rs       length prefix and memory for requests
//! pace.rs        how long a peer may take
//! header.rs      request header
//! shapes.rs      every length and count is checked before anything is decoded; shapes_table.rs and shapes_admin.rs are its data
//! ```
//! Nothing here knows what a request means: that is `handlers`.

mod admission;
mod connection;
mod door;
mod frame;
mod header;
#[cfg(test)]
mod login_tests;
#[cfg(test)]
mod memory_tests;
mod pace;
#[cfg(test)]
mod reading_tests;
#[cfg(test)]
mod right_tests;
pub(crate) mod shapes;
mod shapes_admin;
mod shapes_table;
mod shapes_txn;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use self::admission::{Admission, Guest, Refused};
use self::connection::Shared;
use self::door::Door;
use crate::Broker;
use crate::config::ListenerConfig;
use crate::error::{Error, Kind, Result};
use crate::handlers::{Context, Listener, ReplyMemory};
use crate::security::Principal;
use crate::security::session::Session;

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;
/// Least memory for replies, whatever `inflight_bytes_max` says.
const REPLY_BYTES_MIN: usize = 16 * 1024 * 1024;
/// How long a stop waits for replies that are still owed.
const DRAIN: Duration = Duration::from_secs(5);
/// Pause after a failed accept, for instance when file descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The running Kafka port. [`Listening::stop`] ends it in order; dropping it cuts every connection off.
pub struct Listening {
    addresses: Vec<SocketAddr>,
    stop: watch::Sender<bool>,
    tasks: tokio::sync::Mutex<JoinSet<()>>,
}

impl Listening {
    /// Bound addresses, in the order of the configuration.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Accepts and reads nothing more, lets the replies that are owed leave (for five seconds at most), then closes
    /// every connection.
    pub async fn stop(&self) {
        self.stop.send_replace(true);
        let mut tasks = self.tasks.lock().await;
        let deadline = Instant::now() + DRAIN;
        while let Ok(Some(_)) = timeout_at(deadline, tasks.join_next()).await {}
        tasks.shutdown().await;
    }
}

/// Binds every listener of the broker's configuration and serves Kafka on them.
///
/// Errors ([`Kind::Config`]) name the listener whose address cannot be bound or understood; then none is served.
pub async fn serve(broker: Arc<Broker>) -> Result<Listening> {
    let config = broker.config();
    let mut bound = Vec::new();
    for listener in &config.listeners {
        let socket = bind(listener).await?;
        let address = socket.local_addr().map_err(|e| cannot_listen(listener, &e))?;
        let told = Arc::new(advertised(listener, address)?);
        bound.push((socket, address, Arc::new(Door::new(told, listener)?)));
    }
    let (stop, stopping) = watch::channel(false);
    // a request that could never have its share would wait in vain
    let budget = config.inflight_bytes_max.max(config.frame_bytes_max.saturating_mul(2)).min(Semaphore::MAX_PERMITS);
    let port = Arc::new(Port {
        shared: Arc::new(Shared {
            budget: Arc::new(Semaphore::new(budget)),
            frame_bytes_max: config.frame_bytes_max,
            idle: u64::try_from(broker.settings().whole("connections.max.idle.ms")).ok().map(Duration::from_millis),
            stopping,
        }),
        reply_memory: ReplyMemory::new(config.inflight_bytes_max.max(REPLY_BYTES_MIN)),
        open: AtomicUsize::new(0),
        admission: Arc::default(),
        broker: broker.clone(),
    });
    let addresses = bound.iter().map(|(_, address, _)| *address).collect();
    let mut tasks = JoinSet::new();
    for (socket, address, door) in bound {
        let listener = &door.listener;
        tracing::info!(listener = listener.name, %address, advertised = %listener.host, port = listener.port, "kafka listens");
        tasks.spawn(accept(socket, door, port.clone()));
    }
    Ok(Listening { addresses, stop, tasks: tokio::sync::Mutex::new(tasks) })
}

/// What all listeners share.
struct Port {
    shared: Arc<Shared>,
    broker: Arc<Broker>,
    reply_memory: Arc<ReplyMemory>,
    /// Connections open now.
    open: AtomicUsize,
    admission: Arc<Admission>,
}

/// Accepts on one listener until the broker stops, then waits for its connections.
async fn accept(socket: TcpListener, door: Arc<Door>, port: Arc<Port>) {
    let mut stopping = port.shared.stopping.clone();
    let mut connections = JoinSet::new();
    let mut told_at: Option<Instant> = None;
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stopping.wait_for(|stop| *stop) => break,
            Some(ended) = connections.join_next(), if !connections.is_empty() => {
                note_end(&port, ended);
                continue;
            }
            accepted = socket.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let open = port.open.fetch_add(1, Ordering::Relaxed);
                let Some(guest) = port.let_in(peer, open, &mut told_at).await else { continue };
                let context = port.context(&door.listener, peer);
                let throttle_ms = context.broker.security().connected(&peer.ip().to_canonical().to_string());
                if throttle_ms > 0 {
                    connections.spawn(door::hold((stream, guest), throttle_ms, port.shared.clone()));
                } else {
                    connections.spawn(serve_one((stream, guest), (peer, door.clone()), context, port.shared.clone()));
                }
            }
            Err(error) => {
                if once_a_second(&mut told_at) {
                    tracing::warn!(%error, "accept failed, trying again; is the limit of open files reached?");
                }
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(socket);
    while let Some(ended) = connections.join_next().await {
        note_end(&port, ended);
    }
}

/// Whether a message that may come often should be given now.
fn once_a_second(told_at: &mut Option<Instant>) -> bool {
    let due = told_at.is_none_or(|at| at.elapsed() >= Duration::from_secs(1));
    if due {
        *told_at = Some(Instant::now());
    }
    due
}

impl Port {
    /// The guest that a new connection is, beside `open` others; none if a bound refuses it, which is then told.
    async fn let_in(&self, peer: SocketAddr, open: usize, told_at: &mut Option<Instant>) -> Option<Guest> {
        let bound = match self.admit(peer, open).await {
            Ok(guest) => return Some(guest),
            Err(bound) => bound,
        };
        self.open.fetch_sub(1, Ordering::Relaxed);
        if once_a_second(told_at) {
            tracing::warn!(%peer, open, bound, "connection refused: a bound is reached; raise it or close some");
        }
        None
    }

    /// Lets a connection in beside `open` others, or names the setting that does not. Where too many came in this second it waits.
    async fn admit(&self, peer: SocketAddr, open: usize) -> std::result::Result<Guest, &'static str> {
        if open >= self.broker.config().connections_max {
            return Err("connections_max");
        }
        loop {
            let at = (peer.ip(), self.broker.clock().now_ms());
            match self.admission.admit(self.broker.settings(), at) {
                Ok(guest) => return Ok(guest),
                Err(Refused::Full(setting)) => return Err(setting),
                Err(Refused::Wait(time)) => sleep(time).await,
            }
        }
    }

    fn context(&self, listener: &Arc<Listener>, peer: SocketAddr) -> Context {
        self.broker.counters().connections_accepted.fetch_add(1, Ordering::Relaxed);
        self.broker.counters().connections_open.fetch_add(1, Ordering::Relaxed);
        Context {
            broker: self.broker.clone(),
            listener: listener.clone(),
            client_id: "".into(),
            client_host: peer.ip(),
            session: Arc::new(Session::open(Principal::default())),
            ending: self.shared.stopping.clone(),
            reply_memory: self.reply_memory.clone(),
            share: None,
        }
    }
}

async fn serve_one(
    (stream, _guest): (TcpStream, Guest),
    (peer, door): (SocketAddr, Arc<Door>),
    context: Context,
    shared: Arc<Shared>,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "cannot switch off delayed sending");
    }
    door.enter(stream, peer, context, shared).await;
}

fn note_end(port: &Port, ended: std::result::Result<(), tokio::task::JoinError>) {
    port.open.fetch_sub(1, Ordering::Relaxed);
    port.broker.counters().connections_open.fetch_sub(1, Ordering::Relaxed);
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection ended by a bug; please report it with the lines before this one");
    }
}

async fn bind(listener: &ListenerConfig) -> Result<TcpListener> {
    let addresses = lookup_host(&listener.bind).await.map_err(|e| cannot_listen(listener, &e))?;
    let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "the host has no address");
    for address in addresses {
        match bind_one(address) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(cannot_listen(listener, &last))
}

fn bind_one(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn cannot_listen(listener: &ListenerConfig, error: &io::Error) -> Error {
    let ListenerConfig { name, bind, .. } = listener;
    let next = match error.kind() {
        io::ErrorKind::AddrInUse => "another process has the port: stop it or choose another address",
        io::ErrorKind::PermissionDenied => "choose a port above 1023 or run with the right to bind it",
        _ => "give HOST:PORT with a host of this machine",
    };
    Error::new(Kind::Config, format!("cannot listen on {bind} (kafka listener {name}): {error}; {next}"))
}

/// What clients of a listener are told: its `advertise` address, or where it is bound. Port 0 stands for the port
/// that the system gave.
fn advertised(listener: &ListenerConfig, bound: SocketAddr) -> Result<Listener> {
    let name = listener.name.clone();
    let Some(advertise) = &listener.advertise else {
        let (bind_host, _) = listener.bind.rsplit_once(':').unwrap_or((&listener.bind, ""));
        let host = match bound.ip() {
            ip if ip.is_unspecified() => {
                tracing::warn!(
                    listener = name,
                    "bound to every address but none is advertised: clients are sent to localhost; set advertise to a name that they can reach"
                );
                "localhost".to_owned()
            }
            IpAddr::V4(_) | IpAddr::V6(_) => bare(bind_host).to_owned(),
        };
        return Ok(Listener { name, host, port: bound.port() });
    };
    let parsed = advertise.rsplit_once(':').and_then(|(host, port)| Some((bare(host), port.parse::<u16>().ok()?)));
    match parsed {
        Some((host, port)) if !host.is_empty() => {
            let port = if port == 0 { bound.port() } else { port };
            Ok(Listener { name, host: host.to_owned(), port })
        }
        _ => Err(Error::new(
            Kind::Config,
            format!("kafka listener {name}: cannot understand the advertised address {advertise:?}; give HOST:PORT"),
        )),
    }
}

/// A host without the brackets of an IPv6 address.
fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host)
}
