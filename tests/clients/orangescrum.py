"""Recomputes from the raw topics what Millpond serves of the project-management system, and lists every difference.

    orangescrum.py BOOTSTRAP HTTP REGISTRY [--day DAY --lake DIR]

Nothing here comes from Millpond: raw records are read with librdkafka and decoded with fastavro by the schemas of the registry; the rules
below were written from the system's description. Prints {"mistakes": [...], ...counts} on stdout.
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


def main():
    parser = argparse.ArgumentParser()
    for name in ("bootstrap", "http", "registry"):
        parser.add_argument(name)
    parser.add_argument("--day")
    parser.add_argument("--lake")
    oracle = Oracle(parser.parse_args())
    oracle.view("activity_by_event_minute")  # waits until everything is applied
    oracle.activities(oracle.events())
    oracle.check_views()
    oracle.check_sql()
    if oracle.args.day:
        oracle.check_warehouse()
    print(json.dumps({"mistakes": oracle.mistakes, **oracle.report}))


main()
