"""What a mail costs with a thousand jobs queued and with a million, at one worker and at eight.

For each depth a fresh stack is filled with batches of 1,000 recipients. Then for each number of worker processes, the
queue is topped up, the workers start while it is paused, and it is let go until at least DRAINED mails (or all) are at
the sink; then it is paused again, and what was under way ends. So nothing of a start is in the figures. The rounds take
the numbers of workers in turn. The memory queue has one process, which is API and worker.
"""

import json
import pathlib
import time

from .process import Failed, http, wait_for
from .stack import Stack
from .stages import WARM_UP, rate

DRAINED = 5000
AT_ONCE = 1000  # recipients of a request that fills the queue
SINGLE = 2000   # requests with one recipient, at most, with which the depth is reached again
ROUNDS = 3
WORST_BYTES = 4096  # of memory for a job of the memory queue: what it is asked for must fit


def measure(subject, args):
    """(queued, workers, round, figure, value)"""
    for queued in args.growth:
        if not subject.redis and queued * WORST_BYTES > available_bytes() / 2:
            continue
        with Stack(args, subject) as stack:
            yield from at_depth(stack, queued, args)


def at_depth(stack, queued, args):
    filling = Filling(stack)
    stack.pause()
    filling.to(1)  # what the first job alone makes is not counted
    empty, before, start = stack.queued_bytes(), stack.cpu(), time.monotonic()
    filling.to(queued)
    seconds, after = time.monotonic() - start, stack.cpu()
    yield queued, 0, 1, "growth_bytes", (stack.queued_bytes() - empty) / (queued - 1)
    yield queued, 0, 1, "growth_fill", (queued - 1) / seconds
    yield from costs(queued, 0, 1, "fill", before, after, queued - 1, ("api", "redis"))
    single = min(SINGLE, queued // 2)
    for number in range(1, ROUNDS + 1):
        for workers in args.growth_workers if stack.subject.worker else (0,):
            filling.to(queued)
            yield from drain(stack, queued, workers, number)
        filling.to(queued - single)
        before = stack.cpu()
        filling.add("--count", single)
        yield from costs(queued, 0, number, "accept", before, stack.cpu(), single, ("api", "redis"))
    yield queued, 0, 1, "growth_api_mib", stack.procs["api"].mib()


def drain(stack, queued, workers, number):
    names = [f"worker{n}" for n in range(1, workers + 1)]
    for name in names:
        stack.spawn_own(name, stack.subject.worker)
    if workers:
        wait_for(stack.procs[names[-1]], lambda: ledger(stack)["workers"]["alive"] >= workers)
        time.sleep(0.3)  # each waits for the queue to be let go
    stack.reset()
    before = stack.cpu()
    stack.resume()
    stack.wait_for_mails(min(DRAINED, queued), pause_s=0.005)
    stack.pause()
    counts = settled(stack)
    after, mails = stack.cpu(), counts["messages"]
    yield queued, workers, number, "growth_drain", rate(counts)
    yield from costs(queued, workers, number, "drain", before, after, mails, (stack.sender, "redis"))
    if workers:
        yield queued, workers, number, "growth_worker_mib", max(stack.procs[name].mib() for name in names)
    for name in names:
        stack.procs.pop(name).stop()


def costs(queued, workers, number, what, before, after, mails, roles):
    for role in roles:
        if role in after:
            microseconds = (after[role] - before.get(role, 0)) / mails * 1e6
            yield queued, workers, number, f"growth_{what}_{role}_us", microseconds


def settled(stack):
    """The sink's counts, once nothing is being sent."""
    end = time.monotonic() + 20
    while ledger(stack)["ledger"]["sending"]:
        if time.monotonic() > end:
            raise Failed("jobs are still being sent 20 s after the queue was paused")
        time.sleep(0.005)
    return stack.counts()


def ledger(stack):
    return json.loads(http(stack.port["api"], "/v1/queue"))


class Filling:
    """Jobs that are put into the queue, each for a recipient of its own."""

    def __init__(self, stack):
        self.stack, self.next_id = stack, WARM_UP

    def depth(self):
        return ledger(self.stack)["ledger"]["queued"]

    def add(self, *options):
        report, _ = self.stack.load(*options, "--first-id", self.next_id, logged=False)
        self.next_id += report["requests"] * AT_ONCE

    def to(self, depth):
        missing = depth - self.depth()
        if missing >= AT_ONCE:
            self.add("--count", missing // AT_ONCE, "--recipients", AT_ONCE, "--in-flight", 4)
        if missing > 0 and missing % AT_ONCE:
            self.add("--count", 1, "--recipients", missing % AT_ONCE)


def available_bytes():
    line = next(line for line in pathlib.Path("/proc/meminfo").read_text().splitlines() if "MemAvailable" in line)
    return int(line.split()[1]) * 1024
