"""The pretend device refuses what CUDA refuses and lets pass what CUDA lets pass; numbers are those of the CPU."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pretend_device import pretend_cuda, there
from torch import nn

from instructlab_utils import models, run, training, tuners


@pytest.fixture
def pair():
    """The same numbers on the CPU and on the device."""
    with pretend_cuda():
        x = torch.arange(12.0).view(3, 4)
        yield x, x.to("cuda")


REFUSED = {
    "a sum": lambda x, y: x + y,
    "a sum in place": lambda x, y: y.add_(x),
    "a product": lambda x, y: y @ x.T,
    "a concatenation": lambda x, y: torch.cat([x, y]),
    "a comparison of all": lambda x, y: torch.equal(x, y),
    "a number in a stack": lambda x, y: torch.stack([torch.tensor(1.0), y[0, 0]]),
    "the device's number with the CPU's vector": lambda x, y: x + y[0, 0],
    "the device's indices into the CPU": lambda x, y: x[torch.tensor([0], device="cuda")],
    "the device's mask over the CPU": lambda x, y: x[y > 3],
    "gather": lambda x, y: y.gather(1, torch.zeros(3, 1, dtype=torch.long)),
    "an embedding": lambda x, y: F.embedding(torch.tensor([0]), y),
    "a loss": lambda x, y: F.cross_entropy(y, torch.tensor([0, 1, 2])),
    "a layer": lambda x, y: nn.Linear(4, 2)(y),
    "a moved layer": lambda x, y: nn.Linear(4, 2).to("cuda")(x),
    "index_put with values": lambda x, y: y.index_put_((torch.tensor([0, 1]),), x[:2]),
    "a CPU generator": lambda x, y: torch.randn(2, generator=torch.Generator(), device="cuda"),
    "a CPU generator in place": lambda x, y: y.normal_(generator=torch.Generator()),
    "a new tensor without a device": lambda x, y: y * torch.ones(4),
}
NO_ARRAY = {
    "numpy": lambda y: y.numpy(),
    "asarray": np.asarray,
    "a list of numbers": lambda y: np.array([y[0, 0], y[0, 1]]),
    "a function of numpy": np.sqrt,
    "detached": lambda y: y.detach().numpy(),
}
ALLOWED = {
    "a number of the CPU": lambda x, y: y + torch.tensor(1.0),
    "a Python number": lambda x, y: 2 * y - 1,
    "indices of the CPU": lambda x, y: y[torch.tensor([0, 2])],
    "a list": lambda x, y: y[[0, 2], [1, 1]],
    "a mask of its own": lambda x, y: y[y > 3],
    "a copy into a slice": lambda x, y: copy.deepcopy(y)[1:].copy_(x[1:]),
    "made there": lambda x, y: y + torch.arange(4, device=y.device),
    "made like it": lambda x, y: y + torch.zeros_like(y) + y.new_ones(4) + y.new_tensor([1.0]),
    "one_hot": lambda x, y: F.one_hot(y[0].long(), 4) * y[:1].T,
    "where": lambda x, y: torch.where(y > 3, y, 0.0),
    "a move": lambda x, y: x.cuda() + x.to(y) + x.to(device="cuda", dtype=torch.float32) + y,
    "a view": lambda x, y: y.T.flatten()[None].expand(2, -1),
    "a copy of it": lambda x, y: copy.deepcopy(y) + y,
    "a moved layer": lambda x, y: nn.Linear(4, 2).to("cuda")(y),
    "a deep copy of a moved layer": lambda x, y: copy.deepcopy(nn.BatchNorm1d(4).to("cuda"))(y),
    "made inside and filled": lambda x, y: nn.utils.rnn.pad_sequence([y[0], y[1, :2]]) + y[0, 0],
    "made by a layer": lambda x, y: nn.Linear(4, 2, device="cuda")(y),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cuda_refuses(pair, what):
    with pytest.raises(RuntimeError, match="same device|generator"):
        REFUSED[what](*pair)


@pytest.mark.parametrize("what", NO_ARRAY)
def test_no_numpy_array_without_a_move(pair, what):
    _, y = pair
    with pytest.raises(TypeError, match=r"Use Tensor\.cpu\(\)"):
        NO_ARRAY[what](y)
    assert isinstance(y.cpu().numpy(), np.ndarray) and isinstance(y.to("cpu").numpy(), np.ndarray)
    assert y.tolist() == y.cpu().tolist() and y[0, 1].item() == 1


@pytest.mark.parametrize("what", ALLOWED)
def test_what_cuda_allows(pair, what):
    x, y = pair
    found = ALLOWED[what](x, y)
    assert there(found) and found.is_cuda and found.device == torch.device("cuda", 0)
    assert not there(x) and x.device.type == "cpu" and not there(found.cpu())


def test_training_gives_the_numbers_of_the_cpu_and_gradients_return_home():
    def trained(device):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Embedding(9, 4), nn.LayerNorm(4), nn.Flatten(), nn.Linear(12, 5)).to(device)
        optimizer = torch.optim.AdamW(net.parameters(), lr=0.1, foreach=False)
        for step in range(3):
            ids = ((torch.arange(12).view(4, 3) + step) % 9).to(device)
            z = net(ids)
            loss = F.cross_entropy(z, torch.tensor([0, 1, 2, 3], device=device)) + z.max(1).values.mean()
            loss = loss + z.sort(1).values[:, 0].mean() + z.cumsum(1).std()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            assert all(p.grad.device == p.device for p in net.parameters())
            optimizer.step()
            optimizer.zero_grad()
        return torch.cat([p.detach().cpu().flatten() for p in net.parameters()])

    with pretend_cuda():
        assert torch.equal(trained("cuda"), trained("cpu"))
        leaf = torch.ones(3, requires_grad=True)
        (leaf.to("cuda") * torch.ones(3, device="cuda")).sum().backward()
        assert leaf.grad.device.type == "cpu" and leaf.grad.tolist() == [1, 1, 1]
    assert not torch.cuda.is_available() and torch.ones(2).device.type == "cpu"


def test_autocast_and_the_loop_of_lesson_03_in_bf16():
    seen = []

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.out = nn.Embedding(20, 8), nn.Linear(8, 2)

        def forward(self, input_ids, attention_mask, labels=None):
            z = self.out(self.words(input_ids).mean(1))
            seen.append((z.dtype, z.device.type))
            return SimpleNamespace(logits=z)

    examples = [{"input_ids": [i % 20, 3, 5], "labels": i % 2} for i in range(12)]
    with pretend_cuda():
        torch.manual_seed(0)
        net = Net().to("cuda")
        assert models.pick_device("gpu") == "cuda" and models.pick_dtype("cuda") == torch.bfloat16
        training.train(net, examples, pad_id=0, steps=3, batch_size=4, learning_rate=1e-2, seed=0)
        assert set(seen) == {(torch.bfloat16, "cuda")}
        assert training.predict(net, examples, 0).device.type == "cpu"
        cost = run.Run("x", "gpu", 0, "cuda", None, None, None)
        with cost.measure() as spent:
            net(torch.ones(1, 3, dtype=torch.int64, device="cuda"), None)
        assert spent.peak_memory_mb == 1


def test_a_run_on_the_device_goes_on_after_a_kill(tmp_path):
    """A checkpoint lies on the CPU; weights, moments and generators must come back to the device."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.off, self.out = nn.Embedding(20, 8), nn.Dropout(0.5), nn.Linear(8, 2)

        def forward(self, input_ids, attention_mask):
            return SimpleNamespace(logits=self.out(self.off(self.words(input_ids).mean(1))))

    examples = [{"input_ids": [i % 20, 3, 5], "labels": i % 2} for i in range(12)]
    found = []
    with pretend_cuda():
        for folder, ends in ((tmp_path / "whole", [None]), (tmp_path / "cut", [3, None])):
            for until in ends:
                torch.manual_seed(0)
                net = Net().to("cuda")
                training.train(
                    net, examples, dev=examples, pad_id=0, steps=6, batch_size=4, learning_rate=1e-2, seed=0,
                    eval_every=2, save_every=2, folder=folder, until=until,
                )  # fmt: skip
            assert all(there(p) for p in net.parameters())
            found.append(torch.cat([p.detach().cpu().flatten() for p in net.parameters()]))
    assert torch.equal(*found)


def test_a_forgotten_move_in_a_model_is_found():
    """The kind of fault that no test on a CPU can see."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out = nn.Linear(4, 2)
            self.shift = torch.ones(2)  # no buffer, so .to() leaves it behind

        def forward(self, x):
            return self.out(x) + self.shift

    Net()(torch.ones(1, 4))
    with pretend_cuda(), pytest.raises(RuntimeError, match="same device"):
        Net().to("cuda")(torch.ones(1, 4, device="cuda"))


def test_mistakes_can_be_listed_instead():
    found = []
    with pretend_cuda(found.append):
        y = torch.ones(3, device="cuda")
        z = (y + torch.ones(3)).numpy()
    assert [type(error) for error in found] == [RuntimeError, TypeError] and z.tolist() == [2, 2, 2]


def test_a_tuner_is_saved_and_loaded_there(tmp_path):
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    with pretend_cuda():
        plain = BertForSequenceClassification(config).eval()
        net = tuners.inject(copy.deepcopy(plain), tuners.Lora(r=2), seed=0).to("cuda")
        batch = {"input_ids": torch.ones(2, 5, dtype=torch.long, device="cuda")}
        tuners.save(net, tmp_path / "lora")
        again = tuners.load(copy.deepcopy(plain), tmp_path / "lora").to("cuda")
        with torch.no_grad():
            assert torch.equal(net(**batch).logits, again(**batch).logits)


def test_the_rehearsal_lists_every_mistake_of_a_notebook_with_its_line(tmp_path):
    """Three planted ones; each is listed, none stops the rest."""
    source = tmp_path / "planted.py"
    source.write_text(
        """# %% tags=["parameters"]
profile: str = "auto"

# %%
import torch
from instructlab_utils import models, start
run = start("03", profile=profile)
net = models.load_classifier(2)
print(run.profile, run.device)

# %%
ids = torch.ones(2, 5, dtype=torch.long)
net(input_ids=ids.to(run.device))
net.to(run.device)
z = net(input_ids=ids.to(run.device)).logits
print(z.detach().numpy().shape)
net.classifier.weight.data.normal_(generator=torch.Generator())
print("to the end")
""",
        encoding="utf-8",
    )
    drill = Path(__file__).with_name("drill_gpu.py")
    done = subprocess.run(
        [sys.executable, drill, source], capture_output=True, text=True, cwd=drill.parents[1]
    )
    assert done.returncode == 1 and "smoke cuda" in done.stdout and "to the end" in done.stdout
    listed = [line for line in done.stdout.splitlines() if line.startswith("MISTAKE")]
    assert len(listed) >= 3 and all("cell 2:" in line for line in listed)
    for code, message in (
        ("net(input_ids=ids.to(run.device))", "found at least two devices"),
        ("print(z.detach().numpy().shape)", "Use Tensor.cpu()"),
        ("normal_(generator", "for generator but found 'cpu'"),
    ):
        assert code in done.stdout and message in done.stdout
