from .doctor import check_machine as check_machine
from .fetch import fetch_models as fetch_models
from .main import build_parser as build_parser
from .notebooks import find_notebooks as find_notebooks
from .notebooks import run_course as run_course
