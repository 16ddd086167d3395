"""A run as an SVG of its own, readable on light and on dark ground: bars of medians, with whiskers from the least to the
most of the rounds."""

import statistics
from xml.sax.saxutils import escape, quoteattr

PANEL, GAP, MARGIN = 480, 24, 20
LABEL = 192  # what is left of the bars
LETTER = 7.2  # of a value, at most
ROW, BAR, HEAD = 22, 14, 44
LETTERS = 29  # of a label, at most: at 12 px they fit into LABEL

STYLE = """
text { font: 12px system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif; fill: #1f2937 }
.ground { fill: #ffffff } .title { font-size: 14px; font-weight: 600 } .ours { font-weight: 600 }
.faint { fill: #6b7280 } .axis { stroke: #d1d5db } .whisker { stroke: #111827; stroke-width: 1.2; fill: none }
.mine { fill: #2f6fd0 } .peer { fill: #9aa5b4 } .floor { fill: #d9dee5 }
.api { fill: #2f6fd0 } .worker { fill: #e0912f } .redis { fill: #b4456f } .p50 { fill: #2f6fd0 } .p99 { fill: #e0912f }
"""
DARK = """
text { fill: #e5e7eb } .ground { fill: #12161c } .faint { fill: #9ca3af } .axis { stroke: #3b4452 }
.whisker { stroke: #f3f4f6 } .mine, .api, .p50 { fill: #5b95ec } .peer { fill: #66717f } .floor { fill: #39424e }
.worker, .p99 { fill: #e8a04c } .redis { fill: #cf6a91 }
"""


class Bar:
    """Pieces (class, median) one behind the other, and the rounds' values of the whole."""

    def __init__(self, pieces, rounds):
        self.pieces, self.low, self.high = pieces, min(rounds), max(rounds)
        self.end = sum(value for _, value in pieces)


class Row:
    def __init__(self, label, bars, text, is_ours=False):
        self.label, self.bars, self.text, self.is_ours = label, bars, text, is_ours


def svg(run):
    panels = [panel for panel in (
        rates(run, "accept", "Accept: requests answered 202 per second", "floor_http", "floor: only parses"),
        rates(run, "drain", "Drain a filled queue: mails per second", "floor_smtp_sink", "floor: smtp-source"),
        rates(run, "both", "Both at once: mails per second", None, None),
        stacked(run, "CPU seconds per 1,000 mails, both at once", "both_cpu_", "", ".3f"),
        latency(run),
        stacked(run, "Resident memory after that, MiB", "", "_mib", ",.0f"),
    ) if panel[2]]
    height, parts = MARGIN, []
    for left, right in zip(panels[::2], [*panels[1::2], None]):
        parts.append(drawn(left, MARGIN, height))
        if right:
            parts.append(drawn(right, MARGIN + PANEL + GAP, height))
        height += max(HEAD + ROW * len(panel[2]) for panel in (left, right) if panel) + GAP
    width = 2 * MARGIN + 2 * PANEL + GAP
    note = f"<text class=\"faint\" x=\"{MARGIN}\" y=\"{height}\">{escape(caption(run))}</text>"
    height += MARGIN
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            f'role="img" aria-label="Emailer beside its peers and the floor">\n'
            f"<style>{STYLE}@media (prefers-color-scheme: dark) {{{DARK}}}\n</style>\n"
            f'<rect class="ground" width="{width}" height="{height}"/>\n' + "\n".join([*parts, note]) + "\n</svg>\n")


def caption(run):
    machine = run.about.get("machine")
    told = "Medians; whiskers from the least to the most of the rounds."
    return f"{told} {machine['at'][:10]}, {machine['cpus']} cores, {machine['model']}." if machine else told


# -------------------------------------------------------------------------------------------- panels


def rates(run, figure, title, floor, floor_label):
    rows = []
    for subject in run.subjects():
        if values := run.of(subject, figure):
            middle = statistics.median(values)
            kind = "peer" if run.is_peer(subject) else "mine"
            rows.append(row(run, subject, [Bar([(kind, middle)], values)], f"{middle:,.0f}"))
    if rows and floor and (values := run.of("floor", floor)):
        middle = statistics.median(values)
        rows.append(Row(floor_label, [Bar([("floor", middle)], values)], f"{middle:,.0f}"))
    return title, [], rows


def stacked(run, title, before, behind, style):
    rows, kinds = [], []
    for subject in run.subjects():
        found = {kind: run.of(subject, f"{before}{kind}{behind}") for kind in ("api", "worker", "redis")}
        found = {kind: values for kind, values in found.items() if values}
        if found:
            sums = [sum(values) for values in zip(*found.values())]
            bar = Bar([(kind, statistics.median(values)) for kind, values in found.items()], sums)
            rows.append(row(run, subject, [bar], format(bar.end, style)))
            kinds += found
    names = {"api": "API, or all in one", "worker": "worker", "redis": "Redis"}
    return title, [(kind, names[kind]) for kind in names if kind in kinds], rows


def latency(run):
    rows = []
    for subject in run.subjects():
        values = [(kind, run.of(subject, f"latency_{kind}_ms")) for kind in ("p50", "p99")]
        if all(found for _, found in values):
            bars = [Bar([(kind, statistics.median(found))], found) for kind, found in values]
            rows.append(row(run, subject, bars, " / ".join(milliseconds(bar.end) for bar in bars)))
    return "From request to the relay's 250 at 200/s, ms", [("p50", "p50"), ("p99", "p99")], rows


def milliseconds(value):
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def row(run, subject, bars, text):
    return Row(run.title(subject), bars, text, not run.is_peer(subject))


# ------------------------------------------------------------------------------------------- drawing


def drawn(panel, x, y):
    title, legend, rows = panel
    bars = [bar for row in rows for bar in row.bars]
    # A round that went wrong must not make the bars of all others short: its whisker leaves without an end.
    most = min(max(max(bar.end, bar.high) for bar in bars), 2 * max(bar.end for bar in bars)) or 1
    parts = [f'<g transform="translate({x} {y})">', f'<text class="title" x="0" y="14">{escape(title)}</text>']
    at = 0
    for kind, name in legend:
        parts.append(f'<rect class="{kind}" x="{at}" y="23" width="10" height="10"/>'
                     f'<text class="faint" x="{at + 14}" y="32">{escape(name)}</text>')
        at += 34 + 7 * len(name)
    bottom = HEAD + ROW * len(rows)
    width = PANEL - LABEL - LETTER * max(len(row.text) for row in rows) - 8
    parts.append(f'<line class="axis" x1="{LABEL}" x2="{LABEL}" y1="{HEAD - 4}" y2="{bottom - 2}"/>')
    for number, row in enumerate(rows):
        parts.append(drawn_row(row, HEAD + ROW * number, width / most, most))
    return "\n".join([*parts, "</g>"])


def drawn_row(row, y, scale, most):
    text_y, thick = y + BAR - 3, BAR / len(row.bars)
    short = row.label if len(row.label) <= LETTERS else row.label[:LETTERS - 1] + "…"
    ours = ' class="ours"' if row.is_ours else ""
    parts = [f'<text{ours} x="{LABEL - 8}" y="{text_y}" text-anchor="end">{escape(short)}</text>']
    end = 0
    for number, bar in enumerate(row.bars):
        top, x = y + thick * number, LABEL
        for kind, value in bar.pieces:
            width = value * scale
            parts.append(f'<rect class={quoteattr(kind)} x="{x:.1f}" y="{top:.1f}" width="{max(width, 0.5):.1f}" '
                         f'height="{thick - (1 if len(row.bars) > 1 else 0):.1f}"/>')
            x += width
        if bar.high > bar.low:
            low, high, middle = LABEL + bar.low * scale, LABEL + min(bar.high, most) * scale, top + thick / 2
            closed = f"M{high:.1f} {middle - 3:.1f}v6" if bar.high <= most else ""
            parts.append(f'<path class="whisker" d="M{low:.1f} {middle:.1f}H{high:.1f}M{low:.1f} {middle - 3:.1f}v6'
                         f'{closed}"/>')
        end = max(end, x, LABEL + min(bar.high, most) * scale)
    parts.append(f'<text x="{end + 6:.1f}" y="{text_y}">{escape(row.text)}</text>')
    return "".join(parts)
