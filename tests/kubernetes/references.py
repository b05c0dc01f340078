"""What objects say of one another: names, labels, ports."""

import re

from objects import CLUSTER_KINDS, containers, key_of, pod_of, shown

# Made by Kubernetes itself, in every namespace or for everybody.
BUILT_IN = {"ConfigMap": {"kube-root-ca.crt"}, "ServiceAccount": {"default"}}
PRIORITY_CLASSES = {"system-node-critical", "system-cluster-critical"}


def faults(things, users=frozenset(), namespace=""):
    """`users`: names of what the user makes, as (kind, name); `namespace`: where objects are that do not say."""
    known = {}
    for thing in things:
        kind, place, name = key_of(thing)
        place = "" if kind in CLUSTER_KINDS else place or namespace
        if name in known.setdefault((kind, place), set()):
            yield f"{shown(thing)} is there twice"
        known[kind, place].add(name)

    def missing(kind, name, place):
        place = "" if kind in CLUSTER_KINDS else place
        there = known.get((kind, place), set()) | BUILT_IN.get(kind, set())
        if name not in there and (kind, name) not in users:
            yield f"there is no {kind} {name}"

    pods = [(place_of(thing, namespace), *pod_of(thing)) for thing in things if pod_of(thing)]
    for thing in things:
        place = place_of(thing, namespace)
        found = [*of_object(thing, place, missing, users), *of_selectors(thing, place, pods, things)]
        if pod_of(thing):
            found += of_pod(thing, place, missing, users)
        yield from (f"{shown(thing)}: {fault}" for fault in found)


def place_of(thing, namespace):
    return thing["metadata"].get("namespace") or namespace


def of_object(thing, place, missing, users):
    """Names in everything but pods."""
    kind, spec = thing["kind"], thing.get("spec", {})
    if kind in ("RoleBinding", "ClusterRoleBinding"):
        yield from missing(thing["roleRef"]["kind"], thing["roleRef"]["name"], place)
        for subject in thing["subjects"]:
            yield from missing(subject["kind"], subject["name"], subject["namespace"])
    if kind == "Role":
        for rule in thing["rules"]:
            if "secrets" in rule["resources"]:
                if not rule.get("resourceNames"):
                    yield "a right to every Secret"
                for name in rule.get("resourceNames", []):
                    yield from missing("Secret", name, place)
    if kind == "ClusterRole":
        for rule in thing["rules"]:
            if "secrets" in rule["resources"] or "*" in [*rule["resources"], *rule["verbs"], *rule["apiGroups"]]:
                yield "a right to everything, or to every Secret"
    if kind == "StatefulSet":
        yield from missing("Service", spec["serviceName"], place)
        for claim in spec.get("volumeClaimTemplates", []):
            yield from of_claim(claim["spec"], place, missing)
    if kind == "PersistentVolumeClaim":
        yield from of_claim(spec, place, missing)
    if kind == "PersistentVolume" and spec.get("storageClassName"):
        yield from missing("StorageClass", spec["storageClassName"], place)
    if kind == "ServiceMonitor":
        for endpoint in spec["endpoints"]:
            secrets = [endpoint["authorization"]["credentials"], endpoint["tlsConfig"].get("ca", {}).get("secret")]
            for secret in filter(None, secrets):
                yield from missing("Secret", secret["name"], place)
    drivers = {"StorageClass": "provisioner", "VolumeAttributesClass": "driverName", "VolumeSnapshotClass": "driver"}
    if kind in drivers and thing[drivers[kind]] != "kubernetes.io/no-provisioner":
        yield from missing("CSIDriver", thing[drivers[kind]], place)
    if kind == "PersistentVolume" and "csi" in spec:
        yield from missing("CSIDriver", spec["csi"]["driver"], place)


def of_claim(spec, place, missing):
    if spec.get("storageClassName"):
        yield from missing("StorageClass", spec["storageClassName"], place)
    if spec.get("volumeAttributesClassName"):
        yield from missing("VolumeAttributesClass", spec["volumeAttributesClassName"], place)


def of_pod(thing, place, missing, users):
    """Names in a pod, and that its volumes, mounts, ports and variables fit."""
    _, spec = pod_of(thing)
    yield from missing("ServiceAccount", spec.get("serviceAccountName", "default"), place)
    for secret in spec.get("imagePullSecrets", []):
        yield from missing("Secret", secret["name"], place)
    priority = spec.get("priorityClassName")
    if priority and priority not in PRIORITY_CLASSES and ("PriorityClass", priority) not in users:
        yield f"there is no PriorityClass {priority}"
    volumes = {claim["metadata"]["name"] for claim in thing["spec"].get("volumeClaimTemplates", [])}
    for volume in spec.get("volumes", []):
        if volume["name"] in volumes:
            yield f"the volume {volume['name']} is there twice"
        volumes.add(volume["name"])
        yield from of_volume(volume, place, missing)
    mounted, ports = set(), {}
    for container in containers(spec):
        name, places = container["name"], set()
        for mount in container.get("volumeMounts", []):
            mounted.add(mount["name"])
            if mount["name"] not in volumes:
                yield f"{name} mounts {mount['name']}, which is no volume"
            if mount["mountPath"] in places:
                yield f"{name} has two volumes on {mount['mountPath']}"
            places.add(mount["mountPath"])
            if mount.get("mountPropagation") == "Bidirectional" and not is_privileged(container):
                yield f"{name} is not privileged, and propagates mounts to the host"
        for port in container.get("ports", []):
            number = (port["containerPort"], port.get("protocol", "TCP"))
            if port["name"] in ports or number in ports.values():
                yield f"the port {port['name']} ({number[0]}) is there twice"
            if len(port["name"]) > 15:
                yield f"the name of the port {port['name']} is too long"
            ports[port["name"]] = number
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            port = container.get(probe, {}).get("httpGet", {}).get("port")
            if port is not None and port not in ports:
                yield f"the {probe} of {name} is of the port {port}, which it has not"
        yield from of_variables(container)
    yield from (f"the volume {volume} is mounted nowhere" for volume in volumes - mounted)


def of_volume(volume, place, missing):
    if "secret" in volume and not volume["secret"].get("optional"):
        yield from missing("Secret", volume["secret"]["secretName"], place)
    if "configMap" in volume:
        yield from missing("ConfigMap", volume["configMap"]["name"], place)
    if "persistentVolumeClaim" in volume:
        yield from missing("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"], place)
    if "ephemeral" in volume:
        yield from of_claim(volume["ephemeral"]["volumeClaimTemplate"]["spec"], place, missing)
    if "csi" in volume:
        yield from missing("CSIDriver", volume["csi"]["driver"], place)
    for source in volume.get("projected", {}).get("sources", []):
        for kind, field in (("Secret", "secret"), ("ConfigMap", "configMap")):
            if field in source:
                yield from missing(kind, source[field]["name"], place)


def of_variables(container):
    """`$(NAME)` in arguments is a variable of the container; and no variable is a secret."""
    seen = set()
    for variable in container.get("env", []):
        yield from (f"{container['name']}: $({used}) comes before it is set"
                    for used in re.findall(r"\$\((\w+)\)", variable.get("value", "")) if used not in seen)
        if "secretKeyRef" in variable.get("valueFrom", {}):
            yield f"{container['name']}: {variable['name']} has a secret for its value"
        seen.add(variable["name"])
    words = [*container.get("command", []), *container.get("args", [])]
    used = {name for word in words for name in re.findall(r"\$\((\w+)\)", word)}
    yield from (f"{container['name']}: $({name}) is not set" for name in used - seen)


def is_privileged(container):
    return container.get("securityContext", {}).get("privileged", False)


def matches(selector, labels):
    """`selector` as of a LabelSelector; only matchLabels is used here."""
    return set(selector) <= {"matchLabels"} and selector.get("matchLabels", {}).items() <= labels.items()


def of_selectors(thing, place, pods, things):
    """Selectors take somebody, and whom they are meant to take."""
    kind, spec = thing["kind"], thing.get("spec", {})
    here = [(labels, pod) for there, labels, pod in pods if there == place]
    if kind in ("Deployment", "StatefulSet", "DaemonSet"):
        labels, pod = pod_of(thing)
        if not matches(spec["selector"], labels):
            yield "its selector does not take its own pods"
        if sum(matches(spec["selector"], other) for other, _ in here) > 1:
            yield "its selector takes pods of others"
        for constraint in pod.get("topologySpreadConstraints", []):
            if not matches(constraint["labelSelector"], labels):
                yield "it spreads over pods that are not its own"
        for term in affinity_terms(pod):
            if not matches(term["labelSelector"], labels):
                yield "it keeps off pods that are not its own"
    if kind == "Service":
        taken = [pod for labels, pod in here if spec["selector"].items() <= labels.items()]
        if len(taken) != 1:
            yield f"it is of {len(taken)} kinds of pods"
        for pod in taken:
            ports = [port for one in pod["containers"] for port in one.get("ports", [])]
            protocols = {port["name"]: port.get("protocol", "TCP") for port in ports}
            for port in spec["ports"]:
                if protocols.get(port["targetPort"]) != port["protocol"]:
                    yield f"the port {port['targetPort']}/{port['protocol']} is none of its pods"
    if kind == "PodDisruptionBudget" and sum(matches(spec["selector"], labels) for labels, _ in here) != 1:
        yield "it is not of one kind of pods"
    if kind == "NetworkPolicy":
        taken = [pod for labels, pod in here if matches(spec["podSelector"], labels)]
        if not taken:
            yield "it is of no pods"
        yield from of_policy(spec, taken, here)
    if kind == "ServiceMonitor":
        services = [other for other in things if other["kind"] == "Service"
                    and matches(spec["selector"], other["metadata"]["labels"])]
        named = {port["name"] for service in services for port in service["spec"]["ports"]}
        if len(services) != 1 or not {endpoint["port"] for endpoint in spec["endpoints"]} <= named:
            yield "it is not of one Service with its ports"


def affinity_terms(pod):
    rules = pod.get("affinity", {}).get("podAntiAffinity", {})
    yield from rules.get("requiredDuringSchedulingIgnoredDuringExecution", [])
    for preference in rules.get("preferredDuringSchedulingIgnoredDuringExecution", []):
        yield preference["podAffinityTerm"]


def of_policy(spec, taken, here):
    """Ports are those of the pods; peers of this namespace are there."""
    ports = [port for pod in taken for one in pod["containers"] for port in one.get("ports", [])]
    own = {(port["containerPort"], port["protocol"]) for port in ports}
    for rule in spec.get("ingress", []):
        for port in rule["ports"]:
            if (port["port"], port["protocol"]) not in own:
                yield f"the port {port['port']}/{port['protocol']} is none of its pods"
    for rule in [*spec.get("ingress", []), *spec.get("egress", [])]:
        for peer in [*rule.get("from", []), *rule.get("to", [])]:
            if set(peer) == {"podSelector"} and not any(matches(peer["podSelector"], labels) for labels, _ in here):
                yield f"nobody is {peer['podSelector']}"
