"""This file knows how to seal any header around any content, so that a refusal is never owed to a wrong MAC."""

from agent.crypto import des, mac, wrapping
from agent.crypto.secret import Secret

KBPK = Secret(bytes.fromhex("DD7515F2BFC17F85CE48F3CA25CB21F6"))
KEY = bytes.fromhex("3F419E1CB7079442AA37474C2EFBF8B8")


def content(key: bytes = KEY, bits: int | None = None, size: int = 32) -> bytes:
    """A clear payload: length in bits, key, filling."""
    clear = (len(key) * 8 if bits is None else bits).to_bytes(2, "big") + key
    return clear + b"\xa5" * (size - len(clear))


def forge(rest: str, clear: bytes = content(), optional: str = "") -> str:
    """A version B block with a right MAC; `rest` is the fixed header from the usage on."""
    head = f"B{16 + len(optional) + 2 * len(clear) + 16:04}{rest}{optional}"
    encryption, authentication = wrapping.block_keys(KBPK, "B")
    seal = mac.cmac(authentication, head.encode() + clear)
    return f"{head}{(des.encrypt(encryption, clear, seal) + seal).hex().upper()}"
