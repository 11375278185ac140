"""A masked diffusion language model as lm-evaluation-harness sees one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.utils import simple_parse_args_string
from torch import Tensor
from tqdm import tqdm

import models
from decoding import make_policy
from decoding.calls.request import Request, resolve
from models.complaints import shown
from models.ranks import find_ranks
from train.commands.answering.batches import decode_all
from train.commands.answering.call import counts_of
from train.commands.answering.memory import batch_size_for, told_in_one_sentence
from train.harness.arguments import Evaluation, judge_arguments
from train.harness.journal import Journal, header_of
from train.harness.likelihood import log_likelihood_bound

LIKELIHOOD_ROWS = 16  # canvases of one likelihood in a forward, where no batch size is given


class FewerRounds(TemplateLM):
    """`--model fewer_rounds`: generation by any policy, likelihoods by Monte Carlo.

    Args:
        arguments: of `--model_args`, and batch_size and device of the command (see `train.harness.arguments`).

    Raises:
        ValueError: in one sentence with name, rule and value.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__()
        self.evaluation: Evaluation = judge_arguments(arguments)
        self.ranks = find_ranks()
        how: dict[str, Any] = {"device": self.evaluation.device, "dtype": self.evaluation.dtype}
        parts: dict[str, Any] = {"adapter": self.evaluation.adapter, "head": self.evaluation.head}
        self.denoiser = models.load(self.evaluation.model, **how, **parts)
        if self.denoiser.tokenizer is None:
            raise ValueError(f"pretrained must be a checkpoint with a tokenizer, got {self.evaluation.model} without")
        request = self.evaluation.request()
        make_policy(request.policy, request.settings, self.denoiser)  # what it refuses is refused now
        self.tokenizer = self.denoiser.tokenizer
        self._rank, self._world_size, self._device = self.ranks.rank, self.ranks.size, self.denoiser.device
        header = header_of(self.evaluation, self.denoiser)
        self.journal = Journal(self.evaluation.save_dir, self.rank, header)

    @classmethod
    def create_from_arg_string(cls, arg_string: str, additional_config: dict[str, Any] | None = None) -> FewerRounds:
        """From `--model_args` as text; what stands there goes before the command's own `--batch_size` and `--device`."""
        return cls.create_from_arg_obj(simple_parse_args_string(arg_string), additional_config)

    @classmethod
    def create_from_arg_obj(
        cls, arg_dict: dict[str, Any], additional_config: dict[str, Any] | None = None
    ) -> FewerRounds:
        """From arguments by name, in the same order of preference."""
        command = {name: value for name, value in (additional_config or {}).items() if value is not None}
        return cls(**{**command, **arg_dict})

    @property
    def eot_token_id(self) -> int:
        """The id that ends an answer; the mask stands in for a context that is not there where there is none."""
        return self.denoiser.mask_id if self.denoiser.eos_id is None else self.denoiser.eos_id

    @property
    def max_length(self) -> int:
        """Positions of context and canvas."""
        return self.denoiser.max_length

    @property
    def tokenizer_name(self) -> str:
        """What names cached requests."""
        return self.evaluation.model.replace("/", "__")

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The tokenizer's template where one is wanted.

        Raises:
            ValueError: if it has none.
        """
        if chat_template is False:
            return ""
        if not self.denoiser.is_chat:
            raise ValueError("apply_chat_template must be left out with a model that has no chat template, got it")
        return str(self.tokenizer.chat_template)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """A chat as the string that the model reads."""
        how: dict[str, Any] = {"tokenize": False, "add_generation_prompt": add_generation_prompt}
        how |= {} if add_generation_prompt else {"continue_final_message": True}
        return str(self.tokenizer.apply_chat_template(chat_history, **how))

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Token ids, without special tokens unless BOS is wanted."""
        ids: list[int] = self.tokenizer(string, add_special_tokens=False)["input_ids"]
        bos = self.tokenizer.bos_token_id
        return [bos, *ids] if self.evaluation.add_bos and bos is not None and ids[:1] != [bos] else ids

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Decode every context, and end each text at the first of its stop strings."""
        self.journal.start()
        keys = [self.journal.key("generate_until", request.args) for request in requests]
        groups: dict[tuple[int, float], list[int]] = {}
        stops: list[list[str]] = []
        for index, request in enumerate(requests):
            kwargs: Any = normalize_gen_kwargs(request.args[1], 0)
            stops.append([] if self.evaluation.escape_until else [one for one in kwargs["until"] if one])
            if keys[index] not in self.journal.known:
                groups.setdefault((kwargs["max_gen_toks"], kwargs.get("temperature", 0.0)), []).append(index)
        with tqdm(total=len(requests), desc="generate_until", disable=disable_tqdm or self.rank != 0) as bar:
            bar.update(len(requests) - sum(map(len, groups.values())))
            for (length, temperature), indices in groups.items():
                request = self.evaluation.request(length or None, temperature)
                contexts = [self._context(requests[index].args[0], request.gen_length) for index in indices]
                for answer in decode_all(
                    self.denoiser,
                    contexts,
                    request,
                    batch_size=self._rows(contexts, request),
                    seed=self.evaluation.seed,
                ):
                    index, row = indices[answer.index], answer.row
                    costs: dict[str, Any] = {
                        **counts_of(row),
                        "tokens": row.new_tokens,
                        "seconds": round(answer.seconds, 5),
                        "seed": answer.seed,
                    }
                    names = {"task": requests[index].task_name, "doc_id": requests[index].doc_id}
                    self.journal.add(keys[index], {**names, "text": until(str(row.text), stops[index]), **costs})
                    bar.update()
        return [str(self.journal.known[key]["text"]) for key in keys]

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[tuple[str, str], list[int], list[int]]], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        """Bound and greediness of every continuation."""
        self.journal.start()
        found: list[tuple[float, bool]] = []
        for texts, context, target in tqdm(requests, desc="loglikelihood", disable=self.rank != 0):
            key = self.journal.key("loglikelihood", texts)
            if key not in self.journal.known:
                self.journal.add(key, self._score(key, context, target))
            line = self.journal.known[key]
            found.append((float(line["log_likelihood"]), bool(line["greedy"])))
        return found

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """The bound of every whole text; a text longer than the model is scored in pieces, each on its own."""
        self.journal.start()
        found: list[float] = []
        for request in tqdm(requests, desc="loglikelihood_rolling", disable=disable_tqdm or self.rank != 0):
            ids, key = self.tok_encode(request.args[0]), self.journal.key("loglikelihood_rolling", request.args)
            if key not in self.journal.known:
                pieces = [ids[first : first + self.max_length] for first in range(0, len(ids), self.max_length)]
                self.journal.add(key, {"log_likelihood": sum(self._bound(key, [], one)[0] for one in pieces)})
            found.append(float(self.journal.known[key]["log_likelihood"]))
        return found

    def get_model_info(self) -> dict[str, Any]:
        """What stands in the results beside the scores: settings, and what an answer cost on average."""
        lines = [line for line in self.journal.known.values() if "rounds" in line]
        info: dict[str, Any] = {"fewer_rounds": asdict(self.evaluation), "model_sha": self.denoiser.fingerprint()}
        if lines:
            sums = {
                name: sum(line[name] for line in lines) for name in ("rounds", "sequence_forwards", "tokens", "seconds")
            }
            info["rounds_per_answer"] = sums["rounds"] / len(lines)
            info["sequence_forwards_per_answer"] = sums["sequence_forwards"] / len(lines)
            info["tokens_per_round"] = sums["tokens"] / max(sums["rounds"], 1)
            info["tokens_per_second"] = sums["tokens"] / max(sums["seconds"], 1e-9)
        return info

    def all_gather(self, tensor: Tensor) -> Tensor:
        """Of all processes."""
        found = [one.to(tensor.device) for one in self.ranks.gather(tensor.cpu())]
        return torch.stack(found) if tensor.ndim == 0 else torch.cat(found)

    def gather_object(self, obj: Any, dst: int = 0) -> list[Any] | None:
        """Of all processes, at one of them."""
        found = self.ranks.gather(obj)
        return found if self.ranks.rank == dst else None

    def barrier(self) -> None:
        """Wait for all processes."""
        self.ranks.barrier()

    def _context(self, text: str, gen_length: int) -> list[int]:
        """Token ids of a context that leaves room for the canvas."""
        ids = self.tok_encode(text) or [self.eot_token_id]
        room = self.max_length - gen_length
        if len(ids) > room and (self.evaluation.long == "refuse" or room < 1):
            raise ValueError(
                f"contexts must leave {gen_length} of the model's {self.max_length} positions (long=cut drops their beginning), "
                f"got {len(ids)} tokens in {shown(text)}"
            )
        return ids[-room:]

    def _rows(self, contexts: Sequence[Sequence[int]], request: Request) -> int:
        rule = make_policy(request.policy, request.settings, self.denoiser)
        length = max(map(len, contexts)) + request.gen_length
        canvas = {"length": length, "gen_length": request.gen_length, "canvases": rule.needs.canvases}
        return self.evaluation.batch_size or batch_size_for(self.denoiser, **canvas)

    def _score(self, key: str, context: Sequence[int], target: Sequence[int]) -> dict[str, Any]:
        room = self.max_length - len(target)
        if len(context) > room and (self.evaluation.long == "refuse" or room < 0):
            raise ValueError(
                f"context and continuation must fit {self.max_length} positions, got {len(context)} + {len(target)}"
            )
        context = list(context)[len(context) - room :] if len(context) > room else list(context)
        value, error = self._bound(key, context, target)
        greedy = self.evaluation.check_greedy and self._greedy(context, target)
        return {"log_likelihood": value, "standard_error": error, "greedy": greedy}

    def _bound(self, key: str, context: Sequence[int], target: Sequence[int]) -> tuple[float, float]:
        """Draws of a request depend on the seed and on its text alone, not on its place."""
        if not target:
            return 0.0, 0.0
        rows = self.evaluation.batch_size or LIKELIHOOD_ROWS
        seed = int(hashlib.sha256(f"{self.evaluation.seed}/{key}".encode()).hexdigest()[:12], 16)
        with told_in_one_sentence(rows, len(context) + len(target)):
            how: dict[str, int] = {"samples": self.evaluation.samples, "batch_size": rows, "seed": seed}
            found = log_likelihood_bound(self.denoiser, context, target, **how)
        return found.value, found.error

    def _greedy(self, context: Sequence[int], target: Sequence[int]) -> bool:
        """Whether the model, most confident position first, writes this very continuation (LLaDA's check)."""
        request = resolve("sequential", {"gen_length": len(target), "block_length": len(target), "early_stop": False})
        with torch.inference_mode():
            start = list(context) or [self.eot_token_id]
            (answer,) = decode_all(self.denoiser, [start], request, batch_size=1, seed=0)
        written = answer.row.ids
        return written == tuple(target)[: len(written)] and (
            len(written) == len(target) or written[-1] == self.eot_token_id
        )


def until(text: str, stops: Sequence[str]) -> str:
    """The text before the first of the stop strings."""
    return min((text.partition(stop)[0] for stop in stops), key=len, default=text)
