from .fingerprints import fingerprint as fingerprint
from .session import LabelingSession as LabelingSession
