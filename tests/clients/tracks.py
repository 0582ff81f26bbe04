"""What the topic, the refused rows and the dashboard must be, computed from the CSV file alone.

    tracks.py BOOTSTRAP HTTP FILE.csv SYSTEM.toml SOURCE TOPIC DASHBOARD

The file is read by a grammar of its own (a regular expression per row), the rules are written out below, and nothing is taken
from Millpond but what is compared:

* the topic holds the first valid row of each track and genre once, field by field, with timestamp and record_id, and nothing else;
* `<source>.rejected` holds each other line that is no repetition once, with its line number and the rule it breaks;
* every number and row of every panel equals plain Python over the rows of the file.
Prints {"mistakes": [...], ...counts} on stdout.
"""
import argparse
import collections
import json
import math
import re
import urllib.parse
import urllib.request

import log

FIELD = rb'(?:"(?:[^"]|"")*"|[^",\r\n][^,\r\n]*|)'
ROW = re.compile(rb"(" + FIELD + rb"(?:," + FIELD + rb")*)(?:\r?\n|$)")
CELL = re.compile(rb'"((?:[^"]|"")*)"|([^,]*)')
WHOLE = ["popularity", "duration_ms", "key", "mode", "time_signature"]
FLOATS = ["danceability", "energy", "loudness", "speechiness", "acousticness", "instrumentalness", "liveness", "valence", "tempo"]
REQUIRED = ["track_id", "artists", "track_name", "popularity", "duration_ms", "explicit", "danceability", "energy", "track_genre"]


def rows(data):
    """(line, raw, fields or None) of each row that is not blank."""
    at, line = 0, 1
    while at < len(data):
        found = ROW.match(data, at)
        end = data.find(b"\n", at)
        end = len(data) if end < 0 else end + 1
        raw, stop = (found[1], found.end()) if found else (data[at:end].rstrip(b"\r\n"), end)
        if raw or not found:
            yield line, raw, cells(raw) if found else None
        line += data.count(b"\n", at, stop)
        at = stop


def cells(raw):
    found, at = [], 0
    while True:
        cell = CELL.match(raw, at)
        found.append(cell[1].replace(b'""', b'"') if cell[1] is not None else cell[2])
        at = cell.end() + 1
        if at > len(raw):
            return found


def rule(fields, names, row):
    """The rule that a row breaks, or None; fills in the row."""
    if fields is None:
        return "quotes"
    try:
        fields = [field.decode("utf-8") for field in fields]
    except UnicodeDecodeError:
        return "encoding"
    if len(fields) != len(names):
        return "fields"
    for name, text in zip(names, fields):
        if not name:
            continue
        value = text or None
        if value is None and name in REQUIRED:
            return "required"
        if value is not None and name in WHOLE:
            if not re.fullmatch(r"[+-]?\d+", value.strip()):
                return "type"
            value = int(value)
        if value is not None and name in FLOATS:
            try:
                value = float(value)
            except ValueError:
                return "type"
        if name == "explicit":
            if value.lower() not in ("true", "false"):
                return "type"
            value = value.lower() == "true"
        row[name] = value
    if len(row["track_id"]) != 22:
        return "id_has_22_letters"
    if not 0 <= row["popularity"] <= 100:
        return "popularity_in_range"
    if row["duration_ms"] <= 0:
        return "duration_positive"
    if not all(0 <= (row[name] or 0) <= 1 for name in ("danceability", "energy", "valence")):
        return "features_in_range"
    return None


def read(path):
    with open(path, "rb") as file:
        data = file.read().removeprefix(b"\xef\xbb\xbf")
    parsed = rows(data)
    names = [name.decode() for name in next(parsed)[2]]
    good, refused, skipped = {}, [], 0
    for line, raw, fields in parsed:
        row = {}
        broken = rule(fields, names, row)
        if broken:
            refused.append((line, broken, raw))
        elif (row["track_id"], row["track_genre"]) in good:
            skipped += 1
        else:
            good[row["track_id"], row["track_genre"]] = row
    return good, refused, skipped


def equal(a, b):
    if isinstance(a, float) or isinstance(b, float):
        return a is not None and b is not None and math.isclose(float(a), float(b), rel_tol=1e-9, abs_tol=1e-9)
    return a == b


def compare_topic(records, good, mistakes):
    seen, ids = collections.Counter(), collections.Counter()
    for partition, offset, _, key, value, _ in records:
        record = json.loads(value)
        place = f"partition {partition} offset {offset}"
        name = record["track_id"], record["track_genre"]
        seen[name] += 1
        ids[record["record_id"]] += 1
        expected = good.get(name)
        if expected is None:
            mistakes.append(f"{place}: nobody has {name}")
            continue
        if key.decode() != record["track_id"] or log.time_ms(record["timestamp"]) is None:
            mistakes.append(f"{place}: key or timestamp is wrong: {key} {record['timestamp']}")
        wrong = [field for field in expected if not equal(record.get(field), expected[field])]
        if wrong or set(record) != set(expected) | {"timestamp", "record_id"}:
            mistakes.append(f"{place}: {wrong or sorted(record)}: {value!r} is not {expected}")
    mistakes += [f"{name} is there {count} times" for name, count in seen.items() if count > 1]
    mistakes += [f"record_id {name} is there {count} times" for name, count in ids.items() if count > 1]
    mistakes += [f"{name} is missing" for name in good if name not in seen]


def compare_refused(records, refused, mistakes):
    found = collections.Counter()
    for _, _, _, _, value, headers in records:
        last = {name: text.decode() for name, text in headers}
        if not last.get("reason") or not last.get("file"):
            mistakes.append(f"a refused row does not say why or where: {last}")
        found[int(last["line"]), last["rule"], value or b""] += 1
    expected = collections.Counter(refused)
    mistakes += [f"refused and should not be: {row}" for row in found - expected]
    mistakes += [f"should be refused and is not: {row}" for row in expected - found]


def mean(numbers):
    numbers = [number for number in numbers if number is not None]
    return math.fsum(numbers) / len(numbers) if numbers else None


def panels(good):
    """Title → rows as the dashboard must show them."""
    tracks = list(good.values())
    by_genre, by_artist = collections.defaultdict(list), collections.defaultdict(list)
    for track in tracks:
        by_genre[track["track_genre"]].append(track)
        for artist in track["artists"].split(";"):
            by_artist[artist].append(track["popularity"])
    order = lambda pairs: sorted(pairs, key=lambda pair: (-pair[1], pair[0].encode()))[:15]
    explicit = sum(track["explicit"] for track in tracks)
    return {
        "Tracks": [[len(tracks)]],
        "Artists": [[len(by_artist)]],
        "Genres": [[len(by_genre)]],
        "Mean popularity": [[mean(track["popularity"] for track in tracks)]],
        "Explicit": [[100.0 * explicit / len(tracks)]],
        "Genres with the most tracks": order((genre, len(rows)) for genre, rows in by_genre.items()),
        "Most popular genres": order((genre, mean(row["popularity"] for row in rows)) for genre, rows in by_genre.items()),
        "Artists with the most tracks": order((artist, len(rows)) for artist, rows in by_artist.items()),
        "Most popular artists with 20 tracks or more": [
            (artist, value, len(by_artist[artist]))
            for artist, value in order((artist, mean(rows)) for artist, rows in by_artist.items() if len(rows) >= 20)
        ],
        "Mean audio features": [[mean(track[name] for track in tracks) for name in FLOATS]],
        "Explicit or not": sorted([("explicit", explicit), ("not explicit", len(tracks) - explicit)]),
    }, {genre: [len(rows), mean(row["popularity"] for row in rows)] + [mean(row[name] for row in rows) for name in FLOATS]
        for genre, rows in by_genre.items()}


def ask(http, path, body=None):
    request = urllib.request.Request(f"http://{http}{path}", json.dumps(body).encode() if body else None,
                                     {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)


def compare_dashboard(http, name, system, good, mistakes):
    expected, genres = panels(good)
    dashboard = next(d for d in system["dashboards"] if d["name"] == name)
    compared = 0
    for panel in dashboard["panels"]:
        title = panel["title"]
        if title not in expected:
            continue
        rows = ask(http, "/v1/sql", {"sql": panel["sql"]})["rows"]
        rows = sorted(rows) if title == "Explicit or not" else rows
        wanted = [list(row) for row in expected[title]]
        same = len(rows) == len(wanted) and all(
            len(a) == len(b) and all(equal(number(x), y) for x, y in zip(a, b)) for a, b in zip(rows, wanted))
        if not same:
            mistakes.append(f"panel {title}: {rows} is not {wanted}")
        compared += 1
    answer = ask(http, "/v1/views/tracks_by_genre?limit=1000&wait=30s")
    columns = [column["name"] for column in answer["columns"]]
    names = ["tracks", "mean_popularity"] + FLOATS
    for row in answer["rows"]:
        row = dict(zip(columns, row))
        wanted = genres.pop(row["track_genre"], None)
        if wanted is None or not all(equal(row[name], value) for name, value in zip(names, wanted)):
            mistakes.append(f"view tracks_by_genre: {row} is not {wanted}")
    mistakes += [f"view tracks_by_genre has no {genre}" for genre in genres]
    return compared


def number(value):
    """A DECIMAL is written as text."""
    try:
        return float(value) if isinstance(value, str) and re.fullmatch(r"-?\d+\.\d+", value) else value
    except ValueError:
        return value


def main():
    parser = argparse.ArgumentParser()
    for name in ("bootstrap", "http", "file", "system", "source", "topic", "dashboard"):
        parser.add_argument(name)
    args = parser.parse_args()
    import tomllib
    with open(args.system, "rb") as file:
        system = tomllib.load(file)
    good, refused, skipped = read(args.file)
    mistakes = []
    compare_topic(log.dump(args.bootstrap, args.topic), good, mistakes)
    compare_refused(log.dump(args.bootstrap, f"{args.source}.rejected"), refused, mistakes)
    compared = compare_dashboard(args.http, args.dashboard, system, good, mistakes)
    rules = collections.Counter(rule for _, rule, _ in refused)
    print(json.dumps({"mistakes": mistakes[:30] + mistakes[30:][-20:], "published": len(good), "rejected": len(refused), "skipped": skipped,
                      "rules": rules, "panels": compared}))


main()
