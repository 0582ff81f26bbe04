//! The lake: what topics held becomes Parquet in directories that Spark, Hive, DuckDB, Polars and pyarrow read, and SQL
//! reads those files and the live log as one table.
//!
//! A record goes: `sealer` (is its partition due) → `settle` (plan, write, rename, publish) → `writer` with `layout` (rows →
//! files per slice) → `manifest` (files and mark in one commit). A query goes: `query` (limits, read-only) → `prepare` (views are
//! fresh, or computed again as of the `past`) → `session` (names, as the `reader` sees them through `guarded`) → `hybrid` (files below
//! the boundary, `log_scan` above it) with `prune` (files that cannot match); `meter` and `query_log` count it. `floors` keeps retention off both. `merge` makes one file of many
//! small ones, `archive` moves old ones; `history` gives the engine rows that have left the log; `retired` takes what they replaced
//! out of the way of whoever lists directories; `clean` looks at what a start finds, with `successors` and `put_aside` for a store that is
//! older than its lake. `raw` keeps whole records for consumers of what the log let go. `iceberg` follows
//! the manifest with snapshots for readers that know Iceberg.

mod archive;
mod background;
pub mod backup;
mod bounded;
mod clean;
mod config;
mod data_dir;
mod ddl;
mod decoded;
mod encoded;
mod encodings;
mod error;
mod file_scan;
mod floors;
mod fork;
mod guarded;
mod history;
mod hybrid;
mod iceberg;
mod lake;
mod layout;
mod log_scan;
mod manifest;
mod manifest_bytes;
mod merge;
mod meter;
mod objects;
mod past;
mod prepare;
mod proof;
mod prune;
mod put_aside;
mod query;
mod query_error;
mod query_log;
mod raw;
mod read_only;
mod reader;
mod retired;
mod row_sums;
pub mod samples;
mod sealer;
mod session;
mod settle;
mod slice;
mod stored;
mod successors;
mod system_tables;
mod tables;
mod text_views;
mod transform;
mod verify;
mod views;
mod writer;

pub use self::iceberg::{Iceberg, IcebergStatus, NAMESPACE as ICEBERG_NAMESPACE, ShownTable as IcebergTable};
pub use archive::ArchiveReport;
pub use backup::{BackupReport, RestoreReport};
pub use config::{
    Access, CloudConfig, Costs, HdfsConfig, LakeConfig, MergeConfig, SCHEMES as LAKE_SCHEMES, SliceColumn, SqlLimits,
    TableConfig, TransformConfig, TransformMode,
};
pub use ddl::{Dialect, TableDdl};
pub use engine::Offsets;
pub use error::{LakeError, LakeErrorKind, Result};
pub use fork::ForkReport;
pub use lake::{FlushReport, Lake, LakeStatus, TableStatus};
pub use merge::MergeReport;
pub use meter::Scanned;
pub use past::view_query as past_view_query;
pub use proof::{Difference, DifferenceKind, ViewReport, ViewScope};
pub use put_aside::{AsideRanges, PutAside};
pub use query::{SqlAnswer, SqlRequest};
pub use query_log::{QueryKind, QueryLog, QueryRecord, Total};
pub use reader::{Reader, RowFilter, Sight, matches};
pub use stored::check_stored;
pub use system_tables::{Cost, NAMES as SYSTEM_TABLES, Stored};
pub use transform::{TransformInfo, TransformReport};
pub use verify::VerifyReport;

#[cfg(test)]
mod tests;
