"""Shards, data modules and the toy world. Importing this module imports neither torch nor av."""

from collections.abc import Iterable
from importlib import import_module
from typing import Any

from moviegen_core import Command, Component, CurationStage, hookimpl

_PUBLIC = {
    "AudioData": "audio_data",
    "AudioDecoder": "audio",
    "AudioSampleDecoder": "audio_decoding",
    "BatchStream": "plan",
    "Bucket": "buckets",
    "CaptionData": "caption_data",
    "ImageMix": "mixing",
    "LatentShardWriter": "latents",
    "MediaLimits": "limits",
    "PlanSampler": "plan",
    "PromptData": "prompts",
    "SampleDecoder": "decoding",
    "SampleError": "faults",
    "SampleOrder": "order",
    "ShardData": "datamodule",
    "ShardReader": "reader",
    "ShardWriter": "shards",
    "SkipReport": "faults",
    "Source": "mixing",
    "SourceError": "faults",
    "TextShardWriter": "texts",
    "ToyWorldData": "toyworld",
    "VideoDecoder": "video",
    "aspect_sizes": "buckets",
    "latent_bytes": "tensors",
    "paper_buckets": "buckets",
    "read_audio": "audio",
    "text_bytes": "tensors",
    "visual_bytes": "tensors",
}
__all__ = sorted(_PUBLIC)  # noqa: PLE0605


@hookimpl
def moviegen_components() -> Iterable[Component]:
    """The data modules and the latent cache, by name."""
    yield Component("data", "moviegen_data.ShardData", "videos, images or cached latents from shards")
    yield Component("data", "moviegen_data.AudioData", "sounds, or videos with sound, or their cached latents, from shards")
    yield Component("data", "moviegen_data.PromptData", "prompts from a list or a file, with fps and camera motion as controls")
    yield Component("data", "moviegen_data.ToyWorldData", "moving shapes with captions and ground truth, rendered while training")
    yield Component("data", "moviegen_data.CaptionData", "captions of shards with all parts as they are, for caching text embeddings")
    yield Component("callback", "moviegen_data.LatentShardWriter", "the latent cache: what an autoencoder makes of shards, as shards")
    yield Component("callback", "moviegen_data.TextShardWriter", "the text cache: shards with what text encoders make of their captions")


@hookimpl
def moviegen_curation_stages() -> Iterable[CurationStage]:
    """The stages of curation, by name (3.2.1, B.1)."""
    stages = "moviegen_data.curation.stages"
    yield CurationStage(f"{stages}.quality.Aesthetics", "LAION's aesthetic score of the middle frame (Table 39)")
    yield CurationStage(f"{stages}.aspect.AspectMix", "drops the fewest clips that leave a mix of landscape and portrait (3.2.1)")
    yield CurationStage(f"{stages}.borders.Borders", "no letterbox, pillarbox, plain frame or blurred fill (Table 39)")
    yield CurationStage(f"{stages}.camera.CameraMotion", "names the camera motion by geometry where it is certain (B.2)")
    yield CurationStage(f"{stages}.quality.ClassicalQuality", "sharpness, contrast, brightness and clipping, without a model")
    yield CurationStage(f"{stages}.concept_embedding.ConceptEmbedding", "embeds what a clip is about by a CLIP-type model (3.2.1)")
    yield CurationStage(f"{stages}.concepts.ConceptResampling", "thins dominant concepts by 1 / sqrt(size) (3.2.1, Table 39)")
    yield CurationStage(f"{stages}.copy_embedding.CopyEmbedding", "embeds what a clip looks like by a copy-detection network (3.2.1)")
    yield CurationStage(f"{stages}.duplicates.Duplicates", "keeps the best of the clips that look alike (3.2.1, Table 39)")
    yield CurationStage(f"{stages}.duration.Duration", "drops clips that are too short or too long")
    yield CurationStage(f"{stages}.endpoint_captions.EndpointCaptions", "captions by a model behind a chat endpoint (3.2.1)")
    yield CurationStage(f"{stages}.faces.Faces", "one face, of the same person, in the whole clip; reference frames (4.2.1)")
    yield CurationStage("moviegen_data.curation.stage.Function", "a typed function of yours as a stage")
    yield CurationStage(f"{stages}.jitter.Jitter", "drops clips that shot detection breaks into many shots")
    yield CurationStage(f"{stages}.share.LeastShare", "drops clips that lack an annotation, until others have a share (3.2.1)")
    yield CurationStage(f"{stages}.mentions.Mentions", "keeps clips whose caption names something, e.g. people (4.2.1)")
    yield CurationStage(f"{stages}.model_captions.ModelCaptions", "captions by a vision-language model from a folder (3.2.1)")
    yield CurationStage(f"{stages}.motion.Motion", "drops clips with too little or too much motion")
    yield CurationStage(f"{stages}.text.NoText", "no readable text, by OCR (Table 39)")
    yield CurationStage(f"{stages}.perceptual_hash.PerceptualHash", "embeds what a clip looks like by the signs of its low frequencies")
    yield CurationStage(f"{stages}.probe.Probe", "fills in facts about media; drops what would cost too much to decode")
    yield CurationStage(f"{stages}.resolution.Resolution", "drops small videos and pictures")
    yield CurationStage(f"{stages}.scenes.Scenes", "finds scenes and takes clips from within them")
    yield CurationStage(f"{stages}.captions.SidecarCaptions", "takes captions from files beside the media")
    yield CurationStage(f"{stages}.sound.Sound", "presence, loudness and silence of the sound (6.2)")
    yield CurationStage(f"{stages}.static.Static", "drops static videos and slideshows")
    yield CurationStage(f"{stages}.captions.TemplateCaptions", "puts annotations into a sentence")
    yield CurationStage(f"{stages}.retrieval.TextRetrieval", "annotates clips that show what texts say, e.g. humans (3.2.1)")


@hookimpl
def moviegen_commands() -> Iterable[Command]:
    """Making shards, and looking at them."""
    yield Command("data", "pack", "moviegen_data.pack:pack", "pack a folder of media and captions into shards")
    yield Command("data", "curate", "moviegen_data.curation.command:curate", "a folder of raw media becomes shards of clips, and a report")
    yield Command("data", "why", "moviegen_data.curation.command:why", "why clips were left out by data curate")
    yield Command("data", "stages", "moviegen_data.curation.catalogue:list_stages", "the stages that data curate knows")
    yield Command("data", "stage", "moviegen_data.curation.catalogue:show_stage", "what one stage does, and its arguments")
    yield Command("data", "inspect", "moviegen_data.inspect:inspect", "what shards hold, what is bad, which batches come of them")


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
