//! `millpond evaluate`: measures the models of a running server and prints their figures; exit code 1 if a target is missed.

use serde_json::{Value, json};

use crate::client::Server;
use crate::failure::Failure;
use crate::sql::print_all;

/// Flags of the command.
#[derive(clap::Args)]
pub struct Args {
    /// The models to measure; without a name, all of them
    models: Vec<String>,
    #[command(flatten)]
    server: Server,
    /// Print the answers as one JSON array
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let names = if args.models.is_empty() { declared(&args.server)? } else { args.models.clone() };
    if names.is_empty() {
        return Err(Failure::Failed("the server has no models: declare them under [[models]]".into()));
    }
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    let (mut answers, mut missed) = (Vec::new(), Vec::new());
    for name in &names {
        let answer = args.server.post(&format!("/v1/models/{name}/evaluate"), &json!({}));
        let (ok, text, answer) = match answer {
            Ok(answer) => (answer["latest"]["ok"] == true, line(&answer), answer),
            Err(failure) => (false, format!("failed: {failure}"), json!({"name": name, "error": failure.to_string()})),
        };
        if !ok {
            missed.push(name.as_str());
        }
        if !args.json {
            print_all(&format!("{name:width$}  {text}\n"));
        }
        answers.push(answer);
    }
    if args.json {
        print_all(&format!("{:#}\n", Value::from(answers)));
    }
    if missed.is_empty() {
        return Ok(());
    }
    Err(Failure::Failed(format!("the target is missed by {}", missed.join(", "))))
}

fn declared(server: &Server) -> Result<Vec<String>, Failure> {
    let answer = server.get("/v1/models")?;
    let models = answer["models"].as_array().map(Vec::as_slice).unwrap_or_default();
    Ok(models.iter().filter_map(|model| model["name"].as_str()).map(str::to_owned).collect())
}

/// `MAPE 7.4 %  (target < 15 %)  ok     12 compared, within the interval 91.7 %`.
fn line(answer: &Value) -> String {
    let latest = &answer["latest"];
    let figures: Vec<String> = latest["figures"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|figure| {
            format!("{} {:.1} %", figure["name"].as_str().unwrap_or(""), figure["percent"].as_f64().unwrap_or(f64::NAN))
        })
        .collect();
    let (first, others) =
        figures.split_first().map_or(("nothing measured", &[][..]), |(first, rest)| (first.as_str(), rest));
    let sign = if answer["target"]["must_be"] == "above" { '>' } else { '<' };
    let verdict = if latest["ok"] == true { "ok" } else { "MISSED" };
    let recall =
        answer["recall_min_percent"].as_f64().map(|least| format!(", recall >= {least} %")).unwrap_or_default();
    let mut text = format!("{first}  (target {sign} {} %{recall})  {verdict}", answer["target"]["percent"]);
    text.push_str(&format!("  {} compared", latest["compared"]));
    for other in others {
        text.push_str(&format!(", {other}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_figure_target_and_verdict() {
        let answer = json!({
            "name": "revenue", "target": {"must_be": "below", "percent": 15.0}, "recall_min_percent": null,
            "latest": {"ok": true, "compared": 12, "figures": [{"name": "MAPE", "percent": 7.43}, {"name": "recall", "percent": 90}]},
        });
        assert_eq!(line(&answer), "MAPE 7.4 %  (target < 15.0 %)  ok  12 compared, recall 90.0 %");
    }
}
