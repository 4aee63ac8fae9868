"""Fixtures shared by the whole run: one local Ray, and the real data where it can be had."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"

if "NLTK_DATA" not in os.environ and (SHARED / "nltk_data").is_dir():
    os.environ["NLTK_DATA"] = str(SHARED / "nltk_data")


@pytest.fixture(scope="session")
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip(f"the folder of real data {SHARED} is not here")
    return SHARED


@pytest.fixture(scope="session")
def nltk_polarity() -> str:
    from sentray import nltk_data

    if nltk_data.find("corpora/movie_reviews") is None:
        pytest.skip("NLTK's movie_reviews is not here; set NLTK_DATA to a folder that holds it")
    return "nltk:movie_reviews"


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    from sentray import cluster

    with cluster.connect(address=None, cpus=2):
        yield
