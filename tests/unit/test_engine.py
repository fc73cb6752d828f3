"""The engine's client against real child processes that run the real service loop with a stand-in codec."""

from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future, wait
from pathlib import Path

import pytest

from sdfs import errors
from sdfs.engine import messages
from sdfs.engine.client import Engine
from sdfs.engine.messages import DECODES_AT_ONCE, Message
from sdfs.engine.service import AHEAD_NICENESS, ENCODE_NICENESS
from sdfs.errors import EngineError, NotAPicture
from sdfs.settings import DEFAULTS, Effort, EncodeSettings
from tests.support import ROOT
from tests.support.waiting import eventually

STAND_IN = (sys.executable, str(ROOT / "tests/support/stand_in_engine.py"))
PATIENCE = 20  # seconds; only a broken engine needs them


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine(command=STAND_IN)
    yield engine
    engine.close()


def pid_of(engine: Engine) -> int:
    pid = engine.stats().pid
    assert pid is not None
    return pid


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


# requests


def test_encode_returns_what_the_codec_made_with_these_settings(engine: Engine) -> None:
    settings = EncodeSettings(7, "other", Effort.BEST, 20.5, 0.5)
    assert engine.encode(b"photo", settings).result(PATIENCE) == f"PHOTO AT {settings}".encode()


def test_convert_returns_what_the_codec_made_with_these_settings(engine: Engine) -> None:
    settings = EncodeSettings(7, "other", Effort.BEST, 20.5, 0.5)
    assert engine.convert(b"photo", settings).result(PATIENCE) == f"CONVERTED PHOTO AT {settings}".encode()


def test_decode_returns_what_the_codec_rendered(engine: Engine) -> None:
    assert engine.decode("key", b"blob").result(PATIENCE) == b"BLOB"


def test_payloads_of_many_megabytes_arrive_whole(engine: Engine) -> None:
    data = b"x" * (30 << 20)
    assert engine.decode("key", data).result(PATIENCE) == data.upper()


def test_no_child_runs_before_the_first_request(engine: Engine) -> None:
    assert engine.stats().state == "unloaded"


def test_warm_starts_the_child_without_a_request(engine: Engine) -> None:
    engine.warm()
    eventually(lambda: engine.stats().state == "ready")


def test_the_child_is_the_kernels_first_choice_when_memory_runs_out(engine: Engine) -> None:
    assert engine.decode("key", b"score").result(PATIENCE) == b"500"


def test_the_child_is_in_a_session_of_its_own(engine: Engine) -> None:
    assert engine.decode("key", b"session").result(PATIENCE) == str(pid_of(engine)).encode()


def test_the_child_says_where_the_model_is(engine: Engine) -> None:
    assert engine.stats().device is None
    engine.warm()
    eventually(lambda: engine.stats().state == "ready")
    it = engine.stats()
    assert (it.device, it.dtype, it.device_bytes) == ("a stand-in", "words", 7)
    os.kill(pid_of(engine), signal.SIGKILL)
    eventually(lambda: engine.stats().device_bytes is None)


# order


def test_a_decode_does_not_wait_for_an_encode_that_has_begun(engine: Engine, tmp_path: Path) -> None:
    log, go = tmp_path / "log", tmp_path / "go"
    encode = engine.encode(f"log {log} encode wait {go}".encode(), DEFAULTS)
    eventually(lambda: log.exists())
    assert engine.decode("key", b"blob").result(PATIENCE) == b"BLOB"
    assert not encode.done()
    go.touch()
    encode.result(PATIENCE)


def test_no_encode_begins_while_a_decode_waits_for_the_child(engine: Engine, tmp_path: Path) -> None:
    log, go = tmp_path / "log", tmp_path / "go"
    decodes = [engine.decode(f"key{n}", f"wait {go}".encode()) for n in range(DECODES_AT_ONCE + 1)]
    encode = engine.encode(f"log {log} began".encode(), DEFAULTS)
    eventually(lambda: engine.stats().in_flight == DECODES_AT_ONCE)
    assert not log.exists()
    go.touch()
    wait([*decodes, encode], PATIENCE)
    assert log.exists()


def test_encodes_are_worked_on_one_at_a_time_in_their_order(engine: Engine, tmp_path: Path) -> None:
    log = tmp_path / "log"
    words = (f"log {log} {n}-begins sleep 0.01 log {log} {n}-ends" for n in range(4))
    wait([engine.encode(each.encode(), DEFAULTS) for each in words], PATIENCE)
    assert log.read_text().split() == [f"{n}-{what}" for n in range(4) for what in ("begins", "ends")]


def test_some_decodes_are_worked_on_at_once_and_no_more(engine: Engine, tmp_path: Path) -> None:
    log, go = tmp_path / "log", tmp_path / "go"
    decodes = [engine.decode(f"key{n}", f"log {log} {n} wait {go}".encode()) for n in range(DECODES_AT_ONCE + 1)]
    eventually(lambda: log.exists() and len(log.read_text().split()) == DECODES_AT_ONCE)
    go.touch()
    wait(decodes, PATIENCE)
    assert sorted(log.read_text().split()[:DECODES_AT_ONCE]) == [str(n) for n in range(DECODES_AT_ONCE)]


def test_the_processors_are_the_readers_decodes_before_those_ahead_and_the_encodes(engine: Engine) -> None:
    decode, encode = engine.decode("key", b"nice").result(PATIENCE), engine.encode(b"nice", DEFAULTS).result(PATIENCE)
    ahead = engine.decode("key", b"nice", ahead=True).result(PATIENCE)
    assert int(ahead) == min(int(decode) + AHEAD_NICENESS, 19)  # the largest there is
    assert int(encode.split()[0]) == min(int(decode) + ENCODE_NICENESS, 19)
    assert engine.convert(b"nice", DEFAULTS).result(PATIENCE).split()[1] == encode.split()[0]


def busy(engine: Engine, log: Path, go: Path) -> list[Future[bytes]]:
    """The child works on all the decodes that it takes, until `go` is there."""
    decodes = [engine.decode(f"busy{n}", f"log {log} busy wait {go}".encode()) for n in range(DECODES_AT_ONCE)]
    eventually(lambda: log.exists() and log.read_text().count("busy") == DECODES_AT_ONCE)
    return decodes


def test_what_is_decoded_ahead_waits_for_readers(engine: Engine, tmp_path: Path) -> None:
    log, go = tmp_path / "log", tmp_path / "go"
    jobs = busy(engine, log, go)
    jobs += [engine.decode(f"ahead{n}", f"log {log} ahead sleep 0.05".encode(), ahead=True) for n in range(2)]
    jobs += [engine.decode(f"reader{n}", f"log {log} reader sleep 0.05".encode()) for n in range(2)]
    go.touch()
    wait(jobs, PATIENCE)
    assert log.read_text().split()[DECODES_AT_ONCE:] == ["reader"] * 2 + ["ahead"] * 2


def test_a_reader_does_not_wait_for_what_is_decoded_ahead(engine: Engine, tmp_path: Path) -> None:
    log, go = tmp_path / "log", tmp_path / "go"
    ahead = [engine.decode(f"ahead{n}", f"log {log} ahead wait {go}".encode(), ahead=True) for n in range(DECODES_AT_ONCE)]
    eventually(lambda: log.exists())
    assert engine.decode("reader", b"a").result(PATIENCE) == b"A"
    assert log.read_text() == "ahead\n"
    go.touch()
    wait(ahead, PATIENCE)


@pytest.mark.parametrize("how", ["join", "hurry"])
def test_what_is_decoded_ahead_is_a_readers_once_one_waits_for_it(engine: Engine, tmp_path: Path, how: str) -> None:
    log, go = tmp_path / "log", tmp_path / "go"
    jobs = busy(engine, log, go)
    jobs += [engine.decode(f"ahead{n}", f"log {log} ahead{n} sleep 0.05".encode(), ahead=True) for n in range(2)]
    if how == "join":
        jobs.append(engine.decode("ahead1", b"not this, which is the same"))
    else:
        engine.hurry("ahead1")
    jobs += [engine.decode(f"reader{n}", f"log {log} reader sleep 0.05".encode()) for n in range(DECODES_AT_ONCE)]
    go.touch()
    wait(jobs, PATIENCE)
    order = log.read_text().split()[DECODES_AT_ONCE:]
    assert order.index("ahead1") < order.index("ahead0")


def test_what_is_decoded_ahead_comes_before_encodes(engine: Engine, tmp_path: Path) -> None:
    log, go = tmp_path / "log", tmp_path / "go"
    jobs = busy(engine, log, go)
    jobs.append(engine.encode(f"log {log} encode".encode(), DEFAULTS))
    jobs += [engine.decode(f"ahead{n}", f"log {log} ahead sleep 0.05".encode(), ahead=True) for n in range(DECODES_AT_ONCE + 1)]
    go.touch()
    wait(jobs, PATIENCE)
    assert log.read_text().split().index("encode") > 2 * DECODES_AT_ONCE - 1  # threads may overtake each other in the log, but not that far


def test_hurrying_what_is_not_decoded_ahead_does_nothing(engine: Engine) -> None:
    engine.hurry("nothing")
    assert engine.decode("key", b"a").result(PATIENCE) == b"A"


# single flight


def test_callers_of_the_same_key_share_one_decode(engine: Engine, tmp_path: Path) -> None:
    log = tmp_path / "log"
    jobs = [engine.decode("key", f"log {log} once sleep 0.05".encode()) for _ in range(20)]
    assert len({job.result(PATIENCE) for job in jobs}) == 1
    assert log.read_text() == "once\n"


def test_a_key_is_decoded_again_once_it_was_answered(engine: Engine, tmp_path: Path) -> None:
    log = tmp_path / "log"
    for _ in range(2):
        engine.decode("key", f"log {log} again".encode()).result(PATIENCE)
    assert log.read_text() == "again\nagain\n"


def test_a_cancelled_caller_takes_nothing_from_the_others(engine: Engine, tmp_path: Path) -> None:
    go = tmp_path / "go"
    first, second = (engine.decode("key", f"wait {go}".encode()) for _ in range(2))
    assert first.cancel()
    go.touch()
    assert second.result(PATIENCE).startswith(b"WAIT")


def test_who_asks_for_a_key_whose_callers_have_all_gone_gets_it(engine: Engine, tmp_path: Path) -> None:
    go = tmp_path / "go"
    assert engine.decode("key", f"wait {go}".encode()).cancel()
    job = engine.decode("key", f"wait {go}".encode())
    go.touch()
    assert job.result(PATIENCE).startswith(b"WAIT")


def test_a_decode_that_nobody_wants_any_more_is_not_run(engine: Engine, tmp_path: Path) -> None:
    log, go = tmp_path / "log", tmp_path / "go"
    jobs = busy(engine, log, go)
    unwanted = engine.decode("unwanted", f"log {log} ran".encode())
    assert unwanted.cancel()
    go.touch()
    wait([*jobs, unwanted, engine.decode("last", b"")], PATIENCE)
    with pytest.raises(CancelledError):
        unwanted.result(0)
    assert "ran" not in log.read_text()


# errors


@pytest.mark.parametrize("name", [name for name, kind in vars(errors).items() if isinstance(kind, type)])
def test_an_error_of_ours_crosses_the_boundary_as_itself(engine: Engine, name: str) -> None:
    with pytest.raises(errors.SdfsError, match="as told") as caught:
        engine.decode("key", f"raise {name}".encode()).result(PATIENCE)
    assert type(caught.value).__name__ == name


def test_any_other_error_arrives_as_engine_error_with_its_text(engine: Engine) -> None:
    with pytest.raises(EngineError, match="ZeroDivisionError: integer"):
        engine.decode("key", b"zero-divide").result(PATIENCE)


def test_any_other_error_leaves_its_traceback_on_stderr(engine: Engine, capfd: pytest.CaptureFixture[str]) -> None:
    engine.decode("key", b"zero-divide").exception(PATIENCE)
    assert "Traceback" in capfd.readouterr().err


def test_an_error_is_no_crash(engine: Engine) -> None:
    engine.decode("key", b"raise NotAPicture").exception(PATIENCE)
    assert (engine.stats().failures, engine.stats().starts) == (0, 1)


# crashes


def test_a_request_whose_child_dies_is_answered_by_a_new_one(engine: Engine, tmp_path: Path) -> None:
    assert engine.decode("key", f"die-once {tmp_path / 'died'}".encode()).result(PATIENCE).startswith(b"DIE-ONCE")
    assert engine.stats().starts == 2


def test_a_request_that_kills_two_children_fails(engine: Engine) -> None:
    with pytest.raises(EngineError, match="killed by signal 9"):
        engine.encode(b"die", DEFAULTS).result(PATIENCE)
    assert engine.stats().starts == 2


def test_requests_that_wait_behind_a_deadly_one_do_not_pay_for_it(engine: Engine) -> None:
    deadly = [engine.decode(f"deadly{n}", b"die") for n in range(2)]
    innocent = [engine.decode("innocent", b"a"), engine.encode(b"b", DEFAULTS)]
    assert [job.result(PATIENCE) for job in innocent] == [b"A", f"B AT {DEFAULTS}".encode()]
    assert all(isinstance(job.exception(PATIENCE), EngineError) for job in deadly)


def test_an_encode_does_not_pay_for_a_deadly_decode_beside_it(engine: Engine, tmp_path: Path) -> None:
    log, go = tmp_path / "log", tmp_path / "go"
    encode = engine.encode(f"log {log} began wait {go}".encode(), DEFAULTS)
    eventually(lambda: log.exists())
    assert isinstance(engine.decode("deadly", b"die").exception(PATIENCE), EngineError)
    go.touch()
    encode.result(PATIENCE)


def test_a_decode_does_not_pay_for_a_deadly_encode_beside_it(engine: Engine, tmp_path: Path) -> None:
    log, go = tmp_path / "log", tmp_path / "go"
    decode = engine.decode("key", f"log {log} began wait {go}".encode())
    eventually(lambda: log.exists())
    encode = engine.encode(b"die", DEFAULTS)
    eventually(lambda: engine.stats().starts == 2)
    assert not encode.done()
    go.touch()
    assert decode.result(PATIENCE).startswith(b"LOG")
    assert isinstance(encode.exception(PATIENCE), EngineError)


def test_a_decode_does_not_pay_for_a_deadly_decode_beside_it(engine: Engine, tmp_path: Path) -> None:
    log, go = tmp_path / "log", tmp_path / "go"
    innocent = engine.decode("key", f"log {log} began wait {go}".encode())
    eventually(lambda: log.exists())
    deadly = engine.decode("deadly", b"die")
    eventually(lambda: engine.stats().starts == 2)
    go.touch()
    assert innocent.result(PATIENCE).startswith(b"LOG")
    assert isinstance(deadly.exception(PATIENCE), EngineError)


def test_a_child_killed_while_idle_is_replaced_at_the_next_request(engine: Engine) -> None:
    engine.decode("key", b"a").result(PATIENCE)
    os.kill(pid_of(engine), signal.SIGKILL)
    assert engine.decode("key", b"b").result(PATIENCE) == b"B"


def test_a_child_that_sends_nonsense_is_replaced() -> None:
    script = "import socket, sys; s = socket.socket(fileno=int(sys.argv[1])); s.sendall(b'x' * 21); s.recv(1)"
    engine = Engine(command=[sys.executable, "-c", script])
    with pytest.raises(EngineError, match="does not start"):
        engine.decode("key", b"").result(PATIENCE)
    engine.close()


# a model that does not load


def failing_engine(log: Path) -> Engine:
    script = f"open({str(log)!r}, 'a').write('x'); raise SystemExit(3)"
    return Engine(command=[sys.executable, "-c", script])


def test_a_child_that_does_not_start_fails_all_that_wait(tmp_path: Path) -> None:
    engine = failing_engine(tmp_path / "log")
    jobs: list[Future[bytes]] = [engine.decode("key", b""), engine.encode(b"", DEFAULTS)]
    for job in jobs:
        with pytest.raises(EngineError, match="does not start: exit status 3"):
            job.result(PATIENCE)
    engine.close()


def test_a_child_that_does_not_start_is_not_tried_in_a_busy_loop(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    engine = failing_engine(tmp_path / "log")
    deadline, requests = time.monotonic() + 0.6, 0
    while time.monotonic() < deadline:
        engine.decode("key", b"").exception(PATIENCE)
        requests += 1
    engine.close()
    tries = len((tmp_path / "log").read_text())
    assert tries <= 4 < requests  # after 0.1, 0.2 and 0.4 s at most
    assert len(caplog.records) == tries


def test_a_model_that_does_not_load_says_why() -> None:
    script = textwrap.dedent("""
        import socket, sys
        from sdfs.engine import messages
        messages.send(socket.socket(fileno=int(sys.argv[1])), messages.pack_error(0, ImportError("no torch")))
    """)
    engine = Engine(command=[sys.executable, "-c", script])
    with pytest.raises(EngineError, match="ImportError: no torch"):
        engine.decode("key", b"").result(PATIENCE)
    engine.close()


def test_a_command_that_is_not_there_is_an_engine_error() -> None:
    engine = Engine(command=["/nonexistent"])
    with pytest.raises(EngineError, match="could not be started"):
        engine.decode("key", b"").result(PATIENCE)
    engine.close()


# the end


def test_an_idle_child_ends_and_the_next_request_starts_another() -> None:
    engine = Engine(command=STAND_IN, idle_seconds=0.05)
    engine.decode("key", b"a").result(PATIENCE)
    eventually(lambda: engine.stats().state == "unloaded")
    assert engine.decode("key", b"b").result(PATIENCE) == b"B"
    assert engine.stats().failures == 0
    engine.close()


def test_a_child_at_work_is_not_idle() -> None:
    engine = Engine(command=STAND_IN, idle_seconds=0.01)
    engine.decode("key", b"sleep 0.2").result(PATIENCE)
    assert engine.stats().starts == 1
    engine.close()


def test_no_request_is_lost_to_idle_unloading() -> None:
    engine = Engine(command=STAND_IN, idle_seconds=0.0)
    for _ in range(10):
        assert engine.decode("key", b"a").result(PATIENCE) == b"A"
    assert engine.stats().failures == 0
    engine.close()


def test_close_ends_the_child_and_fails_what_waits() -> None:
    engine = Engine(command=STAND_IN)
    engine.warm()
    eventually(lambda: engine.stats().state == "ready")
    pid, job = pid_of(engine), engine.decode("key", b"sleep 60")
    engine.close()
    assert not alive(pid)
    with pytest.raises(EngineError, match="closed"):
        job.result(0)


def test_close_leaves_no_thread() -> None:
    before = threading.active_count()
    engine = Engine(command=STAND_IN)
    engine.decode("key", b"a").result(PATIENCE)
    engine.close()
    assert threading.active_count() == before


def test_a_closed_engine_refuses(engine: Engine) -> None:
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.decode("key", b"").result(0)


@pytest.mark.parametrize("work", ["", "sleep 60"])
def test_the_child_dies_with_its_owner(work: str, tmp_path: Path) -> None:
    script = textwrap.dedent(f"""
        import time
        from pathlib import Path
        from sdfs.engine.client import Engine
        engine = Engine(command={STAND_IN!r})
        engine.decode("first", b"").result({PATIENCE})
        engine.decode("key", b"log {tmp_path}/begun it {work}")
        while not Path("{tmp_path}/begun").exists():
            time.sleep(0.005)
        print(engine.stats().pid, flush=True)
        time.sleep(60)
    """)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        assert alive(pid)
        owner.kill()
    eventually(lambda: not alive(pid))


# messages


def pipe(*sent: Message) -> io.BytesIO:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for message in sent:
            messages.send(ours, message)
        ours.close()
        with theirs.makefile("rb") as stream:
            return io.BytesIO(stream.read())


def test_a_message_arrives_as_it_was_sent() -> None:
    message = Message(messages.ENCODE, 1 << 63, {"quality": 3}, b"payload")
    stream = pipe(message, message)
    assert [messages.receive(stream), messages.receive(stream), messages.receive(stream)] == [message, message, None]


def test_a_message_cut_anywhere_is_a_protocol_error() -> None:
    whole = pipe(Message(messages.ENCODE, 1, {"quality": 3}, b"payload")).getvalue()
    for length in range(1, len(whole)):
        with pytest.raises(messages.ProtocolError):
            messages.receive(io.BytesIO(whole[:length]))


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(messages._FRAME.pack(99, 0, 2, 0) + b"{}", id="unknown type"),
        pytest.param(messages._FRAME.pack(messages.RESULT, 0, 1 << 31, 0), id="header too long"),
        pytest.param(messages._FRAME.pack(messages.RESULT, 0, 2, 1 << 63), id="payload too long"),
        pytest.param(messages._FRAME.pack(messages.RESULT, 0, 2, 0) + b"[]", id="header no object"),
        pytest.param(messages._FRAME.pack(messages.RESULT, 0, 2, 0) + b"{,", id="header no JSON"),
    ],
)
def test_nonsense_is_a_protocol_error(frame: bytes) -> None:
    with pytest.raises(messages.ProtocolError):
        messages.receive(io.BytesIO(frame))


def test_a_long_error_text_is_cut_to_fit_the_header() -> None:
    received = messages.receive(pipe(messages.pack_error(1, NotAPicture("\N{PILE OF POO}" * 100_000))))
    assert received is not None
    assert str(messages.parse_error(received)) == "\N{PILE OF POO}" * errors.MAX_MESSAGE
