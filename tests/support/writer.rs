//! Producers of librdkafka, and servers that are killed while they write.

use super::server::Server;
use rand::Rng;
use rand::rngs::StdRng;
use rdkafka::ClientConfig;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// A producer whose records are there once each, when they are acknowledged.
pub fn idempotent(address: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", address).set("enable.idempotence", "true").set("acks", "all");
    config
}

/// The same, for a server that is killed and started again meanwhile.
pub fn patient(address: &str) -> ClientConfig {
    let mut config = idempotent(address);
    config.set("linger.ms", "2").set("message.timeout.ms", "600000");
    config.set("reconnect.backoff.ms", "20").set("reconnect.backoff.max.ms", "200");
    config
}

/// Kills the server and starts it again so often, while `write` writes to its address until it is told to stop. Gives what it wrote.
pub fn write_over_kills<T: Send + 'static>(
    server: &mut Server,
    (kills, random): (u32, &mut StdRng),
    write: impl FnOnce(&str, &AtomicBool) -> T + Send + 'static,
) -> T {
    let stop = Arc::new(AtomicBool::new(false));
    let writer = thread::spawn({
        let (address, stop) = (server.kafka.clone(), stop.clone());
        move || write(&address, &stop)
    });
    for _ in 0..kills {
        thread::sleep(Duration::from_millis(random.random_range(100..900)));
        server.kill9();
        server.start_again();
    }
    thread::sleep(Duration::from_millis(300));
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap()
}
