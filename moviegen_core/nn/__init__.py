"""Layers that networks of several capabilities share."""
