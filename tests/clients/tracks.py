"""What the topic, the refused rows and the dashboard must be, computed from the CSV file alone.

    tracks.py BOOTSTRAP HTTP FILE.csv SOURCE TOPIC [--track ID] [--shown FILE] [--exports FOLDER] [--alerts]

The file is read by a grammar of its own (a regular expression per row), the rules are written out below, and nothing is taken
from Millpond but what is compared:

* the topic holds the first valid row of each track and genre once, field by field, with timestamp and record_id, and nothing else;
* `<source>.rejected` holds each other line that is no repetition once, with its line number and the rule it breaks;
* every number and row of every panel equals plain Python over the rows of the file: over HTTP, and with --shown as `panels.js` read it
  in Chromium (--track is the one whose neighbours are shown);
* with --exports, so do the newest files of the sinks; with --alerts, what fires.
Prints {"mistakes": [...], ...counts} on stdout.
"""
import argparse
import collections
import csv
import json
import math
import os
import re
import urllib.parse
import urllib.request

import log
import shown

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


def by(tracks, key):
    groups = collections.defaultdict(list)
    for track in tracks:
        groups[key(track)].append(track)
    return groups


def largest(pairs, count=15):
    return sorted(pairs, key=lambda pair: (-pair[1], pair[0].encode()))[:count]


def artists_of(tracks):
    popularity = collections.defaultdict(list)
    for track in tracks:
        for artist in track["artists"].split(";"):
            popularity[artist].append(track["popularity"])
    return popularity


def genre_row(genre, rows):
    return [genre, len(rows), mean(row["popularity"] for row in rows)] + [mean(row[name] for row in rows) for name in FLOATS]


def catalogue(tracks, minutes):
    """Title → rows of the dashboard `spotify`."""
    by_genre, by_artist = by(tracks, lambda track: track["track_genre"]), artists_of(tracks)
    explicit = sum(track["explicit"] for track in tracks)
    return {
        "Tracks": [[len(tracks)]],
        "Artists": [[len(by_artist)]],
        "Genres": [[len(by_genre)]],
        "Mean popularity": [[mean(track["popularity"] for track in tracks)]],
        "Explicit": [[100.0 * explicit / len(tracks)]],
        "Genres with the most tracks": largest((genre, len(rows)) for genre, rows in by_genre.items()),
        "Most popular genres": largest((genre, mean(row["popularity"] for row in rows)) for genre, rows in by_genre.items()),
        "Artists with the most tracks": largest((artist, len(rows)) for artist, rows in by_artist.items()),
        "Most popular artists with 20 tracks or more": [
            (artist, value, len(by_artist[artist]))
            for artist, value in largest((artist, mean(rows)) for artist, rows in by_artist.items() if len(rows) >= 20)
        ],
        "Mean audio features": [[mean(track[name] for track in tracks) for name in FLOATS]],
        "Audio features by genre": [genre_row(genre, by_genre[genre]) for genre in sorted(by_genre, key=str.encode)][:20],
        "Explicit or not": sorted([("explicit", explicit), ("not explicit", len(tracks) - explicit)], key=lambda pair: -pair[1]),
        "Tracks taken in per minute": sorted(minutes.items()),
    }


def features(track):
    or_else = lambda name, value: value if track[name] is None else track[name]
    plain = [track["danceability"], track["energy"]]
    plain += [or_else(name, 0.5) for name in ("speechiness", "acousticness", "instrumentalness", "liveness", "valence")]
    return plain + [(or_else("loudness", -30.0) + 60) / 60, or_else("tempo", 125.0) / 250]


def nearest(tracks, chosen):
    """The ten nearest other tracks, each once, where it is nearest."""
    here, best = features(chosen), {}
    for track in tracks:
        if track["track_id"] == chosen["track_id"]:
            continue
        place = (math.dist(features(track), here), track["track_genre"].encode())
        if track["track_id"] not in best or place < best[track["track_id"]][0]:
            best[track["track_id"]] = (place, track)
    ranked = sorted(best.values(), key=lambda pair: (pair[0][0], pair[1]["track_id"]))[:10]
    return [[t["track_id"], t["track_name"], t["artists"], t["track_genre"], t["popularity"], place[0]] for place, t in ranked]


def deviations(tracks):
    """[(track, furthest, [by length, by loudness, by tempo])], each in standard deviations from the mean of its genre."""
    measures = [lambda t: math.log(t["duration_ms"]), lambda t: t["loudness"], lambda t: t["tempo"]]
    scored = []
    for rows in by(tracks, lambda track: track["track_genre"]).values():
        scales = []
        for measure in measures:
            values = [value for value in map(measure, rows) if value is not None]
            middle = mean(values) or 0.0
            width = math.sqrt(math.fsum((value - middle) ** 2 for value in values) / max(len(values) - 1, 1)) or 1.0
            scales.append((middle, width))
        for row in rows:
            scores = [0.0 if measure(row) is None else abs(measure(row) - middle) / width for measure, (middle, width) in zip(measures, scales)]
            scored.append((row, max(scores), scores))
    return scored


def discoveries(tracks, track_id):
    """Title → rows of the dashboard `spotify-discover`."""
    listed = sorted((track for track in tracks if track["track_id"] == track_id), key=lambda track: track["track_genre"].encode())
    chosen, scored = listed[0], deviations(tracks)
    odd = sorted(scored, key=lambda one: (-one[1], one[0]["track_id"], one[0]["track_genre"].encode()))[:15]
    far = collections.Counter(row["track_genre"] for row, furthest, _ in scored if furthest > 3)
    return {
        "Chosen track": [[chosen[name] for name in ("track_id", "track_name", "artists", "track_genre", "popularity", "danceability", "energy", "valence", "tempo")]],
        "Nearest tracks": nearest(tracks, chosen),
        "Odd tracks": [[t["track_id"], t["track_name"], t["track_genre"], shown.Length(t["duration_ms"]), t["loudness"], t["tempo"], furthest] for t, furthest, _ in odd],
        "Odd tracks by genre": largest(far.items()),
    }


def ask(http, path, **query):
    with urllib.request.urlopen(f"http://{http}{path}?{urllib.parse.urlencode(query)}", timeout=120) as answer:
        return json.load(answer)


def compare_view(http, tracks, mistakes):
    """All genres, not only those that are shown."""
    genres = {genre: genre_row(genre, rows) for genre, rows in by(tracks, lambda track: track["track_genre"]).items()}
    answer = ask(http, "/v1/views/tracks_by_genre", limit=1000, wait="30s")
    columns = [column["name"] for column in answer["columns"]]
    for row in answer["rows"]:
        row = dict(zip(columns, row))
        wanted = genres.pop(row["track_genre"], None)
        if wanted is None or not all(map(equal, [row[name] for name in ["track_genre", "tracks", "mean_popularity"] + FLOATS], wanted)):
            mistakes.append(f"view tracks_by_genre: {row} is not {wanted}")
    mistakes += [f"view tracks_by_genre has no {genre}" for genre in genres]


def compare_exports(folder, tracks, mistakes):
    """The newest file of each sink."""
    genres = by(tracks, lambda track: track["track_genre"])
    compare_csv(folder, "genres.csv", [genre_row(genre, genres[genre]) for genre in sorted(genres, key=str.encode)], mistakes)
    artists = artists_of(tracks)
    most = largest(((artist, len(rows)) for artist, rows in artists.items()), 1000)
    compare_csv(folder, "artists.csv", [[artist, count, mean(artists[artist])] for artist, count in most], mistakes)
    with open(os.path.join(folder, "summary.json")) as file:
        found = json.load(file)
    wanted = {"tracks": len(tracks), "genres": len(genres), "mean_popularity": mean(t["popularity"] for t in tracks),
              "explicit_percent": 100.0 * sum(t["explicit"] for t in tracks) / len(tracks), "mean_ms": mean(t["duration_ms"] for t in tracks)}
    if len(found) != 1 or set(found[0]) != set(wanted) or not all(equal(number(found[0][key]), wanted[key]) for key in wanted):
        mistakes.append(f"summary.json: {found} is not {wanted}")


def compare_csv(folder, name, wanted, mistakes):
    with open(os.path.join(folder, name), newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    same = lambda text, value: text == value if isinstance(value, str) else text == "" if value is None else equal(float(text), float(value))
    if len(rows) != len(wanted):
        mistakes.append(f"{name}: {len(rows)} rows, not {len(wanted)}")
    wrong = [(row, value) for row, value in zip(rows, wanted) if len(row) != len(value) or not all(map(same, row, value))]
    mistakes += [f"{name}: {row} is not {value}" for row, value in wrong[:5]]


def compare_alerts(http, tracks, mistakes):
    """What fires now."""
    genres = by(tracks, lambda track: track["track_genre"])
    explicit = {genre: 100.0 * sum(t["explicit"] for t in rows) / len(rows) for genre, rows in genres.items() if len(rows) >= 100}
    long = sorted((t for t in tracks if t["duration_ms"] > 900_000), key=lambda t: (-t["duration_ms"], t["track_id"], t["track_genre"].encode()))[:100]
    wanted = {
        "explicit_genre": {(genre,): [genre, percent] for genre, percent in explicit.items() if percent > 10},
        "very_long_track": {(t["track_id"], t["track_genre"]): [t["track_name"], t["duration_ms"] // 60000] for t in long},
    }
    counts = {}
    for alert in ask(http, "/v1/alerts")["alerts"]:
        fires = {tuple(one["labels"].values()): one for one in alert["instances"] if one["state"] == "firing"}
        wants = wanted.pop(alert["name"])
        counts[alert["name"]] = len(fires)
        if {frozenset(key) for key in fires} != {frozenset(key) for key in wants}:
            mistakes.append(f"alert {alert['name']}: {sorted(fires)[:5]} fires, not {sorted(wants)[:5]}; {len(fires)} and {len(wants)}")
        for key, values in wants.items():
            one = next((one for labels, one in fires.items() if frozenset(labels) == frozenset(key)), None)
            if one and not all(str(value) in one["message"] for value in values if not isinstance(value, float)):
                mistakes.append(f"alert {alert['name']}: {one['message']!r} does not say {values}")
    mistakes += [f"no alert is called {name}" for name in wanted]
    return counts


def number(value):
    """A DECIMAL is written as text."""
    try:
        return float(value) if isinstance(value, str) and re.fullmatch(r"-?\d+\.\d+", value) else value
    except ValueError:
        return value


def main():
    parser = argparse.ArgumentParser()
    for name in ("bootstrap", "http", "file", "source", "topic"):
        parser.add_argument(name)
    for name in ("--track", "--shown", "--exports"):
        parser.add_argument(name)
    parser.add_argument("--from", dest="start", default="0")
    parser.add_argument("--to", dest="end", default="4102444800000")
    parser.add_argument("--alerts", action="store_true")
    args = parser.parse_args()
    good, refused, skipped = read(args.file)
    tracks, mistakes = list(good.values()), []
    records = log.dump(args.bootstrap, args.topic)
    compare_topic(records, good, mistakes)
    compare_refused(log.dump(args.bootstrap, f"{args.source}.rejected"), refused, mistakes)
    compare_view(args.http, tracks, mistakes)
    minutes = collections.Counter(log.time_ms(json.loads(record[4])["timestamp"]) // 60_000 * 60_000 for record in records)
    pages = json.load(open(args.shown)) if args.shown else None
    wrong, compared = shown.compare(args.http, "spotify", catalogue(tracks, minutes), pages, **{"from": args.start, "to": args.end})
    mistakes += wrong
    if args.track:
        wrong, more = shown.compare(args.http, "spotify-discover", discoveries(tracks, args.track), pages, track=args.track)
        mistakes, compared = mistakes + wrong, compared + more
    if args.exports:
        compare_exports(args.exports, tracks, mistakes)
    alerts = compare_alerts(args.http, tracks, mistakes) if args.alerts else {}
    rules = collections.Counter(rule for _, rule, _ in refused)
    print(json.dumps({"mistakes": mistakes[:30] + mistakes[30:][-20:], "published": len(good), "rejected": len(refused), "skipped": skipped,
                      "rules": rules, "panels": compared, "alerts": alerts, "timestamps": len({json.loads(record[4])["timestamp"] for record in records})}))


main()
