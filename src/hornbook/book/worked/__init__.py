"""The worked examples: small enough to follow with a pencil, computed here when the book is built.

Where the project's own code runs without torch (byte-pair encoding, planning), it is the one that computes. The rest is
the same formula in numpy, in float64; tests/book/test_worked.py holds it against the code that it explains.
"""
