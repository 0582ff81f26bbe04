//! Numbers of up to 64 bits in groups of seven, the lowest first, as Avro and Protobuf write them.

/// Most bytes of a number.
const BYTES_MAX: usize = 10;

/// Why bytes do not begin with a number.
#[derive(Debug, PartialEq)]
pub(crate) enum Broken {
    /// They end within it.
    Cut,
    /// It has more than 64 bits.
    TooLarge,
}

/// Takes a number off the front of bytes, which stay as they are where they do not begin with one.
#[inline]
pub(crate) fn take(bytes: &mut &[u8]) -> Result<u64, Broken> {
    if let [byte @ 0..0x80, rest @ ..] = *bytes {
        *bytes = rest;
        return Ok(u64::from(*byte));
    }
    take_long(bytes)
}

fn take_long(bytes: &mut &[u8]) -> Result<u64, Broken> {
    let mut bits: u64 = 0;
    for (at, byte) in bytes.iter().enumerate().take(BYTES_MAX) {
        if at == BYTES_MAX - 1 && *byte > 1 {
            return Err(Broken::TooLarge);
        }
        bits |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            *bytes = &bytes[at + 1..];
            return Ok(bits);
        }
    }
    Err(Broken::Cut)
}

/// The signed number that was written as one without a sign: 0, -1, 1, -2 and so on.
#[inline]
pub(crate) fn zigzag(bits: u64) -> i64 {
    (bits >> 1) as i64 ^ -((bits & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_taken_whole_or_not_at_all() {
        let largest = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        let too_large = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02];
        let cases: [(&[u8], Result<u64, Broken>, usize); 7] = [
            (&[0], Ok(0), 0),
            (&[0x96, 0x01, 7, 8], Ok(150), 2),
            (&largest, Ok(u64::MAX), 0),
            (&too_large, Err(Broken::TooLarge), 10),
            (&[0xff; 12], Err(Broken::TooLarge), 12),
            (&[], Err(Broken::Cut), 0),
            (&too_large[..9], Err(Broken::Cut), 9),
        ];
        for (bytes, expected, left) in cases {
            let mut rest = bytes;
            assert_eq!((take(&mut rest), rest.len()), (expected, left), "{bytes:?}");
        }
    }

    #[test]
    fn zigzag_alternates() {
        assert_eq!([0, 1, 2, 3, u64::MAX - 1, u64::MAX].map(zigzag), [0, -1, 1, -2, i64::MAX, i64::MIN]);
    }
}
