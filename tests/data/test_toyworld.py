"""The toy world: its vocabulary, held-out rule, pixels, captions, stream and files."""

import csv
import json
from itertools import combinations as pairs_of

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from moviegen_core.errors import UsageError
from moviegen_core.media.video import read_video
from moviegen_core.prompts import parse, visual_text
from moviegen_core.testing import check_component_typed
from moviegen_data.toyworld import (
    COLOURS,
    GROUNDS,
    MOTIONS,
    SHAPES,
    SIZES,
    GroundSpec,
    ObjectSpec,
    SceneSpec,
    ToyWorldData,
    ToyWorldStream,
    caption_scene,
    combinations,
    is_held_out,
    render,
    render_scenes,
    sample_scene,
    write_media_folder,
)
from moviegen_data.toyworld.captions import MOTION_WORDS, SHAPE_WORDS
from moviegen_data.toyworld.scene import EXTENT

AREAS = {
    "circle": np.pi,
    "square": 1.76**2,
    "triangle": 0.75 * 3**0.5 * 1.25**2,
    "cross": 4 * 2 * 0.34 - 0.68**2,
    "ring": np.pi * (1 - 0.54**2),
}


class TestHeldOut:
    def test_the_two_splits_partition_all_combinations(self):
        train, held_out = set(combinations("train")), set(combinations("held_out"))
        assert not train & held_out
        assert len(train | held_out) == 210
        assert 0.12 < len(held_out) / 210 < 0.18

    def test_training_shows_every_pair(self):
        for axes in pairs_of(range(3), 2):
            sizes = [(len(SHAPES), len(COLOURS), len(MOTIONS))[axis] for axis in axes]
            assert len({tuple(c[axis] for axis in axes) for c in combinations("train")}) == sizes[0] * sizes[1]

    def test_every_value_is_held_out_somewhere(self):
        for axis, values in enumerate((SHAPES, COLOURS, MOTIONS)):
            assert {c[axis] for c in combinations("held_out")} == set(values)

    @pytest.mark.parametrize("num_objects", [1, 2])
    @pytest.mark.parametrize("split", ["train", "held_out"])
    def test_scenes_keep_to_their_split(self, split, num_objects):
        for seed in range(30):
            objects = sample_scene(seed, num_objects=num_objects, split=split).objects
            assert len(objects) == num_objects
            assert all(is_held_out(*item.combination) == (split == "held_out") for item in objects)


class TestScenes:
    def test_same_seed_same_scene(self):
        assert sample_scene(5, num_objects=2, grounds=GROUNDS) == sample_scene(5, num_objects=2, grounds=GROUNDS)
        assert sample_scene(5) != sample_scene(6)

    def test_spread_narrows_every_range_towards_its_centre(self):
        def drawn(spread):
            objects = [sample_scene(seed, spread=spread).objects[0] for seed in range(200)]
            middles = {size: sum(SIZES[size]) / 2 for size in SIZES}
            offsets = [(item.x - 0.5, item.y - 0.5, item.reach - 0.75, item.radius - middles[item.size]) for item in objects]
            return np.array(offsets), [item.combination for item in objects]

        (none, _), (some, combinations_some), (everything, combinations_all) = drawn(0.0), drawn(0.25), drawn(1.0)
        np.testing.assert_allclose(none, 0.0, atol=1e-12)
        np.testing.assert_allclose(some, 0.25 * everything, atol=1e-12)
        assert np.ptp(everything, axis=0)[:2].min() > 0.9
        assert combinations_some == combinations_all

    def test_two_objects_keep_the_whole_range_of_positions(self):
        scenes = [sample_scene(seed, num_objects=2, spread=0.0) for seed in range(60)]
        objects = [item for scene in scenes for item in scene.objects]
        assert np.ptp([item.x for item in objects]) > 0.9
        assert len({item.reach for item in objects}) == len(objects)

    def test_json_round_trip(self):
        spec = sample_scene(3, num_objects=2, grounds=GROUNDS, text_probability=1.0)
        assert SceneSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec

    @pytest.mark.parametrize(
        ("settings", "message"),
        [({"shape": "cirle"}, "did you mean 'circle'"), ({"colour": "mauve"}, "red, green"), ({"motion": "rigth"}, "did you mean 'right'")],
    )
    def test_unknown_names_are_refused_with_what_exists(self, settings, message):
        with pytest.raises(UsageError, match=message):
            ObjectSpec(**{"shape": "circle", "colour": "red", **settings})

    def test_bad_arguments(self):
        with pytest.raises(UsageError, match="1 or 2 objects"):
            sample_scene(0, num_objects=3)
        with pytest.raises(UsageError, match="did you mean 'stripes'"):
            sample_scene(0, grounds=["stripe"])
        with pytest.raises(UsageError, match="name at least one"):
            sample_scene(0, grounds=[])
        with pytest.raises(UsageError, match="give a number between"):
            sample_scene(0, spread=1.5)
        with pytest.raises(UsageError, match="numbered from 0"):
            sample_scene(-1)

    def test_two_objects_never_touch_and_differ_in_colour(self):
        for seed in range(30):
            spec = sample_scene(seed, num_objects=2)
            first, second = render(spec).masks
            assert spec.objects[0].colour != spec.objects[1].colour
            assert not (first & second).any()
            near = np.roll(first, 1, 1) | np.roll(first, -1, 1) | np.roll(first, 1, 2) | np.roll(first, -1, 2)
            assert not (near & second)[:, 1:-1, 1:-1].any()


class TestPixels:
    @pytest.mark.parametrize(("height", "width", "num_frames"), [(64, 64, 16), (48, 96, 9), (81, 33, 5), (64, 64, 1)])
    def test_shapes_and_determinism(self, height, width, num_frames):
        spec = sample_scene(1, grounds=GROUNDS)
        clip = render(spec, num_frames=num_frames, height=height, width=width)
        assert clip.video.shape == (num_frames, height, width, 3)
        assert clip.video.dtype == np.uint8
        assert clip.masks.shape == (1, num_frames, height, width)
        assert clip.track.shape == (1, num_frames, 3)
        assert np.array_equal(clip.video, render(spec, num_frames=num_frames, height=height, width=width).video)

    @pytest.mark.parametrize("shape", SHAPES)
    def test_area_is_that_of_the_shape(self, shape):
        clip = render(SceneSpec((ObjectSpec(shape, "red", radius=0.3),)), num_frames=1, height=200, width=200)
        assert clip.masks.sum() == pytest.approx(AREAS[shape] * 60**2, rel=0.02)

    def test_edges_are_antialiased(self):
        spec = SceneSpec((ObjectSpec("circle", "red", radius=0.25),), GroundSpec(dark=0))
        red = render(spec, num_frames=1).video[0, :, :, 0]
        assert red.astype(float).sum() / 225 == pytest.approx(np.pi * 16**2, rel=0.01)
        assert ((red > 20) & (red < 200)).sum() > 30

    def test_the_object_stays_inside_and_travels_far(self):
        for seed in range(70):
            spec = sample_scene(seed)
            item, track = spec.objects[0], render(spec).track[0]
            reach = EXTENT[item.shape] * track[:, 2]
            assert ((track[:, 0] >= reach - 0.01) & (track[:, 0] <= 64 - reach + 0.01)).all()
            assert ((track[:, 1] >= reach - 0.01) & (track[:, 1] <= 64 - reach + 0.01)).all()
            step = track[-1] - track[0]
            moved = {"left": -step[0], "right": step[0], "up": -step[1], "down": step[1]}.get(item.motion)
            if moved is not None:
                assert moved > 0.25 * 64
            if item.motion == "grow":
                assert track[-1, 2] / track[0, 2] > 1.6
            if item.motion == "still":
                assert np.ptp(track, axis=0).max() == 0
            if item.motion == "bounce":
                assert track[:, 1].max() - max(track[0, 1], track[-1, 1]) > 0.25 * 64

    def test_mask_is_where_the_colour_is(self):
        for seed in range(20):
            spec = sample_scene(seed, grounds=GROUNDS)
            clip = render(spec, num_frames=4)
            far = np.abs(clip.video.astype(int) - COLOURS[spec.objects[0].colour]).max(-1)
            assert far[clip.masks[0]].max() < 135
            assert np.median(far[clip.masks[0]]) == 0
            assert far[~clip.masks[0]].min() > 20

    def test_bounces_are_told_as_events_when_they_happen(self):
        spec = SceneSpec((ObjectSpec("circle", "red", motion="bounce"),))
        clip = render(spec, num_frames=33, fps=8.0)
        assert [event.kind for event in clip.events] == ["bounce", "bounce"]
        depth = clip.track[0, :, 1]
        for event in clip.events:
            frame = round(event.time_s * 8)
            assert depth[frame] == pytest.approx(depth.max(), abs=1e-3)
        assert render(spec, num_frames=1).events == []
        assert render(sample_scene(0, combination=("ring", "red", "left"))).events == []

    def test_words_are_painted_behind_the_objects(self):
        plain = SceneSpec((ObjectSpec("circle", "red", x=1.0, y=1.0),))
        written = SceneSpec(plain.objects, plain.ground, text="HI")
        changed = (render(plain, num_frames=1).video != render(written, num_frames=1).video).any(-1)[0]
        # H has 11 cells and I has 9, each 2 by 2 pixels.
        assert changed.sum() == (11 + 9) * 4
        with pytest.raises(ValueError, match="no glyph"):
            render(SceneSpec(plain.objects, text="é"))

    @pytest.mark.parametrize("settings", [{"num_frames": 0}, {"height": 4}, {"fps": 0.0}, {"fps": float("nan")}])
    def test_bad_formats_are_refused(self, settings):
        with pytest.raises(UsageError, match="raise what is too small"):
            render(sample_scene(0), **settings)


class TestCaptions:
    def test_many_phrasings_each_with_all_it_takes(self):
        spec = sample_scene(0, combination=("cross", "cyan", "bounce"))
        texts = {caption_scene(spec, phrasing=number) for number in range(300)}
        assert len(texts) > 60
        for text in texts:
            assert "cyan" in text
            assert any(word in text for word in SHAPE_WORDS["cross"])
            assert any(word in text for pair in MOTION_WORDS["bounce"] for word in pair)

    @pytest.mark.parametrize("words", [SHAPE_WORDS, MOTION_WORDS])
    def test_no_word_means_two_things(self, words):
        flat = {name: {w for entry in options for w in ((entry,) if isinstance(entry, str) else entry)} for name, options in words.items()}
        for first, second in pairs_of(flat, 2):
            assert not flat[first] & flat[second]

    def test_pictures_tell_no_motion(self):
        verbs = {word for pairs in MOTION_WORDS.values() for pair in pairs for word in pair}
        for seed in range(80):
            caption = render(sample_scene(seed, grounds=GROUNDS), num_frames=1, height=16, width=16).caption
            assert not any(verb in caption for verb in verbs)

    def test_written_words_are_quoted_and_only_they(self):
        for seed in range(40):
            spec = sample_scene(seed, text_probability=0.5)
            assert visual_text(caption_scene(spec)) == ([spec.text] if spec.text else [])

    def test_both_objects_are_named(self):
        for seed in range(40):
            spec = sample_scene(seed, num_objects=2)
            assert all(item.colour in caption_scene(spec) for item in spec.objects)


class TestStream:
    settings = {"num_samples": 24, "batch_size": 4, "num_frames": 2, "height": 16, "width": 16}

    def test_batches_of_pixels_with_ground_truth(self):
        batch = next(iter(ToyWorldStream(**self.settings, fps_prefix=True)))
        assert batch.video.shape == (4, 3, 2, 16, 16)
        assert batch.video.dtype == torch.float32
        assert -1 <= batch.video.min() < batch.video.max() <= 1
        assert batch.fps.tolist() == [8.0] * 4
        assert all(parse(caption).fps == 8 for caption in batch.captions)
        clip = render(SceneSpec.from_dict(batch.metadata[2]["scene"]), num_frames=2, height=16, width=16)
        assert torch.equal((batch.video[2].permute(1, 2, 3, 0) + 1).mul(127.5).round().byte(), torch.from_numpy(clip.video))

    def test_ranks_share_a_batch_without_overlap(self):
        whole = [key for batch in ToyWorldStream(**{**self.settings, "batch_size": 8}) for key in batch.keys]
        parts = [ToyWorldStream(**self.settings, rank=rank, world_size=2) for rank in (0, 1)]
        assert len(parts[0]) == len(parts[1]) == 3
        both = [key for first, second in zip(*parts, strict=True) for pair in zip(first.keys, second.keys, strict=True) for key in pair]
        assert both == whole

    def test_workers_do_not_change_the_order(self):
        data = ToyWorldData(num_train=20, batch_size=4, num_frames=1, height=16, width=16)
        alone = [batch.keys for batch in data.train_dataloader()]
        data.num_workers = 2
        assert [batch.keys for batch in data.train_dataloader()] == alone

    def test_every_nth_batch_is_of_pictures(self):
        stream = ToyWorldStream(**self.settings, image_every=3, image_batch_size=6)
        assert [(batch.is_image, len(batch)) for batch in stream] == [(False, 4), (False, 4), (True, 6)] * 2

    def test_epochs_are_fresh_unless_told_otherwise(self):
        settings = {"num_train": 8, "batch_size": 4, "num_frames": 1, "height": 16, "width": 16, "image_every": 2}
        loader = ToyWorldData(**settings).train_dataloader()
        epochs = [{key for batch in loader for key in batch.keys} for _ in range(3)]
        assert not epochs[0] & epochs[1] and not epochs[1] & epochs[2]
        loader = ToyWorldData(**settings, fresh_epochs=False).train_dataloader()
        assert [batch.keys for batch in loader] == [batch.keys for batch in loader]

    def test_stages_share_no_scene(self):
        data = ToyWorldData(num_train=8, num_val=8, num_predict=6, batch_size=4, num_frames=1, height=16, width=16)
        loaders = data.train_dataloader(), data.val_dataloader(), data.predict_dataloader()
        seeds = [{item["scene"]["seed"] for batch in loader for item in batch.metadata} for loader in loaders]
        assert [len(part) for part in seeds] == [8, 8, 6]
        assert len(set.union(*seeds)) == 22

    def test_prediction_is_of_held_out_prompts_without_pixels(self):
        for batch in ToyWorldData(num_predict=6, batch_size=4, num_objects=2).predict_dataloader():
            assert batch.video is None
            for item in batch.metadata:
                assert all(is_held_out(*thing.combination) for thing in SceneSpec.from_dict(item["scene"]).objects)
                assert (item["num_frames"], item["height"], item["width"]) == (16, 64, 64)

    def test_spread_reaches_every_stage(self):
        data = ToyWorldData(num_train=4, num_val=4, num_predict=4, batch_size=4, num_frames=1, height=16, width=16, spread=0.0)
        for loader in (data.train_dataloader(), data.val_dataloader(), data.predict_dataloader()):
            places = [(item["scene"]["objects"][0]["x"], item["scene"]["objects"][0]["y"]) for batch in loader for item in batch.metadata]
            assert places == [(0.5, 0.5)] * 4
        with pytest.raises(UsageError, match="give a number between"):
            ToyWorldData(spread=2.0)

    def test_all_arguments_show_on_the_command_line(self):
        check_component_typed(ToyWorldData)

    def test_too_few_samples_are_refused(self):
        with pytest.raises(UsageError, match="raise num_train"):
            ToyWorldData(num_train=3, batch_size=4).train_dataloader()
        with pytest.raises(UsageError, match="nearest is 4"):
            ToyWorldStream(num_samples=5, batch_size=2, drop_last=False, world_size=2)


class _Recorder(LightningModule):
    """Trains one number and remembers what it saw."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append(batch.keys)
        return (self.weight - batch.video.mean()) ** 2

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class _Stop(Callback):
    def __init__(self, after):
        self.after = after

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        # The checkpoint of this step is written after this, so the last one is a step older.
        if trainer.global_step == self.after:
            raise KeyboardInterrupt


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("stop", "num_workers"), [(3, 0), (5, 0), (7, 0), (7, 1)])
def test_a_killed_run_goes_on_with_the_next_batch(tmp_path, stop, num_workers):
    def fit(callbacks, folder, **kwargs):
        data = ToyWorldData(num_train=10, batch_size=2, num_frames=2, height=16, width=16, image_every=4, num_workers=num_workers)
        model = _Recorder()
        saver = ModelCheckpoint(dirpath=folder, every_n_train_steps=1, save_top_k=-1, filename="{step}")
        trainer = Trainer(
            max_epochs=3, accelerator="cpu", logger=False, callbacks=[saver, *callbacks], default_root_dir=tmp_path,
            enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
        )  # fmt: skip
        try:
            trainer.fit(model, data, **kwargs)
        except (KeyboardInterrupt, SystemExit):
            pass
        return model

    whole = fit([], tmp_path / "whole")
    assert len(whole.seen) == 15
    first = fit([_Stop(stop + 1)], tmp_path / "part")
    second = fit([], tmp_path / "rest", ckpt_path=tmp_path / "part" / f"step={stop}.ckpt")
    assert first.seen[:stop] + second.seen == whole.seen
    assert torch.equal(second.weight, whole.weight)


def test_a_media_folder_holds_what_its_tables_say(tmp_path):
    folder = write_media_folder(tmp_path / "clips", num_clips=3, num_frames=5, height=32, width=48, text_probability=1.0, spread=0.1)
    with (folder / "captions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    truths = [json.loads(line) for line in (folder / "ground_truth.jsonl").read_text().splitlines()]
    scenes = list(render_scenes(3, num_frames=5, height=32, width=48, text_probability=1.0, spread=0.1))
    assert all(abs(clip.spec.objects[0].x - 0.5) <= 0.05 for _, clip in scenes)
    assert {path.name for path in folder.iterdir()} == {row["file"] for row in rows} | {"captions.csv", "ground_truth.jsonl"}
    for row, truth, (key, clip) in zip(rows, truths, scenes, strict=True):
        assert row == {"file": f"{key}.mp4", "caption": clip.caption}
        assert SceneSpec.from_dict(truth["scene"]) == clip.spec
        decoded = read_video(folder / row["file"])
        assert decoded.fps == 8.0
        shown = (decoded.video.permute(1, 2, 3, 0).numpy() + 1) * 127.5
        assert np.abs(shown - clip.video).mean() < 6


def test_pictures_are_written_as_png(tmp_path):
    folder = write_media_folder(tmp_path, num_clips=2, num_frames=1, height=16, width=16)
    assert len(list(folder.glob("*.png"))) == 2
