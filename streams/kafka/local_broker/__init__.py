"""Real Apache Kafka on this machine, without Docker and without an installed Java.

The public face is `LocalBroker` (up, status, down), `default_home`, and the errors. Inside:

    broker.py       connect or start, who owns what
    server.py       one Kafka process on one folder
    jars.py         the pinned jars, downloaded once
    java.py         Java's flags and environment
    properties.py   Kafka's settings, with reasons
    probe.py        is there a Kafka at this port?
    process.py      a background process that can be recognised later
    training.py     the ahead-of-time cache
    locks.py        one at a time, between processes
"""

from streams.home import default_home

from .broker import BrokerStatus, LocalBroker
from .errors import (
    BrokerElsewhereError,
    DataFolderError,
    DiskFullError,
    DownloadError,
    ExtraNotInstalledError,
    FolderError,
    ForeignBrokerError,
    JarMismatchError,
    LocalBrokerError,
    PortTakenError,
    StartError,
)

__all__ = [
    "BrokerElsewhereError",
    "BrokerStatus",
    "DataFolderError",
    "DiskFullError",
    "DownloadError",
    "ExtraNotInstalledError",
    "FolderError",
    "ForeignBrokerError",
    "JarMismatchError",
    "LocalBroker",
    "LocalBrokerError",
    "PortTakenError",
    "StartError",
    "default_home",
]
