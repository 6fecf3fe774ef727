"""The same passage in many languages, pinned by hash: the Universal Declaration of Human Rights.

Tokens, joules and bits per byte of a passage are compared between models within one language. A passage is said in
more or fewer tokens and bytes in another language; no average over languages means anything.
"""

from __future__ import annotations

import hashlib
import tomllib
import unicodedata
from functools import cache
from importlib.resources import files
from pathlib import Path

import msgspec

from perjoule.errors import InputError, UsageError
from perjoule.records import Record

_PACKAGE = "perjoule_scenarios"  # reached by name: perjoule does not import it
_MAX_BYTES = 16 * 2**20


class Language(Record, frozen=True, kw_only=True):
    """One language of ``languages.toml``. ``tag`` is BCP 47; ``sha256`` is of the whole file."""

    tag: str
    name: str
    script: str
    file: str
    sha256: str


class Languages(Record, frozen=True, kw_only=True):
    """The pinned texts. A passage is the first ``sections`` sections of each: preamble and the first articles."""

    version: int
    source: str
    license: str
    sections: int
    language: tuple[Language, ...]

    @property
    def sha256(self) -> str:
        """Return one digest for all texts and how much of them is taken."""
        parts = [str(self.sections), *(f"{one.tag} {one.sha256}" for one in self.language)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


class Passage(Record, frozen=True, kw_only=True):
    """A text in one language, NFC. ``sha256`` is of ``text`` itself; ``bytes`` are those of UTF-8."""

    language: str
    name: str
    text: str
    source: str
    sha256: str

    @property
    def bytes(self) -> int:
        return len(self.text.encode())

    @property
    def characters(self) -> int:
        """Code points, spaces and line ends included."""
        return len(self.text)


@cache
def languages() -> Languages:
    data = files(_PACKAGE).joinpath("corpora", "languages.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(data), Languages)


def passage(tag: str) -> Passage:
    """Return the pinned passage of a language.

    Raises ``UsageError`` for a language that has none, ``InputError`` if the text is not the pinned one.
    """
    table = languages()
    one = next((language for language in table.language if language.tag == tag), None)
    if one is None:
        known = ", ".join(language.tag for language in table.language)
        raise UsageError(f"no passage in language {tag!r}", hint=f"known: {known}; or the path of a text of your own")
    data = files(_PACKAGE).joinpath("corpora", one.file).read_bytes()
    return cut(one, data, table)


def cut(language: Language, data: bytes, table: Languages) -> Passage:
    """Return the passage of a language's file. Raises ``InputError`` if its hash is not the pinned one."""
    found = hashlib.sha256(data).hexdigest()
    if found != language.sha256:
        raise InputError(
            f"{language.file} has SHA-256 {found[:16]}..., pinned is {language.sha256[:16]}...",
            hint="install perjoule again; an edited text cannot be compared",
        )
    sections = data.decode("utf-8").split("\n\n")[: table.sections]
    return _passage(language.tag, language.name, "\n\n".join(sections), table.source)


def own_passage(path: str, tag: str = "und") -> Passage:
    """Return a text of the user's own, brought to NFC with plain line ends. ``tag`` says its language.

    Raises ``InputError`` for a file that cannot be read, is not UTF-8, or is empty.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise InputError(f"{path}: larger than {_MAX_BYTES} bytes", hint="a few pages are enough")
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}", hint="name a UTF-8 text file") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text", hint="convert it to UTF-8") from None
    text = unicodedata.normalize("NFC", "\n".join(text.splitlines())).strip()
    if not text:
        raise InputError(f"{path}: empty", hint="name a UTF-8 text file")
    return _passage(tag, Path(path).name, text, path)


def _passage(tag: str, name: str, text: str, source: str) -> Passage:
    return Passage(
        language=tag, name=name, text=text, source=source, sha256=hashlib.sha256(text.encode()).hexdigest()
    )  # fmt: skip
