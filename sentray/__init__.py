"""Train sentiment models on review text and score millions of reviews, on a laptop or a Ray cluster."""

__version__ = "0.1.0"
