"""Small corpora for the tests of this folder."""

import io
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from sentray.config import CorpusSettings
from sentray.corpus.readers import read_shard
from sentray.corpus.source import resolve
from sentray.corpus.splits import plan_shards


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str | bytes], Path]:
    """Writes a file under the test's folder, text as UTF-8."""

    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


@pytest.fixture(scope="session")
def archive() -> Callable[..., bytes]:
    """Makes a zip archive of files by name."""

    def archive(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w", method) as writer:
            for name, member in members.items():
                writer.writestr(name, member)
        return content.getvalue()

    return archive


@pytest.fixture(scope="session")
def read() -> Callable[..., pa.Table]:
    """Reads all rows of a corpus into one table, shard by shard."""

    def read(uri: object, keep: Sequence[str] = (), need_label: bool = False, size: int = 64_000_000, **names: Any):
        settings = CorpusSettings(**names)
        source = resolve(str(uri), settings)
        tables = [
            table
            for shard in plan_shards(source, size)
            for table in read_shard(source.lean(), shard, settings, keep, need_label)
        ]
        return pa.concat_tables(tables)

    return read


@pytest.fixture(scope="session")
def reviews_folder(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The polarity corpus as the class folders that its authors give out."""
    folder = tmp_path_factory.mktemp("polarity")
    with tarfile.open(shared / "data" / "review_polarity.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "txt_sentoken"
