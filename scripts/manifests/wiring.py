"""What must hold between objects: who selects, names, reaches and watches whom. A rule is a generator of sentences."""

import re

from objects import pod_labels, ports, spec, title


def selectors(m):
    """Every selector matches a pod."""
    for w in m.workloads():
        wanted = w["spec"]["selector"]["matchLabels"]
        if not wanted.items() <= pod_labels(w).items():
            yield f"{title(w)}: its selector does not match its own pods"
        for spread in spec(w).get("topologySpreadConstraints", []):
            if not spread["labelSelector"]["matchLabels"].items() <= pod_labels(w).items():
                yield f"{title(w)}: its topology spread does not match its own pods"
        if w in m.ours() and not all(s.get("matchLabelKeys") for s in spec(w).get("topologySpreadConstraints", [{}])):
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
                    yield f"{who}: there is no ConfigMap {source['configMapRef']['name']}"
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
        known = (
            {p["name"] for p in found["spec"]["ports"]} | {p["port"] for p in found["spec"]["ports"]} if found else {}
        )
        if port not in known:
            yield f"{who}: there is no port {port} of a Service {name}"

    for o in m.of("Service"):
        for w in m.selected(o["spec"]["selector"]):
            for p in o["spec"]["ports"]:
                if p["targetPort"] not in ports(w):
                    yield f"{title(o)}: targetPort {p['targetPort']} is no port of {title(w)}"
    for o in m.of("Ingress"):
        for path in [p for r in o["spec"]["rules"] for p in r["http"]["paths"]]:
            backend = path["backend"]["service"]
            yield from service(title(o), backend["name"], backend["port"].get("name", backend["port"].get("number")))
            if path["path"] != "/v1":
                yield f"{title(o)}: {path['path']} is not for the world"
    for o in m.of("HTTPRoute"):
        for rule in o["spec"]["rules"]:
            for backend in rule["backendRefs"]:
                yield from service(title(o), backend["name"], backend["port"])
            if [match["path"]["value"] for match in rule["matches"]] != ["/v1"]:
                yield f"{title(o)}: more than /v1 is not for the world"
    for o in m.of("ServiceMonitor"):
        wanted = o["spec"]["selector"]["matchLabels"].items()
        known = {
            p["name"]
            for s in m.of("Service")
            if wanted <= s["metadata"].get("labels", {}).items()
            for p in s["spec"]["ports"]
        }
        for endpoint in o["spec"]["endpoints"]:
            if endpoint["port"] not in known:
                yield f"{title(o)}: {endpoint['port']} is no port of its Service"
    for o in m.of("PodMonitor"):
        for w in m.selected(o["spec"]["selector"]["matchLabels"]):
            for endpoint in o["spec"]["podMetricsEndpoints"]:
                if endpoint["port"] not in ports(w):
                    yield f"{title(o)}: {endpoint['port']} is no port of {title(w)}"
    for o in m.of("NetworkPolicy"):
        for w in m.selected(o["spec"]["podSelector"].get("matchLabels", {})):
            for p in [p for r in o["spec"].get("ingress", []) for p in r.get("ports", [])]:
                if p["port"] not in ports(w):
                    yield f"{title(o)}: {p['port']} is no port of {title(w)}"
    for w in m.ours():
        number = m.environment(w).get(
            {"emailer-api": "EMAIL_SERVER_PORT"}.get(w["metadata"]["name"], "EMAIL_WORKER_PORT")
        )
        if number is None or int(number) not in ports(w):
            yield f"{title(w)}: the program listens on {number}, the container names {ports(w)}"


def isolation(m):
    """What no policy names is denied, and no policy names all."""
    closed = [
        o for o in m.of("NetworkPolicy") if o["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    ]
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
        policies = [
            o["spec"]
            for o in m.of("NetworkPolicy")
            if o["spec"]["podSelector"].get("matchLabels", {}).items() <= pod_labels(w).items()
        ]
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
                yield f"{rule['alert']}: deploy/README.md does not explain it"
            if rule["annotations"].get("runbook") != f"deploy/README.md, Alerts: {rule['alert']}":
                yield f"{rule['alert']}: does not name its section"
        for section in m.sources["sections"] - {rule["alert"] for rule in rules}:
            yield f"deploy/README.md explains {section}, which is no alert"
