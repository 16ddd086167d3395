"""A program that was started here: its CPU time, its memory, an orderly end; and how to tell that it is ready."""

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import time
import urllib.request

TICK = os.sysconf("SC_CLK_TCK")
START_TIME = 19  # fields of /proc/<pid>/stat, counted from the state
PARENT = 1


class Failed(Exception):
    """A figure could not be measured."""


def stats():
    """pid → the fields of its stat file, from the state on."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                raw = pathlib.Path("/proc", name, "stat").read_text()
                found[int(name)] = raw[raw.rindex(")") + 2:].split()
    return found


def cpu_clock(pid):
    """The seconds that a process has had of a core, to the nanosecond: its clock's id is made of its pid."""
    return time.clock_gettime((~pid << 3) | 2)


class Process:
    """A program with the processes that it starts."""

    def __init__(self, command, log, cwd=None, env=None):
        self.command, self.log = list(map(str, command)), pathlib.Path(log)
        with open(log, "ab") as out:
            self.child = subprocess.Popen(self.command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=out,
                                          stderr=out, start_new_session=True)

    def family(self, table=None):
        """pid → stat fields, of it and all that descend from it."""
        table = stats() if table is None else table
        pids, more = set(), {self.child.pid}
        while more:
            pids |= more
            more = {pid for pid, fields in table.items() if int(fields[PARENT]) in pids} - pids
        return {pid: table[pid] for pid in pids if pid in table}

    def cpu(self, table=None):
        """Seconds, with those of children, living or gone."""
        total = 0
        for pid, fields in self.family(table).items():
            with contextlib.suppress(OSError):
                total += cpu_clock(pid) + sum(map(int, fields[13:15])) / TICK
        return total

    def mib(self):
        """Resident memory; of several processes, what they may share is counted once."""
        own, shared = 0, 0
        for pid in self.family():
            with contextlib.suppress(OSError):
                lines = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
                kib = {line.split(":")[0]: int(line.split()[1]) for line in lines}
                private = kib["Private_Clean"] + kib["Private_Dirty"]
                own += private
                shared = max(shared, kib["Rss"] - private)
        return (own + shared) / 1024

    def tail(self):
        return self.log.read_text(errors="replace")[-600:].strip()

    def check(self):
        if self.child.poll() is not None:
            raise Failed(f"{self.command[0]} ended with {self.child.returncode}: {self.tail()}")

    def stop(self):
        """SIGTERM, and what is left of the family after eight seconds is killed: never another's process."""
        family = self.family()
        if self.child.poll() is None:
            self.child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.child.wait(8)
            if self.child.poll() is None:
                family |= self.family()
        now = stats()
        for pid, fields in family.items():
            if pid in now and now[pid][START_TIME] == fields[START_TIME]:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
        self.child.wait()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def http(port, path, method="GET"):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read()


def listening(port):
    socket.create_connection(("127.0.0.1", port), 1).close()


def wait_for(process, probe, seconds=30):
    """Until the probe neither fails nor answers False."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        process.check()
        with contextlib.suppress(OSError):
            if probe() is not False:
                return
        time.sleep(0.01)
    raise Failed(f"{process.command[0]} was not ready in {seconds} s: {process.tail()}")
