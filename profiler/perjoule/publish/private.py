"""What looks private in a text: addresses, names, paths, serial numbers, places, secrets. Patterns, not knowledge."""

from __future__ import annotations

import ipaddress
import os
import pwd
import re
import socket
import unicodedata
from functools import lru_cache
from typing import TYPE_CHECKING

from perjoule.records import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Names that say nothing of anybody: accounts of images, clouds and containers.
_NOBODYS = frozenset({
    "root", "user", "users", "admin", "administrator", "ubuntu", "debian", "fedora", "centos", "opc", "ec2-user",
    "azureuser", "cloud-user", "core", "runner", "docker", "nobody", "localhost", "localdomain", "local", "host",
    "server", "build", "builder", "ci", "test", "dev", "home", "none", "unknown", "linux", "perjoule",
})  # fmt: skip
_LEAST_NAME = 3  # shorter ones are in every text
_OCTET = 255
_LEAST_LETTERS, _LEAST_DIGITS = 2, 3  # of what passes for a serial number
# Trees that are the same on every machine; anything else says how somebody named folders.
_PUBLIC_TREES = ("/sys/", "/proc/", "/dev/", "/etc/", "/usr/", "/run/", "/lib/", "/bin/", "/sbin/")


class Found(Record, frozen=True, kw_only=True):
    """One stretch of a text that looks private, and what it looks like."""

    what: str
    text: str
    start: int
    end: int


class Identity(Record, frozen=True, kw_only=True):
    """Words by which this machine and its user are known, and texts that were said to be no secret."""

    words: tuple[str, ...] = ()
    not_private: tuple[str, ...] = ()


def identity(not_private: tuple[str, ...] = ()) -> Identity:
    """Return the names of this machine and of who runs perjoule, without those that are nobody's."""
    names = [os.uname().nodename, socket.gethostname(), os.environ.get("USER", ""), os.environ.get("LOGNAME", "")]
    names += [os.path.basename(os.path.expanduser("~"))]  # noqa: PTH111, PTH119 - Path.home() fails without a home
    try:
        account = pwd.getpwuid(os.getuid())
        names += [account.pw_name, account.pw_gecos.split(",")[0], os.path.basename(account.pw_dir)]  # noqa: PTH119
    except KeyError:
        pass  # a user that the machine does not know has no name to give away
    names += [name.split(".")[0] for name in names]
    kept = {n.strip() for n in names if len(n.strip()) >= _LEAST_NAME and n.strip().lower() not in _NOBODYS}
    return Identity(words=tuple(sorted(kept)), not_private=not_private)


def private_parts(text: str, who: Identity) -> list[Found]:
    """Return every stretch of ``text`` that looks private, in order. Stretches may overlap."""
    return [f for f in _found(text, who.words) if f.text not in who.not_private]


@lru_cache(maxsize=1 << 16)  # a result holds the same few hundred texts thousands of times
def _found(text: str, words: tuple[str, ...]) -> tuple[Found, ...]:
    plain = unicodedata.normalize("NFKC", text)
    hidden = any(unicodedata.category(c) in ("Cf", "Cc", "Co", "Cs") and c not in "\n\t" for c in text)
    found = [Found(what="hidden characters", text=text, start=0, end=len(text))] if hidden else []
    if plain != text and any(True for _ in _looks(plain, words)):  # disguised: offsets would not fit
        return (*found, Found(what="something private in other letters", text=text, start=0, end=len(text)))
    return tuple(sorted((*found, *_looks(text, words)), key=lambda f: f.start))


def _looks(text: str, words: tuple[str, ...]) -> Iterator[Found]:
    for word in words:
        whole_word = rf"(?<![A-Za-z0-9]){re.escape(word)}(?![A-Za-z0-9])"
        for match in re.finditer(whole_word, text, re.IGNORECASE):
            yield _of("the name of this machine or its user", match)
    for what, pattern, fits in _LOOKS:
        for match in pattern.finditer(text):
            if fits is None or fits(match[0], text):
                yield _of(what, match)


def _of(what: str, match: re.Match[str]) -> Found:
    return Found(what=what, text=match[0], start=match.start(), end=match.end())


def _is_ipv4(text: str, _: str) -> bool:
    return all(int(part) <= _OCTET for part in text.split("."))


def _is_ipv6(text: str, _: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return any(c in "0123456789abcdefABCDEF" for c in text)


def _is_private_path(text: str, _: str) -> bool:
    return not text.startswith(_PUBLIC_TREES) or ".." in text.split("/")


def _is_serial(text: str, _: str) -> bool:
    digits = sum(c.isdigit() for c in text)
    return digits >= _LEAST_DIGITS and len(text) - digits >= _LEAST_LETTERS


def _is_identifier(text: str, whole: str) -> bool:
    """Hexadecimal digits that are no digest of a file or revision (after ``sha256:`` or ``@``)."""
    before = whole[: whole.find(text)]
    return not text.isdigit() and not text.isalpha() and not before.endswith(("sha256:", "@", "SHA-256 "))


def _is_account(text: str, whole: str) -> bool:
    """``name@machine``, but not the revision of a model: ``hf:organisation/model@main``."""
    before = whole[: whole.find(text)]
    return "hf:" not in before.rpartition(" ")[2]


def _is_place(text: str, _: str) -> bool:
    latitude, _, longitude = text.partition(",")
    return abs(float(latitude)) <= 90 and abs(float(longitude)) <= 180  # noqa: PLR2004 - degrees


_Look = tuple[str, re.Pattern[str], "Callable[[str, str], bool] | None"]
_HEX = "[0-9A-Fa-f]"
_BEGIN = r"(?:(?<![\w:])|(?<=[g-zG-Z]:))"  # alone, or behind a word and a colon: csv:fe80::1
_LOOKS: tuple[_Look, ...] = (
    ("an IP address", re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.]*\d)"), _is_ipv4),
    ("an IP address", re.compile(rf"{_BEGIN}{_HEX}{{0,4}}:(?:{_HEX}{{0,4}}:)+{_HEX}{{0,4}}(?![\w:])"), _is_ipv6),
    ("a MAC address", re.compile(
        rf"(?:(?<![\w:-])|(?<=[g-zG-Z]:)){_HEX}{{2}}(?:([:-]){_HEX}{{2}})(?:\1{_HEX}{{2}}){{4,6}}(?![\w:-])"), None),
    ("a MAC address", re.compile(rf"(?<!\w){_HEX}{{4}}\.{_HEX}{{4}}\.{_HEX}{{4}}(?!\w)"), None),
    ("a web address", re.compile(r"(?:https?|ftp|ssh|file|smb|redfish)://[^\s\"'`<>]+", re.IGNORECASE), None),
    ("an account or e-mail address", re.compile(r"[\w.+-]+@[A-Za-z][\w.-]*"), _is_account),
    ("a name in a private network", re.compile(
        r"(?<![\w.])[\w-]+(?:\.[\w-]+)*\.(?:local|lan|home|internal|intern|corp|intranet|localdomain|arpa)(?!\w)",
        re.IGNORECASE), None),
    ("a path", re.compile(r"(?<![\w.\]/>])/(?:[^\s/\"'`:;,<>()|]+/)+[^\s/\"'`:;,<>()|]*"), _is_private_path),
    ("a path", re.compile(
        r"(?<![\w.])~[\w.-]*/[^\s\"'`]*|(?<![\w])[A-Za-z]:\\[^\s\"'`]*|\\\\[\w.-]+\\[^\s\"'`]*"), None),
    ("a path", re.compile(r"(?<![\w.\]/>])/(?:root|home|mnt|media|srv|opt|tmp|var|Users|Volumes|data)(?![\w/])"), None),
    ("a unique identifier", re.compile(rf"(?<!\w){_HEX}{{8}}(?:-{_HEX}{{4}}){{3}}-{_HEX}{{12}}(?!\w)"), None),
    ("a unique identifier", re.compile(r"(?<![0-9A-Za-z])[0-9a-f]{12,}(?![0-9A-Za-z])"), _is_identifier),
    ("a serial number", re.compile(r"(?<![0-9A-Za-z_])[0-9A-Z]{8,}(?![0-9A-Za-z_])"), _is_serial),
    ("a serial number", re.compile(
        r"\b(?:serial(?: ?(?:number|no\.?|#))?|s/n|asset tag)\s*[:=#]?\s*(?=[\w-]*\d)[\w-]{4,}", re.IGNORECASE), None),
    ("a place", re.compile(r"(?<![\d.])-?\d{1,2}\.\d{3,},\s*-?\d{1,3}\.\d{3,}(?![\d.])"), _is_place),
    ("a place", re.compile(
        r"\b(?:Africa|America|Antarctica|Arctic|Asia|Atlantic|Australia|Europe|Indian|Pacific)/[A-Z][A-Za-z_]+"), None),
    ("a secret", re.compile(r"\b(?:hf_|sk-|ghp_|gho_|xox[bp]-|AKIA|glpat-)[\w-]{12,}"), None),
    ("a secret", re.compile(r"\b(?:password|passwd|token|secret|api[_-]?key)\s*=\s*\S+", re.IGNORECASE), None),
)  # fmt: skip
