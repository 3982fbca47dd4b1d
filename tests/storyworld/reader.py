"""Reads a story as a child would: from its words alone, keeping track of who is where with what.

It shares nothing with the writer but the language, so where the two agree, the story is true of its world. A report that
contradicts what was read before is collected in `contradictions`; a sentence it cannot read, in `unread`.
"""

import re

NAME, WORD = r"([A-Z]\w+)", r"(\w+)"


class Reader:
    """The state of a story after each sentence that was read."""

    def __init__(self) -> None:
        self.place: dict[str, str] = {}
        self.role: dict[str, str] = {}
        self.mood: dict[str, str] = {}
        self.colour: dict[str, str] = {}
        self.holder: dict[str, str | None] = {}
        self.lies_at: dict[str, str] = {}
        self.contradictions: list[str] = []
        self.unread: list[str] = []

    def read(self, story: str) -> None:
        # A question belongs to the answer after it; a person introduced in two sentences belongs together, too.
        story = re.sub(r"(\w+) was the (\w+)\. (She|He) was at the (\w+) and had", r"\1 the \2 was at the \4 and had", story)
        for sentence in re.findall(r"[^.?]+(?:\?[^.]+)?\.", story.replace("\n\n", " ")):
            self._read_sentence(sentence.strip())

    def where_is(self, noun: str) -> str:
        holder = self.holder[noun]
        return self.place[holder] if holder else self.lies_at[noun]

    def _check(self, sentence: str, is_so: bool) -> None:
        if not is_so:
            self.contradictions.append(sentence)

    def _person_called(self, role: str) -> str:
        return next((name for name, own in self.role.items() if own == role), "")

    def _read_sentence(self, sentence: str) -> None:
        for pattern, method in self._sentences():
            match = re.fullmatch(pattern, sentence)
            if match:
                self._check(sentence, method(*match.groups()) is not False)
                return
        self.unread.append(sentence)

    def _meet(self, name: str, role: str, place: str, colour: str, noun: str, mood: str | None = None) -> None:
        self.place[name], self.role[name] = place, role
        self.colour[noun], self.holder[noun] = colour, name
        if mood:
            self.mood[name] = mood

    def _go(self, name: str, place: str, old_place: str | None = None) -> bool:
        was_there = old_place is None or self.place[name] == old_place
        moved = self.place[name] != place
        self.place[name] = place
        return was_there and moved

    def _pass_on(self, giver: str, receiver: str, noun: str, colour: str | None = None, place: str | None = None) -> bool:
        is_so = self.holder[noun] == giver and self.place[giver] == self.place[receiver]
        is_so &= colour in (None, self.colour[noun]) and place in (None, self.place[giver])
        self.holder[noun] = receiver
        return is_so

    def _put(self, name: str, noun: str, place: str, colour: str | None = None) -> bool:
        is_so = self.holder[noun] == name and self.place[name] == place and colour in (None, self.colour[noun])
        self.holder[noun], self.lies_at[noun] = None, place
        return is_so

    def _pick_up(self, name: str, noun: str, place: str, colour: str | None = None) -> bool:
        is_so = self.holder[noun] is None and self.lies_at[noun] == place == self.place[name]
        is_so &= colour in (None, self.colour[noun])
        self.holder[noun] = name
        return is_so

    def _feel(self, name: str, mood: str) -> bool:
        is_new = self.mood.get(name) != mood
        self.mood[name] = mood
        return is_new

    def _sentences(self) -> list:
        """Every way of saying something that concerns the state, the more particular ones first."""
        known = lambda *values: all(values)  # noqa: E731
        return [
            (rf"(?:It was an? \w+ \w+|One \w+ \w+, the world stood like this|The {WORD} was \w+ly)\.", lambda *_: True),
            (rf"{NAME} the {WORD} was at the {WORD} (?:with|and had) an? {WORD} {WORD}\.", self._meet),
            (rf"At the {WORD}, {NAME} the {WORD} had an? {WORD} {WORD}\.", lambda p, n, r, c, t: self._meet(n, r, p, c, t)),
            (rf"At the {WORD} was {NAME} the {WORD}, who had an? {WORD} {WORD}\.", lambda p, n, r, c, t: self._meet(n, r, p, c, t)),
            (rf"{NAME} the {WORD} felt {WORD}, was at the {WORD} and had an? {WORD} {WORD}\.", lambda n, r, m, p, c, t: self._meet(n, r, p, c, t, m)),
            (rf"{NAME} left the {WORD} and \w+ to the {WORD}\.", lambda n, old, new: self._go(n, new, old)),
            (rf"From the {WORD}, {NAME} \w+ to the {WORD}\.", lambda old, n, new: self._go(n, new, old)),
            (rf"{NAME} gave the {WORD} to {NAME}\.", lambda a, t, b: self._pass_on(a, b, t)),
            (rf"{NAME} \w+ passed the {WORD} to {NAME}\.", lambda a, t, b: self._pass_on(a, b, t)),
            (rf"{NAME} handed {NAME} the {WORD} {WORD}\.", lambda a, b, c, t: self._pass_on(a, b, t, c)),
            (rf"{NAME} got the {WORD} {WORD} from {NAME}\.", lambda b, c, t, a: self._pass_on(a, b, t, c)),
            (rf"At the {WORD}, {NAME} was given the {WORD} by {NAME}\.", lambda p, b, t, a: self._pass_on(a, b, t, place=p)),
            (rf"{NAME} left the {WORD} at the {WORD}\.", self._put),
            (rf"{NAME} put down the {WORD} {WORD} at the {WORD}\.", lambda n, c, t, p: self._put(n, t, p, c)),
            (rf"At the {WORD}, {NAME} \w+ put the {WORD} on the ground\.", lambda p, n, t: self._put(n, t, p)),
            (rf"{NAME} found the {WORD} at the {WORD} and took it\.", self._pick_up),
            (rf"At the {WORD}, {NAME} picked up the {WORD} {WORD}\.", lambda p, n, c, t: self._pick_up(n, t, p, c)),
            (rf"{NAME} \w+ took the {WORD} that lay at the {WORD}\.", self._pick_up),
            (rf"{NAME} became {WORD}\.", self._feel),
            (rf"Now {NAME} felt {WORD}\.", self._feel),
            (rf"All this made {NAME} {WORD}\.", self._feel),
            (rf"The {WORD} was with {NAME}\.", lambda t, n: self.holder[t] == n),
            (rf"The {WORD} {WORD} belonged to {NAME} now\.", lambda c, t, n: self.holder[t] == n and self.colour[t] == c),
            (rf"{NAME} had the {WORD} {WORD}\.", lambda n, c, t: self.holder[t] == n and self.colour[t] == c),
            (rf"{NAME} the {WORD} held the {WORD}\.", lambda n, r, t: self.holder[t] == n and self.role[n] == r),
            (rf"Who had the {WORD}\? {NAME} (?:did|had it)\.", lambda t, n: self.holder[t] == n),
            (rf"{NAME} the {WORD} was at the {WORD}\.", lambda n, r, p: self.place[n] == p and self.role[n] == r),
            (rf"{NAME} was at the {WORD}\.", lambda n, p: self.place[n] == p),
            (rf"Where was {NAME}\? (?:At|She was at|He was at) the {WORD}\.", lambda n, p: self.place[n] == p),
            (rf"Where was the {WORD}\? (?:At|It was at) the {WORD}\.", lambda t, p: self.where_is(t) == p),
            (rf"The {WORD} was at the {WORD}\.", lambda x, p: self.where_is(x) == p if x in self.holder else self.place[self._person_called(x)] == p),
            (rf"The {WORD} {WORD} was at the {WORD}\.", lambda c, t, p: self.where_is(t) == p and self.colour[t] == c),
            (rf"What colour was the {WORD}\? (?:It was )?{WORD}\.", lambda t, c: self.colour[t] == c.lower()),
            (rf"The {WORD} thing was the {WORD}\.", lambda c, t: self.colour[t] == c),
            (rf"What was {NAME}\? The {WORD}\.", lambda n, r: self.role[n] == r),
            (rf"Who was the {WORD}\? {NAME} was\.", lambda r, n: self.role[n] == r),
            (rf"{NAME} was the {WORD}\.", lambda n, r: self.role[n] == r),
            (rf"The {WORD} was {NAME}\.", lambda r, n: self.role[n] == r),
            (rf"How did {NAME} feel\? {NAME} felt {WORD}\.", lambda n, m, mood: n == m and self.mood[n] == mood),
            (rf"The {WORD} one was {NAME}\.", lambda mood, n: self.mood[n] == mood),
            (rf"{NAME} (?:ate some|dreamed of|liked) .*\.", lambda n: known(self.place.get(n))),
            (rf"At the {WORD} grew an? \w+ \w+\.|Near the {WORD} stood an? \w+ \w+\.", lambda p, q: known(p or q)),
            (rf"At the {WORD}, an? \w+ \w+ \w+ \w+\.|An? \w+ \w+ \w+ at the {WORD}\.", lambda p, q: known(p or q)),
            (rf"The {WORD} was {WORD}\.", lambda t, c: self.colour.get(t, c) == c),
            (rf"{NAME} was {WORD}\.", lambda n, mood: self.mood.get(n) == mood),
            (rf"{NAME} (?:\w+ )?\w+ to the {WORD}\.", self._go),
            (rf"{NAME} the {WORD} \w+ \w+\.", lambda n, r: self.role[n] == r),
            (rf"{NAME} \w+(?: \w+)?\.", lambda n: n in self.place),
        ]
