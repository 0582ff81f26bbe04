//! Names of settings that Kafka's brokers read at start and that have no meaning here: they are of replicas, of a controller quorum,
//! of a second tier, or of parts of Kafka that this broker does not have. They are known so that they are not called unknown.

/// The names, sorted.
#[rustfmt::skip]
static NAMES: &[&str] = &[
    "add.partitions.to.txn.retry.backoff.max.ms", "add.partitions.to.txn.retry.backoff.ms",
    "alter.config.policy.class.name", "alter.log.dirs.replication.quota.window.num",
    "alter.log.dirs.replication.quota.window.size.seconds", "broker.heartbeat.interval.ms",
    "broker.session.timeout.ms", "client.quota.callback.class", "controller.quorum.append.linger.ms",
    "controller.quorum.auto.join.enable", "controller.quorum.bootstrap.servers",
    "controller.quorum.election.backoff.max.ms", "controller.quorum.election.timeout.ms",
    "controller.quorum.fetch.max.bytes", "controller.quorum.fetch.snapshot.max.bytes",
    "controller.quorum.fetch.timeout.ms", "controller.quorum.request.timeout.ms",
    "controller.quorum.retry.backoff.ms", "controller.quorum.voters", "controller.quota.window.num",
    "controller.quota.window.size.seconds", "controller.socket.timeout.ms", "create.topic.policy.class.name",
    "delegation.token.expiry.check.interval.ms", "delegation.token.expiry.time.ms",
    "delegation.token.max.lifetime.ms", "delegation.token.secret.key",
    "delete.records.purgatory.purge.interval.requests", "early.start.listeners",
    "fetch.purgatory.purge.interval.requests", "group.coordinator.background.threads", "group.share.assignors",
    "group.share.delivery.count.limit", "group.share.heartbeat.interval.ms", "group.share.max.assignment.interval.ms",
    "group.share.max.delivery.count.limit", "group.share.max.heartbeat.interval.ms",
    "group.share.max.partition.max.record.locks", "group.share.max.record.lock.duration.ms",
    "group.share.max.session.timeout.ms", "group.share.max.share.sessions", "group.share.max.size",
    "group.share.min.assignment.interval.ms", "group.share.min.delivery.count.limit",
    "group.share.min.heartbeat.interval.ms", "group.share.min.partition.max.record.locks",
    "group.share.min.record.lock.duration.ms", "group.share.min.session.timeout.ms",
    "group.share.partition.max.record.locks", "group.share.record.lock.duration.ms", "group.share.session.timeout.ms",
    "group.streams.heartbeat.interval.ms", "group.streams.initial.rebalance.delay.ms",
    "group.streams.max.assignment.interval.ms", "group.streams.max.heartbeat.interval.ms",
    "group.streams.max.session.timeout.ms", "group.streams.max.size", "group.streams.max.standby.replicas",
    "group.streams.min.assignment.interval.ms", "group.streams.min.heartbeat.interval.ms",
    "group.streams.min.session.timeout.ms", "group.streams.num.standby.replicas", "group.streams.session.timeout.ms",
    "initial.broker.registration.timeout.ms", "inter.broker.listener.name", "kafka.metrics.polling.interval.secs",
    "kafka.metrics.reporters", "leader.imbalance.check.interval.seconds", "log.dir.failure.timeout.ms",
    "log.flush.offset.checkpoint.interval.ms", "log.flush.start.offset.checkpoint.interval.ms", "metadata.log.dir",
    "metadata.log.max.record.bytes.between.snapshots", "metadata.log.max.snapshot.interval.ms",
    "metadata.log.segment.bytes", "metadata.log.segment.ms", "metadata.max.idle.interval.ms",
    "metadata.max.retention.bytes", "metadata.max.retention.ms", "metrics.num.samples", "metrics.recording.level",
    "metrics.sample.window.ms", "num.replica.alter.log.dirs.threads", "offsets.commit.timeout.ms",
    "offsets.load.buffer.size", "offsets.topic.compression.codec", "offsets.topic.segment.bytes",
    "producer.purgatory.purge.interval.requests", "queued.max.requests", "quota.window.num",
    "quota.window.size.seconds", "remote.log.manager.copy.quota.window.num",
    "remote.log.manager.copy.quota.window.size.seconds", "remote.log.manager.fetch.quota.window.num",
    "remote.log.manager.fetch.quota.window.size.seconds", "remote.log.manager.task.interval.ms",
    "remote.log.manager.thread.pool.size", "remote.log.metadata.custom.metadata.max.bytes",
    "remote.log.metadata.manager.class.name", "remote.log.metadata.manager.class.path",
    "remote.log.metadata.manager.impl.prefix", "remote.log.metadata.manager.listener.name",
    "remote.log.reader.max.pending.tasks", "remote.log.storage.manager.class.name",
    "remote.log.storage.manager.class.path", "remote.log.storage.manager.impl.prefix",
    "remote.log.storage.system.enable", "replica.fetch.backoff.ms", "replica.fetch.max.bytes",
    "replica.fetch.min.bytes", "replica.fetch.response.max.bytes", "replica.fetch.wait.max.ms",
    "replica.high.watermark.checkpoint.interval.ms", "replica.selector.class", "replica.socket.receive.buffer.bytes",
    "replica.socket.timeout.ms", "replication.quota.window.num", "replication.quota.window.size.seconds",
    "request.timeout.ms", "share.coordinator.append.linger.ms", "share.coordinator.load.buffer.size",
    "share.coordinator.snapshot.update.records.per.snapshot", "share.coordinator.state.topic.compression.codec",
    "share.coordinator.state.topic.min.isr", "share.coordinator.state.topic.num.partitions",
    "share.coordinator.state.topic.replication.factor", "share.coordinator.state.topic.segment.bytes",
    "share.coordinator.threads", "share.coordinator.write.timeout.ms",
    "share.fetch.purgatory.purge.interval.requests", "socket.connection.setup.timeout.max.ms",
    "socket.connection.setup.timeout.ms", "socket.listen.backlog.size", "socket.receive.buffer.bytes",
    "socket.send.buffer.bytes", "telemetry.max.bytes", "transaction.state.log.load.buffer.size",
    "transaction.state.log.segment.bytes", "transaction.two.phase.commit.enable",
];

/// Whether Kafka has such a setting, for what is not here.
pub fn is_without_use(name: &str) -> bool {
    NAMES.binary_search(&name).is_ok()
}

#[test]
fn names_are_sorted() {
    assert!(NAMES.windows(2).all(|pair| pair[0] < pair[1]));
    assert!(is_without_use("broker.session.timeout.ms") && !is_without_use("num.partitions"));
}
