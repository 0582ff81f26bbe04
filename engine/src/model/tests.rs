//! The functions as SQL knows them.

use arrow::util::pretty::pretty_format_batches;
use datafusion::prelude::{SessionConfig, SessionContext};

/// The answer as text, or the error.
async fn ask(sql: &str) -> Result<String, String> {
    // several partitions, so that partial states are merged
    let mut state = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(3)).state();
    super::register(&mut state).unwrap();
    let context = SessionContext::new_with_state(state);
    let frame = context.sql(sql).await.map_err(|error| error.strip_backtrace())?;
    let rows = frame.collect().await.map_err(|error| error.strip_backtrace())?;
    Ok(pretty_format_batches(&rows).unwrap().to_string())
}

/// The cells of the last row, or of every row when there are more.
async fn cells(sql: &str) -> Vec<Vec<String>> {
    let text = ask(sql).await.unwrap();
    let rows = text.lines().filter(|line| line.starts_with('|')).skip(1);
    rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

const DAYS: &str = "(SELECT CAST('2026-01-01' AS DATE) + CAST(n || ' days' AS INTERVAL) AS day, n, n % 2 AS g
                     FROM (SELECT unnest(range(0, 20)) AS n))";

#[tokio::test]
async fn forecast_gives_rows_by_unnest() {
    let sql = format!(
        "SELECT f['time'] AS time, round(f['value'], 1) AS value, f['lower'] <= f['value'] AND f['value'] <= f['upper'] AS fits
         FROM (SELECT unnest(forecast(day, 2.0 * n, 3, 1)) AS f FROM {DAYS})"
    );
    assert_eq!(
        cells(&sql).await,
        [
            ["2026-01-21T00:00:00Z", "40.0", "true"],
            ["2026-01-22T00:00:00Z", "42.0", "true"],
            ["2026-01-23T00:00:00Z", "44.0", "true"]
        ]
    );
}

#[tokio::test]
async fn forecast_is_per_group() {
    let sql = format!(
        "SELECT g, round(f['value']) AS value FROM
         (SELECT g, unnest(forecast(day, n, 2)) AS f FROM {DAYS} GROUP BY g) ORDER BY g, f['time']"
    );
    assert_eq!(cells(&sql).await, [["0", "20.0"], ["0", "22.0"], ["1", "21.0"], ["1", "23.0"]]);
}

#[tokio::test]
async fn values_of_one_time_are_added_and_nulls_left_out() {
    let sql = "SELECT f['time'] AS time, f['value'] AS value FROM (SELECT unnest(forecast(t, v, 1)) AS f FROM (VALUES
               (TIMESTAMP '2026-01-01', 1), (TIMESTAMP '2026-01-01', 2), (TIMESTAMP '2026-02-01', 5), (NULL, 7),
               (TIMESTAMP '2026-03-01', NULL)) AS x (t, v))";
    assert_eq!(cells(sql).await, [["2026-03-01T00:00:00Z", "7.0"]]);
    let none = "SELECT cardinality(forecast(t, v, 1)) AS n FROM (VALUES (TIMESTAMP '2026-01-01', 1)) AS x (t, v)";
    assert_eq!(cells(none).await, [["0"]]);
}

#[tokio::test]
async fn forecast_refuses_with_reasons() {
    for (call, reason) in [
        ("forecast(n, n, 3)", "argument 1 must be a TIMESTAMP or DATE"),
        ("forecast(day, 'x', 3)", "argument 2 must be a number"),
        ("forecast(day, n)", "takes (time, value, horizon)"),
        ("forecast(day, n, 0)", "the horizon must be 1 to 1000"),
        ("forecast(day, n, n)", "must be a number in the query itself"),
        ("forecast(day, n, 3, -1)", "the season length must be 1"),
    ] {
        let error = ask(&format!("SELECT {call} FROM {DAYS}")).await.unwrap_err();
        assert!(error.contains(reason), "{call}: {error}");
    }
}

const ROWS: &str =
    "(SELECT n, CASE WHEN n = 77 THEN 900.0 WHEN n = 5 THEN NULL ELSE 100.0 + n % 11 END AS x, n % 7 AS y
                     FROM (SELECT unnest(range(0, 200)) AS n))";

#[tokio::test]
async fn the_anomaly_is_found() {
    let best = format!(
        "SELECT n, score > 0.6 AS high FROM (SELECT n, anomaly_score(x, y) OVER () AS score FROM {ROWS})
                        WHERE score IS NOT NULL ORDER BY score DESC LIMIT 1"
    );
    assert_eq!(cells(&best).await, [["77", "true"]]);
    let flagged = format!("SELECT n FROM (SELECT n, is_anomaly(x, y, 0.01) OVER () AS odd FROM {ROWS}) WHERE odd");
    assert_eq!(cells(&flagged).await, [["77"]]);
    let unknown =
        format!("SELECT n FROM (SELECT n, is_anomaly(x, y, 0.02) OVER () AS odd FROM {ROWS}) WHERE odd IS NULL");
    assert_eq!(cells(&unknown).await, [["5"]]);
}

#[tokio::test]
async fn scores_are_the_same_every_time_and_per_partition() {
    let sql = format!("SELECT n, anomaly_score(x) OVER (PARTITION BY y) AS score FROM {ROWS} ORDER BY n");
    let first = ask(&sql).await.unwrap();
    assert_eq!(first, ask(&sql).await.unwrap());
    let backwards =
        format!("SELECT n, anomaly_score(x) OVER (PARTITION BY y ORDER BY n DESC) AS score FROM {ROWS} ORDER BY n");
    assert_eq!(first, ask(&backwards).await.unwrap());
}

#[tokio::test]
async fn anomaly_functions_refuse_with_reasons() {
    for (call, reason) in [
        ("anomaly_score('x')", "argument 1 must be a number"),
        ("is_anomaly(x)", "contamination"),
        ("is_anomaly(x, 0.9)", "from 0 to 0.5"),
        ("is_anomaly(x, y)", "one number from 0 to 0.5"),
        ("zscore(x, y)", "zscore takes (x)"),
    ] {
        let error = ask(&format!("SELECT {call} OVER () FROM {ROWS}")).await.unwrap_err();
        assert!(error.contains(reason), "{call}: {error}");
    }
}

#[tokio::test]
async fn zscores_have_mean_0_and_deviation_1() {
    let sql = "SELECT x, zscore(x) OVER () AS z FROM (VALUES (1.0), (2.0), (3.0), (NULL)) AS t (x) ORDER BY x";
    assert_eq!(cells(sql).await, [["1.0", "-1.0"], ["2.0", "0.0"], ["3.0", "1.0"], ["", ""]]);
}

#[tokio::test]
async fn matches_and_likeness() {
    let sql = "SELECT match_score('Développeur Python', 'python DEVELOPPEUR'), match_score(make_array('Python', 'C++'), 'C++, Go'),
               match_score(NULL, 'x'), cosine_similarity(make_array(1, 0), make_array(1, 1)),
               cosine_similarity(make_array(0, 0), make_array(1, 1)), cosine_similarity([1.5, 2], [3, 4])";
    let row = &cells(sql).await[0];
    assert_eq!(row[0], "1.0");
    assert_eq!(row[1], (0.8 * 0.5 + 0.2 / 3.0).to_string());
    assert_eq!((row[2].as_str(), row[4].as_str()), ("", ""));
    assert!(row[3].starts_with("0.70710678") && row[5] == "1.0", "{row:?}");
    let error = ask("SELECT cosine_similarity([1], [1, 2])").await.unwrap_err();
    assert!(error.contains("a list of 1 numbers and one of 2"), "{error}");
    assert!(ask("SELECT match_score(1, 'x')").await.unwrap_err().contains("texts or lists of texts"));
}

/// The recommendation of the documentation: the nearest tracks by standardised features, in one statement.
#[tokio::test]
async fn nearest_by_standardised_features() {
    let sql = "WITH tracks (id, tempo, energy) AS (VALUES ('a', 120, 0.5), ('b', 121, 0.9), ('c', 180, 0.52), ('d', 119, 0.49)),
        scaled AS (SELECT id, make_array(zscore(tempo) OVER (), zscore(energy) OVER ()) AS features FROM tracks)
        SELECT other.id FROM scaled AS this CROSS JOIN scaled AS other
        WHERE this.id = 'a' AND other.id <> 'a' ORDER BY array_distance(this.features, other.features) LIMIT 2";
    assert_eq!(cells(sql).await[0], ["d"]);
}
