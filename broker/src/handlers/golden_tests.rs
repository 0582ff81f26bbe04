//! Golden bytes of every API in every version (`tests/golden/protocol/<Api>.hex`), as kafka-clients writes them: the walker lets
//! them through, and what the codec reads it writes again byte for byte. `tests/wire.rs` says how they are made.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use bytes::Bytes;

use crate::handlers::APIS;
use crate::handlers::samples::{request_again, response_again};
use crate::net::shapes;

/// Fields that the codec, whose schemas are those of Kafka 4.1, cannot hold; none is sent by this broker.
const LATER_FIELDS: &[(&str, i16)] = &[];

#[test]
fn golden_bytes_are_read_and_written_alike() {
    let mut wrong = Vec::new();
    for api in APIS {
        let file = format!("{}/../tests/golden/protocol/{:?}.hex", env!("CARGO_MANIFEST_DIR"), api.key);
        let Ok(text) = fs::read_to_string(Path::new(&file)) else {
            wrong.push(format!("{file} is missing: run MILLPOND_BLESS=1 make test ARGS=\"--test suite wire\""));
            continue;
        };
        let mut seen = BTreeSet::new();
        for line in text.lines() {
            let mut words = line.splitn(4, ' ');
            let mut word = || words.next().unwrap();
            let (kind, version, fill, body) = (word(), word().parse().unwrap(), word(), bytes_of(word()));
            seen.insert((kind.to_owned(), version, fill.to_owned()));
            let again = match kind {
                "request" => shapes::check(api.key as i16, version, &body)
                    .and_then(|_| request_again(api.key, version, &mut body.clone())),
                _ => response_again(api.key, version, &mut body.clone()),
            };
            let known = LATER_FIELDS.contains(&(&format!("{:?}", api.key), version));
            match again {
                Ok(again) if again == body || known => {}
                Ok(again) => wrong.push(format!("{:?} {kind} {version} {fill}: {again:02x?} is not {body:02x?}", api.key)),
                Err(error) => wrong.push(format!("{:?} {kind} {version} {fill}: {error}", api.key)),
            }
        }
        for version in api.min..=api.max {
            for (kind, fill) in [("request", "full"), ("request", "bare"), ("response", "full"), ("response", "bare")] {
                if !seen.contains(&(kind.to_owned(), version, fill.to_owned())) {
                    wrong.push(format!("{file} lacks {kind} {version} {fill}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn bytes_of(hex: &str) -> Bytes {
    assert!(hex.len().is_multiple_of(2), "{hex}");
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}
