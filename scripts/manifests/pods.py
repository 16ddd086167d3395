"""What must hold of pods: rights, numbers, beginning and end. A rule is a generator of sentences."""

import re

from objects import least_replicas, pod_labels, ports, seconds, spec, title

# The identity that deploy/docker gives the programs.
UID = 10001
VOLUMES = {"configMap", "secret", "emptyDir", "projected", "persistentVolumeClaim"}


def restricted(m):
    """Pod Security, restricted, and what goes beyond it."""
    for namespace in m.of("Namespace"):
        if namespace["metadata"].get("labels", {}).get("pod-security.kubernetes.io/enforce") != "restricted":
            yield f"{title(namespace)} does not enforce restricted"
    for w in m.workloads():
        pod, who = spec(w), title(w)
        context = pod.get("securityContext", {})
        if context.get("runAsNonRoot") is not True:
            yield f"{who}: runAsNonRoot is not true"
        ids = [context.get(key) for key in ("runAsUser", "runAsGroup", "fsGroup")]
        if ids != [UID] * 3 if w in m.ours() else not all(ids):
            yield f"{who}: uid, gid and fsGroup are {ids}"
        if context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            yield f"{who}: seccomp is not RuntimeDefault"
        if any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")):
            yield f"{who}: shares something with its host"
        for key in ("automountServiceAccountToken", "enableServiceLinks"):
            if pod.get(key) is not False:
                yield f"{who}: {key} is not false"
        for volume in pod.get("volumes", []):
            if not VOLUMES & volume.keys():
                yield f"{who}: the volume {volume['name']} is of a kind that is not allowed"
        for c in pod["containers"] + pod.get("initContainers", []):
            own = c.get("securityContext", {})
            if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
                yield f"{who}: can gain privileges"
            if own.get("capabilities") != {"drop": ["ALL"]}:
                yield f"{who}: does not drop all capabilities"
            if own.get("readOnlyRootFilesystem") is not True:
                yield f"{who}: can write to its root file system"
            if any(key in own for key in ("runAsUser", "runAsNonRoot", "runAsGroup", "seccompProfile")):
                yield f"{who}: a container overrides what the pod says"
            resources = c.get("resources", {})
            if {"cpu", "memory"} - resources.get("requests", {}).keys() or "memory" not in resources.get("limits", {}):
                yield f"{who}: requests of CPU and memory and a limit of memory are expected"
            if any("hostPort" in p for p in c.get("ports", [])):
                yield f"{who}: takes a port of its host"


def scaling(m):
    """One hand on each number of replicas, and never none."""
    hands = {}
    for o in m.of("HorizontalPodAutoscaler", "ScaledObject"):
        target = o["spec"]["scaleTargetRef"]
        hands.setdefault((target.get("kind", "Deployment"), target["name"]), []).append(o)
        least = o["spec"].get("minReplicas", o["spec"].get("minReplicaCount", 0))
        most = o["spec"].get("maxReplicas", o["spec"].get("maxReplicaCount", 100))
        if not 1 <= least <= most:
            yield f"{title(o)}: from {least} to {most} replicas"
    for (kind, name), scalers in hands.items():
        target = m.named(kind, name)
        if target is None:
            yield f"{title(scalers[0])}: there is no {kind} {name}"
        elif "replicas" in target["spec"]:
            yield f"{title(target)} has its replicas set, and {title(scalers[0])} sets them, too"
        if len(scalers) > 1:
            yield f"{kind} {name} is scaled by {' and '.join(title(s) for s in scalers)}"
    for w in m.ours():
        if ("Deployment", w["metadata"]["name"]) not in hands and w["spec"].get("replicas", 1) < 1:
            yield f"{title(w)}: no replica"


def disruptions(m):
    """A drain of nodes leaves one pod, and is not held up for ever."""
    for w in m.ours():
        budgets = [
            b
            for b in m.of("PodDisruptionBudget")
            if b["spec"]["selector"]["matchLabels"].items() <= pod_labels(w).items()
        ]
        if len(budgets) != 1:
            yield f"{title(w)}: {len(budgets)} PodDisruptionBudgets"
            continue
        budget = budgets[0]["spec"]
        away = budget.get("maxUnavailable")
        if not isinstance(away, int) or away < 1:
            yield f"{title(budgets[0])}: maxUnavailable of 1 or more is expected, so that a node can be drained"
        elif least_replicas(m, w) - away < 1:
            yield f"{title(budgets[0])}: leaves none of {least_replicas(m, w)}"
        if budget.get("unhealthyPodEvictionPolicy") != "AlwaysAllow":
            yield f"{title(budgets[0])}: a pod that is not ready holds up a drain"
        update = w["spec"].get("strategy", {}).get("rollingUpdate", {})
        if update.get("maxUnavailable") != 0:
            yield f"{title(w)}: a rollout takes one away before another is ready"


def ending(m):
    """A pod has time for its end."""
    for w in m.ours():
        pod = spec(w)
        sleep = pod["containers"][0].get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        drain = seconds(m.environment(w).get("EMAIL_SHUTDOWN_TIMEOUT", "30s"))
        grace = pod.get("terminationGracePeriodSeconds", 30)
        if grace < drain + sleep + 5:
            yield f"{title(w)}: {grace} s of grace for {sleep} s of preStop and {drain:.0f} s of shutdown.timeout"
        if sleep < 5 and any(w in m.selected(s["spec"]["selector"]) for s in m.of("Service")):
            yield f"{title(w)}: its end begins before its endpoint has left"


def probes(m):
    """Probes ask for routes that exist, on ports that exist."""
    for w in m.ours():
        routes, container = m.sources["routes"][w["metadata"]["name"]], spec(w)["containers"][0]
        wanted = {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}
        for name, path in wanted.items():
            get = container.get(name, {}).get("httpGet", {})
            if get.get("path") != path:
                yield f"{title(w)}: {name} does not ask for {path}"
            if get.get("path") not in routes:
                yield f"{title(w)}: {name}: the program has no route {get.get('path')}"
            if get.get("port") not in ports(w):
                yield f"{title(w)}: {name}: there is no port {get.get('port')}"
        # /readyz gives the queue 2 s; the start waits 30 s for it.
        if container.get("readinessProbe", {}).get("timeoutSeconds", 1) <= 2:
            yield f"{title(w)}: readinessProbe gives up before the program answers"
        start = container.get("startupProbe", {})
        if start.get("periodSeconds", 10) * start.get("failureThreshold", 3) <= 30:
            yield f"{title(w)}: startupProbe gives up before the program does"
    for o in m.of("ServiceMonitor", "PodMonitor"):
        for endpoint in o["spec"].get("endpoints", o["spec"].get("podMetricsEndpoints", [])):
            if endpoint["path"] not in m.sources["routes"][o["metadata"]["name"]]:
                yield f"{title(o)}: the program has no route {endpoint['path']}"


def settings(m):
    """Settings have the names that a program refuses when it does not know them, and secrets come as files."""
    for w in m.ours():
        for name, value in m.environment(w).items():
            if not name.startswith("EMAIL_"):
                yield f"{title(w)}: {name} would be ignored if it were misspelt; EMAIL_ in front is expected"
            if name in {"EMAIL_SMTP_PASS", "EMAIL_API_KEYS", "EMAIL_REDIS_URL"}:
                yield f"{title(w)}: {name} is a secret; a file is expected"
            if name.endswith("_HOST") and name != "EMAIL_SMTP_HOST" and value != "0.0.0.0":
                yield f"{title(w)}: {name} = {value} cannot be reached from outside of the pod"
        image = spec(w)["containers"][0]["image"]
        if m.sources["whole"] and not re.search(r":(?!latest$)[\w.-]+$|@sha256:[0-9a-f]{64}$", image):
            yield f"{title(w)}: the image {image} has no tag"
