//! What is stored of the versions of a view: which state is whose, and what a topic still has to hear. Keys and bytes are drawn in
//! `state`.

use crate::state::{FORMAT, NONE, Reader, length};

/// What a view's stored state stands for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Definition {
    pub(crate) view_id: u32,
    pub(crate) fingerprint: u64,
    pub(crate) retention_ms: Option<i64>,
    /// The view's text; empty where an older version of this format wrote it.
    pub(crate) sql: String,
}

/// What the topic of a view still has to hear since another version took over.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StoredTelling {
    pub(crate) stage: u8,
    /// How far the stage has come.
    pub(crate) cursor: Vec<u8>,
    pub(crate) former: Definition,
}

impl Definition {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT];
        out.extend_from_slice(&self.view_id.to_be_bytes());
        out.extend_from_slice(&self.fingerprint.to_be_bytes());
        out.extend_from_slice(&self.retention_ms.unwrap_or(NONE).to_be_bytes());
        out.extend_from_slice(self.sql.as_bytes());
        out
    }

    /// None when another format wrote it: then the view is rebuilt.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Definition> {
        let mut reader = Reader(bytes);
        if reader.take::<1>().ok()? != [FORMAT] {
            return None;
        }
        let view_id = u32::from_be_bytes(reader.take().ok()?);
        let fingerprint = u64::from_be_bytes(reader.take().ok()?);
        let (mut retention_ms, mut sql) = (None, String::new());
        if !reader.0.is_empty() {
            retention_ms = reader.optional_ms().ok()?;
            sql = String::from_utf8(reader.0.to_vec()).ok()?;
        }
        Some(Definition { view_id, fingerprint, retention_ms, sql })
    }
}

impl StoredTelling {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT, self.stage];
        out.extend_from_slice(&length(self.cursor.len()).to_be_bytes());
        out.extend_from_slice(&self.cursor);
        out.extend(self.former.encode());
        out
    }

    /// None when another format wrote it: then the view is rebuilt.
    pub(crate) fn decode(bytes: &[u8]) -> Option<StoredTelling> {
        let mut reader = Reader(bytes);
        let [FORMAT, stage] = reader.take::<2>().ok()? else { return None };
        let cursor_bytes = u32::from_be_bytes(reader.take().ok()?);
        let cursor = reader.bytes(usize::try_from(cursor_bytes).ok()?).ok()?.to_vec();
        Some(StoredTelling { stage, cursor, former: Definition::decode(reader.0)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{successor_key, telling_key};

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn golden_bytes_of_definitions() {
        let definition = Definition { view_id: 9, fingerprint: 0xaabb, retention_ms: Some(5), sql: "SQL".into() };
        assert_eq!(hex(&definition.encode()), "0100000009000000000000aabb000000000000000553514c");
        assert_eq!(Definition::decode(&definition.encode()), Some(definition.clone()));
        let older = b"\x01\0\0\0\x09\0\0\0\0\0\0\xaa\xbb";
        let without = Definition { retention_ms: None, sql: String::new(), ..definition.clone() };
        assert_eq!(Definition::decode(older), Some(without.clone()));
        assert_eq!(Definition::decode(&without.encode()), Some(without));
        assert_eq!(Definition::decode(b"\x02"), None);
        assert_eq!((hex(&successor_key("v")), hex(&telling_key("v"))), ("0b76".to_string(), "0c76".to_string()));
        let telling = StoredTelling { stage: 1, cursor: b"ab".to_vec(), former: definition };
        assert_eq!(
            hex(&telling.encode()),
            "0101000000026162".to_string() + "0100000009000000000000aabb000000000000000553514c"
        );
        assert_eq!(StoredTelling::decode(&telling.encode()), Some(telling));
        assert_eq!(StoredTelling::decode(b"\x01\0\0\0\0\x09"), None);
    }
}
