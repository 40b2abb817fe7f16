"""The cast: the capabilities joined into one run (plugin hooks). Importing this does not import torch."""

from collections.abc import Iterator

from moviegen_core import Command, hookimpl


@hookimpl
def moviegen_commands() -> Iterator[Command]:
    """From nothing to a film with sound, from a prompt to a film, and from a film to its sound."""
    yield Command("", "quickstart", "moviegen_cast.quickstart:quickstart", "toy world -> trained models -> film and report, resumable")
    yield Command("", "generate", "moviegen_cast.generate:generate", "one prompt to one film, with a trained model")
    yield Command("", "sound", "moviegen_cast.sound:add_sound", "the sound of a film, with a trained model")
