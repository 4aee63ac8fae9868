"""The baseline of `sentray bench train`: the tutorial's training as a plain Keras script.

It is run as a process of its own: `python -m sentray.bench.tutorial DATASET EPOCHS BATCH SEED`, and prints one JSON
list with the loss and the seconds of each epoch.
"""

import json
import sys
import time

import numpy as np

from sentray import models
from sentray.training.training_set import TrainingSet


def main(folder: str, epochs: int, batch_size: int, seed: int) -> list[dict[str, float]]:
    """Pad every review to the longest one, compile, fit; the same first weights as sentray has with this seed."""
    import keras

    dataset = TrainingSet.load(folder)
    length, classes = dataset.facts.spec.max_length, len(dataset.facts.spec.labels)
    padded = np.zeros((len(dataset), length), np.int32)
    for row in range(len(dataset)):
        review = dataset.review(row)
        padded[row, : len(review)] = review
    keras.utils.set_random_seed(seed)
    model = models.architecture(dataset.facts.spec.architecture).build(dataset.vocabulary.size, length, classes)
    loss = "binary_crossentropy" if classes == 2 else "sparse_categorical_crossentropy"
    model.compile(optimizer="adam", loss=loss, metrics=["accuracy"])
    records = []
    for _ in range(epochs):
        started = time.perf_counter()
        history = model.fit(padded, dataset.targets, epochs=1, batch_size=batch_size, verbose=0)
        records.append({"loss": history.history["loss"][0], "seconds": time.perf_counter() - started})
    return records


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], *map(int, sys.argv[2:5]))))
