//! The first record of a broker that is starting.

use std::time::{Duration, Instant};

use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::client;
use super::reports::Reports;
use crate::Outcome;

/// Waits until a broker that is starting acknowledges a record to a topic that it creates by itself.
///
/// # Errors
/// It did not until the deadline.
pub fn first_record(bootstrap: &str, deadline: Instant) -> Outcome<()> {
    let mut config = client(bootstrap);
    let hasty = [
        ("acks", "all"),
        ("linger.ms", "0"),
        ("reconnect.backoff.ms", "5"),
        ("reconnect.backoff.max.ms", "20"),
        ("retry.backoff.ms", "10"),
        ("topic.metadata.refresh.fast.interval.ms", "10"),
    ];
    for (name, value) in hasty {
        config.set(name, value);
    }
    let producer: BaseProducer<Reports> = config.create_with_context(Reports::new(1))?;
    let due = producer.context().opaque(Instant::now());
    let record = BaseRecord::<(), [u8], usize>::with_opaque_to("bench-start", due).payload(b"first");
    producer.send(record).map_err(|(error, _)| error)?;
    while Instant::now() < deadline {
        producer.poll(Duration::from_millis(2));
        let seen = producer.context().seen();
        match (&seen.failed, seen.last) {
            (Some(error), _) => return Err(format!("the first record was refused: {error}").into()),
            (None, Some(_)) => return Ok(()),
            (None, None) => {}
        }
    }
    Err("no record was acknowledged in time".into())
}
