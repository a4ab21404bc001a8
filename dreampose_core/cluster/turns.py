"""Whose turn it is: which waiting job gets the next model that is free, and what is taken back from who no longer
renews. Without ray."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

LEASE_S = 15.0  # without a word of its driver for so long a job holds nothing any more


@dataclass(frozen=True)
class Lease:
    """The right of a job to one model, until it is released or runs out. number: rises from lease to lease."""

    number: int
    model: str
    job: str


@dataclass
class _Asker:
    """A job that holds models or waits for some. total: how many it could use. since: its place among those who
    wait."""

    driver: str
    owner: str
    subject: str
    total: int
    since: int
    heard: float


class Turns:
    """The models of a pool by name, the jobs that want them, and who holds what.

    The next free model goes to the owner who holds fewest, of these to who was served longest ago, newcomers behind
    those who came before; of an owner's jobs to the one that holds fewest and has waited longest. It takes one that
    carries its subject, where there is one.
    """

    def __init__(self, lease_s: float = LEASE_S, clock: Callable[[], float] = time.monotonic):
        self._lease_s, self._clock = lease_s, clock
        self._models: dict[str, str] = {}  # name -> the subject that it carries
        self._held: dict[str, Lease] = {}  # by the model's name
        self._askers: dict[str, _Asker] = {}  # by job
        self._served: dict[
            str, int
        ] = {}  # by owner, the number of the last lease, or at first of the last before they came
        self._number = self._place = 0

    def add(self, model: str) -> None:
        """A model is there, carrying nobody."""
        self._models[model] = ""
        self._grant()

    def remove(self, model: str) -> None:
        """A model is gone, and with it the lease on it."""
        self._models.pop(model, None)
        self._held.pop(model, None)

    def ask(
        self, driver: str, job: str, owner: str, subject: str, total: int, released: Iterable[int] = ()
    ) -> list[Lease]:
        """All that the job holds now. total: how many models it could use, those that it holds included; with 0 it
        needs nothing any more.

        released: numbers of leases that it gives back first, which others have at once. Who asks has renewed. Another
        driver than before has taken the job over, so that what the one before held is void.
        """
        known = self._askers.get(job)
        gives_back = set(released)
        for model, lease in list(self._held.items()):
            if lease.job == job and (lease.number in gives_back or (known is not None and known.driver != driver)):
                del self._held[model]
        if total == 0:
            self._forget(job)
            self._grant()
            return []
        held = len(self.leases(job))
        waits_on = known is not None and known.total > held and not gives_back
        if not waits_on:
            self._place += 1
        since = known.since if waits_on else self._place
        self._served.setdefault(owner, self._number)
        self._askers[job] = _Asker(driver, owner, subject, total, since, self._clock())
        self.expire()
        return self.leases(job)

    def renew(self, driver: str) -> None:
        """The driver lives."""
        for asker in self._askers.values():
            if asker.driver == driver:
                asker.heard = self._clock()

    def expire(self) -> None:
        """Takes back what is held by those who have not been heard of; others have it at once."""
        for job, asker in list(self._askers.items()):
            if self._clock() - asker.heard > self._lease_s:
                self._forget(job)
        self._grant()

    def leases(self, job: str) -> list[Lease]:
        """What the job holds."""
        return [lease for lease in self._held.values() if lease.job == job]

    def valid(self) -> dict[str, int]:
        """The number of the lease on each model that is held."""
        return {model: lease.number for model, lease in self._held.items()}

    def _forget(self, job: str) -> None:
        asker = self._askers.pop(job, None)
        if asker is not None and not any(other.owner == asker.owner for other in self._askers.values()):
            self._served.pop(asker.owner)
        for lease in self.leases(job):
            del self._held[lease.model]

    def _grant(self) -> None:
        free = [model for model in self._models if model not in self._held]
        while free:
            num_held = {job: len(self.leases(job)) for job in self._askers}
            of_owner: dict[str, int] = {}
            for job, asker in self._askers.items():
                of_owner[asker.owner] = of_owner.get(asker.owner, 0) + num_held[job]
            waiting = [job for job, asker in self._askers.items() if asker.total > num_held[job]]
            if not waiting:
                return
            job = min(waiting, key=lambda job: self._rank(self._askers[job], of_owner, num_held[job]))
            subject = self._askers[job].subject
            model = next((model for model in free if self._models[model] == subject), free[0])
            free.remove(model)
            self._number += 1
            self._served[self._askers[job].owner] = self._number
            self._models[model] = subject
            self._held[model] = Lease(self._number, model, job)

    def _rank(self, asker: _Asker, of_owner: dict[str, int], held: int) -> tuple[int, ...]:
        return of_owner[asker.owner], self._served[asker.owner], held, asker.since
