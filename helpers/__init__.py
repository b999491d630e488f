"""What every notebook of the course shares and no lecture teaches. Importing it does nothing else."""

from . import data
from .checks import CheckFailed, check, exercise
from .runtime import compare_speed, get_device, progress, seed, show_images, timed, use_style

__all__ = ["CheckFailed", "check", "compare_speed", "data", "exercise", "get_device", "progress",
           "seed", "show_images", "timed", "use_style"]
