"""What must hold of rendered manifests, beyond their schemas. Pure: objects in, faults out.

A rule is a generator of sentences; none of them: it holds. Rules of WHOLE hold of what can be applied as it is, an overlay;
those of ALWAYS of the base, too.
"""

import base64
import re

# The identity that deploy/docker gives the programs.
OURS = {"emailer-api", "emailer-worker"}
UID = 10001
VOLUMES = {"configMap", "secret", "emptyDir", "projected", "persistentVolumeClaim"}


class Manifests:
    """The objects of one rendering, and what the sources say that they must agree with."""

    def __init__(self, objects, sources, spare_secrets=()):
        self.objects = objects
        self.sources = sources
        self.spare_secrets = spare_secrets

    def of(self, *kinds):
        return [o for o in self.objects if o["kind"] in kinds]

    def named(self, kind, name):
        return next((o for o in self.of(kind) if o["metadata"]["name"] == name), None)

    def workloads(self):
        return self.of("Deployment", "StatefulSet")

    def ours(self):
        return [w for w in self.workloads() if w["metadata"]["name"] in OURS]

    def selected(self, labels):
        """Workloads whose pods have all of these labels."""
        return [w for w in self.workloads() if labels.items() <= pod_labels(w).items()]

    def secret(self, name):
        """What a Secret holds; one that the overlay does not bring is described by its example."""
        secrets = [s for s in [*self.of("Secret"), *self.spare_secrets] if s["metadata"]["name"] == name]
        if not secrets:
            return None
        decoded = {key: base64.b64decode(value).decode() for key, value in secrets[0].get("data", {}).items()}
        return decoded | secrets[0].get("stringData", {})

    def environment(self, workload):
        """The variables of a program, as the kubelet sets them."""
        container = spec(workload)["containers"][0]
        variables = {}
        for source in container.get("envFrom", []):
            found = self.named("ConfigMap", source["configMapRef"]["name"])
            variables |= found["data"] if found else {}
        return variables | {e["name"]: e.get("value", "") for e in container.get("env", [])}


def title(o):
    return f'{o["kind"]} {o["metadata"]["name"]}'


def spec(workload):
    return workload["spec"]["template"]["spec"]


def pod_labels(workload):
    return workload["spec"]["template"]["metadata"]["labels"]


def ports(workload):
    """Names and numbers of all ports that a workload's containers name."""
    found = [p for c in spec(workload)["containers"] for p in c.get("ports", [])]
    return {p["name"] for p in found} | {p["containerPort"] for p in found}


def seconds(text):
    number, unit = re.fullmatch(r"(\d+)(ms|s|m|h)", text).groups()
    return int(number) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600}[unit]


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
                yield f'{who}: the volume {volume["name"]} is of a kind that is not allowed'
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


def selectors(m):
    """Every selector matches a pod."""
    for w in m.workloads():
        wanted = w["spec"]["selector"]["matchLabels"]
        if not wanted.items() <= pod_labels(w).items():
            yield f"{title(w)}: its selector does not match its own pods"
        for spread in spec(w).get("topologySpreadConstraints", []):
            if not spread["labelSelector"]["matchLabels"].items() <= pod_labels(w).items():
                yield f"{title(w)}: its topology spread does not match its own pods"
        if w in m.ours() and not all(
            s.get("matchLabelKeys") for s in spec(w).get("topologySpreadConstraints", [{}])
        ):
            yield f"{title(w)}: its topology spread counts the pods of earlier revisions"
    for o in m.of("Service"):
        if len(m.selected(o["spec"]["selector"])) != 1:
            yield f"{title(o)}: its selector does not match the pods of one workload"
    for o in m.of("PodDisruptionBudget", "PodMonitor"):
        if len(m.selected(o["spec"]["selector"]["matchLabels"])) != 1:
            yield f"{title(o)}: its selector does not match the pods of one workload"
    for o in m.of("ServiceMonitor"):
        wanted = o["spec"]["selector"]["matchLabels"].items()
        if len([s for s in m.of("Service") if wanted <= s["metadata"].get("labels", {}).items()]) != 1:
            yield f"{title(o)}: its selector does not match one Service"
    for o in m.of("NetworkPolicy"):
        peers = [p for r in o["spec"].get("ingress", []) for p in r.get("from", [])]
        peers += [p for r in o["spec"].get("egress", []) for p in r.get("to", [])]
        own = [p["podSelector"] for p in peers if p.keys() == {"podSelector"}]
        for selector in [o["spec"]["podSelector"], *own]:
            if not m.selected(selector.get("matchLabels", {})):
                yield f"{title(o)}: a selector matches no pod"


def references(m):
    """Every ConfigMap, Secret, key and account that is named is there."""
    def key(who, name, wanted):
        found = m.secret(name)
        if found is None:
            yield f"{who}: there is no Secret {name}"
        elif wanted not in found:
            yield f"{who}: the Secret {name} has no key {wanted}"

    for w in m.workloads():
        who, pod = title(w), spec(w)
        account = pod.get("serviceAccountName")
        if account and not m.named("ServiceAccount", account):
            yield f"{who}: there is no ServiceAccount {account}"
        for c in pod["containers"]:
            for source in c.get("envFrom", []):
                if not m.named("ConfigMap", source["configMapRef"]["name"]):
                    yield f'{who}: there is no ConfigMap {source["configMapRef"]["name"]}'
        for volume in pod.get("volumes", []):
            for item in volume.get("secret", {}).get("items", []):
                yield from key(who, volume["secret"]["secretName"], item["key"])
    for o in m.of("TriggerAuthentication"):
        for ref in o["spec"]["secretTargetRef"]:
            yield from key(title(o), ref["name"], ref["key"])
    for o in m.of("ScaledObject"):
        for trigger in o["spec"]["triggers"]:
            name = trigger.get("authenticationRef", {}).get("name")
            if name and not m.named("TriggerAuthentication", name):
                yield f"{title(o)}: there is no TriggerAuthentication {name}"


def connections(m):
    """Every port that something is sent to exists."""
    def service(who, name, port):
        found = m.named("Service", name)
        known = {p["name"] for p in found["spec"]["ports"]} | {p["port"] for p in found["spec"]["ports"]} if found else {}
        if port not in known:
            yield f"{who}: there is no port {port} of a Service {name}"

    for o in m.of("Service"):
        for w in m.selected(o["spec"]["selector"]):
            for p in o["spec"]["ports"]:
                if p["targetPort"] not in ports(w):
                    yield f'{title(o)}: targetPort {p["targetPort"]} is no port of {title(w)}'
    for o in m.of("Ingress"):
        for path in [p for r in o["spec"]["rules"] for p in r["http"]["paths"]]:
            backend = path["backend"]["service"]
            yield from service(title(o), backend["name"], backend["port"].get("name", backend["port"].get("number")))
            if path["path"] != "/v1":
                yield f'{title(o)}: {path["path"]} is not for the world'
    for o in m.of("HTTPRoute"):
        for rule in o["spec"]["rules"]:
            for backend in rule["backendRefs"]:
                yield from service(title(o), backend["name"], backend["port"])
            if [match["path"]["value"] for match in rule["matches"]] != ["/v1"]:
                yield f"{title(o)}: more than /v1 is not for the world"
    for o in m.of("ServiceMonitor"):
        wanted = o["spec"]["selector"]["matchLabels"].items()
        known = {p["name"] for s in m.of("Service") if wanted <= s["metadata"].get("labels", {}).items()
                 for p in s["spec"]["ports"]}
        for endpoint in o["spec"]["endpoints"]:
            if endpoint["port"] not in known:
                yield f'{title(o)}: {endpoint["port"]} is no port of its Service'
    for o in m.of("PodMonitor"):
        for w in m.selected(o["spec"]["selector"]["matchLabels"]):
            for endpoint in o["spec"]["podMetricsEndpoints"]:
                if endpoint["port"] not in ports(w):
                    yield f'{title(o)}: {endpoint["port"]} is no port of {title(w)}'
    for o in m.of("NetworkPolicy"):
        for w in m.selected(o["spec"]["podSelector"].get("matchLabels", {})):
            for p in [p for r in o["spec"].get("ingress", []) for p in r.get("ports", [])]:
                if p["port"] not in ports(w):
                    yield f'{title(o)}: {p["port"]} is no port of {title(w)}'
    for w in m.ours():
        number = m.environment(w).get({"emailer-api": "EMAIL_SERVER_PORT"}.get(w["metadata"]["name"], "EMAIL_WORKER_PORT"))
        if number is None or int(number) not in ports(w):
            yield f"{title(w)}: the program listens on {number}, the container names {ports(w)}"


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


def least_replicas(m, workload):
    for o in m.of("HorizontalPodAutoscaler", "ScaledObject"):
        if o["spec"]["scaleTargetRef"]["name"] == workload["metadata"]["name"]:
            return o["spec"].get("minReplicas", o["spec"].get("minReplicaCount", 0))
    return workload["spec"].get("replicas", 1)


def disruptions(m):
    """A drain of nodes leaves one pod, and is not held up for ever."""
    for w in m.ours():
        budgets = [b for b in m.of("PodDisruptionBudget")
                   if b["spec"]["selector"]["matchLabels"].items() <= pod_labels(w).items()]
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
                yield f'{title(w)}: {name}: the program has no route {get.get("path")}'
            if get.get("port") not in ports(w):
                yield f'{title(w)}: {name}: there is no port {get.get("port")}'
        # /readyz gives the queue 2 s; the start waits 30 s for it.
        if container.get("readinessProbe", {}).get("timeoutSeconds", 1) <= 2:
            yield f"{title(w)}: readinessProbe gives up before the program answers"
        start = container.get("startupProbe", {})
        if start.get("periodSeconds", 10) * start.get("failureThreshold", 3) <= 30:
            yield f"{title(w)}: startupProbe gives up before the program does"
    for o in m.of("ServiceMonitor", "PodMonitor"):
        for endpoint in o["spec"].get("endpoints", o["spec"].get("podMetricsEndpoints", [])):
            if endpoint["path"] not in m.sources["routes"][o["metadata"]["name"]]:
                yield f'{title(o)}: the program has no route {endpoint["path"]}'


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


def isolation(m):
    """What no policy names is denied, and no policy names all."""
    closed = [o for o in m.of("NetworkPolicy") if o["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}]
    if not closed:
        yield "no NetworkPolicy denies by default"
    for o in m.of("NetworkPolicy"):
        for rule in o["spec"].get("ingress", []):
            if not rule.get("from") or not rule.get("ports"):
                yield f"{title(o)}: lets in from everywhere, or to every port"
            if any(not peer.get("namespaceSelector", {1: 1}) for peer in rule.get("from", [])):
                yield f"{title(o)}: lets in from every namespace"
        for rule in o["spec"].get("egress", []):
            if not rule.get("ports"):
                yield f"{title(o)}: lets out to every port"


def ways_out(m):
    """What a program has to reach, it can reach: DNS, its Redis, its relay."""
    for w in m.ours():
        policies = [o["spec"] for o in m.of("NetworkPolicy")
                    if o["spec"]["podSelector"].get("matchLabels", {}).items() <= pod_labels(w).items()]
        out = {p["port"] for s in policies for r in s.get("egress", []) for p in r["ports"]}
        environment = m.environment(w)
        wanted = {53: "DNS"}
        for secret in [v["secret"]["secretName"] for v in spec(w)["volumes"] if "secret" in v]:
            url = (m.secret(secret) or {}).get("redis-url", "")
            wanted |= {int(port): "Redis" for port in re.findall(r":(\d+)(?=[,/]|$)", url)}
        if environment.get("EMAIL_MAIL_TRANSPORT") != "outbox" and w["metadata"]["name"] == "emailer-worker":
            wanted[int(environment.get("EMAIL_SMTP_PORT", 587))] = "the relay"
        for port, what in wanted.items():
            if port not in out:
                yield f"{title(w)}: no NetworkPolicy lets it out to {what}, port {port}"
        if w["metadata"]["name"] == "emailer-api" and out & {25, 465, 587}:
            yield f"{title(w)}: a NetworkPolicy lets it out to relays"


def measured(m):
    """Scaling and alerts rest on what the programs measure, and every alert is explained."""
    def check(who, query):
        for name in re.findall(r"\bemailer_\w+", query):
            if re.sub(r"_(bucket|sum|count)$", "", name) not in m.sources["metrics"]:
                yield f"{who}: no program measures {name}"
        for name, labels in re.findall(r"\b(emailer_\w+?)(?:_bucket)?\{([^}]*)\}", query):
            known = m.sources["metrics"].get(name, set()) | {"namespace"}
            for label in re.findall(r"(\w+)\s*[=!]", labels):
                if label not in known:
                    yield f"{who}: {name} has no label {label}"

    for o in m.of("ScaledObject"):
        for trigger in o["spec"]["triggers"]:
            query, url = trigger["metadata"].get("query", ""), trigger["metadata"].get("url", "")
            yield from check(title(o), query)
            places = re.findall(r'namespace="([^"]*)"', query) + re.findall(r"//emailer-api\.([^./]+)\.svc", url)
            if places != [o["metadata"]["namespace"]]:
                yield f"{title(o)}: asks about {places}, and is in {o['metadata']['namespace']}"
    for o in m.of("PrometheusRule"):
        rules = [rule for group in o["spec"]["groups"] for rule in group["rules"]]
        for rule in rules:
            yield from check(rule["alert"], rule["expr"])
            if rule["alert"] not in m.sources["sections"]:
                yield f'{rule["alert"]}: deploy/alerts.md does not explain it'
            if rule["annotations"].get("runbook") != f'deploy/README.md, Alerts: {rule["alert"]}':
                yield f'{rule["alert"]}: does not name its section'
        for section in m.sources["sections"] - {rule["alert"] for rule in rules}:
            yield f"deploy/alerts.md explains {section}, which is no alert"


ALWAYS = [restricted, selectors, references, connections, scaling, disruptions, ending, probes, settings, isolation, measured]
WHOLE = [ways_out]


def faults(manifests):
    rules = ALWAYS + (WHOLE if manifests.sources["whole"] else [])
    return [f"{rule.__name__}: {fault}" for rule in rules for fault in rule(manifests)]
