"""Starts LMCache's own standalone engine, with three routes more on its internal API.

Runs inside the virtual environment. An engine asks the controller for P2P lookups only while it serves a request of
a model server; one added route makes it do exactly that, with the engine's own code, for the tokens [start, end). The
others tell the chunk hashes that its CPU cache holds, which are what it tells in a full sync, and those of a prompt.

Engines of different hosts have different addresses. Here all are on one host: INTEROP_SOURCE is the loopback address
that this one's connections to the controller (INTEROP_CONTROLLER) come from.
"""

import asyncio
import os
import runpy

import zmq
from starlette.requests import Request

from lmcache.v1.internal_api_server.vllm import cache_api


@cache_api.router.post("/interop/p2p_lookup")
async def p2p_lookup(request: Request, start: int, end: int):
    engine = request.app.state.lmcache_adapter.lmcache_engine
    storage = engine.storage_manager
    chunks = list(engine.token_database.process_tokens(list(range(start, end))))
    keys = [key for _, _, key in chunks]

    async def ask_and_fetch():
        backend = storage.storage_backends["P2PBackend"]
        promised = await backend.batched_async_contains("interop", keys)
        if not promised:
            return {"promised_chunks": 0, "fetched_chunks": 0}
        ends = [0] + [end for _, end, _ in chunks]
        objects = await backend.batched_get_non_blocking(
            "interop", keys[:promised], {"cum_chunk_lengths": ends[:promised + 1]})
        for memory in objects:
            memory.unpin()
            memory.ref_count_down()
        return {"promised_chunks": promised, "fetched_chunks": len(objects)}

    async def awake():
        """LMCache uses one socket in two event loops. When the answer comes, the worker's loop may take it first, and
        does not wake the storage manager's, which then sleeps until the socket's timeout or its next event. A busy
        engine has one soon; this one has it here."""
        asking = asyncio.create_task(ask_and_fetch())
        while not asking.done():
            await asyncio.sleep(0.05)
        return asking.result()

    # The backend's sockets belong to the storage manager's loop, which runs in another thread than this server.
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(awake(), storage.loop))


@cache_api.router.post("/interop/keys")
async def keys(request: Request):
    backend = request.app.state.lmcache_adapter.lmcache_engine.storage_manager.local_cpu_backend
    return {"keys": [key.chunk_hash for key in backend.get_keys()]}


@cache_api.router.post("/interop/hashes")
async def hashes(request: Request, start: int, end: int):
    database = request.app.state.lmcache_adapter.lmcache_engine.token_database
    return {"hashes": [key.chunk_hash for _, _, key in database.process_tokens(list(range(start, end)))]}


source, controller = os.environ.get("INTEROP_SOURCE"), os.environ.get("INTEROP_CONTROLLER")
if source:
    connect = zmq.Socket.connect
    zmq.Socket.connect = lambda self, address: connect(
        self, address.replace(f"tcp://{controller}:", f"tcp://{source}:0;{controller}:"))

runpy.run_module("lmcache.v1.standalone", run_name="__main__")
