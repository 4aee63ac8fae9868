"""What a review becomes: cleaning, vocabulary and ids. Imports neither Ray nor TensorFlow."""

from sentray.text.cleaning import CleaningRules, clean, preset, rules_from
from sentray.text.encoding import Encoded, Encoder, pad
from sentray.text.hashing import HashedWords, Words
from sentray.text.vocabulary import Vocabulary, count_words

__all__ = [
    "CleaningRules",
    "Encoded",
    "Encoder",
    "HashedWords",
    "Vocabulary",
    "Words",
    "clean",
    "count_words",
    "pad",
    "preset",
    "rules_from",
]
