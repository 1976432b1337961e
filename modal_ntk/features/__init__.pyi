from .directional import kernel_times as kernel_times
from .gradients import gradient_sketch as gradient_sketch
from .gradients import loss_gradient_norms as loss_gradient_norms
from .gradients import loss_gradient_products as loss_gradient_products
from .gradients import loss_gradient_sum as loss_gradient_sum
from .loss_gradients import LossGradients as LossGradients
from .loss_gradients import Measured as Measured
from .samples import concatenated as concatenated
