//! The lake against a real broker, with a table of its own instead of the engine's streams.

mod crash;
mod queries;
mod samples;
mod settling;
mod support;
mod with_engine;
