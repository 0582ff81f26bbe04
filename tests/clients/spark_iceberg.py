"""Asks Spark for Iceberg tables of the lake.

    spark_iceberg.py JAR CATALOGS SQL…

CATALOGS is {"name": {"setting": "value"}}. Each SQL is asked; prints [[rows], …] on stdout; moments are text, in UTC.
"""
import datetime
import decimal
import json
import os
import sys
import tempfile

from pyspark.sql import SparkSession


def plain(value):
    if isinstance(value, (datetime.date, datetime.datetime)):
        return value.isoformat()
    return str(value) if isinstance(value, decimal.Decimal) else value


jar, catalogs, *questions = sys.argv[1:]
with tempfile.TemporaryDirectory() as folder:
    settings = {
        "spark.jars": jar,
        "spark.ui.enabled": "false",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.sql.warehouse.dir": os.path.join(folder, "warehouse"),
        "spark.local.dir": os.path.join(folder, "local"),
        "spark.driver.memory": "700m",
        "spark.sql.shuffle.partitions": "1",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
    }
    for name, more in json.loads(catalogs).items():
        settings[f"spark.sql.catalog.{name}"] = "org.apache.iceberg.spark.SparkCatalog"
        settings |= {f"spark.sql.catalog.{name}.{key}": value for key, value in more.items()}
    builder = SparkSession.builder.master("local[1]").appName("millpond-tests")
    for key, value in settings.items():
        builder = builder.config(key, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    answers = [[[plain(value) for value in row] for row in spark.sql(sql).collect()] for sql in questions]
    spark.stop()
print(json.dumps(answers))
