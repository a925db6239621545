"""The notebook runs from top to bottom, and its claims hold."""

import json
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).resolve().parent.parent.parent / "notebooks" / "finetune.ipynb"


@pytest.mark.slow
def test_the_notebook_runs(tmp_path, monkeypatch):
    monkeypatch.delenv("MPLBACKEND", raising=False)  # the notebook's own backend puts pictures into its cells
    nbformat = pytest.importorskip("nbformat")
    client = pytest.importorskip("nbclient").NotebookClient
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell("import json; print(json.dumps(accuracy))"))
    client(
        notebook,
        timeout=300,
        startup_timeout=150,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    ).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    accuracy = json.loads(outputs[-1]["text"])
    assert accuracy[-1] > accuracy[0]
    assert accuracy[-1] > 0.95
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2


def test_no_outputs_are_kept():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
