"""Measures time and memory of `check` and `convert` on many images.

  python benchmarks/data.py --images=20000

Writes variants of 200 images of the sample set (shifted in brightness, so that no two files are equal), first
a quarter of the images and then all of them; with --work_dir they are kept for the next call. Each mode runs
as a separate command. Prints one JSON object with images per second, images per second of CPU time and peak
resident memory (MiB) of both modes at both sizes, including start-up; `memory_growth_mib` is the additional
memory for four times as many images.
"""

import argparse
import json
import os
import resource
import shutil
import tempfile
from pathlib import Path

import commands

_DRAWN = 200


def make(folder: Path, images: int) -> None:
    """Writes a data folder with one split of the given number of images."""
    from PIL import Image

    from mobiledets_tf.data import sample

    with tempfile.TemporaryDirectory() as drawn:
        sample.write_sample(Path(drawn) / "data", num_train=_DRAWN, num_val=1, image_size=160)
        source = Path(drawn) / "data"
        value = json.loads((source / "instances_train.json").read_text())
        entries, boxes = [], []
        (folder / "train").mkdir(parents=True)
        for number in range(images):
            entry = value["images"][number % _DRAWN]
            name = f"{number:06d}.jpg"
            with Image.open(source / "train" / entry["file_name"]) as picture:
                shift = number // _DRAWN
                picture.point(lambda level, shift=shift: (level + shift) % 256).save(
                    folder / "train" / name, quality=90
                )
            entries.append(entry | {"id": number + 1, "file_name": name})
            boxes += [
                box | {"id": len(boxes) + place, "image_id": number + 1}
                for place, box in enumerate(
                    [box for box in value["annotations"] if box["image_id"] == entry["id"]], 1
                )
            ]
    content = value | {"images": entries, "annotations": boxes}
    (folder / "instances_train.json").write_text(json.dumps(content))


def run(mode: str, folder: Path, output: Path) -> tuple[float, float, float]:
    """Runs a mode as a command; returns (seconds, seconds of CPU time, peak memory in MiB)."""
    return commands.usage("data", f"--mode={mode}", f"--images={folder}", f"--output_dir={output}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=20_000, help="number of images in the larger run")
    parser.add_argument(
        "--work_dir", help="folder that keeps the images for the next call; default: a temporary folder"
    )
    parser.add_argument("--make_only", action="store_true", help="only write the images")
    options = parser.parse_args()
    figures: dict[str, dict[str, float]] = {}
    for count in (options.images // 4, options.images):
        with tempfile.TemporaryDirectory() as temporary:
            data = Path(options.work_dir or temporary) / f"data_{count}"
            if not (data / "instances_train.json").exists():
                shutil.rmtree(data, ignore_errors=True)
                make(data, count)
            for mode in () if options.make_only else ("check", "convert"):
                seconds, busy, memory = run(mode, data, Path(temporary) / "records")
                figures[f"{mode}_{count}"] = {
                    "seconds": round(seconds, 1),
                    "images_per_second": round(count / seconds, 1),
                    "images_per_cpu_second": round(count / busy, 1),
                    "memory_mib": round(memory, 1),
                }
    if options.make_only:
        return
    small, large = options.images // 4, options.images
    growth = {
        mode: round(figures[f"{mode}_{large}"]["memory_mib"] - figures[f"{mode}_{small}"]["memory_mib"], 1)
        for mode in ("check", "convert")
    }
    cores = len(os.sched_getaffinity(0))
    own = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(json.dumps({"cores": cores, "runs": figures, "memory_growth_mib": growth, "largest_mib": own}))


if __name__ == "__main__":
    main()
