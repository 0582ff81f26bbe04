//! Golden bytes of every API in every version (`tests/golden/protocol/<Api>.hex`), as kafka-clients writes them: the walker lets
//! them through, and what the codec reads it writes again byte for byte. `tests/wire.rs` says how they are made.

use std::collections::BTreeSet;
use std::fs;

use bytes::Bytes;
use kafka_protocol::messages::ApiKey;

use crate::handlers::APIS;
use crate::handlers::samples::{request_again, response_again};
use crate::net::shapes;

/// One line of a golden file.
struct Golden {
    /// `request` or `response`.
    kind: String,
    version: i16,
    /// `full`: all fields are set; `bare`: all are null or empty that can be.
    fill: String,
    body: Bytes,
}

/// The golden file of `key`.
fn golden(key: ApiKey) -> Result<Vec<Golden>, String> {
    let file = format!("{}/../tests/golden/protocol/{key:?}.hex", env!("CARGO_MANIFEST_DIR"));
    let how = "MILLPOND_BLESS=1 make test ARGS=\"--test suite wire\" writes it";
    let text = fs::read_to_string(&file).map_err(|e| format!("{file}: {e}; {how}"))?;
    let line = |line: &str| {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        let version = words[1].parse().unwrap();
        Golden { kind: words[0].to_owned(), version, fill: words[2].to_owned(), body: bytes_of(words[3]) }
    };
    Ok(text.lines().map(line).collect())
}

/// The requests of `key` in the versions that are served: a corpus to start from.
pub(crate) fn golden_requests(key: ApiKey) -> Vec<(i16, Bytes)> {
    let requests = golden(key).unwrap().into_iter().filter(|golden| golden.kind == "request");
    requests.map(|golden| (golden.version, golden.body)).collect()
}

fn again(key: ApiKey, golden: &Golden) -> Result<Bytes, String> {
    let mut body = golden.body.clone();
    if golden.kind == "response" {
        return response_again(key, golden.version, &mut body);
    }
    shapes::check(key as i16, golden.version, &body)?;
    request_again(key, golden.version, &mut body)
}

#[test]
fn golden_bytes_are_read_and_written_alike() {
    let mut wrong = Vec::new();
    for api in APIS {
        let lines = match golden(api.key) {
            Ok(lines) => lines,
            Err(error) => {
                wrong.push(error);
                continue;
            }
        };
        let mut missing: BTreeSet<_> = (api.min..=api.max)
            .flat_map(|version| [("request", version), ("response", version)])
            .flat_map(|(kind, version)| [(kind, version, "full"), (kind, version, "bare")])
            .collect();
        for one in &lines {
            missing.remove(&(one.kind.as_str(), one.version, one.fill.as_str()));
            let at = format!("{:?} {} {} {}", api.key, one.kind, one.version, one.fill);
            match again(api.key, one) {
                Ok(again) if again == one.body => {}
                Ok(again) => wrong.push(format!("{at}: {again:02x?} is not {:02x?}", one.body)),
                Err(error) => wrong.push(format!("{at}: {error}")),
            }
        }
        wrong.extend(missing.into_iter().map(|line| format!("{:?} lacks {line:?}", api.key)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn bytes_of(hex: &str) -> Bytes {
    assert!(hex.len().is_multiple_of(2), "{hex}");
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}
