from .contract import Check as Check
from .contract import Tally as Tally
from .contract import check_strategy as check_strategy
from .contract import parametrize_with_checks as parametrize_with_checks
from .contract import strategy_checks as strategy_checks
from .situations import Situation as Situation
