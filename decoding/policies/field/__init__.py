"""Decoders of the field, each from its published rule with its published defaults, one file a decoder."""
