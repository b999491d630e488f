"""The course's words and letters: glossary, calques, notation, the map, the official questions."""

import csv
import re

import pytest

from tests.book import ROOT, books
from tools import notation

BOOKS = books()
WRITTEN = {b.number for b in BOOKS}


def rows(name):
    with open(ROOT / "data" / name, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


GLOSSARY, MAP, NOTATION, QUESTIONS = map(rows, ("glossary.csv", "course_map.csv", "notation.csv", "questions.csv"))
PLANNED = {row["no"] for row in MAP}

# Terms that an exam asks for: English term of the glossary, what its Russian must contain.
REQUIRED = {
    "loss function": "функция потерь", "content loss": "контентная компонента функции потерь", "style loss": "стилевая компонента функции потерь",
    "perceptual loss": "перцептивная функция потерь", "super-resolution": "повышение разрешения",
    "ill-posed problem": "некорректно поставленная задача", "encoder": "кодировщик", "decoder": "декодировщик",
    "variational autoencoder (VAE)": "вариационный автокодировщик", "normal distribution": "нормальное распределение",
    "expectation": "математическое ожидание", "sample (one draw from a distribution or a model)": "сэмпл",
    "evidence lower bound (ELBO)": "вариационная нижняя оценка", "reparametrisation trick": "трюк репараметризации",
    "normalizing flow": "нормализационный поток", "Jacobian matrix": "матрица Якоби",
    "Jacobian determinant": "якобиан (определитель матрицы Якоби)", "word error rate (WER)": "частота ошибок по словам",
    "character error rate (CER)": "частота ошибок по символам", "adjusted cosine": "скорректированное косинусное сходство",
    "item": "объект", "rating": "рейтинг", "latent factor model (LFM)": "модель со скрытыми переменными", "objective": "функционал",
    "mean squared error (MSE)": "среднеквадратичная ошибка", "cold start": "холодный старт", "training set": "обучающая выборка",
    "epsilon-greedy strategy": "ε-жадная стратегия", "vanishing gradient": "затухание градиента", "mel spectrogram": "мел-спектрограмма",
}

# Wrong word (whole words, any case) and the right one. What cannot be decided by a pattern is for human eyes.
LOST = "информации|точности|качества|данных|сигнала|общности|памяти|мощности|разрешения"
CALQUES = [
    (rf"потер(?:я|ю|е|ей|ею)(?! (?:{LOST}))", "функция потерь, значение функции потерь"),
    (r"(?:стилев|контентн|перцептивн|триплетн|логистическ|суммарн|состязательн)\w+ потер\w+", "… компонента функции потерь, … функция потерь"),
    (r"(?:для|градиент\w*|минимум\w*|минимизаци\w+|минимизир\w+) потери", "функции потерь"),
    (r"определител\w+ якобиан\w*|матриц\w+ якобиан\w*", "якобиан (это уже определитель) или матрица Якоби"),
    (r"нормализующ\w+ поток\w*|нормализирующ\w+ поток\w*|нормализованн\w+ поток\w*", "нормализационный поток"),
    (r"нормальн\w+ закон\w*(?! распределения)", "нормальное распределение"),
    (r"дол\w+ ошибочных (?:слов|символов)", "частота ошибок по словам (символам)"),
    (r"центрированн\w+ косинус\w*", "скорректированное косинусное сходство"),
    (r"айтем\w*|итем\w*|товар\w*", "объект"),
    (r"матожидани\w+", "математическое ожидание"),
    (r"семпл\w*", "сэмпл"), (r"собственн\w+ примеров", "собственных сэмплов"),
    (r"энкодер\w*", "кодировщик"), (r"декодер\w*", "декодировщик"),
    (r"задача некорректна", "задача некорректно поставлена"),
    (r"(?:сверх-?|супер-)разрешени\w+", "повышение разрешения"),
    (r"датасет\w*", "набор данных"), (r"лосс\w*", "функция потерь"), (r"фич(?:а|и|у|ей|ам|ами|ах)?", "признак"),
    (r"инференс\w*", "применение модели"), (r"таргет\w*", "целевая переменная"), (r"лейбл(?!ер)\w*", "метка"), (r"юзер\w*", "пользователь"),
    (r"рекомендер\w*", "рекомендательная система"), (r"кореллир\w*|корреллир\w*", "коррелировать"),
    (r"выведите (?:ndcg|dcg|mrr|map)", "дайте определение"),
]
RULES = [(re.compile(rf"(?<![\w-])(?:{pattern})(?!\w)", re.I), right) for pattern, right in CALQUES]


def calques(text):
    """[(wrong words, right word)] of a text."""
    return [(found[0], right) for rule, right in RULES for found in rule.finditer(text)]


@pytest.mark.parametrize("wrong", [
    "потеря выше, чем у", "стилевая потеря на матрицах Грама", "нужна только для потери", "Определитель якобиана равен", "нормализующий поток",
    "нормальным законом", "доля ошибочных слов", "Айтемов", "пользователю и товару", "матожидание", "семплы", "энкодер и декодер", "датасета",
    "фичи", "Выведите nDCG", "Задача некорректна"])
def test_calques_are_found(wrong):
    assert calques(wrong)


@pytest.mark.parametrize("right", [
    "функция потерь", "стилевая компонента функции потерь", "градиент функции потерь", "потеря информации", "без потери общности", "сэмплы", "трафик",
    "якобиан (определитель матрицы Якоби)", "якобиан", "нормализационный поток", "нормальный закон распределения", "кодировщик и декодировщик",
    "автокодировщик", "объект", "скорректированное косинусное сходство", "некорректно поставленная задача", "графики", "математическое ожидание"])
def test_right_words_are_left_alone(right):
    assert calques(right) == []


@pytest.mark.parametrize("book", BOOKS, ids=repr)
def test_pages_are_free_of_calques(book):
    lines = book.text.read_text(encoding="utf-8").splitlines()
    found = [f"{book.text.name}:{k}: «{wrong}»: {right}" for k, line in enumerate(lines, 1) if line.startswith("#")
             for wrong, right in calques(line)]
    # a phrase broken by a line's end
    found += [f"{book.text.name}: «{wrong}»: {right}" for wrong, right in calques(" ".join(book.markdown.split()))
              if not any(f"«{wrong}»" in line for line in found)]
    assert not found, "\n".join(found)


def test_data_are_free_of_calques():
    said = [row["ru"] for table in (GLOSSARY, QUESTIONS, MAP) for row in table]
    assert not [(text, calques(text)) for text in said if calques(text)]


@pytest.mark.parametrize("english, russian", REQUIRED.items(), ids=REQUIRED)
def test_required_terms_stand_in_the_glossary(english, russian):
    entries = [row["ru"] for row in GLOSSARY if row["en"] == english]
    assert len(entries) == 1 and russian in entries[0], f"{english}: {entries}"


def test_glossary_rows_are_whole():
    english = [row["en"] for row in GLOSSARY]
    assert len(english) == len(set(english)), "one row a term"
    for row in GLOSSARY:
        assert row["notebook"] in PLANNED, f"{row['en']}: no notebook {row['notebook']} on the map"
        assert row["part"] == row["notebook"][0], row["en"]
        assert re.search(r"[а-яё]", row["ru"], re.I) and row["en"] == row["en"].strip() and row["ru"] == row["ru"].strip(), row
    assert [r["notebook"] for r in GLOSSARY] == sorted(r["notebook"] for r in GLOSSARY), "in the order of the notebooks"


# --- the map and the questions -------------------------------------------------------------------------------------------

def test_the_map_knows_which_notebooks_exist():
    assert {row["no"] for row in MAP if row["state"] == "ready"} == WRITTEN
    assert {f"{row['no']}_{row['topic']}" for row in MAP if row["state"] == "ready"} == {b.text.stem for b in BOOKS}
    assert {row["state"] for row in MAP} <= {"ready", "planned"}
    for row in MAP:
        assert set(row["needs"].split()) <= PLANNED - {row["no"]}
        assert row["title"] and re.search("[А-Яа-яё]|MelGAN", row["ru"]) and row["what"]


def test_every_question_belongs_to_one_notebook():
    asked = sorted(int(q) for row in MAP for q in row["exam"].split())
    assert asked == list(range(1, 92))
    for book in BOOKS:
        if book.number != "00":
            here = next(row["exam"].split() for row in MAP if row["no"] == book.number)
            assert sorted(re.findall(r"^### Question (\d+) · ", book.markdown, re.M), key=int) == here, book


def test_official_questions():
    assert [row["no"] for row in QUESTIONS] == [str(k) for k in range(1, 20)]
    for row in QUESTIONS:
        assert row["no"] in next(r["exam"].split() for r in MAP if r["no"] == row["notebook"]), row["no"]
        assert row["en"][-1] in ".?" and row["ru"][-1] in ".?" and re.search("[а-яё]", row["ru"]) and not re.search("[а-яё]", row["en"])


def asked(book):
    """{number: (English, Russian)} of the questions in a page's exam cells, each on one line."""
    found = re.findall(r"^### Question (\d+) · (.+?)\n\n\*\*По-русски\.\*\* (.+?)\n\n", book.markdown, re.M | re.S)
    return {no: (" ".join(en.split()), " ".join(ru.split())) for no, en, ru in found}


@pytest.mark.parametrize("row", [r for r in QUESTIONS if r["notebook"] in WRITTEN], ids=lambda row: row["no"])
def test_official_questions_are_worded_as_on_their_page(row):
    english, russian = asked(next(b for b in BOOKS if b.number == row["notebook"]))[row["no"]]
    assert russian == row["ru"], "data/questions.csv and the exam cell"
    if english[-1] in ".?":                 # else a short name of the question
        assert english == row["en"], "data/questions.csv and the exam cell"


# --- one notation for the course -----------------------------------------------------------------------------------------

@pytest.mark.parametrize("book", BOOKS, ids=repr)
def test_notation_of_a_page_is_that_of_the_course(book):
    table = {symbol for symbol, _ in notation.on_page(book.markdown)}
    assert table, "no notation table `| symbol | in code | …`"
    listed = {row["symbol"] for row in NOTATION if book.number in row["notebooks"].split()}
    hint = "python tools/notation.py brings data/notation.csv in line; then write the meanings"
    assert not table - listed, f"not in data/notation.csv for {book.number}: {sorted(table - listed)}; {hint}"
    assert not listed - table, f"data/notation.csv says {book.number}, the page's table has no {sorted(listed - table)}; {hint}"


def test_notation_rows_are_whole():
    for row in NOTATION:
        assert set(row["notebooks"].split()) <= PLANNED and row["meaning"].strip() and row["symbol"].strip(), row
        assert row["letter"] == notation.letter(row["symbol"]), row
        assert row["meaning"].count("$") % 2 == 0, row
    assert NOTATION == notation.updated(NOTATION, {}), "in the order of tools/notation.py"
    keys = [(row["symbol"], row["meaning"]) for row in NOTATION]
    assert len(keys) == len(set(keys)), "one row for a symbol and a meaning"


@pytest.mark.parametrize("cell, known", [
    ("$R$: set of observed triples $(u, i, r_{ui})$", ["R"]), ("$n$, $m=\\lvert L_u\\rvert$", ["n", "m"]), ("$C, S, X$", ["C", "S", "X"]),
    ("$x_1,\\dots,x_n$: observations", ["x_1,\\dots,x_n"]), ("$d(b,B),\\ C_{B,w}$", ["d(b,B)", "C_{B,w}"]), ("$\\lambda$ in (42.5)", ["\\lambda"]),
    ("$z_i=(q_i, 1)$, $x_u=(p_u, b_u)$", ["z_i", "x_u"]), ("$\\mu$; $b_u$, $b_i$: mean; offsets", ["\\mu", "b_u", "b_i"])])
def test_symbols_are_read_from_tables(cell, known):
    assert notation.symbols(cell) == known


@pytest.mark.parametrize("symbol, letter", [("\\hat r_{ui}", "r"), ("\\log\\sigma^2(x)", "σ"), ("\\mathcal B(\\pi)", "B"), ("\\mathrm{up}(x)", "up"),
                                            ("\\log\\lvert\\det J_f(x)\\rvert", "J"), ("\\Delta_a", "Δ"), ("p(x\\mid z)", "p")])
def test_symbols_are_filed_under_their_letter(symbol, letter):
    assert notation.letter(symbol) == letter


def test_meanings_written_by_hand_are_kept():
    old = [{"symbol": "d", "letter": "d", "meaning": "by hand", "notebooks": "43 44"}, {"symbol": "x", "letter": "x", "meaning": "gone", "notebooks": "43"}]
    page = "# | symbol | in code | shape, unit |\n# |---|---|---|\n# | $d$: factors | `d` | ≥ 1 |\n# | $\\mu$; $b_u$, $b_i$: mean; offsets | `mu` | |\n"
    new = notation.updated(old, {"43": notation.on_page(page)})
    assert [(r["symbol"], r["meaning"], r["notebooks"]) for r in new] == [
        ("b_i", "offsets", "43"), ("b_u", "offsets", "43"), ("d", "by hand", "43 44"), ("\\mu", "mean", "43")]
    assert notation.updated(new, {"43": notation.on_page(page)}) == new
    assert notation.written(new).startswith("symbol,letter,meaning,notebooks\nb_i,b,offsets,43\n")
