"""Asks the lake's directories by another engine, again and again.

    readers.py duckdb|spark DIRECTORY UNMEASURED MEASURED SQL...

Each SQL, over the table `plays`, is asked UNMEASURED + MEASURED times. Prints {"version": …, "answers": [{"seconds": [...], "rows": ["a|b", ...]}]}.
"""
import contextlib
import json
import os
import pathlib
import sys
import time


@contextlib.contextmanager
def duckdb(directory):
    import duckdb

    database = duckdb.connect()
    database.execute(f"CREATE VIEW plays AS SELECT * FROM read_parquet('{directory}/**/*.parquet', hive_partitioning = true)")
    yield f"DuckDB {duckdb.__version__}", lambda sql: database.execute(sql).fetchall()


@contextlib.contextmanager
def spark(directory):
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tests/clients"))
    from spark import session

    cores = str(os.cpu_count())
    own = {"spark.master": f"local[{cores}]", "spark.driver.memory": "4g", "spark.sql.shuffle.partitions": cores}
    with session(own) as running:
        running.read.parquet(directory).createOrReplaceTempView("plays")
        yield f"Spark {running.version}", lambda sql: running.sql(sql).collect()


def main():
    reader, directory, unmeasured, measured, *statements = sys.argv[1:]
    answers = []
    with {"duckdb": duckdb, "spark": spark}[reader](directory) as (version, ask):
        for sql in statements:
            seconds = []
            for _ in range(int(unmeasured) + int(measured)):
                began = time.perf_counter()
                rows = ask(sql)
                seconds.append(time.perf_counter() - began)
            answers.append({"seconds": seconds[int(unmeasured):], "rows": ["|".join(str(value) for value in row) for row in rows]})
    print(json.dumps({"version": version, "answers": answers}))


main()
