//! `millpond generate`: the sample files of a described system. The description is SQL in TOML; the same seed, day and
//! numbers give the same bytes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use api::config::read::read_alone;
use api::config::schema::{Field, Kind, Section};
use api::config::{Mistakes, Source};
use lake::samples::{SampleFile, Samples, Written};

use crate::failure::Failure;
use crate::{serve, systems};

const SECTIONS: [Section; 1] = [Section { name: "", doc: "", fields: &TOP }];

const TOP: [Field; 3] = [
    Field::required("given", Kind::Map, "{ people = 1000 }", "Numbers that the SQL finds in the table given."),
    Field::optional("tables", Kind::Tables(&TABLE), "", "Tables, each of which sees those above it."),
    Field::required("files", Kind::Tables(&FILE), "[{ path = \"a.csv\", sql = \"SELECT …\" }]", "The files."),
];

const TABLE: [Field; 2] = [
    Field::required("name", Kind::Text, "\"people\"", "The table's name."),
    Field::required("sql", Kind::Text, "\"SELECT unnest(range(1, people + 1)) AS id FROM given\"", "Its rows."),
];

const FILE: [Field; 3] = [
    Field::required("path", Kind::Text, "\"input/people.csv\"", "Where it goes when the SQL gives no column file."),
    Field::optional("header", Kind::Text, "\"id,name\"", "The first line."),
    Field::required("sql", Kind::Text, "\"SELECT id || ',' || name AS line FROM people\"", "Its lines, in order."),
];

/// Flags of the command.
#[derive(clap::Args)]
pub struct Args {
    /// A built-in system that has sample files, or a file that describes some
    system: String,
    /// The folder that the files go to; made when it is not there
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// The same seed (and --today) gives the same files
    #[arg(long, default_value_t = 1)]
    seed: i64,
    /// The last day of the data, such as 2026-11-20; without it, today
    #[arg(long, value_name = "DAY")]
    today: Option<String>,
    /// Another value for one of the description's numbers; may be given again
    #[arg(long = "set", value_name = "NAME=NUMBER", value_parser = setting)]
    settings: Vec<(String, i64)>,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let mut samples = read(&systems::data(&args.system)?)?;
    samples.seed = args.seed;
    samples.today = args.today.clone().unwrap_or_else(today);
    for (name, value) in &args.settings {
        let near = api::config::suggestion(name, samples.given.keys().map(String::as_str));
        match samples.given.get_mut(name) {
            Some(number) => *number = *value,
            None => return Err(Failure::Usage(format!("--set {name}: the description has no such number{near}"))),
        }
    }
    for file in write(&samples, &args.to)? {
        println!("{}  {} lines", args.to.join(&file.path).display(), file.lines);
    }
    Ok(())
}

/// Writes the files.
pub fn write(samples: &Samples, folder: &Path) -> Result<Vec<Written>, Failure> {
    serve::block_on(async { samples.write(folder).await.map_err(|error| Failure::Failed(error.to_string())) })
}

/// The current day, UTC.
pub fn today() -> String {
    let now = chrono::DateTime::from_timestamp_millis(broker::Clock::system().now_ms()).unwrap_or_default();
    now.format("%Y-%m-%d").to_string()
}

/// Reads and checks a description; all mistakes together.
pub fn read(source: &Source) -> Result<Samples, Mistakes> {
    let mut mistakes = Mistakes::default();
    let document = read_alone(source, &SECTIONS, &serve::environment().into_iter().collect(), &mut mistakes);
    mistakes.into_result()?;
    let (top, mut mistakes) = (&document[""], Mistakes::default());
    let mut given = BTreeMap::new();
    for (name, text) in top.map("given") {
        match text.parse() {
            Ok(number) => drop(given.insert(name, number)),
            Err(_) => mistakes.add(&top.place("given"), format!("given.{name}"), "must be a whole number"),
        }
    }
    let tables = top.tables("tables").iter().map(|table| (table.text("name"), table.text("sql"))).collect();
    let file = |entry: &api::config::value::Entry| SampleFile {
        path: entry.text("path"),
        header: entry.text_or_none("header"),
        sql: entry.text("sql"),
    };
    let files = top.tables("files").iter().map(file).collect();
    mistakes.into_result()?;
    Ok(Samples { seed: 1, today: today(), given, tables, files })
}

fn setting(text: &str) -> Result<(String, i64), String> {
    let (name, number) = text.split_once('=').ok_or("must be NAME=NUMBER")?;
    Ok((name.to_owned(), number.parse().map_err(|_| format!("{number} is not a whole number"))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A small form of a description in config/, written to a folder.
    fn small(name: &str, today: &str) -> (tempfile::TempDir, Vec<Written>) {
        let path = format!("{}/config/{name}/data.toml", env!("CARGO_MANIFEST_DIR"));
        let mut samples = read(&systems::data(&path).unwrap()).unwrap();
        samples.given.extend([
            ("freelancers".to_owned(), 60),
            ("invoices".to_owned(), 2_000),
            ("open_missions".to_owned(), 5),
        ]);
        samples.today = today.into();
        let folder = tempfile::tempdir().unwrap();
        let written = write(&samples, folder.path()).unwrap();
        (folder, written)
    }

    #[test]
    fn invoices_are_the_same_again_and_have_every_kind_of_row() {
        let (folder, written) = small("freelance", "2026-11-20");
        let (again, _) = small("freelance", "2026-11-20");
        let mut invoices = String::new();
        for file in &written {
            let text = std::fs::read_to_string(folder.path().join(&file.path)).unwrap();
            assert_eq!(text, std::fs::read_to_string(again.path().join(&file.path)).unwrap(), "{}", file.path);
            assert!(file.lines > 0, "{} is empty", file.path);
            if file.path.starts_with("factures/") {
                invoices.push_str(&text);
            }
        }
        for shape in ["€,", ",00 €\"", " EUR,", "-2025,", "/2026,", ".00,2026-"] {
            assert!(invoices.contains(shape), "no invoice is written with {shape}");
        }
        let lines: Vec<&str> = invoices.lines().collect();
        assert!((1_500..3_000).contains(&lines.len()), "{}", lines.len());
        let mut known = std::collections::BTreeSet::new();
        assert!(lines.iter().any(|line| !known.insert(*line)), "a row stands there twice");
        assert!(!invoices.contains(".00,2026-11-21,"), "nothing is invoiced after today");
    }

    #[test]
    fn mistakes_in_a_description_come_together() {
        let text = "given = { a = \"x\" }\n[[files]]\npath = \"a\"\nsql = \"SELECT 1 AS line\"\n";
        let error = read(&Source::text("d.toml", text)).unwrap_err().to_string();
        assert!(error.contains("given.a: must be a whole number"), "{error}");
        let error = read(&Source::text("d.toml", "fils = 1\n")).unwrap_err().to_string();
        assert!(error.contains("unknown key") && error.contains("given: missing"), "{error}");
    }
}
