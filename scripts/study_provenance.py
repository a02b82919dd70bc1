"""A study's sections on what it rests on: the audits, contamination, hardware, time, cost and every command."""

import datetime
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from common.files import read_json
from scripts.compute_match import flatten
from scripts.report_blocks import Block, Listing, Paragraph, Table
from scripts.report_records import config_blocks, data_blocks, hardware_text
from scripts.report_wording import cell_text, seconds_text
from scripts.study_numbers import Seed
from tokenizer.mul_facts import CONDITIONS

COMMANDS = "logs/commands.txt"  # in a seed's folder: what stages.sh started


def audit_blocks(seeds: list[Seed]) -> list[Block]:
    """Each seed's audit, what differs between seeds besides the seed itself, and what equal tokens were in text."""
    rows = []
    for seed in seeds:
        found = [row["status"] for row in seed.comparison["audit"]]
        rows.append(
            [seed.folder.name, str(len(found)), *(str(found.count(s)) for s in ("ok", "may differ", "differs"))]
        )
    header = ["seed", "fields compared", "equal", "may differ and do", "forbid a verdict"]
    note = (
        "Field by field in each seed's own report.html. May differ: paths, the condition, its injection and token data."
    )
    blocks: list[Block] = [Table("baseline against mul_tokens, in each seed", header, rows, note, wide=True)]
    differing = between_seeds(seeds)
    if differing:
        header = ["field", *(seed.folder.name for seed in seeds)]
        blocks.append(Table("Settings that differ between the seeds", header, differing, wide=True))
    elif len(seeds) > 1:
        blocks.append(Paragraph("Between the seeds no setting of any stage differs but the seed and the folders."))
    return [
        *blocks,
        *(replace(b, title=f"{b.title}, {seeds[0].folder.name}") for b in data_blocks(seeds[0].comparison)),
    ]


def between_seeds(seeds: list[Seed]) -> list[list[str]]:
    """Config fields, seeds and folders left aside, in which the seeds differ: name and each seed's value."""
    rows = []
    for condition in CONDITIONS:
        runs = [seed.comparison["runs"][condition] for seed in seeds]
        for stage in runs[0]:
            if all(stage in run for run in runs):
                flat = [flatten(run[stage]["config"]) for run in runs]
                for key in dict.fromkeys(key for config in flat for key in config):
                    values = [cell_text(config.get(key)) for config in flat]
                    plain = {v.replace(s.folder.name, "") for v, s in zip(values, seeds, strict=True)}
                    if len(plain) > 1 and key.rpartition(".")[2] != "seed":
                        rows.append([f"{stage}, {condition}: {key}", *values])
    return rows


def contamination_blocks(seeds: list[Seed]) -> list[Block]:
    """The reports of data/check_contamination.py that evaluations were given, and what the data itself guarantees."""
    rows = []
    for seed in seeds:
        configs = [record["config"] for runs in seed.both.values() for record in runs.records.values()]
        for path in dict.fromkeys(config["contamination"] for config in configs if config.get("contamination")):
            if Path(path).is_file():
                parts = read_json(path)["benchmarks"]
                rows += [[seed.folder.name, b, str(p["items"]), str(len(p["flagged"]))] for b, p in parts.items()]
    blocks: list[Block] = []
    if rows:
        note = "Items of which an n-gram occurs in the training text."
        blocks.append(
            Table("Benchmark items in the training text", ["seed", "benchmark", "items", "flagged"], rows, note)
        )
    else:
        blocks.append(Paragraph("No contamination report: no evaluation was given one of data/check_contamination.py."))
    statistics = [path for seed in seeds for path in sorted(seed.folder.glob("raw/*_stats.json"))]
    made = [read_json(path) for path in statistics]
    if made and all("left_out" in stats for stats in made):
        left_out = sum(sum(stats["left_out"].values()) for stats in made)
        text = (
            "While the data was made, every document and SFT item that contains a test question, compared by words and "
            f"numbers, was left out ({left_out:,} in all)."
        )
        if all(stats["gsm8k"]["source"] == "synthetic" for stats in made):
            text += (
                " In the generated world test problems share templates, names, objects and numbers with the training "
                "problems, never all of them at once: they measure whether the scheme was learnt, not whether it "
                "carries over to new words. The times table of the probes is in the training text on purpose."
            )
        blocks.append(Paragraph(text))
    return blocks


def time_blocks(seeds: list[Seed], gpu_hour_price: float) -> list[Block]:
    """Wall time of every stage, core-hours or GPU-hours of every seed, and the machines."""
    records = {c: [seed.both[c].records for seed in seeds] for c in CONDITIONS}
    stages = [stage for stage in records["baseline"][0] if all(stage in r for side in records.values() for r in side)]
    seconds = {c: [[run[stage]["wall_seconds"] for run in side] for stage in stages] for c, side in records.items()}
    rows = [[stage, *(_range_of(seconds[c][i]) for c in CONDITIONS)] for i, stage in enumerate(stages)]
    totals = {c: [sum(of_seed) for of_seed in zip(*seconds[c], strict=True)] for c in CONDITIONS}
    rows.append(["all stages", *(_range_of(totals[c]) for c in CONDITIONS)])
    note = "Of stages that keep a run record; making and tokenizing the data, and reports, come on top."
    by_stage = Table(
        "Wall time of a stage: mean over seeds, least and most", ["stage", *CONDITIONS], rows, note, wide=True
    )
    used = [_resources(seed) for seed in seeds]
    rows = [[seed.folder.name, *_resource_cells(u, gpu_hour_price)] for seed, u in zip(seeds, used, strict=True)]
    total = {key: sum(u[key] for u in used) for key in used[0]}
    rows.append(["in all", *_resource_cells(total, gpu_hour_price)])
    note = "CPU core-hours: wall time times the threads of each stage. First to last: from the first stage's start."
    if total["gpu_seconds"]:
        note += f" Cost: ${gpu_hour_price:.2f} per GPU-hour (--price-per-gpu-hour)."
    header = ["seed", "first to last stage", "CPU core-hours", "GPU-hours", "cost"]
    by_seed = Table("Time and cost of a seed, both conditions", header, rows, note, wide=True)
    return [by_stage, by_seed, _places(seeds)]


def command_blocks(seeds: list[Seed], command: str) -> list[Block]:
    """The settings of each seed's folder, the commands that its stages ran, and the configs of the first seed."""
    blocks: list[Block] = []
    for seed in seeds:
        settings = seed.folder / "arguments.txt"
        if settings.is_file():
            blocks.append(Listing(f"Settings of {seed.folder.name}", settings.read_text(encoding="utf-8").strip()))
        if (seed.folder / COMMANDS).is_file():
            lines = dict.fromkeys((seed.folder / COMMANDS).read_text(encoding="utf-8").splitlines())
            blocks.append(Listing(f"Commands of {seed.folder.name}", "\n".join(lines)))
    return [*blocks, *config_blocks(seeds[0].comparison, command)]


def _resources(seed: Seed) -> dict[str, float]:
    """Seconds of a seed's stages in all, times threads and accelerators, and from the first start to the last end."""
    records = [record for runs in seed.both.values() for record in runs.records.values()]
    used = {"core_seconds": 0.0, "gpu_seconds": 0.0}
    for record in records:
        hardware = record.get("hardware") or {}
        used["core_seconds"] += record["wall_seconds"] * (hardware.get("threads") or 0)
        used["gpu_seconds"] += record["wall_seconds"] * (hardware.get("accelerators") or 0)
    spans = [
        (datetime.datetime.fromisoformat(record["started"]).timestamp(), record["wall_seconds"]) for record in records
    ]
    return used | {"span": max(start + wall for start, wall in spans) - min(start for start, _ in spans)}


def _resource_cells(used: dict[str, float], price: float) -> list[str]:
    hours = used["gpu_seconds"] / 3600
    gpu = [f"{hours:.2f}", f"${hours * price:,.2f}"] if hours else ["none", "not priced"]
    return [seconds_text(used["span"]), f"{used['core_seconds'] / 3600:.2f}", *gpu]


def _places(seeds: list[Seed]) -> Table:
    """Machines, commits and packages, and how many stages of which seeds ran there."""
    places: dict[tuple[str, str, str], list[str]] = {}
    for seed in seeds:
        for runs in seed.both.values():
            for record in runs.records.values():
                software = ", ".join(f"{name} {v}" for name, v in (record.get("packages") or {}).items())
                commit = record.get("git_commit") or "n/a"
                place = hardware_text(record), commit[:10] + "+" * commit.endswith("+"), software or "n/a"
                places.setdefault(place, []).append(seed.folder.name)
    rows = [[*place, f"{len(of)} of {', '.join(dict.fromkeys(of))}"] for place, of in places.items()]
    note = "A + behind a commit: there were uncommitted changes."
    return Table("Where the stages ran", ["hardware", "commit", "packages", "stages"], rows, note, wide=True)


def _range_of(seconds: list[float]) -> str:
    if len(seconds) == 1:
        return seconds_text(seconds[0])
    return f"{seconds_text(fmean(seconds))} [{seconds_text(min(seconds))} to {seconds_text(max(seconds))}]"
