#!/usr/bin/env python3
"""The client that checks examples/requests: it knows each answer before it asks.

usage: requests_client.py rules PORT
       requests_client.py fill PORT DOCUMENTS SEED
       requests_client.py load PORT REQUESTS CONNECTIONS SEED
       requests_client.py mixed PORT SECONDS CONNECTIONS SEED
       requests_client.py figure PORT NAME

rules: what HTTP asks for, malformed input and limits (the server was started with small ones: see the
       script).
fill:  documents of some hundred kilobytes each, to stay.
load:  POST /sum, always the same for a seed: for comparisons.
mixed: all routes at once, pipelines, clients that hang up in the middle, that read late, that send byte by
       byte; documents, each of which one connection owns, must hold what was last put.
Exits with 1 if anything was wrong.  At most five faults are told, in a line each; and a server that takes no
more connections is told once, and ends the run: what all the others see then says nothing.
"""
import asyncio
import json
import random
import sys
import time
import urllib.parse

MOST_TOLD = 5
faults = 0


class ServerGone(Exception):
    pass


def fail(text):
    global faults
    faults += 1
    if faults <= MOST_TOLD:
        print("FAIL:", text if len(text) <= 400 else text[:400] + "...", file=sys.stderr)


async def connection_failed(port, what, error):
    """A fault like others, unless the server is gone."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.transport.abort()
    except OSError as refused:
        raise ServerGone(f"{what}: {error!r}, and then {refused!r}") from None
    fail(f"{what}: {error!r}")


def request(method, path, body=None, headers=(), version="1.1"):
    lines = [f"{method} {path} HTTP/{version}", "Host: test", *headers]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + (body or b"")


async def read_response(reader, head=False):
    """(status, headers, body); None: the server has closed the connection."""
    status_line = await reader.readline()
    if not status_line:
        return None
    parts = status_line.split(b" ", 2)
    if len(parts) < 3 or parts[0] != b"HTTP/1.1":
        raise ValueError(f"a bad status line: {status_line!r}")
    headers = {}
    while (line := await reader.readline()) not in (b"\r\n", b""):
        name, _, value = line.decode().partition(":")
        headers[name.lower()] = value.strip()
    body = b"" if head or parts[1] == b"100" else await reader.readexactly(int(headers["content-length"]))
    return int(parts[1]), headers, body


class Client:
    def __init__(self, port):
        self.port = port
        self.writer = None

    async def open(self):
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 26)

    async def ask(self, data, head=False):
        if self.writer is None:
            await self.open()
        self.writer.write(data)
        return await asyncio.wait_for(read_response(self.reader, head), 60)

    def hang_up(self):
        if self.writer is not None:
            self.writer.transport.abort()
            self.writer = None


# ---- rules ------------------------------------------------------------------------------------------------


async def expect(port, what, data, status, body=None, closed=None, head=False, pause=None):
    """One connection, one request, perhaps in two parts, one answer."""
    client = Client(port)
    try:
        if pause is not None:
            await client.open()
            client.writer.write(data[:pause])
            await asyncio.sleep(0.2)
            data = data[pause:]
        answer = await client.ask(data, head)
        if answer is None:
            fail(f"{what}: closed without an answer")
            return None
        if answer[0] != status:
            fail(f"{what}: status {answer[0]}, not {status}: {answer[2][:100]!r}")
        if body is not None and answer[2] != body:
            fail(f"{what}: {answer[2][:200]!r}, not {body[:200]!r}")
        if closed is not None:
            said = answer[1].get("connection") == "close"
            if said != closed:
                fail(f"{what}: says close: {said}")
            rest = await asyncio.wait_for(client.reader.read(1), 10) if closed else None
            if closed and rest:
                fail(f"{what}: something behind the last answer")
        return answer
    except (OSError, ValueError, asyncio.TimeoutError, asyncio.IncompleteReadError) as error:
        fail(f"{what}: {error!r}")
    finally:
        client.hang_up()


def chunked(pieces, trailer=b""):
    return b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in pieces) + b"0\r\n" + trailer + b"\r\n"


async def rules_of_http(port):
    await expect(port, "sum", request("POST", "/sum", b"[1, 2, {\"a\": 3.5}]"), 200,
                 b'{"sum":6.5,"numbers":3,"least":1,"most":3.5,"values":5,"depth":3}\n', closed=False)
    await expect(port, "words", request("GET", "/words?text=to+be%20or%0aNOT+to+be"), 200,
                 b'{"total":6,"different":4,"words":{"be":2,"to":2,"not":1,"or":1}}\n')
    await expect(port, "words of a form", request("POST", "/words", b"x=1&text=b+a+b", [
        "Content-Type: application/x-www-form-urlencoded"]), 200,
                 b'{"total":3,"different":2,"words":{"b":2,"a":1}}\n')
    await expect(port, "words of nothing", request("POST", "/words", b""), 200,
                 b'{"total":0,"different":0,"words":{}}\n')
    await expect(port, "close", request("GET", "/words?text=a", headers=["Connection: close"]), 200, closed=True)
    await expect(port, "1.0", request("GET", "/words?text=a", version="1.0"), 200, closed=True)
    await expect(port, "upgrade", request("GET", "/words?text=a", headers=[
        "Connection: upgrade", "Upgrade: websocket"]), 200, closed=True)
    answer = await expect(port, "head", request("HEAD", "/words?text=a"), 200, b"", head=True)
    if answer and answer[1]["content-length"] != "42":
        fail(f"head: {answer[1]}")
    await expect(port, "nothing there", request("GET", "/none"), 404)
    await expect(port, "a path that only begins alike", request("GET", "/wordsx"), 404)
    answer = await expect(port, "method", request("DELETE", "/words"), 405)
    if answer and answer[1].get("allow") != "GET, HEAD, POST":
        fail(f"method: allow is {answer[1].get('allow')}")
    pieces = [b"[1,", b"2", b",3]"]
    head = request("POST", "/sum", headers=["Transfer-Encoding: chunked"])
    wanted = b'{"sum":6,"numbers":3,"least":1,"most":3,"values":4,"depth":2}\n'
    whole = head + chunked(pieces, b"Trailer: ignored\r\n")
    await expect(port, "chunked", whole, 200, wanted)
    for pause in range(len(head) - 3, len(whole)):
        await expect_quietly(port, whole, pause, wanted)
    data = request("POST", "/sum", b"[1,2,3]", ["Expect: 100-continue"])
    client = Client(port)
    answer = await client.ask(data[:-7])
    if answer is None or answer[0] != 100:
        fail(f"expect: {answer}")
    answer = await client.ask(data[-7:])
    if answer is None or answer[2] != wanted:
        fail(f"expect: {answer}")
    client.hang_up()


async def expect_quietly(port, data, pause, wanted):
    """The request cut in two at this place, without a pause that would take long."""
    client = Client(port)
    await client.open()
    client.writer.write(data[:pause])
    await asyncio.sleep(0.002)
    answer = await client.ask(data[pause:])
    if answer is None or answer[2] != wanted:
        fail(f"cut at {pause}: {answer}")
    client.hang_up()


async def rules_of_malformed(port):
    for what, data in (("no request", b"\0\1\2\3\r\n\r\n"),
                       ("no method", b"FOO / HTTP/1.1\r\n\r\n"),
                       ("no host", b"GET / HTTP/1.1\r\n\r\n"),
                       ("two hosts", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
                       ("a bad header", b"GET / HTTP/1.1\r\nHost: a\r\nb@d\x01: x\r\n\r\n"),
                       ("a bad length", request("POST", "/sum", headers=["Content-Length: x"])),
                       ("two lengths", request("POST", "/sum", b"", ["Content-Length: 5"])),
                       ("length and chunks", request("POST", "/sum", b"", ["Transfer-Encoding: chunked"])),
                       ("a bad chunk", request("POST", "/sum", headers=["Transfer-Encoding: chunked"]) + b"zz\r\n"),
                       ("a bad escape", request("GET", "/words?text=%4")),
                       ("a bad escape", request("GET", "/words?text=%zz")),
                       ("a zero byte", request("GET", "/words?text=%00"))):
        await expect(port, what, data, 400, closed=True)
    await expect(port, "a version to come", b"GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505, closed=True)
    for text in ("", "[", "[1,]", "{\"a\"}", "[1 2]", "01", "1.", "-", "1e", "nul", "\"\\x\"", "\"\\ud800\"",
                 "\"\\udc00\"", "\"\1\"", "\"a", "\"\\", "[1]]", "[" * 65 + "]" * 65, "\0", "{1:2}", "\"\\u12"):
        await expect(port, f"no JSON: {text}", request("POST", "/sum", text.encode()), 400, closed=False)
    deep = "[" * 64 + "]" * 64
    await expect(port, "deep", request("POST", "/sum", deep.encode()), 200)
    await expect(port, "too large a sum", request("POST", "/sum", b"[1e308,1e308]"), 422)


async def rules_of_limits(port):
    """The server's are 4,096 bytes of header, 65,536 of body, 1 second for a request."""
    await expect(port, "a large header", request("GET", "/words", headers=["X: " + "a" * 5000]), 431, closed=True)
    await expect(port, "a header without an end", b"GET / HTTP/1.1\r\nX: " + b"a" * 100000, 431, closed=True)
    await expect(port, "many headers", request("GET", "/words", headers=["A: b"] * 101), 431, closed=True)
    await expect(port, "as many as may be", request("GET", "/words?text=a", headers=["A: b"] * 99), 200)
    await expect(port, "a large body", request("POST", "/sum", headers=["Content-Length: 65537"]), 413, closed=True)
    await expect(port, "a large body that is sent", request("POST", "/sum", b"x" * 300000), 413, closed=True)
    await expect(port, "the largest body", request("POST", "/sum", b"[1]".ljust(65536)), 200)
    head = request("POST", "/sum", headers=["Transfer-Encoding: chunked"])
    await expect(port, "large chunks", head + chunked([b" " * 60000] * 2), 413, closed=True)
    await expect(port, "small chunks", head + chunked([b" "] * 30000 + [b"7"]), 200)
    await expect(port, "one large chunk", head + b"fffffffffffff\r\n", 413, closed=True)
    await expect(port, "a slow request", request("POST", "/sum", headers=["Content-Length: 10"]) + b"[1", 408,
                 closed=True)
    await expect(port, "half a line", b"GET /wor", 408, closed=True)
    client = Client(port)
    await client.open()
    for _ in range(3):  # a connection without a request may live longer than a request
        await asyncio.sleep(0.6)
        answer = await client.ask(request("GET", "/words?text=a"))
        if answer is None or answer[0] != 200:
            fail(f"kept alive: {answer}")
    client.hang_up()


async def rules_of_pipelines(port):
    """All requests in one write; the answers come in their order, and the last one closes."""
    client = Client(port)
    await client.open()
    data = b"".join(request("POST", "/sum", b"[%d]" % i) for i in range(500))
    client.writer.write(data + request("GET", "/words?text=z", headers=["Connection: close"]) +
                        request("GET", "/never"))
    for i in range(500):
        answer = await asyncio.wait_for(read_response(client.reader), 30)
        if answer is None or not answer[2].startswith(b'{"sum":%d,' % i):
            fail(f"pipeline: request {i}: {answer}")
            break
    else:
        answer = await asyncio.wait_for(read_response(client.reader), 30)
        if answer is None or answer[1].get("connection") != "close":
            fail(f"pipeline: the last: {answer}")
        if await client.reader.read(1):
            fail("pipeline: an answer behind the last one")
    client.hang_up()


def strings_for_json():
    return ["", "a", "\"\\/\b\f\n\r\t\x00\x1f", "äöü €", "\U0001f600", "x" * 3000]


async def rules_of_documents(port):
    tree = {"strings": strings_for_json(), "numbers": [0, -1, 1.5, 1e100, 12345678901234567890], "words":
            [None, True, False], "empty": [{}, []], "": {"deep": [[[1]]]}}
    for ascii_only in (True, False):
        text = json.dumps(tree, ensure_ascii=ascii_only).encode()
        await expect(port, "put", request("PUT", "/documents/a%20b", text), 201 if ascii_only else 200, b"")
        answer = await expect(port, "get", request("GET", "/documents/a%20b"), 200)
        if answer and json.loads(answer[2]) != tree:
            fail(f"get: {answer[2]!r}")
    await expect(port, "put of no JSON", request("PUT", "/documents/a%20b", b"["), 400)
    answer = await expect(port, "get", request("GET", "/documents/a%20b"), 200)
    if answer and json.loads(answer[2]) != tree:
        fail("a put that failed has changed the document")
    await expect(port, "delete", request("DELETE", "/documents/a%20b"), 200)
    await expect(port, "delete", request("DELETE", "/documents/a%20b"), 404)
    await expect(port, "get", request("GET", "/documents/a%20b"), 404)
    await expect(port, "no name", request("GET", "/documents/"), 404)


async def rules(port):
    await rules_of_http(port)
    await rules_of_malformed(port)
    await rules_of_limits(port)
    await rules_of_pipelines(port)
    await rules_of_documents(port)


# ---- load -------------------------------------------------------------------------------------------------


def a_tree(dice, n):
    """A body of about n values, and the sum of the whole numbers in it."""
    rows, total = [], 0
    for i in range(n // 5):
        a, b = dice.randrange(1000), dice.randrange(1000)
        total += a + b + i
        rows.append({"id": i, "name": f"row {a:x}", "values": [a, b]})
    return json.dumps({"rows": rows}).encode(), total


async def fill(port, n, seed):
    dice = random.Random(seed)
    client = Client(port)
    for i in range(n):
        answer = await client.ask(request("PUT", f"/documents/fill-{i}", a_tree(dice, 3000)[0]))
        if answer is None or answer[0] != 201:
            fail(f"fill: {answer}")
    client.hang_up()


async def load(port, n, connections, seed):
    dice = random.Random(seed)
    bodies = [a_tree(dice, 1500) for _ in range(20)]

    async def one(count):
        client = Client(port)
        for i in range(count):
            body, total = bodies[i % len(bodies)]
            answer = await client.ask(request("POST", "/sum", body))
            if answer is None or json.loads(answer[2])["sum"] != total:
                fail(f"sum: {answer}, not {total}")
                return
        client.hang_up()

    start = time.monotonic()
    await asyncio.gather(*(one(n // connections) for _ in range(connections)))
    print(f"load: {n} requests, {n / (time.monotonic() - start):.0f} a second")


# ---- mixed ------------------------------------------------------------------------------------------------


LEAST_ACTS = 5  # of each connection, however slow the machine is


class Mixed:
    def __init__(self, port, number, seed, end):
        self.client = Client(port)
        self.dice = random.Random(f"{seed} {number}")
        self.number = number
        self.end = end
        self.documents = {}
        self.count = 0

    async def sum(self):
        body, total = a_tree(self.dice, self.dice.choice((10, 100, 1000, 3000)))
        answer = await self.client.ask(request("POST", "/sum", body))
        if answer is None or answer[0] != 200 or json.loads(answer[2])["sum"] != total:
            fail(f"sum: {answer}, not {total}")

    async def words(self):
        words = [self.dice.choice("abcdefgh") * self.dice.randrange(1, 9) for _ in range(self.dice.randrange(500))]
        counts = {word: words.count(word) for word in set(words)}
        text = urllib.parse.quote_plus(" ".join(words))
        if len(text) < 3000:
            answer = await self.client.ask(request("GET", f"/words?text={text}"))
        else:
            answer = await self.client.ask(request("POST", "/words", " ".join(words).encode()))
        if answer is None or json.loads(answer[2])["words"] != counts:
            fail(f"words: {answer}")

    async def put(self):
        name, tree = f"{self.number}-{self.dice.randrange(8)}", json.loads(a_tree(self.dice, 300)[0])
        answer = await self.client.ask(request("PUT", f"/documents/{name}", json.dumps(tree).encode()))
        if answer is None or answer[0] != (200 if name in self.documents else 201):
            fail(f"put: {answer}")
        self.documents[name] = tree

    async def get(self):
        name = f"{self.number}-{self.dice.randrange(8)}"
        answer = await self.client.ask(request("GET", f"/documents/{name}"))
        if name in self.documents:
            if answer is None or answer[0] != 200 or json.loads(answer[2]) != self.documents[name]:
                fail(f"get: {answer and answer[0]}")
        elif answer is None or answer[0] != 404:
            fail(f"get: {answer}")

    async def delete(self):
        name = f"{self.number}-{self.dice.randrange(8)}"
        answer = await self.client.ask(request("DELETE", f"/documents/{name}"))
        if answer is None or answer[0] != (200 if name in self.documents else 404):
            fail(f"delete: {answer}")
        self.documents.pop(name, None)

    async def pages(self):
        answer = await self.client.ask(request("GET", "/stats"))
        if answer is None or json.loads(answer[2])["requests"] < 1:
            fail(f"stats: {answer}")
        answer = await self.client.ask(request("GET", "/metrics"))
        if answer is None or not answer[2].endswith(b"# EOF\n"):
            fail(f"metrics: {answer}")

    async def drop(self):
        """Hangs up in the middle of a request, or of an answer."""
        if self.client.writer is None:
            await self.client.open()
        body, _ = a_tree(self.dice, 1000)
        data = request("POST", "/sum", body) + request("GET", "/metrics") * 50
        self.client.writer.write(data[: self.dice.randrange(1, len(data))])
        await asyncio.sleep(self.dice.random() / 100)
        self.client.hang_up()

    async def slow(self):
        """Byte by byte."""
        if self.client.writer is None:
            await self.client.open()
        for byte in request("POST", "/sum", b"[1,2]"):
            self.client.writer.write(bytes([byte]))
            await asyncio.sleep(0)
        answer = await asyncio.wait_for(read_response(self.client.reader), 60)
        if answer is None or not answer[2].startswith(b'{"sum":3,'):
            fail(f"byte by byte: {answer}")

    async def late(self):
        """Asks for much and reads it when the server has long had to keep it."""
        name, tree = f"{self.number}-late", {"a": ["x" * 1000] * 60}
        answer = await self.client.ask(request("PUT", f"/documents/{name}", json.dumps(tree).encode()))
        reader = Client(self.client.port)
        reader.reader, reader.writer = await asyncio.open_connection("127.0.0.1", reader.port, limit=1 << 14)
        n = 100
        reader.writer.write(request("GET", f"/documents/{name}") * n)
        for i in range(n):
            answer = await asyncio.wait_for(read_response(reader.reader), 60)
            if answer is None or answer[0] != 200 and (answer[0] != 404 or i == 0):
                fail(f"late: {answer}")
                break
            if answer[0] == 200 and json.loads(answer[2]) != tree:
                fail("late: a torn answer")
            if i == 0:
                await asyncio.sleep(self.dice.random() / 2)
                await self.client.ask(request("DELETE", f"/documents/{name}"))
        reader.hang_up()

    async def run(self):
        acts = [self.sum] * 8 + [self.words] * 4 + [self.put] * 4 + [self.get] * 6 + [self.delete] * 2 + [
            self.pages, self.drop, self.slow, self.late]
        while time.monotonic() < self.end or self.count < LEAST_ACTS:
            act = self.dice.choice(acts)
            try:
                await act()
            except (OSError, ValueError, asyncio.TimeoutError, asyncio.IncompleteReadError) as error:
                self.client.hang_up()
                await connection_failed(self.client.port, act.__name__, error)
            self.count += 1
        for name in self.documents:
            await self.client.ask(request("DELETE", f"/documents/{name}"))
        self.client.hang_up()


async def mixed(port, seconds, connections, seed):
    end = time.monotonic() + seconds
    all_of_them = [Mixed(port, number, seed, end) for number in range(connections)]
    print(f"mixed: seed {seed}", flush=True)
    await asyncio.gather(*(one.run() for one in all_of_them))
    n = sum(one.count for one in all_of_them)
    print(f"mixed: {connections} connections, {n} acts, {faults} faults")


async def figure(port, name):
    answer = await Client(port).ask(request("GET", "/stats", headers=["Connection: close"]))
    if answer is None:
        raise ConnectionError("closed without an answer")
    print(json.loads(answer[2])[name])


async def run(what, port, rest):
    if what == "rules":
        await rules(port)
    elif what == "fill":
        await fill(port, *map(int, rest))
    elif what == "load":
        await load(port, *map(int, rest))
    elif what == "mixed":
        await mixed(port, float(rest[0]), int(rest[1]), int(rest[2]))
    elif what == "figure":
        await figure(port, rest[0])
    else:
        sys.exit(__doc__)


def main():
    what, port, *rest = sys.argv[1:]
    try:
        asyncio.run(run(what, int(port), rest))
    except ServerGone as gone:
        fail(f"the server is gone: {gone}")
    except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError) as error:
        fail(f"{what}: {error!r}")
    if faults > MOST_TOLD:
        print(f"FAIL: {faults - MOST_TOLD} more faults", file=sys.stderr)
    sys.exit(faults > 0)


main()
