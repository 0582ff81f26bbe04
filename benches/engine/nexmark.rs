//! The queries of Nexmark as the suite has them (`tests/nexmark/queries.toml`), each over events that are in the log. That their answers are
//! right is the suite's to show.

use std::path::PathBuf;
use std::sync::Arc;

use broker::{Ack, BatchBuilder, Broker, NewTopic, Partition};
use engine::EngineConfig;
use serde::Deserialize;

use super::bounds::Bounds;
use super::nexmark_events::{Event, Settings, events};
use super::{Cost, Folders, Meter, Pair, open};
use crate::Outcome;
use crate::log::append;

const TOPICS: [&str; 3] = ["person", "auction", "bid"];
/// Records of a batch.
const BATCH_RECORDS: usize = 500;
/// Longest time of a query.
const QUERY_MS_MAX: u64 = 600_000;

#[derive(Deserialize)]
struct Queries {
    streams: String,
    queries: Vec<Query>,
}

#[derive(Deserialize)]
struct Query {
    name: String,
    declare: String,
}

/// One round of every query.
pub async fn measure(bounds: &Bounds, folders: &Folders, costs: &mut Vec<(String, Vec<Cost>)>) -> Outcome<()> {
    let place = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/nexmark/queries.toml");
    let Queries { streams, queries } = toml::from_str(&std::fs::read_to_string(place)?)?;
    for query in queries {
        let cost = one(bounds, (&streams, &query), folders.next()?).await?;
        eprintln!("bench: engine, nexmark {}: {cost:?}", query.name);
        match costs.iter_mut().find(|(name, _)| *name == query.name) {
            Some((_, known)) => known.push(cost),
            None => costs.push((query.name, vec![cost])),
        }
    }
    Ok(())
}

/// From the declaration of a query until it has everything, when the streams' own pipelines have.
async fn one(bounds: &Bounds, (streams, query): (&str, &Query), folder: PathBuf) -> Outcome<Cost> {
    let broker = open(folder).await?;
    write(&broker, bounds.nexmark_events as u64).await?;
    let pair = Pair::start(broker, EngineConfig::default()).await?;
    pair.declare(streams).await?;
    pair.engine.wait_fresh("data_quality", QUERY_MS_MAX).await?;
    let meter = Meter::begin(Some(&pair.engine))?;
    pair.declare(&query.declare).await?;
    let name = query.name.split(':').next().unwrap_or_default();
    pair.engine.wait_fresh(name, QUERY_MS_MAX).await?;
    let cost = meter.end(&pair.engine).await?;
    pair.stop().await?;
    Ok(cost)
}

/// All events in the order of their times, each topic in one partition.
async fn write(broker: &Broker, count: u64) -> Outcome<()> {
    let mut batches: [(Option<Arc<Partition>>, BatchBuilder, usize); 3] = Default::default();
    for (batch, name) in batches.iter_mut().zip(TOPICS) {
        let topic = NewTopic { name: name.into(), partitions: 1, config: Default::default() };
        batch.0 = broker.catalog().create(topic).await?.partition(0);
    }
    let now_ms = broker.clock().now_ms();
    for event in events(Settings::default(), count) {
        let at = match &event {
            Event::Person(_) => 0,
            Event::Auction(_) => 1,
            Event::Bid(_) => 2,
        };
        let (_, builder, records) = &mut batches[at];
        builder.push(now_ms, None, Some(event.json().as_bytes()), &[]);
        *records += 1;
        if *records == BATCH_RECORDS {
            close(broker, &mut batches[at]).await?;
        }
    }
    for batch in &mut batches {
        close(broker, batch).await?;
    }
    Ok(())
}

async fn close(
    broker: &Broker,
    (partition, builder, records): &mut (Option<Arc<Partition>>, BatchBuilder, usize),
) -> Outcome<()> {
    *records = 0;
    if let (Some(partition), Some(batch)) = (partition, std::mem::take(builder).build()) {
        broker.lane().commit(vec![append(partition, batch)], Ack::Written).await?;
    }
    Ok(())
}
