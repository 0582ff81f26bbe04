//! How RocksDB is set up: one set of options for the database, one for each family.

use rocksdb::{
    BlockBasedOptions, Cache, DBCompressionType, LogLevel, Options, UniversalCompactOptions,
    UniversalCompactionStopStyle,
};

use super::Family;
use crate::config::{BrokerConfig, Durability};

/// Files of the write-ahead log that are kept to be written anew, beside as many as a memtable of a seldom written family can pin until the
/// log has its most bytes: those are done with all at once, and one that is not kept is unlinked by the thread that writes memtables out,
/// 6 ms each on a disk that is told of each block that comes free, and now and then a quarter of a second, while writers wait for it.
const WAL_FILES_KEPT: usize = 2;
/// How many runs of like size of `log` are merged at once. Runs are memtables at first, of 64 MiB where much is written: so a batch is
/// written once more before there is a GiB of them, and again at 16 GiB. RocksDB's default for the sizes let small merges
/// gather the large runs as well: 4.2 bytes were written for each one of 6 GiB, and 2.9 so, for half the CPU.
const LOG_RUNS_MERGED: i32 = 16;
/// Runs of `log` that may differ in size by this many percent are of like size.
const LOG_RUNS_LIKE_PERCENT: i32 = 100;
/// Runs of `log` from which on writers are slowed down.
const LOG_RUNS_SLOW: i32 = 6 * LOG_RUNS_MERGED;
/// RocksDB's own log: a file of it that is larger is closed, and so many are kept. Of troubles only: what the picker of merges tells of each
/// run that it passes over was 600 lines a second under half of the most load, 37 MiB in five minutes.
const INFO_LOG_BYTES: usize = 4 << 20;
const INFO_LOG_FILES: usize = 4;
/// Runs of `compacted` from which on writers are slowed down, and stopped.
const COMPACTED_RUNS: [i32; 2] = [20, 36];
/// Memtables of a bucket: one that is written, the others wait to be written out. Writers stop when all are full, so a flush may take as
/// long as it takes to fill three. Two of twice the size need as much memory, and stopped them 13 times a minute under half of the most
/// load, for up to half a second.
const BUCKET_MEMTABLE_BYTES: usize = 32 << 20;
const BUCKET_MEMTABLES: i32 = 4;
/// Memtables of most other families. Theirs are small, but wait for the one thread that writes memtables out behind those of buckets, and
/// where all of a family's are full, every writer stops: with two that was once a minute under half of the most load, with more never.
const SMALL_MEMTABLE_BYTES: usize = 16 << 20;
const SMALL_MEMTABLES: i32 = 4;

pub(super) fn database_options(config: &BrokerConfig) -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_db_write_buffer_size(config.write_buffer_bytes);
    // bounds the log that a restart replays, and the space that seldom written families pin
    let wal_bytes = config.write_buffer_bytes.saturating_mul(2);
    options.set_max_total_wal_size(wal_bytes as u64);
    options.set_allow_concurrent_memtable_write(false); // one writer: nothing to be concurrent with
    options.set_max_background_jobs(2);
    options.set_bytes_per_sync(1 << 20);
    if config.durability == Durability::Fsync {
        // the device begins with what a large group has written while the rest of it is staged: 4 % more MiB/s
        options.set_wal_bytes_per_sync(1 << 20);
    }
    // a file of the write-ahead log that is done with is written anew: its blocks are there and its length stays, so a sync has no
    // inode to write, and the system's cache no pages to find. 5 to 30 % of produce's CPU here, more MiB/s with and without syncs
    options.set_recycle_log_file_num(wal_bytes / SMALL_MEMTABLE_BYTES + WAL_FILES_KEPT);
    options.set_log_level(LogLevel::Warn);
    options.set_max_log_file_size(INFO_LOG_BYTES);
    options.set_keep_log_file_num(INFO_LOG_FILES);
    options.set_max_open_files(1_000);
    options
}

/// Runs of a family of batches from which on writers are slowed down.
pub(super) fn slowdown_runs(family: Family) -> u64 {
    let runs = if family == Family::Log { LOG_RUNS_SLOW } else { COMPACTED_RUNS[0] };
    u64::from(runs.unsigned_abs())
}

pub(super) fn family_options(family: Family, cache: &Cache) -> Options {
    let mut options = Options::default();
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    match family {
        // What outlived its bucket: large values, read in order, deleted in ranges. Runs are merged seldom and never all together, so that
        // old files drop whole. A read asks the runs' filters, so more of them cost it little.
        Family::Log => {
            options.set_write_buffer_size(64 << 20);
            options.set_compression_type(DBCompressionType::None);
            options.set_compaction_style(rocksdb::DBCompactionStyle::Universal);
            options.set_level_zero_file_num_compaction_trigger(LOG_RUNS_MERGED);
            options.set_level_zero_slowdown_writes_trigger(LOG_RUNS_SLOW);
            options.set_level_zero_stop_writes_trigger(8 * LOG_RUNS_MERGED);
            options.set_target_file_size_base(64 << 20);
            let mut universal = UniversalCompactOptions::default();
            universal.set_max_size_amplification_percent(1_000_000);
            universal.set_min_merge_width(LOG_RUNS_MERGED);
            universal.set_stop_style(UniversalCompactionStopStyle::Similar);
            universal.set_size_ratio(LOG_RUNS_LIKE_PERCENT);
            options.set_universal_compaction_options(&universal);
            table.set_block_size(64 << 10);
            table.set_bloom_filter(10.0, false); // without it a look-up reads a block, so a batch, of every run
        }
        // Written once and dropped whole: runs of one memtable each, which are never merged. A read asks their filters.
        Family::Bucket(_) => {
            options.set_write_buffer_size(BUCKET_MEMTABLE_BYTES);
            options.set_max_write_buffer_number(BUCKET_MEMTABLES);
            options.set_compression_type(DBCompressionType::None);
            options.set_compaction_style(rocksdb::DBCompactionStyle::Universal);
            options.set_disable_auto_compactions(true);
            table.set_block_size(64 << 10);
            table.set_bloom_filter(10.0, false); // without it a look-up reads a block, so a batch, of every run
        }
        // Levels, because what compaction replaced or removed must leave the disk: runs that are merged seldom keep it.
        Family::Compacted => {
            options.set_write_buffer_size(SMALL_MEMTABLE_BYTES);
            options.set_max_write_buffer_number(SMALL_MEMTABLES);
            options.set_compression_type(DBCompressionType::None);
            options.set_level_compaction_dynamic_level_bytes(true);
            options.set_level_zero_slowdown_writes_trigger(COMPACTED_RUNS[0]);
            options.set_level_zero_stop_writes_trigger(COMPACTED_RUNS[1]);
            table.set_block_size(64 << 10);
            table.set_bloom_filter(10.0, false);
        }
        _ => {
            options.set_write_buffer_size(SMALL_MEMTABLE_BYTES);
            options.set_max_write_buffer_number(SMALL_MEMTABLES);
            options.set_compression_type(DBCompressionType::Zstd);
            table.set_block_size(16 << 10);
            table.set_bloom_filter(10.0, false);
        }
    }
    options.set_block_based_table_factory(&table);
    options
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs::File;
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;

    use crate::store::{Store, Writes};

    use super::*;

    /// Opens a store, writes something and closes it: the next start writes a file of it.
    fn open_and_write(dir: &Path) {
        let store = Store::open(&BrokerConfig { data_dir: dir.to_path_buf(), ..BrokerConfig::default() }).unwrap();
        let mut writes = Writes::new(&store);
        writes.put(Family::Log, b"key", b"value");
        store.write(writes).unwrap();
    }

    #[test]
    fn rocksdbs_own_log_tells_of_troubles_only() {
        let dir = tempfile::tempdir().unwrap();
        open_and_write(dir.path());
        open_and_write(dir.path());
        let log = std::fs::read_to_string(dir.path().join("store/LOG")).unwrap();
        let told: Vec<&str> = log.lines().filter(|line| line.contains("EVENT_LOG")).collect();
        assert!(told.is_empty(), "{told:?}");
    }

    #[test]
    fn files_of_the_write_ahead_log_are_written_anew_and_not_unlinked() {
        let dir = tempfile::tempdir().unwrap();
        let store =
            Store::open(&BrokerConfig { data_dir: dir.path().to_path_buf(), ..BrokerConfig::default() }).unwrap();
        let put = |family, key: u64, value: &[u8]| {
            let mut writes = Writes::new(&store);
            writes.put(family, &key.to_be_bytes(), value);
            store.write(writes).unwrap();
        };
        // as long as this is in memory only, the log of that time is needed
        put(Family::Groups, 0, b"seldom written");
        let (bucket, value) = (store.buckets().active(), vec![7; BUCKET_MEMTABLE_BYTES / 4]);
        let mut seen = BTreeMap::new();
        for key in 0..80 {
            put(bucket, key, &value);
            for entry in std::fs::read_dir(dir.path().join("store")).unwrap().flatten() {
                let name = entry.file_name();
                if name.to_string_lossy().ends_with(".log") && !seen.contains_key(&name) {
                    // one may have got its next name since the directory was read
                    let Ok(file) = File::open(entry.path()) else { continue };
                    seen.insert(name, file);
                }
            }
        }
        assert!(seen.len() > 12, "{seen:?}");
        let gone = seen.iter().filter(|(_, file)| file.metadata().unwrap().nlink() == 0);
        assert_eq!(gone.collect::<Vec<_>>().len(), 0, "of {}", seen.len());
    }
}
