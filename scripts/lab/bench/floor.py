"""Yardsticks, made of the same parts: what parsing, Redis and SMTP cost without a mailer between them."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time

from .process import Failed, free_port, listening, wait_for
from .stack import Stack, smtp_source
from .stages import WIRE_CONNECTIONS, per_thousand, rate, wire_mails

TRIPS = 20


def measure(subject, args):
    with Stack(args, subject) as stack:
        yield from parsing_route(stack, args)
        if shutil.which("redis-server"):
            yield from streams(stack, args)
        if shutil.which("smtp-source"):
            yield from smtp(stack, args)
        else:
            print("no smtp-source: apt-get install postfix", file=sys.stderr)
    for round_trip_ms in args.wire:
        with Stack(args, subject, round_trip_ms) as stack:
            yield f"wire_{round_trip_ms}_trip_ms", round_trip(stack.smtp_port)
            if shutil.which("smtp-source"):
                stack.reset()
                smtp_source(stack.smtp_port, wire_mails(round_trip_ms) // 4, WIRE_CONNECTIONS)
                yield f"wire_{round_trip_ms}", rate(stack.counts(), WIRE_CONNECTIONS) / WIRE_CONNECTIONS


def parsing_route(stack, args):
    stack.spawn("api", [args.lab, "floor", "http", "--port", stack.port["api"]])
    wait_for(stack.procs["api"], lambda: listening(stack.port["api"]))
    stack.load("--seconds", 1, logged=False)
    before = stack.cpu()
    report, _ = stack.load("--seconds", args.seconds, logged=False)
    yield "floor_http", report["per_second"]
    yield "floor_http_cpu", per_thousand(before, stack.cpu(), report["requests"], "api")


def streams(stack, args):
    stack.start_redis()
    url = f"redis://127.0.0.1:{stack.port['redis']}"
    for size, loops, jobs in ((1, 64, args.jobs * 2), (64, 1, args.jobs * 5)):
        before = stack.cpu()
        out = subprocess.run([args.lab, "floor", "redis", "--url", url, "--jobs", str(jobs), "--batch", str(size),
                              "--loops", str(loops)], capture_output=True, text=True)
        if out.returncode:
            raise Failed(f"lab floor redis: {out.stderr.strip()}")
        report = json.loads(out.stdout)
        yield f"floor_redis_{size}", report["per_second"]
        yield f"floor_redis_{size}_cpu", per_thousand(before, stack.cpu(), report["jobs"], "redis")


def smtp(stack, args):
    port = free_port()
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    stack.spawn("smtp-sink", ["smtp-sink", *user, f"127.0.0.1:{port}", "1024"])
    wait_for(stack.procs["smtp-sink"], lambda: listening(port))
    for name, to in (("floor_smtp_sink", port), ("floor_sink", stack.port["smtp"])):
        start = time.monotonic()
        smtp_source(to, args.jobs * 3, 64)
        yield name, args.jobs * 3 / (time.monotonic() - start)


def round_trip(port):
    """Milliseconds that a command and its answer take over the wire: what a mail takes at least, on one connection."""
    with socket.create_connection(("127.0.0.1", port), 10) as s, contextlib.closing(s.makefile("rb")) as answers:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        answers.readline()
        start = time.monotonic()
        for _ in range(TRIPS):
            s.sendall(b"NOOP\r\n")
            answers.readline()
        return (time.monotonic() - start) / TRIPS * 1000
