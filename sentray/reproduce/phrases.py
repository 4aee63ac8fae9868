"""Ten labelled phrases of our own, for the systems that a tutorial trains on ten phrases of its own."""

import json
from pathlib import Path

from sentray.storage import write_text

PHRASES = (
    ("A joy to watch", "pos"),
    ("Warm and funny", "pos"),
    ("Wonderful cast", "pos"),
    ("Wonderful performance", "pos"),
    ("I loved it", "pos"),
    ("Terrible script", "neg"),
    ("Do not bother", "neg"),
    ("Slow and empty", "neg"),
    ("I hated it", "neg"),
    ("Boring!", "neg"),
)
"""Text and label; of 1 to 4 words each.

Ten rows are one step an epoch, and 50 steps of Adam move no number by more than 0.05: phrases of which most is padding,
or whose words share a bucket with words of the other label, are not learnt in each run. These are.
"""


def write_phrases(file: Path) -> None:
    """Write the phrases as JSON Lines with `id`, `text` and `label`."""
    rows = [{"id": str(number), "text": text, "label": label} for number, (text, label) in enumerate(PHRASES, 1)]
    write_text(str(file), "".join(json.dumps(row) + "\n" for row in rows))
