"""This file knows the embedded broker of the demo: amqtt, MQTT 3.1.1, anonymous, loopback only.

    python -m hwsim.broker PORT

It lets a demo run where no mosquitto is installed. **Never for a site.** What amqtt (0.12) gets wrong, each seen
with an independent client:

- MQTT 5 is refused ("unsupported protocol version");
- a message published with QoS 0 reaches a QoS 2 subscriber with QoS 2, not with the smaller of the two;
- every new connection gets, unasked, the retained messages of topics that anyone else has subscribed to;
- no last will after a keep-alive timeout (there is one when the connection breaks);
- a second connection with the same client id does not end the first;
- an anonymous client's persistent session keeps no messages while it is away;
- `cafile` does not make it demand a client certificate.
"""

import asyncio
import importlib
import logging
import signal
import sys

from hwsim.errors import NOT_HERE, USAGE, Refusal


async def serve(port: int) -> None:
    """Serve on 127.0.0.1:port until SIGINT or SIGTERM. Raises Refusal."""
    try:
        # Imported by name: the package is optional, and carries no types.
        amqtt = importlib.import_module("amqtt.broker")
        errors = importlib.import_module("amqtt.errors")
    except ImportError as error:
        raise Refusal(
            "the demo's broker needs amqtt: pip install 'tillwire[demo]', or use a mosquitto", NOT_HERE
        ) from error
    broker = amqtt.Broker(
        {
            "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}},
            "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
        }
    )
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        await broker.start()
    except (OSError, errors.BrokerError) as error:
        raise Refusal(f"port {port} cannot be served; free it, or give another one", NOT_HERE) from error
    print(f"READY mqtt://127.0.0.1:{port}", flush=True)
    await stop.wait()
    await broker.shutdown()


def main() -> None:
    """The command `python -m hwsim.broker PORT`."""
    # amqtt logs each lost client with a traceback; the demo's screen belongs to the devices.
    logging.basicConfig(level=logging.CRITICAL)
    try:
        if len(sys.argv) != 2 or not sys.argv[1].isdigit() or not 0 < int(sys.argv[1]) < 65536:
            raise Refusal("give one port, 1 to 65535: python -m hwsim.broker 1883", USAGE)
        asyncio.run(serve(int(sys.argv[1])))
    except Refusal as no:
        print(f"hwsim.broker: {no}", file=sys.stderr)
        sys.exit(no.status)


if __name__ == "__main__":
    main()
