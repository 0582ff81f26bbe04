//! Tables of the lake that SQL writes, over streams, views and other such tables.
//!
//! A run goes: `statement` (parameters into the query) → `replaced` (in whose place its files come) → `query` (plan, with the
//! boundary of each input read once) → `history` where the table keeps versions → sort → `writer` (files per slice, under
//! hidden names) → renames → one commit of the manifest → the old files are deleted when no query reads them. After a crash
//! at any point readers of the manifest see the old content or the new; the start removes files that the manifest does not
//! know.

mod bytes;
mod columns;
mod history;
mod named;
mod replaced;
mod run;
mod statement;
mod table;
mod writer;

pub use bytes::{FILES as TABLE_FILES, TableFile, table_of};
pub use run::{Runner, TransformInfo, TransformReport, check, declare};
pub use table::{TableFiles, WrittenScan, WrittenTable};
pub use writer::is_table_file;
