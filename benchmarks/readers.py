"""What the metadata readers of others find in our files: each in an environment of its own. A table out.

    python benchmarks/readers.py [--environments FOLDER]

Some of these readers ask for packages that do not go with ours (an older Pillow, GTK), so this is a command and not a
test; tests/infotext/test_infotext_readers.py runs those that can live beside us. Needs the package registry, about
60 MB and two minutes; an environment that is there from before is used again. The exit code is 1 when a reader finds
something else than what was written, in a format that it knows.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import venv
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from PIL import Image

from webui import infotext, pictures
from webui.params import make_params

PARAMS = {
    "prompt": "a cat, (fluffy:1.2) <lora:film:0.8>",
    "negative_prompt": "blurry, lowres",
    "width": 64,
    "height": 48,
    "seed": 77,
    "steps": 12,
    "cfg_scale": 6.5,
    "sampler": "DPM++ 2M",
    "schedule": "Karras",
}
FOUND = {name: str(PARAMS[name]) for name in ("prompt", "negative_prompt", "seed", "steps", "sampler")}

_SD_PARSERS = """
from sd_parsers import ParserManager
found = ParserManager().parse(path)
sampler = found.samplers[0]
report(prompt=found.full_prompt, negative_prompt=found.full_negative_prompt, sampler=sampler.name, **sampler.parameters)
"""
_SD_PROMPT_READER = """
from sd_prompt_reader.image_data_reader import ImageDataReader
found = ImageDataReader(path)
report(prompt=found.positive, negative_prompt=found.negative, **found.parameter)
"""
_SD_GENINFO = """
from PIL import Image
from sd_geninfo.sd_geninfo import read_geninfo
text, _ = read_geninfo(Image.open(path))
prompt, negative, last = text.split("\\n")
fields = dict(pair.split(": ", 1) for pair in last.split(", ")[:6])
report(prompt=prompt, negative_prompt=negative.removeprefix("Negative prompt: "), **fields)
"""
_SDGP = """
import types
sys.modules["sdgp.Gtk"] = types.ModuleType("sdgp.Gtk")  # its windows; reading needs none
from sdgp import read_exif
found = read_exif(path)
negative = found.pop("negativePrompt").removeprefix("Negative prompt: ")
report(negative_prompt=negative, **found)
"""
_HEAD = """
import json, sys
path = sys.argv[1]
def report(**fields):
    fields = {name.lower(): str(value) for name, value in fields.items()}
    print("FOUND " + json.dumps({name: fields.get(name) for name in %r}))
"""


@dataclass(frozen=True)
class Reader:
    """A package, what it reads as it says itself, and a program that tells what it found in a file."""

    package: str
    formats: frozenset[str]
    program: str


READERS = (
    Reader("sd-parsers", frozenset({"png", "jpeg", "webp"}), _SD_PARSERS),
    Reader("sd-prompt-reader", frozenset({"png", "jpeg", "webp"}), _SD_PROMPT_READER),
    Reader("sd-geninfo", frozenset({"png", "jpeg", "webp"}), _SD_GENINFO),
    Reader("sdgp", frozenset({"png"}), _SDGP),
)


def environment(folder: Path, reader: Reader) -> Path:
    """The interpreter of the reader's environment, made if it is not there."""
    place = folder / reader.package
    python = place / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    done = place / "complete"
    if not done.exists():
        venv.create(place, with_pip=True, clear=True)
        command = [str(python), "-m", "pip", "install", "--quiet", reader.package]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        done.touch()
    return python


def look(python: Path, reader: Reader, file: Path) -> str:
    """What the reader made of the file: "same", or what it found instead."""
    program = _HEAD % (tuple(FOUND),) + reader.program
    run = subprocess.run([str(python), "-c", program, str(file)], capture_output=True, text=True)
    told = next((line for line in run.stdout.splitlines() if line.startswith("FOUND ")), "")
    if not told:
        return f"fails: {(run.stderr.strip().splitlines() or ['no answer'])[-1][:60]}"
    found = json.loads(told.removeprefix("FOUND "))
    different = [f"{name} {found[name]!r}" for name in FOUND if found[name] != FOUND[name]]
    return ", ".join(different) or "same"


def write(folder: Path, name: str) -> Path:
    """A picture of ours in a format, with all that we write beside the parameters text."""
    text = infotext.format(
        make_params(PARAMS), model_name="emoji", model_hash="0123456789", extra=[("TI hashes", "a: 1, b: 2")]
    )
    path = folder / f"picture{pictures.SUFFIXES[name]}"
    path.write_bytes(pictures.encode(Image.new("RGB", (64, 48)), name, 90, text, {"latent-webui": "{}"}))
    return path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environments", type=Path, help="where they are made; a temporary folder if not given")
    options = parser.parse_args()
    faults = 0
    with tempfile.TemporaryDirectory() as temporary:
        made = {name: write(Path(temporary), name) for name in pictures.SUFFIXES}
        print(f"{'':18}" + "".join(f"{name:8}" for name in made))
        for reader in READERS:
            python = environment(options.environments or Path(temporary) / "environments", reader)
            found = {name: look(python, reader, file) for name, file in made.items()}
            print(f"{reader.package:18}" + "".join(f"{'same' if v == 'same' else '-':8}" for v in found.values()))
            for name in sorted(reader.formats):
                if found[name] != "same":
                    faults += 1
                    print(f"  {name}: {found[name]}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
