"""The folders at the top level are packages below `zoo`: models/ is imported as zoo.models, and so on."""

from setuptools import find_packages, setup

FOLDERS = ("models", "data", "tasks", "kernels", "conf")

setup(
    packages=[
        *find_packages(include=["zoo", "zoo.*"]),
        *(
            f"zoo.{name}"
            for folder in FOLDERS
            for name in (folder, *(f"{folder}.{sub}" for sub in find_packages(folder)))
        ),
    ],
    package_dir={"zoo": "zoo"} | {f"zoo.{folder}": folder for folder in FOLDERS},
)
