"""Write the tiny shards of this folder: toy clips and toy pictures. Run it from anywhere with `python data/samples/make.py`."""

import io
import tempfile
from pathlib import Path

from PIL import Image

from moviegen_data.shards import ShardWriter
from moviegen_data.toyworld import render_scenes, write_media_folder

FOLDER = Path(__file__).parent


def main() -> None:
    """Eight clips of 16 frames at 64 x 64 px, 8 fps, and eight pictures."""
    settings = {"num_frames": 16, "height": 64, "width": 64, "fps": 8.0, "seed": 0}
    with ShardWriter(FOLDER, prefix="clips", max_samples=4, overwrite=True) as writer, tempfile.TemporaryDirectory() as temporary:
        media = write_media_folder(temporary, num_clips=8, **settings)
        for key, clip in render_scenes(8, **settings):
            frames, height, width, _ = clip.video.shape
            record = {"caption": clip.caption, "fps": clip.fps, "frames": frames, "height": height, "width": width, "source": "toy world"}
            record |= {"duration_s": frames / clip.fps, "scene": clip.spec.to_dict()}
            writer.write(key, {"json": record, "mp4": (media / f"{key}.mp4").read_bytes()})
    with ShardWriter(FOLDER, prefix="pictures", overwrite=True) as writer:
        for key, clip in render_scenes(8, **{**settings, "num_frames": 1}, stage="images"):
            buffer = io.BytesIO()
            Image.fromarray(clip.video[0]).save(buffer, format="PNG", optimize=True)
            record = {"caption": clip.caption, "frames": 1, "height": 64, "width": 64, "source": "toy world", "scene": clip.spec.to_dict()}
            writer.write(key, {"json": record, "png": buffer.getvalue()})


if __name__ == "__main__":
    main()
