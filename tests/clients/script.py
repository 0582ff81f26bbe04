"""What the Python clients share: how they are called and how they report.

    <client>.py produce|consume BOOTSTRAP PLAN.json
    <client>.py group BOOTSTRAP TOPIC GROUP

A plan for produce is {"sends": [{topic, partition, codec, records: [{key, value, headers, timestamp}]}]}, for consume
{"topics": [{topic, partitions, count}]}; keys and values are hex or null. The report is one JSON object on stdout:
{"client", "sent": [{topic, partition, offsets}]} or {"client", "records": {topic: [[partition, offset, timestamp, key, value,
headers]]}}. A group member prints one JSON object per line ({"assigned": [...]}, {"records": [[partition, offset]]}, {"left":
true}) and leaves, having committed, when its stdin says so or ends.
"""
import json
import os
import select
import sys

DEADLINE_S = 60


def unhex(text):
    return None if text is None else bytes.fromhex(text)


def tohex(data):
    return None if data is None else bytes(data).hex()


def headers_in(headers):
    return [(name, unhex(value)) for name, value in headers]


def headers_out(headers):
    return [[name, tohex(value)] for name, value in (headers or [])]


def load(path):
    with open(path) as file:
        return json.load(file)


def say(event):
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


class Stdin:
    """True once the test says `leave` or closes our stdin; never blocks."""

    def __init__(self):
        self.text = b""

    def asks_to_leave(self):
        while select.select([0], [], [], 0)[0]:
            data = os.read(0, 4096)
            self.text += data
            if not data:
                return True
        return b"leave" in self.text


def main(name, produce, consume, group):
    mode, bootstrap = sys.argv[1:3]
    if mode == "produce":
        say({"client": name, "sent": produce(bootstrap, load(sys.argv[3])["sends"])})
    elif mode == "consume":
        say({"client": name, "records": consume(bootstrap, load(sys.argv[3])["topics"])})
    elif mode == "group":
        group(bootstrap, sys.argv[3], sys.argv[4])
    else:
        sys.exit(f"unknown mode {mode}")
