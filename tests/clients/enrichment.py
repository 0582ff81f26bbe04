"""What the enriched events of the music system must be, written from its description and not from its SQL.

An accepted event keeps its fields and gets: the region of its country ("elsewhere" where the table has none), the segment that the
newest record of its user has ("unknown" where there is none), and the quarter of the day in the standard time of its country.
"""
import json

import log

SLOTS = ["00-06", "06-12", "12-18", "18-24"]
FIELDS = ["user_id", "ts", "event", "title", "artist", "genre", "duration_ms", "platform", "device", "country"]
ADDED = ["region", "segment", "time_slot"]
QUARTER_MINUTES = 360
DAY_MINUTES = 1440


def countries(config):
    """country → (region, minutes ahead of UTC)."""
    table = next(t for t in config["tables"] if t["name"] == "countries")
    return {name: (region, int(offset)) for name, region, offset in table["rows"]}


def newest(records, key):
    """The newest good record of each key of a compacted topic."""
    rows = {}
    for _, _, _, _, value, _ in sorted(records, key=lambda r: r[:2]):
        try:
            row = json.loads(value)
        except (TypeError, ValueError):
            continue
        if isinstance(row, dict) and isinstance(row.get(key), int):
            rows[row[key]] = row
    return rows


def enrich(event, regions, people):
    region, ahead = regions.get(event["country"], ("elsewhere", 0))
    minute = (event["ts"] // 60_000 + ahead) % DAY_MINUTES
    segment = people.get(event["user_id"], {}).get("segment") or "unknown"
    return event | {"region": region, "segment": segment, "time_slot": SLOTS[minute // QUARTER_MINUTES]}


def wanted(database, regions, people):
    """partition → the enriched events of that partition, in order."""
    rows = {}
    for partition, *cells in database.execute(f"SELECT _partition, {', '.join(FIELDS)} FROM valid ORDER BY _partition, _offset").fetchall():
        rows.setdefault(partition, []).append(enrich(dict(zip(FIELDS, cells)), regions, people))
    return rows


def found(records):
    """partition → what its records say, in order, with the time in ms."""
    rows = {}
    for partition, offset, _, _, value, _ in sorted(records, key=lambda r: r[:2]):
        row = json.loads(value)
        row["ts"] = log.time_ms(row.get("ts"))
        rows.setdefault(partition, []).append((offset, row))
    return rows
