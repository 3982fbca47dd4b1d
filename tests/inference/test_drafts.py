from hornbook.inference.drafts import MOST_DRAFTED, Drafts


def test_a_draft_is_what_followed_the_last_tokens_when_they_stood_there_before():
    assert Drafts().next([1, 2, 3, 4, 5, 9, 2, 3], 8) == [4, 5]
    assert Drafts().next([1, 2, 3, 4, 5], 8) == []
    assert Drafts().next([1], 8) == []


def test_three_tokens_tell_more_than_two_and_the_last_time_more_than_the_first():
    assert Drafts().next([1, 2, 3, 7, 7, 9, 2, 3, 8, 8, 1, 2, 3], 1) == [7]
    assert Drafts().next([2, 3, 7, 5, 2, 3, 8, 5, 2, 3], 1) == [8]


def test_a_text_that_grows_is_indexed_as_it_grows():
    drafts, text = Drafts(), [5, 6, 7]
    assert drafts.next(text, 8) == []
    text += [5, 6]
    assert drafts.next(text, 8) == [7, 5]


def test_drafts_grow_while_they_are_right_and_shrink_when_they_are_wrong():
    text = [*range(20), 0, 1]
    drafts = Drafts()
    lengths = []
    for n_right in (2, 4, 7, 0, 0, 1):
        drafted = drafts.next(text, 99)
        lengths.append(len(drafted))
        drafts.learn(len(drafted), min(n_right, len(drafted)))
    assert lengths == [2, 4, MOST_DRAFTED, MOST_DRAFTED, 1, 1]
    assert len(drafts.next(text, 99)) == 2
    assert len(drafts.next(text, 1)) == 1
