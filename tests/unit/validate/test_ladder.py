"""Verdicts and blame on ladders whose results are written for the purpose."""

from __future__ import annotations

from pathlib import Path

import pytest

from slmc.errors import InputError, RunnerError
from slmc.recipe import Gates, LoadedRecipe
from slmc.runners.contract import Failure
from slmc.validate.ladder import Rung, judge
from slmc.validate.report import Check, Report, read_report, write_report

from .conftest import Lab

TEN = [f"i{n}" for n in range(0, 400, 40)]
FORTY = [f"i{n}" for n in range(0, 400, 10)]
SCORED = [f"i{n}" for n in range(0, 400, 4)]
DEVICE = Rung("device", None)


def gated(lab: Lab, **gates: float) -> LoadedRecipe:
    return LoadedRecipe(lab.recipe.folder, lab.recipe.recipe.model_copy(update={"gates": Gates(**gates)}))


def climbed(lab: Lab, *rungs: Rung, **gates: float) -> Report:
    return judge(gated(lab, **gates), lab.workload, [Rung("reference", lab.result("reference")), *rungs])


def check(report: Report, gate: str, rung: str) -> Check:
    return next(check for check in report.checks if (check.gate, check.rung) == (gate, rung))


def test_a_ladder_without_a_flip_passes(lab: Lab) -> None:
    same = [Rung("quantized", lab.result("quantized")), Rung("compiled", lab.result("compiled"))]
    report = climbed(lab, *same, DEVICE, max_mean_kl=0.01, min_accuracy=0.9)
    assert (report.verdict, report.blame, report.flips, report.not_run) == ("pass", None, (), ("device",))
    assert (report.items, report.scored) == (400, 100)
    gates = [(check.rung, check.gate) for check in report.checks]
    assert gates == [
        ("reference", "prompt"),
        ("reference", "min_accuracy"),
        *(("quantized", gate) for gate in ("prompt", "max_accuracy_drop", "max_mean_kl")),
        *(("compiled", gate) for gate in ("prompt", "max_accuracy_drop", "max_mean_kl", "min_agreement")),
    ]


def test_lost_items_are_blamed_on_the_quantizer_where_it_lost_them(lab: Lab) -> None:
    quantized, compiled = lab.result("quantized", FORTY), lab.result("compiled", FORTY)
    report = climbed(lab, Rung("quantized", quantized), Rung("compiled", compiled))
    assert report.verdict == "fail"
    assert report.blame is not None
    assert (report.blame.rung, report.blame.gate) == ("quantized", "max_accuracy_drop")
    assert "40 lost, 0 won of 400: a drop of 10.00%" in report.blame.evidence
    assert check(report, "max_accuracy_drop", "compiled").verdict == "fail"
    assert [(flip.id, flip.rung, flip.kind) for flip in report.flips] == [(name, "quantized", "lost") for name in FORTY]
    assert report.flips[0].answers == {"reference": "yes", "quantized": "no", "compiled": "no"}
    again = report.rung("compiled").answers
    assert again is not None
    assert again.against_previous is not None
    assert again.against_previous.paired.lost == 0


def test_lost_items_are_blamed_on_the_compiler_where_it_lost_them(lab: Lab) -> None:
    quantized, compiled = lab.result("quantized", TEN[:1]), lab.result("compiled", FORTY)
    report = climbed(lab, Rung("quantized", quantized), Rung("compiled", compiled))
    assert report.blame is not None
    assert (report.blame.rung, report.blame.gate) == ("compiled", "max_accuracy_drop")
    by_rung = {name: [flip.id for flip in report.flips if flip.rung == name] for name in ("quantized", "compiled")}
    assert by_rung == {"quantized": TEN[:1], "compiled": FORTY[1:]}


def test_an_item_that_is_won_back_is_told_where_it_was_lost(lab: Lab) -> None:
    report = climbed(lab, Rung("quantized", lab.result("quantized", TEN)), Rung("compiled", lab.result("compiled")))
    assert {(flip.rung, flip.kind) for flip in report.flips} == {("quantized", "lost")}
    answers = report.rung("compiled").answers
    assert answers is not None
    assert answers.against_previous is not None
    assert answers.against_previous.paired.won == 10


def test_a_compiler_that_answers_otherwise_token_by_token_is_blamed(lab: Lab) -> None:
    compiled = lab.result("compiled", swapped=SCORED[:20])
    report = climbed(lab, Rung("quantized", lab.result("quantized")), Rung("compiled", compiled))
    assert report.blame is not None
    assert (report.blame.rung, report.blame.gate) == ("compiled", "min_agreement")


def test_divergence_is_blamed_where_it_begins(lab: Lab) -> None:
    far = Rung("quantized", lab.result("quantized", sure=0.6))
    report = climbed(lab, far, Rung("compiled", lab.result("compiled", sure=0.6)), max_mean_kl=0.05)
    assert report.blame is not None
    assert (report.blame.rung, report.blame.gate) == ("quantized", "max_mean_kl")
    compiled = report.rung("compiled").answers
    assert compiled is not None
    assert compiled.against_previous is not None
    assert compiled.against_previous.divergence is not None
    assert compiled.against_previous.divergence.mean == 0


@pytest.mark.parametrize("rung", ["compiled", "device"])
def test_prompts_read_otherwise_are_blamed_on_the_prompt(lab: Lab, rung: str) -> None:
    """Even where no answer is lost, and before any other gate."""
    read = {"task/i7": (1, 2, 3), "task/i8": (4,)}
    ran = {"quantized": lab.result("quantized"), "compiled": lab.result("compiled"), "device": lab.result("device")}
    ran[rung] = lab.result(rung, FORTY, read=read)
    rungs = [Rung(name, ran[name]) for name in ("quantized", "compiled", "device")]
    report = climbed(lab, *rungs)
    assert report.blame is not None
    assert (report.blame.rung, report.blame.gate) == (rung, "prompt")
    answers = next(report.answers for report in report.rungs if report.name == rung)
    assert answers is not None
    assert answers.first_mismatch is not None
    assert (answers.prompt_mismatches, answers.first_mismatch.id, answers.first_mismatch.read) == (2, "i7", (1, 2, 3))


def test_a_weak_reference_is_blamed_itself(lab: Lab) -> None:
    reference = Rung("reference", lab.result("reference", FORTY))
    same = Rung("quantized", lab.result("quantized", FORTY))
    report = judge(gated(lab, min_accuracy=0.99), lab.workload, [reference, same])
    assert report.blame is not None
    assert (report.blame.rung, report.blame.gate) == ("reference", "min_accuracy")
    assert check(report, "max_accuracy_drop", "quantized").verdict == "pass"


def test_a_few_flips_in_a_small_sample_can_not_be_told(lab: Lab) -> None:
    report = climbed(lab, Rung("quantized", lab.result("quantized", TEN[:5])))
    assert (report.verdict, report.blame) == ("unclear", None)
    assert check(report, "max_accuracy_drop", "quantized").verdict == "unclear"


def test_a_tiny_sample_passes_nothing_even_without_a_flip(recipe_folder: Path, tmp_path: Path) -> None:
    from .conftest import make_lab

    items: list[dict[str, object]] = [{"id": f"i{n}", "text": "x", "label": "yes"} for n in range(20)]
    lab = make_lab(recipe_folder, tmp_path, 'task: {kind: classify, labels: ["yes", "no"]}', items)
    compiled = Rung("compiled", lab.result("compiled"))
    report = climbed(lab, Rung("quantized", lab.result("quantized")), compiled, max_mean_kl=0.1, min_accuracy=0.9)
    verdicts = {check.gate: check.verdict for check in report.checks}
    assert verdicts.pop("prompt") == "pass"
    assert set(verdicts.values()) == {"unclear"}
    assert len(verdicts) == 4


def test_what_was_not_watched_is_not_passed(lab: Lab) -> None:
    rung = Rung("quantized", lab.result("quantized", workload=lab.plain))
    report = judge(
        gated(lab, max_mean_kl=0.1), lab.plain, [Rung("reference", lab.result("r", workload=lab.plain)), rung]
    )
    assert check(report, "max_mean_kl", "quantized").verdict == "unclear"
    assert "not measured" in check(report, "max_mean_kl", "quantized").evidence


def test_a_runner_that_died_is_blamed_with_its_cause(lab: Lab) -> None:
    died = Failure(cause="signal", what="was killed by SIGSEGV", stderr="deep in a kernel")
    report = climbed(lab, Rung("quantized", lab.result("quantized")), Rung("compiled", died), DEVICE)
    assert report.blame is not None
    assert (report.blame.rung, report.blame.gate) == ("compiled", "runner")
    assert "SIGSEGV" in report.blame.evidence
    assert [rung.status for rung in report.rungs] == ["ran", "ran", "failed", "not run"]


def test_the_rung_after_a_failed_one_is_held_against_the_last_that_ran(lab: Lab) -> None:
    died = Failure(cause="timeout", what="took longer than 1 s")
    report = climbed(lab, Rung("quantized", died), Rung("compiled", lab.result("compiled")))
    answers = report.rung("compiled").answers
    assert answers is not None
    assert answers.against_previous is not None
    assert answers.against_previous.against == "reference"


def test_nonsense_is_the_rungs_failure(lab: Lab) -> None:
    path = lab.result("compiled")
    path.write_text(path.read_text()[:-200])
    report = climbed(lab, Rung("quantized", lab.result("quantized")), Rung("compiled", path))
    failure = report.rung("compiled").failure
    assert failure is not None
    assert failure.cause == "nonsense"
    assert report.verdict == "fail"


@pytest.mark.parametrize("outcome", [None, Failure(cause="exit code", what="ended with exit code 1")])
def test_without_a_reference_nothing_is_judged(lab: Lab, outcome: Failure | None) -> None:
    with pytest.raises(RunnerError, match="the reference has no result"):
        judge(lab.recipe, lab.workload, [Rung("reference", outcome)])
    with pytest.raises(InputError, match="starts at the reference"):
        judge(lab.recipe, lab.workload, [Rung("quantized", lab.result("quantized"))])


def test_a_workload_of_other_data_is_refused(lab: Lab) -> None:
    path = lab.recipe.folder / "eval.jsonl"
    path.write_text(path.read_text().replace('"i3"', '"j3"'))
    with pytest.raises(InputError, match="'i3'"):
        judge(lab.recipe, lab.workload, [Rung("reference", lab.result("reference"))])


def test_a_report_comes_back_from_its_file(lab: Lab, tmp_path: Path) -> None:
    died = Failure(cause="hang", what="did nothing")
    report = climbed(lab, Rung("quantized", lab.result("quantized", FORTY)), Rung("compiled", died), DEVICE)
    write_report(report, tmp_path / "report.json")
    assert read_report(tmp_path / "report.json") == report
    (tmp_path / "report.json").write_text('{"slmc_report": 9}')
    with pytest.raises(InputError):
        read_report(tmp_path / "report.json")


def test_judging_twice_gives_the_same_report(lab: Lab) -> None:
    rungs = [Rung("reference", lab.result("reference")), Rung("quantized", lab.result("quantized", TEN, sure=0.85))]
    assert judge(lab.recipe, lab.workload, rungs) == judge(lab.recipe, lab.workload, rungs)
