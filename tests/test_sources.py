"""Sources and their mixture: one sequence, the same wherever it is taken up again, from files and from the hub."""

import json
import random
from types import SimpleNamespace

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from common.errors import UserError
from data.probes import arithmetic_probes
from data.sources import (
    DocumentSequence,
    arithmetic_source,
    file_source,
    hub_source,
    parse_source,
    shares_of,
)


def texts(count: int, word: str) -> list[str]:
    rng = random.Random(word)
    return [f"{word} {i} " + "and on " * rng.randint(0, 30) for i in range(count)]


@pytest.fixture
def folder(tmp_path):
    """Four files of three kinds, with empty documents in them."""
    path = tmp_path / "corpus"
    path.mkdir()
    documents = ["", *texts(40, "parquet"), "", ""]
    for name in ("a.parquet", "b.parquet"):
        table = pa.table({"text": [name + text if text else None for text in documents], "id": range(43)})
        pq.write_table(table, path / name, row_group_size=7)
    (path / "c.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts(30, "jsonl")))
    (path / "d.txt").write_text("\n<|endoftext|>\n".join(texts(20, "txt")))
    return path


def sequence_of(folder, seed=0, common_bytes=10_000, math_fraction=0.2):
    source = file_source(str(folder), 1 - math_fraction, "text", seed)
    return DocumentSequence([source, arithmetic_source(math_fraction, seed)], common_bytes)


def test_every_document_once_in_the_order_of_the_seed(folder):
    sequence = sequence_of(folder)
    documents = list(sequence)
    assert [document.number for document in documents] == list(range(len(documents)))
    found = [document.text for document in documents if document.source == str(folder)]
    files = ["a.parquet", "b.parquet", "c.jsonl", "d.txt"]
    by_file = {name: [name + text for text in texts(40, "parquet")] for name in files[:2]}
    by_file |= {"c.jsonl": texts(30, "jsonl"), "d.txt": texts(20, "txt")}
    order = random.Random("0/parts").sample(range(4), 4)
    assert found == [text for i in order for text in by_file[files[i]]]
    assert sequence.dry == str(folder) and sequence.sources[0].empty == 6
    others = [document.text for document in sequence_of(folder, seed=3)]
    assert others != [document.text for document in documents]


def test_taken_up_again_anywhere_it_goes_on_as_before(folder):
    whole = sequence_of(folder)
    documents, places = [], [whole.place()]
    for document in whole:
        documents.append(document)
        places.append(json.loads(json.dumps(whole.place())))
    for number in [*range(0, len(documents), 9), len(documents)]:
        resumed = sequence_of(folder)
        resumed.go_to(places[number])
        assert list(resumed) == documents[number:] and resumed.place() == whole.place()


def test_shares_hold_everywhere(folder):
    sizes = {"arithmetic": 0, str(folder): 0}
    for document in sequence_of(folder):
        sizes[document.source] += len(document.text) + 1
        assert abs(sizes["arithmetic"] - 0.2 * sum(sizes.values())) < 1000  # a document


def test_the_common_part_is_hashed(folder):
    sequence = sequence_of(folder, common_bytes=2000)
    documents = list(sequence)
    assert 0 < sum(document.common for document in documents) < len(documents)
    begun = 0
    for document in documents:
        assert document.common == (begun < 2000)
        begun += len(document.text.encode()) + 1
    alike = sequence_of(folder, common_bytes=2000)
    for document in alike:
        if not document.common:
            break
    assert alike.sha256 == sequence.sha256
    (folder / "d.txt").write_text("changed")
    hashes = set()
    for seed in range(4):  # whichever file is first
        other = sequence_of(folder, seed, common_bytes=10**9)
        list(other)
        hashes.add(other.sha256)
    assert len(hashes) == 4 and sequence.sha256 not in hashes


def test_parquet_row_groups_before_the_place_are_not_read(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": texts(40, "x")}), path, row_group_size=10)
    content = bytearray(path.read_bytes())
    end = pq.ParquetFile(path).metadata.row_group(2).column(0).data_page_offset - 100
    content[4:end] = b"\xff" * (end - 4)
    path.write_bytes(content)
    assert list(file_source(str(path), 1, "text", 0).read(0, 33)) == texts(40, "x")[33:]


def test_no_generated_document_asks_a_probe():
    probes = {probe.question for probe in arithmetic_probes()}
    source = arithmetic_source(0.5, seed=0)
    documents = [source.next_document() for _ in range(9000)]
    assert not any(line.removeprefix("User: ") in probes for text in documents for line in text.splitlines())
    assert not any("What is 6 times 9?" in text for text in documents) and any("6 times 9" in t for t in documents)


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("HuggingFaceFW/fineweb-edu:sample-10BT=0.9", ("HuggingFaceFW/fineweb-edu", "sample-10BT", 0.9, False)),
        ("open-web-math/open-web-math", ("open-web-math/open-web-math", None, None, False)),
        ("corpus.parquet=2", ("corpus.parquet", None, 2.0, True)),
        ("/corpora/a=b", ("/corpora/a=b", None, None, True)),
        ("./folder=3", ("./folder", None, 3.0, True)),
    ],
)
def test_source_syntax(argument, expected):
    assert tuple(parse_source(argument)) == expected


def test_weights():
    names = [parse_source("a/b=3"), parse_source("c/d=1")]
    assert shares_of(names, 0.2) == pytest.approx([0.6, 0.2])
    assert shares_of([parse_source("a/b"), parse_source("c/d")], 0.0) == [0.5, 0.5]
    with pytest.raises(UserError, match="--source c/d has no weight"):
        shares_of([parse_source("a/b=3"), parse_source("c/d")], 0.0)
    with pytest.raises(UserError, match="must be a positive number"):
        parse_source("a/b=0")


@pytest.fixture
def hub(monkeypatch, folder):
    """`datasets` with the folder's parquet files in the hub's place."""
    load, build = datasets.load_dataset, datasets.load_dataset_builder
    files = {"train": [str(folder / "a.parquet"), str(folder / "b.parquet")]}
    asked = []

    def options(name, config, revision, **rest):
        asked.append((name, config, revision))
        return {"path": "parquet", "data_files": files} | rest

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda *_, **__: SimpleNamespace(sha="abc"))
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: load(**options(*a, **k)))
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda *a, **k: build(**options(*a, **k)))
    return asked


def test_the_hub_gives_the_same_as_its_files(hub, folder):
    for name in ("c.jsonl", "d.txt"):
        (folder / name).unlink()
    local = file_source(str(folder), 1, "text", 0)
    remote = hub_source(parse_source("some/corpus:sample"), 1, "text", 0, revision=None)
    assert remote.name == "some/corpus:sample" and remote.identity == {"revision": "abc"}
    assert set(hub) == {("some/corpus", "sample", "abc")}
    while (text := local.next_document()) is not None:
        assert remote.next_document() == text and remote.place() == local.place()
        if local.row in (3, 30):
            place = remote.place()
            remote = hub_source(parse_source("some/corpus:sample"), 1, "text", 0, revision="abc")
            remote.go_to(place)
    assert remote.next_document() is None


def test_a_column_that_the_hub_does_not_have(hub):
    with pytest.raises(UserError, match=r"some/corpus.*content"):
        hub_source(parse_source("some/corpus"), 1, "content", 0, revision=None)


def test_without_network_a_hub_id_is_one_line_within_seconds(monkeypatch):
    def unreachable(*_, **__):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", unreachable)
    with pytest.raises(UserError, match="cannot be read from the hub") as caught:
        hub_source(parse_source("some/corpus"), 1, "text", 0, revision=None)
    assert "\n" not in str(caught.value)
