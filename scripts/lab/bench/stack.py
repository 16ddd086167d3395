"""A subject's programs with the sink, and where it wants them Redis and a wire: all fresh, on ports and in a folder of
their own, on the loopback."""

import json
import pathlib
import re
import shutil
import socket
import subprocess
import tempfile
import time

from .process import Failed, Process, free_port, http, listening, stats, wait_for
from .subjects import CONNECTIONS, WORKERS, filled

STALL_S = 30
SMTP_SOURCE = ("smtp-source", "-d", "-N", "-l", "2048", "-f", "bench@example.com", "-t", "b@example.com")


def smtp_source(to, mails, sessions):
    subprocess.run([*SMTP_SOURCE, "-s", str(sessions), "-m", str(mails), f"127.0.0.1:{to}"], check=True,
                   stdout=subprocess.DEVNULL)


class Stack:
    def __init__(self, args, subject, round_trip_ms=0, connections=CONNECTIONS, workers=WORKERS):
        self.args, self.subject, self.round_trip_ms = args, subject, round_trip_ms
        self.procs = {}
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="emailer-bench-", dir=args.dir))
        self.dir.chmod(0o755)  # Postfix reads there as another user
        names = ("redis", "smtp", "control", "wire", "wire_control", "api")
        self.port = {name: free_port() for name in names}
        self.fill = {"api_port": self.port["api"], "smtp_port": self.smtp_port, "redis_port": self.port["redis"],
                     "workers": workers, "connections": connections, "dir": self.dir / "subject"}

    def __enter__(self):
        try:
            self.start()
            return self
        except BaseException:
            self.__exit__()
            raise

    def start(self):
        port, subject = self.port, self.subject
        self.spawn("sink", [self.args.lab, "sink", "--port", port["smtp"], "--control", port["control"]])
        wait_for(self.procs["sink"], self.counts)
        if self.round_trip_ms:
            self.spawn("wire", [self.args.lab, "wire", "--port", port["wire"], "--control", port["wire_control"],
                                "--to", f"127.0.0.1:{port['smtp']}", "--round-trip-ms", self.round_trip_ms])
            wait_for(self.procs["wire"], lambda: http(port["wire_control"], "/"))
        if subject.redis:
            self.start_redis()
        if subject.api:
            self.spawn_own("api", subject.api)
            wait_for(self.procs["api"], lambda: http(port["api"], subject.ready) if subject.ready
                     else listening(port["api"]))

    def start_redis(self):
        self.spawn("redis", ["redis-server", "--port", self.port["redis"], "--bind", "127.0.0.1", "--dir", self.dir,
                             "--save", "", "--appendonly", "yes", "--appendfsync", "everysec",
                             "--loglevel", "warning"])
        wait_for(self.procs["redis"], lambda: listening(self.port["redis"]))

    def __exit__(self, *_):
        order = ("api", "worker", "smtp-sink", "wire", "sink", "redis")
        for name in sorted(self.procs, key=lambda name: order.index(role(name))):
            self.procs[name].stop()
        shutil.rmtree(self.dir, ignore_errors=True)

    @property
    def smtp_port(self):
        """Where mail is sent to."""
        return self.port["wire" if self.round_trip_ms else "smtp"]

    @property
    def sender(self):
        """Whose CPU time sending is."""
        return "worker" if self.subject.worker else "api"

    def spawn(self, name, command, cwd=None, env=None):
        self.procs[name] = Process(command, self.dir / f"{name}.log", cwd, env)

    def spawn_own(self, name, command):
        """One of the subject's own programs."""
        fill = self.fill | {"worker_port": free_port()}
        self.spawn(name, [filled(word, fill) for word in command], self.subject.cwd, self.subject.environment(fill))

    # ------------------------------------------------------------------------- holding and sending

    def hold(self):
        """Before the queue is filled. Where a worker of its own sends, none has been started by then."""
        if self.subject.pauses and not self.subject.worker:
            self.pause()

    def pause(self):
        http(self.port["api"], "/v1/queue/pause", "POST")

    def resume(self):
        http(self.port["api"], "/v1/queue/resume", "POST")

    def start_sending(self):
        if self.subject.flush:
            subprocess.run([filled(word, self.fill) for word in self.subject.flush], check=True,
                           cwd=self.subject.cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        elif not self.subject.worker:
            self.resume()
        elif "worker" not in self.procs:
            self.spawn_own("worker", self.subject.worker)

    # ------------------------------------------------------------------------------------ looking

    def check(self):
        for process in self.procs.values():
            process.check()

    def cpu(self):
        """role → seconds; the workers' together."""
        table, seconds = stats(), {}
        for name, process in self.procs.items():
            seconds[role(name)] = seconds.get(role(name), 0) + process.cpu(table)
        return seconds

    def counts(self):
        return json.loads(http(self.port["control"], "/"))

    def reset(self):
        http(self.port["control"], "/reset", "POST")

    def arrivals(self):
        """address → first arrival, ns."""
        first = {}
        for line in http(self.port["control"], "/log").decode().splitlines():
            address, at = line.split(" ")[:2]
            first.setdefault(address, int(at))
        return first

    def wait_for_mails(self, expected, each=lambda counts: None, pause_s=0.02):
        """Waits until mails to so many different recipients are at the sink."""
        seen, moved = -1, time.monotonic()
        while True:
            counts = self.counts()
            each(counts)
            # smtp-source numbers the recipients of each of its runs from the same one on.
            if counts["messages"] - (0 if self.subject.smtp else counts["duplicates"]) >= expected:
                return counts
            if counts["messages"] != seen:
                seen, moved = counts["messages"], time.monotonic()
            self.check()
            if time.monotonic() - moved > STALL_S:
                logs = {name: process.tail() for name, process in self.procs.items() if process.tail()}
                raise Failed(f"{seen} of {expected} mails at the sink, none for {STALL_S} s: {logs}")
            time.sleep(pause_s)

    def redis_bytes(self):
        with socket.create_connection(("127.0.0.1", self.port["redis"])) as s:
            s.sendall(b"INFO memory\r\n")
            return int(re.search(rb"used_memory:(\d+)", s.recv(65536))[1])

    def queued_bytes(self):
        """What the queue takes: Redis' own count, or the resident memory of the program that keeps it."""
        return self.redis_bytes() if self.subject.redis else self.procs["api"].mib() * 2**20

    # --------------------------------------------------------------------------------------- load

    def load(self, *options, logged=True):
        """Puts load on; the report, and address → time at which its request was meant to start, ns."""
        if self.subject.smtp:
            return self.smtp_load(options[options.index("--count") + 1])
        log = self.dir / "asked"
        options = [*options, "--log", log] if logged else options
        url = f"http://127.0.0.1:{self.port['api']}/v1/send-event-email"
        out = subprocess.run([self.args.lab, "load", "--url", url, *map(str, options)], capture_output=True, text=True)
        self.check()
        if out.returncode:
            raise Failed(out.stderr.strip())
        report = json.loads(out.stdout)
        if set(report["status"]) != {"202"} or report["errors"]:
            raise Failed(f"answers other than 202: {report} {self.procs['api'].tail()}")
        lines = (line.split() for line in log.read_text().splitlines()) if logged else ()
        return report, {address: int(start) for address, start, _ in lines}

    def smtp_load(self, mails):
        start, ns = time.monotonic(), time.time_ns()
        smtp_source(self.port["api"], mails, 64)
        seconds = time.monotonic() - start
        return {"requests": mails, "per_second": mails / seconds}, {"the first": ns}


def role(name):
    """worker, worker2, worker3: all are workers."""
    return name.rstrip("0123456789")
