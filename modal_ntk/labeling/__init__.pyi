from .record import fingerprint as fingerprint
from .session import LabelingSession as LabelingSession
from .studio import Synced as Synced
