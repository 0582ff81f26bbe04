"""Reads the files for containers and monitoring and says what does not hang together. Argument: the project's folder."""
import json
import pathlib
import sys

import yaml

root = pathlib.Path(sys.argv[1])
mistakes = []


def check(holds, text):
    if not holds:
        mistakes.append(text)


compose = yaml.safe_load((root / "docker-compose.yml").read_text())
services, volumes = compose["services"], compose["volumes"]
taken = {}
for name, service in services.items():
    check("image" in service or "build" in service, f"{name} has neither image nor build")
    for needed in service.get("depends_on", []):
        check(needed in services, f"{name} depends on {needed}, which is no service")
    for mount in service.get("volumes", []):
        source, target = mount.split(":")[:2]
        if source.startswith("."):
            check((root / source).exists(), f"{name} mounts {source}, which is not there")
        else:
            check(source in volumes, f"{name} mounts volume {source}, which is not declared")
        check(target.startswith("/"), f"{name} mounts at {target}, which is not absolute")
    for port in service.get("ports", []):
        address, host, inside = port.split(":")
        check(address == "127.0.0.1", f"{name} opens {port} to the network")
        check(taken.setdefault(host, name) == name, f"{name} and {taken[host]} both take port {host}")
    env = service.get("env_file")
    check(env is None or (root / env).exists(), f"{name}: {env} is not there")
    if isinstance(service.get("depends_on"), dict):
        for needed, wanted in service["depends_on"].items():
            healthy = wanted["condition"] == "service_healthy"
            check(not healthy or needed == "millpond" or "healthcheck" in services[needed], f"{name} waits for the health of {needed}, which has no check")

prometheus = yaml.safe_load((root / "deploy/prometheus/prometheus.yml").read_text())
for file in prometheus["rule_files"]:
    rules = yaml.safe_load((root / "deploy/prometheus" / file).read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            check({"alert", "expr", "for", "labels", "annotations"} <= rule.keys(), f"rule {rule.get('alert')} is not whole")
for job in prometheus["scrape_configs"]:
    for target in job["static_configs"][0]["targets"]:
        check(target.split(":")[0] in services, f"{job['job_name']} scrapes {target}, which is no service")

sources = yaml.safe_load((root / "deploy/grafana/provisioning/datasources/prometheus.yml").read_text())["datasources"]
uids = {source["uid"] for source in sources}
for source in sources:
    check(source["url"].split("/")[2].split(":")[0] in services, f"data source {source['name']} is at {source['url']}, which is no service")
yaml.safe_load((root / "deploy/grafana/provisioning/dashboards/millpond.yml").read_text())
dashboard = json.loads((root / "deploy/grafana/dashboards/millpond.json").read_text())
panels = dashboard["panels"]
check(len({panel["id"] for panel in panels}) == len(panels), "two panels have one id")
cells = {}
for panel in panels:
    check(panel["datasource"]["uid"] in uids, f"panel {panel['title']} asks a data source that is not provisioned")
    check(all(target["expr"].count("(") == target["expr"].count(")") for target in panel["targets"]), f"panel {panel['title']}: parentheses")
    place = panel["gridPos"]
    for x in range(place["x"], place["x"] + place["w"]):
        for y in range(place["y"], place["y"] + place["h"]):
            check(x < 24 and cells.setdefault((x, y), panel["id"]) == panel["id"], f"panel {panel['title']} lies over another")
print(json.dumps({"mistakes": mistakes, "services": len(services), "panels": len(panels)}))
