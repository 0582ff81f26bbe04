//! The brokers' command lines and configuration.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Place;
use crate::Outcome;

/// Millpond with its defaults, and nothing of this environment.
pub fn millpond(place: &Place) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millpond"));
    let ours = |name: &str| name.starts_with("MILLPOND_") || name.starts_with("KAFKA_");
    for (name, _) in std::env::vars().filter(|(name, _)| ours(name)) {
        command.env_remove(name);
    }
    command.arg("serve").arg("--data-dir").arg(place.data());
    command.args(["--kafka", &format!("127.0.0.1:{}", place.port), "--http", "127.0.0.1:0"]);
    command.args(["--durability", if place.fsync { "fsync" } else { "os" }]);
    command.envs(place.variables.iter().copied());
    command
}

/// Kafka with the flags of its own `kafka-server-start.sh`, on a directory that its own tool formatted.
///
/// # Errors
/// The jars are not there, or the directory cannot be formatted.
pub fn kafka(place: &Place) -> Outcome<Command> {
    let jars = jars()?;
    let properties = place.folder.join("server.properties");
    fs::write(&properties, kafka_properties(place))?;
    let tool = |args: &[&str]| -> Outcome<String> {
        let output = java(&jars, &["-Xmx256m"]).arg("kafka.tools.StorageTool").args(args).output()?;
        if !output.status.success() {
            return Err(format!("formatting Kafka's storage: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    if !place.data().join("meta.properties").exists() {
        let id = tool(&["random-uuid"])?;
        tool(&["format", "--standalone", "-t", &id, "-c", &properties.to_string_lossy()])?;
    }
    let flags = [
        "-Xms1g",
        "-Xmx1g",
        "-server",
        "-XX:+UseG1GC",
        "-XX:MaxGCPauseMillis=20",
        "-XX:InitiatingHeapOccupancyPercent=35",
        "-XX:+ExplicitGCInvokesConcurrent",
    ];
    let mut command = java(&jars, &flags);
    command.arg("kafka.Kafka").arg(&properties).current_dir(&place.folder);
    Ok(command)
}

fn java(jars: &Path, flags: &[&str]) -> Command {
    let mut command = Command::new("java");
    command.args(flags).arg("-Djava.awt.headless=true").arg("-cp").arg(jars.join("*"));
    command
}

/// Where `tests/support/setup` puts what the tests and benches run beside Millpond.
///
/// # Errors
/// The environment names no home.
pub fn clients() -> Outcome<PathBuf> {
    let cache = match std::env::var_os("MILLPOND_CACHE") {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(std::env::var_os("HOME").ok_or("HOME is not set")?).join(".cache/millpond"),
    };
    Ok(cache.join("tests"))
}

/// Where `tests/support/setup` put Kafka's jars.
fn jars() -> Outcome<PathBuf> {
    let jars = clients()?.join("kafka/jars");
    if !jars.is_dir() {
        return Err(format!("no jars of Apache Kafka in {}, run tests/support/setup", jars.display()).into());
    }
    Ok(jars)
}

fn kafka_properties(place: &Place) -> String {
    let Place { port, controller, .. } = place;
    let named = |name: &str| name.trim_start_matches("KAFKA_").to_lowercase().replace('_', ".");
    let given: String = place.variables.iter().map(|(name, value)| format!("{}={value}\n", named(name))).collect();
    format!(
        "process.roles=broker,controller\nnode.id=1\n\
         listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
         controller.listener.names=CONTROLLER\ncontroller.quorum.bootstrap.servers=127.0.0.1:{controller}\n\
         offsets.topic.replication.factor=1\ntransaction.state.log.replication.factor=1\n\
         transaction.state.log.min.isr=1\ngroup.initial.rebalance.delay.ms=0\nlog.dirs={}\n{given}",
        place.data().display()
    )
}
