"""The prose that CPython carries: lm/corpora/pydocs.py."""

import ast
import sys

import pytest

from lm.config import PydocsConfig
from lm.corpora import pydocs


@pytest.fixture(scope="module")
def documents():
    return list(PydocsConfig().build().documents())


@pytest.fixture
def library(tmp_path, monkeypatch):
    """An empty folder in place of the standard library, and no help topics."""
    monkeypatch.setattr(pydocs.sysconfig, "get_path", lambda _: str(tmp_path))
    monkeypatch.setattr(pydocs, "topics", dict)
    return tmp_path


def read():
    return list(PydocsConfig().build().documents())


def test_there_are_about_two_megabytes_in_thousands_of_documents(documents):
    n_bytes = sum(len(text.encode()) for text in documents)
    assert 1.2e6 < n_bytes < 4e6
    assert len(documents) > 2000


def test_help_topics_come_first_and_docstrings_after(documents):
    topics = pytest.importorskip("pydoc_data.topics").topics
    assert documents[0].split() == topics["assert"].split()
    assert any(text.startswith("Heap queue algorithm") for text in documents[len(topics) :])


def test_documents_are_clean_distinct_and_not_labels(documents):
    assert len(set(documents)) == len(documents)
    assert all(len(text) >= pydocs.MIN_CHARS and text == text.strip("\n") for text in documents)


def test_a_second_reading_gives_the_same_documents(monkeypatch):
    some = pydocs.source_files()[::20]
    monkeypatch.setattr(pydocs, "source_files", lambda: some)
    corpus = PydocsConfig().build()
    assert list(corpus.documents()) == list(corpus.documents())


def test_source_names_the_python_and_changes_with_one_byte_of_a_docstring(library):
    corpus = PydocsConfig().build()
    (library / "a.py").write_text('"""Some words about this module, long enough."""')
    before = corpus.source()
    assert before["python"].endswith(".".join(map(str, sys.version_info[:3])))
    assert corpus.source() == before
    (library / "a.py").write_text('"""Some words about that module, long enough."""')
    assert corpus.source() != before


def test_docstrings_come_in_the_order_of_the_file_from_every_nesting():
    code = '''
"""module"""
try:
    class A:
        """class"""
        def f(self):
            """method"""
            async def g():
                """inner"""
except ImportError:
    def h():
        """handler"""
if x:
    pass
else:
    def i(): "one line"
def j():
    return "no docstring"
'''
    expected = ["module", "class", "method", "inner", "handler", "one line"]
    assert pydocs.docstrings(code.encode()) == expected


def test_every_docstring_that_ast_walk_finds_is_found():
    """The quick walk over statements must not miss what the slow one over all nodes sees."""
    for path in pydocs.source_files()[::20]:
        tree = ast.parse(path.read_bytes())
        nodes = [n for n in ast.walk(tree) if isinstance(n, pydocs.Definition)]
        slow = [text for n in nodes if (text := ast.get_docstring(n))]
        # One inside a match statement would be missed; the library has none.
        assert sorted(pydocs.docstrings(path.read_bytes())) == sorted(slow), path


def test_nothing_of_the_library_is_run(library):
    (library / "a.py").write_text(
        '"""A module that must be read, not imported."""\nraise SystemExit'
    )
    assert read() == ["A module that must be read, not imported."]


def test_files_come_sorted_by_path(library):
    for name in ("b.py", "a/z.py", "c.py", "B.py", "a.py"):
        (library / name).parent.mkdir(exist_ok=True)
        (library / name).write_text(f'"""The docstring of the module in {name}"""')
    assert [text.split()[-1] for text in read()] == ["B.py", "a.py", "a/z.py", "b.py", "c.py"]


def test_tests_and_installed_packages_are_left_out(library):
    for folder in ("site-packages/x", "test", "json/tests", "json"):
        (library / folder).mkdir(parents=True, exist_ok=True)
        (library / folder / "m.py").write_text(f'"""The docstring of a module in {folder}."""')
    assert read() == ["The docstring of a module in json."]


def test_files_that_do_not_parse_are_left_out(library):
    (library / "bad.py").write_bytes(b"def (:\n")
    (library / "nul.py").write_bytes(b'"""Has a NUL and is therefore no source."""\0')
    (library / "latin.py").write_bytes(b'"""Not UTF-8, and no cookie says so: \xe9\xe8."""')
    (library / "cookie.py").write_bytes(
        b'# coding: latin-1\n"""Says what it is encoded in: \xe9."""'
    )
    (library / "half.py").write_text(r'"""Half of a surrogate pair is no UTF-8: \ud800."""')
    assert read() == ["Says what it is encoded in: \xe9."]


def test_a_python_without_sources_still_has_its_topics(library, monkeypatch):
    monkeypatch.setattr(pydocs, "topics", lambda: {"b": "y" * 40, "a": "x" * 40})
    assert read() == ["x" * 40, "y" * 40]


def test_a_python_without_topics_still_has_its_docstrings(library, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    assert pydocs.topics() == {}


def test_a_python_with_neither_names_the_way_out(library):
    with pytest.raises(ValueError, match="corpus=files"):
        read()
