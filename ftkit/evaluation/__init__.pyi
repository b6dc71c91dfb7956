from .comparison import Comparison as Comparison
from .comparison import compare as compare
from .reports import Report as Report
from .reports import bootstrap_weights as bootstrap_weights
from .reports import evaluate as evaluate
from .reports import make_report as make_report
from .reports import percentile_interval as percentile_interval
from .reports import predict as predict
