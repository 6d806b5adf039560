-- +goose Up
-- What keeps the ledger fast as it grows: overdue reservations are found by the
-- budgets that they are in the way of, many expire in a few statements, and what
-- was settled long ago is pruned.

-- When a held reservation with the policy 'release' is overdue; null for any
-- other, so that the index holds no more than what is held.
ALTER TABLE earmark.reservation_budgets ADD COLUMN IF NOT EXISTS overdue_at timestamptz;
UPDATE earmark.reservation_budgets s SET overdue_at = r.expires_at FROM earmark.reservations r
WHERE r.id = s.reservation_id AND r.state = 'held' AND r.on_expiry = 'release';
CREATE INDEX IF NOT EXISTS reservation_budgets_overdue_idx ON earmark.reservation_budgets (budget_id, window_start, overdue_at)
    WHERE overdue_at IS NOT NULL;

-- +goose StatementBegin
-- An extension, and a policy that changes, are rare; what ends a hold clears
-- overdue_at itself.
CREATE OR REPLACE FUNCTION earmark.follow_expiry() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE earmark.reservation_budgets SET overdue_at = CASE WHEN NEW.state = 'held' AND NEW.on_expiry = 'release' THEN NEW.expires_at END
    WHERE reservation_id = NEW.id;
    RETURN NULL;
END $$;
-- +goose StatementEnd

CREATE OR REPLACE TRIGGER reservations_follow_expiry AFTER UPDATE OF expires_at, on_expiry ON earmark.reservations
    FOR EACH ROW WHEN ((OLD.expires_at, OLD.on_expiry) IS DISTINCT FROM (NEW.expires_at, NEW.on_expiry))
    EXECUTE FUNCTION earmark.follow_expiry();

-- +goose StatementBegin
-- Sets p_amounts aside on every budget that covers one of p_scopes, or on none (R1, R2).
CREATE OR REPLACE FUNCTION earmark.reserve(p_id text, p_tenant text, p_hash text, p_scopes text[], p_amounts jsonb, p_ttl_ms bigint, p_on_expiry text,
    p_metadata jsonb, p_workflow_id text, p_admit_by timestamptz, p_released boolean, p_actor text) RETURNS jsonb
LANGUAGE plpgsql SET lock_timeout = '1s' AS $$
DECLARE
    t         earmark.touched;
    r         earmark.reservations;
    v_touched earmark.touched[];
    v_answer  jsonb;
BEGIN
    v_answer := earmark.replay(p_id, p_tenant, p_hash);
    IF v_answer IS NOT NULL THEN
        RETURN v_answer;
    END IF;

    IF p_released THEN -- leave a row, so that an attempt still under way cannot reserve after this
        INSERT INTO earmark.reservations (id, tenant, state, request_hash, scopes, amounts, on_expiry, metadata, workflow_id, expires_at, settled_at, reason)
        VALUES (p_id, p_tenant, 'released', p_hash, p_scopes, p_amounts, p_on_expiry, p_metadata, p_workflow_id,
                clock_timestamp() + p_ttl_ms * interval '1 millisecond', clock_timestamp(), 'released before it was reserved')
        ON CONFLICT DO NOTHING RETURNING * INTO r;
        IF NOT FOUND THEN
            RETURN earmark.replay(p_id, p_tenant, p_hash);
        END IF;
        PERFORM earmark.note('release', p_tenant, p_id, NULL, p_actor, 'released before it was reserved');
        RETURN earmark.result('released', r);
    END IF;

    v_touched := earmark.lock_touched(p_tenant, p_scopes, earmark.units(p_amounts), NULL);
    -- An earlier attempt with this id may have been admitted while this one waited.
    v_answer := earmark.replay(p_id, p_tenant, p_hash);
    IF v_answer IS NOT NULL THEN
        RETURN v_answer;
    END IF;
    IF clock_timestamp() > p_admit_by THEN
        RETURN jsonb_build_object('outcome', 'too_late');
    END IF;
    v_answer := earmark.unmet(p_tenant, p_scopes, earmark.units(p_amounts), v_touched);
    IF v_answer IS NOT NULL THEN
        RETURN v_answer;
    END IF;
    v_answer := earmark.misfit(v_touched, p_amounts);
    IF v_answer IS NOT NULL AND earmark.expire_in_the_way(v_touched, p_actor) > 0 THEN
        v_touched := earmark.lock_windows(v_touched);
        v_answer := earmark.misfit(v_touched, p_amounts);
    END IF;
    IF v_answer IS NOT NULL THEN
        RETURN v_answer;
    END IF;

    INSERT INTO earmark.reservations (id, tenant, state, request_hash, scopes, amounts, on_expiry, metadata, workflow_id, expires_at, over_limit)
    VALUES (p_id, p_tenant, 'held', p_hash, p_scopes, p_amounts, p_on_expiry, p_metadata, p_workflow_id,
            clock_timestamp() + p_ttl_ms * interval '1 millisecond',
            EXISTS (SELECT 1 FROM unnest(v_touched) u WHERE (p_amounts ->> u.unit)::numeric + u.reserved + u.committed > u.limit_amount))
    ON CONFLICT DO NOTHING RETURNING * INTO r;
    IF NOT FOUND THEN -- the same id for other budgets, at the same moment
        RETURN earmark.replay(p_id, p_tenant, p_hash);
    END IF;
    FOREACH t IN ARRAY v_touched LOOP
        INSERT INTO earmark.reservation_budgets (reservation_id, budget_id, window_start, unit, reserved, overdue_at)
        VALUES (p_id, t.budget_id, t.window_start, t.unit, (p_amounts ->> t.unit)::bigint, CASE p_on_expiry WHEN 'release' THEN r.expires_at END);
        PERFORM earmark.post('reserve', p_tenant, p_id, t.budget_id, t.window_start, (p_amounts ->> t.unit)::bigint, 0, t.ceiling, p_actor, '');
    END LOOP;
    RETURN earmark.result('applied', r);
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Charges p_usage and gives back the rest of what is held. Usage that turns up
-- after an expiry is late: it is charged in full whatever the policies say, since
-- the money is gone. Estimates are corrected by the first real usage.
CREATE OR REPLACE FUNCTION earmark.commit(p_tenant text, p_id text, p_usage jsonb, p_actor text, p_reason text) RETURNS jsonb
LANGUAGE plpgsql SET lock_timeout = '1s' AS $$
DECLARE
    r           earmark.reservations := earmark.lock_reservation(p_tenant, p_id);
    s           record;
    v_late      boolean;
    v_overage   jsonb;
    v_shortfall jsonb;
    v_used      bigint;
    v_charged   bigint;
    v_subject   text;
    v_reason    text;
BEGIN
    IF r.id IS NULL THEN
        RETURN jsonb_build_object('outcome', 'unknown');
    END IF;
    SELECT unit INTO v_subject FROM unnest(earmark.units(p_usage) || earmark.units(r.amounts)) AS unit
    WHERE NOT (p_usage ? unit AND r.amounts ? unit) ORDER BY unit LIMIT 1;
    IF FOUND THEN
        RETURN earmark.result('units_mismatch', r) || jsonb_build_object('subject', v_subject);
    END IF;

    IF r.state = 'committed' AND NOT r.estimated THEN
        RETURN earmark.result(CASE WHEN r.usage = p_usage THEN 'same' ELSE 'conflict' END, r);
    ELSIF r.state = 'released' THEN
        v_reason := format('usage %s came after the release and was not charged', p_usage);
        IF NOT EXISTS (SELECT 1 FROM earmark.entries WHERE reservation_id = r.id AND kind = 'refuse' AND reason = v_reason) THEN
            PERFORM earmark.note('refuse', r.tenant, r.id, NULL, p_actor, v_reason);
        END IF;
        RETURN earmark.result('conflict', r);
    END IF;

    v_late := r.state <> 'held';
    SELECT jsonb_object_agg(unit, used - reserved) INTO v_overage
    FROM (SELECT key AS unit, value::numeric AS used, (r.amounts ->> key)::numeric AS reserved FROM jsonb_each_text(p_usage)) AS u
    WHERE used > reserved;

    IF v_overage IS NOT NULL AND NOT v_late THEN
        -- A policy decides, and it reads limits and balances: under their locks.
        PERFORM 1 FROM earmark.budgets b
        WHERE b.id IN (SELECT budget_id FROM earmark.reservation_budgets WHERE reservation_id = r.id)
        ORDER BY b.id FOR NO KEY UPDATE;
        IF EXISTS (SELECT 1 FROM earmark.reservation_budgets x JOIN earmark.budgets b ON b.id = x.budget_id
                   WHERE x.reservation_id = r.id AND b.overage = 'reject' AND v_overage ? x.unit) THEN
            IF r.rejected_usage IS DISTINCT FROM p_usage THEN
                UPDATE earmark.reservations SET rejected_usage = p_usage, on_expiry = 'review' WHERE id = r.id RETURNING * INTO r;
                PERFORM earmark.note('reject', r.tenant, r.id, NULL, p_actor, format('usage %s is over the reserved amount', p_usage));
            END IF;
            RETURN earmark.result('overage_rejected', r);
        END IF;
        PERFORM 1 FROM earmark.windows w JOIN earmark.reservation_budgets x USING (budget_id, window_start)
        WHERE x.reservation_id = r.id ORDER BY w.budget_id, w.window_start FOR NO KEY UPDATE OF w;
    END IF;

    v_reason := CASE WHEN v_late THEN concat_ws(': ', CASE WHEN r.estimated THEN 'late, corrects an estimate' ELSE 'late' END, nullif(p_reason, '')) ELSE p_reason END;
    FOR s IN
        SELECT x.*, CASE b.enforcement WHEN 'hard' THEN b.limit_amount ELSE b.soft_ceiling END AS ceiling, b.overage,
               w.reserved AS window_reserved, w.committed AS window_committed
        FROM earmark.reservation_budgets x JOIN earmark.budgets b ON b.id = x.budget_id JOIN earmark.windows w USING (budget_id, window_start)
        WHERE x.reservation_id = r.id ORDER BY x.budget_id, x.window_start
    LOOP
        v_used := (p_usage ->> s.unit)::bigint;
        v_charged := v_used;
        IF v_used > s.reserved AND NOT v_late AND s.overage = 'allow_if_available' AND s.ceiling IS NOT NULL THEN
            -- What is free beside the reservation's own amount, which the window still counts.
            v_charged := s.reserved + least(v_used - s.reserved, greatest(0, s.ceiling::numeric - s.window_reserved - s.window_committed));
        END IF;
        IF v_charged < v_used THEN -- with several budgets, the largest part that one of them did not charge
            v_shortfall := coalesce(v_shortfall, '{}') || jsonb_build_object(s.unit, greatest(v_used - v_charged, (v_shortfall ->> s.unit)::bigint));
        END IF;
        PERFORM earmark.post('commit', r.tenant, r.id, s.budget_id, s.window_start,
            CASE WHEN r.state IN ('held', 'review') THEN -s.reserved ELSE 0 END, v_charged - s.committed, NULL, p_actor, v_reason);
        UPDATE earmark.reservation_budgets SET committed = v_charged, overdue_at = NULL WHERE reservation_id = r.id AND budget_id = s.budget_id;
    END LOOP;
    UPDATE earmark.reservations SET state = 'committed', usage = p_usage, overage = v_overage, shortfall = v_shortfall, late = v_late,
        estimated = false, settled_at = clock_timestamp(), reason = v_reason, orphan = false,
        refresh_due = r.refresh_due OR (p_actor <> 'workflow' AND r.state IN ('held', 'review'))
    WHERE id = r.id RETURNING * INTO r;
    RETURN earmark.result('applied', r);
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Gives back what an open reservation holds, in the order of locks, and moves it
-- to p_state. The workflow is told later when somebody else did this (refresh_due).
CREATE OR REPLACE FUNCTION earmark.give_back(r earmark.reservations, p_state text, p_kind text, p_actor text, p_reason text) RETURNS earmark.reservations
LANGUAGE plpgsql AS $$
DECLARE
    s earmark.reservation_budgets;
BEGIN
    FOR s IN SELECT * FROM earmark.reservation_budgets WHERE reservation_id = r.id ORDER BY budget_id, window_start LOOP
        PERFORM earmark.post(p_kind, r.tenant, r.id, s.budget_id, s.window_start, -s.reserved, 0, NULL, p_actor, p_reason);
    END LOOP;
    UPDATE earmark.reservation_budgets SET overdue_at = NULL WHERE reservation_id = r.id AND overdue_at IS NOT NULL;
    UPDATE earmark.reservations SET state = p_state, settled_at = clock_timestamp(), reason = p_reason, orphan = false,
        refresh_due = p_actor <> 'workflow' OR r.state = 'review' -- in review no timer looks again
    WHERE id = r.id RETURNING * INTO r;
    RETURN r;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Applies the expiry policies of held reservations whose rows are locked. Each
-- balance changes once for all of them, and each has its own entries all the same.
CREATE OR REPLACE FUNCTION earmark.expire_all(p_ids text[], p_actor text, p_reason text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM earmark.windows w
    WHERE (w.budget_id, w.window_start) IN (SELECT s.budget_id, s.window_start FROM earmark.reservation_budgets s WHERE s.reservation_id = ANY (p_ids))
    ORDER BY w.budget_id, w.window_start FOR NO KEY UPDATE;

    WITH shares AS (
        SELECT s.budget_id, s.window_start, s.reserved, CASE r.on_expiry WHEN 'commit' THEN s.reserved ELSE 0 END AS charged, r.id, r.tenant, r.expires_at
        FROM earmark.reservations r JOIN earmark.reservation_budgets s ON s.reservation_id = r.id
        WHERE r.id = ANY (p_ids) AND r.on_expiry <> 'review'
    ), changed AS (
        UPDATE earmark.windows w SET reserved = w.reserved - d.reserved, committed = w.committed + d.charged
        FROM (SELECT budget_id, window_start, sum(reserved) AS reserved, sum(charged) AS charged FROM shares GROUP BY 1, 2) AS d
        WHERE w.budget_id = d.budget_id AND w.window_start = d.window_start
        RETURNING w.budget_id, w.window_start, w.reserved + d.reserved AS reserved_before, w.committed - d.charged AS committed_before
    )
    INSERT INTO earmark.entries (kind, tenant, reservation_id, budget_id, window_start, reserved_delta, committed_delta,
                                 reserved_after, committed_after, actor, reason)
    SELECT 'expire', tenant, id, budget_id, window_start, -reserved, charged,
           reserved_before - sum(reserved) OVER chain, committed_before + sum(charged) OVER chain, p_actor, p_reason
    FROM shares JOIN changed USING (budget_id, window_start)
    WINDOW chain AS (PARTITION BY budget_id, window_start ORDER BY expires_at, id)
    ORDER BY expires_at, id, budget_id;

    INSERT INTO earmark.entries (kind, tenant, reservation_id, actor, reason)
    SELECT 'review', tenant, id, p_actor, p_reason FROM earmark.reservations WHERE id = ANY (p_ids) AND on_expiry = 'review' ORDER BY expires_at, id;

    UPDATE earmark.reservation_budgets s SET committed = CASE r.on_expiry WHEN 'commit' THEN s.reserved ELSE 0 END, overdue_at = NULL
    FROM earmark.reservations r WHERE r.id = ANY (p_ids) AND s.reservation_id = r.id AND r.on_expiry <> 'review';

    UPDATE earmark.reservations SET state = 'review', reason = p_reason WHERE id = ANY (p_ids) AND on_expiry = 'review';
    UPDATE earmark.reservations SET state = CASE on_expiry WHEN 'commit' THEN 'committed' ELSE 'expired' END,
        usage = CASE on_expiry WHEN 'commit' THEN amounts END, estimated = on_expiry = 'commit',
        settled_at = clock_timestamp(), reason = p_reason, orphan = false, refresh_due = p_actor <> 'workflow'
    WHERE id = ANY (p_ids) AND on_expiry <> 'review';
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Applies the expiry policy of a held reservation whose row is locked.
CREATE OR REPLACE FUNCTION earmark.apply_expiry(r earmark.reservations, p_actor text, p_reason text) RETURNS earmark.reservations
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM earmark.expire_all(ARRAY [r.id], p_actor, p_reason);
    SELECT * INTO r FROM earmark.reservations WHERE id = r.id;
    RETURN r;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Expires up to p_most reservations that are overdue by more than p_grace_ms, and
-- returns their ids. Rows that somebody else works on are left to them; windows
-- are locked in order for all of them together, so no deadlock can arise (R6).
CREATE OR REPLACE FUNCTION earmark.sweep(p_grace_ms bigint, p_most integer, p_actor text, p_reason text) RETURNS text[]
LANGUAGE plpgsql SET lock_timeout = '1s' AS $$
DECLARE
    v_due timestamptz := clock_timestamp() - p_grace_ms * interval '1 millisecond'; -- in a variable, or no index would find it
    v_ids text[];
BEGIN
    PERFORM earmark.require_read_committed();
    SELECT array_agg(id) INTO v_ids FROM (
        SELECT id FROM earmark.reservations WHERE state = 'held' AND expires_at < v_due
        ORDER BY expires_at, id LIMIT p_most FOR NO KEY UPDATE SKIP LOCKED
    ) AS overdue;
    IF v_ids IS NULL THEN
        RETURN '{}';
    END IF;
    PERFORM earmark.expire_all(v_ids, p_actor, p_reason);
    RETURN v_ids;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- How many overdue reservations an admission expires in each budget that it does
-- not fit into. The sweeper does the rest.
CREATE OR REPLACE FUNCTION earmark.most_in_the_way() RETURNS integer LANGUAGE sql IMMUTABLE AS $$ SELECT 100 $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Expires overdue 'release' reservations that stand in the way of an admission
-- which holds the locks of p_touched, and returns how many. It waits for no lock:
-- what somebody else works on is left to them.
CREATE OR REPLACE FUNCTION earmark.expire_in_the_way(p_touched earmark.touched[], p_actor text) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    t     earmark.touched;
    v_now timestamptz := clock_timestamp();
    v_ids text[] := '{}';
BEGIN
    FOREACH t IN ARRAY p_touched LOOP
        v_ids := v_ids || ARRAY(
            SELECT r.id FROM earmark.reservation_budgets s JOIN earmark.reservations r ON r.id = s.reservation_id
            WHERE s.budget_id = t.budget_id AND s.window_start = t.window_start AND s.overdue_at < v_now
              AND r.state = 'held' AND r.on_expiry = 'release' AND r.expires_at < v_now AND r.id <> ALL (v_ids)
            ORDER BY s.overdue_at, r.id LIMIT earmark.most_in_the_way() FOR UPDATE OF r SKIP LOCKED);
    END LOOP;
    WITH locked AS (
        SELECT w.budget_id, w.window_start FROM earmark.windows w
        WHERE (w.budget_id, w.window_start) IN (SELECT s.budget_id, s.window_start FROM earmark.reservation_budgets s WHERE s.reservation_id = ANY (v_ids))
        FOR NO KEY UPDATE SKIP LOCKED
    )
    SELECT coalesce(array_agg(id), '{}') INTO v_ids FROM unnest(v_ids) AS id
    WHERE NOT EXISTS (SELECT 1 FROM earmark.reservation_budgets s
                      WHERE s.reservation_id = id AND (s.budget_id, s.window_start) NOT IN (SELECT * FROM locked));
    IF v_ids <> '{}' THEN
        PERFORM earmark.expire_all(v_ids, p_actor, 'overdue, and in the way of an admission');
    END IF;
    RETURN cardinality(v_ids);
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Whether p_amounts would fit now, without a lock and without a change: 'applied',
-- 'denied', 'no_budget', 'unit_not_budgeted' or 'overflow'. A yes is only ever
-- decided by earmark.reserve. Overdue 'release' reservations do not stand in the
-- way, since an admission would expire them.
CREATE OR REPLACE FUNCTION earmark.decide(p_tenant text, p_scopes text[], p_amounts jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_touched earmark.touched[];
    v_answer  jsonb;
    v_now     timestamptz := clock_timestamp();
BEGIN
    SELECT array_agg(ROW (b.id, b.scope, b.unit, b.period, b.limit_amount,
                          CASE b.enforcement WHEN 'hard' THEN b.limit_amount ELSE b.soft_ceiling END,
                          w.window_start, w.window_end, coalesce(s.reserved, 0), coalesce(s.committed, 0))::earmark.touched ORDER BY b.id)
    INTO v_touched
    FROM earmark.budgets b CROSS JOIN LATERAL earmark.window_bounds(b.period, b.timezone, clock_timestamp()) w
         LEFT JOIN earmark.windows s ON s.budget_id = b.id AND s.window_start = w.window_start
    WHERE b.tenant = p_tenant AND b.archived_at IS NULL AND b.scope = ANY (earmark.scope_paths(p_scopes))
      AND b.unit = ANY (earmark.units(p_amounts));

    v_answer := earmark.unmet(p_tenant, p_scopes, earmark.units(p_amounts), v_touched);
    IF v_answer IS NOT NULL THEN
        RETURN v_answer;
    END IF;
    v_answer := earmark.misfit(v_touched, p_amounts);
    IF v_answer IS NOT NULL THEN
        FOR i IN 1 .. cardinality(v_touched) LOOP
            v_touched[i].reserved := v_touched[i].reserved - coalesce((
                SELECT sum(reserved) FROM (
                    SELECT s.reserved FROM earmark.reservation_budgets s
                    WHERE s.budget_id = v_touched[i].budget_id AND s.window_start = v_touched[i].window_start AND s.overdue_at < v_now
                    ORDER BY s.overdue_at LIMIT earmark.most_in_the_way()
                ) AS in_the_way), 0);
        END LOOP;
        v_answer := earmark.misfit(v_touched, p_amounts);
    END IF;
    RETURN coalesce(v_answer, jsonb_build_object('outcome', 'applied'));
END $$;
-- +goose StatementEnd

-- An entry of the kind 'checkpoint' stands for those of pruned reservations in one
-- window, at the place of the last of them. It says how many there were of each.
ALTER TABLE earmark.entries ADD COLUMN pruned_entries bigint, ADD COLUMN pruned_reservations bigint;
ALTER TABLE earmark.entries DROP CONSTRAINT entries_kind_check,
    ADD CONSTRAINT entries_kind_check CHECK (kind IN ('reserve', 'commit', 'release', 'expire', 'charge', 'extend', 'review', 'reject', 'refuse', 'budget', 'adopt', 'checkpoint')) NOT VALID,
    -- Nothing that is held is pruned.
    ADD CONSTRAINT entries_checkpoint_check CHECK (CASE kind WHEN 'checkpoint' THEN window_start IS NOT NULL AND reservation_id IS NULL
        AND reserved_delta = 0 AND pruned_entries > 0 AND pruned_reservations > 0 ELSE pruned_entries IS NULL AND pruned_reservations IS NULL END) NOT VALID;
CREATE UNIQUE INDEX entries_checkpoint_key ON earmark.entries (budget_id, window_start) WHERE kind = 'checkpoint';

-- +goose StatementBegin
-- Entries are append-only, but for earmark.prune, which alone has this setting,
-- and only while it runs. What it deletes is checked by earmark.check_pruned.
CREATE OR REPLACE FUNCTION earmark.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND current_setting('earmark.pruning', true) = 'on' THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION 'entries are append-only: % is refused (R4)', TG_OP USING ERRCODE = 'restrict_violation';
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- How long a settled reservation is kept at least: for as long its idempotency key answers.
CREATE FUNCTION earmark.least_kept() RETURNS interval LANGUAGE sql IMMUTABLE AS $$ SELECT interval '720 hours' $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Refuses a deletion of entries, whoever tries it, unless they are those of
-- reservations that were settled long ago, or former checkpoints, and in every
-- window a checkpoint stands for just what was deleted.
CREATE FUNCTION earmark.check_pruned() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM gone g LEFT JOIN earmark.reservations r ON r.id = g.reservation_id
               WHERE g.kind <> 'checkpoint' AND (r.settled_at < clock_timestamp() - earmark.least_kept()) IS NOT TRUE) THEN
        RAISE EXCEPTION 'entries are append-only: DELETE of what was not settled long ago is refused (R4)' USING ERRCODE = 'restrict_violation';
    END IF;
    IF EXISTS (SELECT 1
               FROM (SELECT budget_id, window_start, sum(reserved_delta) AS reserved, sum(committed_delta) AS committed, max(id) AS id,
                            sum(coalesce(pruned_entries, 1)) AS entries FROM gone WHERE window_start IS NOT NULL GROUP BY 1, 2) AS g
                    LEFT JOIN earmark.entries e ON e.budget_id = g.budget_id AND e.window_start = g.window_start AND e.kind = 'checkpoint'
               WHERE (g.id, g.reserved, g.committed, g.entries) IS DISTINCT FROM (e.id, e.reserved_delta, e.committed_delta, e.pruned_entries)) THEN
        RAISE EXCEPTION 'entries are append-only: DELETE of what no checkpoint stands for is refused (R4)' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NULL;
END $$;
-- +goose StatementEnd

CREATE TRIGGER entries_pruned AFTER DELETE ON earmark.entries REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION earmark.check_pruned();
ALTER TABLE earmark.entries ENABLE ALWAYS TRIGGER entries_pruned;

-- +goose StatementBegin
-- Up to p_most reservations that were made before p_before and after the one at
-- (p_after_at, p_after_id), oldest first, and whether each can be pruned: it was
-- settled before p_before, its workflow knows it, and every window that it is in
-- is closed or never closes.
CREATE FUNCTION earmark.prunable(p_tenant text, p_before timestamptz, p_after_at timestamptz, p_after_id text, p_most integer)
    RETURNS TABLE (id text, created_at timestamptz, prunable boolean) LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_now timestamptz := clock_timestamp();
BEGIN
    RETURN QUERY
        SELECT r.id, r.created_at, r.state NOT IN ('held', 'review') AND r.settled_at < p_before AND NOT r.refresh_due
            AND NOT EXISTS (SELECT 1 FROM earmark.reservation_budgets s JOIN earmark.windows w ON w.budget_id = s.budget_id AND w.window_start = s.window_start
                            WHERE s.reservation_id = r.id AND w.window_end > v_now)
        FROM earmark.reservations r
        WHERE r.tenant = p_tenant AND r.created_at < p_before AND (r.created_at, r.id) > (p_after_at, p_after_id)
        ORDER BY r.created_at, r.id LIMIT p_most;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Looks at up to p_most reservations, as earmark.prunable has them, and removes
-- those that can be: the row, its shares and its entries. Balances stay as they
-- are, since a checkpoint in each window takes the place of what was removed (R3).
-- Answers how many were looked at and removed, and the last of them to go on
-- after; 'busy' where another prune is at work. With p_dry nothing is removed.
CREATE FUNCTION earmark.prune(p_tenant text, p_keep_ms bigint, p_after_at timestamptz, p_after_id text, p_most integer, p_dry boolean, p_actor text) RETURNS jsonb
LANGUAGE plpgsql SET lock_timeout = '1s' SET earmark.pruning = 'on' AS $$
DECLARE
    v_before  timestamptz := clock_timestamp() - p_keep_ms * interval '1 millisecond';
    v_ids     text[];
    v_former  bigint[]; -- checkpoints that there are already
    v_entries bigint;
    v_answer  jsonb;
BEGIN
    PERFORM earmark.require_read_committed();
    IF p_keep_ms * interval '1 millisecond' < earmark.least_kept() THEN
        RAISE EXCEPTION 'settled reservations are kept for % at least', earmark.least_kept() USING ERRCODE = 'invalid_parameter_value';
    ELSIF NOT pg_try_advisory_xact_lock(hashtextextended('earmark.prune', 0)) THEN
        RETURN jsonb_build_object('busy', true);
    END IF;

    SELECT jsonb_build_object('looked_at', count(*), 'last_at', max(p.created_at), 'last_id', (array_agg(p.id ORDER BY p.created_at DESC, p.id DESC))[1]),
           array_agg(p.id) FILTER (WHERE p.prunable)
    INTO v_answer, v_ids
    FROM earmark.prunable(p_tenant, v_before, p_after_at, p_after_id, p_most) p;
    IF p_dry THEN
        RETURN v_answer || jsonb_build_object('reservations', coalesce(cardinality(v_ids), 0),
            'entries', (SELECT count(*) FROM earmark.entries WHERE reservation_id = ANY (v_ids)));
    END IF;

    -- A late commit may have been faster, or may be at work now: those are left.
    SELECT array_agg(r.id) INTO v_ids FROM (
        SELECT id FROM earmark.reservations WHERE id = ANY (v_ids) AND settled_at < v_before AND NOT refresh_due FOR UPDATE SKIP LOCKED
    ) AS r;
    SELECT array_agg(e.id) INTO v_former
    FROM (SELECT DISTINCT budget_id, window_start FROM earmark.reservation_budgets WHERE reservation_id = ANY (v_ids)) AS s
         JOIN earmark.entries e ON e.budget_id = s.budget_id AND e.window_start = s.window_start AND e.kind = 'checkpoint';

    WITH gone AS (
        DELETE FROM earmark.entries WHERE reservation_id = ANY (v_ids) OR id = ANY (v_former) RETURNING *
    ), checkpoints AS (
        INSERT INTO earmark.entries (id, kind, tenant, budget_id, window_start, reserved_delta, committed_delta, reserved_after, committed_after,
                                     pruned_entries, pruned_reservations, actor, reason)
        OVERRIDING SYSTEM VALUE
        SELECT c.*, p_actor, format('stands for %s entries of %s reservations', c.entries, c.reservations)
        FROM (SELECT max(id), 'checkpoint', tenant, budget_id, window_start, sum(reserved_delta), sum(committed_delta),
                     (array_agg(reserved_after ORDER BY id DESC))[1], (array_agg(committed_after ORDER BY id DESC))[1],
                     sum(coalesce(pruned_entries, 1)) AS entries, count(DISTINCT reservation_id) + coalesce(sum(pruned_reservations), 0) AS reservations
              FROM gone WHERE window_start IS NOT NULL GROUP BY tenant, budget_id, window_start) AS c
    )
    SELECT count(*) FILTER (WHERE kind <> 'checkpoint') INTO v_entries FROM gone;
    DELETE FROM earmark.reservation_budgets WHERE reservation_id = ANY (v_ids);
    DELETE FROM earmark.reservations WHERE id = ANY (v_ids);
    RETURN v_answer || jsonb_build_object('reservations', coalesce(cardinality(v_ids), 0), 'entries', v_entries);
END $$;
-- +goose StatementEnd

-- +goose Down
-- What the release before calls stays: it works there as well.
DROP FUNCTION earmark.prune, earmark.prunable;
DROP TRIGGER entries_pruned ON earmark.entries;
DROP FUNCTION earmark.check_pruned, earmark.least_kept;
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION earmark.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'entries are append-only: % is refused (R4)', TG_OP USING ERRCODE = 'restrict_violation';
END $$;
-- +goose StatementEnd
ALTER TABLE earmark.entries DROP COLUMN pruned_entries, DROP COLUMN pruned_reservations;
DROP INDEX earmark.entries_checkpoint_key;
