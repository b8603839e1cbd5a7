"""CLIP's tokenizer without torch or transformers: lower case, byte-level BPE, 49,408 tokens.

Source: Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision". The rules below
(NFC, one space for any white space, the pattern that cuts words) are those of transformers' CLIPTokenizer, and the
tests hold the two equal.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer
from tokenizers.models import BPE
from tokenizers.normalizers import NFC, Lowercase, Replace
from tokenizers.normalizers import Sequence as Normalizers
from tokenizers.pre_tokenizers import ByteLevel, Split
from tokenizers.pre_tokenizers import Sequence as PreTokenizers

from webui.paths import PACKAGE_DATA

BOS = 49406
EOS = 49407
_BOS_TEXT, _EOS_TEXT = "<|startoftext|>", "<|endoftext|>"
_WORDS = (
    r"<\|startoftext\|>|<\|endoftext\|>"
    r"|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)


class ClipTokenizer:
    """Text to token numbers. Immutable once made; safe to use from several threads."""

    def __init__(self, folder: Path = PACKAGE_DATA / "clip") -> None:
        """Read `vocab.json` and `merges.txt` of a folder. Raises OSError where one is missing."""
        for name in ("vocab.json", "merges.txt"):
            (folder / name).stat()
        model = BPE.from_file(
            str(folder / "vocab.json"),
            str(folder / "merges.txt"),
            end_of_word_suffix="</w>",
            unk_token=_EOS_TEXT,
        )
        tokenizer = Tokenizer(model)
        tokenizer.normalizer = Normalizers([NFC(), Replace(Regex(r"\s+"), " "), Lowercase()])
        tokenizer.pre_tokenizer = PreTokenizers(
            [Split(Regex(_WORDS), behavior="removed", invert=True), ByteLevel(add_prefix_space=False)]
        )
        tokenizer.add_special_tokens([AddedToken(text, special=True) for text in (_BOS_TEXT, _EOS_TEXT)])
        self._tokenizer = tokenizer
        self.comma = self._id(",</w>")
        self.bos = self._id(_BOS_TEXT)
        self.eos = self._id(_EOS_TEXT)

    def _id(self, token: str) -> int:
        number = self._tokenizer.token_to_id(token)
        if number is None:
            raise ValueError(f"the vocabulary has no token {token!r}")
        return int(number)

    def encode(self, text: str) -> list[int]:
        """The tokens of `text`, without BOS and EOS around it, of any length."""
        clean = text.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate has no bytes
        return list(self._tokenizer.encode(clean, add_special_tokens=False).ids)


@lru_cache(maxsize=1)
def clip_tokenizer() -> ClipTokenizer:
    """The tokenizer of the project's own vocabulary, read once a process (a tenth of a second)."""
    return ClipTokenizer()
