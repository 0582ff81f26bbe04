"""Reads the files for containers and monitoring and says what does not hang together. Argument: the project's folder."""
import importlib.util
import json
import pathlib
import re
import sys

import jsonschema
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
# Workflows and the compose file by the schemas that their makers publish, and what a schema cannot know.
schemas = pathlib.Path(importlib.util.find_spec("check_jsonschema").submodule_search_locations[0]) / "builtin_schemas" / "vendor"


def valid(file, schema):
    document = yaml.safe_load((root / file).read_text())
    if True in document:
        document["on"] = document.pop(True)  # what YAML 1.1 takes the word for
    rules = json.loads((schemas / schema).read_text())
    for error in jsonschema.validators.validator_for(rules)(rules).iter_errors(document):
        mistakes.append(f"{file}: {'.'.join(map(str, error.absolute_path))}: {error.message[:300]}")
    return document


valid("docker-compose.yml", "compose-spec.json")
workflows = {path.name: valid(f".github/workflows/{path.name}", "github-workflows.json") for path in sorted((root / ".github/workflows").glob("*.yml"))}
jobs = workflows["ci.yml"]["jobs"]
needs = lambda job: [job["needs"]] if isinstance(job.get("needs"), str) else job.get("needs", [])
check(needs(jobs["image"]) == ["test"], "an image is built of what was not tested")
check(needs(jobs["development"]) == ["image"] and jobs["development"]["with"]["place"] == "development", "development does not follow the image")
check("development" in needs(jobs["production"]) and jobs["production"]["with"]["place"] == "production", "production does not follow development")
check("pull_request" in jobs["image"]["if"] and "main" in jobs["image"]["if"], "what is not on main becomes an image")
check(any(step.get("run") == ".ci/run" for step in jobs["test"]["steps"]), "the test job does not run .ci/run")
rollout = workflows["deploy.yml"]["jobs"]["rollout"]
check(rollout["environment"] == "${{ inputs.place }}", "a rollout does not wait for the reviewers of its place")
check(any("deploy/rollout" in step.get("run", "") for step in rollout["steps"]), "a rollout does not go through deploy/rollout")
for name, workflow in workflows.items():
    for job in workflow["jobs"].values():
        place = job.get("uses", "")
        check(not place.startswith("./") or (root / place).exists(), f"{name} uses {place}, which is not there")
        for step in job.get("steps", []):
            check("@" in step.get("uses", "@"), f"{name}: {step.get('uses')} has no version")
            check("${{" not in step.get("run", ""), f"{name}: a text of somebody's becomes part of a script: {step.get('run')}")
    given = set(re.findall(r"inputs\.(\w+)", (root / ".github/workflows" / name).read_text()))
    declared = set(workflow["on"].get("workflow_call", {}).get("inputs", {})) if isinstance(workflow["on"], dict) else set()
    check(given <= declared, f"{name}: inputs {given - declared} are not declared")
print(json.dumps({"workflows": len(workflows), "mistakes": mistakes, "services": len(services), "panels": len(panels)}))
