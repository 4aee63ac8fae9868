"""What `ray job submit --working-dir .` sends: the program, and neither history nor data nor environments."""

import shutil
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MAX_BYTES = 2_000_000

KEPT_HERE = (
    ".git/objects/pack",
    ".venv/lib/python3.11/site-packages/big.py",
    "runs/quickstart/bundle/model.keras",
    "data/reviews.txt",
    "reviews.parquet",
    "warehouse/part-0.csv",
    "vectors.txt.gz",
    "models/stars/folded.npz",
    "tests/test_cli.py",
    "sentray/text/__pycache__/kernel.nbi",
    "model.log",
    "model.work/train/state.json",
    "env/bin/python",
    ".tox/py311/bin/python",
    ".env",
    "keys/cluster.pem",
)


def test_the_upload_is_small_and_holds_the_program_alone(tmp_path: Path) -> None:
    # Here and not above: what imports Ray while tests are collected keeps `sentray.cluster` from setting the address.
    from ray._private.runtime_env.packaging import create_package

    checkout = tmp_path / "checkout"
    checkout.mkdir()
    for name in ("sentray", "jobs"):
        shutil.copytree(ROOT / name, checkout / name)
    for name in (".gitignore", ".rayignore", "pyproject.toml", "README.md", "LICENSE", "cluster.yaml"):
        shutil.copy(ROOT / name, checkout / name)
    for name in KEPT_HERE:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_bytes(bytes(100_000))
    package = tmp_path / "package.zip"
    create_package(str(checkout), package, include_gitignore=True)
    with zipfile.ZipFile(package) as archive:
        sent = set(archive.namelist())
    assert not sent & set(KEPT_HERE)
    assert {
        "jobs/train.py",
        "jobs/score.py",
        "jobs/runtime_env.yaml",
        "sentray/cli.py",
        "sentray/text/kernel.py",
        "pyproject.toml",
    } <= sent
    assert {path.relative_to(ROOT).as_posix() for path in (ROOT / "sentray").rglob("*.py")} <= sent
    assert package.stat().st_size < MAX_BYTES
