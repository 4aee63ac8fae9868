"""`Vocabulary`: words and their ids; id = position + 1, id 0 is padding."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import pyarrow as pa

from sentray.errors import SentrayError
from sentray.text.cleaning import CleaningRules, tokenizer

Unknown = Literal["drop", "share"]


@dataclass
class Vocabulary:
    """The words a model knows, in id order.

    Attributes:
        words: the words; the first has id 1.
        unknown: what becomes of other words: `drop` leaves them out, `share` gives them one id, `unknown_id`.
    """

    words: list[str] = field(repr=False)
    unknown: Unknown = "drop"

    @classmethod
    def from_counts(
        cls,
        counts: Mapping[str, int],
        min_count: int = 1,
        max_words: int | None = None,
        unknown: Unknown = "drop",
    ) -> "Vocabulary":
        """The words that occur at least `min_count` times, the most frequent `max_words` of them.

        They are ordered by count, the highest first, then by code points.

        Raises:
            SentrayError: no word is left.
        """
        kept = [word for word, count in counts.items() if count >= min_count]
        if not kept:
            raise SentrayError(
                f"no word is left for the vocabulary: none of the {len(counts):,} distinct words occurs "
                f"{min_count} times or more; lower --min-count, or check --cleaning and --text-column"
            )
        kept.sort(key=lambda word: (-counts[word], word))
        return cls(kept[:max_words], unknown)

    @classmethod
    def from_text(cls, text: str, unknown: Unknown = "drop") -> "Vocabulary":
        r"""Read what `to_text` wrote.

        Args:
            text: one word a line, lines ended by `\n` alone.
            unknown: as in the class.

        Raises:
            SentrayError: an empty file, or a line that is empty, holds white space or repeats a word.
        """
        words, seen = text.removesuffix("\n").split("\n"), set[str]()
        for line, word in enumerate(words, 1):
            if word.split() != [word] or word in seen:
                raise SentrayError(
                    f"the vocabulary vocabulary.txt is damaged: line {line} ({word[:40]!r}) is no single new word; "
                    "restore the file or train again"
                )
            seen.add(word)
        return cls(words, unknown)

    def to_text(self) -> str:
        """One word a line, in id order."""
        return "".join(f"{word}\n" for word in self.words)

    @cached_property
    def ids(self) -> dict[str, int]:
        """Word to id, from 1."""
        return dict(zip(self.words, range(1, len(self.words) + 1), strict=True))

    @property
    def unknown_id(self) -> int:
        """The id that unknown words share where `unknown` is `share`: one past the last word's."""
        return len(self.words) + 1

    @property
    def size(self) -> int:
        """Rows an embedding needs: padding, every word, and the shared id where there is one."""
        return len(self.words) + (2 if self.unknown == "share" else 1)

    def samples(self) -> list[str]:
        """Texts that reach all of cleaning, vocabulary and network, for golden scores; not taken from any review."""
        words = self.words
        spread = words[:: max(len(words) // 50, 1)]
        return [
            " ".join(words[:30]),
            " ".join(spread),
            f"<b>{words[0].upper()}</b>, {words[-1]}!<br />{words[0]} zzqx 42.",
        ]

    def __len__(self) -> int:
        return len(self.words)


def count_words(texts: pa.Array | pa.ChunkedArray, rules: CleaningRules) -> Counter[str]:
    """How often each word occurs in the texts after cleaning.

    Args:
        texts: `string` or `large_string`; nulls count nothing.
        rules: the cleaning.
    """
    prepared = tokenizer(rules)
    tokens: Counter[str] = Counter()
    for text in texts.to_pylist():
        if text is not None:
            tokens.update(prepared.split(text))
    words: Counter[str] = Counter()
    for token, count in tokens.items():
        for word in prepared.words(token):
            words[word] += count
    return words
