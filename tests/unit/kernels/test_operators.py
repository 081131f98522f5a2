"""The registered operators: torch's own checks of them, what they refuse, and who knows them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from moe_sweeps.kernels import Arithmetic, KernelsUnavailable, load, operators, use
from moe_sweeps.kernels.operators import Operator

ALL = sorted(name for name, value in vars(operators).items() if isinstance(value, Operator))
DIFFERENTIABLE = [name for name in ALL if f"{name}_backward" in ALL]


@pytest.fixture(params=[a for a in Arithmetic if a.obstacle() is None], autouse=True)
def _kernels(request: pytest.FixtureRequest) -> Iterator[None]:
    """The kernels in each arithmetic that this processor has."""
    use(request.param)
    try:
        load()
        yield
    except KernelsUnavailable as error:
        pytest.skip(str(error))
    finally:
        use(None)


def _normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def _moe_inputs() -> tuple[Tensor, ...]:
    ids_TK = _normal(13, 4).topk(2).indices
    return _normal(13, 6), _normal(13, 2), _normal(4, 10, 6), _normal(4, 6, 5), ids_TK


def _inputs(name: str) -> tuple[Any, ...]:
    """Arguments of every operator. Those of a backward pass come from a forward pass."""
    if name.endswith("_backward"):
        forward = name.removesuffix("_backward")
        inputs = _inputs(forward)
        found = getattr(operators, forward)(*inputs)
        outputs = (found,) if isinstance(found, Tensor) else found
        kept = {
            "rms_norm": (*inputs[:2], *outputs[1:]),
            "swiglu": inputs,
            "rotary_attention": (*inputs, *outputs),
            "moe": (*inputs[1:4], *outputs[1:]),
        }
        return (*kept[forward], torch.ones_like(outputs[0]))
    return {  # type: ignore[no-untyped-call]
        "rms_norm": lambda: (_normal(3, 5, 6), _normal(6), 1e-5),
        "swiglu": lambda: (_normal(3, 5, 8),),
        "rotary_attention": lambda: (_normal(2, 5, 24), _normal(5, 4), _normal(5, 4)),
        "moe": _moe_inputs,
        "cross_entropy_": lambda: (_normal(7, 11), torch.arange(7), 0.5),
    }[name]()


def test_every_kernel_that_the_model_calls_is_here() -> None:
    assert {*DIFFERENTIABLE} == {"rms_norm", "swiglu", "rotary_attention", "moe"}
    assert {*ALL} == {*DIFFERENTIABLE, *(f"{name}_backward" for name in DIFFERENTIABLE), "cross_entropy_"}


@pytest.mark.parametrize("name", ALL)
def test_torchs_own_checks(name: str) -> None:
    inputs = _inputs(name)
    if name in DIFFERENTIABLE:
        constants = ("cos_SC", "sin_SC")
        for x, argument in zip(inputs, _tensors(name), strict=False):
            x.requires_grad_(x.is_floating_point() and argument not in constants)
    torch.library.opcheck(getattr(operators, name).overload, inputs)


@pytest.mark.parametrize("name", ALL)
def test_the_function_does_what_the_operator_does(name: str) -> None:
    found, wanted = (call(*_inputs(name)) for call in _both(name))
    assert _same(found, wanted)


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradients_are_the_same_through_the_dispatcher_and_past_it(name: str) -> None:
    found = []
    for call in _both(name):
        first, *others = _inputs(name)
        first.requires_grad_()
        outputs = call(first, *others)
        y = outputs if isinstance(outputs, Tensor) else outputs[0]
        found.append(torch.autograd.grad(y.square().sum(), first))
    assert _same(*found)
    assert float(found[0][0].abs().max()) > 0


def _both(name: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    operator: Operator = getattr(operators, name)
    return operator, operator.overload


def _same(a: Any, b: Any) -> bool:
    pairs = zip((a,), (b,), strict=True) if isinstance(a, Tensor) else zip(a, b, strict=True)
    return all(x.dtype is y.dtype and torch.equal(x, y) for x, y in pairs)


def _transposed(x: Tensor) -> Tensor:
    """The same values, laid out otherwise."""
    return torch.stack([x, x], dim=-1)[..., 0]


HARM: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "dtype": (lambda x: x.to(torch.int16), "is int16"),
    "contiguity": (_transposed, "not contiguous; it has to be"),
    "axes": (lambda x: x.unsqueeze(0).unsqueeze(-1).squeeze(0), "of shape"),
}


def _tensors(name: str) -> list[str]:
    return [a.name for a in getattr(operators, name).overload._schema.arguments if "Tensor" in str(a.type)]


@pytest.mark.parametrize(
    ("name", "argument", "harm"), [(n, a, harm) for n in ALL for a in _tensors(n) for harm in HARM]
)
def test_an_argument_that_cannot_be_computed_with_is_named(name: str, argument: str, harm: str) -> None:
    """Each argument of each operator, in each wrong way, by the function and by torch.ops."""
    inputs, place = list(_inputs(name)), _tensors(name).index(argument)
    spoil, words = HARM[harm]
    inputs[place] = spoil(inputs[place])
    for call in _both(name):
        with pytest.raises(ValueError, match=rf"^moe_sweeps::{name}: ") as caught:
            call(*inputs)
        if harm != "axes":  # an axis too many can be another argument's fault
            assert f": {argument} is " in str(caught.value)
            assert words in str(caught.value)


def test_the_message_says_what_it_got_and_what_it_needs() -> None:
    with pytest.raises(ValueError, match="rms_norm") as caught:
        operators.rms_norm(_normal(3, 5, 6), torch.ones(6, dtype=torch.int64), 1e-5)
    assert str(caught.value) == (
        "moe_sweeps::rms_norm: weight_D is int64 of shape (6,) on cpu, contiguous; "
        "it has to be float32 of shape (D=6) on cpu, contiguous"
    )
    with pytest.raises(ValueError, match=r"swiglu: h_XH has the shape \(3, 7\); it needs an even H"):
        operators.swiglu(_normal(3, 7))
    with pytest.raises(ValueError, match=r"moe: up_EHD has the shape \(4, 9, 6\); it needs H = 2F"):
        operators.moe(*_moe_inputs()[:2], _normal(4, 9, 6), *_moe_inputs()[3:])


def test_a_tensor_on_another_device_is_named() -> None:
    with FakeTensorMode(), pytest.raises(ValueError, match=r"swiglu: h_XH is float32 of shape \(3, 8\) on cuda:0"):
        operators.swiglu(torch.empty(3, 8, device="cuda:0"))


@pytest.mark.parametrize("bad", [-1, 4])
def test_an_index_out_of_range_touches_no_memory(bad: int) -> None:
    *others, ids_TK = _moe_inputs()
    ids_TK[3, 1] = bad
    with pytest.raises(IndexError, match="moe: ids_TK has to hold ids of experts, 0 to 3"):
        operators.moe(*others, ids_TK)
    logits_RV = _normal(2, 4)
    before = logits_RV.clone()
    with pytest.raises(IndexError, match="cross_entropy_: targets_R has to hold columns of logits_RV, 0 to 3"):
        operators.cross_entropy_(logits_RV, torch.tensor([0, bad]), 1.0)
    assert torch.equal(logits_RV, before)


@pytest.mark.parametrize("name", ALL)
def test_shapes_are_known_without_computing(name: str) -> None:
    inputs = _inputs(name)
    wanted = getattr(operators, name)(*inputs)
    with FakeTensorMode(allow_non_fake_inputs=False) as mode:
        found = getattr(operators, name)(*(mode.from_tensor(x) if isinstance(x, Tensor) else x for x in inputs))
    for fake, real in zip(*((x,) if isinstance(x, Tensor) else x for x in (found, wanted)), strict=True):
        assert (fake.shape, fake.dtype, fake.stride()) == (real.shape, real.dtype, real.stride())


def test_a_mode_sees_the_operators() -> None:
    """The functions pass the dispatcher by; not while somebody watches it, as a counter of FLOPs or a tracer does."""
    seen = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    h_XH = _normal(3, 8).requires_grad_()
    with Watch():  # type: ignore[no-untyped-call]
        operators.swiglu(h_XH).sum().backward()
    assert "moe_sweeps.swiglu.default" in seen
    assert "moe_sweeps.swiglu_backward.default" in seen


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_the_compiler_takes_them_in_one_graph(name: str) -> None:
    first, *others = _inputs(name)

    def loss(x: Tensor) -> Tensor:
        found = getattr(operators, name)(x * 2, *others)
        y: Tensor = found if isinstance(found, Tensor) else found[0]
        return y.square().sum()

    traced: Callable[[Tensor], Tensor] = torch.compile(loss, backend="aot_eager", fullgraph=True)
    found = []
    for call in (loss, traced):
        x = first.clone().requires_grad_()
        found.append((call(x), *torch.autograd.grad(call(x), x)))
    assert _same(*found)
