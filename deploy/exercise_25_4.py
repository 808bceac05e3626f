# %% [markdown]
# ## 25.4 A client that asks until it knows
#
# > ●●●○○ · 45 minutes · practice
#
# Networks lose requests, and they lose answers. Write a client for the **real service** of the lesson, which the checker runs
# with tiny random models behind a bad line. `ask(post, text, sleep)` returns the label of `text` (the answer's
# `["results"][0]["label"]`).
#
# `post(body, headers)` sends one request: two dicts; the path and the access key are added for you. It returns
# `(status, headers, body)`, the names of the headers in lower case, or raises `ConnectionError`: then nobody knows whether
# the service has computed. The body is `{"model": "smoke-a", "texts": [text]}`. `sleep(seconds)` waits.
#
# - **Once.** The service must compute *one* answer for each call of `ask`, however often it is asked: send an
#   `Idempotency-Key`, up to 200 printable ASCII characters. Two calls of `ask` are two questions, also for the same text.
# - **Again** after `ConnectionError`, after a status from 500 to 599, and after 429; eight tries at most, then raise
#   `TimeoutError`. After 429 wait as many seconds as the header `retry-after` says. After the others wait
#   $0.1 \cdot 2^k$ seconds, where $k$ counts the earlier failures *of that kind* (not those with 429) in this call:
#   $0.1$, $0.2$, $0.4$ … There is no waiting after the eighth try.
# - **Not again** after any other status but 200: raise `ValueError`. The same request would fail for ever.


# %% nbgrader={"grade_id": "answer_25_4", "solution": true}
def ask(post, text, sleep):
    """The label of ``text``, computed once."""
    ### BEGIN SOLUTION
    headers, failures = {"Idempotency-Key": str(uuid.uuid4())}, 0
    for left in range(7, -1, -1):
        try:
            status, told, body = post({"model": "smoke-a", "texts": [text]}, headers)
        except ConnectionError:
            status, told, body = 599, {}, {}
        if status == 200:
            return body["results"][0]["label"]
        if status != 429 and not 500 <= status <= 599:
            raise ValueError(f"status {status}: {body}")
        pause = float(told["retry-after"]) if status == 429 else 0.1 * 2**failures
        failures += status != 429
        if left:
            sleep(pause)
    raise TimeoutError("eight tries, and no answer")
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_25_4", "locked": true}
@functools.cache
def tiny_models():
    return engines.smoke_engines()


class BadLine:
    """The service, and a line that does what ``script`` says: "ok", "lost" (request), "unheard" (answer), a status."""

    def __init__(self, client, script):
        self.client, self.script, self.keys, self.slept, self.sent = client, list(script), [], [], []

    def post(self, body, headers):
        event = self.script.pop(0) if self.script else "ok"
        self.keys.append(dict(headers).get("Idempotency-Key"))
        self.sent.append(body)
        if event == "lost":
            raise ConnectionError("the line is dead")
        if event in (429, 500, 503):
            return event, {"retry-after": "3"} if event == 429 else {}, {"error": {"message": "not now"}}
        found = self.client.post("/classify", json=body, headers=headers)
        if event == "unheard":
            raise ConnectionError("the line is dead")
        return found.status_code, {name.lower(): value for name, value in found.headers.items()}, found.json()

    def sleep(self, seconds):
        self.slept.append(round(float(seconds), 6))


@contextlib.contextmanager
def bad_service():
    """A running service with a key, and the folder of its answers."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        key = serving.new_key(folder, "exercise", per_minute=1e6)
        app = http.create(
            desk.ServiceSettings(folder, "smoke", drift_run=100, log_to=io.StringIO()), tiny_models()
        )
        with TestClient(app, headers={"Authorization": f"Bearer {key}"}) as client:
            yield client, folder / "service.sqlite"


def stored(file):
    """How many answers the service keeps."""
    with contextlib.closing(sqlite3.connect(file)) as db:
        return db.execute("SELECT COUNT(*) FROM answers").fetchone()[0]


def check_25_4(ask):
    call = checking.calls(ask, limit=20, slow="Does it stop after eight tries?")
    with bad_service() as (client, file):
        for text, script in (("a text", []), ("a text", ["lost"]), ("näher", ["unheard", "unheard"])):
            line, before = BadLine(client, script), stored(file)
            got = call(line.post, text, line.sleep)
            assert line.sent[0] == {"model": "smoke-a", "texts": [text]}, (
                "The body is not the one of the box."
            )
            assert None not in line.keys, (
                "A request went out without an Idempotency-Key: its answer is computed anew."
            )
            assert len(set(line.keys)) == 1, (
                "Each try has a key of its own, so the service computes again. Make it once."
            )
            assert stored(file) > before, (
                "This call got an older call's answer: two calls with the same text share a key."
            )
            assert stored(file) == before + 1, "The service has computed more than once for one call."
            assert got in ("no", "yes"), f"Return the label, no or yes, not {checking.shown(got)}."
            vector = tiny_models()[0].vectors("", [text])[0]
            right = ("no", "yes")[int(tiny_models()[0].heads["smoke-a"]["v1"](vector[None]).argmax())]
            assert got == right, "That is not the label that the service has given."
        line = BadLine(client, [429, 429])
        with checking.means(ValueError, "429 means: later. Wait as long as retry-after says, and ask again."):
            call(line.post, "busy", line.sleep)
        assert line.slept != [0.1, 0.2], "After 429 the service itself says how long to wait: retry-after."
        checking.equal(line.slept, [3.0, 3.0], "the waits after 429, 429")
        line = BadLine(client, ["lost", 503, 429, "unheard", 500])
        with checking.means(
            ValueError, "A status of 500 or above is the service's trouble, not yours: ask again."
        ):
            call(line.post, "trouble", line.sleep)
        assert line.slept != [0.1, 0.2, 3.0, 0.8, 1.6], (
            "A 429 does not count as a failure: k stays where it was."
        )
        checking.equal(line.slept, [0.1, 0.2, 3.0, 0.4, 0.8], "the waits after lost, 503, 429, unheard, 500")
        for script in (["lost"] * 8, ["lost"] * 50, [429] * 9):
            line = BadLine(client, script)
            call.refuses(TimeoutError, line.post, "nobody", line.sleep, says="Eight tries have failed.")
            assert len(line.keys) == 8, f"You have tried {len(line.keys)} times; eight is the most."
            assert len(line.slept) == 7, "There is nothing to wait for after the eighth try."
        line = BadLine(client, [])
        says = "An empty text is refused with 400, and always will be."
        call.refuses(ValueError, line.post, "", line.sleep, says=says)
        assert len(line.keys) == 1, (
            "You have sent a request again that was refused with 400. It will fail for ever."
        )
    print("25.4 passed.")


check_25_4(ask)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# The key belongs to the *question*, not to the try. Where in your function is it made?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Sort what can happen into three heaps before you write a loop: done, again, never again. Two counters: tries, and
# failures of the kind that doubles the pause.
#
# </details>
#
# {{solution}}
