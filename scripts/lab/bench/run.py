"""The figures of one run, and of no other: another hour is another machine. What relates figures takes a Run, so that
figures of two runs cannot meet."""

import json
import statistics

from .figures import written


class SeveralRuns(Exception):
    """Lines of more than one run; relating them would be wrong."""


class Run:
    def __init__(self, lines, wanted=None):
        ids = list(dict.fromkeys(line["run"] for line in lines))
        if wanted:
            lines = [line for line in lines if line["run"] == wanted]
            if not lines:
                raise SeveralRuns(f"there is no run {wanted}; there are {', '.join(ids) or 'none'}")
        elif len(ids) > 1:
            raise SeveralRuns(f"these are figures of {len(ids)} runs ({', '.join(ids)}), which are not set in relation: "
                              "another hour is another machine. --run ID chooses one")
        self.about, self.values, self.growth, self.failures = {}, {}, {}, []
        for line in lines:
            if "growth" in line.get("figure", ""):
                key = (line["subject"], line["queued"], line["workers"], line["figure"])
                self.growth.setdefault(key, []).append(line["value"])
            elif "figure" in line:
                self.values.setdefault((line["subject"], line["figure"]), []).append(line["value"])
            elif "failed" in line:
                self.failures.append(f"{self.title(line['subject'])}: {line['failed']}")
            else:
                self.about.update(line)

    def title(self, subject):
        return self.about.get("subjects", {}).get(subject, {}).get("title", subject)

    def subjects(self):
        """Those that were measured, without the floor, in the order of measuring."""
        return list(dict.fromkeys(subject for subject, figure in self.values
                                  if subject != "floor" and figure not in NOISE))

    def is_peer(self, subject):
        return self.about.get("subjects", {}).get(subject, {}).get("peer", False)

    def figures(self):
        return list(dict.fromkeys(figure for _, figure in self.values))

    def of(self, subject, figure):
        return self.values.get((subject, figure), [])

    def median(self, subject, figure):
        found = self.of(subject, figure)
        return statistics.median(found) if found else None

    def cell(self, subject, figure):
        return cell(figure, self.of(subject, figure))

    def best_peer(self, figure, more_is_better):
        """(median, subject)"""
        found = [(self.median(subject, figure), subject) for subject in self.subjects()
                 if self.is_peer(subject) and self.of(subject, figure)]
        return (max if more_is_better else min)(found) if found else None

    def noise(self):
        """What else the machine did, and how far apart the floor's figures are: text → value."""
        found = {}
        for figure in NOISE:
            values = [v for (_, name), several in self.values.items() if name == figure for v in several]
            if values:
                found[figure] = (statistics.median(values), max(values))
        for (subject, figure), values in self.values.items():
            if subject == "floor" and figure in ("floor_http", "floor_redis_64", "floor_smtp_sink") and len(values) > 1:
                found[figure] = (max(values) - min(values)) / statistics.median(values) * 100
        return found

    def floor_apart(self):
        """How far apart the floor's rounds lie at most, %."""
        return max((value for value in self.noise().values() if not isinstance(value, tuple)), default=0)

    def is_noisy(self):
        noise = self.noise()
        taken = sum(noise.get(figure, (0, 0))[0] for figure in ("steal_pct", "others_pct"))
        return taken > 5 or self.floor_apart() > 15


NOISE = ("steal_pct", "others_pct", "load_before")


def cell(figure, values):
    """Median (min–max)."""
    if not values:
        return "–"
    middle, low, high = (written(figure, of(values)) for of in (statistics.median, min, max))
    return middle if low == high else f"{middle} ({low}–{high})"


def read(paths):
    """The JSON lines of files."""
    return [json.loads(line) for path in paths for line in path.read_text().splitlines() if line.startswith("{")]
