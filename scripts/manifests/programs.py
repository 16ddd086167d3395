"""The real programs with the environments that the manifests give them."""

import contextlib
import functools
import json
import pathlib
import re
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

from objects import spec

# A setting that no program knows: it ends with exit code 2 and a list of all that is wrong, before it connects.
PLANTED = "EMAIL_PLANTED_BY_A_TEST"
PATIENCE = 20


def secret_files(manifests, workload):
    """The files that a pod's Secrets give it: path and content."""
    held = {volume["name"]: volume["secret"] for volume in spec(workload).get("volumes", []) if "secret" in volume}
    for mount in spec(workload)["containers"][0].get("volumeMounts", []):
        secret = held.get(mount["name"], {"items": []})
        for item in secret["items"]:
            content = manifests.secret(secret["secretName"]) or {}
            yield f"{mount['mountPath']}/{item['path']}", content.get(item["key"], "")


def placed(variables, files, root):
    """Writes the files into the folder `root` instead, and returns the variables that say so."""
    for path, content in files.items():
        place = pathlib.Path(root + path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(content)
    return {name: root + value if value.startswith("/etc/emailer/") else value for name, value in variables.items()}


@functools.cache
def complaints(program, variables, files):
    """What a program says is wrong with an environment."""
    with tempfile.TemporaryDirectory() as root:
        environment = placed(dict(variables), dict(files), root) | {PLANTED: "1"}
        done = subprocess.run([program], env=environment, cwd=root, capture_output=True, text=True, timeout=PATIENCE)
    said = [line.strip() for line in done.stderr.splitlines()[1:]]
    if done.returncode != 2 or not any(PLANTED in line for line in said):
        return [f"took a setting that does not exist: {done.returncode}, {done.stderr}"]
    return [line for line in said if PLANTED not in line]


def refused(manifests, programs):
    """What the programs say is wrong with the environments of a rendering."""
    for workload in manifests.ours():
        name = workload["metadata"]["name"]
        variables, files = manifests.environment(workload), dict(secret_files(manifests, workload))
        for line in complaints(programs / name, tuple(variables.items()), tuple(files.items())):
            yield f"programs: {name}: {line}"


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def ask(port, path, key=None, body=None):
    """Status and body of an answer; no status where there is none."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", json.dumps(body).encode() if body else None, headers
    )
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError as error:
        return None, str(error)


def until(what, wanted):
    """Asks again until the answer is as wanted."""
    end = time.monotonic() + PATIENCE
    while True:
        found = what()
        if wanted(found):
            return found
        if time.monotonic() > end:
            raise TimeoutError(f"{found}")
        time.sleep(0.05)


@contextlib.contextmanager
def running(log, *command, **options):
    with open(log, "w") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, **options)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def live(manifests, programs, location):
    """Runs `dev` without a cluster: Redis, API and worker with its arguments, environments and probes; a mail is sent.

    Changed are places: ports and hosts, for all of it stays on the loopback. `location` is where KEDA reads the depth.
    """
    with tempfile.TemporaryDirectory() as root, contextlib.ExitStack() as stack:
        pods = start(manifests, programs, root, stack)
        try:
            for _, port, workload in pods.values():
                for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                    path = spec(workload)["containers"][0][probe]["httpGet"]["path"]
                    until(functools.partial(ask, port, path), lambda answer: answer[0] == 200)
            key = api_key(manifests)
            yield from send(pods["emailer-api"][1], key)
            yield from figures(pods["emailer-api"][1], key, location)
            yield from ends(pods)
        except TimeoutError as error:
            logs = [log.read_text() for log in sorted(pathlib.Path(root).glob("*.log"))]
            yield "\n".join([f"live: not within {PATIENCE} s: {error}", *logs])


def start(manifests, programs, root, stack):
    """Starts Redis and both programs. Returns process, port and workload of each program."""
    redis_port, pods = free_port(), {}
    container = spec(manifests.named("StatefulSet", "emailer-redis"))["containers"][0]
    moved = [root if word == "/data" else word for word in container["args"]]
    listen = ["--port", str(redis_port), "--bind", "127.0.0.1"]
    stack.enter_context(running(f"{root}/redis.log", *container["command"], *moved, *listen))
    for workload in manifests.ours():
        name, port = workload["metadata"]["name"], free_port()
        files = dict(secret_files(manifests, workload))
        redis = {path: f"redis://127.0.0.1:{redis_port}" for path in files if path.endswith("redis-url")}
        own = placed(manifests.environment(workload), files | redis, f"{root}/{name}")
        own |= {key: "127.0.0.1" for key in ("EMAIL_SERVER_HOST", "EMAIL_WORKER_HOST") if key in own}
        own |= {key: str(port) for key in ("EMAIL_SERVER_PORT", "EMAIL_WORKER_PORT") if key in own}
        process = stack.enter_context(running(f"{root}/{name}.log", programs / name, env=own, cwd=root))
        pods[name] = (process, port, workload)
    return pods


def api_key(manifests):
    """The first key in the API's Secret."""
    volume = spec(manifests.named("Deployment", "emailer-api"))["volumes"][0]
    return manifests.secret(volume["secret"]["secretName"])["api-keys"].split(":")[1]


def send(port, key):
    """Sends a mail and follows it to its end."""
    mail = {"subject": "Hello", "recipients": ["a@example.com"], "body": "<p>Hello</p>"}
    status, body = ask(port, "/v1/send-event-email", key, mail)
    if status != 202:
        yield f"live: a mail is answered {status}: {body}"
        return
    path = f"/v1/jobs/{json.loads(body)['jobs'][0]['id']}"
    until(lambda: json.loads(ask(port, path, key)[1]), lambda job: job.get("status") == "sent")


def figures(port, key, location):
    """What the scalers look at is there."""
    depth = json.loads(ask(port, "/v1/queue", key)[1])
    for step in location.split("."):
        depth = depth.get(step) if isinstance(depth, dict) else None
    if not isinstance(depth, int):
        yield f"live: GET /v1/queue has no number at {location}"
    shown = ask(port, "/metrics")[1]
    for state in ("queued", "sending"):
        if not re.search(rf'^emailer_queue_jobs\{{state="{state}",', shown, re.M):
            yield f"live: the API shows no emailer_queue_jobs of state {state}"


def ends(pods):
    """Both programs end cleanly when they are asked to."""
    for name, (process, _, _) in pods.items():
        process.send_signal(signal.SIGTERM)
        try:
            if process.wait(timeout=PATIENCE) != 0:
                yield f"live: {name} ends with {process.returncode}"
        except subprocess.TimeoutExpired:
            yield f"live: {name} does not end"
