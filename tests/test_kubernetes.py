"""The Kubernetes manifests: KubeRay's schemas hold for them, sentray takes their commands, and they are locked."""

import gzip
import json
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer
import yaml

from sentray.cli import app
from sentray.config import ScoreSettings, TrainSettings
from sentray.options import resolve

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "jobs" / "kubernetes"
SCHEMAS = ROOT.parent / "shared" / "data" / "kuberay"
MANIFESTS = sorted(FOLDER.glob("*.yaml"))
SETTINGS = {"train": TrainSettings, "score": ScoreSettings}

pytestmark = pytest.mark.parametrize("file", MANIFESTS, ids=lambda file: file.stem)


def read(file: Path) -> dict[str, Any]:
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def job(file: Path) -> dict[str, Any]:
    """What a manifest says of the job, whether it runs once or every night."""
    spec = read(file)["spec"]
    return spec.get("jobTemplate", spec)


def containers(file: Path) -> list[dict[str, Any]]:
    cluster = job(file)["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [container for group in groups for container in group["template"]["spec"]["containers"]]


def strict(schema: Any) -> Any:
    """The schema with fields refused that it does not know, as Kubernetes would silently drop them."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: strict(part) for key, part in schema.items()}
    if isinstance(closed.get("properties"), dict) and "additionalProperties" not in closed:
        closed["additionalProperties"] = bool(closed.get("x-kubernetes-preserve-unknown-fields"))
    return closed


def schema_of(kind: str) -> Any:
    path = SCHEMAS / f"{kind.lower()}s.v1.schema.json.gz"
    if not path.exists():
        pytest.skip(f"KubeRay's schemas are not at {path}")
    schema = json.loads(gzip.decompress(path.read_bytes()))
    # The API server knows what an object's metadata may hold; KubeRay's schema leaves it open.
    schema["properties"]["metadata"] = {"type": "object"}
    return strict(schema)


def test_fits_kuberays_schema(file: Path) -> None:
    manifest = read(file)
    schema = schema_of(manifest["kind"])
    # Without a look at the schema itself, which is large and others' concern.
    validator = jsonschema.validators.validator_for(schema)(schema)
    validator.validate(manifest)
    spec = manifest["spec"].get("jobTemplate", manifest["spec"])
    spec["rayClusterSpec"]["headGroupSpec"]["tempalte"] = {}
    with pytest.raises(jsonschema.ValidationError, match="tempalte"):
        validator.validate(manifest)


def test_sentray_takes_the_command(file: Path) -> None:
    program, verb, *words = shlex.split(job(file)["entrypoint"])
    assert program == "sentray"
    command = typer.main.get_command(app).commands[verb]  # type: ignore[attr-defined]
    given = command.make_context(verb, words).params
    settings = resolve(SETTINGS[verb], {name: value for name, value in given.items() if value not in (None, [])})
    assert settings.text_column == "review"
    assert getattr(settings, "new_input", True) == (verb == "train" or file.stem == "nightly")


def test_only_the_token_opens_the_cluster_and_nothing_is_exposed(file: Path) -> None:
    cluster = job(file)["rayClusterSpec"]
    assert cluster["authOptions"]["mode"] == "token"
    assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert not cluster["headGroupSpec"].get("enableIngress")
    assert not [container for container in containers(file) if "env" in container or "envFrom" in container]


def test_workers_start_from_none_and_ask_for_what_they_may_take(file: Path) -> None:
    cluster = job(file)["rayClusterSpec"]
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert cluster["enableInTreeAutoscaling"]
    assert all(group["minReplicas"] == 0 < group["maxReplicas"] for group in cluster["workerGroupSpecs"])
    for container in containers(file):
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}


def test_a_lost_job_is_tried_again_and_a_finished_one_goes(file: Path) -> None:
    assert job(file)["backoffLimit"] > 0
    assert job(file)["shutdownAfterJobFinishes"]


def test_has_the_ray_that_the_project_asks_for(file: Path) -> None:
    import ray

    assert job(file)["rayClusterSpec"]["rayVersion"].split(".")[:2] == ray.__version__.split(".")[:2]
