from .course import find_notebooks as find_notebooks
from .course import run_course as run_course
from .doctor import check_machine as check_machine
from .fetch import fetch_models as fetch_models
from .main import build_parser as build_parser
