//! The table of the counts.

use std::fmt::Write;

use super::job::SETTINGS;
use super::{Beside, Cost, FILE_EVENTS, Measured, PARTITIONS, USERS};
use crate::Outcome;
use crate::report::median;

impl Measured {
    /// Medians of a figure: of Millpond, Flink and Spark.
    fn medians(&self, of: impl Fn(&Cost) -> f64) -> [f64; 3] {
        [0, 1, 2].map(|who| median(&mut self.costs.iter().map(|round| of(&round[who])).collect::<Vec<_>>()))
    }
}

impl Beside {
    /// Events per CPU second of a query: of Millpond and Flink.
    pub fn per_cpu_second(&self, name: &str) -> Option<[f64; 2]> {
        let measured = self.measured.iter().find(|one| one.query.name == name)?;
        let [ours, flinks, _] = measured.medians(|cost| cost.cpu).map(|cpu| self.events as f64 / cpu);
        Some([ours, flinks])
    }

    /// Adds its section.
    ///
    /// # Errors
    /// None in practice.
    pub fn describe(&self, text: &mut String) -> Outcome<()> {
        self.describe_conditions(text)?;
        writeln!(
            text,
            "| window | windows counted | events per CPU second: Millpond | Flink | Spark | Millpond / Flink | / Spark | \
             events/s by the clock: Millpond | Flink | Spark |\n|---|---|---|---|---|---|---|---|---|---|"
        )?;
        for one in &self.measured {
            let per = |of: fn(&Cost) -> f64| one.medians(of).map(|cost| self.events as f64 / cost);
            let [ours, flinks, sparks] = per(|cost| cost.cpu);
            let clock = per(|cost| cost.seconds).map(|rate| format!("{rate:.0}")).join(" | ");
            let (window, windows) = (one.query.window, one.windows);
            let (flink_times, spark_times) = (ours / flinks, ours / sparks);
            writeln!(
                text,
                "| `{window}` | {windows} | {ours:.0} | {flinks:.0} | {sparks:.0} | {flink_times:.1} | {spark_times:.1} | {clock} |"
            )?;
        }
        Ok(writeln!(text)?)
    }

    fn describe_conditions(&self, text: &mut String) -> Outcome<()> {
        let Self { events, event_bytes, .. } = self;
        let settings = SETTINGS.map(|setting| format!("`{setting}`")).join(", ");
        writeln!(
            text,
            "## Beside Apache Flink SQL and Spark Structured Streaming\n\n`count(*)` by window and user of {events} JSON events of \
             {event_bytes} B, {USERS} users without a pattern, an hour a million events, up to 3.6 s out of order where 5 s are declared. They are in \
             {PARTITIONS} partitions: of Millpond's own log; of a topic of Apache Kafka for Flink 2.1.1 with `flink-sql-connector-kafka` 4.0.1-2.0 \
             ({settings}; one JVM with a heap of 2 GiB); for Spark (RocksDB for state, two cores, a heap of 2 GiB) in files of {FILE_EVENTS}, two in \
             each step. All have counted the same in every window, Spark in every one that it closes.\n"
        )?;
        Ok(writeln!(
            text,
            "CPU is that of whole processes, with garbage collection and compilation, when all had made the same count once before. Flink: from the first \
             record that its consumer has to the end of the job, its JVM; what Kafka takes is left out. Spark: from the start of the query to its \
             end, its JVM and Python. The results of both go nowhere (`blackhole`, `noop`); Flink's time ends with a last checkpoint. Millpond: from \
             `CREATE MATERIALIZED VIEW` until the view has everything and a second more, the server, while nobody writes; its results go to its store and \
             to the view's topic.\n"
        )?)
    }
}
