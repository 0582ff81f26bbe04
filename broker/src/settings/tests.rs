//! Settings on a broker: what was changed acts at once, and is there after a restart.

use std::sync::Arc;

use super::*;
use crate::{Broker, Clock, NewTopic};

async fn open(dir: &std::path::Path, given: &[(&str, &str)]) -> Arc<Broker> {
    let mut config = BrokerConfig { data_dir: dir.to_owned(), ..BrokerConfig::default() };
    given.iter().for_each(|(name, value)| config.set(name, value).unwrap());
    Broker::open(config, Clock::manual(0)).await.unwrap()
}

async fn set(broker: &Broker, resource: Resource, name: &str, value: &str) -> Result<()> {
    let edit = |before: &Values| {
        let mut after = before.clone();
        after.insert(name.to_owned(), value.to_owned());
        Ok(after)
    };
    broker.change_settings(resource, edit).await
}

fn layers(broker: &Broker, name: &'static str) -> Vec<(String, String, Origin)> {
    let all = broker.settings().layers(name).into_iter();
    all.map(|layer| (layer.name, layer.value.unwrap(), layer.origin)).collect()
}

#[tokio::test]
async fn the_nearest_value_holds_acts_at_once_and_survives() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path(), &[("log.retention.hours", "2")]).await;
    let create = |name: &str| NewTopic { name: name.to_owned(), partitions: 1, ..NewTopic::default() };
    let topic = broker.catalog().create(create("a")).await.unwrap();
    let retention = || (topic.config().retention_ms(), topic.partition(0).unwrap().config().retention_ms());
    assert_eq!(retention(), (7_200_000, 7_200_000), "hours hold where nothing finer is set");
    assert_eq!(layers(&broker, "log.retention.ms"), []);
    set(&broker, Resource::AllBrokers, "log.retention.ms", "5000").await.unwrap();
    assert_eq!(retention(), (5_000, 5_000));
    set(&broker, Resource::Broker, "log.retention.ms", "6000").await.unwrap();
    let text = |name: &str, value: &str, origin| (name.to_owned(), value.to_owned(), origin);
    let expected = [
        text("log.retention.ms", "6000", Origin::Broker),
        text("log.retention.ms", "5000", Origin::AllBrokers),
        text("log.retention.hours", "2", Origin::Start),
        text("log.retention.hours", "168", Origin::Default),
    ];
    assert_eq!(layers(&broker, "log.retention.ms"), expected);
    broker.stop().await.unwrap();
    drop((topic, broker));

    let broker = open(dir.path(), &[]).await;
    let topic = broker.catalog().topic("a").unwrap();
    assert_eq!(topic.config().retention_ms(), 6_000);
    broker.change_settings(Resource::Broker, |_| Ok(Values::new())).await.unwrap();
    broker.change_settings(Resource::AllBrokers, |_| Ok(Values::new())).await.unwrap();
    assert_eq!(topic.config().retention_ms(), 604_800_000);
    assert!(broker.settings().resources().is_empty());
}

#[tokio::test]
async fn what_cannot_be_is_refused_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path(), &[("group.consumer.max.session.timeout.ms", "50000")]).await;
    let group = || Resource::Group("g".into());
    for (resource, name, value, kind) in [
        (Resource::Broker, "num.partitions", "2", Kind::InvalidRequest),
        (Resource::AllBrokers, "broker.session.timeout.ms", "2", Kind::InvalidRequest),
        (Resource::AllBrokers, "message.max.bytes", "-1", Kind::InvalidRequest),
        (Resource::Broker, "log.cleaner.max.compaction.lag.ms", "0", Kind::InvalidRequest),
        (group(), "consumer.session.timeout.ms", "50001", Kind::InvalidConfig),
        (group(), "nothing", "1", Kind::InvalidConfig),
        (Resource::ClientMetrics("m".into()), "interval.ms", "1", Kind::InvalidRequest),
    ] {
        assert_eq!(set(&broker, resource, name, value).await.unwrap_err().kind, kind, "{name}");
    }
    assert!(broker.settings().resources().is_empty());
    let long = "x".repeat(TEXT_BYTES_MAX + 1);
    assert_eq!(set(&broker, Resource::Broker, "plugin", &long).await.unwrap_err().kind, Kind::PolicyViolation);
    set(&broker, group(), "consumer.session.timeout.ms", "49000").await.unwrap();
    assert_eq!(broker.settings().group_value("g", "consumer.session.timeout.ms").as_deref(), Some("49000"));
    assert_eq!(broker.settings().group_value("h", "consumer.session.timeout.ms").as_deref(), Some("45000"));
}

#[tokio::test]
async fn a_topic_whose_settings_no_longer_fit_the_defaults_stays() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path(), &[]).await;
    let config = [("min.compaction.lag.ms".to_owned(), "100".to_owned())].into();
    let new = NewTopic { name: "a".into(), partitions: 1, config };
    broker.catalog().create(new).await.unwrap();
    set(&broker, Resource::Broker, "log.cleaner.max.compaction.lag.ms", "50").await.unwrap();
    assert_eq!(broker.catalog().topic("a").unwrap().config().max_compaction_lag_ms(), 50);
    broker.stop().await.unwrap();
    drop(broker);
    assert!(open(dir.path(), &[]).await.catalog().topic("a").is_some());
}
