"""Spark Structured Streaming over folders of NDJSON files, a count per line of its input.

    spark_counts.py FOLDER EVENTS

Each line is JSON: {"window": [FUNCTION, ARGUMENT...], "rows": FOLDER or null}. Each count is a new query over the files in EVENTS that ends when it has
them all; its rows go to JSON files, or nowhere. Prints `done NUMBER CPU-NANOSECONDS NANOSECONDS` of each: CPU is that of this process and its JVM.
"""
import json
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tests/clients"))
from pyspark.sql import functions
from spark import session

SETTINGS = {
    "spark.master": "local[2]",
    "spark.driver.memory": "2g",
    "spark.sql.shuffle.partitions": "2",
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.streaming.stateStore.providerClass": "org.apache.spark.sql.execution.streaming.state.RocksDBStateStoreProvider",
}
FIELDS = "user_id BIGINT, event STRING, genre STRING, duration_ms BIGINT, note STRING, ts BIGINT"
TICKS_PER_SECOND = 100


def cpu_ns(jvm):
    fields = pathlib.Path(f"/proc/{jvm}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * 1_000_000_000 // TICKS_PER_SECOND + time.process_time_ns()


def count(spark, events, window, rows, checkpoints):
    function, *arguments = window
    read = spark.readStream.schema(FIELDS).option("maxFilesPerTrigger", 2).json(events)
    timed = read.withColumn("event_time", functions.timestamp_millis("ts")).withWatermark("event_time", "5 seconds")
    grouped = timed.groupBy(getattr(functions, function)("event_time", *arguments).alias("window"), "user_id")
    counted = grouped.agg(functions.count("*").alias("plays")).select(
        functions.col("window.start").alias("window_start"), functions.col("window.end").alias("window_end"), "user_id", "plays"
    )
    written = counted.writeStream.outputMode("append").option("checkpointLocation", checkpoints).trigger(availableNow=True)
    query = written.format("json").option("path", rows).start() if rows else written.format("noop").start()
    query.awaitTermination()


def main():
    folder, events = sys.argv[1:]
    with session(SETTINGS) as spark:
        jvm = spark._jvm.java.lang.ProcessHandle.current().pid()
        for number, line in enumerate(sys.stdin):
            asked = json.loads(line)
            cpu, clock = cpu_ns(jvm), time.monotonic_ns()
            count(spark, events, asked["window"], asked["rows"], f"{folder}/checkpoints-{number}")
            print("done", number, cpu_ns(jvm) - cpu, time.monotonic_ns() - clock, flush=True)


main()
