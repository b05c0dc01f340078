"""The same work from several processes at once, one for each mount."""

import multiprocessing
import signal
import time

from .process import SIGNALS, Failed


def together(works):
    """Calls each of the functions in a process of its own: the sum of what they return, per second."""
    context = multiprocessing.get_context("fork")
    gate, answers = context.Barrier(len(works)), context.Queue()
    children = [context.Process(target=child, args=(work, gate, answers)) for work in works]
    try:
        for process in children:
            process.start()
        told = [answer(answers, children) for _ in children]
    finally:
        for process in children:
            if process.pid:
                process.terminate()
                process.join()
    wrong = [text for _, _, _, text in told if text]
    if wrong:
        raise Failed(wrong[0])
    took = max(end for _, _, end, _ in told) - min(start for _, start, _, _ in told)
    return sum(count for count, _, _, _ in told) / took


def child(work, gate, answers):
    # A Ctrl-C is the parent's business; it ends us by SIGTERM.
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        gate.wait()
        start = time.monotonic()
        count = work()
        answers.put((count, start, time.monotonic(), ""))
    except Exception as problem:
        gate.abort()
        answers.put((0, 0, 0, f"{type(problem).__name__}: {problem}"))


def answer(answers, children):
    while True:
        try:
            return answers.get(timeout=1)
        except multiprocessing.queues.Empty:
            if all(process.exitcode is not None for process in children) and answers.empty():
                raise Failed("a process of the load ended without a word") from None
