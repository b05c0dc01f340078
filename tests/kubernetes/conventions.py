"""Rules of this project for its own objects: labels, rights of pods, resources, probes."""

from objects import containers, pod_of, shown

LABELS = {"name", "instance", "component", "part-of", "version", "managed-by"}
# Why each is, stands in the template beside it.
PRIVILEGED = {("csi-node", "csi"), ("csi-node", "preflight"), ("mounts", "keeper")}
ROOT = {"csi-node", "mounts"}
# It is not to be restarted, nor to be ended for want of memory: mounts go with it.
LASTING = {"mounts"}


def faults(things):
    for thing in things:
        yield from (f"{shown(thing)}: {fault}" for fault in of_thing(thing))


def of_thing(thing):
    if thing["kind"] != "Namespace":
        labels = thing["metadata"].get("labels", {})
        missing = [name for name in sorted(LABELS) if f"app.kubernetes.io/{name}" not in labels]
        yield from (f"no label app.kubernetes.io/{name}" for name in missing)
    if not pod_of(thing):
        return
    labels, spec = pod_of(thing)
    component = labels["app.kubernetes.io/component"]
    if spec.get("automountServiceAccountToken") is not False or spec.get("enableServiceLinks") is not False:
        yield "every container has a token of the API server, or variables of Services"
    if (spec.get("hostPID") or spec.get("hostNetwork")) and component not in LASTING or spec.get("hostIPC"):
        yield "it has a namespace of the host"
    if component in LASTING and not spec.get("hostPID"):
        yield "it does not see who waits for its mounts: that could not be killed"
    security = spec.get("securityContext", {})
    # Directories of a host are root's.
    is_root = component in ROOT or (component == "store" and thing["kind"] == "DaemonSet")
    if not is_root and not (security.get("runAsNonRoot") and security.get("runAsUser") and security.get("fsGroup")):
        yield "it is root"
    if security.get("seccompProfile") != {"type": "RuntimeDefault"}:
        yield "it may make every system call"
    if component in LASTING and thing["spec"]["updateStrategy"] != {"type": "OnDelete"}:
        yield "it is replaced by an upgrade, and mounts go with it"
    if "terminationGracePeriodSeconds" not in spec and component in ("meta", "store", "mounts"):
        yield "it has no time to stop in"
    for container in containers(spec):
        yield from (f"{container['name']}: {fault}" for fault in of_container(component, container, spec))


def of_container(component, container, spec):
    security, resources = container.get("securityContext", {}), container.get("resources", {})
    privileged = (component, container["name"]) in PRIVILEGED
    if security.get("privileged", False) != privileged:
        yield "privileged" if not privileged else "not privileged"
    if not privileged and (security.get("allowPrivilegeEscalation") is not False
                           or security.get("capabilities") != {"drop": ["ALL"]}):
        yield "it has capabilities, or can get some"
    if security.get("readOnlyRootFilesystem") is not True:
        yield "it may write to its image"
    if set(resources.get("requests", {})) != {"cpu", "memory"}:
        yield "it does not ask for cpu and memory"
    lasting = component in LASTING
    if ("memory" in resources.get("limits", {})) == lasting:
        yield "a limit of memory" if lasting else "no limit of memory"
    if "cpu" in resources.get("limits", {}):
        yield "a limit of cpu: a server that is held up is as one that is down"
    # What only serves the probe of another has none itself.
    has_probe = "livenessProbe" in container
    if has_probe == lasting and container["name"] != "liveness-probe" and container in spec["containers"]:
        yield "a probe that could restart it" if lasting else "no livenessProbe"
