"""Methods that look at activations, on tiny random models: against transformers, and by what they lose."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from slmc.architecture import EMBEDDING, HEAD
from slmc.artifacts import MergedCheckpoint, QuantizedCheckpoint
from slmc.checkpoint.reader import open_checkpoint
from slmc.errors import QuantizationError
from slmc.models.decoder import matrices
from slmc.names import SCHEMES, Bits, SchemeName
from slmc.quant.budget import Matrix, widened
from slmc.quant.calibration import Calibration, Order, Sequence
from slmc.quant.decisions import decide
from slmc.quant.imported import merged_reader
from slmc.quant.quantizer import quantize
from slmc.quant.readback import read_back
from slmc.quant.reader import QuantizedReader, open_quantized
from slmc.quant.rtn import quantize_rows
from slmc.quant.schemes import dequantize
from slmc.quant.table import TensorRow, read_table
from slmc.quant.writer import FOLDED
from slmc.runners.torch_model import load

from .test_tvm import MODELS

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
learning = pytest.importorskip("slmc.quant.calibrated.learn")
backwards = pytest.importorskip("slmc.quant.calibrated.backwards")
surveys = pytest.importorskip("slmc.quant.calibrated.survey")
batches = pytest.importorskip("slmc.quant.calibrated.batches")
jobs = pytest.importorskip("slmc.quant.calibrated.job")
layers = pytest.importorskip("slmc.quant.calibrated.layer")
runs = pytest.importorskip("slmc.quant.calibrated.run")
embed = pytest.importorskip("slmc.quant.calibrated.embed")
spills = pytest.importorskip("slmc.quant.calibrated.spill")
ends = pytest.importorskip("slmc.quant.calibrated.ends")
roundings = pytest.importorskip("slmc.quant.calibrated.gptq")
moments = pytest.importorskip("slmc.quant.calibrated.moments")
pytestmark = [pytest.mark.build, pytest.mark.filterwarnings("ignore::DeprecationWarning")]  # in the libraries
torch.set_num_threads(1)  # tiny tensors: threads only wait for each other

G32 = SCHEMES["int4-g32"]
VOCABULARY = 300
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
FAMILIES = {
    "llama": MODELS["llama"],
    "qwen2": (transformers.Qwen2Config, {"tie_word_embeddings": False}),
    "qwen3": (transformers.Qwen3Config, {"head_dim": 32, "tie_word_embeddings": True}),
}


@dataclass(frozen=True)
class Case:
    model: torch.nn.Module
    """In float32."""
    merged: MergedCheckpoint


Change = Callable[[Mapping[str, torch.Tensor]], object]


def as_it_is(weights: Mapping[str, torch.Tensor]) -> None:
    pass


def make_case(family: str, folder: Path, change: Change = as_it_is, **more: object) -> Case:
    """In bf16: norms and biases off their neutral values, and logits of some size. `change` has the last word."""
    torch.manual_seed(3)
    kind, own = FAMILIES[family]
    model = transformers.AutoModelForCausalLM.from_config(kind(**(SMALL | own | more)), dtype=torch.float32).eval()
    with torch.no_grad():
        for name, weights in model.named_parameters():
            weights += 0.06 * torch.randn_like(weights)
            if "norm" in name:
                weights *= torch.exp(0.3 * torch.randn_like(weights))
        for end in {model.model.embed_tokens.weight, model.lm_head.weight}:
            end *= 3
        change(dict(model.named_parameters()))
    model.bfloat16().save_pretrained(folder)
    (folder / "tokenizer.json").write_text("{}")
    found = open_checkpoint(folder)
    return Case(reference(folder), MergedCheckpoint(found.folder, found.architecture, found.digest))


def reference(folder: Path) -> torch.nn.Module:
    """Transformers' own, in float32 (a model turned from bf16 has frequencies of rope that were rounded)."""
    found: torch.nn.Module = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return found


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    return {family: make_case(family, tmp_path_factory.mktemp(family)) for family in FAMILIES}


@pytest.fixture(params=FAMILIES)
def case(request: pytest.FixtureRequest, cases: dict[str, Case]) -> Case:
    return cases[request.param]


def sequences(count: int, seed: int, shortest: int = 12, longest: int = 25) -> tuple[Sequence, ...]:
    """A few tokens often and most of them seldom, as in text."""
    random, found = np.random.default_rng(seed), []
    for length in random.integers(shortest, longest, count):
        ids = tuple(int(token) for token in np.minimum(random.zipf(1.3, length), VOCABULARY) * 7 % VOCABULARY)
        found.append(Sequence(ids, int(length) - int(random.integers(2, 6))))
    return tuple(found)


LEARNED_FROM, JUDGED_BY = Calibration(sequences(64, seed=1)), sequences(48, seed=2)


def answered(sequence: Sequence) -> list[int]:
    """Where the model is to say the answer's next token."""
    return list(range(sequence.prompt - 1, len(sequence.ids) - 1))


def quantize_case(
    case: Case,
    root: Path,
    method: str = "gptq",
    *,
    budget: float | None = None,
    keep: tuple[str, ...] = (),
    bits: Mapping[str, Bits] | None = None,
    calibration: Calibration = LEARNED_FROM,
    scheme: SchemeName = "int4-g32",
    seed: int = 0,
) -> QuantizedCheckpoint:
    """Into root/quantized, from root/scratch on."""
    scratch, out = root / "scratch", root / "quantized"
    scratch.mkdir(parents=True, exist_ok=True)
    out.mkdir(exist_ok=True)
    order = Order(method, budget, matrices(case.merged.architecture), seed)
    runs.quantize_calibrated(case.merged, SCHEMES[scheme], keep, bits or {}, order, calibration, scratch, out)
    return open_quantized(out)


def in_torch(quantized: QuantizedCheckpoint) -> torch.nn.Module:
    found: torch.nn.Module = load(quantized.folder, "cpu").model
    return found


def rows_of(quantized: QuantizedCheckpoint) -> dict[str, TensorRow]:
    return {row.name: row for row in read_table(quantized.folder).tensors}


@torch.inference_mode()
def logits(model: torch.nn.Module, sequence: Sequence) -> torch.Tensor:
    found: torch.Tensor = model(torch.tensor([sequence.ids])).logits[0]
    return found


def divergence(wanted: torch.nn.Module, found: torch.nn.Module, asked: tuple[Sequence, ...] = JUDGED_BY) -> float:
    """Mean KL in nats a token of the answers."""
    nats = []
    for one in asked:
        positions = answered(one)
        p, q = (torch.log_softmax(logits(model, one)[positions].double(), -1) for model in (wanted, found))
        nats += (p.exp() * (p - q)).sum(-1).tolist()
    return float(np.mean(nats))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# Layers and their stages.


@contextmanager
def make_job(
    case: Case, scratch: Path, *, tuned: bool = False, learned: Calibration = LEARNED_FROM
) -> Iterator[object]:
    config = transformers.AutoConfig.from_pretrained(case.merged.folder)
    with merged_reader(case.merged) as reader:
        yield jobs.Job(
            reader=reader,
            architecture=case.merged.architecture,
            model=layers.LayerModel(reader, case.merged.architecture, config),
            batches=batches.make_batches(learned),
            schemes={one.spec.name: G32 for one in decide(case.merged.architecture, G32, ()) if one.scheme},
            tuned=tuned,
            prompt_weight=1.0,
            seed=0,
            scratch=scratch,
        )


def test_layers_one_by_one_give_transformers_logits(case: Case, tmp_path: Path) -> None:
    """By whole layers and by their stages, in padded batches."""
    head = case.model.lm_head.weight
    with make_job(case, tmp_path) as job, torch.inference_mode():
        model = job.model
        for batch in job.batches:
            whole = by_stages = embed.embedded(job.reader, batch.ids)
            for layer in range(case.merged.architecture.layers):
                module = model.load(layer)
                whole = model.whole(module, whole)
                carried = layers.Carried(by_stages, by_stages)
                for stage, names in layers.STAGES.items():
                    carried = model.advance(module, stage, carried)
                    assert {module.get_submodule(name).in_features for name in names} == {carried.inputs.shape[-1]}
                by_stages = model.finish(module, carried)
            torch.testing.assert_close(by_stages, whole)
            found = model.final_norm()(whole) @ head.T
            for ids, there, row in zip(batch.ids, batch.there, found, strict=True):
                wanted = case.model(ids[None, there]).logits[0]
                torch.testing.assert_close(row[there], wanted, atol=1e-4, rtol=1e-4)


def test_a_layer_with_other_weights(case: Case, tmp_path: Path) -> None:
    name, hidden = "mlp.up_proj", torch.randn(2, 9, 64, generator=torch.Generator().manual_seed(0))
    with make_job(case, tmp_path) as job, torch.inference_mode():
        module = job.model.load(1)
        halved = module.get_parameter(f"{name}.weight") / 2
        before, found = job.model.whole(module, hidden), job.model.whole(module, hidden, {f"{name}.weight": halved})
        assert torch.equal(job.model.whole(module, hidden), before)
        module.get_parameter(f"{name}.weight").copy_(halved)
        torch.testing.assert_close(found, job.model.whole(module, hidden))
        assert not torch.allclose(found, before)


# What the answers depend on.


def exact_curvatures(model: torch.nn.Module, asked: tuple[Sequence, ...]) -> dict[str, torch.Tensor]:
    """Fisher's information at the outputs of modules, over all positions, by transformers' own code."""
    outputs: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(_: torch.nn.Module, inputs: object, output: torch.Tensor | tuple[torch.Tensor, ...]) -> None:
            outputs[name] = output if isinstance(output, torch.Tensor) else output[0]

        return hook

    wanted = (torch.nn.Linear, torch.nn.Embedding, type(model.model.layers[0]))
    hooks = [
        module.register_forward_hook(keep(name))
        for name, module in model.named_modules()
        if isinstance(module, wanted) and name != "lm_head"
    ]
    found: dict[str, torch.Tensor] = {}
    for one in asked:
        told = model(torch.tensor([one.ids])).logits[0, answered(one)]
        names = list(outputs)
        for position, values in enumerate(told):
            p = torch.softmax(values.detach(), -1)
            # v has the covariance diag p - p pᵀ: the square of this.
            spread = torch.diag(p.sqrt()) - torch.outer(p, p.sqrt())
            asking = torch.zeros(len(p), *told.shape)
            asking[:, position] = spread.T
            tensors = [outputs[name] for name in names]
            gradients = torch.autograd.grad(told, tensors, asking, retain_graph=True, is_grads_batched=True)
            for name, gradient in zip(names, gradients, strict=True):
                flat = gradient.flatten(0, -2)
                found[name] = found.get(name, torch.zeros(flat.shape[-1], flat.shape[-1])) + flat.T @ flat
    for hook in hooks:
        hook.remove()
    return found


def far(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


def test_the_survey_is_fishers_information(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surveys, "DRAWS", 200)
    asked = LEARNED_FROM.sequences[:6]
    with make_job(case, tmp_path, tuned=True, learned=Calibration(asked)) as job:
        found = surveys.survey(job, gains=False)
        curvatures = [found.curvatures(layer) for layer in range(case.merged.architecture.layers)]
    exact = exact_curvatures(case.model, asked)
    assert far(found.embedding, exact.pop("model.embed_tokens")) < 0.2
    assert {len(one) for one in curvatures} == {len(exact) // len(curvatures)}
    for layer, one in enumerate(curvatures):
        for name, curvature in one.items():
            place = f"model.layers.{layer}" + ("" if name == backwards.OUTPUT else f".{name}")
            wanted = exact[place]
            assert torch.equal(curvature, curvature.T)
            assert far(curvature / curvature.trace(), wanted / wanted.trace()) < 0.2
    read, doubts = torch.zeros(64, 64), []
    with torch.inference_mode():
        for sequence in asked:
            hidden = case.model.model(torch.tensor([sequence.ids]))[0][0, answered(sequence)]
            p = torch.softmax(hidden @ case.model.lm_head.weight.T, -1)
            doubts.append((p * (1 - p)).sum(-1))
            read += (hidden * doubts[-1].sqrt()[:, None]).T @ hidden
    doubt = torch.cat(doubts)
    wanted = read * doubt.sum() / doubt.sqrt().sum() / VOCABULARY
    torch.testing.assert_close(found.head, wanted, rtol=1e-3, atol=1e-6)
    assert found.tokens == sum(len(answered(sequence)) for sequence in asked)


@contextmanager
def with_weights(model: torch.nn.Module, weights: Mapping[str, torch.Tensor]) -> Iterator[torch.nn.Module]:
    """The model with other weights for as long as the block lasts."""
    before = {name: model.get_parameter(name).detach().clone() for name in weights}
    for chosen in (weights, before):
        with torch.no_grad():
            for name, values in chosen.items():
                model.get_parameter(name).copy_(values)
        if chosen is weights:
            yield model


def rounded_to(bits: Bits, weights: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(dequantize(*quantize_rows(weights.detach().numpy(), G32.with_bits(bits))))


def test_what_eight_bits_are_said_to_save_is_what_they_save(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One matrix rounded and everything else as it was: what 4 bits cost, less what 8 bits do."""
    monkeypatch.setattr(surveys, "DRAWS", 24)
    asked = LEARNED_FROM.sequences[:40]
    with make_job(case, tmp_path, learned=Calibration(asked)) as job:
        found = surveys.survey(job, gains=True)
    unrounded = reference(case.merged.folder)
    for names in matrices(case.merged.architecture):
        costs = {}
        for bits in (4, 8):
            changed = {name: rounded_to(bits, case.model.get_parameter(name)) for name in names}
            with with_weights(case.model, changed) as model:
                costs[bits] = divergence(unrounded, model, asked)
        ratio = found.gain(names) / (costs[4] - costs[8])
        assert 0.8 < ratio < 1.25, names


# Whole checkpoints.


@pytest.fixture(scope="module")
def made(cases: dict[str, Case], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., QuantizedCheckpoint]:
    """A family's checkpoint by a method and within a limit, made once."""
    there: dict[tuple[object, ...], QuantizedCheckpoint] = {}

    def find(family: str, method: str, budget: float | None = None) -> QuantizedCheckpoint:
        key = (family, method, budget)
        if key not in there:
            there[key] = quantize_case(cases[family], tmp_path_factory.mktemp("made"), method, budget=budget)
        return there[key]

    return find


@pytest.fixture(scope="module")
def plain(cases: dict[str, Case], tmp_path_factory: pytest.TempPathFactory) -> dict[str, QuantizedCheckpoint]:
    """Each family rounded to nearest without a look at anything."""
    there = {}
    for family, case in cases.items():
        out = tmp_path_factory.mktemp("plain")
        quantize(case.merged, G32, (), out, lambda _: None)
        there[family] = open_quantized(out)
    return there


WAYS = [("gptq", None), ("tuned", None), ("rtn", 5.0), ("gptq", 5.0), ("tuned", 5.0)]
by_family = pytest.mark.parametrize("family", FAMILIES)
by_way = pytest.mark.parametrize(("method", "budget"), WAYS)


@by_family
@by_way
def test_every_tensor_is_as_far_as_the_table_tells(
    family: str, method: str, budget: float | None, cases: dict[str, Case], made: Callable[..., QuantizedCheckpoint]
) -> None:
    quantized, merged = made(family, method, budget), cases[family].merged
    rows = rows_of(quantized)
    compared = dict(read_back(merged, quantized))
    assert all(compared.values())
    norms = {row.folded for row in rows.values() if row.folded}
    assert set(compared) == set(rows) - norms
    for row in rows.values():
        matrix = row.role in ("linear", "embedding", "head")
        assert (row.method, row.kept is None) == ((method, True) if matrix else (None, False))
        assert (row.kept == FOLDED) == (row.name in norms)
        assert (row.gain is not None) == (matrix and budget is not None)
        if matrix:
            assert row.relative_error is not None
            assert 0 < row.relative_error < (0.05 if row.bits_per_weight < 8 else 0.005)
    assert open_checkpoint(merged.folder).digest == merged.digest


@by_family
def test_each_method_loses_less_than_the_one_before(
    family: str,
    cases: dict[str, Case],
    plain: dict[str, QuantizedCheckpoint],
    made: Callable[..., QuantizedCheckpoint],
) -> None:
    """On other sequences than those that were learned from."""
    model = cases[family].model
    rounded = divergence(model, in_torch(plain[family]))
    lost = {way: divergence(model, in_torch(made(family, *way))) for way in WAYS}
    assert lost["gptq", None] < 0.7 * rounded
    assert lost["tuned", None] < 0.75 * lost["gptq", None]
    assert lost["rtn", 5.0] < 0.97 * rounded
    assert lost["tuned", 5.0] > 1e-4  # the measure measures


def test_a_budget_buys_something_from_every_method(
    cases: dict[str, Case], made: Callable[..., QuantizedCheckpoint]
) -> None:
    """Over all families: what a single rounding loses is a matter of luck to some percent."""
    for method in ("gptq", "tuned"):
        four, more = (
            sum(divergence(case.model, in_torch(made(family, method, budget))) for family, case in cases.items())
            for budget in (None, 5.0)
        )
        assert more < 0.97 * four


@by_family
@pytest.mark.parametrize("method", ["rtn", "gptq", "tuned"])
def test_a_limit_is_kept_and_spent(
    family: str, method: str, cases: dict[str, Case], made: Callable[..., QuantizedCheckpoint]
) -> None:
    rows = {name: row for name, row in rows_of(made(family, method, 5.0)).items() if row.scheme}
    weights = {name: row.shape[0] * row.shape[1] for name, row in rows.items()}
    used = sum(rows[name].bits_per_weight * count for name, count in weights.items())
    assert used <= 5.0 * sum(weights.values())
    gains, wide = {}, set()
    for names in matrices(cases[family].merged.architecture):
        [bits], [gain] = ({getattr(rows[name], key) for name in names} for key in ("bits_per_weight", "gain"))
        assert gain > 0
        gains[names] = gain
        if bits == 8.5:
            wide.add(names)
    sizes = {names: sum(weights[name] for name in names) for names in gains}
    asked = [Matrix(names, sizes[names], 4.5, 8.5, gains[names]) for names in gains]
    assert wide == {one.names for one in widened(asked, 5.0)}
    assert wide


def test_a_limit_that_allows_all_and_one_that_allows_nothing(cases: dict[str, Case], tmp_path: Path) -> None:
    case = cases["qwen3"]
    for budget, bits in ((8.5, 8.5), (4.5, 4.5)):
        rows = rows_of(quantize_case(case, tmp_path / str(budget), "rtn", budget=budget))
        assert {row.bits_per_weight for row in rows.values() if row.scheme} == {bits}
    quantize(case.merged, G32, (), tmp_path, lambda _: None)
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "4.5" / "quantized" / name).read_bytes()


# Scales folded into norms.


def loud(weights: Mapping[str, torch.Tensor]) -> None:
    """One input of the first layer's attention and of the last layer's MLP is far larger than all others."""
    for name, column in (("0.input_layernorm", 5), ("1.post_attention_layernorm", 40)):
        weights[f"model.layers.{name}.weight"][column] = 100.0
    weights["model.layers.0.self_attn.q_proj.weight"][:, 5] /= 50
    weights["model.layers.0.self_attn.k_proj.weight"][:, 5] /= 50
    weights["model.layers.1.mlp.gate_proj.weight"][:, 40] /= 50


@pytest.fixture(scope="module")
def loud_case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return make_case("llama", tmp_path_factory.mktemp("loud"), loud)


@pytest.fixture(scope="module", params=["gptq", "tuned"])
def folded(
    request: pytest.FixtureRequest, loud_case: Case, tmp_path_factory: pytest.TempPathFactory
) -> QuantizedCheckpoint:
    return quantize_case(loud_case, tmp_path_factory.mktemp("folded"), request.param)


def unfolded(case: Case, quantized: QuantizedCheckpoint) -> dict[str, torch.Tensor]:
    """Norms as the quantized checkpoint has them, and the unquantized matrices behind each with its columns scaled."""
    weights: dict[str, torch.Tensor] = {}
    with QuantizedReader(quantized.folder) as reader:
        for row in rows_of(quantized).values():
            if row.folded:
                weights[row.folded] = torch.from_numpy(reader.plain(row.folded))
                scales = case.model.get_parameter(row.folded) / weights[row.folded]
                weights[row.name] = (case.model.get_parameter(row.name) * scales).detach()
    return weights


def test_a_folded_norm_and_what_it_scales_give_the_same_logits(loud_case: Case, folded: QuantizedCheckpoint) -> None:
    scaled = unfolded(loud_case, folded)
    assert "model.layers.0.input_layernorm.weight" in scaled
    assert "model.layers.1.post_attention_layernorm.weight" in scaled
    wanted = [logits(loud_case.model, one) for one in JUDGED_BY[:8]]
    with with_weights(loud_case.model, scaled) as model:
        for one, before in zip(JUDGED_BY[:8], wanted, strict=True):
            torch.testing.assert_close(logits(model, one), before, atol=2e-3, rtol=1e-4)
    assert torch.equal(logits(loud_case.model, JUDGED_BY[0]), wanted[0])


def test_a_loud_input_gets_finer_steps(loud_case: Case, folded: QuantizedCheckpoint) -> None:
    """Its norm is made smaller, its column larger."""
    rows = rows_of(folded)
    with QuantizedReader(folded.folder) as reader:
        for norm, column in (("0.input_layernorm", 5), ("1.post_attention_layernorm", 40)):
            name = f"model.layers.{norm}.weight"
            scales = loud_case.model.get_parameter(name).detach() / torch.from_numpy(reader.plain(name))
            assert (scales > 0).all()
            assert scales.argmax() == column
            assert (rows[name].kept, rows[name].bits_per_weight) == (FOLDED, 32)
    assert rows["model.layers.0.self_attn.o_proj.weight"].folded is None
    assert rows["model.layers.1.mlp.down_proj.weight"].folded is None
    behind = {name.rpartition(".self_attn.")[0] for name, row in rows.items() if "_layernorm" in (row.folded or "")}
    assert behind


def test_folding_loses_less(loud_case: Case, folded: QuantizedCheckpoint, tmp_path: Path) -> None:
    method = rows_of(folded)[HEAD].method
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("slmc.quant.calibrated.stream.column_scales", lambda *_: None)
        without = quantize_case(loud_case, tmp_path, str(method))
    assert not any(row.folded for row in rows_of(without).values())
    assert all(same for _, same in read_back(loud_case.merged, without))
    lost = divergence(loud_case.model, in_torch(folded))
    assert lost < 0.95 * divergence(loud_case.model, in_torch(without))


def test_no_scales_behind_a_norm_that_feeds_what_is_kept(loud_case: Case, tmp_path: Path) -> None:
    """What is kept has no codes to scale."""
    rows = rows_of(quantize_case(loud_case, tmp_path, keep=("*.0.self_attn.k_proj.weight",)))
    assert rows["model.layers.0.self_attn.q_proj.weight"].folded is None
    assert rows["model.layers.0.input_layernorm.weight"].kept == "a norm"
    assert rows["model.layers.1.mlp.up_proj.weight"].folded == "model.layers.1.post_attention_layernorm.weight"


# What a layer is quantized on.


def reaching_the_head(model: torch.nn.Module, batch: object) -> torch.Tensor:
    """What comes out of the last layer at the positions that are there, by transformers' own code."""
    seen: list[torch.Tensor] = []
    hook = model.model.norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        model(batch.ids)
    hook.remove()
    return seen[0][batch.there]


def test_layers_read_what_the_quantized_ones_before_give(loud_case: Case, folded: QuantizedCheckpoint) -> None:
    """The activations left on the disk are the quantized checkpoint's own; for `tuned` beside the unquantized."""
    left = folded.folder.parent / "scratch" / "hidden-00002"
    assert sorted(path.name for path in left.iterdir()) == (
        ["ours", "theirs"] if rows_of(folded)[HEAD].method == "tuned" else ["ours"]
    )
    models = {"ours": in_torch(folded), "theirs": loud_case.model}
    for index, batch in enumerate(batches.make_batches(LEARNED_FROM)):
        for whose in left.iterdir():
            hidden = spills.Spill(whose).get(index)["hidden"][batch.there]
            torch.testing.assert_close(hidden, reaching_the_head(models[whose.name], batch), atol=2e-3, rtol=1e-3)


def test_what_the_layers_before_have_lost_is_made_good(case: Case, tmp_path: Path) -> None:
    """By shifts of the weights, before anything is learned."""
    lost = {}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("slmc.quant.calibrated.stream.learn", lambda model, layer, start, *_: dict(start))
        lost["shifted"] = divergence(case.model, in_torch(quantize_case(case, tmp_path / "shifted", "tuned")))
        patched.setattr("slmc.quant.calibrated.moments.Moments.shifted", lambda self, weights: weights)
        lost["as they are"] = divergence(case.model, in_torch(quantize_case(case, tmp_path / "not", "tuned")))
    assert lost["shifted"] < 0.85 * lost["as they are"]


def test_every_eighth_sequence_is_held_out(tmp_path: Path) -> None:
    """Counted over all batches: every sequence is either learned from or judged by."""
    random = torch.Generator().manual_seed(0)
    found, wanted = (torch.randn(11, 5, 16, generator=random) for _ in range(2))
    curve, weights = torch.randn(16, 16, generator=random), torch.rand(11, 5, generator=random)
    weights[3, 2:] = 0
    each = ((found - wanted) @ curve).square().mean(-1) * weights
    spills.Spill(tmp_path).put(4, hidden=wanted)
    for first in (0, 3, 5):
        lesson = learning.Lesson(weights, first, 4, spills.Spill(tmp_path), spills.Spill(tmp_path), curve)
        held = [row for row in range(11) if (first + row) % 8 == 7]
        torch.testing.assert_close(lesson.loss(found, held_out=True), each[held].sum())
        learned = [row for row in range(11) if row not in held]
        torch.testing.assert_close(lesson.loss(found, held_out=False), each[learned].sum())


def test_embedding_and_head_are_rounded_by_what_the_survey_finds(case: Case, tmp_path: Path) -> None:
    """A tied matrix by what both its uses cost: a row of the embedding is looked up for one token in many."""
    with make_job(case, tmp_path) as job:
        found = surveys.survey(job, gains=False)
        rounded = ends.round_ends(job, found).matrices
    each = {EMBEDDING: found.embedding, HEAD: found.head}
    wanted = {EMBEDDING: found.embedding / VOCABULARY + found.head} if case.merged.architecture.tied else each
    assert set(rounded) == set(wanted)
    for name, matrix in rounded.items():
        weights = case.model.get_parameter(name).detach()
        errors = {"found": matrix.rows(torch.arange(VOCABULARY)) - weights, "plain": rounded_to(4, weights) - weights}
        lost = {kind: float(((error @ wanted[name]) * error).sum()) for kind, error in errors.items()}
        assert lost["found"] < 0.9 * lost["plain"]
        for curvature in each.values():  # no other is better served
            other = roundings.gptq(weights, moments.inverse_factor(curvature), G32).weights() - weights
            assert lost["found"] < 1.001 * float(((other @ wanted[name]) * other).sum())


# What transformers makes of it.


@pytest.mark.parametrize("kind", ["folded", "limited", "limited and tied"])
def test_transformers_loads_it(
    kind: str, loud_case: Case, made: Callable[..., QuantizedCheckpoint], tmp_path: Path
) -> None:
    if kind == "folded":
        quantized = quantize_case(loud_case, tmp_path)
        assert any(row.folded for row in rows_of(quantized).values())
    else:
        quantized = made("llama" if kind == "limited" else "qwen3", "gptq", 5.0)
        assert {row.bits_per_weight for row in rows_of(quantized).values() if row.scheme} == {4.5, 8.5}
    theirs, ours = reference(quantized.folder), in_torch(quantized)
    for one in JUDGED_BY[:4]:
        torch.testing.assert_close(logits(theirs, one), logits(ours, one), atol=1e-5, rtol=1e-5)


# What the recipe keeps, and what it names bits for.


@pytest.mark.parametrize("method", ["gptq", "tuned"])
def test_what_is_kept_and_what_is_wide(method: str, cases: dict[str, Case], tmp_path: Path) -> None:
    keep = ("*.0.mlp.down_proj.weight", "model.layers.1.*" if method == "gptq" else "model.layers.1.mlp.*", HEAD)
    case = cases["llama"]
    quantized = quantize_case(case, tmp_path, method, keep=keep, bits={EMBEDDING: 8})
    rows = rows_of(quantized)
    assert rows[EMBEDDING].scheme == "int8-g32"
    kept = {name for name, row in rows.items() if (row.kept or "").startswith("the recipe keeps")}
    assert HEAD in kept
    assert len(kept) == (9 if method == "gptq" else 5)
    assert not any(name.startswith("model.layers.1.mlp") and row.scheme for name, row in rows.items())
    with merged_reader(case.merged) as before, QuantizedReader(quantized.folder) as after:
        for name in kept | {"model.layers.1.post_attention_layernorm.weight"}:
            assert np.array_equal(before.array(name), after.plain(name))
    assert all(same for _, same in read_back(case.merged, quantized))
    lost = divergence(case.model, in_torch(quantized))
    assert lost < 0.5 * divergence(case.model, in_torch(quantize_case(case, tmp_path / "all", method)))


def test_embedding_and_head_may_be_kept(case: Case, tmp_path: Path) -> None:
    keep = (EMBEDDING,) if case.merged.architecture.tied else (EMBEDDING, HEAD)
    quantized = quantize_case(case, tmp_path, keep=keep)
    assert not any(row.scheme for row in rows_of(quantized).values() if row.role in ("embedding", "head"))
    assert all(same for _, same in read_back(case.merged, quantized))


@pytest.mark.parametrize(("method", "budget"), [("rtn", 5.0), ("gptq", None)])
def test_everything_may_be_kept(method: str, budget: float | None, cases: dict[str, Case], tmp_path: Path) -> None:
    case, keep = cases["llama"], ("*_proj.weight", EMBEDDING, HEAD)
    quantized = quantize_case(case, tmp_path, method, budget=budget, keep=keep)
    assert not any(row.scheme or row.gain for row in rows_of(quantized).values())
    assert all(same for _, same in read_back(case.merged, quantized))


def test_kept_tensors_have_no_part_in_a_limit(cases: dict[str, Case], tmp_path: Path) -> None:
    quantized = quantize_case(cases["llama"], tmp_path, budget=6.5, keep=("*.0.self_attn.v_proj.weight", HEAD))
    rows = rows_of(quantized)
    assert (rows[HEAD].scheme, rows[HEAD].gain) == (None, None)
    assert rows["model.layers.0.self_attn.v_proj.weight"].gain is None
    [bits] = {rows[f"model.layers.0.self_attn.{part}_proj.weight"].bits_per_weight for part in "qk"}
    assert bits in (4.5, 8.5)
    sizes = {name: row.shape[0] * row.shape[1] for name, row in rows.items() if row.scheme}
    assert sum(rows[name].bits_per_weight * size for name, size in sizes.items()) <= 6.5 * sum(sizes.values())


@pytest.mark.parametrize("scheme", ["int4-g64", "int8-g32"])
def test_other_schemes(scheme: SchemeName, cases: dict[str, Case], tmp_path: Path) -> None:
    case = cases["qwen2"]
    for method in ("gptq", "tuned"):
        quantized = quantize_case(case, tmp_path / method, method, scheme=scheme)
        assert {row.scheme for row in rows_of(quantized).values()} == {scheme, None}
        assert all(same for _, same in read_back(case.merged, quantized))
        assert divergence(case.model, in_torch(quantized)) < (1e-3 if scheme == "int8-g32" else 0.1)


# Interruptions, and the same bytes.


class Interruption:
    """Of the writing of the n-th file of tensors in the scratch folder; what was written before stays."""

    def __init__(self, patched: pytest.MonkeyPatch, after: int | None = None) -> None:
        from slmc.quant.calibrated import files

        self.written, write = 0, files.save

        def save(tensors: dict[str, torch.Tensor]) -> bytes:
            if self.written == after:
                raise KeyboardInterrupt
            self.written += 1
            return bytes(write(tensors))

        patched.setattr(files, "save", save)


@pytest.mark.parametrize(("method", "budget"), [("gptq", None), ("tuned", 5.0)])
def test_an_interrupted_run_gives_the_same_bytes(
    method: str, budget: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learning, "STEPS", 20)
    case = make_case("qwen3", tmp_path / "base", num_hidden_layers=3)
    few = Calibration(LEARNED_FROM.sequences[:12])
    with monkeypatch.context() as patched:
        counted = Interruption(patched)
        wanted = contents(quantize_case(case, tmp_path / "whole", method, budget=budget, calibration=few).folder)
    for after in np.linspace(0, counted.written - 1, 6).astype(int):
        root = tmp_path / f"after-{after}"
        with monkeypatch.context() as patched:
            Interruption(patched, int(after))
            with pytest.raises(KeyboardInterrupt):
                quantize_case(case, root, method, budget=budget, calibration=few)
        assert list((root / "quantized").iterdir()) == []
        assert contents(quantize_case(case, root, method, budget=budget, calibration=few).folder) == wanted


def test_a_finished_layer_is_not_done_again(cases: dict[str, Case], tmp_path: Path) -> None:
    """Stopped as the second layer's codes are written."""
    from slmc.quant.calibrated.results import Results

    case, scratch, save, loaded = cases["llama"], tmp_path / "scratch", Results.save, []

    def stopped(self: Results, path: Path) -> None:
        if path.name == "layer-00001.safetensors":
            raise KeyboardInterrupt
        save(self, path)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Results, "save", stopped)
        with pytest.raises(KeyboardInterrupt):
            quantize_case(case, tmp_path)
    first = scratch / "layer-00000.safetensors"
    before, load_layer = first.stat(), layers.LayerModel.load
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(layers.LayerModel, "load", lambda self, layer: loaded.append(layer) or load_layer(self, layer))
        again = quantize_case(case, tmp_path)
    assert loaded == [1]
    after = first.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert contents(again.folder) == contents(quantize_case(case, tmp_path / "whole").folder)


def test_activations_do_not_stay_on_the_disk(cases: dict[str, Case], tmp_path: Path) -> None:
    """Once a layer is done, only what the next one reads."""
    quantize_case(cases["llama"], tmp_path, "tuned", calibration=Calibration(JUDGED_BY[:4]))
    names = {path.relative_to(tmp_path / "scratch").parts[0] for path in (tmp_path / "scratch").rglob("*")}
    assert {name for name in names if name.startswith("hidden")} == {"hidden-00002"}
    assert not (tmp_path / "scratch" / "survey" / "states").exists()
    assert not list((tmp_path / "scratch").rglob("*.partial"))


@pytest.mark.parametrize(("method", "budget"), [("rtn", 5.0), ("gptq", None), ("tuned", 5.0)])
def test_the_same_seed_gives_the_same_bytes(
    method: str,
    budget: float | None,
    cases: dict[str, Case],
    made: Callable[..., QuantizedCheckpoint],
    tmp_path: Path,
) -> None:
    torch.manual_seed(17)  # the world's random numbers are not ours
    again = quantize_case(cases["qwen3"], tmp_path, method, budget=budget)
    assert contents(again.folder) == contents(made("qwen3", method, budget).folder)


def test_another_seed_gives_other_bytes(
    cases: dict[str, Case], made: Callable[..., QuantizedCheckpoint], tmp_path: Path
) -> None:
    case = cases["qwen3"]
    other = quantize_case(case, tmp_path, "tuned", seed=1)
    weights = "model.safetensors"
    assert (other.folder / weights).read_bytes() != (made("qwen3", "tuned").folder / weights).read_bytes()
    lost = [divergence(case.model, in_torch(one)) for one in (other, made("qwen3", "tuned"))]
    assert 0.7 < lost[0] / lost[1] < 1.4


# What is odd, and what can't be.


def silent(weights: Mapping[str, torch.Tensor]) -> None:
    """What o_proj of the first layer and down_proj of the last read is nothing but zeros."""
    weights["model.layers.0.self_attn.v_proj.weight"].zero_()
    weights["model.layers.1.mlp.up_proj.weight"].zero_()


def spiked(weights: Mapping[str, torch.Tensor]) -> None:
    weights["model.layers.0.mlp.up_proj.weight"][7, 3] = 1e4
    weights["model.layers.1.self_attn.q_proj.weight"][0, 0] = -1e4


def dead_inputs(weights: Mapping[str, torch.Tensor]) -> None:
    weights["model.layers.0.input_layernorm.weight"][[1, 9]] = 0
    weights["model.layers.1.post_attention_layernorm.weight"].zero_()


def certain(weights: Mapping[str, torch.Tensor]) -> None:
    """Every answer is given with a probability of 1: nothing that is lost shows."""
    weights["lm_head.weight"] *= 1000


@pytest.mark.parametrize(("method", "budget"), [("rtn", 5.0), ("gptq", None), ("tuned", 5.0)])
@pytest.mark.parametrize("change", [silent, spiked, dead_inputs, certain])
def test_odd_weights(
    method: str, budget: float | None, change: Change, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learning, "STEPS", 40)
    case = make_case("llama", tmp_path / "base", change)
    few = Calibration(LEARNED_FROM.sequences[:12])
    quantized = quantize_case(case, tmp_path, method, budget=budget, calibration=few)
    assert all(same for _, same in read_back(case.merged, quantized))
    assert np.isfinite(divergence(case.model, in_torch(quantized)))
    if change is silent and method == "gptq":  # nothing to make good: plain rounding, but for ties of bf16 weights
        name = "model.layers.0.self_attn.o_proj.weight"
        codes, scales = quantize_rows(case.model.get_parameter(name).detach().numpy(), G32)
        with QuantizedReader(quantized.folder) as reader:
            assert np.mean(reader.codes(name, 0, 64) == codes) > 0.99
            assert np.array_equal(reader.scales(name, 0, 64), scales)


@by_way
def test_one_item_is_enough(method: str, budget: float | None, cases: dict[str, Case], tmp_path: Path) -> None:
    case = cases["qwen2"]
    quantized = quantize_case(case, tmp_path, method, budget=budget, calibration=Calibration(JUDGED_BY[:1]))
    assert all(same for _, same in read_back(case.merged, quantized))
    assert divergence(case.model, in_torch(quantized)) < 0.2


def test_the_shortest_sequences_there_can_be(cases: dict[str, Case], tmp_path: Path) -> None:
    """A prompt of one token and an answer of one."""
    case = cases["qwen3"]
    shortest = Calibration(tuple(Sequence(one.ids[:2], 1) for one in JUDGED_BY[:8]))
    quantized = quantize_case(case, tmp_path, "tuned", calibration=shortest)
    assert divergence(case.model, in_torch(quantized)) < 0.2


def overflowing(tensor: str) -> Change:
    return lambda weights: weights[tensor].fill_(3e38)


@by_way
@pytest.mark.parametrize("tensor", ["model.layers.1.mlp.up_proj.weight", "model.layers.0.input_layernorm.weight"])
def test_activations_that_overflow_are_told(method: str, budget: float | None, tensor: str, tmp_path: Path) -> None:
    case = make_case("qwen2", tmp_path / "base", overflowing(tensor))
    few = Calibration(LEARNED_FROM.sequences[:4])
    with pytest.raises(QuantizationError, match="activations are not finite numbers"):
        quantize_case(case, tmp_path, method, budget=budget, calibration=few)
    assert list((tmp_path / "quantized").iterdir()) == []


def test_long_sequences_are_learned_from(
    cases: dict[str, Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So long that only a few make up a batch."""
    monkeypatch.setattr(batches, "TOKENS", 100)
    case, few = cases["llama"], Calibration(LEARNED_FROM.sequences[:24])
    tuned = quantize_case(case, tmp_path / "tuned", "tuned", calibration=few)
    monkeypatch.setattr("slmc.quant.calibrated.stream.learn", lambda model, layer, start, *_: dict(start))
    started = quantize_case(case, tmp_path / "started", "tuned", calibration=few)
    assert (tuned.folder / "model.safetensors").read_bytes() != (started.folder / "model.safetensors").read_bytes()
    assert divergence(case.model, in_torch(tuned)) < divergence(case.model, in_torch(started))


def test_a_layer_that_is_kept_whole_is_not_learned(cases: dict[str, Case], tmp_path: Path) -> None:
    case = cases["llama"]
    quantized = quantize_case(case, tmp_path, "tuned", keep=("model.layers.1.*",))
    assert all(same for _, same in read_back(case.merged, quantized))
