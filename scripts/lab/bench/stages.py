"""The figures of one subject, once. What each means stands in `scripts/bench`."""

import statistics
import time

from .stack import Stack

WARM_UP, LATENCY, BATCH, BOTH = 8_000_000, 1_000_000, 2_000_000, 3_000_000  # the first recipients' ids
WIRE_CONNECTIONS = 4
WIRE_S = 4  # how long a drain over a wire takes at one mail a round trip


def measure(subject, args):
    if subject.can_hold:
        with Stack(args, subject) as stack:
            yield from accept(stack, args)
    with Stack(args, subject) as stack:
        if subject.can_hold:
            yield from drain(stack, args)
        if not subject.smtp:
            yield from latency(stack, args)
            yield from batch(stack, args)
        yield from both(stack, args)
    if subject.can_hold and not subject.smtp:
        yield from over_the_wire(subject, args)


def per_thousand(before, after, mails, *roles):
    return sum(after[role] - before.get(role, 0) for role in roles if role in after) / mails * 1000


def quantile(values, permille):
    """By nearest rank."""
    return sorted(values)[max(0, -(-permille * len(values) // 1000) - 1)]


def rate(counts, connections=1):
    """Mails per second from the first final dot to the last. The first of each connection open the interval."""
    return (counts["messages"] - connections) / (counts["last_ns"] - counts["first_ns"]) * 1e9


def accept(stack, args):
    yield "idle_mib", stack.procs["api"].mib()
    stack.hold()
    if stack.subject.smtp:
        warm_up, run = ("--count", 2000), ("--count", args.jobs)
    else:
        warm_up, run = ("--seconds", 1, "--first-id", WARM_UP), ("--seconds", args.seconds)
    stack.load(*warm_up, logged=False)
    before = stack.cpu()
    report, _ = stack.load(*run, logged=False)
    after = stack.cpu()
    yield "accept", report["per_second"]
    if "p99_ms" in report:
        yield "accept_p99_ms", report["p99_ms"]
    for role in ("api", "redis"):
        if role in after:
            yield f"accept_cpu_{role}", per_thousand(before, after, report["requests"], role)


def drain(stack, args):
    jobs = min(args.jobs, stack.subject.drain_jobs)
    stack.hold()
    stack.load("--count", 1, "--first-id", WARM_UP)  # what the first job alone makes is not counted
    empty = stack.queued_bytes()
    stack.load("--count", jobs, logged=False)
    if not stack.subject.smtp:
        yield "queued_bytes", (stack.queued_bytes() - empty) / jobs
    start = {}

    def first(counts):
        if not start and counts["messages"]:
            start.update(cpu=stack.cpu(), mails=counts["messages"], ns=time.time_ns())

    stack.reset()
    stack.start_sending()
    counts = stack.wait_for_mails(jobs + 1, first)
    after, ns = stack.cpu(), time.time_ns() - start["ns"]
    rest = max(1, counts["messages"] - start["mails"])
    yield "drain", rate(counts)
    yield "drain_cpu_worker", per_thousand(start["cpu"], after, rest, stack.sender)
    if "redis" in after:
        yield "drain_cpu_redis", per_thousand(start["cpu"], after, rest, "redis")
    yield "drain_cpu_sink", per_thousand(start["cpu"], after, rest, "sink")
    yield "drain_sink_load", (after["sink"] - start["cpu"]["sink"]) / ns * 1e11
    yield "connections", counts["peak"]
    if not stack.subject.smtp:
        yield "duplicates", counts["duplicates"]


def latency(stack, args):
    stack.reset()
    stack.load("--count", 500, "--first-id", WARM_UP + 1000, logged=False)
    stack.wait_for_mails(500)
    time.sleep(1)  # idle now, as between two users' mails
    stack.reset()
    before = stack.cpu()
    _, asked = stack.load("--rate", 200, "--seconds", args.latency_seconds, "--first-id", LATENCY)
    stack.wait_for_mails(len(asked))
    after, arrived = stack.cpu(), stack.arrivals()
    ms = [(arrived[address] - start) / 1e6 for address, start in asked.items()]
    yield "latency_p50_ms", quantile(ms, 500)
    yield "latency_p99_ms", quantile(ms, 990)
    yield "latency_max_ms", max(ms)
    yield "latency_cpu_all", per_thousand(before, after, len(ms), "api", "worker", "redis")


def batch(stack, args):
    took = []
    for n in range(3):
        stack.reset()
        _, asked = stack.load("--count", 1, "--in-flight", 1, "--recipients", 1000, "--first-id", BATCH + n * 1000)
        counts = stack.wait_for_mails(1000)
        took.append((counts["last_ns"] - min(asked.values())) / 1e6)
    yield "batch_ms", statistics.median(took)


def both(stack, args):
    stack.reset()
    before = stack.cpu()
    report, asked = stack.load("--count", args.jobs, "--first-id", BOTH)
    counts = stack.wait_for_mails(args.jobs)
    after = stack.cpu()
    yield "both", args.jobs / (counts["last_ns"] - min(asked.values())) * 1e9
    yield "both_accept", report["per_second"]
    roles = [role for role in ("api", "worker", "redis") if role in after]
    for role in roles:
        yield f"both_cpu_{role}", per_thousand(before, after, args.jobs, role)
    yield "both_cpu_all", per_thousand(before, after, args.jobs, *roles)
    yield "both_cpu_sink", per_thousand(before, after, args.jobs, "sink")
    for role in ("api", "worker"):
        if role in stack.procs:
            yield f"{role}_mib", stack.procs[role].mib()


def wire_mails(round_trip_ms):
    return WIRE_CONNECTIONS * WIRE_S * 1000 // round_trip_ms


def over_the_wire(subject, args):
    for round_trip_ms in args.wire:
        with Stack(args, subject, round_trip_ms, WIRE_CONNECTIONS, WIRE_CONNECTIONS) as stack:
            mails = wire_mails(round_trip_ms)
            stack.hold()
            stack.load("--count", mails, logged=False)
            stack.start_sending()
            counts = stack.wait_for_mails(mails)
            yield f"wire_{round_trip_ms}", rate(counts, WIRE_CONNECTIONS) / WIRE_CONNECTIONS
            yield f"wire_{round_trip_ms}_connections", counts["connections"]
