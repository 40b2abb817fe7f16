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
from moviegen_data.curation.captioner import PROMPT, Captioner, Said, filled
from moviegen_data.curation.clip import Clip
from moviegen_data.curation.endpoint import ChatEndpoint, EndpointError
from moviegen_data.curation.looking import look
from moviegen_data.curation.media import Media
from moviegen_data.curation.stage import Resources
from moviegen_data.faults import SampleError


class EndpointCaptions(Captioner):
    """Captions clips by a model that a server runs: any that speaks OpenAI's chat form and takes pictures as data URLs.

    Words are asked for at temperature 0; whether the same clip is captioned alike again is the server's matter, so what has been
    captioned is not asked for again by a run that goes on.

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
        on_failure: what becomes of a clip for which the endpoint gives no answer after all tries: `stop` ends the run, which loses nothing
            and goes on later; `drop` drops the clip.
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
        super().__init__(portion=portion, keep_existing=keep_existing, min_words=min_words, seed=seed)
        self.max_tokens = 3 * words if max_tokens is None else max_tokens
        require_at_least(1, words=words, max_tokens=self.max_tokens, num_frames=num_frames, max_side=max_side, num_parallel=num_parallel)
        filled(prompt, words=words)
        self.model, self.prompt, self.words, self.num_frames, self.max_side = model, prompt, words, num_frames, max_side
        self.num_parallel, self.on_failure = num_parallel, on_failure
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

    def say(self, clips: Sequence[Clip], media: Sequence[Media]) -> list[Said | SampleError]:
        """What the endpoint says."""
        questions = [self._question(clip, medium) for clip, medium in zip(clips, media, strict=True)]
        endpoint = self._endpoint  # one for all threads, which share its pace
        with ThreadPoolExecutor(self.num_parallel) as pool:
            return list(pool.map(lambda question: self._ask(endpoint, question), questions))

    def _ask(self, endpoint: ChatEndpoint, question: dict[str, Any] | SampleError) -> Said | SampleError:
        if isinstance(question, SampleError):
            return question
        try:
            answer = endpoint.ask(question)
        except SampleError as error:
            return error
        except EndpointError as error:
            if self.on_failure == "stop":
                raise
            return SampleError("no answer from the endpoint", error.exists)
        if answer.finish == "content_filter":
            return SampleError("refused caption", "by the endpoint's filter")
        return Said(answer.text, is_cut=answer.finish == "length")

    def _question(self, clip: Clip, media: Media) -> dict[str, Any] | SampleError:
        try:
            pictures = look(clip, media, count=self.num_frames, max_side=self.max_side)
        except SampleError as error:
            return error
        content: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": data_url(picture)}} for picture in pictures]
        content.append({"type": "text", "text": filled(self.prompt, words=self.words, kind=media.kind)})
        messages = [{"role": "user", "content": content}]
        return {"model": self.model, "messages": messages, "max_tokens": self.max_tokens, "temperature": 0.0, "seed": self.seed}

    @cached_property
    def _endpoint(self) -> ChatEndpoint:
        return ChatEndpoint(**self._settings)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_endpoint"}


def data_url(picture: UInt8[np.ndarray, "h w 3"]) -> str:
    """A picture as JPEG inside an address."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=90)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
