"""The last run in README.md and its translation, between two marks."""

import pathlib

from . import figures
from .plot import svg
from .run import NOISE
from .stages import WIRE_CONNECTIONS
from .subjects import CONNECTIONS, WORKERS
from .tables import versions

PICTURE = pathlib.Path("scripts/lab/bench/results.svg")
BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"

WORDS = {  # name: (English, Chinese)
    "head": (("", "accept /s", "drain /s", "both at once /s", "CPU s per 1,000 mails", "latency p50 / p99 ms",
              "1,000 recipients ms", "20 ms relay, mails/s per connection", "bytes per queued job", "MiB"),
             ("", "接收 /s", "排空 /s", "同时进行 /s", "每千封 CPU 秒", "延迟 p50 / p99 ms", "1,000 个收件人 ms",
              "20 ms 远的服务器，每连接每秒封数", "每个排队任务的字节数", "MiB")),
    "floor": ("for comparison: a route that only parses; smtp-source to smtp-sink; one mail a round trip",
              "参照：只解析请求的路由；smtp-source 到 smtp-sink；每个往返一封"),
    "alt": ("The same as bars", "同样的数据，画成条形图"),
    "where": ("{date}, {cpus} cores ({model}), {memory} GiB, load and relay on the same machine: `{command}`, at commit "
              "{commit}. Medians (least–most) of {rounds} rounds of one run, in which the subjects took turns, each with "
              "`SMTP_MAX_CONNECTIONS` {connections} and `MAX_WORKERS` {workers} (over the wire {wire} and {wire}); "
              "`scripts/bench --help` says what each figure means.",
              "{date}，{cpus} 核（{model}），{memory} GiB，负载和收信端在同一台机器上：`{command}`，提交 {commit}。同一次运行中各对象轮流"
              "测量 {rounds} 轮的中位数（最小–最大），`SMTP_MAX_CONNECTIONS` 为 {connections}，`MAX_WORKERS` 为 {workers}（对远处的"
              "服务器为 {wire} 和 {wire}）；`scripts/bench --help` 说明每个数字的含义。"),
    "noise": ("{verdict}: of the CPU time, {steal:.1f} % went to other machines and {others:.1f} % to other programs "
              "(medians); the rounds of what is there for comparison lie up to {apart:.0f} % apart.",
              "{verdict}：CPU 时间中有 {steal:.1f} % 被其他虚拟机占用，{others:.1f} % 被其他程序占用（中位数）；各参照的各轮"
              "之间最多相差 {apart:.0f} %。"),
    "noisy": ("The machine was noisy, so trust CPU seconds more than rates", "机器不安静，CPU 秒数比速率更可信"),
    "quiet": ("The machine was quiet", "机器安静"),
    "versions": ("With {versions}.", "版本：{versions}。"),
}
OURS = {"memory": ("Emailer, memory queue", "Emailer，内存队列"), "redis": ("Emailer, Redis queue", "Emailer，Redis 队列")}


class Unfit(Exception):
    """The README has no place for it, or the run nothing to show."""


def fill(root, run):
    """Writes both files and the picture; the paths."""
    if not run.subjects() or "machine" not in run.about:
        raise Unfit("a whole run is needed: one that measured something, and its first line")
    written = [root / PICTURE]
    written[0].write_text(svg(run))
    for language, name in enumerate(("README.md", "README.zh-CN.md")):
        path = root / name
        path.write_text(filled(path.read_text(), section(run, language)))
        written.append(path)
    return written


def filled(text, section):
    """The text with what stands between the marks replaced."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise Unfit(f"{BEGIN} and {END} are needed, once each and in this order")
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{section}\n{END}{rest.split(END)[1]}"


def section(run, language):
    def said(name, **values):
        return WORDS[name][language].format(**values)

    head = WORDS["head"][language]
    lines = [[OURS[s][language] if s in OURS else run.title(s), *cells(run, s)] for s in run.subjects()]
    if run.of("floor", "floor_http"):
        lines.append([WORDS["floor"][language], run.cell("floor", "floor_http"), run.cell("floor", "floor_smtp_sink"),
                      *["–"] * 4, f"{1000 / (run.median('floor', 'wire_20_trip_ms') or 20):.1f}", "–", "–"])
    machine, noise = run.about["machine"], run.noise()
    rounds = max(len(values) for (_, figure), values in run.values.items() if figure not in NOISE)
    paragraph = [said("where", date=machine["at"][:10], cpus=machine["cpus"], model=machine["model"],
                      memory=machine["memory_gib"], command=run.about["command"], rounds=rounds,
                      commit=machine["commit"], connections=CONNECTIONS, workers=WORKERS, wire=WIRE_CONNECTIONS)]
    if run.about.get("versions"):
        paragraph.append(said("versions", versions=versions(run)))
    if "steal_pct" in noise and "others_pct" in noise:
        paragraph.append(said("noise", verdict=said("noisy" if run.is_noisy() else "quiet"), apart=run.floor_apart(),
                              steal=noise["steal_pct"][0], others=noise["others_pct"][0]))
    table = ["| " + " | ".join(head) + " |", "|---|" + "--:|" * (len(head) - 1),
             *("| " + " | ".join(line) + " |" for line in lines)]
    return "\n".join(["\n".join(table), "", "\n".join(paragraph), "", f"![{said('alt')}]({PICTURE})"])


def cells(run, subject):
    """One subject's line, in the order of the head."""
    def middle(figure):
        value = run.median(subject, figure)
        return "–" if value is None else figures.written(figure, value)

    def joined(*names, by):
        found = [middle(name) for name in names]
        return by.join(text for text in found if text != "–") or "–"

    return [run.cell(subject, "accept"), run.cell(subject, "drain"), run.cell(subject, "both"), middle("both_cpu_all"),
            joined("latency_p50_ms", "latency_p99_ms", by=" / "), middle("batch_ms"), middle("wire_20"),
            middle("queued_bytes"), joined("api_mib", "worker_mib", by=" + ")]
