//! Derived streams: SQL over a stream, joined to tables, written to a topic of its own and read like any other stream.
//!
//! A row goes: `join` (columns of tables) → the SELECT, which DataFusion runs (`plan`) → checks → `deduplicate` →
//! `member`, which says what the step writes. The pipeline of the source stream commits it with its positions.

mod deduplicate;
mod join;
mod member;
mod parse;
mod plan;

pub(crate) use member::{DerivedMember, DerivedStep};
pub(crate) use parse::{BRANCHES_MAX, parse_stream};
pub(crate) use plan::DerivedPlan;
