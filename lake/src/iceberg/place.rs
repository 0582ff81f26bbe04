//! Where an Iceberg table lies, below a directory that readers of directories skip.
//!
//! ```text
//! <root>/_iceberg/lake/<table>/metadata/version-hint.text       N: v<N>.metadata.json is the table
//! <root>/_iceberg/lake/<table>/metadata/v<N>.metadata.json      schema, partitioning, snapshots
//! <root>/_iceberg/lake/<table>/metadata/snap-….avro             the manifests of one snapshot
//! <root>/_iceberg/lake/<table>/metadata/files-….avro            a manifest: data files with their statistics
//! <root>/_iceberg/lake/<table>/data/<name>-<hash>-<ms>.parquet  a second name of a published file (local disks)
//! ```

use crate::slice::{FNV_START, fnv1a_on};

use super::LakeFile;

/// The warehouse, as Iceberg's file catalogs call it.
pub const ICEBERG_DIR: &str = "_iceberg";
/// The one namespace.
pub const NAMESPACE: &str = "lake";

/// The place of one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    root: String,
    dir: String,
}

impl Place {
    /// The place of `table` in the lake at the URL `root`.
    pub fn new(root: &str, table: &str) -> Self {
        Self { root: root.to_owned(), dir: format!("{ICEBERG_DIR}/{NAMESPACE}/{table}") }
    }

    /// The table's directory, below the root.
    pub fn dir(&self) -> &str {
        &self.dir
    }

    /// The URL of a file below the root.
    pub fn url(&self, at: &str) -> String {
        format!("{}/{at}", self.root)
    }

    /// The path below the root of a URL that [`Place::url`] gave.
    pub fn below_root<'a>(&self, url: &'a str) -> Option<&'a str> {
        url.strip_prefix(self.root.as_str())?.strip_prefix('/')
    }

    /// A file of the table's metadata.
    pub fn metadata(&self, name: &str) -> String {
        format!("{}/metadata/{name}", self.dir)
    }

    /// One version of the metadata.
    pub fn version(&self, version: u64) -> String {
        self.metadata(&format!("v{version}.metadata.json"))
    }

    /// Which version a file of the metadata is, if it is one.
    pub fn version_of(&self, at: &str) -> Option<u64> {
        let name = at.strip_prefix(&self.metadata(""))?;
        name.strip_prefix('v')?.strip_suffix(".metadata.json")?.parse().ok()
    }

    /// The second name of a published file: no other content ever has it.
    pub fn link(&self, file: &LakeFile) -> String {
        let name = file.path.rsplit('/').next().unwrap_or(&file.path);
        let stem = name.strip_suffix(".parquet").unwrap_or(name);
        let hash = fnv1a_on(FNV_START, file.path.as_bytes());
        format!("{}/data/{stem}-{hash:016x}-{:x}.parquet", self.dir, file.published_ms)
    }

    /// Whether a path below the root is a second name, which is this table's alone.
    pub fn is_link(&self, at: &str) -> bool {
        at.strip_prefix(self.dir.as_str()).is_some_and(|rest| rest.starts_with("/data/"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_again_and_distinct() {
        let place = Place::new("file:///l", "t");
        assert_eq!(place.url(&place.version(7)), "file:///l/_iceberg/lake/t/metadata/v7.metadata.json");
        assert_eq!(place.version_of(&place.version(7)), Some(7));
        assert_eq!(place.version_of(&place.metadata("version-hint.text")), None);
        assert_eq!(place.below_root("file:///l/a/b"), Some("a/b"));
        assert_eq!(place.below_root("file:///lake/a"), None);
        let file = |path: &str, published_ms| LakeFile {
            path: path.to_owned(),
            rows: 1,
            bytes: 1,
            published_ms,
            levels: Vec::new(),
        };
        let links: std::collections::BTreeSet<String> =
            [file("a/x=1/t-0-0-1.parquet", 5), file("a/x=2/t-0-0-1.parquet", 5), file("a/x=1/t-0-0-1.parquet", 6)]
                .iter()
                .map(|file| place.link(file))
                .collect();
        assert_eq!(links.len(), 3);
        assert!(links.iter().all(|at| place.is_link(at) && at.ends_with(".parquet") && !at.contains('%')));
        assert!(!place.is_link("a/x=1/t-0-0-1.parquet"));
    }
}
