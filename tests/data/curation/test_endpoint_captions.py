"""Captions over HTTP, against a server of this process that misbehaves on demand."""

import base64
import io
import json
import pickle
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from moviegen_core.errors import UsageError
from moviegen_data.curation import Clip, Media
from moviegen_data.curation.endpoint import ChatEndpoint, EndpointError, NoAnswer
from moviegen_data.curation.looking import look
from moviegen_data.curation.stages.endpoint_captions import EndpointCaptions, data_url

GOOD = (200, {"choices": [{"message": {"content": "a red ball rolls over the floor"}, "finish_reason": "stop"}]})


class Server:
    """Answers requests by a script: one entry each, the last one for ever. An entry is (status, json or bytes, headers) or a function."""

    def __init__(self):
        self.script, self.asked, self.lock = [GOOD], [], threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with server.lock:
                    server.asked.append((self.path, dict(self.headers), json.loads(body)))
                    entry = server.script.pop(0) if len(server.script) > 1 else server.script[0]
                entry = entry(json.loads(body)) if callable(entry) else entry
                status, content, *headers = entry
                content = content if isinstance(content, bytes) else json.dumps(content).encode()
                try:
                    self.send_response(status)
                    for name, value in (headers[0] if headers else {}).items():
                        self.send_header(name, value)
                    if not headers or "Content-Length" not in headers[0]:
                        self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)
                except (BrokenPipeError, ConnectionResetError):
                    pass

            do_GET = do_POST

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def shown(tmp_path, make_film):
    def one(number=0):
        path = tmp_path / f"{number}.mp4"
        return Clip(key=f"clip-{number}", source=path.name), Media(path if path.exists() else make_film(path, seed=number))

    return one


def stage_of(server, **settings):
    return EndpointCaptions(url=server.url, model="watcher", **{"num_frames": 2, "backoff_s": 0.01, "timeout_s": 30.0, **settings})


def endpoint_of(server, **settings):
    return ChatEndpoint(url=server.url, **{"backoff_s": 0.01, "timeout_s": 30.0, **settings})


def test_the_server_sees_the_frames_the_prompt_and_the_key(server, shown, monkeypatch):
    monkeypatch.setenv("WATCHER_KEY", "sk-secret")
    stage = stage_of(server, key_variable="WATCHER_KEY", words=40, max_side=32)
    assert b"sk-secret" not in pickle.dumps(stage)
    found = pickle.loads(pickle.dumps(stage)).apply(*shown())
    assert found.caption == "a red ball rolls over the floor" and found.annotations["captioner"] == "watcher"
    path, headers, question = server.asked[0]
    assert path == "/v1/chat/completions" and headers["Authorization"] == "Bearer sk-secret"
    assert (question["model"], question["max_tokens"], question["temperature"]) == ("watcher", 120, 0.0)
    *pictures, text = question["messages"][0]["content"]
    assert "about 40 words" in text["text"] and "video" in text["text"]
    assert len(pictures) == 2
    for picture in pictures:
        kind, _, data = picture["image_url"]["url"].partition(",")
        assert kind == "data:image/jpeg;base64"
        assert Image.open(io.BytesIO(base64.b64decode(data))).size == (32, 24)


@pytest.mark.parametrize(
    "failure",
    [
        (500, {"error": "busy"}),
        (503, b""),
        (429, {"error": "slow down"}),
        (408, {}),
        (200, b"<html>no json</html>"),
        (200, {"choices": []}),
        (200, {"choices": [{"message": None}]}),
        (200, [1, 2]),
        (200, b'{"choices"', {"Content-Length": "999"}),  # breaks off; the connection stays open, as in a hang
    ],
)
def test_what_may_pass_is_tried_again(server, failure):
    server.script = [failure, failure, GOOD]
    assert endpoint_of(server).ask({"messages": []}).text == "a red ball rolls over the floor"
    assert len(server.asked) == 3


def test_a_hang_is_left_and_tried_again(server):
    release = threading.Event()

    def hang(question):
        release.wait(20)
        return GOOD

    server.script = [hang, GOOD]
    assert endpoint_of(server, timeout_s=0.3).ask({}).text.startswith("a red ball")
    release.set()


@pytest.fixture
def waits(monkeypatch):
    """What was waited for, by a clock that stands still."""
    waited = []
    clock = SimpleNamespace(monotonic=lambda: 100.0, time=time.time, sleep=waited.append)
    monkeypatch.setattr("moviegen_data.curation.endpoint.time", clock)
    return waited


def test_waits_grow_and_the_server_may_ask_for_longer_ones(server, waits):
    server.script = [(500, {}), (500, {}), (500, {}), (503, {}, {"Retry-After": "7"}), GOOD]
    with pytest.raises(EndpointError, match="asks to wait 7 s"):
        endpoint_of(server, backoff_s=1.0, max_wait_s=3.0, retries=5).ask({})
    assert [wait for wait in waits if wait] == [1.0, 2.0, 3.0]
    waits.clear()
    server.script = [(503, {}, {"Retry-After": "7"}), GOOD]
    assert endpoint_of(server, backoff_s=1.0).ask({}).finish == "stop"
    assert [wait for wait in waits if wait] == [7.0]


def test_tries_are_bounded_and_end_the_run_or_the_clip(server, shown):
    server.script = [(500, {"error": "broken"})]
    with pytest.raises(EndpointError, match="asked 3 times.*status 500"):
        stage_of(server, retries=2).apply(*shown())
    assert len(server.asked) == 3
    error = pickle.loads(pickle.dumps(EndpointError("this", "that", "do")))  # it comes from a worker
    assert isinstance(error, EndpointError) and str(error) == "this; that; do"
    found = stage_of(server, retries=0, on_failure="drop").apply(*shown())
    assert found.drop.reason == "no answer from the endpoint" and "500" in found.drop.measured


def test_nobody_there(shown):
    with pytest.raises(EndpointError, match="refused|Connection"):
        EndpointCaptions(url="http://127.0.0.1:9/v1", model="watcher", retries=1, backoff_s=0.0).apply(*shown())


@pytest.mark.parametrize("status", [401, 403, 404])
def test_refused_settings_end_the_run_at_once_and_show_no_key(server, shown, monkeypatch, status, caplog):
    monkeypatch.setenv("WATCHER_KEY", "sk-secret")
    server.script = [(status, {"error": "bad key sk-secret"})]
    with pytest.raises(UsageError, match=str(status)) as refused:
        stage_of(server, key_variable="WATCHER_KEY").apply(*shown())
    assert len(server.asked) == 1
    assert "sk-secret" not in str(refused.value) and "sk-secret" not in caplog.text and "***" in str(refused.value)


def test_a_redirection_is_not_followed_with_the_key(server, monkeypatch):
    monkeypatch.setenv("WATCHER_KEY", "sk-secret")
    server.script = [(302, {}, {"Location": f"{server.url}/elsewhere"}), GOOD]
    with pytest.raises(EndpointError, match="302"):
        endpoint_of(server, key_variable="WATCHER_KEY").ask({})
    assert len(server.asked) == 1


def test_an_absent_key_is_told_by_name(server, shown, monkeypatch):
    monkeypatch.delenv("WATCHER_KEY", raising=False)
    with pytest.raises(UsageError, match="WATCHER_KEY"):
        stage_of(server, key_variable="WATCHER_KEY").apply(*shown())
    assert not server.asked


def is_grey(question):
    data = question["messages"][0]["content"][0]["image_url"]["url"].partition(",")[2]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))).std() < 1.0


@pytest.mark.parametrize("status", [400, 415, 422, 451])
def test_a_clip_that_is_refused_is_dropped_where_plain_grey_is_not(server, shown, status):
    server.script = [lambda question: GOOD if is_grey(question) else (status, {"error": "unsafe picture"})]
    found = stage_of(server).apply(*shown())
    assert found.drop.reason == "refused by the endpoint" and f"{status}" in found.drop.measured and "unsafe" in found.drop.measured
    one, other = ([len(asked["messages"][0]["content"]), asked["max_tokens"]] for _, _, asked in server.asked)
    assert one == other  # as many pictures, so that too many of them are found out


@pytest.mark.parametrize("on_failure", ["stop", "drop"])
def test_what_every_clip_would_meet_ends_the_run(server, shown, on_failure):
    for answer in ((400, {"error": "no model watcher"}), (401, {}), (402, {}), (404, {}), (418, {})):
        server.script = [answer]
        with pytest.raises(EndpointError, match=str(answer[0])) as error:
            stage_of(server, on_failure=on_failure).apply(*shown())
        assert not isinstance(error.value, NoAnswer)
    server.script = [(400, {"error": "at most 1 image"})]
    with pytest.raises(EndpointError, match="num_frames=2.*plain grey.*at most 1 image"):
        stage_of(server, on_failure=on_failure).apply(*shown())


def test_pictures_of_too_many_bytes_are_told_and_may_be_left_out(server, shown):
    server.script = [(413, {"error": "too large"})]
    with pytest.raises(NoAnswer, match="bytes are more than it takes.*smaller max_side"):
        stage_of(server).apply(*shown())
    assert len(server.asked) == 1
    assert stage_of(server, on_failure="drop").apply(*shown()).drop.reason == "no answer from the endpoint"


@pytest.mark.parametrize(
    ("content", "finish", "reason"),
    [
        ("", "stop", "empty caption"),
        (None, "stop", "empty caption"),
        ("I'm sorry, I can't describe this.", "stop", "refused caption"),
        ("a red ball", "content_filter", "refused caption"),
    ],
)
def test_no_caption(server, shown, content, finish, reason):
    server.script = [(200, {"choices": [{"message": {"content": content}, "finish_reason": finish}]})]
    assert stage_of(server).apply(*shown()).drop.reason == reason


def test_a_caption_that_was_cut_ends_with_its_last_sentence(server, shown):
    parts = [{"type": "text", "text": "A red ball rolls. "}, {"type": "text", "text": "It then hi"}]
    server.script = [(200, {"choices": [{"message": {"content": parts}, "finish_reason": "length"}]})]
    assert stage_of(server).apply(*shown()).caption == "A red ball rolls."


def test_clips_are_asked_for_side_by_side_and_keep_their_captions(server, shown):
    barrier = threading.Barrier(3, timeout=60)

    def together(question):
        barrier.wait()  # passes when three are under way
        size = len(question["messages"][0]["content"][0]["image_url"]["url"])
        return (200, {"choices": [{"message": {"content": f"the picture takes {size} letters"}}]})

    server.script = [together]
    clips, media = zip(*(shown(number) for number in range(3)), strict=True)
    stage = stage_of(server, num_parallel=3, timeout_s=60.0)
    found = stage.apply_batch(list(clips), list(media))
    sizes = [len(data_url(look(clip, medium, count=2, max_side=512)[0])) for clip, medium in zip(clips, media, strict=True)]
    assert [clip.caption for clip in found] == [f"the picture takes {size} letters" for size in sizes]


def test_a_pace_is_kept_by_all_threads_together(server, waits):
    endpoint = endpoint_of(server, requests_per_minute=600.0)
    threads = [threading.Thread(target=endpoint.ask, args=({},)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(waits) == pytest.approx([0.0, 0.1, 0.2, 0.3])  # of a clock that stands still


def test_who_is_told_to_slow_down_tells_the_others(server, waits):
    endpoint = endpoint_of(server)
    server.script = [(429, {}, {"Retry-After": "5"}), GOOD]
    endpoint.ask({})
    endpoint.ask({})
    assert waits == [0.0, 5.0, 5.0]  # the clock stands still, so the second question waits as long


def test_bad_media_are_not_asked_about(server, tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"no film")
    found = stage_of(server).apply(Clip(key="bad", source="bad.mp4", end_s=1.0), Media(tmp_path / "bad.mp4"))
    assert found.drop.reason == "cannot be opened" and not server.asked


def test_settings_are_checked():
    wrong = {"url": "file:///a", "timeout_s": float("nan"), "retries": -1, "requests_per_minute": 0.0, "num_parallel": 0, "prompt": "{x}"}
    for name, value in wrong.items():
        with pytest.raises(UsageError):
            EndpointCaptions(**{"url": "http://localhost:1/v1", "model": "watcher", name: value})
