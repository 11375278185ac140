"""Two groups of three bits and a tokenizer of the digits themselves: what comparisons and calibrations are tried on."""

from models.toys.toy import GroupDenoiser

GROUPS, SIZE = 2, 3


class Digits:
    """A tokenizer of the digits themselves."""

    def __call__(self, text, **_):
        return {"input_ids": [int(digit) for digit in text]}

    def decode(self, ids, **_):
        return "".join(map(str, ids))


def toy(certainty: float = 0.999999) -> GroupDenoiser:
    denoiser = GroupDenoiser(GROUPS, SIZE, certainty=certainty)
    denoiser.tokenizer = Digits()
    denoiser.encode = lambda prompts, chat=None: [Digits()(prompt)["input_ids"] for prompt in prompts]
    return denoiser
