"""This file knows the two test people who sign the orders of a drill; their keys live as long as this process.

    python deploy/drill/sign_orders.py signers.toml < orders.json > signed.json

Orders expire, so none can be kept signed in a repository: each drill has its own, and its own two signers. The file
of signers is written for the agent's [keys] table. Orders and envelopes are JSON lists, in the same order.
Every order must be one for a simulator: whoever runs this can sign nothing that a real terminal would carry out.
"""

import json
import sys
from pathlib import Path

from agent.crypto.ed25519 import SigningKey
from agent.crypto.orders import Order
from agent.crypto.signing import ORDER, Envelope

PEOPLE = {"drill-maker": "maker", "drill-checker": "checker"}


def main() -> int:
    """Sign what is on stdin."""
    keys = {name: SigningKey.generate() for name in PEOPLE}
    entries = [
        f"[[signer]]\nname = \"{name}\"\nroles = [\"{PEOPLE[name]}\"]\nkey = '''\n{key.public.pem}'''\n"
        for name, key in keys.items()
    ]
    signed = []
    for document in json.load(sys.stdin):
        order = Order.parse(document)
        if order.hierarchy != "test":
            print("sign_orders.py signs orders of hierarchy test only", file=sys.stderr)
            return 1
        payload = json.dumps(order.document(), sort_keys=True, separators=(",", ":")).encode()
        envelope = Envelope(ORDER, payload)
        for key in keys.values():
            envelope = envelope.signed(key)
        signed.append(envelope.text.decode())
    Path(sys.argv[1]).write_text("\n".join(entries), encoding="utf-8")
    json.dump(signed, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
