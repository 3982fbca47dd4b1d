"""`tokenizer.json`: the one file format of tokenizers that most programs read, and which part of it we can read.

The file spells each token as characters, one for each byte (`bpe.spell`), and holds the vocabulary with its ids,
the merges in their order, how text is cut into words, and the tokens added on top. Those marked special stand for
no text; others, such as Qwen's `<tool_call>`, stand for their own spelling wherever it occurs.

The format can say far more than we can do. `read_vocabulary` refuses what it does not know, rather than encode it
in another way than its makers.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import regex

from hornbook.tokenizer import bpe

TokenizerJson = dict[str, Any]


class UnknownFormat(ValueError):
    """The file asks for something we cannot do; the message completes "it ...", and names what."""


@dataclass(frozen=True)
class Vocabulary:
    """What a tokenizer does, whoever wrote it down.

    Attributes:
        ids: the id of each token of the byte-pair encoding. Ids of merged tokens rise in the order of the merges.
        merges: the merges in their order, or None where only the ids tell it, as in files for tiktoken.
        pattern: the regular expression of a word.
        special: ids of the tokens that stand for no text.
        spelled: ids of the added tokens that stand for their own spelling.
        composes: whether text is brought into Unicode's form NFC first.
        prefers_whole_words: whether a word that is a token is taken whole even where no merges lead to it.
    """

    ids: dict[bytes, int]
    merges: list[bpe.Merge] | None
    pattern: str
    special: dict[str, int]
    spelled: dict[str, int]
    composes: bool = False
    prefers_whole_words: bool = False

    @property
    def size(self) -> int:
        """One more than the largest id."""
        return 1 + max(max(names.values(), default=0) for names in (self.ids, self.special, self.spelled))


def compose(merges: Sequence[bpe.Merge], pattern: str, ids: Mapping[bytes, int] | None = None) -> TokenizerJson:
    """The file of a byte-pair encoding, with no tokens besides. Ids are the usual ones if not given."""
    ids = ids or {token: id for id, token in enumerate(bpe.vocabulary(merges))}
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {bpe.spell(token): id for token, id in ids.items()},
            "merges": [f"{bpe.spell(left)} {bpe.spell(right)}" for left, right in merges],
        },
    }


def with_special_tokens(file: TokenizerJson, tokens: Iterable[str]) -> TokenizerJson:
    """The same file with more special tokens, with ids after all others; those that it has already stay as they are."""
    added = [dict(entry) for entry in file["added_tokens"]]
    known = {entry["content"]: entry for entry in added}
    next_id = 1 + max([*file["model"]["vocab"].values(), *(entry["id"] for entry in added)])
    for token in dict.fromkeys(tokens):
        if token in known:
            known[token]["special"] = True
            continue
        plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        added.append({"id": next_id, "content": token, **plain, "special": True})
        next_id += 1
    return {**file, "added_tokens": added}


_OF_EVERY_KIND = (
    *("a", "A", "é", "ǅ", "ʰ", "中", "1", "Ⅷ", "½", "!", "-", "(", ")", "«", "»", "_", "+", "$", "^", "©", " ", "\n"),
    *("\t", "\u0301", "\u0903", "\u20dd", "\u2028", "\x00", "\u200d", "\ue000", "\u0378"),
)
"""A character of each general category: a pattern that matches none of a kind would lose it."""


def read_vocabulary(file: Any) -> Vocabulary:
    """What a `tokenizer.json` says. Raises UnknownFormat where it is more, or something else, than we can do."""
    try:
        model = file["model"]
        added = {entry["content"]: entry["id"] for entry in file["added_tokens"]}
        special = {entry["content"]: entry["id"] for entry in file["added_tokens"] if entry["special"]}
        if model.get("type", "BPE") != "BPE":
            raise UnknownFormat(f"is of the kind {model['type']}")
        for setting in ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
            if model.get(setting):
                raise UnknownFormat(f"has {setting} set to {model[setting]!r}")
        for entry in file["added_tokens"]:
            if not entry["special"] and (entry.get("lstrip") or entry.get("rstrip") or entry.get("single_word")):
                raise UnknownFormat(f"takes blanks along with {entry['content']!r}, or has it for whole words alone")
        ids = {_bytes_of(token): id for token, id in model["vocab"].items() if token not in added}
        merges = [_merge(entry) for entry in model["merges"]]
        vocabulary = Vocabulary(
            ids=ids,
            merges=merges,
            pattern=_pattern(file["pre_tokenizer"]),
            special=special,
            spelled={token: id for token, id in added.items() if token not in special},
            composes=_composes(file.get("normalizer")),
            prefers_whole_words=bool(model.get("ignore_merges")),
        )
    except UnknownFormat:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as problem:
        raise UnknownFormat(f"lacks or has otherwise: {problem}") from problem
    _check_order(vocabulary)
    return vocabulary


def _bytes_of(spelling: str) -> bytes:
    byte_of = bpe.character_bytes()
    if unknown := [character for character in spelling if character not in byte_of]:
        raise UnknownFormat(f"is not byte-level: its token {spelling!r} has the character {unknown[0]!r}")
    return bytes(byte_of[character] for character in spelling)


def _merge(entry: str | list[str]) -> bpe.Merge:
    left, right = entry.split(" ") if isinstance(entry, str) else entry
    return _bytes_of(left), _bytes_of(right)


def _pattern(pre_tokenizer: Any) -> str:
    """What a word is. ByteLevel by itself cuts as GPT-2 does; after a Split it only turns text into bytes."""
    steps = pre_tokenizer["pretokenizers"] if pre_tokenizer["type"] == "Sequence" else [pre_tokenizer]
    *splits, byte_level = steps
    if byte_level["type"] != "ByteLevel" or byte_level["add_prefix_space"]:
        raise UnknownFormat(f"cuts words by {[step['type'] for step in steps]}, or puts a space before texts")
    cuts_too = byte_level.get("use_regex", True)
    if not splits and cuts_too:
        return bpe.SPLIT_PATTERNS["gpt2"]
    if len(splits) != 1 or splits[0]["type"] != "Split" or cuts_too:
        raise UnknownFormat(f"cuts words in several steps: {[step['type'] for step in steps]}")
    (split,) = splits
    if split["behavior"] != "Isolated" or split["invert"] or "Regex" not in split["pattern"]:
        raise UnknownFormat("cuts words by something else than one regular expression of a word")
    pattern: str = split["pattern"]["Regex"]
    try:
        left_out = [one for one in _OF_EVERY_KIND if not regex.fullmatch(f"(?:{pattern})+", one)]
    except regex.error as problem:
        raise UnknownFormat(f"cuts words by something that is no regular expression here ({problem})") from None
    if left_out:
        raise UnknownFormat(f"has a pattern of words that leaves out characters such as {left_out[0]!r}")
    return pattern


def _composes(normalizer: Any) -> bool:
    if normalizer in (None, {"type": "NFC"}):
        return normalizer is not None
    raise UnknownFormat(f"changes texts first, by {normalizer.get('type')}")


def _check_order(vocabulary: Vocabulary) -> None:
    """Raise UnknownFormat unless the ids alone tell which merge comes first, and every token can come about."""
    all_ids = [id for names in (vocabulary.ids, vocabulary.special, vocabulary.spelled) for id in names.values()]
    if set(all_ids) != set(range(len(all_ids))):
        raise UnknownFormat(f"has {len(all_ids)} tokens whose ids are not those from 0 on")
    missing = [byte for byte in range(256) if bytes([byte]) not in vocabulary.ids]
    if missing:
        raise UnknownFormat(f"has no token for {len(missing)} of the 256 bytes")
    made = dict.fromkeys(left + right for left, right in vocabulary.merges or ())
    if unmade := [token for token in vocabulary.ids if len(token) > 1 and token not in made]:
        raise UnknownFormat(f"has {len(unmade)} tokens that no merge makes, such as {unmade[0]!r}")
    if unknown := [token for token in made if token not in vocabulary.ids]:
        raise UnknownFormat(f"merges to {unknown[0]!r}, which is no token of it")
    ids = [vocabulary.ids[token] for token in made]
    if ids != sorted(ids):
        raise UnknownFormat("has ids in another order than its merges")
