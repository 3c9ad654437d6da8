"""What Alembic runs: the steps, on the connection and in the transaction that schema.py has begun."""

from alembic import context

from slmc.farm.history.schema import VERSION_TABLE

context.configure(connection=context.config.attributes["connection"], version_table=VERSION_TABLE)
context.run_migrations()
