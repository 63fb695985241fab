"""A TCP relay in front of a plain registry: writes down every request, and drops a connection in the middle of a layer.

    relay.py LISTEN_PORT SERVER_PORT LOG

One line a request, "METHOD TARGET [range=VALUE] STATUS", and "CUT TARGET", so that a story can check what a client really sent: that it mounted
instead of pushing again, that it went on where it was cut off. The first GET of each blob of a repository with a component
"cut" loses its connection after 1 MiB of the answer, as a bad network would do it: with a reset, not with an HTTP error.
"""

import asyncio
import re
import sys

CUT_AFTER = 1 << 20
HEAD = re.compile(rb"(GET|HEAD|POST|PUT|PATCH|DELETE) (\S+) HTTP/1\.1\r\n")
RANGE = re.compile(rb"\r\nrange: *([^\r]*)", re.IGNORECASE)
STATUS = re.compile(rb"HTTP/1\.1 (\d\d\d)")
CUT = re.compile(r"/v2/(?:[^?]*/)?cut/[^?]*blobs/sha\d+:")


class Relay:
    def __init__(self, server_port, log):
        self.server_port = server_port
        self.log = log
        self.cut_once = set()

    async def serve(self, reader, writer):
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.server_port)
        except OSError:
            writer.transport.abort()
            return
        # No client pipelines: a request is written when the answer before it was read whole. So a chunk that begins with a
        # request line while an answer is done, or a status line while a request is open, is the head that it looks like.
        state = {"request": None, "sent": 0, "cut": False}

        async def requests():
            while chunk := await reader.read(1 << 16):
                if head := HEAD.match(chunk):
                    # A head cut in two by the network: wait for its rest, or its Range header would be missed.
                    while b"\r\n\r\n" not in chunk and len(chunk) < 1 << 16 and (more := await reader.read(1 << 16)):
                        chunk += more
                    target = head[2].decode("latin-1")
                    line = f"{head[1].decode()} {target}"
                    ranged = RANGE.search(chunk.partition(b"\r\n\r\n")[0])
                    if ranged:
                        line += f" range={ranged[1].decode('latin-1')}"
                    cut = head[1] == b"GET" and CUT.match(target) is not None and target not in self.cut_once
                    state.update(request=line, target=target, sent=0, cut=cut)
                server_writer.write(chunk)
                await server_writer.drain()
            # Only this direction is done; the answer may still be on its way.
            if server_writer.can_write_eof():
                server_writer.write_eof()

        async def answers():
            while chunk := await server_reader.read(1 << 16):
                status = STATUS.match(chunk)
                # 1xx come before the answer itself.
                if status and state["request"] and not status[1].startswith(b"1"):
                    self.log.write(f"{state['request']} {status[1].decode()}\n")
                    self.log.flush()
                    state["request"] = None
                state["sent"] += len(chunk)
                writer.write(chunk)
                await writer.drain()
                if state["cut"] and state["sent"] > CUT_AFTER:
                    self.cut_once.add(state["target"])
                    self.log.write(f"CUT {state['target']}\n")
                    self.log.flush()
                    writer.transport.abort()
                    return
            if writer.can_write_eof():
                writer.write_eof()

        tasks = [asyncio.ensure_future(requests()), asyncio.ensure_future(answers())]
        try:
            # The server closes when it is done with the connection; the client may close its side first.
            await tasks[1]
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            server_writer.transport.abort()
            writer.close()


async def main():
    listen_port, server_port, log = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    with open(log, "w", encoding="utf-8") as file:
        relay = Relay(server_port, file)
        server = await asyncio.start_server(relay.serve, "127.0.0.1", listen_port)
        async with server:
            await server.serve_forever()


asyncio.run(main())
