"""What people and alerts look at: named queries, alert rules, dashboards as code. Knows nothing of Prefect or torch."""
