//! Sinks against a real PostgreSQL: tables equal the stream and the view after both sides were killed again and again, what
//! constraints refuse is written down once, and files appear whole.

use crate::support::postgres::Postgres;
use crate::support::server::Server;
use crate::support::{Scratch, beside_others, eventually, seed};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const SYSTEM: &str = r#"
[[topics]]
name = "invoices"
partitions = 3
[[topics]]
name = "people"
partitions = 1
[[streams]]
name = "invoices"
topic = "invoices"
event_time = "ts"
columns = [
    { name = "id", type = "BIGINT", required = true },
    { name = "person", type = "BIGINT", required = true },
    { name = "ts", type = "TIMESTAMP", required = true },
    { name = "amount", type = "DECIMAL(12,2)", required = true },
    { name = "skill", type = "VARCHAR" },
    { name = "paid", type = "BOOLEAN" },
    { name = "due", type = "DATE" },
    { name = "rate", type = "DOUBLE" },
]
[[streams]]
name = "people"
topic = "people"
event_time = "ts"
columns = [
    { name = "id", type = "BIGINT", required = true },
    { name = "ts", type = "TIMESTAMP", required = true },
    { name = "nom", type = "VARCHAR" },
]
[[views]]
sql = "CREATE MATERIALIZED VIEW revenue AS SELECT skill, count(*) AS invoices, sum(amount) AS total, max(rate) AS top FROM invoices GROUP BY TUMBLE(ts, INTERVAL '1' HOUR), skill HAVING count(*) < 60"
[[sinks]]
name = "people"
kind = "postgres"
stream = "people"
table = "Freelances"
key = ["id"]
columns = [{ name = "id" }, { name = "name", from = "nom" }]
create = true
[[sinks]]
name = "invoices"
kind = "postgres"
stream = "invoices"
table = "Factures"
key = ["id"]
create = true
batch_rows = 700
interval = "20ms"
reference_wait = "1s"
ddl = """
ALTER TABLE "Factures" ADD CHECK (amount > 0);
ALTER TABLE "Factures" ADD CONSTRAINT known_person FOREIGN KEY (person) REFERENCES "Freelances" (id) DEFERRABLE INITIALLY DEFERRED;
CREATE INDEX ON "Factures" (skill, ts);
"""
[[sinks]]
name = "revenue"
kind = "postgres"
view = "revenue"
table = "Indicateurs"
create = true
interval = "20ms"
"#;

const PEOPLE: i64 = 50;
const INVOICES: u32 = 12_000;
const ROUNDS: u32 = 6;

/// What the writer sent: the last good row of each id, and how many rows a constraint refuses.
#[derive(Default)]
struct Sent {
    rows: BTreeMap<i64, Value>,
    refused: Vec<Value>,
}

#[test]
fn tables_equal_stream_and_view_after_both_sides_were_killed() {
    let _beside = beside_others();
    let scratch = Scratch::new("sinks");
    let mut random = StdRng::seed_from_u64(seed("sinks"));
    let mut postgres = Postgres::start();
    let mut server = start(&scratch, &postgres);
    let producer = producer(&server.kafka);
    for id in 0..PEOPLE {
        let person = json!({"id": id, "ts": "2026-11-20T08:00:00Z", "nom": format!("Élodie {id}")});
        send(&producer, "people", id, &person);
    }
    producer.flush(Duration::from_secs(60)).unwrap();
    let going_on = Arc::new(AtomicBool::new(true));
    let writer = std::thread::spawn({
        let (producer, going_on, seed) = (producer.clone(), going_on.clone(), random.random());
        move || write(&producer, &going_on, seed)
    });
    for round in 1..=ROUNDS {
        std::thread::sleep(Duration::from_millis(random.random_range(200..1_200)));
        match round % 3 {
            0 => {
                postgres.kill9();
                server.kill9();
                server.start_again();
                std::thread::sleep(Duration::from_millis(random.random_range(0..1_000)));
                postgres.start_again();
            }
            1 => {
                postgres.kill9();
                std::thread::sleep(Duration::from_millis(random.random_range(0..500)));
                postgres.start_again();
            }
            _ => {
                server.kill9();
                server.start_again();
            }
        }
    }
    going_on.store(false, Ordering::Relaxed);
    let sent = writer.join().unwrap();
    producer.flush(Duration::from_secs(120)).unwrap();
    caught_up(&server);
    assert_invoices(&postgres, &sent);
    assert_view(&postgres, &server);
    assert_refused(&server, &sent);
    let people = postgres.rows(r#"SELECT count(*), count(DISTINCT name) FROM "Freelances""#);
    assert_eq!(people, [format!("{PEOPLE}|{PEOPLE}")]);
    // Nothing is loaded again by a restart.
    server.stop();
    server.start_again();
    caught_up(&server);
    let sinks = server.http.get("/v1/sinks");
    let again: i64 = sinks["sinks"].as_array().unwrap().iter().map(|sink| sink["records"].as_i64().unwrap()).sum();
    assert_eq!(again, 0, "{sinks}");
    let metrics = server.http.text("/metrics");
    assert!(metrics.contains("millpond_sink_up{sink=\"invoices\"} 1"), "{metrics}");
    server.stop();
}

fn start(scratch: &Scratch, postgres: &Postgres) -> Server {
    use crate::support::server::Options;
    let configs = vec![scratch.write("sinks.toml", SYSTEM)];
    let args = vec!["--postgres".to_owned(), postgres.url()];
    Server::start_with(scratch, Options { configs, args, ..Options::default() })
}

type Writer = Arc<ThreadedProducer<rdkafka::producer::DefaultProducerContext>>;

fn producer(kafka: &str) -> Writer {
    let producer = ClientConfig::new()
        .set("bootstrap.servers", kafka)
        .set("enable.idempotence", "true")
        .set("message.timeout.ms", "600000")
        .set("reconnect.backoff.max.ms", "200")
        .set("linger.ms", "5")
        .create();
    Arc::new(producer.unwrap())
}

fn send(producer: &Writer, topic: &str, key: i64, value: &Value) {
    let (key, value) = (key.to_string(), value.to_string());
    loop {
        match producer.send(BaseRecord::to(topic).key(&key).payload(&value)) {
            Ok(()) => return,
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// Invoices with ids that come again, amounts that a check refuses, and persons that nobody is; at least [`INVOICES`], and
/// for as long as `going_on`.
fn write(producer: &Writer, going_on: &AtomicBool, seed: u64) -> Sent {
    let mut random = StdRng::seed_from_u64(seed);
    let mut sent = Sent::default();
    let mut count = 0u32;
    while count < INVOICES || going_on.load(Ordering::Relaxed) {
        count += 1;
        let id = random.random_range(0..i64::from(INVOICES) / 3);
        let cents = random.random_range(1..1_000_000);
        let (mut amount, mut person) = (format!("{}.{:02}", cents / 100, cents % 100), random.random_range(0..PEOPLE));
        let refused = match random.random_range(0..400) {
            0 | 1 => {
                amount = format!("-{amount}");
                true
            }
            2 => {
                person = PEOPLE + 1;
                true
            }
            _ => false,
        };
        let skill = [Some("Rust"), Some("l'été, \"SQL\""), None, Some("C\\C")][random.random_range(0..4)];
        let mut row = json!({
            "id": id, "person": person, "ts": format!("2026-11-20T{:02}:{:02}:00Z", random.random_range(8..12), random.random_range(0..60)),
            "amount": amount, "skill": skill, "paid": random.random_bool(0.5), "due": "2026-12-24",
            "rate": f64::from(random.random_range(1..100_000)) / 7.0,
        });
        send(producer, "invoices", id, &row);
        if refused {
            sent.refused.push(row);
        } else {
            // As text: a number that is read from JSON may be its neighbour.
            let rate = row["rate"].as_f64().unwrap().to_string();
            sent.rows.insert(id, {
                row["rate"] = rate.into();
                row
            });
        }
        if count.is_multiple_of(50) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    sent
}

fn caught_up(server: &Server) {
    let want = |sink: &Value| sink["state"] == "running" && sink["lag"] == 0 && sink["error"].is_null();
    // The view must have seen all before its sink can.
    server.http.get("/v1/views/revenue?wait=30s");
    eventually("every sink has taken everything", Duration::from_secs(120), || {
        let sinks = server.http.get("/v1/sinks");
        let all = sinks["sinks"].as_array().unwrap().iter().all(want);
        if all { Ok(()) } else { Err(sinks.to_string()) }
    });
}

fn assert_invoices(postgres: &Postgres, sent: &Sent) {
    let sql = r#"SELECT json_build_object('id', id, 'person', person, 'ts', to_char(ts AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
                 'amount', amount::text, 'skill', skill, 'paid', paid, 'due', due::text, 'rate', rate::text) FROM "Factures" ORDER BY id"#;
    let rows: BTreeMap<i64, Value> = postgres
        .rows(sql)
        .iter()
        .map(|row| serde_json::from_str::<Value>(row).unwrap())
        .map(|row| (row["id"].as_i64().unwrap(), row))
        .collect();
    let wrong: Vec<String> = sent
        .rows
        .iter()
        .filter(|(id, row)| rows.get(id) != Some(row))
        .map(|(id, row)| format!("{id}: sent {row}, found {:?}", rows.get(id)))
        .take(5)
        .collect();
    assert!(wrong.is_empty(), "{} sent, {} found:\n{}", sent.rows.len(), rows.len(), wrong.join("\n"));
    assert_eq!(rows.len(), sent.rows.len());
}

fn assert_view(postgres: &Postgres, server: &Server) {
    let view = server.http.get("/v1/views/revenue?wait=30s");
    let mut wanted: Vec<String> = crate::support::http::rows(&view)
        .iter()
        .map(|row| {
            // PostgreSQL writes a double without a fraction as a whole number.
            let number = |cell: &Value| cell.to_string().trim_end_matches(".0").to_owned();
            let text = |cell: &Value| cell.as_str().map_or_else(|| number(cell), str::to_owned);
            let cells: Vec<String> = row.iter().filter(|cell| !cell.is_null()).map(text).collect();
            cells.join("|")
        })
        .collect();
    wanted.sort();
    assert!(!wanted.is_empty());
    let time = |name: &str| format!("to_char({name} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')");
    let sql = format!(
        r#"SELECT concat_ws('|', {}, {}, skill, invoices, total, top) FROM "Indicateurs""#,
        time("window_start"),
        time("window_end")
    );
    let mut found = postgres.rows(&sql);
    found.sort();
    assert_eq!(found, wanted);
}

/// Every refused row is in the topic, once, with the reason.
fn assert_refused(server: &Server, sent: &Sent) {
    let mut found: Vec<(String, String)> = Vec::new();
    let mut places = Vec::new();
    read_all(&server.kafka, "invoices.rejected", |message| {
        let headers = message.headers().unwrap();
        let header = |name: &str| {
            let header = headers.iter().find(|header| header.key == name).unwrap();
            String::from_utf8_lossy(header.value.unwrap()).into_owned()
        };
        places.push((header("partition"), header("offset")));
        let row: Value = serde_json::from_slice(message.payload().unwrap()).unwrap();
        found.push((format!("{} {} {}", row["id"], row["person"], row["amount"]), header("constraint")));
    });
    let doubled = places.len();
    places.sort();
    places.dedup();
    assert_eq!(places.len(), doubled, "no row is written down twice");
    let constraint = |row: &Value| if row["person"] == PEOPLE + 1 { "known_person" } else { "Factures_amount_check" };
    let mut wanted: Vec<(String, String)> = sent
        .refused
        .iter()
        .map(|row| (format!("{} {} {}", row["id"], row["person"], row["amount"]), constraint(row).to_owned()))
        .collect();
    assert!(!wanted.is_empty());
    for row in found {
        let at = wanted.iter().position(|refused| *refused == row);
        wanted.swap_remove(at.unwrap_or_else(|| panic!("refused without reason, or twice: {row:?}")));
    }
    // The foreign key is deferred: an orphan that a good row of its id replaced in the same transaction was never refused.
    let is_replaced = |(row, constraint): &(String, String)| {
        let id = row.split(' ').next().and_then(|id| id.parse().ok());
        constraint == "known_person" && id.is_some_and(|id: i64| sent.rows.contains_key(&id))
    };
    let lost: Vec<_> = wanted.iter().filter(|row| !is_replaced(row)).collect();
    assert!(lost.is_empty() && wanted.len() < 30, "refused and not written down: {lost:?} of {wanted:?}");
}

fn read_all(kafka: &str, topic: &str, mut visit: impl FnMut(&rdkafka::message::BorrowedMessage<'_>)) {
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", kafka).set("group.id", "look").create().unwrap();
    let (_, end) = consumer.fetch_watermarks(topic, 0, Duration::from_secs(30)).unwrap();
    let mut list = rdkafka::TopicPartitionList::new();
    list.add_partition_offset(topic, 0, rdkafka::Offset::Beginning).unwrap();
    consumer.assign(&list).unwrap();
    let mut next = 0;
    while next < end {
        let message = consumer.poll(Duration::from_secs(30)).expect("a record").unwrap();
        next = message.offset() + 1;
        visit(&message);
    }
}

#[test]
fn without_a_database_a_sink_is_off_and_says_how_to_turn_it_on() {
    let scratch = Scratch::new("sinks-off");
    let mut server = Server::with_config(&scratch, SYSTEM);
    let sinks = server.http.get("/v1/sinks");
    assert_eq!(sinks["sinks"][0]["state"], "off", "{sinks}");
    assert!(sinks["sinks"][0]["error"].as_str().unwrap().contains("--postgres"), "{sinks}");
    server.stop();
}

#[test]
fn a_file_sink_writes_whole_files_on_time_and_on_demand() {
    let scratch = Scratch::new("file-sink");
    let folder = scratch.path("exports");
    let system = format!(
        "{}\n[[sinks]]\nname = \"report\"\nkind = \"file\"\nsql = \"SELECT id, nom FROM people ORDER BY id\"\nfolder = {folder:?}\n\
         every = \"1s\"\nkeep = 2\n[[sinks]]\nname = \"demanded\"\nkind = \"file\"\nformat = \"json\"\nstream = \"people\"\nfolder = {folder:?}\n",
        &SYSTEM[..SYSTEM.find("[[sinks]]").unwrap()]
    );
    let mut server = Server::with_config(&scratch, &system);
    let records = json!({"records": [
        {"value": {"id": 1, "ts": "2026-11-20T08:00:00Z", "nom": "Zoé, \"Z\""}},
        {"value": {"id": 2, "ts": "2026-11-20T08:00:00Z", "nom": null}},
    ]});
    server.http.post("/v1/topics/people/records", &records);
    let wanted = "id,nom\r\n1,\"Zoé, \"\"Z\"\"\"\r\n2,\r\n";
    eventually("the file is there", Duration::from_secs(20), || {
        let text = std::fs::read_to_string(folder.join("report.csv")).unwrap_or_default();
        if text == wanted { Ok(()) } else { Err(text) }
    });
    std::thread::sleep(Duration::from_millis(2_500));
    let names: Vec<String> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let kept = names.iter().filter(|name| name.starts_with("report-")).count();
    assert!((1..=2).contains(&kept), "{names:?}");
    let done = server.http.post("/v1/sinks/demanded/export", &Value::Null);
    assert!(done["done"].as_str().unwrap().starts_with("2 rows"), "{done}");
    let text = std::fs::read_to_string(folder.join("demanded.json")).unwrap();
    let rows: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&rows[0]["nom"], &rows[1]["nom"]), (&json!("Zoé, \"Z\""), &Value::Null));
    server.stop();
}
