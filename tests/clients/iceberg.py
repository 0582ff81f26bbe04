"""Reads a table of the lake with pyiceberg.

    iceberg.py read URI TOKEN TABLE_DIR SUMS    once: the current snapshot by the REST catalog and by the files' own hint, and all
                                                others by their ids; prints one report
    iceberg.py watch TABLE_DIR COLUMN STOP      again and again until the file STOP is there: rows never go, no file is missing
    iceberg.py calls URI TOKEN                  what the catalog answers to a client that lists, asks for what is not there, and writes

SUMS is {"column": "operation"}. PROPERTIES, a variable, has settings of the reader's own as JSON: where the store is, and its keys. Moments are milliseconds since 1970.
"""
import json
import os
import sys
import time
import warnings

import pyarrow.compute as compute

warnings.filterwarnings("ignore")

from pyiceberg.catalog import load_catalog  # noqa: E402
from pyiceberg.table import StaticTable  # noqa: E402

NAME = ("lake", "orders")
PROPERTIES = json.loads(os.environ.get("PROPERTIES", "{}"))


def catalog(uri, token):
    return load_catalog("millpond", type="rest", uri=uri, **PROPERTIES, **({"token": token} if token else {}))


def plain(value):
    if hasattr(value, "timestamp"):
        return round(value.timestamp() * 1000)
    return value if isinstance(value, (int, float, str, bool, type(None))) else str(value)


def figures(rows, sums):
    found = {"rows": rows.num_rows}
    for column, operation in sums.items():
        found[column] = plain(getattr(compute, operation)(rows[column]).as_py())
    return found


def by_country(rows):
    sums = rows.group_by("country").aggregate([("cents", "sum")]).rename_columns(["country", "cents"])
    return sorted(([row["country"], row["cents"]] for row in sums.to_pylist()), key=str)


def read(uri, token, table_dir, sums):
    table = catalog(uri, token).load_table(NAME)
    static = StaticTable.from_metadata(table_dir, PROPERTIES)
    sums = json.loads(sums)
    rows = table.scan().to_arrow()
    report = {
        "columns": [[field.field_id, field.name, str(field.field_type)] for field in table.schema().fields],
        "partitioning": [field.name for field in table.spec().fields],
        "current": figures(rows, sums),
        "static": figures(static.scan().to_arrow(), sums),
        "same": table.metadata_location.endswith(static.metadata_location.removeprefix("file://")) and table.metadata == static.metadata,
        "countries": by_country(rows),
        "one": table.scan(row_filter="country == 'FR' and cents > 150").to_arrow().num_rows,
        "nobody": len(list(table.scan(row_filter="cents > 1000000").plan_files())),
        "day": table.scan(row_filter="date == '2026-11-20'").to_arrow().num_rows,
        "none": table.scan(row_filter="country is null").to_arrow().num_rows,
        "snapshots": [],
    }
    for snapshot in sorted(table.metadata.snapshots, key=lambda snapshot: snapshot.sequence_number):
        summary = snapshot.summary
        found = {"id": snapshot.snapshot_id, "operation": summary.operation.value, "told": int(summary["total-records"])}
        report["snapshots"].append(found | figures(table.scan(snapshot_id=snapshot.snapshot_id).to_arrow(), sums))
    return report


def watch(table_dir, column, stop):
    last, reads, snapshots = 0, 0, set()
    while not os.path.exists(stop):
        if not os.path.exists(os.path.join(table_dir, "metadata", "version-hint.text")):
            time.sleep(0.05)
            continue
        table = StaticTable.from_metadata(table_dir)
        if table.current_snapshot() is None:
            continue
        # planned now, read a while later
        scan = table.scan(selected_fields=("_partition", column))
        list(scan.plan_files())
        time.sleep(0.2)
        rows = scan.to_arrow()
        if rows.num_rows < last:
            sys.exit(f"{rows.num_rows} rows after {last}")
        distinct = rows.group_by(["_partition", column]).aggregate([]).num_rows
        if distinct != rows.num_rows:
            sys.exit(f"{rows.num_rows} rows, {distinct} of them distinct")
        last, reads = rows.num_rows, reads + 1
        snapshots.add(table.current_snapshot().snapshot_id)
        print("read", rows.num_rows, flush=True)
        # the oldest that can be read, too
        oldest = min(table.metadata.snapshots, key=lambda snapshot: snapshot.sequence_number)
        table.scan(snapshot_id=oldest.snapshot_id, selected_fields=("_partition",)).to_arrow()
    return {"rows": last, "reads": reads, "snapshots": len(snapshots)}


def attempt(call):
    try:
        return call()
    except Exception as error:  # noqa: BLE001  the kind is what is asked for
        return f"{type(error).__name__}: {error}"


def calls(uri, token):
    client = attempt(lambda: catalog(uri, token))
    if isinstance(client, str):
        return {"client": client}
    return {
        "namespaces": attempt(client.list_namespaces),
        "tables": attempt(lambda: client.list_tables("lake")),
        "there": attempt(lambda: client.table_exists(NAME)),
        "not_there": attempt(lambda: client.table_exists(("lake", "nobody"))),
        "no_table": attempt(lambda: client.load_table(("lake", "nobody"))),
        "no_namespace": attempt(lambda: client.list_tables("sea")),
        "load": attempt(lambda: client.load_table(NAME).name()),
        "drop": attempt(lambda: client.drop_table(NAME)),
        "create": attempt(lambda: client.create_namespace("sea")),
    }


print(json.dumps({"read": read, "watch": watch, "calls": calls}[sys.argv[1]](*sys.argv[2:])))
