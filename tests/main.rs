//! The suite: the real binary as a child process, real clients, real readers and Apache Kafka beside it.
//!
//! `make test` runs it after `tests/support/setup` has installed the clients. It speaks to the server as users do; crates of the
//! product are used only to write what a later release would write, and to draw numbers. Big cases run two at a time or alone (`support::cores`).
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs,
    reason = "tests stop at the first surprise"
)]

mod support;

mod access;
mod backup;
mod bad_input;
mod changed_columns;
mod check;
mod claims;
mod clients;
mod cold;
mod compaction;
mod connect;
mod consoles;
mod consumer_groups;
mod crash;
mod dashboards;
mod declare;
mod deploy;
mod derived;
mod evaluate;
mod faults;
mod fill;
mod finals;
mod fork;
mod formats;
mod freelance;
mod fresh;
mod go_clients;
mod groups;
mod iceberg;
mod inferred;
mod jobs;
mod joins;
mod kerberos;
mod lake_hdfs;
mod lake_objects;
mod lake_queries;
mod music;
mod name_service;
mod nexmark;
mod oracle;
mod orangescrum;
mod page;
mod platformatic;
mod registry;
mod scenarios;
mod security;
mod sftp;
mod sinks;
mod source_times;
mod spotify;
mod streams;
mod systems;
mod tools;
mod transactions;
mod verify;
mod windows;
mod wire;
