//! The request header, read without trusting it (the crate's reader panics on short input).

use super::shapes;

/// What every request starts with: 8 bytes that all versions share, then the client id and, in header version 2,
/// tagged fields.
/// ```text
/// api_key i16 | api_version i16 | correlation_id i32 | client_id: i16 length (-1 = null) + bytes | tags (v2)
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Start {
    /// Which API.
    pub(crate) api_key: i16,
    /// In which version.
    pub(crate) api_version: i16,
    /// What the answer repeats.
    pub(crate) correlation_id: i32,
}

/// Bytes of [`Start`]: no request is shorter.
pub(crate) const START_BYTES: usize = 8;

/// Reads the part of the header that all versions share.
pub(crate) fn start(frame: &[u8]) -> Result<Start, String> {
    let Some(&[k0, k1, v0, v1, c0, c1, c2, c3]) = frame.first_chunk::<START_BYTES>() else {
        return Err(format!("a request of {} bytes has no header", frame.len()));
    };
    Ok(Start {
        api_key: i16::from_be_bytes([k0, k1]),
        api_version: i16::from_be_bytes([v0, v1]),
        correlation_id: i32::from_be_bytes([c0, c1, c2, c3]),
    })
}

/// The client id (empty if null) and the number of bytes in front of the body, for header version 1 or 2.
/// The length of the client id is 16 bits wide in both.
pub(crate) fn rest(frame: &[u8], header_version: i16) -> Result<(&[u8], usize), String> {
    let after = frame.get(START_BYTES..).unwrap_or_default();
    let (length, after) = after.split_first_chunk::<2>().ok_or("the header ends before the client id")?;
    let length = match i16::from_be_bytes(*length) {
        -1 => 0,
        n => usize::try_from(n).map_err(|_| format!("the client id has a negative length: {n}"))?,
    };
    let (client_id, after) = after
        .split_at_checked(length)
        .ok_or_else(|| format!("the client id claims {length} bytes, {} are left", after.len()))?;
    let body = if header_version >= 2 { shapes::skip_tags(after)? } else { after };
    Ok((client_id, frame.len() - body.len()))
}
