//! Reading where the older batches lie in the store alone and the newer ones in memory as well.

use std::sync::Arc;

use crate::*;

const BATCHES: usize = 60;
/// So that the newest batches stay in memory, and most do not.
const TAIL_BYTES: usize = 3_000;

async fn filled(dir: &std::path::Path) -> (Arc<Broker>, Arc<Partition>) {
    let config = BrokerConfig { data_dir: dir.to_path_buf(), tail_cache_bytes: TAIL_BYTES, ..BrokerConfig::default() };
    let broker = Broker::open(config, Clock::manual(1_000)).await.unwrap();
    let new = NewTopic { name: "t".into(), partitions: 1, config: Default::default() };
    let partition = broker.catalog().ensure(new).await.unwrap().partition(0).unwrap();
    for number in 0..BATCHES {
        let mut batch = BatchBuilder::new();
        // small ones behind large ones, which would fit where the large one does not
        let value = vec![b'x'; number * 37 % BATCHES * 5];
        (0..=number % 3).for_each(|_| batch.push(7, None, Some(&value), &[]));
        let append = Append { partition: partition.clone(), batch: batch.build().unwrap(), origin: Origin::Client };
        broker.lane().commit(vec![Change::Append(append)], Ack::Durable).await.unwrap();
    }
    (broker, partition)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_read_goes_over_the_seam() {
    let dir = tempfile::tempdir().unwrap();
    let (_broker, partition) = filled(dir.path()).await;
    let end = partition.high_watermark();
    let seam = partition.tail_start().unwrap();
    assert!(0 < seam && seam < end, "there is a seam at {seam}, before {end}");
    let all = partition.read_store(0, end, usize::MAX).unwrap();
    assert_eq!(all.len(), BATCHES);
    for from in 0..end {
        for (below, max_bytes) in
            [(end, 0), (end, 500), (end, 2_000), (end, usize::MAX), (seam + 1, usize::MAX), (seam, 900)]
        {
            let mut size = 0;
            let fits = |batch: &&Batch| {
                size += batch.bytes().len();
                size == batch.bytes().len() || size <= max_bytes
            };
            let wanted = all.iter().filter(|batch| batch.next_offset() > from && batch.base_offset() < below);
            let expected: Vec<Batch> =
                if from < below { wanted.take_while(fits).cloned().collect() } else { Vec::new() };
            let got = partition.read_below(from, below, max_bytes).await.unwrap();
            assert_eq!(got, expected, "from {from} below {below}, {max_bytes} bytes");
        }
    }
}
