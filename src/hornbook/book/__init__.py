"""The book: typeset from the code, whose functions are its listings, and from one run, whose figures it shows."""
