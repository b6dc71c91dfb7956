"""Question answering: windows, labels, decoding, scores, and one run from the command line."""

import itertools
import json
import random
import warnings

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict
from transformers import AutoTokenizer, BertForQuestionAnswering

import ftkit
from ftkit.cli.main import main
from ftkit.data.batches import collate
from ftkit.metrics.squad import answer_f1, exact_match
from ftkit.tasks import find_task, task_from_dict
from ftkit.tasks.answers.references import answer_pairs
from ftkit.tasks.answers.spans import Question, best_answers, span_scores, window_loss
from ftkit.tasks.answers.windows import CutAnswerWarning, token_span
from tests.conftest import ADJECTIVES, NOUNS, message, tiny_config

WORDS = [word for words in ADJECTIVES.values() for word in words]


def make_row(noun: str, word: str, number: int = 0) -> dict:
    """Return a question about one of three sentences."""
    others = [n for n in NOUNS if n != noun][number % 3 :][:2]
    parts = [f"the {others[0]} was {WORDS[number % 8]}", f"the {noun} was {word}"]
    parts = (parts if number % 2 else parts[::-1]) + [f"the {others[1]} was today"]
    context = " ".join(parts)
    start = context.index(f"{noun} was {word}") + len(f"{noun} was ")
    return {
        "id": f"q{number}",
        "question": f"the {noun} was",
        "context": context,
        "answers": {"text": [word], "answer_start": [start]},
    }


def make_rows(numbers: range) -> list[dict]:
    return [make_row(NOUNS[i % len(NOUNS)], WORDS[i % 7 + i % 2], i) for i in numbers]


def table(rows: list[dict], **columns: list) -> DatasetDict:
    """Return one train split of rows, with some columns replaced."""
    values = {name: [row[name] for row in rows] for name in rows[0]}
    return DatasetDict({"train": Dataset.from_dict({**values, **columns})})


def one(question: str, context: str, answer: str, start: int | None = None) -> DatasetDict:
    """Return a split of one question."""
    start = context.index(answer) if start is None else start
    answers = {"text": [answer], "answer_start": [start]}
    return table([{"question": question, "context": context, "answers": answers}])


def random_logits(lengths: list[int], seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(2, n)).astype(np.float32) for n in lengths]


@pytest.fixture(scope="session")
def task() -> ftkit.QuestionAnswering:
    return ftkit.QuestionAnswering(max_length=16, stride=4)


@pytest.fixture
def splits() -> DatasetDict:
    ranges = {"train": range(48), "validation": range(48, 60), "test": range(60, 72)}
    return DatasetDict({name: table(make_rows(r))["train"] for name, r in ranges.items()})


@pytest.fixture
def model() -> BertForQuestionAnswering:
    torch.manual_seed(0)
    return BertForQuestionAnswering(tiny_config()).eval()


def test_one_row_is_encoded_as_by_hand(tokenizer):
    task = ftkit.QuestionAnswering(max_length=32, stride=8)
    context = "the room was cold the soup was lovely today"
    row = task.encode(one("the soup was", context, "lovely today"), tokenizer)["train"][0]
    tokens = tokenizer.convert_ids_to_tokens(row["input_ids"])
    assert tokens == f"[CLS] the soup was [SEP] {context} [SEP]".split()
    assert row["token_type_ids"] == [0] * 5 + [1] * 10
    assert (row["start_positions"], row["end_positions"]) == (12, 13)
    assert row["offsets"][:5] == [[0, 0]] * 5
    assert row["offsets"][5:8] == [[0, 3], [4, 8], [9, 12]]
    assert row["offsets"][-1] == [0, 0]
    assert row["answers"] == ["lovely today"]
    assert row["context"] == context


def test_every_label_points_at_its_answer_or_at_cls(splits, task, tokenizer):
    encoded = task.encode(splits, tokenizer)["train"]
    held = set()
    for row in encoded:
        answer = splits["train"][row["question_index"]]["answers"]["text"][0]
        first, last = row["start_positions"], row["end_positions"]
        if (first, last) == (0, 0):
            assert answer not in row["context"][row["offsets"][5][0] : row["offsets"][-2][1]] or (
                row["context"].count(answer) > 1
            )
            continue
        held.add(row["question_index"])
        assert row["context"][row["offsets"][first][0] : row["offsets"][last][1]] == answer
        assert tokenizer.decode(row["input_ids"][first : last + 1]) == answer
    assert held == set(range(48))


def test_windows_overlap_by_the_stride_and_hold_the_whole_context(tokenizer):
    task = ftkit.QuestionAnswering(max_length=12, stride=3)
    context = " ".join(NOUNS + tuple(WORDS))
    encoded = task.encode(one("the soup", context, "train cake"), tokenizer)["train"]
    windows = [
        [tuple(pair) for pair in offsets if pair != [0, 0]] for offsets in encoded["offsets"]
    ]
    assert all(len(ids) <= 12 for ids in encoded["input_ids"])
    for before, after in itertools.pairwise(windows):
        assert before[-3:] == after[:3]
    assert sorted({pair for window in windows for pair in window}) == [
        (context.index(word), context.index(word) + len(word)) for word in context.split()
    ]
    assert set(encoded["question_index"]) == {0}
    n_held = sum(start > 0 for start in encoded["start_positions"])
    assert 1 <= n_held < len(windows)


def test_a_word_in_pieces_is_labelled_from_its_first_piece_to_its_last(tokenizer):
    context = "the room was zorb today"
    row = ftkit.QuestionAnswering(max_length=32, stride=8).encode(
        one("the room", context, "zorb"), tokenizer
    )["train"][0]
    span = slice(row["start_positions"], row["end_positions"] + 1)
    assert tokenizer.convert_ids_to_tokens(row["input_ids"])[span] == ["z", "##o", "##r", "##b"]


def test_spaces_around_an_answer_do_not_count(task, tokenizer):
    context = "the room was cold today"
    plain, wide = (
        task.encode(one("the room was", context, a), tokenizer)["train"][0]
        for a in ("cold", " cold ")
    )
    assert plain["start_positions"] == wide["start_positions"] > 0
    assert plain["end_positions"] == wide["end_positions"]


def test_token_span_outside_and_at_the_edges():
    offsets = [(0, 0), (0, 0), (10, 13), (14, 18), (18, 20), (0, 0)]
    assert token_span(offsets, 10, 13) == (2, 2)
    assert token_span(offsets, 14, 20) == (3, 4)
    assert token_span(offsets, 15, 16) == (3, 3)  # a part of a token
    assert token_span(offsets, 8, 13) is None
    assert token_span(offsets, 18, 22) is None
    assert token_span(offsets, 13, 14) is None  # a space belongs to no token
    assert token_span([(0, 0)], 0, 1) is None


def test_an_answer_that_no_window_holds_is_warned_of(tokenizer):
    task = ftkit.QuestionAnswering(max_length=12, stride=2)
    context = " ".join(NOUNS + tuple(WORDS))
    long = " ".join(NOUNS[1:9])
    with pytest.warns(CutAnswerWarning) as caught:
        task.encode(one("the soup was", context, long), tokenizer)
    assert str(caught[0].message) == (
        '1 of 1 answers of "train" are whole in no window (the first: split "train", index 0), so '
        "nothing teaches them. Choose a larger stride or max_length."
    )


def test_a_question_that_leaves_no_room_is_named(task, tokenizer):
    expected = (
        "the question has 11 tokens; expected at most 8, so that windows of 16 tokens that share "
        "4 have room for the context."
    )
    question, context = " ".join(["soup"] * 11), "the soup was cold"
    splits = one(question, context, "cold")
    assert message(task.encode, splits, tokenizer) == f'split "train", index 0: {expected}'
    assert message(task.encode_texts, [(question, context)], tokenizer) == f"text 1: {expected}"


def test_a_lower_limit_of_the_tokenizer_shrinks_window_and_stride(tokenizer):
    task = ftkit.QuestionAnswering()  # 384 and 128; the tokenizer takes 64
    context = " ".join([*NOUNS, *WORDS] * 5)
    encoded = task.encode(one("the soup was", context, "train cake"), tokenizer)["train"]
    assert len(encoded["input_ids"][0]) == 64
    inside = [pair for pair in encoded["offsets"][0] if pair != [0, 0]]
    assert encoded["offsets"][1][5] == inside[-21]


def test_a_slow_tokenizer_is_refused(task, tokenizer):
    class Slow:
        is_fast = False
        model_max_length = 64
        num_special_tokens_to_add = tokenizer.num_special_tokens_to_add
        __call__ = staticmethod(tokenizer.__call__)

    splits = one("the soup was", "the soup was cold", "cold")
    assert message(task.encode, splits, Slow()) == (
        "Slow does not say where its tokens stand in the text; expected a fast tokenizer."
    )


@pytest.mark.parametrize(
    ("answers", "problem"),
    [
        ({"text": ["cold"], "answer_start": [12]}, '"cold" does not stand at character 12, where '
         '" col" stands; it stands at 13'),
        ({"text": ["warm"], "answer_start": [13]}, '"warm" does not stand at character 13, where '
         '"cold" stands; it stands nowhere in the context'),
        ({"text": ["cold"], "answer_start": [-5]}, '"cold" does not stand at character -5, where '
         '"" stands; it stands at 13'),
        ({"text": [" "], "answer_start": [3]}, "holds an empty answer; expected text"),
        ({"text": [], "answer_start": []}, "holds no answer; expected one or more"),
        ({"text": ["cold", "today"], "answer_start": [13]}, "is {'text': ['cold', 'today'], "
         "'answer_start': [13]}; expected lists of text and answer_start"),
        ("cold", "is cold; expected lists of text and answer_start"),
        (None, "is None; expected lists of text and answer_start"),
    ],
)  # fmt: skip
def test_bad_answers_are_named_with_their_question(task, answers, problem):
    row = {"id": "q7", "question": "what?", "context": "the room was cold", "answers": answers}
    assert message(task.check, table([row])) == (
        f'split "train", index 0, question q7: "answers" {problem}.'
    )


def test_all_problems_of_a_file_come_in_one_message(task):
    rows = make_rows(range(4))
    rows[1]["answers"]["answer_start"] = [0]
    rows[3]["answers"] = {"text": [], "answer_start": []}
    splits = table(rows, row=[f"a.json, question q{i}" for i in range(4)])
    lines = message(task.check, splits).splitlines()
    assert [line.split(":")[0] for line in lines] == ["a.json, question q1", "a.json, question q3"]
    without = DatasetDict({"train": splits["train"].remove_columns("answers")})
    assert "no column" in message(task.check, without)


def test_answers_may_be_a_list_of_pairs(task, tokenizer):
    rows = make_rows(range(3))
    pairs = [[{"text": t, "answer_start": s} for t, s in answer_pairs(r["answers"])] for r in rows]
    expected = task.encode(table(rows), tokenizer)["train"]
    found = task.encode(table(rows, answers=pairs), tokenizer)["train"]
    assert found["start_positions"] == expected["start_positions"]
    assert found["answers"] == expected["answers"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"max_length": 64, "stride": 64}, "stride is 64; expected 0 to 63."),
        ({"stride": -1}, "stride is -1; expected 0 to 383."),
        ({"max_answer_tokens": 0}, "max_answer_tokens is 0; expected 1 or more."),
    ],
)
def test_impossible_tasks(options, expected):
    assert message(ftkit.QuestionAnswering, **options) == expected


def test_the_task_is_recognised_inferred_and_remembered(splits):
    assert find_task(None, splits) is ftkit.QuestionAnswering
    task = ftkit.QuestionAnswering.infer(splits)
    assert task == ftkit.QuestionAnswering()
    assert task.describe() == "question, context → answers"
    assert task_from_dict(json.loads(json.dumps(task.to_dict()))) == task
    renamed = splits.rename_columns({"question": "ask", "answers": "replies"})
    task = ftkit.QuestionAnswering.infer(renamed, ["ask", "context"], "replies")
    assert task.given_columns == ("ask", "context")
    task.check(renamed)
    infer = ftkit.QuestionAnswering.infer
    assert message(infer, renamed, ["ask", "context"]).startswith(
        'train: no column "answers".'
    ) or ('no column "answers"' in message(infer, renamed, ["ask", "context"]))
    assert message(infer, splits, ["context"]) == (
        "--text-columns is context; expected question and context."
    )


def usual_best(question: Question, logits: list[np.ndarray], limit: int) -> tuple[str, float]:
    """Return the best span, found by three plain loops."""
    best = ("", -np.inf)
    for one_logits, offsets in zip(logits, question.offsets, strict=True):
        n = len(offsets)
        for s in range(n):
            for e in range(s, min(s + limit, n)):
                inside = offsets[s][0] < offsets[s][1] and offsets[e][0] < offsets[e][1]
                score = float(one_logits[0, s]) + float(one_logits[1, e])
                if inside and score > best[1]:
                    best = (question.context[offsets[s][0] : offsets[e][1]], score)
    return best


@pytest.mark.parametrize("limit", [1, 3, 30])
def test_decoding_equals_three_plain_loops(splits, tokenizer, limit):
    task = ftkit.QuestionAnswering(max_length=14, stride=3, max_answer_tokens=limit)
    encoded = task.encode(splits, tokenizer)["train"]
    questions = task.references(encoded)
    outputs = random_logits(ftkit.data.row_lengths(encoded))
    assert sum(len(q.windows) for q in questions) == len(encoded) > len(questions) == 48
    for question in questions:
        logits = [outputs[i] for i in question.windows]
        text, score = usual_best(question, logits, limit)
        best = task.best(outputs, question)
        assert (best.text, best.score) == (text, pytest.approx(score))
        many = best_answers(question, logits, n_best=5, max_answer_tokens=limit)
        assert many[0] == best
        assert [a.score for a in many] == sorted((a.score for a in many), reverse=True)
        assert len({(a.start, a.text) for a in many}) == 5


def test_probabilities_of_all_spans_add_up_to_one():
    offsets = np.array([[0, 0], [0, 1], [2, 3], [4, 5], [0, 0]])
    question = Question("a b c", (), (0,), (offsets,), ())
    answers = best_answers(question, random_logits([5]), n_best=99)
    assert {a.text for a in answers} == {"a", "b", "c", "a b", "b c", "a b c"}
    assert sum(a.probability for a in answers) == pytest.approx(1)
    assert all(question.context[a.start :].startswith(a.text) for a in answers)


def test_no_span_in_the_question_however_high_its_logits():
    offsets = np.array([[0, 0], [0, 0], [0, 0], [0, 3], [0, 0]])
    logits = np.array([[9.0, 9, 9, -9, 9], [9, 9, 9, -9, 9]])
    question = Question("the", (), (0,), (offsets,), ())
    assert [a.text for a in best_answers(question, [logits], n_best=4)] == ["the"]
    assert best_answers(Question("", (), (0,), (offsets[:3],), ()), [logits[:, :3]]) == []
    assert span_scores(logits, offsets, 2).shape == (5, 2)


def test_metrics_equal_the_definition_question_by_question(splits, task, tokenizer):
    encoded = task.encode(splits, tokenizer)["train"]
    outputs, questions = random_logits(ftkit.data.row_lengths(encoded)), task.references(encoded)
    answers = [task.best(outputs, question).text for question in questions]
    wanted = [splits["train"][i]["answers"]["text"] for i in range(48)]
    statistics = task.row_statistics(outputs, questions)
    metrics = {n: float(value) for n, value in task.metrics(statistics.sum(axis=0)).items()}
    pairs = list(zip(answers, wanted, strict=True))
    assert metrics["exact_match"] == pytest.approx(np.mean([exact_match(*p) for p in pairs]))
    assert metrics["f1"] == pytest.approx(np.mean([answer_f1(*p) for p in pairs]))
    assert task.is_correct(statistics).tolist() == [exact_match(*pair) == 1 for pair in pairs]


def test_reports_with_other_windows_compare_and_those_of_other_questions_do_not(
    splits, task, tokenizer, model
):
    narrow = ftkit.QuestionAnswering(max_length=14, stride=3)
    one, other = (
        ftkit.evaluate(model, t.encode(splits, tokenizer)["test"], t, n_resamples=0)
        for t in (task, narrow)
    )
    change = ftkit.compare(one, other)
    assert change.differences["f1"] == other.metrics["f1"] - one.metrics["f1"]
    few = task.encode(DatasetDict({"test": splits["test"].select(range(1, 3))}), tokenizer)["test"]
    more = task.encode(DatasetDict({"test": splits["test"].select(range(2))}), tokenizer)["test"]
    reports = [ftkit.evaluate(model, rows, task, n_resamples=0) for rows in (few, more)]
    with pytest.raises(ftkit.FtkitError, match=r"^The reports are of other rows \(2 and 2\)"):
        ftkit.compare(*reports)


def test_the_loss_is_that_of_the_model(splits, task, tokenizer, model):
    encoded = task.encode(splits, tokenizer)["validation"]
    losses = []
    for i in range(len(encoded)):
        batch = collate(encoded, [i])
        with torch.inference_mode():
            losses.append(model(**batch).loss.item())
        (logits,) = task.outputs(model, batch)
        places = encoded[i]["start_positions"], encoded[i]["end_positions"]
        assert window_loss(logits, places) == pytest.approx(losses[-1], rel=1e-5)
    report = ftkit.evaluate(model, encoded, task, bf16=False)
    assert report.metrics["loss"] == pytest.approx(np.mean(losses), rel=1e-4)
    assert len(report.is_correct) == 12
    assert set(report.intervals) == {"exact_match", "f1", "loss"}
    assert report.to_dict()["rows"] == 12


def test_outputs_leave_the_padding_out(splits, task, tokenizer, model):
    encoded = task.encode(splits, tokenizer)["train"]
    found = ftkit.predict(model, encoded, task, bf16=False)
    lengths = ftkit.data.row_lengths(encoded)
    assert [tuple(row.shape) for row in found] == [(2, length) for length in lengths]
    alone = task.outputs(model, collate(encoded, [3]))[0]
    np.testing.assert_allclose(found[3], alone, atol=1e-5)


def test_training_learns_and_a_saved_model_answers_alike(
    splits, task, tokenizer, checkpoint, tmp_path
):
    _, model = ftkit.load_pretrained(checkpoint, task)
    assert isinstance(model, BertForQuestionAnswering)
    encoded = task.encode(splits, tokenizer)
    config = ftkit.TrainingConfig(learning_rate=2e-3, num_train_epochs=6, batch_size=8)
    history = ftkit.train(model, encoded, task, config)
    assert history.evaluations[-1]["loss"] < history.evaluations[0]["loss"]
    assert set(history.evaluations[0]) == {"exact_match", "f1", "loss"}
    ftkit.save_pretrained(tmp_path / "model", model, tokenizer, task)
    saved, tokenizer, again = ftkit.load_saved(tmp_path / "model")
    assert saved == task
    rows = [(row["question"], row["context"]) for row in splits["test"]]
    texts = [m_task.decode(ftkit.predict(m, m_task.encode_texts(rows, tokenizer), m_task),
                         m_task.encode_texts(rows, tokenizer), tokenizer)
             for m_task, m in ((task, model), (saved, again))]  # fmt: skip
    assert texts[0] == texts[1]
    assert len(texts[0]) == len(rows)
    report = ftkit.evaluate(again, encoded["test"], task)
    assert [task.best(report.outputs, q).text for q in report.references] == [
        answer for answer, _ in texts[0]
    ]


def test_pairs_must_come_in_twos(task, tokenizer):
    assert message(task.encode_texts, [["one"]], tokenizer) == (
        "text 1: 1 texts came; expected 2 (question, context)."
    )


def squad_file(rows: list[dict]) -> str:
    """Return rows in the official form."""
    entries = []
    for row in rows:
        answers = [{"text": t, "answer_start": s} for t, s in answer_pairs(row["answers"])]
        item = {"id": row["id"], "question": row["question"], "answers": answers}
        entries.append({"context": row["context"], "qas": [item]})
    return json.dumps({"version": "1.1", "data": [{"title": "t", "paragraphs": entries}]})


def test_one_file_is_split_by_context(tmp_path):
    path = tmp_path / "all.json"
    rows = make_rows(range(40))
    twice = [{**row, "question": ask + row["question"]} for row in rows for ask in ("", "Well, ")]
    path.write_text(squad_file(twice), encoding="utf-8")
    splits = ftkit.load_splits(path)
    assert sum(len(split) for split in splits.values()) == 80
    contexts = [set(split["context"]) for split in splits.values()]
    assert len(set.union(*contexts)) == sum(map(len, contexts)) == len({r["context"] for r in rows})


def test_from_the_command_line(checkpoint, tmp_path, capsys):
    data = tmp_path / "data"
    data.mkdir()
    parts = {"train": range(40), "validation": range(40, 52), "test": range(52, 64)}
    for name, numbers in parts.items():
        (data / f"{name}.json").write_text(squad_file(make_rows(numbers)), encoding="utf-8")
    output = str(tmp_path / "out")
    options = ["--num-train-epochs=1", "--learning-rate=1e-3", "--batch-size=8"]
    source = ["--data", str(data)]
    train = ["train", *source, "--checkpoint", str(checkpoint), "--output", output, *options]
    assert main(train) == 0
    printed = capsys.readouterr().out
    assert "40 train, 12 validation, 12 test rows; question, context → answers" in printed
    assert "validation f1 0." in printed
    assert main(["evaluate", output, *source, "--json", str(tmp_path / "scores.json")]) == 0
    assert "exact_match" in capsys.readouterr().out
    scores = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
    assert scores["rows"] == 12
    assert 0 <= scores["exact_match"] <= scores["f1"] <= 1
    asked = ["the soup was", "the soup was cold today", "the room was", "the room was fine"]
    assert main(["predict", output, *asked]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [line[2:] for line in lines] == [asked[:2], asked[2:]]
    for answer, probability, _, context in lines:
        assert answer in context
        assert 0 < float(probability) <= 1
    bad = json.loads((data / "test.json").read_text(encoding="utf-8"))
    bad["data"][0]["paragraphs"][0]["qas"][0]["answers"][0]["answer_start"] += 1
    (data / "test.json").write_text(json.dumps(bad), encoding="utf-8")
    assert main(["evaluate", output, *source]) == 2
    assert "question q52" in capsys.readouterr().err


@pytest.mark.parametrize("seed", range(3))
def test_random_contexts_lose_no_answer(tokenizer, seed):
    """Whatever the lengths: an answer of at most `stride` tokens is whole in some window."""
    rng = random.Random(seed)
    rows = []
    for _ in range(40):
        words = rng.choices([*NOUNS, *WORDS, "zq", "the"], k=rng.randint(1, 60))
        first = rng.randrange(len(words))
        length = rng.randint(1, min(3, len(words) - first))
        answer = " ".join(words[first : first + length])
        start = len(" ".join([*words[:first], ""])) if first else 0
        answers = {"text": [answer], "answer_start": [start]}
        question = f"{rng.choice(NOUNS)} was"
        rows.append({"question": question, "context": " ".join(words), "answers": answers})
    task = ftkit.QuestionAnswering(max_length=20, stride=6)
    with warnings.catch_warnings():
        warnings.simplefilter("error", CutAnswerWarning)
        encoded = task.encode(table(rows), tokenizer)["train"]
    for row in encoded:
        first, last = row["start_positions"], row["end_positions"]
        if first:
            found = row["context"][row["offsets"][first][0] : row["offsets"][last][1]]
            assert found == rows[row["question_index"]]["answers"]["text"][0]


def test_a_real_tokenizer_labels_the_bundled_questions():
    task = ftkit.QuestionAnswering(max_length=96, stride=32)
    tokenizer = AutoTokenizer.from_pretrained(ftkit.models.locate("minilm"))
    splits = ftkit.load_splits("questions")
    encoded = task.encode(splits, tokenizer)
    for name, split in splits.items():
        held = set()
        for row in encoded[name]:
            first, last = row["start_positions"], row["end_positions"]
            if first:
                held.add(row["question_index"])
                begin, end = row["offsets"][first][0], row["offsets"][last][1]
                assert row["context"][begin:end] == row["answers"][0]
        assert held == set(range(len(split)))
