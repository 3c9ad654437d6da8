"""The recipe's promise held against what was measured: pass, fail, or can't tell.

A value passes when its whole interval is on the right side of the limit, fails when it is wholly
on the wrong side, and is unclear otherwise: the sample can't tell.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from slmc.quant.survival import AdapterSurvival, Change
from slmc.recipe import Gates
from slmc.validate.report import Answers, Blame, Check, Comparison, FineTune, Gate, ReadBack, RungReport
from slmc.validate.statistics import Interval, Paired, Verdict, Z, above, below

FEWEST_ITEMS = 30
"""Below this many scored items a bootstrap interval of the mean divergence is too narrow to be believed; and
fewer answers than these say little of a fine-tune."""
LEAST_ARRIVED = 0.5
"""Of the size of an adapter's change. What rounding leaves of it is near 1 or, once lost, near 0."""
SURE = 5.0
"""Standard errors between a matrix's slope and LEAST_ARRIVED: among thousands of matrices, no false alarm."""
NAMED = 3
"""Of the matrices that lost the change."""


def check_rung(gates: Gates, rung: RungReport) -> list[Check]:
    """Every promise that concerns a rung; none for a rung that was not run."""
    checks = [] if rung.adapter is None else [_adapter_check(rung, rung.adapter)]
    if rung.read_back is not None:
        checks.append(_weights_check(rung, rung.read_back))
    if rung.failure is not None:
        return [*checks, _plain(rung, "runner", "fail", f"the runner {rung.failure.what}")]
    if rung.answers is None:
        return checks
    return [*checks, *_checks(gates, rung, rung.answers)]


def overall(checks: Iterable[Check]) -> Verdict:
    found = {check.verdict for check in checks}
    return "fail" if "fail" in found else "unclear" if "unclear" in found else "pass"


def blame(checks: Iterable[Check]) -> Blame | None:
    """The first failed check in the ladder's order: its rung broke what the one before still kept."""
    for check in checks:
        if check.verdict == "fail":
            return Blame(rung=check.rung, gate=check.gate, evidence=check.evidence)
    return None


def _checks(gates: Gates, rung: RungReport, answers: Answers) -> Iterator[Check]:
    yield _prompt_check(rung, answers)
    if rung.name == "reference":
        if gates.min_accuracy is not None:
            yield _reference_check(gates.min_accuracy, rung, answers)
        return
    if answers.against_reference is not None:
        yield _drop_check(gates.max_accuracy_drop, rung, answers.against_reference)
        if gates.max_mean_kl is not None:
            yield _divergence_check(gates.max_mean_kl, rung, answers.against_reference)
    if answers.fine_tune is not None:
        yield _survival_check(gates.min_survival, rung, answers.fine_tune)
    if rung.name in ("compiled", "app", "device") and answers.against_previous is not None:
        yield _agreement_check(gates.min_agreement, rung, answers.against_previous)


def _weights_check(rung: RungReport, found: ReadBack) -> Check:
    if not found.wrong:
        return _plain(rung, "weights", "pass", f"{found.tensors} tensors are those of the step before")
    evidence = f"{len(found.wrong)} of {found.tensors} tensors are not those of the step before: {found.wrong[0]} first"
    return _plain(rung, "weights", "fail", evidence)


def _adapter_check(rung: RungReport, found: AdapterSurvival) -> Check:
    if found.whole is None:
        return _plain(rung, "adapter", "pass", "the adapter changes no matrix that is quantized")
    whole, count = found.whole, len(found.tensors)
    lost = [one for one in found.tensors if one.coefficient + SURE * one.error < LEAST_ARRIVED]
    if lost:
        lost.sort(key=lambda one: one.coefficient)
        named = ", ".join(f"{one.name} ({one.coefficient:.1%} left)" for one in lost[:NAMED])
        evidence = f"{len(lost)} of {count} matrices have lost the adapter's change: {named}"
    else:
        least = min(found.tensors, key=lambda one: one.coefficient)
        evidence = (
            f"the adapter's change arrives at {whole.coefficient:.1%} of its size over {count} matrices, "
            f"correlation {whole.correlation:.2f}; least in {least.name}, {least.coefficient:.1%}"
        )
    interval = _slope_interval(whole)
    return Check(
        gate="adapter",
        rung=rung.name,
        against=None,
        limit=LEAST_ARRIVED,
        measured=whole.coefficient,
        interval=interval,
        verdict="fail" if lost else above(interval, LEAST_ARRIVED),
        evidence=evidence,
    )


def _slope_interval(change: Change) -> Interval:
    return Interval(low=change.coefficient - Z * change.error, high=change.coefficient + Z * change.error)


def _prompt_check(rung: RungReport, answers: Answers) -> Check:
    first = answers.first_mismatch
    if first is None:
        return _plain(rung, "prompt", "pass", "every prompt was read as the workload's tokens")
    evidence = f"{answers.prompt_mismatches} prompts were read as other tokens; the first is of item {first.id!r}"
    return _plain(rung, "prompt", "fail", evidence)


def _reference_check(limit: float, rung: RungReport, answers: Answers) -> Check:
    found = answers.accuracy
    return Check(
        gate="min_accuracy",
        rung=rung.name,
        against=None,
        limit=limit,
        measured=found.share,
        interval=found.interval,
        verdict=above(found.interval, limit),
        evidence=f"{found.count} of {found.total} right: {found.share:.2%} ({_range(found.interval)})",
    )


def _drop_check(limit: float, rung: RungReport, compared: Comparison) -> Check:
    paired = compared.paired
    return Check(
        gate="max_accuracy_drop",
        rung=rung.name,
        against=compared.against,
        limit=limit,
        measured=paired.drop,
        interval=paired.interval,
        verdict=below(paired.interval, limit),
        evidence=_drop_evidence(paired),
    )


def _drop_evidence(paired: Paired) -> str:
    return (
        f"{paired.lost} lost, {paired.won} won of {paired.total}: a drop of {paired.drop:.2%} "
        f"({_range(paired.interval)}), McNemar p = {paired.p_value:.2g}; "
        f"a drop of {paired.detectable:.2%} would have shown"
    )


def _divergence_check(limit: float, rung: RungReport, compared: Comparison) -> Check:
    found = compared.divergence
    verdict: Verdict = "unclear"
    if found is None:
        evidence = "not measured: the rung was not asked for the reference's likeliest tokens"
    else:
        evidence = (
            f"{found.mean:.2g} nats a token over {found.positions} positions of {found.items} items "
            f"({found.interval.low:.2g} to {found.interval.high:.2g})"
        )
        if found.items < FEWEST_ITEMS:
            evidence += f"; fewer than {FEWEST_ITEMS} items can't tell"
        else:
            verdict = below(found.interval, limit)
    return Check(
        gate="max_mean_kl",
        rung=rung.name,
        against=compared.against,
        limit=limit,
        measured=None if found is None else found.mean,
        interval=None if found is None else found.interval,
        verdict=verdict,
        evidence=evidence,
    )


def _survival_check(limit: float, rung: RungReport, found: FineTune) -> Check:
    kept = found.kept
    verdict: Verdict = "unclear"
    if kept is None:
        evidence = "the reference answers every item as the base does without the adapter"
    else:
        evidence = (
            f"{kept.count} of {kept.total} answers that the adapter changed are kept: {kept.share:.2%} "
            f"({_range(kept.interval)}), {found.reverted} went back to the base's"
        )
        if kept.total < FEWEST_ITEMS:
            evidence += f"; fewer than {FEWEST_ITEMS} items can't tell"
        else:
            verdict = above(kept.interval, limit)
    return Check(
        gate="min_survival",
        rung=rung.name,
        against="reference",
        limit=limit,
        measured=None if kept is None else kept.share,
        interval=None if kept is None else kept.interval,
        verdict=verdict,
        evidence=evidence,
    )


def _agreement_check(limit: float, rung: RungReport, compared: Comparison) -> Check:
    found = compared.agreement
    return Check(
        gate="min_agreement",
        rung=rung.name,
        against=compared.against,
        limit=limit,
        measured=None if found is None else found.share,
        interval=None if found is None else found.interval,
        verdict="unclear" if found is None else above(found.interval, limit),
        evidence="not measured: nothing was scored"
        if found is None
        else f"{found.count} of {found.total} first choices are those of {compared.against} ({_range(found.interval)})",
    )


def _plain(rung: RungReport, gate: Gate, verdict: Verdict, evidence: str) -> Check:
    """A check that measures nothing."""
    return Check(
        gate=gate,
        rung=rung.name,
        against=None,
        limit=None,
        measured=None,
        interval=None,
        verdict=verdict,
        evidence=evidence,
    )


def _range(interval: Interval) -> str:
    return f"95%: {interval.low:.2%} to {interval.high:.2%}"
