"""Word vectors: learnt from a corpus, read from files of any common format, placed in a network, written out again."""
