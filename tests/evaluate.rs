//! `millpond evaluate`: figures on stdout, and exit code 1 when a target is missed; the freelance data meet their targets, and a
//! model that knows nothing misses them.

use crate::support::Scratch;
use crate::support::server::{Server, millpond};
use std::process::{Command, Output};

const MODELS: &str = r#"
[[models]]
name = "line"
kind = "forecast"
target = 5
predict = """
SELECT f['time'] AS day, f['value'] AS value
FROM (SELECT unnest(forecast(day, 100.0 + 3 * n, 5)) AS f
      FROM (SELECT DATE '2026-01-01' + CAST(n || ' days' AS INTERVAL) AS day, n FROM (SELECT unnest(range(0, 30)) AS n)))
"""
truth = "SELECT DATE '2026-01-31' + CAST(n || ' days' AS INTERVAL) AS day, 190.0 + 3 * n AS value FROM (SELECT unnest(range(0, 5)) AS n)"

[[models]]
name = "always_the_same"
kind = "matching"
first = 1
target = 70
predict = "SELECT * FROM (VALUES ('a', 'x', 1.0), ('b', 'x', 1.0)) AS p (need, item, score)"
truth = "SELECT * FROM (VALUES ('a', 'x'), ('b', 'y')) AS t (need, item)"
"#;

fn evaluate(server: &Server, names: &[&str]) -> (Option<i32>, String, String) {
    let mut command: Command = millpond();
    command.arg("evaluate").args(names).args(["--http", server.http.address()]);
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn figures_are_printed_and_a_missed_target_is_an_exit_code() {
    let scratch = Scratch::new("evaluate");
    let mut server = Server::with_config(&scratch, MODELS);
    let (code, out, err) = evaluate(&server, &["line"]);
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(out.starts_with("line  MAPE 0.") && out.contains("%  (target < 5.0 %)  ok  5 compared"), "{out}");
    let (code, out, err) = evaluate(&server, &[]);
    assert_eq!(code, Some(1), "{out}{err}");
    assert!(out.contains("always_the_same  precision@1 50.0 %  (target > 70.0 %)  MISSED  2 compared"), "{out}");
    assert!(err.contains("the target is missed by always_the_same"), "{err}");
    let (code, out, _) = evaluate(&server, &["lyne"]);
    assert!(code == Some(1) && out.contains("no model lyne: there are line, always_the_same"), "{out}");
    let models = server.http.get("/v1/models");
    assert_eq!(models["models"][0]["latest"]["ok"], true, "{models}");
    assert_eq!(models["models"][1]["latest"]["figures"][0]["percent"], 50.0, "{models}");
    assert!(server.stop().success());
}
