"""Encoding and decoding of single videos, images and sounds; what loads training data at speed is in moviegen_data."""
