"""What can go wrong with the local Kafka, each with what the user can do about it.

LocalBrokerError
├── ExtraNotInstalledError      the extra ``local`` (Java, jar resolver) is missing
├── DownloadError               a jar could not be downloaded
├── JarMismatchError            a jar is not the one this release was tested with
├── PortTakenError              something that is not Kafka has the port
├── ForeignBrokerError          a Kafka that this home did not start; never stopped by us
├── BrokerElsewhereError        this home's Kafka already runs, at another port
├── FolderError                 a folder cannot be used
│   ├── DataFolderError         its contents are not data that this Kafka can serve
│   └── DiskFullError           no space left
└── StartError                  Kafka ended, or did not serve, while starting
"""

from __future__ import annotations


class LocalBrokerError(Exception):
    """The local Kafka cannot do what was asked; the message says why and what to do next."""


class ExtraNotInstalledError(LocalBrokerError):
    """The optional dependencies that bring Java and the jar resolver are not installed."""


class DownloadError(LocalBrokerError):
    """A jar could not be downloaded."""


class JarMismatchError(LocalBrokerError):
    """A jar differs from the pinned one."""


class PortTakenError(LocalBrokerError):
    """The port is held by something that does not speak Kafka."""


class ForeignBrokerError(LocalBrokerError):
    """The Kafka at the address was not started from this home, so it is not ours to stop."""


class BrokerElsewhereError(LocalBrokerError):
    """This home's Kafka already runs at another port; a data folder has one broker."""


class FolderError(LocalBrokerError):
    """A folder cannot be created, written or locked."""


class DataFolderError(FolderError):
    """The data folder holds something that this Kafka must not touch."""


class DiskFullError(FolderError):
    """There is not enough space left on the disk."""


class StartError(LocalBrokerError):
    """Kafka ended while it was starting, or did not serve a request in time."""
