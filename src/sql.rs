//! `millpond sql`: a query to a running server, its rows as a table.

use std::io::Read;

use serde_json::{Value, json};

use crate::client::Server;
use crate::failure::Failure;
use crate::table;

/// Flags of the command.
#[derive(clap::Args)]
pub struct Args {
    /// The query; without it, or as -, it is read from stdin
    query: Option<String>,
    #[command(flatten)]
    server: Server,
    /// How the rows are written
    #[arg(long, value_enum, default_value = "table")]
    output: Output,
    /// Values for $1, $2 and so on, as JSON or plain text; may be given again
    #[arg(long = "param", value_name = "VALUE")]
    params: Vec<String>,
    /// The offsets of an earlier answer, as JSON: what is read is read as it was then
    #[arg(long, value_name = "OFFSETS")]
    at: Option<String>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Output {
    /// Columns of text
    Table,
    /// One JSON object per row
    Ndjson,
    /// The whole answer: columns, rows, and the offsets it stands for
    Json,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let query = match args.query.as_deref() {
        Some(query) if query != "-" => query.to_owned(),
        _ => {
            let mut text = String::new();
            std::io::stdin()
                .read_to_string(&mut text)
                .map_err(|error| Failure::Failed(format!("stdin cannot be read: {error}")))?;
            text
        }
    };
    if query.trim().is_empty() {
        return Err(Failure::Usage("no query: give one as an argument or on stdin".into()));
    }
    let params: Vec<Value> = args
        .params
        .iter()
        .map(|text| serde_json::from_str(text).unwrap_or_else(|_| Value::from(text.as_str())))
        .collect();
    let mut body = json!({"sql": query, "params": params});
    if let Some(at) = &args.at {
        body["at"] = serde_json::from_str(at).map_err(|error| {
            let next = r#"give the offsets of an answer, such as {"listens": {"0": 41}}"#;
            Failure::Usage(format!("--at {at}: {error}: {next}"))
        })?;
    }
    let answer = args.server.post("/v1/sql", &body)?;
    for note in answer["notes"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        eprintln!("note: {note}");
    }
    let text = show(&answer, args.output)
        .ok_or_else(|| Failure::Failed("the answer has no columns and rows: is this a Millpond server?".into()))?;
    print_all(&text);
    Ok(())
}

/// Prints, and is content when nobody reads to the end.
pub fn print_all(text: &str) {
    use std::io::Write;
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

fn show(answer: &Value, output: Output) -> Option<String> {
    let names: Vec<String> =
        answer["columns"].as_array()?.iter().map(|column| column["name"].as_str().unwrap_or("").to_owned()).collect();
    let rows: Vec<Vec<Value>> =
        answer["rows"].as_array()?.iter().map(|row| row.as_array().cloned()).collect::<Option<_>>()?;
    Some(match output {
        Output::Table => {
            let count = rows.len();
            format!("{}({count} row{})\n", table::draw(&names, &rows), if count == 1 { "" } else { "s" })
        }
        Output::Ndjson => rows
            .into_iter()
            .map(|row| Value::Object(names.iter().cloned().zip(row).collect()).to_string() + "\n")
            .collect(),
        Output::Json => format!("{answer}\n"),
    })
}
