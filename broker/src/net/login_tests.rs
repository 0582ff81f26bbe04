//! Coming in: logins, their end and renewal, TLS with and without certificates, and peers that mean no good.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use kafka_protocol::messages::{
    ApiKey, DescribeDelegationTokenRequest, DescribeDelegationTokenResponse, SaslAuthenticateRequest,
    SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use rand::{Rng, SeedableRng};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::tests::{reply, request};
use super::{Listening, serve};
use crate::handlers::encode;
use crate::handlers::samples::{decode_response, sample};
use crate::security::scram::{ScramMechanism, client_last};
use crate::types::TopicId;
use crate::{
    Broker, BrokerConfig, ClientAuth, Clock, ListenerConfig, ListenerProtocol, Secret, SecurityConfig, TlsConfig,
    UserConfig,
};

const NOW: i64 = 1_700_000_000_000;

struct Node {
    broker: Arc<Broker>,
    listening: Listening,
    clock: Clock,
    dir: tempfile::TempDir,
}

/// A broker with one listener, the users ann and bob, and logins that hold for a minute if `renewed`.
async fn node(protocol: ListenerProtocol, client_auth: ClientAuth, renewed: bool) -> Node {
    let dir = tempfile::tempdir().unwrap();
    write_certificates(dir.path(), "mill");
    let path = |name: &str| dir.path().join(name);
    let tls = TlsConfig {
        certificate: path("server.pem"),
        key: path("server.key"),
        client_ca: Some(path("ca.pem")),
        client_auth,
    };
    let listener =
        ListenerConfig { name: "test".into(), bind: "127.0.0.1:0".into(), advertise: None, protocol, tls: Some(tls) };
    let user = |name: &str| UserConfig { name: name.into(), password: Secret(format!("{name}-secret")) };
    let security = SecurityConfig {
        users: vec![user("ann"), user("bob")],
        reauthentication_ms: if renewed { 60_000 } else { 0 },
        handshake_ms: 1_500,
        audit_log: Some(path("audit.log")),
        ..SecurityConfig::default()
    };
    let config =
        BrokerConfig { data_dir: path("data"), listeners: vec![listener], security, ..BrokerConfig::default() };
    let clock = Clock::manual(NOW);
    let broker = Broker::open(config, clock.clone()).await.unwrap();
    let listening = serve(broker.clone()).await.unwrap();
    Node { broker, listening, clock, dir }
}

/// An authority, a server's certificate and a client's, signed by it.
fn write_certificates(dir: &Path, host: &str) {
    let (ca_key, server_key, client_key) =
        (KeyPair::generate().unwrap(), KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut ca = CertificateParams::new(vec![]).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let issuer = Issuer::new(ca, &ca_key);
    let server = CertificateParams::new(vec![host.to_owned()]).unwrap().signed_by(&server_key, &issuer).unwrap();
    let mut client = CertificateParams::new(vec![]).unwrap();
    client.distinguished_name = rcgen::DistinguishedName::new();
    client.distinguished_name.push(DnType::OrganizationName, "Mill, pond");
    client.distinguished_name.push(DnType::CommonName, "ann");
    let client = client.signed_by(&client_key, &issuer).unwrap();
    for (name, text) in [
        ("ca.pem", ca_pem),
        ("server.pem", server.pem()),
        ("server.key", server_key.serialize_pem()),
        ("client.pem", client.pem()),
        ("client.key", client_key.serialize_pem()),
    ] {
        std::fs::write(dir.join(name), text).unwrap();
    }
}

impl Node {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.listening.addresses()[0]).await.unwrap()
    }

    async fn connect_tls(&self, host: &'static str, with_certificate: bool) -> std::io::Result<TlsStream<TcpStream>> {
        let file = |name: &str| self.dir.path().join(name);
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(file("ca.pem")).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_root_certificates(roots);
        let config = if with_certificate {
            let chain = vec![CertificateDer::from_pem_file(file("client.pem")).unwrap()];
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(file("client.key")).unwrap()).unwrap()
        } else {
            builder.with_no_client_auth()
        };
        let connector = TlsConnector::from(Arc::new(config));
        connector.connect(ServerName::try_from(host).unwrap(), self.connect().await).await
    }

    /// What the audit log says, once it says this.
    async fn audit(&self, says: &str) -> String {
        for _ in 0..200 {
            let text = std::fs::read_to_string(self.dir.path().join("audit.log")).unwrap();
            if text.contains(says) {
                return text;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("the audit log never says {says}");
    }

    async fn end(self) {
        self.listening.stop().await;
        self.broker.stop().await.unwrap();
    }
}

async fn ask<S, R>(stream: &mut S, key: ApiKey, version: i16, body: &impl Encodable) -> Option<R>
where
    S: AsyncRead + AsyncWrite + Unpin,
    R: Decodable,
{
    stream.write_all(&request(key, version, 1, &encode(version, body).unwrap())).await.ok()?;
    let mut reply = reply(stream).await?;
    assert_eq!(reply.get_i32(), 1);
    if key.response_header_version(version) >= 1 {
        reply.advance(1);
    }
    Some(R::decode(&mut reply, version).unwrap())
}

async fn handshake<S>(stream: &mut S, mechanism: &'static str) -> Option<SaslHandshakeResponse>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let body = SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str(mechanism));
    ask(stream, ApiKey::SaslHandshake, 1, &body).await
}

async fn token<S>(stream: &mut S, token: &[u8]) -> Option<SaslAuthenticateResponse>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let body = SaslAuthenticateRequest::default().with_auth_bytes(Bytes::copy_from_slice(token));
    ask(stream, ApiKey::SaslAuthenticate, 2, &body).await
}

/// Whether Metadata is answered.
async fn served<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> bool {
    let body = sample(ApiKey::Metadata, 9, TopicId::nil(), &Bytes::new());
    if stream.write_all(&request(ApiKey::Metadata, 9, 5, &body)).await.is_err() {
        return false;
    }
    let Some(mut reply) = reply(stream).await else { return false };
    reply.advance(5);
    decode_response(ApiKey::Metadata, 9, &mut reply).unwrap();
    true
}

async fn log_in<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    user: &str,
    password: &str,
) -> SaslAuthenticateResponse {
    assert_eq!(handshake(stream, "PLAIN").await.unwrap().error_code, 0);
    token(stream, format!("\0{user}\0{password}").as_bytes()).await.unwrap()
}

/// The code of an answer about delegation tokens: 61 for who has shown who it is, 64 for others.
async fn tokens<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> i16 {
    let body = DescribeDelegationTokenRequest::default().with_owners(None);
    let answer: DescribeDelegationTokenResponse = ask(stream, ApiKey::DescribeDelegationToken, 3, &body).await.unwrap();
    answer.error_code
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_answered_before_a_login() {
    let node = node(ListenerProtocol::SaslPlaintext, ClientAuth::None, false).await;
    assert!(!served(&mut node.connect().await).await, "metadata without a login");
    let mut stream = node.connect().await;
    let body = sample(ApiKey::ApiVersions, 3, TopicId::nil(), &Bytes::new());
    for _ in 0..2 {
        stream.write_all(&request(ApiKey::ApiVersions, 3, 1, &body)).await.unwrap();
        assert!(reply(&mut stream).await.is_some(), "which APIs there are");
    }
    assert_eq!(token(&mut stream, b"\0ann\0ann-secret").await.map(|r| r.error_code), None, "a token without handshake");

    let mut stream = node.connect().await;
    let refused = handshake(&mut stream, "GSSAPI").await.unwrap();
    let offered: Vec<&str> = refused.mechanisms.iter().map(StrBytes::as_str).collect();
    assert_eq!((refused.error_code, offered), (33, vec!["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]));
    assert!(!served(&mut stream).await && handshake(&mut stream, "PLAIN").await.is_none(), "closed");

    for (user, password) in [("ann", "bob-secret"), ("eve", "x"), ("ann", ""), ("", "ann-secret")] {
        let mut stream = node.connect().await;
        let refused = log_in(&mut stream, user, password).await;
        let told = refused.error_message.unwrap();
        assert_eq!((refused.error_code, &*told), (58, "Authentication failed: Invalid username or password"));
        assert!(!served(&mut stream).await, "closed after the answer");
    }
    let mut stream = node.connect().await;
    let done = log_in(&mut stream, "ann", "ann-secret").await;
    assert_eq!((done.error_code, done.session_lifetime_ms), (0, 0));
    assert!(served(&mut stream).await);
    assert_eq!(handshake(&mut stream, "PLAIN").await.unwrap().error_code, 34, "no second login is awaited");
    assert_eq!(token(&mut stream, b"\0ann\0ann-secret").await.unwrap().error_code, 34);
    assert!(served(&mut stream).await, "and the first one still holds");

    let mut large = node.connect().await;
    large.write_all(&(1i32 << 20).to_be_bytes()).await.unwrap();
    assert!(reply(&mut large).await.is_none(), "a large request of somebody unknown is refused by its length");
    let audit = node.audit("there is no user").await;
    assert!(audit.contains("the password of user") && audit.contains("mechanism GSSAPI is not offered"), "{audit}");
    assert!(!audit.contains("secret"), "{audit}");
    node.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scram_proves_both_sides() {
    let node = node(ListenerProtocol::SaslPlaintext, ClientAuth::None, false).await;
    for (name, mechanism) in [("SCRAM-SHA-256", ScramMechanism::Sha256), ("SCRAM-SHA-512", ScramMechanism::Sha512)] {
        for (user, password, expected) in [("ann", "ann-secret", 0), ("ann", "wrong", 58), ("eve", "eve-secret", 58)] {
            let mut stream = node.connect().await;
            assert_eq!(handshake(&mut stream, name).await.unwrap().error_code, 0);
            let bare = format!("n={user},r=abcdef");
            let first = token(&mut stream, format!("n,,{bare}").as_bytes()).await.unwrap();
            assert_eq!(first.error_code, 0, "also for who is not there");
            let first = String::from_utf8(first.auth_bytes.to_vec()).unwrap();
            assert!(!served(&mut node.connect().await).await);
            let (last, expected_of_server) = client_last(mechanism, password, &bare, &first);
            let done = token(&mut stream, last.as_bytes()).await.unwrap();
            assert_eq!(done.error_code, expected, "{name} {user} {password}");
            if expected == 0 {
                assert_eq!(done.auth_bytes, expected_of_server.as_bytes());
            } else {
                assert!(done.error_message.unwrap().contains(name));
            }
            assert_eq!(served(&mut stream).await, expected == 0);
        }
    }
    node.end().await;
}

/// SaslHandshake version 0: tokens without requests, as clients before Kafka 1.0 send them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn raw_tokens() {
    let node = node(ListenerProtocol::SaslPlaintext, ClientAuth::None, false).await;
    for (plain, good) in [("\0ann\0ann-secret", true), ("\0ann\0x", false), ("", false)] {
        let mut stream = node.connect().await;
        let body = SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str("PLAIN"));
        let shaken: SaslHandshakeResponse = ask(&mut stream, ApiKey::SaslHandshake, 0, &body).await.unwrap();
        assert_eq!(shaken.error_code, 0);
        stream.write_all(&(plain.len() as i32).to_be_bytes()).await.unwrap();
        stream.write_all(plain.as_bytes()).await.unwrap();
        assert_eq!(reply(&mut stream).await.map(|token| token.len()), good.then_some(0), "{plain:?}");
        assert_eq!(served(&mut stream).await, good);
    }
    node.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_runs_out_and_is_renewed() {
    let node = node(ListenerProtocol::SaslPlaintext, ClientAuth::None, true).await;
    let mut stream = node.connect().await;
    assert_eq!(log_in(&mut stream, "ann", "ann-secret").await.session_lifetime_ms, 60_000);
    assert_eq!(handshake(&mut stream, "PLAIN").await.unwrap().error_code, 34, "within a second of the last one");
    node.clock.advance(59_000);
    assert!(served(&mut stream).await);
    assert_eq!(log_in(&mut stream, "ann", "ann-secret").await.error_code, 0, "renewed in time");
    node.clock.advance(59_000);
    assert!(served(&mut stream).await, "two minutes after it came");
    node.clock.advance(2_000);
    assert_eq!(log_in(&mut stream, "ann", "ann-secret").await.error_code, 0, "renewed after its end, before a request");
    assert!(served(&mut stream).await);
    node.clock.advance(60_000);
    assert!(!served(&mut stream).await, "not renewed: closed");

    let mut stream = node.connect().await;
    log_in(&mut stream, "ann", "ann-secret").await;
    node.clock.advance(1_000);
    let refused = log_in(&mut stream, "bob", "bob-secret").await;
    assert_eq!(refused.error_code, 58);
    assert!(refused.error_message.unwrap().contains("Cannot change principals"));
    assert!(!served(&mut stream).await);

    let mut stream = node.connect().await;
    log_in(&mut stream, "ann", "ann-secret").await;
    node.clock.advance(1_000);
    assert_eq!(handshake(&mut stream, "SCRAM-SHA-256").await.unwrap().error_code, 0);
    assert_eq!(token(&mut stream, b"n,,n=ann,r=x").await.unwrap().error_code, 58, "another mechanism");
    node.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_name_their_clients() {
    let required = node(ListenerProtocol::Ssl, ClientAuth::Required, false).await;
    let mut stream = required.connect_tls("mill", true).await.unwrap();
    assert!(served(&mut stream).await);
    let without = match required.connect_tls("mill", false).await {
        Ok(mut stream) => served(&mut stream).await, // TLS 1.3 tells the client late
        Err(_) => false,
    };
    assert!(!without, "no certificate, no service");
    let der = CertificateDer::from_pem_file(required.dir.path().join("client.pem")).unwrap();
    let principal = crate::security::tls::principal(&der).unwrap();
    assert_eq!(principal.as_str(), "User:CN=ann,O=Mill\\, pond");
    required.audit("\"how\":\"TLS\"").await;
    required.end().await;

    let requested = node(ListenerProtocol::SaslSsl, ClientAuth::Requested, false).await;
    for with_certificate in [false, true] {
        let mut stream = requested.connect_tls("mill", with_certificate).await.unwrap();
        assert_eq!(log_in(&mut stream, "ann", "ann-secret").await.error_code, 0);
        assert!(served(&mut stream).await);
    }
    assert!(requested.connect_tls("other.example", false).await.is_err(), "the client checks our name");
    requested.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delegation_tokens_are_for_who_has_shown_who_it_is() {
    let requested = node(ListenerProtocol::Ssl, ClientAuth::Requested, false).await;
    for (with_certificate, code) in [(false, 64), (true, 61)] {
        let mut stream = requested.connect_tls("mill", with_certificate).await.unwrap();
        assert_eq!(tokens(&mut stream).await, code, "with a certificate: {with_certificate}");
    }
    requested.end().await;

    let open = node(ListenerProtocol::Plaintext, ClientAuth::None, false).await;
    assert_eq!(tokens(&mut open.connect().await).await, 64);
    open.end().await;

    let login = node(ListenerProtocol::SaslPlaintext, ClientAuth::None, false).await;
    let mut stream = login.connect().await;
    assert_eq!(log_in(&mut stream, "ann", "ann-secret").await.error_code, 0);
    assert_eq!(tokens(&mut stream).await, 61);
    login.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_certificate_is_read_again() {
    let node = node(ListenerProtocol::Ssl, ClientAuth::None, false).await;
    assert!(served(&mut node.connect_tls("mill", false).await.unwrap()).await);
    let mut before = node.connect_tls("mill", false).await.unwrap();
    write_certificates(node.dir.path(), "new.example");
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert!(served(&mut node.connect_tls("new.example", false).await.unwrap()).await);
    assert!(served(&mut before).await, "who came in before stays");
    std::fs::write(node.dir.path().join("server.pem"), "no certificate").unwrap();
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert!(served(&mut node.connect_tls("new.example", false).await.unwrap()).await, "a broken file changes nothing");
    node.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_that_never_come_in() {
    let seed: u64 = crate::seed::seed("peers_that_never_come_in");
    let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
    let node = node(ListenerProtocol::SaslSsl, ClientAuth::None, false).await;
    for _ in 0..50 {
        let mut stream = node.connect().await;
        let mut bytes = vec![0; rng.random_range(0..3_000)];
        rng.fill(&mut bytes[..]);
        if rng.random() {
            bytes.splice(..0, [22, 3, 1]);
        }
        let _ = stream.write_all(&bytes).await;
        if rng.random() {
            drop(stream);
        }
    }
    let mut silent = node.connect().await;
    let mut unknown = node.connect_tls("mill", false).await.unwrap();
    let mut rest = Vec::new();
    let ended = async {
        let _ = silent.read_to_end(&mut rest).await;
        let _ = unknown.read_to_end(&mut rest).await;
    };
    tokio::time::timeout(Duration::from_secs(10), ended).await.expect("who does not come in is let go");
    let mut good = node.connect_tls("mill", false).await.unwrap();
    assert_eq!(log_in(&mut good, "ann", "ann-secret").await.error_code, 0);
    // whatever a token is made of, the answer is one, and the broker lives
    for _ in 0..30 {
        let mut stream = node.connect_tls("mill", false).await.unwrap();
        let mechanism = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"][rng.random_range(0..3)];
        handshake(&mut stream, mechanism).await.unwrap();
        let mut bytes = b"n,,n=ann,r=abcdefgh".to_vec();
        for _ in 0..rng.random_range(0..4) {
            let at = rng.random_range(0..bytes.len());
            bytes[at] = rng.random();
        }
        let answer = token(&mut stream, &bytes).await.unwrap();
        assert!(matches!(answer.error_code, 0 | 58), "{bytes:?}");
    }
    assert!(served(&mut good).await);
    node.end().await;
}
