//! Group commit: many producers, each with a connection of its own and one small record under way.

use std::fmt::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::brokers::{Fleet, Product, Running};
use crate::raw::{self, OneRecord};
use crate::report::quantiles;
use crate::rounds::{self, Rounds, take_turns};
use crate::settings::Settings;
use crate::{Outcome, load, machine};

const PARTITIONS: i32 = 6;
const RECORD_BYTES: usize = 100;
/// From the first request to the first that counts.
const UNMEASURED: Duration = Duration::from_secs(1);
/// With and without, in the order of the table.
const FSYNC: [bool; 2] = [true, false];

/// One promise in one round.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Records acknowledged per second.
    pub records: f64,
    /// p50, p99 and p99.9 of request to answer, in milliseconds.
    pub answer_ms: [f64; 3],
    /// CPU seconds of the broker per million records.
    pub cpu_per_million: f64,
}

/// What the part gave: for each broker and round one entry per entry of `FSYNC`.
#[derive(Debug)]
pub struct GroupCommit {
    rounds: Vec<Rounds<Vec<Measured>>>,
    producers: usize,
    during: Duration,
}

/// When requests begin to count, and when they no longer do.
#[derive(Clone, Copy)]
struct Window {
    from: Instant,
    until: Instant,
}

/// Runs the part.
///
/// # Errors
/// A broker that fails anything ends the run.
pub fn run(settings: &Settings, scratch: &Path) -> Outcome<GroupCommit> {
    let start = |product: &Product| Fleet::start(*product, scratch, "group-commit");
    let mut fleets: Vec<Fleet> = settings.brokers.iter().map(start).collect::<Outcome<_>>()?;
    let during = Duration::from_millis(settings.group_commit_ms as u64);
    let rounds = take_turns(settings, settings.warmup_rounds, |turn, round| {
        let promises = FSYNC.iter().map(|fsync| {
            let broker = fleets[turn].broker(*fsync);
            let topic = format!("group-commit-{round}-{fsync}");
            let flush = load::flush_each(broker.product, *fsync);
            measure(broker, (&topic, flush), (settings.producers, during)).map_err(|error| broker.explain(error).into())
        });
        promises.collect::<Outcome<Vec<_>>>()
    })?;
    Ok(GroupCommit { rounds, producers: settings.producers, during })
}

fn measure(
    broker: &Running,
    (topic, topic_settings): (&str, &[(&str, &str)]),
    (producers, during): (usize, Duration),
) -> Outcome<Measured> {
    load::create_topics(&broker.bootstrap, &[topic], PARTITIONS, topic_settings)?;
    machine::settle()?;
    // one thread for all of them, so that the broker has as much of the machine as it can get
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut answers, cpu) = runtime.block_on(offer(broker, topic, (producers, during)))?;
    load::delete_topics(&broker.bootstrap, &[topic])?;
    Ok(Measured {
        records: answers.len() as f64 / during.as_secs_f64(),
        cpu_per_million: cpu / answers.len() as f64 * 1e6,
        answer_ms: quantiles(&mut answers),
    })
}

/// Nanoseconds of each request that was answered within the window, and what it cost the broker in CPU seconds.
async fn offer(broker: &Running, topic: &str, (producers, during): (usize, Duration)) -> Outcome<(Vec<u64>, f64)> {
    let mut connected = Vec::with_capacity(producers);
    for index in 0..producers {
        let stream = TcpStream::connect(&broker.bootstrap).await?;
        stream.set_nodelay(true)?;
        let partition = i32::try_from(index)? % PARTITIONS;
        connected.push((stream, OneRecord::new(topic, partition, &[b'x'; RECORD_BYTES])?));
    }
    let from = Instant::now() + UNMEASURED;
    let window = Window { from, until: from + during };
    let mut running = JoinSet::new();
    for (stream, record) in connected {
        running.spawn(producer(stream, record, window));
    }
    tokio::time::sleep_until(window.from.into()).await;
    let before = machine::cpu_seconds(broker.pid())?;
    tokio::time::sleep_until(window.until.into()).await;
    let cpu = machine::cpu_seconds(broker.pid())? - before;
    let mut answers = Vec::new();
    while let Some(ended) = running.join_next().await {
        answers.extend(ended??);
    }
    if answers.is_empty() {
        return Err("no record was acknowledged".into());
    }
    Ok((answers, cpu))
}

/// Sends one record after the other, the next when the last is answered.
async fn producer(mut stream: TcpStream, mut record: OneRecord, window: Window) -> Outcome<Vec<u64>> {
    let mut answers = Vec::new();
    let mut answer = Vec::new();
    loop {
        let sent = Instant::now();
        stream.write_all(record.bytes()).await?;
        answer.resize(raw::answer_bytes(stream.read_i32().await?)?, 0);
        stream.read_exact(&mut answer).await?;
        let now = Instant::now();
        record.check(&mut Bytes::copy_from_slice(&answer))?;
        if now >= window.until {
            return Ok(answers);
        }
        if now >= window.from {
            answers.push(now.duration_since(sent).as_nanos() as u64);
        }
    }
}

impl GroupCommit {
    /// Median over the rounds of one figure, if it was measured.
    pub fn figure(&self, product: Product, fsync: bool, of: impl Fn(&Measured) -> f64) -> Option<f64> {
        let at = FSYNC.iter().position(|known| *known == fsync)?;
        rounds::figure(&self.rounds, product, |round| of(&round[at]))
    }

    /// Adds its section.
    ///
    /// # Errors
    /// None in practice.
    pub fn describe(&self, text: &mut String) -> Outcome<()> {
        let (producers, seconds) = (self.producers, self.during.as_secs_f64());
        writeln!(text, "## Group commit\n")?;
        writeln!(
            text,
            "{producers} producers, one connection each, one record of {RECORD_BYTES} B at a time, acks all, the next when the \
             last is answered; over {PARTITIONS} partitions, for {seconds:.0} s. They are tasks of one thread that speak the \
             protocol themselves, and check each answer.\n"
        )?;
        writeln!(
            text,
            "| fsync | broker | records/s | answer p50 ms | p99 | p99.9 | CPU s per million |\n|---|---|---|---|---|---|---|"
        )?;
        for (at, fsync) in FSYNC.iter().enumerate() {
            for broker in &self.rounds {
                let over = |of: fn(&Measured) -> f64| broker.median(|round| of(&round[at]));
                let (fsync, name) = (if *fsync { "on" } else { "off" }, broker.product.name());
                write!(text, "| {fsync} | {name} | {:.0} |", over(|one| one.records))?;
                for quantile in 0..3 {
                    write!(text, " {:.2} |", broker.median(|round| round[at].answer_ms[quantile]))?;
                }
                writeln!(text, " {:.1} |", over(|one| one.cpu_per_million))?;
            }
        }
        writeln!(text)?;
        Ok(())
    }
}
