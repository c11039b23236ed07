"""How long a new worker takes from its process's start to its first result, beside FastStream's command."""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

from benchmarks.harness import Arena, Figures, Report, Spread, Way, in_turn, table

MOST_SECONDS = 1.0

CALLBOARD = """
from agents.core import Agent, AgentConfig, AgentResult, AgentStatus, Workflow
from streams import AgentApp

class Noop(Agent):
    async def execute(self, input_data):
        return AgentResult(status=AgentStatus.COMPLETED, output=input_data)

workflow = Workflow("bench")
workflow.step(Noop(AgentConfig(name="noop")))
app = AgentApp(workflow, name={name!r})
"""
FASTSTREAM = """
from faststream import FastStream
from faststream.kafka import KafkaBroker

broker = KafkaBroker({servers!r})
app = FastStream(broker)

@broker.publisher({target!r})
@broker.subscriber({source!r}, group_id={name!r}, auto_offset_reset="earliest")
async def handle(message: dict) -> dict:
    return message
"""


def measure(servers: str, rounds: int) -> Report:
    """Run both in turn."""
    runs = in_turn("start", servers, rounds, {way: {"events": 1} for way in WAYS})
    seconds = {way: Spread([run["seconds"] for run in runs[way]]) for way in WAYS}
    rows = [[way.title, seconds[name].text(".2f")] for name, way in WAYS.items()]
    ours = seconds["callboard"].median
    lines = [
        f"One task waits in a topic that exists, the group is new; {rounds} interleaved rounds.",
        "",
        *table(["worker", "s from its process's start to the result in Kafka"], rows),
    ]
    return Report("Start", lines, [(f"at most {MOST_SECONDS:.1f} s", f"{ours:.2f} s", ours <= MOST_SECONDS)])


async def callboard(arena: Arena) -> Figures:
    """The product's command."""
    os.environ |= {
        "CALLBOARD_BOOTSTRAP_SERVERS": arena.servers,
        "CALLBOARD_TOPIC_PREFIX": arena.prefix,
        "CALLBOARD_PARTITIONS": str(arena.partitions),
    }
    program = str(Path(sys.executable).parent / "callboard")
    return await _first(arena, CALLBOARD, program, "run", "worker:app", "--port", "0", "--llm", "off")


async def faststream(arena: Arena) -> Figures:
    """FastStream's command."""
    return await _first(
        arena, FASTSTREAM, str(Path(sys.executable).parent / "faststream"), "run", "worker:app"
    )


async def _first(arena: Arena, code: str, *command: str) -> Figures:
    from tempfile import TemporaryDirectory

    source, target = f"{arena.prefix}tasks.noop", f"{arena.prefix}results.noop"
    with TemporaryDirectory() as folder:
        file = Path(folder) / "worker.py"
        file.write_text(code.format(name=arena.name, servers=arena.servers, source=source, target=target))
        seen = asyncio.create_task(arena.until_full(target, pause=0.005))
        await asyncio.sleep(0.3)  # the reader that watches is connected before the clock starts
        begin = time.perf_counter()
        worker = await asyncio.create_subprocess_exec(
            *command, cwd=folder, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
        )
        try:
            async with asyncio.timeout(30):
                await seen
            seconds = time.perf_counter() - begin
        finally:
            worker.send_signal(signal.SIGTERM)
            await worker.wait()
    return {"seconds": seconds}


WAYS = {
    "callboard": Way("`callboard run`", "at least once", callboard, ("noop",), filled=True),
    "faststream": Way("`faststream run`", "at most once", faststream, ("noop",), filled=True),
}
