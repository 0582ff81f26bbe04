//! `millpond job`: the jobs of a running server: what there is, what ran, and a run that is waited for.

use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{Server, encode, items};
use crate::failure::Failure;
use crate::sql::print_all;
use crate::table;

/// Time between two looks at a run.
const LOOK: Duration = Duration::from_millis(250);
/// Runs that are looked through for the one that was asked for: later ones may have been added meanwhile.
const RUNS_LOOKED_AT: u32 = 200;

/// What to do with jobs.
#[derive(clap::Subcommand)]
pub enum Command {
    /// Every job: when it runs next, and how its last run went
    List {
        #[command(flatten)]
        server: Server,
    },
    /// The runs of a job, newest first
    History {
        /// The job
        job: String,
        /// Only runs for this day, as in 2026-11-19
        #[arg(long)]
        day: Option<String>,
        /// Most runs
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
        limit: u32,
        #[command(flatten)]
        server: Server,
    },
    /// Run a job and wait for its end: exit code 0 when every step went well, 1 when not
    Run {
        /// The job
        job: String,
        /// The day to run for, as in 2026-11-19; without it, yesterday in the job's zone
        #[arg(long)]
        day: Option<String>,
        /// Start it and return at once
        #[arg(long)]
        detach: bool,
        /// Print the run as JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        server: Server,
    },
}

const JOB: [&str; 6] = ["name", "schedule", "after", "state", "last_success", "next"];
const RUN: [&str; 7] = ["run", "day", "state", "trigger", "started", "seconds", "error"];

/// Runs the command.
pub fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::List { server } => {
            let answer = server.get("/v1/jobs")?;
            print_all(&table::draw_members(&JOB, items(&answer["jobs"])));
            Ok(())
        }
        Command::History { job, day, limit, server } => {
            let day = day.as_ref().map_or_else(String::new, |day| format!("&day={}", encode(day)));
            let answer = server.get(&format!("/v1/jobs/{}/runs?limit={limit}{day}", encode(job)))?;
            print_all(&table::draw_members(&RUN, items(&answer["runs"])));
            Ok(())
        }
        Command::Run { job, day, detach, json, server } => {
            let query = day.as_ref().map_or_else(String::new, |day| format!("?day={}", encode(day)));
            let requested = server.post(&format!("/v1/jobs/{}/run{query}", encode(job)), &json!({}))?;
            let (number, day) = (requested["run"].as_u64().unwrap_or(0), requested["day"].as_str().unwrap_or(""));
            if *detach {
                print_all(&format!("job {job}: run {number} for {day}\n"));
                return Ok(());
            }
            let run = wait(server, (job, day), number)?;
            print_all(&if *json { format!("{run}\n") } else { report(job, &run) });
            outcome(job, &run)
        }
    }
}

/// Looks at a run until it is over.
fn wait(server: &Server, (job, day): (&str, &str), number: u64) -> Result<Value, Failure> {
    loop {
        let answer = server.get(&format!("/v1/jobs/{}/runs?day={day}&limit={RUNS_LOOKED_AT}", encode(job)))?;
        let runs = items(&answer["runs"]);
        let run = runs.iter().find(|run| run["run"].as_u64() == Some(number)).ok_or_else(|| {
            Failure::Failed(format!(
                "run {number} of job {job} is no longer in its history: look at `millpond job history {job}`"
            ))
        })?;
        if !matches!(run["state"].as_str(), Some("queued" | "running")) {
            return Ok(run.clone());
        }
        std::thread::park_timeout(LOOK);
    }
}

fn report(job: &str, run: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let seconds = |value: &Value| value.as_f64().map_or_else(String::new, |seconds| format!(" in {seconds:.1} s"));
    let mut out = format!(
        "{job}: run {} for {} {}{}\n",
        run["run"],
        text(&run["day"]),
        text(&run["state"]),
        seconds(&run["seconds"])
    );
    for step in run["steps"].as_array().into_iter().flatten() {
        let attempts = step["attempts"].as_u64().filter(|attempts| *attempts > 1);
        let attempts = attempts.map_or_else(String::new, |attempts| format!(", {attempts} attempts"));
        out.push_str(&format!(
            "  {}: {}{}{attempts}: {}\n",
            text(&step["name"]),
            text(&step["state"]),
            seconds(&step["seconds"]),
            text(&step["message"])
        ));
    }
    out
}

fn outcome(job: &str, run: &Value) -> Result<(), Failure> {
    match run["state"].as_str() {
        Some("succeeded") => Ok(()),
        Some("cancelled") => Err(Failure::Failed(format!("somebody called the run of {job} off"))),
        Some("interrupted") => Err(Failure::Failed(format!(
            "the server ended in the middle of the run of {job}; it is begun again at its next start"
        ))),
        _ => Err(Failure::Failed(run["error"].as_str().unwrap_or("the run failed").to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_every_step_and_the_outcome_is_the_exit_code() {
        let run = json!({"run": 7, "day": "2026-11-19", "state": "failed", "seconds": 2.04, "error": "step check: the check does not hold",
            "steps": [{"name": "settle", "state": "succeeded", "attempts": 1, "seconds": 1.0, "message": "3 rows"},
                      {"name": "check", "state": "failed", "attempts": 4, "seconds": null, "message": "x false"}]});
        let text = report("nightly", &run);
        assert_eq!(
            text,
            "nightly: run 7 for 2026-11-19 failed in 2.0 s\n  settle: succeeded in 1.0 s: 3 rows\n  check: failed, 4 attempts: x false\n"
        );
        assert!(outcome("nightly", &run).unwrap_err().to_string().contains("does not hold"));
        assert!(outcome("nightly", &json!({"state": "succeeded"})).is_ok());
        assert!(outcome("nightly", &json!({"state": "cancelled"})).is_err());
        let drawn = table::draw_members(&JOB, [&json!({"name": "a", "after": ["b", "c"], "state": null})]);
        assert!(drawn.contains("b, c"), "{drawn}");
    }
}
