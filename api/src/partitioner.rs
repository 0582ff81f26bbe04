//! Which partition a record goes to: Kafka's own hash, so that a key sent over HTTP lands where the Java client's default
//! partitioner and librdkafka's `murmur2_random` put it.

/// The partition of a record with a key, out of `partitions` (at least 1).
pub fn partition_of_key(key: &[u8], partitions: i32) -> i32 {
    // Java masks the sign bit instead of taking the absolute value.
    let hash = murmur2(key) & 0x7fff_ffff;
    let count = u32::try_from(partitions.max(1)).expect("a positive i32 fits u32");
    i32::try_from(hash % count).expect("a remainder of a positive i32 fits i32")
}

/// Kafka's murmur2 (`org.apache.kafka.common.utils.Utils.murmur2`), as unsigned.
fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    // A Java array has at most i32::MAX bytes; the hash of the length is its low 32 bits.
    let mut h = SEED ^ (data.len() as u32);
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        k = k.wrapping_mul(M);
        k ^= k >> R;
        k = k.wrapping_mul(M);
        h = h.wrapping_mul(M) ^ k;
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (i, byte) in rest.iter().enumerate() {
            h ^= u32::from(*byte) << (8 * i);
        }
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^ (h >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of Kafka's own UtilsTest.testMurmur2, and of librdkafka's unittest_murmur2.
    #[test]
    fn agrees_with_the_java_client_and_librdkafka() {
        let java: [(&str, i32); 8] = [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
            ("a", -1_563_381_124),
            ("", 275_646_681),
        ];
        for (key, hash) in java {
            assert_eq!(murmur2(key.as_bytes()) as i32, hash, "{key}");
        }
        let librdkafka: [(&[u8], u32); 3] =
            [(b"kafka", 0xd067_cf64), (b"giberish123456789", 0x8f55_2b0c), (b"1234", 0x9fc9_7b14)];
        for (key, hash) in librdkafka {
            assert_eq!(murmur2(key), hash);
        }
    }

    #[test]
    fn a_partition_is_never_negative_or_out_of_range() {
        for n in 0..1000 {
            let partition = partition_of_key(n.to_string().as_bytes(), 6);
            assert!((0..6).contains(&partition));
        }
        assert_eq!(partition_of_key(b"21", 1), 0);
        assert_eq!(partition_of_key(b"foobar", 0), 0);
    }
}
