"""Compares what a dashboard gives over HTTP, and what `panels.js` read of it in Chromium, with what was computed: the first to the
ninth digit, the second to the last digit that the page shows."""
import datetime
import json
import math
import re
import urllib.parse
import urllib.request

import log

UTC = datetime.timezone.utc
EMPTY = ("–", "null", "(none)", "")


class Time(int):
    """Epoch milliseconds that a page writes as a moment."""


class Length(int):
    """Milliseconds that a page writes as a length of time."""

    def written(self, text):
        words = re.fullmatch(r"(?:(\d+) h )?(?:(\d+) min ?)?(?:([\d.]+) s)?", text)
        if not words or not text:
            return False
        hours, minutes, seconds = (float(word or 0) for word in words.groups())
        # Hours stand without their seconds.
        return abs(3600 * hours + 60 * minutes + seconds - self / 1000) <= (60 if words[1] else 0.51)


def same(text, value):
    """Whether a page's text is this value. A number may be rounded to the digits that are shown."""
    if value is None:
        return text in EMPTY
    if isinstance(value, Time):
        at = datetime.datetime.fromtimestamp(value / 1000, UTC)
        return text == f"{at:%b} {at.day}, {at:%Y %H:%M:%S}"
    if isinstance(value, Length):
        return value.written(text)
    if isinstance(value, datetime.date):
        return text in (f"{value:%b} {value.day}, {value:%Y}", f"{value:%b} {value:%Y}", value.isoformat())
    if isinstance(value, bool):
        return text == str(value).lower()
    if isinstance(value, str):
        return text == value
    number = re.fullmatch(r"[^\d\-]*(-?[\d,]+(?:\.(\d+))?)(?: ?[^\d]*)", text)
    if not number:
        return False
    digits = len(number[2] or "")
    return abs(float(number[1].replace(",", "")) - value) <= 0.5 * 10 ** -digits * (1 + 1e-9) + 1e-9


def differences(panel, wanted, tolerance=None):
    """What is wrong with a panel that must show these rows; a figure is the first cell of the only row. `tolerance` is the share by
    which numbers may differ beside rounding: (column number → share)."""
    tolerance = tolerance or {}

    def fits(text, value, column):
        if same(text, value):
            return True
        share = tolerance.get(column)
        number = re.sub(r"[^\d.\-]", "", text)
        return share is not None and number not in ("", "-") and abs(float(number) - value) <= max(1, share * value)

    if panel is None:
        return ["is not on the page"]
    if panel["kind"] == "number":
        value = wanted[0][0] if wanted else None
        return [] if fits(panel["figure"], value, 0) else [f"shows {panel['figure']!r}, computed {value!r}"]
    rows = panel["rows"]
    if len(rows) != len(wanted):
        return [f"shows {len(rows)} rows {rows[:3]}, computed {len(wanted)} {[list(row) for row in wanted[:3]]}"]
    return [f"row {i}: shows {row}, computed {list(values)}" for i, (row, values) in enumerate(zip(rows, wanted))
            if len(row) != len(values) or not all(fits(text, value, k) for k, (text, value) in enumerate(zip(row, values)))][:5]


def plain(cell, is_moment):
    """A cell of an answer as Python has it: a DECIMAL is written as text."""
    if is_moment:
        return log.time_ms(cell)
    if isinstance(cell, str) and re.fullmatch(r"-?\d+(\.\d+)?", cell):
        return float(cell)
    if isinstance(cell, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", cell):
        return datetime.date.fromisoformat(cell)
    return cell


def equal(a, b):
    if isinstance(a, (int, float)) and isinstance(b, (int, float)) and not isinstance(a, bool) and not isinstance(b, bool):
        return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9)
    return a == b


def compare(http, name, expected, pages=None, **query):
    """Every panel of a dashboard against title → rows: (mistakes, panels). `pages` is what `panels.js` wrote. None in place of rows:
    the panel tells of the server itself (what it read and stores), which nobody can compute; it must have rows."""
    get = lambda path, **more: json.load(urllib.request.urlopen(f"http://{http}{path}?{urllib.parse.urlencode(more)}", timeout=120))
    panels, mistakes = get(f"/v1/dashboards/{name}", data="false")["panels"], []
    asked = urllib.parse.urlencode(query)
    read = (pages or {}).get(f"{name}?{asked}" if asked else name)
    if pages is not None and read is None:
        mistakes.append(f"{name}?{asked} is not among the pages {list(pages)}")
    if sorted(panel["title"] for panel in panels) != sorted(expected):
        mistakes.append(f"dashboard {name} has {[panel['title'] for panel in panels]}, not {list(expected)}")
    for at, panel in enumerate(panels):
        data = get(f"/v1/dashboards/{name}/panels/{at}", **query)
        if panel["title"] in expected and expected[panel["title"]] is None:
            if not data["rows"]:
                mistakes.append(f"panel {panel['title']} of {name} is empty")
            continue
        title, wanted = panel["title"], [list(row) for row in expected.get(panel["title"], [])]
        moments = [column["type"] == "TIMESTAMP" for column in data["columns"]]
        rows = [[plain(cell, moment) for cell, moment in zip(row, moments)] for row in data["rows"]]
        if len(rows) != len(wanted) or not all(len(a) == len(b) and all(map(equal, a, b)) for a, b in zip(rows, wanted)):
            differs = next(((a, b) for a, b in zip(rows, wanted) if len(a) != len(b) or not all(map(equal, a, b))), None)
            mistakes.append(f"panel {title} of {name}?{asked}: {len(rows)} rows, not {len(wanted)}; served and computed {differs or (rows[:3], wanted[:3])}")
        if read is not None:
            written = [[Time(cell) if moment and cell is not None else cell for cell, moment in zip(row, moments)] for row in wanted]
            mistakes += [f"panel {title} of {name}?{asked}: the page {what}" for what in differences(read[at], written)]
    return mistakes, len(panels)
