//! Scenarios as data (`tests/golden/scenarios/*.toml`), played to Millpond and to Apache Kafka 4.3.1: the answers must agree.
//!
//! A step is one request. Its whole answer is compared, field by field, but for what differs between any two brokers
//! (`answers::VOLATILE`) and what the step names in `ignore`, with the reason beside it in the file. `save` keeps a field of the
//! answer for later steps, which say `$name`. Apache Kafka ends transactions after it has answered: `again_on` names codes on
//! which a step is sent again, `until` a text that its answer has to contain at last.

mod admin;
mod answers;
mod calls;
mod groups;
mod many;
mod security_calls;
mod transactions;

use crate::support::kafka::ApacheKafka;
use crate::support::raw::Client;
use crate::support::server::Server;
use crate::support::{Scratch, beside_others, source};
use calls::Call;
use security_calls::SecurityCall;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

/// Who can log in to the secured brokers; their passwords are their names and `-secret`.
const USERS: &[&str] = &["admin", "ann", "bob"];
/// How long a coordinator may take to be ready.
const COORDINATOR: Duration = Duration::from_secs(20);

/// Scenarios wait for the cleaner; Apache Kafka's is as quick, and assigns groups as quickly. Neither looks for old records
/// meanwhile, of which there are some.
const CLEANER: &str = "[kafka]\n\"log.cleaner.backoff.ms\" = 200\n\"log.retention.check.interval.ms\" = 3600000\n\
                       \"group.consumer.assignment.interval.ms\" = 0\n";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Scenario {
    step: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    #[serde(default)]
    ignore: Vec<String>,
    #[serde(default)]
    save: BTreeMap<String, String>,
    /// Apache Kafka spreads metadata after it has answered: time it is given before this step.
    #[serde(default)]
    after_ms: u64,
    /// Error codes on which it is sent again for a while.
    #[serde(default)]
    again_on: Vec<i16>,
    /// It is sent again for a while until its answer contains this text.
    #[serde(default)]
    until: Option<String>,
    /// Who asks, in `secured`; a login is a connection of its own.
    #[serde(default, rename = "as")]
    user: Option<String>,
    /// A check of the scenario itself: the answer must contain this text.
    #[serde(default)]
    says: Option<String>,
    /// Sent on a connection of its own, and not waited for: a later step `call = "answer"` with this name `of` has the answer.
    #[serde(default)]
    background: Option<String>,
    #[serde(flatten)]
    request: toml::Table,
}

#[test]
fn millpond_and_apache_kafka_answer_alike() {
    let _beside = beside_others();
    let scratch = Scratch::new("scenarios");
    let reference = ApacheKafka::start(&scratch);
    // `MILLPOND_SCENARIO_SECOND=apache` plays against a second Apache Kafka: what still differs is the scenario's fault.
    let second_scratch = Scratch::new("scenarios-second");
    let second = std::env::var("MILLPOND_SCENARIO_SECOND").is_ok().then(|| ApacheKafka::start(&second_scratch));
    let server = second.is_none().then(|| Server::with_config(&scratch, CLEANER));
    let tested = second.as_ref().map(|kafka| &kafka.kafka).or(server.as_ref().map(|server| &server.kafka)).unwrap();
    assert_alike("golden/scenarios", &reference.kafka, tested);
    crate::wire::kafka_clients_write_what_was_heard(&scratch);
}

/// With logins and ACLs: `golden/scenarios/secured`.
#[test]
fn millpond_and_apache_kafka_refuse_alike() {
    let _beside = beside_others();
    let scratch = Scratch::new("scenarios-secured");
    let reference = ApacheKafka::start_secured(&scratch, USERS);
    let users: String = USERS
        .iter()
        .map(|user| format!("[[security.users]]\nname = {user:?}\npassword = \"{user}-secret\"\n"))
        .collect();
    let config = format!(
        "[broker]\nprotocol = \"SASL_PLAINTEXT\"\n\
         [security]\nauthorizer = true\n[kafka]\n\"super.users\" = \"User:admin\"\n{users}"
    );
    let server = Server::with_config(&scratch, &config);
    assert_alike("golden/scenarios/secured", reference.secured.as_ref().unwrap(), &server.kafka);
}

/// Plays every scenario of a folder to both.
fn assert_alike(folder: &str, reference: &str, tested: &str) {
    let files = fs::read_dir(source(folder)).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "toml")).collect();
    files.sort();
    assert!(!files.is_empty());
    let only = std::env::var("MILLPOND_SCENARIO").unwrap_or_default();
    let mut differences = Vec::new();
    for file in files.iter().filter(|file| file.to_string_lossy().contains(&only)) {
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        let scenario: Scenario =
            toml::from_str(&fs::read_to_string(file).unwrap()).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let theirs = play(&scenario, reference, &name);
        let ours = play(&scenario, tested, &name);
        for (i, (theirs, ours)) in theirs.iter().zip(&ours).enumerate() {
            if let Some(text) =
                scenario.step[i].says.as_ref().filter(|text| !theirs.to_string().contains(text.as_str()))
            {
                differences.push(format!("{name} step {}: Apache Kafka's answer lacks {text}: {theirs}", i + 1));
            }
            answers::compare(
                &format!("{name} step {} ({})", i + 1, scenario.step[i].request["call"]),
                theirs,
                ours,
                &mut differences,
            );
        }
    }
    assert!(
        differences.is_empty(),
        "{} differences (apache | millpond):\n{}",
        differences.len(),
        differences.join("\n")
    );
}

/// Each step's normalised answer.
fn play(scenario: &Scenario, address: &str, name: &str) -> Vec<Value> {
    let mut user: Option<String> = None;
    let mut client = Client::connect(address);
    let mut saved: BTreeMap<String, Value> = BTreeMap::new();
    let mut answers = Vec::new();
    let mut running = BTreeMap::new();
    for (i, step) in scenario.step.iter().enumerate() {
        thread::sleep(Duration::from_millis(step.after_ms));
        if step.user != user {
            user = step.user.clone();
            client = connect(address, user.as_deref());
        }
        let request = substitute(toml::Value::Table(step.request.clone()), &saved);
        if let Some(as_name) = &step.background {
            let address = address.to_owned();
            running.insert(as_name.clone(), thread::spawn(move || send(&request, &mut Client::connect(&address))));
            answers.push(Value::Null);
            continue;
        }
        let awaited =
            request.get("of").and_then(toml::Value::as_str).filter(|_| request["call"].as_str() == Some("answer"));
        let mut awaited =
            awaited.map(|of| running.remove(of).unwrap_or_else(|| panic!("{name}: nothing runs as {of}")));
        let deadline = Instant::now() + COORDINATOR;
        let answer = loop {
            let sent = awaited.take().map_or_else(|| send(&request, &mut client), |running| running.join().unwrap());
            match sent.unwrap_or_else(|e| panic!("{name} step {}: {e}", i + 1)) {
                Ok(answer) if comes_back(step, &answer) && Instant::now() < deadline => {
                    thread::sleep(Duration::from_millis(50))
                }
                Ok(answer) => {
                    settle(&mut client, &request, deadline);
                    break answer;
                }
                Err(refusal) => {
                    client = connect(address, user.as_deref());
                    let closed = refusal.starts_with("read") || refusal.starts_with("write");
                    break Value::String(if closed { "connection closed".into() } else { refusal });
                }
            }
        };
        for (as_name, field) in &step.save {
            let value = answers::find(&answer, field)
                .unwrap_or_else(|| panic!("{name} step {}: no field {field} in {answer}", i + 1));
            saved.insert(as_name.clone(), value.clone());
        }
        answers.push(answers::normalise(answer, &step.ignore, &saved));
    }
    answers
}

/// A connection, logged in for users; `nobody` never logs in.
fn connect(address: &str, user: Option<&str>) -> Client {
    let mut client = Client::connect(address);
    if let Some(user) = user.filter(|user| *user != "nobody") {
        client.log_in(user, &format!("{user}-secret")).unwrap();
    }
    client
}

/// The answer to one request, or why there is none; an error of its own says what is wrong with the step.
fn send(request: &toml::Value, client: &mut Client) -> Result<Result<Value, String>, toml::de::Error> {
    if groups::is_here(request) {
        let call: groups::GroupCall = request.clone().try_into()?;
        return Ok(call.send(client));
    }
    if security_calls::NAMES.contains(&request["call"].as_str().unwrap_or_default()) {
        return Ok(SecurityCall::send(request.clone().try_into()?, client));
    }
    if many::is_here(request) {
        let call: many::ManyCall = request.clone().try_into()?;
        return Ok(call.send(client));
    }
    if admin::is_here(request) {
        let call: admin::AdminCall = request.clone().try_into()?;
        return Ok(call.send(client));
    }
    let call: Call = request.clone().try_into()?;
    Ok(call.send(client))
}

/// Apache Kafka answers before its broker knows the new partitions: waits until their last one is served, if it ever is.
fn settle(client: &mut Client, request: &toml::Value, deadline: Instant) {
    for (topic, partition) in calls::created(request) {
        let version = 5;
        while Instant::now() < deadline {
            let probe = Call::ListOffsets {
                version,
                topic: topic.clone(),
                partition,
                timestamp: -1,
                leader_epoch: -1,
                committed: false,
            };
            if answers::find(&probe.send(client).unwrap(), "error_code") == Some(&Value::from(0)) {
                break;
            }
            thread::sleep(Duration::from_millis(30));
        }
    }
}

/// Whether a step is to be sent again.
fn comes_back(step: &Step, answer: &Value) -> bool {
    let text = answer.to_string();
    let named = step.again_on.iter().any(|code| text.contains(&format!("error_code\":{code},")));
    named || asks_to_come_back(answer) || step.until.as_ref().is_some_and(|wanted| !text.contains(wanted.as_str()))
}

/// A coordinator or leader that is still loading or not yet chosen says so; every client asks again.
fn asks_to_come_back(answer: &Value) -> bool {
    [5, 6, 14, 15, 16].iter().any(|code| answer.to_string().contains(&format!("\"error_code\":{code},")))
}

/// `$name` becomes the saved value, at any depth.
fn substitute(value: toml::Value, saved: &BTreeMap<String, Value>) -> toml::Value {
    match value {
        toml::Value::String(text) => match text.strip_prefix('$').and_then(|name| saved.get(name)) {
            Some(Value::String(text)) => toml::Value::String(text.clone()),
            Some(Value::Number(number)) => toml::Value::Integer(number.as_i64().unwrap()),
            _ => toml::Value::String(text),
        },
        toml::Value::Array(items) => {
            toml::Value::Array(items.into_iter().map(|item| substitute(item, saved)).collect())
        }
        toml::Value::Table(table) => {
            toml::Value::Table(table.into_iter().map(|(key, value)| (key, substitute(value, saved))).collect())
        }
        other => other,
    }
}
