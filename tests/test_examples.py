"""The examples of `jobs/examples/` do what they say: the notebook runs cell by cell, the pipeline into each sink."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import sentray
from sentray.bundle import Bundle

EXAMPLES = Path(__file__).resolve().parents[1] / "jobs" / "examples"
SECONDS = 300


@pytest.mark.slow
def test_the_notebook_goes_from_csv_to_parquet_to_a_plot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    pytest.importorskip("matplotlib")
    # The kernel imports this checkout, and may not find the machine's own kernels and settings.
    monkeypatch.setenv("PYTHONPATH", str(EXAMPLES.parents[1]))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    notebook = nbformat.read(EXAMPLES / "csv_to_parquet.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "the notebook is kept without outputs"
    resources = {"metadata": {"path": str(tmp_path)}}
    done = nbclient.NotebookClient(notebook, timeout=SECONDS, resources=resources).execute()

    printed = [
        output.text for cell in done.cells for output in cell.get("outputs", []) if output.output_type == "stream"
    ]
    assert "1000 rows in = 1000 scored + 0 quarantined\n" in printed
    assert "rows            1,000, usable 1,000" in "".join(printed)
    assert "pid=" not in "".join(printed), "what Ray's processes print is not shown"
    scored = pq.read_table(tmp_path / "scored" / "scores")
    agree = sum(a == b for a, b in zip(scored["label"].to_pylist(), scored["stars"].to_pylist(), strict=True))
    assert agree > 800
    assert (tmp_path / "scores.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.parametrize("sink", ["parquet", "delta"])
def test_the_pipeline_writes_by_rays_own_sinks(sink: str, raylets, small_bundle: Bundle, tmp_path: Path) -> None:
    if sink == "delta":
        pytest.importorskip("deltalake")
    (tmp_path / "in").mkdir()
    bodies = ["a great film", "an awful film", None, "great great great"]
    pq.write_table(pa.table({"customer": [1, 2, 3, 4], "body": bodies}), tmp_path / "in" / "reviews.parquet")
    out = tmp_path / "out"
    command = [sys.executable, EXAMPLES / "ray_data_pipeline.py", small_bundle.path, tmp_path / "in", out]
    environment = {**raylets.client, "RAY_ADDRESS": raylets.address, "PYTHONPATH": str(EXAMPLES.parents[1])}
    run = [*command, "--text-column", "body", "--sink", sink]
    done = subprocess.run(run, env=environment, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr

    if sink == "parquet":
        table = pq.read_table(out)
    else:
        from deltalake import DeltaTable

        table = DeltaTable(out).to_pyarrow_table()
    rows = sorted(table.to_pylist(), key=lambda row: row["customer"])
    assert [row["body"] for row in rows] == bodies
    labels = iter(sentray.load(small_bundle.path).predict([body for body in bodies if body]))
    assert [row["label"] for row in rows] == [body and next(labels) for body in bodies]
    assert rows[2]["score"] is None
