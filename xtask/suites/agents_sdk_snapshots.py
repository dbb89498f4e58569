#!/usr/bin/env python3
"""Times a `unix_local` sandbox of the OpenAI Agents SDK that keeps its workspace after one byte of it was changed: one JSON case a
line, as benchmarks print them.

The tree is of the size of that in `crates/cofferdam-snapshot/benches/trees/one_byte.rs`.
"""

import asyncio
import json
import os
import tempfile
import time
from pathlib import Path
from statistics import median

from agents.sandbox import LocalSnapshotSpec
from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxClient

FILES, SIZE, IN_DIRECTORY = 20_000, 200, 100
LARGE_FILES, LARGE_MEBIBYTES = 6, 50
ROUNDS = 3
CASE = "agents sdk, unix_local: 20,000 files and 300 MiB kept after one byte changed"


def fill(root):
    for number in range(FILES):
        directory = root / f"d{number // IN_DIRECTORY:04}"
        if number % IN_DIRECTORY == 0:
            directory.mkdir()
        (directory / f"f{number:06}.txt").write_bytes(os.urandom(SIZE))
    for number in range(LARGE_FILES):
        with open(root / f"large-{number}.bin", "wb") as file:
            for _ in range(LARGE_MEBIBYTES):
                file.write(os.urandom(1 << 20))


async def main():
    client = UnixLocalSandboxClient()
    with tempfile.TemporaryDirectory() as store:
        session = await client.create(snapshot=LocalSnapshotSpec(base_path=Path(store)))
        await session.start()
        times = []
        try:
            root = Path(session.state.manifest.root)
            fill(root)
            # What stopping a session takes is what keeping its workspace takes; the first has all to keep.
            for round in range(ROUNDS + 1):
                with open(root / "d0000" / "f000000.txt", "r+b") as file:
                    file.write(bytes([round]))
                started = time.perf_counter()
                await session.stop()
                if round > 0:
                    times.append((time.perf_counter() - started) * 1000)
            kept = sum(path.stat().st_size for path in Path(store).rglob("*") if path.is_file())
            assert kept > LARGE_FILES * LARGE_MEBIBYTES << 20, f"only {kept} bytes were kept"
        finally:
            await session.shutdown()
            await client.delete(session)
    times.sort()
    print(json.dumps({"case": CASE, "median_ms": median(times), "min_ms": times[0], "n": len(times)}))


asyncio.run(main())
