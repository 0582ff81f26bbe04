"""Reads a topic's Parquet directories with pyarrow and with DuckDB and compares them, row by row, with the log.

    lake.py BOOTSTRAP SYSTEM.toml STREAM LAKE_DIR [--whole]

Each accepted record below what is settled lies in Parquet exactly once, with equal columns, in the slice it belongs to; with
--whole everything accepted must be settled. Prints {"mistakes": [...], ...counts} on stdout.
"""
import argparse
import json
import pathlib

import pyarrow.dataset

import log


def main():
    parser = argparse.ArgumentParser()
    for name in ("bootstrap", "system", "stream", "lake"):
        parser.add_argument(name)
    parser.add_argument("--whole", action="store_true")
    args = parser.parse_args()
    stream = log.Stream(args.system, args.stream)
    database = stream.load(log.dump(args.bootstrap, stream.topic))
    mistakes = []
    root = pathlib.Path(args.lake) / stream.topic
    files = sorted(root.rglob("*.parquet"))

    # pyarrow finds the slices in the directory names by itself; integers it would guess are read as text.
    slices = sorted({part.split("=")[0] for file in files for part in file.relative_to(root).parts[:-1]})
    schema = pyarrow.schema([(name, pyarrow.string()) for name in slices])
    flavour = pyarrow.dataset.HivePartitioning(schema, null_fallback="__HIVE_DEFAULT_PARTITION__") if slices else None
    table = pyarrow.dataset.dataset(files and str(root), format="parquet", partitioning=flavour).to_table() if files else None
    by_pyarrow = table.num_rows if table else 0

    names = [name for name, _, _ in stream.columns]
    if table:
        database.register("settled_raw", table)
        cells = ", ".join(f"epoch_ms({name}) AS {name}" if kind == "TIMESTAMP" else f'"{name}"' for name, kind, _ in stream.columns)
        database.execute(f"CREATE TABLE settled AS SELECT {cells}, _partition, _offset{', date' if 'date' in slices else ''} FROM settled_raw")
        twice = database.execute("SELECT _partition, _offset, count(*) FROM settled GROUP BY ALL HAVING count(*) > 1 LIMIT 5").fetchall()
        mistakes += [f"in Parquet {n} times: partition {p} offset {o}" for p, o, n in twice]
        columns = ", ".join(f'"{name}"' for name in names)
        other = f"SELECT {columns}, _partition, _offset FROM settled EXCEPT SELECT {columns}, _partition, _offset FROM valid"
        mistakes += [f"in Parquet and not so in the log: {row}" for row in database.execute(f"{other} LIMIT 5").fetchall()]
        bound = "" if args.whole else "WHERE v._offset <= (SELECT max(_offset) FROM settled s WHERE s._partition = v._partition)"
        lost = f"SELECT _partition, _offset FROM valid v {bound} EXCEPT SELECT _partition, _offset FROM settled"
        mistakes += [f"in the log and not in Parquet: partition {p} offset {o}" for p, o in database.execute(f"{lost} LIMIT 5").fetchall()]
        if "date" in slices:
            wrong = f"SELECT count(*) FROM settled WHERE strftime(make_timestamp({stream.event_time} * 1000), '%Y-%m-%d') <> date"
            if count := database.execute(wrong).fetchone()[0]:
                mistakes.append(f"{count} rows lie in the slice of another date")

    # DuckDB reads the same directories on its own.
    numbers = [name for name, kind, _ in stream.columns if kind == "BIGINT" and name not in slices]
    sums = ", ".join(f"sum({name})" for name in numbers)
    glob = f"{root}/**/*.parquet"
    by_duckdb = database.execute(f"SELECT count(*), {sums} FROM read_parquet('{glob}', hive_partitioning = true)").fetchone() if files else (0,)
    if by_duckdb[0] != by_pyarrow:
        mistakes.append(f"DuckDB reads {by_duckdb[0]} rows, pyarrow {by_pyarrow}")
    if files:
        wanted = database.execute(f"SELECT count(*), {sums} FROM valid SEMI JOIN settled USING (_partition, _offset)").fetchone()
        if by_duckdb != wanted:
            mistakes.append(f"DuckDB's count and sums {by_duckdb} are not those of the log {wanted}")
    valid = database.execute("SELECT count(*) FROM valid").fetchone()[0]
    if args.whole and by_pyarrow != valid:
        mistakes.append(f"{by_pyarrow} rows in Parquet, {valid} accepted in the log")
    hidden = [str(f.relative_to(args.lake)) for f in pathlib.Path(args.lake).rglob("*.tmp") if not f.relative_to(args.lake).parts[0].startswith("_")]
    mistakes += [f"a half-written file is visible: {name}" for name in hidden[:5]]
    print(json.dumps({"mistakes": mistakes, "files": len(files), "settled": by_pyarrow, "valid": valid, "slices": slices}))


main()
