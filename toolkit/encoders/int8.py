"""Int8 on a CPU: the image tower's matrix products in 8 bits, computed by onnxruntime.

For processors without fast bfloat16. Weights are rounded once, and each row has a scale. Activations are rounded for
each image, and what a product reads has one scale (dynamic quantisation). Images go through one by one, so that a
vector does not depend on its batch.
"""

import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.encoders.class_token import encode_image
from toolkit.encoders.inside import Parts, blocks_of
from toolkit.errors import EncoderError, first_line

if TYPE_CHECKING:
    import torch

OPSET = 17
KEPT_IN_FLOAT = ("c_proj", "fc2")
"""The second product of each MLP: a few of its inputs are so large that one scale rounds all others away. With it in 8
bits, too, the mean cosine to float32 falls from 0.996 to 0.977 (CLIP ViT-B/16)."""


class Int8Tower:
    """`model`'s image tower in int8, with every block's output.

    Raises EncoderError if onnx or onnxruntime is not installed, or if they cannot hold the tower.
    """

    def __init__(self, model: Any, image_size: tuple[int, int]):
        try:
            import onnx  # noqa: F401  (`_quantised` reads with it)
            import onnxruntime
        except ImportError as error:
            raise EncoderError(f'--precision int8 needs {error.name}: pip install -e ".[int8]"') from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # `OpenClip.side_by_side` calls it from as many threads as there are cores
        options.log_severity_level = 3
        with tempfile.TemporaryDirectory() as folder:
            file = _quantised(model, image_size, Path(folder))
            self.session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        self.names = [output.name for output in self.session.get_outputs()]

    def vectors(self, images: "torch.Tensor") -> np.ndarray:
        """`[N, 3, H, W]` float32 -> `[N, D]` float32, projected, not normalised."""
        return np.concatenate([out[0] for out in self._run(images, self.names[:1])])

    def with_blocks(self, images: "torch.Tensor", parts_of: Parts) -> "tuple[np.ndarray, list[list[torch.Tensor]]]":
        """The same, and what `parts_of` keeps of each block's output, `[N, D]` each."""
        import torch

        vectors, kept = [], []
        for vector, *blocks in self._run(images, self.names):
            vectors.append(vector)
            kept.append([parts_of(torch.from_numpy(block)) for block in blocks])
        joined = [[torch.cat(parts) for parts in zip(*of_block, strict=True)] for of_block in zip(*kept, strict=True)]
        return np.concatenate(vectors), joined

    def _run(self, images: "torch.Tensor", names: list[str]) -> Iterator[list[np.ndarray]]:
        for image in images.contiguous().numpy():
            yield self.session.run(names, {"images": image[None]})


def _quantised(model: Any, image_size: tuple[int, int], folder: Path) -> Path:
    """Write the tower to `folder` as ONNX, first in float32, then in int8 -> the file."""
    import onnx
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic

    exact, rounded = folder / "float32.onnx", folder / "int8.onnx"
    try:
        with warnings.catch_warnings(), torch.enable_grad():  # else attention takes a path that cannot be exported
            warnings.simplefilter("ignore")  # torch warns of its exporter's age and of what tracing may miss
            image = torch.zeros(1, 3, *image_size)
            torch.onnx.export(
                _whole_pass(model), (image,), exact, input_names=["images"], opset_version=OPSET, dynamo=False
            )
        graph = onnx.load(exact)
        # Without this mark onnxruntime warns; its preparation fuses what the session fuses anyway.
        onnx.helper.set_model_props(graph, {"onnx.quant.pre_process": "onnxruntime.quant"})
        nodes = [node.name for node in graph.graph.node]
        quantize_dynamic(
            graph,
            rounded,
            op_types_to_quantize=["MatMul", "Gemm"],
            nodes_to_exclude=[name for name in nodes if any(part in name for part in KEPT_IN_FLOAT)],
            per_channel=True,
            reduce_range=True,  # 7 bits: AVX2 adds pairs of products in 16 bits, which 8 would overflow
            weight_type=QuantType.QInt8,
        )
    except Exception as error:  # whatever the exporter raises for an operator that it does not know
        reason = first_line(error)
        raise EncoderError(f"This image tower does not work in int8 ({reason}): leave --precision out.") from error
    return rounded


def _whole_pass(model: Any) -> "torch.nn.Module":
    """A module that gives the image vectors, then every block's output."""
    import torch

    class WholePass(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
            seen: list[torch.Tensor] = []
            hooks = [block.register_forward_hook(lambda _, __, out: seen.append(out)) for block in blocks]
            vectors = encode_image(self.model, images, seen.append)
            for hook in hooks:
                hook.remove()
            return (vectors, *seen)

    try:
        blocks = blocks_of(model.visual, "")
    except EncoderError:  # a tower whose blocks are not known still has a last layer
        blocks = []
    return WholePass().eval()
