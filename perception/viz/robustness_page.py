"""Robustness as a radar chart, and as one HTML page that needs nothing else."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from perception.evaluation.published import DATA, RIVALS, SOURCE
from perception.evaluation.robustness_report import Fault, Robustness
from perception.evaluation.variants import ALWAYS
from perception.files.text import html_text
from perception.files.writing import image_bytes, write_text
from perception.metrics.robustness import retained_share
from perception.sensors.faults import SEVERITIES
from perception.viz.html_tables import cell, percent, share, table
from perception.viz.radar import Image, radar
from perception.viz.robustness_space import draw_space_radar, space_section

_STYLE = Path(__file__).with_name("page.css")

SCENARIOS = {
    "mean_subsets": "mean over subsets",
    "min_subsets": "least subset",
    "emm": "EMM p =",
    "rmm": "RMM r =",
    "nm": "NM",
}
"""What the scenarios are called in tables, by their names in JSON."""

_EXPLAINED = (
    "EMM: expected when each sensor is missing with probability p, given that one is left. "
    "RMM: mean over all sets of intact sensors when the others lack a share r of their data. "
    "NM: all sensors noisy at once, severities 1, 3 and 5 of their kinds. "
    "A fault of one sensor: the others are in order."
)


def label(run: Robustness, runs: Sequence[Robustness]) -> str:
    """What tells a run from the others: its bundle, its method, or both."""
    parts = [run.bundle] if len({r.bundle for r in runs}) > 1 or len(runs) == 1 else []
    if len({(r.bundle, r.version) for r in runs}) > len({r.bundle for r in runs}):
        parts = [f"{run.bundle} {run.version}"]
    parts += [run.method] if len({r.method for r in runs}) > 1 else []
    return ", ".join(parts) or run.bundle


def labels(runs: Sequence[Robustness]) -> list[str]:
    """`label` of each, numbered where that tells nothing apart."""
    found = [label(run, runs) for run in runs]
    if len(set(found)) < len(found):
        found = [f"{name} ({number})" for number, name in enumerate(found, 1)]
    return found


def told_apart(rows: Sequence[Fault | None], names: Sequence[str]) -> list[tuple[str, Fault]]:
    """A fault's rows by name of the run; one called `all` where they say the same."""
    found = [(name, row) for name, row in zip(names, rows, strict=True) if row is not None]
    alike = len(found) == len(names) > 1 and all(row == found[0][1] for _, row in found)
    return [("all", found[0][1])] if alike else found


def scenario_rows(run: Robustness, score: str) -> dict[str, float | None]:
    """By title, a score in each scenario; those that were not measured are not there."""
    mean, least = run.of_subsets(score)
    rows: dict[str, float | None] = {
        "clean, all sensors": run.clean_full(score),
        SCENARIOS["mean_subsets"]: mean,
        SCENARIOS["min_subsets"]: least,
    }
    for key, found in (("emm", run.emm(score)), ("rmm", run.rmm(score)), ("nm", run.nm(score))):
        rows |= {f"{SCENARIOS[key]} {name}": value for name, value in found.items()}
    return rows


def draw_radar(runs: Sequence[Robustness], score: str) -> Image | None:
    """What is left of the clean score: the hardest of each scenario, then every fault by its mean.

    Returns:
        (H, W, 3) uint8 RGB; None where there are fewer than three axes.
    """
    columns = [_shares(run, score) for run in runs]
    axes = list(dict.fromkeys(name for column in columns for name in column))
    if len(axes) < 3:
        return None
    first = runs[0]
    title = f"{first.titles.get(score, score)} that is left, {first.data}"
    series = {n: [c.get(axis) for axis in axes] for n, c in zip(labels(runs), columns, strict=True)}
    note = "100 %: all sensors in order; faults are means over their severities"
    return radar(title, axes, series, note + (" (simulated data)" if first.simulated else ""))


def _shares(run: Robustness, score: str) -> dict[str, float | None]:
    clean = run.clean_full(score)
    rows = scenario_rows(run, score)
    kept: dict[str, float | None] = {}
    for title in SCENARIOS.values():
        own = {name: value for name, value in rows.items() if name.startswith(title)}
        if own:
            hardest = list(own)[-1]
            kept[hardest] = retained_share(own[hardest], clean)
    for sensor, faults in run.faults(score).items():
        kept |= {f"{sensor} {fault}": found.retained for fault, found in faults.items()}
    return kept


def write_robustness_page(runs: Sequence[Robustness], path: Path, command: str) -> None:
    """Write the page.

    Args:
        runs: on the same recording; the first is what the page is about.
        path: the HTML file.
        command: the line that made it.
    """
    first = runs[0]
    scores = list(dict.fromkeys(score for run in runs for score in run.titles))
    body = _header(runs)
    if first.simulated:
        notice = "The recording is simulated: the numbers show the mechanism, not the field."
        body += f"<p class='notice'>{notice}</p>"
    in_space = _in_space(runs)
    if in_space:
        body += _section("Failures of sensors, in percent", space_section(in_space))
    tried = [run for run in runs if run.plan.scenarios]
    for score in scores if tried else ():
        body += _of_score([run for run in tried if score in run.titles], score)
    if tried:
        body += _section("Published, on other data", _rivals(tried, scores))
    body += _section("How this was made", _facts(runs, command))
    title = html_text(f"Robustness of {', '.join(dict.fromkeys(r.bundle for r in runs))}")
    write_text(
        path,
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{title}</title><style>{_STYLE.read_text('utf-8')}</style></head>"
        f"<body><main>{body}</main></body></html>",
    )


def _in_space(runs: Sequence[Robustness]) -> list[tuple[str, Robustness]]:
    """The runs that have the table of boxes in space, with what tells them apart."""
    return [(n, run) for n, run in zip(labels(runs), runs, strict=True) if run.plan.space]


def draw_picture(runs: Sequence[Robustness]) -> Image | None:
    """The radar chart of the first judged score, of the table of boxes in space where there is one."""
    in_space, score = _in_space(runs), next(iter(runs[0].titles))
    if in_space:
        return draw_space_radar(in_space)
    return draw_radar([run for run in runs if score in run.titles], score)


def _section(title: str, body: str) -> str:
    return f"<section><h2>{html_text(title)}</h2>{body}</section>"


def _header(runs: Sequence[Robustness]) -> str:
    first = runs[0]
    names = " and ".join(dict.fromkeys(run.bundle for run in runs))
    what = "sensors that are missing, see less, are turned or late"
    if any(run.plan.scenarios for run in runs):
        what = "every set of sensors, data that are missing or noisy, and every fault of one sensor at a time"
    return (
        "<header><p class='brand'>AnySense</p>"
        f"<h1>When the sensors of {html_text(names)} fail</h1>"
        f"<p class='lead'>{first.frames} frames of <b>{html_text(first.data)}</b> with "
        f"{html_text(', '.join(first.plan.sensors))}: {what}.</p></header>"
    )


def _of_score(runs: Sequence[Robustness], score: str) -> str:
    first, title = runs[0], runs[0].titles[score]
    parts = [_tiles(first, score)]
    picture = draw_radar(runs, score)
    if picture is not None:
        content = base64.b64encode(image_bytes(picture, ".png")).decode()
        alt = html_text(f"radar chart of {title}")
        parts.append(f"<figure><img alt='{alt}' src='data:image/png;base64,{content}'></figure>")
    scenarios = [scenario_rows(run, score) for run in runs]
    parts.append(f"<h3>Scenarios</h3>{_columns('', runs, scenarios, score)}")
    parts.append(f"<p class='note'>{html_text(_EXPLAINED)}</p>")
    parts.append(
        f"<h3>Sets of sensors</h3>{_columns('', runs, [r.subsets(score) for r in runs], score)}"
    )
    parts.append(f"<h3>Faults of one sensor</h3>{_faults(runs, score)}")
    return _section(f"{title}, in percent", "".join(parts))


def _tiles(run: Robustness, score: str) -> str:
    kept, (mean, least) = run.retained(score), run.of_subsets(score)
    tiles = [(percent(run.clean_full(score)), "all sensors in order")]
    tiles.append((percent(mean), f"mean over subsets, {share(kept['mean_subsets'])} of it"))
    tiles.append((percent(least), f"least subset, {share(kept['min_subsets'])} of it"))
    tiles.append((share(kept["corruptions"]), "left under faults of one sensor, on average"))
    worst = _worst(run, score)
    if worst is not None:
        tiles.append((share(worst[1]), f"left under the worst of them: {worst[0]}"))
    cells = "".join(
        f"<div class='tile'><b>{a}</b><span>{html_text(b)}</span></div>" for a, b in tiles
    )
    return f"<div class='tiles'>{cells}</div>"


def _worst(run: Robustness, score: str) -> tuple[str, float] | None:
    found = [
        (f"{sensor} {fault}", own.retained)
        for sensor, faults in run.faults(score).items()
        for fault, own in faults.items()
        if own.retained is not None
    ]
    return min(found, key=lambda entry: entry[1], default=None)


def _columns(
    corner: str,
    runs: Sequence[Robustness],
    columns: Sequence[Mapping[str, float | None]],
    score: str,
) -> str:
    """One row for each name, and of each run the score and what it is of the clean one."""
    head = [corner]
    for name in labels(runs):
        head += [name, "of clean"]
    rows = []
    for name in dict.fromkeys(key for column in columns for key in column):
        cells = f"<th>{html_text(name)}</th>"
        for run, column in zip(runs, columns, strict=True):
            left = retained_share(column.get(name), run.clean_full(score))
            cells += cell(column.get(name), left) + f"<td>{share(left)}</td>"
        rows.append(f"<tr>{cells}</tr>")
    return table(head, rows)


def _faults(runs: Sequence[Robustness], score: str) -> str:
    several, parts, names = len(runs) > 1, [], labels(runs)
    found = [run.faults(score) for run in runs]
    severities = [s for s in map(str, SEVERITIES) if any(map(_levels_of(s), found))]
    for sensor in dict.fromkeys(sensor for own in found for sensor in own):
        left = [percent(run.without(score, sensor)) for run in runs]
        told = zip(left, names, strict=True)
        without = left[0] if len(set(left)) == 1 else ", ".join(f"{v} ({n})" for v, n in told)
        head = ["fault", *(["run"] if several else []), *severities, "mean", "of clean"]
        rows = []
        for fault in dict.fromkeys(f for own in found for f in own.get(sensor, {})):
            own_rows = [own.get(sensor, {}).get(fault) for own in found]
            for name, row in told_apart(own_rows, names):
                tag = f"<td>{html_text(name)}</td>" if several else ""
                rows.append(_fault_row(fault, tag, row, runs[0].clean_full(score), severities))
        note = f"<p class='note'>Without {html_text(sensor)} at all: {html_text(without)}</p>"
        parts.append(f"<h4>{html_text(sensor)}</h4>{note}{table(head, rows)}")
    return "".join(parts)


def _levels_of(severity: str) -> Callable[[Mapping[str, Mapping[str, Fault]]], bool]:
    return lambda found: any(severity in f.levels for own in found.values() for f in own.values())


def _fault_row(
    fault: str, tag: str, row: Fault, clean: float | None, severities: Sequence[str]
) -> str:
    if ALWAYS in row.levels and severities:
        value = row.levels[ALWAYS]
        cells = cell(value, row.retained).replace("<td", f"<td colspan='{len(severities)}'", 1)
    else:
        values = [row.levels.get(s) for s in severities]
        cells = "".join(cell(v, retained_share(v, clean)) for v in values)
    mean = f"<td>{percent(row.mean)}</td><td>{share(row.retained)}</td>"
    return f"<tr><th>{html_text(fault)}</th>{tag}{cells}{mean}</tr>"


def _rivals(runs: Sequence[Robustness], scores: Sequence[str]) -> str:
    head = [
        "",
        "score",
        "data",
        "clean",
        "mean of subsets",
        "of clean",
        "EMM p = 0.05",
        "0.1",
        "0.2",
    ]
    head += ["RMM r = 0.5", "NM low", "mid", "high"]
    rows = []
    for score in scores:
        for run, name in zip(runs, labels(runs), strict=True):
            if score not in run.titles:
                continue
            mean, clean = run.of_subsets(score)[0], run.clean_full(score)
            numbers = (clean, mean, run.emm(score), run.rmm(score), run.nm(score))
            rows.append(_rival_row(name, run.titles[score], run.data, numbers, "ours"))
    for rival in RIVALS:
        figures = (rival.clean_full, rival.mean_subsets, rival.emm, rival.rmm, rival.nm)
        rows.append(_rival_row(rival.name, "mIoU", DATA, figures, "other"))
    note = (
        f"Published: {SOURCE}, on DELIVER with color, depth, events and LiDAR. Their data, sensors and "
        "training are others: only what share of its own clean score a model keeps can be held beside ours, "
        "and with four sensors there are more ways to lose most of them. Their noise is theirs; the clean "
        "score follows from their means and expectations."
    )
    return table(head, rows) + f"<p class='note'>{html_text(note)}</p>"


_Numbers = tuple[
    float | None,
    float | None,
    Mapping[str, float | None] | Mapping[str, float],
    Mapping[str, float | None] | Mapping[str, float],
    Mapping[str, float | None] | Mapping[str, float],
]


def _rival_row(name: str, title: str, data: str, numbers: _Numbers, css: str) -> str:
    clean, mean, emm, rmm, nm = numbers
    cells = [percent(clean), percent(mean), share(retained_share(mean, clean))]
    cells += [percent(emm.get(p)) for p in ("0.05", "0.1", "0.2")]
    cells += [percent(rmm.get("0.5")), *(percent(nm.get(n)) for n in ("low", "mid", "high"))]
    text = "".join(f"<td>{html_text(t)}</td>" for t in (title, data, *cells))
    return f"<tr class='{css}'><th>{html_text(name)}</th>{text}</tr>"


def _facts(runs: Sequence[Robustness], command: str) -> str:
    first = runs[0]
    facts = [("Command", command), ("Data", f"{first.data}, {first.frames} frames")]
    for run, name in zip(runs, labels(runs), strict=True):
        about = f"{run.bundle} {run.version} on {run.backend}, method {run.method}"
        facts.append((f"Run {name}", about))
        if run.lacking:
            facts.append(("Classes it does not know", ", ".join(run.lacking)))
    facts.append(("Seed", str(first.seed)))
    for why in dict.fromkeys(first.plan.lacking.values()):
        what = ", ".join(w for w, reason in first.plan.lacking.items() if reason == why)
        facts.append(("Not measured", f"{what}: {why}"))
    rows = "".join(f"<tr><th>{html_text(k)}</th><td>{html_text(v)}</td></tr>" for k, v in facts)
    return f"<div class='scroll'><table class='facts'>{rows}</table></div>"
