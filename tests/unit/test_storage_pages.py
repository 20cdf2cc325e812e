"""Pages of volumes and networks: every address answers in both languages, forms say what is
wrong, removal names what stands in the way."""

from __future__ import annotations

import pytest

from engine.models import Network, Operation, Volume, VolumeUse
from engine.services import addresses, networks, volumes
from engine.services.networks import NetworkRequest
from tests.unit.console_rows import Site, make_container, make_image, make_site

pytestmark = pytest.mark.django_db


@pytest.fixture
def site() -> Site:
    return make_site()


def get(site: Site, path: str, **headers: str) -> str:
    response = site.client.get(f"{site.base}{path}", headers=headers)
    assert response.status_code == 200, (path, response.status_code)
    return str(response.content.decode())


@pytest.fixture
def filled(site: Site) -> tuple[Volume, Network]:
    web = make_container(site, make_image(site), "web", state="running")
    volume = volumes.volume_create(site.namespace, "data", labels={"tier": "db"})
    volumes.volume_create(site.namespace)
    volumes.measured(volume, 2_100_000)
    VolumeUse.objects.create(volume=volume, container=web, destination="/var/data", read_only=True)
    network = networks.network_create(site.namespace, NetworkRequest("back", internal=True))
    addresses.give(addresses.take(network, container=web))
    return volume, network


@pytest.mark.parametrize("language", ["en", "ko"])
def test_every_page_answers(site: Site, filled: tuple[Volume, Network], language: str) -> None:
    volume, network = filled
    uid = network.uid[:12]
    for path in (
        "volumes/", "volumes/?q=dat", "volumes/?q=nothing", f"volumes/rows/?ids={volume.pk}",
        "volumes/new/", "volumes/prune/", "volumes/v/data/", "volumes/v/data/remove/",
        "networks/", "networks/?q=back", "networks/?q=nothing", f"networks/rows/?ids={network.pk}",
        "networks/new/", "networks/prune/", f"networks/n/{uid}/", "networks/n/back/",
        f"networks/n/{uid}/connect/", f"networks/n/{uid}/remove/", "networks/n/bridge/",
    ):  # fmt: skip
        page = get(site, path, **{"accept-language": language})
        assert "Traceback" not in page
    for path in ("volumes/v/nothing/", "networks/n/nothing/", "networks/n/host/"):
        assert site.client.get(f"{site.base}{path}").status_code == 404


def test_lists_say_who_has_what(site: Site, filled: tuple[Volume, Network]) -> None:
    page = get(site, "volumes/")
    assert "data" in page and "2.1 MB" in page and "anonymous" in page
    assert f'href="{site.base}containers/web/"' in page
    page = get(site, "networks/")
    assert "back" in page and filled[1].subnet in page and "internal" in page and "host" in page
    page = get(site, "volumes/v/data/")
    assert "/var/data" in page and "read-only" in page and "tier=db" in page
    page = get(site, "networks/n/back/")
    assert str(filled[1].endpoints.get().address) in page and filled[1].uid in page


def test_volumes_are_made_and_what_is_wrong_is_said(site: Site) -> None:
    address = f"{site.base}volumes/new/"
    data = {"name": "quick", "kind": "memory", "size": "64", "labels": "a=b\nc"}
    assert site.client.post(address, data).status_code == 302
    made = Volume.objects.get()
    assert made.options == {"type": "tmpfs", "device": "tmpfs", "o": "size=64m"}
    assert made.labels == {"a": "b", "c": ""}
    response = site.client.post(address, {"name": "a b", "kind": "disk"})
    assert response.status_code == 422
    assert "“a b” cannot be a volume" in response.content.decode()


def test_networks_are_made_and_what_is_wrong_is_said(site: Site) -> None:
    address = f"{site.base}networks/new/"
    data = {"name": "own", "subnet": "10.222.7.0/24", "gateway": "10.222.7.9", "internal": "on"}
    assert site.client.post(address, data).status_code == 302
    made = Network.objects.get(name="own")
    assert (made.subnet, made.gateway, made.internal) == ("10.222.7.0/24", "10.222.7.9", True)
    for wrong, words in (
        ({"name": "own"}, "The name “own” is taken."),
        ({"name": "bridge"}, "is a pre-made network"),
        ({"name": "x", "subnet": "10.222.7.128/25"}, "used by another network"),
        ({"name": "x", "subnet": "8.8.8.0/24"}, "may not use the addresses 8.8.8.0/24"),
        ({"name": "x", "subnet": "10.1.2.3/24"}, "it should be 10.1.2.0/24"),
        ({"name": "x", "subnet": "10.222.8.0/24", "gateway": "10.1.1.1"}, "no host address"),
    ):
        response = site.client.post(address, wrong)
        assert response.status_code == 422, wrong
        assert words in response.content.decode(), (wrong, response.content.decode()[:4000])


def test_removal_names_what_stands_in_the_way(site: Site, filled: tuple[Volume, Network]) -> None:
    page = get(site, "volumes/v/data/remove/")
    assert "remove them first" in page and "web" in page
    site.client.post(f"{site.base}volumes/v/data/remove/")
    site.client.post(f"{site.base}networks/n/back/remove/")
    kinds = (Operation.Kind.VOLUME_REMOVE, Operation.Kind.NETWORK_REMOVE)
    assert not Operation.objects.filter(kind__in=kinds).exists()
    assert "stop or disconnect them first" in get(site, "networks/n/back/remove/")
    VolumeUse.objects.all().delete()
    site.client.post(f"{site.base}volumes/v/data/remove/")
    assert Operation.objects.get(kind=Operation.Kind.VOLUME_REMOVE).args["name"] == "data"
    page = get(site, "volumes/prune/")
    assert "Named ones too: 1, 2.1 MB" in " ".join(page.split())
    site.client.post(f"{site.base}volumes/prune/", {"all": "on"})
    assert Operation.objects.get(kind=Operation.Kind.VOLUME_PRUNE).args["all"] is True


def test_connect_and_disconnect_from_the_page(site: Site, filled: tuple[Volume, Network]) -> None:
    job = make_container(site, make_image(site, "job:latest"), "job", state="exited")
    address = f"{site.base}networks/n/back/"
    page = get(site, "networks/n/back/connect/")
    assert ">job<" in page and ">web<" not in page
    data = {"container": str(job.pk), "aliases": "store db", "ipv4": ""}
    assert site.client.post(f"{address}connect/", data).status_code == 302
    asked = Operation.objects.get(kind=Operation.Kind.CONTAINER_CONNECT)
    assert (asked.target, asked.args["aliases"]) == (str(job.pk), ["store", "db"])
    data["aliases"] = "no-"
    response = site.client.post(f"{address}connect/", data)
    assert response.status_code == 422 and "cannot be a name" in response.content.decode()
    web = filled[1].endpoints.get().container
    assert web is not None
    site.client.post(f"{address}disconnect/", {"container": str(web.pk)})
    assert Operation.objects.get(kind=Operation.Kind.CONTAINER_DISCONNECT).target == str(web.pk)
