//! `millpond check`: reads a data directory that no server works on, and says what in it breaks a rule, and what can be done about
//! it. Nothing is changed unless `--repair` asks for it. Exit code 0 when nothing is wrong, 1 when something is, 2 when it could not be checked.

use std::path::PathBuf;

use broker::ReadOnly;
use broker::check::{Check, Figures, Finding, Kind, Place, Remedy, Weight, remove_orphans};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::serve::block_on;
use crate::sql::print_all;
use crate::table;

/// Flags of the command.
#[derive(clap::Args)]
pub struct Args {
    /// The data directory; its server must be stopped
    #[arg(long, value_name = "DIR", env = "MILLPOND_DATA_DIR", default_value = "millpond-data")]
    data_dir: PathBuf,
    /// Where the lake's files are: a directory, or a URL as in lake.url [default: lake, below the data directory]
    #[arg(long, value_name = "URL")]
    lake: Option<String>,
    /// Findings of each kind that are named; the rest is counted
    #[arg(long, value_name = "N", default_value_t = 20)]
    findings: usize,
    /// Remove what no topic has, once all was looked at; nothing else is changed
    #[arg(long)]
    repair: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let unchecked = |error: broker::Error| Failure::Usage(error.message);
    let opened = ReadOnly::open(&args.data_dir).map_err(unchecked)?;
    let all: u64 = opened.store.families().into_iter().map(|family| opened.store.disk_bytes(family)).sum();
    let tell = |figures: &Figures| {
        let Figures { partitions, bytes, .. } = figures;
        eprintln!("millpond: {} of about {} MiB, {partitions} partitions", bytes >> 20, all >> 20);
    };
    let mut check = Check::new(&opened.store, args.findings, &tell);
    let logs = check.broker(&opened);
    engine::check_stored(&mut check, &logs);
    let own = args.data_dir.join("lake");
    let url = args.lake.clone().or_else(|| own.is_dir().then(|| own.display().to_string()));
    let looking = lake::check_stored(&mut check, &logs, url.as_deref());
    block_on(async { looking.await.map_err(|error| Failure::Usage(error.message)) })?;
    print_all(&if args.json { format!("{}\n", report(&check)) } else { text(&check) });
    let wrong = check.findings.wrong();
    let is_due = |(kind, _): &(Kind, u64)| kind.remedy == Remedy::Repair;
    let repairs = args.repair && check.findings.counts().iter().any(is_due);
    drop(opened);
    if repairs {
        let removed = remove_orphans(&args.data_dir).map_err(unchecked)?;
        let names: Vec<String> = removed.iter().map(ToString::to_string).collect();
        eprintln!("millpond: removed what was left of {}", names.join(", "));
    }
    match wrong {
        0 => Ok(()),
        wrong => Err(Failure::Failed(format!("{wrong} findings in {}", args.data_dir.display()))),
    }
}

fn report(check: &Check<'_>) -> Value {
    let Figures { topics, partitions, batches, bytes } = check.figures;
    let findings: Vec<Value> = check.findings.kept().iter().map(described).collect();
    let counts = check.findings.counts().iter().map(|(kind, count)| (kind.name.to_owned(), json!(count)));
    json!({
        "sound": check.findings.wrong() == 0,
        "checked": {"topics": topics, "partitions": partitions, "batches": batches, "bytes": bytes},
        "counts": Value::Object(counts.collect()),
        "findings": findings,
    })
}

fn described(finding: &Finding) -> Value {
    let Place { topic, partition, offsets, subject } = &finding.place;
    json!({
        "kind": finding.kind.name,
        "wrong": finding.kind.weight == Weight::Wrong,
        "topic": topic.as_deref(),
        "partition": partition,
        "first_offset": offsets.map(|(first, _)| first),
        "last_offset": offsets.map(|(_, last)| last),
        "subject": subject,
        "what": finding.what,
        "remedy": finding.remedy(),
    })
}

fn text(check: &Check<'_>) -> String {
    let Figures { topics, partitions, batches, bytes } = check.figures;
    let mut text =
        format!("{topics} topics, {partitions} partitions, {batches} batches, {} MiB looked at\n", bytes >> 20);
    if check.findings.counts().is_empty() {
        return text + "nothing was found\n";
    }
    let weight = |weight: Weight| if weight == Weight::Wrong { "wrong" } else { "to know" };
    let counts = check.findings.counts().iter();
    let rows: Vec<Vec<Value>> =
        counts.map(|(kind, count)| vec![json!(kind.name), json!(weight(kind.weight)), json!(count)]).collect();
    text.push('\n');
    text.push_str(&table::draw(&["finding", "", "found"].map(str::to_owned), &rows));
    text.push('\n');
    for finding in check.findings.kept() {
        let Finding { kind, place, what } = finding;
        text.push_str(&format!("{}: {}: {what}\n    {}\n", kind.name, shown(place), finding.remedy()));
    }
    for (kind, count) in check.findings.counts() {
        let kept = check.findings.kept().iter().filter(|finding| finding.kind == *kind).count() as u64;
        if *count > kept {
            text.push_str(&format!("{}: {} more\n", kind.name, count - kept));
        }
    }
    text
}

fn shown(place: &Place) -> String {
    let topic = place.topic.as_ref().map(|topic| match place.partition {
        Some(partition) => format!("{topic}-{partition}"),
        None => topic.to_string(),
    });
    let offsets = place.offsets.map(|(first, last)| match first == last {
        true => format!("offset {first}"),
        false => format!("offsets {first} to {last}"),
    });
    let parts: Vec<String> = [place.subject.clone(), topic, offsets].into_iter().flatten().collect();
    if parts.is_empty() { "the store".to_owned() } else { parts.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_told_as_far_as_they_are_known() {
        let topic = "t".into();
        assert_eq!(shown(&Place::offsets(&topic, 1, 5, 5)), "t-1 offset 5");
        assert_eq!(shown(&Place::offsets(&topic, 1, 5, 7).of("group g")), "group g t-1 offsets 5 to 7");
        assert_eq!(shown(&Place::topic(&topic)), "t");
        assert_eq!(shown(&Place::default()), "the store");
    }
}
