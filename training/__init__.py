"""From a team's rows to a merged model with a certificate. Knows nothing of evaluation, serving or Prefect."""
