"""llama.cpp asked for a label as well as its interface allows: see bench_decisions.py."""

from __future__ import annotations

import argparse
import ctypes
import json
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from slmc.checkpoint.reader import open_checkpoint
from slmc.prompt import TOKENIZER_FILE, Codec

GGUF, CODEC = "model.gguf", "codec"
CLOCKS = {"wall": time.perf_counter, "cpu": time.thread_time}


def write_worded_gguf(checkpoint: Path, folder: Path) -> None:
    """As `write_gguf`, with every matrix in Q4_0, and the tokenizer: byte-level BPE that cuts as GPT-2 does."""
    import gguf

    from gguf_export import write_gguf

    architecture, codec = open_checkpoint(checkpoint).architecture, Codec.open(folder / CODEC)

    def vocabulary(writer: Any) -> None:
        add_words(writer, folder / CODEC / TOKENIZER_FILE, architecture.vocab_size)
        writer.add_eos_token_id(codec.end_id)

    kind = gguf.GGMLQuantizationType.Q4_0
    write_gguf(checkpoint, folder / GGUF, context=architecture.most_context, matrices=kind, vocabulary=vocabulary)


def add_words(writer: Any, path: Path, vocab_size: int) -> None:
    """The model's rows beyond the tokenizer's tokens are unused."""
    import gguf

    described = json.loads(path.read_text(encoding="utf-8"))
    words, kinds = [f"<unused{i}>" for i in range(vocab_size)], [int(gguf.TokenType.UNUSED)] * vocab_size
    for word, token in described["model"]["vocab"].items():
        words[token], kinds[token] = word, int(gguf.TokenType.NORMAL)
    for added in described["added_tokens"]:
        kind = gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED
        words[added["id"]], kinds[added["id"]] = added["content"], int(kind)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in described["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(words)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    writer.add_add_bos_token(False)


def grammar_of(answers: Sequence[list[int]]) -> str:
    """GBNF that allows these tokens alone, common beginnings written once: llama.cpp then has fewer to try."""
    return f"root ::= {_either(sorted(answers))}"


def _either(answers: Sequence[list[int]]) -> str:
    return " | ".join(_begun(list(group)) for _, group in groupby(answers, lambda answer: answer[0]))


def _begun(answers: Sequence[list[int]]) -> str:
    """Answers that begin with the same token."""
    begin = min(shared(answers[0], answer) for answer in answers)
    literals = " ".join(f"<[{token}]>" for token in answers[0][:begin])
    rest = [answer[begin:] for answer in answers if len(answer) > begin]
    return f"{literals} ({_either(rest)}){'?' if len(rest) < len(answers) else ''}" if rest else literals


def shared(first: Sequence[object], second: Sequence[object]) -> int:
    """How many elements both begin with."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((index for index, (one, other) in pairs if one != other), min(len(first), len(second)))


class Peer:
    """llama.cpp, asked for a label. Times are by step, in milliseconds, inside of its functions."""

    def __init__(self, folder: Path, labels: Sequence[str], asked: argparse.Namespace) -> None:
        import llama_cpp

        self._c, self._clock, threads = llama_cpp, CLOCKS[asked.clock], asked.threads
        self._silent = llama_cpp.llama_log_callback(lambda level, text, data: None)
        llama_cpp.llama_log_set(self._silent, ctypes.c_void_p(0))
        loading = llama_cpp.llama_model_default_params()
        self._model = llama_cpp.llama_model_load_from_file(str(folder / GGUF).encode(), loading)
        options = llama_cpp.llama_context_default_params()
        options.n_ctx = options.n_batch = options.n_ubatch = 512
        options.n_threads = options.n_threads_batch = threads
        self._context = self._model and llama_cpp.llama_init_from_model(self._model, options)
        if not self._context:
            raise SystemExit("llama.cpp can't open the model")
        self._vocabulary = llama_cpp.llama_model_get_vocab(self._model)
        self._memory = llama_cpp.llama_get_memory(self._context)
        codec = Codec.open(folder / CODEC)
        self._form = codec.format
        self._make_samplers(grammar_of([codec.answer(label)[:-1] for label in labels]).encode(), asked.sampler)
        self._tokens, self._text = (llama_cpp.llama_token * 512)(), ctypes.create_string_buffer(4096)
        self._one = (llama_cpp.llama_token_data * 1)()
        self._one_array = llama_cpp.llama_token_data_array(self._one, 1, -1, False)
        self._choices = {label: index for index, label in enumerate(labels)}
        self._held: list[int] = []

    def _make_samplers(self, grammar: bytes, sampler: str) -> None:
        c = self._c
        self._grammar = c.llama_sampler_init_grammar(self._vocabulary, grammar, b"root")
        if not self._grammar:
            raise SystemExit("llama.cpp refuses the grammar")
        self._greedy = c.llama_sampler_init_greedy()
        self._first_free = sampler == "first-free"

    def classify(self, item: Mapping[str, str]) -> dict[str, object]:
        self.times = dict.fromkeys(("encode", "prefill", "decode", "sample", "spell"), 0.0)
        c, text = self._c, self._form.render(item).encode()
        count = self._timed(
            "encode", c.llama_tokenize, self._vocabulary, text, len(text), self._tokens, len(self._tokens), False, True
        )
        ids = self._tokens[:count]
        same = shared(self._held, ids[:-1])
        self._timed("prefill", c.llama_memory_seq_rm, self._memory, 0, same, -1)
        self._read("prefill", ids[same:])
        answer: list[int] = []
        sampler = self._timed("sample", c.llama_sampler_clone, self._grammar)
        while True:
            token = self._timed("sample", self._sample, sampler)
            if token == self._form.end_id:
                break
            answer.append(token)
            self._read("decode", [token])
        self._timed("sample", c.llama_sampler_free, sampler)
        self._held = ids + answer
        label = self._spell(answer)
        found = {"choice": self._choices[label], "tokens": len(ids) - same, "decoded": len(answer), "ids": ids}
        return {**found, "steps": len(answer), **self.times}

    def _timed(self, step: str, work: Callable[..., Any], *arguments: object) -> Any:
        start = self._clock()
        result = work(*arguments)
        self.times[step] += (self._clock() - start) * 1e3
        return result

    def _read(self, step: str, ids: list[int]) -> None:
        tokens = (self._c.llama_token * len(ids))(*ids)
        batch = self._c.llama_batch_get_one(tokens, len(ids))
        if self._timed(step, self._c.llama_decode, self._context, batch) != 0:
            raise SystemExit("llama.cpp failed")
        # Waits for what was asked for.
        self._timed(step, self._c.llama_get_logits_ith, self._context, -1)

    def _sample(self, grammar: Any) -> int:
        """The likeliest token that the grammar allows, as llama.cpp's own programs sample."""
        c = self._c
        token: int = c.llama_sampler_sample(self._greedy, self._context, -1) if self._first_free else -1
        if token < 0 or not self._allowed(grammar, token):
            chain = c.llama_sampler_chain_init(c.llama_sampler_chain_default_params())
            c.llama_sampler_chain_add(chain, grammar)
            c.llama_sampler_chain_add(chain, c.llama_sampler_init_greedy())
            token = c.llama_sampler_sample(chain, self._context, -1)  # the grammar takes it
            c.llama_sampler_chain_remove(chain, 0)
            c.llama_sampler_free(chain)
            return token
        c.llama_sampler_accept(grammar, token)
        return token

    def _allowed(self, grammar: Any, token: int) -> bool:
        self._one[0].id, self._one[0].logit, self._one[0].p = token, 1.0, 0.0
        self._one_array.size, self._one_array.selected = 1, -1
        self._c.llama_sampler_apply(grammar, ctypes.byref(self._one_array))
        return bool(self._one[0].logit == 1.0)

    def _spell(self, ids: list[int]) -> str:
        tokens = (self._c.llama_token * len(ids))(*ids)
        length = self._timed(
            "spell", self._c.llama_detokenize, self._vocabulary, tokens, len(ids), self._text, 4096, True, False
        )
        return self._text.raw[:length].decode().removeprefix(self._form.answer_prefix)
