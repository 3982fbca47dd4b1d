"""Reads a story as a child would: from its words alone, keeping track of who is where with what.

It shares nothing with the writer but the language, so where the two agree, the story is true of its world. A sentence
that contradicts what was read before is collected in `contradictions`; one that it cannot read, in `unread`.
"""

import re
from collections.abc import Callable

NAME, WORD = r"([A-Z]\w+)", r"(\w+)"
# A question belongs to its answer, and what happened to how it then was.
SENTENCE = re.compile(r"[^.?]+(?:\?[^.]+)?\.(?: Now (?:the )?\w+ (?:was|lay|had) [^.]+\.)?")


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
        for sentence in SENTENCE.findall(story.replace("\n\n", " ")):
            self._read_sentence(sentence.strip())

    def answer(self, question: str) -> str:
        """The word that answers a question about the state in which the story ended: "Mara", "Alderby", "red"."""
        answers: list[tuple[str, Callable[[str], str | None]]] = [
            (rf"Who had the {WORD}\?", lambda noun: self.holder[noun]),
            (rf"Where was the {WORD}\?", self._place_of_thing),
            (rf"Where was {NAME}\?", lambda name: self.place[name]),
            (rf"What colour was the {WORD}\?", lambda noun: self.colour[noun]),
            (rf"What was {NAME}\?", lambda name: self.role[name]),
            (rf"How did {NAME} feel\?", lambda name: self.mood[name]),
        ]
        for pattern, find in answers:
            if match := re.fullmatch(pattern, question):
                return find(match[1]) or "nobody"
        raise ValueError(f"not a question about a story: {question}")

    def _read_sentence(self, sentence: str) -> None:
        question, mark, answer = sentence.rpartition("? ")
        is_so = not mark or last_word(answer) == self.answer(f"{question}?").lower()
        for pattern, learn_or_check in self._sentences():
            if match := re.fullmatch(pattern, answer):
                if not (learn_or_check(*match.groups()) and is_so):
                    self.contradictions.append(sentence)
                return
        self.unread.append(sentence)

    def _place_of_thing(self, noun: str) -> str:
        holder = self.holder[noun]
        return self.place[holder] if holder else self.lies_at[noun]

    def _meet(self, noun: str, name: str, role: str, place: str) -> bool:
        """Somebody's first appearance, with what they have."""
        is_new = name not in self.place and noun not in self.holder and role not in self.role.values()
        self.role[name], self.place[name], self.holder[noun] = role, place, name
        return is_new

    def _see_colour(self, noun: str, colour: str) -> bool:
        is_new = noun not in self.colour and noun in self.holder
        self.colour[noun] = colour
        return is_new

    def _go(self, name: str, place: str, old_place: str | None = None) -> bool:
        is_so = self.place[name] == (old_place or self.place[name]) != place
        self.place[name] = place
        return is_so

    def _go_away(self, name: str, name_again: str, place: str) -> bool:
        return name == name_again and self._go(name, place)

    def _give(self, giver: str, noun: str, receiver: str) -> bool:
        is_so = self.holder[noun] == giver and giver != receiver and self.place[giver] == self.place[receiver]
        self.holder[noun] = receiver
        return is_so

    def _hand(self, giver: str, colour: str, noun: str, receiver: str) -> bool:
        return self._is_coloured(noun, colour) and self._give(giver, noun, receiver)

    def _let_have(self, giver: str, noun: str, receiver: str, noun_again: str, receiver_again: str) -> bool:
        return (noun, receiver) == (noun_again, receiver_again) and self._give(giver, noun, receiver)

    def _carry(self, name: str, noun: str, place: str) -> bool:
        return self.holder[noun] == name and self._go(name, place)

    def _take_along(self, name: str, colour: str, noun: str, place: str) -> bool:
        return self._is_coloured(noun, colour) and self._carry(name, noun, place)

    def _carry_away(self, name: str, noun: str, noun_again: str, place: str) -> bool:
        return noun == noun_again and self._carry(name, noun, place)

    def _put(self, name: str, noun: str, place: str) -> bool:
        is_so = self.holder[noun] == name and self.place[name] == place
        self.holder[noun], self.lies_at[noun] = None, place
        return is_so

    def _put_down(self, name: str, colour: str, noun: str, noun_again: str, place: str) -> bool:
        return (noun, colour) == (noun_again, self.colour[noun]) and self._put(name, noun, place)

    def _find(self, name: str, noun: str, place: str) -> bool:
        is_so = self.holder[noun] is None and self.lies_at[noun] == place == self.place[name]
        self.holder[noun] = name
        return is_so

    def _pick_up(self, name: str, colour: str, noun: str, noun_again: str, name_again: str) -> bool:
        is_same = (noun, name, colour) == (noun_again, name_again, self.colour[noun])
        return is_same and self._find(name, noun, self.place[name])

    def _feel(self, name: str, mood: str) -> bool:
        is_new = name in self.place and self.mood.get(name) != mood
        self.mood[name] = mood
        return is_new

    def _sentences(self) -> list[tuple[str, Callable[..., bool]]]:
        """Every sentence of a story, the more particular ones first, with what it says of the state."""
        return [
            (
                r"It was an? \w+ \w+\.|One \w+ \w+, the world stood like this\.|The \w+ was \w+\.",
                lambda: not self.place,
            ),
            # Somebody appears.
            (
                rf"\w+ \w+ an? {WORD} \w+ {WORD} with {NAME} the {WORD} at {WORD}\.",
                lambda noun, colour, name, role, place: (
                    self._meet(noun, name, role, place) and self._see_colour(noun, colour)
                ),
            ),
            (rf"\w+ \w+ an? {WORD} with {NAME} the {WORD} at {WORD}\.", self._meet),
            (rf"The {WORD} was (?:painted|dyed|tinted) {WORD}\.", self._see_colour),
            # Something happens.
            (rf"{NAME} left {WORD} and \w+ to {WORD}\.", lambda n, old, new: self._go(n, new, old)),
            (rf"{NAME} (?:\w+ )?\w+ to {WORD}\.", self._go),
            (rf"{NAME} \w+ away\. Now {NAME} was at {WORD}\.", self._go_away),
            (rf"{NAME} carried the {WORD} to {WORD}\.", self._carry),
            (rf"{NAME} took the {WORD} {WORD} along to {WORD}\.", self._take_along),
            (rf"{NAME} \w+ away with the {WORD}\. Now the {WORD} was at {WORD}\.", self._carry_away),
            (rf"{NAME} gave the {WORD} to {NAME}\.", self._give),
            (rf"{NAME} \w+ handed the {WORD} {WORD} to {NAME}\.", self._hand),
            (rf"{NAME} asked for the {WORD}\.", lambda n, t: self.holder[t] not in (None, n)),
            (rf"{NAME} agreed, and now the {WORD} was with {NAME}\.", self._give),
            (
                rf"{NAME} was tired of the {WORD} and let {NAME} have it\. Now the {WORD} was with {NAME}\.",
                self._let_have,
            ),
            (rf"{NAME} left the {WORD} at {WORD}\.", self._put),
            (rf"{NAME} put down the {WORD} {WORD}\. Now the {WORD} lay at {WORD}\.", self._put_down),
            (rf"The {WORD} at {WORD} was found by {NAME}\.", lambda t, p, n: self._find(n, t, p)),
            (rf"{NAME} \w+ picked up the {WORD} {WORD}\. Now the {WORD} was with {NAME}\.", self._pick_up),
            (rf"(?:Now )?{NAME} became {WORD}\.|Now {NAME} felt {WORD}\.", lambda *of: self._feel(*filter(None, of))),
            (rf"All this made {NAME} {WORD}\.", self._feel),
            # Something is so.
            (rf"The {WORD} was with {NAME}\.", lambda t, n: self.holder[t] == n),
            (rf"(?:Now )?{NAME} was in {WORD}\.", lambda n, p: self.place[n] == p),
            (rf"The {WORD} was in {WORD}\.", lambda t, p: self._place_of_thing(t) == p),
            (rf"{NAME} served as {WORD}\.", lambda n, role: self.role[n] == role),
            (rf"The {WORD} was coloured {WORD}\.", self._is_coloured),
            (rf"{NAME} felt {WORD}\.", lambda n, mood: self.mood[n] == mood),
            # By the way.
            (rf"{NAME} (?:ate some|dreamed of|liked) .*\.", lambda n: n in self.place),
            (rf"(?:At|Near) {WORD} (?:grew|stood) an? \w+ \w+\.", self._is_somewhere),
            (rf"At {WORD}, an? \w+ \w+ \w+ \w+\.", self._is_somewhere),
            (rf"An? \w+ \w+ \w+ at {WORD}\.", self._is_somewhere),
            (rf"The {WORD} \w+ \w+\.", lambda role: role in self.role.values()),
            (rf"{NAME} \w+(?: \w+)?\.", lambda n: n in self.place),
        ]

    def _is_coloured(self, noun: str, colour: str) -> bool:
        """Whether a thing has the colour."""
        return self.colour[noun] == colour

    def _is_somewhere(self, place: str) -> bool:
        """Whether somebody or something is at the place."""
        return place in (*self.place.values(), *(self.lies_at[t] for t, n in self.holder.items() if n is None))


def last_word(sentence: str) -> str:
    """The last word of a sentence, in small letters."""
    return sentence.rstrip(".?").split()[-1].lower()
