//! Apache Kafka 4.3.1 as the reference: one KRaft node on free ports, and its own command-line tools.

pub use super::ports::free_port;
use super::process::Process;
use super::raw::Client;
use super::{Scratch, cache, eventually};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

pub struct ApacheKafka {
    _process: Process,
    pub kafka: String,
    /// A listener with logins, where ACLs are asked.
    pub secured: Option<String>,
}

impl ApacheKafka {
    pub fn start(scratch: &Scratch) -> ApacheKafka {
        let (broker, controller) = (free_port(), free_port());
        ApacheKafka::start_with(scratch, broker, &properties(scratch, broker, controller), None)
    }

    /// With the standard authorizer and, beside the open listener, one with logins by PLAIN for these users, whose
    /// passwords are their names and `-secret`. `admin` may do everything.
    pub fn start_secured(scratch: &Scratch, users: &[&str]) -> ApacheKafka {
        let (broker, controller, secured) = (free_port(), free_port(), free_port());
        let users: String = users.iter().map(|user| format!(" user_{user}=\"{user}-secret\"")).collect();
        let text = properties(scratch, broker, controller)
            .replace(",CONTROLLER://", &format!(",SECURED://127.0.0.1:{secured},CONTROLLER://"))
            .replace("map=PLAINTEXT:PLAINTEXT,", "map=PLAINTEXT:PLAINTEXT,SECURED:SASL_PLAINTEXT,");
        let more = format!(
            "inter.broker.listener.name=PLAINTEXT\n\
             sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512\n\
             listener.name.secured.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required{users};\n\
             listener.name.secured.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;\n\
             listener.name.secured.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;\n\
             authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
             super.users=User:admin;User:ANONYMOUS\n"
        );
        ApacheKafka::start_with(scratch, broker, &(text + &more), Some(format!("127.0.0.1:{secured}")))
    }

    fn start_with(scratch: &Scratch, broker: u16, properties: &str, secured: Option<String>) -> ApacheKafka {
        let kafka = format!("127.0.0.1:{broker}");
        let properties = scratch.write("apache/server.properties", properties);
        let id = run(java("kafka.tools.StorageTool").arg("random-uuid"));
        // replicas that may lead are of no use to one node, and make a setting of each topic one of the cluster (KIP-966)
        let alone = ["--feature", "eligible.leader.replicas.version=0"];
        let mut format = java("kafka.tools.StorageTool");
        run(format.args(["format", "--standalone", "-t", id.trim(), "-c"]).arg(&properties).args(alone));
        let mut command = java_with("kafka.Kafka", &["-Xms256m", "-Xmx1g", "-XX:+UseG1GC"]);
        command.arg(&properties).current_dir(scratch.path("apache"));
        let mut process = Process::start(command, &scratch.path("apache/kafka"));
        eventually("Apache Kafka answers", Duration::from_secs(90), || {
            if let Some(status) = process.exited() {
                panic!("Apache Kafka ended: {status}\n{}", process.tail());
            }
            Client::try_connect(&kafka).and_then(|mut client| client.ready())
        });
        ApacheKafka { _process: process, kafka, secured }
    }
}

fn properties(scratch: &Scratch, broker: u16, controller: u16) -> String {
    format!(
        "process.roles=broker,controller\nnode.id=1\n\
         listeners=PLAINTEXT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
         controller.listener.names=CONTROLLER\ncontroller.quorum.bootstrap.servers=127.0.0.1:{controller}\n\
         offsets.topic.replication.factor=1\noffsets.topic.num.partitions=3\n\
         transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\ntransaction.state.log.num.partitions=3\n\
         share.coordinator.state.topic.replication.factor=1\nshare.coordinator.state.topic.min.isr=1\n\
         group.initial.rebalance.delay.ms=0\ngroup.consumer.assignor.offload.enable=false\ngroup.consumer.assignment.interval.ms=0\nlog.cleaner.backoff.ms=200\nlog.retention.check.interval.ms=3600000\nlog.initial.task.delay.ms=3600000\nlog.dirs={}\n",
        scratch.path("apache/log").display()
    )
}

/// A Java class of Kafka's jars, as a command.
pub fn java(class: &str) -> Command {
    java_with(class, &["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
}

/// A Java file of the test tree, compiled and run by the launcher with Kafka's jars.
pub fn java_source(file: &str) -> Command {
    java(&super::source(file).display().to_string())
}

/// The same with the older client that AKHQ uses.
pub fn akhq_source(file: &str) -> Command {
    let file = super::source(file).display().to_string();
    java_from("akhq", &file, &["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
}

/// A Java class of Streams', Connect's and MirrorMaker's jars.
pub fn connect_java(class: &str) -> Command {
    java_from("connect", class, &["-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
}

fn java_with(class: &str, flags: &[&str]) -> Command {
    java_from("kafka", class, flags)
}

/// `class` with the jars that the set-up put into the folder `part`.
fn java_from(part: &str, class: &str, flags: &[&str]) -> Command {
    let jars = cache().join(part).join("jars/*");
    let mut command = Command::new("java");
    command
        .args(flags)
        .arg(format!("-Dlog4j2.configurationFile={}", super::source("support/kafka/log4j2.yaml").display()));
    command.arg("-cp").arg(jars).arg(class);
    command
}

/// One of Kafka's tools, run to its end; its stdout.
pub fn tool(class: &str, args: &[&str]) -> String {
    run(java(class).args(args))
}

/// Runs to the end; fails with all it said unless it succeeded.
pub fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    checked(command, &output)
}

/// Like `run`, with a file as stdin.
pub fn run_with_input(command: &mut Command, input: &Path) -> String {
    let output = command.stdin(std::fs::File::open(input).unwrap()).output().unwrap();
    checked(command, &output)
}

fn checked(command: &Command, output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n--- stdout\n{out}\n--- stderr\n{err}", output.status);
    out.into_owned()
}
