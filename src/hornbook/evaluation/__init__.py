"""How good a model is: its loss on text it has not seen, and its answers to questions it was never asked."""
