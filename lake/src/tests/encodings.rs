//! How files are encoded, and how small that makes them.

use std::path::{Path, PathBuf};

use parquet::basic::Encoding;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::reader::{FileReader, SerializedFileReader};
use serde_json::json;

use super::support::*;
use crate::config::{LakeConfig, MergeConfig, SliceColumn, TransformConfig, TransformMode};

const ROWS: u64 = 20_000;
const GENRES: [&str; 8] = ["pop", "rock", "hip-hop", "jazz", "folk", "soul", "metal", "techno"];
/// Files have so many percent of the bytes of the same JSON under zstd 3 at most.
const PERCENT_MAX: u64 = 60;

/// The same in each run: times that rise unevenly, few genres, many amounts.
fn values() -> Vec<String> {
    let mut chance = Chance::new(7);
    let row = |at: u64| {
        let genre = GENRES[chance.below(8).min(chance.below(8)) as usize];
        let ts = 20_777 * DAY_MS + (at * 400 + chance.below(300)) as i64;
        value(ts, json!(genre), 30_000 + chance.below(300_000) as i64)
    };
    (0..ROWS).map(row).collect()
}

fn below(bench: &Bench, dir: &str) -> Vec<PathBuf> {
    let dir = Path::new(&bench.url).join(dir);
    parquet_files(&dir).iter().map(|file| dir.join(file)).collect()
}

/// Whether a column has a dictionary, and whether it has values that are differences.
fn encodings(column: &ColumnChunkMetaData) -> (bool, bool) {
    let differs = column.encodings().any(|encoding| encoding == Encoding::DELTA_BINARY_PACKED);
    (column.dictionary_page_offset().is_some(), differs)
}

/// Asserts this of columns in all row groups of a file.
fn assert_encoded(path: &Path, want: &[(&str, (bool, bool))]) {
    let reader = SerializedFileReader::new(std::fs::File::open(path).unwrap()).unwrap();
    for group in reader.metadata().row_groups() {
        for (name, want) in want {
            let column = group.columns().iter().find(|column| column.column_path().parts() == [*name]);
            assert_eq!(encodings(column.unwrap()), *want, "(dictionary, differences) of {name} in {}", path.display());
        }
    }
}

const DICTIONARY: (bool, bool) = (true, false);
const DIFFERENCES: (bool, bool) = (false, true);
const PLAIN: (bool, bool) = (false, false);
const OF_ROWS: [(&str, (bool, bool)); 4] =
    [("ts", DIFFERENCES), ("genre", DICTIONARY), ("amount", DIFFERENCES), ("_offset", DIFFERENCES)];

#[tokio::test(flavor = "multi_thread")]
async fn files_are_smaller_than_the_same_json_under_zstd_3() {
    let mut bench = Bench::new(1).await;
    bench.config.slice = vec![SliceColumn::Date];
    bench.config.raw = true;
    bench.config.merge = Some(MergeConfig { files_min: 2, ..MergeConfig::default() });
    let copy = TransformConfig {
        name: "copy".into(),
        zone: "processed".into(),
        slice: Vec::new(),
        sort: vec!["ts".into()],
        mode: TransformMode::Replace,
        key: Vec::new(),
        sql: "SELECT ts, genre, amount FROM listens".into(),
    };
    let config = LakeConfig { tables: vec![bench.config.clone()], transforms: vec![copy], ..LakeConfig::default() };
    let lake = bench.lake_with(vec![bench.table()], config, None).await.unwrap();
    let values = values();
    for half in values.chunks(values.len() / 2) {
        for batch in half.chunks(500) {
            bench.append(0, batch).await;
        }
        lake.flush(TOPIC).await.unwrap();
    }
    let settled = below(&bench, TOPIC);
    assert_eq!(settled.len(), 2);
    settled.iter().for_each(|file| assert_encoded(file, &OF_ROWS));
    let bytes: u64 = settled.iter().map(|file| file.metadata().unwrap().len()).sum();
    let json = zstd::encode_all((values.join("\n") + "\n").as_bytes(), 3).unwrap().len() as u64;
    assert!(bytes * 100 <= json * PERCENT_MAX, "{bytes} bytes in files, {json} of JSON under zstd 3");

    let raw = [("_offset", DIFFERENCES), ("_value", PLAIN), ("_key", DICTIONARY)];
    below(&bench, "_raw").iter().for_each(|file| assert_encoded(file, &raw));
    assert!(!below(&bench, "_raw").is_empty());
    assert!(lake.merge(TOPIC).await.unwrap().merges > 0);
    let merged = below(&bench, TOPIC);
    assert_eq!(merged.len(), 1);
    assert_encoded(&merged[0], &OF_ROWS);
    lake.transform("copy", &std::collections::BTreeMap::new()).await.unwrap();
    let copied = below(&bench, "processed/copy");
    assert_eq!(copied.len(), 1);
    assert_encoded(&copied[0], &OF_ROWS[..3]);
    assert_eq!(table(&lake, "SELECT count(*), count(DISTINCT _offset) FROM listens").await, ["20000|20000"]);
    assert_eq!(table(&lake, "SELECT count(*) FROM copy JOIN listens USING (ts, genre, amount)").await, ["20000"]);
    lake.stop().await.unwrap();
}
