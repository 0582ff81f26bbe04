//! How a connection comes in: TLS where the listener has it, then the session that says what it may ask.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout_at};

use super::admission::Guest;
use super::connection::{self, Shared};
use crate::config::ListenerConfig;
use crate::error::{Error, Kind, Result};
use crate::handlers::{Context, Listener};
use crate::security::Principal;
use crate::security::session::Session;
use crate::security::tls::{self, Tls};

/// Longest time that a connection above its address's limit is held before it is closed.
const HELD_MAX: Duration = Duration::from_secs(10);

/// The way into one listener.
pub(super) struct Door {
    /// What its clients are told.
    pub(super) listener: Arc<Listener>,
    login: bool,
    tls: Option<Arc<Tls>>,
}

impl Door {
    /// The way into a listener. Blocks: it reads the certificates.
    ///
    /// # Errors
    /// `Config`, with the file that is missing or cannot be used.
    pub(super) fn new(listener: Arc<Listener>, config: &ListenerConfig) -> Result<Self> {
        let tls = match (config.protocol.is_encrypted(), &config.tls) {
            (false, _) => None,
            (true, Some(files)) => Some(Arc::new(Tls::load(&config.name, files)?)),
            (true, None) => {
                let (name, protocol) = (&config.name, config.protocol.name());
                let message = format!("kafka listener {name}: {protocol} needs a certificate and a key");
                return Err(Error::new(Kind::Config, message));
            }
        };
        Ok(Self { listener, login: config.protocol.has_login(), tls })
    }

    /// Lets a connection in and serves it to its end.
    pub(super) async fn enter(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        mut context: Context,
        shared: Arc<Shared>,
    ) {
        let patience = Duration::from_millis(context.broker.security().config().handshake_ms);
        let deadline = Instant::now() + patience;
        let Some(tls) = &self.tls else {
            context.session = Arc::new(self.session(Principal::default()));
            return connection::run(stream.into_split(), peer, context, (shared, deadline)).await;
        };
        let mut stopping = shared.stopping.clone();
        let acceptor = tls.acceptor().await;
        let shaken = tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => return,
            shaken = timeout_at(deadline, acceptor.accept(stream)) => shaken,
        };
        let refused = |reason: String| {
            let now = context.broker.clock().now_ms();
            context.broker.security().audit().login_refused(now, context.peer(), "TLS", &reason);
        };
        let stream = match shaken {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return refused(error.to_string()),
            Err(_) => return refused(format!("no TLS handshake within {} ms", patience.as_millis())),
        };
        let shown = stream.get_ref().1.peer_certificates().and_then(<[CertificateDer<'_>]>::first);
        match shown.map_or_else(|| Ok(Principal::default()), |certificate| tls::principal(certificate)) {
            Ok(principal) => context.session = Arc::new(self.session(principal)),
            Err(error) => return refused(format!("the certificate's name cannot be read: {error}")),
        }
        connection::run(tokio::io::split(stream), peer, context, (shared, deadline)).await;
    }

    /// A login decides who it is where there is one; otherwise the certificate.
    fn session(&self, principal: Principal) -> Session {
        if self.login { Session::with_login() } else { Session::open(principal) }
    }
}

/// Holds a connection that its address makes too often, so that it does not come back at once, then closes it.
pub(super) async fn hold((stream, _guest): (TcpStream, Guest), throttle_ms: i64, shared: Arc<Shared>) {
    let held = Duration::from_millis(u64::try_from(throttle_ms).unwrap_or(0)).min(HELD_MAX);
    let mut stopping = shared.stopping.clone();
    tokio::select! {
        _ = stopping.wait_for(|stop| *stop) => {}
        () = sleep(held) => {}
    }
    drop(stream);
}
