import { sql } from 'kysely'
import { extras } from './verify-attempts.ts'
import { byKey, epochOf, type TableCheck } from './verify-table.ts'

/** Keys of one statement where each row is looked up in the journal. */
const JOINED_PIECE = 10_000

/** Calls against their attempts, and against whose they are. */
export const callChecks: readonly TableCheck[] = [
  {
    name: 'answers',
    claim: 'an answered call has one useful attempt: the one that answered it',
    table: 'call',
    key: 'id',
    alias: 'c',
    pieceRows: JOINED_PIECE,
    movedBy: 'call_id',
    rows: (piece) => sql`
      with extra as materialized (
        select distinct call_id, attempt from (${extras}) e where code = 'correction' and use = 'useful'
      )
      select 'call ' || c.id as name, ${epochOf(sql`c.created_at`)} as place,
        case
          when c.state = 'open' and c.first is not null then 'has no answer but a useful attempt'
          when c.state = 'answered' and (c.first, c.last) is distinct from (c.answer_attempt, c.answer_attempt) then
            'was answered by attempt ' || c.answer_attempt || ', useful are '
            || coalesce(c.first || ' to ' || c.last, 'none')
          when c.state = 'answered' and p.id is null then 'its answer is missing'
        end as wrong
      from (
        select c.id, c.created_at, c.state, c.answer_id, c.answer_attempt,
          min(a.number) filter (where r.id is not null or e.call_id is not null) as first,
          max(a.number) filter (where r.id is not null or e.call_id is not null) as last
        from call c
        left join lateral (select a.number, a.call_id, a.hold_id from attempt a where a.call_id = c.id offset 0) a on true
        ${byKey('transfer', 'r', sql`r.pending_id = a.hold_id and r.call_id = c.id and r.code = 'capture' and r.use = 'useful'`)}
        left join extra e on e.call_id = a.call_id and e.attempt = a.number
        where ${piece} group by c.id
      ) c ${byKey('payload', 'p', sql`p.id = c.answer_id`)}`,
  },
  {
    name: 'calls',
    claim: 'every call is of a run, an envelope and a project that are there and belong together',
    table: 'call',
    key: 'id',
    alias: 'c',
    pieceRows: JOINED_PIECE,
    movedBy: 'call_id',
    rows: (piece) => sql`
      select 'call ' || c.id as name, ${epochOf(sql`c.created_at`)} as place,
        case
          when p.id is null then 'its project is missing'
          when e.id is null then 'its envelope is missing'
          when e.project_id <> c.project_id or e.run_id is distinct from c.run_id then
            'its envelope is of another run or project'
          when e.api_key_id is distinct from c.api_key_id then 'its envelope is of another key'
          when c.run_id is not null and r.id is null and e.parent_id is null then 'its run is missing'
          when r.project_id <> c.project_id or r.api_key_id <> c.api_key_id then 'its run is of another key or project'
          when c.state not in ('open', 'answered') then 'is ' || c.state
          when (c.state = 'answered') <> (c.answered_at is not null) or (c.state = 'answered') <> (c.answer_id is not null)
            or (c.state = 'answered') <> (c.answer_attempt is not null) then 'is ' || c.state || ', and its answer is not'
        end as wrong
      from call c
      ${byKey('project', 'p', sql`p.id = c.project_id`)}
      ${byKey('envelope', 'e', sql`e.id = c.envelope_id`)}
      ${byKey('run', 'r', sql`r.id = c.run_id`)}
      where ${piece}`,
  },
]
