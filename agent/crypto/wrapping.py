"""This file knows key blocks from the inside: TR-31:2018 / ANSI X9.143:2021 wrapping. For the key room only.

    version   protection key   encryption key, MAC key     encryption               MAC
    A, C      3DES             KBPK XOR 45.., 4D..         3DES CBC, IV = header    CBC-MAC of header and ciphertext
    B         3DES             CMAC of KBPK over a count   3DES CBC, IV = MAC       CMAC of header and clear payload
    D         AES              the same                    AES CBC, IV = MAC        the same, AES
    E         AES (ISO 20038)  the same                    AES CTR from MAC         the same, AES

The clear payload is the key's length in bits (2 bytes), the key, and random filling up to the longest key of its
algorithm, so that the length of the block does not tell the length of the key.
On the way in, nothing of the clear payload is looked at before the MAC holds, and whatever is wrong then has one
sentence. `Policy` (keyblock.py) says which sound but unwanted blocks are taken all the same.
"""

import hmac
from collections.abc import Callable

from Crypto.Cipher import AES
from Crypto.Random import get_random_bytes

from agent.crypto import des, mac
from agent.crypto.kcv import Kcv, Method
from agent.crypto.keyblock import CIPHER_BLOCK, MAC_DIGITS, Header, KeyBlock, Policy
from agent.crypto.secret import Secret, wipe, xor_into
from agent.errors import KeyRefused, NotAuthentic

LENGTH_BYTES = 2
LONGEST_FILL = 32
STRICT = Policy()
_LONGEST_KEY = {"T": 24, "D": 24, "A": 32}
_TO_ENCRYPT, _TO_AUTHENTICATE, _TO_ENCRYPT_CTR = 0, 1, 2
_KDF_ALGORITHM = {("T", 16): 0, ("T", 24): 1, ("A", 16): 2, ("A", 24): 3, ("A", 32): 4}


def unwrap(block: KeyBlock, kbpk: Secret, policy: Policy = STRICT) -> Secret:
    """The key in a block. The parity of a DES key is left as it is: `des.odd_parity` sets it.

    Raises BlockRefused for a header that the policy does not take, NotAuthentic for a wrong key or damage of any
    kind, KeyRefused for an authentic block with a key, or under a protection key, that must not be used.
    """
    header = block.header
    policy.check(header)
    _refuse_protection_key(kbpk, header, policy)
    with _opened(block, kbpk) as clear:
        key = _key_in(clear.reveal())
    try:
        _refuse_content(key, kbpk, header, policy)
    except KeyRefused:
        key.wipe()
        raise
    return key


def wrap(
    header: Header,
    key: Secret,
    kbpk: Secret,
    policy: Policy = STRICT,
    random: Callable[[int], bytes] = get_random_bytes,
) -> KeyBlock:
    """A new block around a key. Raises BlockRefused or KeyRefused for whatever `unwrap` would refuse.

    random: gives n random bytes; only tests give another one than the operating system's.
    """
    policy.check(header)
    _refuse_protection_key(kbpk, header, policy)
    _refuse_content(key, kbpk, header, policy)
    size = LENGTH_BYTES + len(key)
    if header.version != "E":
        size = LENGTH_BYTES + max(len(key), _LONGEST_KEY.get(header.algorithm, 0))
        size += -size % CIPHER_BLOCK[header.version]
    head = header.text(size)
    clear, end = bytearray(size), LENGTH_BYTES + len(key)
    clear[:LENGTH_BYTES] = (len(key) * 8).to_bytes(LENGTH_BYTES, "big")
    clear[LENGTH_BYTES:end] = key.reveal()
    clear[end:] = random(size - end)
    with Secret.taking(clear) as content:
        payload, seal = _sealed(head, header.version, content, kbpk)
    return KeyBlock.parse(f"{head}{(payload + seal).hex().upper()}")


def block_keys(kbpk: Secret, version: str) -> tuple[Secret, Secret]:
    """The encryption key and the MAC key of a block (X9.143:2021 section 7). Their parity is not set."""
    if version in "AC":
        return _variant(kbpk, 0x45), _variant(kbpk, 0x4D)
    to_encrypt = _TO_ENCRYPT_CTR if version == "E" else _TO_ENCRYPT
    algorithm = "T" if version == "B" else "A"
    return _derived(kbpk, algorithm, to_encrypt), _derived(kbpk, algorithm, _TO_AUTHENTICATE)


def check_value(key: Secret, algorithm: str, method: Method) -> Kcv:
    """The check value of a T, D or A key by a method. Raises KeyRefused for the zero method over AES."""
    if algorithm == "A" and method == "zero":
        raise KeyRefused("an AES key has a CMAC check value only")
    if algorithm == "A":
        return mac.aes_kcv(key)
    return des.zero_kcv(key) if method == "zero" else mac.cmac_kcv(key)


def _variant(kbpk: Secret, byte: int) -> Secret:
    varied = bytearray(kbpk.reveal())
    xor_into(varied, bytes([byte]) * len(kbpk))
    return Secret.taking(varied)


def _derived(kbpk: Secret, algorithm: str, use: int) -> Secret:
    block = des.BLOCK if algorithm == "T" else mac.AES_BLOCK
    cmac = mac.cmac if algorithm == "T" else mac.aes_cmac
    kind = _KDF_ALGORITHM[algorithm, len(kbpk)]
    derived = bytearray()
    for counter in range(1, -(-len(kbpk) // block) + 1):
        numbers = ((counter, 1), (use, 2), (0, 1), (kind, 2), (len(kbpk) * 8, 2))
        derived += cmac(kbpk, b"".join(number.to_bytes(size, "big") for number, size in numbers))
    key = Secret(memoryview(derived)[: len(kbpk)])
    wipe(derived)
    return key


def _sealed(head: str, version: str, clear: Secret, kbpk: Secret) -> tuple[bytes, bytes]:
    """The encrypted payload and the MAC."""
    encryption, authentication = block_keys(kbpk, version)
    with encryption, authentication:
        if version in "AC":
            payload = des.encrypt(encryption, clear.reveal(), head[: des.BLOCK].encode())
            return payload, _mac(version, authentication, head, payload)
        seal = _mac(version, authentication, head, clear.reveal())
        if version == "B":
            return des.encrypt(encryption, clear.reveal(), seal), seal
        return bytes(_aes(version, encryption, seal, clear.reveal(), decrypt=False).reveal()), seal


def _opened(block: KeyBlock, kbpk: Secret) -> Secret:
    """The clear payload, once its MAC holds. Raises NotAuthentic."""
    version = block.header.version
    encryption, authentication = block_keys(kbpk, version)
    with encryption, authentication:
        if version in "AC":
            if not hmac.compare_digest(_mac(version, authentication, block.head, block.payload), block.mac):
                raise NotAuthentic
            return des.decrypt(encryption, block.payload, block.head[: des.BLOCK].encode())
        if version == "B":
            clear = des.decrypt(encryption, block.payload, block.mac)
        else:
            clear = _aes(version, encryption, block.mac, block.payload, decrypt=True)
        if not hmac.compare_digest(_mac(version, authentication, block.head, clear.reveal()), block.mac):
            clear.wipe()
            raise NotAuthentic
        return clear


def _mac(version: str, key: Secret, head: str, content: bytes | bytearray) -> bytes:
    covered = bytearray(head.encode()) + content
    code = {"B": mac.cmac, "D": mac.aes_cmac, "E": mac.aes_cmac}.get(version, mac.cbc_mac)(key, covered)
    wipe(covered)
    return code[: MAC_DIGITS[version] // 2]


def _aes(version: str, key: Secret, iv: bytes, content: bytes | bytearray, *, decrypt: bool) -> Secret:
    done = bytearray(len(content))
    if version == "E":
        counter = int.from_bytes(iv, "big")
        AES.new(bytes(key.reveal()), AES.MODE_CTR, nonce=b"", initial_value=counter).encrypt(content, output=done)
    else:
        cipher = AES.new(bytes(key.reveal()), AES.MODE_CBC, iv=iv)
        (cipher.decrypt if decrypt else cipher.encrypt)(content, output=done)
    return Secret.taking(done)


def _key_in(clear: bytearray) -> Secret:
    """The key in an authentic payload. Raises NotAuthentic when length or filling are not those of a key."""
    bits = int.from_bytes(clear[:LENGTH_BYTES], "big")
    fill = len(clear) - LENGTH_BYTES - bits // 8
    if bits == 0 or bits % 8 or not 0 <= fill <= LONGEST_FILL:
        raise NotAuthentic
    return Secret(memoryview(clear)[LENGTH_BYTES : len(clear) - fill])


def _refuse_protection_key(kbpk: Secret, header: Header, policy: Policy) -> None:
    algorithm = "T" if header.version in "ABC" else "A"
    if (algorithm, len(kbpk)) not in _KDF_ALGORITHM:
        raise KeyRefused("the protection key's length does not fit the version of the block")
    refuse_unsound(kbpk, algorithm, policy)


def _refuse_content(key: Secret, kbpk: Secret, header: Header, policy: Policy) -> None:
    """Quality and strength of the key, and the check values that the header names."""
    refuse_unsound(key, header.algorithm, policy, component=header.is_component)
    under = "T" if header.version in "ABC" else "A"
    if not policy.weak_wrapping and _rank(key, header.algorithm) > _rank(kbpk, under):
        raise KeyRefused("the key is stronger than the protection key above it")
    for name, of, algorithm in (("KC", key, header.algorithm), ("KP", kbpk, under)):
        named = header.find(name)
        if named is not None and algorithm in _LONGEST_KEY:
            value = named.check_value()
            if not check_value(of, algorithm, value.method).agrees(value):
                raise KeyRefused(f"optional block {name} names another check value than the key has")


def refuse_unsound(key: Secret, algorithm: str, policy: Policy, *, component: bool = False) -> None:
    """Length, and for anything but a component also weakness. RSA, EC, DSA and HMAC keys are not looked into."""
    lengths = {"T": (8, 16, 24) if policy.single else (16, 24), "D": (8,), "A": AES.key_size}
    if not len(key) or len(key) not in lengths.get(algorithm, (len(key),)):
        raise KeyRefused("the key's length does not fit its algorithm")
    if component:
        return
    if algorithm in "TD":
        des.refuse_unsound(key, single=policy.single, test_keys=policy.test_keys)
    elif algorithm == "A" and not policy.test_keys and des.is_public(key):
        raise KeyRefused("this is a published test key, or one that nobody drew at random")


def _rank(key: Secret, algorithm: str) -> int:
    """An order of strength: 1 to 3 parts of DES, then AES. Other algorithms are not compared."""
    if algorithm in "TD":
        return des.strength(key)
    return len(key) // 8 + 2 if algorithm == "A" else 0
