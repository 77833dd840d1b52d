"""Brings MLflow's tables to the version of this image, one pod at a time.

`mlflow server` does it too, but without a lock: two pods that start together break each other.
"""

import os
import sys
import time

import psycopg2

DATABASE = os.environ["MLFLOW_BACKEND_STORE_URI"]
PATIENCE_S = 120
LOCK = 5000  # any number that nothing else in this database locks


def main() -> None:
    """Waits for PostgreSQL, then for the other pods that do the same."""
    connection = connect()
    connection.cursor().execute("SELECT pg_advisory_lock(%s)", (LOCK,))  # until the process ends
    # takes seconds and warns: not before PostgreSQL has answered, whose refusal is to stand alone
    from mlflow.db import upgrade as upgrade_runs
    from mlflow.server.auth.db.cli import upgrade as upgrade_users

    upgrade_runs.main([DATABASE], standalone_mode=False)
    upgrade_users.main(["--url", DATABASE], standalone_mode=False)


def connect() -> psycopg2.extensions.connection:
    """Connects by PGHOST, PGUSER and PGPASSWORD; ends the program where that makes no sense."""
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            return psycopg2.connect(dbname=DATABASE.rpartition("/")[2])
        except psycopg2.OperationalError as error:
            reason = " ".join(str(error).split())
            if "authentication failed" in reason:
                sys.exit(
                    f"brainseg error: {reason}. The database keeps the password of its creation; "
                    "the Secret brainseg-postgres must hold it (docs/get-started/cluster.md)"
                )
            if time.monotonic() > end:
                sys.exit(f"brainseg error: no PostgreSQL within {PATIENCE_S} s: {reason}")
            time.sleep(2)


if __name__ == "__main__":
    main()
