#!/bin/sh
# Runs once, on an empty volume: one database for each server, each with an owner that can reach no other.
set -eu

for name in prefect mlflow; do
    case $name in
        prefect) password=$PREFECT_DB_PASSWORD ;;
        mlflow) password=$MLFLOW_DB_PASSWORD ;;
    esac
    psql -v ON_ERROR_STOP=1 -v name="$name" -v password="$password" --no-psqlrc --quiet <<'SQL'
CREATE ROLE :"name" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name";
REVOKE CONNECT ON DATABASE :"name" FROM PUBLIC;
SQL
done
psql -v ON_ERROR_STOP=1 --no-psqlrc --quiet --dbname prefect -c 'CREATE EXTENSION pg_trgm' # Prefect's text search
