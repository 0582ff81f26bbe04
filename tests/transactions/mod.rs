//! Transactions: real clients, Kafka's own tools, exactly once through kill -9, and a history of many producers that is
//! checked for what transactions forbid.

pub mod checker;
mod clients;
mod history;
