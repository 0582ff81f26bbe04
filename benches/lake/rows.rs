//! The rows of the lake's half: plays over ten days in the order of event time, as JSON or Avro, and the stream over them.

use apache_avro::Schema;
use apache_avro::types::Record;
use engine::{ColumnConfig, EngineConfig, OwnSchema, StreamConfig, StreamFormat};

use crate::Outcome;

/// The topic and the stream over it, and so the table.
pub const TABLE: &str = "plays";
/// Days that the rows spread over, one slice each.
pub const DAYS: i64 = 10;
/// Event time of the first row: 2026-11-01, UTC.
pub const FIRST_MS: i64 = 1_793_491_200_000;
/// A day in ms.
pub const DAY_MS: i64 = 86_400_000;
/// Distinct users.
const USERS: u64 = 100_000;
const GENRES: [&str; 12] =
    ["pop", "rock", "hip-hop", "jazz", "folk", "soul", "metal", "techno", "house", "classical", "reggae", "blues"];
const COUNTRIES: [&str; 20] = [
    "US", "DE", "FR", "GB", "BR", "IN", "SE", "ES", "IT", "JP", "MX", "CA", "NL", "PL", "AR", "KR", "AU", "PT", "NO",
    "FI",
];
const DEVICES: [&str; 4] = ["phone", "desktop", "tablet", "speaker"];
/// The fields of a record, which are the columns, with their types in SQL and in Avro.
const FIELDS: [(&str, &str, &str); 8] = [
    ("event", "VARCHAR", r#""string""#),
    ("user_id", "BIGINT", r#""long""#),
    ("track_id", "VARCHAR", r#""string""#),
    ("genre", "VARCHAR", r#""string""#),
    ("duration_ms", "BIGINT", r#""long""#),
    ("country", "VARCHAR", r#""string""#),
    ("device", "VARCHAR", r#""string""#),
    ("ts", "TIMESTAMP", r#"{"type": "long", "logicalType": "timestamp-millis"}"#),
];

/// How values are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// A JSON object.
    Json,
    /// Avro with the stream's own schema.
    Avro,
}

/// One play.
struct Play {
    ts: i64,
    user_id: u64,
    track: u64,
    genre: &'static str,
    duration_ms: u64,
    country: &'static str,
    device: &'static str,
}

/// Event time of a row of `of`, in ms since 1970.
pub fn time_ms(number: usize, of: usize) -> i64 {
    FIRST_MS + (DAYS as f64 * DAY_MS as f64 * number as f64 / of as f64) as i64
}

impl Play {
    /// The row of this number of `of`: few users, tracks and genres make most of the plays.
    fn new(number: usize, of: usize) -> Self {
        // SplitMix64: the same rows in every run
        let mut state = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut draw = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        };
        let mut skewed = |count: u64| {
            let part = draw() as f64 / u64::MAX as f64;
            ((part * part * count as f64) as u64).min(count - 1)
        };
        Self {
            ts: time_ms(number, of),
            user_id: skewed(USERS),
            track: skewed(1_000_000),
            genre: GENRES[skewed(GENRES.len() as u64) as usize],
            country: COUNTRIES[skewed(COUNTRIES.len() as u64) as usize],
            device: DEVICES[skewed(DEVICES.len() as u64) as usize],
            duration_ms: 30_000 + draw() % 300_000,
        }
    }

    fn json(&self) -> String {
        let Self { ts, user_id, track, genre, duration_ms, country, device } = self;
        format!(
            "{{\"event\":\"listen\",\"user_id\":{user_id},\"track_id\":\"track-{track:06}\",\"genre\":\"{genre}\",\
             \"duration_ms\":{duration_ms},\"country\":\"{country}\",\"device\":\"{device}\",\"ts\":{ts:013}}}"
        )
    }

    fn avro(&self, schema: &Schema) -> Outcome<Vec<u8>> {
        let mut record = Record::new(schema).ok_or("the schema is not of a record")?;
        record.put("event", "listen");
        record.put("user_id", self.user_id.cast_signed());
        record.put("track_id", format!("track-{:06}", self.track));
        record.put("genre", self.genre);
        record.put("duration_ms", self.duration_ms.cast_signed());
        record.put("country", self.country);
        record.put("device", self.device);
        record.put("ts", apache_avro::types::Value::TimestampMillis(self.ts));
        Ok(apache_avro::to_avro_datum(schema, record)?)
    }
}

/// Writes values.
pub struct Writer {
    schema: Option<Schema>,
}

impl Writer {
    /// A writer of this encoding.
    ///
    /// # Errors
    /// None in practice.
    pub fn new(encoding: Encoding) -> Outcome<Self> {
        let schema = match encoding {
            Encoding::Json => None,
            Encoding::Avro => Some(Schema::parse_str(&avro_schema())?),
        };
        Ok(Self { schema })
    }

    /// The value of the row of this number of `of`.
    ///
    /// # Errors
    /// None in practice.
    pub fn value(&self, number: usize, of: usize) -> Outcome<Vec<u8>> {
        let play = Play::new(number, of);
        self.schema.as_ref().map_or_else(|| Ok(play.json().into_bytes()), |schema| play.avro(schema))
    }
}

fn avro_schema() -> String {
    let fields = FIELDS.map(|(name, _, kind)| format!(r#"{{"name": "{name}", "type": {kind}}}"#));
    format!(r#"{{"type": "record", "name": "play", "fields": [{}]}}"#, fields.join(", "))
}

/// The engine with the stream over the topic, all fields columns.
pub fn engine_config(encoding: Encoding) -> EngineConfig {
    let column = |(name, sql_type, _): (&str, &str, &str)| ColumnConfig {
        name: name.into(),
        sql_type: sql_type.into(),
        ..ColumnConfig::default()
    };
    let (format, schema) = match encoding {
        Encoding::Json => (StreamFormat::Json, None),
        Encoding::Avro => (StreamFormat::Avro, Some(OwnSchema { text: avro_schema(), ..OwnSchema::default() })),
    };
    let stream = StreamConfig {
        name: TABLE.into(),
        topic: TABLE.into(),
        format,
        schema,
        columns: FIELDS.map(column).to_vec(),
        event_time: "ts".into(),
        ..StreamConfig::default()
    };
    EngineConfig { streams: vec![stream], ..EngineConfig::default() }
}

/// The same stream in a file of configuration, with a topic of so many partitions.
pub fn stream_toml(partitions: i32) -> String {
    let columns = FIELDS.map(|(name, kind, _)| format!(r#"    {{ name = "{name}", type = "{kind}" }},"#));
    format!(
        "topics = [{{ name = \"{TABLE}\", partitions = {partitions} }}]\n[[streams]]\nname = \"{TABLE}\"\ntopic = \"{TABLE}\"\n\
         event_time = \"ts\"\ncolumns = [\n{}\n]\n",
        columns.join("\n")
    )
}
