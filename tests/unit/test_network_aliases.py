from __future__ import annotations

from engine.network.aliases import Linked, zones_of

WEB, APP, DB = ("a" * 64, "b" * 64, "c" * 64)
ZONE = (
    f"10.64.0.1\n{WEB} 10.64.0.2  Web\n{APP} 10.64.0.3  app,backend 9.9.9.9\n{DB} 10.64.0.4  db\n"
)


def linked(source: str, *links: tuple[str, str], network: str = "n1") -> Linked:
    return Linked(network, source, links)


def lines(*all_linked: Linked, **further: str) -> list[str]:
    """The lines of targets, without the ids."""
    zones = zones_of({"n1": ZONE, **further}, all_linked)
    for name, text in zones.items():
        first, own, target = text.splitlines()
        source = name.split("+")[1]
        assert (first, own) == ("192.0.2.1", f"{source}   {source[:12]}")
        assert target.startswith(f"{name} ")
    return [text.splitlines()[2].split(" ", 1)[1] for text in zones.values()]


def test_a_zone_for_each_target_with_its_servers() -> None:
    links = (("app", "API"), ("backend", "b.end"), ("DB", "store"), ("nobody", "x"))
    assert lines(linked(WEB, *links)) == ["10.64.0.3  api,b.end 9.9.9.9", "10.64.0.4  store"]
    assert lines(linked(WEB, *links, network="n2")) == []
    assert lines() == []


def test_nobody_gets_a_second_answer() -> None:
    for name, alias in (("db", "db"), ("db", "app"), ("web", "me")):
        assert lines(linked(WEB, (name, alias))) == []
    chain = (linked(WEB, ("app", "next")), linked(APP, ("db", "next")))
    assert lines(*chain) == ["10.64.0.4  next"]  # not app itself to app
    # On another network the target has somebody of that name; whom it concerns not, keeps it.
    other = f"10.65.0.1\n{APP} 10.65.0.2  app\n{'d' * 64} 10.65.0.3  cache\n"
    links = (("app", "cache"), ("db", "cache"))
    assert lines(linked(WEB, *links), n2=other) == ["10.64.0.4  cache"]


def test_what_is_kept_of_links_is_read_again() -> None:
    one = linked(WEB, ("app", "api"), ("db", "store"))
    assert Linked.parse(one.name, one.text()) == one
