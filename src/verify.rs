//! `millpond verify`: a running server compares what it serves and stores with what that was made of. Exit code 0 when all of it
//! agrees, 1 when not.

use serde_json::{Value, json};

use crate::client::{Server, encode, items};
use crate::failure::Failure;
use crate::sql::print_all;
use crate::table;

/// What to verify.
#[derive(clap::Subcommand)]
pub enum Command {
    /// Parquet files against the log, record by record: every row is in exactly one file, or above the mark in the log
    Lake {
        /// Topics; without any, all that settle
        topics: Vec<String>,
        /// Print the reports as JSON, one a line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        server: Server,
    },
    /// Views against a plain query over log and lake, group by group, at the same offsets
    View {
        /// Views
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        views: Vec<String>,
        /// All views; those that no query of SQL can recompute are named and do not fail
        #[arg(long)]
        all: bool,
        /// Only windows that start at or after this instant
        #[arg(long)]
        from: Option<String>,
        /// Only windows that start before this instant
        #[arg(long)]
        to: Option<String>,
        /// Print the reports as JSON, one a line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        server: Server,
    },
}

const TOPIC: [&str; 7] =
    ["topic", "file_rows", "live_rows", "checked_rows", "raw_records", "raw_checked", "differences"];
const VIEW: [&str; 10] =
    ["view", "windows", "groups", "equal", "different", "missing", "extra", "expired", "unjudged", "not_counted"];

/// Runs the command.
pub fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Lake { topics, json, server } => {
            let topics = match topics.is_empty() {
                true => names(&server.get("/v1/lake")?["tables"], "topic"),
                false => topics.clone(),
            };
            let reports: Vec<Value> = topics
                .iter()
                .map(|topic| ask(server, &format!("/v1/lake/{}/verify", encode(topic)), ""))
                .collect::<Result<_, _>>()?;
            print_all(&if *json { lines(&reports) } else { topic_text(&reports) });
            outcome(&reports, "topic", true)
        }
        Command::View { views, all, from, to, json, server } => {
            let views = if *all { names(&server.get("/v1/views")?["views"], "name") } else { views.clone() };
            let bound =
                |name: &str, value: &Option<String>| value.as_ref().map(|value| format!("{name}={}", encode(value)));
            let query: Vec<String> = bound("from", from).into_iter().chain(bound("to", to)).collect();
            let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
            let reports: Vec<Value> = views
                .iter()
                .map(|view| ask(server, &format!("/v1/views/{}/verify", encode(view)), &query))
                .collect::<Result<_, _>>()?;
            print_all(&if *json { lines(&reports) } else { view_text(&reports) });
            outcome(&reports, "view", !*all)
        }
    }
}

/// Begins a verification and waits for its end.
fn ask(server: &Server, path: &str, query: &str) -> Result<Value, Failure> {
    let mut report = server.post(&format!("{path}{query}"), &json!({}))?;
    while report["state"] == "running" {
        report = server.get(path)?;
    }
    match report["state"] == "done" {
        true => Ok(report),
        false => Err(Failure::Failed("the server was started anew before the verification ended: ask again".into())),
    }
}

fn names(list: &Value, name: &str) -> Vec<String> {
    items(list).iter().filter_map(|one| one[name].as_str()).map(str::to_owned).collect()
}

fn lines(reports: &[Value]) -> String {
    reports.iter().map(|report| format!("{report}\n")).collect()
}

fn topic_text(reports: &[Value]) -> String {
    let mut text = table::draw_members(&TOPIC, reports);
    for report in reports {
        for note in report["notes"].as_array().into_iter().flatten() {
            text.push_str(&format!("{}: {}\n", word(&report["topic"]), word(note)));
        }
        for difference in report["named"].as_array().into_iter().flatten() {
            text.push_str(&format!("{}: {}\n", word(&report["topic"]), word(difference)));
        }
    }
    text
}

fn view_text(reports: &[Value]) -> String {
    let mut text = table::draw_members(&VIEW, reports.iter().filter(|report| report["not_recomputed"].is_null()));
    for report in reports {
        let view = word(&report["view"]);
        if let Some(why) = report["not_recomputed"].as_str() {
            text.push_str(&format!("{view} cannot be recomputed: {why}\n"));
        }
        for note in report["notes"].as_array().into_iter().flatten() {
            text.push_str(&format!("{view}: {}\n", word(note)));
        }
        let differences = items(&report["named"]);
        for difference in differences {
            text.push_str(&format!("{view}: {}\n", difference_text(difference)));
        }
        if !differences.is_empty() {
            text.push_str(&format!("{view}: compared at the offsets {}\n", report["offsets"]));
        }
    }
    text
}

fn difference_text(difference: &Value) -> String {
    let group = difference["group"].as_object().into_iter().flatten();
    let group: Vec<String> = group.map(|(name, value)| format!("{name}={}", word(value))).collect();
    let what = match difference["column"].as_str() {
        Some(column) => {
            format!("{column} is {}, recomputed {}", word(&difference["served"]), word(&difference["recomputed"]))
        }
        None if difference["kind"] == "missing" => "recomputed and not served".to_owned(),
        None => "served and not recomputed".to_owned(),
    };
    format!("{}: {what}", group.join(" "))
}

/// A text without its quotes, anything else as JSON.
fn word(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Ok when all is sound; what cannot be recomputed counts where it was asked for by name.
fn outcome(reports: &[Value], what: &str, is_named: bool) -> Result<(), Failure> {
    let is_sound = |report: &&Value| report["sound"] == true || !is_named && !report["not_recomputed"].is_null();
    let wrong: Vec<String> =
        reports.iter().filter(|report| !is_sound(report)).map(|report| word(&report[what])).collect();
    match wrong.is_empty() {
        true => Ok(()),
        false => {
            Err(Failure::Failed(format!("{} of {} do not agree: {}", wrong.len(), reports.len(), wrong.join(", "))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_named_and_fail() {
        let report = json!({"view": "plays", "sound": false, "windows": 2, "groups": 3, "equal": 2, "different": 1, "missing": 0,
            "extra": 1, "expired": 0, "unjudged": 0, "not_counted": 4, "not_recomputed": null, "notes": [],
            "offsets": {"listens": {"0": 41}}, "named": [
                {"kind": "different", "group": {"window_start": "2026-11-20T10:00:00Z", "genre": null}, "column": "n",
                 "served": "3", "recomputed": "2"},
                {"kind": "extra", "group": {"window_start": "2026-11-20T11:00:00Z", "genre": "jazz"}, "column": null,
                 "served": null, "recomputed": null}]});
        let text = view_text(std::slice::from_ref(&report));
        assert!(text.starts_with("view   windows"), "{text}");
        assert!(text.contains("plays: window_start=2026-11-20T10:00:00Z genre=null: n is 3, recomputed 2\n"), "{text}");
        assert!(text.contains("window_start=2026-11-20T11:00:00Z genre=jazz: served and not recomputed\n"), "{text}");
        assert!(text.ends_with("plays: compared at the offsets {\"listens\":{\"0\":41}}\n"), "{text}");
        assert!(outcome(std::slice::from_ref(&report), "view", false).unwrap_err().to_string().contains("plays"));
        let refused = json!({"view": "odd", "sound": false, "not_recomputed": "no such function", "notes": []});
        assert!(outcome(std::slice::from_ref(&refused), "view", false).is_ok());
        assert!(outcome(std::slice::from_ref(&refused), "view", true).is_err());
        assert!(view_text(&[refused]).contains("odd cannot be recomputed: no such function"));
    }

    #[test]
    fn notes_of_a_topic_are_told_and_do_not_fail() {
        let report = json!({"topic": "listens", "sound": true, "file_rows": 3, "live_rows": 1, "checked_rows": 4, "raw_records": 3,
            "raw_checked": 2, "differences": 0, "named": [], "notes": ["2 files were put aside"]});
        let text = topic_text(std::slice::from_ref(&report));
        assert!(text.contains("raw_records") && text.ends_with("listens: 2 files were put aside\n"), "{text}");
        assert!(outcome(&[report], "topic", true).is_ok());
    }
}
