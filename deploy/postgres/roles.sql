-- Roles with no more rights on the records than a worker and a monitor need. Made anew each time: run it as the tables'
-- owner after every `python -m worker migrate`.
--
--   WORKER_PASSWORD=… MONITOR_PASSWORD=… psql -v ON_ERROR_STOP=1 -f deploy/postgres/roles.sql "$OWNERS_URL"
--
-- Without a password here, a role keeps the one that it has. A new one has none: give it one with psql's \password, or
-- have the server let it in without (docs/servers.md). psql's variables worker_password and monitor_password work, too.
--
-- Neither may change the schema. The ledgers (counts, expectations, comparisons, audits, audit_draws, audit_repeats,
-- variance_trail) only grow: nobody deletes there.
\getenv worker_password WORKER_PASSWORD
\getenv monitor_password MONITOR_PASSWORD
BEGIN;
SELECT format('CREATE ROLE %I LOGIN', role)
FROM unnest(ARRAY ['binwatch_worker', 'binwatch_monitor']) AS role
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) \gexec
\if :{?worker_password}
ALTER ROLE binwatch_worker PASSWORD :'worker_password';
\else
\warn 'WORKER_PASSWORD is not set: binwatch_worker keeps its password; a new role has none (psql: \\password binwatch_worker)'
\endif
\if :{?monitor_password}
ALTER ROLE binwatch_monitor PASSWORD :'monitor_password';
\else
\warn 'MONITOR_PASSWORD is not set: binwatch_monitor keeps its password; a new role has none (psql: \\password binwatch_monitor)'
\endif

REVOKE CREATE ON SCHEMA public FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA public FROM binwatch_worker, binwatch_monitor;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO binwatch_worker, binwatch_monitor;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO binwatch_worker, binwatch_monitor;

-- A worker records what it counts, and forgets what it is done with.
GRANT INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO binwatch_worker;
REVOKE DELETE ON counts, expectations, comparisons FROM binwatch_worker;
REVOKE INSERT, DELETE ON variances FROM binwatch_worker; -- it closes those whose expected quantity is corrected
REVOKE UPDATE, DELETE ON variance_trail FROM binwatch_worker;
REVOKE INSERT, UPDATE, DELETE ON audits, audit_draws, audit_repeats, known_answers, drift_batches, alembic_version
    FROM binwatch_worker;

-- The monitor records audits and expected quantities (`audit`, `expect`, `rank` and the page), and what follows from them.
GRANT INSERT ON audits, audit_draws, audit_repeats, expectations, comparisons, variances, variance_trail
    TO binwatch_monitor;
GRANT UPDATE (state, quantity, closed_at) ON variances TO binwatch_monitor;
GRANT INSERT, DELETE ON drift_batches TO binwatch_monitor; -- drift alarms go on from the latest, and need no others
GRANT INSERT, UPDATE ON known_answers TO binwatch_monitor; -- a file that says otherwise corrects an earlier one
GRANT UPDATE ON expectations TO binwatch_monitor; -- a quantity takes the place of a failure to read one
GRANT UPDATE (p_value, p_missing, p_surplus) ON comparisons TO binwatch_monitor;
GRANT INSERT, UPDATE ON bins, audit_totals, bin_totals, confusion_totals, expectation_totals, comparison_hours, rank_totals,
    variance_totals, slice_confusion_totals
    TO binwatch_monitor;
GRANT INSERT, UPDATE, DELETE ON current_comparisons TO binwatch_monitor;
COMMIT;
