"""Kafka's settings for one broker on one machine whose data is to be kept."""

from __future__ import annotations

import string

LARGEST_RECORD = 2 * 1024 * 1024  # bytes; dead letters keep the original record of up to 2 MiB


def server_properties(port: int) -> str:
    """Return ``server.properties`` for a broker at 127.0.0.1:`port`. Paths in it are relative to its folder.

    Relative, because then no path needs escaping, and a comma in the user's home is not a second log folder.
    """
    return _SERVER.substitute(port=port, largest=LARGEST_RECORD + 64 * 1024)


_SERVER = string.Template("""\
# Written by Callboard at every start; changes are lost.
process.roles=broker,controller
node.id=1

# Only this machine can connect. The controller takes any free port, a new one at every start: only the broker
# in the same process talks to it, and learns the port there. The bootstrap address is required, and never
# used by a voter.
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:0
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.quorum.bootstrap.servers=127.0.0.1:9

# One node is all there is.
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
# Few, for a fast start; cannot change later, because a group's partition is a hash modulo this number.
offsets.topic.num.partitions=4
transaction.state.log.num.partitions=4
share.coordinator.state.topic.num.partitions=4

# Nothing disappears by itself: records are kept until the user deletes them or sets another retention on a
# topic, and offsets of a group stay when its members have been away (Kafka would forget them after seven
# days).
log.dirs=data
log.retention.hours=-1
log.retention.bytes=-1
offsets.retention.minutes=2147483647

# A topic with a typing error in its name must not come into being.
auto.create.topics.enable=false
message.max.bytes=$largest
group.initial.rebalance.delay.ms=0

# 64 MiB segments are soon complete and flushed, so little has to be read again after a kill. Their indexes
# need 192 KiB at most; the default of 10 MiB, twice per partition, is reserved on file systems without holes.
log.segment.bytes=67108864
log.index.size.max.bytes=262144
offsets.topic.segment.bytes=16777216
transaction.state.log.segment.bytes=16777216
share.coordinator.state.topic.segment.bytes=16777216
# The default takes 128 MiB of heap at once, of the 256 there are; this is enough for 600,000 keys in one
# pass.
log.cleaner.dedupe.buffer.size=16777216

# After a kill, the controller refuses the new broker until the old one's session has run out, and the broker
# asks again after 0.1, 0.3, 0.7, 1.5, 3.1, 6.3 and 12.7 s: with Kafka's 9 s it would be the last of these,
# with this it is 3.1 s. A stall longer than this only fences the broker until its next heartbeat.
broker.session.timeout.ms=2500
broker.heartbeat.interval.ms=500
# No records, and so no writing to disk, twice a second while nothing happens.
metadata.max.idle.interval.ms=0
""")

# Warnings and errors, in two files of 4 MB at most; a new pair begins at every start.
LOGGING = """\
# Written by Callboard at every start; changes are lost.
.level=WARNING
handlers=java.util.logging.FileHandler
java.util.logging.FileHandler.pattern=logs/broker.%g.log
java.util.logging.FileHandler.limit=4000000
java.util.logging.FileHandler.count=2
java.util.logging.FileHandler.encoding=UTF-8
java.util.logging.FileHandler.formatter=java.util.logging.SimpleFormatter
java.util.logging.SimpleFormatter.format=%1$tF %1$tT.%1$tL %4$s %3$s: %5$s%6$s%n
"""
