"""Numbers and verdicts as people read them, the same on the screen and on the page."""

from __future__ import annotations

from slmc.validate.report import Check, Report, Step
from slmc.validate.statistics import Verdict

VERDICTS: dict[Verdict, str] = {"pass": "pass", "fail": "fail", "unclear": "can't tell"}
GATES = {
    "adapter": "the adapter's change arrives",
    "weights": "weights read back",
    "runner": "the runner answers",
    "prompt": "prompts read alike",
    "min_accuracy": "accuracy of the reference",
    "max_accuracy_drop": "accuracy drop",
    "max_mean_kl": "mean divergence",
    "min_survival": "fine-tuned answers kept",
    "min_agreement": "first choice as before",
}
NOTHING = "–"
_AT_MOST = ("max_accuracy_drop", "max_mean_kl")


def percent(share: float | None) -> str:
    return NOTHING if share is None else f"{share:.2%}"


def nats(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.2g}"


def quantity(value: float | None) -> str:
    """Three significant digits, without an exponent."""
    if value is None:
        return NOTHING
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def size(count: int | None) -> str:
    return NOTHING if count is None else f"{count / 2**20:,.0f} MiB"


def limit(check: Check) -> str:
    """The promise, such as "≤ 1.50%"."""
    if check.limit is None:
        return NOTHING
    value = f"{check.limit:g} nats" if check.gate == "max_mean_kl" else percent(check.limit)
    return f"{'≤' if check.gate in _AT_MOST else '≥'} {value}"


def measured(check: Check) -> str:
    """What was measured with its 95% interval, such as "0.27% (-0.11% to 0.66%)"."""
    if check.measured is None:
        return NOTHING
    shown = nats if check.gate == "max_mean_kl" else percent
    interval = check.interval
    around = "" if interval is None else f" ({shown(interval.low)} to {shown(interval.high)})"
    return shown(check.measured) + around


def step(tried: Step) -> list[str]:
    """A step of method auto: its name, what it cost, what it bought."""
    name = tried.method if tried.budget is None else f"{tried.method}, at most {tried.budget:.3g} bits"
    return [
        name,
        f"{tried.bits:.2f}",
        quantity(tried.seconds),
        percent(tried.accuracy),
        nats(tried.divergence),
        percent(tried.kept),
    ]


def summary(report: Report) -> str:
    """One sentence: what was found, and what to look at first."""
    if report.blame is not None:
        gate = GATES[report.blame.gate]
        return f"The {report.blame.rung} rung breaks the promise first ({gate}): {report.blame.evidence}."
    unclear = [check for check in report.checks if check.verdict == "unclear"]
    if unclear:
        first = unclear[0]
        return f"The sample can't tell whether {GATES[first.gate]} holds on the {first.rung} rung: {first.evidence}."
    if not report.checks:
        return "Nothing was checked."
    return f"Every rung that was run keeps the recipe's promise, on {report.items} items."


def fine_tune(report: Report) -> str:
    """What the adapter changes in the answers."""
    if report.base is None:
        return "The recipe has no adapter, so there is no fine-tune to keep."
    total, right = report.base.accuracy.total, percent(report.base.accuracy.share)
    return (
        f"Without the adapter the base answers {report.base.changed} of {total} items otherwise than the reference; "
        f"{right} of its answers are right."
    )


def abstention(report: Report) -> str | None:
    """The threshold that ships and what it does; None where there is none."""
    found = report.abstention
    if found is None or "quantized" not in found.fitted:
        return None
    fitted = found.fitted["quantized"]
    if fitted.threshold is None:
        return f"No threshold brings the wrong labels among the answered ones down to {percent(found.max_error)}."
    rung, measured = list(found.measured.items())[-1]
    wrong = None if measured.wrong is None else measured.wrong.share
    return (
        f"Abstain where the label's probability is below {fitted.threshold:.4f}: fitted on {fitted.answered.total} "
        f"calibration items for at most {percent(found.max_error)} wrong labels. The {rung} rung then answers "
        f"{percent(measured.answered.share)} of the evaluation items, {percent(wrong)} of them wrong."
    )


def missing(report: Report) -> str | None:
    """What was not run, which no verdict speaks for."""
    if "device" in report.not_run or all(rung.name != "device" for rung in report.rungs):
        others = [name for name in report.not_run if name != "device"]
        return "not run on a device" + (f"; not run: {', '.join(others)}" if others else "")
    return f"not run: {', '.join(report.not_run)}" if report.not_run else None
