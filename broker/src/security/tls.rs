//! TLS of listeners: certificates from PEM files, read again when they change, and the names of clients from theirs.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};

use super::{ClientAuth, Principal, TlsConfig};
use crate::error::{Error, Kind, Result};

/// Time between two looks at the files.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// TLS of one listener. Holds: what was made of the files, and how they looked then. A handshake changes it when the
/// files changed; files that cannot be used change nothing and are spoken of once.
pub(crate) struct Tls {
    listener: String,
    config: TlsConfig,
    loaded: Mutex<Loaded>,
}

struct Loaded {
    acceptor: TlsAcceptor,
    stamps: Vec<Stamp>,
    looked_at: Instant,
}

/// How a file looked: when it was written and how long it is.
type Stamp = Option<(SystemTime, u64)>;

impl Tls {
    /// TLS with the files as they are now. Blocks.
    ///
    /// # Errors
    /// `Config`, with the file that cannot be used.
    pub(crate) fn load(listener: &str, config: &TlsConfig) -> Result<Self> {
        let stamps = stamps(config);
        let acceptor = acceptor(config)
            .map_err(|message| Error::new(Kind::Config, format!("kafka listener {listener}: {message}")))?;
        let loaded = Mutex::new(Loaded { acceptor, stamps, looked_at: Instant::now() });
        Ok(Self { listener: listener.to_owned(), config: config.clone(), loaded })
    }

    /// What the next handshake is made with.
    pub(crate) async fn acceptor(self: &Arc<Self>) -> TlsAcceptor {
        {
            let mut loaded = self.loaded.lock();
            if loaded.looked_at.elapsed() < LOOK_AGAIN {
                return loaded.acceptor.clone();
            }
            loaded.looked_at = Instant::now();
        }
        let own = self.clone();
        let looked = tokio::task::spawn_blocking(move || own.look_again()).await;
        if let Err(error) = looked {
            tracing::error!(listener = self.listener, %error, "the certificate's files could not be looked at");
        }
        self.loaded.lock().acceptor.clone()
    }

    fn look_again(&self) {
        let stamps = stamps(&self.config);
        if self.loaded.lock().stamps == stamps {
            return;
        }
        let made = acceptor(&self.config);
        let mut loaded = self.loaded.lock();
        loaded.stamps = stamps;
        match made {
            Ok(acceptor) => {
                loaded.acceptor = acceptor;
                tracing::info!(listener = self.listener, "the certificate was read again");
            }
            Err(error) => tracing::warn!(
                listener = self.listener,
                error,
                "the changed certificate cannot be used, the one before stays in use; repair the file"
            ),
        }
    }
}

fn stamps(config: &TlsConfig) -> Vec<Stamp> {
    let stamp = |path: &PathBuf| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    [Some(&config.certificate), Some(&config.key), config.client_ca.as_ref()].into_iter().flatten().map(stamp).collect()
}

fn acceptor(config: &TlsConfig) -> Result<TlsAcceptor, String> {
    let chain = certificates(&config.certificate)?;
    let unusable = |path: &Path, error: &dyn std::fmt::Display| format!("{} cannot be used: {error}", path.display());
    let key = PrivateKeyDer::from_pem_file(&config.key).map_err(|error| unusable(&config.key, &error))?;
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match (config.client_auth, &config.client_ca) {
        (ClientAuth::None, _) => builder.with_no_client_auth(),
        (_, None) => return Err("clients are asked for certificates: say in client_ca who vouches for them".to_owned()),
        (auth, Some(path)) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| unusable(path, &error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = if auth == ClientAuth::Requested { verifier.allow_unauthenticated() } else { verifier };
            builder.with_client_cert_verifier(verifier.build().map_err(|error| unusable(path, &error))?)
        }
    };
    let made = builder.with_single_cert(chain, key).map_err(|error| unusable(&config.certificate, &error))?;
    Ok(TlsAcceptor::from(Arc::new(made)))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path).and_then(|all| all.collect::<std::result::Result<Vec<_>, _>>());
    match read {
        Ok(all) if all.is_empty() => Err(format!("{} holds no certificate", path.display())),
        Ok(all) => Ok(all),
        Err(error) => Err(format!("{} cannot be used: {error}", path.display())),
    }
}

/// Who a client's certificate says it is: its subject, written as Kafka (Java, RFC 2253) writes it.
pub(crate) fn principal(certificate: &[u8]) -> std::result::Result<Principal, String> {
    let (_, certificate) = X509Certificate::from_der(certificate).map_err(|error| error.to_string())?;
    Ok(Principal::user(&distinguished_name(certificate.subject())))
}

/// Attributes that RFC 2253 has names for.
const NAMES: [(&str, &str); 9] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.9", "STREET"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("0.9.2342.19200300.100.1.1", "UID"),
];

fn distinguished_name(name: &X509Name<'_>) -> String {
    let mut parts: Vec<String> = Vec::new();
    for set in name.iter_rdn() {
        let attributes: Vec<String> = set
            .iter()
            .map(|attribute| {
                let id = attribute.attr_type().to_id_string();
                let known = NAMES.iter().find(|(known, _)| *known == id).map(|(_, name)| *name);
                match (known, attribute.as_str()) {
                    (Some(known), Ok(text)) => format!("{known}={}", escaped(text)),
                    _ => format!("{}={}", known.unwrap_or(&id), hex(attribute.attr_value())),
                }
            })
            .collect();
        parts.push(attributes.join("+"));
    }
    parts.reverse();
    parts.join(",")
}

fn escaped(text: &str) -> String {
    let first = text.len() - text.trim_start_matches(' ').len();
    let last = text.trim_end_matches(' ').len();
    let mut out = String::new();
    for (at, letter) in text.char_indices() {
        if letter == '\0' {
            out.push_str("\\00");
            continue;
        }
        if matches!(letter, ',' | '=' | '+' | '<' | '>' | '#' | ';' | '"' | '\\') || at < first || at >= last {
            out.push('\\');
        }
        out.push(letter);
    }
    out
}

/// `#` and the attribute's own encoding: tag, length, value.
fn hex(value: &x509_parser::asn1_rs::Any<'_>) -> String {
    use x509_parser::asn1_rs::ToDer;
    let bytes = value.to_der_vec().unwrap_or_default();
    bytes.iter().fold("#".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}
