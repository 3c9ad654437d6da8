"""Which bundle a device class and a model get, of made-up histories."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slmc.errors import InputError
from slmc.farm.portfolio.choice import Choice, Portfolio, TargetChoices, portfolio_of
from slmc.farm.portfolio.evidence import LONGEST, Terms
from slmc.farm.portfolio.past import since
from slmc.farm.record import Night, Run
from slmc.names import BackendName, TargetName
from slmc.target import load_target, target_names

from .morning_case import ANSWERS, gone
from .nights import BEGAN, accuracy, night, past_of
from .portfolio_case import TARGETS, Phone, by_model, chosen, in_class, of, portfolio

NINE, TEN, BIG = Phone("shelf-1"), Phone("shelf-2", "Phone 10"), Phone("shelf-3", "Phone 10", "6 GB")


def test_two_nights_that_pass_support_a_bundle() -> None:
    its = of([NINE.run()], [NINE.run(ms=4)])
    assert in_class(its) == chosen()
    assert by_model(its) == {"Phone 9": chosen()}
    assert [in_class(its, name) for name in ("6 GB", "8 GB", "12 GB")] == ["never measured"] * 3
    [told] = its.evidence
    assert (told.support, told.nights, told.since, told.last) == ("supported", 2, "night-0", "night-1")
    assert (told.decision_ms_p50, told.decision_ms_p95, told.system) == (3.0, 3.5, "17.1")
    assert told.accuracy is not None
    assert (told.accuracy.right, told.accuracy.items) == (2, 3)
    assert told.accuracy.interval.low < 2 / 3 < told.accuracy.interval.high
    assert "shelf" not in its.model_dump_json()


def test_one_night_does_not_and_its_model_goes_by_its_class() -> None:
    assert in_class(of([NINE.run()])) == "tvm: measured once on Phone 9 with 17.1: night-0"
    its = of([NINE.run()], [NINE.run(), TEN.run()])
    assert in_class(its) == chosen()
    assert by_model(its) == {"Phone 9": chosen()}


def test_a_class_is_as_good_as_its_worst_device() -> None:
    nights = [[NINE.run(), TEN.run(), BIG.run()]] * 2
    its = of(*nights, [NINE.run(), TEN.run(outcome="fail"), BIG.run()])
    assert in_class(its) == "tvm: failed on Phone 10 with 17.1: night-2: it is a fail"
    assert in_class(its, "6 GB") == chosen()
    # The model stands in two classes: what failed in one of them is nothing that it is given.
    assert by_model(its) == {"Phone 9": chosen(), "Phone 10": in_class(its)}


def test_another_backend_takes_the_place_of_one_that_fails() -> None:
    both = [NINE.run("executorch", ms=1), NINE.run("tvm")]
    assert in_class(of(both, both)) == chosen("executorch")
    failing = [NINE.run("executorch", outcome="fail", ms=1), NINE.run("tvm")]
    assert in_class(of(both, both, failing)) == chosen("tvm")


def test_a_runner_that_dies_before_anything_is_known() -> None:
    passing = [[NINE.run(), TEN.run()]] * 3
    its = of(*passing, [NINE.crash(), TEN.run()])
    assert in_class(its) == "tvm: failed on Phone 9 with 17.1: night-3: the runner was killed by SIGSEGV"
    # Its class is known from another recipe.
    its = of(*[[NINE.crash(), NINE.run(recipe="other"), TEN.run()]] * 2)
    assert in_class(its) == "tvm: failed on Phone 9: night-1: the runner was killed by SIGSEGV"
    assert by_model(its)["Phone 10"] == chosen()
    # It may be of any class.
    its = of(*[[Phone("shelf-9").crash(), TEN.run(), BIG.run()]] * 2)
    told = "tvm: failed on a device of which nothing else is known: night-1: the runner was killed by SIGSEGV"
    assert [in_class(its, name) for name in ("4 GB", "6 GB")] == [told, told]
    assert by_model(its) == {"Phone 10": chosen()}


def test_only_the_newest_bundle_counts_for_and_against() -> None:
    old, new = [NINE.run(bundle="old")], [NINE.run()]
    assert "measured once" in str(in_class(of(old, old, new)))
    failed, crashed = [NINE.run(bundle="old", outcome="fail")], [NINE.crash()]
    assert in_class(of(failed, crashed, new, new)) == chosen()
    # A phone that was away when it came says nothing of it.
    its = of(*[[NINE.run(bundle="old"), BIG.run(bundle="old")]] * 3, *[[NINE.run()]] * 2)
    assert in_class(its) == chosen()
    assert in_class(its, "6 GB") == "never measured"


def test_memory_and_unclear_gates() -> None:
    well = [NINE.run()]
    assert "too much memory on Phone 9 with 17.1: night-2: 2100 of 2048 MiB" in str(
        in_class(of(well, well, [NINE.run(memory_mib=2100, outcome="fail")], well))
    )
    unclear = [NINE.run(outcome="unclear")]
    assert in_class(of(well, unclear, well)) == chosen()
    assert in_class(of(well, well, unclear)) == "tvm: can't tell on Phone 9 with 17.1: night-2: it is a unclear"


def test_nights_that_count_and_last_words() -> None:
    well, failed = [NINE.run(), BIG.run()], [NINE.run(outcome="fail"), BIG.run()]
    away = [gone(NINE.series(), "not attached"), BIG.run()]
    assert in_class(of(well, failed, *[well] * 7)) == chosen()
    assert "failed" in str(in_class(of(well, failed, *[well] * 6)))
    assert in_class(of(well, failed, *[well] * 3, terms=Terms(nights=3))) == chosen()
    assert in_class(of(well, well, away, away)) == chosen()
    its = of(well, well, *[away] * 8)
    assert in_class(its) == "tvm: not lately on Phone 9 with 17.1: last on night-1"
    assert by_model(its) == {"Phone 10": chosen()}
    # What failed last stands for as long as it likes to be away.
    assert "failed" in str(in_class(of(well, failed, *[away] * 30)))


def test_shards_of_a_night_are_no_nights_of_their_own() -> None:
    """Eight evenings, of which the first began 3.5 days before the last."""
    nights = [night(number, NINE.run(outcome="pass" if number else "fail")) for number in range(8)]
    soon = [one.model_copy(update={"started": BEGAN + timedelta(hours=12 * n)}) for n, one in enumerate(nights)]
    assert portfolio(nights).targets[0].models[0].choice == chosen()
    assert portfolio(soon).targets[0].models[0].choice is None


def test_another_phone_of_that_name() -> None:
    other = Phone("shelf-1", "Phone 11", "6 GB")
    its = of([NINE.run()], [NINE.run(outcome="fail")], [other.run()], [other.run()])
    assert (in_class(its), in_class(its, "6 GB")) == ("never measured", chosen())
    assert by_model(its) == {"Phone 11": chosen()}


# ---- Speed ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("executorch", "tvm", "backend"),
    [
        ([5, 5], [3, 3], "tvm"),
        ([3, 3], [5, 5], "executorch"),
        ([5, 5], [4.9, 4.9], "executorch"),  # less than noise: the target's order
        ([4, 6], [3, 4.5], "executorch"),  # nights overlap
        ([4, 6], [3, 3.9], "tvm"),
    ],
)
def test_the_fastest_by_more_than_noise(
    executorch: Sequence[float], tvm: Sequence[float], backend: BackendName
) -> None:
    nights = [
        [NINE.run("executorch", ms=one), NINE.run("tvm", ms=other)] for one, other in zip(executorch, tvm, strict=True)
    ]
    assert in_class(of(*nights)) == chosen(backend)


def test_by_the_slowest_device_of_a_class() -> None:
    runs = [NINE.run("executorch", ms=1), TEN.run("executorch", ms=9), NINE.run(ms=3), TEN.run(ms=6)]
    its = of(runs, runs)
    assert in_class(its) == chosen("tvm")
    assert by_model(its) == {"Phone 9": chosen("executorch"), "Phone 10": chosen("tvm")}


def test_a_device_that_was_slow_on_some_nights_slowed_the_control_too() -> None:
    hot = [NINE.run("tvm", ms=8, control_ms=4)]
    cool = [NINE.run("executorch", ms=5, control_ms=2)]
    assert in_class(of(hot, hot, cool, cool)) == chosen("tvm")
    hot, cool = [NINE.run("tvm", ms=8, control_ms=None)], [NINE.run("executorch", ms=5, control_ms=None)]
    assert in_class(of(hot, hot, cool, cool)) == chosen("executorch")


def test_a_speed_that_is_not_clear_does_not_count() -> None:
    shaky = [NINE.run("executorch", ms=1), NINE.run("tvm", ms=0.1, clear=False)]
    its = of(shaky, shaky)
    assert in_class(its) == chosen("executorch")
    assert [one.decision_ms_p50 for one in its.evidence] == [1.0, None]


def test_a_limit_of_time() -> None:
    runs = [NINE.run(ms=9), NINE.run("executorch", clear=False), BIG.run(ms=8)]
    its = of(runs, runs, terms=Terms(max_ms=8))
    assert in_class(its) == (
        "executorch: can't tell on Phone 9 with 17.1: no clear speed; tvm: too slow on Phone 9 with 17.1: 9 ms of 8"
    )
    assert in_class(its, "6 GB") == chosen()


def test_what_became_worse_stands_until_it_is_accepted() -> None:
    random = Random(1)
    runs = [NINE.run(ms=2 * random.gauss(1.1 if number >= 8 else 1, 0.003)) for number in range(20)]
    nights = [night(number, its.model_copy(update={"accuracy": accuracy(ANSWERS)})) for number, its in enumerate(runs)]
    [its] = portfolio(nights).targets
    assert str(in_class(its)).startswith("tvm: worse on Phone 9 with 17.1: +1")
    assert str(in_class(its)).endswith("% time since night-8")
    later = since(past_of(nights), nights[8].started)
    [its] = portfolio_of(later, "router", TARGETS, Terms()).targets
    assert in_class(its) == chosen()
    assert its.evidence[0].since == "night-8"


# ---- The file -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", target_names())
def test_a_device_is_of_the_class_that_its_memory_is_sold_as(name: TargetName) -> None:
    """Though it shows less; of the next smaller size that is sold it is not, whatever that shows."""
    target = load_target(name)
    runs = [NINE.run(), NINE.run()]
    moved = [one.model_copy(update={"series": one.series.model_copy(update={"target": name})}) for one in runs]
    past = past_of([night(number, one) for number, one in enumerate(moved)])
    [its] = portfolio_of(past, "router", {name: target}, Terms()).targets
    assert by_model(its) == {"Phone 9": chosen()}

    def of_memory(mib: float) -> str | None:
        return next((one.name for one in reversed(its.classes) if one.from_mib <= mib), None)

    for one in target.device_classes:
        assert [of_memory(one.ram_mib * shown) for shown in (1, 0.9, 0.85)] == [one.name] * 3
        assert of_memory(one.ram_mib * 3 / 4) != one.name


def test_names_and_reasons_of_any_kind() -> None:
    name = '../../[red]\n"</script>\x1b[2J'
    odd = Phone("shelf-1", model=name, device_class="no class of the target's")
    failed = odd.run(outcome="fail", recipe=name).model_copy(update={"reason": "x" * 10_000})
    past = past_of([night(1, odd.run(recipe=name)), night(2, failed)])
    found = portfolio_of(past, name, TARGETS, Terms())
    assert Portfolio.model_validate_json(found.model_dump_json()) == found
    [its] = found.targets
    assert (found.recipe, its.models[0].model, its.evidence[0].device_class) == (name, name, odd.device_class)
    assert len(its.evidence[0].detail) == LONGEST
    assert {in_class(its, one.name) for one in its.classes} == {"never measured"}


def test_nothing_to_choose_by() -> None:
    with pytest.raises(InputError, match="no night"):
        portfolio([])
    with pytest.raises(InputError, match="no night"):
        portfolio_of(since(past_of([night(1, NINE.run())]), BEGAN + timedelta(days=9)), "router", TARGETS, Terms())
    with pytest.raises(InputError, match="'router'"):
        portfolio_of(past_of([night(1, NINE.run())]), "ruter", TARGETS, Terms())
    its = of([gone(NINE.series(), "not attached")])
    assert (in_class(its), its.models, its.evidence) == ("never measured", (), ())


# ---- Of any history -------------------------------------------------------------------------------------------------

PHONES = (NINE, TEN, BIG)
BACKENDS: tuple[BackendName, ...] = ("executorch", "tvm", "mlc")


@st.composite
def _nights(draw: st.DrawFn, backends: Sequence[BackendName] = BACKENDS, *, known: bool = True) -> list[Night]:
    """`known`: another recipe told of what model and class each phone is."""
    found = []
    for number in range(draw(st.integers(1, 5))):
        runs = [phone.run(recipe="other") for phone in PHONES] if known else [NINE.run("tvm")]
        for backend in backends:
            bundle = draw(st.sampled_from(["old", "new"]))
            runs += [one for phone in PHONES for one in [draw(_run(phone, backend, bundle))] if one is not None]
        found.append(night(number, *{one.series: one for one in runs}.values()))
    return found


@st.composite
def _run(draw: st.DrawFn, phone: Phone, backend: BackendName, bundle: str) -> Run | None:
    outcome = draw(st.sampled_from(["pass", "pass", "pass", "fail", "unclear", "not run", "crash", None]))
    if outcome == "crash":
        return phone.crash(backend)
    if outcome == "not run":
        return gone(phone.series(backend), "away")
    return outcome and phone.run(backend, bundle, outcome, draw(st.floats(1, 4)), control_ms=None)


def _last_word(nights: Sequence[Night], phone: Phone, choice: Choice) -> str | None:
    """Of a phone on a bundle, or on one that isn't known, once any phone measured that bundle."""
    seen, word = False, None
    for one in nights:
        bundles = {its.series: its.circumstances.bundle for its in one.runs if its.circumstances is not None}
        recipe = phone.series(choice.backend).recipe
        seen = seen or any(bundle == choice.bundle for its, bundle in bundles.items() if its.recipe == recipe)
        for its in one.runs:
            of_it = bundles.get(its.series, choice.bundle if seen else None) == choice.bundle
            if of_it and its.series == phone.series(choice.backend) and its.outcome != "not run":
                word = its.outcome
    return word


@settings(max_examples=100, deadline=None)
@given(st.data(), st.booleans(), st.integers(1, 5))
def test_never_what_failed_last_on_any_device_of_the_class(data: st.DataObject, known: bool, count: int) -> None:
    nights = data.draw(_nights(known=known))
    for its in _router(nights, Terms(nights=count)):
        groups = [([p for p in PHONES if p.device_class == one.name], one.choice) for one in its.classes]
        if known:
            groups += [([p for p in PHONES if p.model == one.model], one.choice) for one in its.models]
        for group, choice in groups:
            words = [choice and _last_word(nights, phone, choice) for phone in group]
            assert choice is None or "pass" in words
            assert "fail" not in words


@settings(max_examples=50, deadline=None)
@given(_nights())
def test_the_same_history_the_same_bytes(nights: list[Night]) -> None:
    turned = [one.model_copy(update={"runs": one.runs[::-1]}) for one in nights]
    assert [one.model_dump_json() for one in _router(nights)] == [one.model_dump_json() for one in _router(turned)]


@settings(max_examples=100, deadline=None)
@given(st.data(), st.sampled_from(BACKENDS), st.booleans())
def test_a_worse_backend_beside_them_changes_no_choice(data: st.DataObject, worse: BackendName, fails: bool) -> None:
    """Slower than all by more than noise; or fast, and failing."""
    nights = data.draw(_nights([backend for backend in BACKENDS if backend != worse]))
    beside = []
    for one in nights:
        where = data.draw(st.lists(st.sampled_from(PHONES), unique=True))
        outcome, ms = ("fail", 0.1) if fails else ("pass", 4.5)
        added = [phone.run(worse, outcome=outcome, ms=ms, control_ms=None) for phone in where]
        beside.append(one.model_copy(update={"runs": (*one.runs, *added)}))
    for before, after in zip(_router(nights), _router(beside), strict=False):
        pairs = [(was, now) for was in before.models for now in after.models if was.model == now.model]
        for was, now in [*pairs, *zip(before.classes, after.classes, strict=True)]:
            assert was.choice in (None, now.choice)


def _router(nights: Sequence[Night], terms: Terms = Terms()) -> Sequence[TargetChoices]:  # noqa: B008 - frozen
    """Nothing where it was never asked."""
    asked = any(its.series.recipe == "router" for one in nights for its in one.runs)
    return portfolio(nights, terms).targets if asked else ()
