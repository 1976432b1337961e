from .diffused import certainty as certainty
from .diffused import select_by_diffusion as select_by_diffusion
from .lookahead import look_ahead as look_ahead
from .result import Selection as Selection
from .top import best as best
from .top import top_b as top_b
