//! One file by `http://` or `https://`: fetched whole into the data directory, then read like any other.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::Duration;

use super::discover::{self, Found};

/// Largest file fetched.
const BYTES_MAX: u64 = 16 << 30;
/// Longest wait for a connection and for the head of the answer.
const CONNECT_MAX: Duration = Duration::from_secs(30);
/// Longest time a fetch may take.
const FETCH_MAX: Duration = Duration::from_secs(3_600);

/// Whether a path is a URL.
pub(crate) fn is_remote(path: &str) -> bool {
    path.starts_with("http://") || path.starts_with("https://")
}

/// Fetches a URL to `<folder>/<source>.download`.
pub(crate) fn fetch(url: &str, folder: &Path, source: &str) -> io::Result<Found> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_connect(Some(CONNECT_MAX))
        .timeout_recv_response(Some(CONNECT_MAX))
        .timeout_global(Some(FETCH_MAX))
        .build()
        .into();
    let answer = agent.get(url).call().map_err(|error| io::Error::other(error.to_string()))?;
    fs::create_dir_all(folder)?;
    let path = folder.join(format!("{source}.download"));
    let half = folder.join(format!("{source}.download.part"));
    let mut file = File::create(&half)?;
    let mut body = answer.into_body().into_with_config().limit(BYTES_MAX).reader();
    io::copy(&mut body, &mut file)?;
    file.sync_all()?;
    fs::rename(&half, &path)?;
    let name = url.rsplit('/').find(|part| !part.is_empty()).unwrap_or(url).to_owned();
    discover::look(path, name)
}
