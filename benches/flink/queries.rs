//! The counts, as each of the three is asked for them.

use crate::engine::events::TOPIC;

/// Fields of an event that all declare, without its time; all are told of five seconds that an event may be behind.
const COLUMNS: &str = "user_id BIGINT, event VARCHAR, genre VARCHAR, duration_ms BIGINT, note VARCHAR";
/// What is counted: a row per window and user.
const COUNTED: &str = "window_start TIMESTAMP(3), window_end TIMESTAMP(3), user_id BIGINT, plays BIGINT";

/// A count of events by window and user.
#[derive(Clone, Copy, Debug)]
pub struct Query {
    /// In tables, and of its view.
    pub name: &'static str,
    /// Millpond's window.
    pub window: &'static str,
    /// Flink's window over the table.
    table_function: &'static str,
    /// Spark's function, and its arguments after the time.
    pub spark: &'static [&'static str],
    /// In how many windows an event counts.
    pub windows: i64,
}

/// All of them, in the order of the tables.
pub const QUERIES: [Query; 3] = [
    Query {
        name: "tumble",
        window: "TUMBLE(ts, INTERVAL '1' MINUTE)",
        table_function: "TUMBLE(TABLE plays, DESCRIPTOR(event_time), INTERVAL '1' MINUTE)",
        spark: &["window", "1 minute"],
        windows: 1,
    },
    Query {
        name: "hop",
        window: "HOP(ts, INTERVAL '10' SECOND, INTERVAL '1' MINUTE)",
        table_function: "HOP(TABLE plays, DESCRIPTOR(event_time), INTERVAL '10' SECOND, INTERVAL '1' MINUTE)",
        spark: &["window", "1 minute", "10 seconds"],
        windows: 6,
    },
    Query {
        name: "session",
        window: "SESSION(ts, INTERVAL '10' SECOND)",
        table_function: "SESSION(TABLE plays PARTITION BY user_id, DESCRIPTOR(event_time), INTERVAL '10' SECOND)",
        spark: &["session_window", "10 seconds"],
        windows: 1,
    },
];

impl Query {
    /// Millpond's view.
    pub fn view(&self) -> String {
        let Self { name, window, .. } = self;
        format!(
            "CREATE MATERIALIZED VIEW {name} AS SELECT user_id, count(*) AS plays FROM {TOPIC} GROUP BY {window}, user_id"
        )
    }

    /// Flink's job that writes to a table.
    pub fn insert(&self, table: &str) -> String {
        format!(
            "INSERT INTO {table} SELECT window_start, window_end, user_id, count(*) FROM TABLE({}) \
             GROUP BY window_start, window_end, user_id",
            self.table_function
        )
    }
}

/// Millpond's stream over its topic.
pub fn stream() -> String {
    format!("CREATE STREAM {TOPIC} ({COLUMNS}, ts TIMESTAMP) WITH (event_time = 'ts', lateness = '5 seconds')")
}

/// Flink's table over the topic of Kafka; it ends with what is there when a job starts.
pub fn source(kafka: &str) -> String {
    let columns = COLUMNS.replace("VARCHAR", "STRING");
    format!(
        "CREATE TABLE plays ({columns}, ts BIGINT, event_time AS TO_TIMESTAMP_LTZ(ts, 3), \
         WATERMARK FOR event_time AS event_time - INTERVAL '5' SECOND) WITH ('connector' = 'kafka', 'topic' = '{TOPIC}', \
         'properties.bootstrap.servers' = '{kafka}', 'scan.startup.mode' = 'earliest-offset', \
         'scan.bounded.mode' = 'latest-offset', 'format' = 'json')"
    )
}

/// Flink's table that takes results, with the options of its connector.
pub fn sink(name: &str, options: &str) -> String {
    format!("CREATE TABLE {name} ({COUNTED}) WITH ({options})")
}
