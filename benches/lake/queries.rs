//! Queries over history and live rows, beside DuckDB and Spark on the same Parquet, and without live rows.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use arrow::util::display::{ArrayFormatter, FormatOptions};
use lake::{Lake, SqlAnswer, SqlRequest};
use serde_json::Value;

use super::log::{Log, PARTITIONS, settling, settling_on_demand};
use super::rows::{DAY_MS, DAYS, Encoding, FIRST_MS, TABLE};
use crate::report::median;
use crate::settings::Settings;
use crate::{Outcome, brokers, machine};

/// Of a hundred rows, so many are live in the first half.
const LIVE_PERCENT: usize = 5;
/// Times that a query is asked before it is measured.
const UNMEASURED: usize = 2;
/// Times that it is measured.
const MEASURED: usize = 9;
/// Dashboards are asked over one in so many rows.
const DASHBOARDS_PART: usize = 5;
/// Aggregations over all rows, which other engines are asked too: how they are called, and their text.
const AGGREGATIONS: [(&str, &str); 2] = [
    (
        "`GROUP BY` country, genre: 240 groups",
        "SELECT country, genre, count(*) AS plays, sum(duration_ms) AS played_ms FROM plays GROUP BY country, genre ORDER BY country, genre",
    ),
    (
        "`GROUP BY` user: up to 100,000 groups, the first ten of them",
        "SELECT user_id, count(*) AS plays, sum(duration_ms) AS played_ms FROM plays GROUP BY user_id ORDER BY plays DESC, user_id LIMIT 10",
    ),
];

/// One query, in ms.
#[derive(Clone, Debug)]
pub struct Asked {
    name: String,
    /// With live rows.
    pub live_ms: f64,
    /// All rows settled.
    pub settled_ms: f64,
    /// DuckDB and Spark, where they are asked.
    pub others_ms: Option<[f64; 2]>,
}

/// Queries over one table.
#[derive(Debug)]
pub struct Queried {
    rows: usize,
    files: u64,
    file_bytes: u64,
    /// Of DuckDB and Spark, where they are asked.
    versions: Option<[String; 2]>,
    asked: Vec<Asked>,
}

/// Asks what dashboards ask over a part of the rows, then the aggregations over all of them.
///
/// # Errors
/// Answers that differ, or a reader that is not installed.
pub async fn run(settings: &Settings, scratch: &Path) -> Outcome<[Queried; 2]> {
    let rows = settings.lake_rows;
    let dashboards = measure(&scratch.join("dashboards"), rows / DASHBOARDS_PART, &dashboards(), false).await?;
    let aggregations = AGGREGATIONS.map(|(name, sql)| (name.to_owned(), sql.to_owned()));
    let aggregations = measure(&scratch.join("aggregations"), rows, &aggregations, true).await?;
    Ok([dashboards, aggregations])
}

/// Asks each with the last rows live, then with all settled; then other engines, if they shall be asked.
async fn measure(folder: &Path, rows: usize, statements: &[(String, String)], others: bool) -> Outcome<Queried> {
    let settled = rows - rows * LIVE_PERCENT / 100;
    let log = Log::open(folder, Encoding::Json).await?;
    log.fill(0..settled, rows).await?;
    let lake = log.lake(settling()).await?;
    lake.flush(TABLE).await?;
    lake.stop().await?;
    drop(lake);
    let lake = log.lake(settling_on_demand()).await?;
    log.fill(settled..rows, rows).await?;
    machine::settle()?;
    let with_live = ask_all(&lake, statements).await?;
    lake.flush(TABLE).await?;
    let all_settled = ask_all(&lake, statements).await?;
    let status = lake.status().tables.into_iter().find(|table| table.table == TABLE).ok_or("no table")?;
    lake.stop().await?;
    drop(lake);
    log.close().await?;

    let directory = folder.join("lake").join(TABLE);
    let readers = if others { vec![Reader::duckdb()?, Reader::spark()?] } else { Vec::new() };
    let read = readers.iter().map(|reader| Ok((reader, reader.ask_all(&directory)?))).collect::<Outcome<Vec<_>>>()?;
    std::fs::remove_dir_all(folder)?;
    let mut asked = Vec::new();
    for (at, (name, _)) in statements.iter().enumerate() {
        let (live, whole) = (&with_live[at], &all_settled[at]);
        same(name, ("with live rows", &live.rows), ("all settled", &whole.rows))?;
        for (reader, read) in &read {
            same(name, (reader.name, &read.answers[at].rows), ("Millpond", &whole.rows))?;
        }
        let others_ms = read.iter().map(|(_, read)| read.answers[at].ms).collect::<Vec<_>>().try_into().ok();
        asked.push(Asked { name: name.clone(), live_ms: live.ms, settled_ms: whole.ms, others_ms });
    }
    let versions = read.into_iter().map(|(_, read)| read.version).collect::<Vec<_>>().try_into().ok();
    Ok(Queried { rows, files: status.files, file_bytes: status.bytes, versions, asked })
}

/// What dashboards ask.
fn dashboards() -> [(String, String); 3] {
    let last_day = chrono::DateTime::from_timestamp_millis(FIRST_MS + (DAYS - 1) * DAY_MS).unwrap_or_default();
    let last_day = last_day.format("%Y-%m-%dT%H:%M:%SZ");
    let dashboards = [
        (
            "plays by day, all days",
            "SELECT date, count(*) AS plays, sum(duration_ms) AS played_ms FROM plays GROUP BY date ORDER BY date"
                .to_owned(),
        ),
        (
            "the last day's plays by genre",
            format!(
                "SELECT genre, count(*) AS plays, sum(duration_ms) AS played_ms FROM plays WHERE ts >= TIMESTAMP '{last_day}' \
                 GROUP BY genre ORDER BY plays DESC, genre"
            ),
        ),
        (
            "one country's plays by hour of the last day",
            format!(
                "SELECT date_trunc('hour', ts) AS hour, count(*) AS plays FROM plays \
                 WHERE ts >= TIMESTAMP '{last_day}' AND country = 'SE' GROUP BY hour ORDER BY hour"
            ),
        ),
    ];
    dashboards.map(|(name, sql)| (name.to_owned(), sql))
}

/// The median of a query, and its rows as text.
struct Answer {
    ms: f64,
    rows: Vec<String>,
}

async fn ask_all(lake: &Lake, statements: &[(String, String)]) -> Outcome<Vec<Answer>> {
    let mut answers = Vec::new();
    for (name, sql) in statements {
        let mut each = Vec::new();
        let mut rows = Vec::new();
        for time in 0..UNMEASURED + MEASURED {
            let started = Instant::now();
            let request = SqlRequest { sql: sql.clone(), row_limit: 100_000, ..SqlRequest::default() };
            let answer = lake.sql(request).await?;
            if time >= UNMEASURED {
                each.push(started.elapsed().as_secs_f64() * 1e3);
            }
            rows = lines(&answer)?;
        }
        let ms = median(&mut each);
        eprintln!("bench: lake {name}: {ms:.1} ms");
        answers.push(Answer { ms, rows });
    }
    Ok(answers)
}

/// One line per row.
fn lines(answer: &SqlAnswer) -> Outcome<Vec<String>> {
    let options = FormatOptions::default();
    let mut lines = Vec::new();
    for rows in &answer.rows {
        let columns = rows.columns().iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options));
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        let line = |row| columns.iter().map(|column| column.value(row).to_string()).collect::<Vec<_>>().join("|");
        lines.extend((0..rows.num_rows()).map(line));
    }
    Ok(lines)
}

fn same(name: &str, (one, these): (&str, &[String]), (other, those): (&str, &[String])) -> Outcome<()> {
    if these == those && !these.is_empty() {
        return Ok(());
    }
    let at = these.iter().zip(those).position(|(this, that)| this != that).unwrap_or(0);
    let (this, that) = (these.get(at), those.get(at));
    Err(format!("{name}: {one} {this:?} ({} rows), {other} {that:?} ({} rows)", these.len(), those.len()).into())
}

/// Another engine that reads the directories.
struct Reader {
    name: &'static str,
    python: PathBuf,
}

/// What it said.
struct Read {
    version: String,
    answers: Vec<Answer>,
}

impl Reader {
    fn duckdb() -> Outcome<Self> {
        Self::of("duckdb", "python")
    }

    fn spark() -> Outcome<Self> {
        Self::of("spark", "spark")
    }

    fn of(name: &'static str, environment: &str) -> Outcome<Self> {
        let python = brokers::clients()?.join(environment).join("bin/python");
        if !python.exists() {
            return Err(format!("no {name} at {}, run tests/support/setup", python.display()).into());
        }
        Ok(Self { name, python })
    }

    fn ask_all(&self, directory: &Path) -> Outcome<Read> {
        let mut command = Command::new(&self.python);
        command.arg("-B").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/lake/readers.py"));
        command.arg(self.name).arg(directory).args([UNMEASURED, MEASURED].map(|times| times.to_string()));
        command.args(AGGREGATIONS.map(|(_, sql)| sql)).env("PYSPARK_PYTHON", &self.python);
        let output = command.env("SPARK_LOCAL_IP", "127.0.0.1").stdin(Stdio::null()).output()?;
        let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let said = |what: &str| format!("{} {what}: {out}{error}", self.name);
        if !output.status.success() {
            return Err(said("failed").into());
        }
        let report: Value = serde_json::from_str(out.lines().last().unwrap_or_default())?;
        let version = report["version"].as_str().unwrap_or("unknown").to_owned();
        let answers = report["answers"].as_array().ok_or_else(|| said("gave no answers"))?;
        let answers: Vec<Answer> = answers.iter().map(answer_of).collect();
        let each: Vec<String> = answers.iter().map(|answer| format!("{:.1} ms", answer.ms)).collect();
        eprintln!("bench: lake {version}: {}", each.join(", "));
        Ok(Read { version, answers })
    }
}

fn answer_of(answer: &Value) -> Answer {
    let each = |name: &str| answer[name].as_array().cloned().unwrap_or_default();
    let mut seconds: Vec<f64> = each("seconds").iter().filter_map(Value::as_f64).collect();
    let rows = each("rows").iter().filter_map(|row| row.as_str().map(str::to_owned)).collect();
    Answer { ms: median(&mut seconds) * 1e3, rows }
}

impl Queried {
    /// Of a pair that each query has, that of the query where the first is most of the second.
    pub fn worst(&self, pair: impl Fn(&Asked) -> Option<[f64; 2]>) -> Option<[f64; 2]> {
        self.asked.iter().filter_map(pair).max_by(|one, other| (one[0] / one[1]).total_cmp(&(other[0] / other[1])))
    }

    /// Adds its table.
    ///
    /// # Errors
    /// None in practice.
    pub fn describe(&self, text: &mut String) -> Outcome<()> {
        let Self { rows, files, file_bytes, versions, .. } = self;
        let readers = versions.as_ref().map(|[duckdb, spark]| {
            format!(", as then {duckdb} and {spark} read them (all cores, the files only); all answers are equal")
        });
        writeln!(
            text,
            "Queries over {rows} rows of JSON in {PARTITIONS} partitions and {DAYS} slices by date; first with the last {LIVE_PERCENT} % of \
             them in the log only, then all settled ({files} files, {:.0} MB){}. Medians of {MEASURED}, asked {UNMEASURED} times before; in \
             the process of the engine that answers, without HTTP.\n",
            *file_bytes as f64 / 1e6,
            readers.unwrap_or_default()
        )?;
        write!(text, "| query | {LIVE_PERCENT} % live, ms | all settled, ms | live rows cost |")?;
        let rule = match versions {
            Some(_) => {
                writeln!(text, " DuckDB ms | with live rows / DuckDB | Spark ms | Spark / with live rows |")?;
                "|---|---|---|---|---|---|---|---|"
            }
            None => {
                writeln!(text)?;
                "|---|---|---|---|"
            }
        };
        writeln!(text, "{rule}")?;
        for Asked { name, live_ms, settled_ms, others_ms } in &self.asked {
            write!(
                text,
                "| {name} | {live_ms:.1} | {settled_ms:.1} | {:+.0} % |",
                100.0 * (live_ms / settled_ms - 1.0)
            )?;
            if let Some([duckdb, spark]) = others_ms {
                write!(text, " {duckdb:.1} | {:.2} | {spark:.1} | {:.1} |", live_ms / duckdb, spark / live_ms)?;
            }
            writeln!(text)?;
        }
        writeln!(text)?;
        Ok(())
    }
}
