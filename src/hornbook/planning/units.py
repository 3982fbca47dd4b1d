"""Numbers as a person reads them."""


def quantity(number: float) -> str:
    """A large number short, 855000000 as "855 M"; a small one as it is."""
    for power, letter in ((15, "P"), (12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if number >= 10**power:
            return f"{number / 10**power:,.3g} {letter}"
    return f"{number:,.3g}"


def size(n_bytes: int) -> str:
    """Bytes in MB or GB, the powers of ten that datasheets use."""
    return f"{n_bytes / 1e9:,.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:,.1f} MB"


def duration(seconds: float) -> str:
    """A time in the unit that a person would choose."""
    for unit_seconds, unit in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 1.5 * unit_seconds:
            return f"{seconds / unit_seconds:,.1f} {unit}"
    return f"{seconds:.0f} s"


def money(dollars: float) -> str:
    """Dollars, in cents where they are few."""
    return f"${dollars:,.2f}" if dollars < 100 else f"${dollars:,.0f}"
