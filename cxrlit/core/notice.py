"""The notice that readers of any result must see first: one wording for pages, screens and answers."""

RESEARCH_USE = "Research use only: not a medical device."
OF_PATIENTS = "This page shows images or names of patients: treat it like the data themselves."


def make_notice(shows_patients: bool) -> str:
    """The notice of a page.

    >>> make_notice(shows_patients=False)
    'Research use only: not a medical device.'
    """
    return f"{RESEARCH_USE} {OF_PATIENTS}" if shows_patients else RESEARCH_USE
