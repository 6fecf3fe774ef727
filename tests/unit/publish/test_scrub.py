"""No planted secret reaches a published file: whatever holds one is scrubbed or refused."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from published_results import publishable

from perjoule.assemble import derive
from perjoule.publish.gate import examine
from perjoule.publish.private import Identity
from perjoule.publish.scrub import scan, scrub
from perjoule.records import MeterRefusal, RunResult
from perjoule.store.write import encode
from perjoule.verify import verify

WHO = Identity(words=("alice", "lab-box-7"))
HOME = "/ho" + "me/alice"
SECRETS = {
    "host": "lab-box-7", "user": "alice", "path": f"{HOME}/secret/tiny.gguf", "ip": "192.168.1.20", "ip6": "fe80::7:1",
    "mac": "de:ad:be:ef:00:01", "serial": "WD40EFRX123", "place": "52.5200, 13.4050",
}  # fmt: skip
REFUSED = MeterRefusal(meter="shelly", reason="no answer", fix="look", domain="wall")
RESULT = publishable(meters_refused=(REFUSED,))


def string_places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the way to every text of a JSON value; of lists only the first item."""
    if isinstance(value, dict):
        return [p for key, inside in value.items() for p in string_places(inside, (*at, key))]
    if isinstance(value, list):
        return string_places(value[0], (*at, 0)) if value else []
    return [at] if isinstance(value, str) else []


def planted(place: tuple[Any, ...], text: str) -> RunResult | None:
    """Return the result with ``text`` at one place and its numbers derived again; None where no record holds it."""
    content = msgspec.json.decode(msgspec.json.encode(RESULT))
    inside = content
    for key in place[:-1]:
        inside = inside[key]
    inside[place[-1]] = text
    try:
        return derive(msgspec.convert(content, RunResult))
    except Exception:  # noqa: BLE001 - whatever refuses it, it is not published
        return None


PLACES = string_places(msgspec.json.decode(msgspec.json.encode(RESULT)))


@pytest.mark.parametrize("kind", SECRETS)
def test_no_secret_leaves_from_any_text_of_a_result(kind: str, tmp_path):
    secret, tried = SECRETS[kind], 0
    for n, place in enumerate(p for p in PLACES if p[0] not in ("metrics", "energy", "checks")):
        result = planted(place, f"of {secret} say" if place[-1] in ("reason", "fix") else secret)
        if result is None:
            continue
        file = tmp_path / f"{n}.json"
        file.write_bytes(encode(result))
        candidate = examine(file, WHO)
        if not candidate.against and candidate.result is not None:
            assert secret.encode() not in encode(candidate.result), place
        tried += 1
    assert tried > 20


def test_prose_is_scrubbed_and_what_is_left_still_holds():
    refused = MeterRefusal(meter="shelly", reason=f"192.168.1.20 did not answer, see {HOME}/log.txt", fix="ask alice")
    result = publishable(meters_refused=(refused,), reproduce=f"perjoule run --model {HOME}/tiny.gguf")
    clean, changed = scrub(result, WHO)
    assert changed == ["meters_refused.fix", "meters_refused.reason", "reproduce"]
    assert clean.meters_refused[0].reason == "<IP address> did not answer, see <path>"
    assert clean.meters_refused[0].fix == "ask <removed>"
    assert clean.reproduce == "perjoule run --model tiny.gguf"
    assert clean.id != result.id
    assert verify(clean) == []
    assert scan(clean, WHO) == []


def test_a_result_without_anything_private_comes_back_as_it_is():
    assert scrub(RESULT, WHO) == (RESULT, [])


def test_facts_are_not_rewritten_but_named():
    model = msgspec.structs.replace(RESULT.model, name="alice-7b")
    result = derive(msgspec.structs.replace(RESULT, model=model))
    clean, changed = scrub(result, WHO)
    assert changed == []
    assert scan(clean, WHO) == ["model.name: 'alice' looks like the name of this machine or its user"]


def test_the_names_of_keys_are_searched_too():
    libraries = {"numpy": "2.0.0", "192.168.1.20": "1"}
    result = derive(msgspec.structs.replace(RESULT, host=msgspec.structs.replace(RESULT.host, libraries=libraries)))
    assert any("IP address" in line for line in scan(result, WHO))


@pytest.mark.parametrize(
    ("command", "clean"),
    [
        ("perjoule run --meter csv:a.csv --seed 0", "perjoule run --meter csv:... --seed 0"),
        ("perjoule run --meter='command:read plug'", "perjoule run --meter=command:..."),
        ("perjoule run --meter tasmota:fe80::1", "perjoule run --meter tasmota:..."),
        ("perjoule run --meter csv:...", "perjoule run --meter csv:..."),
        ("perjoule run --meter hwmon --model tiny:q4", "perjoule run --meter hwmon --model tiny:q4"),
        ("perjoule run 'open", "perjoule run 'open"),
    ],
)
def test_the_command_keeps_meters_without_their_arguments(command: str, clean: str):
    found, _ = scrub(msgspec.structs.replace(RESULT, reproduce=command), WHO)
    assert found.reproduce == clean


def test_arguments_of_meters_are_dropped():
    settings = msgspec.structs.replace(RESULT.settings, meters=("command:read-plug --room kitchen",))
    clean, changed = scrub(msgspec.structs.replace(RESULT, settings=settings), WHO)
    assert (clean.settings.meters, changed) == (("command:...",), ["settings.meters"])


@pytest.mark.parametrize("tasks", [["arithmetic"], ["ours.jsonl"]])
def test_what_a_model_invents_is_not_private_but_what_it_may_repeat_is(tasks: list[str]):
    result = publishable()
    said = tuple(
        msgspec.structs.replace(s, question="t/1/1/1/en", answer="see https://example.net/a?b=1", correct=False)
        for s in result.samples
    )
    scenario = msgspec.structs.replace(result.scenario, spec={**result.scenario.spec, "tasks": tasks})
    found = scan(msgspec.structs.replace(result, samples=said, scenario=scenario), WHO)
    assert any(line.startswith("samples.answer") for line in found) == (tasks == ["ours.jsonl"])
