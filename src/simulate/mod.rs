//! `millpond simulate`: events of a described system, through a real Kafka producer over TCP, at a rate or as fast as it goes.

mod description;
mod encoder;
mod file;
mod generate;
mod keys;
mod report;
mod send;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use api::config::value::parse_duration;
use broker::Clock;

use crate::failure::Failure;
use crate::signals::Signals;
use crate::{serve, systems};
use description::{Description, Encoding};
pub use file::{FileOrder, write};
pub use generate::Shares;
pub use report::{Counts, Run};

/// Flags of the simulator.
#[derive(clap::Args)]
pub struct Args {
    /// A built-in system (music), one of its simulators (music:simulator), or a file that describes one
    system: String,
    /// Where the Kafka port answers
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9092")]
    bootstrap: String,
    /// The schema registry, for events with a schema
    #[arg(long, value_name = "URL")]
    registry: Option<String>,
    /// How values are written, instead of what the description says: plain JSON, or with a schema of the registry
    #[arg(long, value_parser = ["json", "json_schema", "avro"])]
    encoding: Option<String>,
    /// Topic to write to, instead of the one of the description
    #[arg(long)]
    topic: Option<String>,
    /// Events per second
    #[arg(long, default_value_t = 100.0, value_parser = positive)]
    rate: f64,
    /// No pause between events: the load test
    #[arg(long, conflicts_with = "rate")]
    as_fast_as_it_goes: bool,
    /// Stop after so many events; without it, at a signal
    #[arg(long)]
    count: Option<u64>,
    /// The same seed (and --start) gives the same events
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Share of events that are wrong in one of the described ways
    #[arg(long, default_value_t = 0.01, value_parser = share)]
    dirty: f64,
    /// Share of events that are far behind
    #[arg(long, default_value_t = 0.005, value_parser = share)]
    late: f64,
    /// Share of events that are the last clean one once more
    #[arg(long, default_value_t = 0.005, value_parser = share)]
    duplicates: f64,
    /// Spread the event times of --count events over this time, such as 2h; without --start it ends now
    #[arg(long, value_name = "DURATION", requires = "count", value_parser = duration)]
    spread: Option<i64>,
    /// Event time of the first event (RFC 3339), with --spread
    #[arg(long, value_name = "TIME", requires = "spread", value_parser = time)]
    start: Option<i64>,
    /// none, gzip, snappy, lz4 or zstd
    #[arg(long, default_value = "lz4", value_parser = ["none", "gzip", "snappy", "lz4", "zstd"])]
    compression: String,
    /// A librdkafka property as KEY=VALUE; may be given again
    #[arg(long, value_name = "KEY=VALUE", value_parser = property)]
    property: Vec<(String, String)>,
    /// Write a file of --count rows instead of sending
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// How --out is written, instead of what the description says
    #[arg(long, value_parser = ["csv", "ndjson", "json"])]
    format: Option<String>,
    /// Write the counts and rates as JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Write every event as a line of JSON, with the partition and offset that were acknowledged
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
}

/// What to send, where and how fast.
pub struct Plan {
    /// The name of the system or file, for reports.
    pub system: String,
    /// What it sends.
    pub description: Arc<Description>,
    /// `HOST:PORT` of the Kafka port.
    pub bootstrap: String,
    /// The schema registry's URL, for events with a schema.
    pub registry: Option<String>,
    /// How values are written.
    pub encoding: Encoding,
    /// The topic.
    pub topic: String,
    /// Events per second; none: as fast as it goes.
    pub rate: Option<f64>,
    /// How many; none: until stopped.
    pub count: Option<u64>,
    /// The seed of all draws.
    pub seed: u64,
    /// How many are not clean.
    pub shares: Shares,
    /// When events happen.
    pub times: Times,
    /// Compression codec.
    pub compression: String,
    /// More librdkafka properties.
    pub properties: Vec<(String, String)>,
    /// Where every event is written down.
    pub record: Option<PathBuf>,
    /// How often to say how it goes.
    pub tell_every: Option<Duration>,
}

/// When events happen.
#[derive(Clone, Debug)]
pub enum Times {
    /// When they are sent.
    Now(Clock),
    /// Evenly from the first for so many milliseconds, over so many events.
    Spread(i64, i64, u64),
}

impl Times {
    /// The time of an event, by its number.
    pub fn at(&self, index: u64) -> i64 {
        match self {
            Times::Now(clock) => clock.now_ms(),
            Times::Spread(start, span, count) => start + (*span as f64 * (index as f64 / *count as f64)) as i64,
        }
    }
}

/// The plans of a built-in system or a file, one per topic, at their defaults: 100 events per second together, now, without end.
pub fn plans(system: &str, bootstrap: &str, registry: Option<&str>) -> Result<Vec<Plan>, Failure> {
    let plan = |source| -> Result<Plan, Failure> {
        let description = Description::read(&source)?;
        let mut plan = Plan {
            system: system.to_owned(),
            topic: description.topic.clone(),
            encoding: description.encoding,
            description: Arc::new(description),
            bootstrap: bootstrap.to_owned(),
            registry: registry.map(str::to_owned),
            rate: None,
            count: None,
            seed: 1,
            shares: Shares { dirty: 0.01, late: 0.005, duplicates: 0.005 },
            times: Times::Now(Clock::system()),
            compression: "lz4".into(),
            properties: Vec::new(),
            record: None,
            tell_every: Some(Duration::from_secs(5)),
        };
        plan.pace(Some(100.0), None);
        Ok(plan)
    };
    let mut plans = systems::simulators(system)?.into_iter().map(plan).collect::<Result<Vec<_>, _>>()?;
    plans.retain(|plan| plan.description.file.is_none());
    Ok(plans)
}

impl Plan {
    /// Takes its share of a system's rate (none: as fast as it goes) and number of events (none: until stopped).
    pub fn pace(&mut self, rate: Option<f64>, count: Option<u64>) {
        let share = self.description.share;
        self.rate = rate.map(|rate| rate * share);
        self.count = count.map(|count| (count as f64 * share).round() as u64);
    }
}

/// Runs a plan on this thread until it is done or `stop` is set.
pub fn send(plan: &Plan, stop: &AtomicBool) -> Result<(Counts, Run), Failure> {
    send::run(plan, stop)
}

/// The files that a built-in system is described to have: where, below the data directory, and what they hold.
pub fn files(system: &str) -> Result<Vec<(String, FileOrder)>, Failure> {
    let mut files = Vec::new();
    for source in systems::simulators(system)? {
        let description = Arc::new(Description::read(&source)?);
        if let Some(file) = &description.file {
            let order = FileOrder {
                description: description.clone(),
                format: file.format.clone(),
                rows: file.rows,
                seed: 1,
                shares: Shares { dirty: 0.005, late: 0.0, duplicates: 0.005 },
                now_ms: Clock::system().now_ms(),
            };
            files.push((file.path.clone(), order));
        }
    }
    Ok(files)
}

/// Writes the file that `--out` names.
fn write_file(args: &Args, out: &std::path::Path) -> Result<(), Failure> {
    let sources = systems::simulators(&args.system)?;
    let mut described = Vec::new();
    for source in &sources {
        described.push(Description::read(source)?);
    }
    if described.len() > 1 {
        described.retain(|description| description.file.is_some());
    }
    let Some(description) = described.pop().filter(|_| described.is_empty()) else {
        let message = format!("--out writes one file: name one simulator, as in {}:simulator", args.system);
        return Err(Failure::Usage(message));
    };
    let file = description.file.clone();
    let order = FileOrder {
        format: args.format.clone().or(file.as_ref().map(|file| file.format.clone())).unwrap_or("ndjson".into()),
        rows: args.count.or(file.map(|file| file.rows)).unwrap_or(10_000),
        description: Arc::new(description),
        seed: args.seed,
        shares: Shares { dirty: args.dirty, late: args.late, duplicates: args.duplicates },
        now_ms: args.start.unwrap_or_else(|| Clock::system().now_ms()),
    };
    for (kind, count) in write(&order, out)?.into_iter().filter(|(_, count)| *count > 0) {
        println!("  {kind:<24} {count:>12}");
    }
    Ok(())
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    if let Some(out) = &args.out {
        return write_file(args, out);
    }
    let mut plans = plans(&args.system, &args.bootstrap, args.registry.as_deref())?;
    if plans.is_empty() {
        return Err(Failure::Usage(format!("{} writes a file: say where with --out FILE", args.system)));
    }
    let single = args.topic.is_some() || args.report.is_some() || args.record.is_some();
    if single && plans.len() > 1 {
        let topics: Vec<&str> = plans.iter().map(|plan| plan.topic.as_str()).collect();
        return Err(Failure::Usage(format!(
            "{} writes to {}: with --topic, --report and --record name one of its simulators, as in {}:simulator",
            args.system,
            topics.join(", "),
            args.system
        )));
    }
    plans.iter_mut().try_for_each(|plan| args.apply(plan))?;
    if let Some(wanted) = args.encoding().filter(|wanted| plans.iter().all(|plan| plan.encoding != *wanted)) {
        let message = format!("{} describes no schema for --encoding {}", args.system, wanted.word());
        return Err(Failure::Usage(message));
    }
    let mut failed = 0;
    for (counts, run) in until_signal(plans)? {
        print!("{}", counts.text(&run));
        if let Some(path) = &args.report {
            let text = format!("{:#}\n", counts.to_json(&run));
            std::fs::write(path, text)
                .map_err(|error| Failure::Failed(format!("{} cannot be written: {error}", path.display())))?;
        }
        failed += counts.failed;
    }
    if failed > 0 {
        return Err(Failure::Failed(format!("{failed} records were not acknowledged")));
    }
    Ok(())
}

impl Args {
    fn encoding(&self) -> Option<Encoding> {
        self.encoding.as_deref().and_then(Encoding::of)
    }

    fn apply(&self, plan: &mut Plan) -> Result<(), Failure> {
        plan.topic = self.topic.clone().unwrap_or_else(|| plan.topic.clone());
        if let Some(encoding) = self.encoding().filter(|encoding| plan.description.can(*encoding)) {
            plan.encoding = encoding;
        }
        plan.pace((!self.as_fast_as_it_goes).then_some(self.rate), self.count);
        plan.seed = self.seed;
        plan.shares = Shares { dirty: self.dirty, late: self.late, duplicates: self.duplicates };
        if plan.shares.dirty + plan.shares.late + plan.shares.duplicates > 1.0 {
            return Err(Failure::Usage("--dirty, --late and --duplicates together are more than 1".into()));
        }
        if let (Some(span), Some(count)) = (self.spread, plan.count) {
            let start = self.start.unwrap_or_else(|| Clock::system().now_ms() - span);
            plan.times = Times::Spread(start, span, count.max(1));
        }
        plan.compression = self.compression.clone();
        plan.properties = self.property.clone();
        plan.record = self.record.clone();
        Ok(())
    }
}

/// Runs the plans beside each other; the first signal stops sending and the second ends the process.
fn until_signal(plans: Vec<Plan>) -> Result<Vec<(Counts, Run)>, Failure> {
    serve::block_on(async {
        let mut signals =
            Signals::listen().map_err(|error| Failure::Failed(format!("cannot listen for signals: {error}")))?;
        let stop = Arc::new(AtomicBool::new(false));
        let start = |plan: Plan| {
            let told = stop.clone();
            tokio::task::spawn_blocking(move || send(&plan, &told))
        };
        let mut sending = futures::future::try_join_all(plans.into_iter().map(start));
        let results = tokio::select! {
            results = &mut sending => results,
            _ = signals.next() => {
                stop.store(true, Ordering::Relaxed);
                signals.end_at_the_next();
                sending.await
            }
        };
        results.map_err(|error| Failure::Failed(format!("the simulator failed: {error}")))?.into_iter().collect()
    })
}

fn share(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|share| (0.0..=1.0).contains(share)).ok_or_else(|| "must be from 0 to 1".into())
}

fn positive(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|rate| *rate > 0.0 && f64::is_finite(*rate)).ok_or_else(|| "must be above 0".into())
}

fn duration(text: &str) -> Result<i64, String> {
    parse_duration(text).filter(|ms| *ms > 0).ok_or_else(|| "must be a duration such as 10m or 2h".into())
}

fn time(text: &str) -> Result<i64, String> {
    let parsed = chrono::DateTime::parse_from_rfc3339(text);
    parsed
        .map(|time| time.timestamp_millis())
        .map_err(|error| format!("must be a time such as 2026-11-20T08:00:00Z: {error}"))
}

fn property(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("must be KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}
