"""A chat endpoint over HTTP, as OpenAI's, vLLM's, SGLang's or llama.cpp's servers offer it; asked patiently, never for ever."""

import email.utils
import http.client
import json
import os
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

from moviegen_core.errors import UsageError, require_at_least
from moviegen_data.faults import SampleError

_AGAIN = (408, 409, 425, 429)  # beside all from 500 on
_QUESTION = (400, 415, 422, 451)  # about what was asked; of all others below 500, redirections too, no question would fare better
_TOO_LARGE = 413
_MAX_BYTES = 4 * 2**20  # of an answer


class EndpointError(UsageError):
    """The endpoint gives no answer, whatever is asked."""


class NoAnswer(EndpointError):
    """The endpoint gave no answer to one question; the next may fare better."""


@dataclass(frozen=True)
class Answer:
    """What an endpoint said.

    Args:
        text: its words.
        finish: why it ended: `stop`, `length`, `content_filter`, ...
    """

    text: str
    finish: str


class ChatEndpoint:
    """Asks a chat endpoint. What may pass (no connection, a hang, 429, 5xx, garbage) is tried again after longer and longer waits.

    Args:
        url: base address, e.g. `http://localhost:8000/v1`; `/chat/completions` is added.
        key_variable: environment variable that holds the key; none is sent unless given. The key is read when it is needed and never kept,
            logged or shown.
        timeout_s: seconds without a sign of life after which a request has failed.
        retries: further tries.
        backoff_s: seconds before the first further try; each wait is twice the one before.
        max_wait_s: seconds of a single wait at most. An endpoint that asks for more (Retry-After) is given up.
        requests_per_minute: requests begun in a minute at most; as many as it takes unless given.

    Raises:
        UsageError: the address is none of HTTP, or a number is out of its range.
    """

    def __init__(
        self,
        *,
        url: str,
        key_variable: str | None = None,
        timeout_s: float = 120.0,
        retries: int = 5,
        backoff_s: float = 1.0,
        max_wait_s: float = 60.0,
        requests_per_minute: float | None = None,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise UsageError(f"the url {url!r} was given", "endpoints begin with http:// or https://", "give e.g. http://localhost:8000/v1")
        require_at_least(0, retries=retries, backoff_s=backoff_s, max_wait_s=max_wait_s)
        if not timeout_s > 0 or (requests_per_minute is not None and not requests_per_minute > 0):
            given = f"timeout_s={timeout_s}, requests_per_minute={requests_per_minute} were given"
            raise UsageError(given, "both are above 0", "correct them")
        self.url, self.key_variable, self.timeout_s, self.retries = url.rstrip("/"), key_variable, timeout_s, retries
        self.backoff_s, self.max_wait_s = backoff_s, max_wait_s
        self._gap_s = 60.0 / requests_per_minute if requests_per_minute else 0.0
        self._lock, self._open_at = threading.Lock(), 0.0  # when the next request may begin; shared by all threads
        # Keys go where they were told to go, and nowhere that a server points to.
        self._opener = urllib.request.build_opener(_NoRedirection)

    def ask(self, question: dict[str, Any]) -> Answer:
        """The answer to a request of the chat form.

        Raises:
            NoAnswer: there was none after all tries, or the question takes more bytes than the endpoint does.
            EndpointError: whatever is asked would be refused, e.g. for want of a key.
            SampleError: this question is refused, for what it asks or for how.
        """
        body, key = json.dumps(question).encode(), self._key()
        failure = ""
        for attempt in range(self.retries + 1):
            self._await_turn()
            try:
                return self._once(body, key)
            except _Failure as error:
                failure = error.what.replace(key, "***") if key else error.what
                wait_s = max(min(self.backoff_s * 2.0**attempt, self.max_wait_s), error.wait_s)
                if wait_s > self.max_wait_s:
                    failure += f", and it asks to wait {wait_s:.0f} s"
                    break
                if attempt < self.retries:
                    self._hold(wait_s, everybody=error.is_crowded)
        raise NoAnswer(
            f"the endpoint {self.url} was asked {attempt + 1} times", f"it gave no answer ({failure})", "look at its log, then go on"
        )

    def _once(self, body: bytes, key: str) -> Answer:
        headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
        request = urllib.request.Request(f"{self.url}/chat/completions", data=body, headers=headers)
        try:
            with self._opener.open(request, timeout=self.timeout_s) as response:
                content = response.read(_MAX_BYTES)
        except urllib.error.HTTPError as error:
            raise self._refusal(error, key, len(body)) from None
        except (OSError, http.client.HTTPException) as error:  # no connection, a hang, an answer that breaks off
            raise _Failure(f"{type(error).__name__}: {error}") from None
        try:
            choice = json.loads(content)["choices"][0]
            text = choice["message"]["content"]
            parts = [part.get("text") or "" for part in text] if isinstance(text, list) else [text or ""]
            return Answer("".join(parts), str(choice.get("finish_reason") or "stop"))
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise _Failure(f"an answer that is none: {content[:80]!r} ({type(error).__name__})") from None

    def _refusal(self, error: urllib.error.HTTPError, key: str, num_bytes: int) -> Exception:
        with error:
            try:
                said = error.read(2000).decode(errors="replace")
            except (OSError, http.client.HTTPException):
                said = ""
        said = " ".join((said.replace(key, "***") if key else said).split())[:200]
        if error.code in _AGAIN or error.code >= 500:
            return _Failure(f"status {error.code}: {said}", wait_s=_retry_after(error), is_crowded=error.code == 429)
        given, told = f"the endpoint {self.url} was asked", f"status {error.code}: {said}"
        if error.code == _TOO_LARGE:
            advice = "have it take more, or ask with a smaller max_side or fewer num_frames"
            return NoAnswer(given, f"{num_bytes:,} bytes are more than it takes ({told})", advice)
        if error.code in _QUESTION:
            return SampleError("refused by the endpoint", told)
        return EndpointError(given, f"it refuses ({told})", "correct url, model or key_variable")

    def _key(self) -> str:
        if self.key_variable is None:
            return ""
        key = os.environ.get(self.key_variable, "").strip()
        if not key:
            exists = "it is not set, or empty, where the captions are made"
            raise EndpointError(f"key_variable={self.key_variable!r} was given", exists, "export it there, or leave key_variable out")
        return key

    def _await_turn(self) -> None:
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._open_at)
            self._open_at = turn + self._gap_s
        time.sleep(turn - now)

    def _hold(self, wait_s: float, *, everybody: bool) -> None:
        if everybody:  # whoever else asks would be refused too
            with self._lock:
                self._open_at = max(self._open_at, time.monotonic() + wait_s)
        else:
            time.sleep(wait_s)


class _Failure(Exception):
    """Something that may pass."""

    def __init__(self, what: str, *, wait_s: float = 0.0, is_crowded: bool = False) -> None:
        super().__init__(what)
        self.what, self.wait_s, self.is_crowded = what, wait_s, is_crowded


class _NoRedirection(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def _retry_after(error: urllib.error.HTTPError) -> float:
    """Seconds that a refusal asks to wait, given as a number or as a date."""
    told = error.headers.get("Retry-After", "") if error.headers else ""
    try:
        return max(0.0, float(told))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(told).timestamp() - time.time())
    except (ValueError, TypeError):
        return 0.0
