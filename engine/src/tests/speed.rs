//! How fast one core decodes JSON and counts it by minute and key. Run by hand: `cargo test -p engine --release -- --ignored speed --nocapture`.

use super::*;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement, not a test"]
async fn speed() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    create(&broker, "events", 1).await;
    let total = 2_000_000_i64;
    for chunk in 0..total / 2_000 {
        let values: Vec<String> = (0..2_000)
            .map(|row| {
                let number = chunk * 2_000 + row;
                let genre = ["jazz", "rock", "pop", "folk", "metal", "techno", "blues", "soul"][(number % 8) as usize];
                event(number % 10_000, genre, number % 300, number / 10)
            })
            .collect();
        append(&broker, "events", 0, &values).await;
    }
    let began = std::time::Instant::now();
    let engine = Engine::start(
        broker.clone(),
        config(&["v AS SELECT genre, count(*) AS n FROM s GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE), genre"]),
    )
    .await
    .unwrap();
    engine.wait_fresh("v", 120_000).await.unwrap();
    let elapsed = began.elapsed();
    let busy = engine.busy_time();
    let per_second = total as f64 / busy.as_secs_f64();
    println!("{total} events: {elapsed:?} elapsed, {busy:?} busy, {per_second:.0} events per second and core");
    engine.stop().await;
    broker.stop().await.unwrap();
}

/// The same of two streams that are joined: each order has one payment, a second of event time after it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement, not a test"]
async fn speed_of_a_join() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    let total = 500_000_i64;
    for topic in ["orders", "payments"] {
        create(&broker, topic, 1).await;
        for chunk in 0..total / 2_000 {
            let row =
                |number: i64| joins::row(number, number, 1, number / 10 + if topic == "orders" { 0 } else { 1_000 });
            append(&broker, topic, 0, &(chunk * 2_000..(chunk + 1) * 2_000).map(row).collect::<Vec<_>>()).await;
        }
    }
    let pairs = "pairs AS SELECT o.id, p.amount, o.ts FROM orders o LEFT JOIN payments p WITHIN 5 SECONDS ON o.k = p.k";
    let began = std::time::Instant::now();
    let engine = Engine::start(broker.clone(), joins::joins(vec![joins::joined(pairs)], &[])).await.unwrap();
    engine.wait_fresh("pairs", 300_000).await.unwrap();
    let (elapsed, busy) = (began.elapsed(), engine.busy_time());
    println!("{total} pairs: {elapsed:?} elapsed, {busy:?} busy in three readings of both streams and of the pairs");
    engine.stop().await;
    broker.stop().await.unwrap();
}
