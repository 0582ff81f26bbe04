//! Fetch over partitions whose records lie in memory, in the store, or in both.

use kafka_protocol::messages::fetch_request::FetchPartition;
use kafka_protocol::messages::fetch_response::PartitionData;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::tests::{Node, batch, fetch, fetch_request, from, node_of, produce_request};
use crate::BrokerConfig;

const PARTITIONS: i32 = 8;
/// Of these batches a node keeps a few in memory, another all.
const VALUE_BYTES: usize = 100;
const TAIL_BYTES: usize = 2_000;

async fn filled(tail_cache_bytes: usize, appends: &[(i32, usize)]) -> Node {
    let mut node = node_of(BrokerConfig { tail_cache_bytes, ..BrokerConfig::default() }).await;
    node.context.broker.catalog().delete("t").await.unwrap();
    node.id = node.create("t", PARTITIONS, &[]).await;
    for (partition, records) in appends {
        node.ask(9, &produce_request(-1, "t", *partition, Some(batch(*records, VALUE_BYTES)))).await;
    }
    node
}

/// What an answer says that does not differ from one broker to another.
fn told(answer: Vec<PartitionData>) -> Vec<(i32, i16, i64, Option<Vec<u8>>)> {
    let told = |one: PartitionData| {
        (one.partition_index, one.error_code, one.high_watermark, one.records.map(|bytes| bytes.to_vec()))
    };
    answer.into_iter().map(told).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_records_lie_makes_no_difference() {
    let seed = crate::seed::seed("where_records_lie_makes_no_difference");
    let mut random = StdRng::seed_from_u64(seed);
    // none to the last partition, and only old ones to the first
    let appends: Vec<(i32, usize)> = (0..200)
        .map(|turn| (random.random_range(i32::from(turn > 60)..PARTITIONS - 1), random.random_range(1..4)))
        .collect();
    let (stored, in_memory) = (filled(TAIL_BYTES, &appends).await, filled(64 << 20, &appends).await);
    let one = batch(1, VALUE_BYTES).len() as i32;
    for _ in 0..300 {
        let asked: Vec<FetchPartition> = (0..random.random_range(1..=PARTITIONS + 1))
            .map(|partition| {
                let asked = from(partition, random.random_range(0..70));
                asked.with_partition_max_bytes(random.random_range(0..12 * one))
            })
            .collect();
        let (max_bytes, isolation) = (random.random_range(0..40 * one), random.random_range(0..2));
        let request = |node| {
            let request = fetch_request(12, node, asked.clone());
            request.with_max_bytes(max_bytes).with_isolation_level(isolation)
        };
        let got = told(fetch(&stored, 12, &request(&stored)).await);
        assert_eq!(got, told(fetch(&in_memory, 12, &request(&in_memory)).await), "seed {seed}, {asked:?}, {max_bytes}");
    }
}
