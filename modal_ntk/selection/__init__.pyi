from .k_center import k_center_greedy as k_center_greedy
from .lookahead import look_ahead as look_ahead
from .result import Selection as Selection
from .top import best as best
from .top import top_b as top_b
