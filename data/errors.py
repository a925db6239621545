"""A user's mistakes in data: one line each that says what is wrong, where, and what to do."""


class DataError(ValueError):
    """Data that cannot be used as they are; several mistakes are several lines."""

    def __init__(self, *lines: str):
        super().__init__("\n".join(lines))


class ImageError(ValueError):
    """A file that is not a readable image; the message names its path.

    A loader's worker process hands over its whole traceback as the message: only the last line is for the reader.
    """

    def __init__(self, message: str):
        last = message.strip().splitlines()[-1] if "Original Traceback" in message else message
        super().__init__(last.split("ImageError: ", 1)[-1])
