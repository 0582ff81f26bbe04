//! The suite: the real binary as a child process, real clients, real readers and Apache Kafka beside it.
//!
//! `make test` runs it after `tests/support/setup` has installed the clients. Nothing here is linked with the server's crates:
//! what is tested is what a user gets. Heavy cases run one at a time (`support::alone`).
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, missing_docs, reason = "tests stop at the first surprise")]

mod support;

mod clients;
mod groups;
mod scenarios;
