"""The papers' theory as running code: `python study.py NAME` writes NAME.json and NAME.png.

One study is one file here, or a folder whose `study.py` is that file, and one line in STUDIES. The file has two functions:

    measure(inputs: StudyInputs, *, setting: type = default, ...) -> dict[str, Any]
        runs the study and returns what goes into the JSON. Every setting is typed and has the default size; the command
        reads them from `settings:` of a config (`configs/study/NAME.yaml`, the full sizes in `NAME-full.yaml`) or from
        `--settings.NAME=VALUE`, and judges them by this signature. Its docstring has an Args entry for each. What the
        default size leaves out is said in the result under "cut", a list of sentences.
    draw(result: dict[str, Any], figure: matplotlib.figure.Figure) -> None
        draws the picture from the result alone (as read back from the JSON), with axes, units and a legend.

`StudyInputs` (decoding/studies/inputs.py) is what the command puts into a study's hands: the base model, prompts with their
checker, device, seed, and a fitting of heads, since `decoding` imports neither `train` nor its tasks. The command adds
study, settings, seconds, sequence_forwards (canvases through every denoiser), models (fingerprints), command, commit,
seed, device and versions.

Imports nothing heavy: a command judges the name first.
"""

from __future__ import annotations

from collections.abc import Mapping

STUDIES: Mapping[str, str] = {
    "bits": "decoding.studies.bits.study",
    "ablation": "decoding.studies.ablation",
    "cascades": "decoding.studies.cascades",
    "free-lunch": "decoding.studies.free_lunch",
    "order": "decoding.studies.order",
    "block-hmm": "decoding.studies.block_hmm.study",
    "exploration": "decoding.studies.exploration",
    "limits": "decoding.studies.limits.study",
    "trend": "decoding.studies.trend",
}
"""Name -> module."""
