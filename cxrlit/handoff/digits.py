"""How many digits a probability needs beside its threshold."""

MIN_DIGITS, MAX_DIGITS = 3, 6


def count_digits(prob: float, threshold: float | None) -> int:
    """Digits after the point at which a probability and its threshold look different, as few as do, from 3 to 6.

    Args:
        prob: What is held against the threshold: the calibrated probability.
        threshold: None where there is none.

    >>> count_digits(0.2109, 0.2111), count_digits(0.21099, 0.21101), count_digits(0.2, 0.7), count_digits(0.5, 0.5)
    (4, 5, 3, 3)
    """
    if threshold is None or prob == threshold:
        return MIN_DIGITS
    digits = range(MIN_DIGITS, MAX_DIGITS)
    return next((one for one in digits if f"{prob:.{one}f}" != f"{threshold:.{one}f}"), MAX_DIGITS)
