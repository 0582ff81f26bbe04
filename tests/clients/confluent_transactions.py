"""Transactions through librdkafka, as an application writes them.

    confluent_transactions.py BOOTSTRAP IN OUT

Reads all of IN (numbers as text) in a group, and writes their squares to OUT in transactions together with the offsets; each third
transaction is aborted and done again. Then a second producer takes over the transactional id. The report is one JSON object.
"""
import json
import sys

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicPartition

ID = "confluent-squares"


def producer(bootstrap):
    made = Producer({"bootstrap.servers": bootstrap, "transactional.id": ID, "transaction.timeout.ms": 30000})
    made.init_transactions(30)
    return made


def read(bootstrap, topic, isolation):
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": f"read-{isolation}", "enable.auto.commit": False,
                         "isolation.level": isolation, "enable.partition.eof": True, "check.crcs": True})
    consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    values = []
    while True:
        message = consumer.poll(20)
        if message is None:
            raise SystemExit(f"{topic} did not end")
        if message.error():
            if message.error().code() == KafkaError._PARTITION_EOF:
                consumer.close()
                return values
            raise SystemExit(str(message.error()))
        values.append(message.value().decode())


def main():
    bootstrap, source, target = sys.argv[1:]
    numbers = [str(n) for n in range(90)]
    plain = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True})
    for number in numbers:
        plain.produce(source, partition=0, value=number)
    plain.flush(30)

    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "squares", "enable.auto.commit": False,
                         "auto.offset.reset": "earliest", "isolation.level": "read_committed"})
    consumer.subscribe([source])
    writer = producer(bootstrap)
    taken, tries, aborts = [], 0, 0
    while len(taken) < len(numbers):
        messages = [m for m in consumer.consume(10, 20) if not m.error()]
        if not messages:
            raise SystemExit(f"only {len(taken)} of {len(numbers)} numbers came")
        again = True
        while again:
            tries += 1
            again = tries % 3 == 0
            writer.begin_transaction()
            for message in messages:
                writer.produce(target, partition=0, value=str(int(message.value()) ** 2))
            writer.send_offsets_to_transaction(consumer.position(consumer.assignment()), consumer.consumer_group_metadata(), 30)
            if again:
                writer.flush(30)
                writer.abort_transaction(30)
                aborts += 1
            else:
                writer.commit_transaction(30)
        taken += [m.value().decode() for m in messages]
    stood = consumer.committed([TopicPartition(source, 0)], 20)[0].offset
    consumer.close()

    # the old producer is in the middle of a transaction when another one takes over
    writer.begin_transaction()
    writer.produce(target, partition=0, value="from the old one")
    writer.flush(30)
    successor = producer(bootstrap)
    fenced = None
    try:
        writer.commit_transaction(30)
    except KafkaException as error:
        fenced = error.args[0].name()
    successor.begin_transaction()
    successor.produce(target, partition=0, value="from the new one")
    successor.commit_transaction(30)

    print(json.dumps({"aborts": aborts, "committed_offset": stood, "fenced": fenced, "taken": taken == numbers,
                      "read_committed": read(bootstrap, target, "read_committed"),
                      "read_uncommitted": len(read(bootstrap, target, "read_uncommitted"))}))


main()
