//! The five codecs of Kafka batches. Batches are stored and served as the client sent them; only a topic's own
//! `compression.type` and compaction fold records anew.

use std::io::{Read, Write};

use bytes::Bytes;

use crate::error::{Error, Kind, Result};

/// The most that one batch may unfold to; a bomb of zeros is refused here, not in the allocator.
pub const DECOMPRESSED_BYTES_MAX: usize = 128 << 20;

/// Compression of a batch: the three low bits of its attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Records as they are.
    None,
    /// RFC 1952.
    Gzip,
    /// Raw Snappy, or the chunked framing of xerial's snappy-java.
    Snappy,
    /// LZ4 frame.
    Lz4,
    /// RFC 8878.
    Zstd,
}

impl Compression {
    /// The codec that `attributes` name.
    ///
    /// # Errors
    /// `CorruptMessage` for numbers that Kafka has not given out.
    pub fn of(attributes: i16) -> Result<Self> {
        match attributes & 0b111 {
            0 => Ok(Self::None),
            1 => Ok(Self::Gzip),
            2 => Ok(Self::Snappy),
            3 => Ok(Self::Lz4),
            4 => Ok(Self::Zstd),
            other => Err(Error::new(Kind::CorruptMessage, format!("unknown compression type {other} in a batch"))),
        }
    }

    /// Its number in the attributes.
    pub(crate) fn number(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }

    /// Folds the records section of a batch; `level` is the codec's own, where it has levels here (gzip, zstd).
    ///
    /// # Errors
    /// `Bug` when a codec cannot write to memory.
    pub(crate) fn compress(self, data: Bytes, level: Option<i32>) -> Result<Bytes> {
        let failed = |e: std::io::Error| Error::new(Kind::Bug, format!("records cannot be compressed: {e}"));
        let out = match self {
            Self::None => return Ok(data),
            Self::Gzip => {
                let level = level.and_then(|level| u32::try_from(level).ok());
                let level = level.map_or_else(flate2::Compression::default, flate2::Compression::new);
                let mut gzip = flate2::write::GzEncoder::new(Vec::new(), level);
                gzip.write_all(&data).and_then(|()| gzip.finish()).map_err(failed)?
            }
            Self::Snappy => snap_stream(&data)?,
            Self::Lz4 => {
                // what Kafka's own reader takes: independent blocks of 64 KiB, no checksum of the content
                let mut frame = lz4_flex::frame::FrameInfo::new();
                frame.block_size = lz4_flex::frame::BlockSize::Max64KB;
                frame.block_mode = lz4_flex::frame::BlockMode::Independent;
                let mut lz4 = lz4_flex::frame::FrameEncoder::with_frame_info(frame, Vec::new());
                lz4.write_all(&data).map_err(failed)?;
                lz4.finish().map_err(|e| failed(e.into()))?
            }
            Self::Zstd => zstd::encode_all(&data[..], level.unwrap_or(ZSTD_LEVEL)).map_err(failed)?,
        };
        Ok(Bytes::from(out))
    }

    /// Unfolds the records section of a batch.
    ///
    /// # Errors
    /// `CorruptMessage` when the bytes are not of this codec or unfold to more than [`DECOMPRESSED_BYTES_MAX`].
    pub fn decompress(self, data: &Bytes) -> Result<Bytes> {
        match self {
            Self::None => Ok(data.clone()),
            Self::Gzip => read_bounded(flate2::read::MultiGzDecoder::new(&data[..])),
            Self::Lz4 => read_bounded(lz4_flex::frame::FrameDecoder::new(&data[..])),
            Self::Zstd => read_bounded(zstd::stream::read::Decoder::new(&data[..]).map_err(|e| corrupt(&e))?),
            Self::Snappy => unsnap(data),
        }
    }
}

fn read_bounded(reader: impl Read) -> Result<Bytes> {
    let mut out = Vec::new();
    let limit = DECOMPRESSED_BYTES_MAX as u64 + 1;
    reader.take(limit).read_to_end(&mut out).map_err(|e| corrupt(&e))?;
    bounded(out.len())?;
    Ok(Bytes::from(out))
}

fn corrupt(error: &dyn std::fmt::Display) -> Error {
    Error::new(Kind::CorruptMessage, format!("compressed records cannot be read: {error}"))
}

fn bounded(size: usize) -> Result<()> {
    if size > DECOMPRESSED_BYTES_MAX {
        let message =
            format!("compressed records unfold to more than {DECOMPRESSED_BYTES_MAX} bytes; send smaller batches");
        return Err(Error::new(Kind::CorruptMessage, message));
    }
    Ok(())
}

/// snappy-java's stream: magic, version and lowest compatible version (ignored: writers disagree), then chunks of
/// `length i32 BE ++ raw snappy`.
const XERIAL_MAGIC: &[u8] = b"\x82SNAPPY\0";
const XERIAL_HEADER_BYTES: usize = 16;
/// Version and lowest compatible version that Java writes.
const XERIAL_VERSIONS: [u8; 8] = [0, 0, 0, 1, 0, 0, 0, 1];
const XERIAL_CHUNK_BYTES: usize = 32 << 10;
/// Kafka's default level.
const ZSTD_LEVEL: i32 = 3;

fn snap_stream(data: &[u8]) -> Result<Vec<u8>> {
    let mut out = [XERIAL_MAGIC, &XERIAL_VERSIONS].concat();
    for chunk in data.chunks(XERIAL_CHUNK_BYTES) {
        let block = snap::raw::Encoder::new().compress_vec(chunk);
        let block = block.map_err(|e| Error::new(Kind::Bug, format!("records cannot be compressed: {e}")))?;
        out.extend(u32::try_from(block.len()).expect("a block of 32 KiB grows by a few bytes only").to_be_bytes());
        out.extend(block);
    }
    Ok(out)
}

fn unsnap(data: &Bytes) -> Result<Bytes> {
    let mut out = Vec::new();
    if !data.starts_with(XERIAL_MAGIC) {
        unsnap_block(data, &mut out)?;
        return Ok(Bytes::from(out));
    }
    let mut rest = data.get(XERIAL_HEADER_BYTES..).ok_or_else(|| corrupt(&"snappy stream header is cut short"))?;
    while !rest.is_empty() {
        let (length, tail) =
            rest.split_first_chunk::<4>().ok_or_else(|| corrupt(&"snappy chunk length is cut short"))?;
        let length = u32::from_be_bytes(*length) as usize;
        let block = tail.get(..length).ok_or_else(|| corrupt(&"snappy chunk is cut short"))?;
        unsnap_block(block, &mut out)?;
        rest = &tail[length..];
    }
    Ok(Bytes::from(out))
}

fn unsnap_block(block: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let length = snap::raw::decompress_len(block).map_err(|e| corrupt(&e))?;
    bounded(out.len().saturating_add(length))?;
    let start = out.len();
    out.resize(start + length, 0);
    let written = snap::raw::Decoder::new().decompress(block, &mut out[start..]).map_err(|e| corrupt(&e))?;
    out.truncate(start + written);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"a millpond holds back the stream, a millpond holds back the stream";

    #[test]
    fn every_codec_gives_back_what_went_in() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(TEXT).unwrap();
        let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
        lz4.write_all(TEXT).unwrap();
        let raw = snap::raw::Encoder::new().compress_vec(TEXT).unwrap();
        let mut xerial = [XERIAL_MAGIC, &[0, 0, 0, 1, 0, 0, 0, 1]].concat();
        for half in [&TEXT[..30], &TEXT[30..]] {
            let block = snap::raw::Encoder::new().compress_vec(half).unwrap();
            xerial.extend((block.len() as u32).to_be_bytes());
            xerial.extend(block);
        }
        let cases = [
            (0, TEXT.to_vec()),
            (1, gzip.finish().unwrap()),
            (2, raw),
            (2, xerial),
            (3, lz4.finish().unwrap()),
            (4, zstd::encode_all(TEXT, 1).unwrap()),
        ];
        for (attributes, bytes) in cases {
            let out = Compression::of(attributes).unwrap().decompress(&Bytes::from(bytes)).unwrap();
            assert_eq!(&out[..], TEXT, "codec {attributes}");
        }
    }

    #[test]
    fn what_is_folded_unfolds_again() {
        use Compression::{Gzip, Lz4, None, Snappy, Zstd};
        for codec in [None, Gzip, Snappy, Lz4, Zstd] {
            for length in [0, 1, 40_000, 300_000] {
                let data = Bytes::from(TEXT.iter().copied().cycle().take(length).collect::<Vec<u8>>());
                let folded = codec.compress(data.clone(), Option::None).unwrap();
                assert!(codec == None || length < 100 || folded.len() < length / 4, "{codec:?} of {length}");
                assert_eq!(codec.decompress(&folded).unwrap(), data, "{codec:?} of {length}");
                assert_eq!(Compression::of(codec.number()).unwrap(), codec);
            }
        }
    }

    #[test]
    fn bombs_and_garbage_are_refused() {
        let zeros = vec![0u8; DECOMPRESSED_BYTES_MAX + 1];
        let bomb = Bytes::from(zstd::encode_all(&zeros[..], 1).unwrap());
        assert_eq!(Compression::Zstd.decompress(&bomb).unwrap_err().kind, Kind::CorruptMessage);
        let claims_much = Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0]);
        assert!(Compression::Snappy.decompress(&claims_much).is_err());
        let cut = Bytes::from_static(b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01\0\0\0\x09abc");
        assert!(Compression::Snappy.decompress(&cut).is_err());
        for attributes in 1..5 {
            assert!(Compression::of(attributes).unwrap().decompress(&Bytes::from_static(b"\x01garbage")).is_err());
        }
        assert!(Compression::of(7).is_err());
    }
}
