//! The HTTP side of Millpond, and the place where broker, engine and lake are started together.

pub mod config;
