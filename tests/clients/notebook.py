"""Executes a notebook from top to bottom with the environment it is given. Prints {"mistakes": [...], "cells": n, "tables": n}."""
import json
import sys

import nbclient
import nbformat

notebook = nbformat.read(sys.argv[1], as_version=4)
nbformat.validate(notebook)
mistakes = []
try:
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
except nbclient.exceptions.CellExecutionError as error:
    mistakes.append(str(error))
cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
tables = sum("text/html" in output.get("data", {}) for cell in cells for output in cell.outputs)
print(json.dumps({"mistakes": mistakes, "cells": len(cells), "tables": tables}))
