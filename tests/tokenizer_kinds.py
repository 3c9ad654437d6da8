"""Small tokenizers of every kind that the decoder families use, trained here on a few sentences of many scripts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import chain

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

GPT4 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
"""Llama 3's."""
QWEN = GPT4.replace("{1,3}", "")
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Phi-4-mini's and Llama 4's."""
SENTENCES = (
    "transfer 200 dollars from checking to my sister's savings account",
    "What's the weather in Zürich at 7:30 pm? I'LL WAIT, they've said 12345 times!",
    "  def main():\n\tprint('héllo  wörld')\r\n\r\n    return 0  ",
    "Съешь же ещё этих мягких французских булок, да выпей чаю.",
    "いろはにほへと ちりぬるを 我が世誰ぞ 常ならむ",
    "हिन्दी में लिखा हुआ एक वाक्य। ภาษาไทยไม่มีช่องว่าง",
    "مرحبا بالعالم ١٢٣ 😀😀 👩‍👩‍👧 café naïve ﬁne ①②③ ½",
    "가나다라 한국어 문장입니다. Ελληνικά γράμματα ΣΊΣΥΦΟΣ",
)


def _corpus() -> Iterator[str]:
    for sentence in SENTENCES:
        yield from (sentence, sentence.upper(), sentence.replace(" ", "  "))


SPECIAL = [AddedToken(name, special=True, normalized=False) for name in ("<|begin|>", "<|end|>", "<|user|>")]


def _trained(tokenizer: Tokenizer, trainer: object, *more: AddedToken) -> Tokenizer:
    tokenizer.train_from_iterator(chain(*[_corpus()] * 4), trainer)
    tokenizer.add_tokens(list(more))
    return tokenizer


def _byte_level(tokenizer: Tokenizer, *more: AddedToken) -> Tokenizer:
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=900, initial_alphabet=alphabet, special_tokens=SPECIAL, show_progress=False
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="<|begin|> $A", special_tokens=[("<|begin|>", 0)])
    return _trained(tokenizer, trainer, *more)


def gpt2() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return _byte_level(tokenizer)


def llama3() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    split = pre_tokenizers.Split(Regex(GPT4), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    return _byte_level(tokenizer, AddedToken("<|user|>\n", normalized=False), AddedToken("\n\n\n", normalized=False))


def qwen() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(QWEN), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    return _byte_level(tokenizer, AddedToken("<tool>", normalized=True), AddedToken("e\u0301e\u0301", normalized=True))


def smollm() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    return _byte_level(tokenizer)


def phi4() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(O200K), "removed", invert=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    return _byte_level(tokenizer, AddedToken("<|sys|>", rstrip=True, lstrip=True, special=True, normalized=False))


def _with_bytes(tokenizer: Tokenizer, *more: AddedToken) -> Tokenizer:
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=900, special_tokens=names, limit_alphabet=90, show_progress=False)
    replace, strip = decoders.Replace("▁", " "), decoders.Strip(" ", 1, 0)
    tokenizer.decoder = decoders.Sequence([replace, decoders.ByteFallback(), decoders.Fuse(), strip])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    made = _trained(tokenizer, trainer, *more)
    # The trainer makes special tokens of the bytes; in the models they are none.
    import json

    described = json.loads(made.to_str())
    described["added_tokens"] = [token for token in described["added_tokens"] if not token["content"].startswith("<0x")]
    return Tokenizer.from_str(json.dumps(described))


def llama2() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return _with_bytes(tokenizer, AddedToken("<|end|>", rstrip=True, special=True, normalized=False))


def gemma() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    runs = [AddedToken("▁" * count, normalized=False) for count in (2, 3, 4)]
    lines = [AddedToken("\n" * count, normalized=False) for count in (1, 2, 3)]
    return _with_bytes(tokenizer, *runs, *lines, AddedToken("<start>", special=True, normalized=False))


def mistral() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    return _with_bytes(tokenizer, AddedToken("[INST]", special=True, normalized=False))


def plain_bpe() -> Tokenizer:
    """Characters that are unknown stay so, or vanish."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("merged_with_next")]
    )
    return _trained(
        tokenizer,
        trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>"], limit_alphabet=60, show_progress=False),
    )


def silent_bpe() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKD(), normalizers.StripAccents()])
    tokenizer.pre_tokenizer = pre_tokenizers.CharDelimiterSplit("-")
    return _trained(
        tokenizer, trainers.BpeTrainer(vocab_size=300, special_tokens=[], limit_alphabet=60, show_progress=False)
    )


def _unigram(tokenizer: Tokenizer, *, byte_fallback: bool) -> Tokenizer:
    trainer = trainers.UnigramTrainer(
        vocab_size=400, unk_token="<unk>", special_tokens=["<unk>", "</s>"], show_progress=False
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    made = _trained(tokenizer, trainer)
    import json

    described = json.loads(made.to_str())
    # Rare characters go, so that some are unknown.
    kept = [[text, score] for text, score in described["model"]["vocab"] if text.isascii() or len(text) > 1]
    if byte_fallback:
        kept += [[f"<0x{byte:02X}>", -20.0] for byte in range(256)]
    described["model"] |= {"vocab": kept, "byte_fallback": byte_fallback}
    described["added_tokens"] = [token for token in described["added_tokens"] if token["id"] < 2]
    return Tokenizer.from_str(json.dumps(described))


def unigram() -> Tokenizer:
    return _unigram(Tokenizer(models.Unigram()), byte_fallback=False)


def unigram_bytes() -> Tokenizer:
    tokenizer = _unigram(Tokenizer(models.Unigram()), byte_fallback=True)
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


def bert() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=20))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    names = ["[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=names, limit_alphabet=80, show_progress=False)
    made = _trained(tokenizer, trainer, AddedToken("[MASK]", lstrip=True, special=True, normalized=False))
    made.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    return made


KINDS: Mapping[str, Callable[[], Tokenizer]] = {
    made.__name__: made
    for made in (
        gpt2,
        llama3,
        qwen,
        smollm,
        phi4,
        llama2,
        gemma,
        mistral,
        plain_bpe,
        silent_bpe,
        unigram,
        unigram_bytes,
        bert,
    )
}
