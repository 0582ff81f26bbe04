//! Ports for servers that must be told theirs before they start; the benches take theirs here, too.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

/// The first of the ports that are given out. Linux gives those from 32768 on to whoever connects: one of them can be taken between
/// the look and its use.
const FIRST_PORT: u16 = 20_000;
const PORTS: u16 = 12_000;

/// A port that is free, and that nobody else in this run is given.
pub fn free_port() -> u16 {
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    let own = (std::process::id() as u16).wrapping_mul(61);
    loop {
        let port = FIRST_PORT + own.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed)) % PORTS;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
