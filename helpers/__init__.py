"""What every notebook of the course shares and no lecture teaches. Importing it does nothing else."""

from . import data
from .breaking import break_it
from .checks import CheckFailed, check, claim, exercise
from .features import feature_net
from .runtime import compare_speed, get_device, measured, progress, seed, show_images, timed, use_style
from .scheme import scheme
from .sound import get_torchaudio, play

__all__ = ["CheckFailed", "break_it", "check", "claim", "compare_speed", "data", "exercise", "feature_net", "get_device",
           "get_torchaudio", "measured", "play", "progress", "scheme", "seed", "show_images", "timed", "use_style"]
