"""Utterances with slots and intents; questions on a text with their answers in it."""

import csv
import json
import re
from dataclasses import dataclass
from itertools import zip_longest

from .. import data
from .fetch import BUNDLED, DataValueError, choose, find, found


@dataclass(frozen=True, eq=False)
class Utterances:
    """Commands: four lists of equal length. words: list of str; labels: list of BIO labels, one a word; intents: str;
    kind: of a test utterance, "seen", "new value" or "new phrase", "" where that is not known."""

    words: list
    labels: list
    intents: list
    kind: list

    def __len__(self):
        return len(self.words)


@dataclass(frozen=True, eq=False)
class Squad:
    """Questions on paragraphs. contexts: the paragraphs; questions, where, answers: lists of equal length: a question, the
    row of its paragraph in `contexts`, and its answers, each (text, offset): contexts[where[k]][offset:offset + len(text)]."""

    contexts: list
    questions: list
    where: list
    answers: list

    def __len__(self):
        return len(self.questions)


def utterances(source=BUNDLED, split="train"):
    """Spoken commands as `Utterances`.

    source: "bundled": 2,000 / 400 / 600 commands of our own in English and Russian, 6 intents, 17 slot types; "snips": SNIPS
        voice commands, 13,084 / 700 / 700 utterances, 7 intents, 39 slot types. split: "train", "valid" or "test".
    Raises ValueError for another source or split, or a malformed line (named); DataError if the data cannot be had.
    """
    choose(source, (BUNDLED, "snips"))
    choose(split, ("train", "valid", "test"), "split")
    if source == BUNDLED:
        return _bracketed(data.DATA / "utterances.csv", split)
    seq_in = find(source, f"{split}/seq.in", _commands)
    return _commands(seq_in, find(source, f"{split}/seq.out"), find(source, f"{split}/label"))


def _bracketed(path, split):
    """The utterances of a split from lines whose slots stand in brackets: "wake me at [time seven]"."""
    with open(path, encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == split]
    words, labels = [], []
    for row in rows:
        parts = [p.split() for p in re.findall(r"\[[^]]+\]|[^\[\s]+", row["text"])]
        parts = [(p[1:-1] + [p[-1][:-1]], [f"B-{p[0][1:]}"] + [f"I-{p[0][1:]}"] * (len(p) - 2)) if p[0][0] == "[" else (p, ["O"])
                 for p in parts]
        words.append([word for part, _ in parts for word in part])
        labels.append([label for _, part in parts for label in part])
    return Utterances(words, labels, [row["intent"] for row in rows], [row["kind"] for row in rows])


def _commands(seq_in, seq_out=None, label=None):
    """The utterances of three files of one folder; ValueError names a malformed line."""
    files = seq_in, seq_out or seq_in.with_name("seq.out"), label or seq_in.with_name("label")
    words, labels, intents = ([line.split() for line in path.read_text(encoding="utf-8").splitlines()] for path in files)
    for number, (w, y, intent) in enumerate(zip_longest(words, labels, intents, fillvalue=()), 1):
        if not (0 < len(w) == len(y) and len(intent) == 1 and all(x == "O" or x[:2] in ("B-", "I-") for x in y)):
            raise DataValueError(f"{seq_in}, line {number}: expected as many words as BIO labels in seq.out and one intent in "
                                 f"label, got {len(w)}, {len(y)} and {len(intent)}: {' '.join(w)[:80]!r}, {' '.join(y)[:80]!r}")
    return Utterances(words, labels, [intent for [intent] in intents], [""] * len(words))


def squad(source="article"):
    """SQuAD 1.1, questions whose answers are spans of a paragraph of Wikipedia, as `Squad`.

    source: "article": the first article of the development set, 54 paragraphs, 810 questions; "dev", "train": whole sets.
    Raises ValueError for another source, or an answer whose offset does not match its text; DataError if the data cannot be had.
    """
    choose(source, ("article", "dev", "train"))
    name = "squad-dev" if source == "article" and not found("squad-article") else f"squad-{source}"
    [file] = data.SOURCES[name].checksums
    return _questions(find(name, file, _questions), 1 if source == "article" else None)


def _questions(path, n_articles=None):
    """The questions of the first articles of a file; ValueError names a question whose answer is not where it should be."""
    contexts, questions, where, answers = [], [], [], []
    articles = json.loads(path.read_text(encoding="utf-8"))["data"][:n_articles]
    for paragraph in (p for article in articles for p in article["paragraphs"]):
        contexts.append(paragraph["context"])
        for asked in paragraph["qas"]:
            spans = [(answer["text"], answer["answer_start"]) for answer in asked["answers"]]
            for text, start in spans:
                if not text or contexts[-1][start:start + len(text)] != text:
                    raise DataValueError(f"{path}, question {asked['id']}: the answer {text!r} does not stand at offset {start}")
            questions.append(asked["question"])
            where.append(len(contexts) - 1)
            answers.append(spans)
    return Squad(contexts, questions, where, answers)
