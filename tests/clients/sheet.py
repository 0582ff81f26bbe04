"""What a spreadsheet holds, read by openpyxl.

    sheet.py FILE_OR_URL [JSON_BODY]   ->   {"sheets": [{"name", "frozen", "filter", "rows": [[[type, value], ...], ...]}]}

With a body, the URL is asked by POST. Types are those of the cells: n number, s text, d date, b boolean, f formula.
"""

import datetime
import io
import json
import sys
import urllib.request

import openpyxl

KIND = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"


def source(place, body):
    if not place.startswith("http"):
        return place
    data = body.encode() if body else None
    request = urllib.request.Request(place, data, {"content-type": "application/json", "accept": KIND})
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.headers["content-type"] == KIND, answer.headers["content-type"]
        return io.BytesIO(answer.read())


def plain(cell):
    value = cell.value
    if isinstance(value, datetime.datetime):
        value = value.isoformat()
    return [cell.data_type, value]


def main():
    body = sys.argv[2] if len(sys.argv) > 2 else None
    book = openpyxl.load_workbook(source(sys.argv[1], body))
    sheets = []
    for sheet in book.worksheets:
        rows = [[plain(cell) for cell in row] for row in sheet.iter_rows()]
        sheets.append({"name": sheet.title, "frozen": sheet.freeze_panes, "filter": sheet.auto_filter.ref, "rows": rows})
    print(json.dumps({"sheets": sheets}))


main()
