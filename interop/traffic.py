"""Random stores, clears and moves on two engines, and a watch on lookups meanwhile."""

import random
import threading
import time
from collections import Counter

from engine import CHUNK
from stand import CPU

PROMPTS, LONGEST = 64, 8  # the longest in chunks; a shorter one is the beginning of it
FIRST = 1_000_000  # token: no step's prompt is there
RATE = 25  # a second, so that two cores have time for the engines as well


class Traffic:
    """One after the other, without waiting for the index: what it says is compared when all is quiet."""

    def __init__(self, stand, audit, seed):
        self._stand, self._audit, self._random = stand, audit, random.Random(seed)
        self.done = Counter()
        self.refused = Counter()

    def run(self, seconds):
        end = time.monotonic() + seconds
        due = time.monotonic()
        while time.monotonic() < end:
            self._one()
            due = max(due + 1 / RATE, time.monotonic() - 1)
            time.sleep(max(0, due - time.monotonic()))

    def _one(self):
        engine, other = self._random.sample(self._stand.engines, 2)
        start = FIRST + self._random.randrange(PROMPTS) * LONGEST * CHUNK
        prompt = start, start + self._random.randint(1, LONGEST) * CHUNK
        self._audit.know(*prompt)
        what = self._random.choices(["store", "move", "copy", "clear"], [92, 3, 1, 4])[0]
        if what == "store":
            engine.store(*prompt)
            answer = 0
        elif what == "clear":
            answer = self._stand.post("/clear", instance_id=engine.instance, location=CPU)
        else:
            answer = self._stand.move(engine.instance, other.instance, *prompt, copy=what == "copy")
        self.done[what] += 1
        if not isinstance(answer, int):
            self.refused[f"{what}: {answer}"] += 1


class Watch:
    """Asks for a prompt again and again, in a thread of its own, and notes every answer that is not the right one."""

    def __init__(self, stand, prompt, right):
        self._stand, self._prompt, self._right = stand, prompt, right
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask, name="watch", daemon=True)
        self.asked, self.wrong = 0, Counter()

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()

    def _ask(self):
        while not self._over.wait(0.02):
            try:
                answer = self._stand.lookup(*self._prompt)
            except Exception as why:  # the watch is of the answers, so one that did not come counts
                answer = repr(why)
            self.asked += 1
            if answer != self._right:
                self.wrong[str(answer)] += 1
