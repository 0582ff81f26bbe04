//! Dashboards from configuration in a real browser: every kind of panel, filters in the address, colours, files to keep. What is on
//! the screen and in the files equals what SQL says, and that equals a computation over the records that were sent.

use crate::support::scripts::{json_of, node, python};
use crate::support::server::Server;
use crate::support::{Scratch, beside_others, eventually};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

const DAY_MS: i64 = 86_400_000;
const SKILLS: [&str; 4] = ["Rust", "Python", "Kafka", "O'Brien & \"Co\""];
const CLIENTS: [&str; 3] = ["Airbus", "=cmd|' /C calc'!A0", "Danone"];
const STATES: [&str; 4] = ["paid", "paid", "open", "overdue"];
const INVOICES: i64 = 240;

const CONFIG: &str = r##"
[[topics]]
name = "invoices"
owner = "billing team"
description = "Invoices as they were sent"

[[streams]]
name = "invoices"
topic = "invoices"
event_time = "ts"
max_ahead = "1h"
lateness = "30d"
owner = "billing team"
description = "Invoices that are well formed"
columns = [
    { name = "id", type = "BIGINT", required = true, description = "The number on the paper" },
    { name = "ts", type = "TIMESTAMP", required = true },
    { name = "skill", type = "VARCHAR", required = true },
    { name = "client", type = "VARCHAR", required = true },
    { name = "state", type = "VARCHAR", required = true },
    { name = "cents", type = "BIGINT", required = true },
]

[[views]]
sql = "CREATE MATERIALIZED VIEW by_day AS SELECT skill, count(*) AS invoices, sum(cents) AS cents FROM invoices GROUP BY TUMBLE(ts, INTERVAL '1' DAY), skill"

[[dashboards]]
name = "everything"
title = "Everything"
description = "One panel of each kind"
owner = "test"
system = "testing"
refresh = "1s"

[[dashboards.filters]]
name = "period"
kind = "period"
options = ["30d", "90d", "all"]
default = "all"
[[dashboards.filters]]
name = "skill"
label = "Skill"
sql = "SELECT DISTINCT skill FROM invoices ORDER BY skill"
[[dashboards.filters]]
name = "client"
kind = "multi"
sql = "SELECT DISTINCT client FROM invoices ORDER BY client"

[[dashboards.panels]]
title = "Revenue"
kind = "number"
sql = """
SELECT CAST(sum(cents) AS DOUBLE) / 100 AS revenue, CAST(50000 AS DOUBLE) AS before FROM invoices
WHERE ts >= $from AND ts < $to AND ($skill = '' OR skill = $skill)
  AND ($client = '' OR array_has(string_to_array($client, '|'), client))
"""
y = ["revenue"]
unit = "€"
formats = { revenue = "money" }
compare = "before"
compare_label = "vs plan"

[[dashboards.panels]]
title = "Invoices"
kind = "number"
view = "by_day"
y = ["invoices"]
thresholds = [{ below = 10, colour = "red" }, { below = 100, colour = "orange" }]

[[dashboards.panels]]
title = "Paid"
kind = "gauge"
sql = "SELECT 100.0 * count(*) FILTER (WHERE state = 'paid') / count(*) AS paid FROM invoices WHERE ($skill = '' OR skill = $skill)"
y = ["paid"]
target = 78
formats = { paid = "percent" }
thresholds = [{ below = 40, colour = "red" }, { below = 60, colour = "orange" }]

[[dashboards.panels]]
title = "Per day"
kind = "line"
view = "by_day"
x = "window_start"
y = ["invoices"]
series = "skill"

[[dashboards.panels]]
title = "Per month"
kind = "bar"
style = "vertical"
sql = "SELECT CAST(date_trunc('month', ts) AS DATE) AS month, count(*) AS invoices FROM invoices GROUP BY 1 ORDER BY 1"
x = "month"
y = ["invoices"]

[[dashboards.panels]]
title = "Top clients"
kind = "bar"
sql = "SELECT client, sum(cents) AS cents FROM invoices GROUP BY client ORDER BY cents DESC"
x = "client"
y = ["cents"]
top = 2

[[dashboards.panels]]
title = "By skill"
kind = "pie"
view = "by_day"
x = "skill"
y = ["invoices"]

[[dashboards.panels]]
title = "Skill and client"
kind = "heatmap"
sql = "SELECT skill, client, count(*) AS invoices FROM invoices GROUP BY skill, client ORDER BY skill, client"
x = "client"
series = "skill"
y = ["invoices"]

[[dashboards.panels]]
title = "Newest"
kind = "table"
sql = """
SELECT id, client, skill, CAST(cents AS DECIMAL(12,2)) / 100 AS amount, CAST(ts AS DATE) AS day, ts, state,
       CASE state WHEN 'paid' THEN 'green' WHEN 'open' THEN 'orange' ELSE 'red' END AS light
FROM invoices WHERE ($skill = '' OR skill = $skill) ORDER BY id LIMIT 25
"""
labels = { amount = "Amount" }
formats = { id = "text", amount = "money" }
links = { skill = "/d/everything?skill={skill}" }
status = "light"
thresholds = [{ column = "state", equals = "overdue", colour = "red" }]

[[dashboards.panels]]
title = "In trouble"
kind = "line"
sql = "SELECT nothing_like_it AS y, ts FROM invoices"
x = "ts"
y = ["y"]

[[dashboards]]
name = "calm"
title = "Calm"
system = "testing"

[[dashboards.panels]]
title = "Count"
kind = "number"
sql = "SELECT count(*) AS n FROM invoices"
y = ["n"]
thresholds = [{ below = 1, colour = "red" }]
"##;

/// One invoice of those that are sent: its age in days and a half, so that no border of a period is near.
fn invoice(id: i64, now: i64) -> Value {
    let pick = |list: &[&str], step: i64| list[usize::try_from(id * step).unwrap() % list.len()].to_owned();
    let ts = now - (id % 200) * DAY_MS - DAY_MS / 2;
    json!({
        "id": id, "ts": ts_text(ts), "skill": pick(&SKILLS, 1), "client": pick(&CLIENTS, 7), "state": pick(&STATES, 3),
        "cents": 10_000 + (id * 7_919) % 90_001,
    })
}

fn ts_text(ms: i64) -> String {
    chrono::DateTime::from_timestamp_millis(ms).unwrap().to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

fn start(scratch: &Scratch) -> (Server, Vec<Value>) {
    let server = Server::with_config(scratch, CONFIG);
    let now = i64::try_from(UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap();
    let invoices: Vec<Value> = (0..INVOICES).map(|id| invoice(id, now)).collect();
    let records: Vec<Value> = invoices.iter().map(|value| json!({"key": "k", "value": value})).collect();
    let answer = server.http.post("/v1/topics/invoices/records", &json!({"records": records}));
    assert_eq!(answer["rejected"], 0, "{answer}");
    (server, invoices)
}

fn cents(invoices: &[Value], keep: impl Fn(&Value) -> bool) -> i64 {
    invoices.iter().filter(|invoice| keep(invoice)).map(|invoice| invoice["cents"].as_i64().unwrap()).sum()
}

#[test]
fn every_panel_shows_what_was_sent_at_each_width() {
    let _beside = beside_others();
    let scratch = Scratch::new("dashboards");
    let (server, invoices) = start(&scratch);
    let euros = |cents: i64| cents as f64 / 100.0;
    let two = ["Airbus", "Danone"];
    let expected = json!({
        "revenue": euros(cents(&invoices, |_| true)),
        "rust": euros(cents(&invoices, |i| i["skill"] == "Rust")),
        "obrien": euros(cents(&invoices, |i| i["skill"] == SKILLS[3])),
        "two_clients": euros(cents(&invoices, |i| two.contains(&i["client"].as_str().unwrap()))),
        "month": euros(cents(&invoices, |i| i["id"].as_i64().unwrap() % 200 < 30)),
        "invoices": INVOICES,
        "rust_invoices": invoices.iter().filter(|i| i["skill"] == "Rust").count(),
        "skills": SKILLS,
        "first": invoices[0],
    });
    let plan = scratch.write("expected.json", &expected.to_string());
    let mut browser = node("clients/dashboards.js");
    let report = json_of(browser.arg(server.http.url("")).arg(&plan).arg(scratch.path("shots")));
    eprintln!("dashboards: {report:.3000}");
    let mistakes = report["mistakes"].as_array().unwrap();
    assert!(mistakes.is_empty(), "{mistakes:#?}");
    assert_eq!(report["compared"].as_array().unwrap().len(), report["wanted"].as_u64().unwrap() as usize, "{report}");

    // The file that the browser saved.
    let sheets = json_of(python("clients/sheet.py").arg(report["downloads"]["panel.xlsx"].as_str().unwrap()));
    let sheet = &sheets["sheets"][0];
    let rows = sheet["rows"].as_array().unwrap();
    assert_eq!((rows.len(), &sheet["frozen"], &sheet["filter"]), (26, &json!("A2"), &json!("A1:H26")), "{sheet:.500}");
    let headings: Vec<&str> = rows[0].as_array().unwrap().iter().map(|cell| cell[1].as_str().unwrap()).collect();
    assert_eq!(headings, ["id", "client", "skill", "Amount", "day", "ts", "state", "light"]);
    for (row, invoice) in rows[1..].iter().zip(&invoices) {
        let amount = invoice["cents"].as_i64().unwrap() as f64 / 100.0;
        assert_eq!(row[0], json!(["n", invoice["id"]]), "{row}");
        assert_eq!(row[1], json!(["s", invoice["client"]]), "a text that looks like a formula is a text");
        assert_eq!((&row[3][0], row[3][1].as_f64().unwrap()), (&json!("n"), amount));
        assert_eq!(row[4], json!(["d", format!("{}T00:00:00", &invoice["ts"].as_str().unwrap()[..10])]), "{row}");
        assert_eq!(row[5][0], "d");
        assert!(row[5][1].as_str().unwrap().starts_with(&invoice["ts"].as_str().unwrap()[..16]), "{row} {invoice}");
    }
    let csv = std::fs::read_to_string(report["downloads"]["panel.csv"].as_str().unwrap()).unwrap();
    assert!(csv.starts_with("id,client,skill,amount,day,ts,state,light\r\n0,Airbus,Rust,"), "{csv:.200}");
    assert_eq!(csv.lines().count(), 26);
}

#[test]
fn answers_and_files_of_a_dashboard_hold_all_panels() {
    let scratch = Scratch::new("dashboards-api");
    let (server, invoices) = start(&scratch);
    let http = &server.http;
    let page = eventually("the view has it all", Duration::from_secs(20), || {
        let page = http.get("/v1/dashboards/everything");
        let count = &page["panels"][1]["data"]["rows"][0][0];
        if *count == json!(INVOICES) { Ok(page.clone()) } else { Err(count.to_string()) }
    });
    let panels = page["panels"].as_array().unwrap();
    assert_eq!(panels[0]["data"]["rows"][0][0], json!(cents(&invoices, |_| true) as f64 / 100.0));
    assert_eq!((&panels[1]["data"]["status"], &panels[8]["data"]["status"]), (&json!("green"), &json!("red")));
    let paid = panels[2]["data"]["rows"][0][0].as_f64().unwrap();
    assert!((paid - 50.0).abs() < 1e-9 && panels[2]["data"]["status"] == "orange", "{paid}");
    assert_eq!(
        (panels[5]["data"]["rows"].as_array().unwrap().len(), &panels[5]["data"]["groups_total"]),
        (2, &json!(3))
    );
    assert!(panels[9]["problem"]["detail"].as_str().unwrap().contains("nothing_like_it"), "{}", panels[9]);
    assert_eq!(page["filters"][1]["options"].as_array().unwrap().len(), SKILLS.len());
    let list = http.get("/v1/dashboards");
    let status: Vec<&Value> = list["dashboards"].as_array().unwrap().iter().map(|d| &d["status"]).collect();
    assert_eq!(status, [&json!("red"), &json!("green")], "{list}");

    let by_month =
        http.sql("SELECT CAST(date_trunc('month', ts) AS DATE), count(*) FROM invoices GROUP BY 1 ORDER BY 1");
    assert_eq!(panels[4]["data"]["rows"], json!(by_month));
    let mut months: BTreeMap<&str, i64> = BTreeMap::new();
    invoices.iter().for_each(|i| *months.entry(&i["ts"].as_str().unwrap()[..7]).or_default() += 1);
    assert_eq!(
        by_month.iter().map(|row| row[1].as_i64().unwrap()).collect::<Vec<_>>(),
        months.into_values().collect::<Vec<_>>()
    );

    // Whatever a URL says is a value, never a part of a statement.
    let hostile = "/v1/dashboards/everything/panels/0?skill=%27%20OR%20%271%27=%271&client=%27)%20OR%20(1=1";
    assert_eq!(http.get(hostile)["rows"], json!([[null, 50_000.0]]));
    for wrong in ["skil=Rust", "period=soon", "skill=a&skill=b", "from=x", "range=1h&from=2026-01-01"] {
        let (status, text) = http.try_get(&format!("/v1/dashboards/everything?{wrong}")).unwrap();
        assert_eq!(status, 400, "{wrong}: {text}");
    }

    let sheets = json_of(python("clients/sheet.py").arg(http.url("/v1/dashboards/everything?format=xlsx&skill=Rust")));
    let names: Vec<&str> = sheets["sheets"].as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap()).collect();
    let titles: Vec<&str> = panels.iter().map(|panel| panel["title"].as_str().unwrap()).collect();
    assert_eq!(names, titles);
    let rust = cents(&invoices, |i| i["skill"] == "Rust") as f64 / 100.0;
    assert_eq!(sheets["sheets"][0]["rows"][1][0], json!(["n", rust]));
    assert!(sheets["sheets"][9]["rows"][0][0][1].as_str().unwrap().contains("nothing_like_it"));
    let body = json!({"sql": "SELECT id, client FROM invoices ORDER BY id"}).to_string();
    let answer = json_of(python("clients/sheet.py").arg(http.url("/v1/sql")).arg(body));
    assert_eq!(answer["sheets"][0]["rows"].as_array().unwrap().len(), 1 + invoices.len());
    let csv = http.text("/v1/dashboards/everything?format=csv");
    assert!(csv.starts_with("# Revenue\r\nrevenue,before\r\n") && csv.contains("\r\n# In trouble\r\n"), "{csv:.300}");

    let catalog = http.get("/v1/catalog");
    let arrow = |from: &str, to: &str| catalog["lineage"].as_array().unwrap().contains(&json!([from, to]));
    assert!(arrow("topic:invoices", "stream:invoices") && arrow("stream:invoices", "view:by_day"), "{catalog}");
    assert!(
        arrow("view:by_day", "panel:everything/Per day") && arrow("stream:invoices", "panel:calm/Count"),
        "{catalog}"
    );
    assert!(arrow("panel:everything/Per day", "dashboard:everything"), "{catalog}");
    let entries = catalog["entries"].as_array().unwrap();
    let stream = entries.iter().find(|entry| entry["kind"] == "stream" && entry["name"] == "invoices").unwrap();
    assert_eq!(
        (&stream["owner"], &stream["columns"][0]["description"]),
        (&json!("billing team"), &json!("The number on the paper"))
    );
}
