"""What Alembic runs for every command: the migrations, on the connection and in the transaction that it is given.

Next: `serving/migrate.py`, which gives it both.
"""

from alembic import context

from serving.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
context.run_migrations()
