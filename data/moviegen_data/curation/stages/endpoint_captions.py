"""Captions by a vision-language model behind a chat endpoint (3.2.1)."""

import base64
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from moviegen_core.errors import require_at_least
from moviegen_data.curation.captioner import Said
from moviegen_data.curation.endpoint import ChatEndpoint, EndpointError, NoAnswer
from moviegen_data.curation.prompted import PROMPT, PromptedCaptioner, Shown
from moviegen_data.curation.stage import Resources
from moviegen_data.faults import SampleError


class EndpointCaptions(PromptedCaptioner):
    """Captions clips by a model that a server runs: any that speaks OpenAI's chat form and takes pictures as data URLs.

    Words are asked for at temperature 0; whether the same clip is captioned alike again is the server's matter, so what has been
    captioned is not asked for again by a run that goes on.

    What no clip would fare better with ends the run, and nothing that is done is lost: a wrong address, key or model, or a form of request
    that the server refuses. Where it refuses a clip (status 400, 415, 422, 451), pictures of plain grey are asked about too: if it takes
    these, the clip is dropped.

    Args:
        url: base address, e.g. `http://localhost:8000/v1`.
        model: the model's name there.
        key_variable: environment variable that holds the key, e.g. `OPENAI_API_KEY`; no key is sent unless given.
        prompt: what it is asked; `{words}` and `{kind}` (video or picture) are put in.
        words: words asked for.
        max_tokens: tokens at most; of a caption that reaches them the whole sentences are kept. Three for each word unless given.
        num_frames: frames shown, evenly spread over the clip.
        max_side: pixels of their longer side at most.
        num_parallel: requests under way at a time, by each worker.
        timeout_s: seconds without a sign of life after which a request has failed.
        retries: further tries of a request.
        backoff_s: seconds before the first further try; each wait is twice the one before.
        max_wait_s: seconds of a single wait at most; an endpoint that asks for more is given up.
        requests_per_minute: requests that each worker begins in a minute at most; no limit unless given.
        on_failure: what becomes of a clip for which the endpoint gives no answer after all tries, or whose pictures take more bytes than it
            does: `stop` ends the run, which loses nothing and goes on later; `drop` drops the clip.
        portion: the clips whose turn it is, see `Captioner`.
        keep_existing: leave clips alone that have a caption.
        min_words: words below which a caption says too little.
        seed: of the clips' places.

    Raises:
        UsageError: a setting is out of its range, or the prompt asks for something else to be put in.
    """

    resources = Resources(num_cpus=0.5)

    def __init__(
        self,
        *,
        url: str,
        model: str,
        key_variable: str | None = None,
        prompt: str = PROMPT,
        words: int = 100,
        max_tokens: int | None = None,
        num_frames: int = 8,
        max_side: int = 512,
        num_parallel: int = 8,
        timeout_s: float = 120.0,
        retries: int = 5,
        backoff_s: float = 1.0,
        max_wait_s: float = 60.0,
        requests_per_minute: float | None = None,
        on_failure: Literal["stop", "drop"] = "stop",
        portion: tuple[float, float] = (0.0, 1.0),
        keep_existing: bool = False,
        min_words: int = 3,
        seed: int = 0,
    ) -> None:
        super().__init__(
            prompt=prompt, words=words, max_tokens=max_tokens, num_frames=num_frames, max_side=max_side,
            portion=portion, keep_existing=keep_existing, min_words=min_words, seed=seed,
        )  # fmt: skip
        require_at_least(1, num_parallel=num_parallel)
        self.model, self.num_parallel, self.on_failure = model, num_parallel, on_failure
        self._settings = {
            "url": url, "key_variable": key_variable, "timeout_s": timeout_s, "retries": retries,
            "backoff_s": backoff_s, "max_wait_s": max_wait_s, "requests_per_minute": requests_per_minute,
        }  # fmt: skip
        ChatEndpoint(**self._settings)  # refuses what is wrong with them now, not on a worker

    @property
    def name(self) -> str:
        return self.model

    @property
    def batch_size(self) -> int:
        return self.num_parallel

    def ask(self, shown: Sequence[Shown]) -> Sequence[Said | SampleError]:
        """What the endpoint says."""
        endpoint = self._endpoint  # one for all threads, which share its pace
        with ThreadPoolExecutor(self.num_parallel) as pool:
            return list(pool.map(lambda one: self._ask(endpoint, one), shown))

    def _ask(self, endpoint: ChatEndpoint, shown: Shown) -> Said | SampleError:
        try:
            answer = endpoint.ask(self._request(shown))
        except SampleError as error:
            self._require_of_this_clip(endpoint, shown, error)
            return error
        except NoAnswer as error:
            if self.on_failure == "stop":
                raise
            return SampleError("no answer from the endpoint", error.exists)
        if answer.finish == "content_filter":
            return SampleError("refused caption", "by the endpoint's filter")
        return Said(answer.text, is_cut=answer.finish == "length")

    def _require_of_this_clip(self, endpoint: ChatEndpoint, shown: Shown, refusal: SampleError) -> None:
        """Refuse to go on where as many pictures of plain grey are refused like a clip: it is not the clip then, but the settings.

        Raises:
            EndpointError: they are.
        """
        grey = np.full((len(shown.pictures), max(1, self.max_side * 9 // 16), self.max_side, 3), 128, np.uint8)
        try:
            endpoint.ask(self._request(Shown(grey, shown.kind)))
        except NoAnswer:
            return  # nothing is known
        except SampleError as error:
            raise EndpointError(
                f"model={self.model!r}, num_frames={self.num_frames}, max_side={self.max_side}, max_tokens={self.max_tokens} "
                f"were given for the endpoint {endpoint.url}",
                f"it refuses pictures of plain grey as it does clips ({error.detail})",
                "correct what it names; what is done is kept",
            ) from refusal

    def _request(self, shown: Shown) -> dict[str, Any]:
        content: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": data_url(picture)}} for picture in shown.pictures]
        content.append({"type": "text", "text": self.question(shown.kind)})
        messages = [{"role": "user", "content": content}]
        return {"model": self.model, "messages": messages, "max_tokens": self.max_tokens, "temperature": 0.0, "seed": self.seed}

    @cached_property
    def _endpoint(self) -> ChatEndpoint:
        return ChatEndpoint(**self._settings)


def data_url(picture: UInt8[np.ndarray, "h w 3"]) -> str:
    """A picture as JPEG inside an address."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=90)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
