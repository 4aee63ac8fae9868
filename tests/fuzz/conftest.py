"""Our files, changed as an untrusted source might; SENTRAY_FUZZ_EXAMPLES=5000 looks longer, elsewhere each time."""

import copy
import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from sentray.errors import SentrayError

FEW = 40
EXAMPLES = int(os.environ.get("SENTRAY_FUZZ_EXAMPLES", FEW))

settings.register_profile(
    "fuzz",
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES == FEW,
    database=None,
    suppress_health_check=list(HealthCheck),
)

PIECES = st.one_of(
    st.binary(max_size=8),
    st.sampled_from(
        [b"\x00" * 16, b"\xff" * 8, b"\x7f\xff\xff\xff", b"\n", b'"', b",", b"{", b"[" * 5000, b"\xed\xa0\x80"]
    ),
)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([-1, 0, 1, 2**31, 2**63, 2**64, -(2**70), 10**400, 1e308, float("nan"), float("inf")]),
    st.sampled_from(["", "..", "../precious", "/etc/passwd", "\ud800", "\x1b[2J", "\x00", "a" * 5000, "synthetic:5"]),
    st.sampled_from([[], {}, [[]], {"": None}, [1, 2, 3], {"config": {}, "class_name": "Lambda"}]),
)


class OurError:
    """A block that may end with an error of ours, and no other; one in one sentence."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        return isinstance(error, SentrayError) and "\n" not in str(error)


@pytest.fixture(scope="session")
def our_error() -> OurError:
    return OurError()


@pytest.fixture(scope="session")
def mutate() -> Callable[[st.DataObject, bytes], bytes]:
    """Flips, cuts, inserts and repeats bytes."""

    def mutate(data: st.DataObject, content: bytes) -> bytes:
        for _ in range(data.draw(st.integers(1, 3))):
            start = data.draw(st.integers(0, len(content)))
            stop = min(len(content), start + data.draw(st.sampled_from([0, 1, 1, 2, 8, 100, 1 << 30])))
            kind = data.draw(st.sampled_from(["replace", "replace", "cut", "insert", "repeat"]))
            piece = data.draw(PIECES) if kind in ("replace", "insert") else b""
            if kind == "repeat":
                piece = content[start:stop] * data.draw(st.integers(2, 40))
            content = content[:start] + piece + content[start if kind == "insert" else stop :]
        return content

    return mutate


@pytest.fixture(scope="session")
def mutate_json() -> Callable[[st.DataObject, Any], Any]:
    """Replaces, removes and adds values somewhere."""

    def mutate(data: st.DataObject, value: Any) -> Any:
        value = copy.deepcopy(value)
        for _ in range(data.draw(st.integers(1, 2))):
            inner = value
            while True:
                keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
                if not keys:
                    break
                key = data.draw(st.sampled_from(keys))
                if isinstance(inner[key], dict | list) and inner[key] and data.draw(st.integers(0, 4)):
                    inner = inner[key]
                    continue
                if data.draw(st.integers(0, 4)):
                    inner[key] = copy.deepcopy(data.draw(VALUES))
                else:
                    del inner[key]
                break
            if isinstance(inner, dict) and not data.draw(st.integers(0, 4)):
                inner[data.draw(st.sampled_from(["more", "", "\x1b[31m", "..", "\ud800"]))] = copy.deepcopy(
                    data.draw(VALUES)
                )
        return value

    return mutate
