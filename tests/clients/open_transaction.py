"""Opens a transaction, says `open`, and leaves it open until stdin says `commit`, something else, or ends.

    open_transaction.py BOOTSTRAP TOPIC
"""
import sys

from confluent_kafka import Producer

bootstrap, topic = sys.argv[1:]
producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": "holder", "transaction.timeout.ms": 600000})
producer.init_transactions(30)
producer.begin_transaction()
producer.produce(topic, partition=0, value='{"n": 1, "ts": "2026-11-20T08:00:00Z"}')
producer.flush(30)
print("open", flush=True)
if sys.stdin.readline().strip() == "commit":
    producer.commit_transaction(30)
    print("committed", flush=True)
