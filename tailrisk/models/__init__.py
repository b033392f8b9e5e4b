"""Language models: loading, prompts to token ids, interventions, sampling and scoring."""
