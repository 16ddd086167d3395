"""A run in Markdown."""

from . import figures
from .run import NOISE, cell


def markdown(run):
    parts = [about(run), ratios(run), whole(run), floor(run), growth(run), noise(run), failures(run)]
    return "\n\n".join(part for part in parts if part)


def rows(head, lines):
    return "\n".join(["| " + " | ".join(head) + " |", "|---|" + "--:|" * (len(head) - 1),
                      *("| " + " | ".join(line) + " |" for line in lines)])


def about(run):
    machine, lines = run.about.get("machine"), []
    if machine:
        lines.append(f"{machine['at']}, {machine['cpus']} cores ({machine['model']}), {machine['memory_gib']} GiB, Linux "
                     f"{machine['kernel']}, commit {machine['commit']}: `{run.about['command']}`")
    if run.about.get("versions"):
        lines.append(f"{versions(run)}.")
    return "\n".join(lines)


def versions(run):
    def listed(version):
        return version if isinstance(version, str) else ", ".join(f"{name} {v}" for name, v in version.items())

    unique = {}
    for name, version in run.about["versions"].items():  # two subjects of one folder are told once
        unique.setdefault(listed(version), name if isinstance(version, str) else "")
    return "; ".join(f"{name} {version}".strip() for version, name in unique.items())


def ratios(run):
    """Emailer's medians beside the floor's and the best peer's, of this run."""
    ours = [subject for subject in run.subjects() if not run.is_peer(subject)]
    lines = []
    for figure in (*figures.BETTER_MORE, *figures.BETTER_LESS):
        mine = {subject: run.median(subject, figure) for subject in ours}
        for bound, what in bounds_of(run, figure) if any(mine.values()) else ():
            lines.append([f"{named(figure)}: % of {what}", *(share(mine[s], bound) for s in ours)])
        best = run.best_peer(figure, figure in figures.BETTER_MORE)
        if best and any(mine.values()):
            lines.append([f"{named(figure)}: × {run.title(best[1])}, the best peer",
                          *(f"{mine[s] / best[0]:.2f}" if mine[s] and best[0] else "–" for s in ours)])
    return rows(["ratio of medians", *map(run.title, ours)], lines) if lines else ""


def named(figure):
    """Its title where it stands alone, not below another one."""
    return figures.STANDALONE.get(figure) or figures.title(figure)


def bounds_of(run, figure):
    """(value, what it is)"""
    if figure.startswith("wire_"):
        yield 1000 / int(figure.removeprefix("wire_")), "one mail a round trip"
        if measured := run.median("floor", f"{figure}_trip_ms"):
            yield 1000 / measured, f"one mail a round trip of {measured:.1f} ms, which is what the wire took"
    name = figures.FLOOR_OF.get(figure)
    if name and (value := run.median("floor", name)):
        yield value, figures.title(name).split(",")[0]


def share(mine, bound):
    return f"{mine / bound * 100:.0f}" if mine else "–"


def whole(run):
    subjects = run.subjects()
    lines = [[figures.title(figure), *(run.cell(subject, figure) for subject in subjects)]
             for figure in in_order(run.figures()) if figure not in NOISE
             and any(run.of(subject, figure) for subject in subjects)]
    return rows(["median (min–max)", *map(run.title, subjects)], lines) if lines else ""


def floor(run):
    lines = [[figures.title(figure), run.cell("floor", figure)] for figure in in_order(run.figures())
             if run.of("floor", figure) and figure not in NOISE]
    return rows(["floor", "median (min–max)"], lines) if lines else ""


def in_order(names):
    order = list(figures.ALL)
    return sorted(names, key=lambda name: order.index(name) if name in order else len(order))


def growth(run):
    return "\n\n".join(growth_of(run, subject) for subject in dict.fromkeys(key[0] for key in run.growth))


def growth_of(run, subject):
    mine = {key[1:]: values for key, values in run.growth.items() if key[0] == subject}
    depths = sorted({key[0] for key in mine})
    parts = []
    for names, numbers in ((figures.DEPTH, {0}), (figures.GROWTH, {key[1] for key in mine if key[2] == "growth_drain"})):
        there = [name for name in names if any(key[2] == name for key in mine)]
        if not there:
            continue
        lines = []
        for workers in sorted(numbers):  # each number's depths below each other: what should stay the same
            for queued in depths:
                values = {name: mine.get((queued, workers, name), []) for name in there}
                if any(values.values()):
                    first = f"{queued:,} queued" + (f", {plural(workers)}" if workers else "")
                    lines.append([first, *(cell(name, values[name]) for name in there)])
        parts.append(rows([f"growth, {run.title(subject)}", *(names[name][0] for name in there)], lines))
    return "\n\n".join(parts)


def plural(workers):
    return f"{workers} worker" + ("s" if workers > 1 else "")


def noise(run):
    found = run.noise()
    words = {
        "steal_pct": "{:.1f} % of the CPU time went to other machines (at most {:.1f} %)",
        "others_pct": "{:.1f} % to other programs of this one (at most {:.1f} %)",
        "load_before": "load average before each subject {:.1f} (at most {:.1f})",
    }
    said = [words[name].format(*found[name]) for name in words if name in found]
    spread = [f"{figures.title(name).split(',')[0]} {value:.0f} %" for name, value in found.items() if name not in words]
    if spread:
        said.append("the floor's rounds lie apart by: " + ", ".join(spread))
    if not said:
        return ""
    verdict = "Noisy: trust CPU seconds more than rates" if run.is_noisy() else "Quiet"
    return f"{verdict}. Medians: {'; '.join(said)}."


def failures(run):
    return "\n".join(f"FAILED  {failure}" for failure in run.failures)
