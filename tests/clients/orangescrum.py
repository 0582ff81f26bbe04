"""Recomputes from the raw topics what Millpond serves of the project-management system, and lists every difference.

    orangescrum.py BOOTSTRAP HTTP REGISTRY [--day DAY --lake DIR [--shown FILE]]

Nothing here comes from Millpond: raw records are read with librdkafka and decoded with fastavro by the schemas of the registry; the rules
below were written from the system's description. With --day and --lake the files of the warehouse and every panel of the three dashboards
are compared, too; with --shown as `panels.js` read them in Chromium. Prints {"mistakes": [...], ...counts} on stdout.
"""
import argparse
import collections
import datetime
import io
import json
import urllib.error
import urllib.request

import duckdb
import fastavro
import log
import shown

EVENTS = {"task_created", "task_moved", "task_commented", "task_closed", "time_logged", "login"}
MAX_AHEAD_MS = 3_600_000
MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
# what approx_distinct promises for sets of this size
DISTINCT_TOLERANCE = 0.05


def get(url):
    with urllib.request.urlopen(url, timeout=120) as answer:
        return json.load(answer)


def post(url, body):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)


class Oracle:
    def __init__(self, args):
        self.args, self.mistakes, self.told, self.schemas = args, [], collections.Counter(), {}
        self.report = {}

    def wrong(self, text):
        kind = text.split(":")[0]
        self.told[kind] += 1
        if self.told[kind] <= 10:
            self.mistakes.append(text)

    def same(self, what, wanted, found):
        if wanted != found:
            self.wrong(f"{what}: computed {wanted!r}, served {found!r}")

    def same_groups(self, what, wanted, found):
        for key in sorted(set(wanted) | set(found), key=str):
            if wanted.get(key) != found.get(key):
                self.wrong(f"{what}: {key}: computed {wanted.get(key)}, served {found.get(key)}")
        self.report[what] = len(wanted)

    def decode(self, value, timestamp):
        """An accepted event, or None."""
        if value is None or len(value) < 5 or value[0] != 0:
            return None
        schema_id = int.from_bytes(value[1:5], "big")
        if schema_id not in self.schemas:
            try:
                text = get(f"{self.args.registry}/schemas/ids/{schema_id}")["schema"]
                self.schemas[schema_id] = fastavro.parse_schema(json.loads(text))
            except urllib.error.HTTPError:
                self.schemas[schema_id] = None
        if self.schemas[schema_id] is None:
            return None
        event = fastavro.schemaless_reader(io.BytesIO(value[5:]), self.schemas[schema_id])
        at = log.time_ms(event["ts"])
        if at is None or at > timestamp + MAX_AHEAD_MS or event["event"] not in EVENTS or event["user_id"] <= 0:
            return None
        if event["minutes"] is not None and not 1 <= event["minutes"] <= 1440:
            return None
        return event | {"at": at, "versions": schema_id}

    def events(self):
        """Accepted raw events in log order; the stream must have refused all others."""
        raw = log.dump(self.args.bootstrap, "events-raw")
        accepted, refused = [], set()
        for partition, offset, timestamp, _, value, _ in sorted(raw, key=lambda r: r[:2]):
            event = self.decode(value, timestamp)
            if event is None:
                refused.add((partition, offset))
            else:
                accepted.append(event | {"partition": partition})
        found = log.places(log.dump(self.args.bootstrap, "raw_events.rejected"))
        self.same("rejected", sorted(refused), sorted(found))
        versions = collections.Counter(event["versions"] for event in accepted)
        self.report |= {"raw": len(raw), "accepted": len(accepted), "rejected": len(refused), "versions": len(versions)}
        return accepted

    def latest(self, topic, key):
        """A table: the newest record of each key."""
        rows = {}
        for record in sorted(log.dump(self.args.bootstrap, topic), key=lambda r: r[:2]):
            try:
                row = json.loads(record[4])
            except (TypeError, ValueError):
                continue
            if isinstance(row, dict) and isinstance(row.get(key), int):
                rows[row[key]] = row
        return rows

    def activities(self, events):
        people, projects = self.latest("orangescrum-users", "user_id"), self.latest("orangescrum-projects", "project_id")
        seen, wanted = {}, {}
        duplicates = 0
        for event in events:
            name = event["event_id"]
            if name in seen:
                duplicates += 1
                continue
            seen[name] = event["at"]
            person, project = people.get(event["user_id"], {}), projects.get(event["project_id"], {})
            wanted[name] = {
                "event": event["event"], "user_id": event["user_id"], "project_id": event["project_id"], "task_id": event["task_id"],
                "minutes": event["minutes"], "client": event.get("client") or "unknown", "team": person.get("team") or "unknown",
                "office": person.get("office"), "project": project.get("name"), "customer": project.get("client_name"), "at": event["at"],
            }
        found = {}
        self.rows = []
        for partition, offset, _, _, value, _ in log.dump(self.args.bootstrap, "activities"):
            row = json.loads(value)
            name = row["event_id"]
            if name in found:
                self.wrong(f"activities: {name} is there twice")
            found[name] = {key: row.get(key) for key in next(iter(wanted.values())) if key != "at"} | {"at": log.time_ms(row["ts"])}
            self.rows.append(found[name] | {"place": (partition, offset), "event_id": name})
        self.same_groups("activities", wanted, found)
        refused = log.places(log.dump(self.args.bootstrap, "activities.rejected"))
        self.same("duplicates", duplicates, len(refused))
        self.report["duplicates"] = duplicates

    def view(self, name):
        answer = get(f"http://{self.args.http}/v1/views/{name}?wait=10000&limit=100000")
        names = [column["name"] for column in answer["columns"]]
        return [dict(zip(names, row)) for row in answer["rows"]]

    def rows_in_time(self, view):
        late = set(log.places(log.dump(self.args.bootstrap, f"{view}.late")))
        return [row for row in self.rows if row["place"] not in late]

    def check_views(self):
        number = lambda value: None if value is None else int(value)
        wanted, people = collections.Counter(), collections.defaultdict(set)
        for row in self.rows_in_time("activity_by_event_minute"):
            key = (row["at"] - row["at"] % MINUTE_MS, row["event"])
            wanted[key] += 1
            people[key].add(row["user_id"])
        served = {(log.time_ms(r["window_start"]), r["event"]): r for r in self.view("activity_by_event_minute")}
        self.same_groups("activity_by_event_minute", dict(wanted), {key: row["events"] for key, row in served.items()})
        for key, row in served.items():
            if abs(row["people"] - len(people[key])) > max(1, DISTINCT_TOLERANCE * len(people[key])):
                self.wrong(f"people: {key}: computed {len(people[key])}, served {row['people']}")
        wanted = {}
        for row in self.rows_in_time("projects_by_day"):
            sums = wanted.setdefault((row["at"] - row["at"] % DAY_MS, row["project_id"]), [0, 0, None, 0])
            sums[0] += row["event"] == "task_created"
            sums[1] += row["event"] == "task_closed"
            if row["event"] == "time_logged" and row["minutes"] is not None:
                sums[2] = (sums[2] or 0) + row["minutes"]
            sums[3] += 1
        served = {(log.time_ms(r["window_start"]), r["project_id"]): [r["created"], r["closed"], number(r["minutes"]), r["events"]]
                  for r in self.view("projects_by_day")}
        self.same_groups("projects_by_day", wanted, served)

    def sql(self, sql):
        return post(f"http://{self.args.http}/v1/sql", {"sql": sql})["rows"]

    def check_sql(self):
        """History and live rows under one name."""
        teams = collections.defaultdict(lambda: [0, set(), 0])
        for row in self.rows:
            sums = teams[row["team"]]
            sums[0] += 1
            sums[1].add(row["user_id"])
            sums[2] += row["minutes"] or 0
        wanted = {team: [events, len(people), minutes] for team, (events, people, minutes) in teams.items()}
        rows = self.sql("SELECT team, count(*) AS events, count(DISTINCT user_id) AS people, coalesce(sum(minutes), 0) AS minutes FROM activities GROUP BY team")
        self.same_groups("teams by sql", wanted, {row[0]: [row[1], row[2], int(row[3])] for row in rows})

    def check_warehouse(self):
        """The star schema's Parquet, read by DuckDB from the directories, after the job of the day."""
        start = int(datetime.datetime.fromisoformat(self.args.day).replace(tzinfo=datetime.timezone.utc).timestamp() * 1000)
        of_day = [row for row in self.rows if start <= row["at"] < start + DAY_MS]
        table = lambda name: f"read_parquet('{self.args.lake}/processed/{name}/**/*.parquet', hive_partitioning = true)"
        database = duckdb.connect()
        facts = database.execute(f"SELECT event_id, event, user_id, project_id FROM {table('fact_activities')} WHERE date = '{self.args.day}'").fetchall()
        self.same("facts", sorted((r["event_id"], r["event"], r["user_id"], r["project_id"]) for r in of_day), sorted(facts))
        wanted = collections.Counter((row["project_id"], row["team"]) for row in of_day)
        found = database.execute(f"SELECT project_id, team, events FROM {table('agg_daily_metrics')} WHERE date = '{self.args.day}'").fetchall()
        self.same_groups("agg_daily_metrics", dict(wanted), {(p, t): e for p, t, e in found})
        people = self.latest("orangescrum-users", "user_id")
        current = database.execute(f"SELECT user_id, team FROM {table('dim_users')} WHERE is_current").fetchall()
        self.same_groups("dim_users", {user: row["team"] for user, row in people.items()}, dict(current))
        versions = database.execute(f"SELECT count(*), count(DISTINCT user_id) FROM {table('dim_users')}").fetchone()
        dates = database.execute(f"SELECT count(*), count(DISTINCT date_key) FROM {table('dim_dates')}").fetchone()
        self.same("dim_dates", (1461, 1461), dates)
        self.report |= {"facts": len(facts), "dim_users": list(versions)}
        return start


    def own_rows(self, topic, stream, keep):
        """Accepted records of a topic of plain JSON, with their places; the stream must have refused all others."""
        accepted, refused = [], []
        for partition, offset, timestamp, _, value, _ in log.dump(self.args.bootstrap, topic):
            try:
                row = json.loads(value)
            except (TypeError, ValueError):
                row = None
            at = log.time_ms(row.get("ts")) if isinstance(row, dict) else None
            if at is None or at > timestamp + MAX_AHEAD_MS or not keep(row):
                refused.append((partition, offset))
            else:
                accepted.append(row | {"at": at, "place": (partition, offset)})
        self.same(f"{topic} rejected", sorted(refused), sorted(log.places(log.dump(self.args.bootstrap, f"{stream}.rejected"))))
        return accepted, len(refused)

    def in_time(self, rows, view):
        late = log.places(log.dump(self.args.bootstrap, f"{view}.late"))
        return [row for row in rows if row["place"] not in set(late)], len(late)

    def live(self, quality):
        """Title → rows of the page of now, over the whole day."""
        text = lambda value: isinstance(value, str) and value != ""
        lines, bad_lines = self.own_rows("logs", "app_logs", lambda row: text(row.get("service")) and text(row.get("level")))
        is_number = lambda value: isinstance(value, (int, float)) and not isinstance(value, bool)
        measures, bad_measures = self.own_rows("metrics", "app_metrics", lambda row: is_number(row.get("value")))
        for stream, accepted, refused in (("app_logs", lines, bad_lines), ("app_metrics", measures, bad_measures)):
            quality[stream, "accept"], quality[stream, "reject"] = len(accepted), refused
        events = self.rows_in_time("activity_by_event_minute")
        lines, late_lines = self.in_time(lines, "log_levels_minute")
        measures, late_measures = self.in_time(measures, "host_metrics_minute")
        quality["app_logs", "late"], quality["app_metrics", "late"] = late_lines, late_measures
        minute = lambda row: row["at"] - row["at"] % MINUTE_MS
        levels = collections.Counter((line["level"], minute(line)) for line in lines)
        kinds = collections.Counter((event["event"], minute(event)) for event in events)
        heights = {}
        for row in measures:
            key = (row["host"], minute(row))
            heights[key] = max(row["value"], heights.get(key, row["value"]))
        people = collections.defaultdict(set)
        for row in self.rows:
            people[row["team"]].add(row["user_id"])
        return {
            "Events": [[len(events)]],
            "Events per minute": series(kinds),
            "Active people by team": sorted(([team, len(users)] for team, users in people.items()), key=lambda row: (-row[1], row[0])),
            "Log lines by level": series(levels),
            "Highest load of the hosts": series(heights),
        }

    def projects(self, team=None):
        """Title → rows of the page of projects."""
        rows = [row for row in self.rows if team in (None, row["team"])]
        count = lambda rows, event: sum(row["event"] == event for row in rows)
        minutes = lambda rows: sum(row["minutes"] or 0 for row in rows if row["event"] == "time_logged")
        groups = collections.defaultdict(list)
        for row in rows:
            groups[row["project"], row["customer"]].append(row)
        ranked = sorted(groups.items(), key=lambda pair: (-len(pair[1]), pair[0][0]))
        rank = lambda size: 1 + sum(len(other) > size for other in groups.values())
        table = [[project, customer, len(of), len({row["user_id"] for row in of}), count(of, "task_created"), count(of, "task_closed"),
                  int(minutes(of) / 60.0 * 10 + 0.5) / 10, rank(len(of))] for (project, customer), of in ranked]
        return {
            "Tasks created": [[count(rows, "task_created")]],
            "Tasks closed": [[count(rows, "task_closed")]],
            "Hours logged": [[minutes(rows) / 60.0]],
            "Closed of created": [[100.0 * count(rows, "task_closed") / count(rows, "task_created")]],
            "Projects": table[:20],
        }

    def warehouse(self):
        """Title → rows of the page of the warehouse; the versions of people as the files have them, which are compared above."""
        date = datetime.date.fromisoformat(self.args.day)
        people = duckdb.sql(f"SELECT user_id, name, team, epoch_ms(valid_from), epoch_ms(valid_to), is_current FROM "
                            f"read_parquet('{self.args.lake}/processed/dim_users/**/*.parquet', hive_partitioning = true) "
                            "ORDER BY user_id, valid_from LIMIT 50").fetchall()
        day = [row for row in self.rows if row["at"] // DAY_MS == (date - datetime.date(1970, 1, 1)).days]
        return {"Events by day": [[date, len(day)]], "Versions of people": [list(row) for row in people]}

    def check_quality(self, page, quality):
        """The page's counters, added up by stream and action."""
        data = get(f"http://{self.args.http}/v1/dashboards/orangescrum-warehouse/panels/2")
        found, written = collections.Counter(), collections.Counter()
        for _, stream, _, action, records in data["rows"]:
            found[stream, action] += records
        for _, stream, _, action, records in page["rows"] if page else []:
            written[stream, action] += int(records.replace(",", ""))
        for what, counts in (("quality", found), ("quality on the page", written)) if page else (("quality", found),):
            self.same_groups(what, {key: count for key, count in quality.items() if count}, dict(counts))

    def check_pages(self, events, start):
        """Three dashboards; the one of projects for everybody and for one team."""
        pages = json.load(open(self.args.shown)) if self.args.shown else None
        quality = {("raw_events", "accept"): len(events), ("raw_events", "reject"): self.report["rejected"],
                   ("activities", "accept"): len(self.rows), ("activities", "reject"): self.report["duplicates"]}
        late = [len(log.dump(self.args.bootstrap, f"{view}.late")) for view in ("activity_by_event_minute", "activity_by_team_hour", "projects_by_day")]
        quality["activities", "late"] = sum(late)
        day = {"from": start, "to": start + DAY_MS}
        warehouse = self.warehouse()
        looks = [("orangescrum-live", self.live(quality), day), ("orangescrum-projects", self.projects(), day),
                 ("orangescrum-projects", self.projects("mobile"), {"team": "mobile"} | day), ("orangescrum-warehouse", warehouse, {})]
        compared = 0
        for name, expected, query in looks:
            if name == "orangescrum-warehouse":
                # Which rule counts on which day is the engine's to say; the sums are not.
                answer = get(f"http://{self.args.http}/v1/dashboards/{name}/panels/2")["rows"]
                expected["Data quality"] = [[datetime.date.fromisoformat(row[0]), *row[1:]] for row in answer]
                expected |= {"Stored and scanned": None, "Bytes read per minute": None}
                self.check_quality(pages[name][2] if pages else None, quality)
            wrong, panels = shown.compare(self.args.http, name, expected, pages, **query)
            self.mistakes += wrong
            compared += panels
        self.report |= {"panels": compared, "late": sum(late)}


def series(values):
    """{(series, x): number} as a panel has it: the largest series first, each in the order of x."""
    totals = collections.Counter()
    for (name, _), value in values.items():
        totals[name] += value
    rank = {name: at for at, name in enumerate(sorted(totals, key=lambda name: (-totals[name], json.dumps(name))))}
    return [[at, name, values[name, at]] for name, at in sorted(values, key=lambda key: (rank[key[0]], key[1]))]


def main():
    parser = argparse.ArgumentParser()
    for name in ("bootstrap", "http", "registry"):
        parser.add_argument(name)
    for name in ("--day", "--lake", "--shown"):
        parser.add_argument(name)
    oracle = Oracle(parser.parse_args())
    for view in ("activity_by_event_minute", "activity_by_team_hour", "projects_by_day", "log_levels_minute", "host_metrics_minute"):
        oracle.view(view)  # waits until everything is applied
    events = oracle.events()
    oracle.activities(events)
    oracle.check_views()
    oracle.check_sql()
    if oracle.args.day:
        start = oracle.check_warehouse()
        oracle.check_pages(events, start)
    print(json.dumps({"mistakes": oracle.mistakes, **oracle.report}))


main()
