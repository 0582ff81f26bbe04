"""The log of a topic as an independent witness reads it, and what of it a declared stream must accept.

Nothing here comes from Millpond: records are read with librdkafka, rows are decided by the rules below, written from the
declaration of the stream (`system.toml`) and not from the engine.
"""
import datetime
import io
import json
import os
import re
import time
import tomllib
import urllib.error
import urllib.request

import duckdb
import fastavro
import pyarrow
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

# How long a topic may give nothing before its end.
PATIENCE_S = 30
UNITS_MS = {"SECOND": 1000, "MINUTE": 60_000, "HOUR": 3_600_000, "DAY": 86_400_000}


def dump(bootstrap, topic):
    """Every record of a topic up to where it ends now: [(partition, offset, timestamp, key, value, headers)]."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "oracle", "enable.auto.commit": False, "check.crcs": True,
                         "isolation.level": "read_uncommitted"})
    partitions = consumer.list_topics(topic, 10).topics[topic].partitions
    ends = {p: consumer.get_watermark_offsets(TopicPartition(topic, p), 10) for p in partitions}
    consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p, (low, high) in ends.items() if high > low])
    records, left = [], {p: high for p, (low, high) in ends.items() if high > low}
    patience = time.monotonic() + PATIENCE_S
    while left:
        messages = consumer.consume(10_000, 0.1)
        if messages:
            patience = time.monotonic() + PATIENCE_S
        elif time.monotonic() > patience:
            raise SystemExit(f"{topic}: nothing more arrives, still before {left}")
        for m in messages:
            if m.error():
                raise SystemExit(str(m.error()))
            if m.offset() < ends[m.partition()][1]:
                records.append((m.partition(), m.offset(), m.timestamp()[1], m.key(), m.value(), m.headers() or []))
            if m.offset() + 1 >= left.get(m.partition(), 1 << 62):
                left.pop(m.partition())
    consumer.close()
    return records


def places(records):
    """Where in the source topic late or refused records stand: the last `partition` and `offset` headers are Millpond's."""
    found = []
    for _, _, _, _, _, headers in records:
        last = dict(headers)
        found.append((int(last["partition"]), int(last["offset"])))
    return found


def time_ms(value):
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if not isinstance(value, str):
        return None
    try:
        at = datetime.datetime.fromisoformat(value)
    except ValueError:
        return None
    at = at.replace(tzinfo=datetime.timezone.utc) if at.tzinfo is None else at
    return round((at - datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)) / datetime.timedelta(microseconds=1)) // 1000


class Stream:
    """One [[streams]] of a configuration."""

    def __init__(self, path, name, registry=None):
        with open(path, "rb") as file:
            self.config = tomllib.load(file)
        self.registry, self.schemas = registry, {}
        self.declared = next(s for s in self.config["streams"] if s.get("name") == name)
        self.name, self.topic = name, self.declared["topic"]
        self.columns = [(c["name"], c["type"], c.get("required", False)) for c in self.declared["columns"]]
        self.event_time = self.declared["event_time"]
        self.max_ahead_ms = duration_ms(self.declared.get("max_ahead", "1h"))
        self.lateness_ms = duration_ms(self.declared.get("lateness", "10s"))
        variable = lambda found: os.environ.get(found[1], found[2])
        self.format = re.sub(r"\$\{(\w+):-(\w+)\}", variable, self.declared.get("format", "json"))

    def schema(self, number):
        """A schema of the registry, or None."""
        if number not in self.schemas:
            try:
                with urllib.request.urlopen(f"{self.registry}/schemas/ids/{number}", timeout=30) as answer:
                    said = json.load(answer)
                wanted = {"avro": "AVRO", "json_schema": "JSON"}[self.format]
                text = json.loads(said["schema"]) if said.get("schemaType", "AVRO") == wanted else None
                self.schemas[number] = fastavro.parse_schema(text) if wanted == "AVRO" and text else text
            except urllib.error.HTTPError:
                self.schemas[number] = None
        return self.schemas[number]

    def document(self, value):
        """What a record says; ValueError where it cannot be read."""
        if self.format == "json":
            return json.loads(value.decode("utf-8"))
        schema = self.schema(int.from_bytes(value[1:5], "big")) if len(value) >= 5 and value[0] == 0 else None
        if schema is None:
            raise ValueError("no schema")
        if self.format == "json_schema":
            return json.loads(value[5:].decode("utf-8"))
        return fastavro.schemaless_reader(io.BytesIO(value[5:]), schema)

    def row(self, value, timestamp):
        """The columns of a record, or None where the record must be refused (checks apart)."""
        try:
            parsed = self.document(value)
        except (ValueError, AttributeError, TypeError):
            return None
        if not isinstance(parsed, dict):
            return None
        row = {}
        for name, kind, required in self.columns:
            cell = parsed.get(name)
            if cell is not None:
                if kind == "BIGINT":
                    fits = isinstance(cell, int) and not isinstance(cell, bool)
                elif kind == "VARCHAR":
                    fits = isinstance(cell, str)
                elif kind == "TIMESTAMP":
                    cell = time_ms(cell)
                    fits = cell is not None
                else:
                    raise SystemExit(f"the oracle does not know the type {kind}")
                if not fits:
                    return None
            elif required or name == self.event_time:
                return None
            row[name] = cell
        if row[self.event_time] > timestamp + self.max_ahead_ms:
            return None
        return row

    def load(self, records):
        """A DuckDB connection with the table `valid`: the accepted rows with _partition and _offset."""
        names = [c[0] for c in self.columns]
        data = {name: [] for name in names + ["_partition", "_offset"]}
        for partition, offset, timestamp, _, value, _ in records:
            row = self.row(value, timestamp)
            if row is None:
                continue
            for name in names:
                data[name].append(row[name])
            data["_partition"].append(partition)
            data["_offset"].append(offset)
        types = {"VARCHAR": pyarrow.string(), "BIGINT": pyarrow.int64(), "TIMESTAMP": pyarrow.int64()}
        fields = [(name, types[kind]) for name, kind, _ in self.columns] + [("_partition", pyarrow.int32()), ("_offset", pyarrow.int64())]
        table = pyarrow.table([pyarrow.array(data[name], kind) for name, kind in fields], names=[name for name, _ in fields])
        database = duckdb.connect()
        database.execute("SET TimeZone = 'UTC'")
        database.register("decoded", table)
        checks = " AND ".join(f"coalesce(({check['sql']}), false)" for check in self.declared.get("checks", [])) or "true"
        database.execute(f"CREATE TABLE valid AS SELECT * FROM decoded WHERE {checks.replace('character_length', 'length')}")
        return database

    def views(self, over=None):
        """Each view over this stream, or over a stream derived from it."""
        for view in self.config.get("views", []):
            sql = " ".join(view["sql"].split())
            name, select, source, rest = re.fullmatch(r"CREATE MATERIALIZED VIEW (\w+) AS SELECT (.*?) FROM (\w+)\b(.*)", sql, re.I).groups()
            if source == (over or self.name):
                yield View(name, select, source, rest)


class View:
    """A [[views]] taken apart, and its SQL as DuckDB computes it."""

    def __init__(self, name, select, source, rest):
        self.name, self.source = name, source
        where, keys = re.fullmatch(r"\s*(WHERE .*?)?\s*(?:GROUP BY (.*))?", rest, re.I).groups()
        tumble = re.search(r"TUMBLE\((\w+), INTERVAL '(\d+)' (\w+?)S?\)(?:, )?", keys or "", re.I)
        self.keys = [k.strip() for k in (keys or "").replace(tumble[0] if tumble else "", "").split(",") if k.strip()]
        self.is_windowed, self.is_monthly = bool(tumble), bool(tumble) and tumble[3].upper() == "MONTH"
        self.window_ms = int(tumble[2]) * UNITS_MS[tumble[3].upper()] if tumble and not self.is_monthly else None
        self.time = tumble[1] if tumble else None
        # What is counted about is compared with a tolerance.
        self.about = re.findall(r"approx_distinct\(\w+\) AS (\w+)", select, re.I)
        select = re.sub(r"approx_distinct\((\w+)\)", r"count(DISTINCT \1)", select, flags=re.I)
        grouping = ([self.start()] if tumble else []) + self.keys
        head = f"{grouping[0]} AS window_start, " if tumble else ""
        group = f"GROUP BY {', '.join(grouping)}" if grouping else ""
        self.sql = f"SELECT {head}{select} FROM {{source}} {where or ''} {group}"

    def start(self):
        """SQL of where a row's window starts."""
        if self.is_monthly:
            return f"epoch_ms(date_trunc('month', make_timestamp({self.time} * 1000)))"
        return f"{self.time} - (({self.time} % {self.window_ms}) + {self.window_ms}) % {self.window_ms}"

    def ended(self, time):
        """SQL of where the window of a row of `v` ends."""
        if self.is_monthly:
            return f"epoch_ms(date_trunc('month', make_timestamp(v.{time} * 1000)) + INTERVAL 1 MONTH)"
        width = self.window_ms or 1
        return f"v.{time} - v.{time} % {width} + {width}"

    def end_of(self, start):
        if not self.is_monthly:
            return start + self.window_ms
        day = datetime.datetime.fromtimestamp(start / 1000, datetime.timezone.utc) + datetime.timedelta(days=32)
        return time_ms(day.replace(day=1).isoformat())


def duration_ms(text):
    number, unit = re.fullmatch(r"(\d+)\s*(ms|s|m|h|d)", text).groups()
    return int(number) * {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}[unit]
