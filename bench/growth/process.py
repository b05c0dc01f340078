"""Other programs, and what Ctrl-C does to them and to us."""

import os
import signal
import subprocess
import sys

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Failed(Exception):
    """Something that the reader of one sentence can do something about."""


def say(text):
    print(text, file=sys.stderr, flush=True)


def die_on_signals():
    """The first signal unwinds the stack, which undoes everything; from then on none disturbs that."""

    def unwind(number, frame):
        for other in SIGNALS:
            signal.signal(other, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in SIGNALS:
        signal.signal(number, unwind)


def run(command, **environment):
    """Its standard output. It has a session of its own: a Ctrl-C is for us, and we end it."""
    child = subprocess.Popen(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, **{name: str(value) for name, value in environment.items()}},
    )
    try:
        out, err = child.communicate()
    except BaseException:
        end_group(child)
        raise
    if child.returncode != 0:
        last = (err.strip() or out.strip() or "no word about why").splitlines()[-1]
        raise Failed(f"{' '.join(map(str, command[:3]))}: {last}")
    return out


def end_group(child):
    try:
        os.killpg(child.pid, signal.SIGTERM)
        child.wait(10)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    except ProcessLookupError:
        child.wait()
