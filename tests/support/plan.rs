//! What clients are told to send, and what every other client must then read.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// One record; keys and values in hex, as the client scripts take and give them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Planned {
    pub key: Option<String>,
    pub value: Option<String>,
    pub headers: Vec<(String, Option<String>)>,
    pub timestamp: i64,
}

/// The records one client sends to one partition with one codec.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Send {
    pub topic: String,
    pub partition: i32,
    pub codec: String,
    pub records: Vec<Planned>,
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// Records that touch the corners: null and empty keys and values, binary, long, headers without value, twice, in Unicode.
pub fn records(seed: u64, count: usize) -> Vec<Planned> {
    let mut random = StdRng::seed_from_u64(seed);
    // Young enough that no broker's retention takes them away under the test.
    let base = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as i64 - 3_600_000;
    (0..count)
        .map(|i| {
            let text = format!("record {i} of seed {seed}: ").repeat(1 + i % 7);
            let mut bytes = vec![0; random.random_range(1..300)];
            random.fill(bytes.as_mut_slice());
            let (key, value) = match i % 10 {
                0 => (None, Some(text.into_bytes())),
                1 => (Some(format!("key-{i}").into_bytes()), None),
                2 => (Some(Vec::new()), Some(Vec::new())),
                3 => (Some(bytes.clone()), Some(bytes)),
                4 => (Some("schlüssel-ключ-鍵".as_bytes().to_vec()), Some(text.repeat(200).into_bytes())),
                _ => (Some(format!("key-{}", i % 13).into_bytes()), Some(text.into_bytes())),
            };
            let headers = match i % 5 {
                0 => vec![],
                1 => vec![("trace".to_owned(), Some(hex(b"abc")))],
                2 => vec![("twice".to_owned(), Some(hex(b"1"))), ("twice".to_owned(), Some(hex(b"2")))],
                3 => vec![("empty".to_owned(), Some(String::new())), ("üñí".to_owned(), Some(hex("é".as_bytes())))],
                _ => vec![("bytes".to_owned(), Some(hex(&[0, 255, 128])))],
            };
            let timestamp = base + i as i64 * 1000 + random.random_range(0..1000);
            Planned { key: key.as_deref().map(hex), value: value.as_deref().map(hex), headers, timestamp }
        })
        .collect()
}

/// Headers as clients that group them by name see them.
fn by_name(headers: &[(String, Option<String>)]) -> BTreeMap<&str, Vec<Option<&str>>> {
    let mut grouped: BTreeMap<&str, Vec<Option<&str>>> = BTreeMap::new();
    for (name, value) in headers {
        grouped.entry(name).or_default().push(value.as_deref());
    }
    grouped
}

/// Compares one consumer's report with everything that was sent; one line per mistake.
pub fn mistakes(report: &Value, sends: &[Send]) -> Vec<String> {
    let mut mistakes = Vec::new();
    let mut wanted: BTreeMap<(&str, i32), Vec<&Planned>> = BTreeMap::new();
    for send in sends {
        wanted.entry((&send.topic, send.partition)).or_default().extend(&send.records);
    }
    for ((topic, partition), wanted) in wanted {
        let at = format!("{} read {topic}-{partition}", report["client"].as_str().unwrap_or("?"));
        let read: Vec<Read> =
            serde_json::from_value(report["records"][topic].clone()).unwrap_or_else(|e| panic!("{at}: {e}"));
        let read: Vec<&Read> = read.iter().filter(|record| record.0 == partition).collect();
        if read.len() != wanted.len() {
            mistakes.push(format!("{at}: {} records instead of {}", read.len(), wanted.len()));
        }
        for (i, (read, wanted)) in read.iter().zip(&wanted).enumerate() {
            let Read(_, offset, timestamp, key, value, headers) = read;
            let same =
                *offset == i as i64 && *timestamp == wanted.timestamp && *key == wanted.key && *value == wanted.value;
            if !same || by_name(headers) != by_name(&wanted.headers) {
                let clip = |text: &Option<String>| text.as_ref().map(|t| t.chars().take(40).collect::<String>());
                mistakes.push(format!(
                    "{at} #{i}: offset {offset}, timestamp {timestamp}/{}, key {:?}/{:?}, value {:?}/{:?}, headers {headers:?}/{:?}",
                    wanted.timestamp, clip(key), clip(&wanted.key), clip(value), clip(&wanted.value), wanted.headers
                ));
                break;
            }
        }
    }
    mistakes
}

/// partition, offset, timestamp, key, value, headers
#[derive(Deserialize)]
struct Read(i32, i64, i64, Option<String>, Option<String>, Vec<(String, Option<String>)>);
