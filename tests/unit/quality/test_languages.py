from __future__ import annotations

import hashlib
import unicodedata
from importlib.resources import files

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.errors import InputError, UsageError
from perjoule.load.prompts import corpora, prompt_text
from perjoule.quality.languages import cut, languages, own_passage, passage
from perjoule.quality.relative_cost import EXACT, RelativeCost, relative_cost
from perjoule.records import Missing

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


def rows(found) -> dict[str, RelativeCost]:
    assert all(isinstance(row, RelativeCost) for row in found.values())
    return found


def test_counts_are_exact():
    found = rows(relative_cost({"en": [100], "hi": [450]}, {"en": 1000, "hi": 900}, exact=True))
    hindi = found["hi"]
    assert (hindi.ratio, hindi.low, hindi.high, hindi.interval) == (pytest.approx(4.5), hindi.ratio, hindi.ratio, EXACT)
    assert hindi.per_1000_characters == 500
    assert found["en"].ratio == 1


def test_ratios_are_taken_within_a_process():
    """The second process is twice as slow in all it does: the ratio does not vary."""
    found = rows(relative_cost({"en": [1.0, 2.0, 1.5], "ko": [3.0, 6.0, 4.5]}, {"en": 10, "ko": 5}))
    assert found["ko"].ratio == pytest.approx(3)
    assert found["ko"].low == pytest.approx(3)
    assert found["ko"].high == pytest.approx(3)
    wide = rows(relative_cost({"en": [1.0, 2.0, 1.5], "ko": [6.0, 3.0, 4.5]}, {"en": 10, "ko": 5}))["ko"]
    assert wide.low is not None
    assert wide.high is not None
    assert wide.low < 1
    assert wide.high > 9


@given(st.lists(st.floats(0.1, 1e4), min_size=2, max_size=8), st.floats(0.2, 20))
def test_the_reference_may_be_any_language(amounts, factor):
    per_process = {"en": amounts, "tr": [a * factor for a in amounts]}
    characters = {"en": 100, "tr": 90}
    there = rows(relative_cost(per_process, characters))["tr"]
    back = rows(relative_cost(per_process, characters, reference="tr"))["en"]
    assert there.ratio * back.ratio == pytest.approx(1)
    assert there.low is not None
    assert there.low <= there.ratio <= (there.high or 0)
    assert there.low * (back.high or 0) == pytest.approx(1)


def test_what_cannot_be_paired_is_missing_with_its_reason():
    characters = dict.fromkeys(("en", "ko", "ja", "ar"), 10)
    found = relative_cost({"en": [1.0, 2.0], "ko": [1.0], "ja": [0.0, 1.0]}, characters)
    assert {language for language, row in found.items() if isinstance(row, Missing)} == {"ko", "ja"}
    alone = relative_cost({"en": [1.0], "ar": [2.0]}, characters)["ar"]
    assert isinstance(alone, RelativeCost)
    assert (alone.low, alone.interval) == (None, "none")
    assert isinstance(relative_cost({"en": [1.0, 1.0], "ar": [2.0, 3.0]}, characters, exact=True)["ar"], Missing)


def test_a_reference_and_characters_are_needed():
    with pytest.raises(ValueError, match="reference"):
        relative_cost({"ko": [1.0]}, {"ko": 10})
    with pytest.raises(ValueError, match="characters for 'ko'"):
        relative_cost({"en": [1.0], "ko": [1.0]}, {"en": 10})
