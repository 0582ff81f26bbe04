"""Reads directories of the lake with Apache Spark, and runs printed DDL.

    spark_lake.py DIRECTORY SQL [DDL.sql]

DIRECTORY is read by partition discovery as the table `found`; with DDL.sql its statements are run. Then SQL is asked. Prints
{"rows": [[...]], "columns": [...], "slices": [...]} on stdout; moments are text, in UTC.
"""
import datetime
import decimal
import json
import os
import sys
import tempfile

from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession


def plain(value):
    if isinstance(value, (datetime.date, datetime.datetime)):
        return value.isoformat()
    return str(value) if isinstance(value, decimal.Decimal) else value


def main():
    # the first DDL makes Spark's warehouse, which would else lie in the folder in which the tests were started
    with tempfile.TemporaryDirectory() as folder:
        try:
            report(folder)
        except Py4JJavaError as error:
            # the causes first: whoever shortens the output leaves out its middle
            cause, causes = error.java_exception, []
            while cause is not None:
                causes.append(cause.toString())
                cause = cause.getCause()
            sys.exit("\n caused by ".join(causes))


def report(folder):
    directory, sql = sys.argv[1:3]
    builder = SparkSession.builder.master("local[1]").appName("millpond-tests")
    settings = {
        "spark.ui.enabled": "false",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.sql.warehouse.dir": os.path.join(folder, "warehouse"),
        "spark.local.dir": os.path.join(folder, "local"),
        "spark.driver.memory": "700m",
        "spark.sql.shuffle.partitions": "1",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.sources.partitionColumnTypeInference.enabled": "false",
    }
    for key, value in settings.items():
        builder = builder.config(key, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    if len(sys.argv) > 3:
        with open(sys.argv[3]) as file:
            for statement in file.read().split(";\n"):
                if statement.strip():
                    spark.sql(statement)
    files = spark.read.parquet(directory)
    files.createOrReplaceTempView("found")
    answer = spark.sql(sql)
    rows = [[plain(value) for value in row] for row in answer.collect()]
    print(json.dumps({"rows": rows, "columns": answer.columns, "slices": files.columns}))
    spark.stop()


main()
