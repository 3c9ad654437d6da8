"""The reference runner's batches against plain transformers, one item and one token at a time."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from slmc.artifacts import MergedCheckpoint
from slmc.checkpoint.reader import open_checkpoint
from slmc.errors import InputError, RunnerError
from slmc.quant.quantizer import quantize
from slmc.quant.reader import QuantizedReader
from slmc.quant.schemes import SCHEMES
from slmc.runners.batches import BATCH_TOKENS, answers
from slmc.runners.contract import (
    Answer,
    ChooseItem,
    Chosen,
    Generated,
    GenerateItem,
    Ids,
    Item,
    Result,
    Scored,
    ScoreItem,
    Workload,
)
from slmc.runners.files import make, read_result, write_workload
from slmc.runners.launch import RunnerFailed, run
from slmc.runners.torch_model import DeviceName, load

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = [
    pytest.mark.build,
    pytest.mark.filterwarnings("ignore"),  # of deprecated calls in the libraries
]
torch.set_num_threads(1)

VOCAB, END = 80, 7
CUDA = pytest.param(
    "cuda",
    marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="not run: needs a CUDA device")],
)
CONFIGS = {
    "llama": (transformers.LlamaConfig, {}),
    "qwen2": (transformers.Qwen2Config, {}),
    "qwen3": (transformers.Qwen3Config, {}),
    "gemma3_text": (
        transformers.Gemma3TextConfig,
        {"sliding_window": 5, "layer_types": ["sliding_attention", "full_attention"], "query_pre_attn_scalar": 16},
    ),
    "phi3": (transformers.Phi3Config, {"sliding_window": 5, "pad_token_id": 0}),
    "smollm3": (transformers.SmolLM3Config, {"no_rope_layers": [1, 0], "pad_token_id": 0}),
}
"""Windows are shorter than most of the prompts."""


def make_model(folder: Path, family: str, *, tied: bool) -> transformers.PreTrainedModel:
    """Random weights, large enough that tokens matter; bfloat16 on disk, and float32 as it is returned."""
    torch.manual_seed(3)
    kind, more = CONFIGS[family]
    config = kind(
        vocab_size=VOCAB,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=64,
        tie_word_embeddings=tied,
        **more,
    )
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
    for parameter in model.parameters():
        parameter.data += 0.15 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_text("{}")
    return model.float()


def ask() -> Workload:
    """Prompts of every length from 1 to 24, in an order that is not by length, each asked in all modes."""
    rng = np.random.default_rng(5)
    choices = ((1, 2, END), (1, 2, 3, END), (1, 4, 5, 6, END), (8, END), (9, 2, END), (9, 3, 3, END))
    items: list[Item] = []
    for length in rng.permutation(np.arange(1, 25)):
        prompt = tuple(int(token) for token in rng.integers(0, VOCAB, length))
        after = tuple(int(token) for token in rng.integers(0, VOCAB, 1 + length % 5))
        watch = tuple((int(token), 0) for token in after)
        items.append(ChooseItem(id=f"choose {length}", input_ids=prompt, choices="labels"))
        items.append(GenerateItem(id=f"generate {length}", input_ids=prompt, max_tokens=1 + int(length) % 9))
        items.append(ScoreItem(id=f"score {length}", input_ids=prompt, score_ids=after, watch=watch))
    return make(END, {"labels": choices, "one": ((1, 5, END),), "deep": ((1, 5, 2, END), (1, 5, 3, END))}, items)


def answered(workload: Workload, model: Path, device: DeviceName = "cpu") -> dict[str, Answer]:
    loaded = load(model, device)
    assert loaded.device.type == device
    with torch.inference_mode():
        return {answer.id: answer for answer in answers(loaded, workload, None)}


def launched(workload: Workload, model: Path, tmp_path: Path, device: str) -> Result:
    write_workload(workload, tmp_path / "workload.jsonl")
    command = [sys.executable, "-m", "slmc.runners.reference", "--model", str(model), "--device", device]
    run(command, tmp_path / "workload.jsonl", tmp_path / "result.jsonl", timeout_s=300)
    return read_result(tmp_path / "result.jsonl", workload)


def logprobs(model: transformers.PreTrainedModel, ids: Ids) -> np.ndarray:
    """Of every next token: float64 [len(ids), VOCAB]."""
    with torch.inference_mode():
        logits = model(torch.tensor([ids])).logits[0].double()
    return torch.log_softmax(logits, dim=-1).numpy()


def check(found: dict[str, Answer], workload: Workload, model: transformers.PreTrainedModel) -> None:
    for item in workload.items:
        answer = found[item.id]
        if isinstance(item, ChooseItem):
            assert isinstance(answer, Chosen)
            check_choice(answer, item, workload.header.choices[item.choices], model)
        elif isinstance(item, ScoreItem):
            assert isinstance(answer, Scored)
            check_scores(answer, item, model)
        else:
            assert isinstance(answer, Generated)
            check_text(answer, item, model)


def check_choice(
    answer: Chosen, item: ChooseItem, choices: tuple[Ids, ...], model: transformers.PreTrainedModel
) -> None:
    wanted = []
    for choice in choices:
        found = logprobs(model, (*item.input_ids, *choice))[len(item.input_ids) - 1 :]
        total = 0.0
        for depth, token in enumerate(choice):
            follow = sorted({other[depth] for other in choices if other[:depth] == choice[:depth]})
            total += found[depth][token] - np.logaddexp.reduce(found[depth][follow])
        wanted.append(total)
    assert answer.choice == int(np.argmax(wanted))
    assert dict(answer.choice_logprobs) == pytest.approx({c: wanted[c] for c, _ in answer.choice_logprobs}, abs=1e-4)


def check_text(answer: Generated, item: GenerateItem, model: transformers.PreTrainedModel) -> None:
    ids, found = list(item.input_ids), []
    while len(found) < item.max_tokens:
        last = logprobs(model, tuple(ids))[-1]
        found.append(last.max())
        if last.argmax() == END:
            break
        ids.append(int(last.argmax()))
    assert answer.output_ids == tuple(ids[len(item.input_ids) :])
    assert answer.logprobs == pytest.approx(found, abs=1e-4)
    assert answer.ended == (len(found) > len(answer.output_ids))


def check_scores(answer: Scored, item: ScoreItem, model: transformers.PreTrainedModel) -> None:
    assert item.watch is not None
    found = logprobs(model, (*item.input_ids, *item.score_ids[:-1]))[len(item.input_ids) - 1 :]
    for wanted, position, token, watch in zip(found, answer.positions, item.score_ids, item.watch, strict=True):
        assert position.logprob == pytest.approx(wanted[token], abs=1e-4)
        assert position.watched == pytest.approx([wanted[token] for token in watch], abs=1e-4)
        assert [logprob for _, logprob in position.top] == pytest.approx(sorted(wanted)[: -64 - 1 : -1], abs=1e-4)
        assert [logprob for token, logprob in position.top] == pytest.approx(
            [wanted[token] for token, _ in position.top], abs=1e-4
        )


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("tied", [True, False])
def test_batches_answer_as_transformers_does_item_by_item(family: str, tied: bool, tmp_path: Path) -> None:
    model = make_model(tmp_path, family, tied=tied)
    workload = ask()
    check(answered(workload, tmp_path), workload, model)


@pytest.mark.parametrize("device", ["cpu", CUDA])
@pytest.mark.parametrize(("family", "tied"), [("llama", True), ("qwen2", False)])
def test_a_quantized_checkpoint_is_run_with_its_dequantized_weights(
    family: str, tied: bool, device: DeviceName, tmp_path: Path
) -> None:
    model = make_model(tmp_path / "model", family, tied=tied)
    checkpoint = open_checkpoint(tmp_path / "model")
    merged = MergedCheckpoint(checkpoint.folder, checkpoint.architecture, checkpoint.digest)
    (tmp_path / "quantized").mkdir()
    quantize(merged, SCHEMES["int4-g32"], (), tmp_path / "quantized", lambda weights: None)
    moved = 0.0
    with QuantizedReader(tmp_path / "quantized") as reader:
        parameters = dict(model.named_parameters())
        for spec in reader.architecture.tensors():
            weights = torch.from_numpy(reader.dequantized(spec.name))
            moved = max(moved, float((parameters[spec.name].data - weights).abs().max()))
            parameters[spec.name].data.copy_(weights)
    assert moved > 0.001
    workload = ask()
    check(answered(workload, tmp_path / "quantized", device), workload, model)
    assert load(tmp_path / "quantized", device).precision == "quantized weights in float32"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="not run: needs a CUDA device")
def test_the_runner_takes_cuda_where_there_is_one(tmp_path: Path) -> None:
    make_model(tmp_path / "model", "qwen3", tied=True)
    workload = ask()
    result = launched(workload, tmp_path / "model", tmp_path, "auto")
    assert result.environment.device == torch.cuda.get_device_name()
    assert result.environment.precision == "bfloat16"


def test_small_batches_answer_as_large_ones_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(tmp_path, "qwen3", tied=True)
    workload = ask()
    monkeypatch.setitem(BATCH_TOKENS, "cpu", 1)
    check(answered(workload, tmp_path), workload, model)


def test_choices_that_need_no_decision_and_those_with_a_long_common_start(tmp_path: Path) -> None:
    model = make_model(tmp_path, "qwen3", tied=True)
    items = [
        ChooseItem(id=f"{name} {length}", input_ids=tuple(range(length)), choices=name)
        for name in ("one", "deep", "labels")
        for length in (1, 5)
    ]
    workload = make(END, ask().header.choices, items)
    found = answered(workload, tmp_path)
    check(found, workload, model)
    one, deep = found["one 5"], found["deep 5"]
    assert isinstance(one, Chosen)
    assert one.choice_logprobs == ((0, 0.0),)
    assert (deep.prefill_tokens, deep.decode_steps) == (5 + 2, 0)


def test_an_end_that_is_ignored(tmp_path: Path) -> None:
    make_model(tmp_path, "qwen3", tied=True)
    item = GenerateItem(id="on", input_ids=(3,), max_tokens=40, ignore_end=True)
    answer = answered(make(END, {}, [item]), tmp_path)["on"]
    assert isinstance(answer, Generated)
    assert (len(answer.output_ids), answer.ended, answer.decode_steps) == (40, False, 39)


@pytest.mark.parametrize("kind", [ChooseItem, GenerateItem, ScoreItem])
def test_weights_that_are_no_numbers_end_the_run(kind: type[Item], tmp_path: Path) -> None:
    model = make_model(tmp_path, "llama", tied=True)
    model.model.norm.weight.data[0] = float("nan")
    model.save_pretrained(tmp_path)
    workload = ask()
    items = [item for item in workload.items if isinstance(item, kind)]
    with pytest.raises(RunnerError, match="not finite"):
        answered(make(END, workload.header.choices, items), tmp_path)


def test_an_item_longer_than_the_models_context_is_named(tmp_path: Path) -> None:
    make_model(tmp_path, "llama", tied=True)
    item = GenerateItem(id="long one", input_ids=(1,) * 60, max_tokens=6)
    with pytest.raises(InputError, match="'long one' needs 60 \\+ 5 tokens"):
        answered(make(END, {}, [item]), tmp_path)


def test_the_program_writes_what_its_batches_answer(tmp_path: Path) -> None:
    make_model(tmp_path / "model", "qwen2", tied=True)
    workload = ask()
    result = launched(workload, tmp_path / "model", tmp_path, "cpu")
    environment = result.environment
    assert (environment.runtime, environment.precision, environment.batched) == ("transformers", "float32", True)
    assert result.footer.peak_memory_bytes is not None
    assert result.footer.peak_memory_bytes > 50 * 2**20
    for name, answer in answered(workload, tmp_path / "model").items():
        if isinstance(answer, Chosen | Generated):
            told = result.answers[name]
            assert isinstance(told, Chosen | Generated)
            assert told.output_ids == answer.output_ids


def test_pickled_weights_are_not_loaded(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", "llama", tied=True)
    (tmp_path / "model" / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "model" / "pytorch_model.bin")
    with pytest.raises(RunnerFailed, match="safetensors"):
        launched(ask(), tmp_path / "model", tmp_path, "cpu")


def test_a_device_that_is_not_there_is_told(tmp_path: Path) -> None:
    make_model(tmp_path / "model", "llama", tied=True)
    missing = "cuda" if torch.backends.mps.is_available() else "mps"
    with pytest.raises(RunnerFailed, match=f"no {missing} device"):
        launched(ask(), tmp_path / "model", tmp_path, missing)
