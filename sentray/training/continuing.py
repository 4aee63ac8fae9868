"""`--continue-from`: what a training takes over from an earlier bundle, so that it goes on with its weights.

Cleaning, words, n-grams, length, labels and numbers are the bundle's. Each head starts as it was before the bundle's
last layer mixed and calibrated them; its optimizer starts anew.
"""

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentray import bundle, cluster, models, options
from sentray.bundle import Bundle
from sentray.config import TrainSettings
from sentray.corpus.rows import Hashes, Mask
from sentray.errors import SentrayError
from sentray.models import DEEP, EMBEDDING, OUTPUT, WIDE

Start = dict[str, NDArray[np.float32]]
"""First weights: of halves by `HEAD/LAYER/NUMBER`, as `Head.layers` gives them; of others by `NUMBER` in the model."""
_PINNED = re.compile(r"(.*)#([0-9a-f]{64})", re.DOTALL)


def pinned(settings: TrainSettings) -> TrainSettings:
    """The settings with the bundle's digest behind its path, and with what of them is the bundle's to say.

    Raises:
        SentrayError: The bundle cannot be used, is another than the one pinned, or a setting contradicts it.
    """
    if settings.continue_from is None:
        return settings
    known = _PINNED.fullmatch(settings.continue_from)
    path = known[1] if known else settings.continue_from
    found = bundle.load(path)
    spec = found.spec
    if known and known[2] != found.digest:
        raise SentrayError(f"{path} holds another bundle than the one that was continued from: put that back")
    if found.texts is None:
        raise SentrayError(f"{found} is of an earlier format and does not say what it was trained on: train it again")
    model = spec.network
    default = TrainSettings.model_fields["model"].default
    if settings.model not in (model, default) and models.architecture(settings.model).name != model:
        raise SentrayError(f"{found} is a {model}, not a {settings.model}: leave out --model")
    if spec.function is not None and settings.model != model:
        raise SentrayError(f"{found} was built by code of yours, which is run again: give --model {model} as well")
    if spec.function is not None and spec.function.layers:
        raise SentrayError(f"{found} has layers that need --trust-model, and cannot be continued from: train anew")
    architecture = models.architecture(settings.model)
    if (
        spec.function is not None
        and isinstance(architecture, models.Built)
        and architecture.digest != spec.function.digest
    ):
        raise SentrayError(
            f"the source of --model {model} is not what {found} was trained with: put that version back, or train anew "
            "without --continue-from"
        )
    if settings.task not in (TrainSettings.model_fields["task"].default, spec.task):
        raise SentrayError(f"{found} answers --task {spec.task}, not {settings.task}: leave it out")
    if settings.numeric and set(settings.numeric) != set(spec.columns):
        raise SentrayError(
            f"{found} takes {', '.join(spec.columns) or 'no numbers'} besides the text: leave out --numeric"
        )
    taken = {"model": model, "task": spec.task, "numeric": spec.columns, "continue_from": f"{path}#{found.digest}"}
    # Checked anew, since not all settings go with the bundle's task; --freeze is none that may be given.
    whole = options.checked(TrainSettings, {**dict(settings), **taken})
    return whole.model_copy(update={"freeze": found.settings.get("freeze", False)})


def base_of(settings: TrainSettings) -> Bundle | None:
    """The bundle that training goes on with, of pinned settings; None where it starts anew."""
    known = _PINNED.fullmatch(settings.continue_from or "")
    return bundle.load(known[1]) if known else None


def rows_before(base: Bundle) -> int:
    """Rows that a bundle and those that it continued from were trained on."""
    continued: dict[str, Any] = base.metrics.get("continued") or {}
    return int(continued.get("rows", base.metrics["train_rows"]))


def trained_before(base: Bundle, hashes: Hashes) -> Mask:
    """Which texts the bundle was trained on, by their hashes.

    Raises:
        SentrayError: It was trained on all of them, or on too many to keep each text's hash.
    """
    texts = base.texts
    if texts is None or texts.sampled > 1:
        raise SentrayError(f"{base} was trained on too many texts to know each again, and cannot be continued from")
    old: Mask = np.isin(hashes, texts.values)
    if old.all():
        raise SentrayError(f"{base} was trained on each of these {len(old):,} rows: give new ones")
    return old


def rehearsal(base: Bundle, old: Mask, weights: NDArray[np.float32]) -> tuple[dict[str, Any], str]:
    """Make old rows count, together, as all that the bundle was trained on; what is known of them, and a line of it.

    Args:
        base: The bundle.
        old: Which rows it was trained on.
        weights: How much each row counts, float32 [rows]; those of old rows are changed.
    """
    before, again = rows_before(base), int(old.sum())
    new = len(old) - again
    known = {"from": base.digest, "new_rows": new, "old_rows": again, "rows": before + new}
    line = f"continues from {base}: {new:,} rows are new and count 1 each"
    if not again:
        return known, f"{line}; none of its {before:,} rows is among them, so that only its weights remember these"
    each = before / again
    weights[old] *= np.float32(each)
    line += f", {again:,} of its {before:,} rows are rehearsed and count {each:.3g} each"
    return known | {"old_weight": each}, line


def start_of(base: Bundle) -> tuple[Start, int | None]:
    """The weights to start from, and the numbers of a word's vector, where words have one; a Ray task reads them."""
    import ray

    try:
        found: tuple[Start, int | None] = ray.get(ray.remote(num_cpus=1)(_start).remote(base.files))
    except ray.exceptions.RayError as error:
        raise cluster.user_error(error) or error from None
    return found


def _start(files: dict[str, bytes]) -> tuple[Start, int | None]:
    from sentray.inference.networks import load_network

    base = bundle.unpack(files)
    model, architecture, about = load_network(base), models.architecture(base.spec.network), base.calibration
    heads = architecture.heads
    factors = {head: 1 / len(heads) for head in heads}
    added = 0.0
    if about is not None:
        factors, added = {head: share / about.temperature for head, share in about.heads.items()}, about.bias
    mean, scale = base.metrics.get("target", (0.0, 1.0))
    factors, added = {head: scale * factor for head, factor in factors.items()}, scale * added + mean
    output = model.get_layer(OUTPUT)
    kernel, bias = output.get_weights()
    # What is each head's own share of the bias nobody knows any more.
    bias = (bias - np.float32(added)) / np.float32(sum(factors.values()))
    dimensions = next((layer.output_dim for layer in model.layers if layer.name == EMBEDDING), None)
    if not isinstance(architecture, models.Halves):
        output.set_weights([kernel / np.float32(factors[heads[0]]), bias])
        return {f"{number:06d}": values for number, values in enumerate(model.get_weights())}, dimensions
    found: dict[str, Any] = {}
    ends = np.cumsum([model.get_layer(WIDE).get_weights()[0].shape[1] if WIDE in heads else 0])
    kernels = dict(zip((WIDE, DEEP), np.split(kernel, ends), strict=True))
    for head in heads:
        # A head that counted for nothing has lost what its features were for.
        factor = factors[head]
        found[f"{head}/{OUTPUT}/0"] = kernels[head] / np.float32(factor) if factor else np.zeros_like(kernels[head])
        found[f"{head}/{OUTPUT}/1"] = bias
    for layer in model.layers:
        if layer.name != OUTPUT:
            head = WIDE if layer.name == WIDE else DEEP
            found |= {f"{head}/{layer.name}/{number}": each for number, each in enumerate(layer.get_weights())}
    return found, dimensions


def layers_of(start: Start, head: str) -> dict[str, list[NDArray[np.float32]]]:
    """What a half starts from, as `Head.layers` gives it."""
    found: dict[str, list[NDArray[np.float32]]] = {}
    for key in sorted(start):
        of_head, layer, _ = key.split("/")
        if of_head == head:
            found.setdefault(layer, []).append(start[key])
    return found
