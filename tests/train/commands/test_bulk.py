"""Many prompts in one call: what may be read, what is written, in which order, and how a stopped run goes on."""

import gzip
import io
import json
import shutil

import pytest
from safetensors import safe_open
from safetensors.torch import save_file

import generate as generate_command
import models
from decoding.calls.request import resolve
from decoding.files.folder_lock import hold_file
from decoding.names import POLICIES, may_draw
from tests.complaint import complaint
from tests.decoding.conftest import members
from tests.decoding.policy_settings import row_of
from train.commands.answering.batches import decode_all, decode_order
from train.commands.answering.memory import batch_size_for, told_in_one_sentence
from train.commands.answering.prompt_file import read_prompts
from train.commands.command_line import run, shipped
from train.tasks import get

HOW = ("--policy", "threshold", "--threshold", "0.05", "--gen_length", "16", "--device", "cpu")
PROMPTS = ["1+2=", "3", "4*5=20,6+", "7", "8-9", "10,11,12,13", "1", "2,2"]


def decode(capsys, *arguments: str) -> list[dict]:
    run(generate_command.generate, [*arguments, *HOW])
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def refused(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit):
        run(generate_command.generate, [*arguments, *HOW])
    return capsys.readouterr().err.strip()


def answers(lines: list[dict]) -> list[tuple]:
    return [(line["id"], line["sample"], line["prompt"], line["text"], line["rounds"]) for line in lines]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("\n".join(PROMPTS) + "\n\n")
    return path


def test_one_answer_a_prompt_in_order_whatever_the_batch(capsys, tiny, file):
    one, three = (decode(capsys, "--prompts", str(file), "--model", str(tiny), "--batch_size", n) for n in "13")
    assert [line["prompt"] for line in one] == PROMPTS
    assert [line["id"] for line in one] == list(range(1, 9))
    assert answers(one) == answers(three)
    costs = "rounds sequence_forwards token_positions looks drafts drafts_true tokens seconds"
    assert list(one[0]) == f"id sample prompt text {costs} seed settings".split()
    assert one[0]["settings"]["policy"] == {"name": "threshold", "threshold": 0.05}
    single = decode(capsys, "--prompts", str(file), "--row", "3", "--model", str(tiny), "--json")
    assert single[0]["text"] == one[2]["text"]


def test_every_kind_of_source_reads_the_same(capsys, tiny, file, tmp_path, monkeypatch):
    expected = answers(decode(capsys, "--prompts", str(file), "--model", str(tiny)))
    fields = ["prompt", "input", "question", "text", "quiz"]
    rows = [json.dumps({fields[n % 5]: text, "extra": n}) for n, text in enumerate(PROMPTS)]
    (tmp_path / "p.jsonl").write_text("\n".join(rows))
    for name, text in (("p.txt.gz", "\n".join(PROMPTS)), ("p.jsonl.gz", "\n".join(rows))):
        with gzip.open(tmp_path / name, "wt") as stream:
            stream.write(text)
    for name in ("p.jsonl", "p.txt.gz", "p.jsonl.gz"):
        assert answers(decode(capsys, "--prompts", str(tmp_path / name), "--model", str(tiny))) == expected
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join([*PROMPTS[:4], *rows[4:]])))
    assert answers(decode(capsys, "--prompts", "-", "--model", str(tiny))) == expected
    typed = [one for text in PROMPTS for one in ("--prompt", text)]
    assert answers(decode(capsys, *typed, "--model", str(tiny))) == expected


def test_ids_of_records_are_kept_and_answers_judged(capsys, tiny, tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_text('{"id": "a", "input": "2,3,4,24", "output": "x"}\n{"task_id": 9, "quiz": "10,20,30,60"}\n')
    lines = decode(capsys, "--prompts", str(path), "--task", "countdown3", "--model", str(tiny))
    assert [line["id"] for line in lines] == ["a", 9]
    assert [line["accepted"] for line in lines] == [False, False]
    path.with_suffix(".txt").write_text("2,3,4,24||x\n10,20,30,60\n")
    asked = list(read_prompts(str(path.with_suffix(".txt")), get("countdown3")))
    assert [(one.id, one.prompt, one.example.response) for one in asked] == [
        (1, "2,3,4,24", "x"),
        (2, "10,20,30,60", ""),
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"prompt": "1"}\n{"prompt": 2}', "p.jsonl, line 2: prompt must be text, got 2"),
        ("{", "p.jsonl, line 1: line must be JSON, got '{'"),
        ("[1]", "p.jsonl, line 1: line must be a JSON object, got '[1]'"),
        (
            '{"answer": "1"}',
            "p.jsonl, line 1: line must have prompt, input, question, text, quiz or messages, got answer",
        ),
        (
            '{"messages": [{"role": "user"}]}',
            "p.jsonl, line 1: messages must be a list of objects with role and content",
        ),
        ("\n", "prompts must hold at least one prompt, got none in"),
        ('{"prompt": "1<|mdm_mask|>"}', "prompt must not hold the mask token, got '<|mdm_mask|>' in it"),
    ],
)
def test_a_bad_line_is_named_before_anything_is_decoded(capsys, tiny, tmp_path, text, sentence):
    path = tmp_path / "p.jsonl"
    path.write_text(text)
    assert sentence in refused(capsys, "--prompts", str(path), "--model", str(tiny), "--out", str(tmp_path / "o.jsonl"))
    assert not (tmp_path / "o.jsonl").exists()


def test_a_stopped_run_goes_on_and_ends_with_the_same_file(capsys, tiny, file, tmp_path):
    out, whole = tmp_path / "deep" / "o.jsonl", None
    how = ("--prompts", str(file), "--model", str(tiny), "--samples", "2", "--temperature", "1", "--batch_size", "3")
    for cut in (None, 0, 1, 5, 11, 16):
        if cut is not None:
            kept = whole.splitlines(keepends=True)
            out.write_text("".join(kept[:cut]) + (kept[cut][:40] if cut < 16 else ""))
        run(generate_command.generate, [*how, "--out", str(out), *HOW])
        printed = capsys.readouterr().out
        assert printed.startswith("16 answers: ")
        lines = [json.loads(line) for line in out.read_text().splitlines()]
        if whole is None:
            whole = out.read_text()
            first = answers(lines)
        assert answers(lines) == first
    assert [(line["id"], line["sample"]) for line in lines] == [(n, s) for n in range(1, 9) for s in (0, 1)]
    assert len({line["text"] for line in lines}) > 8


def test_a_file_of_other_settings_or_prompts_is_left_alone(capsys, tiny, file, tmp_path):
    out = tmp_path / "o.jsonl"
    how = ("--prompts", str(file), "--model", str(tiny), "--out", str(out))
    run(generate_command.generate, [*how, *HOW])
    capsys.readouterr()
    before = out.read_bytes()
    assert "seed must be that of the lines in" in refused(capsys, *how, "--seed", "1")
    file.write_text("\n".join([PROMPTS[0], "other", *PROMPTS[2:]]))
    assert "prompt must be that of the lines in" in refused(capsys, *how)
    file.write_text("\n".join(PROMPTS[:2]))
    assert "out must hold answers to these prompts alone, got 8 lines for 2" in refused(capsys, *how)
    assert out.read_bytes() == before
    out.write_text("notes\n")
    assert "out must be a file of this command, or none, got" in refused(capsys, *how)
    assert out.read_text() == "notes\n"


@pytest.mark.parametrize(
    ("file", "name"), [("base/model.safetensors", "weights"), ("head/head.safetensors", "head_weights")]
)
def test_lines_of_other_weights_in_the_same_folder_are_left_alone(capsys, tiny, tmp_path, file, name):
    for source, copied in ((tiny, "base"), (shipped("checkpoints/universal-head"), "head")):
        shutil.copytree(source, tmp_path / copied)
        (tmp_path / copied / "checksums.json").unlink()
    out = tmp_path / "o.jsonl"
    how = ("--model", str(tmp_path / "base"), "--head", str(tmp_path / "head"), "--prompt", "1", "--prompt", "2")
    how += ("--policy", "learned", "--gen_length", "8", "--device", "cpu", "--out", str(out))
    run(generate_command.generate, how)
    first = out.read_text().splitlines(keepends=True)[0]
    out.write_text(first)
    with safe_open(tmp_path / file, "pt") as opened:
        tensors, metadata = {key: opened.get_tensor(key) for key in opened.keys()}, opened.metadata()  # noqa: SIM118
    next(iter(tensors.values())).view(-1)[0] += 0.5
    save_file(tensors, tmp_path / file, metadata)
    capsys.readouterr()
    with pytest.raises(SystemExit):
        run(generate_command.generate, how)
    assert capsys.readouterr().err.startswith(f"generate.py: {name} must be that of the lines in {out} ('")
    assert out.read_text() == first


def test_lines_that_name_no_weights_are_left_alone(capsys, tiny, tmp_path):
    out = tmp_path / "o.jsonl"
    how = ("--prompt", "1", "--prompt", "2", "--model", str(tiny), "--out", str(out))
    run(generate_command.generate, [*how, *HOW])
    capsys.readouterr()
    line = json.loads(out.read_text().splitlines()[0])
    before = {name: value for name, value in line["settings"].items() if not name.endswith("weights")}
    out.write_text(json.dumps(line | {"settings": before}) + "\n")
    sentence = f"generate.py: out must be a file that says which weights gave its lines, got one without: {out}"
    assert refused(capsys, *how) == sentence
    assert len(out.read_text().splitlines()) == 1


def test_answers_that_would_all_be_the_same_are_refused(capsys, tiny, monkeypatch):
    own = ("--prompt", "1", "--samples", "2", "--model", str(tiny), "--gen_length", "16")
    sentence = "generate.py: samples must be 1 at temperature 0, where every answer is the same, got 2"
    for policy in ("decoding.policies.threshold:Threshold", "threshold"):  # one of one's own is asked when it is made
        assert complaint(capsys, generate_command.generate, *own, "--policy", policy) == sentence
        monkeypatch.setattr("models.load", None)


def test_policies_that_draw_are_known_by_name():
    for name in POLICIES:
        for member, policy in members(name).items():
            settings = row_of(name).toys[member.removeprefix(f"{name}-")]
            assert may_draw(name, settings) == (policy.needs.noise or policy.needs.draws > 0), member


@pytest.mark.parametrize("name", ["file/o.jsonl", "file/deep/o.jsonl", "folder.jsonl", "new/deep/refused.jsonl"])
def test_a_file_that_cannot_be_written_is_refused_before_the_model_is_loaded(capsys, tmp_path, monkeypatch, name):
    monkeypatch.setattr("models.load", None)
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder.jsonl").mkdir()
    told = complaint(capsys, generate_command.generate, "--prompt", "1", "--out", str(tmp_path / name), "--task", "x")
    rule = {"file": "a file that can be written", "folder.jsonl": "a regular file"}.get(name.partition("/")[0])
    assert told.startswith(f"generate.py: out must be {rule}, got " if rule else "generate.py: task must be one of ")
    assert {one.name for one in tmp_path.iterdir()} == {"file", "folder.jsonl"}


def test_long_prompts_are_refused_by_name_or_cut(capsys, tiny, instruct, tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps({"prompt": "1"}) + "\n" + json.dumps({"id": "long", "prompt": "12+3," * 40}))
    told = refused(capsys, "--prompts", str(path), "--model", str(tiny))
    assert told.startswith(
        "generate.py: prompts must leave 16 of the model's 128 positions (--long cut drops their beginning)"
    )
    assert "got 1 that do not, the first one 'long' with " in told
    for model in (tiny, instruct):
        short, long = decode(capsys, "--prompts", str(path), "--model", str(model), "--long", "cut")
        assert long["token_positions"] <= long["rounds"] * 128
        assert (short["id"], long["id"]) == (1, "long")
    denoiser = models.load(instruct, device="cpu")
    asked = [{"role": "user", "content": "1," * 100}]
    from decoding.prompts import cut_prompt

    ids = cut_prompt(asked, denoiser, 40)
    assert len(ids) <= 40
    assert denoiser.tokenizer.decode(ids).startswith("u:")
    assert denoiser.tokenizer.decode(ids).endswith("a:")


def test_chats_in_a_file_are_rendered_by_the_template(capsys, tiny, instruct, tmp_path):
    path = tmp_path / "p.jsonl"
    chat = [{"role": "user", "content": "1"}, {"role": "assistant", "content": "2"}, {"role": "user", "content": "3"}]
    path.write_text(json.dumps({"messages": chat}) + "\n" + json.dumps({"prompt": "3"}) + "\n")
    chatted, alone = decode(capsys, "--prompts", str(path), "--model", str(instruct))
    assert chatted["prompt"] == chat
    assert chatted["token_positions"] / chatted["rounds"] > alone["token_positions"] / alone["rounds"]
    assert "messages must come with a model that has a chat template" in refused(
        capsys, "--prompts", str(path), "--model", str(tiny)
    )


def test_rows_of_like_length_are_decoded_together():
    lengths = [5, 1, 5, 1, 9, 9, 2, 2, *[7] * 40]
    order = decode_order(lengths, 2)
    assert sorted(order) == list(range(48))
    assert order[:9] == [1, 3, 6, 7, 0, 2, 8, 9, 10]
    assert all(set(order[start : start + 16]) == set(range(start, start + 16)) for start in (0, 16, 32))


def test_what_is_done_is_not_run_again(tiny):
    denoiser = models.load(tiny, device="cpu")
    calls = []
    forward = denoiser.forward
    denoiser.forward = lambda *a, **k: (calls.append(len(a[0])), forward(*a, **k))[1]
    request = resolve("sequential", {"gen_length": 2, "early_stop": False})
    ids = denoiser.encode(PROMPTS)
    found = list(decode_all(denoiser, ids, request, batch_size=4, seed=0, done=set(range(4))))
    assert [answer.index for answer in found] == [4, 5, 6, 7]
    assert sum(calls) == 4 * 2  # rows times rounds
    calls.clear()
    assert list(decode_all(denoiser, ids, request, batch_size=4, seed=0, done=set(range(8)))) == []
    assert calls == []


def test_batch_size_follows_the_memory_there_is(tiny, monkeypatch):
    denoiser = models.load(tiny, device="cpu")
    canvas = {"length": 100, "gen_length": 64}
    sizes = []
    for pages in (10**9, 2_000, 1):
        monkeypatch.setattr("os.sysconf", lambda name, pages=pages: pages if name == "SC_AVPHYS_PAGES" else 4096)
        sizes.append(batch_size_for(denoiser, **canvas))
    assert sizes[0] == 16
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == 1
    assert all(size & (size - 1) == 0 for size in sizes)
    monkeypatch.setattr("os.sysconf", lambda name: 2_000 if name == "SC_AVPHYS_PAGES" else 4096)
    assert batch_size_for(denoiser, **canvas, canvases=4) < batch_size_for(denoiser, **canvas)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")])
def test_out_of_memory_says_what_to_lower(error):
    with (
        pytest.raises(
            ValueError, match=r"batch_size must be lower for the memory there is .* got 8 rows of 512 positions"
        ),
        told_in_one_sentence(8, 512),
    ):
        raise error
    with pytest.raises(RuntimeError, match="else"), told_in_one_sentence(8, 512):
        raise RuntimeError("something else")


def test_a_second_writer_of_one_file_is_refused(capsys, tiny, file, tmp_path):
    out = tmp_path / "o.jsonl"
    with hold_file(out):
        told = refused(capsys, "--prompts", str(file), "--model", str(tiny), "--out", str(out))
        assert f"out must be a file that no other run writes to, got {out}" in told
    with pytest.raises(ZeroDivisionError), hold_file(tmp_path / "new.jsonl"):
        raise ZeroDivisionError
    assert not (tmp_path / "new.jsonl").exists()


@pytest.mark.parametrize(
    "change", [{"rounds": None}, {"rounds": "2"}, {"tokens": -1}, {"settings": []}, {"accepted": 1}, []]
)
def test_other_lines_are_refused_and_stay(capsys, tiny, file, tmp_path, change):
    out = tmp_path / "o.jsonl"
    how = ("--prompts", str(file), "--model", str(tiny), "--out", str(out))
    run(generate_command.generate, [*how, *HOW])
    capsys.readouterr()
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    lines[1] = lines[1] | change if isinstance(change, dict) else change
    out.write_text("".join(json.dumps(line) + "\n" for line in lines))
    before = out.read_bytes()
    assert "out must be a file of this command, or none, got other lines" in refused(capsys, *how)
    assert out.read_bytes() == before


def test_standard_input_is_read_as_utf_8_whatever_the_terminal(tmp_path, monkeypatch):
    for data, found in (("é\n".encode(), ["é"]), (b"\xef\xbb\xbfx\n", ["x"])):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data), encoding="ascii"))
        assert [asked.prompt for asked in read_prompts("-", None)] == found
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a\n\xff\n"), encoding="utf-8"))
    with pytest.raises(ValueError, match=r"standard input, line 2: text must be in UTF-8, got byte 0xff at 0"):
        list(read_prompts("-", None))
