"""autoseg: segmentation of 3-D medical images that plans itself, and prognosis from its masks."""

from pathlib import Path

from setuptools import find_packages, setup

ONNX = ["onnx>=1.16", "onnxruntime>=1.18"]
COMMANDS = ("plan", "pretrain", "train", "choose", "predict", "evaluate", "convert")

setup(
    name="autoseg",
    version="0.1.0",
    description="Self-planning segmentation of 3-D medical images, and honest prognosis from its masks",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["planners*", "autoseg*", "prognosis*"]),
    install_requires=[
        "torch>=2.6,!=2.9.*",
        "numpy>=1.26",
        "scipy>=1.11",
        "SimpleITK>=2.3",
        "batchgenerators>=0.25",
        "acvl-utils>=0.2.5,<0.3",
        "connected-components-3d>=3.12",
        "scikit-image>=0.22",
        "scikit-survival>=0.24; python_version < '3.13'",
        "pandas>=2.2",
        "tqdm>=4.66",
        "safetensors>=0.5",
        "pydantic>=2.7",
        "joblib>=1.4",
        "matplotlib>=3.8",
        "psutil>=5.9",
        "threadpoolctl>=3.1",
    ],
    extras_require={
        "prognosis": ["scikit-survival>=0.24"],
        "tensorboard": ["tensorboard>=2.16"],
        "onnx": ONNX,
        "dev": [
            "pytest>=8",
            "pytest-cov",
            "pytest-xdist",
            "pytest-timeout",
            "hypothesis>=6.100",
            "ruff",
            "mypy",
            "import-linter",
            "nibabel",
            "tensorboard>=2.16",
            *ONNX,
        ],
    },
    entry_points={
        "console_scripts": [
            *(f"autoseg_{name}=autoseg.commands.{name}:main" for name in COMMANDS),
            "prognosis=prognosis.commands.main:main",
        ]
    },
)
