#!/usr/bin/env python3
"""Make another recipe to check on: a small model and a LoRA adapter that fills the slots of a booking.

Claims about quantization that were found on the demo recipe are worth what they are worth on a model
that nobody looked at. This one differs in family, task (`extract`) and answers (spans copied out of the
prompt): a Llama with an untied head and scaled rope, or a deeper Qwen2 with biases and a tied head.

    python scripts/make_check_model.py --data DATA --out OUT [--family qwen2 --seed N]

DATA holds `restaurant8k/train_0.json`, `restaurant8k/test.json` (PolyAI's span-extraction data, CC BY 4.0)
and `clinc150/data_full.json`, as for make_demo_model.py, whose training this shares. The base learns the
language of bookings, and to repeat parts of what it read; it never sees a slot. OUT becomes a recipe's
folder for `slmc build`. About 40 minutes on one CPU core. Seeded; bit-equal only on the same CPU, versions
and thread count.
"""

from __future__ import annotations

import argparse
import json
import random
from dataclasses import dataclass
from pathlib import Path

import peft
import torch
import transformers
import yaml
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from make_demo_model import (
    ASSISTANT,
    END,
    PAD,
    USER,
    Effort,
    base_batches,
    blocks,
    descend,
    greedy_accuracy,
    read_intents,
    task_batches,
    tidy_adapter,
)

BOS = "<|begin|>"
CHAT_TEMPLATE = "{{ bos_token }}" + (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
VOCAB_SIZE = 2048
SLOTS = ("date", "first_name", "last_name", "people", "time")
CALIBRATION_ITEMS = 256
EVALUATION_ITEMS = 2000
RECIPE = {
    "name": "booking-slots",
    "version": "1.0.0",
    "description": "Fill the slots of a restaurant booking from one sentence; for checks of the quantizer.",
    "base": {"path": "base"},
    "adapter": {"path": "adapter"},
    "prompt": {"kind": "chat", "user": "{asked}: {text}"},
    "task": {"kind": "extract", "json_schema": "data/schema.json", "max_tokens": 64},
    "data": {
        "evaluation": "data/eval.jsonl",
        "calibration": "data/calibration.jsonl",
        "credit": 'Restaurant-8k by Coope et al., "Span-ConveRT" (ACL 2020), CC BY 4.0',
    },
    "context": 256,
}


@dataclass(frozen=True)
class Booking:
    """One user turn of Restaurant-8k."""

    asked: str
    """The slots that the system had just asked for, or "nothing"."""
    text: str
    slots: dict[str, str]

    @property
    def prompt(self) -> str:
        return f"{self.asked}: {self.text}"

    @property
    def answer(self) -> str:
        """As slmc writes an expected answer."""
        return json.dumps(self.slots, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def read_bookings(path: Path) -> list[Booking]:
    """The file's items, each prompt once: the first that has it."""
    bookings: dict[str, Booking] = {}
    for item in json.loads(path.read_text(encoding="utf-8")):
        text = item["userInput"]["text"]
        slots = {}
        for label in item.get("labels", ()):
            span = label["valueSpan"]
            slots[label["slot"]] = text[span.get("startIndex", 0) : span["endIndex"]]  # a start of 0 is left out
        asked = " ".join(sorted(item.get("context", {}).get("requestedSlots", ()))) or "nothing"
        booking = Booking(asked, text, slots)
        bookings.setdefault(booking.prompt, booking)
    return list(bookings.values())


def train_tokenizer(corpus: list[str]) -> transformers.PreTrainedTokenizerFast:
    """Spaces, numbers and marks stand alone, so that a span's tokens are the same wherever it is repeated."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\s|\d+|[^\w\s]"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[PAD, END, BOS, USER, ASSISTANT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, bos_token=BOS, eos_token=END, model_max_length=512
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def echoes(texts: list[str], rng: random.Random) -> list[str]:
    """Each text as a user's turn, and as the answer up to three parts of it as a JSON list."""
    talks = []
    for text in texts:
        words = text.split(" ")
        parts = []
        for _ in range(rng.randint(1, 3)):
            start = rng.randrange(len(words))
            parts.append(" ".join(words[start : start + rng.randint(1, 4)]))
        answer = json.dumps(parts, ensure_ascii=False, separators=(",", ":"))
        talks.append(f"{BOS}{USER}{text}{END}{ASSISTANT}{answer}")
    rng.shuffle(talks)
    return talks


def llama() -> transformers.PretrainedConfig:
    return transformers.LlamaConfig(
        hidden_size=256,
        intermediate_size=1024,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 10000.0,
            "factor": 4.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 128,
        },
        tie_word_embeddings=False,
        **COMMON,
    )


def qwen2() -> transformers.PretrainedConfig:
    return transformers.Qwen2Config(
        hidden_size=192,
        intermediate_size=640,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=2,
        rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
        tie_word_embeddings=True,
        **COMMON,
    )


COMMON = {
    "vocab_size": VOCAB_SIZE,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 2,
}
FAMILIES = {"llama": llama, "qwen2": qwen2}


def write_items(path: Path, bookings: list[Booking], prefix: str) -> None:
    lines = [
        json.dumps(
            {"id": f"{prefix}-{i:05d}", "asked": item.asked, "text": item.text, "answer": item.slots},
            ensure_ascii=False,
        )
        for i, item in enumerate(bookings)
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_recipe(out: Path, evaluation: list[Booking], calibration: list[Booking]) -> None:
    data = out / "data"
    data.mkdir(parents=True)
    write_items(data / "eval.jsonl", evaluation, "test")
    write_items(data / "calibration.jsonl", calibration, "train")
    properties = {slot: {"type": "string"} for slot in SLOTS}
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    (data / "schema.json").write_text(json.dumps(schema, indent=2) + "\n")
    (out / "recipe.yaml").write_text(yaml.safe_dump(RECIPE, sort_keys=False, width=100))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--family", choices=FAMILIES, default="llama")
    parser.add_argument("--seed", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="one short pass, to try the script itself")
    options = parser.parse_args()
    effort = Effort(1, 1) if options.quick else Effort(3, 4)
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    rng = random.Random(options.seed)

    bookings = read_bookings(options.data / "restaurant8k" / "train_0.json")
    rng.shuffle(bookings)
    calibration, train = bookings[:CALIBRATION_ITEMS], bookings[CALIBRATION_ITEMS:]
    seen = {item.prompt for item in bookings}
    test = [item for item in read_bookings(options.data / "restaurant8k" / "test.json") if item.prompt not in seen]
    evaluation = rng.sample(test, EVALUATION_ITEMS)
    sentences = [text for text, _ in read_intents(options.data / "clinc150").train]
    texts = [item.text for item in train] + sentences
    if options.quick:
        texts, train = texts[:400], train[:400]
    tokenizer = train_tokenizer(texts)
    # New parts are asked for in each epoch, so the epochs are drawn here and not by base_batches.
    rows = blocks([talk for _ in range(effort.base_epochs) for talk in echoes(texts, rng)], tokenizer)
    base = transformers.AutoModelForCausalLM.from_config(FAMILIES[options.family]())
    print(f"base: {base.num_parameters():,} parameters, {rows.numel():,} tokens", flush=True)
    descend(base, base_batches(rows, 1), 2e-3, "base")
    base = base.to(torch.bfloat16)
    base.save_pretrained(options.out / "base")
    tokenizer.save_pretrained(options.out / "base")

    # The adapter is trained on the base as it was stored, so no rounding stands between them.
    base = transformers.AutoModelForCausalLM.from_pretrained(options.out / "base", dtype=torch.float32)
    write_recipe(options.out, evaluation, calibration)
    lora = peft.LoraConfig(r=16, lora_alpha=32, lora_dropout=0.05, target_modules="all-linear", task_type="CAUSAL_LM")
    tuned = peft.get_peft_model(base, lora)
    tuned.peft_config["default"].base_model_name_or_path = "../base"
    pairs = [(item.prompt, item.answer) for item in train]
    descend(tuned, task_batches(pairs, tokenizer, effort.adapter_epochs, rng), 2e-3, "adapter")
    tuned.save_pretrained(options.out / "adapter")
    tidy_adapter(options.out / "adapter")
    wanted = [(item.prompt, item.answer) for item in evaluation]
    print(f"whole answers right, greedy: {greedy_accuracy(tuned, tokenizer, wanted):.4f}", flush=True)


if __name__ == "__main__":
    main()
