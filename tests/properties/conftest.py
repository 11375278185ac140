"""Small sound files of every kind, made once."""

from __future__ import annotations

import os
import tempfile

import hypothesis.configuration

hypothesis.configuration.set_hypothesis_home_dir(os.path.join(tempfile.gettempdir(), "hypothesis-of-fewer-rounds"))
