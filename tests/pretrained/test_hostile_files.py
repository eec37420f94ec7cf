"""Files that would run something, take all memory, or lie: each is refused in one line."""

import builtins
import io
import json
import os
import pickle
import struct
import subprocess
import tracemalloc
import zipfile

import numpy as np
import pytest

from perceiver_jax import config
from perceiver_jax.pretrained import files, pickles

W = np.zeros(3, np.float32)


class _Calls:
    """Pickles as a call of anything."""

    def __init__(self, function, *args, state=None):
        self.reduced = (function, args) if state is None else (function, args, state)

    def __reduce__(self):
        return self.reduced


def _call(function, *args, protocol=2):
    return pickle.dumps({"w": _Calls(function, *args)}, protocol=protocol)


def _text(text):
    return b"X" + struct.pack("<I", len(text)) + text.encode()


def _zip(pickled, storages=(), compression=zipfile.ZIP_STORED):
    """An archive as PyTorch writes it."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled)
        for name, content in storages:
            archive.writestr(f"archive/data/{name}", content)
    return file.getvalue()


def _tensor(size=(3,), stride=(1,), offset=0, key="0", numel=3, kind="torch\nFloatStorage\n"):
    """A pickle of a mapping of one tensor, whose storage has these settings."""

    def whole(*numbers):
        return b"(" + b"".join(b"\x8a\x08" + struct.pack("<q", n) for n in numbers) + b"t"

    storage = b"(" + _text("storage") + b"c" + kind.encode() + _text(key) + _text("cpu")
    storage += b"\x8a\x08" + struct.pack("<q", numel) + b"tQ"
    view = whole(offset)[1:-1] + whole(*size) + whole(*stride)
    view += b"\x89ccollections\nOrderedDict\n)R"
    function = b"ctorch._utils\n_rebuild_tensor_v2\n"
    return b"\x80\x02}" + _text("w") + function + b"(" + storage + view + b"tRs."


def _laughs():
    """Mappings that hold the one before ten times: small, but not when they are walked."""
    levels = b"}" + _text("w") + b"K\x00sq\x00"
    for i in range(7):
        items = b"".join(_text(str(n)) + b"h" + bytes([i]) for n in range(60))
        levels += b"0}(" + items + b"uq" + bytes([i + 1])
    return b"\x80\x02" + levels + b"."


def _safetensors(header, data=b"", length=None):
    header = json.dumps(header).encode() if isinstance(header, dict) else header
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def _sized(dtype, shape, offsets):
    return {"w": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


def _hostile(marker):
    """Content by the file's name."""
    command = f"touch {marker}"
    python = f"open({str(marker)!r}, 'w').close()"
    array = pickle.dumps({"w": W}, protocol=2)
    float_array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85C\x01btR"
    return {
        # Calls.
        "reduce.bin": _call(os.system, command),
        "reduce_protocol_4.bin": _call(os.system, command, protocol=4),
        "protocol_0.bin": _call(os.system, command, protocol=0),
        "eval.pickle": _call(builtins.eval, python),
        "exec_in_torch.bin": _zip(_call(builtins.exec, python)),
        "popen.bin": _call(subprocess.Popen, ["touch", str(marker)]),
        "nested_getattr.bin": b"\x80\x02cbuiltins\ngetattr\n(cbuiltins\ngetattr\n(cos\nenviron\n"
        + _text("copy")
        + b"tR"
        + _text("__globals__")
        + b"tR.",
        "dotted_name.bin": b"\x80\x04"
        + _text("collections")
        + _text("OrderedDict.__init__")
        + b"\x93.",
        "name_that_is_no_text.bin": b"\x80\x04K\x01K\x02\x93.",
        "stack_global.bin": b"\x80\x04"
        + _text("os")
        + _text("system")
        + b"\x93("
        + _text(command)
        + b"tR.",
        "call_of_a_result.bin": b"\x80\x02ccollections\nOrderedDict\n)R)R.",
        "instance.bin": b"\x80\x02(" + _text(command) + b"ios\nsystem\n.",
        "object.bin": b"\x80\x02(cos\nsystem\n" + _text(command) + b"o.",
        "new_object.bin": b"\x80\x02csubprocess\nPopen\n(" + _text(command) + b"t\x81.",
        "new_object_with_keywords.bin": b"\x80\x04ccollections\nOrderedDict\n)}\x92.",
        "extension.bin": b"\x80\x02\x82\x01.",
        "persistent_module.bin": _zip(_tensor(kind="os\nsystem\n"), [("0", b"\0" * 12)]),
        "persistent_text.bin": b"\x80\x02Pos.system\n.",
        "persistent_outside_of_torch.pickle": b"\x80\x02" + _text("os") + b"Q.",
        "set_state.bin": b"\x80\x02cnumpy\nndarray\n}"
        + _text("__setstate__")
        + b"ccollections\nOrderedDict\nsb.",
        "state_of_a_name.bin": b"\x80\x02c_codecs\nencode\n}" + _text("x") + b"K\x01sb.",
        "codec.bin": b"\x80\x02c_codecs\nencode\n" + _text("a") + _text("rot13") + b"\x86R.",
        "objects.pickle": pickle.dumps({"w": np.array([_Calls(os.system, command)])}, protocol=2),
        # Lies about sizes, and bombs.
        "laughs.pickle": _laughs(),
        "mapping_in_itself.pickle": b"\x80\x02}q\x00" + _text("w") + b"h\x00s.",
        "deep.pickle": b"\x80\x02" + (b"}" + _text("w")) * 1500 + b"N" + b"s" * 1500 + b".",
        "truncated.pickle": array[: len(array) // 2],
        "more_bytes_than_there_are.pickle": b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"abc.",
        "negative_size.pickle": b"\x80\x02\x8b" + struct.pack("<i", -5) + b".",
        "shape_beyond_its_bytes.pickle": b"\x80\x03"
        + float_array
        + b"(K\x01\x8a\x08"
        + struct.pack("<q", 2**40)
        + b"\x85cnumpy\ndtype\n"
        + _text("f4")
        + b"\x89\x88\x87R\x89C\x04abcdtb.",
        "stride_out_of_its_storage.bin": _zip(_tensor(stride=(10**6,)), [("0", b"\0" * 12)]),
        "offset_out_of_its_storage.bin": _zip(_tensor(offset=1), [("0", b"\0" * 12)]),
        "one_number_repeated.bin": _zip(_tensor((2**40,), (0,)), [("0", b"\0" * 12)]),
        "storage_larger_than_its_file.bin": _zip(_tensor(numel=2**40), [("0", b"\0" * 12)]),
        "path_out_of_the_archive.bin": _zip(_tensor(key="../../w"), [("../../w", b"\0" * 12)]),
        "lacks_a_storage.bin": _zip(_tensor(key="7")),
        "compressed.bin": _zip(_tensor(), [("0", b"\0" * 2**24)], zipfile.ZIP_DEFLATED),
        "archive_that_ends.bin": _zip(_tensor(), [("0", b"\0" * 12)])[:-30],
        "other_archive.bin": _zip(b"")[:4] + b"nothing",
        "goes_on.pickle": array + array,
        "empty.bin": b"",
        "page.bin": b"<html>404</html>",
        # safetensors.
        "header_too_long.safetensors": _safetensors({}, length=2**60),
        "header_no_json.safetensors": _safetensors(b"{" * 9000),
        "beyond_the_file.safetensors": _safetensors(_sized("F32", [2**20], [0, 2**22]), b"abcd"),
        "shape_overflow.safetensors": _safetensors(_sized("F32", [2**40, 2**40], [0, 4]), b"abcd"),
        "shape_and_size_differ.safetensors": _safetensors(_sized("F32", [2], [0, 4]), b"abcd"),
        "backwards.safetensors": _safetensors(_sized("F32", [1], [4, 0]), b"abcd"),
        "unknown_type.safetensors": _safetensors(_sized("PICKLE", [1], [0, 4]), b"abcd"),
        "pickle.safetensors": _call(os.system, command),
    }


@pytest.mark.parametrize("name", _hostile(""))
def test_a_hostile_file_runs_nothing_and_is_refused_in_one_line(name, tmp_path):
    marker = tmp_path / "marker"
    path = tmp_path / name
    path.write_bytes(_hostile(marker)[name])
    before = dict(os.environ)
    tracemalloc.start()
    try:
        with pytest.raises(config.UserError) as caught:
            files.read(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    message = str(caught.value)
    assert name in message
    assert "\n" not in message
    assert len(message) < 500 + len(str(path))
    assert not marker.exists()
    assert dict(os.environ) == before
    assert peak < 2**26


def test_a_pickle_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(pickles, "MAX_OPCODES", 1000)
    path = tmp_path / "long.pickle"
    path.write_bytes(b"\x80\x02" + b"N0" * 600 + b"}.")
    with pytest.raises(config.UserError, match="more than 1,000 opcodes"):
        files.read(path)


def test_the_files_would_run_something_elsewhere(tmp_path):
    marker = tmp_path / "marker"
    pickle.loads(_hostile(marker)["reduce.bin"])
    assert marker.exists()
