"""Finds files by words: a full-text index in memory, made for one question and thrown away.

Names are taken apart (`order_number`, `OrderNumber` -> order, number) and words reduced to their stems, so
that "rounding a discount" finds `round_discount`. Reads nothing: it is given the text.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agents.specialized.facts import Line, clean

WORD = re.compile(r"[^\W_]+")
CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
BOOSTS = {"path": 3.0, "defined": 2.5, "body": 1.0}
HEAP = 15_000_000  # bytes; the least that tantivy takes for one thread
LONGEST_WORD = 60
MOST_LINES = 3


@dataclass(frozen=True, slots=True)
class Document:
    """A text file, and the names it defines."""

    path: str
    body: str
    defined: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Hit:
    """A file that has some of the words; scores only compare within one search."""

    path: str
    score: float
    terms: tuple[str, ...]
    lines: tuple[Line, ...]


def words_of(text: str) -> list[str]:
    """Take text and names apart into lower-case words."""
    return [word.lower() for word in WORD.findall(CAMEL.sub(" ", text))]


def search(documents: Sequence[Document], terms: Sequence[str], limit: int) -> list[Hit]:
    """Rank documents by words; takes a while, so call it in a thread.

    Args:
        documents: What to search in.
        terms: Words as `words_of` gives them.
        limit: Most hits.
    """
    import tantivy  # noqa: PLC0415 (an extension module that only this function needs)

    analyzer = (
        tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.simple())
        .filter(tantivy.Filter.remove_long(LONGEST_WORD))
        .filter(tantivy.Filter.lowercase())
        .filter(tantivy.Filter.stemmer("english"))
        .build()
    )
    builder = tantivy.SchemaBuilder()
    for name in BOOSTS:
        builder.add_text_field(name, tokenizer_name="words", index_option="freq")
    builder.add_unsigned_field("number", stored=True)
    index = tantivy.Index(builder.build())
    index.register_tokenizer("words", analyzer)
    writer = index.writer(HEAP, 1)
    for number, document in enumerate(documents):
        writer.add_document(
            tantivy.Document(
                path=_spaced(document.path),
                defined=_spaced(" ".join(document.defined)),
                body=_spaced(document.body),
                number=number,
            )
        )
    writer.commit()
    writer.wait_merging_threads()
    index.reload()
    # Terms are letters and digits in lower case: none of them can be query syntax.
    query = index.parse_query(" ".join(terms), list(BOOSTS), field_boosts=BOOSTS)
    searcher = index.searcher()
    stems = {analyzer.analyze(term)[0] for term in terms if analyzer.analyze(term)}
    hits = []
    for score, address in searcher.search(query, limit).hits:
        document = documents[searcher.doc(address)["number"][0]]
        found, lines = _matches(document, stems, analyzer.analyze)
        hits.append(Hit(document.path, score, found, lines))
    return hits


def _spaced(text: str) -> str:
    return CAMEL.sub(" ", text)


def _matches(
    document: Document, stems: set[str], analyze: Callable[[str], list[str]]
) -> tuple[tuple[str, ...], tuple[Line, ...]]:
    """Tell which words a document has, and show the lines that have most of them."""
    found = set(analyze(_spaced(document.path))) & stems
    scored: list[tuple[int, int, str]] = []
    for number, text in enumerate(document.body.splitlines(), 1):
        here = set(analyze(_spaced(text[:1000]))) & stems
        if here:
            found |= here
            scored.append((-len(here), number, text))
    best = sorted(scored)[:MOST_LINES]
    lines = tuple(
        Line(line=number, text=clean(text, 160)) for _, number, text in sorted(best, key=_by_number)
    )
    return tuple(sorted(found)), lines


def _by_number(entry: tuple[int, int, str]) -> int:
    return entry[1]
