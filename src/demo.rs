//! `millpond demo`: the server with built-in systems, and their simulators, which write to it over TCP as any client would.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use api::config::{Config, Inputs, Source};

use crate::failure::Failure;
use crate::simulate::{self, Plan, Times};
use crate::systems::{self, System};
use crate::{generate, serve};

/// What a fresh demo is given as its past: so many events over so long.
const HISTORY_EVENTS: u64 = 30_000;
const HISTORY_MS: i64 = 2 * 3_600_000;

/// Flags of the demo; those of `serve` in it are a group of this name already.
#[derive(clap::Args)]
#[group(skip)]
pub struct Args {
    /// The systems to run; without any, all that are built in
    systems: Vec<String>,
    /// Events per second of each system
    #[arg(long, default_value_t = 200.0)]
    rate: f64,
    #[command(flatten)]
    serve: serve::Args,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let systems = chosen(&args.systems)?;
    if !(args.rate >= 0.0 && args.rate.is_finite()) {
        return Err(Failure::Usage("--rate must be a number of events per second; 0 sends none".into()));
    }
    let source = |system: &&System| Source::text(&format!("config/{}/system.toml", system.name), system.config);
    let folder = if args.systems.is_empty() { "all".to_owned() } else { names(&systems, "+") };
    let data_dir = home().map(|home| ("broker.data_dir", home.join(folder).display().to_string()));
    let registry = ("http.registry_bind", registry_address(args.serve.http.as_deref()).to_owned());
    let inputs = Inputs {
        sources: systems.iter().map(source).collect(),
        defaults: data_dir.into_iter().chain([registry]).collect(),
        ..Inputs::default()
    };
    let config = serve::configure(args.serve.gather(inputs)?)?;
    write_samples(&systems, &config)?;
    let stop = Arc::new(AtomicBool::new(false));
    let (rate, feed) = (args.rate, stop.clone());
    let ready = |running: &api::Running, config: &Config| {
        let kafka = reachable(running, config);
        welcome(&names(&systems, ", "), running, config, &kafka);
        write_data(&systems, &config.broker.data_dir)?;
        if rate == 0.0 {
            return Ok(None);
        }
        let registry = format!("http://{}/registry", local(&running.http().to_string()));
        start_simulators(plans(&systems, (&kafka, &registry), rate, running.broker())?, feed).map(Some)
    };
    serve::block_on(serve::serve(config, ready, stop))
}

/// Writes the files that the systems are described to have, once.
fn write_samples(systems: &[&System], config: &Config) -> Result<(), Failure> {
    for system in systems {
        for (name, order) in simulate::files(system.name)? {
            let path = config.broker.data_dir.join(name);
            if !path.exists() {
                simulate::write(&order, &path)?;
            }
        }
    }
    Ok(())
}

/// Writes the sample files of the systems that have some, once, while the server runs: their sources watch for them. A folder is there
/// whole or not at all.
fn write_data(systems: &[&System], data_dir: &Path) -> Result<(), Failure> {
    for system in systems {
        let place = data_dir.join(system.name);
        let Some(text) = system.data.filter(|_| !place.exists()) else { continue };
        let samples = generate::read(&Source::text(&format!("config/{}/data.toml", system.name), text))?;
        let growing = data_dir.join(format!(".{}.part", system.name));
        let write = move || {
            let written = generate::write(&samples, &growing).and_then(|files| {
                let moved = std::fs::rename(&growing, &place).map(|()| files);
                moved.map_err(|error| Failure::Failed(format!("{} cannot be made: {error}", place.display())))
            });
            if let Err(failure) = written {
                eprintln!("millpond: no sample files: {failure}; the server runs on");
            }
        };
        std::thread::Builder::new()
            .name("samples".into())
            .spawn(write)
            .map_err(|error| Failure::Failed(format!("cannot start the writing of sample files: {error}")))?;
    }
    Ok(())
}

fn chosen(names: &[String]) -> Result<Vec<&'static System>, Failure> {
    if names.is_empty() {
        return Ok(systems::SYSTEMS.iter().collect());
    }
    let mut chosen: Vec<&'static System> = Vec::new();
    for name in names {
        let system = systems::find(name)?;
        if !chosen.iter().any(|other| other.name == system.name) {
            chosen.push(system);
        }
    }
    Ok(chosen)
}

fn names(systems: &[&System], between: &str) -> String {
    systems.iter().map(|system| system.name).collect::<Vec<_>>().join(between)
}

/// Where the schema registry of a demo listens: its usual port, or a free one when HTTP is to take a free one, too.
fn registry_address(http: Option<&str>) -> &'static str {
    if http.is_some_and(|address| address.ends_with(":0")) { "127.0.0.1:0" } else { "127.0.0.1:8081" }
}

/// Whether `topic` holds no record yet.
fn is_fresh(broker: &broker::Broker, topic: &str) -> bool {
    let topic = broker.catalog().topic(topic);
    topic.is_none_or(|topic| topic.partitions().iter().all(|partition| partition.high_watermark() == 0))
}

/// `$XDG_DATA_HOME/millpond/demo`, or what stands for it; none without a home.
fn home() -> Option<PathBuf> {
    let named = |name: &str| std::env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from);
    named("XDG_DATA_HOME")
        .or_else(|| named("HOME").map(|path| path.join(".local/share")))
        .map(|path| path.join("millpond/demo"))
}

/// An address by which this machine reaches the Kafka port.
fn reachable(running: &api::Running, config: &Config) -> String {
    local(&running.kafka().map_or_else(|| config.broker.listeners[0].bind.clone(), |address| address.to_string()))
}

/// The address of this machine for one that listens on all of them.
fn local(bound: &str) -> String {
    bound.replace("0.0.0.0:", "127.0.0.1:").replace("[::]:", "[::1]:")
}

fn welcome(systems: &str, running: &api::Running, config: &Config, kafka: &str) {
    let topic = config.topics.first().map_or("TOPIC", |topic| topic.name.as_str());
    let stream = config.engine.streams.first().map_or("STREAM", |stream| stream.name.as_str());
    let views = running.engine().views();
    let view = views.first().map_or("VIEW", |view| view.name.as_str());
    let http = local(&running.http().to_string());
    let registry = running.registry().map_or_else(|| format!("{http}/registry"), |own| local(&own.to_string()));
    eprintln!(
        "
  Millpond runs {systems}.

  page     http://{http}/
  Kafka    {kafka}
           kcat -b {kafka} -t {topic} -o -5 -e
  API      http://{http}/v1/views
           curl 'http://{http}/v1/views/{view}?limit=5'
  schemas  http://{registry}/subjects
  SQL      millpond sql --http {http} 'SELECT count(*) FROM {stream}'
  Parquet  {}
  data     {}

  Ctrl-C stops it; the next start goes on where this one ended.
",
        config.lake.url,
        config.broker.data_dir.display()
    );
}

/// A system's simulators: what happened before, one topic after the other, as joins want what they join to; then what goes on, all at once.
#[derive(Default)]
struct Feeds {
    past: Vec<Plan>,
    live: Vec<Plan>,
}

/// What each system's simulators do: a topic that is empty is given a past first. Others may be at work already (files are read as
/// soon as the server is ready).
fn plans(
    systems: &[&System],
    (kafka, registry): (&str, &str),
    rate: f64,
    broker: &broker::Broker,
) -> Result<Vec<Feeds>, Failure> {
    let now_ms = broker::Clock::system().now_ms();
    let mut all = Vec::new();
    for system in systems {
        let mut feeds = Feeds::default();
        let past = simulate::plans(system.name, kafka, Some(registry))?;
        for mut past in past.into_iter().filter(|past| is_fresh(broker, &past.topic)) {
            past.pace(None, Some(HISTORY_EVENTS));
            let count = past.count.unwrap_or(0).max(1);
            past.times = Times::Spread(now_ms - HISTORY_MS, HISTORY_MS, count);
            past.tell_every = None;
            feeds.past.push(past);
        }
        for mut live in simulate::plans(system.name, kafka, Some(registry))? {
            live.pace(Some(rate), None);
            live.seed = u64::try_from(now_ms).unwrap_or(1);
            live.tell_every = Some(Duration::from_secs(30));
            feeds.live.push(live);
        }
        all.push(feeds);
    }
    Ok(all)
}

/// One thread runs them all: a thread for each system's past, then one for each of its live topics.
fn start_simulators(systems: Vec<Feeds>, stop: Arc<AtomicBool>) -> Result<JoinHandle<()>, Failure> {
    let run = move || {
        std::thread::scope(|scope| {
            for Feeds { past, live } in &systems {
                let stop = &stop;
                scope.spawn(move || {
                    past.iter().for_each(|plan| feed(plan, stop));
                    live.iter().for_each(|plan| drop(scope.spawn(move || feed(plan, stop))));
                });
            }
        });
    };
    std::thread::Builder::new()
        .name("simulators".into())
        .spawn(run)
        .map_err(|error| Failure::Failed(format!("cannot start the simulators: {error}")))
}

/// Runs one plan; what goes wrong is said and leaves the server running.
fn feed(plan: &Plan, stop: &AtomicBool) {
    if stop.load(Ordering::Relaxed) {
        return;
    }
    match simulate::send(plan, stop) {
        Ok((counts, run)) if !stop.load(Ordering::Relaxed) => eprint!("{}", counts.text(&run)),
        Ok(_) => {}
        Err(failure) => eprintln!("millpond: the simulator stopped: {failure}; the server runs on"),
    }
}
