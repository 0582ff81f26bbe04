"""Events in Protobuf, through confluent-kafka's serializer, and in CSV, by Python's own writer.

    formats.py write BOOTSTRAP REGISTRY FIRST COUNT   COUNT events from number FIRST to each topic; from number 60 on every other one,
                                                      from 120 on all have the schema's second version, in which fields were added
    formats.py raw   BOOTSTRAP REGISTRY               values that no serializer wrote
    formats.py plain BOOTSTRAP SCHEMA   FIRST COUNT   as write, without a registry: Protobuf's own bytes, and Avro of this schema by fastavro
    formats.py framed BOOTSTRAP -                     to the same topics a value each that begins as a registry's serializer does
    formats.py lake  LAKE_DIR -         COUNT         what the Parquet files hold, against the events 0 to COUNT

The report is one JSON object on stdout.
"""
import csv
import datetime
import decimal
import io
import json
import sys

from confluent_kafka import Producer
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2, wrappers_pb2

DEADLINE_S = 60
PARTITIONS = 2
BASE_MS = 1_795_168_800_000
LEVELS = ["INFO", "WARN", "ERROR"]
TEXTS = ["plain", 'with "quotes"', "pipe|inside", "", "two\nlines"]
F = descriptor_pb2.FieldDescriptorProto


def log_class(version):
    """The message Log as protoc would compile it, in a pool of its own."""
    file = descriptor_pb2.FileDescriptorProto(name="log.proto", package="org.example", syntax="proto3",
                                              dependency=["google/protobuf/timestamp.proto", "google/protobuf/wrappers.proto"])
    log = file.message_type.add(name="Log")

    def field(message, name, number, kind, type_name=None, label=F.LABEL_OPTIONAL, **more):
        message.field.add(name=name, number=number, type=kind, type_name=type_name, label=label, **more)

    labels = log.nested_type.add(name="LabelsEntry")
    labels.options.map_entry = True
    field(labels, "key", 1, F.TYPE_STRING)
    field(labels, "value", 2, F.TYPE_INT64)
    place = log.nested_type.add(name="Place")
    field(place, "city", 1, F.TYPE_STRING)
    field(log, "id", 1, F.TYPE_INT64)
    field(log, "level", 2, F.TYPE_ENUM, ".org.example.Level")
    field(log, "tags", 3, F.TYPE_STRING, label=F.LABEL_REPEATED)
    field(log, "labels", 4, F.TYPE_MESSAGE, ".org.example.Log.LabelsEntry", F.LABEL_REPEATED)
    field(log, "place", 5, F.TYPE_MESSAGE, ".org.example.Log.Place")
    field(log, "retries", 6, F.TYPE_INT32)
    field(log, "price", 7, F.TYPE_MESSAGE, ".google.protobuf.DoubleValue")
    field(log, "at", 8, F.TYPE_MESSAGE, ".google.protobuf.Timestamp")
    if version == 2:
        log.oneof_decl.add(name="_team")
        field(log, "team", 9, F.TYPE_STRING, proto3_optional=True, oneof_index=0)
        field(log, "shard", 10, F.TYPE_UINT32)
    levels = file.enum_type.add(name="Level")
    for number, name in enumerate(LEVELS):
        levels.value.add(name=name, number=number)
    pool = descriptor_pool.DescriptorPool()
    for known in [timestamp_pb2, wrappers_pb2]:
        pool.AddSerializedFile(known.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("org.example.Log"))


def version_of(number):
    return 2 if number >= 60 and (number % 2 or number >= 120) else 1


def event(number):
    """What a row of the stream must be."""
    second = version_of(number) == 2
    return {"id": number, "level": LEVELS[number % 3], "tags": [] if number % 5 == 0 else [f"t{number % 2}", "all"],
            "labels": json.dumps({"b": number, "z": 0}, separators=(",", ":")) if number % 4 else "{}",
            "city": None if number % 6 == 0 else ["", "Bern"][number % 2], "retries": number % 4,
            "price": None if number % 5 == 0 else number / 4, "team": f"team {number % 3}" if second and number % 3 else None,
            "shard": 0 if second else None, "at": BASE_MS + number * 1001}


def message(made, number):
    row = event(number)
    log = made(id=number, level=LEVELS.index(row["level"]), tags=row["tags"], retries=row["retries"], team=row["team"]) \
        if version_of(number) == 2 else made(id=number, level=LEVELS.index(row["level"]), tags=row["tags"], retries=row["retries"])
    if number % 4:
        log.labels["z"] = 0
        log.labels["b"] = number
    if row["city"] is not None:
        log.place.city = row["city"]
        log.place.SetInParent()
    if row["price"] is not None:
        log.price.value = row["price"]
        log.price.SetInParent()
    log.at.FromMilliseconds(row["at"])
    return log


def line(number):
    return {"id": number, "note": TEXTS[number % 5], "price": None if number % 7 == 0 else f"{number / 100:.2f}", "at": BASE_MS + number * 1001}


def written(row):
    at = datetime.datetime.fromtimestamp(row["at"] / 1000, datetime.timezone.utc).isoformat(timespec="milliseconds")
    out = io.StringIO()
    csv.writer(out, delimiter="|").writerow([row["id"], row["note"], "\\N" if row["price"] is None else row["price"], at])
    return out.getvalue()


def send(bootstrap, numbers, values):
    """The values of each number to their topics."""
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 20})
    failed = []
    for number in numbers:
        for topic, value in values(number):
            producer.produce(topic, key=str(number), value=value, partition=number % PARTITIONS, timestamp=BASE_MS + number * 1001,
                             on_delivery=lambda error, _: error and failed.append(str(error)))
        producer.poll(0)
    if producer.flush(DEADLINE_S) or failed:
        raise SystemExit(f"not all delivered: {failed[:3]}")


def write(bootstrap, registry, first, count):
    client = SchemaRegistryClient({"url": registry})
    made = {version: log_class(version) for version in (1, 2)}
    serializers = {version: ProtobufSerializer(made[version], client, {"use.deprecated.format": False}) for version in made}

    def values(number):
        version = version_of(number)
        log = serializers[version](message(made[version], number), SerializationContext("logs", MessageField.VALUE))
        return [("logs", log), ("lines", written(line(number)).encode())]

    send(bootstrap, range(first, first + count), values)
    return {"versions": client.get_versions("logs-value"), "type": client.get_latest_version("logs-value").schema.schema_type}


def reading(number):
    return {"id": number, "kind": LEVELS[number % 3], "price": None if number % 7 == 0 else decimal.Decimal(number) / 100,
            "place": None if number % 4 == 0 else {"city": "Bern"}, "tags": [f"t{number % 2}"] * (number % 3),
            "at": datetime.datetime.fromtimestamp((BASE_MS + number * 1001) / 1000, datetime.timezone.utc)}


def plain(bootstrap, schema, first, count):
    import fastavro

    made = {version: log_class(version) for version in (1, 2)}
    parsed = fastavro.parse_schema(json.loads(schema))

    def values(number):
        avro = io.BytesIO()
        fastavro.schemaless_writer(avro, parsed, reading(number))
        return [("logs", message(made[version_of(number)], number).SerializeToString()), ("readings", avro.getvalue())]

    send(bootstrap, range(first, first + count), values)
    return {"sent": count}


def raw(bootstrap, registry):
    schema_id = SchemaRegistryClient({"url": registry}).get_latest_version("logs-value").schema_id
    prefix = b"\0" + schema_id.to_bytes(4, "big")
    bad = {"logs": [b'{"id": 1}', prefix + b"\x01\x00", prefix + b"\x00\x08", b"\0\0\0\xff\xff\0"],
           "lines": [b"1|a", b"x|a|1.00|2026-11-20T10:00:00Z", b'1|"a|1.00|2026-11-20T10:00:00Z']}
    producer = Producer({"bootstrap.servers": bootstrap})
    for topic, values in bad.items():
        for value in values:
            producer.produce(topic, value=value, partition=0, timestamp=BASE_MS)
    producer.flush(DEADLINE_S)
    return {topic: len(values) for topic, values in bad.items()}


def framed(bootstrap):
    producer = Producer({"bootstrap.servers": bootstrap})
    for topic in ["logs", "readings"]:
        producer.produce(topic, value=b"\0\0\0\0\x07\0\x10\x01", partition=0, timestamp=BASE_MS)
    return {"left": producer.flush(DEADLINE_S)}


def lake(folder, count):
    import duckdb

    mistakes, counts = [], {}
    for topic, wanted in [("logs", event), ("lines", line)]:
        names = list(wanted(0))
        columns = [{"at": 'epoch_ms("at")', "price": '"price"' if topic == "logs" else 'CAST("price" AS VARCHAR)'}.get(name, f'"{name}"')
                   for name in names]
        rows = duckdb.sql(f"SELECT {', '.join(columns)} FROM read_parquet('{folder}/{topic}/**/*.parquet') ORDER BY id").fetchall()
        counts[topic] = len(rows)
        for number, row in enumerate(rows):
            if dict(zip(names, row)) != wanted(number):
                mistakes.append(f"{topic} {number}: {row}, wanted {wanted(number)}")
        if len(rows) != count:
            mistakes.append(f"{topic}: {len(rows)} rows")
    return {"mistakes": mistakes[:20], **counts}


def main():
    mode, place, registry, *rest = sys.argv[1:]
    numbers = [int(number) for number in rest]
    report = {"write": lambda: write(place, registry, *numbers), "raw": lambda: raw(place, registry),
              "plain": lambda: plain(place, registry, *numbers), "framed": lambda: framed(place),
              "lake": lambda: lake(place, *numbers)}[mode]()
    print(json.dumps(report))


main()
