"""This file knows what may be told of keys in an encryptor: names, whether they are loaded, what they are for.

Source: XFS4IoT release 2024-3 and 2021-1, KeyManagement.GetKeyDetail. Check values, key blocks and whatever else
stands in an answer are not even looked at here. What loads keys stands in xfs_keyloading.py.
"""

from collections.abc import Mapping
from typing import Any

from agent.drivers.xfs_messages import Names, clean, member
from agent.drivers.xfs_status import SAYS_NOTHING, word
from agent.model import Reading

MOST_KEYS = 64

LOADED = {"yes": "loaded", "no": "missing", "construct": "construct"}


class Keys:
    """The key slots of one service, at most MOST_KEYS in all. One that was listed and no longer is, is missing."""

    def __init__(self) -> None:
        self._names = Names(MOST_KEYS)

    def readings(self, details: Any, now: float) -> list[Reading]:
        """Readings of an answer's `keyDetails`."""
        if not isinstance(details, dict):
            return []
        out: list[Reading] = []
        for name, detail in list(details.items())[:MOST_KEYS]:
            slot, loaded = self._names.of(name), member(detail, "loaded")
            if not slot or not isinstance(loaded, str):
                continue
            if loaded.lower() not in SAYS_NOTHING:
                point = f"key.{slot}.state"
                state = LOADED.get(loaded.lower()) or word(point, loaded)
                out.append(Reading(point, state, now, raw=f"loaded={clean(loaded, 32)}"))
            if usage := clean(member(detail, "keyBlockInfo", "keyUsage"), 4):
                out.append(Reading(f"key.{slot}.usage", usage, now))
        listed = {name[:64] for name in details}
        gone = [slot for name, slot in self._names.known().items() if name not in listed]
        why = "GetKeyDetail does not list it any more"
        return out + [Reading(f"key.{slot}.state", "missing", now, raw=why, inferred=True) for slot in gone]


def misused(payload: Mapping[str, Any], now: float) -> Reading:
    """What an IllegalKeyAccessEvent says: the name of the key and the reason."""
    raw = f"{clean(payload.get('keyName'), 32)}: {clean(payload.get('errorCode'), 32)}"
    return Reading("epp.illegal_access", 1, now, raw=raw)
