"""Make mlops_nb/serving/inference_pb2.py from inference.proto beside it. Needs: pip install grpcio-tools"""

import sys
from pathlib import Path

from grpc_tools import protoc

FOLDER = Path(__file__).parents[1] / "mlops_nb" / "serving"
HEADER = '# ruff: noqa\n# mypy: ignore-errors\n"""Messages of the Open Inference Protocol, made from inference.proto by scripts/build_protocol.py; don\'t edit."""\n'


def main() -> None:
    """Compile, then give the messages a pool of their own: in the common one they would collide with those of a client's library."""
    if protoc.main(["protoc", f"--proto_path={FOLDER}", f"--python_out={FOLDER}", "inference.proto"]):
        sys.exit("inference.proto does not compile")
    made = FOLDER / "inference_pb2.py"
    text = made.read_text()
    common = "_descriptor_pool.Default()"
    if text.count(common) != 1:
        sys.exit(f"{made.name} names {common} {text.count(common)} times, expected once; see what protoc writes now")
    made.write_text(HEADER + text.replace(common, "_descriptor_pool.DescriptorPool()").replace('"""Generated protocol buffer code."""\n', ""))


if __name__ == "__main__":
    main()
