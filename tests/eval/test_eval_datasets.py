"""Readers of annotated sets: what they make of hand-written files, and what they say of broken ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("pycocotools")
pytest.importorskip("sklearn")

from pycocotools import mask as coco_masks

from ebp_cuda.errors import InputError
from ebp_cuda.eval.datasets.coco import read_coco
from ebp_cuda.eval.datasets.flickr30k import read_flickr30k
from ebp_cuda.eval.datasets.imagenet import read_imagenet
from ebp_cuda.eval.datasets.voc import CLASSES, asked, read_voc
from ebp_cuda.models.digits import on_disk, scenes

SCENES, SEED = 24, 5


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sets")
    for kind in on_disk.FORMATS:
        on_disk.write(kind, folder / kind, SCENES, SEED)
    return folder


@pytest.fixture(scope="module")
def truth() -> list[scenes.Scene]:
    return list(scenes.held_out_scenes(SCENES, SEED))


def image(path: Path, height: int, width: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((height, width, 3), dtype=np.uint8)).save(path, format="PNG")


def text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def voc_object(name: str, box: tuple[int, int, int, int], difficult: int = 0) -> str:
    sides = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    corners = "".join(f"<{side}>{value}</{side}>" for side, value in sides)
    return f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>{corners}</bndbox></object>"


def voc(root: Path, objects: str, size: tuple[int, int] = (10, 20)) -> Path:
    base = root / "VOCdevkit" / "VOC2007"
    image(base / "JPEGImages" / "000001.jpg", *size)
    shape = f"<size><width>{size[1]}</width><height>{size[0]}</height><depth>3</depth></size>"
    text(base / "Annotations" / "000001.xml", f"<annotation>{shape}{objects}</annotation>")
    text(base / "ImageSets" / "Main" / "test.txt", "000001\n")
    return root


def test_voc_boxes_count_from_one_and_include_their_last_pixel(tmp_path: Path) -> None:
    (picture,), classes = read_voc(voc(tmp_path, voc_object("dog", (1, 1, 1, 1)) + voc_object("dog", (5, 3, 20, 10))))
    assert classes == list(CLASSES)
    mask = picture.mask_of(CLASSES.index("dog"))
    expected = np.zeros((10, 20), dtype=bool)
    expected[0, 0] = True
    expected[2:10, 4:20] = True
    assert np.array_equal(mask, expected)


def test_voc_asks_for_no_class_that_is_difficult_throughout(tmp_path: Path) -> None:
    objects = voc_object("cat", (1, 1, 4, 4), 1) + voc_object("dog", (1, 1, 4, 4), 1) + voc_object("dog", (6, 6, 9, 9))
    (picture,), _ = read_voc(voc(tmp_path, objects))
    assert [CLASSES[label] for label in picture.labels] == ["cat", "dog"]
    assert [CLASSES[label] for label in asked(picture)] == ["dog"]
    assert picture.mask_of(CLASSES.index("dog")).sum() == 16 + 16


@pytest.mark.parametrize("kind", ["voc07", "coco14"])
def test_written_scenes_come_back(sets: Path, truth: list[scenes.Scene], kind: str) -> None:
    pictures, classes = read_voc(sets / kind) if kind == "voc07" else read_coco(sets / kind)
    assert classes == [str(digit) for digit in range(10)]
    assert len(pictures) == SCENES
    for picture, scene in zip(pictures, truth, strict=True):
        assert np.array_equal(np.asarray(Image.open(picture.path)), scene.image)
        assert picture.labels == scene.labels and picture.size == scene.image.shape[:2]
        for label in picture.labels:
            if kind == "coco14":
                assert np.array_equal(picture.mask_of(label), scene.mask_of(label))
            else:
                boxes = {digit.box for digit in scene.digits if digit.label == label}
                assert {instance.box for instance in picture.of(label)} == boxes


def test_coco_masks_are_those_of_pycocotools(sets: Path) -> None:
    path = sets / "coco14" / "annotations" / "instances_val2014.json"
    content = json.loads(path.read_text())
    by_name = {picture.name: picture for picture in read_coco(sets / "coco14")[0]}
    names = {entry["id"]: Path(entry["file_name"]).stem for entry in content["images"]}
    categories = sorted(entry["id"] for entry in content["categories"])
    seen = set()
    for image_id, name in names.items():
        expected: dict[int, np.ndarray] = {}
        for entry in (a for a in content["annotations"] if a["image_id"] == image_id):
            shape = entry["segmentation"]
            seen.add((isinstance(shape, list), bool(entry["iscrowd"])))
            rle = coco_masks.merge(coco_masks.frPyObjects(shape, 112, 112)) if isinstance(shape, list) else shape
            mask = coco_masks.decode(rle).astype(bool)
            label = categories.index(entry["category_id"])
            expected[label] = expected.get(label, np.zeros_like(mask)) | mask
        for label, mask in expected.items():
            assert np.array_equal(by_name[name].mask_of(label), mask)
    assert {(True, False), (False, False)} <= seen


def coco(root: Path, annotations: list[dict], size: tuple[int, int] = (4, 5)) -> Path:
    image(root / "val2014" / "a.jpg", *size)
    image(root / "val2014" / "b.jpg", *size)
    content = {
        "images": [
            {"id": 9, "file_name": "a.jpg", "height": size[0], "width": size[1]},
            {"id": 4, "file_name": "b.jpg", "height": size[0], "width": size[1]},
        ],
        "categories": [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}],
        "annotations": [{"id": i + 1, "iscrowd": 0, "area": 1, **a} for i, a in enumerate(annotations)],
    }
    text(root / "annotations" / "instances_val2014.json", json.dumps(content))
    return root


def test_coco_by_hand(tmp_path: Path) -> None:
    """A polygon, and a crowd in run lengths: column by column, off first. Pictures that show nothing are left out."""
    polygon = {"image_id": 9, "category_id": 18, "bbox": [1, 1, 2, 2], "segmentation": [[1, 1, 3, 1, 3, 3, 1, 3]]}
    runs = {"size": [4, 5], "counts": [5, 2, 13]}
    crowd = {"image_id": 9, "category_id": 1, "bbox": [1, 1, 1, 2], "segmentation": runs, "iscrowd": 1}
    pictures, classes = read_coco(coco(tmp_path, [polygon, crowd]))
    assert classes == ["person", "dog"] and [picture.name for picture in pictures] == ["a"]
    expected = np.zeros((4, 5), dtype=bool)
    expected[1:3, 1] = True
    assert np.array_equal(pictures[0].mask_of(0), expected)
    expected[1:3, 2] = True
    assert np.array_equal(pictures[0].mask_of(1), expected)


def test_a_coco_shape_without_area_is_its_box(tmp_path: Path) -> None:
    line = {"image_id": 9, "category_id": 1, "bbox": [1, 0, 3, 2], "segmentation": [[1, 1, 3, 1]]}
    ((picture,), _) = read_coco(coco(tmp_path, [line]))
    expected = np.zeros((4, 5), dtype=bool)
    expected[0:2, 1:4] = True
    assert np.array_equal(picture.mask_of(0), expected)


def test_imagenet_labels_follow_the_synset_list(sets: Path, truth: list[scenes.Scene]) -> None:
    pictures, wnids = read_imagenet(sets / "imagenet")
    assert wnids == [f"n{label:08d}" for label in range(10)]
    for picture, scene in zip(pictures, truth, strict=True):
        (label,) = picture.labels
        assert len(picture.of(label)) == sum(digit.label == label for digit in scene.digits)
    turned = sets / "turned.txt"
    turned.write_text("\n".join(reversed(wnids)))
    assert read_imagenet(sets / "imagenet", turned)[0][0].labels == [9 - pictures[0].labels[0]]


def test_phrases_know_their_boxes(tmp_path: Path) -> None:
    text(tmp_path / "test.txt", "7\n")
    image(tmp_path / "flickr30k-images" / "7.jpg", 30, 40)
    objects = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{x}</xmin><ymin>2</ymin><xmax>{x + 4}</xmax><ymax>9</ymax></bndbox>"
        "</object>"
        for name, x in (("11", 3), ("11", 20), ("12", 8))
    )
    shared = "<object><name>11</name><name>13</name><nobndbox>1</nobndbox></object>"
    size = "<size><width>40</width><height>30</height></size>"
    text(tmp_path / "Annotations" / "7.xml", f"<annotation>{size}{objects}{shared}</annotation>")
    sentence = "[/EN#11/people Two men] wear [/EN#12/clothing/bodyparts a red hat] in [/EN#13/scene the park] ."
    text(tmp_path / "Sentences" / "7.txt", sentence + "\n")
    ((captioned),) = read_flickr30k(tmp_path)
    assert [phrase.text for phrase in captioned.phrases] == ["Two men", "a red hat"]
    assert captioned.phrases[0].box == (2, 1, 24, 9) and len(captioned.phrases[0].boxes) == 2
    assert captioned.phrases[1].types == ("clothing", "bodyparts")


def test_flickr_scenes_come_back(sets: Path, truth: list[scenes.Scene]) -> None:
    for captioned, scene in zip(read_flickr30k(sets / "flickr30k"), truth, strict=True):
        words = [f"a handwritten {on_disk.WORDS[label]}" for label in scene.labels]
        assert [phrase.text for phrase in captioned.phrases] == words


Break = Callable[[Path], None]


def remove(name: str) -> Break:
    def change(root: Path) -> None:
        path = root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


def cut(name: str) -> Break:
    def change(root: Path) -> None:
        path = root / name
        path.write_text(path.read_text()[: len(path.read_text()) // 2])

    return change


@pytest.mark.parametrize(
    ("kind", "change", "says"),
    [
        ("voc07", remove("VOC2007"), r"none of VOC2007, VOCdevkit/VOC2007"),
        ("voc07", remove("VOC2007/JPEGImages"), r"no folder .*JPEGImages.*holds Annotations"),
        ("voc07", remove("VOC2007/JPEGImages/000003.jpg"), r"1 of 24 images are missing.*000003\.jpg.*unpacked whole"),
        ("voc07", remove("VOC2007/Annotations/000002.xml"), r"no file .*000002\.xml"),
        ("voc07", cut("VOC2007/Annotations/000002.xml"), r"000002\.xml is not a whole XML file"),
        ("voc07", remove("VOC2007/ImageSets/Main/test.txt"), r"no file .*test\.txt"),
        ("voc07", remove("VOC2007/classes.txt"), r"unknown class '\d'"),
        ("coco14", remove("annotations"), r"none of annotations/instances_val2014\.json"),
        ("coco14", cut("annotations/instances_val2014.json"), r"not a whole annotation file"),
        ("coco14", remove("val2014"), r"none of val2014, images/val2014, images"),
        ("imagenet", remove("ILSVRC2012_img_val"), r"none of ILSVRC2012_img_val, val, Data/CLS-LOC/val"),
        ("imagenet", remove("bbox"), r"none of bbox/val"),
        ("imagenet", remove("synset_words.txt"), r"none of synset_words\.txt"),
        ("flickr30k", remove("Sentences"), r"no folder .*Sentences"),
        ("flickr30k", remove("Sentences/0000000004.txt"), r"no file .*0000000004\.txt"),
        ("flickr30k", remove("flickr30k-images"), r"none of flickr30k-images"),
        ("flickr30k", remove("test.txt"), r"no file .*test\.txt"),
    ],
)
def test_what_is_missing_is_named(sets: Path, tmp_path: Path, kind: str, change: Break, says: str) -> None:
    readers = {"voc07": read_voc, "coco14": read_coco, "imagenet": read_imagenet, "flickr30k": read_flickr30k}
    shutil.copytree(sets / kind, tmp_path / kind)
    change(tmp_path / kind)
    with pytest.raises(InputError, match=says):
        readers[kind](tmp_path / kind)


def test_a_set_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"VOC: no folder .*nowhere .*holds nothing"):
        read_voc(tmp_path / "nowhere")


def test_scenes_are_written_into_an_empty_folder_only(sets: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="new or empty"):
        on_disk.write("voc07", sets / "voc07")
    with pytest.raises(InputError, match="format 'voc'"):
        on_disk.write("voc", tmp_path)
