"""Which names go, whether the image goes, and what stands in the way: moby's rules, on rows."""

from __future__ import annotations

import pytest
from django.utils import timezone

from engine.errors import NotFound
from engine.models import Container, Event, Image, Namespace, Tag
from engine.oci.reference import Reference
from engine.services import image_removal, images, namespaces
from engine.services.image_removal import ImageConflict, remove

pytestmark = pytest.mark.django_db

LAYERS = ["sha256:" + c * 64 for c in "abc"]


@pytest.fixture
def namespace() -> Namespace:
    return namespaces.namespace_create("team")


def image_of(
    namespace: Namespace, digit: str, *names: str, layers: int = 1, parent: str = ""
) -> Image:
    made = Image.objects.create(
        namespace=namespace,
        digest="sha256:" + digit * 64,
        manifest_digest="sha256:" + (digit + "0") * 32,
        size=1,
        architecture="amd64",
        config={"config": {}, **({"parent": parent} if parent else {})},
        layers=[{"digest": d, "diff_id": d, "size": 1, "media_type": ""} for d in LAYERS[:layers]],
        created_at=timezone.now(),
    )
    for name in names:
        images.image_tag(made, name, "user:1")
    return made


def pulled(image: Image, repository: str) -> str:
    """The image is known to a registry; its digest there."""
    digest = "sha256:" + "d" * 64
    images.digest_record(image, Reference.parse(repository), digest)
    return f"{repository}@{digest}"


def container_of(image: Image, name: str, state: str = "exited") -> Container:
    return Container.objects.create(
        uid=name[0] * 64,
        namespace=image.namespace,
        node=namespaces.node_local(),
        name=name,
        image=image,
        image_name="node",
        settings={},
        state=state,
    )


def test_one_name_of_two_is_only_untagged(namespace: Namespace) -> None:
    image = image_of(namespace, "1", "node", "node:20")
    assert remove(namespace, "node:20").records == [{"Untagged": "node:20"}]
    assert [tag.familiar for tag in image.tags.all()] == ["node:latest"]


def test_the_last_tag_takes_its_digest_and_the_image_along(namespace: Namespace) -> None:
    image = image_of(namespace, "1", "node", layers=2)
    digest = pulled(image, "node")
    removal = remove(namespace, "node")
    assert removal.records == [
        {"Untagged": "node:latest"},
        {"Untagged": digest},
        {"Deleted": image.digest},
    ]
    assert {*LAYERS[:2], image.digest, image.manifest_digest} <= set(removal.released)
    assert not Image.objects.exists()
    assert list(Event.objects.order_by("pk").values_list("action", flat=True)) == [
        "tag",
        "untag",
        "untag",
        "delete",
    ]


def test_a_digest_is_a_name_but_no_tag(namespace: Namespace) -> None:
    image = image_of(namespace, "1", "node")
    name = pulled(image, "node")
    assert images.find_image(namespace, name) == image
    assert [tag.familiar for tag in image.tags.all()] == ["node:latest"]
    assert [tag.familiar for tag in Tag.digests.all()] == [name]
    assert remove(namespace, name).records == [{"Untagged": name}]
    assert images.find_image(namespace, "node") == image


def test_by_id_all_names_of_one_repository_go(namespace: Namespace) -> None:
    image = image_of(namespace, "1", "node")
    digest = pulled(image, "node")
    assert [*remove(namespace, image.digest[7:19]).records] == [
        {"Untagged": "node:latest"},
        {"Untagged": digest},
        {"Deleted": image.digest},
    ]


def test_by_id_names_in_several_repositories_need_force(namespace: Namespace) -> None:
    image = image_of(namespace, "1", "node", "web")
    with pytest.raises(
        ImageConflict,
        match="^conflict: unable to delete 111111111111 "
        r"\(must be forced\) - image is referenced in multiple repositories$",
    ):
        remove(namespace, image.digest)
    assert {"Deleted": image.digest} in remove(namespace, image.digest, force=True).records


def test_a_stopped_container_keeps_the_name_unless_forced(namespace: Namespace) -> None:
    image = image_of(namespace, "1", "node")
    container_of(image, "c1")
    with pytest.raises(ImageConflict) as refused:
        remove(namespace, "node")
    assert refused.value.message == (
        'conflict: unable to remove repository reference "node" (must force) - container'
        " cccccccccccc is using its referenced image 111111111111"
    )
    with pytest.raises(ImageConflict, match=r"must be forced\) - image is being used by stopped"):
        remove(namespace, image.digest)
    assert {"Deleted": image.digest} in remove(namespace, "node", force=True).records
    assert Container.objects.get().image is None


def test_under_a_running_container_only_the_name_goes(namespace: Namespace) -> None:
    image = image_of(namespace, "1", "node")
    container_of(image, "c1", "running")
    with pytest.raises(ImageConflict, match=r"cannot be forced\) - image is being used by running"):
        remove(namespace, image.digest, force=True)
    assert remove(namespace, "node", force=True).records == [{"Untagged": "node:latest"}]
    assert Image.objects.get() == image


def test_a_parent_stays_below_its_child_and_goes_with_it(namespace: Namespace) -> None:
    parent = image_of(namespace, "1", "node")
    child = image_of(namespace, "2", "web", layers=2, parent=parent.digest)
    assert image_removal.parent_of(child) == parent
    with pytest.raises(ImageConflict, match="image has dependent child images"):
        remove(namespace, parent.digest, force=True)
    assert remove(namespace, "node").records == [{"Untagged": "node:latest"}]
    assert [record for record in remove(namespace, "web").records if "Deleted" in record] == [
        {"Deleted": child.digest},
        {"Deleted": parent.digest},
    ]


def test_a_parent_that_a_config_only_claims_is_none(namespace: Namespace) -> None:
    parent = image_of(namespace, "1", "node", layers=2)
    image_of(namespace, "2", "web", layers=1, parent=parent.digest)
    assert {"Deleted": parent.digest} in remove(namespace, "node").records


def test_what_is_not_there(namespace: Namespace) -> None:
    for name, shown in (
        ("nope", "nope:latest"),
        ("nope:1", "nope:1"),
        ("ffff", "ffff:latest"),
        ("f" * 64, "sha256:" + "f" * 64),
        ("sha256:" + "f" * 64, "sha256:" + "f" * 64),
    ):
        with pytest.raises(NotFound) as missing:
            remove(namespace, name)
        assert missing.value.context["name"] == shown
