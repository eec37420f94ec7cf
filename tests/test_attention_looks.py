"""Which latents are looked at, and what of their maps is given."""

import types

import ml_collections
import numpy as np
import pytest

from perceiver_jax import attention_looks, config
from tests.test_reads import INPUTS, PARTS, STEP, build, make_batch, make_params

pytestmark = pytest.mark.xdist_group("reads")
HEADS = {"num_cross_attend_heads": 2, "qk_channels": 6}


def run_of(layers, reads, **encoder):
    """What is needed of a run, of random parameters."""
    model = build(layers, reads, **encoder)
    keys = {
        "num_latents": 5,
        "layers": layers,
        "reads": reads,
        "num_cross_attend_heads": 1,
        "num_self_attend_heads": 3,
    } | encoder
    section = ml_collections.ConfigDict({"model": {"inputs": INPUTS, "encoder": keys}})
    params = make_params(model, make_batch())
    return types.SimpleNamespace(config=section, model=model, params=params)


@pytest.fixture(scope="module")
def run():
    """Reads sound and video together, and three parts of them."""
    return run_of(STEP * 3, PARTS, **HEADS)


@pytest.fixture(scope="module")
def batch():
    return make_batch(1)


def expected(run, batch, index):
    return run.model.attention_maps(run.params, batch, [index])[0]


def test_maps_are_those_of_the_model_of_the_latents_and_heads_that_are_asked_for(run, batch):
    first, second = attention_looks.look(run, batch, layers=[4, 0], latents=[3, 1], heads=[1])
    assert (first.index, second.index) == (0, 4) and second.reads == "all[2]"
    assert first.chosen["audio"].latents == (3, 1) and first.heads == (1,)
    for look in (first, second):
        for name, maps in expected(run, batch, look.index).items():
            for kind, x in maps.items():
                np.testing.assert_allclose(
                    look.maps[name][kind], x[0, 1:, [3, 1]].swapaxes(0, 1), atol=1e-5
                )


def test_the_mean_of_heads_and_all_latents_are_given(run, batch):
    (look,) = attention_looks.look(run, batch, layers=[2], latents="all")
    whole = expected(run, batch, 2)["video"]["weights"]
    assert look.heads == ("mean",) and look.num_heads == 2
    np.testing.assert_allclose(look.maps["video"]["weights"][0], whole[0].mean(0), atol=1e-6)
    assert look.num_inputs == 7 + 12


def test_latent_transformers_have_all_their_latents_and_heads(run, batch):
    (look,) = attention_looks.look(run, batch, layers=[1], latents=[2], heads="all")
    assert look.reads == "" and look.heads == (0, 1, 2) and look.num_inputs == 5
    whole = expected(run, batch, 1)["self_attend_0"]["scores"]
    np.testing.assert_allclose(look.maps["self_attend_0"]["scores"], whole[0], atol=1e-5)


def test_the_first_second_and_last_cross_attend_are_looked_at_unless_others_are_named(run, batch):
    assert [x.index for x in attention_looks.look(run, batch, latents=[0])] == [0, 2, 4]


def test_layers_are_found_by_place_name_and_kind(run):
    def find(words):
        return attention_looks.find_layers(run, words.split())

    assert find("3 0") == [0, 3]
    assert find("cross_attend_0") == find("cross") == [0, 2, 4]
    assert find("self 0") == [0, 1, 3, 5]
    assert find("all") == [0, 1, 2, 3, 4, 5]
    with pytest.raises(config.UserError, match="layer"):
        find("6")


def test_most_are_those_with_most_weight_on_an_input(run, batch):
    looks = list(attention_looks.look(run, batch, layers=[0, 2], latents="most", num_latents=2))
    for name in ("audio", "video"):
        weights = [expected(run, batch, i)[name]["weights"][0].mean(axis=0) for i in (0, 2)]
        shares = np.mean([x.reshape(5, -1).sum(axis=1) for x in weights], axis=0)
        chosen = looks[1].chosen[name].latents
        assert chosen == looks[0].chosen[name].latents
        assert shares[list(chosen)].min() >= np.sort(shares)[-2] - 1e-3


def test_latents_that_are_computed_in_parts_are_the_same(run, batch, monkeypatch):
    def choose():
        options = {"layers": [0], "num_latents": 3}
        return next(attention_looks.look(run, batch, **options)).chosen

    at_once = choose()
    monkeypatch.setattr(attention_looks, "_MOST_NUMBERS", 2 * 2 * 19)  # Of two latents.
    assert choose() == at_once


def test_few_latents_stand_for_all_those_that_resemble_them():
    rng = np.random.default_rng(0)
    kinds = np.linalg.qr(rng.normal(size=(31, 3)))[0].T
    rows = np.repeat(kinds, [7, 5, 3], axis=0)
    rows += rng.normal(0, 0.02, rows.shape)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    chosen = attention_looks._representatives(rows, np.ones(15), np.ones(15), 3)
    first, second, third = chosen.latents
    assert first < 7 <= second < 12 <= third and chosen.alike == (7, 5, 3)


def test_latents_that_do_not_look_at_an_input_stand_for_none():
    rows = np.eye(4)
    share = np.array([0.9, 0.0, 0.8, 0.0])
    chosen = attention_looks._representatives(rows, share, np.ones(4), 2)
    assert chosen.latents == (0, 2)


def test_masked_inputs_have_no_part_in_likeness(run, batch):
    mask = np.ones((1, 21), bool)
    mask[:, ::2] = False
    cells = np.random.default_rng(0).normal(size=(2, 5, 13))
    cells[..., ::3] = -np.inf
    rows = attention_looks._standardised(cells)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    assert (rows.reshape(5, 2, 13)[..., ::3] == 0).all()
    (look,) = attention_looks.look(
        run, batch | {"audio_mask": mask}, layers=[0], latents="different", num_latents=2
    )
    assert np.isneginf(look.maps["audio"]["scores"]).any() and look.num_inputs < 19


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": [6]}, "layers is .6.; expected different numbers from 0 to 5"),
        ({"latents": [5]}, "latents is .5.; expected different numbers from 0 to 4"),
        ({"latents": "best"}, "choice of latents"),
        ({"heads": [2]}, "heads is .2.; expected different numbers from 0 to 1"),
        ({"heads": "best"}, "choice of heads"),
        ({"num_latents": 0}, "num_latents is 0"),
    ],
)
def test_what_there_is_not_is_an_error(run, batch, options, message):
    with pytest.raises(config.UserError, match=message):
        list(attention_looks.look(run, batch, **{"layers": [0]} | options))


def test_a_batch_of_several_examples_is_an_error(run):
    with pytest.raises(config.UserError, match="expected one, of each of"):
        list(attention_looks.look(run, make_batch(2)))


def test_programs_are_compiled_once_for_all_examples(run, batch):
    attention_looks._program.cache_clear()
    for seed in (0, 1):
        list(attention_looks.look(run, make_batch(1, seed=seed), latents=[0, 2], layers=[0]))
    assert attention_looks._program.cache_info().misses == 1
    (program,) = (attention_looks._program(run.model.attention_maps, (0,)),)
    assert program._cache_size() == 1
