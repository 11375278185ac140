"""Rounds of a decode: what they are made of, and what drives them, plain or captured by the engine."""
