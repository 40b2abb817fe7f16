"""Videos of a usable size (3.2.1; Table 39, resolution)."""

from moviegen_core.errors import require_at_least
from moviegen_data.curation.clip import Clip
from moviegen_data.curation.media import Media
from moviegen_data.curation.stage import ClipStage


class Resolution(ClipStage):
    """Drops small videos and pictures, by their size as shown. The paper's low-resolution set takes 720 px, the high-resolution one 768.
    Sounds pass.

    Args:
        min_width: least columns.
        min_height: least rows.
    """

    def __init__(self, *, min_width: int = 768, min_height: int = 768) -> None:
        require_at_least(1, min_width=min_width, min_height=min_height)
        self.min_width, self.min_height = min_width, min_height

    def apply(self, clip: Clip, media: Media) -> Clip:
        """Compare the medium's size with the least."""
        if media.kind == "sound":
            return clip
        width, height = self._size(clip, media)
        if width < self.min_width or height < self.min_height:
            return clip.dropped("too small", measured=f"{width}x{height} px", wanted=f"{self.min_width}x{self.min_height} px or more")
        return clip

    def _size(self, clip: Clip, media: Media) -> tuple[int, int]:
        if "width" in clip.facts and "height" in clip.facts:
            return clip.facts["width"], clip.facts["height"]
        if media.kind == "picture":
            height, width = media.stills(0.0, 0.0).shape[1:3]
            return width, height
        return media.info.width, media.info.height
