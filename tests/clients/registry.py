"""confluent-kafka's serializers against the schema registry.

    registry.py write BOOTSTRAP REGISTRY VERSION FIRST COUNT   COUNT events from number FIRST, in Avro, JSON Schema and Protobuf;
                                                               those in Avro with schema VERSION (1 or 2), or turn by turn (0)
    registry.py raw   BOOTSTRAP REGISTRY                       three values that no serializer wrote, to the Avro topic
    registry.py refuse BOOTSTRAP REGISTRY                      changes that do not fit, each with how it is refused
    registry.py login -         REGISTRY NAME:TOKEN            what a client may that logs in by basic.auth.user.info
    registry.py read  BOOTSTRAP REGISTRY COUNT                 COUNT events of each topic through the deserializers

The report is one JSON object on stdout.
"""
import json
import sys
import time

from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.error import SchemaRegistryError
from confluent_kafka.schema_registry.json_schema import JSONDeserializer, JSONSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer, ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

DEADLINE_S = 60
PARTITIONS = 2
BASE_MS = 1_795_168_800_000
KINDS = ["play", "like", "share"]


def avro_schema(version):
    fields = [
        {"name": "id", "type": "long"},
        {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": KINDS}},
        {"name": "price", "type": ["null", {"type": "bytes", "logicalType": "decimal", "precision": 10, "scale": 2}], "default": None},
        {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    ]
    if version == 2:
        fields.insert(1, {"name": "team", "type": ["null", "string"], "default": None})
    return json.dumps({"type": "record", "name": "Event", "namespace": "org.example", "fields": fields})


JSON_SCHEMA = json.dumps({
    "$schema": "http://json-schema.org/draft-07/schema#", "title": "Metric", "type": "object", "additionalProperties": False,
    "properties": {"id": {"type": "integer"}, "kind": {"type": "string"}, "ts": {"type": "integer"}}, "required": ["id", "ts"],
})


def proto_class():
    """A message with a nested type, an enum, a map and a well-known import, as protoc would compile it."""
    F = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="log.proto", package="org.example", syntax="proto3",
                                              dependency=["google/protobuf/timestamp.proto"])
    message = file.message_type.add(name="Log")
    message.field.add(name="id", number=1, type=F.TYPE_INT64, label=F.LABEL_OPTIONAL)
    message.field.add(name="kind", number=2, type=F.TYPE_STRING, label=F.LABEL_OPTIONAL)
    message.field.add(name="tags", number=3, type=F.TYPE_STRING, label=F.LABEL_REPEATED)
    message.field.add(name="at", number=4, type=F.TYPE_MESSAGE, type_name=".google.protobuf.Timestamp", label=F.LABEL_OPTIONAL)
    message.nested_type.add(name="Inner").field.add(name="x", number=1, type=F.TYPE_DOUBLE, label=F.LABEL_OPTIONAL)
    message.field.add(name="inner", number=5, type=F.TYPE_MESSAGE, type_name=".org.example.Log.Inner", label=F.LABEL_OPTIONAL)
    from google.protobuf import timestamp_pb2
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("org.example.Log")), timestamp_pb2


def event(number, version):
    import datetime
    import decimal
    made = {"id": number, "kind": KINDS[number % 3], "price": None if number % 5 == 0 else decimal.Decimal(number).scaleb(-2),
            "ts": datetime.datetime.fromtimestamp((BASE_MS + number * 1000) / 1000, datetime.timezone.utc)}
    if version == 2 and number % 4:
        made["team"] = f"team {number % 4}"
    return made


def write(bootstrap, registry, version, first, count):
    client = SchemaRegistryClient({"url": registry})
    avro = {v: AvroSerializer(client, avro_schema(v)) for v in ([1, 2] if version == 0 else [version])}
    as_json = JSONSerializer(JSON_SCHEMA, client)
    Log, _ = proto_class()
    as_proto = ProtobufSerializer(Log, client, {"use.deprecated.format": False})
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 20})
    failed = []
    for number in range(first, first + count):
        v = version or 1 + number % 2
        log = Log(id=number, kind=KINDS[number % 3], tags=["a", "b"])
        log.at.FromMilliseconds(BASE_MS + number)
        log.inner.x = number / 2
        metric = {"id": number, "kind": KINDS[number % 3], "ts": BASE_MS + number * 1000}
        values = [("events", avro[v], event(number, v)), ("metrics", as_json, metric), ("logs", as_proto, log)]
        for topic, serializer, value in values:
            data = serializer(value, SerializationContext(topic, MessageField.VALUE))
            producer.produce(topic, key=str(number), value=data, partition=number % PARTITIONS, timestamp=BASE_MS + number * 1000,
                             on_delivery=lambda error, _: error and failed.append(str(error)))
        producer.poll(0)
    if producer.flush(DEADLINE_S) or failed:
        raise SystemExit(f"not all delivered: {failed[:3]}")
    return {"subjects": sorted(client.get_subjects()), "versions": client.get_versions("events-value"),
            "id": client.get_latest_version("events-value").schema_id}


def raw(bootstrap):
    producer = Producer({"bootstrap.servers": bootstrap})
    for value in [b'{"id": 1}', b"\x00\x00\x00\xff\xff\x02", b"\x00\x00\x00\x00\x01\x02"]:
        producer.produce("events", value=value, partition=0, timestamp=BASE_MS)
    producer.flush(DEADLINE_S)
    return {}


def refuse(registry):
    client = SchemaRegistryClient({"url": registry})
    fields = json.loads(avro_schema(1))["fields"]
    changed = {
        "required field": fields + [{"name": "must", "type": "string"}],
        "other type": [dict(field, type="string") if field["name"] == "id" else field for field in fields],
        "not a schema": [{"name": "id"}],
    }
    found = {}
    for name, fields in changed.items():
        schema = Schema(json.dumps({"type": "record", "name": "Event", "namespace": "org.example", "fields": fields}), "AVRO")
        try:
            if name != "not a schema":
                found[name + " fits"] = client.test_compatibility("events-value", schema)
            client.register_schema("events-value", schema)
            found[name] = None
        except SchemaRegistryError as error:
            found[name] = [error.http_status_code, error.error_code]
    try:
        client.register_schema("events-value", Schema(JSON_SCHEMA, "JSON"))
    except SchemaRegistryError as error:
        found["other language"] = [error.http_status_code, error.error_code]
    try:
        client.get_latest_version("absent-value")
    except SchemaRegistryError as error:
        found["absent"] = [error.http_status_code, error.error_code]
    found["level"] = client.get_compatibility()
    return found


def read(bootstrap, registry, count):
    client = SchemaRegistryClient({"url": registry})
    Log, _ = proto_class()
    readers = {
        "events": AvroDeserializer(client),
        "metrics": JSONDeserializer(None, schema_registry_client=client),
        "logs": ProtobufDeserializer(Log, {"use.deprecated.format": False}, client),
    }
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": f"registry-{time.time_ns()}", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for topic in readers for p in range(PARTITIONS)])
    seen, unreadable = {topic: {} for topic in readers}, 0
    deadline = time.monotonic() + DEADLINE_S
    while any(len(values) < count for values in seen.values()) and time.monotonic() < deadline:
        for message in consumer.consume(500, 0.5):
            if message.error():
                raise SystemExit(str(message.error()))
            topic = message.topic()
            try:
                value = readers[topic](message.value(), SerializationContext(topic, MessageField.VALUE))
            except Exception:
                unreadable += 1
                continue
            if topic == "events" and "id" not in value:
                unreadable += 1  # of another schema
                continue
            if topic == "logs":
                value = {"id": value.id, "kind": value.kind, "at": value.at.ToMilliseconds(), "x": value.inner.x, "tags": list(value.tags)}
            seen[topic][value["id"]] = value
    mistakes = []
    for number in range(count):
        found = seen["events"].get(number)
        without = {name: found and found.get(name) for name in ["id", "kind", "price", "ts"]}
        if without != event(number, 1):
            mistakes.append(f"events {number}: {found}")
        if seen["metrics"].get(number) != {"id": number, "kind": KINDS[number % 3], "ts": BASE_MS + number * 1000}:
            mistakes.append(f"metrics {number}: {seen['metrics'].get(number)}")
        log = {"id": number, "kind": KINDS[number % 3], "at": BASE_MS + number, "x": number / 2, "tags": ["a", "b"]}
        if seen["logs"].get(number) != log:
            mistakes.append(f"logs {number}: {seen['logs'].get(number)}")
    teams = sum(1 for value in seen["events"].values() if value.get("team"))
    return {"mistakes": mistakes[:20], "unreadable": unreadable, "teams": teams, "events": len(seen["events"])}


def login(registry, pair):
    client = SchemaRegistryClient({"url": registry, "basic.auth.user.info": pair, "max.retries": 0})

    def outcome(work):
        try:
            return work()
        except SchemaRegistryError as error:
            return error.http_status_code

    def register():
        client.register_schema("orders-value", Schema('"string"', "AVRO"))
        return 200

    registered = outcome(register)
    return {"subjects": outcome(client.get_subjects), "registered": registered}


def main():
    mode, bootstrap, registry, *rest = sys.argv[1:]
    numbers = [int(number) for number in rest if mode != "login"]
    report = {"write": lambda: write(bootstrap, registry, *numbers), "raw": lambda: raw(bootstrap), "refuse": lambda: refuse(registry),
              "login": lambda: login(registry, *rest), "read": lambda: read(bootstrap, registry, *numbers)}[mode]()
    print(json.dumps(report, default=str))


main()
