"""When to wake somebody: every alert rule. Knows nothing of who is woken: `deploy/alertmanager/` shows a way to tell them apart.

Next: `alerts_objectives.py`, `alerts_serving.py`, `alerts_rollouts.py` and `alerts_line.py`, the rules with their cases;
`provisioning.py`, which writes the files.
"""

from monitoring.alerting import Alert
from monitoring.alerts_line import LINE
from monitoring.alerts_objectives import OBJECTIVES
from monitoring.alerts_rollouts import ROLLOUTS
from monitoring.alerts_serving import SERVING

ALERTS: tuple[Alert, ...] = (*OBJECTIVES, *SERVING, *ROLLOUTS, *LINE)
