"""Recomputes what Millpond serves from the log, with DuckDB, and lists every difference.

    oracle.py BOOTSTRAP HTTP SYSTEM.toml STREAM [--sent FILE] [--dashboard NAME]

* refused records: exactly those that break the declaration, each once in `<stream>.rejected`;
* late rows are a recorded decision of the engine: `<view>.late` is taken as input, each late row once, accepted, and behind a
  window that had ended; everything else must be in the view;
* every row and number of every view over HTTP equals DuckDB's answer to the view's SQL;
* with --dashboard, every number of every panel equals the same combined by DuckDB and plain Python;
* with --sent, the log holds exactly what the producer says it sent, each record once.
Prints {"mistakes": [...], ...counts} on stdout.
"""
import argparse
import collections
import json
import math
import urllib.parse
import urllib.request

import log

TOP, TABLE_ROWS = 12, 50


def get(http, path, **query):
    with urllib.request.urlopen(f"http://{http}{path}?{urllib.parse.urlencode(query)}", timeout=120) as answer:
        return json.load(answer)


def equal(a, b):
    if isinstance(a, float) or isinstance(b, float):
        return a is not None and b is not None and math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9)
    return a == b


def rows_of(database, sql):
    cursor = database.execute(sql)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, map(plain, row))) for row in cursor.fetchall()]


def plain(value):
    return int(value) if hasattr(value, "as_integer_ratio") and not isinstance(value, (int, float)) else value


class Oracle:
    def __init__(self, args):
        self.args = args
        self.stream = log.Stream(args.system, args.stream)
        self.mistakes = []
        self.told = collections.Counter()
        self.records = log.dump(args.bootstrap, self.stream.topic)
        self.database = self.stream.load(self.records)
        self.expected = {}
        self.report = {"records": len(self.records), "late": {}}

    def wrong(self, text):
        kind = text.split(":")[0]
        self.told[kind] += 1
        if self.told[kind] <= 10:
            self.mistakes.append(text)

    def check_rejected(self):
        valid = set(self.database.execute("SELECT _partition, _offset FROM valid").fetchall())
        wanted = {(r[0], r[1]) for r in self.records} - valid
        found = log.places(log.dump(self.args.bootstrap, f"{self.stream.name}.rejected"))
        if len(found) != len(set(found)):
            self.wrong(f"rejected twice: {[p for p, n in collections.Counter(found).items() if n > 1][:5]}")
        by_place = {(r[0], r[1]): r[4] for r in self.records}
        for place in sorted(wanted - set(found))[:5]:
            self.wrong(f"should be rejected and is not: {place} {by_place[place]!r}")
        for place in sorted(set(found) - wanted)[:5]:
            self.wrong(f"rejected without reason: {place} {by_place.get(place)!r}")
        self.report |= {"valid": len(valid), "rejected": len(found)}

    def check_late(self, name, window_ms):
        """The late rows of a view as a DuckDB table `late_<view>`."""
        late = log.places(log.dump(self.args.bootstrap, f"{name}.late"))
        if len(late) != len(set(late)):
            self.wrong(f"{name}: late twice: {[p for p, n in collections.Counter(late).items() if n > 1][:5]}")
        self.database.execute(f"CREATE TABLE late_{name} (_partition INTEGER, _offset BIGINT)")
        if late:
            self.database.executemany(f"INSERT INTO late_{name} VALUES (?, ?)", late)
            time = self.stream.event_time
            ended = f"v.{time} - v.{time} % {window_ms} + {window_ms} + {self.stream.lateness_ms}"
            early = self.database.execute(
                f"SELECT count(*), count(*) FILTER ({ended} > (SELECT max({time}) FROM valid)) FROM late_{name} l "
                f"JOIN valid v USING (_partition, _offset)").fetchone()
            if early[0] != len(late):
                self.wrong(f"{name}: {len(late) - early[0]} late rows are not accepted rows of the log")
            if early[1]:
                self.wrong(f"{name}: {early[1]} rows are called late though no event is past the end of their window")
        self.report["late"][name] = len(late)

    def check_view(self, name, window_ms, keys, sql):
        self.check_late(name, window_ms or 1)
        self.database.execute(f"CREATE VIEW source_{name} AS SELECT * FROM valid ANTI JOIN late_{name} USING (_partition, _offset)")
        wanted = rows_of(self.database, sql.format(source=f"source_{name}"))
        self.expected[name] = (window_ms, keys, wanted)
        answer = get(self.args.http, f"/v1/views/{name}", wait=self.args.wait_ms, limit=100_000)
        names = [column["name"] for column in answer["columns"]]
        found = [dict(zip(names, row)) for row in answer["rows"]]
        # Exact decimals come as text, so that no reader rounds them.
        for column in (c["name"] for c in answer["columns"] if c["type"].startswith("DECIMAL")):
            for row in found:
                row[column] = None if row[column] is None else int(row[column])
        for row in found:
            if window_ms:
                row["window_start"] = log.time_ms(row["window_start"])
                if log.time_ms(row.pop("window_end")) != row["window_start"] + window_ms:
                    self.wrong(f"{name}: a window of another length: {row}")
        identity = (["window_start"] if window_ms else []) + keys
        place = lambda row: tuple(row[k] for k in identity)
        wanted_by, found_by = {place(r): r for r in wanted}, {place(r): r for r in found}
        if len(found_by) != len(found):
            self.wrong(f"{name}: {len(found) - len(found_by)} groups are there twice")
        for key in sorted(set(wanted_by) ^ set(found_by), key=str)[:5]:
            self.wrong(f"{name}: group {key}: computed {wanted_by.get(key)}, served {found_by.get(key)}")
        for key in set(wanted_by) & set(found_by):
            for column, value in wanted_by[key].items():
                if not equal(value, found_by[key].get(column)):
                    self.wrong(f"{name}: {key}.{column}: computed {value}, served {found_by[key].get(column)}")
        ends = {str(p): 1 + max(r[1] for r in self.records if r[0] == p) for p in {r[0] for r in self.records}}
        if {p: o for p, o in answer["offsets"].get(self.stream.topic, {}).items() if o} != ends:
            self.wrong(f"{name}: offsets {answer['offsets']} are not the ends of the log {ends}")
        self.report.setdefault("rows", {})[name] = len(found)

    def check_sent(self):
        """The simulator's record: each event with its kind and the place that was acknowledged."""
        stored = {(r[0], r[1]): r[4] for r in self.records}
        dirty, kinds, seen = set(), collections.Counter(), set()
        with open(self.args.sent) as file:
            for line in file:
                event = json.loads(line)
                kinds[event["kind"] if "error" not in event else "unacknowledged"] += 1
                if "error" in event:
                    continue
                place, value = (event["partition"], event["offset"]), payload_of(event)
                if place in seen:
                    self.wrong(f"acknowledged twice at one place: {place}")
                seen.add(place)
                if place not in stored:
                    self.wrong(f"acknowledged and not in the log: {place} {value!r}")
                elif (stored[place] or b"") != value:
                    self.wrong(f"another value in the log at {place}: sent {value!r}, stored {stored[place]!r}")
                if event["kind"] not in ("clean", "late", "duplicate"):
                    dirty.add(place)
        if not kinds["unacknowledged"]:
            for place in sorted(set(stored) - seen)[:5]:
                self.wrong(f"in the log and never sent: {place} {stored[place]!r}")
        refused = set(stored) - set(self.database.execute("SELECT _partition, _offset FROM valid").fetchall())
        if (refused & seen) != dirty:
            self.wrong(f"the oracle's own rules differ from the simulator's kinds at {sorted((refused & seen) ^ dirty)[:5]}")
        self.report |= {"sent": sum(kinds.values()), "kinds": kinds}

    def check_dashboard(self):
        path = f"/v1/dashboards/{self.args.dashboard}"
        panels = get(self.args.http, path)["panels"]
        low, high = self.database.execute(f"SELECT min({self.stream.event_time}), max({self.stream.event_time}) FROM valid").fetchone()
        low, high = low - low % 86_400_000, high + 86_400_000
        for number, panel in enumerate(panels):
            data = get(self.args.http, f"{path}/panels/{number}", **{"from": low, "to": high, "wait": self.args.wait_ms})
            at = f"panel {number} \"{panel['title']}\""
            if data.get("truncated"):
                self.wrong(f"{at}: cut at the row limit")
            shown = [[round(c) if isinstance(c, float) and c.is_integer() else c for c in row] for row in data["rows"]]
            wanted, rest = self.sql_panel(panel) if panel["sql"] else self.view_panel(panel)
            if panel["view"] and panel["x"] == "window_start":
                shown = [[log.time_ms(row[0]), *row[1:]] for row in shown]
            if len(shown) != len(wanted) or not all(all(map(equal, a, b)) for a, b in zip(shown, wanted)):
                self.wrong(f"{at}: computed {wanted[:8]}… ({len(wanted)}), served {shown[:8]}… ({len(shown)})")
            if rest is not None and data["rest"] != rest:
                self.wrong(f"{at}: the others add up to {rest}, served {data['rest']}")
        self.report["panels"] = len(panels)

    def sql_panel(self, panel):
        sql = panel["sql"].replace(f"FROM {self.stream.name}", "FROM valid")
        return [[plain(c) for c in row] for row in self.database.execute(sql).fetchall()], None

    def view_panel(self, panel):
        """The panel's rows from the computed view: rows that fall together are added up, the largest are kept."""
        _, _, rows = self.expected[panel["view"]]
        x, series, y = panel["x"] if panel["kind"] != "number" else None, panel["series"], panel["y"]
        groups = {}
        for row in rows:
            sums = groups.setdefault((row.get(x), row.get(series)), [None] * len(y))
            for i, column in enumerate(y):
                if row[column] is not None:
                    sums[i] = row[column] + (sums[i] or 0)
        top = panel["top"] or TOP
        first = lambda sums: sums[0] or 0
        text = lambda value: json.dumps(value, ensure_ascii=False)
        cells = lambda key: [v for v, column in zip(key, (x, series)) if column]
        if panel["kind"] == "line" or series:
            totals = collections.Counter()
            for (_, name), sums in groups.items():
                totals[name] += first(sums)
            ranked = sorted(totals, key=lambda name: (-totals[name], text(name) if series else ""))[:top]
            kept = sorted((k for k in groups if k[1] in ranked), key=lambda k: (ranked.index(k[1]), k[0]))
            return [cells(k) + groups[k] for k in kept], None
        ranked = sorted(groups, key=lambda k: (-first(groups[k]), text(k[0]) if x else ""))
        others = [sum(groups[k][i] or 0 for k in ranked[top:]) for i in range(len(y))] if ranked[top:] else []
        return [cells(k) + groups[k] for k in ranked[:top]], others


def payload_of(event):
    return bytes.fromhex(event["value_hex"]) if "value_hex" in event else event["value"].encode()


def main():
    parser = argparse.ArgumentParser()
    for name in ("bootstrap", "http", "system", "stream"):
        parser.add_argument(name)
    parser.add_argument("--sent")
    parser.add_argument("--dashboard")
    parser.add_argument("--wait-ms", type=int, default=10_000)
    oracle = Oracle(parser.parse_args())
    if oracle.args.sent:
        oracle.check_sent()
    for view in oracle.stream.views():
        oracle.check_view(*view)
    # After the views, whose reads wait until the engine has applied everything.
    oracle.check_rejected()
    if oracle.args.dashboard:
        oracle.check_dashboard()
    print(json.dumps({"mistakes": oracle.mistakes, **oracle.report}))


main()
