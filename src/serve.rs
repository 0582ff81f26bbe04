//! `millpond serve`: everything in one process until a signal comes.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use api::config::{Config, Inputs};

use crate::failure::Failure;
use crate::signals::Signals;
use crate::{logging, memory, program};

/// How long threads of the process may take to end after everything was stopped.
const THREADS_STOP_MAX: Duration = Duration::from_secs(1);

/// How long after the start its code is left: what the start began has come to rest.
const START_LEFT_AFTER: Duration = Duration::from_secs(1);

/// Time between two times that free memory goes back to the system.
const GIVE_BACK_EVERY: Duration = Duration::from_secs(5);

/// How long a client in this process may take to end before the server does.
const CLIENT_STOP_MAX: Duration = Duration::from_secs(5);

/// Flags of the server. Each is also a key of the configuration and a variable; `config/millpond.toml` has them all.
#[derive(clap::Args, Default)]
pub struct Args {
    /// Directory that holds everything; made when it is not there [default: millpond-data]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<String>,
    /// Where Kafka clients connect; port 0 takes a free one [default: 127.0.0.1:9092]
    #[arg(long, value_name = "HOST:PORT")]
    pub kafka: Option<String>,
    /// Address that Kafka clients are told to use, when it is not the one listened on
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise: Option<String>,
    /// Where the HTTP API and the page answer; port 0 takes a free one [default: 127.0.0.1:8080]
    #[arg(long, value_name = "HOST:PORT")]
    pub http: Option<String>,
    /// A port of its own for the schema registry; without it, it answers under /registry of the HTTP port
    #[arg(long, value_name = "HOST:PORT")]
    pub registry: Option<String>,
    /// Configuration file; may be given again: later ones add to lists and replace single values
    #[arg(long, value_name = "FILE")]
    pub config: Vec<PathBuf>,
    /// Where Parquet files go: a directory, as a path or file:// URL [default: lake, below the data directory]
    #[arg(long, value_name = "URL")]
    pub lake: Option<String>,
    /// PostgreSQL for the sinks of the configuration; without it, those that name no database do not run
    #[arg(long, value_name = "URL")]
    pub postgres: Option<String>,
    /// When acks=all is answered: fsync, once the disk has it; os, once the operating system has it [default: fsync]
    #[arg(long, value_name = "fsync|os")]
    pub durability: Option<String>,
}

impl Args {
    /// Flags, environment and files, on top of what `inputs` has already.
    pub fn gather(&self, mut inputs: Inputs) -> Result<Inputs, Failure> {
        let mut files = self.config.clone();
        if files.is_empty()
            && let Some(named) = std::env::var_os("MILLPOND_CONFIG")
        {
            files = std::env::split_paths(&named).filter(|path| !path.as_os_str().is_empty()).collect();
        }
        for file in &files {
            inputs.add_file(file);
        }
        inputs.environment = environment();
        let flags = [
            ("data-dir", &self.data_dir),
            ("kafka", &self.kafka),
            ("advertise", &self.advertise),
            ("http", &self.http),
            ("registry", &self.registry),
            ("lake", &self.lake),
            ("postgres", &self.postgres),
            ("durability", &self.durability),
        ];
        inputs.flags = flags.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.clone()?))).collect();
        Ok(inputs)
    }
}

/// The variables of the process that are text.
pub fn environment() -> Vec<(String, String)> {
    std::env::vars_os().filter_map(|(name, text)| Some((name.into_string().ok()?, text.into_string().ok()?))).collect()
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let config = configure(args.gather(Inputs::default())?)?;
    block_on(serve(config, |_, _| Ok(None), Arc::default()))
}

/// Reads the configuration; what is odd about it goes to stderr.
pub fn configure(inputs: Inputs) -> Result<Config, Failure> {
    let loaded = api::config::load(&inputs)?;
    for warning in &loaded.warnings {
        eprintln!("millpond: warning: {warning}");
    }
    Ok(loaded.config)
}

/// Runs a server or a client to its end. Threads that are still busy then (a client in this process that waits for the server that has just gone)
/// do not keep the process.
pub fn block_on<T>(running: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = runtime()?;
    let outcome = runtime.block_on(running);
    runtime.shutdown_timeout(THREADS_STOP_MAX);
    outcome
}

/// The runtime of a server, with logs on stderr as `MILLPOND_LOG` says.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    logging::start()?;
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("millpond")
        .build()
        .map_err(|error| Failure::Failed(format!("cannot start threads: {error}")))
}

/// Starts the server, says when it is ready, calls `ready`, and stops cleanly at the first signal, or when the store has failed; `stopping`
/// is then set, and the thread that `ready` may have started is waited for before the server goes.
pub async fn serve<F>(config: Config, ready: F, stopping: Arc<AtomicBool>) -> Result<(), Failure>
where
    F: FnOnce(&api::Running, &Config) -> Result<Option<JoinHandle<()>>, Failure>,
{
    let mut signals =
        Signals::listen().map_err(|error| Failure::Failed(format!("cannot listen for signals: {error}")))?;
    let starting = api::start(config.clone());
    let running = tokio::select! {
        started = starting => started.map_err(|error| Failure::Failed(error.to_string()))?,
        // nothing was acknowledged yet, so leaving now is like a crash that loses nothing
        _ = signals.next() => return Ok(()),
    };
    logging::connect(running.broker());
    announce(&running);
    tokio::spawn(leave_start());
    let (outcome, client) = match ready(&running, &config) {
        Ok(client) => {
            let outcome = tokio::select! {
                _ = signals.next() => Ok(()),
                reason = failed(&running) => Err(Failure::Failed(reason)),
            };
            (outcome, client)
        }
        Err(failure) => (Err(failure), None),
    };
    stopping.store(true, Ordering::Relaxed);
    signals.end_at_the_next();
    if let (Some(client), Ok(())) = (client, &outcome) {
        // a client that does not end in time sees the server go, which it must bear anyway
        let _ = tokio::time::timeout(CLIENT_STOP_MAX, tokio::task::spawn_blocking(move || client.join())).await;
    }
    running.stop().await;
    outcome
}

/// Has the program's pages that the start alone needed leave memory.
async fn leave_start() {
    tokio::time::sleep(START_LEFT_AFTER).await;
    drop(tokio::task::spawn_blocking(program::leave_start));
}

/// Waits until nothing is written any more, whatever the reason: from then on nothing is acknowledged, and a restart is what helps.
async fn failed(running: &api::Running) -> String {
    let mut failure = std::pin::pin!(running.broker().lane().failure());
    loop {
        match tokio::time::timeout(GIVE_BACK_EVERY, failure.as_mut()).await {
            Ok(error) => {
                return format!(
                    "the store failed, nothing more is acknowledged: {}; look at the disk, then start again",
                    error.message
                );
            }
            Err(_) => drop(tokio::task::spawn_blocking(memory::give_back)),
        }
    }
}

/// The one line on stdout. A closed stdout is no reason to stop serving.
fn announce(running: &api::Running) {
    let kafka = running.kafka().map_or_else(String::new, |address| address.to_string());
    let http = running.http();
    let registry = running.registry().unwrap_or(http);
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "millpond ready kafka={kafka} http={http} registry={registry}");
    let _ = out.flush();
}
