"""The parts that measure nothing: python3 -B -m unittest discover -s scripts/lab/bench -t scripts/lab"""

import json
import pathlib
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree

from . import figures, readme, stages, subjects
from .plot import PANEL, svg
from .run import Run, SeveralRuns
from .tables import markdown

ROOT = pathlib.Path(__file__).resolve().parents[3]
BENCH = ROOT / "scripts/bench"
LABEL_SLACK = 30  # most letters are narrower
SUBJECTS = {"floor": ("floor", False), "memory": ("Emailer, memory queue", False),
            "redis": ("Emailer, Redis queue", False), "other": ("Some <peer> & its mailer, of a long name", True)}


def head(run="1-1"):
    return {"run": run, "command": "scripts/bench --peers peers", "versions": {"Redis": "7.0", "other": {"lib": "1.2"}},
            "machine": {"at": "2026-11-24T10:00:00Z", "cpus": 2, "model": "a processor", "memory_gib": 23,
                        "kernel": "6.1", "commit": "abc"},
            "subjects": {name: {"title": title, "peer": peer} for name, (title, peer) in SUBJECTS.items()}}


def line(subject, figure, value, run="1-1", **more):
    return {"run": run, "round": 1, "subject": subject, "figure": figure, "value": value, **more}


def whole_run(run="1-1"):
    lines = [head(run)]
    for subject, factor in (("memory", 3), ("redis", 2), ("other", 1)):
        for values in ((10, 12, 11), ):
            for value in values:
                lines += [line(subject, figure, value * factor, run)
                          for figure in ("accept", "drain", "both", "both_cpu_api", "both_cpu_worker", "both_cpu_redis",
                                         "both_cpu_all", "latency_p50_ms", "latency_p99_ms", "api_mib", "wire_20")]
    for value in (99, 100, 101):
        lines += [line("floor", figure, value, run) for figure in ("floor_http", "floor_smtp_sink")]
    lines += [line("redis", figure, value, run) for figure, value in
              (("steal_pct", 1.0), ("others_pct", 2.0), ("load_before", 0.5))]
    for queued in (1000, 1_000_000):
        lines += [line("redis", "growth_drain_worker_us", 50, run, queued=queued, workers=4),
                  line("redis", "growth_drain", 9000, run, queued=queued, workers=4),
                  line("redis", "growth_bytes", 800, run, queued=queued, workers=0)]
    return lines


class Figures(unittest.TestCase):
    def test_a_cell_is_the_median_with_the_least_and_the_most(self):
        run = Run(whole_run())
        self.assertEqual(run.cell("other", "accept"), "11 (10–12)")
        self.assertEqual(run.cell("other", "nothing"), "–")
        self.assertEqual(run.best_peer("accept", True), (11, "other"))

    def test_a_quantile_is_by_nearest_rank(self):
        self.assertEqual(stages.quantile(range(1, 201), 500), 100)
        self.assertEqual(stages.quantile(range(1, 201), 990), 198)
        self.assertEqual(stages.quantile([7], 990), 7)

    def test_the_first_mail_of_each_connection_opens_the_interval(self):
        counts = {"messages": 204, "first_ns": 0, "last_ns": 2_000_000_000}
        self.assertEqual(stages.rate(counts, 4), 100)

    def test_cpu_time_is_a_thousand_mails_share(self):
        self.assertEqual(stages.per_thousand({"api": 1, "redis": 5}, {"api": 3, "redis": 6}, 500, "api", "redis"), 6)
        self.assertEqual(stages.per_thousand({}, {"worker": 2}, 1000, "worker", "redis"), 2)


class OneRun(unittest.TestCase):
    def test_lines_of_two_runs_are_refused(self):
        with self.assertRaises(SeveralRuns):
            Run(whole_run("1-1") + whole_run("2-2"))

    def test_one_of_several_runs_can_be_chosen(self):
        self.assertEqual(len(Run(whole_run("1-1") + whole_run("2-2"), "2-2").of("redis", "accept")), 3)
        with self.assertRaises(SeveralRuns):
            Run(whole_run("1-1"), "3-3")

    def test_the_program_prints_no_ratio_across_files_of_two_runs(self):
        with tempfile.TemporaryDirectory() as folder:
            files = []
            for run in ("1-1", "2-2"):
                files.append(pathlib.Path(folder, run))
                files[-1].write_text("\n".join(map(json.dumps, whole_run(run))))
            for option in ("--table", "--readme"):
                out = subprocess.run([sys.executable, BENCH, option, *files], capture_output=True, text=True)
                self.assertEqual((out.returncode, out.stdout), (1, ""))
                self.assertIn("2 runs (1-1, 2-2)", out.stderr)
            out = subprocess.run([sys.executable, BENCH, "--table", files[0]], capture_output=True, text=True)
            self.assertIn("best peer", out.stdout)


class Shown(unittest.TestCase):
    def test_the_tables_are_whole(self):
        text = markdown(Run(whole_run()))
        self.assertIn("| accept, requests/s: % of HTTP route that only parses | 33 | 22 |", text)
        self.assertIn("× Some <peer> & its mailer, of a long name, the best peer | 3.00 | 2.00 |", text)
        self.assertIn("| drain over 20 ms, mails/s per connection: % of one mail a round trip | 66 | 44 |", text)
        self.assertIn("| 1,000,000 queued, 4 workers | 9,000 | 50.0 |", text)
        self.assertIn("Quiet. Medians: 1.0 % of the CPU time went to other machines", text)
        for block in text.split("\n\n"):
            cells = {row.count(" | ") + row.count("--:") for row in block.splitlines() if row.startswith("|")}
            self.assertLessEqual(len(cells), 1, block)

    def test_a_noisy_machine_is_called_so(self):
        self.assertIn("Noisy", markdown(Run(whole_run() + [line("memory", "others_pct", 50.0)] * 3)))

    def test_the_picture_is_well_formed_and_within_its_frame(self):
        root = xml.etree.ElementTree.fromstring(svg(Run(whole_run())))
        width, height = float(root.get("width")), float(root.get("height"))
        name = "{http://www.w3.org/2000/svg}"
        bars = 0
        for group in root.iter(name + "g"):
            x, y = map(float, group.get("transform")[len("translate("):-1].split())
            for rect in group.iter(name + "rect"):
                bars += 1
                self.assertLessEqual(x + float(rect.get("x")) + float(rect.get("width")), width)
                self.assertLessEqual(y + float(rect.get("y")) + float(rect.get("height")), height)
            for text in group.iter(name + "text"):  # a letter is at most some 7.2 wide
                long = 7.2 * len(text.text)
                left = float(text.get("x")) - (long if text.get("text-anchor") == "end" else 0)
                self.assertGreater(left, -LABEL_SLACK, text.text)
                self.assertLessEqual(left + long, PANEL, text.text)
        self.assertGreater(bars, 30)
        self.assertNotIn("<peer>", svg(Run(whole_run())))

    def test_a_run_with_a_single_subject_can_be_shown(self):
        run = Run([head(), line("redis", "accept", 5)])
        self.assertIn("| accept, requests/s | 5 |", markdown(run))
        xml.etree.ElementTree.fromstring(svg(run))
        xml.etree.ElementTree.fromstring(svg(Run([head()])))


class Readme(unittest.TestCase):
    def test_both_languages_have_the_same_lines_and_columns(self):
        english, chinese = (readme.section(Run(whole_run()), language) for language in (0, 1))
        self.assertEqual(len(english.splitlines()), len(chinese.splitlines()))
        for one, other in zip(english.splitlines(), chinese.splitlines()):
            self.assertEqual(one.count("|"), other.count("|"))
            self.assertEqual(one.split("`")[1::2], other.split("`")[1::2])

    def test_a_noisy_run_says_so(self):
        for more, words in (([], ("The machine was quiet", "机器安静")),
                            ([line("floor", "floor_http", 1.0)], ("The machine was noisy", "机器不安静"))):
            for language in (0, 1):
                self.assertIn(words[language], readme.section(Run(whole_run() + more), language))

    def test_the_place_is_filled_again_and_again(self):
        text = f"before\n{readme.BEGIN}\nold\n{readme.END}\nbehind\n"
        once = readme.filled(text, "new")
        self.assertEqual(once, f"before\n{readme.BEGIN}\nnew\n{readme.END}\nbehind\n")
        self.assertEqual(readme.filled(once, "new"), once)
        with self.assertRaises(readme.Unfit):
            readme.filled("no mark", "new")

    def test_both_files_have_the_place(self):
        for name in ("README.md", "README.zh-CN.md"):
            readme.filled((ROOT / name).read_text(), "new")


class Subjects(unittest.TestCase):
    def test_a_peer_is_what_its_description_says(self):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            root.joinpath("some").mkdir()
            root.joinpath("some/Cargo.toml").write_text('[package]\nname = "some"\n\n[dependencies]\nlib = "1"\n')
            root.joinpath("some/Cargo.lock").write_text('[[package]]\nname = "lib"\nversion = "1.4.2"\n')
            root.joinpath("peers.json").write_text(json.dumps({"some": {
                "cwd": "some", "needs": "Cargo.lock", "api": ["serve", "--port", "{api_port}", "{unknown}"],
                "worker": ["work"], "env": {"SMTP_MAX_CONNECTIONS": "8"}}, "mta": {"protocol": "smtp", "api": ["mta"]}}))
            found = subjects.peers(root)
            self.assertEqual(subjects.versions([found["some"]])["some"], {"lib": "1.4.2"})
            self.assertTrue(found["some"].installed)
        fill = {"api_port": 1, "smtp_port": 2, "redis_port": 3, "workers": 4, "connections": 4}
        environment = found["some"].environment(fill)
        self.assertEqual(environment["REDIS_URL"], "redis://127.0.0.1:3")
        self.assertEqual(environment["SMTP_MAX_CONNECTIONS"], "2")  # of two processes with 8 of 16 each
        self.assertEqual(subjects.filled(found["some"].api[3], fill), "{unknown}")
        self.assertFalse(found["mta"].redis or found["mta"].can_hold)

    def test_every_figure_that_is_shown_has_a_title(self):
        shown = (*figures.BETTER_MORE, *figures.BETTER_LESS, *figures.FLOOR_OF, *figures.FLOOR_OF.values())
        self.assertEqual([name for name in shown if name not in figures.FIGURES], [])


if __name__ == "__main__":
    unittest.main()
