"""Opens a transaction, says `open`, and leaves it open until stdin says so or ends.

    open_transaction.py BOOTSTRAP TOPIC
"""
import sys

from confluent_kafka import Producer

bootstrap, topic = sys.argv[1:]
producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": "holder", "transaction.timeout.ms": 600000})
producer.init_transactions(30)
producer.begin_transaction()
producer.produce(topic, partition=0, value="undecided")
producer.flush(30)
print("open", flush=True)
sys.stdin.readline()
