//! The lake against a real broker, with a table of its own instead of the engine's streams.

mod archive;
mod cold;
mod compacted;
mod crash;
mod decoded;
mod encodings;
mod faults;
mod filling;
mod history;
mod iceberg;
mod merging;
mod merging_crash;
mod past;
mod proof;
mod queries;
mod samples;
mod scanned;
mod settling;
mod support;
mod text_views;
mod transforms;
mod with_engine;
