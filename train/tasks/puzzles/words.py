"""English word problems of two to four steps from a small grammar, with an answer worked out sentence by sentence."""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass

from models.complaints import shown
from train.tasks.puzzles.puzzle import puzzle
from train.tasks.task import Example

NAMES = {
    "She": ("Ada", "Mara", "Nora", "Lena", "Ines", "Yuki", "Zola", "Petra", "Olga", "Rita"),
    "He": ("Omar", "Ivan", "Theo", "Kofi", "Hugo", "Jonas", "Luca", "Amir", "Pavel", "Tariq"),
}
PLACES = {
    ("shells", "buttons", "stamps", "coins", "marbles"): ("jar", "tin", "box"),
    ("apples", "plums", "pears", "lemons", "walnuts"): ("bag", "basket", "crate"),
    ("bricks", "planks", "tiles", "ropes", "candles"): ("crate", "bundle", "box"),
    ("seeds", "bulbs", "flowers", "herbs"): ("tray", "pot", "row"),
}
FRIENDS = ("a cousin", "a neighbour", "a friend", "the school", "a sister")
STEPS = (2, 4)
LIMIT = 999


@dataclass(frozen=True)
class Step:
    """One sentence of the story, the sentence of the answer that works it out, and the amount after it."""

    story: str
    worked: str
    amount: int


@dataclass(frozen=True)
class Scene:
    """Who has how many of what."""

    he: str
    thing: str
    box: str
    amount: int


def _gain(rng: random.Random, scene: Scene) -> Step:
    n = rng.randint(2, 60)
    total = scene.amount + n
    story = rng.choice(
        (
            f"{scene.he} finds {n} more.",
            f"Then {n} more {scene.thing} arrive.",
            f"{scene.he} buys {n} new ones.",
            f"Someone brings {n} extra {scene.thing}.",
        )
    )
    return Step(story, f"With {n} more there are {scene.amount} + {n} = {total}.", total)


def _lose(rng: random.Random, scene: Scene) -> Step:
    n = rng.randint(1, max(1, scene.amount // 2))
    left = scene.amount - n
    story = rng.choice(
        (
            f"{scene.he} gives {n} to {rng.choice(FRIENDS)}.",
            f"{scene.he} loses {n} of them on the way.",
            f"Of these, {n} are broken and thrown out.",
            f"{scene.he} sells {n} {scene.thing} at the market.",
        )
    )
    return Step(story, f"Without {n} there are {scene.amount} - {n} = {left}.", left)


def _gain_boxes(rng: random.Random, scene: Scene) -> Step:
    boxes, each = rng.randint(2, 9), rng.randint(2, 12)
    n, box = boxes * each, scene.box
    total = scene.amount + n
    many = f"{box}es" if box.endswith("x") else f"{box}s"
    story = rng.choice(
        (
            f"{scene.he} gets {boxes} {many} with {each} {scene.thing} in each {box}.",
            f"A van delivers {boxes} {many} of {each} {scene.thing}.",
            f"{scene.he} picks up {boxes} {many}, and every {box} holds {each}.",
        )
    )
    return Step(story, f"The {many} hold {boxes} * {each} = {n}, so {scene.amount} + {n} = {total}.", total)


def _multiply(rng: random.Random, scene: Scene) -> Step:
    factor = rng.randint(2, 4)
    total = scene.amount * factor
    times = {2: "twice", 3: "three times", 4: "four times"}[factor]
    story = rng.choice(
        (
            f"A week later there are {times} as many.",
            f"After some work {scene.he.lower()} has {times} that number.",
            f"By the summer the pile is {times} as large.",
        )
    )
    return Step(story, f"Then there are {scene.amount} * {factor} = {total}.", total)


def _share(rng: random.Random, scene: Scene) -> Step:
    parts = rng.choice([d for d in range(2, 10) if scene.amount % d == 0])
    left = scene.amount // parts
    story = rng.choice(
        (
            f"{scene.he} splits them into {parts} equal piles and keeps one pile.",
            f"They are shared equally by {parts} people, and {scene.he.lower()} is one of them.",
            f"{scene.he} keeps one part of {parts} equal parts.",
        )
    )
    return Step(story, f"One part is {scene.amount} / {parts} = {left}.", left)


def _choices(scene: Scene) -> list[Callable[[random.Random, Scene], Step]]:
    choices: list[Callable[[random.Random, Scene], Step]] = [_gain, _gain_boxes]
    if scene.amount >= 4:
        choices.append(_lose)
    if scene.amount * 4 <= LIMIT // 4:
        choices.append(_multiply)
    if scene.amount >= 10 and any(scene.amount % d == 0 for d in range(2, 10)):
        choices.append(_share)
    return choices


def _opening(rng: random.Random, name: str, he: str, thing: str) -> Step:
    amount = rng.randint(5, 80)
    if rng.random() < 0.5:
        story = rng.choice(
            (
                f"{name} has {amount} {thing}.",
                f"There are {amount} {thing} in the house of {name}.",
                f"In the morning {name} counts {amount} {thing}.",
            )
        )
        return Step(story, f"{name} starts with {amount} {thing}.", amount)
    days, each = rng.randint(2, 9), rng.randint(2, 12)
    story = rng.choice(
        (
            f"{name} collects {each} {thing} a day for {days} days.",
            f"For {days} days {name} puts aside {each} {thing} every day.",
            f"{name} fills {days} shelves with {each} {thing} on each shelf.",
        )
    )
    return Step(story, f"{name} starts with {days} * {each} = {days * each} {thing}.", days * each)


def make(rng: random.Random) -> Example:
    """Draw who, what, two to four steps and one phrasing for each."""
    he = rng.choice(tuple(NAMES))
    name, things = rng.choice(NAMES[he]), rng.choice(tuple(PLACES))
    thing, box = rng.choice(things), rng.choice(PLACES[things])
    steps = [_opening(rng, name, he, thing)]
    for _ in range(rng.randint(*STEPS) - 1):
        scene = Scene(he, thing, box, steps[-1].amount)
        steps.append(rng.choice(_choices(scene))(rng, scene))
    question = rng.choice(
        (
            f"How many {thing} does {name} have now?",
            f"How many {thing} are there in the end?",
            f"What number of {thing} is left at the end?",
        )
    )
    story = " ".join([*(step.story for step in steps), question])
    worked = " ".join([*(step.worked for step in steps), f"#### {steps[-1].amount}"])
    return Example(story, worked)


def canonical(prompt: str) -> str:
    """Name the instance by its prompt.

    Raises:
        ValueError: for a blank prompt.
    """
    if not prompt.strip():
        raise ValueError(f"words prompt must hold text, got {shown(prompt)}")
    return prompt


def check(example: Example, text: str) -> bool:
    """Compare the number after the last `####` with the reference's."""
    answer = final_number(text)
    return answer is not None and answer == final_number(example.response)


def final_number(text: str) -> int | None:
    """Read the whole number after the last `####`; None if there is none."""
    match = re.fullmatch(r".*####\s*(-?[0-9]+(?:,[0-9]{3})*)\s*", text, flags=re.DOTALL)
    return int(match[1].replace(",", "")) if match else None


WORDS = puzzle("words", 80, 96, unique_answer=False, make=make, canonical=canonical, check=check, needs_response=True)
