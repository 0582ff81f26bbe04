"""Recomputes from the raw files what Millpond serves of the freelance system, and lists every difference.

    freelance.py BOOTSTRAP HTTP FOLDER [--postgres URL] [--pages OUT.json] [--quick]

Compared are: the topics with their partitions, the refused rows with their rules, data quality per rule and day, every panel of the three
dashboards under several filters, the spreadsheets, the views, and the tables in PostgreSQL. The rules of the files are in
freelance_files.py, those of the figures below, both written from the system's description. `--pages` writes what a browser must see.
Prints {"mistakes": [...], ...counts} on stdout.
"""
import argparse
import collections
import datetime
import io
import json
import pathlib
import subprocess
import urllib.parse
import urllib.request

import freelance_figures as figures
import freelance_files
import log
import openpyxl

DAY = datetime.timedelta(days=1)
SOURCES = {"factures": "Factures", "profils": "Profils", "missions": "Missions"}
VIEWS = {"revenu_par_freelance": ("id_freelance", None), "revenu_par_mois": (None, "month"), "revenu_par_competence_mois": ("competence", "month"),
         "factures_par_jour": (None, "day")}


def cell(value):
    """A value as it is compared: numbers as floats, days as ISO text."""
    if isinstance(value, datetime.datetime):
        return value.strftime("%Y-%m-%d")
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, str):
        return value[:10] if value.endswith("T00:00:00Z") else value
    return float(value)


def same_cell(wanted, found):
    wanted, found = cell(wanted), cell(found)
    if isinstance(wanted, float):
        try:
            return abs(float(found) - wanted) <= 1e-6 + 1e-9 * abs(wanted)
        except (TypeError, ValueError):
            return False
    return wanted == found


def same_rows(wanted, found):
    return len(wanted) == len(found) and all(len(a) == len(b) and all(map(same_cell, a, b)) for a, b in zip(wanted, found))


class Oracle:
    def __init__(self, args):
        self.args, self.mistakes, self.told, self.report = args, [], collections.Counter(), {}
        self.read = freelance_files.read(args.folder)
        self.today = datetime.datetime.now(datetime.timezone.utc).date()
        self.topics = {topic["name"] for topic in self.get("/v1/topics")["topics"]}

    def wrong(self, text):
        kind = text.split(":")[0]
        self.told[kind] += 1
        if self.told[kind] <= 8:
            self.mistakes.append(text)

    def get(self, path, raw=False):
        with urllib.request.urlopen(f"http://{self.args.http}{path}", timeout=120) as answer:
            return answer.read() if raw else json.load(answer)

    def dump(self, topic):
        return log.dump(self.args.bootstrap, topic) if topic in self.topics else []

    def same(self, what, wanted, found):
        wanted, found = collections.Counter(wanted), collections.Counter(found)
        for one in sorted(wanted - found, key=str):
            self.wrong(f"{what}: should be there and is not: {one}")
        for one in sorted(found - wanted, key=str):
            self.wrong(f"{what}: is there and should not: {one}")

    def check_topics(self):
        """Each good row once, field by field, in its partition; each bad one once, with its place, rule and reason."""
        for name, topic in SOURCES.items():
            read, found = self.read[name], []
            for partition, _, _, key, value, _ in self.dump(topic):
                row = json.loads(value)
                found.append((partition, key.decode(), self.flat(row)))
                if name == "profils" and log.time_ms(row["recu"]) is None:
                    self.wrong(f"recu: {row}")
            wanted = []
            for row in read.good:
                number = row["id_freelance" if name == "factures" else "id"] if name != "missions" else None
                place = 0 if number is None or number <= 500 else 1
                wanted.append((place, str(row["mission"] if number is None else number), self.flat(row)))
            self.same(topic, wanted, found)
            refused = []
            for _, _, _, _, value, headers in self.dump(f"fichiers-{name}.rejected"):
                last = {key: text.decode() for key, text in headers}
                if not last.get("reason"):
                    self.wrong(f"reason: a refused row does not say why: {last}")
                refused.append((pathlib.PurePath(last["file"]).name, int(last["line"]), last["rule"], value or b""))
            self.same(f"{topic} refused", read.refused, refused)
            self.report[name] = {"good": len(read.good), "refused": len(read.refused), "skipped": read.skipped,
                                 "rules": collections.Counter(rule for _, _, rule, _ in read.refused)}

    @staticmethod
    def flat(row):
        """A row as text: numbers alike however they are written, days without their midnight, the time of publishing left out."""
        def text(value):
            value = cell(value)
            return f"{value:.2f}" if isinstance(value, float) else f"{value[:10]}" if isinstance(value, str) and value[10:11] == "T" else str(value)
        numbers = ("montant", "tarif_jour", "id", "id_freelance", "jours")
        value = lambda name, value: float(value) if name in numbers and value is not None else value
        return json.dumps({name: text(value(name, row[name])) for name in sorted(row) if name != "recu"}, ensure_ascii=False)

    def check_quality(self):
        """Per rule and day: what the files' rules and the streams' rules did, all of it today."""
        found = {}
        for count in self.get("/v1/quality")["quality"]:
            if count["day"] not in {str(self.today), str(self.today - DAY)}:
                self.wrong(f"quality: nothing was loaded on {count}")
            key = count["stream"], count["action"], count["rule"]
            found[key] = found.get(key, 0) + int(count["records"])
        for name in SOURCES:
            read, wanted = self.read[name], collections.Counter(rule for _, _, rule, _ in self.read[name].refused)
            rules = {("accept", "accepted"): len(read.good), ("skip", "duplicate"): read.skipped} | {("reject", rule): n for rule, n in wanted.items()}
            got = {key[1:]: n for key, n in found.items() if key[0] == f"fichiers-{name}"}
            self.same(f"quality of {name}", [(k, n) for k, n in rules.items() if n], got.items())
            if found.get((name, "accept", "accepted")) != len(read.good):
                self.wrong(f"quality: the stream {name} accepted {found.get((name, 'accept', 'accepted'))}, not {len(read.good)}")
        rows = self.post("/v1/sql", {"sql": "SELECT CAST(sum(records) AS BIGINT) FROM data_quality WHERE stream = 'fichiers-factures' AND action = 'reject'"})
        self.same("quality by sql", [len(self.read["factures"].refused)], [rows["rows"][0][0]])

    def post(self, path, body):
        request = urllib.request.Request(f"http://{self.args.http}{path}", json.dumps(body).encode(), {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)

    def late(self, view):
        """The invoices that came too late for a view; they must be of a window that ended long before the newest one."""
        places = set(log.places(self.dump(f"{view}.late")))
        found = set()
        for partition, offset, _, _, value, _ in self.dump("Factures"):
            if (partition, offset) in places:
                row = json.loads(value)
                found.add(row["facture"])
                if datetime.date.fromisoformat(row["emise"][:10]) > self.today - datetime.timedelta(days=3650):
                    self.wrong(f"late: {view} took {row['facture']} of {row['emise']} for late")
        return found

    def check_views(self):
        self.lateness = {}
        for view, (key, window) in VIEWS.items():
            late = self.late(view)
            self.lateness[view] = len(late)
            wanted = {}
            for row in self.read["factures"].good:
                if row["facture"] in late:
                    continue
                start = None if window is None else row["emise"].replace(day=1) if window == "month" else row["emise"]
                sums = wanted.setdefault((start, row[key] if key else None), [0, 0, None])
                sums[0] += 1
                sums[1] += row["montant"]
                sums[2] = sums[2] if row["jours"] is None else (sums[2] or 0) + row["jours"]
            answer = self.get(f"/v1/views/{view}?wait=30s&limit=100000")
            names = [column["name"] for column in answer["columns"]]
            found = {}
            for row in answer["rows"]:
                row = dict(zip(names, row))
                place = cell(row.get("window_start")), row[key] if key else None
                found[place] = [row["factures"], row["revenu"], row["jours"] if "jours" in row else None]
            for place in {(cell(start), k) for start, k in wanted} | set(found):
                want = next((sums for (start, k), sums in wanted.items() if (cell(start), k) == place), None) if place not in found else \
                    wanted.get((datetime.date.fromisoformat(place[0]) if place[0] else None, place[1]))
                got = found.get(place)
                if want is None or got is None or not same_rows([want if "jours" in names else want[:2] + [None]], [got]):
                    self.wrong(f"{view}: {place}: computed {want}, served {got}")
            self.report[view] = len(found)
        self.report["late"] = self.lateness

    def check_dashboards(self):
        skills = sorted({row["competence"] for row in self.read["factures"].good if row["competence"]})
        busiest = collections.Counter(row["competence"] for row in self.read["factures"].good).most_common(1)[0][0]
        chosen = [{}, {"periode": "all"}, {"periode": "3mo", "competence": busiest}, {"periode": "1mo"}, {"periode": "all", "competence": "CI/CD"},
                  {"competence": "' OR '1'='1"}]
        pages, compared = [], 0
        for dashboard, filters in (("freelance-finance", chosen), ("freelance-ressources", [{}, {"competence": busiest}]), ("freelance-direct", [{}])):
            for given in filters[:1] if self.args.quick else filters:
                wanted = figures.of(dashboard, self.read, self.today, given)
                query = urllib.parse.urlencode(given)
                answer = self.get(f"/v1/dashboards/{dashboard}?fresh=true&{query}")
                shown = {panel["title"]: panel for panel in answer["panels"]}
                for title, (rows, status) in wanted.items():
                    compared += self.check_panel(f"{dashboard} {given} {title}", rows, status, shown[title])
                self.check_special(dashboard, given, shown, set(shown) - set(wanted))
                self.check_sheets(f"/v1/dashboards/{dashboard}?format=xlsx&{query}", {title: rows for title, (rows, _) in wanted.items()}, shown)
                pages.append({"dashboard": dashboard, "query": query,
                              "panels": {title: {"kind": shown[title]["kind"], "rows": [[cell(v) for v in row] for row in rows], "status": status}
                                         for title, (rows, status) in wanted.items()}})
            if dashboard == "freelance-finance":
                options = next(f for f in answer["filters"] if f["name"] == "competence")["options"]
                self.same("skills to choose from", skills, options)
        self.report["panels"] = compared
        if self.args.pages:
            pathlib.Path(self.args.pages).write_text(json.dumps(pages), encoding="utf-8")

    def check_panel(self, what, rows, status, panel):
        data = panel.get("data")
        if data is None:
            self.wrong(f"{what}: {panel.get('problem')}")
        elif not same_rows(rows, data["rows"]):
            apart = next((i for i, (a, b) in enumerate(zip(rows, data["rows"])) if not same_rows([a], [b])), min(len(rows), len(data["rows"])))
            at = lambda all: [cell(v) for v in all[apart]] if apart < len(all) else None
            self.wrong(f"{what}: row {apart} of {len(rows)}: computed {at(rows)}, served {at(data['rows'])} of {len(data['rows'])}")
        elif status != data["status"]:
            self.wrong(f"{what}: stands {data['status']}, must be {status}")
        return 1

    def check_special(self, dashboard, given, shown, left):
        """Panels of models: what is known of them without the model."""
        data = {title: (shown[title].get("data") or self.wrong(f"{title}: {shown[title].get('problem')}") or {"rows": []})["rows"] for title in left}
        for title in left:
            if title == "Forecast of the next three months":
                for text in figures.judge_forecast(data[title], self.read, self.today, given.get("competence", "")):
                    self.wrong(f"forecast: {given}: {text}")
            elif title == "Odd invoices":
                for text in figures.judge_odd(data[title], self.read, self.today):
                    self.wrong(f"odd: {text}")
            else:
                self.wrong(f"{dashboard}: nothing here computes the panel {title}")

    def check_sheets(self, path, wanted, shown):
        book = openpyxl.load_workbook(io.BytesIO(self.get(path, raw=True)))
        # a sheet for each panel, in their order: long titles are cut in their names
        self.same("sheets", [title[:20] for title in shown], [name[:20] for name in book.sheetnames])
        sheets = dict(zip(shown, book.worksheets))
        for title, rows in wanted.items():
            found = [[value.value for value in row] for row in sheets[title].iter_rows(min_row=2)]
            # a row of nothing leaves no trace in a sheet
            if not same_rows([row for row in rows if any(value is not None for value in row)], found):
                self.wrong(f"sheet {title}: {path}: computed {rows[:2]} of {len(rows)}, written {found[:2]} of {len(found)}")
        self.report["sheets"] = self.report.get("sheets", 0) + len(wanted)

    def sql(self, sql):
        command = ["psql", "-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", self.args.postgres, "-c", f"SELECT json_agg(t) FROM ({sql}) AS t"]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout) or []

    def check_postgres(self):
        people = {row["id"]: row for row in self.read["profils"].good}
        known = [row for row in self.read["factures"].good if row["id_freelance"] in people]
        for table, wanted in (("Freelances", people.values()), ("Factures", known)):
            found = [{name: value for name, value in row.items() if name != "recu"} for row in self.sql(f'SELECT * FROM "{table}"')]
            self.same(f'"{table}"', [self.flat(row) for row in wanted], [self.flat(row) for row in found])
            self.report[table] = len(found)
        orphans = {json.loads(record[4])["facture"] for record in self.dump("freelance-factures.rejected")}
        self.same("refused by a foreign key", {row["facture"] for row in self.read["factures"].good} - {row["facture"] for row in known}, orphans)
        answer = self.get("/v1/views/revenu_par_competence_mois?wait=30s&limit=100000")
        names = [column["name"] for column in answer["columns"]]
        short = lambda row: self.flat({name: row[name] for name in ("window_start", "competence", "factures", "revenu", "jours")} | {"revenu": float(row["revenu"])})
        found = self.sql("""SELECT to_char(window_start AT TIME ZONE 'UTC', 'YYYY-MM-DD') AS window_start, competence, factures, revenu, jours FROM "Indicateurs" """)
        self.same('"Indicateurs"', [short(dict(zip(names, row))) for row in answer["rows"]], [short(row) for row in found])
        self.report["Indicateurs"] = len(found)
        self.check_constraints()

    def check_constraints(self):
        rows = self.sql("SELECT conrelid::regclass::text AS rel, contype::text AS kind, pg_get_constraintdef(oid) AS def FROM pg_constraint "
                        "WHERE connamespace = 'public'::regnamespace")
        has = lambda table, kind, *words: any(r["rel"].strip('"') == table and r["kind"] == kind and all(w in r["def"] for w in words) for r in rows)
        wanted = [("Freelances", "p", "(id)"), ("Freelances", "c", "tarif_jour"), ("Freelances", "c", "email"), ("Freelances", "c", "mission_fin"),
                  ("Factures", "p", "(facture)"), ("Factures", "c", "montant"), ("Factures", "f", "(id_freelance)", '"Freelances"(id)'),
                  ("Indicateurs", "c", "factures")]
        for one in wanted:
            if not has(*one):
                self.wrong(f"constraint: {one} is not there: {rows}")
        if not (has("Indicateurs", "p", "window_start", "competence") or has("Indicateurs", "u", "window_start", "competence")):
            unique = self.sql("""SELECT indexdef FROM pg_indexes WHERE tablename = 'Indicateurs' AND indexdef LIKE '%UNIQUE%'""")
            if not any("window_start" in row["indexdef"] and "competence" in row["indexdef"] for row in unique):
                self.wrong(f"constraint: Indicateurs has no key: {rows} {unique}")
        indexes = self.sql("SELECT tablename, indexdef FROM pg_indexes WHERE schemaname = 'public'")
        for table, columns in (("Freelances", "(disponible)"), ("Factures", "(id_freelance, emise)"), ("Factures", "(competence, emise)"), ("Factures", "(echeance)"),
                               ("Indicateurs", "(window_start)")):
            if not any(row["tablename"] == table and columns in row["indexdef"] for row in indexes):
                self.wrong(f"index: {table} {columns} is not there")


def main():
    parser = argparse.ArgumentParser()
    for name in ("bootstrap", "http", "folder"):
        parser.add_argument(name)
    parser.add_argument("--postgres")
    parser.add_argument("--pages")
    parser.add_argument("--quick", action="store_true", help="the dashboards without filters only")
    oracle = Oracle(parser.parse_args())
    oracle.check_dashboards()
    if not oracle.args.quick:
        oracle.check_topics()
        oracle.check_quality()
        oracle.check_views()
    if oracle.args.postgres:
        oracle.check_postgres()
    print(json.dumps({"mistakes": oracle.mistakes, **oracle.report}))


main()
