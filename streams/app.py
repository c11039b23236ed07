"""The composition root: workflows in, a running application out. Nothing imports it but `streams` itself."""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Collection, Mapping
from importlib.metadata import version
from typing import Any

import structlog
from faststream.asgi import AsgiFastStream, AsgiResponse, get
from faststream.kafka import KafkaBroker
from faststream.specification import AsyncAPI
from prometheus_client import make_asgi_app

from agents import metrics
from agents.core.errors import ConfigurationError
from agents.core.llm import chosen_backend
from agents.core.workflow import NAME, Workflow
from streams import memory
from streams.artifacts import KafkaArtifacts
from streams.kafka.admin import cluster_id, ensure_positions, ensure_topics, stamped_by_producers
from streams.kafka.publisher import PRODUCER_OPTIONS, OwnPublisher
from streams.kafka.subscriber import AgentSubscriber
from streams.restore import KafkaJoinLog, KafkaRestore
from streams.settings import Settings
from streams.topics import Topics
from streams.watchdog import Watchdog
from streams.worker import AgentWorker

log = structlog.stdlib.get_logger()

PATIENCE_SECONDS = 2.0
# What the end of a worker that is out of a group may take beside the runs; Kafka may be away then.
END_SECONDS = 30.0


class AgentApp(AsgiFastStream):
    """Agents of one or more workflows as an ASGI FastStream application.

    Serves `/healthz`, `/readyz`, `/metrics` and `/asyncapi`. `app.broker` is the FastStream broker: plain
    `@app.broker.subscriber` handlers live beside the agents.

    Attributes:
        failure: Why the process ends by itself, if it does.

    Args:
        workflows: What the application does.
        name: Part of every consumer group and run id; by default the only workflow's name.
        settings: By default from `CALLBOARD_*`.
        only: Names of the agents that this process runs; by default `CALLBOARD_ONLY`, else all. The others
            are run elsewhere: nothing of the workflows changes.

    Raises:
        ConfigurationError: If workflows share a name, no name is given for several, there is no such agent,
            no language model is chosen, or a setting is wrong.
    """

    def __init__(
        self,
        *workflows: Workflow,
        name: str | None = None,
        settings: Settings | None = None,
        only: Collection[str] | None = None,
    ) -> None:
        self.workflows = _by_name(workflows)
        if name is None and len(workflows) > 1:
            raise ConfigurationError(
                f"an application of several workflows ({', '.join(self.workflows)}) needs a name:"
                " AgentApp(..., name='...')"
            )
        self.name = name or workflows[0].name
        if not NAME.fullmatch(self.name):
            raise ConfigurationError(
                f"application name {self.name!r} cannot name a consumer group: use lower-case letters,"
                " digits, '.', '_' and '-', at most 63 in all"
            )
        self.settings = settings or Settings.from_environment()
        self.topics = Topics(self.settings.topic_prefix)
        self._watchdog = Watchdog(self.settings.block_limit)
        self._leaves = False
        self.failure: str | None = None
        connection = self.settings.connection
        self.kafka = kafka = _Broker(
            **connection.broker_options,
            logger=logging.getLogger("callboard.faststream"),
            log_level=logging.DEBUG,
            **PRODUCER_OPTIONS,
        )
        instance = f"{socket.gethostname()}-{os.getpid()}"
        alone = asyncio.Lock()
        store = KafkaArtifacts(connection, [self.topics.artifacts(agent) for agent in self._agents()])
        self._members: dict[str, tuple[AgentWorker, AgentSubscriber]] = {}
        for agent_name, agent in self._own_agents(only or self.settings.only).items():
            worker = AgentWorker(
                app=self.name,
                agent=agent,
                workflows=self.workflows,
                topics=self.topics,
                restore=KafkaRestore(
                    connection,
                    results=self.topics.results(agent_name),
                    journal=self.topics.journal(agent_name),
                ),
                joins=KafkaJoinLog(connection, topic=self.topics.joins(agent_name)),
                store=store,
                drain_seconds=self.settings.drain_seconds,
                instance=instance,
                alone=alone,
            )
            subscriber = AgentSubscriber(
                kafka,
                connection,
                group=self.group(agent_name),
                handler=worker,
                drain_seconds=self.settings.drain_seconds,
                slots=agent.config.concurrency,
                session_timeout_ms=self.settings.session_timeout_ms,
                instance_id=self.settings.instance_id,
                **self._inputs(worker),
            )
            self._members[agent_name] = worker, subscriber
        self._publisher: OwnPublisher | None = None
        self._sampler: asyncio.Task[None] | None = None
        self._guard: asyncio.Task[None] | None = None
        self._patience: asyncio.Task[None] | None = None
        super().__init__(
            kafka,
            logger=None,
            asgi_routes=[
                ("/", _index),
                ("/healthz", _healthz),
                ("/readyz", self._readyz_route()),
                ("/metrics", make_asgi_app(metrics.REGISTRY)),
            ],
            specification=AsyncAPI(title=self.name, version=version("callboard")),
            asyncapi_path="/asyncapi",
            on_startup=[self._prepare],
            after_startup=[self._started],
            on_shutdown=[self._stop],
        )

    def group(self, agent: str) -> str:
        """Name an agent's consumer group."""
        return f"{self.name}.{agent}"

    def _agents(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for workflow in self.workflows.values():
            for name, step in workflow.steps.items():
                if found.setdefault(name, step.agent) is not step.agent:
                    raise ConfigurationError(
                        f"two different agents of this application are named {name!r}; use one instance in"
                        " both workflows, or another name: AgentConfig(name=...)"
                    )
        if not found:
            raise ConfigurationError(f"workflow {next(iter(self.workflows))!r} has no steps")
        return found

    def _joining_agents(self) -> list[str]:
        found = (step for workflow in self.workflows.values() for step in workflow.steps.values())
        return list(dict.fromkeys(step.name for step in found if step.joins))

    def _own_agents(self, only: Collection[str]) -> dict[str, Any]:
        agents = self._agents()
        if unknown := [name for name in only if name not in agents]:
            raise ConfigurationError(
                f"application {self.name!r} has no agent {', '.join(map(repr, unknown))} to run; its agents:"
                f" {', '.join(agents)}"
            )
        return {name: agent for name, agent in agents.items() if not only or name in only}

    def _inputs(self, worker: AgentWorker) -> dict[str, list[str]]:
        tasks = [self.topics.tasks(worker.agent.name)]
        results = [self.topics.results(source) for source in worker.router.sources]
        if self.settings.new_edge == "latest":
            return {"topics": tasks, "late_topics": results}
        return {"topics": tasks + results, "late_topics": []}

    async def _prepare(self) -> None:
        self._watchdog.start()
        for worker, _ in self._members.values():
            chosen_backend(worker.agent.config.llm)
        settings = self.settings
        names = [topic for agent in self._agents() for topic in self.topics.of(agent)]
        names += [self.topics.joins(agent) for agent in self._joining_agents()]
        topics = {topic: self.topics.config(topic) for topic in names}
        partitions = await ensure_topics(
            settings.connection, topics, partitions=settings.partitions, replication=settings.replication
        )
        _, cluster = await asyncio.gather(self._check(partitions), cluster_id(settings.connection))
        self._patience = asyncio.get_running_loop().create_task(self._say_why_it_takes_time())
        await self.kafka.connect()
        publisher = self._publisher = OwnPublisher(settings.connection)
        await publisher.start()
        for worker, subscriber in self._members.values():
            worker.join_group(publisher, subscriber, cluster=cluster)

    async def _check(self, partitions: int) -> None:
        """Make sure that nobody has to guess later where a group reads on, and when something was written."""
        await asyncio.gather(
            self._check_times(),
            *(
                ensure_positions(
                    self.settings.connection,
                    self.group(name),
                    inputs["topics"],
                    inputs["late_topics"],
                    partitions,
                )
                for name, (worker, _) in self._members.items()
                for inputs in [self._inputs(worker)]
            ),
        )

    async def _check_times(self) -> None:
        """Make sure that what a restart looks for is found by the time it was written.

        Raises:
            ConfigurationError: If it would not be found, and be done again.
        """
        agents = self._agents()
        own = {
            topic for agent in agents for topic in (self.topics.results(agent), self.topics.journal(agent))
        }
        others = {topic for agent in agents for topic in (self.topics.tasks(agent), self.topics.dead(agent))}
        connection = self.settings.connection
        stamped = await stamped_by_producers(connection, sorted(own | others))
        mend = "; ".join(
            f"kafka-configs.sh --bootstrap-server {connection.servers} --alter --entity-type topics"
            f" --entity-name {topic} --add-config message.timestamp.type=LogAppendTime"
            for topic in stamped
        )
        if wrong := own.intersection(stamped):
            raise ConfigurationError(
                f"{', '.join(sorted(wrong))}: message.timestamp.type is CreateTime, so the clocks of workers"
                " stamp what they write. After a restart, what was done is looked for by its time: with a"
                " wrong clock it would not be found, and be done and paid again. With all workers stopped and"
                f" every task finished, run: {mend}"
            )
        if stamped:
            # Tasks may have come from anywhere for a long time; this costs reading, and no work.
            log.warning(
                "producers stamp what is in some topics: each restart reads all of what was done",
                topics=stamped,
                to_change_it=mend,
            )

    async def _started(self) -> None:  # async: FastStream runs a plain function in another thread
        memory.settle()
        self._sampler = asyncio.get_running_loop().create_task(self._sample())
        self._guard = asyncio.get_running_loop().create_task(self._end_when_out_of_a_group())
        log.info("ready", app=self.name, agents=list(self._members), servers=self.settings.connection.servers)

    async def _say_why_it_takes_time(self) -> None:
        await asyncio.sleep(PATIENCE_SECONDS)
        if waiting := [name for name, (_, subscriber) in self._members.items() if not subscriber.owned]:
            log.info(
                "waiting for Kafka to hand over partitions; a worker that was killed keeps its own until its"
                " session ends",
                agents=waiting,
                seconds=self.settings.session_timeout_ms / 1000,
            )

    async def _stop(self) -> None:
        for task in (self._sampler, self._guard, self._patience):
            if task is not None:
                task.cancel()
        log.info("stopping: letting runs end", app=self.name, seconds=self.settings.drain_seconds)
        await asyncio.gather(*(worker.stop() for worker, _ in self._members.values()))
        if self._publisher is not None:
            await self._publisher.stop()
        self._watchdog.stop()
        if self._leaves:
            for _, subscriber in self._members.values():
                subscriber.leave_when_stopped()

    def leave_when_stopped(self) -> None:
        """Give the partitions of a static instance id up at the next stop; by default they wait for it."""
        self._leaves = True

    async def _end_when_out_of_a_group(self) -> None:
        """End this process, in order, if the client gave a membership up: it never joins again by itself."""
        out: list[str] = []
        while not out:
            await asyncio.sleep(1)
            out = [name for name, (_, subscriber) in self._members.items() if subscriber.left_for_good]
        self.failure = f"no member of the groups of {', '.join(out)} any more"
        log.critical(
            "this process is out of a consumer group for good and ends, to be started again: whoever runs it"
            " must do that, as `callboard run --workers` does",
            agents=out,
        )
        # An end that gets stuck, in a client that failed already, would keep the partitions from others.
        self._watchdog.end_at_latest(self.settings.drain_seconds + END_SECONDS, code=1)
        signal.raise_signal(signal.SIGTERM)  # whatever serves this application knows how to stop by that

    async def _sample(self) -> None:
        while True:
            for name, (worker, subscriber) in self._members.items():
                stats = worker.runtime.stats()
                metrics.gauge("running", name).set(stats["running"])
                metrics.gauge("queued", name).set(stats["queued_records"])
                metrics.gauge("joins", name).set(worker.joins_waiting)
                metrics.gauge("joins_to_begin", name).set(worker.joins_to_begin)
                metrics.gauge("unacknowledged", name).set(stats["unacknowledged"])
                metrics.gauge("partitions", name).set(subscriber.owned)
                for topic, lag in subscriber.lag().items():
                    metrics.gauge("lag", name, topic).set(lag)
            await asyncio.sleep(1)

    def _readyz_route(self) -> Any:
        @get
        async def readyz(_scope: Any) -> AsgiResponse:
            """Say whether every agent owns partitions and reads them."""
            waiting = [f"{name}: {why}" for name, why in self.not_ready().items()]
            if blocked := self._watchdog.not_ready():
                waiting.append(blocked)
            if waiting:
                return AsgiResponse(("\n".join(waiting) + "\n").encode(), status_code=503)
            return AsgiResponse(b"ready\n", status_code=200)

        return readyz

    def not_ready(self) -> Mapping[str, str]:
        """Say which agents do not work, and why."""
        found = {}
        for name, (worker, subscriber) in self._members.items():
            if why := subscriber.not_ready() or worker.not_ready():
                found[name] = why
        return found


class _Broker(KafkaBroker):
    """Starts its subscribers together: each waits for its group's first assignment, which takes seconds."""

    async def start(self) -> None:
        await self.connect()
        await asyncio.gather(*(subscriber.start() for subscriber in self.subscribers))
        self.running = True


@get
async def _index(_scope: Any) -> AsgiResponse:
    """Say what there is."""
    return AsgiResponse(b"/healthz /readyz /metrics /asyncapi /asyncapi.json\n", status_code=200)


@get
async def _healthz(_scope: Any) -> AsgiResponse:
    """Say that the process answers."""
    return AsgiResponse(b"ok\n", status_code=200)


def _by_name(workflows: tuple[Workflow, ...]) -> dict[str, Workflow]:
    if not workflows:
        raise ConfigurationError("AgentApp needs at least one workflow: AgentApp(Workflow(...))")
    found: dict[str, Workflow] = {}
    for workflow in workflows:
        if workflow.name in found:
            raise ConfigurationError(f"two workflows of this application are named {workflow.name!r}")
        found[workflow.name] = workflow
    return found
