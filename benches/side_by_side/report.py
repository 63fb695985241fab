"""Rows, goals and the table."""

import dataclasses
import statistics

REFERENCE, OURS = "docker-registry", "ours"
UNSTEADY = 0.2  # a spread of more than this part of the median is marked


@dataclasses.dataclass
class Goal:
    """`at_least` and `at_most` bound ours; `ratio_...` bound ours / reference. All that are given have to hold."""

    text: str
    ratio_at_least: float | None = None
    ratio_at_most: float | None = None
    at_most: float | None = None
    at_least: float | None = None

    def reached(self, ours: float, reference: float | None) -> bool | None:
        verdicts = []
        if self.at_most is not None:
            verdicts.append(ours <= self.at_most)
        if self.at_least is not None:
            verdicts.append(ours >= self.at_least)
        if self.ratio_at_least is not None or self.ratio_at_most is not None:
            if not reference:
                return None
            if self.ratio_at_least is not None:
                verdicts.append(ours / reference >= self.ratio_at_least)
            if self.ratio_at_most is not None:
                verdicts.append(ours / reference <= self.ratio_at_most)
        return all(verdicts)


@dataclasses.dataclass
class Row:
    subject: str
    figure: str
    unit: str
    samples: dict[str, list[float]]
    goal: Goal | None = None
    full_scale: bool = True
    failed: dict[str, str] = dataclasses.field(default_factory=dict)

    def value(self, seat: str) -> float | None:
        samples = self.samples.get(seat)
        return statistics.median(samples) if samples and seat not in self.failed else None

    def unsteady(self, seat: str) -> bool:
        samples = self.samples[seat]
        middle = statistics.median(samples)
        # Whole small numbers (ticks of 10 ms, milliseconds, counts) differ by one at every turn.
        return len(samples) > 1 and middle > 0.1 and (max(samples) - min(samples)) / middle > UNSTEADY

    def cell(self, seat: str) -> str:
        if seat in self.failed:
            return "failed"
        value = self.value(seat)
        if value is None:
            return "–"
        text = f"{value:,.0f}" if isinstance(value, int) else number(value)
        return f"{text}{' ~' if self.unsteady(seat) else ''}"

    def verdict(self) -> str:
        ours = self.value(OURS)
        if self.goal is None or ours is None:
            return ""
        reached = self.goal.reached(ours, self.value(REFERENCE))
        if reached is None:
            return ""
        word = "yes" if reached else "**no**"
        return word if self.full_scale else f"({word})"

    def json(self) -> dict:
        return {
            "subject": self.subject, "figure": self.figure, "unit": self.unit, "samples": self.samples, "failed": self.failed,
            "medians": {seat: self.value(seat) for seat in self.samples},
            "goal": self.goal.text if self.goal else None, "reached": self.verdict() or None,
        }


def number(value: float) -> str:
    if value == 0:
        return "0"
    if value >= 100:
        return f"{value:,.0f}"
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def table(rows: list[Row]) -> str:
    lines = [f"| | | {REFERENCE} | ours | ours / {REFERENCE} | goal | reached |", "| --- | --- | ---: | ---: | ---: | --- | --- |"]
    subject = None
    for row in rows:
        ours, reference = row.value(OURS), row.value(REFERENCE)
        ratio = f"{number(ours / reference)}x" if ours is not None and reference else ""
        lines.append(" | ".join([
            f"| {row.subject if row.subject != subject else ''}", f"{row.figure}, {row.unit}" if row.unit else row.figure,
            row.cell(REFERENCE), row.cell(OURS), ratio, row.goal.text if row.goal else "", f"{row.verdict()} |",
        ]))
        subject = row.subject
    return "\n".join(lines)
