#!/usr/bin/env python3
"""Make the demo recipe's model: a small Qwen3 base and a LoRA adapter for CLINC150 intents.

The base is trained from nothing on text alone: utterances of CLINC150 and Restaurant-8k as
chat turns, and the docstrings of installed libraries as general English. It never sees a
label. The adapter alone is the task, so losing it on the way to a phone is visible.

    python scripts/make_demo_model.py --data DATA --out recipes/intent-router

DATA holds `clinc150/data_full.json`, `clinc150/domains.json` (github.com/clinc/oos-eval,
CC BY 3.0) and `restaurant8k/train_0.json` (PolyAI's span-extraction data, CC BY 4.0).
Needs torch, transformers, peft and tokenizers as pinned in the `reference` extra: the
docstrings are part of the corpus, so other versions make another model. About 45 minutes
on two CPU cores. Seeded; bit-equal only on the same CPU, versions and thread count.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import json
import random
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import peft
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

SEED = 20
PAD, END, SYSTEM, USER, ASSISTANT = "<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] | trim }}<|end|>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
VOCAB_SIZE = 4096
BLOCK = 128  # tokens a training sequence of the base
GENERAL_PACKAGES = ("transformers", "peft")
GENERAL_CHARACTERS = 2_000_000
CALIBRATION_ITEMS = 512
IGNORE = -100  # the label that torch's cross entropy skips


@dataclass(frozen=True)
class Effort:
    """How long to train: passes over the base's corpus and over the adapter's items."""

    base_epochs: int
    adapter_epochs: int


@dataclass(frozen=True)
class Intents:
    """CLINC150: (text, label) pairs by split, and each label's domain."""

    train: list[tuple[str, str]]
    validation: list[tuple[str, str]]
    test: list[tuple[str, str]]
    domain: dict[str, str]

    @property
    def labels(self) -> list[str]:
        return sorted({label for _, label in self.train})


def read_intents(folder: Path) -> Intents:
    full = json.loads((folder / "data_full.json").read_text())
    domains = json.loads((folder / "domains.json").read_text())
    domain = {label: name for name, labels in domains.items() for label in labels}
    pairs = {split: [(text, label) for text, label in items] for split, items in full.items()}
    return Intents(
        train=pairs["train"] + pairs["oos_train"],
        validation=pairs["val"],
        test=pairs["test"],
        domain=domain | {"oos": "oos"},
    )


def read_restaurant(folder: Path) -> list[str]:
    items = json.loads((folder / "train_0.json").read_text())
    return [item["userInput"]["text"] for item in items]


def docstrings(package: str) -> Iterator[str]:
    """Every docstring of an installed package's sources, in path order, as plain lines."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise SystemExit(f"{package} is not installed")
    for path in sorted(Path(spec.origin).parent.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8", errors="replace"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                text = ast.get_docstring(node)
                if text:
                    yield re.sub(r"[ \t]+", " ", text)


def general_text(rng: random.Random) -> list[str]:
    texts = sorted({t for package in GENERAL_PACKAGES for t in docstrings(package) if t.isascii()})
    rng.shuffle(texts)
    kept, size = [], 0
    for text in texts:
        if size > GENERAL_CHARACTERS:
            break
        kept.append(text)
        size += len(text)
    return kept


def train_tokenizer(corpus: list[str]) -> transformers.PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[PAD, END, SYSTEM, USER, ASSISTANT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, model_max_length=512
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def conversations(intents: Intents, restaurant: list[str], rng: random.Random) -> list[str]:
    """Utterances as alternating turns, a conversation staying within one domain."""
    by_domain: dict[str, list[str]] = {"restaurant": list(restaurant)}
    for text, label in intents.train:
        by_domain.setdefault(intents.domain[label], []).append(text)
    talks = []
    for texts in by_domain.values():
        rng.shuffle(texts)
        for start in range(0, len(texts), 6):
            turns = texts[start : start + 6]
            roles = [(USER, ASSISTANT)[i % 2] for i in range(len(turns))]
            talks.append("".join(f"{r}{t}{END}" for r, t in zip(roles, turns, strict=True)))
    return talks


def blocks(documents: list[str], tokenizer: transformers.PreTrainedTokenizerFast) -> torch.Tensor:
    """The documents end to end, cut into rows of BLOCK tokens: int64 [rows, BLOCK]."""
    encoded = tokenizer(documents, add_special_tokens=False)["input_ids"]
    ids = [i for document in encoded for i in (*document, tokenizer.eos_token_id)]
    rows = len(ids) // BLOCK
    return torch.tensor(ids[: rows * BLOCK]).view(rows, BLOCK)


def new_base() -> transformers.Qwen3ForCausalLM:
    return transformers.Qwen3ForCausalLM(
        transformers.Qwen3Config(
            vocab_size=VOCAB_SIZE,
            hidden_size=256,
            intermediate_size=768,
            num_hidden_layers=4,
            num_attention_heads=8,
            num_key_value_heads=4,
            head_dim=32,
            max_position_embeddings=512,
            rope_theta=10000.0,
            tie_word_embeddings=True,
            pad_token_id=0,
            eos_token_id=1,
            bos_token_id=None,
        )
    )


def descend(model: torch.nn.Module, batches: list[dict[str, torch.Tensor]], rate: float, note: str) -> None:
    """One optimizer step a batch: AdamW, a short warm-up, then cosine to a tenth."""
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    warmup = max(1, len(batches) // 30)
    schedule = transformers.get_cosine_with_min_lr_schedule_with_warmup(
        optimizer, warmup, len(batches), min_lr_rate=0.1
    )
    begun, total = time.monotonic(), 0.0
    model.train()
    for step, batch in enumerate(batches, 1):
        loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        total += loss.item()
        if step % 200 == 0 or step == len(batches):
            spent = time.monotonic() - begun
            print(f"{note} {step}/{len(batches)} loss {total / (step % 200 or 200):.3f} {spent:.0f}s", flush=True)
            total = 0.0
    model.eval()


def base_batches(rows: torch.Tensor, epochs: int, size: int = 16) -> list[dict[str, torch.Tensor]]:
    order = torch.cat([torch.randperm(len(rows)) for _ in range(epochs)])
    return [{"input_ids": rows[i], "labels": rows[i]} for i in order.split(size)]


def task_batches(
    pairs: list[tuple[str, str]],
    tokenizer: transformers.PreTrainedTokenizerFast,
    epochs: int,
    rng: random.Random,
    size: int = 48,
) -> list[dict[str, torch.Tensor]]:
    """Prompt and label, the loss on the label's tokens and its end alone; similar lengths together."""
    items = []
    for text, label in pairs:
        prompt = tokenizer(prompt_of(text, tokenizer), add_special_tokens=False)["input_ids"]
        answer = tokenizer(label + END, add_special_tokens=False)["input_ids"]
        items.append((prompt + answer, len(prompt)))
    batches = []
    for _ in range(epochs):
        order = sorted(range(len(items)), key=lambda i: (len(items[i][0]) + rng.random() * 4, i))
        groups = [order[i : i + size] for i in range(0, len(order), size)]
        rng.shuffle(groups)
        batches += [collate([items[i] for i in group]) for group in groups]
    return batches


def collate(items: list[tuple[list[int], int]]) -> dict[str, torch.Tensor]:
    width = max(len(ids) for ids, _ in items)
    ids = torch.zeros(len(items), width, dtype=torch.long)
    labels = torch.full((len(items), width), IGNORE)
    mask = torch.zeros(len(items), width, dtype=torch.long)
    for row, (tokens, prompt) in enumerate(items):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        labels[row, prompt : len(tokens)] = torch.tensor(tokens[prompt:])
        mask[row, : len(tokens)] = 1
    return {"input_ids": ids, "labels": labels, "attention_mask": mask}


def prompt_of(text: str, tokenizer: transformers.PreTrainedTokenizerFast) -> str:
    message = [{"role": "user", "content": text}]
    return str(tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=False))


@torch.no_grad()
def greedy_accuracy(
    model: torch.nn.Module, tokenizer: transformers.PreTrainedTokenizerFast, pairs: list[tuple[str, str]]
) -> float:
    """Share of items whose whole label the model gives greedily, read off one forward pass."""
    hits = 0
    order = sorted(pairs, key=lambda pair: len(pair[0]))
    for start in range(0, len(order), 100):
        batch = task_batches(order[start : start + 100], tokenizer, 1, random.Random(0), size=100)[0]
        labels = batch.pop("labels")
        guess = model(**batch).logits[:, :-1].argmax(-1)
        wanted = labels[:, 1:]
        hits += int(((guess == wanted) | (wanted == IGNORE)).all(-1).sum())
    return hits / len(pairs)


def write_items(path: Path, items: list[tuple[str, str]], prefix: str) -> None:
    lines = [
        json.dumps({"id": f"{prefix}-{i:05d}", "text": text, "label": label}, ensure_ascii=False)
        for i, (text, label) in enumerate(items)
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_data(intents: Intents, out: Path, rng: random.Random) -> None:
    out.mkdir(parents=True, exist_ok=True)
    write_items(out / "eval.jsonl", intents.test, "test")
    calibration = rng.sample(intents.validation, CALIBRATION_ITEMS)
    write_items(out / "calibration.jsonl", calibration, "val")
    (out / "labels.txt").write_text("\n".join(intents.labels) + "\n")


def tidy_adapter(folder: Path) -> None:
    """Drop peft's empty model card; sort what peft writes in the order of a hash set."""
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    config["target_modules"] = sorted(config["target_modules"])
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="one short pass, to try the script itself")
    options = parser.parse_args()
    effort = Effort(1, 1) if options.quick else Effort(3, 13)
    torch.set_num_threads(options.threads)
    torch.manual_seed(SEED)
    rng = random.Random(SEED)

    intents = read_intents(options.data / "clinc150")
    restaurant = read_restaurant(options.data / "restaurant8k")
    general = general_text(rng)
    talks = conversations(intents, restaurant, rng)
    if options.quick:
        general, talks = general[:200], talks[:200]
    tokenizer = train_tokenizer(talks * 3 + general + intents.labels * 20)
    rows = blocks(talks * 2 + general, tokenizer)
    base = new_base()
    print(f"base: {base.num_parameters():,} parameters, {rows.numel():,} tokens an epoch", flush=True)
    descend(base, base_batches(rows, effort.base_epochs), 2e-3, "base")
    base = base.to(torch.bfloat16)
    base.save_pretrained(options.out / "base")
    tokenizer.save_pretrained(options.out / "base")

    # The adapter is trained on the base as it was stored, so no rounding stands between them.
    base = transformers.AutoModelForCausalLM.from_pretrained(options.out / "base", dtype=torch.float32)
    write_data(intents, options.out / "data", rng)
    print(f"base on the task: {greedy_accuracy(base, tokenizer, intents.test):.4f}", flush=True)
    lora = peft.LoraConfig(r=16, lora_alpha=32, lora_dropout=0.05, target_modules="all-linear", task_type="CAUSAL_LM")
    tuned = peft.get_peft_model(base, lora)
    tuned.peft_config["default"].base_model_name_or_path = "../base"
    train = intents.train + [pair for pair in intents.train if pair[1] == "oos"] * 2
    batches = task_batches(train, tokenizer, effort.adapter_epochs, rng)
    descend(tuned, batches, 2e-3, "adapter")
    tuned.save_pretrained(options.out / "adapter")
    tidy_adapter(options.out / "adapter")
    for name, pairs in (("validation", intents.validation), ("test", intents.test)):
        print(f"{name} accuracy, greedy: {greedy_accuracy(tuned, tokenizer, pairs):.4f}", flush=True)


if __name__ == "__main__":
    main()
