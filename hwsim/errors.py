"""This file knows how hwsim says no: one sentence with the next step, and the exit status it ends in."""

NOT_WELL, USAGE, NOT_HERE = 1, 2, 3
"""Exit statuses: something is not well; the request is wrong; it cannot be done here. 0 is fine."""


class Refusal(Exception):
    """What was asked cannot be done. `status` is the exit status of the command that asked."""

    def __init__(self, sentence: str, status: int = USAGE) -> None:
        super().__init__(sentence)
        self.status = status
