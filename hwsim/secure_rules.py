"""This file knows which keys the simulated secure device may hold, and the words in which it refuses one.

Rules: PCI PIN 8-1 and 15-1, SP 800-67, X9.143. A component is never tested, the key made of it always; parity is
fixed, never refused. Error words are those of XFS4IoT's KeyManagement where it has one. What no real pad would do:
it holds public test keys only, known by their check values, unless it is in a laboratory.
"""

from hwsim.secure_block import USAGES
from hwsim.secure_des import LENGTHS, check_value, strength, unsound

_PUBLIC = """
    A08793E A0A00E3 A233155 A53E107 A9E357F AD77F00 D0547DB D6678BD DAB7153 DD5D44F DD96260 T08D7B4 T0EC17B
    T11B651 T2F0EEA T43C6CC T47F816 T4C3CDD T4EBA73 T57C409 T5802BA T5C9405 T712C8C T7B8358 T859C43 T8D0A74
    T9A4212 TAF8C07 TB29D42 TC41B33 TCB9DEA TD1D812 TE1CC69 TF4B016 TF4B08D TF7BAA8 TFB0975 TFE6DB4
    TFF5087
"""
PUBLIC = frozenset(_PUBLIC.split())
"""Algorithm and check value of published test keys: the examples of standards, of makers and of test suites."""
MODES = tuple("BCDEGNSTVXY")


class Refused(Exception):
    """The device does not do it. `code` is the error word; the sentence is public."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


def check_use(usage: str, algorithm: str, mode: str, *, single: bool) -> None:
    """Whether there is such a use of a key. Raises Refused."""
    if algorithm not in LENGTHS:
        raise Refused("algorithmNotSupported", "this device holds DES and AES keys only")
    if usage not in USAGES:
        raise Refused("useViolation", "the usage of the key is not known")
    if mode not in MODES:
        raise Refused("modeNotSupported", "the mode of use of the key is not known")
    if algorithm == "D" and not single:
        raise Refused("invalidKeyLength", "a single-length DES key is taken only with --single")


def check_key(algorithm: str, key: bytes, *, laboratory: bool) -> None:
    """Whether a key is one to hold. Raises Refused."""
    if len(key) not in LENGTHS[algorithm]:
        raise Refused("invalidKeyLength", "the key has a wrong length")
    if why := unsound(algorithm, key):
        raise Refused("contentInvalid", f"the key is refused: {why}")
    if not laboratory and algorithm + check_value(algorithm, key) not in PUBLIC:
        raise Refused(
            "accessDenied",
            "this simulator holds public test keys only, and this is none; a laboratory starts it with --lab",
        )


def check_carrier(algorithm: str, key: bytes, carried: str, carried_key: bytes) -> None:
    """Whether one key may carry another one: a key is never carried by a weaker one. Raises Refused."""
    weaker = strength(algorithm, key) < strength(carried, carried_key)
    if weaker or (carried == "A" and algorithm != "A"):
        raise Refused("useViolation", "a key is never carried by a weaker one")
