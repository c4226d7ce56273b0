-- The roles of the market database, for psql as a superuser in that database; may be repeated at will.
-- A container of PostgreSQL runs it at its first start, the bare machine at each.
--
-- From the environment, so that no password stands on a command line:
--   MARKET_DB_ROLE            the pipeline's role and the schema that it owns (default: mltrading)
--   MARKET_DB_PASSWORD        its password
--   MARKET_READONLY_PASSWORD  the analysts'; without it mltrading_readonly cannot log in
\set ON_ERROR_STOP on
\set role mltrading
\getenv role MARKET_DB_ROLE
\getenv password MARKET_DB_PASSWORD
\set readonly_password ''
\getenv readonly_password MARKET_READONLY_PASSWORD

BEGIN;
-- Two installations on one server take turns.
SELECT pg_advisory_xact_lock(hashtextextended('mltrading:roles', 0)) \g /dev/null

SELECT format('CREATE ROLE %I', name)
FROM unnest(ARRAY[:'role', 'mltrading_readonly']) AS wanted (name)
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \gexec

ALTER ROLE :"role" LOGIN NOSUPERUSER NOCREATEROLE CONNECTION LIMIT 25 PASSWORD :'password';
SELECT format('ALTER ROLE mltrading_readonly NOSUPERUSER NOCREATEDB NOCREATEROLE CONNECTION LIMIT 10 %s',
    CASE :'readonly_password' WHEN '' THEN 'NOLOGIN PASSWORD NULL'
    ELSE format('LOGIN PASSWORD %L', :'readonly_password') END) \gexec
-- A forgotten session of an analyst must not hold the pipeline up.
ALTER ROLE mltrading_readonly SET default_transaction_read_only = on;
ALTER ROLE mltrading_readonly SET statement_timeout = '60s';
ALTER ROLE mltrading_readonly SET idle_in_transaction_session_timeout = '60s';

SELECT format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database()) \gexec
SELECT format('GRANT CONNECT, TEMPORARY ON DATABASE %I TO %I', current_database(), :'role') \gexec
SELECT format('GRANT CONNECT ON DATABASE %I TO mltrading_readonly', current_database()) \gexec

-- PostgreSQL looks into the schema of the role's own name first. Where tables stand in `public` already,
-- an empty schema before them would hide them.
SELECT format('CREATE SCHEMA IF NOT EXISTS %I AUTHORIZATION %I', :'role', :'role')
WHERE to_regclass('public.schema_migrations') IS NULL \gexec
SELECT format('REVOKE CREATE ON SCHEMA public FROM PUBLIC') \gexec
SELECT format('GRANT USAGE ON SCHEMA %I TO mltrading_readonly', nspname),
       format('GRANT SELECT ON ALL TABLES IN SCHEMA %I TO mltrading_readonly', nspname)
FROM pg_namespace WHERE nspname IN (:'role', 'public') \gexec
-- Tables and views of later migrations too.
ALTER DEFAULT PRIVILEGES FOR ROLE :"role" GRANT SELECT ON TABLES TO mltrading_readonly;
SELECT format('ALTER ROLE mltrading_readonly IN DATABASE %I SET search_path = %I, public',
    current_database(), :'role') \gexec
-- In the container the superuser has served its purpose: from now on only the socket inside lets it in.
\getenv container_password POSTGRES_PASSWORD
\if :{?container_password}
    ALTER ROLE CURRENT_USER PASSWORD NULL;
\endif
COMMIT;

-- The empty database in which `backup` restores what it has dumped, to compare it: the pipeline's role may
-- make none. Outside of a transaction, as PostgreSQL wants it.
SELECT pg_advisory_lock(hashtextextended('mltrading:roles', 0)) \g /dev/null
SELECT current_database() || '_verify' AS verify \gset
SELECT format('CREATE DATABASE %I OWNER %I', :'verify', :'role')
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'verify') \gexec
REVOKE ALL ON DATABASE :"verify" FROM PUBLIC;
