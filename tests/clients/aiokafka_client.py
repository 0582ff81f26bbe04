"""aiokafka under the suite's contract; see script.py."""
import asyncio
import time

import aiokafka
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition

import script


async def produce_all(bootstrap, sends):
    sent = []
    for send in sends:
        codec = None if send["codec"] == "none" else send["codec"]
        producer = AIOKafkaProducer(bootstrap_servers=bootstrap, compression_type=codec, enable_idempotence=True, linger_ms=50)
        await producer.start()
        try:
            futures = [await producer.send(send["topic"], partition=send["partition"], key=script.unhex(r["key"]), value=script.unhex(r["value"]),
                                           headers=script.headers_in(r["headers"]), timestamp_ms=r["timestamp"]) for r in send["records"]]
            offsets = [(await asyncio.wait_for(f, script.DEADLINE_S)).offset for f in futures]
        finally:
            await producer.stop()
        sent.append({"topic": send["topic"], "partition": send["partition"], "offsets": offsets})
    return sent


async def consume_all(bootstrap, topics):
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False, auto_offset_reset="earliest", check_crcs=True)
    await consumer.start()
    try:
        partitions = [TopicPartition(t["topic"], p) for t in topics for p in range(t["partitions"])]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        records = {t["topic"]: [] for t in topics}
        wanted = sum(t["count"] for t in topics)
        deadline = time.monotonic() + script.DEADLINE_S
        while sum(map(len, records.values())) < wanted and time.monotonic() < deadline:
            for messages in (await consumer.getmany(timeout_ms=500)).values():
                for m in messages:
                    records[m.topic].append([m.partition, m.offset, m.timestamp, script.tohex(m.key), script.tohex(m.value), script.headers_out(m.headers)])
        return records
    finally:
        await consumer.stop()


class Assignments(ConsumerRebalanceListener):
    def __init__(self, consumer):
        self.consumer = consumer

    async def on_partitions_revoked(self, revoked):
        if revoked:
            await self.consumer.commit()
        script.say({"assigned": []})

    async def on_partitions_assigned(self, assigned):
        script.say({"assigned": sorted(p.partition for p in assigned)})


async def member(bootstrap, topic, name):
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, group_id=name, enable_auto_commit=False, auto_offset_reset="earliest",
                                session_timeout_ms=10000, heartbeat_interval_ms=500)
    consumer.subscribe([topic], listener=Assignments(consumer))
    await consumer.start()
    stdin = script.Stdin()
    while not stdin.asks_to_leave():
        polled = [m for messages in (await consumer.getmany(timeout_ms=100)).values() for m in messages]
        if polled:
            script.say({"records": [[m.partition, m.offset] for m in polled]})
            await consumer.commit()
    await consumer.stop()
    script.say({"left": True})


script.main(f"aiokafka {aiokafka.__version__}", lambda *a: asyncio.run(produce_all(*a)), lambda *a: asyncio.run(consume_all(*a)),
            lambda *a: asyncio.run(member(*a)))
