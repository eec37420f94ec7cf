"""The package's metadata; the tools are configured in pyproject.toml."""

import setuptools

ACCELERATORS = ("cuda12", "cuda13", "tpu")
MESHES = ["h5py>=3.12", "trimesh>=5"]
ONNX = ["jax2onnx>=0.12", "onnx>=1.18", "onnxruntime>=1.22"]
SERVE = ["fastapi>=0.115", "prometheus-client>=0.21", "python-multipart>=0.0.20", "uvicorn>=0.34"]

setuptools.setup(
    name="perceiver-haiku",  # PyPI's `perceiver-jax` is another, older project.
    version="0.1.0",
    description="Perceivers in JAX and Haiku: images, audio, video, audio-video and point clouds.",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=setuptools.find_packages(include=["perceiver_jax", "perceiver_jax.*"]),
    # Said so, an editable installation is a path, and not a finder that comes too late where Python
    # starts beside a clone, whose folder is called as the package is.
    package_dir={"": "."},
    package_data={
        "": ["*.npz", "*.csv", "*.json", "*.txt", "*.md", "*.bib"],
        "perceiver_jax.exporting": ["browser/*"],
        "perceiver_jax.serving": ["page/*"],
    },
    install_requires=[
        "array-record>=0.8",
        "chex>=0.1.91",
        "dm-haiku>=0.0.17",
        "filelock>=3.12",
        "flatbuffers>=25",  # jax.export imports it to serialize, and does not ask for it.
        "grain>=0.2.18",
        "importlib_resources>=6",  # tensorflow-datasets imports it and does not ask for it.
        "jax>=0.10.2",
        "jaxtyping>=0.3.3",
        "librosa>=0.11",
        "matplotlib>=3.10.8",  # Before, its use of pyparsing warns.
        "ml-collections>=1.1",
        "numpy>=2.0",
        "optax>=0.2.6",
        "orbax-checkpoint>=0.12",
        "Pillow>=11.3",  # Reads AVIF from here on.
        "rich>=14",
        "safetensors>=0.5",  # Released weights, in and out.
        "scikit-learn>=1.5",
        "scipy>=1.13",
        "soundfile>=0.13",
        "soxr>=0.5",
        "tensorboardX>=2.6.4",
        "tensorflow-datasets>=4.9.10",
    ],
    extras_require={
        # Decodes the clips that AudioSet, or sounds and videos of one's own, are prepared from.
        "av": ["av>=18"],
        # Prepares AudioSet on many machines.
        "beam": ["apache-beam>=2.60", "av>=18"],
        # The embedded audio-visual data set. ale-py is GPL-2.0: only its builder imports it.
        "atari": ["ale-py>=0.12"],
        # Pictures of phones (HEIC).
        "heif": ["pillow-heif>=1.0"],
        # Released weights by their name, from the Hugging Face Hub.
        "hub": ["huggingface-hub>=0.30"],
        # Point clouds from meshes and HDF5 files.
        "meshes": MESHES,
        # ONNX files of models, and running them.
        "onnx": ONNX,
        # Tables of predictions as Parquet files.
        "parquet": ["pyarrow>=17"],
        # The HTTP server, and its page.
        "serve": SERVE,
        # Some of TFDS's builders, for preparing data sets alone.
        "tensorflow": ["tensorflow>=2.18"],
        "test": [
            *MESHES,
            *ONNX,
            *SERVE,
            "av>=18",
            "beartype>=0.20",
            "httpx>=0.28",
            "pillow-heif>=1.0",
            "playwright>=1.50",
            "pyarrow>=17",
            "pytest>=8",
            "pytest-xdist>=3.6",
            "ruff>=0.12",
            "sktime>=1.0",  # Has the series of docs/new_modality.md.
        ],
        # The PyTorch projects of experiments.benchmarks, for an environment of their own, and what
        # building flash-attn needs; `flash_peer` comes second, with --no-build-isolation, where
        # there is a CUDA device: flash-attn is built against the torch that is there.
        "peers": [
            *("ninja", "packaging", "psutil", "setuptools>=64", "wheel"),
            "perceiver-pytorch>=0.8.8",
            "torch>=2.6",
            "transformers>=4.50",
        ],
        "flash_peer": ["flash-attn>=2.8", "flash-perceiver>=0.2"],
        **{name: [f"jax[{name}]>=0.10.2"] for name in ACCELERATORS},
    },
)
