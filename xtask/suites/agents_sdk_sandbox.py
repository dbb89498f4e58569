#!/usr/bin/env python3
"""Runs a command in a `unix_local` sandbox of the OpenAI Agents SDK, in the directory this script is started in.

    agents_sdk_sandbox.py COMMAND ARGUMENT...
"""

import asyncio
import os
import sys

from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxClient


async def main() -> int:
    client = UnixLocalSandboxClient()
    session = await client.create()
    await session.start()
    try:
        # The session has a workspace of its own; the command finds its files here.
        script = 'cd "$0" && exec "$@"'
        result = await session.exec("sh", "-c", script, os.getcwd(), *sys.argv[1:], shell=False)
    finally:
        await session.shutdown()
        await client.delete(session)
    sys.stdout.write(result.stdout.decode())
    sys.stderr.write(result.stderr.decode())
    return result.exit_code


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
