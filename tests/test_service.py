"""The service end to end, with tiny random models: keys, forms, streams, queues, versions, stored answers, logs."""

from __future__ import annotations

import asyncio
import inspect
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path

import httpx
import openai
import pytest
import torch

from instructlab_apps import commands
from instructlab_apps.service import desk as desks
from instructlab_apps.service import engines, http, serving, wire
from instructlab_utils import tuners
from instructlab_utils.errors import ConfigError, ParameterError, TrainingError

ROOT = Path(__file__).resolve().parents[1]
SMOKE = engines.smoke_engines()
TALK = {
    "model": "smoke",
    "messages": [{"role": "user", "content": "hello"}],
    "max_tokens": 5,
    "temperature": 0,
}
CLASSIFY = {"model": "smoke-a", "texts": ["one text", "another, longer text"]}


@asynccontextmanager
async def served(folder, scope="admin", **how):
    """The app in this process, a client with a key, and the desk."""
    settings = desks.ServiceSettings(folder, "smoke", **{"log_to": io.StringIO(), "drift_run": 100, **how})
    key = serving.new_key(folder, "test", scope, 1e6)
    app = http.create(settings, SMOKE)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app, raise_app_exceptions=True)
        head = {"Authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://here", headers=head) as client:
            yield client, app.state.desk


def run(main):
    return asyncio.run(asyncio.wait_for(main, 60))


# --- the door -----------------------------------------------------------------------------------------------------------


def test_the_command_serves_with_the_lanes_that_the_drill_kills():
    assert (
        inspect.signature(commands.serve).parameters["threads"].default == desks.ServiceSettings.threads == 2
    )


def test_no_key_no_answer(tmp_path):
    async def main():
        async with served(tmp_path) as (client, desk):
            good = client.headers["authorization"]
            flipped = good[:-2] + ("A" if good[-2] != "A" else "B") + good[-1]
            for header in (
                "",
                "Bearer",
                "Bearer ",
                "Basic " + good[7:],
                good + "x",
                flipped,
                "Bearer sk-0-0",
                "Bearer é",
            ):
                for method, path in (
                    ("POST", "/v1/chat/completions"), ("POST", "/classify"), ("POST", "/rank"),
                    ("POST", "/admin/rollout"), ("GET", "/v1/models"), ("GET", "/metrics"),
                ):  # fmt: skip
                    answer = await client.request(
                        method, path, headers={"Authorization": header.encode()}, content=b"{"
                    )
                    assert (
                        answer.status_code == 401 and answer.json()["error"]["type"] == "authentication_error"
                    )
            assert (await client.post("/classify", json=CLASSIFY)).status_code == 200
            for path in ("/healthz", "/readyz"):
                assert (await client.get(path, headers={"Authorization": ""})).status_code == 200
            assert desk.metrics.registry.get_sample_value("service_seconds_count", {"route": "/rank"}) == 8

    run(main())


def test_a_revoked_key_stops_at_once_and_ends_its_stream(tmp_path):
    async def main():
        async with served(tmp_path) as (client, desk):
            id = client.headers["authorization"].split("-")[1]
            caller = desk.admitted(client.headers["authorization"])
            asked = wire.ChatRequest(
                **{**TALK, "max_tokens": 200, "temperature": 2.0, "seed": 1, "stream": True}
            )
            events = await desk.stream(asked, "1", caller)
            seen = [await anext(events), await anext(events)]
            serving.revoke(tmp_path, id)  # by another connection, as from another process
            seen += [event async for event in events]
            assert b"revoked" in seen[-1] and len(seen) < 200 and b"[DONE]" not in b"".join(seen)
            for _ in range(2):
                assert (await client.post("/classify", json=CLASSIFY)).status_code == 401
            with pytest.raises(ParameterError):
                serving.revoke(tmp_path, id)

    run(main())


def test_a_user_may_not_change_versions_and_a_key_has_its_rate(tmp_path):
    async def main():
        async with served(tmp_path, "use") as (client, desk):
            body = {"model": "smoke-a", "action": "start", "version": "v2"}
            assert (await client.post("/admin/rollout", json=body)).status_code == 403
            slow = desk.keys.create("slow", "use", per_minute=20)
            head = {"Authorization": f"Bearer {slow}"}
            codes = [(await client.get("/v1/models", headers=head)).status_code for _ in range(4)]
            assert codes == [200, 200, 429, 429]
            refused = await client.get("/v1/models", headers=head)
            assert 1 <= int(refused.headers["retry-after"]) <= 3

    run(main())


def test_errors_have_openais_form_and_never_quote_what_was_sent(tmp_path):
    secret = "my card is 4111 1111 1111 1111"
    bad = [
        b"", b"{", b"[]", b"3", b"\xff\xfe", b'{"a": NaN}', b"[" * 5000, b'{"a":' * 5000, b"9" * 6000,
        json.dumps({**CLASSIFY, secret: 1}).encode(),
        json.dumps({**CLASSIFY, "texts": secret}).encode(),
        json.dumps({**CLASSIFY, "texts": []}).encode(),
        json.dumps({**CLASSIFY, "texts": [secret, None]}).encode(),
        json.dumps({**CLASSIFY, "texts": ["x"] * 33}).encode(),
        json.dumps({**CLASSIFY, "texts": ["x" * 8001]}).encode(),
        json.dumps({**CLASSIFY, "texts": [""]}).encode(),
        json.dumps({**CLASSIFY, "texts": ["<pad>"]}).encode(),
        json.dumps({**CLASSIFY, "model": secret}).encode(),
        b'{"model": "smoke-a", "texts": ["\\ud800"]}',
    ]  # fmt: skip

    async def main():
        async with served(tmp_path) as (client, _):
            for body in bad:
                answer = await client.post("/classify", content=body)
                told = answer.json()["error"]
                assert answer.status_code == 400 and set(told) == {"message", "type", "param", "code"}, body[
                    :60
                ]
                assert secret not in answer.text and "Traceback" not in answer.text and len(answer.text) < 400
            answer = await client.post("/classify", json={**CLASSIFY, "model": "nobody"})
            assert answer.status_code == 404 and answer.json()["error"]["param"] == "model"
            assert (await client.post("/classify", content=b" " * 300_000)).status_code == 413
            assert (await client.get("/classify")).status_code == 405
            assert (await client.get("/nowhere")).json()["error"]["type"] == "not_found_error"

    run(main())


def test_a_body_is_counted_even_if_it_does_not_tell_its_size(tmp_path):
    async def parts():
        for _ in range(40):
            yield b" " * 10_000

    async def never():
        yield b"{"
        await asyncio.sleep(30)

    async def main():
        async with served(tmp_path, body_patience=0.2) as (client, _):
            assert (await client.post("/classify", content=parts())).status_code == 413
            assert (await client.post("/classify", content=never())).status_code == 408

    run(main())


# --- answers ------------------------------------------------------------------------------------------------------------


def test_a_batch_answers_as_one_by_one(tmp_path):
    texts = [f"{'word ' * (n % 9)}text {n}" for n in range(30)]

    async def main():
        async with served(tmp_path) as (client, desk):
            sent = [client.post("/classify", json={"model": "smoke-a", "texts": [text]}) for text in texts]
            together = [answer.json()["results"][0] for answer in await asyncio.gather(*sent)]
            for text, found in zip(texts, together, strict=True):
                vector = desk.encoder.vectors("", [text])[0]
                p = desk.encoder.heads["smoke-a"]["v1"](vector[None])[0]
                assert abs(found["probabilities"]["yes"] - float(p[1])) < 1e-5
                assert found["label"] == ("no", "yes")[int(p.argmax())] and found["version"] == "v1"
            sizes = desk.metrics.registry.get_sample_value
            assert sizes("service_batch_size_count", {"engine": "encoder"}) < 30

    run(main())


def test_rank_is_the_cosine(tmp_path):
    documents = ["one text", "something else entirely", "one tex"]

    async def main():
        async with served(tmp_path) as (client, desk):
            answer = await client.post("/rank", json={"query": "one text", "documents": documents})
            results = answer.json()["results"]
            q, *rest = desk.encoder.vectors("", ["one text", *documents])
            want = torch.nn.functional.cosine_similarity(torch.stack(rest), q[None])
            assert [each["index"] for each in results] == want.argsort(descending=True).tolist()
            assert all(abs(each["score"] - float(want[each["index"]])) < 1e-5 for each in results)
            assert results[0]["index"] == 0

    run(main())


def test_decoding_in_steps_is_the_courses_greedy():
    from instructlab_utils import generation

    _, decoder = SMOKE
    prompts = [
        decoder.prompt_ids([{"role": "user", "content": text}], 9) for text in ("a", "hello there", "x y z")
    ]
    want = generation.greedy(decoder.variants["smoke"], prompts, 9, decoder.tokenizer.eos_token_id)
    lengths = (9, 3, 6)  # rows leave at different times, and the rest must not notice
    asked = [engines.Prompt(ids, most, 0.0, 0) for ids, most in zip(prompts, lengths, strict=True)]
    got = {place: found for ready in decoder.steps("smoke", asked) for place, found in ready}
    for place, most in enumerate(lengths):
        assert got[place][0] == want[place][:most]


def test_a_seed_repeats_an_answer_whatever_stands_beside_it():
    _, decoder = SMOKE
    ids = [decoder.prompt_ids([{"role": "user", "content": text}], 20) for text in ("one", "quite another")]

    def drawn(*which):
        asked = [engines.Prompt(ids[i], 20, 1.0, 7 + i) for i in which]
        return {which[place]: new for ready in decoder.steps("smoke", asked) for place, (new, _) in ready}

    both = drawn(0, 1)
    assert drawn(0)[0] == both[0] and drawn(1)[1] == both[1] and both[0] != both[1]


def test_a_prompt_that_nobody_waits_for_ends():
    _, decoder = SMOKE
    prompt = engines.Prompt(decoder.prompt_ids([{"role": "user", "content": "a"}], 200), 200, 2.0, 3)
    prompt.emit = lambda ids: setattr(prompt, "gone", len(ids) >= 4)
    assert len(list(decoder.steps("smoke", [prompt]))) <= 4


def test_adapters_share_the_weights_of_their_base(tmp_path):
    base = SMOKE[1].variants["smoke"]
    tuned = tuners.inject(engines.smoke_engines()[1].variants["smoke"], tuners.Lora(r=2))
    with torch.no_grad():
        for value in tuned.parameters():
            if value.requires_grad:
                value.add_(0.3)
    tuners.save(tuned, tmp_path)
    before = {name: value.clone() for name, value in base.state_dict().items()}
    twin = engines.with_adapter(base, tmp_path)
    own = {id(value) for value in base.parameters()}
    new = [value for value in twin.parameters() if id(value) not in own]
    assert sum(value.numel() for value in new) < 0.3 * sum(value.numel() for value in base.parameters())
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        assert (twin(ids).logits - tuned(ids).logits).abs().max() < 1e-5
        assert (twin(ids).logits - base(ids).logits).abs().max() > 1e-3
    assert all(torch.equal(value, before[name]) for name, value in base.state_dict().items())
    assert all(value.requires_grad for value in base.parameters())
    both = engines.DecoderEngine({"smoke": base, "smoke:lora": twin}, SMOKE[1].tokenizer)
    prompt = [engines.Prompt(both.prompt_ids([{"role": "user", "content": "a"}], 5), 5, 0.0, 0)]
    assert [list(both.steps(name, prompt))[-1][0][1][0] for name in both.variants]
    with pytest.raises(TrainingError):
        engines.with_adapter(base, tmp_path / "nothing")


def test_a_head_survives_the_disk_and_a_broken_one_is_named(tmp_path):
    head = engines.LinearHead(("a", "b", "c"), torch.randn(3, 5), torch.randn(3))
    engines.write_head(head, tmp_path / "h.safetensors")
    back = engines.read_head(tmp_path / "h.safetensors")
    assert (
        back.labels == head.labels
        and torch.equal(back.weight, head.weight)
        and torch.equal(back.bias, head.bias)
    )
    (tmp_path / "bad.safetensors").write_bytes(b"\x80\x04garbage")
    engines.write_head(replace(head, weight=torch.full((3, 5), torch.nan)), tmp_path / "nan.safetensors")
    for name in ("bad", "nan", "none"):
        with pytest.raises(ConfigError, match=name):
            engines.read_head(tmp_path / f"{name}.safetensors")


def test_a_fitted_head_is_scikit_learns():
    from sklearn.linear_model import LogisticRegression

    x = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    for k in (2, 3):
        y = [(i + int(x[i, 0] > 0)) % k for i in range(60)]
        want = LogisticRegression(max_iter=500).fit(x.numpy(), y).predict_proba(x.numpy())
        got = engines.fitted_head(x, y, [str(i) for i in range(k)])(x).numpy()
        assert abs(got - want).max() < 1e-5


# --- versions, stored answers, stopping ---------------------------------------------------------------------------------


def test_a_broken_candidate_is_rolled_back_and_nobody_gets_no_answer(tmp_path):
    async def main():
        async with served(tmp_path) as (client, desk):
            sound = desk.encoder.heads["smoke-a"]["v1"]
            desk.encoder.heads["smoke-a"]["v2"] = replace(sound, weight=sound.weight * torch.nan)
            start = {"model": "smoke-a", "action": "start", "version": "v2", "share": 0.5}
            assert (await client.post("/admin/rollout", json=start)).json()["candidate"] == "v2"
            for n in range(40):
                answer = await client.post("/classify", json={"model": "smoke-a", "texts": [f"text {n}"]})
                assert answer.status_code == 200 and answer.json()["results"][0]["version"] == "v1"
            assert desk.versions.route("smoke-a").candidate is None
            assert (
                desk.metrics.registry.get_sample_value("service_rollbacks_total", {"model": "smoke-a"}) == 1
            )

    try:
        run(main())
    finally:
        SMOKE[0].heads.update(engines.smoke_engines()[0].heads)


def test_a_good_candidate_gets_its_share_and_is_promoted(tmp_path):
    async def main():
        async with served(tmp_path) as (client, desk):
            desk.encoder.heads["smoke-a"]["v2"] = desk.encoder.heads["smoke-a"]["v1"]
            post = lambda **more: client.post("/admin/rollout", json={"model": "smoke-a", **more})  # noqa: E731
            await post(action="start", version="v2", share=0.3)
            asked = [{"model": "smoke-a", "texts": [f"text {n}"]} for n in range(200)]
            found = [
                (await client.post("/classify", json=each)).json()["results"][0]["version"] for each in asked
            ]
            again = [
                (await client.post("/classify", json=each)).json()["results"][0]["version"]
                for each in asked[:20]
            ]
            assert 35 <= found.count("v2") <= 85 and again == found[:20]
            assert (await post(action="promote")).json() == {"stable": "v2", "candidate": None, "share": 0.0}
            for wrong in (
                {"action": "promote"}, {"action": "start", "version": "v9"}, {"action": "start", "version": "v2"},
                {"action": "start", "version": "v1", "share": 0.0}, {"action": "drop"},
            ):  # fmt: skip
                assert (await post(**wrong)).status_code == 400

    try:
        run(main())
    finally:
        SMOKE[0].heads.update(engines.smoke_engines()[0].heads)


def test_an_idempotency_key_gives_the_same_bytes_also_after_a_restart(tmp_path):
    talk, head = {**TALK, "temperature": 1.5}, {"Idempotency-Key": "abc"}

    async def first():
        async with served(tmp_path) as (client, desk):
            sent = [client.post("/v1/chat/completions", json=talk, headers=head) for _ in range(5)]
            answers = await asyncio.gather(*sent)
            assert len({answer.content for answer in answers}) == 1
            assert (
                sorted(answer.headers.get("idempotent-replayed", "") for answer in answers)
                == [""] + ["true"] * 4
            )
            other = await client.post("/v1/chat/completions", json=TALK, headers=head)
            assert other.status_code == 409
            assert (await client.post("/classify", json=CLASSIFY, headers=head)).status_code == 409
            stream = await client.post("/v1/chat/completions", json={**talk, "stream": True}, headers=head)
            assert stream.status_code == 400
            assert (
                await client.post("/classify", json=CLASSIFY, headers={"Idempotency-Key": "x" * 201})
            ).status_code == 400
            mine = {"Authorization": f"Bearer {desk.keys.create('other')}", **head}
            assert (await client.post("/v1/chat/completions", json=talk, headers=mine)).content != answers[
                0
            ].content
            return answers[0].content, client.headers["authorization"]

    async def second(key):
        async with served(tmp_path) as (client, _):
            return await client.post(
                "/v1/chat/completions", json=talk, headers={**head, "Authorization": key}
            )

    body, key = run(first())
    again = run(second(key))
    assert again.content == body and again.headers["idempotent-replayed"] == "true"


def test_a_refused_request_leaves_its_idempotency_key_free(tmp_path):
    async def main():
        async with served(tmp_path) as (client, desk):
            head = {"Idempotency-Key": "k"}
            desk.vectors.room = 1
            assert (await client.post("/classify", json=CLASSIFY, headers=head)).status_code == 429
            desk.vectors.room = 64
            answer = await client.post("/classify", json=CLASSIFY, headers=head)
            assert (
                answer.status_code == 200 and "idempotent-replayed" not in answer.headers and not desk.flying
            )

    run(main())


def test_a_full_queue_says_429_and_when_to_come_back(tmp_path):
    async def main():
        async with served(tmp_path, room=4, batch=2) as (client, _):
            sent = [client.post("/classify", json=CLASSIFY) for _ in range(12)]
            answers = await asyncio.gather(*sent)
            codes = [answer.status_code for answer in answers]
            assert set(codes) == {200, 429} and codes.count(200) >= 2
            refused = next(answer for answer in answers if answer.status_code == 429)
            assert (
                int(refused.headers["retry-after"]) >= 1
                and refused.json()["error"]["type"] == "rate_limit_error"
            )
            stream = [client.post("/v1/chat/completions", json={**TALK, "stream": True}) for _ in range(60)]
            assert {answer.status_code for answer in await asyncio.gather(*stream)} == {200, 429}

    run(main())


def test_what_fails_inside_is_one_sentence_outside_and_masked_in_the_log(tmp_path):
    lines = io.StringIO()

    async def main():
        async with served(tmp_path, log_to=lines, log_texts=True) as (client, desk):

            def broken(key, texts):
                raise RuntimeError("cannot read ada@example.org")

            desk.vectors.steps = lambda key, texts: iter(broken(key, texts))
            text = "call +49 30 1234567 or card 4111 1111 1111 1111\nlevel: fake line"
            answer = await client.post("/classify", json={"model": "smoke-a", "texts": [text]})
            assert answer.status_code == 500 and answer.json()["error"]["type"] == "server_error"
            assert "example.org" not in answer.text and "Traceback" not in answer.text
            await client.get("/who/ada@example.org/4111111111111111")

    run(main())
    told = [json.loads(line) for line in lines.getvalue().splitlines()]
    whole = lines.getvalue()
    assert "[EMAIL]" in whole and "[PHONE]" in whole and "[CARD]" in whole and len(told) == 4
    assert not any(part in whole for part in ("ada@", "1234567", "4111", "sk-"))
    assert [each["status"] for each in told if "status" in each] == [500, 404]


def test_drift_is_heard(tmp_path):
    lines = io.StringIO()

    async def main():
        async with served(tmp_path, log_to=lines, drift_run=2000) as (client, desk):
            body = {"model": "smoke-a", "texts": ["ÄÖÜ ÄÖÜ ÄÖÜ ßßßß"] * 30}
            assert (await client.post("/classify", json=body)).status_code == 200
            assert desk.alarm.alarms >= 1
            answer = await client.get("/metrics")
            assert "service_drift_alarms_total" in answer.text and answer.status_code == 200

    run(main())
    assert "drift" in lines.getvalue()


def test_stopping_answers_those_who_wait_and_refuses_the_rest(tmp_path):
    async def main():
        settings = desks.ServiceSettings(tmp_path, "smoke", drift_run=100, log_to=io.StringIO())
        app = http.create(settings, SMOKE)
        async with app.router.lifespan_context(app):
            desk = app.state.desk
            asked = wire.ChatRequest(**{**TALK, "max_tokens": 60, "temperature": 2.0, "seed": 5})
            talks = [asyncio.create_task(desk.chat(asked, str(n))) for n in range(3)]
            await asyncio.sleep(0)
            assert desk.ready
        assert not desk.ready
        texts = [(await talk)["choices"][0]["message"]["content"] for talk in talks]
        assert len(set(texts)) == 1 and texts[0]
        with pytest.raises(Exception, match="stopping"):
            await desk.classify(wire.ClassifyRequest(**CLASSIFY), "9")

    run(main())


# --- a real server ------------------------------------------------------------------------------------------------------


def free_port():
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """``serve --model smoke`` as its own process: (address, key, process); its log goes to a file."""
    folder, port = tmp_path_factory.mktemp("serve"), free_port()
    command = [sys.executable, "-m", "instructlab_utils", "serve", "--model", "smoke", "--port", str(port)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--folder", str(folder)],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=ROOT,
            env=env,
        )
    try:
        key = process.stdout.readline().split()[-1]
        address = f"http://127.0.0.1:{port}"
        for _ in range(600):
            try:
                if httpx.get(f"{address}/readyz").status_code == 200:
                    break
            except httpx.TransportError:
                assert process.poll() is None, (folder / "log").read_text()
                time.sleep(0.1)
        yield address, key, process, folder
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.slow
def test_openais_own_client(server):
    address, key, *_ = server
    client = openai.OpenAI(base_url=f"{address}/v1", api_key=key, max_retries=0)
    assert "smoke" in [model.id for model in client.models.list()]
    how = {"model": "smoke", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 12, "seed": 4}
    whole = client.chat.completions.create(**how)
    assert whole.usage.completion_tokens <= 12 and whole.choices[0].finish_reason in ("stop", "length")
    pieces = list(client.chat.completions.create(**how, stream=True))
    text = "".join(piece.choices[0].delta.content or "" for piece in pieces)
    assert text == whole.choices[0].message.content and pieces[-1].choices[0].finish_reason
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(**{**how, "model": "gpt-4"})
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(**{**how, "temperature": 3})
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{address}/v1", api_key="sk-wrong", max_retries=0).models.list()


@pytest.mark.slow
def test_sigterm_lets_answers_out(server):
    address, key, process, folder = server
    head = {"Authorization": f"Bearer {key}"}
    body = {**TALK, "max_tokens": 256, "temperature": 2.0, "seed": 11, "stream": True}
    with httpx.stream(
        "POST", f"{address}/v1/chat/completions", json=body, headers=head, timeout=60
    ) as answer:
        lines = answer.iter_lines()
        next(lines)
        process.send_signal(signal.SIGTERM)
        rest = list(lines)
    assert answer.status_code == 200 and "data: [DONE]" in rest
    assert process.wait(timeout=30) == 0
    log = (folder / "log").read_text()
    assert "Traceback" not in log and key not in log


def test_the_command_makes_and_revokes_keys(tmp_path):
    from typer.testing import CliRunner

    from instructlab_apps.commands import app

    made = CliRunner().invoke(app, ["serve", "--folder", str(tmp_path), "--add-key", "ada"])
    key = made.stdout.strip()
    assert made.exit_code == 0 and key.startswith("sk-") and serving.has_keys(tmp_path)
    assert key.encode() not in (tmp_path / "service.sqlite").read_bytes()
    done = CliRunner().invoke(app, ["serve", "--folder", str(tmp_path), "--revoke-key", key.split("-")[1]])
    assert done.exit_code == 0 and not serving.has_keys(tmp_path)
    assert serving.adapters_of(["a=b", "c=d=e"]) == (("a", "b"), ("c", "d=e"))
    for wrong in ("a", "=b", "a="):
        with pytest.raises(ParameterError):
            serving.adapters_of([wrong])


def test_the_command_line_loads_no_server():
    code = "import sys; import instructlab_apps.commands; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    ).stdout
    assert "instructlab_apps.commands" in loaded.split()
    assert not {"fastapi", "uvicorn", "torch", "sqlite3", "prometheus_client"} & set(loaded.split())
