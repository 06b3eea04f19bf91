"""What differs between two runs beside their numbers: code, versions, device, weights, data. No torch."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, NamedTuple

from robustbench_twicing.results.manifest import Manifest

Kind = Literal["version", "code", "device", "weights", "data"]

_NONE = "none"


class Change(NamedTuple):
    """One thing that is not as it was."""

    kind: Kind
    name: str
    """Of the package, the model or the threat; empty where there is only one."""
    before: str
    now: str


def changes(before: Manifest, now: Manifest) -> tuple[Change, ...]:
    """What a run was made with that another before it was not. Models and threats that only one has are left out."""
    pairs = [
        *_by_name("version", _versions(before), _versions(now)),
        Change("code", "", _code(before), _code(now)),
        Change("device", "", _devices(before), _devices(now)),
        *_shared("weights", _weights(before), _weights(now)),
        *_shared("data", _data(before), _data(now)),
    ]
    return tuple(change for change in pairs if change.before != change.now)


def _by_name(kind: Kind, before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[Change]:
    for name in dict.fromkeys([*before, *now]):
        yield Change(kind, name, before.get(name, _NONE), now.get(name, _NONE))


def _shared(kind: Kind, before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[Change]:
    return (Change(kind, name, value, now[name]) for name, value in before.items() if name in now)


def _code(manifest: Manifest) -> str:
    return _several(maker.code for maker in manifest.made_by)


def _weights(manifest: Manifest) -> dict[str, str]:
    return {name: model.weights_hash for name, model in manifest.models.items()}


def _data(manifest: Manifest) -> dict[str, str]:
    return {threat: f"{data.samples} images, {data.fingerprint}" for threat, data in manifest.data.items()}


def _versions(manifest: Manifest) -> dict[str, str]:
    """Of the tool and its packages, all that took part."""
    known = [*(maker.versions for maker in manifest.made_by), manifest.versions]
    names = dict.fromkeys(name for versions in known for name in versions)
    return {name: _several(versions[name] for versions in known if name in versions) for name in names}


def _devices(manifest: Manifest) -> str:
    """What computed; a processor's name is no part of what decides a number."""
    return _several(maker.device for maker in manifest.made_by) or manifest.device.type


def _several(values: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(values))
