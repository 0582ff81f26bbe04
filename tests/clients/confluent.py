"""confluent-kafka (librdkafka) under the suite's contract; see script.py."""
import os
import time

import confluent_kafka
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition

import script


def produce(bootstrap, sends):
    sent = []
    for send in sends:
        producer = Producer({"bootstrap.servers": bootstrap, "compression.type": send["codec"], "enable.idempotence": True, "linger.ms": 50})
        offsets = [None] * len(send["records"])

        def note(index):
            def delivered(error, message):
                if error:
                    raise SystemExit(f"not delivered: {error}")
                offsets[index] = message.offset()
            return delivered

        for index, record in enumerate(send["records"]):
            producer.produce(send["topic"], partition=send["partition"], key=script.unhex(record["key"]), value=script.unhex(record["value"]),
                             headers=script.headers_in(record["headers"]), timestamp=record["timestamp"], on_delivery=note(index))
        if producer.flush(script.DEADLINE_S):
            raise SystemExit("not all delivered in time")
        sent.append({"topic": send["topic"], "partition": send["partition"], "offsets": offsets})
    return sent


def consume(bootstrap, topics):
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": f"confluent-{time.time_ns()}", "enable.auto.commit": False,
                         "check.crcs": True})
    consumer.assign([TopicPartition(t["topic"], p, OFFSET_BEGINNING) for t in topics for p in range(t["partitions"])])
    records = {t["topic"]: [] for t in topics}
    wanted = sum(t["count"] for t in topics)
    deadline = time.monotonic() + script.DEADLINE_S
    while sum(map(len, records.values())) < wanted and time.monotonic() < deadline:
        for m in consumer.consume(500, 0.5):
            if m.error():
                raise SystemExit(str(m.error()))
            records[m.topic()].append([m.partition(), m.offset(), m.timestamp()[1], script.tohex(m.key()), script.tohex(m.value()),
                                       script.headers_out(m.headers())])
    consumer.close()
    return records


def group(bootstrap, topic, name):
    settings = {"bootstrap.servers": bootstrap, "group.id": name, "enable.auto.commit": False, "auto.offset.reset": "earliest"}
    protocol = os.environ.get("MEMBER_PROTOCOL", "classic")
    if protocol == "consumer":
        settings["group.protocol"] = "consumer"
    else:
        settings |= {"session.timeout.ms": 10000, "heartbeat.interval.ms": 500}
    if protocol == "cooperative":
        settings["partition.assignment.strategy"] = "cooperative-sticky"
    if "MEMBER_INSTANCE" in os.environ:
        settings["group.instance.id"] = os.environ["MEMBER_INSTANCE"]
    consumer = Consumer(settings)
    own = set()
    def assigned(_, partitions):
        own.update(p.partition for p in partitions)
        script.say({"assigned": sorted(own)})
    def revoked(consumer, partitions):
        try:
            consumer.commit(asynchronous=False)
        except confluent_kafka.KafkaException as error:
            if error.args[0].code() != confluent_kafka.KafkaError._NO_OFFSET:
                raise
        own.difference_update(p.partition for p in partitions)
        script.say({"assigned": sorted(own)})
    consumer.subscribe([topic], on_assign=assigned, on_revoke=revoked)
    stdin = script.Stdin()
    while not stdin.asks_to_leave():
        messages = consumer.consume(200, 0.1)
        for m in messages:
            if m.error():
                raise SystemExit(str(m.error()))
        if messages:
            script.say({"records": [[m.partition(), m.offset()] for m in messages]})
            consumer.commit(asynchronous=False)
    consumer.close()
    script.say({"left": True})


script.main(f"confluent-kafka {confluent_kafka.__version__}", produce, consume, group)
