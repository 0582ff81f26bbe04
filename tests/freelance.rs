//! The freelance system from its files to dashboards, spreadsheets and PostgreSQL: dirty, doubled, late and disordered rows, loaded while
//! Millpond and PostgreSQL are killed again and again. Every number equals what plain Python computes from the files
//! (`clients/freelance.py`), and a browser shows it (`clients/freelance.js`).

use crate::oracle::report;
use crate::support::kafka::run;
use crate::support::postgres::Postgres;
use crate::support::scripts::{json_of, node, python};
use crate::support::server::{Options, Server, millpond, serve};
use crate::support::{Scratch, beside_others, eventually, seed, source};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::types::RDKafkaErrorCode;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

const ROUNDS: u32 = 6;
const INVOICES: &str = "fichiers-factures";
/// Fewer people than ids that the system knows: invoices of the others are refused by the foreign key.
const PEOPLE: u32 = 940;

/// The built-in system over `folder`, loading on demand, with small steps so that kills fall between them.
fn system(scratch: &Scratch, folder: &Path, changes: &[(&str, &str)]) -> PathBuf {
    let mut text = std::fs::read_to_string(source("../config/freelance/system.toml")).unwrap();
    let folder = folder.display().to_string();
    let ours = [
        ("${FREELANCE_INPUT:-{data_dir}/freelance}", folder.as_str()),
        ("when = \"watch\"", "when = \"demand\""),
        ("name = \"fichiers-factures\"", "name = \"fichiers-factures\"\nbatch_records = 100\ndelay = \"120ms\""),
        ("kind = \"postgres\"", "kind = \"postgres\"\nbatch_rows = 300\ninterval = \"20ms\"\nreference_wait = \"1s\""),
        ("every = \"1m\"", "every = \"1s\""),
    ];
    for (from, to) in ours.iter().chain(changes) {
        let changed = text.replace(from, to);
        assert_ne!(changed, text, "config/freelance/system.toml has {from}");
        text = changed;
    }
    scratch.write("freelance.toml", &text)
}

/// The raw files: what the generator of the system makes, and an invoice file with every form and fault of the description.
fn generate(folder: &Path, invoices: u32) {
    let mut command = millpond();
    command.args(["generate", "freelance", "--seed", "7", "--to"]).arg(folder);
    for (name, value) in [("invoices", invoices), ("freelancers", PEOPLE), ("open_missions", 60)] {
        command.args(["--set", &format!("{name}={value}")]);
    }
    run(&mut command);
    json_of(python("clients/freelance_files.py").arg("extra").arg(folder));
}

fn compare(server: &Server, folder: &Path) -> Command {
    let mut command = python("clients/freelance.py");
    command.args([&server.kafka, server.http.address()]).arg(folder);
    command
}

fn status(server: &Server, source: &str) -> Value {
    server.http.get(&format!("/v1/sources/{source}"))
}

fn begin(server: &Server, source: &str) {
    server.http.post(&format!("/v1/sources/{source}/run"), &Value::Null);
}

fn loaded(server: &Server, source: &str) {
    eventually("the load ends", Duration::from_secs(180), || {
        let status = status(server, source);
        let done = status["runs"][0]["state"] == "done" && status["progress"].is_null();
        if done { Ok(()) } else { Err(format!("{status:.600}")) }
    });
}

fn load(server: &Server, source: &str) {
    begin(server, source);
    loaded(server, source);
}

fn caught_up(server: &Server) {
    server.http.get("/v1/views/revenu_par_competence_mois?wait=30s");
    let want = |sink: &Value| sink["state"] == "running" && sink["lag"] == 0 && sink["error"].is_null();
    eventually("every sink has taken everything", Duration::from_secs(120), || {
        let sinks = server.http.get("/v1/sinks");
        let all = sinks["sinks"].as_array().unwrap().iter().all(want);
        if all { Ok(()) } else { Err(sinks.to_string()) }
    });
}

/// Kills one side, the other, or both, each time after some more rows.
fn kill_in_mid_load(server: &mut Server, postgres: &mut Postgres, random: &mut StdRng) {
    for round in 1..=ROUNDS {
        let before = status(server, INVOICES)["rows"].as_u64().unwrap();
        let wanted = before + random.random_range(150..700);
        eventually("the load goes on", Duration::from_secs(60), || {
            let rows = status(server, INVOICES)["rows"].as_u64().unwrap();
            if rows >= wanted { Ok(()) } else { Err(format!("{rows} rows of {wanted}")) }
        });
        if round % 3 != 2 {
            postgres.kill9();
        }
        if round % 3 != 1 {
            server.kill9();
            server.start_again();
        }
        std::thread::sleep(Duration::from_millis(random.random_range(0..400)));
        if round % 3 != 2 {
            postgres.start_again();
        }
    }
    let progress = status(server, INVOICES);
    assert!(!progress["progress"].is_null(), "the kills were to be in the middle: {progress:.600}");
}

#[test]
fn every_number_from_files_to_pages_and_tables() {
    let _beside = beside_others();
    let scratch = Scratch::new("freelance");
    let mut random = StdRng::seed_from_u64(seed("freelance"));
    let folder = scratch.path("input");
    generate(&folder, 6_000);
    let mut postgres = Postgres::start();
    let configs = vec![system(&scratch, &folder, &[])];
    let args = vec!["--postgres".to_owned(), postgres.url()];
    let mut server = Server::start_with(&scratch, Options { configs, args, ..Options::default() });
    for source in ["fichiers-missions", "appariements-vrais", "anomalies-vraies", "fichiers-profils"] {
        load(&server, source);
    }
    begin(&server, INVOICES);
    kill_in_mid_load(&mut server, &mut postgres, &mut random);
    loaded(&server, INVOICES);
    caught_up(&server);

    let pages = scratch.path("pages.json");
    let whole = |server: &Server| {
        let mut command = compare(server, &folder);
        command.args(["--postgres", &postgres.url(), "--pages"]).arg(&pages);
        report("freelance", &mut command)
    };
    let found = whole(&server);
    let rules = |name: &str| found[name]["rules"].as_object().unwrap().len();
    assert!(rules("factures") >= 9 && rules("profils") >= 7, "every kind of refusal comes up: {found}");
    assert!(found["panels"].as_u64().unwrap() >= 59 && found["factures"]["skipped"].as_u64().unwrap() > 20, "{found}");
    assert!(found["late"]["revenu_par_mois"] == 1 && found["Indicateurs"].as_u64().unwrap() > 500, "{found}");
    browser(&server, &pages, &scratch.path("shots"), found["panels"].as_u64().unwrap());

    // By name or touched, what was loaded is not loaded again; the daily job settles the invoices and no number moves.
    let copy = folder.join("factures/again.csv");
    std::fs::copy(folder.join("factures/extra.csv"), &copy).unwrap();
    load(&server, INVOICES);
    let again = status(&server, INVOICES);
    assert_eq!((&again["runs"][0]["rows"], &again["runs"][0]["published"]), (&json!(0), &json!(0)), "{again:.900}");
    std::fs::remove_file(copy).unwrap();
    daily_job(&server);
    assert_eq!(whole(&server)["factures"], found["factures"]);
    the_comparison_can_fail(&scratch, &server, &folder);
    occupancy(&server, &folder, &postgres);
    assert!(server.stop().success());
}

/// What the pages show in Chromium.
fn browser(server: &Server, pages: &Path, shots: &Path, panels: u64) {
    let mut command = node("clients/freelance.js");
    let found = report("freelance pages", command.arg(server.http.url("")).arg(pages).arg(shots));
    assert!(found["panels"] == panels && found["points"].as_u64().unwrap() > 2_000, "{found}");
}

fn daily_job(server: &Server) {
    let started = server.http.post("/v1/jobs/freelance-quotidien/run", &Value::Null);
    eventually("the daily job ends", Duration::from_secs(60), || {
        let runs = server.http.get("/v1/jobs/freelance-quotidien/runs");
        let run = runs["runs"].as_array().unwrap().iter().find(|run| run["run"] == started["run"]).cloned();
        let state = run.as_ref().map_or("none", |run| run["state"].as_str().unwrap_or("running")).to_owned();
        if state == "succeeded" { Ok(()) } else { Err(format!("{run:?}")) }
    });
    let lake = server.http.get("/v1/lake");
    let table = lake["tables"].as_array().unwrap().iter().find(|table| table["topic"] == "Factures").unwrap();
    assert!(table["rows"].as_u64().unwrap() > 5_000 && table["lag_records"] == 0, "{table}");
}

/// A check that cannot fail is a defect: it is shown a folder that lacks rows.
fn the_comparison_can_fail(scratch: &Scratch, server: &Server, folder: &Path) {
    let other = scratch.path("shorter");
    run(Command::new("cp").arg("-r").arg(folder).arg(&other));
    let place = other.join("factures/extra.csv");
    let text = std::fs::read_to_string(&place).unwrap();
    std::fs::write(&place, text.replace("4500€, Oct-2025", "4501€, Oct-2025")).unwrap();
    let found = json_of(&mut compare(server, &other));
    for mistake in ["Total revenue", "Factures: ", "revenu_par_freelance", "sheet Total revenue"] {
        assert!(found["mistakes"].to_string().contains(mistake), "{mistake} went unseen: {found:.2000}");
    }
}

/// Profiles that change: the gauge follows in its colours, the alert fires and recovers, the table has each person once.
fn occupancy(server: &Server, folder: &Path, postgres: &Postgres) {
    for (name, share, fires) in [("suite-1", "0.3", true), ("suite-2", "0.95", true), ("suite-3", "0.8", false)] {
        let file = folder.join(format!("profils/{name}.ndjson"));
        json_of(python("clients/freelance_files.py").arg("change").arg(folder).arg(&file).arg(share));
        load(server, "fichiers-profils");
        caught_up(server);
        report(name, compare(server, folder).args(["--quick", "--postgres", &postgres.url()]));
        eventually("the alert follows", Duration::from_secs(30), || {
            let alerts = server.http.get("/v1/alerts");
            let alert =
                alerts["alerts"].as_array().unwrap().iter().find(|alert| alert["name"] == "occupation").unwrap();
            if (alert["state"] == "firing") == fires { Ok(()) } else { Err(alert.to_string()) }
        });
    }
    assert_eq!(postgres.rows(r#"SELECT count(*) FROM "Freelances""#), [PEOPLE.to_string()]);
}

/// The code with which a broker answers the wish for a topic with two copies of each record.
fn two_copies(kafka: &str, topic: &str) -> Result<(), RDKafkaErrorCode> {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", kafka).create().unwrap();
    let topic = NewTopic::new(topic, 2, TopicReplication::Fixed(2));
    let results = futures::executor::block_on(admin.create_topics(&[topic], &AdminOptions::new())).unwrap();
    results.into_iter().next().unwrap().map(drop).map_err(|(_, code)| code)
}

#[test]
fn two_copies_are_refused_unless_the_broker_is_told_to_keep_one() {
    let scratch = Scratch::new("copies");
    let mut plain = Server::start(&scratch);
    // 38, as Kafka answers with one broker
    assert_eq!(two_copies(&plain.kafka, "asked"), Err(RDKafkaErrorCode::InvalidReplicationFactor));
    assert!(plain.stop().success());

    let folder = scratch.path("nothing");
    let text = std::fs::read_to_string(system(&scratch, &folder, &[])).unwrap();
    let strict = scratch.write("strict.toml", &text.replace("clamp_replication = true", "clamp_replication = false"));
    let refused =
        serve(&scratch.path("strict"), "127.0.0.1:0", "127.0.0.1:0").arg("--config").arg(strict).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(2) && said.contains("broker.clamp_replication"), "{said}");

    let scratch = Scratch::new("copies-clamped");
    let configs = vec![scratch.write("freelance.toml", &text)];
    let mut server = Server::start_with(&scratch, Options { configs, ..Options::default() });
    assert_eq!(two_copies(&server.kafka, "asked"), Ok(()));
    let said = server.http.get("/v1/status")["replication"].clone();
    assert_eq!(said, json!({"brokers": 1, "clamped": true, "asked": {"Factures": 2, "Profils": 2}}));
    assert!(server.stop().success());
}

#[test]
fn invoices_are_loaded_daily_at_a_set_time_and_on_demand() {
    let scratch = Scratch::new("daily");
    let folder = scratch.path("input");
    std::fs::create_dir_all(folder.join("factures")).unwrap();
    json_of(python("clients/freelance_files.py").arg("extra").arg(&folder));
    let now_s = UNIX_EPOCH.elapsed().unwrap().as_secs();
    // the next whole minute that is not upon us already
    let at_s = (now_s + 5) / 60 * 60 + 60;
    let times = format!("schedule = \"{} {} * * *\"", at_s / 60 % 60, at_s / 3_600 % 24);
    let text = std::fs::read_to_string(system(&scratch, &folder, &[])).unwrap();
    let (before, invoices) = text.split_once("name = \"fichiers-factures\"").unwrap();
    let text = format!("{before}name = \"fichiers-factures\"{}", invoices.replacen("when = \"demand\"", &times, 1));
    let mut server = Server::with_config(&scratch, &text);
    assert_eq!(status(&server, INVOICES)["when"], "schedule");
    eventually("the time of the load comes", Duration::from_secs(90), || {
        let status = status(&server, INVOICES);
        if status["runs"][0]["state"] == "done" { Ok(()) } else { Err(format!("{status:.400}")) }
    });
    let first = status(&server, INVOICES);
    let (run, next) = (&first["runs"][0], first["next"].as_str().unwrap());
    assert_eq!((&run["trigger"], &run["published"]), (&json!("schedule"), &json!(12)), "{first:.900}");
    let next_s = chrono::DateTime::parse_from_rfc3339(next).unwrap().timestamp();
    assert_eq!(next_s, i64::try_from(at_s).unwrap() + 86_400, "again tomorrow: {next}");
    // on demand, by the command; a file that is there again under another name is known
    std::fs::copy(folder.join("factures/extra.csv"), folder.join("factures/copy.csv")).unwrap();
    let header = "facture,id_freelance,freelance,montant,date,echeance,paiement,mission,competence,jours";
    let more = format!("{header}\nD1,7,Dupont,4500€,Oct-2025,,,,,\n");
    std::fs::write(folder.join("factures/more.csv"), more).unwrap();
    let mut command = millpond();
    command.args(["load", INVOICES, "--json", "--http", server.http.address()]);
    let found = json_of(&mut command);
    let counts = (&found["published"], &found["files_known"], &found["state"]);
    assert_eq!(counts, (&json!(1), &json!(3), &json!("done")), "{found}");
    assert!(server.stop().success());
}
