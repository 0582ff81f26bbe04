//! Derived streams: SQL over a stream, joined to another one and to tables, written to a topic of its own and read like any other
//! stream.
//!
//! A row goes: `join` (columns of tables) → the SELECT, which DataFusion runs (`plan`) → checks → `deduplicate` →
//! `member`, which says what the step writes. The pipeline of the source stream commits it with its positions.
//!
//! Where two streams are joined, a row of either goes first: `search` (whom could it meet?) by `stream_join` (what ON says) and
//! `interval` (how near, for how long; pure) over the rows that wait (`stored`) → `meeting` (who met, who waits, who is told alone).
//! Rows that met go on as above, in the pipeline that reads both streams (`join_pipeline`).

mod deduplicate;
mod from;
mod interval;
mod join;
mod meeting;
mod member;
mod parse;
mod plan;
mod search;
pub(crate) mod stored;
mod stream_join;
mod within;

pub(crate) use interval::Side;
pub(crate) use meeting::{JoinMember, Part, PartOf, Reached};
pub(crate) use member::{DerivedMember, DerivedStep};
pub(crate) use parse::{BRANCHES_MAX, ParsedBranch, parse_stream};
pub(crate) use plan::DerivedPlan;
#[cfg(test)]
pub(crate) use search::MEETINGS_MAX;
pub(crate) use stored::{forget_joined, has_joined};
