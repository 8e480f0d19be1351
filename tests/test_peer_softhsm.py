"""SoftHSM2 as a black box: a key goes in and cannot be read back; its check value and ciphertexts equal ours."""

import json
import subprocess
from pathlib import Path
from random import Random

import pytest

from agent.crypto import des, mac
from agent.crypto.secret import Secret
from tests.strangers import PATH, SOFTHSM, run_peer

pytestmark = [pytest.mark.peer("softhsm2", ".venv-peers")]
SCRIPT = """
import json, os, sys
os.environ["SOFTHSM2_CONF"] = sys.argv[2]
import pkcs11
from pkcs11 import Attribute, KeyType, Mechanism, ObjectClass
found, clear = [], bytes(range(32))
with pkcs11.lib(sys.argv[1]).get_token(token_label="room").open(user_pin="5678", rw=True) as session:
    for value in sys.argv[3:]:
        value = bytes.fromhex(value)
        key = session.create_object({
            Attribute.CLASS: ObjectClass.SECRET_KEY,
            Attribute.KEY_TYPE: {16: KeyType.DES2, 24: KeyType.DES3}[len(value)],
            Attribute.VALUE: value, Attribute.ENCRYPT: True, Attribute.SIGN: True,
            Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False,
        })
        try:
            readable = bool(key[Attribute.VALUE])
        except pkcs11.exceptions.AttributeSensitive:
            readable = False
        found.append({
            "readable": readable,
            "kcv": key[Attribute.CHECK_VALUE].hex(),
            "ecb": key.encrypt(clear, mechanism=Mechanism.DES3_ECB).hex(),
            "cbc": key.encrypt(clear, mechanism=Mechanism.DES3_CBC, mechanism_param=clear[:8]).hex(),
            "cmac": key.sign(b"twenty bytes of text", mechanism=Mechanism.DES3_CMAC).hex(),
        })
print(json.dumps(found))
"""


@pytest.fixture
def token(tmp_path: Path) -> Path:
    """A fresh token in a folder of its own; returns its configuration file."""
    folder, configuration = tmp_path / "tokens", tmp_path / "softhsm2.conf"
    folder.mkdir()
    configuration.write_text(f"directories.tokendir = {folder}\nobjectstore.backend = file\n")
    command = ["softhsm2-util", "--init-token", "--free", "--label", "room", "--so-pin", "1234", "--pin", "5678"]
    environment = {"SOFTHSM2_CONF": str(configuration), "PATH": PATH}
    subprocess.run(command, env=environment, capture_output=True, check=True, timeout=30)
    return configuration


def test_softhsm_computes_what_we_compute(token: Path) -> None:
    draw = Random(8731)
    keys = [draw.randbytes(size) for size in [16, 24] * 12]
    half, other = draw.randbytes(8), draw.randbytes(8)
    # Components may look like this: what they are is single DES, and they have a check value all the same.
    keys += [half * 2, half * 3, half * 2 + other, half + other * 2, bytes(16)]
    seen = json.loads(run_peer(SCRIPT, str(SOFTHSM), str(token), *(key.hex() for key in keys)))
    clear, iv = bytes(range(32)), bytes(range(8))
    for raw, theirs in zip(keys, seen, strict=True):
        key = Secret(raw)
        assert theirs == {
            "readable": False,
            "kcv": des.zero_kcv(key).value.hex(),
            "ecb": des.encrypt(key, clear).hex(),
            "cbc": des.encrypt(key, clear, iv).hex(),
            "cmac": mac.cmac(key, b"twenty bytes of text").hex(),
        }
