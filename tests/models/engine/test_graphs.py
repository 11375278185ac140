"""When a function is captured, when it simply runs, and which graphs are kept, on a stand-in for CUDA."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from itertools import count

import pytest
import torch

from models.engine import graphs
from models.engine.graphs import Graphs

DEVICE = torch.device("cuda:1")


class Cuda:
    """What was asked of it: pools that graphs were captured in, replays, and the current device of every call."""

    def __init__(self, monkeypatch):
        self.pools, self.replayed, self.devices, self.mode = [], [], [], 0
        handles = count(1)
        monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: Graph(self))
        monkeypatch.setattr(torch.cuda, "graph", self.graph)
        monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: next(handles))
        monkeypatch.setattr(torch.cuda, "Stream", Stream)
        monkeypatch.setattr(torch.cuda, "current_stream", Stream)
        monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())
        monkeypatch.setattr(torch.cuda, "device", self.device)
        monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: 0)
        monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", lambda mode: setattr(self, "mode", mode))

    @contextmanager
    def graph(self, graph, pool, stream, *, capture_error_mode):
        self.pools.append(pool)
        yield

    @contextmanager
    def device(self, device):
        self.devices.append(device)
        yield


class Graph:
    def __init__(self, cuda):
        self.cuda = cuda

    def replay(self):
        self.cuda.replayed.append(self)


class Stream:
    def __init__(self, device):
        self.device = device

    def wait_stream(self, other):
        assert other.device == self.device


@pytest.fixture
def cuda(monkeypatch):
    return Cuda(monkeypatch)


class Function:
    """Counts its calls; from a call on it fails."""

    def __init__(self, *errors):
        self.errors, self.calls, self.stored = [*errors], 0, []

    def __call__(self):
        self.calls += 1
        error = self.errors.pop(0) if self.errors else None
        if error is not None:
            raise error
        return self.calls

    def store(self, made):
        self.stored.append(made)


def test_a_function_is_captured_once_on_its_own_device(cuda):
    made, function = Graphs(DEVICE, capture=True), Function()
    for _ in range(3):
        made.run("key", function, function.store)
    assert (function.calls, function.stored, len(cuda.replayed), made.captured) == (3, [3], 3, 1)
    assert cuda.devices == [DEVICE] * 3
    assert made.fallbacks == 0


def test_a_function_may_run_a_few_times_before_it_is_captured(cuda):
    made, function = Graphs(DEVICE, capture=True), Function()
    for _ in range(3):
        made.run("key", function, function.store, first=2)
    assert (function.calls, function.stored, len(cuda.replayed), made.fallbacks) == (5, [1, 2, 5], 1, 0)


def test_a_function_that_waits_for_the_host_runs_each_time_and_is_counted(cuda):
    made, function = Graphs(DEVICE, capture=True), Function(None, RuntimeError("called a synchronizing CUDA operation"))
    for _ in range(2):
        made.run("key", function, function.store)
    assert (function.stored, made.fallbacks, made.captured, cuda.replayed) == ([3, 4], 2, 0, [])


def test_another_error_is_raised(cuda):
    with pytest.raises(RuntimeError, match="sizes differ"):
        Graphs(DEVICE, capture=True).run("key", Function(RuntimeError("sizes differ")))
    assert cuda.mode == 0


def test_a_graph_that_the_memory_does_not_hold_is_done_without(cuda):
    made, function = Graphs(DEVICE, capture=True), Function(None, None, torch.OutOfMemoryError("CUDA out of memory"))
    for _ in range(2):
        made.run("key", function, function.store)
    assert (function.stored, made.fallbacks, cuda.replayed) == ([4, 5], 2, [])
    made.run("other", function)
    assert cuda.pools == [1, 2]  # the first ended with the graph that it did not hold


def test_want_of_memory_for_the_function_itself_is_raised(cuda):
    with pytest.raises(torch.OutOfMemoryError):
        Graphs(DEVICE, capture=True).run("key", Function(torch.OutOfMemoryError("CUDA out of memory")))


def test_graphs_share_a_pool_that_ends_with_the_last_of_them(cuda):
    made = Graphs(DEVICE, capture=True)
    made.run("one", Function())
    made.run("two", Function())
    made.forget(lambda key: key == "one")
    made.run("three", Function())
    made.forget(lambda _: True)
    made.run("four", Function())
    assert cuda.pools == [1, 1, 1, 2]


def test_the_graph_replayed_least_lately_goes(cuda, monkeypatch):
    monkeypatch.setattr(graphs, "GRAPHS", 2)
    made, functions = Graphs(DEVICE, capture=True), {name: Function() for name in "abc"}
    for name in "abacab":
        made.run(name, functions[name])
    assert {name: function.calls for name, function in functions.items()} == {"a": 3, "b": 6, "c": 3}


def test_graphs_of_a_device_are_not_replayed_on_another(cuda):
    made, function = Graphs(DEVICE, capture=True), Function()
    made.run("key", function)
    made.move(torch.device("cpu"))
    made.run("key", function)
    assert (function.calls, len(cuda.replayed)) == (4, 1)
    made.move(torch.device("cuda:0"))
    made.run("key", function)
    assert (function.calls, len(cuda.replayed), cuda.pools) == (7, 2, [1, 2])
