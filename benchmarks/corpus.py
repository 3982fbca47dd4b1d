"""How fast and how well the corpus is made, beside other tools or known truth.

    python benchmarks/corpus.py PART ... (each with --help)

    speed        the quality rules beside datatrove's filters, documents per second
    agreement    do both keep and drop the same documents?
    deduplicate  near-duplicates against exact similarity of all pairs, and speed beside datatrove's four stages
    extraction   the text of web pages beside Trafilatura
    memory       peak memory and time for 1, 2 and 4 GB of text

Peers run in an environment of their own, whose interpreter is named with --peer-python:

    python -m venv PEERS
    PEERS/bin/pip install datatrove==0.10.1 spacy regex tokenizers "xxhash<4" trafilatura lxml_html_clean
"""

import argparse
import importlib
import sys

PARTS = ("speed", "agreement", "deduplicate", "extraction", "memory")


def main() -> None:
    """Run one part with the arguments that are left."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    sys.argv = [f"{sys.argv[0]} {options.part}", *options.arguments]
    importlib.import_module(f"corpus_parts.{options.part}").main()


if __name__ == "__main__":
    main()
