//! The settings of the Kafka port's security, one row each.

use broker::{ListenerProtocol, SecurityConfig};

use super::schema::{Field, Kind};

const MINUTE: i64 = 60_000;
const DAY: i64 = 24 * 60 * MINUTE;

/// Words for what clients' certificates are to a listener.
pub const CLIENT_AUTH: &[&str] = &["none", "requested", "required"];

/// How a listener speaks.
pub const PROTOCOL: Field = Field::with_default(
    "protocol",
    Kind::OneOf(ListenerProtocol::NAMES),
    "PLAINTEXT",
    "How it speaks. SSL is TLS, where a client is the subject of its certificate if it shows one; SASL is a login with a name and a password, in the clear or with TLS.",
);

/// The table `security`.
pub const SECURITY: [Field; 12] = [
    Field::optional(
        "certificate",
        Kind::Text,
        "\"tls/server.pem\"",
        "The server's certificate for listeners with TLS, and those between it and its authority: a PEM file. Read again when it changes, as the files below.",
    ),
    Field::optional("key", Kind::Text, "\"tls/server.key\"", "The certificate's private key: a PEM file."),
    Field::optional(
        "client_ca",
        Kind::Text,
        "\"tls/clients.pem\"",
        "The authorities that clients' certificates come from: a PEM file.",
    ),
    Field::with_default(
        "client_auth",
        Kind::OneOf(CLIENT_AUTH),
        "none",
        "Whether clients show a certificate. Who does is `User:` and the subject as in `User:CN=ann,O=Mill`, without a login.",
    ),
    Field::with_default(
        "mechanisms",
        Kind::Text,
        "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
        "The ways to log in, separated by commas. PLAIN shows the password to whoever reads the line: use it with TLS.",
    ),
    Field::optional(
        "users",
        Kind::Tables(&USER),
        "",
        "Users at set-up, for every mechanism. Others are made through Kafka (kafka-configs --alter --entity-type users), for SCRAM.",
    ),
    Field::with_default(
        "reauthentication",
        Kind::Duration(0, 365 * DAY),
        "0s",
        "How long a login holds before the client must log in again on its connection (connections.max.reauth.ms); 0 is for ever.",
    ),
    Field::with_default(
        "handshake",
        Kind::Duration(100, 10 * MINUTE),
        "10s",
        "How long a client may take to be let in, TLS and login together.",
    ),
    Field::with_default(
        "authorizer",
        Kind::Bool,
        "false",
        "Whether ACLs are asked. Without them everybody who comes in may do everything.",
    ),
    Field::optional(
        "super_users",
        Kind::Text,
        "\"User:admin;User:CN=ops,O=Mill\"",
        "Who may do everything, whatever the ACLs say, separated by semicolons; somebody must be able to write the first ones.",
    ),
    Field::with_default(
        "allow_everyone_if_no_acl_found",
        Kind::Bool,
        "false",
        "Whether a topic, group or cluster that no ACL speaks of is open to everybody.",
    ),
    Field::optional(
        "audit_log",
        Kind::Text,
        "\"audit.log\"",
        "A file for refused logins and requests and for changes of ACLs, users and quotas, one JSON object a line; turned over at 64 MiB, one older file is kept. Without it they are only in the server's log, under `audit`.",
    ),
];

const USER: [Field; 2] = [
    Field::required("name", Kind::Text, "\"ann\"", "The name, without `User:`."),
    Field::required(
        "password",
        Kind::Text,
        "\"secret\"",
        "The password; better `${NAME}` or `${file:/run/secrets/ann}` than the text itself.",
    ),
];

/// Mechanisms by name, for mistakes.
pub fn mechanisms() -> String {
    SecurityConfig::MECHANISMS.join(", ")
}
