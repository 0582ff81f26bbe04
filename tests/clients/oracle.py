import time
"""Recomputes what Millpond serves from the log, with DuckDB, and lists every difference.

    oracle.py BOOTSTRAP HTTP SYSTEM.toml STREAM [--sent FILE] [--enriched NAME] [--registry URL]
              [--dashboard NAME]… [--from MS --to MS] [--shown FILE]

* refused records: exactly those that break the declaration, each once in `<stream>.rejected`;
* late rows are a recorded decision of the engine: `<view>.late` is taken as input, each late row once, accepted, and behind a
  window that had ended; everything else must be in the view;
* every row and number of every view over HTTP equals DuckDB's answer to the view's SQL;
* with --enriched, that stream holds each accepted event once, enriched as `enrichment.py` says, and the views over it are checked alike;
* with --dashboard, every number of every panel equals the same combined by DuckDB and plain Python, and with --shown what `panels.js`
  read from the page in Chromium does, too;
* with --sent, the log holds exactly what the producer says it sent, each record once.
Prints {"mistakes": [...], ...counts} on stdout.
"""
import argparse
import collections
import datetime
import json
import math
import re
import time
import urllib.error
import urllib.parse
import urllib.request

import pyarrow

import enrichment
import log
import shown

TOP, TABLE_ROWS = 12, 50
# What approx_distinct promises for sets of some size.
ABOUT = 0.05
# A derived stream that does not say has the lateness of one that does not say.
DERIVED_LATENESS_MS = 10_000


def get(http, path, **query):
    with urllib.request.urlopen(f"http://{http}{path}?{urllib.parse.urlencode(query)}", timeout=120) as answer:
        return json.load(answer)


def caught_up(http, view, wait_ms):
    """Returns once a view has applied everything; thirty of them on a busy machine may need more than one wait."""
    deadline = time.monotonic() + 300
    while True:
        try:
            return get(http, f"/v1/views/{view}", wait=wait_ms, limit=1)
        except urllib.error.HTTPError as error:
            if error.code != 503 or time.monotonic() > deadline:
                raise


def equal(a, b):
    if isinstance(a, float) or isinstance(b, float):
        return a is not None and b is not None and math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9)
    return a == b


def close(a, b):
    return a is not None and b is not None and abs(a - b) <= max(1, ABOUT * a)


def rows_of(database, sql):
    cursor = database.execute(sql)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, map(plain, row))) for row in cursor.fetchall()]


def plain(value):
    return int(value) if hasattr(value, "as_integer_ratio") and not isinstance(value, (int, float)) else value


class Oracle:
    def __init__(self, args):
        self.args = args
        self.stream = log.Stream(args.system, args.stream, args.registry)
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
        self.database.execute("CREATE TABLE data_quality (stream TEXT, action TEXT, records BIGINT)")
        self.database.executemany("INSERT INTO data_quality VALUES (?, ?, ?)",
                                  [(self.stream.name, "accept", len(valid)), (self.stream.name, "reject", len(wanted))])
        self.report |= {"valid": len(valid), "rejected": len(found)}

    def check_enriched(self, name):
        """The derived stream against what its description says; then it is a table for its views."""
        people = enrichment.newest(log.dump(self.args.bootstrap, "listeners"), "user_id")
        wanted = enrichment.wanted(self.database, enrichment.countries(self.stream.config), people)
        found = enrichment.found(log.dump(self.args.bootstrap, name))
        columns = {column: [] for column in enrichment.FIELDS + enrichment.ADDED + ["_partition", "_offset"]}
        for partition in sorted(set(wanted) | set(found)):
            want, have = wanted.get(partition, []), found.get(partition, [])
            if len(want) != len(have):
                self.wrong(f"{name}: partition {partition} has {len(have)} of {len(want)} events")
            for row, (offset, served) in zip(want, have):
                if any(row[column] != served.get(column) for column in row) or set(served) - set(row):
                    self.wrong(f"{name}: {partition}-{offset}: computed {row}, written {served}")
                for column, value in (row | {"_partition": partition, "_offset": offset}).items():
                    columns[column].append(value)
        self.database.register(f"{name}_rows", pyarrow.table(columns))
        self.database.execute(f"CREATE TABLE {name} AS SELECT * FROM {name}_rows")
        kinds = lambda column: len(set(columns[column]))
        self.report["enriched"] = {column: kinds(column) for column in enrichment.ADDED}

    def check_late(self, view, table):
        """The late rows of a view as a DuckDB table `late_<view>`."""
        name = view.name
        late = log.places(log.dump(self.args.bootstrap, f"{name}.late"))
        if len(late) != len(set(late)):
            self.wrong(f"{name}: late twice: {[p for p, n in collections.Counter(late).items() if n > 1][:5]}")
        self.database.execute(f"CREATE TABLE late_{name} (_partition INTEGER, _offset BIGINT)")
        if late:
            self.database.executemany(f"INSERT INTO late_{name} VALUES (?, ?)", late)
            time = self.stream.event_time
            ended = f"{view.ended(time)} + {self.stream.lateness_ms if table == 'valid' else DERIVED_LATENESS_MS}"
            early = self.database.execute(
                f"SELECT count(*), count(*) FILTER ({ended} > (SELECT max({time}) FROM {table})) FROM late_{name} l "
                f"JOIN {table} v USING (_partition, _offset)").fetchone()
            if early[0] != len(late):
                self.wrong(f"{name}: {len(late) - early[0]} late rows are not accepted rows of the log")
            if early[1]:
                self.wrong(f"{name}: {early[1]} rows are called late though no event is past the end of their window")
        self.report["late"][name] = len(late)

    def check_view(self, view):
        name, table = view.name, "valid" if view.source == self.stream.name else view.source
        self.check_late(view, table)
        self.database.execute(f"CREATE VIEW source_{name} AS SELECT * FROM {table} ANTI JOIN late_{name} USING (_partition, _offset)")
        self.database.execute(f"CREATE TABLE {name} AS {view.sql.format(source=f'source_{name}')}")
        wanted = rows_of(self.database, f"SELECT * FROM {name}")
        self.expected[name] = (view, wanted)
        answer = get(self.args.http, f"/v1/views/{name}", wait=self.args.wait_ms, limit=100_000)
        names = [column["name"] for column in answer["columns"]]
        found = [dict(zip(names, row)) for row in answer["rows"]]
        # Exact decimals come as text, so that no reader rounds them.
        for column in (c["name"] for c in answer["columns"] if c["type"].startswith("DECIMAL")):
            for row in found:
                row[column] = None if row[column] is None else int(row[column])
        for row in found:
            if view.is_windowed:
                row["window_start"] = log.time_ms(row["window_start"])
                if log.time_ms(row.pop("window_end")) != view.end_of(row["window_start"]):
                    self.wrong(f"{name}: a window of another length: {row}")
        identity = (["window_start"] if view.is_windowed else []) + view.keys
        place = lambda row: tuple(row[k] for k in identity)
        wanted_by, found_by = {place(r): r for r in wanted}, {place(r): r for r in found}
        if len(found_by) != len(found):
            self.wrong(f"{name}: {len(found) - len(found_by)} groups are there twice")
        for key in sorted(set(wanted_by) ^ set(found_by), key=str)[:5]:
            self.wrong(f"{name}: group {key}: computed {wanted_by.get(key)}, served {found_by.get(key)}")
        for key in set(wanted_by) & set(found_by):
            for column, value in wanted_by[key].items():
                if not (close if column in view.about else equal)(value, found_by[key].get(column)):
                    self.wrong(f"{name}: {key}.{column}: computed {value}, served {found_by[key].get(column)}")
        ends = dict(self.database.execute(f"SELECT _partition, 1 + max(_offset) FROM {table} GROUP BY 1").fetchall())
        if table == "valid":
            ends = {p: 1 + max(r[1] for r in self.records if r[0] == p) for p in {r[0] for r in self.records}}
        topic = self.stream.topic if table == "valid" else table
        if {int(p): o for p, o in answer["offsets"].get(topic, {}).items() if o} != ends:
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

    def check_dashboard(self, name):
        path = f"/v1/dashboards/{name}"
        panels = get(self.args.http, path)["panels"]
        low, high = self.args.start, self.args.end
        pages = json.load(open(self.args.shown)) if self.args.shown else {}
        read = next((panels for page, panels in pages.items() if page.split("?")[0] == name), None)
        for number, panel in enumerate(panels):
            data = get(self.args.http, f"{path}/panels/{number}", **{"from": low, "to": high, "wait": self.args.wait_ms})
            at = f"panel {number} of {name} \"{panel['title']}\""
            if data.get("truncated"):
                self.wrong(f"{at}: cut at the row limit")
            columns = [column["name"] for column in data["columns"]]
            moments = {k for k, column in enumerate(data["columns"]) if column["type"] == "TIMESTAMP"}
            about = {k for k, column in enumerate(columns) if self.is_about(panel, column)}
            served = [[plain_cell(c, k in moments) for k, c in enumerate(row)] for row in data["rows"]]
            wanted, rest = self.sql_panel(panel) if panel["sql"] else self.view_panel(panel, columns)
            fits = lambda a, b: len(a) == len(b) and all((close if k in about else equal)(*pair) for k, pair in enumerate(zip(a, b)))
            if len(served) != len(wanted) or not all(map(fits, wanted, served)):
                self.wrong(f"{at}: computed {wanted[:8]}… ({len(wanted)}), served {served[:8]}… ({len(served)})")
            if rest is not None and data["rest"] != rest:
                self.wrong(f"{at}: the others add up to {rest}, served {data['rest']}")
            if read is not None:
                wanted = [[shown.Time(c) if k in moments and c is not None else c for k, c in enumerate(row)] for row in wanted]
                found = read[number] if number < len(read) else None
                for difference in shown.differences(found, wanted, {k: ABOUT for k in about}):
                    self.wrong(f"{at}: the page {difference}")
                self.report["shown"] = self.report.get("shown", 0) + 1
        self.report["panels"] = self.report.get("panels", 0) + len(panels)

    def is_about(self, panel, column):
        """Whether a panel's column comes from approx_distinct."""
        views = [view for view, _ in self.expected.values() if column in view.about]
        return any(panel["view"] == view.name or re.search(rf"\b{view.name}\b", panel["sql"] or "") for view in views)

    def sql_panel(self, panel):
        sql = panel["sql"].replace(f"FROM {self.stream.name}", "FROM valid").replace("$from", str(self.args.start)).replace("$to", str(self.args.end))
        sql = re.sub(r"CAST\(window_start AS DATE\)", "CAST(make_timestamp(window_start * 1000) AS DATE)", sql)
        return [[plain(c) for c in row] for row in self.database.execute(sql).fetchall()], None

    def view_panel(self, panel, columns):
        """The panel's rows from the computed view: rows that fall together are added up, the largest are kept."""
        view, rows = self.expected[panel["view"]]
        if panel["kind"] == "table" and not panel["x"]:
            newest = sorted(rows, key=lambda row: -row["window_start"])[: panel["top"] or TABLE_ROWS]
            ends = [row | {"window_end": view.end_of(row["window_start"])} for row in newest]
            return [[row[column] for column in columns] for row in ends], None
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


def plain_cell(cell, is_moment):
    if is_moment:
        return log.time_ms(cell)
    if isinstance(cell, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", cell):
        return datetime.date.fromisoformat(cell)
    # A DECIMAL is written as text.
    if isinstance(cell, str) and re.fullmatch(r"-?\d+(\.\d+)?", cell):
        return int(cell) if cell.lstrip("-").isdigit() else float(cell)
    return round(cell) if isinstance(cell, float) and cell.is_integer() else cell


def payload_of(event):
    return bytes.fromhex(event["value_hex"]) if "value_hex" in event else event["value"].encode()


def main():
    parser = argparse.ArgumentParser()
    for name in ("bootstrap", "http", "system", "stream"):
        parser.add_argument(name)
    parser.add_argument("--sent")
    parser.add_argument("--enriched")
    parser.add_argument("--registry")
    parser.add_argument("--dashboard", action="append", default=[])
    parser.add_argument("--from", dest="start", type=int, default=0)
    parser.add_argument("--to", dest="end", type=int, default=4_102_444_800_000)
    parser.add_argument("--shown")
    parser.add_argument("--wait-ms", type=int, default=10_000)
    oracle = Oracle(parser.parse_args())
    args = oracle.args
    if args.sent:
        oracle.check_sent()
    for view in oracle.stream.views():
        caught_up(args.http, view.name, args.wait_ms)
        oracle.check_view(view)
    # After the views, whose reads wait until the engine has applied everything.
    oracle.check_rejected()
    if args.enriched:
        # A read of a view over it waits until the stream and the view have applied everything.
        for view in oracle.stream.views(over=args.enriched):
            caught_up(args.http, view.name, args.wait_ms)
        oracle.check_enriched(args.enriched)
        for view in oracle.stream.views(over=args.enriched):
            oracle.check_view(view)
    for dashboard in args.dashboard:
        oracle.check_dashboard(dashboard)
    print(json.dumps({"mistakes": oracle.mistakes, **oracle.report}))


main()
