"""A plugin that fails on import."""

raise RuntimeError("no flux capacitor on this machine")
