"""HellaSwag rows in the original's schema and in the plain one, for the tests of items, scorer and script."""

from common.files import write_jsonl
from data.hellaswag import HellaSwagItem, load_hellaswag

# In the original's schema. The third one's context ends where wikiHow's substeps begin.
ORIGINAL = [
    {
        "ind": 24,
        "activity_label": "Roof shingle removal",
        "ctx_a": "A man is sitting on a roof.",
        "ctx_b": "he",
        "ctx": "A man is sitting on a roof. he",
        "endings": [
            "is using wrap to wrap a pair of skis.",
            "is ripping level tiles off.",
            "is.",
            "starts pulling up.",
        ],
        "label": "3",
    },
    {
        "ind": 92,
        "activity_label": "Food and Entertaining",
        "ctx_a": "[header] How to peel a mango [title] Wash it. [step] Hold it under water.",
        "ctx_b": "",
        "ctx": "[header] How to peel a mango [title] Wash it. [step] Hold it under water.",
        "endings": ["[step] Dry it.", "Then  [substeps] cut it.", "[title] Cut. [step] Slice.", "Eat it."],
        "label": "0",
    },
    {
        "ind": 106,
        "activity_label": "Home",
        "ctx_a": "[header] How to sweep [step] Take a broom. [substeps]",
        "ctx_b": "",
        "ctx": "[header] How to sweep [step] Take a broom. [substeps]",
        "endings": ["Sweep 6*9 tiles.", "Sing.", "Take a broom to the yard, and then a brush, and a cloth.", "Sweep."],
        "label": "2",
    },
]
PLAIN = [
    {"ind": i, "ctx": f"Passage {i}: somebody begins. " + "Then she goes on. " * (i % 4) + "She", "label": i % 4}
    | {"endings": ["stops.", f"walks {i} miles to the next village.", "sings a song about it", "sings."]}
    for i in range(5)
]


def items_of(rows, tmp_path, **options) -> list[HellaSwagItem]:
    write_jsonl(tmp_path / "rows.jsonl", rows)
    return load_hellaswag(tmp_path / "rows.jsonl", **options)
