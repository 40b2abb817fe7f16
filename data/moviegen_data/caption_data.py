"""Captions of shards as a data module: every sample with its text and its parts as they are, nothing decoded."""

from jaxtyping import Shaped
from torch import Tensor

from moviegen_data.buckets import Bucket
from moviegen_data.datamodule import ShardData
from moviegen_data.decoding import ClipPosition, Decoded, SampleDecoder, encoded_of, number_of
from moviegen_data.limits import MediaLimits
from moviegen_data.mixing import Source
from moviegen_data.reader import Sample


class WholeSampleDecoder(SampleDecoder):
    """Gives samples as they are: `metadata["parts"]` holds the bytes of every part, the json's included.

    Arguments are those of `SampleDecoder`.
    """

    def pixel_shape(self, bucket: Bucket) -> None:
        """Nothing is decoded."""

    def num_bytes(self, sample: Sample, bucket: Bucket) -> int:
        """Bytes of all parts."""
        return sum(sample.size(extension) for extension in sample)

    def __call__(self, sample: Sample, bucket: Bucket, out: Shaped[Tensor, "3 t h w"] | None, seed: tuple[int, ...]) -> Decoded:
        """Read one sample whole.

        Raises:
            SampleError: a part is too large or cannot be read, or the caption is missing where one is required.
        """
        record = sample.metadata
        clip = encoded_of(record) or {"frames": record.get("frames"), "fps": bucket.rate(number_of(record.get("duration_s")))}
        fps = None if clip.get("frames") == 1 else number_of(clip.get("fps"))
        parts = {extension: sample[extension] for extension in sample}
        return Decoded(key=sample.key, caption=self.caption(sample, record, fps), metadata={"parts": parts}, fps=fps)


class CaptionData(ShardData):
    """Reads the captions of shards, with their parts as they are, for caching what an encoder makes of them (3.1.4).

    Args:
        urls: shards: a folder, a glob, a brace range, URLs, or a list of them.
        fps: frames per second that training will sample videos at, for the prefix; latents say their own.
        batch_size: captions in a batch on each rank.
        num_workers: processes that read; 0 reads in the main one.
        fps_prefix: put the sampling rate before a video's caption, "FPS-16 a caption" (3.1.4).
        camera_prefix: put `camera_motion` of the json before the caption, "zoom in. a caption" (3.2.1, B.2).
        require_caption: a sample without a caption is a bad sample; otherwise its caption is empty.
        limits: parts of more bytes are not read.

    Raises:
        UsageError: a shard is missing, or there is nothing to read.
    """

    def __init__(
        self,
        *,
        urls: str | list[str] | list[Source],
        fps: float | None = None,
        batch_size: int = 32,
        num_workers: int = 0,
        fps_prefix: bool = False,
        camera_prefix: bool = False,
        require_caption: bool = False,
        limits: MediaLimits | None = None,
    ) -> None:
        super().__init__(
            urls=urls, num_frames=1, height=1, width=1, fps=fps, batch_size=batch_size, num_workers=num_workers, shuffle=False,
            fps_prefix=fps_prefix, camera_prefix=camera_prefix, require_caption=require_caption, limits=limits,
        )  # fmt: skip

    def decoder(self, *, clip_position: ClipPosition) -> WholeSampleDecoder:
        """Make the reader of samples."""
        return WholeSampleDecoder(clip_position=clip_position, **self.decoding)
