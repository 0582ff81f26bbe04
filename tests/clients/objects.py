"""An outside reader of a lake in a bucket, with pyarrow's own clients of S3, Azure and Google.

    objects.py KIND ADDRESS make BUCKET         makes a bucket, or a container
    objects.py KIND ADDRESS nobody 0|1          the store takes no key any more, or any again (not Azure)
    objects.py KIND ADDRESS keys BUCKET         the paths of all objects
    objects.py KIND ADDRESS uploads BUCKET      how many uploads in parts are not ended (not Azure)
    objects.py KIND ADDRESS read BUCKET/DIR     what is in the Parquet files below a directory

KIND is s3 (moto), azure (azurite) or google (support/google/storage.py).

Prints JSON on stdout.
"""
import datetime
import json
import os
import sys
import urllib.request

import pyarrow
import pyarrow.compute
import pyarrow.dataset
import pyarrow.fs


def read(store, directory):
    selector = pyarrow.fs.FileSelector(directory, recursive=True, allow_not_found=True)
    files = sorted(info.path for info in store.get_file_info(selector) if info.path.endswith(".parquet"))
    levels = sorted({part.split("=")[0] for path in files for part in path[len(directory) + 1:].split("/")[:-1]})
    schema = pyarrow.schema([(name, pyarrow.string()) for name in levels])
    flavour = pyarrow.dataset.HivePartitioning(schema, null_fallback="__HIVE_DEFAULT_PARTITION__")
    found = pyarrow.dataset.dataset(files, filesystem=store, format="parquet", partitioning=flavour, partition_base_dir=directory)
    table = found.to_table()
    answer = {"files": len(files), "rows": table.num_rows}
    if "_offset" in table.column_names:
        answer["places"] = table.select(["_partition", "_offset"]).group_by(["_partition", "_offset"]).aggregate([]).num_rows
    answer["sums"] = {
        field.name: pyarrow.compute.sum(table[field.name]).as_py()
        for field in table.schema
        if pyarrow.types.is_integer(field.type) and not field.name.startswith("_")
    }
    if levels:
        counts = table.group_by(levels[-1]).aggregate([([], "count_all")]).to_pylist()
        answer["by"] = sorted([str(row[levels[-1]]), row["count_all"]] for row in counts)
    return answer


def asked(method, url, body):
    headers = {"Content-Type": "text/plain"} | ({"Authorization": "Bearer reader"} if sys.argv[1] == "google" else {})
    with urllib.request.urlopen(urllib.request.Request(url, body, headers, method=method)) as found:
        return found.read()


def main():
    kind, address, act, *rest = sys.argv[1:]
    endpoint = f"http://{address}"
    if kind == "s3":
        store = pyarrow.fs.S3FileSystem(
            access_key="reader", secret_key="reader", endpoint_override=endpoint, region="eu-central-1", allow_bucket_creation=True
        )
    elif kind == "google":
        never = datetime.datetime(2100, 1, 1)
        store = pyarrow.fs.GcsFileSystem(access_token="reader", credential_token_expiration=never, endpoint_override=address, scheme="http")
    else:
        places = {f"{service}_storage_{part}": value for service in ("blob", "dfs") for part, value in (("authority", address), ("scheme", "http"))}
        store = pyarrow.fs.AzureFileSystem("lake", account_key=os.environ["KEY"], **places)
    if act == "make" and kind == "google":
        asked("PUT", f"{endpoint}/{rest[0]}", b"")
        answer = None
    elif act == "make":
        store.create_dir(rest[0])
        answer = None
    elif act == "nobody":
        # moto takes a count of requests whose keys it does not look at
        place, said = ("_test/nobody?" + rest[0], b"") if kind == "google" else ("moto-api/reset-auth", b"0" if rest[0] == "0" else b"inf")
        asked("POST", f"{endpoint}/{place}", said)
        answer = None
    elif act == "keys":
        infos = store.get_file_info(pyarrow.fs.FileSelector(rest[0], recursive=True))
        answer = sorted(info.path for info in infos if info.type == pyarrow.fs.FileType.File)
    elif act == "uploads":
        answer = asked("GET", f"{endpoint}/{rest[0]}?uploads", None).count(b"<UploadId>")
    else:
        answer = read(store, rest[0])
    print(json.dumps(answer))


main()
