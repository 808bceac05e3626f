"""A dynamic micro-batcher: many wait, worker threads compute, and a full queue says no at once.

The front is asyncio and never computes; the threads run the model (torch releases the interpreter while it multiplies).
Taught in lesson 25.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from instructlab_utils.errors import CourseError, ParameterError

Steps = Callable[[str, list[Any]], Iterator[list[tuple[int, Any]]]]


class Full(CourseError):
    """The queue has no room. ``after``: seconds after which a second try may succeed."""

    def __init__(self, after: float) -> None:
        super().__init__(f"the queue is full: try again in {after:.0f} seconds")
        self.after = after


class Late(CourseError):
    """An answer did not come within the patience that was given."""


class Closed(CourseError):
    """The service is stopping and takes no new work."""


@dataclass(eq=False)
class Waiting:
    """One item in the queue. ``key``: only equals share a batch; ``size``: its length, in any unit."""

    item: Any
    key: str
    size: int
    future: asyncio.Future[Any] = field(repr=False)


def chosen(waiting: Sequence[Any], most: int) -> list[Any]:
    """The next batch: the oldest, so that nobody starves, and those with its key that are nearest in ``size``; at most
    ``most``, shortest first. Of equals the older. [] where nobody waits. Source: lesson 25."""
    if not waiting:
        return []
    first = waiting[0]
    same = [each for each in waiting if each.key == first.key]
    near = sorted(same, key=lambda each: (each is not first, abs(each.size - first.size)))
    return sorted(near[:most], key=lambda each: each.size)


def at_once(run: Callable[[str, list[Any]], Sequence[Any]]) -> Steps:
    """A plain function (key, items) → results as a run of one step."""

    def steps(key: str, items: list[Any]) -> Iterator[list[tuple[int, Any]]]:
        yield list(enumerate(run(key, items)))

    return steps


class Batcher:
    """``steps(key, items)`` yields, step by step, the (place, result) pairs that are ready; each step is one visit to the
    ``thread``, so two batchers that share a thread take turns: a long answer does not hold up the short ones.

    ``lanes``: batches at work at the same time; ``most``: items in a batch; ``pause``: seconds to wait for company when
    the batch is not full; ``room``: items that may wait; ``seen(batch size, seconds)`` is told of every batch.
    ParameterError for numbers that make no sense.
    """

    def __init__(
        self, steps: Steps, thread: ThreadPoolExecutor, *, lanes: int = 1, most: int = 16, pause: float = 0.0,
        room: int = 256, seen: Callable[[int, float], None] | None = None,
    ) -> None:  # fmt: skip
        if min(lanes, most, room) < 1 or not 0 <= pause < 60:
            told = f"lanes {lanes}, most {most}, room {room}, pause {pause}"
            raise ParameterError(f"{told}: choose 1 or more, 0 to 60 s")
        self.steps, self.thread, self.most, self.pause, self.room = steps, thread, most, pause, room
        self.lanes = lanes
        self.seen = seen or (lambda size, seconds: None)
        self.waiting: list[Waiting] = []
        self.some, self.closing = asyncio.Event(), False
        self.each = 0.01  # seconds an item takes, a moving mean
        self.task: asyncio.Task[None] | None = None

    async def submit(
        self, items: Sequence[Any], key: str = "", sizes: Sequence[int] = (), patience: float = 30.0
    ) -> list[Any]:
        """The results of ``items``, in their order. All are let in, or none.

        Raises Full where they have no room, Closed while stopping, Late after ``patience`` seconds, and what the model
        raised.
        """
        if self.closing:
            raise Closed("the service is stopping: ask another replica")
        if len(self.waiting) + len(items) > self.room:
            raise Full(max(1.0, self.each * len(self.waiting)))
        loop = asyncio.get_running_loop()
        self.task = self.task or loop.create_task(self._serve())
        jobs = [
            Waiting(item, key, size, loop.create_future())
            for item, size in zip(items, sizes or [1] * len(items), strict=True)
        ]
        self.waiting += jobs
        self.some.set()
        try:
            async with asyncio.timeout(patience):
                return list(await asyncio.gather(*(job.future for job in jobs)))
        except TimeoutError:
            raise Late(f"no answer within {patience:.0f} seconds: try again later, or ask for less") from None
        finally:
            for job in jobs:
                job.future.cancel()  # nothing where it is done; else nobody waits any more
            gone = set(map(id, jobs))
            self.waiting = [job for job in self.waiting if id(job) not in gone]

    async def _serve(self) -> None:
        loop, running = asyncio.get_running_loop(), set[asyncio.Task[None]]()
        while not (self.closing and not self.waiting):
            if not self.waiting:
                self.some.clear()
                await self.some.wait()
                continue
            if len(running) == self.lanes:
                _, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                continue
            if self.pause and len(self.waiting) < self.most and not self.closing:
                await asyncio.sleep(self.pause)
            jobs = chosen(self.waiting, self.most)
            taken = set(map(id, jobs))
            self.waiting = [job for job in self.waiting if id(job) not in taken]
            running.add(loop.create_task(self._batch(jobs)))
        await asyncio.gather(*running)

    async def _batch(self, jobs: list[Waiting]) -> None:
        if jobs and not await self._run(jobs) and len(jobs) > 1:
            for (
                job
            ) in jobs:  # one of them spoils the batch: each alone, so that its neighbours get their answers
                await self._run([job])

    async def _run(self, jobs: list[Waiting]) -> bool:
        """Whether the batch may count as done; False where it failed before anything was ready, and was not alone."""
        loop, began, ready = asyncio.get_running_loop(), time.perf_counter(), 0
        try:
            run = self.steps(jobs[0].key, [job.item for job in jobs])
            while (found := await loop.run_in_executor(self.thread, next, run, None)) is not None:
                ready += 1
                for place, value in found:
                    if not jobs[place].future.done():
                        jobs[place].future.set_result(value)
        except Exception as error:
            if not ready and len(jobs) > 1:
                return False
            for job in jobs:
                if not job.future.done():
                    job.future.set_exception(error)
        spent = time.perf_counter() - began
        self.each += 0.1 * (spent / len(jobs) - self.each)
        self.seen(len(jobs), spent)
        return True

    async def close(self, patience: float = 20.0) -> None:
        """Take nothing new, finish what waits; what is not done after ``patience`` seconds is told Closed."""
        self.closing = True
        self.some.set()
        if self.task is not None:
            await asyncio.wait([self.task], timeout=patience)
            self.task.cancel()
        for job in self.waiting:
            if not job.future.done():
                job.future.set_exception(Closed("the service has stopped before it came to this"))
