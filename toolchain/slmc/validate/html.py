"""The report as one page: `report.html`, with nothing loaded from elsewhere.

Texts come from data that we did not write: the template escapes everything that is not a plot of ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import jinja2

from slmc.quant.survival import TensorChange
from slmc.validate import words
from slmc.validate.plots import Bar, Curve, Dot, curves, intervals, layers, risks
from slmc.validate.report import Answers, Flip, Report, RungName
from slmc.validate.statistics import Z

TEMPLATE = Path(__file__).with_name("report.html.j2")
MOST_FLIPS = 300
"""Rows of the table of flipped items; the report.json has them all."""
MOST_LABELS = 15
MOST_MATRICES = 10


def write_page(report: Report, path: Path) -> None:
    path.write_text(render(report), encoding="utf-8")


def render(report: Report) -> str:
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.globals.update(words=words)
    ran = [(rung.name, rung.answers) for rung in report.rungs if rung.answers is not None]
    changes = next((rung.adapter.tensors for rung in report.rungs if rung.adapter is not None), ())
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        report=report,
        ran=ran,
        accuracy_plot=_accuracy_plot(ran),
        divergence_plot=_divergence_plot(ran),
        speed_plot=_speed_plot(ran),
        slope_plot=_slope_plot(changes),
        correlation_plot=_correlation_plot(changes),
        drowned=sorted(changes, key=lambda change: change.correlation)[:MOST_MATRICES],
        risk_plot=_risk_plot(ran),
        labels=_worst_labels(ran),
        fields=_field_rows(ran),
        flips=_worst_first(report.flips)[:MOST_FLIPS],
    )


def _accuracy_plot(ran: list[tuple[RungName, Answers]]) -> str:
    bars = [
        Bar(
            name,
            answers.accuracy.interval.low,
            answers.accuracy.share,
            answers.accuracy.interval.high,
            words.percent(answers.accuracy.share),
        )
        for name, answers in ran
    ]
    return intervals(bars)


def _divergence_plot(ran: list[tuple[RungName, Answers]]) -> str | None:
    found = [
        Curve(name, answers.against_reference.divergence.quantiles)
        for name, answers in ran
        if answers.against_reference is not None and answers.against_reference.divergence is not None
    ]
    return curves(found, "nats", first=1) if found else None


def _speed_plot(ran: list[tuple[RungName, Answers]]) -> str:
    return curves([Curve(name, answers.speed.decision_ms) for name, answers in ran], "ms")


def _slope_plot(changes: Sequence[TensorChange]) -> str | None:
    dots = [_dot(one, one.coefficient, Z * one.error) for one in changes]
    return layers(dots, "how much of the adapter's change arrives in each matrix") if dots else None


def _correlation_plot(changes: Sequence[TensorChange]) -> str | None:
    dots = [_dot(one, one.correlation, 0.0) for one in changes]
    return layers(dots, "correlation of what arrives with the change in each matrix") if dots else None


def _dot(change: TensorChange, value: float, half: float) -> Dot:
    kinds = {".self_attn.": "attention", ".mlp.": "MLP"}
    kind = next((kind for part, kind in kinds.items() if part in change.name), "embedding")
    return Dot(f"{change.name}: {words.percent(value)}", kind, change.layer, value - half, value, value + half)


def _risk_plot(ran: list[tuple[RungName, Answers]]) -> str | None:
    found = [Curve(name, answers.confidence.risk) for name, answers in ran if answers.confidence is not None]
    return risks(found) if found else None


def _worst_labels(ran: list[tuple[RungName, Answers]]) -> list[tuple[str, int, list[int]]]:
    """Label, items, right answers by rung: the labels that lost most first, then those with most wrong answers."""
    rows = [
        (first.label, first.total, [answers.labels[index].right for _, answers in ran])
        for index, first in enumerate(ran[0][1].labels)
    ]
    rows.sort(key=lambda row: (row[2][-1] - row[2][0], row[2][-1] - row[1]))
    return rows[:MOST_LABELS]


def _field_rows(ran: list[tuple[RungName, Answers]]) -> list[tuple[str, list[float]]]:
    """Field and its F1 by rung."""
    names = sorted({score.field for _, answers in ran for score in answers.fields})
    by_rung = [{score.field: score.f1 for score in answers.fields} for _, answers in ran]
    return [(name, [scores.get(name, 1.0) for scores in by_rung]) for name in names]


def _worst_first(flips: tuple[Flip, ...]) -> list[Flip]:
    order = {"lost": 0, "won": 1, "other": 2}
    return sorted(flips, key=lambda flip: order[flip.kind])
