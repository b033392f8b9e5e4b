"""From estimates of prompts to what a deployment will see.

``evidence`` a likelihood for each prompt; ``population`` their spread without the errors, and draws of all prompts;
``mix`` a traffic mix of audited prompts; ``tail`` and ``extrapolate`` fresh prompts; ``betacheck`` a second opinion.
"""

from tailrisk.stats.forecast.evidence import Evidence
from tailrisk.stats.forecast.mix import Plain, plain_ends, prompt_confidence
from tailrisk.stats.forecast.whole import REACHED, Forecast, forecast

__all__ = ["REACHED", "Evidence", "Forecast", "Plain", "forecast", "plain_ends", "prompt_confidence"]
