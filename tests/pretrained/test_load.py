import errno
import pickle
import sys
import types

import haiku as hk
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

import perceiver_jax
from perceiver_jax import config
from perceiver_jax.data import augment, imagenet_classes
from perceiver_jax.pretrained import configs, descriptions, files, hub, load, names, write
from tests import random_runs


def _of_authors(small):
    """The arrays of a small model by their paths in the authors' pickles."""
    section = configs.from_port(small.config)
    params = {}
    for name in names.table(section):
        module, _, last = name.authors.rpartition("/")
        x = small.tensors[name.port]
        x = x if name.axes is None else x.transpose(name.axes)
        params.setdefault(module, {})[last] = x
    return params


def test_a_folder_of_the_port_says_how_its_inputs_are_read(fixture, tmp_path):
    small = fixture("learned")
    small.config["id2label"] = {"1": "dog", "0": "cat", "2": "newt", "3": "eft", "4": "toad"}
    run = perceiver_jax.load_pretrained(small.write(tmp_path / "model"))
    assert run.class_names == {"label": ("cat", "dog", "newt", "eft", "toad")}
    assert run.config.model.gelu == "exact"
    assert run.task.main_metric == "top1"
    batch = run.prepare(np.zeros((20, 30, 3), np.uint8))
    assert batch["image"].shape == (1, 11, 11, 3)
    assert repr(run) == f"Run({str(tmp_path / 'model')!r}, step=0)"


@pytest.mark.parametrize("wrap", [dict, hk.data_structures.to_immutable_dict])
def test_a_pickle_of_the_authors_is_told_by_its_names(wrap, fixture, tmp_path, monkeypatch):
    small = fixture("conv")
    monkeypatch.setitem(configs.RELEASED, "vision-perceiver-conv", small.config)
    params = _of_authors(small)
    state = {key: params.pop(key) for key in list(params) if key.endswith("_ema")}
    for averages in state.values():
        averages |= {"hidden": averages["average"] * 3, "counter": np.int32(7)}
    path = tmp_path / "conv.pystate"
    path.write_bytes(pickle.dumps({"params": wrap(params), "state": wrap(state)}))
    run = perceiver_jax.load_pretrained(path)
    assert run.config.model.gelu == "tanh"
    assert run.config.model.inputs.image.stem.padding == "same"
    (tmp_path / "port").mkdir()
    as_port = perceiver_jax.load_pretrained(path, code="port")
    assert as_port.config.model.gelu == "exact"
    given, expected = small.cases[0]
    np.testing.assert_allclose(as_port(given)["label"], expected["label"], atol=1e-4)


def test_classes_of_imagenet_have_names_where_a_file_has_none(fixture):
    assert load._class_names({"num_labels": 1000})[207] == imagenet_classes.names()[207]
    assert load._class_names({"num_labels": 3}) == ("0", "1", "2")


def test_learned_positions_of_the_authors_decode_without_the_residual():
    residuals = [
        configs.released("vision-perceiver-learned", code)["outputs"]["label"]["use_query_residual"]
        for code in configs.CODES
    ]
    assert residuals == [True, False]


def test_a_processor_says_what_pictures_are_normalised_with(fixture, tmp_path):
    small = fixture("fourier")
    folder = small.write(tmp_path / "model")
    (folder / "preprocessor_config.json").write_text(
        '{"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], '
        '"size": {"height": 21, "width": 21}, "crop_size": 24}'
    )
    run = perceiver_jax.load_pretrained(folder)
    assert run.config.model.inputs.image.mean == (0.1, 0.2, 0.3)
    assert run.config.model.inputs.image.std == (0.4, 0.5, 0.6)
    assert run.fields["image"].image_size == 21


def of_processor(keys):
    port = configs.RELEASED["vision-perceiver-fourier"]
    section, described = configs.from_port(port), descriptions.describe(port)
    descriptions.follow_processor(keys, section, described)
    return section["inputs"]["image"], described["fields"]["image"]


def test_a_processor_says_whether_pictures_are_cut():
    for cuts, crop in ((True, "centre"), (False, "none")):
        assert of_processor({"do_center_crop": cuts})[1]["crop"] == crop


@pytest.mark.parametrize("size", [-7, 0, 7 * 10**8])
def test_a_processor_makes_no_pictures_that_there_are_not(size):
    with pytest.raises(config.UserError, match=r"^size of preprocessor_config\.json is .* at most"):
        of_processor({"size": size, "crop_size": size // 7 * 8})


@pytest.mark.parametrize("size", [1, 9, 13, 18, 29, 32, 224, 384, 1000])
def test_what_is_written_of_a_cut_is_read(size):
    whole = descriptions.crop_size(size)
    assert of_processor({"size": size, "crop_size": whole})[1]["image_size"] == size
    assert type(whole) is (float if size % 7 else int)


def test_the_port_cuts_out_as_many_pixels_as_are_cut_out_here():
    for size in range(1, 500):
        fraction = size / descriptions.crop_size(size)
        for side in range(2, 300):
            left, _, right, _ = augment.centre_box((side, side))
            assert int(fraction * side) == right - left, (size, side)


def test_a_processor_may_have_one_number_for_all_colours():
    assert of_processor({"image_mean": 0.25})[0]["mean"] == (0.25, 0.25, 0.25)


@pytest.mark.parametrize(
    "keys",
    [
        {"do_normalize": False},
        {"do_rescale": False},
        {"do_resize": False},
        {"rescale_factor": 2 / 255},
        {"resample": 2},
        *({"size": x, "crop_size": y} for x, y in [(224, 224), (13, 14), (32, 36), (32, 36.5)]),
        *({"size": x, "crop_size": y} for x, y in [(224, 255), (384, 438), (384, 439), (9, 0)]),
        {"size": 17},  # The port cuts out 17/256 then.
        *({"size": size} for size in ("x", [32, 32], {}, None, 3.5, {"height": 3, "width": 4})),
        *({"crop_size": x} for x in ("x", None, [], True, float("nan"), float("inf"))),
    ],
)
def test_a_processor_that_prepares_pictures_otherwise_is_refused(keys):
    with pytest.raises(config.UserError, match=r"^preprocessor_config\.json has [^\n]* expected"):
        of_processor(keys)


@pytest.mark.parametrize(
    "keys", [{"architectures": x} for x in (5, {"a": 1}, [[]], [], None)] + [{"id2label": 5}]
)
def test_a_config_of_wrong_types_is_refused(keys):
    port = configs.RELEASED["vision-perceiver-fourier"] | keys
    with pytest.raises(config.UserError, match=r"^config\.json has "):
        load._class_names(port)
        configs.from_port(port)


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16, np.float64])
def test_weights_may_be_floats_of_any_width(dtype, fixture, tmp_path):
    small = fixture("fourier")
    small.tensors = {name: x.astype(dtype) for name, x in small.tensors.items()}
    run = perceiver_jax.load_pretrained(small.write(tmp_path / "model"))
    expected = small.tensors["perceiver.embeddings.latents"].astype(np.float32)
    np.testing.assert_array_equal(run.params["encoder"]["latents"], expected)


def test_weights_that_are_no_numbers_are_refused(fixture, tmp_path):
    small = fixture("flow")
    small.tensors["perceiver.embeddings.latents"][1, 2] = np.nan
    with pytest.raises(config.UserError, match="latents of .* has NaN or infinity; expected"):
        perceiver_jax.load_pretrained(small.write(tmp_path / "model"))


def test_a_regression_predicts_numbers_and_another_problem_is_refused(fixture, tmp_path):
    small = fixture("text_classes")
    small.config["problem_type"] = "regression"
    run = perceiver_jax.load_pretrained(small.write(tmp_path / "model"))
    (answer,) = run.predict("a text")
    np.testing.assert_array_equal(answer["label"], run(run.prepare("a text"))["label"][0])
    small.config["problem_type"] = "regresion"
    with pytest.raises(config.UserError, match="Did you mean 'regression'"):
        perceiver_jax.load_pretrained(small.write(tmp_path / "model"))


@pytest.mark.parametrize(
    "keys",
    [
        ("0", "1", "2", "3", "7"),
        ("0", "00"),
        ("-1", "0", "1", "2", "3"),
        ("1", "2", "3", "4", "5"),
        ("0", "1", "2", "3", " 4"),
        ("0", "1", "2", "3", "x"),
    ],
)
def test_classes_that_are_not_counted_from_0_are_refused(keys):
    port = {"id2label": dict(zip(keys, "abcde", strict=False))}
    with pytest.raises(config.UserError, match=r"^config\.json has an id2label of .*; expected"):
        load._class_names(port)


def test_classes_are_named_in_the_order_of_their_numbers():
    assert load._class_names({"id2label": {"1": "dog", 0: "cat"}}) == ("cat", "dog")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"num_labels": 10**9}, r"num_labels of config\.json is 1000000000; .* at most"),
        ({"num_labels": 0}, r"num_labels of config\.json is 0; expected at least 1"),
        ({"num_labels": "7"}, r"num_labels of config\.json is '7'; expected a whole number"),
        ({"num_labels": []}, r"num_labels of config\.json is \[\]; expected"),
        ({"num_blocks": 10**4}, r"num_blocks of config\.json is 10000; .* at most 256"),
        ({"num_self_attends_per_block": 10**5}, r"num_self_attends_per_block .* at most 256"),
        *(
            ({key: 2**30}, rf"{key} of config\.json is 1073741824; .* at most")
            for key, default in configs.DEFAULTS.items()
            if type(default) is int
        ),
        ({"qk_channels": 2**30}, "qk_channels of .* at most"),
        ({"num_blocks": 64, "num_self_attends_per_block": 32}, "64 x 32 in all; expected at most"),
        ({"train_size": [2**14, 2**14]}, r"train_size of config\.json: 16384 x 16384 in all; .*"),
        ({"output_shape": [1, 1, 2, 2**20]}, r"output_shape of .*: 16 x 1048576 x 1048576 in all"),
        ({"output_shape": [1, 2**20, 2**9, 2]}, "output_shape of .*: 1 x 1048576 x 512 x 2 in all"),
        (
            {"audio_samples_per_frame": 2**20, "num_frames": 17},
            "samples_per_frame .*: 17 x 1048576",
        ),
    ],
)
def test_what_no_model_has_is_refused_at_once(keys, message, fixture, tmp_path):
    small = fixture("fourier")
    small.config |= keys
    with pytest.raises(config.UserError, match=message):
        perceiver_jax.load_pretrained(small.write(tmp_path / "model"))


def test_only_released_models_compute_as_others_code_does(tmp_path):
    write.write_own(random_runs.classifier(), tmp_path)
    with pytest.raises(config.UserError, match="Got code 'port' for .* trained here"):
        perceiver_jax.load_pretrained(tmp_path, code="port")


def test_what_is_no_weights_is_refused(fixture, tmp_path):
    with pytest.raises(config.UserError, match="Did you mean 'language-perceiver'"):
        perceiver_jax.load_pretrained("language-perciever")
    with pytest.raises(config.UserError, match="There is no 'xxx"):
        perceiver_jax.load_pretrained(500 * "x")  # Longer than the name of a file may be.
    with pytest.raises(config.UserError, match=r"has none of model\.safetensors"):
        perceiver_jax.load_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    safetensors.numpy.save_file({"w": np.zeros(2, np.float32)}, path)
    with pytest.raises(config.UserError, match=r"needs a config\.json beside it.*got none"):
        perceiver_jax.load_pretrained(path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(config.UserError, match="got one of model_type 'bert'"):
        perceiver_jax.load_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "perceiver", "architectures": ["Bert"]}')
    with pytest.raises(config.UserError, match="expected one of .*PerceiverForMaskedLM"):
        perceiver_jax.load_pretrained(tmp_path)
    with pytest.raises(config.UserError, match="Unknown code 'theirs'"):
        perceiver_jax.load_pretrained(tmp_path, code="theirs")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.pop("perceiver.embeddings.latents"), r"lacks perceiver\.embeddings\.latents"),
        (lambda x: x.update(more=x["embedding_decoder.bias"]), "has more, which the model has no"),
        (
            lambda x: x.update({"embedding_decoder.bias": np.zeros(7, np.float32)}),
            r"embedding_decoder\.bias .* has shape \(7,\); expected \(262,\)",
        ),
        (
            lambda x: x.update({"embedding_decoder.bias": np.zeros(262, np.int32)}),
            r"embedding_decoder\.bias .* is int32; expected floats",
        ),
        (
            lambda x: x.update(
                {"perceiver.input_preprocessor.embeddings.weight": np.zeros((16, 262), np.float32)}
            ),
            r"embeddings\.weight .* has shape \(16, 262\)",
        ),
    ],
)
def test_arrays_that_do_not_fit_are_named(change, message, fixture, tmp_path):
    small = fixture("masked_text")
    change(small.tensors)
    with pytest.raises(config.UserError, match=message):
        perceiver_jax.load_pretrained(small.write(tmp_path / "model"))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"hidden_act": "relu"}, "Unknown hidden_act of config.json 'relu'"),
        ({"use_query_residual": False}, "use_query_residual False"),
        ({"use_query_residual": "7"}, "use_query_residual '7'; expected true"),
        ({"qk_channels": 8, "v_channels": None}, "value channels of 8"),
        ({"num_latents": 0}, r"num_latents of config\.json is 0; expected at least 1"),
        ({"train_size": [7]}, r"train_size of config\.json is \[7\]; expected 2 numbers"),
        ({"cross_attention_shape_for_attention": "v"}, "Unknown cross_attention_shape_for"),
    ],
)
def test_what_the_port_can_and_models_here_can_not_is_refused(keys, message, fixture):
    with pytest.raises(config.UserError, match=message):
        configs.from_port(fixture("masked_text").config | keys)


# ------------------------------------------------------------------------------- the Hub


def _hub(monkeypatch, folder, network=lambda url: None):
    """Puts a Hub that has the files of a folder in the place of the package; returns its log."""
    asked = []

    class MissingError(Exception):
        pass

    class OfflineError(Exception):
        pass

    def download(repository, file, local_files_only):
        asked.append(f"{repository}/{file}{' of the cache' * local_files_only}")
        if not (folder / file).is_file():
            raise MissingError(f"no\n{file}")
        return str(folder / file)

    package = types.ModuleType("huggingface_hub")
    package.hf_hub_download = download
    package.hf_hub_url = "https://hub/{}/{}".format
    package.get_hf_file_metadata = network
    package.constants = types.SimpleNamespace(ENDPOINT="https://hub")
    package.errors = types.SimpleNamespace(
        HfHubHTTPError=MissingError,
        EntryNotFoundError=MissingError,
        LocalEntryNotFoundError=MissingError,
        OfflineModeIsEnabled=OfflineError,
    )
    monkeypatch.setitem(sys.modules, "huggingface_hub", package)
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", package.errors)
    return asked


@pytest.mark.parametrize("name", ["vision-perceiver-conv", "deepmind/vision-perceiver-conv"])
def test_a_released_name_is_downloaded(name, fixture, tmp_path, monkeypatch):
    asked = _hub(monkeypatch, fixture("conv").write(tmp_path / "model"))
    run = perceiver_jax.load_pretrained(name)
    assert run.config.model.inputs.image.stem.kind == "conv"
    assert asked[-1] == "deepmind/vision-perceiver-conv/model.safetensors"


def test_a_local_path_never_asks_the_hub(fixture, tmp_path, monkeypatch):
    asked = _hub(monkeypatch, tmp_path)
    fixture("conv").write(tmp_path / "language-perceiver")
    monkeypatch.chdir(tmp_path)
    perceiver_jax.load_pretrained("language-perceiver")
    assert not asked


def test_what_the_hub_has_not_is_said_in_one_line(tmp_path, monkeypatch):
    _hub(monkeypatch, tmp_path)
    with pytest.raises(config.UserError, match=r"can be downloaded: no config\.json\. Try again"):
        hub.fetch("language-perceiver")


def _no_network(url):
    try:
        raise OSError(errno.ENETUNREACH, "Network is unreachable")
    except OSError as error:
        raise RuntimeError(f"all that can be said of {url}") from error


def test_without_a_network_the_cache_is_used(fixture, tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "_PATIENCE", 0)
    folder = fixture("conv").write(tmp_path / "model")
    asked = _hub(monkeypatch, folder, _no_network)
    assert hub.fetch("vision-perceiver-conv") == folder
    assert asked and all(file.endswith(" of the cache") for file in asked)


def test_without_a_network_the_reason_is_said_once(tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "_PATIENCE", 0)
    _hub(monkeypatch, tmp_path, _no_network)
    message = r"downloaded: https://hub is out of reach \(Network is unreachable\)\. Try again wh"
    with pytest.raises(config.UserError, match=message):
        hub.fetch("language-perceiver")


def test_a_network_that_comes_a_moment_later_is_used(fixture, tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "_PAUSE", 0)
    answers = iter([_no_network, lambda url: None])
    folder = fixture("conv").write(tmp_path / "model")
    asked = _hub(monkeypatch, folder, lambda url: next(answers)(url))
    hub.fetch("vision-perceiver-conv")
    assert asked[0] == "deepmind/vision-perceiver-conv/config.json"


def test_a_slow_hub_is_left_to_its_own_retries(tmp_path, monkeypatch):
    def slow(url):
        raise TimeoutError(url)

    asked = _hub(monkeypatch, tmp_path, slow)
    with pytest.raises(config.UserError, match=r"no config\.json"):
        hub.fetch("language-perceiver")
    assert asked == ["deepmind/language-perceiver/config.json"]


def test_parts_are_downloaded_too(fixture, tmp_path, monkeypatch):
    folder = fixture("conv").write(tmp_path / "model")
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"a": "model-1.safetensors"}}')
    asked = _hub(monkeypatch, folder)
    assert hub.fetch("vision-perceiver-conv") == folder
    assert asked[-1].endswith("model-1.safetensors")
    assert files.find(folder) == index


def test_a_name_without_the_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(config.MissingPackageError, match=r"perceiver-haiku\[hub\]"):
        perceiver_jax.load_pretrained("language-perceiver")
