-- Locks an envelope, all that is open below it and their pockets, in the order of `set_gate`: who acts on a run looks at
-- it then, and nothing of its money moves before that is decided.
create function lock_envelopes(p_project uuid, p_envelope uuid) returns void
language plpgsql security definer set search_path = public, pg_temp as $$
begin
  perform from account where kind = 'pocket' and envelope_id = any(lock_tree(p_project, p_envelope)) order by id
    for no key update;
end
$$;

grant execute on function lock_envelopes to purser_app;
revoke execute on function lock_envelopes from public;
