//! What users and strangers get wrong: a clear message or a closed connection, never a crash, nothing lost, memory bounded.

use crate::clients::create_topic;
use crate::support::http::rows;
use crate::support::process::Process;
use crate::support::raw::{Client, Identity, PlainRecord, batch, fetch_request, records_in};
use crate::support::server::{Server, serve};
use crate::support::{Scratch, beside_others, eventually, seed};
use broker::{Ack, Broker, BrokerConfig, Change, Clock, Family};
use bytes::Bytes;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{ProduceRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

/// Most that a storm of bad bytes may add to resident memory.
const GROWTH_BYTES_MAX: u64 = 256 << 20;

/// Runs a server that must refuse to start; what it said. It must be quick and must not look like a crash.
fn refusal(scratch: &Scratch, name: &str, command: Command) -> String {
    let mut process = Process::start(command, &scratch.path(name));
    let status = process.wait(Duration::from_secs(30));
    let said = process.stderr();
    assert!(matches!(status.code(), Some(1..=9)), "{name}: ended with {status}:\n{said}");
    assert!(!said.contains("panicked") && !said.contains("RUST_BACKTRACE"), "{name}: a panic is no message:\n{said}");
    assert!(!process.stdout().contains("millpond ready"), "{name}: said it was ready");
    said
}

fn assert_says(name: &str, said: &str, wanted: &[&str]) {
    for text in wanted {
        assert!(said.to_lowercase().contains(&text.to_lowercase()), "{name}: the message lacks \"{text}\":\n{said}");
    }
}

#[test]
fn a_port_in_use_is_named() {
    let scratch = Scratch::new("port-in-use");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let said = refusal(&scratch, "kafka", serve(&scratch.path("a"), &address, "127.0.0.1:0"));
    assert_says("kafka", &said, &[&address, "in use"]);
    let said = refusal(&scratch, "http", serve(&scratch.path("b"), "127.0.0.1:0", &address));
    assert_says("http", &said, &[&address, "in use"]);
}

#[test]
fn a_data_directory_that_cannot_be_used_is_named() {
    let scratch = Scratch::new("data-dir");
    let file = scratch.write("file", "not a directory");
    let said = refusal(&scratch, "a-file", serve(&file, "127.0.0.1:0", "127.0.0.1:0"));
    assert_says("a-file", &said, &[&file.to_string_lossy()]);
    let below = file.join("data");
    let said = refusal(&scratch, "below-a-file", serve(&below, "127.0.0.1:0", "127.0.0.1:0"));
    assert_says("below-a-file", &said, &[&below.to_string_lossy()]);
    let said = refusal(&scratch, "not-writable", serve("/proc/millpond".as_ref(), "127.0.0.1:0", "127.0.0.1:0"));
    assert_says("not-writable", &said, &["/proc/millpond"]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "not a directory");

    let server = Server::start(&scratch);
    let said = refusal(&scratch, "two-servers", serve(&server.data_dir(), "127.0.0.1:0", "127.0.0.1:0"));
    assert_says("two-servers", &said, &[&server.data_dir().to_string_lossy()]);
    Client::connect(&server.kafka).ready().unwrap();
}

#[test]
fn a_newer_data_directory_is_refused_and_left_alone() {
    let scratch = Scratch::new("newer");
    let mut server = Server::start(&scratch);
    create_topic(&server.kafka, "kept", 1);
    assert!(server.stop().success());
    write_format(&server, 999);
    let said = refusal(&scratch, "newer", serve(&server.data_dir(), "127.0.0.1:0", "127.0.0.1:0"));
    assert_says("newer", &said, &["format", "999", &server.data_dir().to_string_lossy()]);
}

/// Puts a format version into the stopped server's store, as a later release would.
fn write_format(server: &Server, version: u32) {
    let (key, value) = (broker::store::FORMAT_KEY.to_vec(), version.to_be_bytes().to_vec());
    change_store(server, |_| Change::Put(Family::Meta, key, value));
}

/// Changes the stopped server's store.
pub fn change_store(server: &Server, change: impl FnOnce(&Broker) -> Change) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let config = BrokerConfig { data_dir: server.data_dir(), listeners: Vec::new(), ..BrokerConfig::default() };
        let opened = Broker::open(config, Clock::system()).await.unwrap();
        opened.lane().commit(vec![change(&opened)], Ack::Durable).await.unwrap();
        opened.stop().await.unwrap();
    });
}

/// What only a write meets: the server starts well, and must not live on when its one writer has ended.
#[test]
fn a_server_that_cannot_write_any_more_ends() {
    let scratch = Scratch::new("damaged-producer");
    let mut server = Server::start(&scratch);
    create_topic(&server.kafka, "kept", 1);
    assert!(server.stop().success());
    change_store(&server, |broker| {
        let log = broker.catalog().topic("kept").unwrap().partition(0).unwrap().id();
        let key = [&log.0.to_be_bytes()[..], &77_i64.to_be_bytes()].concat();
        Change::Put(Family::Producers, key, b"wrong".to_vec())
    });
    let command = serve(&server.data_dir(), &server.kafka, "127.0.0.1:0");
    let mut process = Process::start(command, &scratch.path("again"));
    process.wait_for_line(|line| line.starts_with("millpond ready"), Duration::from_secs(60)).unwrap();
    let identity = Identity { producer_id: 77, epoch: 0, sequence: 0, transactional: false };
    // its answer may or may not come before the end
    let _ = Client::connect(&server.kafka).call(&produce_request(batch(&[record(0)], identity)), 9);
    assert_eq!(process.wait(Duration::from_secs(30)).code(), Some(1));
    assert_says("the end", &process.stderr(), &["producer state", "nothing more is acknowledged", "start again"]);
}

#[test]
fn all_mistakes_of_a_configuration_come_at_once() {
    let scratch = Scratch::new("config");
    let config = scratch.write(
        "wrong.toml",
        r#"
[broker]
durabilty = "fsync"
partitions_max = "many"
[http]
no_such_key = 1
[[topics]]
name = "orders"
partitions = -3
config = { "retention.ms" = "soon" }
[[streams]]
name = "orders"
topic = "orders"
event_time = "when"
lateness = "10 parsecs"
columns = [{ name = "id", type = "NUMBRE" }, { name = "ts", type = "TIMESTAMP" }]
"#,
    );
    let mut command = serve(&scratch.path("data"), "127.0.0.1:0", "127.0.0.1:0");
    command.arg("--config").arg(&config);
    let said = refusal(&scratch, "several", command);
    assert_says(
        "several",
        &said,
        &["wrong.toml", "durabilty", "partitions_max", "no_such_key", "partitions", "lateness"],
    );
}

#[test]
fn a_view_with_mistakes_is_explained() {
    let scratch = Scratch::new("view");
    let config = scratch.write(
        "views.toml",
        r#"
[[topics]]
name = "orders"
[[streams]]
name = "orders"
topic = "orders"
event_time = "ts"
columns = [{ name = "id", type = "VARCHAR" }, { name = "ts", type = "TIMESTAMP" }]
[[views]]
sql = "CREATE MATERIALIZED VIEW wrong_column AS SELECT colour, count(*) AS n FROM orders GROUP BY colour"
[[views]]
sql = "CREATE MATERIALIZED VIEW wrong_stream AS SELECT count(*) AS n FROM oders"
[[views]]
sql = "CREATE MATERIALIZED VIEW wrong_sql AS SELEC count(*) FROM orders"
"#,
    );
    let mut command = serve(&scratch.path("data"), "127.0.0.1:0", "127.0.0.1:0");
    command.arg("--config").arg(&config);
    let said = refusal(&scratch, "views", command);
    assert_says("views", &said, &["views.toml", "colour", "oders", "SELEC"]);
}

#[test]
fn no_bytes_from_strangers_hurt() {
    let _beside = beside_others();
    let scratch = Scratch::new("strangers");
    let mut server = Server::with_config(&scratch, "[[topics]]\nname = \"kept\"\n");
    produce(&server, 200);
    let before = server.resident_bytes();
    let seed = seed("strangers");
    huge_and_negative_frames(&mut server);
    random_bytes(&mut server, seed);
    half_frames(&mut server);
    lying_counts(&mut server, seed);
    let after = server.resident_bytes();
    assert!(after < before + GROWTH_BYTES_MAX, "memory grew from {before} to {after} bytes");
    produce(&server, 100);
    let wanted: Vec<String> = (0..200).chain(0..100).map(|i| format!("value {i}")).collect();
    assert!(values(&server) == wanted, "something was lost or added");
    assert!(server.stop().success(), "still stops cleanly");
}

/// Batches of some kilobytes that unfold to 24 MiB each: whoever decodes them holds few of them at a time.
#[test]
fn batches_that_unfold_a_thousandfold_are_decoded_a_few_at_a_time() {
    const BATCHES: usize = 40;
    let _beside = beside_others();
    let scratch = Scratch::new("unfolding");
    let topics = "[[topics]]\nname = \"folded\"\n[[topics]]\nname = \"folded_rows\"\n";
    let mut server = Server::with_config(&scratch, topics);
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &server.kafka)
        .set("compression.codec", "zstd")
        .set("message.max.bytes", "200000000")
        .create()
        .unwrap();
    let long = vec![0; 24 << 20];
    let row = r#"{"id": 1, "ts": 1795168800000}"#;
    for _ in 0..BATCHES {
        // refused for its value, and accepted
        producer.send(BaseRecord::to("folded").key(&long).payload("no JSON")).map_err(|(e, _)| e).unwrap();
        producer.flush(Duration::from_secs(60)).unwrap();
        producer
            .send(BaseRecord::to("folded_rows").key("1").payload(&padded(row, 24 << 20)))
            .map_err(|(e, _)| e)
            .unwrap();
        producer.flush(Duration::from_secs(60)).unwrap();
    }
    assert!(server.stop().success());
    let streams = r#"
[[streams]]
name = "folded"
topic = "folded"
event_time = "ts"
columns = [{ name = "id", type = "BIGINT" }, { name = "ts", type = "TIMESTAMP" }]
[[streams]]
name = "folded_rows"
topic = "folded_rows"
event_time = "ts"
columns = [{ name = "id", type = "BIGINT" }, { name = "ts", type = "TIMESTAMP" }]
[[views]]
sql = "CREATE MATERIALIZED VIEW counted AS SELECT id, count(*) AS n FROM folded_rows GROUP BY id"
[[tables]]
name = "folded_table"
topic = "folded_rows"
key = "id"
columns = [{ name = "id", type = "BIGINT" }]
"#;
    scratch.write("test.toml", &format!("{topics}{streams}"));
    server.start_again();
    let ask = |sql: &str| {
        let (status, text) = server.http.try_post("/v1/sql", &serde_json::json!({ "sql": sql }))?;
        let answer = serde_json::from_str(&text).map_err(|e| format!("{e}: {text}"))?;
        if status == 200 { Ok(rows(&answer)) } else { Err(text) }
    };
    eventually("all is read", Duration::from_secs(300), || {
        let counted = ask("SELECT n FROM counted")?;
        let refused = ask("SELECT records FROM data_quality WHERE rule = 'json'")?;
        let in_table = ask("SELECT count(*) AS n FROM folded_table")?;
        match counted == [[BATCHES]] && refused == [[BATCHES]] && in_table == [[1]] {
            true => Ok(()),
            false => Err(format!("{counted:?} {refused:?} {in_table:?}")),
        }
    });
    assert_eq!(server.http.sql("SELECT count(*) AS n FROM folded_rows"), [[BATCHES]]);
    let peak = server.peak_bytes();
    assert!(peak < 1_000 << 20, "memory rose to {peak} bytes");
    assert!(server.stop().success());
}

/// JSON with blanks behind it.
fn padded(json: &str, length: usize) -> Vec<u8> {
    let mut value = json.as_bytes().to_vec();
    value.resize(length, b' ');
    value
}

fn produce(server: &Server, count: usize) {
    let mut client = server.connect();
    for i in 0..count {
        let answer = client.call(&produce_request(batch(&[record(i)], Identity::default())), 9).unwrap();
        assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
    }
}

fn record(i: usize) -> PlainRecord {
    PlainRecord {
        key: None,
        value: Some(format!("value {i}")),
        timestamp: std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as i64,
    }
}

fn produce_request(batch: Bytes) -> ProduceRequest {
    let data = PartitionProduceData::default().with_records(Some(batch));
    let topic = TopicProduceData::default()
        .with_name(TopicName(StrBytes::from_static_str("kept")))
        .with_partition_data(vec![data]);
    ProduceRequest::default().with_acks(-1).with_timeout_ms(10_000).with_topic_data(vec![topic])
}

/// The values in the topic, in order.
fn values(server: &Server) -> Vec<String> {
    let answer = server.connect().call(&fetch_request(("kept", 0), 0, false), 12).unwrap();
    let records = records_in(answer.responses[0].partitions[0].records.clone().unwrap());
    records.into_iter().map(|record| String::from_utf8(record.value.unwrap().to_vec()).unwrap()).collect()
}

fn huge_and_negative_frames(server: &mut Server) {
    for length in [i32::MAX, i32::MIN, -1, 0, 1, 3, 200 << 20] {
        for _ in 0..20 {
            let mut client = server.connect();
            client.send_bytes(&length.to_be_bytes()).unwrap();
            let _ = client.send_bytes(&[0; 64]);
            if !(1..=100 << 20).contains(&length) {
                assert!(
                    client.is_closed_within(Duration::from_secs(10)),
                    "a frame of {length} bytes must close the connection"
                );
            }
        }
    }
    server.assert_alive();
    server.connect().ready().unwrap();
}

fn random_bytes(server: &mut Server, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let http = server.http.address().to_owned();
    for i in 0..400 {
        let address = if i % 2 == 0 { &server.kafka } else { &http };
        let mut bytes = vec![0; random.random_range(1..4096)];
        random.fill(bytes.as_mut_slice());
        if i % 8 == 0 {
            // A right length and a likely API key, so that the noise reaches the decoders.
            let length = bytes.len() as i32;
            let mut framed = length.to_be_bytes().to_vec();
            framed.extend((random.random_range(0..76) as i16).to_be_bytes());
            framed.extend((random.random_range(0..14) as i16).to_be_bytes());
            framed.extend(&bytes[4.min(bytes.len())..]);
            framed.resize(length as usize + 4, 0);
            bytes = framed;
        }
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let _ = stream.write_all(&bytes);
        let _ = stream.read(&mut [0; 256]);
    }
    server.assert_alive();
    server.connect().ready().unwrap();
    assert_eq!(server.http.try_get("/health/live").unwrap().0, 200);
}

/// Many connections that promise large frames and send a few bytes now and then.
fn half_frames(server: &mut Server) {
    let mut slow: Vec<TcpStream> = (0..300).map(|_| TcpStream::connect(&server.kafka).unwrap()).collect();
    for stream in &mut slow {
        stream.write_all(&(64i32 << 20).to_be_bytes()).unwrap();
    }
    for _ in 0..3 {
        slow.iter_mut().for_each(|stream| drop(stream.write_all(&[0; 100])));
        std::thread::sleep(Duration::from_millis(200));
        server.assert_alive();
        server.connect().ready().unwrap();
    }
    let resident = server.resident_bytes();
    assert!(resident < 1 << 30, "300 promises of 64 MiB took {resident} bytes");
}

/// Requests whose arrays claim more entries than there are bytes: the decoder must not believe them.
fn lying_counts(server: &mut Server, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    for api_key in 0..76i16 {
        for version in 0..14i16 {
            let mut body = Vec::new();
            body.extend(api_key.to_be_bytes());
            body.extend(version.to_be_bytes());
            body.extend(1i32.to_be_bytes());
            body.extend((-1i16).to_be_bytes());
            // Array lengths of two billion, plain and compact, wherever one may start.
            for _ in 0..random.random_range(1..6) {
                body.extend([0x7f, 0xff, 0xff, 0xff]);
                body.extend([0xff, 0xff, 0xff, 0xff, 0x07]);
            }
            let mut stream = TcpStream::connect(&server.kafka).unwrap();
            stream.set_read_timeout(Some(Duration::from_millis(2))).unwrap();
            let _ = stream.write_all(&(body.len() as i32).to_be_bytes());
            let _ = stream.write_all(&body);
            let _ = stream.read(&mut [0; 64]);
        }
    }
    server.assert_alive();
    server.connect().ready().unwrap();
}
