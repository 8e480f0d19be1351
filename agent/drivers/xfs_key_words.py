"""This file knows what the error words of KeyManagement and Keyboard mean for the person at the pad.

Source: XFS4IoT release 2024-3, completion codes; errorCode of ImportKey, DeleteKey, Initialization, GenerateKCV and
SecureKeyEntry. The words are public. A service that writes something else in their place, be it what it was sent,
is not quoted. Why a block was not accepted is one sentence for all reasons.
"""

import re

_BLOCK = "the EPP does not accept this block: ask for a new one"
_BUSY = "the EPP is not ready: look at the device, and begin again"
_WRONG = "the EPP's service does not take this command as it was sent"
_SPELLED = re.compile(r"[a-z][a-zA-Z]{3,30}")

SENTENCES = {
    "accessDenied": "the EPP does not permit it: it is not initialised, or not ready",
    "algorithmNotSupported": "the EPP does not know the key's algorithm",
    "authorizationRequired": "the EPP wants a signed permission, which this agent has not",
    "canceled": "it was cancelled",
    "contentInvalid": _BLOCK,
    "cryptoMethodNotSupported": "the EPP cannot decrypt a key in this way",
    "deviceNotReady": _BUSY,
    "duplicateKey": "the slot holds a key already: delete it first",
    "entryTimeout": "the EPP has waited too long for the next digit",
    "formatInvalid": _BLOCK,
    "formatNotSupported": "the EPP does not know this kind of block",
    "fraudAttempt": "the EPP tells of an attempt of fraud: stop, and call security",
    "hardwareError": "the EPP has a fault",
    "internalError": "the EPP's service has a fault",
    "invalidCommand": _WRONG,
    "invalidData": _WRONG,
    "invalidKeyLength": "the EPP does not take a key of this length",
    "invalidMessage": _WRONG,
    "invalidRequestID": _WRONG,
    "invalidToken": "the EPP wants a signed permission, which this agent has not",
    "invalidValue": _BLOCK,
    "keyInvalid": "the EPP does not know a key of the keypad that was named",
    "keyNoValue": "there is no key, or no part of one, where the EPP looks for it",
    "keyNotFound": "the EPP has no key of that name",
    "keyNotSupported": "the EPP does not have a key of the keypad that was named",
    "macInvalid": _BLOCK,
    "missingKeys": "the keypad does not show all hex digits",
    "modeNotSupported": "the EPP does not know this usage and mode of use, or this check value",
    "modeOfUseNotSupported": "the EPP does not know this mode of use",
    "noActiveKeys": "no key of the keypad can be used for the entry",
    "noKeyRam": "the EPP has no room for another key",
    "noTerminatekeys": "no key of the keypad can end the entry",
    "notEnoughSpace": "the EPP has no room for another key",
    "partialFrame": "the touch keypad does not cover the screen",
    "randomInvalid": _BLOCK,
    "sequenceError": "the EPP is in the middle of another key: delete it first",
    "signatureInvalid": _BLOCK,
    "signatureNotSupported": _BLOCK,
    "timeOut": "nobody has finished it in time",
    "tooManyFrames": "the touch keypad has more frames than the EPP can use",
    "tooManyRequests": _BUSY,
    "unsupportedCommand": _WRONG,
    "unsupportedData": _WRONG,
    "useViolation": "the key that this one is under may not be used for that",
    "userError": "the EPP wants a person to look at it",
}
_BY_CASE = {word.lower(): word for word in SENTENCES}


def public(code: str) -> str:
    """An error word as it may be shown: the standard's, one that is spelled like these, or `unknown`."""
    known = _BY_CASE.get(code.lower())
    return known or (code if _SPELLED.fullmatch(code) else "unknown")


def failure(code: str) -> tuple[str, str]:
    """What an error word means, in a sentence, and the word itself."""
    word = public(code)
    return SENTENCES.get(word, f"the EPP does not do it ({word})"), word
