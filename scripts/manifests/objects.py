"""The objects of a rendering, and what is asked about them again and again."""

import base64
import re

OURS = {"emailer-api", "emailer-worker"}


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
    return f"{o['kind']} {o['metadata']['name']}"


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


def least_replicas(m, workload):
    for o in m.of("HorizontalPodAutoscaler", "ScaledObject"):
        if o["spec"]["scaleTargetRef"]["name"] == workload["metadata"]["name"]:
            return o["spec"].get("minReplicas", o["spec"].get("minReplicaCount", 0))
    return workload["spec"].get("replicas", 1)
