//! What the snapshots of a table reach: manifests, and through them data files.

use std::collections::HashMap;
use std::sync::Arc;

use iceberg::spec::ManifestFile;

/// A manifest, and the URLs of the data files that it holds for alive.
#[derive(Debug)]
pub struct Kept {
    /// What a manifest list says of it.
    pub file: ManifestFile,
    /// The data files.
    pub live: Vec<Arc<str>>,
}

/// A snapshot that can be read.
#[derive(Clone, Debug)]
pub struct Held {
    /// Its id.
    pub id: i64,
    /// The URL of its manifest list.
    pub list: String,
    /// Its manifests.
    pub manifests: Vec<Arc<Kept>>,
}

/// All that snapshots reach. Holds: the snapshots, oldest first, and how often each thing is reached. Nothing here survives
/// a crash: it is read again from the metadata.
#[derive(Debug, Default)]
pub struct Reach {
    held: Vec<Held>,
    manifests: HashMap<String, usize>,
    files: HashMap<Arc<str>, usize>,
}

impl Reach {
    /// Adds the newest snapshot.
    pub fn push(&mut self, held: Held) {
        for kept in &held.manifests {
            let count = self.manifests.entry(kept.file.manifest_path.clone()).or_default();
            *count += 1;
            if *count == 1 {
                kept.live.iter().for_each(|url| *self.files.entry(url.clone()).or_default() += 1);
            }
        }
        self.held.push(held);
    }

    /// Forgets a snapshot; gives the URLs of all that nothing else reaches.
    pub fn forget(&mut self, id: i64) -> Vec<String> {
        let Some(at) = self.held.iter().position(|held| held.id == id) else { return Vec::new() };
        let held = self.held.remove(at);
        let mut gone = vec![held.list];
        for kept in &held.manifests {
            let path = &kept.file.manifest_path;
            if let_go(&mut self.manifests, path) {
                gone.push(path.clone());
                gone.extend(kept.live.iter().filter(|url| let_go(&mut self.files, *url)).map(|url| url.to_string()));
            }
        }
        gone
    }

    /// The snapshots, oldest first.
    pub fn held(&self) -> &[Held] {
        &self.held
    }

    /// The manifests of the current snapshot.
    pub fn current(&self) -> &[Arc<Kept>] {
        self.held.last().map_or(&[], |held| &held.manifests)
    }

    /// The data files of all snapshots.
    pub fn files(&self) -> impl Iterator<Item = &Arc<str>> {
        self.files.keys()
    }

    /// Whether anything reaches a URL.
    pub fn has(&self, url: &str) -> bool {
        self.files.contains_key(url)
            || self.manifests.contains_key(url)
            || self.held.iter().any(|held| held.list == url)
    }
}

/// Takes one away; says whether it was the last.
fn let_go<K: std::hash::Hash + Eq + std::borrow::Borrow<Q>, Q: std::hash::Hash + Eq + ?Sized>(
    counts: &mut HashMap<K, usize>,
    key: &Q,
) -> bool {
    match counts.get_mut(key) {
        Some(count) if *count > 1 => {
            *count -= 1;
            false
        }
        _ => counts.remove(key).is_some(),
    }
}

#[cfg(test)]
pub mod tests {
    use iceberg::spec::ManifestContentType;

    use super::*;

    pub fn kept(path: &str, live: &[&str]) -> Arc<Kept> {
        let file = ManifestFile {
            manifest_path: path.to_owned(),
            manifest_length: 1,
            partition_spec_id: 0,
            content: ManifestContentType::Data,
            sequence_number: 1,
            min_sequence_number: 1,
            added_snapshot_id: 1,
            added_files_count: Some(0),
            existing_files_count: Some(0),
            deleted_files_count: Some(0),
            added_rows_count: Some(0),
            existing_rows_count: Some(0),
            deleted_rows_count: Some(0),
            partitions: None,
            key_metadata: None,
            first_row_id: None,
        };
        Arc::new(Kept { file, live: live.iter().map(|url| Arc::from(*url)).collect() })
    }

    #[test]
    fn what_no_snapshot_reaches_any_more_is_told_once() {
        let held = |id, list: &str, manifests| Held { id, list: list.into(), manifests };
        let (one, two, merged) = (kept("m1", &["a", "b"]), kept("m2", &["c"]), kept("m3", &["b", "c"]));
        let mut reach = Reach::default();
        reach.push(held(1, "l1", vec![one.clone()]));
        reach.push(held(2, "l2", vec![one, two.clone()]));
        reach.push(held(3, "l3", vec![merged]));
        assert_eq!(reach.forget(1), ["l1"], "the second snapshot has the same manifest");
        assert!(reach.has("a") && reach.has("m1") && reach.has("l2") && !reach.has("l1"));
        assert_eq!(reach.forget(2), ["l2", "m1", "a", "m2"], "b and c are in the third");
        assert_eq!(reach.forget(2), Vec::<String>::new());
        assert_eq!(reach.files().count(), 2);
        assert_eq!(reach.current().len(), 1);
        assert_eq!(reach.forget(3).len(), 4);
        assert!(reach.current().is_empty() && !reach.has("b"));
    }
}
