"""Ways to break the code, each with the tests that have to notice: file, what stands there once, what is put in its place."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutation:
    """One way.

    Attributes:
        name: what goes wrong.
        file: that is changed.
        old, new: the text there, which occurs once, and what replaces it.
        tests: arguments of pytest.
    """

    name: str
    file: str
    old: str
    new: str
    tests: str


RESULTS, VERDICTS, RUNNER = (f"decoding/comparison/{name}.py" for name in ("results", "verdicts", "runner"))
RUNS, CURVES, ARMS = (f"decoding/comparison/{name}.py" for name in ("runs", "curves", "arms"))
CLAIMS, LEDGER, STATISTICS = (f"tests/decoding/comparison/test_{name}.py" for name in ("claims", "runs", "curves"))
LOCK, TRACE, PROVENANCE = "decoding/files/folder_lock.py", "decoding/traces/trace.py", "decoding/provenance.py"
LINE, RAW, SIGNALS = (f"train/commands/{name}.py" for name in ("command_line", "raw_arguments", "interruption"))
COMMAND, TRACES, PRETRAIN = (
    "tests/test_command_line.py",
    "tests/decoding/traces/test_trace.py",
    "tests/train/test_pretrain.py",
)
HELD = "tests/test_held_folders.py"
WRITTEN, COLLECTED = "tests/decoding/test_provenance.py", "tests/train/traces/test_collection.py"
FILES, QUESTION, TASK = (f"train/tasks/{name}.py" for name in ("text_files", "question", "task"))
GSM8K, MMLU, CODE = (f"train/tasks/benchmarks/{name}.py" for name in ("gsm8k", "mmlu_pro", "code_text"))
ANSWERS, OTHERS = "tests/train/tasks/test_benchmark_answers.py", "tests/train/tasks/test_files_of_others.py"
RULES, BOUNDS, THRESHOLD = (f"decoding/policies/{name}.py" for name in ("rules", "bounds", "threshold"))
VERIFIED = "decoding/policies/verified.py"
CHECKED = "tests/decoding/policies/test_verified.py tests/decoding/policies/test_verified_rules.py"
BOUNDED, PLAIN = "tests/decoding/policies/test_bounds.py", "tests/decoding/policies/test_threshold.py"
JSON, MANIFEST, SEALED = (f"models/checkpoints/{name}.py" for name in ("json_files", "manifest", "files"))
KILLED_SAVES = "tests/models/checkpoints/test_killed_saves.py"
SAVES, STRICT = "tests/models/checkpoints/test_whole_saves.py", "tests/models/checkpoints/test_json_files.py"
PROPERTIES = "-o addopts=--import-mode=importlib tests/properties"
BULK, PROMISES = "tests/train/commands/test_bulk.py", "tests/decoding/comparison/test_calibration.py"
COMMIT, STATES = "decoding/commit.py", "tests/decoding/test_state.py"
SPELLING, ASIDE = "train/commands/options/spelling.py", "decoding/files/aside.py"
SWEPT = "tests/decoding/test_aside.py"
LINES, HEADER = "decoding/comparison/records/ledger.py", "decoding/traces/header.py"

MUTATIONS = tuple(
    Mutation(*fields)
    for fields in (
        # figures and claims
        ("best rival chosen on test", RESULTS, "key=lambda item: item.rounds_on_dev", "key=lambda item: item.test.rounds[0, 0]", CLAIMS),
        ("the reference is a rival", RESULTS, 'm.arm.kind == "headless" and m.arm.name != REFERENCE and m.at', 'm.arm.kind == "headless" and m.at', CLAIMS),
        ("any arm is a headless rival", RESULTS, 'if m.arm.kind == "headless" and m.arm.name', "if m.arm.name", CLAIMS),
        ("claims without Holm", VERDICTS, "curves.holm([curves.p_value(ratio, null=1.0) for ratio in ratios])", "[curves.p_value(ratio, null=1.0) for ratio in ratios]", CLAIMS),
        ("an arm that does not hold claims", VERDICTS, "if m.at.dial is not None and m.at.holds is not False]", "if m.at.dial is not None]", CLAIMS),
        ("headroom everywhere", VERDICTS, "NOTHING_TO_WIN = 0.10", "NOTHING_TO_WIN = 10.0", CLAIMS),
        ("dev and test share their resamples", RUNNER, 'seed=2 * self.seed + (split == "test")', "seed=2 * self.seed", CLAIMS),
        ("seeds share their resamples", RUNNER, 'seed=2 * self.seed + (split == "test")', 'seed=int(split == "test")', CLAIMS),
        ("one seed for all chunks", RUNS, "seed * 1_000_003 + index[0]", "seed * 1_000_003", CLAIMS),
        ("one seed for all seeds", RUNS, "seed * 1_000_003 + index[0]", "index[0]", CLAIMS),
        ("arms in the same order in every chunk", RUNS, "(turn + step) % jobs", "step", LEDGER),
        ("p of one side", CURVES, "2 * min(below, above)", "min(below, above)", STATISTICS),
        ("Holm without its steps", CURVES, "np.arange(len(values), 0, -1)", "len(values)", STATISTICS),
        ("Holm that falls again", CURVES, "np.maximum.accumulate(values[order]", "(values[order]", STATISTICS),
        ("interval of 90 percent", CURVES, "[2.5, 97.5]", "[5, 95]", STATISTICS),
        ("interval with the sample in it", CURVES, "draws[1:][np.isfinite(draws[1:])]\n    low", "draws[np.isfinite(draws)]\n    low", STATISTICS),
        ("the dearest dial", CURVES, "np.where(qualifies, curve.rounds, np.inf).argmin(1)", "np.where(qualifies, curve.rounds, -np.inf).argmax(1)", STATISTICS),
        ("a dial two points under", CURVES, "TOLERANCE = 0.01", "TOLERANCE = 0.02", STATISTICS),
        ("a dial where none qualifies", CURVES, "cheapest[~qualifies.any(1)] = -1", "", STATISTICS),
        ("mean of ratios", CURVES, "weights @ numerator, below", "(weights @ (numerator / np.maximum(denominator, 1e-9))) * below, below", STATISTICS),
        ("AUP without its weight", CURVES, "np.exp(-3 * (1 - y / top))", "np.exp(-0 * (1 - y / top))", STATISTICS),
        ("calibration without the rule of three", CURVES, "max(share.high, min(1.0, 3 / float(clean.sum())))", "share.high", STATISTICS),
        ("two arms of one name", ARMS, "    check_arms(catalogue, reference=False)\n", "", LEDGER),
        ("an arm named twice", ARMS, '    require_different("arms", named or ())\n', "", LEDGER),
        # the ledger
        ("doubled lines", LINES, "        if prompt in kept:\n", "        if False:\n", LEDGER),
        ("foreign prompts", LINES, "(size is not None and prompt >= size)", "False", LEDGER),
        ("negative prompts", LINES, "            or prompt < 0\n", "", LEDGER),
        ("prompts that are text", LINES, "            not isinstance(prompt, int)\n            or isinstance(prompt, bool)\n", "            isinstance(prompt, bool)\n", LEDGER),
        ("prompts that are true", LINES, "            or isinstance(prompt, bool)\n", "", LEDGER),
        ("any split", LINES, "self.sizes.get(split, 0)", "self.sizes.get(split)", LEDGER),
        ("NaN figures", LINES, "or not low <= value <= high", "or value < low or value > high", LEDGER),
        ("infinite figures", LINES, "or not low <= value <= high", "or not low <= value", LEDGER),
        ("figures below nothing", LINES, "LEAST.get(name, 0)", "LEAST.get(name, -LARGEST)", LEDGER),
        ("a ledger without a header", LINES, "if not settings.keys() & self.header.keys():", "if False:", LEDGER),
        ("another header", LINES, "if settings.get(name) != json.loads(json.dumps(value)):", "if False:", LEDGER),
        ("half a line stays", LINES, "            file.truncate(self.whole)\n            file.seek(self.whole)\n", "            file.seek(0, 2)\n", LEDGER),
        ("lines of a chunk again", LINES, "            if prompt in known:\n                continue\n", "", LEDGER),
        ("a header before the first line", LINES, "        if path is not None and path.exists():\n            self._resume(path)\n", "        if path is not None and path.exists():\n            self._resume(path)\n        elif path is not None:\n            self._append('')\n", LEDGER),
        # traces
        ("a copied part", TRACE, "    _check_place(file, part, found)\n", "", TRACES),
        ("a part of another run", TRACE, 'if origin not in ("", ', 'if False and origin not in ("", ', TRACES),
        ("a header over old parts", HEADER, "if left := sorted(file.name for file in folder.glob(PARTS)):", "if left := []:", TRACES),
        ("any header goes on", HEADER, "if stored.get(key) != wanted[key]:", "if False:", TRACES),
        ("parts of any name", TRACE, "    if name is None:\n", "    if name is None:\n        return\n    if name is None:\n", TRACES),
        ("a part written in place", TRACE, "    with written_aside(file) as aside:\n", "    for aside in [file]:\n", TRACES),
        ("traces of another base", TRACE, "if base != denoiser.fingerprint():", "if False:", TRACES),
        ("judging writes a header", "train/traces/collection.py", "        refuse_header(folder, self._settings(", "        check_header(folder, self._settings(", COLLECTED + " -k judged_without"),
        ("dev metrics on train rows", "train/head/fit.py", 'if r["split"] == "dev" and r["task"] == t]', 'if r["split"] == "train" and r["task"] == t]', COLLECTED + " -k judged_on"),
        # what is written
        ("JSON in place", ASIDE, '    aside = file.with_name(f"{BEFORE}{file.name}{AFTER}")\n', "    aside = file\n", WRITTEN),
        ("what is left aside stays", LOCK, "            sweep(folder, LOCK)\n", "", SWEPT),
        ("what is left aside within stays", ASIDE, "        folders[:] = [name for name in folders if not name.startswith(\".\")]\n", "        folders.clear()\n", SWEPT),
        ("a folder in use is swept", ASIDE, "if lock in names and", "if False and", SWEPT),
        ("what fails is left aside", ASIDE, "        aside.unlink(missing_ok=True)\n", "", SWEPT),
        ("a code hash of the first floor", PROVENANCE, 'rglob("*.py")', 'glob("*.py")', WRITTEN),
        ("NaN in JSON", PROVENANCE, "allow_nan=allow_nan) + ", "allow_nan=True) + ", WRITTEN),
        ("stale shards stay", MANIFEST, "                file.unlink(missing_ok=True)\n", "                pass\n", PRETRAIN + " -k over_another"),
        ("a NaN step is taken", "train/base/base_model.py", "            if finite:\n", "            if True:\n", PRETRAIN + " -k gradient"),
        ("a finished run is resumed", "train/pretrain.py", "    if begun == 1:\n", "    if False:\n", PRETRAIN + " -k is_over"),
        ("a stop without a word", "train/pretrain.py", "    validation.stop.raise_if_asked()\n", "", PRETRAIN + " -k signal"),
        ("a signal loses the step", "train/base/validation.py", " or self.stop.asked)", ")", PRETRAIN + " -k signal"),
        # locks
        ("no lock", LOCK, "fcntl.flock(file, fcntl.LOCK_EX |", "fcntl.flock(file, fcntl.LOCK_SH |", HELD + " -k second_writer"),
        ("every rank locks", LOCK, "fcntl is not None and find_ranks().first", "fcntl is not None", HELD + " -k ranks"),
        ("one variable makes ranks", "models/ranks.py", "return all(os.environ.get(name)", "return any(os.environ.get(name)", COMMAND + " -k leftovers"),
        ("nobody is named", LOCK, "file.read().strip() or", "'' or", HELD + " -k second_writer"),
        ("a refused call leaves a folder", LOCK, "            one.rmdir()\n", "            pass\n", COMMAND + " -k no_folder"),
        ("a refused call takes old folders along", LOCK, "        if one == first_made:\n            return\n", "", COMMAND + " -k no_folder"),
        # command lines
        ("options saved before they are judged", LINE, "        try:\n            yield\n            keep_options()\n", "        try:\n            keep_options()\n            yield\n", COMMAND + " -k record"),
        ("options never saved", LINE, "            yield\n            keep_options()\n", "            yield\n", COMMAND + " -k record"),
        ("abbreviated options", SPELLING, "elif own in parameters or own in PARSERS_OWN:", "elif any(one.startswith(own) for one in (*parameters, *PARSERS_OWN)):", COMMAND + " -k abbreviated"),
        ("text read as YAML", LINE, "            action._typehint = str ", "            pass ", COMMAND + " -k text_is"),
        ("numbers saved without quotes", LINE, "if any(map(str.isdigit, text)) else None", "if False else None", COMMAND + " -k text_is"),
        ("Ctrl-C with exit 2", LINE, "raise SystemExit(stopped.exit_code) from None", "raise SystemExit(2) from None", COMMAND + " -k told_in_one_line"),
        ("letters end a terminal", LINE, '            stream.reconfigure(errors="backslashreplace")', "            pass", COMMAND + " -k fewer_letters"),
        ("the last of two options wins", RAW, 'raise ValueError(f"{name} must be given once, got it twice")', "pass", COMMAND + " -k given_twice"),
        ("half a letter", RAW, "        require_text(name, one)\n", "", COMMAND + " -k no_text"),
        ("launchers are believed", RAW, "    left = [f\"{name}={os.environ.pop(name)}\"", "    left = [f\"{name}={os.environ[name]}\"", COMMAND + " -k leftovers"),
        ("null in the place of a value", LINE, "    refuse_nulls(function, vars(namespace))\n", "", "tests/test_nulls.py"),
        ("null deep in a config", "train/commands/options/nulls.py", "    for kind in kinds:\n", "    for kind in ():\n", "tests/test_nulls.py"),
        ("a value uncut", "models/complaints.py", "        return cut(repr(value))\n", "        return repr(value)\n", "tests/test_complaints.py"),
        ("a message uncut", LINE, "return cut(text, LONGEST)", "return text", "tests/test_complaints.py"),
        ("a policy that is a number", "decoding/names.py", "    if not isinstance(name, str):\n", "    if False:\n", PROPERTIES + "/test_long_values.py"),
        ("one cache for all tasks", "train/commands/compare.py", "with_cache(arm, self.caches.get(task))", "with_cache(arm, None)", "tests/test_benchmark_commands.py -k caches"),
        ("a short file is scaled up to what was asked", "train/head/estimate.py", "    head_run, probed, share = as_held(head_run), {}", "    head_run, probed, share = head_run, {}", "tests/test_budgets.py -k short_file"),
        ("a bomb of aliases", RAW, "MOST_NODES = 100_000", "MOST_NODES = 10**18", COMMAND + " -k read_whole"),
        ("a key twice in a config", RAW, "        if twice is not None:\n", "        if False:\n", COMMAND + " -k read_whole"),
        ("a circle in a config", RAW, "    if known.get(id(node)) == 0:\n", "    if False:\n", COMMAND + " -k read_whole"),
        ("a second signal is ignored", SIGNALS, "        if self.asked:\n            raise Interrupted(number)\n", "", COMMAND + " -k gentle"),
        ("signals stay taken", SIGNALS, "            signal.signal(number, old)\n", "            pass\n", COMMAND + " -k gentle"),
        # files of others
        ("a byte-order mark is text", FILES, '"utf-8-sig"', '"utf-8"', OTHERS),
        ("Latin-1 passes", FILES, "            if found is not None:\n", "            if False:\n", OTHERS),
        ("false gz", FILES, "if packed and start and start != GZIP:", "if False:", OTHERS),
        ("gz by another name", FILES, "if not packed and start == GZIP:", "if False:", OTHERS),
        ("a key twice in a row", JSON, "    if len(known) < len(pairs):\n", "    if False:\n", OTHERS),
        ("NaN in a row", JSON, '"parse_constant": _refuse, ', "", OTHERS),
        ("half a letter in a row", TASK, "            require_text(name, getattr(example, name))\n", "            pass\n", OTHERS),
        ("null is a question", QUESTION, "else value not in (None, [], {})", "else value not in ([], {})", OTHERS),
        ("the instruction alone", QUESTION, '"\\n".join(dict.fromkeys(found.values()))', "next(iter(found.values()))", OTHERS),
        ("the input alone", QUESTION, "for name in (INSTRUCTION, *names) if name not in own", "for name in names if name not in own", OTHERS),
        ("no context", QUESTION, "    whole = [text for text in before if text not in asked] + [asked]\n", "    whole = [asked]\n", OTHERS),
        ("no options", QUESTION, "for one in listed[:1] for", "for one in listed[:0] for", OTHERS),
        ("two questions, one read", QUESTION, "    if len(set(main.values())) > 1:\n", "    if False:\n", OTHERS),
        ("parts left unread", QUESTION, "        if name in row and name not in readable and is_there(row, name):\n", "        if False:\n", OTHERS),
        ("puzzles read in part", TASK, "        refuse_parts(record, ())\n", "", OTHERS),
        ("what is not learned has rounds", "decoding/studies/trend.py", '["estimate"] >= SOLVED', '["estimate"] >= 0', "tests/train/trend -k not_learned"),
        # answers
        ("headings are answers", GSM8K, "if numbers(line) and not heads:", "if numbers(line):", ANSWERS + " -k gsm8k"),
        ("steps are answers", GSM8K, '    text = SECTION.sub("", text)\n', "", ANSWERS + " -k gsm8k"),
        ("a denied answer counts", GSM8K, 'return DENIED.sub("", UNIT_POWER.sub("", THOUSANDS.sub(",", text)))', 'return UNIT_POWER.sub("", THOUSANDS.sub(",", text))', ANSWERS + " -k gsm8k"),
        ("thin spaces part a number", GSM8K, 'THOUSANDS.sub(",", text)', "text", ANSWERS + " -k gsm8k"),
        ("any two numbers are one", "train/tasks/benchmarks/latex.py", '(?=\\d)", APART, text)', '(?=\\d)", "", text)', ANSWERS + " -k math500"),
        ("of two letters the denied one", MMLU, "if not NOT.search(text, both.end(), found.start())", "if True", ANSWERS + " -k mmlu"),
        ("the first term of a sum", GSM8K, "    if worked is not None and", "    if False and", ANSWERS + " -k gsm8k"),
        ("I is a letter", MMLU, "|(?<=I)\\s+(?!{AFTER_I})[a-z])", ")", ANSWERS + " -k mmlu"),
        ("A is a letter", MMLU, "|(?<=A)\\s+(?!{AFTER_A})[a-z]|", "|", ANSWERS + " -k mmlu"),
        ("what is taken back stays", MMLU, "return _taken_back(text[stated[-1].end() :]) or _only", "return _only", ANSWERS + " -k mmlu"),
        ("the first of two answers", MMLU, "_only(stated[-1], text)", "_only(stated[0], text)", ANSWERS + " -k mmlu"),
        ("no helpers", CODE, "[*helpers(main, [one for one in blocks if one not in with_head]), main]", "[main]", ANSWERS + " -k code"),
        ("fences with a bare language alone", CODE, '[ \\t]*[^`\\n]*\\n"', '[ \\t]*[\\w+-]*[ \\t]*\\n"', ANSWERS + " -k code"),
        ("futures stay where they are", CODE, "FUTURE.findall(text))) + FUTURE.sub", "FUTURE.findall(text)[:0])) + FUTURE.sub", ANSWERS + " -k code"),
        ("examples are run", CODE, "    if not tried:\n", "    if True:\n", ANSWERS + " -k code"),
        # saves and what is read back
        ("a fingerprint blind to names and shapes", SEALED, 'f"{name}{tuple(tensor.shape)}".encode() + ', "", "tests/models/checkpoints/test_fingerprint.py"),
        ("a fingerprint of the first values", SEALED, "values[:: -(-values.numel() // SAMPLE) or 1]", "values[:SAMPLE]", "tests/models/checkpoints"),
        ("the manifest moves first", MANIFEST, "        for name in names:\n", "        _move(aside / MANIFEST, folder / MANIFEST)\n        for name in names:\n", KILLED_SAVES),
        ("a save that was not whole is finished", MANIFEST, "    if not found:  # there is none", "    if not aside.is_dir():  # there is none", KILLED_SAVES),
        ("files are not compared", MANIFEST, "        if sha256(file) != wanted:\n", "        if False:\n", SAVES + " -k flipped"),
        ("absent files are not missed", MANIFEST, "        if not file.is_file():\n            raise CheckpointError(f\"{folder} must hold every", "        if not file.is_file():\n            continue\n            raise CheckpointError(f\"{folder} must hold every", SAVES + " -k gone"),
        ("a damaged manifest is no manifest", MANIFEST, "        if not _is_sound(content):\n", "        if not _is_sound(content):\n            return {}\n        if not _is_sound(content):\n", SAVES + " -k none_is_refused"),
        ("a manifest of another tool is damaged", MANIFEST, "        if not _is_ours(content):\n            return {}\n", "", SAVES + " -k another_tool"),
        ("numbers without end", JSON, "return value if math.isfinite(value) else _refuse(text)", "return value", STRICT),
        ("nesting without end", JSON, "    except RecursionError:\n", "    except ZeroDivisionError:\n", STRICT),
        ("half a line is a line", JSON, '.split(b"\\n")[:-1]', '.split(b"\\n")', STRICT),
        ("half a line stays there", JSON, "                stream.truncate(whole)\n", "                pass\n", STRICT),
        ("lines that are no objects", JSON, "        if not isinstance(one, dict):\n", "        if False:\n", STRICT),
        ("damaged pages are read", TRACE, "page_checksum_verification=True", "page_checksum_verification=False", TRACES + " -k flipped"),
        ("pages without checksums", TRACE, "write_page_checksum=True", "write_page_checksum=False", TRACES + " -k flipped"),
        ("two writers of one file", LOCK, "fcntl.flock(opened, fcntl.LOCK_EX", "fcntl.flock(opened, fcntl.LOCK_SH", BULK + " -k second_writer"),
        ("answers without counts", "train/commands/answering/lines.py", "    if wrong or not isinstance(line.get", "    if not isinstance(line.get", BULK + " -k other_lines"),
        ("a promise of other kinds", "decoding/comparison/calibration.py", "            _require_kinds({**asdict(conditions), **values})\n", "", PROMISES + " -k kinds"),
        ("a resume file with other bytes", "train/base/going_on.py", "        if damaged is not None:\n", "        if False:\n", PRETRAIN + " -k resume_file"),
        ("a chat template breaks", "models/checkpoints/tokenizer.py", "    except Exception as error:  # a template is a program: it raises what it likes\n", "    except ZeroDivisionError as error:\n", "tests/models/checkpoints/test_tokenizer.py -k template"),
        # rules
        ("below the threshold", RULES, "(reading.confidence >= threshold)", "(reading.confidence >= threshold - 0.2)", PLAIN),
        ("nothing is forced", RULES, " + forced * int(Reason.FORCED)", "", PLAIN),
        ("more than one is forced", RULES, "best(score, reading.rows) & ~accepted", "reading.rows & ~accepted", PLAIN),
        ("the highest entropy", THRESHOLD, "        return -reading.entropy", "        return reading.entropy", PLAIN),
        ("factor of m", BOUNDS, "(place + 1) * reading.log_risk.exp()", "place * reading.log_risk.exp()", BOUNDED),
        ("risks without their own", BOUNDS, "return sum_before(value, order, within) + value", "return sum_before(value, order, within)", BOUNDED),
        ("the largest entropy counts", BOUNDS, "return sum_before(reading.entropy,", "return prefix_sum(reading.entropy,", BOUNDED),
        ("tokens behind an EOS", COMMIT, "tokens=state.tokens.masked_fill(past, state.layout.eos_id)", "tokens=state.tokens", STATES),
        ("an EOS behind a mask ends", COMMIT, "& ~state.masked & no_mask_before", "& ~state.masked", STATES),
        ("a prompt's EOS ends", COMMIT, "(state.block >= 0) & ~state.masked & no", "~state.masked & no", STATES),
        ("drafts are judged by foretold readings", VERIFIED, "replace(before, **recent), reading", "before, reading", CHECKED),
        ("the two readings before change places", VERIFIED, "[v[:, 1:-1], v[:, :-2]]", "[v[:, :-2], v[:, 1:-1]]", CHECKED),
        ("a draft on top of a failed one", VERIFIED, "failed.long().cumsum(-1) == 0", "~failed", CHECKED),
        ("a draft that nobody read comes true", VERIFIED, "~live[:, 1:] | (after.tokens", "(after.tokens", CHECKED),
        ("drafts of the round that reads them", VERIFIED, "states, round=states.round + 1)", "states)", CHECKED),
        ("figures of the rule's head go unnoticed", VERIFIED, "looks), broken=broken)", "looks))", "tests/models/test_sound_files.py -k overflow"),
        ("what nobody sums is summed", BOUNDS, "value.masked_fill(~within, 0.0).unsqueeze(-2)", "value.unsqueeze(-2)", BOUNDED),
        ("contexts without a cache", "models/engine/plan.py", 'if mode == "none":', "if False:", "tests/models/engine/test_plan.py"),
        ("another canvas for the first", COMMIT, "proposal.reason[:, 0], confidence)", "proposal.reason[:, -1], confidence)", STATES),
        ("the clock stands", COMMIT, "spent = state.spent + 1", "spent = state.spent", STATES),
    )
)  # fmt: skip
