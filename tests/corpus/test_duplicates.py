"""Ids that occur twice, found by their hashes."""

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from sentray.corpus.duplicates import find_duplicates, hash_texts


def hashes(texts: list[str]) -> np.ndarray:
    return hash_texts(pa.array(texts, pa.large_string()))


blocks = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.sampled_from(["a.csv", "b.csv"]),
        st.lists(st.sampled_from("abcdefgh"), max_size=6),
    ),
    max_size=8,
)


@settings(deadline=None)
@given(blocks, st.randoms())
def test_all_but_the_first_in_the_order_of_the_shards(drawn, random):
    drawn = sorted(drawn, key=lambda block: block[0])
    numbered, row = [], 0
    for shard, file, ids in drawn:
        numbered.append((shard, file, np.arange(row, row + len(ids)), hashes(ids)))
        row += len(ids)
    seen: set[str] = set()
    expected: dict[tuple[int, str], list[int]] = {}
    for (shard, file, rows, _), (_, _, ids) in zip(numbered, drawn, strict=True):
        for number, id in zip(rows.tolist(), ids, strict=True):
            if id in seen:
                expected.setdefault((shard, file), []).append(number)
            seen.add(id)
    order = list(range(4))
    random.shuffle(order)
    shuffled = [block for shard in order for block in numbered if block[0] == shard]
    found = find_duplicates(iter(shuffled))
    assert {(shard, file): rows.tolist() for shard, files in found.items() for file, rows in files.items()} == expected


def test_a_hash_is_that_of_the_text_alone():
    texts = ["", "a", "b", "ab", "a" * 8, "a" * 9, "é😀", "x" * 1000, "x" * 999 + "y", "\x00", "\x00\x00"]
    array = pa.array(["skipped", *texts], pa.large_string()).slice(1)
    assert hash_texts(array).tolist() == [int(hashes([text])[0]) for text in texts]
    assert len(set(hash_texts(array).tolist())) == len(texts)
    assert hash_texts(array.slice(0, 0)).tolist() == []
    assert hex(int(hashes(["review"])[0])) == "0x693f7be93415247b"


def test_hashes_of_ids_that_are_alike_spread():
    numbers = hashes([f"r{number:08}" for number in range(200_000)])
    assert len(np.unique(numbers)) == len(numbers)
    for shift in (0, 13, 40, 56):
        counts = np.bincount((numbers >> np.uint64(shift) & np.uint64(255)).astype(int), minlength=256)
        assert counts.min() > 600
        assert counts.max() < 970
