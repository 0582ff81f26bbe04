//! Kafka's own command-line tools, many in one JVM (`clients/Tools.java`), their output checked; and the calls that kafka-ui makes at each
//! refresh. `MILLPOND_TEST_BROKER=apache` runs the same against Apache Kafka, which proves the expectations.

use crate::clients::Broker;
use crate::support::kafka::java_source;
use crate::support::scripts::json_of;
use crate::support::{Scratch, beside_others};
use serde_json::{Value, json};
use std::process::Stdio;

/// A tool, what it is told, and what it must say.
pub struct Run {
    tool: &'static str,
    args: String,
    says: &'static [&'static str],
}

pub const fn run(tool: &'static str, args: String, says: &'static [&'static str]) -> Run {
    Run { tool, args, says }
}

fn told(args: &str) -> String {
    args.to_owned()
}

pub const TOPICS: &str = "TopicCommand";
const GROUPS: &str = "consumer.group.ConsumerGroupCommand";
const CONFIGS: &str = "kafka.admin.ConfigCommand";
const REASSIGN: &str = "reassign.ReassignPartitionsCommand";
const ELECT: &str = "LeaderElectionCommand";

#[test]
fn kafkas_tools_say_what_they_say_of_apache_kafka() {
    let _beside = beside_others();
    let scratch = Scratch::new("tools");
    let broker = Broker::start(&scratch);
    let runs: Vec<Run> =
        topics().into_iter().chain(groups(&scratch)).chain(configs()).chain(cluster(&scratch)).collect();
    assert_said(&scratch, broker.address(), &runs);
}

/// Has the tools run in turn, where the word BROKER is the address.
pub fn assert_said(scratch: &Scratch, address: &str, runs: &[Run]) {
    let class = |run: &Run| match run.tool {
        CONFIGS => CONFIGS.to_owned(),
        tool => format!("org.apache.kafka.tools.{tool}"),
    };
    let lines: Vec<String> = runs
        .iter()
        .map(|run| {
            let words = run.args.split(' ').map(|word| if word == "BROKER" { address } else { word });
            std::iter::once(class(run).as_str()).chain(words).collect::<Vec<_>>().join("\t")
        })
        .collect();
    let plan = scratch.write("tools.txt", &(lines.join("\n") + "\n"));
    let mut command = java_source("clients/Tools.java");
    let output = command.arg(&plan).stdin(Stdio::null()).output().unwrap();
    let said: Vec<Value> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect();
    assert_eq!(said.len(), runs.len(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut mistakes = Vec::new();
    for (run, said) in runs.iter().zip(&said) {
        let text = format!("{}{}", said["out"].as_str().unwrap(), said["err"].as_str().unwrap());
        let refused = run.says.iter().any(|says| says.starts_with("Error"));
        let ended_well = said["status"] == 0 || refused && said["status"] == 1;
        let lacks: Vec<_> = run.says.iter().filter(|says| !text.contains(**says)).collect();
        if !ended_well || !lacks.is_empty() {
            mistakes.push(format!("{} {}: status {}, lacks {lacks:?}:\n{text}", run.tool, run.args, said["status"]));
        }
    }
    assert!(mistakes.is_empty(), "{} mistakes:\n{}", mistakes.len(), mistakes.join("\n"));
}

#[rustfmt::skip]
fn topics() -> Vec<Run> {
    vec![
        run(TOPICS, told("--bootstrap-server BROKER --create --topic tools --partitions 2 --replication-factor 1 --config retention.ms=100000000"), &["Created topic tools."]),
        run(TOPICS, told("--bootstrap-server BROKER --create --topic tools"), &["Error", "already exists"]),
        run(TOPICS, told("--bootstrap-server BROKER --create --topic tools-too --replication-factor 2"), &["Error", "eplication factor"]),
        run(TOPICS, told("--bootstrap-server BROKER --describe --topic tools"), &["PartitionCount: 2", "ReplicationFactor: 1", "retention.ms=100000000", "Partition: 1\tLeader: 1\tReplicas: 1\tIsr: 1"]),
        run(TOPICS, told("--bootstrap-server BROKER --alter --topic tools --partitions 3"), &[]),
        run(TOPICS, told("--bootstrap-server BROKER --alter --topic tools --partitions 1"), &["Error"]),
        run(TOPICS, told("--bootstrap-server BROKER --list"), &["tools"]),
        run(TOPICS, told("--bootstrap-server BROKER --describe --under-min-isr-partitions"), &[]),
        run(TOPICS, told("--bootstrap-server BROKER --describe --under-replicated-partitions"), &[]),
        run(TOPICS, told("--bootstrap-server BROKER --describe --unavailable-partitions"), &[]),
        run("GetOffsetShell", told("--bootstrap-server BROKER --topic tools"), &["tools:0:0\ntools:1:0\ntools:2:0"]),
    ]
}

#[rustfmt::skip]
fn groups(scratch: &Scratch) -> Vec<Run> {
    let input = scratch.write("input.txt", "k1:v1\nk2:v2\nk3:v3\n");
    let input = format!("--bootstrap-server BROKER --topic tools --reader-property parse.key=true --reader-property key.separator=: <{}", input.display());
    vec![
        run("ConsoleProducer", input, &[]),
        run("consumer.ConsoleConsumer", told("--bootstrap-server BROKER --topic tools --from-beginning --max-messages 3 --group tools-group --timeout-ms 30000"), &["v1", "v2", "v3", "Processed a total of 3 messages"]),
        run(GROUPS, told("--bootstrap-server BROKER --list"), &["tools-group"]),
        run(GROUPS, told("--bootstrap-server BROKER --describe --group tools-group"), &["CURRENT-OFFSET", "tools-group     tools           2          1               1               0"]),
        run(GROUPS, told("--bootstrap-server BROKER --describe --group tools-group --state"), &["Empty                0"]),
        run(GROUPS, told("--bootstrap-server BROKER --describe --group tools-none"), &["Error", "GroupIdNotFound"]),
        run(GROUPS, told("--bootstrap-server BROKER --reset-offsets --group tools-group --topic tools --to-earliest --execute"), &["NEW-OFFSET"]),
        run(GROUPS, told("--bootstrap-server BROKER --delete-offsets --group tools-group --topic tools"), &["tools           2          Successful"]),
        run("GroupsCommand", told("--bootstrap-server BROKER --list"), &["tools-group          Classic              consumer"]),
        run("ProducerPerformance", told("--topic tools --num-records 1000 --record-size 100 --throughput -1 --bootstrap-server BROKER"), &["1000 records sent"]),
        run("ConsumerPerformance", told("--bootstrap-server BROKER --topic tools --num-records 1000 --timeout 30000"), &[", 10"]),
        run("VerifiableProducer", told("--bootstrap-server BROKER --topic tools-verified --max-messages 10"), &["startup_complete"]),
        run("VerifiableConsumer", told("--bootstrap-server BROKER --topic tools-verified --group-id tools-verify --reset-policy earliest --max-messages 10"), &["partitions_assigned", "records_consumed"]),
        run("GetOffsetShell", told("--bootstrap-server BROKER --topic tools-verified"), &["tools-verified:0:10"]),
        run("ClientCompatibilityTest", told("--bootstrap-server BROKER --topic tools-compatible --offsets-for-times-supported true --cluster-id-supported true --expect-record-too-large-exception false --num-cluster-nodes 1 --create-topics-supported true --describe-acls-supported true --describe-configs-supported true --idempotent-producer-supported true"), &["SUCCESS"]),
        run(GROUPS, told("--bootstrap-server BROKER --delete --group tools-group"), &["was successful"]),
    ]
}

#[rustfmt::skip]
fn configs() -> Vec<Run> {
    vec![
        run(CONFIGS, told("--bootstrap-server BROKER --describe --topic tools"), &["retention.ms=100000000 sensitive=false synonyms={DYNAMIC_TOPIC_CONFIG:retention.ms=100000000}"]),
        run(CONFIGS, told("--bootstrap-server BROKER --alter --topic tools --add-config max.message.bytes=2000000"), &["Completed updating config for topic tools."]),
        run(CONFIGS, told("--bootstrap-server BROKER --describe --topic tools --all"), &["cleanup.policy=delete", "max.message.bytes=2000000 sensitive=false synonyms={DYNAMIC_TOPIC_CONFIG:max.message.bytes=2000000, DEFAULT_CONFIG:message.max.bytes=1048588}"]),
        run(CONFIGS, told("--bootstrap-server BROKER --alter --broker-defaults --add-config log.cleaner.backoff.ms=16000"), &["Completed updating default config for brokers"]),
        run(CONFIGS, told("--bootstrap-server BROKER --describe --broker-defaults"), &["log.cleaner.backoff.ms=16000 sensitive=false synonyms={DYNAMIC_DEFAULT_BROKER_CONFIG:log.cleaner.backoff.ms=16000}"]),
        run(CONFIGS, told("--bootstrap-server BROKER --alter --broker 1 --add-config message.max.bytes=2000000"), &["Completed updating config for broker 1."]),
        run(CONFIGS, told("--bootstrap-server BROKER --describe --broker 1"), &["message.max.bytes=2000000 sensitive=false synonyms={DYNAMIC_BROKER_CONFIG:message.max.bytes=2000000, DEFAULT_CONFIG:message.max.bytes=1048588}"]),
        run(CONFIGS, told("--bootstrap-server BROKER --alter --broker 1 --add-config num.partitions=2"), &["Error", "num.partitions"]),
        run(CONFIGS, told("--bootstrap-server BROKER --alter --broker 1 --delete-config message.max.bytes"), &["Completed updating config for broker 1."]),
        run(CONFIGS, told("--bootstrap-server BROKER --alter --broker-defaults --delete-config log.cleaner.backoff.ms"), &["Completed"]),
        run(CONFIGS, told("--bootstrap-server BROKER --alter --group tools-settings --add-config consumer.session.timeout.ms=50000"), &["Completed updating config for group tools-settings."]),
        run(CONFIGS, told("--bootstrap-server BROKER --describe --group tools-settings"), &["consumer.session.timeout.ms=50000 sensitive=false synonyms={DYNAMIC_GROUP_CONFIG:consumer.session.timeout.ms=50000, DEFAULT_CONFIG:group.consumer.session.timeout.ms=45000}"]),
        run("ClientMetricsCommand", told("--bootstrap-server BROKER --alter --name tools-metrics --interval 5000"), &["Altered client metrics config for tools-metrics."]),
        run("ClientMetricsCommand", told("--bootstrap-server BROKER --list"), &["tools-metrics"]),
        run("ClientMetricsCommand", told("--bootstrap-server BROKER --describe --name tools-metrics"), &["interval.ms=5000"]),
        run("ClientMetricsCommand", told("--bootstrap-server BROKER --delete --name tools-metrics"), &["Deleted client metrics config for tools-metrics."]),
    ]
}

#[rustfmt::skip]
fn cluster(scratch: &Scratch) -> Vec<Run> {
    let file = |name: &str, text: Value| scratch.write(name, &text.to_string()).display().to_string();
    let delete = file("delete.json", json!({"version": 1, "partitions": [{"topic": "tools", "partition": 0, "offset": 1}]}));
    let moved = file("move.json", json!({"version": 1, "partitions": [{"topic": "tools", "partition": 0, "replicas": [1], "log_dirs": ["any"]}]}));
    let away = file("away.json", json!({"version": 1, "partitions": [{"topic": "tools", "partition": 0, "replicas": [7]}]}));
    let elect = file("elect.json", json!({"partitions": [{"topic": "tools", "partition": 0}]}));
    let all = file("topics.json", json!({"version": 1, "topics": [{"topic": "tools"}]}));
    vec![
        run("DeleteRecordsCommand", format!("--bootstrap-server BROKER --offset-json-file {delete}"), &["partition: tools-0\tlow_watermark: 1"]),
        run("LogDirsCommand", told("--bootstrap-server BROKER --describe --topic-list tools"), &["\"partition\":\"tools-2\",\"size\":", "\"error\":null"]),
        run(REASSIGN, format!("--bootstrap-server BROKER --generate --broker-list 1 --topics-to-move-json-file {all}"), &["Proposed partition reassignment configuration\n{\"version\":1,\"partitions\":[{\"topic\":\"tools\",\"partition\":0,\"replicas\":[1],\"log_dirs\":[\"any\"]}"]),
        run(REASSIGN, format!("--bootstrap-server BROKER --execute --throttle 1000000 --reassignment-json-file {moved}"), &["The inter-broker throttle limit was set to 1000000 B/s", "Successfully started partition reassignment for tools-0"]),
        run(REASSIGN, format!("--bootstrap-server BROKER --verify --reassignment-json-file {moved}"), &["Reassignment of partition tools-0 is completed.", "Clearing broker-level throttles on broker 1", "Clearing topic-level throttles on topic tools"]),
        run(REASSIGN, format!("--bootstrap-server BROKER --execute --reassignment-json-file {away}"), &["Error"]),
        run(REASSIGN, told("--bootstrap-server BROKER --list"), &["No partition reassignments found."]),
        run(ELECT, format!("--bootstrap-server BROKER --election-type preferred --path-to-json-file {elect}"), &["Valid replica already elected for partitions tools-0"]),
        run(ELECT, told("--bootstrap-server BROKER --election-type preferred --all-topic-partitions"), &[]),
        run("FeatureCommand", told("--bootstrap-server BROKER describe"), &["Feature: metadata.version", "SupportedMinVersion: 3.3-IV3"]),
        run("MetadataQuorumCommand", told("--bootstrap-server BROKER describe --status"), &["LeaderId:               1", "MaxFollowerLag:         0", "CurrentVoters:          [{\"id\": 1", "CurrentObservers:       []"]),
        run("MetadataQuorumCommand", told("--bootstrap-server BROKER describe --replication"), &["Leader"]),
        run("ClusterTool", told("cluster-id --bootstrap-server BROKER"), &["Cluster ID: "]),
        run("ClusterTool", told("list-endpoints --bootstrap-server BROKER"), &["unfenced   broker"]),
        run("BrokerApiVersionsCommand", told("--bootstrap-server BROKER"), &["(id: 1 rack: null isFenced: false)", "Produce(0): 0 to 13 [usable: 13]", "DescribeTopicPartitions(75): 0 [usable: 0]"]),
        run(TOPICS, told("--bootstrap-server BROKER --delete --topic tools"), &[]),
        run(TOPICS, told("--bootstrap-server BROKER --describe --topic tools"), &["Error"]),
    ]
}

#[test]
fn a_refresh_of_kafka_ui_succeeds_on_an_empty_and_on_a_full_broker() {
    let _beside = beside_others();
    let scratch = Scratch::new("refresh");
    let broker = Broker::start(&scratch);
    let refresh = || json_of(java_source("clients/AdminRefresh.java").arg(broker.address()));
    let empty = refresh();
    assert_eq!(empty["cluster"]["nodes"], 1, "{empty}");
    assert_eq!(empty["quorum"], json!({"leader": 1, "voters": 1, "observers": 0}), "{empty}");
    assert_eq!(
        (&empty["topics"], &empty["groups"], &empty["offsets"]),
        (&json!({}), &json!({}), &json!({})),
        "{empty}"
    );
    assert!(empty["features"]["metadata.version"].as_i64().unwrap() >= 25, "{empty}");

    for (name, partitions) in [("refresh-a", 3), ("refresh-b", 1)] {
        crate::clients::create_topic(broker.address(), name, partitions);
    }
    fill(&scratch, &broker);
    let full = refresh();
    assert_eq!(full["topics"]["refresh-a"], 3, "{full}");
    let retention = json!(["604800000", "DEFAULT_CONFIG", 0, true]);
    assert_eq!(full["topic_configs"]["refresh-b"], retention, "{full}");
    assert_eq!(full["offsets"]["refresh-b-0"], json!([0, 3]), "{full}");
    assert_eq!(full["groups"]["refresh-group"], json!(["EMPTY", 0, 1]), "{full}");
    assert!(full["log_dirs"]["refresh-b-0"].as_i64().unwrap() > 60, "{full}");
    assert_eq!((&full["log_dirs"]["refresh-a-0"], &full["log_dirs"]["*"]), (&json!(0), &json!(true)), "{full}");
    assert_eq!(full["broker"]["delete"], "true", "{full}");
}

/// Three records and a group that has read them.
fn fill(scratch: &Scratch, broker: &Broker) {
    let input = scratch.write("records.txt", "a\nb\nc\n");
    let plan = format!(
        "org.apache.kafka.tools.ConsoleProducer\t--bootstrap-server\t{0}\t--topic\trefresh-b\t<{1}\n\
         org.apache.kafka.tools.consumer.ConsoleConsumer\t--bootstrap-server\t{0}\t--topic\trefresh-b\t--from-beginning\t--max-messages\t3\t--group\trefresh-group\t--timeout-ms\t30000\n",
        broker.address(),
        input.display()
    );
    let plan = scratch.write("fill.txt", &plan);
    let said = json_of(java_source("clients/Tools.java").arg(&plan));
    assert!(said["err"].as_str().unwrap().contains("Processed a total of 3 messages"), "{said}");
}
