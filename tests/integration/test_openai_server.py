"""The ``openai`` backend against a server whose answers and faults are known, and against one with a real model."""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
import subprocess
import sys
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from fake_openai_server import HEAD, Behaviour, FakeServer, chunk, event, letters, status, write_byte_tokenizer
from fixtures_checkpoints import checkpoint_path

from perjoule import messages, registry, store
from perjoule.cli import main
from perjoule.clock import MonotonicClock
from perjoule.drive.prompts import asked_prompts
from perjoule.errors import EngineError, HostError, InputError, PerjouleError, UsageError
from perjoule.load.serve import serve_remotely
from perjoule.load.sources import AllAtOnce
from perjoule.protocols import EngineOptions, RemoteEngine
from perjoule.records import UNSET, Energy, Missing, Quantity
from perjoule.verify import verify

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from perjoule.protocols import Engine
    from perjoule.records import RunResult

PROMPT = [5, 17, 90, 3]


@pytest.fixture
def tokenizer(tmp_path: Path) -> str:
    return str(write_byte_tokenizer(tmp_path))


@contextmanager
def engine_of(server: FakeServer | None, tokenizer: str, *, batch: int = 1, **extra: Any) -> Iterator[Engine]:
    backend = registry.backend("openai")
    settings = {"url": "" if server is None else server.url, "tokenizer": tokenizer} | extra
    options = EngineOptions(device="server", context_tokens=512, batch=batch, extra=settings)
    engine = backend.load(backend.prepare("tiny", options, lambda _text, _share: None), options)
    try:
        yield engine
    finally:
        engine.close()


def answer(engine: Engine, count: int, prompt: list[int] | None = None) -> str:
    out: list[int] = []
    engine.generate(PROMPT if prompt is None else prompt, count, frozenset(), out.append)
    return "".join(chr(token) if token >= 0 else "?" for token in out)


def failure(behaviour: Behaviour, tokenizer: str, **extra: Any) -> PerjouleError:
    """Return what is said of a server that behaves so."""
    with (
        FakeServer(behaviour) as server,
        pytest.raises(PerjouleError) as caught,
        engine_of(server, tokenizer, **extra) as engine,
    ):
        answer(engine, 8)
    assert caught.value.hint
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 400
    return caught.value


def test_token_ids_are_sent_and_come_back(tokenizer: str):
    with FakeServer() as server, engine_of(server, tokenizer) as engine:
        assert answer(engine, 8) == letters(PROMPT, 8)
        assert isinstance(engine, RemoteEngine)
        assert engine.delivery().output_tokens == 8
        asked = server.asked[-1]
        assert (asked["prompt"], asked["max_tokens"], asked["temperature"], asked["ignore_eos"]) == (PROMPT, 8, 0, True)
        assert engine.effective_options()["prompt"] == "token ids"


def test_a_server_that_takes_text_only_gets_text(tokenizer: str):
    with FakeServer(Behaviour(takes_ids=False)) as server, engine_of(server, tokenizer) as engine:
        assert answer(engine, 3, list(b"abc")) == letters(list(b"abc"), 3)
        assert server.asked[-1]["prompt"] == "abc"
        assert engine.effective_options()["prompt"] == "text"
        assert engine.effective_options()["fields_beyond_openai"] is True


def test_a_server_that_knows_no_more_fields_than_openai_may_end_early(tokenizer: str):
    with FakeServer(Behaviour(takes_fields=False, least=5)) as server, engine_of(server, tokenizer) as engine:
        assert answer(engine, 8) == letters(PROMPT, 5)
        assert isinstance(engine, RemoteEngine)
        assert (engine.delivery().output_tokens, engine.delivery().finish_reason) == (5, "stop")
        assert engine.counts().usage_missing_count == 1


def test_a_chat_endpoint_is_sent_a_message(tokenizer: str):
    with FakeServer() as server, engine_of(server, tokenizer, endpoint="chat") as engine:
        assert answer(engine, 4, list(b"hi")) == letters(list(b"hi"), 4)
        assert server.asked[-1]["messages"] == [{"role": "user", "content": "hi"}]


def test_a_chat_endpoint_has_its_own_template_and_is_asked_no_tasks(tokenizer: str):
    question = messages.Question(id="t/0/1/0/en", prompt="hi", chat=True, max_new_tokens=4)
    with FakeServer() as server, engine_of(server, tokenizer, endpoint="chat") as engine:
        with pytest.raises(InputError, match="renders no chat template"):
            asked_prompts([question], engine, first_index=0)
        assert len(asked_prompts([msgspec.structs.replace(question, chat=False)], engine, first_index=0)) == 1


def test_connections_are_used_again_and_replaced_where_the_server_closed_them(tokenizer: str):
    for closes, connections in ((False, 1), (True, 4)):
        with FakeServer(Behaviour(closes=closes)) as server, engine_of(server, tokenizer) as engine:
            before = server.connections
            assert [answer(engine, 4) for _ in range(4)] == [letters(PROMPT, 4)] * 4
            assert server.connections - before == connections


def test_requests_are_in_flight_together(tokenizer: str):
    behaviour = Behaviour(pause_s=0.02)
    with FakeServer(behaviour) as server, engine_of(server, tokenizer, batch=3) as engine:
        assert isinstance(engine, RemoteEngine)
        prompts = [[i + 1] * 4 for i in range(7)]
        tally = serve_remotely(engine, 3, AllAtOnce(7), prompts, 5, MonotonicClock())
        assert server.most_inside == 3
        assert sorted(a.index for a in tally.answers) == list(range(7))
        assert [a.tokens for a in tally.answers] == [5] * 7
        assert all(list(a.token_ns) == sorted(a.token_ns) for a in tally.answers)
        first, second, third = sorted(tally.answers, key=lambda a: a.start_ns)[:3]
        ends = min(a.token_ns[-1] for a in (first, second, third))
        assert all(a.token_ns[0] < ends for a in (first, second, third)), "each is stamped as it arrives"
        for _ in range(3):
            engine.submit(PROMPT, 5, lambda _token: None)
        with pytest.raises(InputError, match="in flight"):
            engine.submit(PROMPT, 5, lambda _token: None)


FAULTS = [
    (status(401, {"error": {"message": "bad key"}}), "refuses this user.*bad key"),
    (status(429, {"error": "slow down"}, more="Retry-After: 7\r\n"), "too many requests.*slow down.*after 7 s"),
    (status(500, {"detail": "CUDA error"}), "failed .HTTP 500.*CUDA error"),
    (status(503, "<html>\n<b>busy</b></html>"), "failed .HTTP 503.*busy"),
    (status(400, {"message": "too long", "object": "error"}), "refuses the request.*too long"),
    (status(307, "", more="Location: http://other.example/v1\r\n"), "redirects.*other.example.*not followed"),
    (status(404, {"detail": "Not Found"}), "has no /v1/completions"),
    (status(200, {"choices": [{"text": "all at once"}]}, more="Content-Type: application/json\r\n"), "does not stream"),
    (status(200, "<html>hello</html>", more="Content-Type: text/html\r\n"), "does not stream"),
    (HEAD + chunk(event("a")) + chunk("data: {broken\n\n"), "broken.*middle"),
    (HEAD + chunk(event("a")) + chunk("nonsense\n"), "no event"),
    (HEAD + chunk(event("a")) + chunk('data: {"error": {"message": "out of blocks"}}\n\n'), "out of blocks"),
    (HEAD + chunk(event("a")) + b"zz\r\n", "no size"),
    (HEAD + chunk(event("a")) + b"0\r\n\r\n", "without saying why"),
    (HEAD + chunk("data: [DONE]\n\n") + b"0\r\n\r\n", "without any text"),
    (HEAD + chunk("data: " + "x" * (2 << 20)), "more than"),
    (b"SSH-2.0-OpenSSH_9.6\r\n", "no HTTP server"),
]  # fmt: skip


@pytest.mark.parametrize(("fault", "said"), FAULTS)
def test_each_fault_is_one_line_with_a_hint(fault: bytes, said: str, tokenizer: str):
    error = failure(Behaviour(fault=fault), tokenizer)
    assert isinstance(error, EngineError)
    assert re.search(said, error.message), error.message


def drop_in_the_middle(_server: FakeServer, connection: socket.socket) -> None:
    connection.sendall(HEAD + chunk(event("a")))
    connection.shutdown(socket.SHUT_RDWR)


def reset_at_once(_server: FakeServer, connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    connection.close()


def speak_for_ever(server: FakeServer, connection: socket.socket) -> None:
    connection.sendall(HEAD)
    while not server.wait(0):
        connection.sendall(chunk(event("a") * 50))


@pytest.mark.parametrize(
    ("fault", "said"),
    [(drop_in_the_middle, "hung up in the middle"), (reset_at_once, "hung up"), (speak_for_ever, "were asked for")],
)
def test_a_server_that_breaks_off_or_never_ends(fault: Any, said: str, tokenizer: str):
    assert said in failure(Behaviour(fault=fault), tokenizer).message


def test_a_server_that_counts_wrongly_is_not_believed(tokenizer: str):
    lies = Behaviour(usage=lambda prompt, _count: {"prompt_tokens": prompt + 50, "completion_tokens": 4000})
    with FakeServer(lies) as server, engine_of(server, tokenizer) as engine:
        answer(engine, 8)
        assert isinstance(engine, RemoteEngine)
        assert engine.delivery().output_tokens == 8
        counts = engine.counts()
        assert (counts.requests_count, counts.usage_differs_count, counts.prompt_differs_count) == (1, 1, 1)


def test_pieces_of_several_tokens_are_not_taken_for_tokens(tokenizer: str):
    with FakeServer(Behaviour(tokens_a_piece=3)) as server, engine_of(server, tokenizer) as engine:
        answer(engine, 8)
        assert isinstance(engine, RemoteEngine)
        assert engine.delivery().output_tokens == 8
        assert engine.delivery().untimed == "8 tokens came in 3 pieces"


def test_a_wrong_name_lists_what_the_server_has(tokenizer: str):
    models = ({"id": "org/one"}, {"id": f"{os.sep}srv{os.sep}files{os.sep}two.gguf"})
    error = failure(Behaviour(models=models), tokenizer)
    assert isinstance(error, InputError)
    assert "org/one, two.gguf" in error.hint, "folders of the server are not told"


@pytest.mark.parametrize(
    ("body", "said"), [(status(200, "<html></html>"), "no OpenAI-compatible server"), (status(200, {}), "no models")]
)
def test_what_is_no_such_server_is_told(body: bytes, said: str, tokenizer: str):
    assert said in failure(Behaviour(models_answer=body), tokenizer).message


def test_an_address_without_v1_is_told(tokenizer: str):
    with (
        FakeServer() as server,
        pytest.raises(EngineError, match="HTTP 404") as caught,
        engine_of(server, tokenizer, url=server.url.removesuffix("/v1")),
    ):
        pass
    assert "/v1" in caught.value.hint


def test_a_key_is_sent_and_a_missing_one_named(tokenizer: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PERJOULE_TEST_KEY", "sk-secret")
    with (
        FakeServer(Behaviour(key="sk-secret")) as server,
        engine_of(server, tokenizer, api_key_env="PERJOULE_TEST_KEY") as engine,
    ):
        assert answer(engine, 2) == letters(PROMPT, 2)
    assert "api_key_env" in failure(Behaviour(key="sk-secret"), tokenizer).hint


def test_no_server_and_no_tls_are_told(tokenizer: str):
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    with pytest.raises(HostError, match="no connection"), engine_of(
        None, tokenizer, url=f"http://127.0.0.1:{port}/v1"
    ):  # fmt: skip
        pass
    with (
        FakeServer() as server,
        pytest.raises(HostError, match="TLS"),
        engine_of(server, tokenizer, url=server.url.replace("http:", "https:")),
    ):
        pass


def test_a_certificate_that_nobody_vouches_for_is_refused(tokenizer: str, tmp_path: Path):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(certificate),
         "-days", "1", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"],
        capture_output=True, check=False,
    )  # fmt: skip
    if made.returncode:
        pytest.skip("openssl cannot make a certificate here")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with FakeServer(tls=context) as server:
        with pytest.raises(HostError, match="certificate is not trusted"), engine_of(server, tokenizer):
            pass
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SSL_CERT_FILE", str(certificate))
            with engine_of(server, tokenizer) as engine:
                assert answer(engine, 6) == letters(PROMPT, 6)


# ---- whole runs ----

TINY = {"prompt_tokens": 16, "new_tokens": 6, "min_processes": 2, "requests_per_process": 4, "max_warmup_requests": 2}


def run(
    folder: Path, server: FakeServer, tokenizer: str, *words: str, scenario: str = "quickstart", **more: Any
) -> int:
    settings = TINY | {"backend.url": server.url, "backend.tokenizer": tokenizer} | more
    sets = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    return main(
        ["run", scenario, "--backend", "openai", "--model", "tiny", "--out", str(folder), "--time-budget", "0.1",
         "--quality", "none", *words, *sets]
    )  # fmt: skip


def result_of(folder: Path) -> RunResult:
    [path] = folder.glob("*.json")
    result = store.load(path)
    assert verify(result) == []
    return result


def reason(result: RunResult, name: str) -> str:
    metric = result.metric(name)
    assert isinstance(metric, Missing), (name, metric)
    return metric.reason


def codes(result: RunResult) -> set[str]:
    return {check.code for check in result.checks}


def test_a_run_without_the_servers_process_claims_nothing_of_it(tmp_path: Path, tokenizer: str):
    with FakeServer(Behaviour(pause_s=0.004)) as server:
        assert run(tmp_path / "out", server, tokenizer) == 0
    result = result_of(tmp_path / "out")
    for name in ("energy_j_per_output_token", "cpu_s_per_output_token"):
        assert "--server-pid" in reason(result, name) or "CPU time" in reason(result, name)
    assert "--server-pid" in reason(result, "peak_memory_bytes")
    assert "before" in reason(result, "load_s")
    assert "does not say" in reason(result, "weights_bytes")
    assert all(w.cpu_s is None and w.foreign_cpu_s is None for w in result.windows if w.phase != "idle")
    assert isinstance(result.metric("itl_s"), Quantity)
    assert isinstance(result.metric("tpot_s"), Quantity)
    assert result.backend.server is not UNSET
    assert (result.backend.server.place, result.backend.server.processes_known) == ("here", False)
    assert result.model.parameters is None
    assert result.backend.device == "server"
    assert "one_server" in codes(result)


def test_no_address_or_folder_gets_into_a_result(tmp_path: Path, tokenizer: str):
    with FakeServer() as server:
        assert run(tmp_path / "out", server, tokenizer) == 0
        host = server.url.split("/")[2]
    [path] = (tmp_path / "out").glob("*.json")
    text = path.read_text(encoding="utf-8")
    assert host not in text
    assert str(tmp_path) not in text
    assert json.loads(text)["backend"]["requested_options"]["extra"] == {"url": "v1", "tokenizer": "tokenizer.json"}


def test_pieces_of_several_tokens_leave_no_gap_between_tokens(tmp_path: Path, tokenizer: str):
    with FakeServer(Behaviour(tokens_a_piece=3)) as server:
        assert run(tmp_path / "out", server, tokenizer) == 0
    result = result_of(tmp_path / "out")
    assert reason(result, "itl_s") == "6 tokens came in 2 pieces"
    assert {s.output_tokens for s in result.samples} == {6}
    assert all(s.token_times_s is None for s in result.samples)
    assert "pieces_not_tokens" in codes(result)


def test_what_a_server_says_wrongly_is_in_the_checks(tmp_path: Path, tokenizer: str):
    def usage(prompt: int, count: int) -> dict[str, Any]:
        cached = {"cached_tokens": prompt + 40}
        return {"prompt_tokens": 2 * prompt, "completion_tokens": 5 * count, "prompt_tokens_details": cached}

    with FakeServer(Behaviour(usage=usage)) as server:
        assert run(tmp_path / "out", server, tokenizer) == 0
    result = result_of(tmp_path / "out")
    assert {"server_count_differs", "server_prompt_differs", "prompt_cached"} <= codes(result)
    assert {s.output_tokens for s in result.samples} == {6}


def test_tokens_that_arrive_at_once_are_not_taken_for_fast_ones(tmp_path: Path, tokenizer: str):
    def at_once(_server: FakeServer, connection: socket.socket) -> None:
        pieces = "".join(event(letter, "length" if letter == "f" else None) for letter in "abcdef")
        connection.sendall(HEAD + chunk(pieces + "data: [DONE]\n\n") + b"0\r\n\r\n")

    with FakeServer(Behaviour(fault=at_once, sound=0)) as server:
        assert run(tmp_path / "out", server, tokenizer) == 0
    assert "pieces_read_together" in codes(result_of(tmp_path / "out"))


def test_answers_shorter_than_asked_for_are_counted_as_they_came(tmp_path: Path, tokenizer: str):
    with FakeServer(Behaviour(takes_fields=False, least=4)) as server:
        assert run(tmp_path / "out", server, tokenizer) == 0
    result = result_of(tmp_path / "out")
    assert {(s.output_tokens, s.finish_reason) for s in result.samples} == {(4, "stop")}
    assert "short_answers" in codes(result)


@pytest.mark.parametrize("scenario", ["multi-stream", "server", "offline"])
def test_loads_are_in_flight_together(tmp_path: Path, tokenizer: str, scenario: str):
    more = {"multi-stream": {"clients": 3}, "server": {"rate_per_s": 20, "duration_s": 1}, "offline": {}}[scenario]
    with FakeServer(Behaviour(pause_s=0.01)) as server:
        assert run(
            tmp_path / "out", server, tokenizer, "--time-budget", "3", scenario=scenario, batch=3,
            **{"requests_per_process": 8} | more,
        ) == 0  # fmt: skip
        assert server.most_inside == 3
    result = result_of(tmp_path / "out")
    measured = [s for s in result.spans if s.phase == "measured"]
    assert measured
    assert all(s.finished == s.offered for s in measured)
    assert all(s.output_tokens == 6 for s in result.samples)
    assert isinstance(result.metric("output_tokens_per_s"), Quantity)


def test_with_its_process_cpu_time_and_memory_are_the_servers(tmp_path: Path, tokenizer: str):
    """The fake server runs in this process, which is named here: what it does then is the run's."""
    with FakeServer() as server:
        assert run(tmp_path / "out", server, tokenizer, "--server-pid", str(os.getpid())) == 0
    result = result_of(tmp_path / "out")
    windows = [w for w in result.windows if w.phase in ("prefill", "decode")]
    assert all(w.cpu_s is not None and w.foreign_cpu_s is not None for w in windows)
    assert sum(w.cpu_s or 0 for w in windows) > 0
    memory = result.metric("peak_memory_bytes")
    assert isinstance(memory, Quantity) or "clear_refs" in memory.reason  # type: ignore[union-attr]
    assert result.backend.server is not UNSET
    assert result.backend.server.processes_known
    assert "--server-pid ..." in result.reproduce.replace("'", "")
    assert "bytes it streams" in reason(result, "energy_j_per_output_token") or isinstance(
        result.metric("energy_j_per_output_token"), Energy
    )


def test_a_server_that_stalls_is_given_up(tmp_path: Path, tokenizer: str, capsys: pytest.CaptureFixture[str]):
    def stall(server: FakeServer, connection: socket.socket) -> None:
        connection.sendall(HEAD + chunk(event("a")))
        server.wait(60)

    with FakeServer(Behaviour(fault=stall, sound=3)) as server:
        assert run(tmp_path / "out", server, tokenizer, **{"run.stall_s": 2}) == 4
    assert "said nothing for 2 s" in capsys.readouterr().err


def test_a_process_that_is_not_there_is_refused(tmp_path: Path, tokenizer: str, capsys: pytest.CaptureFixture[str]):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with FakeServer() as server:
        assert run(tmp_path / "out", server, tokenizer, "--server-pid", str(ended.pid)) == 2
    assert "no such process" in capsys.readouterr().err


@pytest.mark.parametrize(("scenario", "said"), [("cold-start", "loaded its model before"), ("thread-sweep", "threads")])
def test_what_a_server_has_decided_cannot_be_measured(
    tmp_path: Path, tokenizer: str, scenario: str, said: str, capsys: pytest.CaptureFixture[str]
):
    more = {"requests_per_process": 1, "max_warmup_requests": 0} if scenario == "cold-start" else {}
    with FakeServer() as server:
        assert run(tmp_path / "out", server, tokenizer, scenario=scenario, **more) == 2
    assert said in capsys.readouterr().err


# ---- a real server ----


@contextmanager
def llama_server(model: Path, folder: Path) -> Iterator[tuple[str, int]]:
    """Run llama-cpp-python's server on a model; give its address and process."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "llama_cpp.server", "--model", str(model), "--host", "127.0.0.1", "--port",
             str(port), "--n_threads", "1", "--n_threads_batch", "1", "--n_ctx", "512", "--verbose", "false"],
            stdout=log, stderr=log,
        )  # fmt: skip
        try:
            clock = MonotonicClock()
            for _ in range(600):
                if server.poll() is not None:
                    pytest.fail((folder / "server.log").read_text(errors="replace")[-2000:])
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    clock.sleep(0.1)
            yield f"http://127.0.0.1:{port}/v1", server.pid
        finally:
            server.terminate()
            server.wait(20)


@pytest.mark.extras
@pytest.mark.checkpoint
def test_a_real_server_says_what_its_engine_says_in_process(tmp_path: Path):
    for module in ("llama_cpp", "uvicorn", "sse_starlette", "starlette_context", "pydantic_settings"):
        if find_spec(module) is None:
            pytest.skip(f"{module} is not installed: pip install 'llama-cpp-python[server]'")
    model = checkpoint_path("smollm2-135m-instruct:q4_1")
    with llama_server(model, tmp_path) as (url, pid):
        backend = registry.backend("openai")
        extra = {"url": url, "checkpoint": str(model), "kv_bits": 16}
        options = EngineOptions(device="server", context_tokens=256, extra=extra)
        prepared = backend.prepare(model.name, options, lambda _text, _share: None)
        engine = backend.load(prepared, options)
        try:
            ids = engine.tokenizer.encode("Once upon a time, in a small village by the sea, there lived")
            served: list[int] = []
            engine.generate(ids, 24, frozenset(), served.append)
            assert isinstance(engine, RemoteEngine)
            assert engine.delivery().output_tokens == 24
            assert engine.delivery().untimed == ""
        finally:
            engine.close()
        assert run_real(tmp_path / "out", url, model, pid) == 0
    result = result_of(tmp_path / "out")
    assert isinstance(result.metric("peak_memory_bytes"), Quantity)
    assert isinstance(result.metric("cpu_s_per_output_token"), Quantity)
    assert {s.output_tokens for s in result.samples} == {6}
    assert result.model.parameters == 134_515_008
    from llama_cpp import Llama  # noqa: PLC0415 - the oracle

    oracle = Llama(str(model), n_ctx=256, n_threads=1, verbose=False)
    try:
        expected = []
        for token in oracle.generate(ids, temp=0.0):
            expected.append(token)
            if len(expected) == 24:
                break
    finally:
        oracle.close()
    assert served[:16] == expected[:16], "later ones may differ where two tokens are nearly as likely"


def run_real(folder: Path, url: str, model: Path, pid: int) -> int:
    settings = TINY | {"backend.url": url, "backend.checkpoint": str(model), "backend.kv_bits": 16}
    sets = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    return main(
        ["run", "quickstart", "--backend", "openai", "--model", model.name, "--out", str(folder), "--time-budget", "1",
         "--server-pid", str(pid), "--quality", "none", *sets]
    )  # fmt: skip


def test_a_backend_without_an_address_says_what_to_set():
    with pytest.raises(UsageError, match="address"):
        registry.backend("openai").prepare("tiny", EngineOptions(), lambda _text, _share: None)
