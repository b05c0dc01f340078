"""As much of kustomize as the overlays here use: resources, components, replicas and JSON patches. Where there is a
kubectl, its kustomize has to come to the same."""

import copy
import json
import shutil
import subprocess

from objects import key_of, load

FIELDS = {"apiVersion", "kind", "resources", "components", "replicas", "patches"}


def build(directory):
    """The objects of a kustomization; raises ValueError for what is not possible."""
    (file,) = load((directory / "kustomization.yaml").read_text())
    if not set(file) <= FIELDS:
        raise ValueError(f"{directory}: {set(file) - FIELDS} is not understood here")
    things = []
    for name in [*file.get("resources", []), *file.get("components", [])]:
        path = directory / name
        things += build(path) if path.is_dir() else load(path.read_text())
    for replicas in file.get("replicas", []):
        taken = [thing for thing in things if thing["metadata"]["name"] == replicas["name"]]
        taken = [thing for thing in taken if "replicas" in thing.get("spec", {})]
        if not taken:
            raise ValueError(f"{directory}: nothing is called {replicas['name']}")
        for thing in taken:
            thing["spec"]["replicas"] = replicas["count"]
    for patch in file.get("patches", []):
        taken = [thing for thing in things if is_target(thing, patch["target"])]
        if not taken:
            raise ValueError(f"{directory}: nothing is {patch['target']}")
        (operations,) = load(patch["patch"])
        for thing in taken:
            for operation in operations:
                apply(thing, operation)
    return things


def is_target(thing, target):
    return thing["kind"] == target["kind"] and thing["metadata"]["name"] == target["name"]


def apply(thing, operation):
    """One operation of RFC 6902: replace or test, of what is there."""
    *parents, last = operation["path"].strip("/").split("/")
    place = thing
    for part in parents:
        place = place[int(part) if isinstance(place, list) else part]
    last = int(last) if isinstance(place, list) else last
    found, value = place[last], operation["value"]
    if operation["op"] == "test" and found != value:
        raise ValueError(f"{operation['path']} is {found}, not {value}")
    if operation["op"] == "replace":
        place[last] = copy.deepcopy(value)


def differs_from_kubectl(directory, things):
    """Whether kubectl's own kustomize makes something else; None where there is no kubectl."""
    if not shutil.which("kubectl"):
        return None
    ran = subprocess.run(["kubectl", "kustomize", directory], capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        return ran.stderr.strip()
    theirs = {key_of(thing): thing for thing in load(ran.stdout)}
    ours = {key_of(thing): thing for thing in things}
    other = [key for key in ours.keys() | theirs.keys() if dump(ours.get(key)) != dump(theirs.get(key))]
    return f"kubectl makes other objects: {other}" if other else ""


def dump(thing):
    return json.dumps(thing, sort_keys=True)
