from __future__ import annotations

import hashlib
import unicodedata
from importlib.resources import files

import msgspec
import pytest

from perjoule.errors import InputError, UsageError
from perjoule.load.prompts import corpora, prompt_text
from perjoule.quality.languages import cut, languages, own_passage, passage

TAGS = [language.tag for language in languages().language]


def data(file: str) -> bytes:
    return files("perjoule_scenarios").joinpath("corpora", file).read_bytes()


def test_at_least_the_twelve_languages_that_are_promised():
    assert {"en", "zh", "ko", "ja", "ar", "sw", "hi", "id", "es", "fr", "ru", "tr"} <= set(TAGS)
    assert len(set(TAGS)) == len(TAGS)
    assert len({passage(tag).sha256 for tag in TAGS}) == len(TAGS)


@pytest.mark.parametrize("tag", TAGS)
def test_a_passage_is_the_preamble_and_ten_articles(tag):
    found = passage(tag)
    sections = found.text.split("\n\n")
    whole = data(f"udhr-{tag}.txt").decode().split("\n\n")
    assert len(whole) == 31
    assert sections == whole[:11]
    assert unicodedata.is_normalized("NFC", found.text)
    assert not set("<>&\r\t\ufffd") & set(found.text)
    assert [len(s.splitlines()) for s in sections[1:]] == [2, 3, 2, 2, 2, 2, 2, 2, 2, 2]
    assert found.bytes == len(found.text.encode())
    assert found.sha256 == hashlib.sha256(found.text.encode()).hexdigest()


@pytest.mark.parametrize(
    ("tag", "word"),
    [
        ("en", "dignity"),
        ("zh", "尊严"),
        ("ko", "존엄성"),
        ("ja", "尊厳"),
        ("ar", "الكرامة"),
        ("sw", "heshima"),
        ("hi", "गौरव"),
        ("id", "martabat"),
        ("es", "dignidad"),
        ("fr", "dignité"),
        ("ru", "достоинства"),
        ("tr", "haysiyet"),
        ("de", "Würde"),
        ("pt", "dignidade"),
        ("vi", "nhân phẩm"),
    ],
)
def test_each_is_in_its_language(tag, word):
    assert word in passage(tag).text


def test_an_edited_text_is_refused():
    table = languages()
    english = table.language[0]
    assert cut(english, data(english.file), table) == passage("en")
    with pytest.raises(InputError, match="SHA-256") as error:
        cut(english, data(english.file) + b"\n", table)
    assert "edited" in error.value.hint
    with pytest.raises(InputError, match=r"udhr-en\.txt"):
        cut(msgspec.structs.replace(english, sha256="0" * 64), data(english.file), table)


def test_a_language_without_a_passage_is_refused():
    with pytest.raises(UsageError, match="tlh") as error:
        passage("tlh")
    assert "sw" in error.value.hint


def test_the_digest_covers_texts_and_how_much_is_taken():
    table = languages()
    assert table.sha256 != msgspec.structs.replace(table, sections=10).sha256
    assert table.sha256 != msgspec.structs.replace(table, language=table.language[1:]).sha256


def test_prompts_can_be_cut_from_every_language():
    assert {f"udhr-{tag}" for tag in TAGS} <= set(corpora())
    assert "자유" in prompt_text("udhr-ko", 0, 0, 0)


def test_a_text_of_ones_own(tmp_path):
    path = tmp_path / "own.txt"
    path.write_bytes("\ufeffe\u0301te\u0301\r\nfin\r\n\r\n".encode())
    found = own_passage(str(path), "fr")
    assert (found.text, found.language, found.bytes, found.characters) == ("été\nfin", "fr", 9, 7)
    for content, said in ((b"\xff\xfe", "not UTF-8"), (b" \n", "empty")):
        path.write_bytes(content)
        with pytest.raises(InputError, match=said):
            own_passage(str(path))
    with pytest.raises(InputError, match="No such file"):
        own_passage(str(tmp_path / "none.txt"))
