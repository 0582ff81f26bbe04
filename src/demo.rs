//! `millpond demo`: the server with a built-in system, and that system's simulator, which writes to it over TCP as any client would.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use api::config::{Config, Inputs, Source};

use crate::failure::Failure;
use crate::simulate::{self, Plan, Times};
use crate::{serve, systems};

/// What a fresh demo is given as its past: so many events over so long.
const HISTORY_EVENTS: u64 = 30_000;
const HISTORY_MS: i64 = 2 * 3_600_000;

/// Flags of the demo.
#[derive(clap::Args)]
pub struct Args {
    /// The system to run: music
    #[arg(default_value = "music")]
    system: String,
    /// Events per second
    #[arg(long, default_value_t = 200.0)]
    rate: f64,
    #[command(flatten)]
    serve: serve::Args,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let system = systems::find(&args.system)?;
    if !(args.rate >= 0.0 && args.rate.is_finite()) {
        return Err(Failure::Usage("--rate must be a number of events per second; 0 sends none".into()));
    }
    let source = Source::text(&format!("config/{}/system.toml", system.name), system.config);
    let data_dir = home().map(|home| ("broker.data_dir", home.join(system.name).display().to_string()));
    let inputs = Inputs { sources: vec![source], defaults: data_dir.into_iter().collect(), ..Inputs::default() };
    let config = serve::configure(args.serve.gather(inputs)?)?;
    let stop = Arc::new(AtomicBool::new(false));
    let (rate, feed) = (args.rate, stop.clone());
    let ready = |running: &api::Running, config: &Config| {
        let address = reachable(running, config);
        welcome(system.name, running, config, &address);
        if rate == 0.0 {
            return Ok(None);
        }
        start_simulator(system.name, address, rate, is_fresh(running), feed).map(Some)
    };
    serve::runtime()?.block_on(serve::serve(config, ready, stop))
}

/// Whether no topic holds a record yet.
fn is_fresh(running: &api::Running) -> bool {
    running
        .broker()
        .catalog()
        .topics()
        .iter()
        .all(|topic| topic.partitions().iter().all(|partition| partition.high_watermark() == 0))
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
    let bound = running.kafka().map_or_else(|| config.broker.listeners[0].bind.clone(), |address| address.to_string());
    bound.replace("0.0.0.0:", "127.0.0.1:").replace("[::]:", "[::1]:")
}

fn welcome(system: &str, running: &api::Running, config: &Config, kafka: &str) {
    let topic = config.topics.first().map_or("TOPIC", |topic| topic.name.as_str());
    let stream = config.engine.streams.first().map_or("STREAM", |stream| stream.name.as_str());
    let views = running.engine().views();
    let view = views.first().map_or("VIEW", |view| view.name.as_str());
    let http = running.http().to_string().replace("0.0.0.0:", "127.0.0.1:").replace("[::]:", "[::1]:");
    eprintln!(
        "
  Millpond runs the {system} system.

  page     http://{http}/
  Kafka    {kafka}
           kcat -b {kafka} -t {topic} -o -5 -e
  API      http://{http}/v1/views
           curl 'http://{http}/v1/views/{view}?limit=5'
  SQL      millpond sql --http {http} 'SELECT count(*) FROM {stream}'
  Parquet  {}
  data     {}

  Ctrl-C stops it; the next start goes on where this one ended.
",
        config.lake.url,
        config.broker.data_dir.display()
    );
}

fn start_simulator(
    system: &str,
    kafka: String,
    rate: f64,
    fresh: bool,
    stop: Arc<AtomicBool>,
) -> Result<JoinHandle<()>, Failure> {
    let clock = broker::Clock::system();
    let mut plans = Vec::new();
    if fresh {
        let mut history = simulate::plan(system, kafka.clone())?;
        history.rate = None;
        history.count = Some(HISTORY_EVENTS);
        history.times = Times::Spread(clock.now_ms() - HISTORY_MS, HISTORY_MS, HISTORY_EVENTS);
        history.tell_every = None;
        plans.push(history);
    }
    let mut live = simulate::plan(system, kafka)?;
    live.rate = Some(rate);
    live.seed = u64::try_from(clock.now_ms()).unwrap_or(1);
    live.tell_every = Some(Duration::from_secs(30));
    plans.push(live);
    let run = move || plans.iter().for_each(|plan| feed(plan, &stop));
    std::thread::Builder::new()
        .name("simulator".into())
        .spawn(run)
        .map_err(|error| Failure::Failed(format!("cannot start the simulator: {error}")))
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
