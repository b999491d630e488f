"""The notation of the course as data: `python tools/notation.py` brings data/notation.csv in line with the pages.

Each page has a table `| symbol | in code | … |`. The program finds its symbols; meanings in data/notation.csv are written by
hand and kept. A symbol that the file does not know for a page gets a row with the page's own words, to be polished by hand;
a row loses the notebooks that no longer have its symbol. Notebooks that do not exist yet keep their rows: they are a plan.
"""

import csv
import io
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "data/notation.csv"
COLUMNS = ("symbol", "letter", "meaning", "notebooks")
NAMES = """
    alpha beta gamma delta epsilon varepsilon zeta eta theta kappa lambda mu nu xi pi rho sigma tau phi varphi chi psi omega
    Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega ell odot""".split()
GREEK = dict(zip(NAMES, "αβγδεεζηθκλμνξπρστφφχψωΓΔΘΛΞΠΣΦΨΩℓ⊙"))
WORN = r"log|hat|bar|tilde|mathcal|mathbb|mathrm|operatorname|[lr][vV]ert|det|partial|dot|widehat|overline|max|min|text"
DRESS = re.compile(rf"\\({WORN}|[,;! ])")


def table(markdown):
    """Rows of the page's notation table: lists of cells, the first one with symbols."""
    rows, inside = [], False
    for line in markdown.splitlines():
        line = line.removeprefix("# ").strip()
        inside = line.startswith("| symbol | in code") or (inside and line.startswith("|"))
        if inside and not re.match(r"\| (symbol|-)|\|-", line):
            rows.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))])
    return rows


def split(text, marks=",;"):
    """Parts of a text between marks that stand outside all brackets and formulas."""
    parts, depth, formula = [""], 0, False
    for c in text:
        formula ^= c == "$"
        depth += (c in "([{") - (c in ")]}")
        if c in marks and depth <= 0 and not formula:
            parts.append("")
        else:
            parts[-1] += c
    return [p.strip() for p in parts if p.strip()]


def before_colon(cell):
    """ "$R$: set of triples" as ("$R$", "set of triples"); without a colon the second part is empty."""
    for found in re.finditer(": ", cell):
        if cell[:found.start()].count("$") % 2 == 0:
            return cell[:found.start()], cell[found.end():]
    return cell, ""


def symbols(cell):
    """The symbols that a table's first cell defines: "$n$, $m=\\lvert L\\rvert$" gives ["n", "m"]."""
    found = []
    for formula in re.findall(r"\$([^$]+)\$", before_colon(cell)[0]):
        parts = [formula] if r"\dots" in formula else split(re.sub(r"\\[,;! ]|\\q?quad", " ", formula))
        found += [re.split(r"(?<![\\<>])=|\\in\b|\\to\b", part)[0].strip() for part in parts]
    return list(dict.fromkeys(re.sub(r"\s+(?![A-Za-z])", "", s) for s in found if s))


def meanings(row, known):
    """A meaning in the page's own words for each of the symbols of one table row."""
    left, own = before_colon(row[0])
    words = own or row[-1]
    for marks in (";", ",;"):
        parts, groups = split(words, marks), [symbols(group) for group in split(left, ";")]
        if len(parts) == len(known):
            return parts
        if len(parts) == len(groups):
            return [part for part, group in zip(parts, groups) for _ in group]
    return [words] * len(known)


def letter(symbol):
    """The letter a symbol is filed under, undressed: "\\hat r_{ui}" under r, "\\log\\sigma^2(x)" under σ."""
    bare = DRESS.sub(" ", symbol)
    found = re.search(r"\\([A-Za-z]+)|([A-Za-z])(?![A-Za-z])|([A-Za-z]+)", bare)
    if not found:
        return symbol
    return GREEK.get(found[1], found[1]) if found[1] else found[2] or found[3]


def on_page(markdown):
    """[(symbol, meaning in the page's words)] of a page."""
    rows = []
    for row in table(markdown):
        known = symbols(row[0])
        rows += zip(known, meanings(row, known))
    return rows


def pages():
    """{number of a notebook: its symbols with meanings}."""
    return {p.name[:2]: on_page(p.read_text(encoding="utf-8")) for p in sorted((ROOT / "notebooks/text").glob("[0-9][0-9]_*.py"))}


def read():
    """Rows of data/notation.csv."""
    if not FILE.exists():
        return []
    with open(FILE, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def updated(rows, found):
    """The rows brought in line with the pages: symbols and notebooks from there, meanings kept."""
    has = {number: {symbol for symbol, _ in table} for number, table in found.items()}
    new = []
    for row in rows:
        numbers = [n for n in row["notebooks"].split() if n not in has or row["symbol"] in has[n]]
        if numbers:
            new.append(row | {"letter": letter(row["symbol"]), "notebooks": " ".join(sorted(numbers))})
    known = {(row["symbol"], n) for row in new for n in row["notebooks"].split()}
    for number, table in found.items():
        new += [{"symbol": symbol, "letter": letter(symbol), "meaning": meaning, "notebooks": number}
                for symbol, meaning in table if (symbol, number) not in known]
    return sorted(new, key=_place)


def _place(row):
    name = row["letter"]
    return (not name.isascii(), name.lower(), name.islower(), row["notebooks"], row["symbol"])


def written(rows):
    """The file's text."""
    out = io.StringIO()
    table = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return out.getvalue()


def main():
    rows = read()
    new = updated(rows, pages())
    old = FILE.read_text(encoding="utf-8") if FILE.exists() else ""
    if written(new) != old:
        part = FILE.with_name(".notation.csv.part")
        part.write_text(written(new), encoding="utf-8")
        part.replace(FILE)
    kept = {tuple(row.values()) for row in rows}
    for row in new:
        if tuple(row[c] for c in COLUMNS) not in kept:
            print(f"{row['notebooks']:8} {row['symbol']:20} {row['meaning']}")
    print(f"data/notation.csv: {len(new)} rows")


if __name__ == "__main__":
    main()
