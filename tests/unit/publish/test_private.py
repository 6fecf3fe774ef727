from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.publish.private import Identity, identity, private_parts

ALICE = Identity(words=("alice", "lab-box-7"))
HOME = "/ho" + "me/alice"  # split: no file of the project names a folder of somebody's


def whats(text: str, who: Identity = ALICE) -> set[str]:
    return {found.what for found in private_parts(text, who)}


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("plug at 192.168.1.20 is silent", "an IP address"),
        ("fe80::1ff:fe23:4567:890a", "an IP address"),
        ("2001:db8:0:0:0:0:2:1 port 80", "an IP address"),
        ("csv:fe80::7:1", "an IP address"),
        ("--model de:ad:be:ef:00:01 --meter csv:de:ad:be:ef:00:01", "a MAC address"),
        ("eth0 de:ad:be:ef:00:01", "a MAC address"),
        ("DE-AD-BE-EF-00-01", "a MAC address"),
        ("dead.beef.0001", "a MAC address"),
        ("http://bmc/redfish", "a web address"),
        ("ask bob@example.org", "an account or e-mail address"),
        ("ssh bob@rack", "an account or e-mail address"),
        ("nas.local answered", "a name in a private network"),
        (f"{HOME}/models/a.gguf", "a path"),
        ("~/models/a.gguf", "a path"),
        ("cannot read /mnt", "a path"),
        ("/srv/llm/a.gguf", "a path"),
        ("/usr/../ho" + "me/x", "a path"),
        ("C:\\Users\\Bob\\a.gguf", "a path"),
        ("GPU-5d0b8a3e-1f2c-4a5b-9c8d-0123456789ab", "a unique identifier"),
        ("container 3f1a9c04e2b7", "a unique identifier"),
        ("disk WD40EFRX123", "a serial number"),
        ("serial number: ab-1234", "a serial number"),
        ("at 52.5200, 13.4050", "a place"),
        ("Europe/Berlin", "a place"),
        ("hf_" + "a" * 24, "a secret"),
        ("password=hunter2", "a secret"),
        ("run by Alice.", "the name of this machine or its user"),
        ("LAB-BOX-7 is busy", "the name of this machine or its user"),
        ("192\u200b.168.1.20", "hidden characters"),
        ("\uff11\uff19\uff12.168.1.20", "something private in other letters"),
    ],
)
def test_what_looks_private_is_found(text: str, what: str):
    assert what in whats(text)


@pytest.mark.parametrize(
    "text",
    [
        "1.22.0", "6.18.44", "535.104.05", "0.2/prefill", "J/token", "prefill/decode", "AMD EPYC 9R14", "Q4_K_M",
        "NVIDIA GeForce GTX 1080 Ti", "NVIDIA A100-SXM4-80GB", "Intel(R) Xeon(R) CPU E5-2690 v4 @ 2.60GHz",
        "chmod a+r /sys/class/powercap/intel-rapl:0/energy_uj", "/proc/cpuinfo names none", "2026-01-02T03:04:05Z",
        "95 % Student t over processes", "hf:Qwen/Qwen2.5-0.5B-Instruct-GGUF@main", "--set new_tokens=16",
        "malice in wonderland", "int8 and int4 blocks", "sha256:" + "ab" * 32, "smollm2-135m-instruct:q4_1",
    ],
)  # fmt: skip
def test_what_results_say_is_not_taken_for_private(text: str):
    assert whats(text) == set()


def test_what_was_said_to_be_no_secret_passes():
    assert whats("SC8280XP") == {"a serial number"}
    assert whats("SC8280XP", Identity(not_private=("SC8280XP",))) == set()


def test_this_machine_is_known_by_its_names(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("os.uname", type("Names", (), {"nodename": "lab-box-7.example"}))
    monkeypatch.setenv("USER", "carol")
    monkeypatch.setenv("LOGNAME", "root")
    words = identity().words
    assert {"lab-box-7.example", "lab-box-7", "carol"} <= set(words)
    assert "root" not in words


@given(st.text(max_size=200))
def test_any_text_is_searched_and_stretches_lie_inside(text: str):
    assert all(text[f.start : f.end] == f.text for f in private_parts(text, ALICE))
