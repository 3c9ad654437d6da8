"""The parts of the calibrated methods, each against plain numpy in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slmc.errors import QuantizationError
from slmc.names import SCHEMES, Scheme
from slmc.quant.calibrated import gptq as roundings
from slmc.quant.calibrated.batches import TOKENS, make_batches
from slmc.quant.calibrated.files import read_tensors, write_tensors
from slmc.quant.calibrated.fold import POWERS, RANGE, column_scales
from slmc.quant.calibrated.gptq import Rounded, gptq, two_sided
from slmc.quant.calibrated.moments import DAMPING, FLAT, RIDGE, Moments, inverse_factor, metric
from slmc.quant.calibrated.results import Matrix, Results
from slmc.quant.calibration import Calibration, Sequence
from slmc.quant.rtn import quantize_rows
from slmc.quant.schemes import are_scales, dequantize

Float64 = npt.NDArray[np.float64]
G32, WIDE = SCHEMES["int4-g32"], SCHEMES["int8-g32"]
COLUMNS = 128
by_width = pytest.mark.parametrize("scheme", [G32, WIDE], ids=lambda scheme: scheme.name)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape, dtype=np.float32))


def inputs(count: int = 512, columns: int = COLUMNS, seed: int = 1) -> torch.Tensor:
    """Correlated, of different sizes, and more of them than columns."""
    mixed = random(columns, columns, seed=seed) / columns**0.5 + torch.eye(columns)
    return random(count, columns, seed=seed + 1) @ mixed * torch.linspace(0.3, 2, columns)


def moments_of(x: torch.Tensor) -> torch.Tensor:
    moments = Moments(x.shape[-1])
    moments.add(x, torch.ones(x.shape[:-1]))
    return moments.sum()


def double(tensor: torch.Tensor) -> Float64:
    found: Float64 = tensor.double().numpy()
    return found


def plainly(weights: torch.Tensor, scheme: Scheme) -> torch.Tensor:
    """Rounded to nearest and back."""
    return torch.from_numpy(dequantize(*quantize_rows(weights.numpy(), scheme)))


def output_error(found: torch.Tensor, weights: torch.Tensor, moments: torch.Tensor) -> float:
    """tr(E H Eᵀ)."""
    error = double(found) - double(weights)
    return float(np.einsum("rc,cd,rd->", error, double(moments), error))


# Moments.


@pytest.mark.parametrize("columns", [1, 7, 8, 64, 100])
def test_moments_are_the_weighted_sum_of_outer_products(columns: int) -> None:
    moments = Moments(columns, cross=True)
    wanted, cross = np.zeros((columns, columns)), np.zeros((columns, columns))
    for seed, shape in enumerate([(3, 11), (1, 40), (5, 2)]):
        x, other = random(*shape, columns, seed=seed), random(*shape, columns, seed=seed + 10)
        weights = torch.from_numpy(np.random.default_rng(seed).choice([0.0, 0.3, 1.0], shape).astype(np.float32))
        moments.add(x, weights, other)
        wanted += np.einsum("sl,sla,slb->ab", double(weights), double(x), double(x))
        cross += np.einsum("sl,sla,slb->ab", double(weights), double(x), double(other) - double(x))
    found = moments.sum()
    assert torch.equal(found, found.T)
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    np.testing.assert_allclose(moments.sum(), wanted, atol=1e-4)  # asking does not change it

    target = random(6, columns, seed=20)
    mean = np.trace(wanted) / columns
    shift = double(target) @ cross.T @ np.linalg.inv(wanted + RIDGE * mean * np.eye(columns))
    np.testing.assert_allclose(moments.shifted(target), double(target) + shift, atol=1e-4)


def test_moments_of_scaled_inputs_are_those_of_inputs_scaled_before() -> None:
    x, other, weights, columns = random(50, 24), random(50, 24, seed=1), random(50).abs(), random(24).abs() + 0.5
    after, before = Moments(24, cross=True), Moments(24, cross=True)
    after.add(x, weights, other)
    after.rescale(columns)
    before.add(x / columns, weights, other / columns)
    torch.testing.assert_close(after.sum(), before.sum())
    target = random(4, 24, seed=2)
    torch.testing.assert_close(after.shifted(target), before.shifted(target))


def test_what_weighs_nothing_is_not_looked_at() -> None:
    """Padding may hold anything."""
    x, weights = random(4, 16), torch.tensor([1.0, 0.0, 0.5, 0.0])
    moments, wanted = Moments(16, cross=True), Moments(16, cross=True)
    wanted.add(x[[0, 2]], weights[[0, 2]], 2 * x[[0, 2]])
    x[1], x[3] = torch.nan, torch.inf
    moments.add(x, weights, 2 * x)
    assert torch.equal(moments.sum(), wanted.sum())
    assert torch.equal(moments.shifted(random(3, 16)), wanted.shifted(random(3, 16)))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 1e30])
def test_activations_that_are_not_finite_are_told(value: float) -> None:
    x = random(4, 16)
    x[2, 5] = value
    moments = Moments(16)
    moments.add(x, torch.ones(4))
    with pytest.raises(QuantizationError, match="activations are not finite numbers"):
        moments.sum()


def test_weights_are_shifted_to_what_gives_the_wanted_outputs() -> None:
    """Inputs that lost a fifth of their size: the weights grow, but for what the ridge holds back."""
    wanted, target = inputs(), random(8, COLUMNS)
    arrived = 0.8 * wanted + 0.05 * random(*wanted.shape, seed=5)
    moments = Moments(COLUMNS, cross=True)
    moments.add(arrived, torch.ones(len(arrived)), wanted)
    before = (arrived @ target.T - wanted @ target.T).square().sum()
    after = (arrived @ moments.shifted(target).T - wanted @ target.T).square().sum()
    assert after < 0.5 * before
    same = Moments(COLUMNS, cross=True)
    same.add(wanted, torch.ones(len(wanted)), wanted)
    torch.testing.assert_close(same.shifted(target), target)


def test_weights_stay_where_nothing_fires() -> None:
    moments = Moments(16, cross=True)
    moments.add(torch.zeros(5, 16), torch.ones(5), random(5, 16))
    assert torch.equal(moments.shifted(random(3, 16)), random(3, 16))


# The factor.


def check_factor(moments: torch.Tensor, damping: float = DAMPING) -> torch.Tensor:
    """Uᵀ U (H + dI) = I, H scaled to a mean diagonal of 1 and columns that never fire counting as much."""
    upper = inverse_factor(moments)
    scaled = double(moments) / (np.trace(moments) / len(moments) or 1.0)
    np.fill_diagonal(scaled, np.where(scaled.diagonal() == 0, 1.0, scaled.diagonal()) + damping)
    assert torch.equal(upper, upper.triu())
    assert (upper.diagonal() > 0).all()
    product = double(upper).T @ double(upper) @ scaled
    np.testing.assert_allclose(product, np.eye(len(moments)), atol=2e-3)
    return upper


@pytest.mark.parametrize("size", [1e-12, 1.0, 1e12])
def test_the_factor_is_of_the_inverse(size: float) -> None:
    moments = moments_of(inputs()) * size
    before = moments.clone()
    check_factor(moments)
    assert torch.equal(moments, before)


@pytest.mark.parametrize(
    "moments",
    [
        pytest.param(torch.zeros(32, 32), id="nothing fires"),
        pytest.param(torch.outer(torch.linspace(-1, 1, 32), torch.linspace(-1, 1, 32)), id="rank one"),
        pytest.param(torch.ones(32, 32), id="all the same"),
        pytest.param(torch.diag(torch.tensor([0.0, 1e-3, 1.0, 1e3] * 8)), id="some never fire"),
    ],
)
def test_moments_that_have_no_inverse_of_their_own(moments: torch.Tensor) -> None:
    check_factor(moments)


def test_a_column_that_never_fires_is_on_its_own() -> None:
    x = inputs(columns=32)
    x[:, 7] = 0
    upper = check_factor(moments_of(x))
    assert not upper[7, 8:].any()
    assert not upper[:7, 7].any()


@pytest.mark.parametrize(("least", "damping"), [(-0.05, 0.1), (-0.5, 1.0), (-50, 100)])
def test_damping_grows_until_it_helps(least: float, damping: float) -> None:
    """Sums in float32 of inputs that are nearly alike can come out indefinite."""
    turn, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((24, 24)))
    values = np.array([least, *[(24 - least) / 23] * 23])  # a mean diagonal of 1
    moments = torch.from_numpy((turn * values) @ turn.T).float()
    check_factor((moments + moments.T) / 2, damping)


def test_moments_that_no_damping_helps() -> None:
    moments = torch.eye(16)
    moments[0, 1] = moments[1, 0] = 1e6
    with pytest.raises(QuantizationError, match="can't be inverted, even with a damping of 1000"):
        inverse_factor(moments)


def test_the_metric_is_a_factor_of_the_curvature_and_some_of_the_identity() -> None:
    curvature = moments_of(inputs(columns=32)) * 1e-6
    lower = metric(curvature)
    assert torch.equal(lower, lower.tril())
    wanted = double(curvature) * (1 - FLAT) / np.trace(double(curvature)) * 32 + FLAT * np.eye(32)
    np.testing.assert_allclose(double(lower) @ double(lower).T, wanted, atol=1e-5)
    torch.testing.assert_close(metric(torch.zeros(8, 8)), FLAT**0.5 * torch.eye(8))


def test_the_metric_of_next_to_nothing() -> None:
    """Where every answer is all but certain."""
    found = metric(1e-40 * torch.eye(8))
    torch.testing.assert_close(found / found[0, 0], torch.eye(8))


# GPTQ.


def published(weights: Float64, moments: Float64, scheme: Scheme) -> tuple[Float64, Float64]:
    """Codes and scales: a column after the other, and the inverse brought up to date each time (optimal brain
    surgery), without blocks or factors.
    """
    scaled = moments / moments.diagonal().mean()
    inverse = np.linalg.inv(scaled + DAMPING * np.eye(len(scaled)))
    left, codes, scales = weights.copy(), np.empty_like(weights), []
    for column in range(weights.shape[1]):
        if column % scheme.group_size == 0:
            group = left[:, column : column + scheme.group_size]
            scales.append(quantize_rows(np.ascontiguousarray(group, np.float32), scheme)[1][:, 0])
        codes[:, column] = np.clip(np.rint(left[:, column] / scales[-1]), scheme.lowest, scheme.highest)
        error = left[:, column] - codes[:, column] * scales[-1]
        left -= np.outer(error, inverse[column] / inverse[column, column])
        inverse -= np.outer(inverse[:, column], inverse[column]) / inverse[column, column]
    return codes, np.stack(scales, axis=1)


@pytest.mark.parametrize("name", ["int4-g32", "int4-g64", "int4-g128", "int8-g32"])
def test_the_codes_are_the_published_algorithms(name: str) -> None:
    scheme, weights, moments = SCHEMES[name], random(48, COLUMNS, seed=3), moments_of(inputs())
    before = weights.clone()
    found = gptq(weights, inverse_factor(moments), scheme)
    codes, scales = published(double(weights), double(moments), scheme)
    assert torch.equal(weights, before)
    assert np.mean(found.codes.numpy() == codes) > 0.995  # one near a tie changes those behind it
    assert np.mean(found.scales.numpy() == scales) > 0.99
    assert output_error(found.weights(), weights, moments) < 0.9 * output_error(
        plainly(weights, scheme), weights, moments
    )


@by_width
def test_without_correlations_it_is_plain_rounding(scheme: Scheme) -> None:
    weights = random(64, COLUMNS, seed=4)
    for moments in (torch.eye(COLUMNS), torch.zeros(COLUMNS, COLUMNS), torch.diag(random(COLUMNS).abs() + 0.1)):
        found = gptq(weights, inverse_factor(moments), scheme)
        codes, scales = quantize_rows(weights.numpy(), scheme)
        assert np.array_equal(found.codes.numpy(), codes)
        assert np.array_equal(found.scales.numpy(), scales)
        assert torch.equal(found.wanted, weights)
        assert torch.equal(found.weights(), plainly(weights, scheme))


@settings(deadline=None)  # the machine may be busy
@given(seed=st.integers(0, 2**32 - 1), scheme=st.sampled_from([G32, WIDE]))
def test_it_loses_less_than_plain_rounding(seed: int, scheme: Scheme) -> None:
    weights, x = random(16, 64, seed=seed), inputs(200, 64, seed=seed)
    moments = moments_of(x)
    found = gptq(weights, inverse_factor(moments), scheme)
    assert output_error(found.weights(), weights, moments) < output_error(plainly(weights, scheme), weights, moments)


def test_the_codes_are_of_what_was_wanted() -> None:
    """The weights with the errors before them made good, rounded at the scales: what learning starts from."""
    weights, scheme = random(32, COLUMNS), G32
    found = gptq(weights, inverse_factor(moments_of(inputs())), scheme)
    steps = found.scales.repeat_interleave(scheme.group_size, 1)
    assert torch.equal((found.wanted / steps).round().clamp(scheme.lowest, scheme.highest), found.codes)
    assert torch.equal(found.codes * steps, found.weights())
    assert torch.equal(found.wanted[:, 0], weights[:, 0])
    assert not torch.equal(found.wanted[:, 1:], weights[:, 1:])


def test_columns_go_in_their_storage_order() -> None:
    """Each makes good what those before it lost, even where those behind it count for far more."""
    weights, x = random(32, 64), inputs(columns=64)
    moments = moments_of(x * torch.linspace(0.1, 10, 64))
    found = gptq(weights, inverse_factor(moments), G32)
    codes, _ = published(double(weights), double(moments), G32)
    assert np.mean(found.codes.numpy() == codes) > 0.995
    assert torch.equal(found.scales[:, :1], torch.from_numpy(quantize_rows(weights[:, :32].numpy().copy(), G32)[1]))


def outlier(weights: torch.Tensor) -> None:
    weights[3, 40] = 1e4
    weights[4, 0] = -1e4


def nothing(weights: torch.Tensor) -> None:
    weights.zero_()


def some_zero(weights: torch.Tensor) -> None:
    weights[2, 32:64] = 0
    weights[5] = 0


def tiny(weights: torch.Tensor) -> None:
    weights.mul_(1e-30)


def on_the_grid(weights: torch.Tensor) -> None:
    weights.copy_(weights.round())


@by_width
@pytest.mark.parametrize("change", [outlier, nothing, some_zero, tiny, on_the_grid])
@pytest.mark.parametrize("lower", [None, metric(moments_of(inputs(columns=20)))])
def test_the_contract_holds_for_any_weights(
    scheme: Scheme, change: Callable[[torch.Tensor], None], lower: torch.Tensor | None
) -> None:
    weights, factor = random(20, 64), inverse_factor(moments_of(inputs(columns=64)))
    change(weights)
    found = gptq(weights, factor, scheme) if lower is None else two_sided(weights, factor, scheme, lower)
    assert found.codes.shape == weights.shape
    assert found.scales.shape == (20, 64 // scheme.group_size)
    assert torch.equal(found.codes, found.codes.round())
    assert found.codes.min() >= scheme.lowest
    assert found.codes.max() <= scheme.highest
    assert are_scales(found.scales.numpy())
    assert torch.isfinite(found.weights()).all()
    if change is nothing:
        assert not found.codes.any()
        assert (found.scales == 1).all()
    elif change is not some_zero:
        assert np.linalg.norm(double(found.weights()) - double(weights)) < 0.3 * np.linalg.norm(double(weights))


# Rows that take up one another's errors.


def metric_error(found: torch.Tensor, weights: torch.Tensor, lower: torch.Tensor, moments: torch.Tensor) -> float:
    """|Lᵀ E R|², R Rᵀ being the moments."""
    error = double(lower).T @ (double(found) - double(weights))
    return float(np.einsum("rc,cd,rd->", error, double(moments), error))


@pytest.mark.parametrize("rows", [1, 5, 16, 40])
def test_where_rows_count_alike_each_is_on_its_own(rows: int) -> None:
    weights, factor = random(rows, COLUMNS), inverse_factor(moments_of(inputs()))
    found, wanted = two_sided(weights, factor, G32, 0.7 * torch.eye(rows)), gptq(weights, factor, G32)
    assert torch.equal(found.codes, wanted.codes)
    assert torch.equal(found.scales, wanted.scales)
    assert torch.equal(found.wanted, wanted.wanted)


@pytest.mark.parametrize("rows", [48, 53, 64])
@pytest.mark.parametrize("seed", range(4))
def test_rows_take_up_one_anothers_errors(rows: int, seed: int) -> None:
    weights, moments = random(rows, 64, seed=seed), moments_of(inputs(columns=64, seed=seed))
    lower = metric(moments_of(inputs(columns=rows, seed=seed + 50)))
    factor = inverse_factor(moments)
    one, both = gptq(weights, factor, G32), two_sided(weights, factor, G32, lower)
    assert metric_error(both.weights(), weights, lower, moments) < 0.95 * metric_error(
        one.weights(), weights, lower, moments
    )


def test_what_rows_aim_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """One row at a time: what lies behind a row is made good as far as the metric couples it to that row."""
    monkeypatch.setattr(roundings, "ROWS", 1)
    weights, factor = random(6, 64), inverse_factor(moments_of(inputs(columns=64)))
    lower = metric(moments_of(inputs(columns=6)))
    found = two_sided(weights, factor, G32, lower)
    coupled, errors = double(lower), double(found.weights()) - double(weights)
    for row in reversed(range(6)):
        aim = double(weights)[row] - coupled[row + 1 :, row] @ errors[row + 1 :] / coupled[row, row]
        wanted = gptq(torch.from_numpy(aim[None].astype(np.float32)), factor, G32)
        assert np.mean((wanted.codes == found.codes[row]).numpy()) > 0.95


# Scales of columns that a norm takes over.


def folded_error(scales: torch.Tensor, weights: torch.Tensor, moments: torch.Tensor, scheme: Scheme = G32) -> float:
    """Of the outputs, once the matrix behind the scaled norm is rounded."""
    factor = inverse_factor(moments / scales[:, None] / scales)
    return output_error(gptq(weights * scales, factor, scheme).weights() / scales, weights, moments)


def loud_inputs() -> torch.Tensor:
    """One column is a thousand times larger than it was."""
    x = inputs()
    x[:, 17] *= 1000
    return x


def test_one_large_input_gets_finer_steps() -> None:
    moments = moments_of(loud_inputs())
    matrices = [random(96, COLUMNS, seed=seed) for seed in (1, 2)]
    scales = column_scales(moments, [(one, G32) for one in matrices])
    assert scales is not None
    assert scales.argmax() == 17
    assert torch.isfinite(scales).all()
    assert (scales > 0).all()
    assert (scales.log() - scales.log().mean()).abs().max() <= 2 * np.log(RANGE)
    ones = torch.ones(COLUMNS)
    for one in matrices:
        assert folded_error(scales, one, moments) < 0.9 * folded_error(ones, one, moments)


def test_norm_and_matrix_together_are_as_before() -> None:
    weights, norm = random(96, COLUMNS), random(COLUMNS, seed=9)
    scales = column_scales(moments_of(loud_inputs()), [(weights, G32)])
    assert scales is not None
    torch.testing.assert_close((norm / scales) * (weights * scales), norm * weights, rtol=1e-6, atol=0)


def test_inputs_of_one_size_need_no_scales() -> None:
    assert column_scales(torch.eye(COLUMNS), [(random(64, COLUMNS), G32)]) is None


@by_width
@pytest.mark.parametrize("seed", range(3))
def test_scales_never_make_it_worse(seed: int, scheme: Scheme) -> None:
    """All rows are tried here."""
    weights, x = random(64, COLUMNS, seed=seed), inputs(seed=seed) * torch.logspace(-1, 1, COLUMNS)
    moments = moments_of(x)
    scales = column_scales(moments, [(weights, scheme)])
    error = folded_error(torch.ones(COLUMNS), weights, moments, scheme)
    assert scales is None or folded_error(scales, weights, moments, scheme) < error


def test_columns_that_never_fire_keep_their_scale() -> None:
    x, weights = loud_inputs(), random(64, COLUMNS)
    x[:, [3, 90]] = 0
    scales = column_scales(moments_of(x), [(weights, G32)])
    assert scales is not None
    assert scales[[3, 90]].tolist() == [1, 1]
    assert column_scales(torch.zeros(COLUMNS, COLUMNS), [(weights, G32)]) is None


def test_scales_are_a_power_of_the_inputs_sizes() -> None:
    moments = moments_of(loud_inputs())
    scales = column_scales(moments, [(random(64, COLUMNS), G32)])
    assert scales is not None
    sizes = np.sqrt(double(moments).diagonal())
    tried = [sizes**power / np.exp(np.log(sizes**power).mean()) for power in POWERS]
    assert any(np.allclose(scales, one, rtol=1e-4) for one in tried[1:])


# What is found, on disk.


def some_results() -> Results:
    factor = inverse_factor(moments_of(inputs(columns=64)))
    one, other = (Matrix.of(gptq(random(rows, 64, seed=rows), factor, G32)) for rows in (48, 16))
    return Results({"a.b.weight": one, "c.weight": other}, {"norm.weight": random(64)})


def test_results_come_back_from_the_disk(tmp_path: Path) -> None:
    wanted = some_results()
    wanted.save(tmp_path / "layer.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["layer.safetensors"]
    found = Results.load(tmp_path / "layer.safetensors")
    assert set(found.matrices) == set(wanted.matrices)
    for name, matrix in found.matrices.items():
        assert matrix.codes.dtype == torch.int8
        assert torch.equal(matrix.codes, wanted.matrices[name].codes)
        assert torch.equal(matrix.scales, wanted.matrices[name].scales)
    assert set(found.norms) == {"norm.weight"}
    assert torch.equal(found.norms["norm.weight"], wanted.norms["norm.weight"])


def test_no_results_are_results_too(tmp_path: Path) -> None:
    """Of a layer that is kept whole."""
    Results({}).save(tmp_path / "layer.safetensors")
    found = Results.load(tmp_path / "layer.safetensors")
    assert not found.matrices
    assert not found.norms


def test_blocks_and_rows_of_a_matrix() -> None:
    rounded = gptq(random(48, 64), inverse_factor(moments_of(inputs(columns=64))), G32)
    whole = Matrix.of(rounded)
    parts = [Matrix(whole.codes[part], whole.scales[part]) for part in (slice(0, 20), slice(20, 48))]
    stacked = Matrix.stacked(parts)
    assert torch.equal(stacked.codes, whole.codes)
    assert torch.equal(stacked.scales, whole.scales)
    ids = torch.tensor([[3, 47], [3, 0], [21, 1]])
    assert torch.equal(whole.rows(ids), rounded.weights()[ids])


@pytest.mark.parametrize("when", ["writing", "renaming"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_a_file_is_whole_or_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str, error: type[BaseException]
) -> None:
    path, write = tmp_path / "tensors.safetensors", Path.write_bytes

    def half(self: Path, data: bytes) -> int:
        write(self, data[: len(data) // 2])
        raise error

    def stopped(self: Path, target: Path) -> Path:
        raise error

    for before in (None, {"a": random(3)}):
        if before is not None:
            write_tensors(path, before)
        with monkeypatch.context() as patched:
            patched.setattr(Path, *(("write_bytes", half) if when == "writing" else ("rename", stopped)))
            with pytest.raises(error):
                write_tensors(path, {"a": random(100), "b": random(5)})
        if before is None:
            assert not path.exists()
        else:
            assert torch.equal(read_tensors(path)["a"], before["a"])
    write_tensors(path, {"a": random(100)})  # what was left half-written is in nobody's way
    assert torch.equal(read_tensors(path)["a"], random(100))
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


def test_any_view_can_be_written(tmp_path: Path) -> None:
    whole = random(6, 8)
    tensors: Mapping[str, torch.Tensor] = {"turned": whole.T, "column": whole[:, 3]}
    write_tensors(tmp_path / "views.safetensors", tensors)
    for name, found in read_tensors(tmp_path / "views.safetensors").items():
        assert torch.equal(found, tensors[name])


# Batches.

sequences = st.builds(
    lambda length, prompt, first: Sequence(tuple(range(first, first + length)), min(prompt, length - 1)),
    length=st.one_of(st.integers(2, 40), st.integers(2, TOKENS + 100)),
    prompt=st.integers(1, 60),
    first=st.integers(0, 1000),
)


@settings(deadline=None)
@given(found=st.lists(sequences, min_size=1, max_size=30), prompt=st.sampled_from([0.0, 0.3, 1.0, 2.5]))
def test_every_sequence_is_in_one_batch(found: list[Sequence], prompt: float) -> None:
    """But for its last token, after which nothing is asked."""
    rows = []
    for batch in make_batches(Calibration(tuple(found))):
        assert batch.ids.dtype == torch.int64
        assert batch.ids.shape == batch.there.shape == batch.answers.shape
        assert batch.ids.numel() <= TOKENS or len(batch.ids) == 1
        rows += list(zip(batch.ids.tolist(), batch.there, batch.answers, batch.weights(prompt), strict=True))
    seen = []
    for ids, there, answers, weights in rows:
        length, first = int(there.sum()), int(answers.nonzero()[0])
        seen.append((tuple(ids[:length]), first + 1))
        positions = torch.arange(len(ids))
        assert torch.equal(there, positions < length)
        assert torch.equal(answers, there & (positions >= first))
        assert torch.equal(weights, torch.where(answers, 1.0, torch.where(there, torch.tensor(prompt), 0.0)))
    assert sorted(seen) == sorted((one.ids[:-1], one.prompt) for one in found)


def test_sequences_of_like_lengths_are_together() -> None:
    lengths = [3, 500, 4, 500, 3, 501, 4, 502] * 4
    batches = make_batches(Calibration(tuple(Sequence((1,) * length, 1) for length in lengths)))
    assert sum(batch.ids.numel() for batch in batches) < 1.02 * sum(lengths)


def test_rounded_weights_are_codes_times_scales() -> None:
    rounded = Rounded(torch.tensor([[1.0, -2, 3, 4]]), torch.tensor([[0.5, 2.0]]), torch.zeros(1, 4))
    assert rounded.weights().tolist() == [[0.5, -1.0, 6.0, 8.0]]
