//! Random events, duplicates and table changes with restarts; the tables change only while all is quiet, so that every
//! output can be computed again.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::derived::{append_keyed, derived, values, with};
use super::oracle::Random;
use super::*;
use crate::{DeduplicateConfig, QualityAction};

const WITHIN_MS: i64 = 20_000;
/// As of `stream()`.
const LATENESS_MS: i64 = 10_000;

fn the_config() -> EngineConfig {
    let mut enriched = derived(
        "enriched AS SELECT l.uid, l.genre, l.amount, l.ts, u.segment, g.mood, l._partition AS p, l._offset AS o FROM s l \
         LEFT JOIN users u ON l.uid = u.uid LEFT JOIN genres g ON l.genre = g.genre WHERE l.amount IS NULL OR l.amount <> 7",
    );
    enriched.deduplicate = Some(DeduplicateConfig { by: vec!["uid".into(), "amount".into()], within_ms: WITHIN_MS });
    with(vec![enriched], &["v AS SELECT segment, count(*) AS n FROM enriched GROUP BY segment"])
}

/// What the derived stream must hold: rows in the order of each partition, and the places of duplicates.
#[derive(Default)]
struct Model {
    users: BTreeMap<i64, String>,
    accepted: BTreeMap<(i64, i64), Vec<i64>>,
    rows: BTreeMap<(i32, i64), Value>,
    duplicates: u64,
    too_old: u64,
    /// The largest event time of each partition.
    newest: [Option<i64>; 2],
    /// The lesser of them, as of the last batch.
    event_watermark: Option<i64>,
}

impl Model {
    fn event(&mut self, partition: i32, offset: i64, event: (i64, &str, Option<i64>, i64)) {
        let (uid, genre, amount, ts) = event;
        let newest = &mut self.newest[partition as usize];
        *newest = (*newest).max(Some(ts));
        if amount == Some(7) {
            return;
        }
        if let Some(amount) = amount {
            let kept_ms = LATENESS_MS + 3 * WITHIN_MS;
            let kept_from = self.event_watermark.map(|watermark| (watermark - kept_ms).div_euclid(WITHIN_MS));
            if kept_from.is_some_and(|kept_from| ts.div_euclid(WITHIN_MS) - 1 < kept_from) {
                self.too_old += 1;
                return;
            }
            let accepted = self.accepted.entry((uid, amount)).or_default();
            if accepted.iter().any(|before| before.abs_diff(ts) <= WITHIN_MS as u64) {
                self.duplicates += 1;
                return;
            }
            accepted.push(ts);
        }
        let mood = match genre {
            "jazz" => json!("calm"),
            "rock" | "pop" => json!("loud"),
            _ => Value::Null,
        };
        let row = json!({"uid": uid, "genre": genre, "amount": amount, "segment": self.users.get(&uid), "mood": mood,
                         "p": partition, "o": offset});
        self.rows.insert((partition, offset), row);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_derived_stream_equals_a_recomputation() {
    let mut random = Random::seeded();
    let dir = tempfile::tempdir().unwrap();
    let mut broker = open_broker(dir.path()).await;
    create(&broker, "events", 2).await;
    create(&broker, "people", 2).await;
    let mut engine = Engine::start(broker.clone(), the_config()).await.unwrap();
    let mut model = Model::default();
    let mut next = [0_i64; 2];
    let mut now_ms = BASE_MS;
    let mut written = 0;
    for _ in 0..60 {
        if random.below(3) == 0 {
            for _ in 0..1 + random.below(6) {
                let uid = random.below(12) as i64;
                let segment = (random.below(4) > 0).then(|| format!("s{}", random.below(100)));
                let value = segment.as_ref().map(|segment| format!(r#"{{"uid":{uid},"segment":"{segment}"}}"#));
                append_keyed(&broker, "people", (uid % 2) as i32, &[(&uid.to_string(), value)]).await;
                match segment {
                    Some(segment) => model.users.insert(uid, segment),
                    None => model.users.remove(&uid),
                };
            }
            engine.wait_fresh("users", 20_000).await.unwrap();
        }
        // One partition per round, so that the order in which duplicates meet is known.
        let partition = random.below(2) as i32;
        let mut batch = Vec::new();
        for _ in 0..1 + random.below(120) {
            let (uid, genre) = (random.below(12) as i64, ["jazz", "rock", "pop", "Ω"][random.below(4) as usize]);
            let amount = (random.below(10) > 0).then(|| random.below(40) as i64);
            let lag_ms = if random.below(6) == 0 { random.below(150_000) } else { random.below(15_000) };
            let ts = now_ms - lag_ms as i64;
            model.event(partition, next[partition as usize], (uid, genre, amount, ts));
            next[partition as usize] += 1;
            let amount = amount.map_or("null".to_string(), |amount| amount.to_string());
            batch.push(format!(r#"{{"uid":{uid},"genre":"{genre}","amount":{amount},"ts":{ts}}}"#));
        }
        if let [Some(one), Some(other)] = model.newest {
            model.event_watermark = model.event_watermark.max(Some(one.min(other)));
        }
        written += batch.len() as u64;
        append(&broker, "events", partition, &batch).await;
        now_ms += random.below(8_000) as i64;
        if random.below(6) == 0 {
            // In the middle of the work: what is not committed is done again.
            engine.stop().await;
            drop(engine);
            if random.below(2) == 0 {
                broker.stop().await.unwrap();
                drop(broker);
                broker = open_broker(dir.path()).await;
            }
            engine = Engine::start(broker.clone(), the_config()).await.unwrap();
        }
        engine.wait_fresh("enriched", 20_000).await.unwrap();
    }
    compare(&broker, &engine, &model, written).await;
    engine.stop().await;
    broker.stop().await.unwrap();
}

async fn compare(broker: &Broker, engine: &Engine, model: &Model, written: u64) {
    let mut rows: BTreeMap<(i32, i64), Value> = BTreeMap::new();
    for mut value in values(broker, "enriched").await {
        let place = (value["p"].as_i64().unwrap() as i32, value["o"].as_i64().unwrap());
        value.as_object_mut().unwrap().remove("ts");
        assert_eq!(rows.insert(place, value), None, "{place:?} was written twice");
    }
    assert_eq!(rows.len(), model.rows.len());
    for (place, row) in &model.rows {
        assert_eq!(rows.get(place), Some(row), "{place:?}");
    }
    assert_eq!(records(broker, "enriched.rejected").await.len() as u64, model.duplicates + model.too_old);
    let mut by_segment: BTreeMap<String, u64> = BTreeMap::new();
    for row in model.rows.values() {
        *by_segment.entry(row["segment"].as_str().unwrap_or("∅").to_string()).or_default() += 1;
    }
    let counted: BTreeMap<String, u64> =
        read(engine, "v").await.into_iter().map(|row| (row[0].clone(), row[1].parse().unwrap())).collect();
    assert_eq!(counted, by_segment);
    engine.wait_fresh("data_quality", 20_000).await.unwrap();
    let counts = engine.quality().await.unwrap();
    let count = |stream: &str, rule: &str| -> u64 {
        counts.iter().filter(|count| count.stream == stream && count.rule == rule).map(|count| count.records).sum()
    };
    assert_eq!(count("s", "accepted"), written);
    assert_eq!(count("enriched", "accepted"), model.rows.len() as u64);
    assert_eq!(count("enriched", "duplicate"), model.duplicates);
    assert_eq!(count("enriched", "too_old"), model.too_old);
    let rules = ["duplicate", "too_old"];
    assert!(
        counts.iter().all(|count| count.action == QualityAction::Accept || rules.contains(&count.rule.as_str())),
        "{counts:?}"
    );
    assert!(model.duplicates > 0 && model.too_old > 0 && !model.rows.is_empty());
}
