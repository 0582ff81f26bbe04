"""What the readers with Apache Spark share: a session that leaves nothing behind, and values as JSON has them."""
import contextlib
import datetime
import decimal
import os
import tempfile

from pyspark.sql import SparkSession


@contextlib.contextmanager
def session(settings):
    """Spark with one core and these settings more. Its warehouse would else lie in the folder in which the tests were started."""
    with tempfile.TemporaryDirectory() as folder:
        own = {
            "spark.ui.enabled": "false",
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.sql.warehouse.dir": os.path.join(folder, "warehouse"),
            "spark.local.dir": os.path.join(folder, "local"),
            "spark.driver.memory": "700m",
            "spark.sql.shuffle.partitions": "1",
            "spark.sql.session.timeZone": "UTC",
        }
        builder = SparkSession.builder.master("local[1]").appName("millpond-tests")
        for key, value in (own | settings).items():
            builder = builder.config(key, value)
        spark = builder.getOrCreate()
        spark.sparkContext.setLogLevel("ERROR")
        yield spark
        spark.stop()


def rows(answer):
    """The rows of an answer; moments are text, in UTC."""
    return [[plain(value) for value in row] for row in answer.collect()]


def plain(value):
    if isinstance(value, (datetime.date, datetime.datetime)):
        return value.isoformat()
    return str(value) if isinstance(value, decimal.Decimal) else value
