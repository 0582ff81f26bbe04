"""kafka-python under the suite's contract; see script.py."""
import time

import kafka
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.consumer.subscription_state import ConsumerRebalanceListener

import script


def produce(bootstrap, sends):
    sent = []
    for send in sends:
        codec = None if send["codec"] == "none" else send["codec"]
        producer = KafkaProducer(bootstrap_servers=bootstrap, compression_type=codec, acks="all", linger_ms=50)
        futures = [producer.send(send["topic"], partition=send["partition"], key=script.unhex(r["key"]), value=script.unhex(r["value"]),
                                 headers=script.headers_in(r["headers"]), timestamp_ms=r["timestamp"]) for r in send["records"]]
        producer.flush(script.DEADLINE_S)
        sent.append({"topic": send["topic"], "partition": send["partition"], "offsets": [f.get(script.DEADLINE_S).offset for f in futures]})
        producer.close()
    return sent


def consume(bootstrap, topics):
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False, auto_offset_reset="earliest", check_crcs=True)
    consumer.assign([TopicPartition(t["topic"], p) for t in topics for p in range(t["partitions"])])
    consumer.seek_to_beginning()
    records = {t["topic"]: [] for t in topics}
    wanted = sum(t["count"] for t in topics)
    deadline = time.monotonic() + script.DEADLINE_S
    while sum(map(len, records.values())) < wanted and time.monotonic() < deadline:
        for messages in consumer.poll(500).values():
            for m in messages:
                records[m.topic].append([m.partition, m.offset, m.timestamp, script.tohex(m.key), script.tohex(m.value), script.headers_out(m.headers)])
    consumer.close()
    return records


class Assignments(ConsumerRebalanceListener):
    def on_partitions_revoked(self, revoked):
        script.say({"assigned": []})

    def on_partitions_assigned(self, assigned):
        script.say({"assigned": sorted(p.partition for p in assigned)})


def group(bootstrap, topic, name):
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, group_id=name, enable_auto_commit=False, auto_offset_reset="earliest",
                             session_timeout_ms=10000, heartbeat_interval_ms=500)
    consumer.subscribe([topic], listener=Assignments())
    stdin = script.Stdin()
    while not stdin.asks_to_leave():
        polled = [m for messages in consumer.poll(100).values() for m in messages]
        if polled:
            script.say({"records": [[m.partition, m.offset] for m in polled]})
            consumer.commit()
    consumer.close()
    script.say({"left": True})


script.main(f"kafka-python {kafka.__version__}", produce, consume, group)
