"""Defects to plant into rendered manifests, and what must be said of each."""

from objects import spec


def worker(m):
    return m.named("Deployment", "emailer-worker")


def api(m):
    return m.named("Deployment", "emailer-api")


def pod(workload):
    return spec(workload)


def box(workload):
    return pod(workload)["containers"][0]


def config(m, program):
    """The ConfigMap of a program's own."""
    return next(o for o in m.of("ConfigMap") if o["metadata"]["name"].startswith(program + "-"))["data"]


def rename(mapping, old, new):
    mapping[new] = mapping.pop(old)


def second_hand(m):
    hpa = m.named("HorizontalPodAutoscaler", "emailer-api")
    twin = hpa | {"metadata": hpa["metadata"] | {"name": "twin"}}
    m.objects.append(
        twin | {"spec": hpa["spec"] | {"scaleTargetRef": {"kind": "Deployment", "name": "emailer-worker"}}}
    )


def drop(m, kind, name):
    m.objects.remove(m.named(kind, name))


def without(variables, name):
    variables[:] = [variable for variable in variables if variable["name"] != name]


def alert(m, number=0):
    return m.named("PrometheusRule", "emailer")["spec"]["groups"][0]["rules"][number]


# What is done to the production overlay, and a part of the sentence that it must bring.
PLANTED = [
    ("a pod may be root", lambda m: pod(api(m))["securityContext"].pop("runAsNonRoot"), "runAsNonRoot is not true"),
    (
        "another uid than the image's",
        lambda m: pod(api(m))["securityContext"].update(runAsUser=1000),
        "uid, gid and fsGroup",
    ),
    (
        "a writable root file system",
        lambda m: box(worker(m))["securityContext"].pop("readOnlyRootFilesystem"),
        "root file system",
    ),
    (
        "a capability too many",
        lambda m: box(worker(m))["securityContext"]["capabilities"].update(add=["NET_RAW"]),
        "drop all capabilities",
    ),
    ("a token in the pod", lambda m: pod(api(m)).pop("automountServiceAccountToken"), "automountServiceAccountToken"),
    ("variables of Services in the pod", lambda m: pod(api(m)).pop("enableServiceLinks"), "enableServiceLinks"),
    (
        "a folder of the host",
        lambda m: pod(api(m))["volumes"].append({"name": "host", "hostPath": {"path": "/"}}),
        "of a kind that is not allowed",
    ),
    ("no limit of memory", lambda m: box(api(m))["resources"].pop("limits"), "a limit of memory"),
    (
        "a namespace that enforces nothing",
        lambda m: m.of("Namespace")[0]["metadata"]["labels"].clear(),
        "does not enforce restricted",
    ),
    (
        "a Service that selects nothing",
        lambda m: m.named("Service", "emailer-api")["spec"]["selector"].update({"app.kubernetes.io/component": "apis"}),
        "Service emailer-api: its selector",
    ),
    (
        "a PodMonitor that selects nothing",
        lambda m: m.named("PodMonitor", "emailer-worker")["spec"]["selector"]["matchLabels"].update(
            {"app.kubernetes.io/name": "mailer"}
        ),
        "PodMonitor emailer-worker: its selector",
    ),
    (
        "a NetworkPolicy that selects nothing",
        lambda m: m.named("NetworkPolicy", "emailer-dns")["spec"]["podSelector"]["matchLabels"].update(
            {"app.kubernetes.io/name": "mailer"}
        ),
        "a selector matches no pod",
    ),
    (
        "a Deployment that does not select its pods",
        lambda m: api(m)["spec"]["selector"]["matchLabels"].update({"app.kubernetes.io/component": "web"}),
        "does not match its own pods",
    ),
    (
        "a ConfigMap that is not there",
        lambda m: box(api(m))["envFrom"].append({"configMapRef": {"name": "other"}}),
        "no ConfigMap other",
    ),
    (
        "a key that its Secret has not",
        lambda m: pod(api(m))["volumes"][0]["secret"]["items"][0].update(key="keys"),
        "has no key keys",
    ),
    (
        "a targetPort that nobody listens on",
        lambda m: m.named("Service", "emailer-api")["spec"]["ports"][0].update(targetPort="web"),
        "targetPort web",
    ),
    (
        "a program on another port than its container",
        lambda m: config(m, "emailer-worker").update(EMAIL_WORKER_PORT="9091"),
        "the program listens on 9091",
    ),
    (
        "an Ingress to a port that is not there",
        lambda m: m.of("Ingress")[0]["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]["port"].update(
            name="web"
        ),
        "no port web",
    ),
    (
        "an Ingress to everything",
        lambda m: m.of("Ingress")[0]["spec"]["rules"][0]["http"]["paths"][0].update(path="/"),
        "not for the world",
    ),
    ("an HPA beside the ScaledObject", second_hand, "is scaled by"),
    ("workers down to none", lambda m: m.of("ScaledObject")[0]["spec"].update(minReplicaCount=0), "from 0 to"),
    ("a number of replicas that two set", lambda m: worker(m)["spec"].update(replicas=3), "has its replicas set"),
    (
        "a scaler of nothing",
        lambda m: m.of("ScaledObject")[0]["spec"]["scaleTargetRef"].update(name="workers"),
        "no Deployment workers",
    ),
    (
        "a drain of nodes that takes all",
        lambda m: m.named("PodDisruptionBudget", "emailer-api")["spec"].update(maxUnavailable=2),
        "leaves none",
    ),
    (
        "a drain of nodes that never ends",
        lambda m: m.named("PodDisruptionBudget", "emailer-api")["spec"].pop("unhealthyPodEvictionPolicy"),
        "holds up a drain",
    ),
    ("no PodDisruptionBudget", lambda m: drop(m, "PodDisruptionBudget", "emailer-worker"), "0 PodDisruptionBudgets"),
    (
        "killed within shutdown.timeout",
        lambda m: config(m, "emailer-worker").update(EMAIL_SHUTDOWN_TIMEOUT="5m"),
        "s of grace for",
    ),
    ("an end before the endpoint has left", lambda m: box(api(m)).pop("lifecycle"), "before its endpoint has left"),
    (
        "a probe of a route that is not there",
        lambda m: box(api(m))["livenessProbe"]["httpGet"].update(path="/health"),
        "no route /health",
    ),
    (
        "a restart when Redis is away",
        lambda m: box(api(m))["livenessProbe"]["httpGet"].update(path="/readyz"),
        "livenessProbe does not ask for /healthz",
    ),
    (
        "a start that is cut short",
        lambda m: box(worker(m))["startupProbe"].update(failureThreshold=10),
        "startupProbe gives up",
    ),
    (
        "a setting without EMAIL_",
        lambda m: rename(config(m, "emailer-worker"), "EMAIL_MAX_WORKERS", "MAX_WORKERS"),
        "would be ignored",
    ),
    (
        "a password in the environment",
        lambda m: box(worker(m))["env"].append({"name": "EMAIL_SMTP_PASS", "value": "x"}),
        "is a secret",
    ),
    (
        "an API on its pod's loopback",
        lambda m: config(m, "emailer-api").update(EMAIL_SERVER_HOST="127.0.0.1"),
        "cannot be reached",
    ),
    ("an image without a tag", lambda m: box(api(m)).update(image="emailer-api"), "has no tag"),
    ("no denial by default", lambda m: drop(m, "NetworkPolicy", "deny-all"), "denies by default"),
    (
        "an API for every namespace",
        lambda m: m.named("NetworkPolicy", "emailer-api-from-ingress")["spec"]["ingress"][0]["from"][0].update(
            namespaceSelector={}
        ),
        "from every namespace",
    ),
    ("no way to DNS", lambda m: drop(m, "NetworkPolicy", "emailer-dns"), "out to DNS"),
    ("no way to Redis", lambda m: drop(m, "NetworkPolicy", "emailer-to-redis"), "out to Redis"),
    (
        "a relay on a port that is closed",
        lambda m: config(m, "emailer-worker").update(EMAIL_SMTP_PORT="2525"),
        "the relay, port 2525",
    ),
    (
        "a depth that nobody measures",
        lambda m: m.of("ScaledObject")[0]["spec"]["triggers"][0]["metadata"].update(
            query='sum(emailer_queue_depth{namespace="emailer"})'
        ),
        "measures emailer_queue_depth",
    ),
    (
        "the depth of another namespace",
        lambda m: m.of("ScaledObject")[0]["metadata"].update(namespace="mail"),
        "asks about",
    ),
    (
        "an alert on a label that is not there",
        lambda m: alert(m).update(expr='emailer_queue_jobs{status="queued"}'),
        "no label status",
    ),
    ("an alert that nobody explains", lambda m: alert(m).update(alert="EmailerOther"), "does not explain"),
    # The schemas.
    ("a field that Kubernetes does not know", lambda m: box(api(m)).update(readynessProbe={}), "schema"),
    ("a number where a text belongs", lambda m: config(m, "emailer-api").update(EMAIL_SERVER_PORT=8080), "schema"),
    ("a field that KEDA does not know", lambda m: m.of("ScaledObject")[0]["spec"].update(minReplicas=1), "schema"),
    # The programs.
    (
        "a setting that was renamed",
        lambda m: rename(config(m, "emailer-worker"), "EMAIL_MAX_WORKERS", "EMAIL_WORKERS"),
        "EMAIL_WORKERS is not a setting",
    ),
    (
        "a value that is not allowed",
        lambda m: config(m, "emailer-api").update(EMAIL_SHUTDOWN_TIMEOUT="0s"),
        "programs: emailer-api: EMAIL_SHUTDOWN_TIMEOUT",
    ),
    (
        "no keys for an API that can be reached",
        lambda m: without(box(api(m))["env"], "EMAIL_API_KEYS_FILE"),
        "API_KEYS is expected",
    ),
    (
        "a login without its password",
        lambda m: without(box(worker(m))["env"], "EMAIL_SMTP_PASS_FILE"),
        "is set without SMTP_PASS",
    ),
]
