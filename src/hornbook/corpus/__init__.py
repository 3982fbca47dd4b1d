"""The corpus: raw text in, curated documents out, as one lazy dataframe query."""
