#!/usr/bin/env python3
"""Times the files of a `unix_local` sandbox of the OpenAI Agents SDK: one JSON case a line, as benchmarks print them.

The sandbox writes to a directory of the host, without walls. The sizes are those of `crates/cofferdam/benches/files.rs`.
"""

import asyncio
import io
import json
import os
import tempfile
import time
from pathlib import Path
from statistics import median

from agents.sandbox import Manifest
from agents.sandbox.entries import LocalDir
from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxClient

FILES, SIZE = 200, 4096
TREE_FILES, TREE_SIZE = 2000, 10 * 1024
ROUNDS = 5


def show(case, seconds):
    times = sorted(second * 1000 for second in seconds)
    print(json.dumps({"case": case, "median_ms": median(times), "min_ms": times[0], "n": len(times)}))


async def with_session(manifest, work):
    client = UnixLocalSandboxClient()
    started = time.perf_counter()
    session = await (client.create(manifest=manifest) if manifest else client.create())
    await session.start()
    try:
        return await work(session, started)
    finally:
        await session.shutdown()
        await client.delete(session)


async def small_files(session, _started):
    writes, reads = [], []
    for round in range(ROUNDS):
        started = time.perf_counter()
        for file in range(FILES):
            await session.write(Path(f"f{round}-{file}"), io.BytesIO(bytes([file % 256]) * SIZE))
        writes.append(time.perf_counter() - started)
        started = time.perf_counter()
        for file in range(FILES):
            found = (await session.read(Path(f"f{round}-{file}"))).read()
            assert found == bytes([file % 256]) * SIZE
        reads.append(time.perf_counter() - started)
    show("agents sdk, unix_local: 200 files of 4 KiB written", writes)
    show("agents sdk, unix_local: 200 files of 4 KiB read", reads)


async def filled(session, started):
    took = time.perf_counter() - started
    found = (await session.read(Path(f"tree/{TREE_FILES - 1}"))).read()
    assert len(found) == TREE_SIZE
    return took


async def main():
    await with_session(None, small_files)
    with tempfile.TemporaryDirectory() as directory:
        # The source of a LocalDir lies below the working directory.
        os.chdir(directory)
        Path("source").mkdir()
        for file in range(TREE_FILES):
            Path(f"source/{file}").write_bytes(bytes([file % 256]) * TREE_SIZE)
        took = []
        for _ in range(ROUNDS):
            manifest = Manifest(entries={"tree": LocalDir(src=Path("source"))})
            took.append(await with_session(manifest, filled))
        show("agents sdk, unix_local: created with 2,000 files of 10 KiB", took)


asyncio.run(main())
