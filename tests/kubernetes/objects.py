"""Objects read from YAML, and held against the published schemas."""

import json
import re
from functools import cache
from importlib.resources import files
from pathlib import Path

import yaml
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

OWN_SCHEMAS = Path(__file__).parent / "schemas"
# The oldest that the chart takes, and the newest that there are schemas of.
VERSIONS = ("1.34.0", "1.37.0")

LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")
LABEL_KEY = re.compile(r"([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?")
LONG_NAME = r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?"
SHORT_NAME = r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?"
# Kinds with names that need not be DNS labels: those that are no name of a host or a pod.
LONG_NAMES = {
    "ClusterRole", "ClusterRoleBinding", "CSIDriver", "PersistentVolume", "Role", "RoleBinding", "Secret",
    "StorageClass", "VolumeAttributesClass", "VolumeSnapshotClass",
}
CLUSTER_KINDS = {
    "ClusterRole", "ClusterRoleBinding", "CSIDriver", "Namespace", "PersistentVolume", "StorageClass",
    "VolumeAttributesClass", "VolumeSnapshotClass",
}
WORKLOADS = {"Deployment", "StatefulSet", "DaemonSet", "Job", "Pod"}


class StrictLoader(yaml.SafeLoader):
    """Refuses a key that is there twice, of which others take the last."""

    def construct_mapping(self, node, deep=False):
        keys = [key.value for key, _ in node.value]
        twice = {key for key in keys if keys.count(key) > 1}
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"twice: {twice}", node.start_mark)
        return super().construct_mapping(node, deep)


def load(text):
    return [document for document in yaml.load_all(text, StrictLoader) if document is not None]


def key_of(thing):
    """Kind, namespace and name."""
    return thing["kind"], thing["metadata"].get("namespace", ""), thing["metadata"]["name"]


def shown(thing):
    return f"{thing.get('kind')} {thing.get('metadata', {}).get('name')}"


@cache
def definitions(version):
    directory = files("kubernetes_validate") / "kubernetes-json-schema" / f"v{version}-local-strict"
    text = (directory / "_definitions.json").read_text()
    return directory, Resource.from_contents(json.loads(text)) @ Registry()


@cache
def validator(version, api_version, kind):
    """None for a kind that nobody published a schema of."""
    directory, registry = definitions(version)
    group, _, rest = api_version.rpartition("/")
    name = "-".join(part for part in (kind.lower(), group.split(".")[0], rest) if part) + ".json"
    for path in (OWN_SCHEMAS / name, directory / name):
        if path.is_file():
            schema = json.loads(path.read_text())
            # Within the published ones, so that their definitions are found.
            schema.setdefault("$id", f"https://kubernetes.io/api/own/{name}")
            return Draft202012Validator(schema, registry=registry)
    return None


def schema_faults(thing, versions=VERSIONS):
    """What is wrong with an object by itself."""
    if not isinstance(thing, dict) or not thing.get("kind") or not thing.get("apiVersion"):
        yield "not an object of Kubernetes"
        return
    for version in versions:
        check = validator(version, thing["apiVersion"], thing["kind"])
        if check is None:
            yield f"{shown(thing)}: Kubernetes {version} has no {thing['apiVersion']} {thing['kind']}"
            continue
        for error in check.iter_errors(thing):
            yield f"{shown(thing)}: Kubernetes {version}: {'.'.join(map(str, error.path))}: {error.message[:300]}"
    yield from (f"{shown(thing)}: {fault}" for fault in form_faults(thing))


def form_faults(thing):
    """What the schemas leave open, and the API server does not."""
    name = thing["metadata"].get("name", "")
    if not re.fullmatch(LONG_NAME if thing["kind"] in LONG_NAMES else SHORT_NAME, name):
        yield f"`{name}` is no name"
    for path, value in walk(thing):
        where = ".".join(map(str, path))
        if value is None:
            yield f"{where} is empty"
        if path and path[-1] in ("labels", "matchLabels", "nodeSelector") and isinstance(value, dict):
            for key, word in value.items():
                if not LABEL_KEY.fullmatch(key) or not isinstance(word, str) or not LABEL_VALUE.fullmatch(word):
                    yield f"{where}: {key}={word} is no label"
        if path and path[-1] in ("requests", "limits", "capacity") and isinstance(value, dict):
            for key, amount in value.items():
                if not QUANTITY.fullmatch(str(amount)):
                    yield f"{where}: {key}: {amount} is no quantity"
        if path and path[-1] == "image" and not re.fullmatch(r"[a-z0-9./_-]+:[A-Za-z0-9._-]+", str(value)):
            yield f"{where}: {value} is no image with a tag"


def walk(value, path=()):
    yield path, value
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from walk(inner, (*path, key))
    elif isinstance(value, list):
        for n, inner in enumerate(value):
            yield from walk(inner, (*path, n))


def pod_of(thing):
    """Labels and spec of the pods that an object makes, or None."""
    if thing["kind"] == "Pod":
        return thing["metadata"].get("labels", {}), thing["spec"]
    if thing["kind"] in WORKLOADS:
        template = thing["spec"]["template"]
        return template["metadata"]["labels"], template["spec"]
    return None


def containers(spec):
    return [*spec.get("initContainers", []), *spec["containers"]]
