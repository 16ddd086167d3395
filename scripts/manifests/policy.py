"""What must hold of rendered manifests, beyond their schemas. Pure: objects in, faults out."""

import pods
import wiring

# Of every rendering.
ALWAYS = [
    pods.restricted,
    pods.scaling,
    pods.disruptions,
    pods.ending,
    pods.probes,
    pods.settings,
    wiring.selectors,
    wiring.references,
    wiring.connections,
    wiring.isolation,
    wiring.measured,
]
# Of what can be applied as it is; the base names neither Redis nor relay.
WHOLE = [wiring.ways_out]


def faults(manifests):
    rules = ALWAYS + (WHOLE if manifests.sources["whole"] else [])
    return [f"{rule.__name__}: {fault}" for rule in rules for fault in rule(manifests)]
