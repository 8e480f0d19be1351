"""This file knows the conversation with a running hwsim: JSON lines on a Unix socket in its run folder.

One connection is one request, `{"do": "show", ...}`. The answer is any number of `{"data": {...}}` and then
`{"end": true}`, or `{"refused": "sentence", "status": 2}`. Who hangs up stops what was asked.
"""

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Callable, Generator
from pathlib import Path
from typing import Any

from hwsim.errors import NOT_HERE, Refusal

Request = dict[str, Any]
Data = dict[str, Any]
Answer = Callable[[Request], AsyncIterator[Data]]
"""Answers one request, piece by piece. Raises Refusal."""

LONGEST = 1 << 20
"""Bytes of a request at the most: a scenario of some thousand steps."""


def socket_of(run: Path) -> Path:
    """The control socket of a run folder."""
    return run / "control.sock"


async def serve(run: Path, answer: Answer) -> asyncio.Server:
    """Answer requests on the control socket, which only our own user can open. Raises Refusal."""

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _converse(answer, reader, writer)

    mask = os.umask(0o177)  # mode 0600 from the first moment
    try:
        return await asyncio.start_unix_server(converse, socket_of(run), limit=LONGEST)
    except OSError as error:
        raise Refusal(
            f"{socket_of(run)} cannot be made ({error}); choose another folder with --run", NOT_HERE
        ) from error
    finally:
        os.umask(mask)


def ask(run: Path, request: Request) -> Generator[Data, None, None]:
    """Ask the server of a run folder; yields its answer piece by piece. Raises Refusal."""
    nobody = Refusal(
        f"no hwsim server in {run}; start one with `hwsim serve FILE`, or give its folder with --run DIR", NOT_HERE
    )
    with socket.socket(socket.AF_UNIX) as line:
        try:
            line.connect(str(socket_of(run)))
        except OSError as error:
            raise nobody from error
        try:
            line.sendall(_line(request))
            for text in line.makefile("rb"):
                reply = json.loads(text)
                if "data" in reply:
                    yield reply["data"]
                elif "refused" in reply:
                    raise Refusal(reply["refused"], reply["status"])
                else:
                    return
        except (BrokenPipeError, ConnectionResetError):
            pass
    raise Refusal(f"the hwsim server in {run} stopped before it had answered; start it again", NOT_HERE)


def _request(line: bytes) -> Request:
    try:
        request = json.loads(line)
    except ValueError:
        request = None
    if not isinstance(request, dict):
        raise Refusal(f"a request is one JSON object on one line, at most {LONGEST} bytes")
    return request


def _line(reply: Any) -> bytes:
    return json.dumps(reply, separators=(",", ":")).encode() + b"\n"


async def _converse(answer: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        line = await reader.readline()
    except ValueError:
        line = b""  # longer than LONGEST
    speaking = asyncio.ensure_future(_speak(answer, line, writer))
    hung_up = asyncio.ensure_future(reader.read())
    try:
        await asyncio.wait({speaking, hung_up}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        speaking.cancel()
        hung_up.cancel()
        writer.close()
    if speaking.done() and not speaking.cancelled():
        speaking.result()


async def _speak(answer: Answer, line: bytes, writer: asyncio.StreamWriter) -> None:
    try:
        async for data in answer(_request(line)):
            writer.write(_line({"data": data}))
            await writer.drain()
        writer.write(_line({"end": True}))
        await writer.drain()
    except Refusal as no:
        writer.write(_line({"refused": str(no), "status": no.status}))
    except ConnectionError:
        return  # who asked hung up
