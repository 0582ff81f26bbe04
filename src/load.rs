//! `millpond load`: starts a source of a running server, shows how far it is, and ends with its counts.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::client::Server;
use crate::failure::Failure;
use crate::sql::print_all;

/// Time between two looks at the source.
const LOOK: Duration = Duration::from_millis(200);

/// Flags of the command.
#[derive(clap::Args)]
pub struct Args {
    /// The source, as it is called under [[sources]]
    source: String,
    #[command(flatten)]
    server: Server,
    /// Print the report of the run as JSON
    #[arg(long)]
    json: bool,
    /// Start it and return at once
    #[arg(long)]
    detach: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let path = format!("/v1/sources/{}", args.source);
    let started = args.server.post(&format!("{path}/run"), &json!({}))?;
    let number = started["run"].as_u64().unwrap_or(0);
    if args.detach {
        print_all(&format!("source {} runs: run {number}\n", args.source));
        return Ok(());
    }
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("{bar:32} {percent:>3} %  {msg}")
        .map_err(|error| Failure::Failed(format!("the progress bar cannot be drawn: {error}")))?;
    bar.set_style(style);
    let report = loop {
        let source = args.server.get(&path)?;
        let report = report_of(&source, number);
        show(&bar, &source, report);
        if let Some(report) = report.filter(|report| report["state"] != "running") {
            break report.clone();
        }
        std::thread::park_timeout(LOOK);
    };
    bar.finish_and_clear();
    print_all(&if args.json { format!("{report}\n") } else { summary(&args.source, &report) });
    match report["state"].as_str() {
        Some("done") => Ok(()),
        _ => Err(Failure::Failed(reason(&report))),
    }
}

/// The run of that number.
fn report_of(source: &Value, number: u64) -> Option<&Value> {
    source["runs"].as_array()?.iter().find(|run| run["run"].as_u64() == Some(number))
}

fn show(bar: &ProgressBar, source: &Value, report: Option<&Value>) {
    let progress = &source["progress"];
    bar.set_length(progress["bytes"].as_u64().unwrap_or(0));
    bar.set_position(progress["bytes_done"].as_u64().unwrap_or(0));
    let rows = report.and_then(|report| report["rows"].as_u64()).unwrap_or(0);
    let rate = progress["rows_per_s"].as_f64().unwrap_or(0.0);
    let remaining = progress["remaining_s"].as_f64().map(|seconds| format!(", {} left", time(seconds)));
    let paused = if source["state"] == "paused" { ", paused" } else { "" };
    bar.set_message(format!("{rows} rows, {rate:.0} rows/s{}{paused}", remaining.unwrap_or_default()));
}

fn time(seconds: f64) -> String {
    let seconds = seconds.ceil().max(0.0) as u64;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
    }
}

fn summary(source: &str, report: &Value) -> String {
    let count = |key: &str| report[key].as_u64().unwrap_or(0);
    let seconds = report["seconds"].as_f64().unwrap_or(0.0);
    let rate = count("rows") as f64 / seconds.max(0.001);
    let mut out = format!(
        "{source}: {} rows of {} files in {seconds:.1} s ({rate:.0} rows/s): {} published, {} known already, {} refused\n",
        count("rows"),
        count("files"),
        count("published"),
        count("skipped"),
        count("rejected"),
    );
    if count("files_known") > 0 {
        out.push_str(&format!("  {} files were loaded before and left alone\n", count("files_known")));
    }
    if let Some(rules) = report["rejected_by_rule"].as_object().filter(|rules| !rules.is_empty()) {
        rules.iter().for_each(|(rule, count)| out.push_str(&format!("  refused by {rule}: {count}\n")));
        out.push_str(&format!("  each refused row, with its place and the reason, is in topic {source}.rejected\n"));
    }
    if count("retries") > 0 {
        out.push_str(&format!("  {} failed reads were tried again\n", count("retries")));
    }
    out
}

fn reason(report: &Value) -> String {
    match (report["state"].as_str(), report["error"].as_str()) {
        (_, Some(error)) => error.to_owned(),
        (Some("stopped"), _) => "the server was stopped; the load goes on at its next start".to_owned(),
        _ => "the run did not end well, see the log of the server".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_counts_everything() {
        let report = json!({"state": "done", "rows": 10, "files": 1, "published": 6, "skipped": 1, "rejected": 3, "seconds": 2.0,
            "rejected_by_rule": {"type": 2, "fields": 1}, "retries": 1, "files_known": 2});
        let text = summary("s", &report);
        for part in [
            "s: 10 rows of 1 files in 2.0 s (5 rows/s): 6 published, 1 known already, 3 refused",
            "2 files were loaded before",
            "refused by type: 2",
            "topic s.rejected",
        ] {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!((time(0.2), time(61.0), time(7260.0)), ("1 s".into(), "1 min 1 s".into(), "2 h 1 min".into()));
        assert_eq!(reason(&json!({"state": "failed", "error": "x"})), "x");
    }
}
