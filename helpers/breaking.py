"""`break_it`: change one place of a page's functions and see which checks notice. (Being written.)"""


def break_it():
    """Offer the page's public functions and their one-place changes; see which checks turn red."""
