//! Definitions in the store's `State` family, drawn byte by byte. All integers are big-endian.
//!
//! ```text
//! key                                        value
//! 09 ++ kind u8 ++ name (UTF-8)              01 ++ state u8 ++ order u64 ++ declared at i64 ++ statement (UTF-8)
//!
//! kind: 0 stream, 1 table, 2 view
//! state: 0 live, 1 paused (a view), 2 leaving: it is dropped, and what it left is being deleted
//! ```
//! Order is the number of the declaration: a start declares in the same order. The statement is the text of the one
//! `CREATE`, as it came.

use chrono::{DateTime, SecondsFormat};

use super::Kind;
use crate::error::{EngineError, ErrorKind, Result};

/// What the keys of definitions begin with.
pub(crate) const DEFINED: u8 = 0x09;
const FORMAT: u8 = 1;
/// Format, state, order and time before the statement.
const HEADER_BYTES: usize = 18;

/// Whether something that was declared works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Live = 0,
    Paused = 1,
    Leaving = 2,
}

/// One declaration.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Definition {
    pub(crate) state: State,
    pub(crate) order: u64,
    pub(crate) declared_ms: i64,
    pub(crate) sql: String,
}

pub(crate) fn definition_key(kind: Kind, name: &str) -> Vec<u8> {
    [&[DEFINED, kind as u8], name.as_bytes()].concat()
}

/// The range of all definitions.
pub(crate) fn definition_range() -> (Vec<u8>, Vec<u8>) {
    (vec![DEFINED], vec![DEFINED + 1])
}

pub(crate) fn decode_key(key: &[u8]) -> Result<(Kind, String)> {
    let (kind, name) = match key {
        [DEFINED, 0, name @ ..] => (Kind::Stream, name),
        [DEFINED, 1, name @ ..] => (Kind::Table, name),
        [DEFINED, 2, name @ ..] => (Kind::View, name),
        _ => return Err(damaged()),
    };
    Ok((kind, String::from_utf8(name.to_vec()).map_err(|_| damaged())?))
}

impl Definition {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut value = vec![FORMAT, self.state as u8];
        value.extend_from_slice(&self.order.to_be_bytes());
        value.extend_from_slice(&self.declared_ms.to_be_bytes());
        value.extend_from_slice(self.sql.as_bytes());
        value
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Definition> {
        let (header, sql) = value.split_at_checked(HEADER_BYTES).ok_or_else(damaged)?;
        let state = match header[..2] {
            [FORMAT, 0] => State::Live,
            [FORMAT, 1] => State::Paused,
            [FORMAT, 2] => State::Leaving,
            _ => return Err(damaged()),
        };
        let eight = |from: usize| -> Result<[u8; 8]> { header[from..from + 8].try_into().map_err(|_| damaged()) };
        Ok(Definition {
            state,
            order: u64::from_be_bytes(eight(2)?),
            declared_ms: i64::from_be_bytes(eight(10)?),
            sql: String::from_utf8(sql.to_vec()).map_err(|_| damaged())?,
        })
    }

    /// Where it was declared, as messages have it.
    pub(crate) fn place(&self) -> String {
        let at = DateTime::from_timestamp_millis(self.declared_ms).unwrap_or_default();
        format!("SQL at {}", at.to_rfc3339_opts(SecondsFormat::Secs, true))
    }
}

fn damaged() -> EngineError {
    let message = "a definition of SQL in the store is damaged, or a newer version wrote it: restore a backup";
    EngineError::new(ErrorKind::Storage, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        assert_eq!(definition_key(Kind::View, "v1"), b"\x09\x02v1");
        assert_eq!(definition_key(Kind::Stream, "s"), b"\x09\x00s");
        let definition =
            Definition { state: State::Paused, order: 3, declared_ms: 1_795_168_800_000, sql: "CREATE TABLE t".into() };
        let bytes = b"\x01\x01\0\0\0\0\0\0\0\x03\0\0\x01\xa1\xf8\x66\x0d\0CREATE TABLE t";
        assert_eq!(definition.encode(), bytes, "{:02x?}", definition.encode());
        assert_eq!(Definition::decode(bytes).unwrap(), definition);
        assert_eq!(definition.place(), "SQL at 2026-11-20T10:00:00Z");
        for kind in [Kind::Stream, Kind::Table, Kind::View] {
            assert_eq!(decode_key(&definition_key(kind, "a.b")).unwrap(), (kind, "a.b".to_string()));
        }
        for wrong in
            [&b""[..], b"\x01\x03\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\0", b"\x02\0\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\0"]
        {
            assert!(Definition::decode(wrong).is_err());
        }
    }
}
