"""Puts the stock notebooks, charters and app into the wheel, under mlops_nb/stock. All else is in pyproject.toml."""

from collections.abc import Iterator
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

STOCK = {"nbs/stages": "stages", "nbs/charters": "charters", "app": "app"}


class WithStock(build_py):
    "build_py that takes the stock along; an editable install finds it in the checkout (mlops_nb.base.settings.stock)."

    def stock(self) -> Iterator[tuple[str, str]]:
        "Every file with the place in the wheel where it goes."
        for folder, name in STOCK.items():
            for file in sorted(Path(folder).rglob("*")):
                if file.is_file() and not {"__pycache__", ".ipynb_checkpoints"} & set(file.parts):
                    yield str(file), str(Path(self.build_lib, "mlops_nb", "stock", name, file.relative_to(folder)))

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for source, target in self.stock():
                self.mkpath(str(Path(target).parent))
                self.copy_file(source, target)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        return super().get_outputs(include_bytecode) + [target for _, target in self.stock() if not self.editable_mode]

    def get_source_files(self) -> list[str]:
        return super().get_source_files() + [source for source, _ in self.stock()]


setup(cmdclass={"build_py": WithStock})
