from .distances import DenseRows as DenseRows
from .distances import OuterRows as OuterRows
from .k_center import k_center_greedy as k_center_greedy
from .kmeans_pp import kmeans_plus_plus as kmeans_plus_plus
from .lookahead import look_ahead as look_ahead
from .result import Selection as Selection
from .top import best as best
from .top import top_b as top_b
