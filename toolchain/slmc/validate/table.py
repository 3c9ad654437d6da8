"""The report on the screen."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from slmc import console
from slmc.validate import words
from slmc.validate.report import Report, RungReport
from slmc.validate.speed import Speed, Spread

COLOURS = {"pass": "green", "fail": "red", "unclear": "yellow"}


def print_report(report: Report, screen: Console) -> None:
    if report.steps:
        screen.print(_steps(report))
    screen.print(_ladder(report))
    screen.print(_checks(report))
    verdict = f"[bold {COLOURS[report.verdict]}]{words.VERDICTS[report.verdict]}[/]"
    screen.print(f"{verdict}: {escape(words.summary(report))}")
    abstention = words.abstention(report)
    if abstention:
        screen.print(abstention)
    missing = words.missing(report)
    if missing:
        screen.print(f"[yellow]{missing}[/]")


def print_speed(speed: Speed, screen: Console) -> None:
    table = console.table()
    table.title = f"speed on {escape(speed.environment.device)}, {speed.environment.threads} threads"
    for column in ("what", "median", "least", "most", "variation", "rounds"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for phase in (speed.short, speed.long):
        cut = "" if phase.prompt_tokens == phase.wanted_tokens else f" (of {phase.wanted_tokens}: context too small)"
        table.add_row(f"prefill {phase.prompt_tokens}{cut}, tokens/s", *_spread(phase.tokens_per_s))
        table.add_row(f"first token after {phase.prompt_tokens}, ms", *_spread(phase.first_token_ms))
    table.add_row(f"decode {speed.decoded_tokens}, tokens/s", *_spread(speed.decode_tokens_per_s))
    screen.print(table)
    screen.print(f"loaded in {words.quantity(speed.load_ms)} ms, peak memory {words.size(speed.peak_memory_bytes)}")


def _steps(report: Report) -> Table:
    rows = console.table()
    rows.title = "method auto, the cheapest first"
    for column in ("method", "bits a weight", "seconds", "accuracy", "mean KL", "fine-tuned answers kept", ""):
        rows.add_column(column, justify="left" if column in ("method", "") else "right")
    for step in report.steps:
        verdict = f"[{COLOURS[step.verdict]}]{words.VERDICTS[step.verdict]}[/]"
        rows.add_row(*words.step(step), verdict)
    return rows


def _ladder(report: Report) -> Table:
    table = console.table()
    table.title = f"{escape(report.recipe)} {escape(report.recipe_version)}: {report.items} items"
    columns = ("rung", "it adds", "accuracy", "lost", "won", "mean KL", "same first choice", "ms p50", "ms p95")
    for column in columns:
        table.add_column(column, justify="left" if column in ("rung", "it adds") else "right")
    for rung in report.rungs:
        table.add_row(rung.name, rung.adds or words.NOTHING, *_rung(rung))
    if any(rung.answers is not None and rung.answers.speed.batched for rung in report.rungs):
        table.caption = "* answered in batches: no user's wait"
    return table


def _rung(rung: RungReport) -> list[str]:
    if rung.answers is None:
        return [f"[yellow]{rung.status}[/]" if rung.failure is None else f"[red]failed: {rung.failure.cause}[/]"]
    answers, compared = rung.answers, rung.answers.against_reference
    batched = "*" if answers.speed.batched else ""
    timed = not answers.environment.simulated
    return [
        words.percent(answers.accuracy.share),
        words.NOTHING if compared is None else str(compared.paired.lost),
        words.NOTHING if compared is None else str(compared.paired.won),
        words.nats(compared.divergence.mean if compared and compared.divergence else None),
        words.percent(compared.agreement.share if compared and compared.agreement else None),
        words.quantity(answers.speed.decision_ms_p50) + batched if timed else words.NOTHING,
        words.quantity(answers.speed.decision_ms_p95) + batched if timed else words.NOTHING,
    ]


def _checks(report: Report) -> Table:
    rows = console.table("check", "rung", "promise", "measured", "")
    for check in report.checks:
        colour = COLOURS[check.verdict]
        verdict = f"[{colour}]{words.VERDICTS[check.verdict]}[/]"
        rows.add_row(words.GATES[check.gate], check.rung, words.limit(check), words.measured(check), verdict)
    return rows


def _spread(spread: Spread) -> tuple[str, ...]:
    numbers = (spread.median, spread.least, spread.most)
    return (*(words.quantity(number) for number in numbers), f"{spread.variation:.1%}", str(spread.count))
