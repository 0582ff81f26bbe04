//! The queries of the Nexmark benchmark (`nexmark/queries.toml`), each run by Millpond while events come, with a kill -9 in the middle,
//! and compared with plain SQL over all events at once, which knows nothing of streams.

use crate::support::http::rows;
use crate::support::nexmark::{Event, Settings, auction_ms_max, events};
use crate::support::reader::each_record;
use crate::support::server::Server;
use crate::support::{Scratch, beside_others, eventually, seed, source};
use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use arrow::json::ReaderBuilder;
use arrow::util::display::array_value_to_string;
use datafusion::datasource::MemTable;
use datafusion::prelude::SessionContext;
use rdkafka::ClientConfig;
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;

const EVENTS: usize = 8_000;
const DAY_MS: i64 = 86_400_000;
/// After all events: the times of those that only move event time on, from the day after this one.
const CLOSING_MS: i64 = 1_743_465_600_000;
/// So often, as a view over the topic of a view is a round behind.
const CLOSING_ROUNDS: i64 = 3;
/// Topics, and their partitions.
const TOPICS: [(&str, i32); 3] = [("person", 2), ("auction", 2), ("bid", 3)];
const SIDE_INPUT: std::ops::Range<i64> = 0..400;
const CONFIG: &str = r#"
[[topics]]
name = "person"
partitions = 2

[[topics]]
name = "auction"
partitions = 2

[[topics]]
name = "bid"
partitions = 3
config = { "message.timestamp.type" = "LogAppendTime" }
"#;
const PATIENCE: Duration = Duration::from_secs(240);

#[derive(Deserialize)]
struct Queries {
    streams: String,
    queries: Vec<Query>,
}

#[derive(Deserialize)]
struct Query {
    name: String,
    declare: String,
    read: String,
    plain: String,
}

#[test]
fn nexmark_equals_plain_sql() {
    let _beside = beside_others();
    let scratch = Scratch::new("nexmark");
    let settings = Settings {
        seed: seed("nexmark"),
        gap_ms: 20,
        // Days, nights and what is between, and a midnight.
        pause: (EVENTS as u64 / 4, 6 * 3_600_000),
        shuffled: 8,
        ..Settings::default()
    };
    // What the query of average prices writes out.
    assert!(auction_ms_max(&settings) <= 120_000);
    let all: Vec<Event> = events(settings, EVENTS as u64).collect();
    let Queries { streams, queries } =
        toml::from_str(&std::fs::read_to_string(source("nexmark/queries.toml")).unwrap()).unwrap();
    let mut server = Server::with_config(&scratch, CONFIG);
    declare(&server, &streams);
    send_side_input(&server);
    send(&server, &all[..EVENTS / 2]);
    for query in &queries {
        declare(&server, &query.declare);
    }
    send(&server, &all[EVENTS / 2..EVENTS * 3 / 4]);
    server.kill9();
    server.start_again();
    send(&server, &all[EVENTS * 3 / 4..]);
    send_closing(&server);
    let plain = Plain::new(&server, &all);
    for query in &queries {
        let wanted = plain.rows(&query.plain);
        assert!(!wanted.is_empty(), "{}: without a row it compares nothing", query.name);
        eventually(&query.name, PATIENCE, || difference(&server, query, &wanted));
        eprintln!("nexmark: {}, {} rows", query.name, wanted.len());
    }
    nothing_was_late(&server);
    assert!(server.stop().success());
}

fn declare(server: &Server, script: &str) {
    server.http.post("/v1/sql", &json!({ "sql": script }));
}

/// Err says in what the answer differs.
fn difference(server: &Server, query: &Query, wanted: &[String]) -> Result<(), String> {
    let (status, text) = server.http.try_post("/v1/sql", &json!({ "sql": query.read }))?;
    assert_eq!(status, 200, "{}: {text}", query.name);
    let answer: Value = serde_json::from_str(&text).unwrap();
    let mut got: Vec<String> = rows(&answer).iter().map(|row| in_one_line(row.iter().map(text_of))).collect();
    got.sort();
    if got == wanted {
        return Ok(());
    }
    let missing: Vec<&String> = wanted.iter().filter(|row| got.binary_search(row).is_err()).take(3).collect();
    let wrong: Vec<&String> = got.iter().filter(|row| wanted.binary_search(row).is_err()).take(3).collect();
    Err(format!("{} rows for {}, missing {missing:?}, wrong {wrong:?}", got.len(), wanted.len()))
}

fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn in_one_line(values: impl Iterator<Item = String>) -> String {
    values.collect::<Vec<String>>().join(" | ")
}

/// All events count: what is compared would be others' rows.
fn nothing_was_late(server: &Server) {
    let views = server.http.get("/v1/views");
    for view in views["views"].as_array().unwrap() {
        let status = &view["status"];
        assert_eq!((&status["late"], &status["failed"], &status["lost"]), (&json!(0), &json!(0), &json!(0)), "{view}");
    }
    let streams = server.http.get("/v1/streams");
    for stream in streams["streams"].as_array().unwrap() {
        assert_eq!((&stream["rejected"], &stream["lost"]), (&json!(0), &json!(0)), "{stream}");
        assert!(stream["derived"].is_null() || stream["derived"]["late"] == 0, "{stream}");
    }
}

fn producer(server: &Server) -> ThreadedProducer<rdkafka::producer::DefaultProducerContext> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &server.kafka).set("enable.idempotence", "true").set("acks", "all");
    config.set("queue.buffering.max.messages", "1000000").create().unwrap()
}

/// Each event to the partitions of its topic in turn, so that they come in order there.
fn send(server: &Server, events: &[Event]) {
    let producer = producer(server);
    let mut turns = [0; TOPICS.len()];
    for event in events {
        let at = match event {
            Event::Person(_) => 0,
            Event::Auction(_) => 1,
            Event::Bid(_) => 2,
        };
        let (topic, partitions) = TOPICS[at];
        let value = event.json();
        let record = BaseRecord::<str, str>::to(topic).partition(turns[at] % partitions).payload(&value);
        producer.send(record).map_err(|(error, _)| error).unwrap();
        turns[at] += 1;
    }
    producer.flush(PATIENCE).unwrap();
}

/// What moves event time on in every partition of every topic, also of what is computed from them.
fn send_closing(server: &Server) {
    for round in 1..=CLOSING_ROUNDS {
        let (id, at) = (-round, CLOSING_MS + round * DAY_MS);
        let values = [
            json!({ "id": id, "name": "closing", "dateTime": at }),
            json!({ "id": id, "seller": id, "category": id, "expires": at, "dateTime": at }),
            json!({ "auction": id, "bidder": id, "price": 0, "channel": "closing", "dateTime": at }),
        ];
        let producer = producer(server);
        for ((topic, partitions), value) in TOPICS.iter().zip(&values) {
            let value = value.to_string();
            for partition in 0..*partitions {
                let record = BaseRecord::<str, str>::to(topic).partition(partition).payload(&value);
                producer.send(record).map_err(|(error, _)| error).unwrap();
            }
        }
        producer.flush(PATIENCE).unwrap();
    }
}

fn label(id: i64) -> String {
    format!("label {}", id % 7)
}

/// Before the first bid is joined to it.
fn send_side_input(server: &Server) {
    let producer = producer(server);
    for id in SIDE_INPUT {
        let (key, value) = (id.to_string(), json!({ "label": label(id) }).to_string());
        producer.send(BaseRecord::to("side_input").key(&key).payload(&value)).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(PATIENCE).unwrap();
}

/// Plain SQL over tables that hold everything.
struct Plain {
    context: SessionContext,
    runtime: tokio::runtime::Runtime,
}

/// A column: its field in JSON, its name and its type.
type Column = (&'static str, &'static str, DataType);

impl Plain {
    fn new(server: &Server, all: &[Event]) -> Plain {
        let plain = Plain { context: SessionContext::new(), runtime: tokio::runtime::Runtime::new().unwrap() };
        let lines = |is: fn(&Event) -> bool| all.iter().filter(|event| is(event)).map(Event::json).collect();
        let (number, text) = (|name| (name, name, DataType::Int64), |name| (name, name, DataType::Utf8));
        let time = |field, name| (field, name, DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())));
        let person = [number("id"), text("name"), text("city"), text("state"), time("dateTime", "ts")];
        plain.add("person", &person, lines(|event| matches!(event, Event::Person(_))));
        let auction =
            [number("id"), number("seller"), number("category"), time("expires", "expires"), time("dateTime", "ts")];
        plain.add("auction", &auction, lines(|event| matches!(event, Event::Auction(_))));
        let (numbers, texts) = (["auction", "bidder", "price"], ["channel", "url", "extra"]);
        let bid: Vec<Column> =
            numbers.map(number).into_iter().chain(texts.map(text)).chain([time("dateTime", "ts")]).collect();
        plain.add("bid", &bid, lines(|event| matches!(event, Event::Bid(_))));
        let side_input = SIDE_INPUT.map(|id| json!({ "id": id, "label": label(id) }).to_string()).collect();
        plain.add("side_input", &[number("id"), text("label")], side_input);
        plain.add("arrival", &[number("bidder"), time("arrived", "arrived")], arrivals(server));
        plain
    }

    fn add(&self, name: &str, columns: &[Column], lines: Vec<String>) {
        let schema = |of: fn(&Column) -> &'static str| {
            let field = |column: &Column| Field::new(of(column), column.2.clone(), true);
            Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<Field>>()))
        };
        let (written, named) = (schema(|column| column.0), schema(|column| column.1));
        let read = ReaderBuilder::new(written).build(Cursor::new(lines.join("\n"))).unwrap();
        let renamed = |read: RecordBatch| RecordBatch::try_new(named.clone(), read.columns().to_vec()).unwrap();
        let batches: Vec<RecordBatch> = read.map(|read| renamed(read.unwrap())).collect();
        assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), lines.len(), "{name}");
        self.context.register_table(name, Arc::new(MemTable::try_new(named, vec![batches]).unwrap())).unwrap();
    }

    /// What a statement gives, each row as a line, in the order of the lines.
    fn rows(&self, sql: &str) -> Vec<String> {
        let read = async { self.context.sql(sql).await?.collect().await };
        let batches = self.runtime.block_on(read).unwrap_or_else(|error| panic!("{error}: {sql}"));
        let mut lines = Vec::new();
        for batch in &batches {
            let text = |row, column: &arrow::array::ArrayRef| array_value_to_string(column, row).unwrap();
            lines.extend(
                (0..batch.num_rows()).map(|row| in_one_line(batch.columns().iter().map(|column| text(row, column)))),
            );
        }
        lines.sort();
        lines
    }
}

/// When the broker wrote down the bids of the events, as a consumer reads it.
fn arrivals(server: &Server) -> Vec<String> {
    let mut arrivals = Vec::new();
    each_record(&server.kafka, "bid", |record| {
        let bid: Value = serde_json::from_slice(record.payload().unwrap()).unwrap();
        if bid["bidder"].as_i64() > Some(0) {
            arrivals.push(json!({ "bidder": bid["bidder"], "arrived": record.timestamp().to_millis() }).to_string());
        }
    });
    arrivals
}

/// The first bid of the seed 1.
const FIRST_BID: &str = r#"{"auction":1012,"bidder":1009,"price":4195018,"channel":"Facebook","url":"https://auctions.example/vhoiy/item","dateTime":1741006800040,"extra":"egahltdrakzzyyualyyy"}"#;

#[test]
fn a_seed_gives_the_same_events_for_ever() {
    let settings = Settings { shuffled: 7, pause: (100, 60_000), ..Settings::default() };
    let twice = [0, 1].map(|_| events(settings, 1_000).collect::<Vec<Event>>());
    assert_eq!(twice[0], twice[1]);
    assert_eq!(events(Settings::default(), 5).last().unwrap().json(), FIRST_BID);
    let other = events(Settings { seed: 2, ..Settings::default() }, 5).last().unwrap().json();
    assert_ne!(other, FIRST_BID);
}

#[test]
fn one_person_three_auctions_and_the_rest_are_bids() {
    let settings = Settings { shuffled: 10, ..Settings::default() };
    let (mut people, mut auctions) = (BTreeSet::new(), BTreeSet::new());
    for event in events(settings, 5_000) {
        match event {
            Event::Person(person) => assert!(people.insert(person.id), "{person:?}"),
            Event::Auction(auction) => {
                let length_ms = auction.expires - auction.date_time;
                assert!((1..=auction_ms_max(&settings)).contains(&length_ms), "{auction:?}");
                assert!(auctions.insert(auction.id), "{auction:?}");
            }
            Event::Bid(_) => {}
        }
    }
    assert!(people.into_iter().eq(1_000..1_100), "one in fifty");
    assert!(auctions.into_iter().eq(1_000..1_300), "three in fifty");
}
