"""Asks Spark for Iceberg tables of the lake.

    spark_iceberg.py JAR CATALOGS SQL…

CATALOGS is {"name": {"setting": "value"}}. Each SQL is asked; prints [[rows], …] on stdout; moments are text, in UTC.
"""
import json
import sys

from spark import rows, session

jar, catalogs, *questions = sys.argv[1:]
settings = {
    "spark.jars": jar,
    "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
}
for name, more in json.loads(catalogs).items():
    settings[f"spark.sql.catalog.{name}"] = "org.apache.iceberg.spark.SparkCatalog"
    settings |= {f"spark.sql.catalog.{name}.{key}": value for key, value in more.items()}
with session(settings) as spark:
    answers = [rows(spark.sql(sql)) for sql in questions]
print(json.dumps(answers))
