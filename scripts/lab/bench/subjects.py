"""What is measured, as data: Emailer's queues, and the peers that a folder's `peers.json` describes.

In commands and settings `{api_port} {worker_port} {smtp_port} {redis_port} {workers} {connections} {dir}` are filled in.
All subjects get COMMON and as many SMTP connections; none gets anything of the caller's environment but PATH and HOME.
"""

import dataclasses
import json
import os
import pathlib
import re
import shutil
import subprocess

CONNECTIONS, WORKERS = 16, 64  # the SMTP connections and the deliveries at once of each subject

COMMON = {
    "SMTP_HOST": "127.0.0.1", "SMTP_PORT": "{smtp_port}", "SERVER_PORT": "{api_port}",
    "MAIL_FROM": "bench@example.com", "MAX_WORKERS": "{workers}", "SMTP_MAX_CONNECTIONS": "{connections}",
}
OURS = {
    "SMTP_TLS": "none", "WORKER_PORT": "{worker_port}", "MAX_QUEUE_SIZE": "10000000", "SHUTDOWN_TIMEOUT": "1s",
    "LOG_LEVEL": "error",
}


@dataclasses.dataclass(frozen=True)
class Subject:
    name: str
    title: str
    cwd: pathlib.Path = pathlib.Path(".")
    api: tuple = ()
    worker: tuple = ()       # empty: the API sends, too
    env: dict = dataclasses.field(default_factory=dict)
    ready: str = ""          # a path that answers 200 once the API can take mail; empty: it is enough that it listens
    needs: str = "."         # what is there where it is installed, relative to cwd
    redis: bool = True
    pauses: bool = False     # POST /v1/queue/pause and /resume
    smtp: bool = False       # mail comes by SMTP, without Redis
    flush: tuple = ()        # the command that lets mail go that was held until then
    drain_jobs: int = 10**9  # more must not be queued
    is_peer: bool = False

    @property
    def can_hold(self):
        """Whether mail can be queued without being sent."""
        return bool(self.worker or self.flush or self.pauses)

    @property
    def installed(self):
        return (self.cwd / self.needs).exists()

    def environment(self, fill):
        redis = {"REDIS_URL": "redis://127.0.0.1:{redis_port}"} if self.redis else {}
        own = dict(self.env)
        for setting, kind, usual in (("SMTP_MAX_CONNECTIONS", "connections", CONNECTIONS),
                                     ("MAX_WORKERS", "workers", WORKERS)):
            if own.get(setting, "").isdecimal():  # of its own for each of several processes: the same share of less
                own[setting] = str(max(1, int(own[setting]) * int(fill[kind]) // usual))
        caller = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        return caller | {name: filled(value, fill) for name, value in (COMMON | redis | own).items()}


def filled(text, fill):
    """Only the names that are known: a brace may stand for itself."""
    return re.sub(r"\{(\w+)\}", lambda found: str(fill.get(found[1], found[0])), text)


def ours(root, programs):
    """Emailer, one subject a queue."""
    api, worker = str(programs / "emailer-api"), str(programs / "emailer-worker")
    both = {"cwd": root, "api": (api,), "ready": "/readyz", "needs": api, "pauses": True}
    return {subject.name: subject for subject in (
        Subject("floor", "floor", redis=False),
        Subject("memory", "Emailer, memory queue", env=OURS | {"QUEUE_TYPE": "memory"}, redis=False, **both),
        Subject("redis", "Emailer, Redis queue", env=OURS | {"QUEUE_TYPE": "redis"}, worker=(worker,), **both),
    )}


def peers(folder):
    """What `peers.json` describes, installed or not."""
    found = {}
    for name, about in json.loads((folder / "peers.json").read_text()).items():
        smtp = about.get("protocol") == "smtp"
        found[name] = Subject(
            name, about.get("title", name), cwd=(folder / about.get("cwd", ".")).resolve(), api=tuple(about["api"]),
            worker=tuple(about.get("worker", ())), env=about.get("env", {}), ready=about.get("ready", ""),
            needs=about.get("needs", "."), redis=about.get("redis", True) and not smtp, smtp=smtp,
            flush=tuple(about.get("flush", ())), drain_jobs=about.get("drain_jobs", 10**9), is_peer=True)
    return found


# ------------------------------------------------------------------------------------------ versions


def first_line(*command):
    try:
        out = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return (out.stdout.strip().splitlines() or [None])[0]


def locked(folder):
    """package → version, of what a folder's manifest asks for and its lock file has."""
    lock = folder / "package-lock.json"
    if lock.exists():
        packages = json.loads(lock.read_text())["packages"]
        return {name: packages[f"node_modules/{name}"]["version"] for name in packages[""].get("dependencies", {})}
    lock = folder / "Cargo.lock"
    if lock.exists():
        asked = re.search(r"^\[dependencies\]\n(.*?)(?:^\[|\Z)", (folder / "Cargo.toml").read_text(), re.M | re.S)
        names = re.findall(r"^([\w-]+) *=", asked[1] if asked else "", re.M)
        versions = dict(re.findall(r'^name = "(.*)"\nversion = "(.*)"', lock.read_text(), re.M))
        return {name: versions[name] for name in names if name in versions}
    lock = folder / "requirements.txt"
    if lock.exists():
        return dict(re.findall(r"^([\w.-]+)(?:\[.*\])?==([\w.]+)", lock.read_text(), re.M))
    return {}


def versions(subjects):
    """Of the servers, and of what each subject is made of."""
    redis = re.search(r"v=(\S+)", first_line("redis-server", "--version") or "")
    postfix = re.search(r"= *(\S+)", first_line("postconf", "-d", "mail_version") or "")
    found = {"Redis": redis and redis[1], "Postfix": postfix and postfix[1]}
    for subject in subjects:
        if subject.is_peer:
            packages = locked(subject.cwd)
            if (subject.cwd / "package-lock.json").exists():
                packages = {"node": (first_line("node", "--version") or "?").lstrip("v"), **packages}
            if packages:
                found[subject.name] = packages
        elif subject.api and shutil.which(subject.api[0]):
            found["Emailer"] = (first_line(subject.api[0], "--version") or "?").split()[-1]
    return {name: version for name, version in found.items() if version}
