"""Reads directories of the lake with Apache Spark, and runs printed DDL.

    spark_lake.py DIRECTORY SQL [DDL.sql]

DIRECTORY is read by partition discovery as the table `found`; with DDL.sql its statements are run. Then SQL is asked. Prints
{"rows": [[...]], "columns": [...], "slices": [...]} on stdout; moments are text, in UTC.
"""
import json
import sys

from py4j.protocol import Py4JJavaError

from spark import rows, session


def main():
    try:
        with session({"spark.sql.sources.partitionColumnTypeInference.enabled": "false"}) as spark:
            report(spark)
    except Py4JJavaError as error:
        # the causes first: whoever shortens the output leaves out its middle
        cause, causes = error.java_exception, []
        while cause is not None:
            causes.append(cause.toString())
            cause = cause.getCause()
        sys.exit("\n caused by ".join(causes))


def report(spark):
    directory, sql = sys.argv[1:3]
    if len(sys.argv) > 3:
        with open(sys.argv[3]) as file:
            for statement in file.read().split(";\n"):
                if statement.strip():
                    spark.sql(statement)
    files = spark.read.parquet(directory)
    files.createOrReplaceTempView("found")
    answer = spark.sql(sql)
    print(json.dumps({"rows": rows(answer), "columns": answer.columns, "slices": files.columns}))


main()
