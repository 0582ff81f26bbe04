#!/usr/bin/env python3
"""The freelance system over ten million invoices: how fast they are loaded, and how long every panel of its dashboards takes.

    benches/freelance.py MILLPOND [--invoices 10000000] [--dir DIR] [--repeat 5] [--postgres URL] [--write]

Needs Python with duckdb (that of the tests: ~/.cache/millpond/tests/python/bin/python) and the program built for release. It writes an
invoice file in the forms that people use, among them doubled and wrong rows, loads it as any user would (`millpond load`), flushes the
lake, and asks each panel over HTTP, no answer shared (`fresh=true`). The targets are those of the system: 5 s for finance, 3 s for
resources. With --postgres the system's tables are filled at the same time, and how long that takes is told. --write replaces the part of benches/RESULTS.md that is its own; with --dir the data are kept, and used again when they are there.
"""
import argparse
import datetime
import json
import os
import pathlib
import platform
import signal
import statistics
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request

import duckdb

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGETS_S = {"freelance-finance": 5.0, "freelance-ressources": 3.0, "freelance-direct": 5.0}
HEADING = "# Freelance: ten million invoices"
# Amounts and dates in the forms and shares of config/freelance/data.toml; freelancers and skills with its kind of skew.
INVOICES = """
COPY (
  WITH drawn AS (
    SELECT i, 1 + CAST(floor(1000 * power((hash(i, 1) % 1000003) / 1000003.0, 1.6)) AS BIGINT) AS id, hash(i, 2) % 10000 AS shape,
           CAST(CURRENT_DATE - CAST((i * 1095) // {count} AS INTEGER) AS DATE) AS day, 1 + hash(i, 4) % 20 AS days, 250 + hash(i, 5) % 700 AS rate,
           1 + CAST(floor(64 * power((hash(i, 6) % 1000003) / 1000003.0, 1.8)) AS BIGINT) AS skill, hash(i, 7) % 100 AS paid
    FROM range({count}) AS numbers(i)
  ), made AS (
    SELECT *, days * rate AS amount, i - CASE WHEN shape % 100 = 99 AND i > 0 THEN 1 ELSE 0 END AS number, shape % 1000 = 998 AS wrong FROM drawn
  )
  SELECT 'F' || lpad(CAST(number AS VARCHAR), 9, '0') AS facture, id AS id_freelance, 'Nom ' || id AS freelance,
    CASE WHEN wrong THEN '-' ELSE '' END || CASE WHEN shape < 7000 THEN amount || '.00' WHEN shape < 8500 THEN amount || '€'
      WHEN shape < 9300 THEN CASE WHEN amount >= 1000 THEN (amount // 1000) || ' ' || lpad(CAST(amount % 1000 AS VARCHAR), 3, '0') ELSE CAST(amount AS VARCHAR) END || ',00 €'
      ELSE amount || ' EUR' END AS montant,
    CASE WHEN shape < 7000 OR shape >= 9300 THEN CAST(day AS VARCHAR) WHEN shape < 8500 THEN strftime(day, '%b-%Y') ELSE strftime(day, '%d/%m/%Y') END AS date,
    day + 30 AS echeance, CASE WHEN paid < 97 AND day + 40 < CURRENT_DATE THEN day + 20 + CAST(paid % 20 AS INTEGER) END AS paiement,
    CASE WHEN paid < 60 THEN 'M' || lpad(CAST(id AS VARCHAR), 6, '0') END AS mission, 'Skill ' || skill AS competence, days AS jours
  FROM made ORDER BY i DESC
) TO '{path}' (HEADER, DELIMITER ',')
"""


class Server:
    def __init__(self, program, folder, config, inputs, postgres):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MILLPOND_")} | {"FREELANCE_INPUT": str(inputs)}
        command = [program, "serve", "--data-dir", str(folder / "data"), "--kafka", "127.0.0.1:0", "--http", "127.0.0.1:0", "--config", str(config)]
        command += ["--postgres", postgres] if postgres else []
        self.log = open(folder / "server.log", "ab")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log, env=environment, text=True)
        line = self.process.stdout.readline()
        if not line.startswith("millpond ready"):
            raise SystemExit(f"the server did not start: see {self.log.name}")
        self.http = dict(part.split("=") for part in line.split()[2:])["http"]

    def ask(self, path, post=False):
        request = urllib.request.Request(f"http://{self.http}{path}", b"" if post else None, method="POST" if post else "GET")
        with urllib.request.urlopen(request, timeout=3600) as answer:
            return json.load(answer)

    def resident_mib(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return [int(line.split()[1]) // 1024 for line in status.splitlines() if line.startswith(("VmRSS", "VmHWM"))]

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(120)


def configuration(folder):
    """The built-in system, told to read when it is asked."""
    text = (ROOT / "config/freelance/system.toml").read_text()
    path = folder / "system.toml"
    path.write_text(text.replace('when = "watch"', 'when = "demand"'))
    return path


def load(program, server, source):
    began = time.monotonic()
    report = json.loads(subprocess.run([program, "load", source, "--json", "--http", server.http], check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    return report | {"took_s": time.monotonic() - began}


def settle(server):
    """Until the views have everything, then until the lake has."""
    began = time.monotonic()
    while True:
        views = server.ask("/v1/views")["views"]
        if all(view["status"]["lag_records"] == 0 for view in views):
            break
        time.sleep(0.2)
    views_s = time.monotonic() - began
    while True:
        sinks = [sink for sink in server.ask("/v1/sinks")["sinks"] if sink["state"] != "off"]
        if all(sink["lag"] == 0 for sink in sinks):
            break
        time.sleep(0.2)
    sinks_s = time.monotonic() - began if sinks else None
    began = time.monotonic()
    server.ask("/v1/lake/Factures/flush", post=True)
    return views_s, time.monotonic() - began, sinks_s


def measure(server, repeat):
    """[(dashboard, filters, panel, median s, most s)]"""
    skill = {"competence": "Skill 1"}
    asked = {"freelance-finance": [{}, {"periode": "all"}, {"periode": "3mo"}, skill, {"periode": "all"} | skill],
             "freelance-ressources": [{}, {"competence": "Python"}], "freelance-direct": [{}]}
    found = []
    for dashboard, filters in asked.items():
        panels = server.ask(f"/v1/dashboards/{dashboard}?data=false")["panels"]
        for given in filters:
            for number, panel in enumerate(panels):
                query = urllib.parse.urlencode(given | {"fresh": "true"})
                times = []
                for _ in range(repeat):
                    began = time.monotonic()
                    answer = server.ask(f"/v1/dashboards/{dashboard}/panels/{number}?{query}")
                    times.append(time.monotonic() - began)
                if not answer["rows"]:
                    raise SystemExit(f"{dashboard}: {panel['title']} {given} shows nothing")
                found.append((dashboard, given, panel["title"], statistics.median(times), max(times)))
                print(f"{dashboard} {given} {panel['title']}: {statistics.median(times):.3f} s", flush=True)
    return found


def first(command):
    return subprocess.run(command, capture_output=True, text=True).stdout.strip().splitlines()[0]


def report(args, loaded, settled, memory, found):
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    lines = [HEADING, "", f"Written by hand: `benches/freelance.py MILLPOND --write`; {args.repeat} times each, medians and the most, nothing shared between them.", "",
             "| condition | |", "|---|---|",
             f"| date | {datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d %H:%M} UTC |",
             f"| commit | {first(['git', '-C', str(ROOT), 'describe', '--always', '--dirty', '--exclude=*'])} |",
             f"| machine | {model}, {os.cpu_count()} cores, load average {os.getloadavg()[1]:.1f} |", f"| kernel | {platform.system()} {platform.release()} |",
             f"| note | {args.note} |" if args.note else None,
             f"| loaded | {loaded['published']:,} invoices of {loaded['rows']:,} rows ({loaded['skipped']:,} doubled, {loaded['rejected']:,} refused), "
             f"{loaded['rows'] / loaded['took_s']:,.0f} rows/s |",
             f"| then | views have everything after {settled[0]:.1f} s more; the lake's flush took {settled[1]:.1f} s |",
             f"| PostgreSQL | has everything {settled[2]:.1f} s after the load's end |" if settled[2] is not None else None,
             f"| memory | {memory[1]} MiB resident, {memory[0]} MiB at most |", "",
             "| dashboard | filters | panel | s | most s | target s |", "|---|---|---|---|---|---|"]
    for dashboard, given, title, median, most in found:
        chosen = ", ".join(given.values()) or "as it opens"
        lines.append(f"| {dashboard.removeprefix('freelance-')} | {chosen} | {title} | {median:.2f} | {most:.2f} | {TARGETS_S[dashboard]:g} |")
    return "\n".join(line for line in lines if line is not None) + "\n"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("millpond")
    parser.add_argument("--invoices", type=int, default=10_000_000)
    parser.add_argument("--dir", type=pathlib.Path)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--note", help="what else is to be known of the conditions")
    parser.add_argument("--postgres")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="millpond-freelance-") as temporary:
        folder = args.dir or pathlib.Path(temporary)
        inputs = folder / "input"
        if not inputs.exists():
            subprocess.run([args.millpond, "generate", "freelance", "--to", str(inputs), "--set", "invoices=37000"], check=True, stdout=subprocess.DEVNULL)
            for file in (inputs / "factures").glob("*.csv"):
                file.unlink()
            duckdb.sql(INVOICES.format(count=args.invoices, path=inputs / "factures/factures.csv"))
        server = Server(args.millpond, folder, configuration(folder), inputs, args.postgres)
        try:
            for source in ("fichiers-profils", "fichiers-missions"):
                load(args.millpond, server, source)
            loaded = load(args.millpond, server, "fichiers-factures")
            print(loaded, flush=True)
            settled = settle(server)
            print("settled", settled, flush=True)
            found = measure(server, args.repeat)
            text = report(args, loaded, settled, server.resident_mib(), found)
        finally:
            server.stop()
    print(text)
    if args.write:
        place = ROOT / "benches/RESULTS.md"
        before = place.read_text().split(HEADING)[0].rstrip("\n")
        place.write_text(f"{before}\n\n{text}")
    slow = [row for row in found if row[3] > TARGETS_S[row[0]]]
    raise SystemExit(f"slower than the target: {slow}" if slow else 0)


main()
