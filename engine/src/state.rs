//! The engine's keys and values in the store's `State` family, drawn byte by byte. All integers are big-endian.
//!
//! ```text
//! key                                                       value
//! 01 ++ view name (UTF-8)                                   definition: 01 ++ view id u32 ++ fingerprint u64 ++ retention i64 ++ text (UTF-8)
//! 02                                                        next view id u32
//! 03 ++ view id u32                                         progress of a view
//! 04 ++ stream name (UTF-8)                                 progress of a stream (its rejected records)
//! 05 ++ derived stream name (UTF-8)                         progress of a derived stream, or of the first of its SELECTs
//! 05 ++ derived stream name ++ 00 ++ number u8 from 1       progress of a further SELECT of it
//! 06 ++ table name (UTF-8)                                  fingerprint u64 ++ progress of a table
//! 07 ++ writer u8 ++ name ++ 00 ++ day i32 ^ sign ++ action u8 ++ rule (UTF-8)   records u64: data quality
//! 08 ++ view id u32                                         told i64 ++ gone i64: of overlapping windows; or a key 10, see `finals`
//! 09 ++ kind u8 ++ name (UTF-8)                             what SQL declared, see `definitions/stored.rs`
//! 0a, 15, 16 ++ name of a joined stream                     its other progress, and rows that wait: see `derive/stored.rs`
//! 0b ++ view name (UTF-8)                                   definition of the version that is filled beside the one that is served
//! 0c ++ view name (UTF-8)                                   01 ++ stage u8 ++ cursor length u32 ++ cursor ++ definition of the former version
//! 10 ++ view id u32 ++ window end i64 ^ sign ++ group key   01 ++ fingerprint u64 ++ state columns (Arrow row format)
//! 11 ++ table name ++ 00 ++ key column                      01 ++ columns (both Arrow row format)
//! 12 ++ derived stream name ++ 00 ++ bucket i64 ^ sign ++ key columns   event time i64 of the accepted row
//! 13 ++ view id u32 ++ group key ++ window end i64 ^ sign   window start i64: of a session
//! 14 ++ view id u32 ++ window end i64 ^ sign ++ group key   window start i64: of a session not yet told, see `finals`
//!
//! progress: 01 ++ closed until i64 ++ event watermark i64 (i64::MIN = none) ++ applied u64 ++ filtered u64 ++ late u64
//!           ++ failed u64 ++ lost u64 ++ updated at i64
//!           ++ partitions u32, each: index i32 ++ log id u32 ++ next offset i64 ++ largest event time i64
//!           ++ rules u32, each: length u16 ++ name ++ count u64
//! ```
//! A definition that an older version wrote ends with its fingerprint; no retention is i64::MIN. The stage and the cursor say what
//! the topic of a view has heard since another version took over, see `telling`.
//!
//! The group key is the Arrow row format of the key columns without `window_start`, so a view's states lie in the order
//! of windows, then keys. A view without a window has the window end `i64::MAX`. For overlapping windows the end is that of a
//! pane, and the group key begins with a u16, the number of the pane's windows that the rows missed; the first window not
//! yet told in the view's topic, and the first one not yet gone, are numbers as in `windows`. For a session the key has
//! the window start in the place of the end, which stands before the state columns (i64). The fingerprint covers this format's
//! version, DataFusion's version and the definitions of stream and view: state of another fingerprint is never read,
//! the view gets a new id and is rebuilt; a table of another fingerprint is emptied and read again. A bucket is a span of
//! event time as wide as the time within which rows are duplicates; day is days since 1970-01-01.

use std::collections::BTreeMap;

use broker::{Change, Family, LogId, Offset, PartitionIndex, TimestampMs};

use crate::error::{EngineError, ErrorKind, Result};
pub(crate) use crate::state_version::{Definition, StoredTelling};

pub(crate) const DEFINITION: u8 = 0x01;
pub(crate) const NEXT_VIEW_ID: u8 = 0x02;
pub(crate) const VIEW_PROGRESS: u8 = 0x03;
pub(crate) const STREAM_PROGRESS: u8 = 0x04;
pub(crate) const DERIVED_PROGRESS: u8 = 0x05;
pub(crate) const TABLE_PROGRESS: u8 = 0x06;
pub(crate) const QUALITY: u8 = 0x07;
pub(crate) const MARK: u8 = 0x08;
pub(crate) const SUCCESSOR: u8 = 0x0b;
pub(crate) const TELLING: u8 = 0x0c;
pub(crate) const STATE: u8 = 0x10;
const TABLE_ROW: u8 = 0x11;
const SEEN: u8 = 0x12;
pub(crate) const SESSION: u8 = 0x13;
pub(crate) const UNTOLD: u8 = 0x14;
/// Version of every value of the engine; a change rebuilds all views.
pub(crate) const FORMAT: u8 = 1;
/// Format byte and fingerprint before the state columns.
const STATE_HEADER_BYTES: usize = 9;
pub(crate) const NONE: i64 = i64::MIN;

/// How far one partition has been applied.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Position {
    pub(crate) log: LogId,
    pub(crate) next_offset: Offset,
    /// The largest event time accepted from it.
    pub(crate) max_event_ms: Option<i64>,
}

/// How far a view, or a stream's rejected records, has come. Written in the same commit as what it speaks of.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Progress {
    pub(crate) positions: BTreeMap<PartitionIndex, Position>,
    /// Windows that end at or before this are closed.
    pub(crate) closed_until: Option<i64>,
    pub(crate) event_watermark: Option<i64>,
    /// Rows in the view's state.
    pub(crate) applied: u64,
    /// Rows that WHERE left out.
    pub(crate) filtered: u64,
    /// Rows whose window was closed; they are in `<view>.late`.
    pub(crate) late: u64,
    /// Rows that the view's expressions could not evaluate; they are in `<stream>.rejected`.
    pub(crate) failed: u64,
    /// Offsets that were gone from the log before they were read.
    pub(crate) lost: u64,
    /// The broker's clock at the last commit.
    pub(crate) updated_at: TimestampMs,
    /// Rejected records per rule.
    pub(crate) rejected: BTreeMap<String, u64>,
}

/// FNV-1a, 64 bits, over everything that decides what stored state means.
pub(crate) fn fingerprint(stream: &str, query: &str) -> u64 {
    // states of before `filter_is_true` have counted what they should not
    let filters = if query.contains(" FILTER (") { "|FILTER is true" } else { "" };
    let text = format!("{FORMAT}|{}|{stream}|{query}{filters}", datafusion::DATAFUSION_VERSION);
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

pub(crate) fn definition_key(view: &str) -> Vec<u8> {
    [&[DEFINITION], view.as_bytes()].concat()
}

pub(crate) fn successor_key(view: &str) -> Vec<u8> {
    [&[SUCCESSOR], view.as_bytes()].concat()
}

pub(crate) fn telling_key(view: &str) -> Vec<u8> {
    [&[TELLING], view.as_bytes()].concat()
}

pub(crate) fn next_view_id_key() -> Vec<u8> {
    vec![NEXT_VIEW_ID]
}

pub(crate) fn view_progress_key(view_id: u32) -> Vec<u8> {
    [&[VIEW_PROGRESS][..], &view_id.to_be_bytes()].concat()
}

pub(crate) fn stream_progress_key(stream: &str) -> Vec<u8> {
    [&[STREAM_PROGRESS], stream.as_bytes()].concat()
}

pub(crate) fn derived_progress_key(stream: &str) -> Vec<u8> {
    [&[DERIVED_PROGRESS], stream.as_bytes()].concat()
}

/// The same of a further SELECT that UNION ALL adds to the stream. Names hold no zero byte.
pub(crate) fn branch_progress_key(stream: &str, branch: u8) -> Vec<u8> {
    match branch {
        0 => derived_progress_key(stream),
        branch => [&derived_progress_key(stream)[..], &[0, branch]].concat(),
    }
}

pub(crate) fn table_progress_key(table: &str) -> Vec<u8> {
    [&[TABLE_PROGRESS], table.as_bytes()].concat()
}

/// A table's stored progress: its definition's fingerprint, then the progress.
pub(crate) fn encode_table_progress(fingerprint: u64, progress: &Progress) -> Vec<u8> {
    [&fingerprint.to_be_bytes()[..], &progress.encode()].concat()
}

/// The progress of a table of this definition; None when another definition wrote it.
pub(crate) fn decode_table_progress(fingerprint: u64, bytes: &[u8]) -> Result<Option<Progress>> {
    match bytes.split_at_checked(8) {
        Some((stored, progress)) if stored == fingerprint.to_be_bytes() => Progress::decode(progress).map(Some),
        _ => Ok(None),
    }
}

/// What the keys of all rows of a table begin with. Names hold no zero byte.
pub(crate) fn table_row_prefix(table: &str) -> Vec<u8> {
    named(&[TABLE_ROW], table)
}

/// What the keys of all rows that a derived stream has accepted begin with.
pub(crate) fn seen_prefix(stream: &str) -> Vec<u8> {
    named(&[SEEN], stream)
}

/// What the keys of one bucket of accepted rows begin with: also the exclusive end of all earlier buckets.
pub(crate) fn seen_bucket(stream: &str, bucket: i64) -> Vec<u8> {
    let mut key = seen_prefix(stream);
    key.extend_from_slice(&(bucket ^ i64::MIN).to_be_bytes());
    key
}

/// What the keys of one writer's counters of data quality begin with.
pub(crate) fn quality_prefix(writer: u8, name: &str) -> Vec<u8> {
    named(&[QUALITY, writer], name)
}

/// The range of all counters of data quality.
pub(crate) fn quality_range() -> (Vec<u8>, Vec<u8>) {
    (vec![QUALITY], vec![QUALITY + 1])
}

/// The key of one counter.
pub(crate) fn quality_key(prefix: &[u8], day: i32, action: u8, rule: &str) -> Vec<u8> {
    [prefix, &(day ^ i32::MIN).to_be_bytes(), &[action], rule.as_bytes()].concat()
}

/// Writer, name, day, action and rule of a counter's key.
pub(crate) fn split_quality_key(key: &[u8]) -> Result<(u8, &str, i32, u8, &str)> {
    let text = |bytes| std::str::from_utf8(bytes).map_err(|_| damaged("quality key"));
    let [QUALITY, writer, rest @ ..] = key else { return Err(damaged("quality key")) };
    let end = rest.iter().position(|byte| *byte == 0).ok_or_else(|| damaged("quality key"))?;
    let (name, rest) = (text(&rest[..end])?, &rest[end + 1..]);
    let mut reader = Reader(rest);
    let day = i32::from_be_bytes(reader.take()?) ^ i32::MIN;
    let [action] = reader.take()?;
    Ok((*writer, name, day, action, text(reader.0)?))
}

/// The value of a counter.
pub(crate) fn decode_count(bytes: &[u8]) -> Result<u64> {
    Reader(bytes).counter()
}

fn named(kind: &[u8], name: &str) -> Vec<u8> {
    [kind, name.as_bytes(), &[0]].concat()
}

/// The end of the keys that begin so: a prefix ends with a zero byte, so the next one is not in use.
pub(crate) fn after(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    if let Some(last) = end.last_mut() {
        *last = last.saturating_add(1);
    }
    end
}

/// What deletes all keys that begin so; see [`after`].
pub(crate) fn delete_below(prefix: Vec<u8>) -> Change {
    let end = after(&prefix);
    Change::DeleteRange(Family::State, prefix, end)
}

/// The first key of a window: also the exclusive end of all windows that end before it.
pub(crate) fn state_bound(view_id: u32, window_end: i64) -> Vec<u8> {
    let mut key = Vec::with_capacity(64);
    key.push(STATE);
    key.extend_from_slice(&view_id.to_be_bytes());
    // With the sign bit turned, bytes sort as the numbers do.
    key.extend_from_slice(&(window_end ^ i64::MIN).to_be_bytes());
    key
}

/// The range of all of a view's states.
pub(crate) fn state_range(view_id: u32) -> (Vec<u8>, Vec<u8>) {
    range(STATE, view_id)
}

fn range(kind: u8, view_id: u32) -> (Vec<u8>, Vec<u8>) {
    let prefix = |id: u32| [&[kind][..], &id.to_be_bytes()].concat();
    (prefix(view_id), view_id.checked_add(1).map_or_else(|| vec![kind + 1], prefix))
}

/// The window end and the group key in a state's key.
pub(crate) fn split_state_key(key: &[u8]) -> Result<(i64, &[u8])> {
    match key {
        [STATE, _, _, _, _, end @ ..] if end.len() >= 8 => {
            let (end, group) = end.split_at(8);
            let end = i64::from_be_bytes(end.try_into().map_err(|_| damaged("state key"))?);
            Ok((end ^ i64::MIN, group))
        }
        _ => Err(damaged("state key")),
    }
}

/// How far windows that overlap have come, by their numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Mark {
    /// Those before it are in the view's topic.
    pub(crate) told: i64,
    /// Those before it are gone from the view and its topic.
    pub(crate) gone: i64,
}

impl Mark {
    pub(crate) const NONE: Mark = Mark { told: i64::MIN, gone: i64::MIN };

    pub(crate) fn encode(self) -> Vec<u8> {
        [self.told.to_be_bytes(), self.gone.to_be_bytes()].concat()
    }

    pub(crate) fn decode(bytes: Option<&[u8]>) -> Result<Mark> {
        let Some(bytes) = bytes else { return Ok(Mark::NONE) };
        let mut reader = Reader(bytes);
        Ok(Mark { told: i64::from_be_bytes(reader.take()?), gone: i64::from_be_bytes(reader.take()?) })
    }
}

pub(crate) fn mark_key(view_id: u32) -> Vec<u8> {
    [&[MARK][..], &view_id.to_be_bytes()].concat()
}

/// The key under which a session is found by its group: those of a group lie in the order of their ends.
pub(crate) fn session_key(view_id: u32, group: &[u8], window_end: i64) -> Vec<u8> {
    [&[SESSION][..], &view_id.to_be_bytes(), group, &(window_end ^ i64::MIN).to_be_bytes()].concat()
}

/// What deletes all of a view but its progress.
pub(crate) fn forget(view_id: u32) -> Vec<Change> {
    let ranges = [state_range(view_id), range(SESSION, view_id), range(UNTOLD, view_id)];
    let deleted = ranges.into_iter().map(|(from, to)| Change::DeleteRange(Family::State, from, to));
    deleted.chain([Change::Delete(Family::State, mark_key(view_id))]).collect()
}

/// What deletes all of a view.
pub(crate) fn forget_whole(view_id: u32) -> Vec<Change> {
    let mut changes = forget(view_id);
    changes.push(Change::Delete(Family::State, view_progress_key(view_id)));
    changes
}

/// The end and the start of a session found by its group.
pub(crate) fn decode_session(key: &[u8], value: &[u8]) -> Result<(i64, i64)> {
    let end = key.last_chunk::<8>().ok_or_else(|| damaged("session key"))?;
    Ok((i64::from_be_bytes(*end) ^ i64::MIN, i64::from_be_bytes(Reader(value).take()?)))
}

/// The list of sessions that are not yet told, as it follows from where sessions are found by their groups: in the order of
/// their ends.
pub(crate) fn list_untold(found: &[(Vec<u8>, Option<i64>)]) -> Result<Vec<Change>> {
    let change = |(key, start_ms): &(Vec<u8>, Option<i64>)| {
        let (rest, end) = key.split_last_chunk::<8>().ok_or_else(|| damaged("session key"))?;
        let (head, group) = rest.split_first_chunk::<5>().ok_or_else(|| damaged("session key"))?;
        let key = [&[UNTOLD][..], &head[1..], end, group].concat();
        Ok(match start_ms {
            Some(start_ms) => Change::Put(Family::State, key, start_ms.to_be_bytes().to_vec()),
            None => Change::Delete(Family::State, key),
        })
    };
    found.iter().map(change).collect()
}

/// The first key of a listed session that ends then.
pub(crate) fn untold_bound(view_id: u32, window_end: i64) -> Vec<u8> {
    [&[UNTOLD][..], &view_id.to_be_bytes(), &(window_end ^ i64::MIN).to_be_bytes()].concat()
}

/// The key of a listed session's state.
pub(crate) fn untold_state(key: &[u8], value: &[u8]) -> Result<Vec<u8>> {
    let (head, group) = key.split_first_chunk::<13>().ok_or_else(|| damaged("untold session"))?;
    let start = i64::from_be_bytes(Reader(value).take()?) ^ i64::MIN;
    Ok([&[STATE][..], &head[1..5], &start.to_be_bytes(), group].concat())
}

/// What the values of all states of a definition begin with.
pub(crate) fn state_header(fingerprint: u64) -> [u8; STATE_HEADER_BYTES] {
    let mut header = [FORMAT; STATE_HEADER_BYTES];
    header[1..].copy_from_slice(&fingerprint.to_be_bytes());
    header
}

/// The state columns of a stored value; refuses what another definition wrote.
pub(crate) fn decode_state(fingerprint: u64, value: &[u8]) -> Result<&[u8]> {
    match value.split_at_checked(STATE_HEADER_BYTES) {
        Some((header, columns)) if header == state_header(fingerprint) => Ok(columns),
        _ => Err(damaged("view state")),
    }
}

pub(crate) fn decode_next_view_id(bytes: &[u8]) -> Result<u32> {
    Ok(u32::from_be_bytes(Reader(bytes).take()?))
}

impl Progress {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT];
        out.extend_from_slice(&self.closed_until.unwrap_or(NONE).to_be_bytes());
        out.extend_from_slice(&self.event_watermark.unwrap_or(NONE).to_be_bytes());
        for counter in [self.applied, self.filtered, self.late, self.failed, self.lost] {
            out.extend_from_slice(&counter.to_be_bytes());
        }
        out.extend_from_slice(&self.updated_at.to_be_bytes());
        out.extend_from_slice(&length(self.positions.len()).to_be_bytes());
        for (index, position) in &self.positions {
            out.extend_from_slice(&index.to_be_bytes());
            out.extend_from_slice(&position.log.0.to_be_bytes());
            out.extend_from_slice(&position.next_offset.to_be_bytes());
            out.extend_from_slice(&position.max_event_ms.unwrap_or(NONE).to_be_bytes());
        }
        out.extend_from_slice(&length(self.rejected.len()).to_be_bytes());
        for (rule, count) in &self.rejected {
            let name = rule.as_bytes();
            let bytes = u16::try_from(name.len()).expect("rule names are at most a few hundred bytes");
            out.extend_from_slice(&bytes.to_be_bytes());
            out.extend_from_slice(name);
            out.extend_from_slice(&count.to_be_bytes());
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Progress> {
        let mut reader = Reader(bytes);
        if reader.take::<1>()? != [FORMAT] {
            return Err(damaged("progress"));
        }
        let mut progress = Progress {
            closed_until: reader.optional_ms()?,
            event_watermark: reader.optional_ms()?,
            applied: reader.counter()?,
            filtered: reader.counter()?,
            late: reader.counter()?,
            failed: reader.counter()?,
            lost: reader.counter()?,
            updated_at: i64::from_be_bytes(reader.take()?),
            ..Progress::default()
        };
        for _ in 0..u32::from_be_bytes(reader.take()?) {
            let index = i32::from_be_bytes(reader.take()?);
            let log = LogId(u32::from_be_bytes(reader.take()?));
            let next_offset = i64::from_be_bytes(reader.take()?);
            let max_event_ms = reader.optional_ms()?;
            progress.positions.insert(index, Position { log, next_offset, max_event_ms });
        }
        for _ in 0..u32::from_be_bytes(reader.take()?) {
            let bytes = u16::from_be_bytes(reader.take()?);
            let name = reader.bytes(usize::from(bytes))?;
            let rule = String::from_utf8(name.to_vec()).map_err(|_| damaged("progress"))?;
            let count = reader.counter()?;
            progress.rejected.insert(rule, count);
        }
        Ok(progress)
    }

    /// Counts records that a rule has refused.
    pub(crate) fn count_refused(&mut self, rule: &str, records: u64) {
        match self.rejected.get_mut(rule) {
            Some(count) => *count += records,
            None => drop(self.rejected.insert(rule.to_string(), records)),
        }
    }

    /// Where a member stands in each partition, for grouping members that stand together.
    pub(crate) fn stands_with(&self, other: &Progress) -> bool {
        self.positions == other.positions && self.event_watermark == other.event_watermark
    }
}

pub(crate) fn length(count: usize) -> u32 {
    u32::try_from(count).expect("partitions, rules and bytes of a key are far fewer than 2^32")
}

/// Takes a value's parts off its front.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn bytes(&mut self, count: usize) -> Result<&'a [u8]> {
        let (part, rest) = self.0.split_at_checked(count).ok_or_else(|| damaged("progress"))?;
        self.0 = rest;
        Ok(part)
    }

    pub(crate) fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.bytes(N)?.try_into().map_err(|_| damaged("progress"))
    }

    fn counter(&mut self) -> Result<u64> {
        Ok(u64::from_be_bytes(self.take()?))
    }

    pub(crate) fn optional_ms(&mut self) -> Result<Option<i64>> {
        Ok(Some(i64::from_be_bytes(self.take()?)).filter(|ms| *ms != NONE))
    }
}

fn damaged(what: &str) -> EngineError {
    EngineError::new(
        ErrorKind::Storage,
        format!("stored {what} is not what this version writes; restore a backup or remove the view"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state_key(view_id: u32, window_end: i64, group: &[u8]) -> Vec<u8> {
        [&state_bound(view_id, window_end), group].concat()
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn golden_bytes() {
        assert_eq!(hex(&definition_key("plays")), "01706c617973");
        assert_eq!(hex(&next_view_id_key()), "02");
        assert_eq!(hex(&view_progress_key(7)), "0300000007");
        assert_eq!(hex(&stream_progress_key("s")), "0473");
        assert_eq!(hex(&state_key(7, 60_000, b"k")), "1000000007800000000000ea606b");
        assert_eq!(hex(&state_bound(7, -1)), "10000000077fffffffffffffff");
        assert_eq!(hex(&state_range(7).1), "1000000008");
        assert_eq!(hex(&state_range(u32::MAX).1), "11");
        let listed = untold_bound(7, 60_000);
        assert_eq!(hex(&listed), "1400000007800000000000ea60");
        let found = [([&range(SESSION, 7).0[..], b"k", &listed[5..]].concat(), Some(5)), (listed.clone(), None)];
        let changes = list_untold(&found).unwrap();
        let Change::Put(_, key, value) = &changes[0] else { panic!("{}", changes.len()) };
        assert_eq!((hex(key), hex(value)), (hex(&listed) + "6b", "0000000000000005".to_string()));
        assert_eq!(untold_state(key, value).unwrap(), state_key(7, 5, b"k"));
        assert_eq!(hex(&[&state_header(0x0102)[..], b"xy"].concat()), "01000000000000010278 79".replace(' ', ""));
        let mut progress =
            Progress { closed_until: Some(5), applied: 3, lost: 1, updated_at: 8, ..Progress::default() };
        progress.positions.insert(2, Position { log: LogId(4), next_offset: 41, max_event_ms: None });
        progress.rejected.insert("json".into(), 6);
        let expected = "01 0000000000000005 8000000000000000 0000000000000003 0000000000000000 0000000000000000 \
                        0000000000000000 0000000000000001 0000000000000008 \
                        00000001 00000002 00000004 0000000000000029 8000000000000000 \
                        00000001 0004 6a736f6e 0000000000000006";
        assert_eq!(hex(&progress.encode()), expected.replace(char::is_whitespace, ""));
        assert_eq!(Progress::decode(&progress.encode()).unwrap(), progress);
    }

    #[test]
    fn golden_bytes_of_tables_derived_streams_and_quality() {
        assert_eq!(hex(&derived_progress_key("d")), "0564");
        assert_eq!(branch_progress_key("d", 0), derived_progress_key("d"));
        assert_eq!(hex(&branch_progress_key("d", 2)), "05640002");
        assert_eq!(hex(&table_progress_key("t")), "0674");
        assert_eq!(hex(&table_row_prefix("t")), "117400");
        assert_eq!(hex(&after(&table_row_prefix("t"))), "117401");
        assert_eq!(hex(&seen_bucket("d", 3)), "1264008000000000000003");
        let key = quality_key(&quality_prefix(1, "d"), 2, 1, "required");
        assert_eq!(hex(&key), "0701640080000002017265717569726564");
        assert_eq!(split_quality_key(&key).unwrap(), (1, "d", 2, 1, "required"));
        split_quality_key(b"\x07\x01d").unwrap_err();
        let progress = Progress { applied: 3, ..Progress::default() };
        let bytes = encode_table_progress(9, &progress);
        assert_eq!(decode_table_progress(9, &bytes).unwrap(), Some(progress));
        assert_eq!(decode_table_progress(8, &bytes).unwrap(), None);
    }

    #[test]
    fn keys_sort_by_window_then_group() {
        let keys = [
            state_key(1, i64::MIN, b"z"),
            state_key(1, -5, b"a"),
            state_key(1, 0, b""),
            state_key(1, 0, b"a"),
            state_key(1, i64::MAX, b"a"),
            state_key(2, i64::MIN, b""),
        ];
        assert!(keys.is_sorted());
        assert_eq!(split_state_key(&keys[1]).unwrap(), (-5, &b"a"[..]));
        split_state_key(b"\x10abc").unwrap_err();
    }

    #[test]
    fn other_definitions_and_cut_values_are_refused() {
        let value = [&state_header(1)[..], b"x"].concat();
        assert_eq!(decode_state(1, &value).unwrap(), b"x");
        decode_state(2, &value).unwrap_err();
        decode_state(1, &value[..8]).unwrap_err();
        assert_ne!(fingerprint("s", "a"), fingerprint("s", "b"));
        let bytes = Progress { rejected: [("r".to_string(), 1)].into(), ..Progress::default() }.encode();
        for cut in 0..bytes.len() {
            Progress::decode(&bytes[..cut]).unwrap_err();
        }
    }
}
