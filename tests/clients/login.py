"""confluent-kafka and aiokafka with logins and certificates.

    login.py confluent|aiokafka SPEC.json

SPEC is {bootstrap, ca, user?, password?, mechanism?, cert?, key?, topic, group, values, every_ms?}. The values are written to the topic
and read back through the group; the report is {"read": [values], "throttle_ms": most that was told} or {"refused": why}.
"""
import asyncio
import io
import logging
import ssl
import sys
import time

import script


class Refused(Exception):
    pass


def confluent(spec):
    import confluent_kafka
    from confluent_kafka import Consumer, KafkaError, Producer

    refusals, throttles = [], [0]
    def failed(error):
        if error.code() in (KafkaError._AUTHENTICATION, KafkaError._SSL):
            refusals.append(error.str())
    settings = {"bootstrap.servers": spec["bootstrap"], "ssl.ca.location": spec["ca"], "error_cb": failed,
                "security.protocol": "SASL_SSL" if "user" in spec else "SSL"}
    if "user" in spec:
        settings |= {"sasl.mechanism": spec["mechanism"], "sasl.username": spec["user"], "sasl.password": spec["password"]}
    if "cert" in spec:
        settings |= {"ssl.certificate.location": spec["cert"], "ssl.key.location": spec["key"]}
    def delivered(error, _):
        if error:
            refusals.append(error.str())
    def throttled(event):
        throttles.append(int(event.throttle_time * 1000))
    producer = Producer(settings | {"message.timeout.ms": 20000, "throttle_cb": throttled, "enable.idempotence": True, "linger.ms": 0})
    for value in spec["values"]:
        producer.produce(spec["topic"], value=value, on_delivery=delivered)
        if spec.get("every_ms"):
            producer.flush(10)
            time.sleep(spec["every_ms"] / 1000)
    deadline = time.monotonic() + 30
    while len(producer) and not refusals and time.monotonic() < deadline:
        producer.poll(0.1)
    if refusals:
        raise Refused(refusals[0])
    consumer = Consumer(settings | {"group.id": spec["group"], "auto.offset.reset": "earliest", "session.timeout.ms": 10000})
    consumer.subscribe([spec["topic"]])
    read = []
    deadline = time.monotonic() + 30
    while len(read) < len(spec["values"]) and time.monotonic() < deadline:
        for message in consumer.consume(100, 0.2):
            if message.error():
                raise Refused(message.error().str())
            read.append(message.value().decode())
        if refusals:
            raise Refused(refusals[0])
    consumer.close()
    return {"read": read, "throttle_ms": max(throttles), "client": f"confluent-kafka {confluent_kafka.__version__}"}


async def aiokafka(spec):
    import aiokafka
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

    context = ssl.create_default_context(cafile=spec["ca"])
    if "cert" in spec:
        context.load_cert_chain(spec["cert"], spec["key"])
    settings = {"bootstrap_servers": spec["bootstrap"], "ssl_context": context, "security_protocol": "SASL_SSL" if "user" in spec else "SSL"}
    if "user" in spec:
        settings |= {"sasl_mechanism": spec["mechanism"], "sasl_plain_username": spec["user"], "sasl_plain_password": spec["password"]}
    # at its first connection it raises "unable to bootstrap" and says why in its log only
    said = io.StringIO()
    logging.getLogger("aiokafka").addHandler(logging.StreamHandler(said))
    producer = AIOKafkaProducer(**settings, enable_idempotence=True)
    try:
        await producer.start()
        for value in spec["values"]:
            await asyncio.wait_for(producer.send_and_wait(spec["topic"], value.encode()), 20)
    except Exception as error:
        raise Refused(f"{type(error).__name__}: {error}: {said.getvalue()}") from error
    finally:
        await producer.stop()
    consumer = AIOKafkaConsumer(spec["topic"], **settings, group_id=spec["group"], auto_offset_reset="earliest", session_timeout_ms=10000)
    read = []
    try:
        await consumer.start()
        deadline = time.monotonic() + 30
        while len(read) < len(spec["values"]) and time.monotonic() < deadline:
            for messages in (await consumer.getmany(timeout_ms=200)).values():
                read += [message.value.decode() for message in messages]
    finally:
        await consumer.stop()
    return {"read": read, "throttle_ms": 0, "client": f"aiokafka {aiokafka.__version__}"}


def main():
    name, spec = sys.argv[1], script.load(sys.argv[2])
    try:
        script.say(confluent(spec) if name == "confluent" else asyncio.run(aiokafka(spec)))
    except Refused as refused:
        script.say({"refused": str(refused)})


main()
