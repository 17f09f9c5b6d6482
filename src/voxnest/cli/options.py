"""Options that several commands share, so that they are called and described alike."""

from pathlib import Path
from typing import Annotated

import typer

MODEL_HELP = "A checkpoint, run folder or exported model (.onnx), or a name of voxnest models weights."

Model = Annotated[str, typer.Option("--model", "-m", metavar="MODEL", help=MODEL_HELP)]
ModelArgument = Annotated[str, typer.Argument(help=MODEL_HELP)]
Adapter = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Use the model with this adapter, such as runs/NAME/best.adapter.safetensors."),
]
Dim = Annotated[
    int | None,
    typer.Option(metavar="N", help="Size of the embeddings.", show_default="the largest the model has"),
]
Device = Annotated[
    str, typer.Option(metavar="NAME", help="cpu, cuda, cuda:1, mps; auto is a GPU if there is one, else the CPU.")
]
Runtime = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="What computes: torch, onnx, openvino; auto is the fastest that is installed.",
        show_default="torch; onnx for an .onnx file",
    ),
]
Precision = Annotated[str, typer.Option(metavar="NAME", help="What it computes in: float32, bfloat16 or int8.")]
DeviceIfAny = Annotated[
    str | None,
    typer.Option(
        "--device", metavar="NAME", help="cpu, cuda, cuda:1, mps or auto.", show_default="as the configuration says"
    ),
]
Json = Annotated[
    Path | None,
    typer.Option("--json", metavar="[FILE]", help="Give the results as JSON: in FILE (.json), or on standard output."),
]
Root = Annotated[
    Path | None,
    typer.Option(
        help="Folder that the list's relative paths start from.",
        show_default="the list's folder, or wav, test or dev in it",
    ),
]
Cache = Annotated[bool, typer.Option("--cache/--no-cache", help="Keep embeddings, and take those that are kept.")]
