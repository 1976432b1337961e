from .datasets import Dataset as Dataset
from .datasets import load_dataset as load_dataset
from .estimators import default_estimator as default_estimator
from .reporting import report as report
from .runner import run as run
from .simulation import SimulatedActiveLearning as SimulatedActiveLearning
