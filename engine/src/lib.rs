//! The engine: streams over topics, tables, streams derived from both, and materialized views in SQL; all exactly once.
//!
//! A record goes: `pipeline` (the loop of one stream) → `decode` (bytes → rows, refusals) → `window` (which window, late
//! or not) → `aggregate` (DataFusion's partial states, merged with those of the touched groups; `sessions` and `spread` for windows that move or overlap) → `state` (keys and
//! values) → one commit. On the way `derive` writes what other streams make of the rows, joined to the
//! tables of `lookup`, and `quality` counts. Two streams are joined in a loop of their own, `join_pipeline`. What has left the log comes from the `history` by `fill`, for views. A reader goes: `read` (one snapshot of the store) → `view` (HAVING, projection). `model` has the
//! functions that forecast, find anomalies and match; queries know them by name.

mod aggregate;
mod avro;
pub mod base64;
mod beside;
mod budget;
mod check;
mod claims;
mod closing;
mod columns;
mod combine;
mod conditions;
mod config;
mod declared;
mod decode;
mod definitions;
mod delimited;
mod derive;
mod emit;
mod engine;
mod error;
mod fields;
mod fill;
mod filling;
mod filter_is_true;
mod finals;
mod finish;
mod follow;
mod guard;
mod history;
mod hot;
mod identity;
mod infer;
mod join_pipeline;
mod json;
mod json_lines;
mod keyed;
mod lookup;
mod member;
mod misfit;
pub mod model;
mod names;
mod nested;
mod next_step;
mod normalise;
mod numbered;
mod ordered;
mod own_schema;
mod parse;
mod parse_emit;
mod parse_window;
mod pipeline;
mod protobuf;
mod quality;
mod quality_table;
mod read;
mod read_when_planned;
mod running;
mod scalar;
mod session;
mod sessions;
mod shared;
mod source;
pub mod sources;
mod spread;
mod sql;
mod start;
mod start_view;
mod state;
mod state_version;
mod status;
mod stored;
mod stream;
mod succession;
mod table;
mod takeover;
mod telling;
#[cfg(test)]
mod tests;
mod top_k;
mod tumble;
mod unnest;
mod varint;
mod view;
mod watermark;
mod window;
mod windows;
mod wire;
mod workers;

use std::collections::BTreeMap;

use broker::{Offset, PartitionIndex, TopicName};

pub use budget::Held;
pub use check::{check, streams};
pub use combine::{Combine, combine_of};
pub use config::{
    CheckAction, CheckConfig, ColumnConfig, CsvConfig, DeduplicateConfig, EngineConfig, OwnSchema, StreamConfig,
    StreamFormat, TableConfig, TableRows, ViewConfig,
};
pub use declared::{DeclaredUnnest, DeclaredView, DeclaredWindows, NotCounted};
pub use definitions::{Change, Command, Done, Inferred, Kind, Made, Mistake, Script, Surroundings, Turn, command};
pub use engine::{Engine, ViewInfo};
pub use error::{EngineError, ErrorKind, Result};
pub use filling::Filling;
pub use filter_is_true::FilterIsTrue;
pub use guard::{Guard, only_compares};
pub use history::{Found, History, HistorySlot, Wanted};
pub use normalise::normalisers;
pub use parse_emit::Emit;
pub use protobuf::{proto_file, proto_imports};
pub use quality::{QualityAction, QualityCount};
pub use read::{Answer, ReadRequest};
pub use read_when_planned::{Grow, ReadError, ReadWhenPlanned};
pub use sources::Sources;
pub use sql::exact_sum;
pub use status::{DerivedStatus, FillStatus, StreamStatus, SuccessorStatus, TableStatus, ViewStatus};
pub use stored::check_stored;
pub use stream::{Decoded, META_COLUMNS, RULES, Rejected, Stream};
pub use table::window_bounds;
pub use top_k::top_k;
pub use tumble::{only_in_views, tumble};
pub use window::Window;
pub use windows::{Hop, Windows};

/// The next offset to be applied, per topic and partition.
pub type Offsets = BTreeMap<TopicName, BTreeMap<PartitionIndex, Offset>>;
