"""Command lines in manifests are such as the program knows: asked with --help."""

import re
import subprocess
from functools import cache

from objects import containers, pod_of, shown

PROGRAMS = ("holdfast", "holdfast-keeper")


class Commands:
    """`program`: holdfast; holdfast-keeper lies beside it. `settings`: the file of all settings."""

    def __init__(self, program, settings):
        self.program, self.variables = program, set(variables(settings))
        self.checked = set()

    @cache
    def known(self, command):
        """The flags of a command, as its help has them; None where there is no such command."""
        asked = [self.program.with_name(command[0]), *command[1:], "--help"]
        ran = subprocess.run(asked, capture_output=True, text=True, check=False)
        text = ran.stdout + (ran.stderr if command[0] == "holdfast-keeper" else "")
        if ran.returncode != 0 and command[0] == "holdfast":
            return None
        return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text))

    def faults(self, things):
        for thing in things:
            if not pod_of(thing):
                continue
            for container in containers(pod_of(thing)[1]):
                if "sig-storage" in container["image"]:
                    continue
                for words in lines(container):
                    yield from (f"{shown(thing)}: {container['name']}: {fault}" for fault in self.of_line(words))
                for variable in container.get("env", []):
                    if variable["name"].startswith("HOLDFAST_") and variable["name"] not in self.variables:
                        yield f"{shown(thing)}: {container['name']}: {variable['name']} sets nothing"

    def of_line(self, words):
        if words[0] not in PROGRAMS:
            yield f"`{words[0]}` is none of {', '.join(PROGRAMS)}"
            return
        count = next((n for n, word in enumerate(words) if word.startswith("-")), len(words))
        command, rest = tuple(words[:count]), words[count:]
        self.checked.add(tuple(words))
        flags = self.known(command)
        if flags is None:
            yield f"there is no command `{' '.join(command)}`"
            return
        for word in rest[: rest.index("--")] if "--" in rest else rest:
            flag = word.split("=")[0]
            if word.startswith("-") and flag not in flags:
                yield f"`{' '.join(command)}` has no {flag}"


def lines(container):
    """Everything that a container runs of the image: its own command, and those of its probes."""
    yield [*container.get("command", ["holdfast"]), *container.get("args", [])]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        if "exec" in container.get(probe, {}):
            yield container[probe]["exec"]["command"]


def variables(settings):
    """The variables of the environment that set something."""
    section = ""
    for line in settings.read_text().splitlines():
        if heading := re.fullmatch(r"\[(\w+)\]", line):
            section = heading[1]
        elif key := re.match(r"#? ?(\w+) = ", line):
            yield ("HOLDFAST_" if section == "common" else f"HOLDFAST_{section}_".upper()) + key[1].upper()
