//! What sealing costs producers: the real server under full load of librdkafka, with a table that settles meanwhile and one that
//! does not, in turns.

use std::fmt::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use serde_json::Value;

use super::log::PARTITIONS;
use super::rows::{Encoding, TABLE, Writer, stream_toml};
use crate::Outcome;
use crate::report::median;
use crate::server::Server;
use crate::settings::Settings;

/// Records that are produced at most.
const RECORDS_MAX: usize = 5_000_000;
/// Different records; they are sent over and over.
const RECORDS_APART: usize = 100_000;
/// How long a start and the last acknowledgement may take.
const WAIT_MAX: Duration = Duration::from_secs(120);
/// Settles often enough that it is at work all the time.
const SEALING: &str = "flush_bytes = \"8MiB\"";
/// Settles nothing while the load lasts.
const STILL: &str = "flush_bytes = \"16GiB\"\nflush_rows = 100000000\nflush_age = \"1d\"";

/// One load.
#[derive(Clone, Copy, Debug)]
struct Load {
    records_per_second: f64,
    /// CPU seconds of the server.
    cpu_seconds: f64,
    /// Share of the records that were settled when the last was acknowledged.
    settled: f64,
}

/// What the part gave.
#[derive(Debug)]
pub struct Sealed {
    records: usize,
    record_bytes: usize,
    still: Vec<Load>,
    sealing: Vec<Load>,
}

/// Produces in turns without and with sealing; who goes first changes from round to round.
///
/// # Errors
/// The server fails, or has other records than were sent.
pub fn run(settings: &Settings, scratch: &Path) -> Outcome<Sealed> {
    let records = settings.lake_rows.min(RECORDS_MAX);
    let writer = Writer::new(Encoding::Json)?;
    // as many as make one day or less, so that they are of one slice
    let values: Vec<Vec<u8>> =
        (0..RECORDS_APART).map(|number| writer.value(number, RECORDS_APART * 20)).collect::<Outcome<_>>()?;
    let mut sealed = Sealed { records, record_bytes: values[0].len(), still: Vec::new(), sealing: Vec::new() };
    for round in 0..settings.warmup_rounds + settings.rounds {
        for turn in 0..2 {
            let seals = (round + turn) % 2 == 1;
            let folder = scratch.join(format!("sealing-{round}-{turn}"));
            let load = load(&folder, if seals { SEALING } else { STILL }, &values, records)?;
            eprintln!("bench: lake round {round} {}: {load:?}", if seals { "sealing" } else { "not sealing" });
            if round >= settings.warmup_rounds {
                if seals { sealed.sealing.push(load) } else { sealed.still.push(load) }
            }
            std::fs::remove_dir_all(&folder)?;
        }
    }
    Ok(sealed)
}

fn load(folder: &Path, table: &str, values: &[Vec<u8>], records: usize) -> Outcome<Load> {
    let toml = stream_toml(PARTITIONS) + &format!("[[lake.tables]]\ntopic = \"{TABLE}\"\nmerge = false\n{table}\n");
    let server = Server::start(folder, &toml)?;
    let before = server.cpu_seconds()?;
    let seconds = produce(&server.kafka, values, records)?;
    let cpu_seconds = server.cpu_seconds()? - before;
    let (settled, stored) = settled(&server.http)?;
    if stored != records as i64 {
        return Err(format!("{stored} of {records} records are stored").into());
    }
    let settled = settled as f64 / records as f64;
    Ok(Load { records_per_second: records as f64 / seconds, cpu_seconds, settled })
}

/// Sends the records as fast as the client's queue takes them; seconds to the last acknowledgement.
fn produce(bootstrap: &str, values: &[Vec<u8>], records: usize) -> Outcome<f64> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("acks", "all").set("linger.ms", "5");
    let producer: ThreadedProducer<_> = config.create()?;
    let started = Instant::now();
    for (number, value) in values.iter().cycle().take(records).enumerate() {
        let partition = i32::try_from(number % PARTITIONS.unsigned_abs() as usize)?;
        let mut record = BaseRecord::<(), [u8]>::to(TABLE).partition(partition).payload(value);
        loop {
            match producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => record = back,
                Err((error, _)) => return Err(error.into()),
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    producer.flush(WAIT_MAX)?;
    Ok(started.elapsed().as_secs_f64())
}

/// Records of the topic that are settled, and all.
fn settled(http: &str) -> Outcome<(i64, i64)> {
    let text = ureq::get(format!("http://{http}/v1/lake")).call()?.body_mut().read_to_string()?;
    let answer: Value = serde_json::from_str(&text)?;
    let table = answer["tables"].as_array().and_then(|tables| tables.iter().find(|table| table["topic"] == TABLE));
    let table = table.ok_or_else(|| format!("the lake has no table {TABLE}: {answer}"))?;
    let sum = |name: &str| table[name].as_object().iter().flat_map(|all| all.values()).filter_map(Value::as_i64).sum();
    Ok((sum("marks"), sum("high_watermarks")))
}

impl Sealed {
    /// Records per second with and without sealing.
    pub fn sealing_and_still(&self) -> [f64; 2] {
        [&self.sealing, &self.still]
            .map(|loads| median(&mut loads.iter().map(|one| one.records_per_second).collect::<Vec<_>>()))
    }

    /// Adds its table.
    ///
    /// # Errors
    /// None in practice.
    pub fn describe(&self, text: &mut String) -> Outcome<()> {
        let over = |loads: &[Load], of: fn(&Load) -> f64| median(&mut loads.iter().map(of).collect::<Vec<_>>());
        let Self { records, record_bytes, still, sealing } = self;
        let [with, without] = self.sealing_and_still();
        writeln!(
            text,
            "Sealing: {records} JSON records of about {record_bytes} B through librdkafka to {PARTITIONS} partitions as fast as it goes, acks all, \
             fsync, into the real server, whose stream reads them in both cases; client and server share the machine's cores. Sealing: every \
             8 MiB of a partition become a file meanwhile. It costs producers {:.0} % of their throughput.\n",
            100.0 * (1.0 - with / without)
        )?;
        writeln!(
            text,
            "| | records/s | MB/s of values | CPU s of the server | settled when the last was acknowledged |"
        )?;
        writeln!(text, "|---|---|---|---|---|")?;
        for (name, loads) in [("not sealing", still), ("sealing", sealing)] {
            let rate = over(loads, |one| one.records_per_second);
            writeln!(
                text,
                "| {name} | {rate:.0} | {:.0} | {:.1} | {:.0} % |",
                rate * *record_bytes as f64 / 1e6,
                over(loads, |one| one.cpu_seconds),
                100.0 * over(loads, |one| one.settled)
            )?;
        }
        writeln!(text)?;
        Ok(())
    }
}
