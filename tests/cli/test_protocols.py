"""Protocols by name."""

import pytest

from dpcn_modules.cli.fit import expand_protocol
from dpcn_modules.cli.main import main
from dpcn_modules.data import Shapes
from dpcn_modules.evaluation import PROTOCOLS
from dpcn_modules.training import EpisodeDataModule


def test_the_field_s_episodes_and_seeds():
    facts = {name: (each.episodes, each.seeds, each.sampling, each.target) for name, each in PROTOCOLS.items()}
    assert facts["pfenet"] == (5000, (321,), "image", "original")
    assert facts["pfenet_coco"][0] == 20000
    assert facts["hsnet"][:3] == (1000, (0,), "class")
    assert facts["panet"][:2] == (1000, (1234, 1235, 1236, 1237, 1238))
    assert facts["bam"][0] == 1000
    assert len(facts["bam"][1]) == 5
    assert facts["dpcn"] == (1000, (0,), "image", "original")
    assert (PROTOCOLS["dpcn"].size, PROTOCOLS["dpcn"].scales) == (473, (641,))


@pytest.mark.parametrize("name", PROTOCOLS)
def test_the_data_module_takes_the_settings_of_a_protocol(name):
    data = EpisodeDataModule(Shapes(0), protocol_name=name, **PROTOCOLS[name].data_settings())
    line = str(data.protocol())
    assert line.startswith(f"{name}: shapes fold 0 test")
    assert f"{PROTOCOLS[name].episodes} episodes, seed {PROTOCOLS[name].seeds[0]}" in line
    assert f"scored at {PROTOCOLS[name].target} size" in line


def test_every_protocol_has_an_id_of_its_own():
    ids = {EpisodeDataModule(Shapes(0), **each.data_settings()).protocol().id for each in PROTOCOLS.values()}
    assert len(ids) == len(PROTOCOLS)


def test_what_stands_after_the_name_overrides_it():
    arguments = expand_protocol("test", ["--config=a.yaml", "--protocol", "panet", "--data.size=65"])
    assert arguments[0] == "--config=a.yaml"
    assert arguments.index("--data.size=417") < arguments.index("--data.size=65")
    assert "--seeds=[1234, 1235, 1236, 1237, 1238]" in arguments
    assert not any(argument.startswith("--seeds") for argument in expand_protocol("fit", ["--protocol=panet"]))


@pytest.mark.parametrize("arguments", [["--protocol", "hsne"], ["--protocol=hsne"], ["--protocol"]])
def test_an_unknown_protocol_is_named(arguments, capsys):
    assert main(["test", *arguments]) == 2
    assert "``--protocol``: expected one of dpcn, pfenet, pfenet_coco, hsnet, panet, bam" in capsys.readouterr().err
