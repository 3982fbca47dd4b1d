"""The two ways in which a command can end badly, told apart by whose turn it is to act.

Both carry one message for a person, which the command line prints without a traceback. Anything else that
escapes is a bug in Hornbook, and keeps its traceback so that it can be reported.
"""


class UserError(Exception):
    """The input is wrong. The message says what is wrong, where, and what to do. Exit status 2."""


class RunFailed(Exception):
    """The input was right and the run failed all the same, for instance a loss that left all numbers.

    The message says what happened and what can be tried. Exit status 1.
    """


class FailedElsewhere(Exception):
    """Another process of the run failed and says why: this one ends without a word."""
