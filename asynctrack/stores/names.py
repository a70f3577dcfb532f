"""Names for runs that were given none."""

from __future__ import annotations

import random

__all__ = ["random_run_name"]


def _words(text: str) -> list[str]:
    return text.split()


_ADJECTIVES = _words(
    "able agile amber bold brave bright brisk calm candid careful cheerful clever crisp curious daring eager earnest "
    "fair fancy fearless gentle glad grand handy honest humble jolly keen kind lively lucky merry mighty neat nimble "
    "noble patient placid polite proud quick quiet rapid rare ready serene sharp shiny silent smart smooth steady "
    "stout sunny swift tidy tough upbeat vivid warm wise witty zesty"
)
_ANIMALS = _words(
    "ant auk badger bat bear bee bison boar carp cat colt cow crab crane crow deer dog donkey dove duck eagle eel elk "
    "ferret finch fish fox frog gnat goat goose grouse gull hare hawk hen heron horse hound jay kite koala lamb lark "
    "lion lynx mole moose mouse newt otter owl ox panda perch pig pony quail rat raven rook seal shad shark sheep "
    "shrew sloth snail snipe squid stag stork swan tern toad trout vole wasp whale wolf wren yak zebra"
)


def random_run_name(uid: str) -> str:
    """A name of MLflow's shape, adjective-animal-NNN: the same for the same uid, so that a repeated creation agrees."""
    choose = random.Random(uid)
    return f"{choose.choice(_ADJECTIVES)}-{choose.choice(_ANIMALS)}-{choose.randrange(1000)}"
