"""scripts/results/paper.md: the claims with their verdicts, tables and figures, from what both scales left as JSON."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from hptune.cli.topics import TOPICS
from paper.claims import CLAIMS
from paper.evidence import Panel
from paper.figures import draw
from paper.setups import SCALES
from speed.results import table

FIGURE_ORDER = (1, 6, 4, 3, 5, 2, 7, 8)  # claims in the order of the report's figures
TEMPLATE = Path(__file__).with_name("paper.md.j2")
WIDTH = 140
FOR = {"cpu": "CPU", "gpu": "GPU"}
WORDS = {"holds": "holds", "does not hold": "**does not hold**", "not decided": "not decided"}
COUNTED = {"holds": "hold", "does not hold": "**do not hold**", "not decided": "not decided"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One claim in one setup, as the JSON of a scale has it."""

    scale: str
    number: int
    setup: str
    content: Mapping[str, Any]

    @property
    def title(self) -> str:
        return next(setup.title for setup in SCALES[self.scale] if setup.name == self.setup)

    @property
    def findings(self) -> str:
        return table([_row(finding) for finding in self.content["findings"]])

    @property
    def tables(self) -> list[tuple[str, str]]:
        return [(title, table(rows)) for title, rows in self.content["tables"].items()]

    @property
    def panels(self) -> list[Panel]:
        return [panel for data in self.content["panels"] if (panel := Panel(**data)).rows]

    def file(self, panel: Panel) -> str:
        return f"paper-{self.scale}-{self.setup}-{panel.figure}.png".replace("_", "-")

    @property
    def figures(self) -> list[dict[str, str]]:
        return [{"title": f"{panel.title}: {panel.y} by {panel.x}", "file": self.file(panel)} for panel in self.panels]

    @property
    def machine(self) -> str:
        found = self.content["machine"]
        versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items() if name in ("hptune", "torch", "numpy"))
        return f"{FOR[self.scale]}: {found['processor']}, {found['cores']} cores; {versions}; {found['date'][:10]}."

    @property
    def counted(self) -> str:
        """How many of the findings hold."""
        verdicts = [finding["verdict"] for finding in self.content["findings"]]
        return ", ".join(f"{verdicts.count(word)} {shown}" for word, shown in COUNTED.items() if word in verdicts)


def write(out: Path) -> None:
    """Write paper.md and the figures from the JSON files in `out`."""
    found = {scale: json.loads(path.read_text(encoding="utf-8")) for scale in SCALES if (path := out / f"paper-{scale}.json").is_file()}
    parts = sorted(_parts(found), key=lambda part: FIGURE_ORDER.index(part.number))
    for part in parts:
        for panel in part.panels:
            draw(panel, out / part.file(panel))
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False)
    text = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        overview=table([{"": str(p.number), "claim": CLAIMS[p.number].title, "setup": p.title, "findings": p.counted} for p in parts]),
        claims=[
            {"number": number, "title": CLAIMS[number].title, "parts": own}
            for number in FIGURE_ORDER
            if (own := [part for part in parts if part.number == number])
        ],
        follows=_what_follows(),
        missing=_missing(parts),
        machines=list(dict.fromkeys(part.machine for part in parts)),
    )
    (out / "paper.md").write_text(text.rstrip() + "\n", encoding="utf-8")


def _what_follows() -> str:
    """What `hptune explain paper` says, but for where it sends its readers: here."""
    paragraphs = TOPICS["paper"].text().split("\n\n")[1:]
    return "\n\n".join(textwrap.fill(paragraph, WIDTH, break_on_hyphens=False) for paragraph in paragraphs)


def _parts(found: Mapping[str, Any]) -> Iterator[Part]:
    for scale, held in found.items():
        for outcome in held:
            yield Part(scale=scale, number=outcome["claim"], setup=outcome["setup"], content=outcome)


def _row(finding: Mapping[str, Any]) -> dict[str, str]:
    return {
        "": finding["figure"],
        "what": finding["statement"],
        "ours": estimate(finding["ours"], finding["unit"]),
        "paper": finding["paper"],
        "wanted": finding["wanted"],
        "verdict": WORDS[finding["verdict"]],
        "note": finding["note"],
    }


def estimate(ours: Mapping[str, float], unit: str) -> str:
    """A figure with its interval and its unit; without an interval where a side of the comparison diverged."""
    low, value, high = (_number(ours[name], unit) for name in ("low", "value", "high"))
    interval = f" [{low}, {high}]" if math.isfinite(ours["low"]) and math.isfinite(ours["high"]) else ""
    return f"{value}{interval}{f' {unit}' if unit not in ('', 'share') else ''}"


def _number(value: float, unit: str) -> str:
    if unit == "points":
        return f"{value:+z.2f}"
    return f"{value:.2f}" if unit != "×" else f"{value:.3g}"


def _missing(parts: list[Part]) -> str:
    """The claims of each scale for which there is nothing."""
    done = {(part.scale, part.number, part.setup) for part in parts}
    lines = []
    for scale, setups in SCALES.items():
        for setup in setups:
            left = [str(number) for number in setup.claims if (scale, number, setup.name) not in done]
            if left:
                lines.append(f"- {FOR[scale]}: {setup.title}: claim{'s' * (len(left) > 1)} {', '.join(left)}")
    return "\n".join(lines) or "All was."
