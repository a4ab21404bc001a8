"""Settings and options: ranges, unknown names, the environment, and the one sentence a wrong value gives."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from dreampose_core.errors import InputError
from dreampose_core.settings import MAX_SEED, AnimateOptions, FinetuneOptions, MotionOptions, Settings, validated

NAN, INF = float("nan"), float("inf")
WRONG = {
    "steps": (0, 251, "many", 8.5),
    "image_guidance": (-0.1, 20.1, NAN),
    "pose_guidance": (INF,),
    "seed": (-1, MAX_SEED + 1),
    "fps": (0.5, 121, NAN),
    "first_frame": (-1,),
    "last_frame": (0,),
    "batch_size": (0,),
    "recipe": ("slow",),
    "quality": ("great",),
}
ENDS = {"steps": (1, 250), "image_guidance": (0, 20), "seed": (0, MAX_SEED), "fps": (1, 120), "batch_size": (1, 64)}
MOTION = {
    "seconds": (1, 20),
    "fps": (8, 30),
    "speed": (0.25, 4),
    "amplitude": (0.25, 1.5),
    "view": (-180, 180),
    "turning": (-90, 90),
    "distance": (1, 3),
    "seed": (0, MAX_SEED),
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_values_out_of_range_give_one_sentence(name, value):
    with pytest.raises(InputError) as caught:
        validated(AnimateOptions, {name: value})
    text = str(caught.value)
    assert text.startswith(name.replace("_", " ") + ": ")
    assert repr(value) in text
    assert text.endswith(".") and "\n" not in text and "pydantic" not in text


def test_the_ends_of_each_range_are_accepted():
    assert MotionOptions(seconds=20, fps=30).num_frames == 600 and MotionOptions(seconds=1, fps=8).num_frames == 8
    for kind, ends in ((AnimateOptions, ENDS), (MotionOptions, MOTION)):
        for name, values in ends.items():
            assert all(getattr(validated(kind, {name: value}), name) == value for value in values)


@pytest.mark.parametrize("name", MOTION)
def test_a_motion_made_by_hand_keeps_to_its_ranges(name):
    low, high = MOTION[name]
    for value in (low - 1, high + 1, NAN, INF, None, "", "x", [1], {"value": 1}, 2**70):
        with pytest.raises(InputError) as caught:
            validated(MotionOptions, {name: value})
        assert str(caught.value).startswith(f"{name}: ") and "\n" not in str(caught.value)


def test_unknown_names_are_errors():
    with pytest.raises(InputError, match="guidence"):
        validated(AnimateOptions, {"guidence": 3})
    with pytest.raises(InputError, match="quality"):
        validated(FinetuneOptions, {"quality": "draft"})
    with pytest.raises(ValidationError):
        AnimateOptions().seed = 3


def test_a_user_without_a_home_folder_can_name_one(clean_environment, tmp_path):
    def nowhere():
        raise RuntimeError("Could not determine home directory.")

    clean_environment.setattr(Path, "home", nowhere)
    with pytest.raises(InputError, match="set DREAMPOSE_HOME"):
        Settings.from_environment()
    clean_environment.setenv("DREAMPOSE_HOME", str(tmp_path))
    assert Settings.from_environment().home == tmp_path


def test_settings_come_from_the_environment_and_overrides_win(clean_environment, tmp_path):
    assert Settings.from_environment().home == Path.home() / ".local" / "share" / "dreampose"
    clean_environment.setenv("DREAMPOSE_HOME", str(tmp_path))
    clean_environment.setenv("DREAMPOSE_PORT", "7999\r")
    clean_environment.setenv("DREAMPOSE_DEVICE", "\r")  # empty is as good as unset, and Windows' line ends are none
    settings = Settings.from_environment(port=8001, host=None)
    assert (settings.home, settings.port, settings.host, settings.device) == (tmp_path, 8001, "127.0.0.1", "auto")
    assert Settings.from_environment().port == 7999
    with pytest.raises(InputError, match="DREAMPOSE_SHARE"):
        Settings.from_environment(share=True)


@pytest.mark.parametrize(
    ("name", "value"), [("PORT", "many"), ("PORT", "65536"), ("DEVICE", "tpu"), ("MAX_QUEUE", "0")]
)
def test_a_wrong_variable_is_named_with_its_value(clean_environment, name, value):
    clean_environment.setenv(f"DREAMPOSE_{name}", value)
    with pytest.raises(InputError) as caught:
        Settings.from_environment()
    assert str(caught.value).startswith(f"DREAMPOSE_{name}: ") and repr(value) in str(caught.value)
